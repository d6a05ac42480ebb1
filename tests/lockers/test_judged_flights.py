"""Single flights of the catalogue, put through programs and checks: the bad are convicted, the sound are not."""

from __future__ import annotations

from collections import Counter

import pytest

from kmutex._clauses import FLIGHT_CLAUSES
from kmutex.engine.explorer import Explorer, Level
from kmutex.engine.features import clauses_off
from kmutex.engine.flight_judge import put_on_trial
from kmutex.engine.scenarios import flights
from kmutex.engine.shapes import fit
from kmutex.engine.threads import Crew, controlled
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.plan import Unit
from kmutex.verify.results import UnitResult
from tests.lockers.catalogue import Row, each, entries, load

# A run that has seen enough ends in the midst of what the subject began.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

LOCKERS = entries(kind=("threads", "asyncio"), shape="single-flight", origin=("written", "wild"))
PASSES: dict[str, tuple[tuple[Level, int], ...]] = {
    "threads": (("locks", 0), ("locks", 1), ("bytecode", 1)),
    "asyncio": (("tasks", 0), ("tasks", 2)),
}
MOST = 30
"""Runs of one program."""


def judged(row: Row, witnesses: Counter[str]) -> set[str]:
    """The clauses that are broken, as `verify` goes about it: what a plainer program shows is not blamed on another."""
    make = load(row)
    found: set[str] = set()
    with controlled(make):
        fitted = fit(make)
        assert (fitted.shape.kind, fitted.shape.form) == (row.kind, "flight")
        loose = clauses_off(fitted.shape.loose)
        explorer = Explorer.of(fitted, crew=Crew() if row.kind == "threads" else None, unpromised=loose)
        shape, make, explorer = put_on_trial(fitted.shape, fitted.make, explorer)
        known: set[tuple[frozenset[str], str]] = set()
        for level, bound in PASSES[row.kind]:
            for program in flights(forget=shape.forgets):
                if (level == "bytecode" and program.clients > 2) or (found and bound):
                    continue
                parts = program.ingredients
                plainer = {symptom for other, symptom in known if other < parts}
                result = explorer.every(program, level, bound, known=plainer, go_on=lambda runs: runs < MOST)
                assert (result.exited, result.endless, result.uncountable) == (None, 0, False)
                witnesses.update(result.witnesses)
                for finding, _ in result.found.values():
                    found |= set(finding.clauses)
                    known.add((parts, finding.symptom))
        symptoms = frozenset(symptom for _, symptom in known)
        for name in ("keys", "memory"):
            outcome = UnitResult(Unit(0, name, name))
            CHECKS[name](Context(make, shape, explorer, lambda runs: runs, symptoms, loose), outcome)
            assert outcome.complete or found or outcome.found or outcome.unpromised, name
            witnesses.update(outcome.witnesses)
            found |= {clause for violation in outcome.found for clause in violation.clauses}
    return found


@each(LOCKERS, "violation")
def test_a_bad_flight_is_convicted_of_its_mistake_alone(row: Row) -> None:
    """By the best name, and by no other than the catalogue has."""
    found = judged(row, Counter())
    assert row.clauses[0] in found
    # One from the wild has its own story, and may have more of it.
    assert found <= set(row.clauses) or row.origin == "wild"


@each(LOCKERS, "holds")
def test_a_sound_flight_is_not(row: Row) -> None:
    """Nothing is found, and every clause was put to the test."""
    witnesses: Counter[str] = Counter()
    assert judged(row, witnesses) == set()
    # What a cache keeps is told, and no witness.
    wanted = set(FLIGHT_CLAUSES) - clauses_off(fit(load(row)).shape.loose)
    assert {clause for clause in wanted if not witnesses[clause]} == set()


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_each_clause_convicts_one_that_breaks_no_other(kind: str) -> None:
    """KM-ONE, KM-RESULT, KM-LEADER, KM-FOLLOWER, KM-FORGET, KM-APART, KM-RETURN: none is there for nothing."""
    assert {row.clauses for row in LOCKERS if row.kind == kind} >= {(clause,) for clause in FLIGHT_CLAUSES}
