"""States are values: compared by content, never changed."""

from __future__ import annotations

from typing import Any, cast

import pytest

from kmutex_model.actions import CORRECT, parse_schedule
from kmutex_model.state import (
    Client,
    Config,
    Entry,
    State,
    initial,
    owners,
    present,
    record_order,
    with_client,
)

CONFIG = Config(3, 2, "keep")


def after(schedule: str) -> State:
    """The state at the end of a run of the correct model."""
    return CORRECT.replay(CONFIG, parse_schedule(schedule))[-1].state


def test_states_built_apart_are_equal_and_hash_alike() -> None:
    one, other = (
        State((Entry(0, (n,), 2), None), (Client("holding", 0), Client("waiting", 0)), ((n,), ()))
        for n in (1, int("1"))
    )
    assert one is not other
    assert one == other
    assert hash(one) == hash(other)
    assert {one: "met"}[other] == "met"


def test_two_ways_to_the_same_state_meet() -> None:
    assert after("request(0,0); request(1,1)") == after("request(1,1); request(0,0)")
    assert after("request(0,0); request(1,0); cancel(1)") == after("request(0,0)")


@pytest.mark.parametrize(
    "changed",
    [
        State((Entry(0, (1,), 3),), (Client("holding", 0), Client("waiting", 0)), ((1,),)),
        State((Entry(1, (1,), 2),), (Client("holding", 0), Client("waiting", 0)), ((1,),)),
        State((Entry(0, (), 2),), (Client("holding", 0), Client("waiting", 0)), ((1,),)),
        State((None,), (Client("holding", 0), Client("waiting", 0)), ((1,),)),
        State((Entry(0, (1,), 2),), (Client("granted", 0), Client("waiting", 0)), ((1,),)),
        State((Entry(0, (1,), 2),), (Client("holding", 0), Client("waiting", 0)), ((),)),
    ],
)
def test_states_that_differ_anywhere_are_unequal(changed: State) -> None:
    base = State((Entry(0, (1,), 2),), (Client("holding", 0), Client("waiting", 0)), ((1,),))
    assert changed != base


def test_a_state_cannot_be_changed() -> None:
    state = initial(CONFIG)
    with pytest.raises(AttributeError):
        cast(Any, state).entries = ()
    with pytest.raises(TypeError):
        cast(Any, state).clients[0] = Client("holding", 0)


def test_a_step_leaves_the_state_it_began_from() -> None:
    state = after("request(0,0); request(1,0)")
    copy = State(*state)
    for action in CORRECT.enabled(CONFIG, state):
        CORRECT.step(CONFIG, state, action)
    assert state == copy == after("request(0,0); request(1,0)")


@pytest.mark.parametrize("config", [Config(0, 1, "keep"), Config(1, 0, "keep"), Config(1, 1, cast(Any, "both"))])
def test_an_empty_or_unknown_bound_is_refused(config: Config) -> None:
    with pytest.raises(ValueError, match=r"at least one|race must be"):
        initial(config)


def test_owners_and_present_read_the_clients() -> None:
    state = after("request(0,0); request(1,0); request(2,0); release(0)")
    assert owners(state, 0) == (1,)
    assert present(state, 0) == (1, 2)
    assert owners(state, 1) == present(state, 1) == ()


def test_the_ghost_does_not_depend_on_the_queue() -> None:
    """KM-FIFO: a broken queue must not be able to hide behind a broken ghost."""
    before = after("request(0,0); request(1,0)")
    asked = with_client(before, 2, Client("waiting", 0))
    scrambled = asked._replace(entries=(Entry(0, (2, 1, 0), 9), None))
    assert record_order(before, asked).order == record_order(before, scrambled).order == ((1, 2), ())
