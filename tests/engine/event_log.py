"""An observer of a run that writes down what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kmutex.engine.observer import Observer
from kmutex.engine.program import Step


class EventLog(Observer):
    """A line for each event. fails_at: a line at which it raises a LookupError."""

    def __init__(self, fails_at: str = "") -> None:
        self.lines: list[str] = []
        self.subject: Any = None
        self.waiting: list[dict[int, Step]] = []
        self._fails_at = fails_at

    def _say(self, line: str) -> None:
        self.lines.append(line)
        if line == self._fails_at:
            raise LookupError(f"the observer fails at {line}")

    def made(self, subject: Any) -> None:
        self.subject = subject

    def phase(self, number: int) -> None:
        self._say(f"phase {number}")

    def called(self, client: int, step: Step) -> None:
        self._say(f"{client} {step} ...")

    def returned(self, client: int, step: Step) -> None:
        self._say(f"{client} {step}")

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self._say(f"{client} {step}: {type(error).__name__}")

    def cancelled(self, client: int) -> None:
        self._say(f"{client} cancelled")

    def failed(self, error: BaseException) -> None:
        self._say(f"a callback raised {error}")

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self.waiting.append(dict(waiting))
        self._say(f"quiet {sorted(waiting)} {sorted(overdue)}")
