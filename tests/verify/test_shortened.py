"""What verify shows is made smaller, and whatever goes wrong in that, stays as it was found."""

from __future__ import annotations

import re

import pytest

from kmutex.verify.evidence import Result, Row, Violation
from kmutex.verify.runner import shortened

LONG = "0+b | 1+a | 2+c-c | 3?b | 1-a @locks"
FORGETS = "tests.lockers.kmutex_bad:Forgets"


def rows(schedule: str = LONG) -> list[Row]:
    """A table with one violation in two rows, and a row without."""
    violation = Violation(("KM-REF",), "as it was found", schedule, "a long picture")
    found = Row("KM-REF", "one", "-", 1, Result.VIOLATED, 0.0, "as it was found", "x", (violation,))
    more = Row("KM-REF", "two", "-", 1, Result.VIOLATED, 0.0, "as it was found", "x", (violation, violation))
    return [found, more, Row("KM-EXCL", "one", "-", 1, Result.HOLDS, 0.0)]


def test_what_is_not_needed_is_left_out() -> None:
    """KM-REF, where one client holds one key; in each row that shows the run, and in its words."""
    before = rows()
    after = shortened(before, FORGETS, (), [], 60.0)
    small = after[0].violations[0]
    assert re.fullmatch(r"\d[+?][abc] @locks", small.schedule)
    assert small.clauses == ("KM-REF",)
    assert small.picture.splitlines()[-1] == ">> KM-REF: len() is 0, and 1 key is held or waited for"
    assert after[0].detail == small.message
    assert after[1].violations == (small, before[1].violations[1])
    assert after[2] == before[2]


@pytest.mark.parametrize(
    ("target", "schedule", "seconds"),
    [
        (FORGETS, LONG, 0.0),
        (FORGETS, "", 60.0),
        ("kmutex:KeyedMutex", LONG, 60.0),
        ("tests.lockers.odd:LeavesLater", "0+a | 1+a @locks", 60.0),
        ("tests.lockers.odd:Exits", "0+a @locks", 60.0),
        ("tests.lockers.odd:AsyncSound", "0+a @locks", 60.0),
    ],
    ids=["no time", "no schedule", "not seen again", "leaves", "can't be put to work", "does not fit"],
)
def test_what_can_not_be_made_smaller_stays(target: str, schedule: str, seconds: float) -> None:
    assert shortened(rows(schedule), target, (), [], seconds) == rows(schedule)
