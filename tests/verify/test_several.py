"""The check of hold_all: broken ones are convicted, sound ones and this library's are accepted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.checks.several import FAMILIES
from kmutex.verify.evidence import Result
from kmutex.verify.plan import Unit, plan
from kmutex.verify.results import UnitResult, rows
from tests.lockers.catalogue import Row, entries, load
from tests.lockers.catalogue import rows as lockers

# A run that has seen enough ends amid what the subject began.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LOCKERS = [row for row in entries(origin="test") if row.module == "tests.lockers.several"]


def judged(make: Callable[[], Any], without: tuple[str, ...] = ()) -> tuple[UnitResult, Harness]:
    where = Harness(make, without=without, promises=PROMISES)
    with where.control():
        outcome = UnitResult(Unit(0, "several", "several"))
        context = Context(where.fitted.make, where.shape, where.explorer, lambda runs: runs, frozenset())
        CHECKS["several"](context, outcome)
    return outcome, where


@pytest.mark.parametrize("row", [row for row in LOCKERS if row.expect == "violation"], ids=lambda row: row.name)
def test_a_broken_one_is_convicted(row: Row) -> None:
    """KM-ALL: first of the clauses, with the program and the keys that stand for one."""
    outcome, where = judged(load(row), row.without)
    assert {found.clauses[0] for found in outcome.found} == {"KM-ALL"}
    assert any(words in outcome.found[0].message for words in FAMILIES)
    assert outcome.found[0].picture
    table = rows(row.name, where.shape, frozenset(), [outcome], [])
    assert {line.result for line in table if line.clause == "KM-ALL"} == {Result.VIOLATED}


@pytest.mark.parametrize("row", [row for row in LOCKERS if row.expect == "holds"], ids=lambda row: row.name)
def test_a_sound_one_is_accepted(row: Row) -> None:
    """KM-ALL: also where the order is another, which it did not promise."""
    outcome, _ = judged(load(row), row.without)
    assert [(found.clauses, found.message) for found in outcome.found] == []
    assert (outcome.complete, outcome.endless) == (True, 0)
    assert outcome.witnesses["KM-ALL"] == outcome.runs > 3 * len(FAMILIES)


def test_who_promises_an_order_is_held_to_it() -> None:
    """KM-ALL, KM-FIFO: to sort the keys serves who asked later."""
    outcome, _ = judged(load(lockers()["asyncio.Sorts"]))
    assert {found.clauses for found in outcome.found} <= {("KM-ALL", "KM-FIFO"), ("KM-ALL", "KM-HANDOFF", "KM-FIFO")}
    assert outcome.found


@pytest.mark.parametrize("make", [KeyedMutex, AsyncKeyedMutex])
def test_this_library_keeps_the_clause(make: Callable[[], Any]) -> None:
    """KM-ALL: with every promise."""
    outcome, _ = judged(make)
    assert [(found.clauses, found.message, found.picture) for found in outcome.found] == []
    assert (outcome.complete, outcome.endless) == (True, 0)


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
