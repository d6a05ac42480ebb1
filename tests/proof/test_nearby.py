"""Formula and property of each clause agree on every step near a right one, and each is needed there."""

from __future__ import annotations

import ast
import itertools
from collections import Counter
from pathlib import Path

import pytest

from kmutex_model.proof import clauses
from kmutex_model.proof.tie import Judge
from tests.proof.nearby import judge_of_rank, nearby, verdicts
from tests.scripts import loaded

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
run = loaded(ROOT / "tests" / "mutants" / "run_model_mutants.py")
CLAUSES = run.MODEL / "proof" / "clauses.py"


def test_formula_and_property_draw_the_same_line() -> None:
    """KM-CANCEL, KM-FIFO, KM-TOKEN, KM-EXPIRED, KM-LIVE's rank and the others: each is broken, and by both alike."""
    broken = Counter[str]()
    for judge, one in itertools.product((Judge(), judge_of_rank()), nearby()):
        for clause, formula, prop in verdicts(judge, one):
            assert formula == prop, (clause, one.transition)
            broken[clause] += not prop
    assert {*clauses.STATE, *clauses.STEP, *clauses.RANK, "the ghost"} < set(broken)
    assert min(broken.values()) > 0


def test_a_formula_that_has_lost_a_part_is_seen() -> None:
    """Every sixth mutant of `tests/mutants/run_model_mutants.py`, which tries all."""
    every = list(run.mutants(CLAUSES))
    assert len(every) > 50
    for mutant in itertools.islice(every, 5, None, 6):
        listed = (mutant.name, mutant.lost) in run.EQUAL
        assert run.survives_beside_the_other(mutant, CLAUSES) == listed, mutant[:2]


def test_a_mutant_that_says_the_same_survives() -> None:
    """The judge of mutants is not blind, and does not kill what is right."""
    same = next(one for one in ast.parse(CLAUSES.read_text(encoding="utf-8")).body if isinstance(one, ast.FunctionDef))
    assert run.survives_beside_the_other(run.Mutant(same.name, "nothing", same), CLAUSES)
