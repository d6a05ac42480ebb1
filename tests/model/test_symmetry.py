"""Looking at one of all states that differ by numbers only: as sharp as looking at all, and refused where not."""

from __future__ import annotations

import pytest

from kmutex_model.actions import CORRECT, Row, let_go
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import explore
from kmutex_model.properties import ALL, Property, make_transition
from kmutex_model.state import Client, Config, Race, State
from kmutex_model.symmetry import asymmetry, renamings, standard
from kmutex_model.turn import ExplicitTurn, Outcome, Turn

SAFETY = [prop for prop in ALL if not prop.eventually]
WAITS = Client("waiting", 0)
READS_NUMBERS = {"smallest_first"}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("race", ["keep", "pass"])
@pytest.mark.parametrize(("clients", "keys"), [(1, 1), (3, 1), (2, 2), (4, 2), (3, 3)])
def test_one_state_stands_for_each_set_of_renamings(clients: int, keys: int, race: Race) -> None:
    """Counted with all renamings: the explorer looks at no state twice, and at none too few."""
    config = Config(clients, keys, race)
    whole = explore(CORRECT, config, properties=SAFETY)
    classes = {frozenset(renaming.state(state) for renaming in renamings(config)) for state in whole.graph}
    found = explore(CORRECT, config, properties=SAFETY, symmetry=True)
    assert (found.verdict, found.complete) == ("holds", True)
    assert found.states == len(classes)
    assert found.depth == whole.depth
    assert {standard(state)[0] for state in whole.graph} == set(found.graph)


def test_the_standard_of_a_state_is_a_renaming_of_it_and_its_own() -> None:
    config = Config(4, 2, "pass")
    identity = next(renamings(config))
    for state in explore(CORRECT, config, properties=SAFETY).graph:
        chosen, renaming = standard(state)
        assert renaming.state(state) == chosen
        assert renaming.inverse().state(chosen) == state
        assert standard(chosen) == (chosen, identity)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.model.name}-{broken.clause}")
def test_a_broken_model_breaks_the_same_in_as_many_steps(broken: Broken) -> None:
    """And what breaks it is a run of the model, not of renamed states."""
    properties = [prop for prop in broken.judged_by if not prop.eventually]
    whole = explore(broken.model, broken.config, properties=properties)
    if broken.model.name in READS_NUMBERS:
        with pytest.raises(ValueError, match="symmetry can't be used: smallest_first"):
            explore(broken.model, broken.config, properties=properties, symmetry=True)
        return
    found = explore(broken.model, broken.config, properties=properties, symmetry=True)
    assert {v.clause: len(v.path) for v in found.violations} == {v.clause: len(v.path) for v in whole.violations}
    for violation in found.violations:
        state: State = broken.model.initial(broken.config)
        *before, last = violation.path
        for step in broken.model.replay(broken.config, tuple(before)):
            state = step.state
        after, outcome = broken.model.step(broken.config, state, last)
        transition = make_transition(broken.config, state, last, outcome, after)
        (prop,) = [prop for prop in properties if prop.clause == violation.clause]
        said = [prop.on_step(transition) if prop.on_step else ""]
        said.append(prop.in_state(broken.config, after) if prop.in_state else "")
        assert violation.message in said


@pytest.mark.long
def test_witnesses_are_runs_of_the_model() -> None:
    config = Config(4, 2, "keep")
    found = explore(CORRECT, config, properties=SAFETY, symmetry=True)
    numbered = {(prop.clause, s.statement) for prop in SAFETY for s in prop.sometimes if s.numbered}
    assert len(numbered) == 1
    assert set(found.witnesses) == set(explore(CORRECT, config, properties=SAFETY).witnesses) - numbered
    for run in found.witnesses.values():
        assert CORRECT.replay(config, run)


def test_a_model_that_reads_numbers_where_three_wait_is_refused() -> None:
    def to_the_smallest_of_three(turn: Turn) -> Outcome:
        assert isinstance(turn, ExplicitTurn)
        entry = turn.state.entries[turn.key]
        assert entry is not None
        if len(entry.queue) == 3:
            smallest = turn.lowest()
            turn.dequeue(smallest)
            turn.enqueue_first(smallest)
        return let_go(turn)

    model = CORRECT.replacing("to the smallest of three", Row("release", "holding", "any", to_the_smallest_of_three))
    assert explore(model, Config(4, 1, "keep"), properties=SAFETY).violations
    with pytest.raises(ValueError, match="symmetry can't be used"):
        explore(model, Config(4, 1, "keep"), properties=SAFETY, symmetry=True)


def test_a_property_that_reads_numbers_is_refused() -> None:
    first = Property("KM-X", "client 0 never waits", (), in_state=lambda _, s: "" if s.clients[0] != WAITS else "no")
    with pytest.raises(ValueError, match="a property thinks"):
        explore(CORRECT, Config(3, 1, "keep"), properties=[first], symmetry=True)


def test_what_is_about_infinite_runs_is_refused() -> None:
    with pytest.raises(ValueError, match="KM-LIVE is about infinite runs"):
        explore(CORRECT, Config(2, 1, "keep"), symmetry=True)


def test_the_correct_model_reads_no_number() -> None:
    config = Config(4, 2, "keep")
    assert asymmetry(CORRECT, config, explore(CORRECT, config, properties=SAFETY).graph) == ""
