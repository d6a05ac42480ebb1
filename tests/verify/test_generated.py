"""All small programs: one of each, in an order that the model decides, and what they find."""

from __future__ import annotations

from itertools import permutations

import pytest

from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import Program, parse
from kmutex.engine.scenarios import programs
from kmutex.engine.shapes import Shape
from kmutex.verify.generated import SIZE, generated
from kmutex.verify.plan import plan
from kmutex.verify.results import UnitResult, rows
from tests.lockers.catalogue import load

KINDS = frozenset("+-~c?x")
SHAPE = Shape(kind="threads", timeout=True, counts=True, leases=False)


def names(program: Program) -> set[str]:
    """The text in all names of clients and keys, each phase in the order of its letters."""
    text = str(program)
    said = set()
    for who in permutations("012"):
        for keys in permutations("ab"):
            other = text.translate(str.maketrans("012ab", "".join((*who, *keys))))
            said.add(" | ".join(" ".join(sorted(part.split())) for part in other.split("|")))
    return said


def test_there_is_one_of_each_and_none_that_is_run_anyway() -> None:
    chosen = programs()
    small = generated(KINDS, 2, "keep", chosen)
    said = [frozenset(names(program)) for program in small]
    assert len(set(said)) == len(small)
    assert not set(said) & {frozenset(names(program)) for program in chosen}
    assert {frozenset(names(program)) for program in generated(KINDS, 2, "keep")} >= set(said)
    assert all(parse(str(program)) == program for program in small)


@pytest.mark.parametrize(("text", "there"), [("0+a 1~a 2?a", True), ("0+a 1+b 2+c", False), ("0+a 1xa", False)])
def test_what_is_among_them(text: str, there: bool) -> None:
    """Three clients at once; not three keys; not an unlock of a key that somebody asks for at the same time."""
    assert any(names(program) & names(parse(text)) for program in generated(KINDS, 2, "keep")) == there


def test_what_a_subject_does_not_know_is_in_none() -> None:
    assert {"".join(sorted(program.kinds)) for program in generated(frozenset("+-"), 1, "keep")} <= {"+", "+-"}
    assert all(program.keys == ("a",) for program in generated(KINDS, 1, "pass"))


def test_those_that_show_most_of_the_model_come_first() -> None:
    """With one key and plain locking the first is the one with three clients, which shows all that two show."""
    assert str(generated(frozenset("+"), 1, "keep")[0]) == "0+a 1+a 2+a"
    after = generated(frozenset("+"), 1, "keep", [parse("0+a 1+a 2+a")])
    assert "0+a 1+a 2+a" not in map(str, after)


def test_the_plan_has_them_when_there_is_time_and_the_report_says_how_many() -> None:
    passes = (units for units in plan(SHAPE) if units[0].method == "programs from the model")
    units = next(passes)
    assert {unit.among for unit in units} == {len(units)}
    assert units[0].chance
    done = UnitResult(units[0], runs=3, complete=True)
    done.witnesses["KM-EXCL"] = 1
    bounds = {row.bound for row in rows("it", SHAPE, frozenset(), [done], units[1:]) if row.clause == "KM-EXCL"}
    assert any(f"1 of the {len(units)} further programs of up to {SIZE} steps complete" in one for one in bounds)


@pytest.mark.parametrize(
    ("name", "found"),
    [("asyncio.StrayUnlockAccepted", True), ("asyncio.CancelDeletesKey", True), ("asyncio.Handing", False)],
)
def test_they_find_what_is_wrong_and_accuse_nobody_else(name: str, found: bool) -> None:
    """KM-UNHELD, KM-CANCEL."""
    bench = Harness(load(name), promises=PROMISES)
    with bench.control():
        small = generated(frozenset("+-~cx"), 2, "pass", programs())[::4]
        assert any(bench.explorer.every(program, "tasks", 1).found for program in small) == found
