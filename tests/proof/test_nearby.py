"""Formula and property of each clause agree on every step near a right one, and each is needed there."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections import Counter
from pathlib import Path

import pytest

from kmutex_model.proof import clauses
from kmutex_model.proof.tie import Judge
from tests.proof.nearby import nearby, verdicts

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("run_model_mutants", ROOT / "tests" / "mutants" / "run_model_mutants.py")
assert spec is not None
assert spec.loader is not None
run = importlib.util.module_from_spec(spec)
sys.modules["run_model_mutants"] = run
spec.loader.exec_module(run)


def test_formula_and_property_draw_the_same_line() -> None:
    """KM-CANCEL, KM-FIFO, KM-TOKEN, KM-EXPIRED, KM-INTERRUPT and the others: each is broken here, and by both alike."""
    judge, broken = Judge(), Counter[str]()
    for one in nearby():
        for clause, formula, prop in verdicts(judge, one):
            assert formula == prop, (clause, one.transition)
            broken[clause] += not prop
    assert set(broken) == {*clauses.STATE, *clauses.STEP}
    assert min(broken.values()) > 0


@pytest.mark.parametrize("stem", ["properties", "clauses"])
def test_a_check_that_has_lost_a_part_is_seen(stem: str) -> None:
    """Every twelfth mutant of `tests/mutants/run_model_mutants.py`, which tries all."""
    path = run.MODEL / ("properties.py" if stem == "properties" else "proof/clauses.py")
    every = [one for one in run.mutants(path) if one.function not in run.RANK]
    assert len(every) > 50
    for mutant in itertools.islice(every, 5, None, 12):
        listed = (mutant.function, mutant.lost) in run.EQUAL
        assert run.survives_beside_the_other(mutant, path) == listed, mutant[:2]


def test_a_mutant_that_says_the_same_survives() -> None:
    """The judge of mutants is not blind, and does not kill what is right."""
    path = run.MODEL / "properties.py"
    same = run.Mutant("one_owner", "nothing", path.read_text(encoding="utf-8"))
    assert run.survives_beside_the_other(same, path)
