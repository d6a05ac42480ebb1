"""Single flights on the bench: the shapes they are taken in, and what the judge makes of their answers."""

from __future__ import annotations

import asyncio
import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kmutex.engine.calls import Calls
from kmutex.engine.explorer import Exploration, Explorer
from kmutex.engine.flight_judge import FlightJudge, put_on_trial
from kmutex.engine.program import parse
from kmutex.engine.scenarios import flights, with_epilogue
from kmutex.engine.shapes import Fitted, fit
from kmutex.engine.threads import Crew, controlled
from kmutex.selfcheck.flights import AsyncOnce, Once
from tests.engine import flights as shaped
from tests.lockers import flights_asyncio, flights_threads


def fitted(make: Callable[..., Any], calls: Calls | None = None) -> Fitted:
    return fit(make) if calls is None else fit(make, calls=calls)


def explorer(make: Callable[..., Any], *leaders: str, calls: Calls | None = None) -> Explorer:
    """To be used within `controlled`."""
    found = fitted(make, calls)
    crew = Crew() if found.shape.kind == "threads" else None
    return put_on_trial(found.shape, found.make, Explorer.of(found, crew=crew), leaders)[2]


def run(make: Callable[..., Any], program: str, *leaders: str, bound: int = 0) -> Exploration:
    with controlled(make):
        found = explorer(make, *leaders)
        return found.every(parse(program), "locks" if found._crew is not None else "tasks", bound)


def clauses(result: Exploration) -> set[str]:
    return {clause for found in result.found.values() for clause in found.finding.clauses}


@pytest.mark.parametrize(
    ("make", "kind", "taken", "call"),
    [
        (flights_threads.SharingFlight, "threads", "do(key, fn)", ""),
        (flights_asyncio.TaskFlight, "asyncio", "do(key, fn)", ""),
        (shaped.WithArguments, "threads", "do(key, fn)", ""),
        (shaped.FunctionFirst, "threads", "run(fn, key)", ""),
        (shaped.Called, "threads", "Called(key, fn)", ""),
        (shaped.OddName, "threads", "compute_unless_computed(key, fn)", "compute_unless_computed"),
        (shaped.GivesTask, "asyncio", "execute(key, fn)", ""),
        (shaped.fetch_once, "asyncio", "(key, fn)", ""),
        (shaped.coalesce, "threads", "@", ""),
        (shaped.dedupe, "asyncio", "@", ""),
        (shaped.deduplicating, "asyncio", "@", ""),
        (shaped.Coalesced, "threads", "@Coalesced", ""),
        (functools.partial(flights_asyncio.LockedFlight), "asyncio", "do(key, fn)", ""),
        (Once, "threads", "do(key, fn)", ""),
        (AsyncOnce, "asyncio", "do(key, fn)", ""),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_flight_is_taken_in_its_own_shape(make: Callable[..., Any], kind: str, taken: str, call: str) -> None:
    """By looking, or by the name of its call; it shares its work and begins anew afterwards, in each of them."""
    calls = Calls(do=call) if call else None
    with controlled(make):
        shape = fitted(make, calls).shape
        assert (shape.form, shape.kind) == ("flight", kind)
        assert taken in shape.taken
        found = explorer(make, calls=calls)
        for program in ("0da | 1da | 2ea | 0da | 1db | 2ea | 2eb", "0fa | 1da | 2ea | 2ea"):
            result = found.every(parse(program), "locks" if kind == "threads" else "tasks", 1)
            assert clauses(result) == set()
            assert result.complete
            assert isinstance(result.last, FlightJudge)
            assert result.last.answered
            assert {"KM-ONE", "KM-RETURN"} <= set(result.witnesses)


def test_forget_is_asked_where_it_is_there() -> None:
    """KM-ONE: a run that was forgotten may have another beside it, and one that was not may not."""
    with controlled(shaped.WithArguments):
        assert fitted(shaped.WithArguments).shape.forgets
    with controlled(flights_threads.SharingFlight):
        assert not fitted(flights_threads.SharingFlight).shape.forgets
    # Its runs take the entry of the key out of the table, whosever it is.
    assert clauses(run(shaped.WithArguments, "0da | 1ga | 1da")) == set()
    assert "KM-ONE" in clauses(run(shaped.WithArguments, "0da | 1ga | 1da | 2ea | 3da"))


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (flights_threads.SharingFlight, "share"),
        (flights_threads.TakeoverFlight, "takeover"),
        (flights_asyncio.TaskFlight, "share"),
        (flights_asyncio.FutureFlight, "takeover"),
        (Once, "takeover"),
        (AsyncOnce, "takeover"),
    ],
)
def test_what_a_failing_leader_means_is_found_and_then_held_to(make: Callable[..., Any], seen: str) -> None:
    """KM-LEADER: what is declared otherwise is broken at once."""
    program = "0fa | 1da | 2ea"
    assert clauses(run(make, program)) == set()
    assert clauses(run(make, program, seen)) == set()
    other = "share" if seen == "takeover" else "takeover"
    assert clauses(run(make, program, other)) == {"KM-LEADER"}


def test_a_cancelled_leader_may_cancel_others_only_if_that_is_declared() -> None:
    """KM-LEADER"""
    make = flights_asyncio.FlightLeaderCancelsAll
    assert clauses(run(make, "0ta | 1da | c0")) == {"KM-LEADER"}
    assert clauses(run(make, "0ta | 1da | c0", "cancel")) == set()


class Answering(flights_threads.SharingFlight):
    """Answers of followers are changed by ``change``."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self._change = change

    def _follow(self, call: Any) -> Any:
        try:
            return self._change(super()._follow(call))
        except Exception as error:
            return self._change(error)


def wrapping(error: Any) -> Any:
    if isinstance(error, Exception):
        raise RuntimeError("the work failed") from error  # noqa: TRY004 (it is no matter of types)
    return error


def hiding(error: Any) -> Any:
    if isinstance(error, Exception):
        raise LookupError("no result")  # noqa: TRY004 (as above)
    return error


@pytest.mark.parametrize(
    ("change", "program", "found"),
    [
        (lambda result: (result, True), "0da | 1da | 2ea", set()),
        (lambda result: [result], "0da | 1da | 2ea", set()),
        (lambda result: types.SimpleNamespace(value=result, shared=True), "0da | 1da | 2ea", set()),
        (lambda result: None, "0da | 1da | 2ea", {"KM-RESULT"}),
        (lambda result: (result, result), "0da | 1da | 2ea", {"KM-RESULT"}),
        (wrapping, "0fa | 1da | 2ea", set()),
        (hiding, "0fa | 1da | 2ea", set()),
        (lambda error: None, "0fa | 1da | 2ea", {"KM-RESULT", "KM-LEADER"}),
    ],
)
def test_what_a_caller_was_given_is_known(change: Callable[[Any], Any], program: str, found: set[str]) -> None:
    """KM-RESULT: a result beside a remark, an error that is the cause of another, an error that tells of one."""
    assert clauses(run(functools.partial(Answering, change), program)) == found


def test_an_error_that_nobody_owes_is_no_answer() -> None:
    """KM-RESULT: no run has failed, and nobody was cancelled."""

    def refuse(result: Any) -> Any:
        raise OSError("no")

    result = run(functools.partial(Answering, refuse), "0da | 1da | 2ea")
    assert clauses(result) == {"KM-RESULT"}
    assert "raised OSError: no, and no run of the work failed" in next(iter(result.found.values())).finding.message


def test_who_joins_between_the_end_of_the_work_and_the_end_of_the_entry_is_right() -> None:
    """KM-RESULT: nobody could tell; it is found where a caller that was told comes back to the old entry."""
    sound = run(flights_threads.SharingFlight, "0da | 1dana | 2ea", bound=2)
    assert (clauses(sound), sound.complete) == (set(), True)
    bad = run(flights_threads.FlightTellsBeforeItForgets, "0da | 1dana | 2ea", bound=1)
    assert clauses(bad) == {"KM-RESULT"}


@pytest.mark.sampled(4)
@pytest.mark.parametrize("program", flights(forget=True), ids=str)
def test_every_program_is_over_at_its_end(program: Any) -> None:
    """No work goes on after the epilogue, so that who waits then waits forever (KM-RETURN)."""
    whole, tail = with_epilogue(program)
    assert whole.phases[: len(program.phases)] == program.phases
    assert len(whole.phases) == len(program.phases) + tail
    for make in (flights_threads.TakeoverFlight, flights_asyncio.TaskFlight):
        if "g" not in program.kinds:
            last = run(make, str(program)).last
            assert isinstance(last, FlightJudge)
            assert (last._going, last._calls) == ([], {})


@pytest.fixture(autouse=True)
def no_loop_is_left() -> Iterator[None]:
    yield
    assert asyncio._get_running_loop() is None


@pytest.mark.parametrize(
    ("make", "program", "counts"),
    [
        (flights_threads.FlightMindsExceptionsOnly, "0ta | c0", False),
        (flights_threads.FlightForgetsOnlyOnSuccess, "0fa | 1ea", True),
    ],
)
def test_what_an_interrupt_leaves_behind_counts_where_that_is_promised(
    make: Callable[[], Any], program: str, counts: bool
) -> None:
    """KM-LEADER, as KM-INTERRUPT for locks; what a failing leader leaves behind counts for everybody."""
    for unpromised in (frozenset[str](), frozenset(("KM-INTERRUPT",))):
        with controlled(make):
            found = fit(make)
            plain = Explorer.of(found, crew=Crew(), unpromised=unpromised)
            result = put_on_trial(found.shape, found.make, plain)[2].every(parse(program), "locks", 0)
        broken = result.found if counts or not unpromised else result.unpromised
        assert {finding.clauses[0] for finding, _ in broken.values()} == {"KM-LEADER"}
        assert len(result.breaches) == len(broken)
