"""The evidence of a check: rows, each for one clause by one method, and the verdict that follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from kmutex.engine.run_judge import Event


class Result(str, Enum):
    """The outcome of one check. Only HOLDS is a pass."""

    HOLDS = "holds"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"
    """The check ended without an answer: out of time, unknown, not confirmed, or never put to the test."""
    OFF = "off"
    """Declared off with --without."""
    NOTED = "noted"
    """A difference from the reference that another locker's interface allows."""
    NOT_PROMISED = "not promised"
    """Broken, but a keyed mutex need not have it: it counts with --strict or --with only."""
    NOT_APPLICABLE = "not applicable"
    """The subject has no such feature."""


@dataclass(frozen=True)
class Violation:
    """One counterexample: the message, the schedule that replays it, and its timeline."""

    clauses: tuple[str, ...]
    """The best name first, then the other clauses that the same run breaks."""
    message: str
    schedule: str = ""
    """The argument of --replay; empty if the method has no schedule."""
    picture: str = ""
    """The timeline as plain text, one line a step; empty if the method has no timeline."""
    symptom: str = ""
    """The clause of what was observed, whatever the cause; empty if it is not needed."""
    events: tuple[Event, ...] = ()
    """The events of the timeline, if known, with the source line of each client, if known."""
    place: str = ""
    """FILE:LINE of the subject's code: where the run was at the violation, or else its factory."""

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Violation:
        """Restore a violation from the JSON form of `asdict`."""
        events = tuple(Event(*event) for event in plain["events"])
        return cls(**{**plain, "clauses": tuple(plain["clauses"]), "events": events})

    def said(self, *, promised: bool = True) -> str:
        """Return its clauses and its message in one line. promised: whether it counts."""
        return f"{', '.join([*self.clauses, *(() if promised else ('not promised',))])}: {self.message}"

    @property
    def length(self) -> tuple[bool, int, int]:
        """Return a sort key for how much there is to read: runs with source lines first, then by events, then by the
        length of the timeline."""
        calls = sum(not event.place for event in self.events)
        return calls == len(self.events), calls, len(self.picture)


@dataclass(frozen=True)
class Row:
    """The evidence of one method about one clause."""

    clause: str
    method: str
    bound: str
    """What was covered, in words with figures: "3 clients, 2 keys, 2 preemptions, complete"."""
    cases: int
    result: Result
    seconds: float
    """Its share of the real time: the rows of one method share the method's time, so that they add up."""
    detail: str = ""
    """One line: the reason, if the result is not a plain HOLDS."""
    subject: str = ""
    violations: tuple[Violation, ...] = field(default=())


def shared(rows: Iterable[Row], workers: int = 1) -> list[Row]:
    """Divide the time of each method among its rows. Before, each row has the whole time of its method.

    Args:
        rows: The rows.
        workers: The number of processes that ran in parallel.
    """
    every = list(rows)
    many = Counter(row.method for row in every)
    return [replace(row, seconds=row.seconds / many[row.method] / workers) for row in every]


VERDICT = {0: "holds", 1: "violated", 2: "inconclusive"}
"""The meaning of each exit status."""


def exit_status(rows: Iterable[Row]) -> int:
    """Return 0 if all holds, 1 if a clause is violated, 2 if something is inconclusive or nothing was checked."""
    results = {row.result for row in rows}
    if Result.VIOLATED in results:
        return 1
    if Result.INCONCLUSIVE in results or Result.HOLDS not in results:
        return 2
    return 0
