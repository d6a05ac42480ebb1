"""The checks that ask for more than a few clients and two keys: what each must catch, and what it must accept."""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.scenarios import programs_for
from kmutex.verify.checks.size import size_of
from kmutex.verify.evidence import Result
from kmutex.verify.results import UnitResult, rows
from tests.lockers import misjudged
from tests.lockers.catalogue import load
from tests.lockers.catalogue import rows as lockers
from tests.verify.checked import checked

KEPT = ("asyncio.AsyncCancelledCount", "threads.KeptUnderText", "threads.KeptUnderHash", "threads.KeptElsewhere")
KEPT += ("threads.ActorKeeps",)
NOT_KEPT = ("asyncio.AsyncCancelledCountRepaired", "threads.CountsUnderText", "threads.RemembersNames")
NOT_KEPT += ("threads.WritesALog", "threads.Actor", "threads.LastOnlyRepaired")
DROPPED = ("threads.LastOnly", "threads.LastThousand", "threads.ForAnHour", "asyncio.AsyncForAnHourByClock")
HELD = ("threads.LastOnlyRepaired", "threads.ForAnHourRepaired", "threads.Actor", "asyncio.AsyncBlockRepaired")
HELD += ("asyncio.AnyioCheckpointRepaired",)


@functools.cache
def bench(name: str) -> Harness:
    row = lockers()[name]
    return Harness(load(row), without=row.without)


def outcome_of(where: Harness, check: str) -> UnitResult:
    with where.control():
        return checked(where, check)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_of_idle_keys_is_found(name: str) -> None:
    """KM-IDLE, without len(): by a cancelled wait, under another name, in another table, in a thread of its own."""
    outcome = outcome_of(bench(name), "memory")
    assert [found.clauses for found in outcome.found] == [("KM-IDLE",)]


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", NOT_KEPT)
def test_a_cache_and_a_log_are_no_leak(name: str) -> None:
    """And neither are entries that go with their keys."""
    outcome = outcome_of(bench(name), "memory")
    assert (outcome.found, outcome.undecided, outcome.complete) == ([], [], True)
    assert outcome.witnesses["KM-IDLE"]
    remarked = {"threads.RemembersNames", "threads.WritesALog", "threads.LastOnlyRepaired"}
    assert bool(outcome.notes) == (name in remarked)


@pytest.mark.long
def test_what_the_next_use_would_clear_away_is_found() -> None:
    """KM-IDLE: kept after a body that raised, until the key is used again; its twin lets go in a finally."""
    for make, found in ((misjudged.AsyncBlockForgetsAfterwards, [("KM-IDLE",)]), (misjudged.AsyncBlockRepaired, [])):
        outcome = outcome_of(Harness(make), "memory")
        assert [one.clauses for one in outcome.found] == found
        assert outcome.complete == (not found)


class _WeakAndChained:
    """Locks in a weak table, and a refusal that is raised from another (sound)."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[Any, Any] = weakref.WeakValueDictionary()
        self._held: dict[Any, Any] = {}

    async def lock(self, key: Any, timeout: float | None = None) -> None:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        try:
            if timeout == 0 and lock.locked():
                raise TimeoutError
            await asyncio.wait_for(lock.acquire(), timeout or None)
        except asyncio.TimeoutError as error:
            raise TimeoutError(key) from error
        self._held[key] = lock

    def unlock(self, key: Any) -> None:
        self._held.pop(key).release()

    def __len__(self) -> int:
        return len(self._locks)


def test_a_refusal_keeps_no_entry_alive() -> None:
    """KM-IDLE: neither the error nor its cause holds the frame in which the entry is."""
    where = Harness(_WeakAndChained)
    with where.control():
        found = where.explorer.every(parse("0+a | 1?a | 0-a"), where.levels[0], 0).found
    assert not found


class _Stumbles(misjudged.AsyncCancelledCountRepaired):
    """Fails after a hundred calls, of whatever key."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    async def lock(self, key: Any) -> None:
        self._calls += 1
        if self._calls > 100:
            raise RuntimeError("enough")
        await super().lock(key)


@pytest.mark.long
def test_a_check_that_can_not_be_made_is_no_pass() -> None:
    """Neither `holds` nor silence: inconclusive, with the reason."""
    where = Harness(_Stumbles)
    outcome = outcome_of(where, "memory")
    (row,) = (row for row in rows("x", where.shape, frozenset(), [outcome], []) if row.clause == "KM-IDLE")
    assert row.result is Result.INCONCLUSIVE
    assert "enough" in row.detail
    assert not outcome.complete


@pytest.mark.parametrize("name", DROPPED)
def test_a_key_that_is_given_twice_after_many_others_or_hours_is_found(name: str) -> None:
    """KM-EXCL: the lock that is held is dropped from its table."""
    outcome = outcome_of(bench(name), "holding")
    assert [found.clauses for found in outcome.found] == [("KM-EXCL",)]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", HELD)
def test_a_key_stays_held_through_many_others_and_hours(name: str) -> None:
    """Also where each lock takes a step of the loop, or a thread of its own to answer."""
    outcome = outcome_of(bench(name), "holding")
    assert (outcome.found, outcome.complete) == ([], True)
    assert outcome.bound == "a key held through 1,600 other keys held or used meanwhile and 3 hours"
    assert outcome.witnesses["KM-EXCL"]


class _Full(misjudged.CountingUsers):
    """Refuses more than 200 keys at once."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        if key not in self._entries and len(self._entries) >= 200:
            raise OverflowError("too many keys")
        super().lock(key, timeout)


def test_a_table_that_refuses_more_keys_drops_none() -> None:
    """It is remarked, and the bound says how many were held."""
    outcome = outcome_of(Harness(_Full, without=PROMISES), "holding")
    assert outcome.found == []
    assert outcome.notes[0][1].startswith("refuses more than 200 keys at once: OverflowError")
    assert outcome.bound == "a key held through 100 other keys held or used meanwhile and 3 hours"


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("asyncio.AsyncBlockWithoutFinally", "%&"),
        ("asyncio.AsyncBlockForErrorsOnly", "&"),
        ("threads.BlockWithoutFinally", "%"),
        ("asyncio.AsyncBlockRepaired", ""),
        ("threads.BlockRepaired", ""),
    ],
)
def test_a_body_that_raises_leaves_its_key_free(name: str, broken: str) -> None:
    """KM-TOKEN, and KM-LIVE by it: by an error, or by a cancellation, and never without one."""
    where = bench(name)
    wanted = [program for program in programs_for(where.shape, interrupt=False) if program.kinds & set("%&")]
    assert {kind for program in wanted for kind in program.kinds & set("%&")} >= set("%" if "threads" in name else "%&")
    seen: set[str] = set()
    with where.control():
        for program in wanted:
            found = where.explorer.every(program, where.levels[0], 1).found
            if found:
                assert found["KM-LIVE"].finding.clauses == ("KM-TOKEN", "KM-LIVE")
                seen |= program.kinds & set("%&")
        plain = where.explorer.every(parse("0+a-a | 1+a"), where.levels[0], 1)
    assert seen == set(broken)
    assert not plain.found


def test_a_thread_that_is_started_and_joined_is_part_of_the_run() -> None:
    """Sound, in every interleaving with one preemption; not joined, the error of a stray unlock is lost."""
    sound, bad = bench("threads.ByHelper"), bench("threads.ByHelperNotJoined")
    with sound.control():
        for text in ("0+a-a 1+a", "0+a | 1+a | 0-a", "0xa", "0+a | 1~a | c1 0-a"):
            result = sound.explorer.every(parse(text), "locks", 1, go_on=lambda runs: runs < 2_000)
            assert not result.found
            assert not result.endless
            assert result.witnesses["KM-EXCL"]
    with bad.control():
        assert "KM-UNHELD" in bad.explorer.every(parse("0xa"), "locks", 0).found


def test_the_size_of_a_subject_is_what_hangs_on_it() -> None:
    """Its own attributes, its class's, and the table of its module; not the module of another package."""
    misjudged._KEPT.clear()
    one, other = misjudged.CountingUsers(), misjudged.CountingUsers()
    small = size_of(one)
    assert small is not None
    assert size_of(other) == small
    one._entries["a"] = [None, 0]
    assert (size_of(one) or 0) > small
    small = size_of(other)
    misjudged._KEPT["a"] = other._guard
    grown = size_of(other)
    misjudged._KEPT.clear()
    assert (grown or 0) > (small or 0) == (size_of(other) or 0)


@pytest.mark.parametrize(
    ("name", "check", "clauses"),
    [
        ("threads.LiveSnapshot", "snapshots", ("KM-REF",)),
        ("threads.SixtyFourTickets", "tickets", ("KM-TOKEN",)),
        ("threads.YoungestOfMany", "queues", ("KM-FIFO",)),
        ("threads.CapsTime", "timeouts", ("KM-EXPIRED",)),
        ("threads.TakesAnyTime", "timeouts", ("KM-EXPIRED",)),
        ("asyncio.AsyncLeaseInAnyLoop", "loops", ("KM-LOOP",)),
        ("asyncio.AsyncClosedWaits", "unstarted", ("KM-CANCEL",)),
    ],
)
def test_what_no_short_program_shows_is_found_by_its_check(name: str, check: str, clauses: tuple[str, ...]) -> None:
    """And the lock of this library passes each of them."""

    def judged(make: Callable[[], Any]) -> UnitResult:
        return outcome_of(Harness(make, promises=PROMISES), check)

    assert judged(load(lockers()[name])).found[0].clauses == clauses
    passed = judged(AsyncKeyedMutex if name.startswith("asyncio") else KeyedMutex)
    assert (passed.found, passed.notes, passed.complete) == ([], [], True)
    assert passed.witnesses[clauses[0]]


def test_the_interface_of_others_may_mean_something_else_by_a_negative_timeout() -> None:
    """A remark, no violation: for many, -1 is to wait for as long as it takes."""
    outcome = outcome_of(bench("threads.RepairedTimed"), "timeouts")
    assert outcome.found == []
    assert [clause for clause, _ in outcome.notes] == ["KM-EXPIRED"]


@pytest.mark.parametrize("program", ["0[a | 1+a | 2+a | 0ua | 0^a", "0[a | 1+a | 2+a | 0ua | 0]a"])
def test_an_old_lease_leaves_a_holder_alone_behind_whom_somebody_waits(program: str) -> None:
    """KM-TOKEN, by programs that every locker with leases is put through."""
    where = bench("threads.OldLeaseReleases")
    assert parse(program) in programs_for(where.shape, interrupt=True)
    with where.control():
        found = where.explorer.every(parse(program), "locks", 0).found
    assert found["KM-EXCL"].finding.clauses == ("KM-TOKEN", "KM-EXCL")


def test_what_a_callback_raises_is_seen() -> None:
    """KM-CANCEL: a timer that fires on a wait that is over; asyncio would write it to a log."""
    where = bench("asyncio.AsyncExpiresTwice")
    with where.control():
        found = where.explorer.every(parse("0+a | 1~a | 0-a"), "timeouts", 2).found
    assert "a callback on the event loop raised InvalidStateError" in found["KM-LIVE"].finding.message
