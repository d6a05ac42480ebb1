"""Who watches a run, and how a run ends."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any, Protocol

from kmutex.engine.program import Step


def without_frames(error: BaseException) -> BaseException:
    """The error without the subject's frames, its own and those of its causes: they would keep entries alive."""
    chain, seen = [error], set[int]()
    while chain:
        one = chain.pop()
        if id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            chain += [other for other in (one.__cause__, one.__context__) if other is not None]
    return error


class Observer(Protocol):
    """Is told of each event of a run, in the order in which they happened. Judges; never changes the run."""

    @property
    def stopped(self) -> bool:
        """True once it has seen enough: the run then ends."""

    def made(self, subject: Any) -> None:
        """The subject of this run."""

    def phase(self, number: int) -> None:
        """A phase of the program begins."""

    def called(self, client: int, step: Step) -> None:
        """The client begins the call."""

    def returned(self, client: int, step: Step) -> None:
        """The call is back, without an error."""

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        """The call is back, with an error."""

    def cancelled(self, client: int) -> None:
        """The client's wait is over: its timeout fired, it was interrupted, or its task was cancelled."""

    def failed(self, error: BaseException) -> None:
        """A callback on the event loop raised it: no caller is told."""

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        """Nobody can move. The calls that wait, and the clients among them whose time is over."""


class Ending(Enum):
    """How a run ended."""

    DONE = "done"
    """Every client did all it had to do, or waits and nobody can move."""
    STOPPED = "stopped"
    """The observer had seen enough."""
    ENDLESS = "endless"
    """No end after the largest number of steps that a run may take."""


class UncontrolledError(Exception):
    """The subject blocks, or runs on, in something that the scheduler does not replace."""


class SubjectFailedError(Exception):
    """The factory failed, or the subject left the process."""
