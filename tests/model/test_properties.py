"""The properties: every clause has one, each can fail, and each is put to the test."""

from __future__ import annotations

import functools

import pytest

from kmutex_model.__main__ import BOUNDS, RACES
from kmutex_model.actions import CORRECT
from kmutex_model.broken import BARGING, BROKEN
from kmutex_model.explore import Exploration, explore
from kmutex_model.properties import ALL, KM_FIFO, KM_HANDOFF, KM_LIVE, Property, Sometimes
from kmutex_model.state import Config

SMALL = [Config(c, k, race) for c, k in BOUNDS for race in RACES]


@functools.cache
def explored(config: Config) -> Exploration:
    """The correct model explored with all properties."""
    return explore(CORRECT, config)


def test_clauses_are_named_once() -> None:
    clauses = [p.clause for p in ALL]
    assert len(set(clauses)) == len(clauses)
    assert all(p.statement for p in ALL)


@pytest.mark.parametrize("prop", ALL, ids=lambda p: p.clause)
def test_every_clause_is_checked_and_has_a_situation_and_a_broken_model(prop: Property) -> None:
    assert prop.in_state or prop.on_step or prop.eventually
    assert prop.sometimes
    assert any(broken.clause == prop.clause for broken in BROKEN)


@pytest.mark.parametrize("config", SMALL, ids=lambda c: f"{c.clients}x{c.keys}-{c.race}")
def test_the_correct_model_has_every_property(config: Config) -> None:
    """All clauses of the model: nothing violated, all looked at, every situation due was met."""
    found = explored(config)
    assert found.violations == ()
    assert found.complete
    assert found.missing == ()
    assert found.verdict == "holds"


@pytest.mark.parametrize(
    ("clause", "situation"),
    [(p.clause, s) for p in ALL for s in p.sometimes],
    ids=lambda v: v if isinstance(v, str) else v.statement,
)
def test_a_situation_is_due_at_the_smallest_bound_that_meets_it(clause: str, situation: Sometimes) -> None:
    """Were it due at larger bounds only, its absence at a smaller one would go unnoticed."""
    for config in SMALL:
        met = (clause, situation.statement) in explored(config).witnesses
        assert met == situation.due(config), config


def test_a_situation_that_is_never_met_is_a_failure() -> None:
    never = Property("KM-NEVER", "", sometimes=(Sometimes("pigs fly", lambda t: False),))
    found = explore(CORRECT, Config(2, 1, "keep"), properties=(never,))
    assert found.missing == (("KM-NEVER", "pigs fly"),)
    assert found.complete
    assert found.verdict == "unreached"


@pytest.mark.long
def test_a_sound_barging_lock_breaks_only_what_it_does_not_promise() -> None:
    """Control for KM-FIFO, KM-HANDOFF and KM-LIVE: without them the barging lock is accepted."""
    promised = [p for p in ALL if p not in (KM_FIFO, KM_HANDOFF, KM_LIVE)]
    for config in SMALL:
        found = explore(BARGING, config, properties=promised)
        assert found.violations == ()
        assert found.complete
    for prop in (KM_FIFO, KM_HANDOFF, KM_LIVE):
        assert explore(BARGING, Config(3, 1, "keep"), properties=(prop,)).violations
