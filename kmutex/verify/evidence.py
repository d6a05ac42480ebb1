"""What a check found: rows, each for one clause by one method, and what they add up to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


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

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Violation:
        """What `asdict` gave, after JSON."""
        return cls(**{**plain, "clauses": tuple(plain["clauses"])})


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
    detail: str = ""
    """One line: why, where the result is not a plain HOLDS."""
    subject: str = ""
    violations: tuple[Violation, ...] = field(default=())


def exit_status(rows: Iterable[Row]) -> int:
    """0 all holds, 1 a clause is violated, 2 something is inconclusive or nothing was checked at all."""
    results = {row.result for row in rows}
    if Result.VIOLATED in results:
        return 1
    if Result.INCONCLUSIVE in results or Result.HOLDS not in results:
        return 2
    return 0
