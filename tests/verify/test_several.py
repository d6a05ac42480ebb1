"""The check of hold_all: broken ones are convicted, sound ones and this library's are accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.verify.checks.several import FAMILIES
from kmutex.verify.evidence import Result, Violation
from kmutex.verify.plan import FAMILIES as FAMILIES_PLANNED
from kmutex.verify.plan import Unit, plan
from kmutex.verify.results import UnitResult, rows
from tests.lockers.catalogue import Row, entries, load
from tests.lockers.catalogue import rows as lockers
from tests.verify.checked import checked

# A run that has seen enough ends amid what the subject began.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LOCKERS = [row for row in entries(origin="test") if row.module == "tests.lockers.several"]


def judged(make: Callable[[], Any], without: tuple[str, ...] = ()) -> tuple[list[UnitResult], Harness]:
    """What each part of the check gives, up to the first that finds something."""
    where = Harness(make, without=without, promises=PROMISES)
    outcomes = []
    with where.control():
        for part in range(len(FAMILIES)):
            outcomes.append(checked(where, "several", part))
            if outcomes[-1].found:
                break
    return outcomes, where


def found_in(outcomes: list[UnitResult]) -> list[Violation]:
    return [found for outcome in outcomes for found in outcome.found]


@pytest.mark.parametrize("row", [row for row in LOCKERS if row.expect == "violation"], ids=lambda row: row.name)
def test_a_broken_one_is_convicted(row: Row) -> None:
    """KM-ALL: first of the clauses, with the program and the keys that stand for one."""
    outcomes, where = judged(load(row), row.without)
    assert {found.clauses[0] for found in found_in(outcomes)} == {"KM-ALL"}
    assert any(words in found_in(outcomes)[0].message for words in FAMILIES)
    assert found_in(outcomes)[0].picture
    table = rows(row.name, where.shape, frozenset(), outcomes, [])
    assert {line.result for line in table if line.clause == "KM-ALL"} == {Result.VIOLATED}


@pytest.mark.parametrize("row", [row for row in LOCKERS if row.expect == "holds"], ids=lambda row: row.name)
def test_a_sound_one_is_accepted(row: Row) -> None:
    """KM-ALL: also where the order is another, which it did not promise."""
    accepted(judged(load(row), row.without)[0])


def accepted(outcomes: list[UnitResult]) -> None:
    assert [(found.clauses, found.message, found.picture) for found in found_in(outcomes)] == []
    assert len(outcomes) == len(FAMILIES) == FAMILIES_PLANNED
    for outcome in outcomes:
        assert (outcome.complete, outcome.endless) == (True, 0)
        assert outcome.witnesses["KM-ALL"] == outcome.runs > 20


def test_who_promises_an_order_is_held_to_it() -> None:
    """KM-ALL, KM-FIFO: to sort the keys serves who asked later."""
    found = found_in(judged(load(lockers()["asyncio.Sorts"]))[0])
    assert {one.clauses for one in found} <= {("KM-ALL", "KM-FIFO"), ("KM-ALL", "KM-HANDOFF", "KM-FIFO")}
    assert found


@pytest.mark.parametrize("make", [KeyedMutex, AsyncKeyedMutex])
def test_this_library_keeps_the_clause(make: Callable[[], Any]) -> None:
    """KM-ALL: with every promise."""
    accepted(judged(make)[0])


def test_it_is_asked_only_of_who_has_it() -> None:
    """KM-ALL: not applicable to all others."""
    with_it, without = Harness(KeyedMutex), Harness(load(lockers()["threads.ConditionTable"]))
    assert [
        any(unit.task == "several" for units in _first(where) for unit in units) for where in (with_it, without)
    ] == [
        True,
        False,
    ]
    (row,) = (row for row in rows("x", without.shape, frozenset(), [], []) if row.clause == "KM-ALL")
    assert row.result is Result.NOT_APPLICABLE


def _first(where: Harness) -> list[list[Unit]]:
    passes = plan(where.shape)
    return [next(passes) for _ in range(4)]
