"""The tie: relations and formulas against the explorer's model, and that it sees each kind of difference."""

from __future__ import annotations

import pytest

from kmutex_model.actions import CORRECT, Row
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import explore
from kmutex_model.proof import clauses
from kmutex_model.proof.invariant import PARTS
from kmutex_model.proof.logic import TRUE, every, implies
from kmutex_model.proof.relations import explicit
from kmutex_model.proof.steps import SymbolicTurn
from kmutex_model.proof.tie import BOUNDS, RACES, allowed, state_of, tie
from kmutex_model.properties import ALL
from kmutex_model.state import Config
from kmutex_model.turn import ExplicitTurn, Outcome, Turn

SMALL = [(CORRECT, Config(3, 1, "keep"))]


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("bound", BOUNDS)
def test_the_relations_are_the_model(bound: tuple[int, int], race: str) -> None:
    """Every state, step and verdict of the correct model; every clause but KM-LIVE was judged."""
    config = Config(*bound, race)  # type: ignore[arg-type]
    found = tie([(CORRECT, config)])
    seen = explore(CORRECT, config)
    assert found.differences == []
    assert (found.states, found.steps, found.unsayable) == (seen.states, seen.transitions, 0)
    assert set(found.violations) == {prop.clause for prop in ALL if not prop.eventually}
    assert sum(found.violations.values()) == 0


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("broken", "race"),
    [
        pytest.param(
            broken,
            race,
            id=f"{broken.model.name}-{broken.clause}-{race}",
            marks=() if race == broken.config.race else pytest.mark.long,
        )
        for broken in BROKEN
        for race in RACES
    ],
)
def test_the_relations_are_each_broken_model(broken: Broken, race: str) -> None:
    """At its own bound, 3 x 2 and 4 x 1: the same wrong steps, and the clause convicts them in both readings."""
    configs = {broken.config, *(Config(clients, keys, race) for clients, keys in BOUNDS)}  # type: ignore[arg-type]
    found = tie([(broken.model, config) for config in sorted(configs)])
    assert found.differences == []
    assert broken.clause == "KM-LIVE" or found.violations[broken.clause] > 0


def test_a_formula_that_is_weaker_than_its_property_is_seen() -> None:
    """KM-FIFO, KM-REF: blind formulas, or a formula that is too strong."""
    lifo = next(one for one in BROKEN if one.model.name == "lifo")
    blind = {**clauses.STEP, "KM-FIFO": clauses.STEP["KM-FIFO"]._replace(holds=lambda x: TRUE)}
    assert "KM-FIFO: the formula says True" in tie([(lifo.model, lifo.config)], of_step=blind).differences[0]
    strict = {**clauses.STATE, "KM-REF": lambda s: every(lambda k, c: ~s.waiting(c, k))}
    assert "KM-REF: the formula says False" in tie(SMALL, of_state=strict).differences[0]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("clause", [*clauses.STATE, *clauses.STEP])
def test_no_clause_can_be_blinded_unseen(clause: str) -> None:
    """For each clause some broken model's steps tell its formula from one that is always true."""
    state = {**clauses.STATE, **({clause: lambda s: TRUE} if clause in clauses.STATE else {})}
    step = dict(clauses.STEP)
    if clause in step:
        step[clause] = step[clause]._replace(holds=lambda x: TRUE)
    mine = [(b.model, b.config) for b in BROKEN if b.clause == clause]
    assert tie(mine, of_state=state, of_step=step).differences


def test_a_word_that_the_two_readers_take_differently_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(SymbolicTurn, "enqueue", SymbolicTurn.enqueue_first)
        assert "ahead" in tie([(_fresh("a"), Config(3, 1, "keep"))]).differences[0]
    with monkeypatch.context() as patch:
        patch.setattr(ExplicitTurn, "free", lambda self: None)
        broken = CORRECT.replacing("frees", Row("release", "holding", "any", _frees))
        assert tie([(broken, Config(2, 1, "keep"))]).differences


def _fresh(name: str):  # type: ignore[no-untyped-def]
    """The correct model with rows of its own, so that none is read from what was read before."""

    def join(turn: Turn) -> Outcome:
        turn.enqueue(turn.client)
        turn.count(1)
        turn.move(turn.client, "waiting")
        return "waiting"

    return CORRECT.replacing(name, Row("request", "idle", "held", join))


def _frees(turn: Turn) -> Outcome:
    turn.move(turn.client, "idle")
    turn.free()
    return "released"


def test_an_action_that_only_one_can_take_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kmutex_model.proof.steps.shown_as", lambda s, view: TRUE)
    row = Row("request", "idle", "held", lambda turn: "waiting")
    found = tie([(CORRECT.replacing("x", row), Config(2, 1, "keep"))])
    assert found.differences


@pytest.mark.parametrize("config", [Config(3, 1, "keep"), Config(2, 2, "keep")])
def test_every_reached_state_is_allowed(config: Config) -> None:
    """The invariant is no stronger than what runs reach. At 2 x 2 it allows what none reaches."""
    states = allowed(config)
    reached = set(explore(CORRECT, config).graph)
    assert reached <= states
    assert (states == reached) == (config.keys == 1)
    for state in states:
        relations = explicit(config, state)
        assert relations is not None
        assert state_of(config, relations) == state


def test_a_weaker_invariant_allows_more() -> None:
    config = Config(2, 1, "keep")
    weaker = [part for part in PARTS if part.name != "references are counted"]
    assert allowed(config) < allowed(config, weaker)
    stronger = PARTS[0]._replace(holds=lambda s: every(lambda k, c: implies(s.present(k), ~s.waiting(c, k))))
    assert allowed(config, [*PARTS, stronger]) < allowed(config)


def test_a_state_that_no_explorer_has_is_refused() -> None:
    config = Config(2, 1, "keep")
    state = next(iter(allowed(config)))
    relations = explicit(config, state)
    assert relations is not None
    relations["granted"] = relations["holding"] = [[True], [True]]
    with pytest.raises(ValueError, match="no state"):
        state_of(config, relations)
