"""The Hypothesis machine and `check_histories`: sound lockers pass and are put to the test, bad ones are named."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import hypothesis
import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex.engine.harness import Harness
from kmutex.engine.judge import Judge
from kmutex.engine.program import parse
from kmutex.testing import (
    CLAUSES,
    PROMISES,
    ContractError,
    Histories,
    InconclusiveError,
    NotALockerError,
    UnknownFeatureError,
    check_histories,
    fit,
    locker_machine,
)
from kmutex.verify.history import History
from kmutex.verify.machine import Watch
from tests.lockers import kmutex_bad as bad
from tests.lockers import repaired, shapes_threads, threads_bad

SEED = 20_231
BAD = [
    (bad.NeverEvicts, "KM-IDLE", ()),
    (bad.StrayAccepted, "KM-UNHELD", ()),
    (bad.IgnoresTime, "KM-CANCEL", ()),
    (bad.Stack, "KM-FIFO", ()),
    (bad.AsyncCancelKeepsPlace, "KM-CANCEL", ()),
    (bad.AsyncTryLeavesTrace, "KM-EXPIRED", ()),
    (shapes_threads.LockBlocksLeftTwice, "KM-TOKEN", ("fifo",)),
]
ACTIONS = {"request", "try", "cancel", "release", "stray_unlock", "stale_release", "leave"}


def _check(
    make: Callable[[], Any], *, without: tuple[str, ...] = (), examples: int = 60, seed: int = SEED
) -> Histories:
    print(f"seed {seed}")
    return _checked(make, without, examples, seed)


@functools.cache
def _checked(make: Callable[[], Any], without: tuple[str, ...], examples: int, seed: int) -> Histories:
    return check_histories(make, kind=None, without=without, promises=PROMISES, examples=examples, seed=seed)


@pytest.mark.parametrize(
    ("make", "silent"),
    [
        pytest.param(KeyedMutex, {"KM-RACE", "KM-LOOP", "KM-ALL"}, marks=pytest.mark.long),
        (AsyncKeyedMutex, {"KM-RACE", "KM-LOOP", "KM-ALL", "KM-INTERRUPT"}),
    ],
)
def test_sound_lockers_pass_and_every_clause_has_its_witness(make: Callable[[], Any], silent: set[str]) -> None:
    """All clauses but those that need two things at once, a second loop, several keys, or an interrupt of a task."""
    found = _check(make)
    assert found.finding is None
    assert found.complete
    assert found.examples >= 60
    assert found.phases > found.examples
    assert {clause for clause in CLAUSES if not found.witnesses[clause]} == silent


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("make", "clause", "without"), BAD)
def test_bad_lockers_are_named_and_the_schedule_replays(
    make: Callable[[], Any], clause: str, without: tuple[str, ...]
) -> None:
    """Each with its own clause first; the schedule that is printed shows the same clauses again."""
    found = _check(make, without=without)
    assert found.finding is not None
    assert found.schedule is not None
    assert found.finding.clauses[0] == clause
    assert found.finding.events
    bench = Harness(make, without=without, promises=PROMISES)
    with bench.control():
        again = bench.explorer.again(found.schedule)
    assert found.finding.clauses in [entry.finding.clauses for entry in again.found.values()]


@pytest.mark.parametrize(
    ("make", "program", "clause"),
    [
        (bad.NeverEvicts, "0+a | 0-a", "KM-REF"),
        (bad.StrayAccepted, "0xa", "KM-UNHELD"),
        (bad.IgnoresTime, "0+a | 1~a | c1", "KM-CANCEL"),
        (bad.Stack, "0+a | 1+a | 2+a | 0-a", "KM-FIFO"),
        (bad.AsyncCancelKeepsPlace, "0+a | 1~a | c1 | 0-a", "KM-REF"),
        (bad.AsyncTryLeavesTrace, "0+a | 1?a | 0-a", "KM-REF"),
    ],
)
def test_the_model_alone_rejects_what_the_judge_rejects(make: Callable[[], Any], program: str, clause: str) -> None:
    """With a judge that looks at nothing, each moment of rest still has to be the model's, and only here is not."""
    for subject, wanted in ((make, [clause]), (AsyncKeyedMutex if "Async" in make.__name__ else KeyedMutex, [])):
        bench = Harness(subject)
        history = _history_of(parse(program), bench)
        watch = Watch(Judge(off=frozenset(CLAUSES)), history.moments, off=frozenset(), counts=bench.shape.counts)
        bench.run(history.program, bench.levels[0], watch)
        assert ([watch.finding.symptom] if watch.finding else []) == wanted
        assert watch.compared == len(history.phases) - len(wanted)


def _history_of(program: Any, bench: Harness) -> History:
    """The history that makes this program."""
    history = History(4, "abc", "keep" if bench.shape.kind == "threads" else "pass")
    for phase in program.phases:
        if phase.cancel:
            history.cancel(*phase.cancel)
            continue
        ((client, (step,)),) = phase.steps
        if step.kind in "+~!?[":
            history.ask(client, step.kind, step.key)
        elif step.kind == "x":
            history.stray_unlock(client, step.key)
        elif client in history.stale:
            history.stale_release(client) if step.kind == "^" else history.leave(client)
        else:
            history.release(client, step.kind)
    assert str(history.program) == str(program)
    return history


def test_a_lease_that_comes_too_late_may_be_silent() -> None:
    """KM-TOKEN: a repaired lease says nothing and ends nothing. One that ends the grant of somebody else is found."""
    for make, wanted in ((repaired.Leasing, set()), (threads_bad.LeaseReleasedTwice, {"KM-TOKEN"})):
        bench = Harness(make)
        found = set()
        for text in ("0[a | 0^a | 0^a", "0[a | 0^a | 1+a | 2+a | 0^a"):
            history = _history_of(parse(text), bench)
            watch = Watch(Judge(), history.moments, off=frozenset(), counts=False)
            bench.run(history.program, "locks", watch)
            found |= {finding.clauses[0] for finding in (*watch.judge.findings, watch.finding) if finding is not None}
        assert found == wanted


@pytest.mark.long
def test_a_locker_without_order_is_followed_where_it_goes() -> None:
    """A sound barging lock passes without "fifo", and is rejected with it (KM-FIFO, KM-HANDOFF)."""
    found = _check(bad.Barging, without=("fifo",), examples=30)
    assert found.finding is None
    assert found.phases > 30
    stack = _check(bad.Stack, without=("fifo",), examples=30)
    assert stack.finding is None
    assert stack.witnesses["KM-LIVE"]


@pytest.mark.long
def test_a_locker_that_may_keep_idle_entries_keeps_them_next_to_live_ones() -> None:
    """Without "evict", a len() above the number of live keys is no KM-REF either; one below still is."""
    found = _check(bad.NeverEvicts, without=("evict",), examples=30)
    assert found.finding is None
    assert found.witnesses["KM-REF"]
    forgets = _check(bad.Forgets, without=("evict",))
    assert forgets.finding is not None
    assert forgets.finding.clauses[0] == "KM-REF"


@pytest.mark.long
def test_the_same_seed_gives_the_same_histories() -> None:
    """What is reported can be had again."""
    first, second, other = (
        check_histories(KeyedMutex, kind=None, without=(), examples=10, seed=seed) for seed in (1, 1, 2)
    )
    assert first == second._replace(judge=first.judge)
    assert first.witnesses != other.witnesses


def test_the_deadline_ends_a_search_as_incomplete() -> None:
    """Out of time is no pass."""
    found = check_histories(KeyedMutex, kind=None, without=(), examples=10_000, seed=SEED, deadline=0.0)
    assert not found.complete
    assert found.finding is None


def test_each_example_is_announced() -> None:
    """on_example hears how many histories were run so far."""
    heard: list[int] = []
    check_histories(KeyedMutex, kind=None, without=(), examples=5, seed=SEED, on_example=heard.append)
    assert heard == list(range(len(heard)))
    assert len(heard) >= 5


@pytest.mark.parametrize("make", [KeyedMutex, AsyncKeyedMutex])
@pytest.mark.long
def test_every_rule_is_used(make: Callable[[], Any]) -> None:
    """The machine as a test case; each action of the model was taken, and queues grew to the last client."""
    wanted = ACTIONS | ({"interrupt"} if make is KeyedMutex else set())
    taken: set[str] = set()
    longest = 0
    # What a seed draws depends on the modules that are loaded, so one may not be enough.
    for seed in range(20):
        machine = hypothesis.seed(seed)(locker_machine(make))
        case = machine.TestCase
        case.settings = hypothesis.settings(case.settings, max_examples=50, derandomize=False)
        case("runTest").debug()
        assert machine.tally.open == 0
        taken |= set(machine.tally.actions)
        longest = max(longest, machine.tally.longest_queue)
        if wanted <= taken and longest >= 2:
            break
    assert wanted <= taken
    assert longest >= 2


@pytest.mark.long
def test_a_failing_case_shows_clause_program_replay_and_lanes() -> None:
    """All that is needed to see what happened, in the message."""
    with pytest.raises(ContractError) as caught:
        locker_machine(bad.Stack, promises=["fifo"]).TestCase("runTest").debug()
    text = str(caught.value)
    assert text.startswith("KM-FIFO: client ")
    assert f"\nprogram: {caught.value.schedule.program}\n" in text
    replay = f"kmutex verify tests.lockers.kmutex_bad:Stack --with fifo --replay '{caught.value.schedule}'"
    assert f"\nreplay:  {replay}\n" in text
    assert "\nclient 0" in text
    assert ">> KM-FIFO: " in text


class _Hangs:
    """Waits for a lock that was made before anybody was watching."""

    _early = bad.Lock()

    def __init__(self) -> None:
        self._early = type(self)._early

    def lock(self, key: str, timeout: float | None = None) -> None:
        pass

    def unlock(self, key: str) -> None:
        raise RuntimeError


class _Endless:
    """Asks again and again for a key that is held."""

    def __init__(self) -> None:
        self._held: set[str] = set()

    def lock(self, key: str) -> None:
        while key in self._held:
            lock = bad.threading.Lock()
            lock.acquire()
            lock.release()
        self._held.add(key)

    def unlock(self, key: str) -> None:
        self._held.remove(key)


class _Leaves(_Hangs):
    def lock(self, key: str, timeout: float | None = None) -> None:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("make", "error"),
    [(_Endless, InconclusiveError), (_Leaves, NotALockerError), (dict, NotALockerError)],
)
def test_what_has_no_verdict_is_no_pass(make: Callable[[], Any], error: type[Exception]) -> None:
    """Neither for the test case nor for the search; and it is not looked for a second time."""
    with pytest.raises(error):
        _check(make)
    machine = locker_machine(make)
    with pytest.raises(error):
        machine.TestCase("runTest").debug()


class _Early(dict[str, Any]):
    """Its locks are real ones, by a name that was bound at import."""

    def __init__(self, new: Callable[[], Any] = threading.Lock) -> None:
        self._new = new

    def __missing__(self, key: str) -> Any:
        return self.setdefault(key, self._new())


def test_a_lock_out_of_control_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a suite; ``field(default_factory=threading.Lock)`` is such a name."""
    monkeypatch.setattr("kmutex.engine.harness.fit", functools.partial(fit, patience=0.3))
    machine = locker_machine(_Early)
    with pytest.raises(NotALockerError, match=r"out of the scheduler's control: .*, at .*; .* in \[tool\.kmutex\]"):
        machine.TestCase("runTest").debug()


def test_an_unknown_feature_is_refused_at_once() -> None:
    """With the list of those there are."""
    with pytest.raises(UnknownFeatureError, match="'speed' is not a feature; the features are fifo, timeout,"):
        locker_machine(KeyedMutex, without={"speed"})


def test_a_real_lock_in_a_modules_name_comes_under_control_and_goes_back() -> None:
    """``from threading import Lock`` in the subject's module, which was imported before."""
    before = bad.Lock
    with Harness(bad.CountsLate).control():
        assert bad.Lock is bad.threading.Lock
        assert bad.Lock is not before
    assert bad.Lock is before
