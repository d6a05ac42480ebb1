"""The observer of a run, and the endings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from kmutex.engine.program import Step


def without_frames(error: BaseException) -> BaseException:
    """Remove the frames of an error and of its causes: the subject's frames would keep entries alive."""
    chain, seen = [error], set[int]()
    while chain:
        one = chain.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            chain += [other for other in (one.__cause__, one.__context__) if other is not None]
    return error


class Observer:
    """Gets each event of a run, in order. It judges, and never changes the run. This one takes no notice of any."""

    @property
    def stopped(self) -> bool:
        """True once it needs no more events: the run then ends."""
        return False

    def made(self, subject: Any) -> None:
        """The subject of this run."""

    def phase(self, number: int) -> None:
        """A phase of the program begins."""

    def called(self, client: int, step: Step) -> None:
        """The client begins the call."""

    def returned(self, client: int, step: Step) -> None:
        """The call has returned."""

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        """The call has raised an error."""

    def cancelled(self, client: int) -> None:
        """The client's wait is over: its timeout fired, it was interrupted, or its task was cancelled."""

    def failed(self, error: BaseException) -> None:
        """A callback on the event loop raised an error, which no caller gets."""

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        """A quiescent state: the calls that wait, and the clients among them whose time is over."""


class Ending(Enum):
    """How a run ended."""

    DONE = "done"
    """Every client is done, or waits and nobody can move."""
    STOPPED = "stopped"
    """The observer needed no more events."""
    ENDLESS = "endless"
    """The run did not end within the step limit."""


class UncontrolledError(Exception):
    """The subject blocks, or keeps running, in code that the scheduler does not control."""


class SubjectFailedError(Exception):
    """The factory failed, or the subject tried to leave the process."""
