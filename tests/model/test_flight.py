"""The model of duplicate suppression: every clause holds, can be broken, and is put to the test."""

from __future__ import annotations

import functools

import pytest

from kmutex_model.actions import Action, NotEnabledError
from kmutex_model.explore import Exploration, explore
from kmutex_model.flight import (
    ALL,
    BROKEN,
    FLIGHT,
    IDLE,
    BrokenFlight,
    Caller,
    Flight,
    FlightConfig,
    FlightState,
    Leader,
    lead,
)
from kmutex_model.properties import Property

LEADERS: tuple[Leader, ...] = ("takeover", "share")
SMALL = [FlightConfig(clients, keys, leader) for clients, keys in ((4, 1), (3, 2)) for leader in LEADERS]


@functools.cache
def explored(config: FlightConfig) -> Exploration:
    return explore(FLIGHT, config, properties=ALL)


def after(config: FlightConfig, *actions: Action) -> FlightState:
    """The state at the end of a run."""
    state = FLIGHT.initial(config)
    for action in actions:
        state = FLIGHT.step(config, state, action).state
    return state


@pytest.mark.parametrize("config", SMALL, ids=lambda c: f"{c.clients}x{c.keys}-{c.leader}")
def test_the_correct_model_has_every_property(config: FlightConfig) -> None:
    """KM-ONE, KM-RESULT, KM-LEADER, KM-FOLLOWER, KM-FORGET, KM-APART, KM-RETURN: and every situation due was met."""
    found = explored(config)
    assert (found.verdict, found.missing, found.violations) == ("holds", (), ())


@pytest.mark.parametrize("prop", ALL, ids=lambda prop: prop.clause)
def test_every_clause_has_a_situation_and_a_broken_model(prop: Property) -> None:
    assert bool(prop.in_state) + bool(prop.on_step) + bool(prop.eventually) == 1
    assert prop.sometimes
    assert any(broken.clause == prop.clause for broken in BROKEN)
    met = {name for config in SMALL for name in explored(config).witnesses}
    assert {(prop.clause, situation.statement) for situation in prop.sometimes} <= met


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.model.name)
def test_a_broken_model_breaks_its_clause(broken: BrokenFlight) -> None:
    """And each clause, where it is judged alone, finds one of its own."""
    found = explore(broken.model, broken.config, properties=broken.judged_by)
    assert broken.clause in {violation.clause for violation in found.violations}


def test_a_result_that_is_kept_is_found_by_a_run_of_four_steps() -> None:
    """KM-RESULT: the shortest story of how it does harm."""
    broken = next(broken for broken in BROKEN if broken.model.name == "keeps_the_result")
    found = explore(broken.model, broken.config, properties=broken.judged_by)
    assert [str(action) for action in found.violations[0].path][-1] == "request(0,0)"
    assert len(found.violations[0].path) == 4


def test_the_next_takes_over_or_all_share() -> None:
    """KM-LEADER: by what is declared; a cancelled leader is followed by the next in both."""
    asked = (Action("request", 0, 0), Action("request", 1, 0), Action("request", 2, 0))
    failed, following, leading = Caller("failed", 0), Caller("following", 0), Caller("leading", 0)
    for leader, ends in (
        ("takeover", FlightState((Flight(1, (2,)),), (failed, leading, following))),
        ("share", FlightState((None,), (failed, failed, failed))),
    ):
        config = FlightConfig(3, 1, leader)  # type: ignore[arg-type]
        assert after(config, *asked, Action("fail", 0)) == ends
        taken_over = FlightState((Flight(1, (2,)),), (IDLE, leading, following))
        assert after(config, *asked, Action("cancel", 0)) == taken_over


@pytest.mark.parametrize(
    "action",
    [
        Action("finish", 0),
        Action("wake", 1),
        Action("request", 2, 0),
        Action("request", 0, 5),
        Action("request", 0),
        Action("nap", 0, 0),
        Action("cancel", 1, 0),
        Action("cancel"),
    ],
    ids=str,
)
def test_what_cannot_happen_is_refused(action: Action) -> None:
    """Client 0 is idle, and client 1 runs the work."""
    config = FlightConfig(2, 1, "share")
    state = after(config, Action("request", 1, 0))
    assert action not in FLIGHT.enabled(config, state)
    with pytest.raises(NotEnabledError):
        FLIGHT.step(config, state, action)


def test_all_that_is_enabled_can_be_stepped() -> None:
    config = FlightConfig(3, 2, "takeover")
    for state in explored(config).graph:
        for action in FLIGHT.enabled(config, state):  # type: ignore[arg-type]
            FLIGHT.step(config, state, action)  # type: ignore[arg-type]


def test_a_row_that_is_none_is_not_replaced() -> None:
    with pytest.raises(ValueError, match="has no row"):
        FLIGHT.replacing("odd", {("finish", "idle", "any"): lead})


def test_a_bound_without_clients_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one client"):
        FLIGHT.initial(FlightConfig(0, 1, "share"))
