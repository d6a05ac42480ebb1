"""What a check found: rows, each for one clause by one method, and what they add up to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from kmutex.engine.run_judge import Event


class Result(str, Enum):
    """The outcome of one check. Only HOLDS is a pass; what was not decided is never one."""

    HOLDS = "holds"
    VIOLATED = "violated"
    INCONCLUSIVE = "inconclusive"
    """The check ended without an answer: out of time, unknown, not confirmed, or its witness never seen."""
    OFF = "off"
    """Declared off with --without."""
    NOTED = "noted"
    """A difference from the reference that the interface of a stranger's locker allows."""
    NOT_PROMISED = "not promised"
    """Broken, and no part of being a keyed mutex: it counts with --strict or --with only."""
    NOT_APPLICABLE = "not applicable"
    """The subject has nothing that the clause speaks of."""


@dataclass(frozen=True)
class Violation:
    """One counterexample: what went wrong, the schedule that replays it, and its picture."""

    clauses: tuple[str, ...]
    """The best name first, then the other clauses that the same run breaks."""
    message: str
    schedule: str = ""
    """The argument of --replay; empty where the method has no schedule."""
    picture: str = ""
    """The timeline as plain text, one line a step; empty where the method has none."""
    symptom: str = ""
    """The clause that the run shows broken, whatever is to blame for it; empty where nobody asks."""
    events: tuple[Event, ...] = ()
    """What the timeline is made from, where it is known; with the lines of the subject's code in it at which
    clients stood, where they were looked for."""
    place: str = ""
    """FILE:LINE of the subject's code: where the run stood when it was seen, or else its factory."""

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Violation:
        """What `asdict` gave, after JSON."""
        events = tuple(Event(*event) for event in plain["events"])
        return cls(**{**plain, "clauses": tuple(plain["clauses"]), "events": events})

    @property
    def length(self) -> tuple[bool, int, int]:
        """How much there is to read: calls, answers and verdicts of its run, then the picture. First those that have
        lines of code."""
        calls = sum(not event.place for event in self.events)
        return calls == len(self.events), calls, len(self.picture)


@dataclass(frozen=True)
class Row:
    """The evidence of one method for one clause."""

    clause: str
    method: str
    bound: str
    """What was covered, in words with figures: "3 clients, 2 keys, 2 preemptions, complete"."""
    cases: int
    result: Result
    seconds: float
    """Its part of the real time: the rows of one method share what the method took, so that they add up."""
    detail: str = ""
    """One line: why, where the result is not a plain HOLDS."""
    subject: str = ""
    violations: tuple[Violation, ...] = field(default=())


def shared(rows: Iterable[Row], workers: int = 1) -> list[Row]:
    """The rows, of which each has the seconds of its whole method, with its part of these.

    workers: processes that spent them side by side.
    """
    every = list(rows)
    many = Counter(row.method for row in every)
    return [replace(row, seconds=row.seconds / many[row.method] / workers) for row in every]


VERDICT = {0: "holds", 1: "violated", 2: "inconclusive"}
"""What the exit statuses say."""


def exit_status(rows: Iterable[Row]) -> int:
    """0 all holds, 1 a clause is violated, 2 something is inconclusive or nothing was checked at all."""
    results = {row.result for row in rows}
    if Result.VIOLATED in results:
        return 1
    if Result.INCONCLUSIVE in results or Result.HOLDS not in results:
        return 2
    return 0
