"""A scheme of points for clauses that hold and tests that catch, from a TOML file or by default."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from kmutex._clauses import CLAUSES
from kmutex.verify.evidence import Result

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TOTAL = 10.0
LESSONS_CLAUSE = 4.0
"""The weight of the lesson's clause in the default scheme, in which other clauses have 1."""


class SchemeError(Exception):
    """The file is not a scheme. The message is one line; the exit status is 4."""


@dataclass(frozen=True)
class Scheme:
    """The weights of all parts. The score is the share of the total."""

    total: float = TOTAL
    """The points for a full score."""
    works: float = 1.0
    """For a locker that can be run."""
    others: float = 1.0
    """For each judged clause without its own weight. Clauses that do not apply do not count."""
    clauses: Mapping[str, float] = field(default_factory=dict)
    """Clauses with their own weight. They count even if they do not apply, and are then not earned."""


class Part(NamedTuple):
    """One part of a score: its possible and its earned points."""

    name: str
    result: str
    earned: float
    possible: float


def usual(clause: str | None) -> Scheme:
    """Return the default scheme for a lesson's clause."""
    return Scheme(clauses={} if clause is None else {clause: LESSONS_CLAUSE})


def scheme(path: Path) -> Scheme:
    """Read a scheme; raise SchemeError if it is wrong."""
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SchemeError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise SchemeError(f"{path}: not TOML: {error}") from None
    clauses = said.pop("clauses", {})
    if not isinstance(clauses, dict):
        raise SchemeError(f"{path}: clauses = {clauses!r}: it must be a table [clauses]")
    unknown = [*(said.keys() - {"total", "works", "others"}), *(clauses.keys() - set(CLAUSES))]
    if unknown:
        raise SchemeError(
            f"{path}: {sorted(unknown)[0]!r} is unknown; the keys are total, works, others and, in [clauses], KM-..."
        )
    for name, value in [*said.items(), *clauses.items()]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
            raise SchemeError(f"{path}: {name} = {value!r} is not a number of points")
    found = Scheme(**{name: float(value) for name, value in said.items()}, clauses=clauses)
    if not found.works + found.others + sum(clauses.values()):
        raise SchemeError(f"{path}: nothing is worth a point")
    return found


def of_rows(by: Scheme, rows: list[dict[str, Any]]) -> list[Part]:
    """Return the parts of a locker's score, from rows of kmutex verify --json. Undecided clauses are not earned."""
    results: dict[str, set[str]] = {}
    for row in rows:
        if row["clause"] in CLAUSES:
            results.setdefault(row["clause"], set()).add(row["result"])
    parts = [Part("it can be run", "yes", by.works, by.works)]
    for clause in CLAUSES:
        had = results.get(clause, set())
        result = next((each.value for each in _WORST if each.value in had), Result.NOT_APPLICABLE.value)
        weight = by.clauses.get(clause, by.others if result not in _NOT_JUDGED else 0.0)
        if weight:
            parts.append(Part(clause, result, weight if result in _EARNED else 0.0, weight))
    return parts


_WORST = (Result.VIOLATED, Result.INCONCLUSIVE, Result.HOLDS, Result.NOTED, Result.OFF, Result.NOT_APPLICABLE)
_EARNED = (Result.HOLDS.value, Result.NOTED.value)
_NOT_JUDGED = (Result.OFF.value, Result.NOT_APPLICABLE.value, Result.NOT_PROMISED.value)


def of_tests(lockers: list[dict[str, Any]]) -> list[Part]:
    """Return the parts of the score of tests. Broken lockers count the same; rejecting a correct one gives zero."""
    sound = all(row["result"] in ("accepted", "not tried") for row in lockers if row["breaks"] is None)
    return [
        Part(row["locker"], row["result"], float(sound and row["result"] == "caught"), 1.0)
        for row in lockers
        if row["breaks"] is not None
    ]


def score(by: Scheme, parts: list[Part]) -> float:
    """Return the score, rounded to a hundredth."""
    possible = sum(part.possible for part in parts)
    return round(by.total * sum(part.earned for part in parts) / possible, 2) if possible else 0.0
