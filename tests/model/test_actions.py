"""The table of actions: what each does, when it can happen, and how it is written."""

from __future__ import annotations

import pytest

from kmutex_model.actions import (
    CORRECT,
    KEYED,
    TABLE,
    UNKEYED,
    Action,
    NotEnabledError,
    Row,
    Step,
    enabled,
    format_schedule,
    parse_action,
    parse_schedule,
    refuse,
    step,
)
from kmutex_model.explore import explore
from kmutex_model.state import IDLE, Client, Config, Entry, State, initial
from kmutex_model.turn import Outcome

KEEP = Config(4, 2, "keep")
PASS = Config(4, 2, "pass")


def run(schedule: str, config: Config = KEEP) -> Step:
    """The last step of a run of the correct model."""
    return CORRECT.replay(config, parse_schedule(schedule))[-1]


def test_a_free_key_is_held_at_once() -> None:
    state, outcome = run("request(2,1)")
    assert outcome == "granted"
    assert state.entries == (None, Entry(2, (), 1))
    assert state.clients[2] == Client("holding", 1)


def test_a_held_key_is_waited_for_in_the_order_of_asking() -> None:
    """KM-FIFO, KM-REF."""
    state, outcome = run("request(0,0); request(3,0); request(1,0)")
    assert outcome == "waiting"
    assert state.entries[0] == Entry(0, (3, 1), 3)
    assert state.order[0] == (3, 1)


def test_release_hands_over_in_the_same_step() -> None:
    """KM-HANDOFF."""
    state, outcome = run("request(0,0); request(3,0); request(1,0); release(0)")
    assert outcome == "released"
    assert state.entries[0] == Entry(3, (1,), 2)
    assert state.clients == (IDLE, Client("waiting", 0), IDLE, Client("granted", 0))


def test_the_call_that_was_granted_returns() -> None:
    state, outcome = run("request(0,0); request(3,0); release(0); wake(3)")
    assert outcome == "returned"
    assert state.clients[3] == Client("holding", 0)


def test_the_last_release_evicts() -> None:
    """KM-IDLE."""
    assert run("request(0,0); release(0)") == Step(initial(KEEP), "released")


@pytest.mark.parametrize(
    ("gone", "queue"), [(1, (2, 3)), (2, (1, 3)), (3, (1, 2))], ids=["oldest", "middle", "youngest"]
)
@pytest.mark.parametrize(("name", "outcome"), [("cancel", "cancelled"), ("interrupt", "interrupted")])
def test_a_waiter_that_gives_up_leaves_the_others_in_place(
    gone: int, queue: tuple[int, ...], name: str, outcome: str
) -> None:
    """KM-CANCEL, KM-INTERRUPT."""
    state, told = run(f"request(0,0); request(1,0); request(2,0); request(3,0); {name}({gone})")
    assert told == outcome
    assert state.entries[0] == Entry(0, queue, 3)
    assert state.clients[gone] == IDLE


GRANTED = "request(0,0); request(1,0); request(2,0); release(0)"


def test_a_cancel_after_the_grant_keeps_it() -> None:
    """KM-RACE, threads."""
    state, outcome = run(f"{GRANTED}; cancel(1)", KEEP)
    assert outcome == "kept"
    assert state.entries[0] == Entry(1, (2,), 2)
    assert state.clients[1] == Client("holding", 0)


def test_a_cancel_after_the_grant_passes_it_on() -> None:
    """KM-RACE, asyncio."""
    state, outcome = run(f"{GRANTED}; cancel(1)", PASS)
    assert outcome == "cancelled"
    assert state.entries[0] == Entry(2, (), 1)
    assert state.clients[1:3] == (IDLE, Client("granted", 0))


def test_a_cancel_after_the_grant_evicts_when_nobody_waits() -> None:
    """KM-RACE, asyncio."""
    assert run("request(0,0); request(1,0); release(0); cancel(1)", PASS) == Step(initial(PASS), "cancelled")


@pytest.mark.parametrize("config", [KEEP, PASS])
def test_an_interrupt_never_keeps_a_grant(config: Config) -> None:
    """KM-INTERRUPT."""
    state, outcome = run(f"{GRANTED}; interrupt(1)", config)
    assert outcome == "interrupted"
    assert state.entries[0] == Entry(2, (), 1)


@pytest.mark.parametrize(
    ("before", "failing", "outcome"),
    [
        ("request(0,0)", "try(1,0)", "timeout"),
        ("request(0,0); request(1,0); release(0)", "try(0,0)", "timeout"),
        ("request(0,0)", "stray_unlock(1,1)", "unheld"),
        ("request(0,0); release(0)", "stale_release(0,0)", "unheld"),
        ("request(0,0); release(0); request(1,0)", "stale_release(0,0)", "unheld"),
        ("request(0,0); request(1,0); release(0)", "stale_release(0,0)", "unheld"),
    ],
)
def test_a_call_that_fails_changes_nothing(before: str, failing: str, outcome: Outcome) -> None:
    """KM-ATOMIC, KM-EXPIRED, KM-UNHELD, KM-TOKEN."""
    assert run(f"{before}; {failing}") == Step(run(before).state, outcome)


def test_timeout_0_takes_a_free_key() -> None:
    """KM-EXPIRED."""
    assert run("try(0,0)") == run("request(0,0)")


@pytest.mark.parametrize(
    ("before", "wrong"),
    [
        ("", "wake(0)"),
        ("", "cancel(0)"),
        ("", "interrupt(0)"),
        ("", "release(0)"),
        ("request(0,0)", "request(0,0)"),
        ("request(0,0)", "request(0,1)"),
        ("request(0,0)", "try(0,0)"),
        ("request(0,0)", "wake(0)"),
        ("request(0,0)", "cancel(0)"),
        ("request(0,0)", "stray_unlock(1,0)"),
        ("request(0,0)", "stale_release(0,0)"),
        ("request(0,0); request(1,0)", "release(1)"),
        ("request(0,0); request(1,0)", "wake(1)"),
        ("request(0,0); request(1,0); release(0)", "release(1)"),
        ("", "request(4,0)"),
        ("", "request(0,2)"),
    ],
)
def test_what_cannot_happen_is_refused(before: str, wrong: str) -> None:
    with pytest.raises(NotEnabledError, match=wrong.replace("(", r"\(").replace(")", r"\)")):
        run(f"{before}; {wrong}" if before else wrong)


@pytest.mark.parametrize(
    "action",
    [
        Action("request", 0),
        Action("request", None, 0),
        Action("request", -1, 0),
        Action("request", 0, -1),
        Action("wake", 1, 0),
        Action("wake", -1),
        Action("wake"),
        Action("no_such", 1),
    ],
)
def test_what_is_no_action_is_refused(action: Action) -> None:
    state = run("request(0,0); request(1,0); release(0)").state
    with pytest.raises(NotEnabledError):
        step(KEEP, state, action)


@pytest.mark.parametrize("config", [Config(3, 1, "keep"), Config(2, 2, "pass")])
def test_enabled_lists_all_that_step_accepts_and_nothing_else(config: Config) -> None:
    names = [*KEYED, *UNKEYED]
    every = [
        Action(name, c, k)
        for name in names
        for c in range(-1, config.clients + 1)
        for k in (None, *range(-1, config.keys + 1))
    ]
    for state in explore(CORRECT, config).graph:
        accepted = set()
        for action in every:
            try:
                step(config, state, action)
            except NotEnabledError:
                continue
            accepted.add(action)
        listed = enabled(config, state)
        assert len(set(listed)) == len(listed)
        assert set(listed) == accepted


def test_every_row_of_the_table_is_taken() -> None:
    """A row that no run takes would be dead."""
    taken = set()
    found = explore(CORRECT, Config(2, 1, "keep"))
    for state in found.graph:
        for action in enabled(found.config, state):
            assert action.client is not None
            phase = state.clients[action.client].phase
            key = state.clients[action.client].key if action.key is None else action.key
            assert key is not None
            view = "free" if state.entries[key] is None else "held"
            taken |= {row for row in TABLE if row[:2] == (action.name, phase) and row.key in (view, "any")}
    assert taken == set(TABLE)


def test_a_run_is_written_and_read_back() -> None:
    text = "request(0,0); try(1,0); request(1,0); cancel(1); release(0); stray_unlock(2,1); stale_release(0,0)"
    assert format_schedule(parse_schedule(text)) == text
    assert parse_schedule("") == ()
    assert format_schedule(()) == ""


def test_every_enabled_action_is_written_and_read_back() -> None:
    config = Config(2, 2, "pass")
    for state in explore(CORRECT, config).graph:
        for action in enabled(config, state):
            assert parse_action(str(action)) == action


@pytest.mark.parametrize(
    "text",
    [
        "",
        "request",
        "request()",
        "request(0)",
        "wake(0,0)",
        "wake(a)",
        "wake(-1)",
        "walk(0)",
        "wake(0) wake(1)",
        "wake(\u0661)",
    ],
)
def test_what_is_not_an_action_is_not_read(text: str) -> None:
    with pytest.raises(ValueError, match="action"):
        parse_action(text)


def test_a_broken_model_replaces_rows_that_exist() -> None:
    with pytest.raises(ValueError, match="has no row"):
        CORRECT.replacing("wrong", Row("release", "idle", "held", refuse))
    changed = CORRECT.replacing("deaf", Row("release", "holding", "any", refuse))
    assert len(changed.table) == len(CORRECT.table)
    assert CORRECT.table == TABLE
    held = CORRECT.step(KEEP, initial(KEEP), Action("request", 0, 0)).state
    assert changed.step(KEEP, held, Action("release", 0)) == Step(held, "unheld")


def test_a_state_of_a_larger_bound_is_no_state_of_a_smaller() -> None:
    large: State = run("request(3,1)").state
    with pytest.raises(NotEnabledError):
        step(Config(2, 1, "keep"), large, Action("release", 3))
