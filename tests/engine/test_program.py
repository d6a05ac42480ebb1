"""Programs and schedules as text, and the lanes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kmutex import KeyedMutex
from kmutex.engine.explorer import Schedule
from kmutex.engine.harness import Harness
from kmutex.engine.program import STEPS, Phase, Program, ProgramError, Step, parse, possible
from kmutex.engine.run_judge import Event
from kmutex.engine.timeline import timeline
from kmutex.testing import parse_schedule

steps = st.builds(Step, st.sampled_from(sorted(STEPS)), st.sampled_from("abcz"))
does = st.tuples(st.integers(0, 9), st.lists(steps, min_size=1, max_size=4).map(tuple))


@st.composite
def any_program(draw: st.DrawFn) -> Program:
    phases = [draw(st.lists(does, min_size=1, max_size=3).map(tuple)) for _ in range(draw(st.integers(1, 4)))]
    most = max(client for phase in phases for client, _ in phase)
    cancels = st.lists(st.integers(0, most), max_size=2).map(tuple)
    return Program(tuple(Phase(phase, draw(cancels)) for phase in phases))


@given(any_program())
def test_a_program_is_its_text(program: Program) -> None:
    """parse(str(p)) is p."""
    assert parse(str(program)) == program


@given(
    any_program(),
    st.sampled_from(["locks", "bytecode", "tasks", "timeouts"]),
    st.dictionaries(st.integers(0, 500), st.integers(1, 9), max_size=4),
    st.booleans(),
)
def test_a_schedule_is_its_text(program: Program, level: str, picks: dict[int, int], tries: bool) -> None:
    """parse_schedule(str(s)) is s."""
    schedule = Schedule(program, level, tuple(sorted(picks.items())), tries)  # type: ignore[arg-type]
    assert parse_schedule(str(schedule)) == schedule


@pytest.mark.parametrize("text", ["", "|", "0+a |", "0", "+a", "0a+", "0+A", "c1", "0+a | c1", "0+a c", "00+a+"])
def test_what_is_no_program_is_refused(text: str) -> None:
    """With an error of its own."""
    with pytest.raises(ProgramError):
        parse(text)


@pytest.mark.parametrize("text", ["0+a", "0+a @", "0+a @nowhere", "@locks", "0+a @locks 1", "0+a @locks 1:"])
def test_what_is_no_schedule_is_refused(text: str) -> None:
    """With an error of its own."""
    with pytest.raises(ProgramError):
        parse_schedule(text)


def test_a_client_ends_only_what_it_has_and_as_it_has_it() -> None:
    """By unlock what it locked, by the lease what it leased."""
    got = {"a": None, "b": object()}
    assert [kind + key for kind in "-]^" for key in "abc" if possible(Step(kind, key), got)] == ["-a", "]b", "^b"]


@pytest.mark.parametrize(
    ("text", "left_at"), [("0+a 1+a @locks 0:7", 0), ("0+a 1+a @locks 0:1 2:9", 2), ("0+a 1+a @locks 0:1", None)]
)
def test_a_schedule_that_does_not_fit_is_followed_as_far_as_it_goes(text: str, left_at: int | None) -> None:
    """Too many alternatives: from there on, the default schedule is run."""
    bench = Harness(KeyedMutex)
    with bench.control():
        result = bench.explorer.again(parse_schedule(text))
    assert (result.runs, result.left_at, result.found) == (1, left_at, {})


def test_a_schedule_of_more_choices_than_there_are_says_so() -> None:
    bench = Harness(KeyedMutex)
    with bench.control():
        result = bench.explorer.again(parse_schedule("0+a-a @locks 99:1"))
        assert result.last is not None
        assert result.left_at is not None
        assert result.left_at < 99


def test_lanes_give_each_client_a_column() -> None:
    """Who does nothing has none; what is of nobody stands across."""
    events = [Event(0, "lock a ..."), Event(0, "lock a: got it"), Event(2, "lock a ..."), Event(-1, "KM-LIVE: stuck")]
    assert timeline(events) == "\n".join(
        [
            "client 0        client 2",
            "--------------  ----------",
            "lock a ...      |",
            "lock a: got it  |",
            "|               lock a ...",
            ">> KM-LIVE: stuck",
        ]
    )
    assert timeline(events, most=2).splitlines()[2:] == [
        "(2 earlier lines left out)",
        "|               lock a ...",
        ">> KM-LIVE: stuck",
    ]
