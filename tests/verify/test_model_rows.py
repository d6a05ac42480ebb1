"""A row of the model holds only where the model is right, its witnesses met, and its known-bad models caught."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import pytest

from kmutex.selfcheck import model
from kmutex.verify.evidence import Result, Row, exit_status
from kmutex_model import several
from kmutex_model.actions import CORRECT, parse_schedule
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import explore
from kmutex_model.properties import ALL, Property, Sometimes
from kmutex_model.state import Config

SMALL = ((4, 1), (3, 2))


def row_of(rows: Iterable[Row], clause: str) -> Row:
    return next(row for row in rows if row.clause == clause)


def changed(clause: str, **changes: object) -> Sequence[Property]:
    """All properties, with one of them changed."""
    return [replace(prop, **changes) if prop.clause == clause else prop for prop in ALL]  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def real() -> list[Row]:
    return model.check()


def test_the_correct_model_holds(real: list[Row]) -> None:
    """One row for each property, and each holds: KM-LIVE by the search for fair cycles, the others step by step."""
    assert [row.clause for row in real] == [prop.clause for prop in ALL]
    assert {row.result for row in real} == {Result.HOLDS}
    assert exit_status(real) == 0


@pytest.mark.long
def test_the_model_of_several_keys_holds() -> None:
    """KM-ALL: a row for each of its properties."""
    rows = model.check_several()
    assert [row.clause for row in rows] == ["KM-ALL"] * len(several.ALL)
    assert {row.result for row in rows} == {Result.HOLDS}, [row.detail for row in rows]


def test_the_figures_are_those_of_the_explorer(real: list[Row]) -> None:
    """States and steps in a row are counted, and so are the known-bad models."""
    found = [explore(CORRECT, Config(c, k, race)) for c, k in model.BOUNDS for race in model.RACES]
    for row in real:
        assert row.cases == sum(e.transitions for e in found)
        assert f" {sum(e.states for e in found):,} states" in row.bound
        known = sum(broken.clause == row.clause for broken in BROKEN)
        assert row.bound.endswith(f"complete, {known} of {known} known-bad caught")
        assert known > 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize("prop", ALL, ids=lambda prop: prop.clause)
def test_a_property_that_never_fires_is_no_pass(prop: Property) -> None:
    """Each clause: were its check blind, its known-bad models would go through, and the row must say so."""
    blind = changed(prop.clause, in_state=None, on_step=None, eventually=None)
    only = [broken for broken in BROKEN if broken.clause == prop.clause]
    rows = model.check(properties=blind, known_bad=only, bounds=SMALL)
    assert row_of(rows, prop.clause).result is Result.INCONCLUSIVE
    assert only[0].model.name in row_of(rows, prop.clause).detail


def test_a_property_that_is_false_is_violated() -> None:
    """A property that the correct model breaks (here a wrong KM-FIFO) is shown with a run."""
    row = row_of(model.check(properties=changed("KM-FIFO", on_step=lambda t: "so it is"), bounds=[(2, 1)]), "KM-FIFO")
    assert row.result is Result.VIOLATED
    assert row.violations[0].message.startswith("so it is (2x1 keep: ")
    run = row.violations[0].message.partition(": ")[2].rstrip(")") + ")"
    assert CORRECT.replay(Config(2, 1, "keep"), parse_schedule(run))


def test_a_witness_that_is_never_met_is_no_pass() -> None:
    """KM-RACE: an "always" whose "sometimes" does not occur was never put to the test."""
    never = (Sometimes("a cow jumps over the moon", lambda t: False),)
    row = row_of(model.check(properties=changed("KM-RACE", sometimes=never), bounds=[(2, 1)]), "KM-RACE")
    assert (row.result, row.detail) == (Result.INCONCLUSIVE, "never met: a cow jumps over the moon")
    row = row_of(model.check(properties=changed("KM-RACE", sometimes=()), bounds=[(2, 1)]), "KM-RACE")
    assert row.result is Result.INCONCLUSIVE


def test_a_bound_that_is_too_small_for_a_witness_is_no_pass() -> None:
    """KM-FIFO and KM-CANCEL need more than two clients: not so KM-IDLE, which needs two keys."""
    rows = model.check(bounds=[(2, 2)])
    assert row_of(rows, "KM-FIFO").result is Result.INCONCLUSIVE
    assert row_of(rows, "KM-CANCEL").result is Result.INCONCLUSIVE
    assert row_of(rows, "KM-IDLE").result is Result.HOLDS
    assert exit_status(rows) == 2


def test_an_exploration_that_was_cut_short_is_no_pass() -> None:
    """No clause holds on the part of the states that was reached."""
    rows = model.check(bounds=SMALL, max_states=50)
    assert {row.result for row in rows} == {Result.INCONCLUSIVE}
    assert all("not complete" in row.bound for row in rows)


def test_no_bound_at_all_is_no_pass() -> None:
    """Nothing explored, nothing shown."""
    assert {row.result for row in model.check(bounds=[])} == {Result.INCONCLUSIVE}


def test_a_clause_without_a_known_bad_model_is_no_pass() -> None:
    """A check that was never seen to refuse anything is no evidence (KM-TOKEN)."""
    others = [broken for broken in BROKEN if broken.clause != "KM-TOKEN"]
    rows = model.check(known_bad=others, bounds=SMALL)
    assert row_of(rows, "KM-TOKEN").result is Result.INCONCLUSIVE
    assert row_of(rows, "KM-EXCL").result is Result.HOLDS


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.model.name}-{broken.clause}")
def test_a_broken_model_in_place_of_the_correct_one_is_rejected(broken: Broken) -> None:
    """Each known-bad model violates the clause that it is there for."""
    rows = model.check(
        model=broken.model,
        properties=broken.judged_by,
        known_bad=(),
        bounds=[(broken.config.clients, broken.config.keys)],
    )
    row = row_of(rows, broken.clause)
    assert row.result is Result.VIOLATED
    assert row.violations[0].clauses == (broken.clause,)
    assert exit_status(rows) == 1


def test_progress_is_told() -> None:
    """The command can say what goes on."""
    said: list[str] = []
    model.check(said.append, bounds=[(1, 1)])
    assert said[:2] == ["model, 1 client x 1 key, keep", "model, 1 client x 1 key, pass"]
    assert said[2:] == [f"known-bad models of {prop.clause}" for prop in ALL]
