"""The model of hold_all: its clause holds, can be broken, and is put to the test."""

from __future__ import annotations

import functools

import pytest

from kmutex_model.actions import Action, NotEnabledError, format_schedule
from kmutex_model.explore import Exploration, explore
from kmutex_model.several import ALL, BROKEN, SEVERAL, BrokenSeveral, SeveralState, keys_in
from kmutex_model.state import Config, Race

RACES: tuple[Race, ...] = ("keep", "pass")
SMALL = [Config(clients, keys, race) for clients, keys in ((3, 2), (2, 3)) for race in RACES]


@functools.cache
def explored(config: Config) -> Exploration:
    return explore(SEVERAL, config, properties=ALL)


def after(config: Config, *actions: Action) -> SeveralState:
    """The state at the end of a run."""
    state = SEVERAL.initial(config)
    for action in actions:
        state = SEVERAL.step(config, state, action).state
    return state


@pytest.mark.parametrize("config", SMALL, ids=lambda c: f"{c.clients}x{c.keys}-{c.race}")
def test_the_correct_model_has_every_property(config: Config) -> None:
    """KM-ALL: and every situation due was met."""
    found = explored(config)
    assert (found.verdict, found.missing, found.violations) == ("holds", (), ())


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.model.name)
def test_a_broken_model_breaks_the_clause(broken: BrokenSeveral) -> None:
    """KM-ALL: by the property that it is there for."""
    found = explore(broken.model, broken.config, properties=broken.judged_by)
    assert [violation.clause for violation in found.violations] == ["KM-ALL"]


def test_every_property_has_a_broken_model_of_its_own() -> None:
    """KM-ALL: judged by it alone, or by all where it is the first."""
    alone = {prop.statement for broken in BROKEN for prop in broken.judged_by if len(broken.judged_by) == 1}
    assert alone == {prop.statement for prop in ALL}


def test_two_that_take_their_keys_one_by_one_wait_for_each_other_for_ever() -> None:
    """KM-ALL: the shortest such run; and the correct model has none, whatever they ask for."""
    broken = next(broken for broken in BROKEN if broken.model.name == "one_by_one")
    (lasso,) = explore(broken.model, broken.config, properties=broken.judged_by).violations
    assert format_schedule(lasso.path).count("request") == 2
    assert lasso.cycle is not None


def test_what_one_that_gives_up_was_first_for_goes_to_the_next() -> None:
    """KM-ALL: in the step in which it leaves; who still waits elsewhere goes on waiting."""
    config = Config(3, 2, "pass")
    asked = (Action("request", 0, 1), Action("request", 1, 3), Action("request", 2, 2))
    state = after(config, *asked)
    assert state.queues == ((0, 1), (1, 2))
    assert [client.phase for client in state.clients] == ["holding", "waiting", "waiting"]
    state = after(config, *asked, Action("cancel", 1))
    assert state.queues == ((0,), (2,))
    assert [client.phase for client in state.clients] == ["holding", "idle", "granted"]


def test_a_set_of_keys_is_a_number() -> None:
    assert [keys_in(some) for some in (None, 0, 1, 2, 3, 6)] == [(), (), (0,), (1,), (0, 1), (1, 2)]


@pytest.mark.parametrize(
    "action", [Action("request", 0, 4), Action("request", 0, 0), Action("release", 0), Action("wake", 9)]
)
def test_what_cannot_happen_is_refused(action: Action) -> None:
    config = Config(1, 2, "keep")
    with pytest.raises(NotEnabledError):
        SEVERAL.step(config, SEVERAL.initial(config), action)
    with pytest.raises(ValueError, match="at least one client"):
        SEVERAL.initial(Config(0, 1, "keep"))
