"""The keyed mutex for threads. Whoever waits is waited for by its place in the snapshot, never by the clock."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from fractions import Fraction
from typing import NoReturn, TypeVar

import pytest

from kmutex import Entry, KeyedLocker, KeyedMutex, KMutexError, Lease, LeaseReusedError, UnheldKeyError, _threads
from kmutex._core import LockTable

DEADLINE = 120.0
"""Seconds after which a test that waits has failed; nothing here takes long."""

T = TypeVar("T")


def start(call: Callable[..., T], *arguments: object) -> Future[T]:
    """Run ``call`` in a thread of its own, which does not keep the interpreter alive if the test fails."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def until(state: Callable[[], bool]) -> None:
    """Return once ``state`` is true; AssertionError after the deadline."""
    end = time.monotonic() + DEADLINE
    turn = threading.Event()
    while not state():
        assert time.monotonic() < end, "the state never came"
        turn.wait(0.0005)


def waiters(mutex: KeyedMutex, key: Hashable) -> int:
    entry = mutex.snapshot().get(key)
    return 0 if entry is None else len(entry.waiters)


def start_waiter(mutex: KeyedMutex, key: Hashable, timeout: float | None = DEADLINE) -> Future[None]:
    """A thread that asks for ``key``, which is held; returns when it stands in the queue."""
    before = waiters(mutex, key)
    waiter = start(mutex.lock, key, timeout)
    until(lambda: waiters(mutex, key) == before + 1 or waiter.done())
    assert not waiter.done(), "the waiter did not wait"
    return waiter


def test_it_is_a_keyed_locker() -> None:
    assert isinstance(KeyedMutex(), KeyedLocker)


def test_lock_takes_a_free_key_and_unlock_drops_it() -> None:
    """KM-EXCL, KM-REF, KM-IDLE"""
    mutex = KeyedMutex()
    mutex.lock("k")
    assert "k" in mutex
    assert "other" not in mutex
    assert len(mutex) == 1
    entry = mutex.snapshot()["k"]
    assert (entry.waiters, entry.refs) == ((), 1)
    mutex.unlock("k")
    assert "k" not in mutex
    assert len(mutex) == 0
    assert mutex.snapshot() == {}


def test_tickets_are_never_used_twice_and_never_the_one_that_means_none() -> None:
    """KM-TOKEN"""
    mutex = KeyedMutex()
    seen = []
    for _ in range(3):
        mutex.lock("k")
        seen.append(mutex.snapshot()["k"].holder)
        mutex.unlock("k")
    assert len(set(seen)) == 3
    assert _threads.NO_TICKET not in seen


def test_waiters_are_served_in_the_order_of_their_requests() -> None:
    """KM-FIFO, KM-HANDOFF, KM-LIVE"""
    mutex = KeyedMutex()
    mutex.lock("k")
    queue = [start_waiter(mutex, "k") for _ in range(4)]
    for served, waiter in enumerate(queue, 1):
        mutex.unlock("k")
        waiter.result(DEADLINE)
        assert [later.done() for later in queue] == [True] * served + [False] * (4 - served)
    mutex.unlock("k")
    assert len(mutex) == 0


def test_a_newcomer_does_not_barge() -> None:
    """KM-HANDOFF: the key belongs to the waiter from the unlock on, before its thread has run."""
    mutex = KeyedMutex()
    mutex.lock("k")
    waiter = start_waiter(mutex, "k")
    ticket = mutex.snapshot()["k"].waiters[0]
    mutex.unlock("k")
    assert mutex.snapshot()["k"] == Entry(ticket, ())
    with pytest.raises(TimeoutError):
        mutex.lock("k", 0)
    waiter.result(DEADLINE)
    assert mutex.snapshot()["k"] == Entry(ticket, ())


def test_a_queue_on_one_key_does_not_delay_another() -> None:
    """KM-INDEP: the guard is free while three threads wait."""
    mutex = KeyedMutex()
    mutex.lock("a")
    queue = [start_waiter(mutex, "a") for _ in range(3)]

    def elsewhere() -> int:
        mutex.lock("b", 0)
        mutex.lock("c")
        mutex.unlock("b")
        mutex.unlock("c")
        return len(mutex)

    assert start(elsewhere).result(DEADLINE) == 1
    for waiter in queue:
        mutex.unlock("a")
        waiter.result(DEADLINE)


def test_threads_exclude_each_other() -> None:
    """KM-EXCL, KM-LIVE: and somewhere in the run somebody waited, else it shows nothing."""
    mutex = KeyedMutex()
    inside = {"a": 0, "b": 0}
    most_refs = 0
    barrier = threading.Barrier(4)

    def work(key: str) -> None:
        nonlocal most_refs
        barrier.wait(DEADLINE)
        for _ in range(200):
            mutex.lock(key)
            inside[key] += 1
            assert inside[key] == 1
            most_refs = max(most_refs, mutex.snapshot()[key].refs)
            inside[key] -= 1
            mutex.unlock(key)

    mutex.lock("a")
    workers = [start(work, key) for key in "aabb"]
    until(lambda: waiters(mutex, "a") == 2)
    mutex.unlock("a")
    for worker in workers:
        worker.result(DEADLINE)
    assert most_refs > 1
    assert len(mutex) == 0


def test_unlock_of_a_key_nobody_holds() -> None:
    """KM-UNHELD, KM-ATOMIC"""
    mutex = KeyedMutex()
    mutex.lock("held")
    before = mutex.snapshot()
    with pytest.raises(UnheldKeyError, match="'k'"):
        mutex.unlock("k")
    assert mutex.snapshot() == before
    mutex.unlock("held")
    with pytest.raises(UnheldKeyError):
        mutex.unlock("held")


def test_unlock_by_key_releases_the_holder_whoever_that_is() -> None:
    """KM-TOKEN: another thread may unlock."""
    mutex = KeyedMutex()
    mutex.lock("k")
    start(mutex.unlock, "k").result(DEADLINE)
    assert len(mutex) == 0


def test_timeout_0_takes_a_free_key() -> None:
    """KM-EXPIRED"""
    mutex = KeyedMutex()
    mutex.lock("k", 0)
    assert "k" in mutex


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, False])
def test_timeout_0_on_a_held_key_raises_and_leaves_no_trace(timeout: float) -> None:
    """KM-EXPIRED, KM-CANCEL"""
    mutex = KeyedMutex()
    mutex.lock("k")
    before = mutex.snapshot()
    with pytest.raises(TimeoutError, match=rf"^no grant of 'k' within {timeout} s$"):
        mutex.lock("k", timeout)
    assert mutex.snapshot() == before


@pytest.mark.parametrize("timeout", [-1, -1e-9, -math.inf, math.nan])
def test_a_timeout_that_is_none_is_refused_free_or_held(timeout: float) -> None:
    """KM-EXPIRED, KM-ATOMIC"""
    mutex = KeyedMutex()
    with pytest.raises(ValueError, match=r"^timeout must be None or at least 0 seconds, not "):
        mutex.lock("k", timeout)
    assert len(mutex) == 0
    mutex.lock("k")
    before = mutex.snapshot()
    with pytest.raises(ValueError, match="timeout"):
        mutex.lock("k", timeout)
    assert mutex.snapshot() == before


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**30, threading.TIMEOUT_MAX, threading.TIMEOUT_MAX * 2])
def test_a_timeout_longer_than_any_wait_is_one(timeout: float) -> None:
    """KM-EXPIRED: infinite, and more than the platform's lock can be told."""
    mutex = KeyedMutex()
    mutex.lock("k", timeout)
    waiter = start_waiter(mutex, "k", timeout)
    mutex.unlock("k")
    waiter.result(DEADLINE)


@pytest.mark.parametrize("timeout", ["1", 1j, Fraction(1, 2)])
def test_a_timeout_of_a_wrong_type_leaves_no_trace(timeout: float) -> None:
    """KM-ATOMIC: also where it is the wait itself that refuses it."""
    mutex = KeyedMutex()
    mutex.lock("k")
    before = mutex.snapshot()
    with pytest.raises(TypeError):
        mutex.lock("k", timeout)
    assert mutex.snapshot() == before


def test_a_waiter_that_times_out_leaves_the_queue() -> None:
    """KM-CANCEL, KM-REF: the others keep their order, and it never holds later."""
    mutex = KeyedMutex()
    mutex.lock("k")
    first = start_waiter(mutex, "k")
    order = mutex.snapshot()["k"].waiters
    late = start(mutex.lock, "k", 0.01)
    assert isinstance(late.exception(DEADLINE), TimeoutError)
    last = start_waiter(mutex, "k")
    assert mutex.snapshot()["k"].waiters[:1] == order
    assert mutex.snapshot()["k"].refs == 3
    mutex.unlock("k")
    first.result(DEADLINE)
    mutex.unlock("k")
    last.result(DEADLINE)
    mutex.unlock("k")
    assert len(mutex) == 0


def test_a_grant_that_beats_the_timeout_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-RACE: the wait reports that the time is over, the table that the grant came; the call returns holding."""
    mutex = KeyedMutex()
    mutex.lock("k")

    def late(gate: threading.Lock, timeout: float | None) -> bool:
        assert gate.acquire(timeout=DEADLINE)
        return False

    monkeypatch.setattr(_threads, "_pass", late)
    waiter = start_waiter(mutex, "k", 0.01)
    ticket = mutex.snapshot()["k"].waiters[0]
    mutex.unlock("k")
    waiter.result(DEADLINE)
    assert mutex.snapshot() == {"k": Entry(ticket, ())}


@pytest.mark.parametrize("key", [[], ([],), {}])
def test_an_unhashable_key_changes_nothing(key: Hashable) -> None:
    """KM-ATOMIC: also one that only turns out to be, inside a tuple."""
    mutex = KeyedMutex()
    with pytest.raises(TypeError, match="unhashable"):
        mutex.lock(key)
    with pytest.raises(TypeError, match="unhashable"):
        mutex.unlock(key)
    with pytest.raises(TypeError, match="unhashable"), mutex.hold(key):
        raise AssertionError("the block ran")
    assert len(mutex) == 0
    mutex.lock("k", 0)


def test_any_hashable_value_is_a_key() -> None:
    """KM-INDEP: equal values are one key."""
    mutex = KeyedMutex()
    keys: list[Hashable] = [None, 0, "", (), ("a", 1), frozenset({1}), object()]
    for key in keys:
        mutex.lock(key, 0)
    assert len(mutex) == len(keys)
    with pytest.raises(TimeoutError):
        mutex.lock(0.0, 0)
    for key in keys:
        mutex.unlock(key)
    assert len(mutex) == 0


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """SIGINT raises KeyboardInterrupt in the main thread, whatever the runner has set; yields what sends it."""
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread is interrupted")
    target = threading.get_ident()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield lambda: signal.pthread_kill(target, signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("timeout", [None, DEADLINE])
def test_ctrl_c_in_the_wait_leaves_no_ref(timeout: float | None) -> None:
    """KM-INTERRUPT, KM-CANCEL: a real SIGINT while the thread stands in the queue."""
    mutex = KeyedMutex()
    mutex.lock("k")
    with interrupts() as send:

        def when_it_waits() -> None:
            until(lambda: waiters(mutex, "k") == 1)
            send()

        sender = start(when_it_waits)
        with pytest.raises(KeyboardInterrupt):
            mutex.lock("k", timeout)
        sender.result(DEADLINE)
    assert mutex.snapshot()["k"].refs == 1
    mutex.unlock("k")
    assert len(mutex) == 0


def test_an_interrupt_after_the_grant_passes_the_key_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-RACE: the call raises, so it must not hold."""
    mutex = KeyedMutex()
    mutex.lock("k")
    open_gate = _threads._pass
    interrupted: list[bool] = []

    def struck_once(gate: threading.Lock, timeout: float | None) -> bool:
        passed = open_gate(gate, timeout)
        if not interrupted:
            interrupted.append(passed)
            raise KeyboardInterrupt
        return passed

    monkeypatch.setattr(_threads, "_pass", struck_once)
    first = start_waiter(mutex, "k")
    second = start_waiter(mutex, "k")
    mutex.unlock("k")
    assert isinstance(first.exception(DEADLINE), KeyboardInterrupt)
    assert interrupted == [True]
    second.result(DEADLINE)
    assert mutex.snapshot()["k"].refs == 1


def test_an_interrupt_after_the_grant_with_nobody_behind_evicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-IDLE"""
    mutex = KeyedMutex()
    mutex.lock("k")
    open_gate = _threads._pass

    def struck(gate: threading.Lock, timeout: float | None) -> bool:
        assert open_gate(gate, timeout)
        raise KeyboardInterrupt

    monkeypatch.setattr(_threads, "_pass", struck)
    waiter = start_waiter(mutex, "k")
    mutex.unlock("k")
    assert isinstance(waiter.exception(DEADLINE), KeyboardInterrupt)
    assert len(mutex) == 0


def test_an_interrupt_while_the_gate_is_made_leaves_no_ref(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-ATOMIC: the request was not made."""
    mutex = KeyedMutex()
    mutex.lock("k")
    before = mutex.snapshot()

    monkeypatch.setattr(_threads, "_closed_gate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mutex.lock("k")
    assert mutex.snapshot() == before


def test_an_interrupt_before_the_ticket_is_drawn_touches_nothing() -> None:
    """KM-INTERRUPT"""
    mutex = KeyedMutex()
    mutex.lock("k")
    before = mutex.snapshot()

    class Struck:
        def __next__(self) -> int:
            raise KeyboardInterrupt

    mutex._tickets = Struck()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        mutex.lock("k")
    assert mutex.snapshot() == before


def test_an_interrupt_in_the_wait_for_the_guard_leaves_nothing() -> None:
    """KM-INTERRUPT: no request was made, and the guard, which is another thread's, is left to it."""
    mutex = KeyedMutex()
    guard = mutex._guard

    class Struck:
        asked = 0

        def acquire(self) -> bool:
            self.asked += 1
            if self.asked == 1:
                raise KeyboardInterrupt
            return guard.acquire()

        __enter__ = acquire

        def __exit__(self, *error: object) -> None:
            guard.release()

        def release(self) -> None:
            guard.release()

    mutex._guard = Struck()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        mutex.lock("k")
    assert len(mutex) == 0


def interrupt(*_: object) -> NoReturn:
    """In the place of a call that is interrupted before it begins."""
    raise KeyboardInterrupt


def struck_after(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
    """The first call of this method does its work, and is interrupted before it comes back."""
    method = getattr(owner, name)
    calls: list[None] = []

    def struck(*arguments: object) -> object:
        answer = method(*arguments)
        calls.append(None)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return answer

    monkeypatch.setattr(owner, name, struck)


def test_an_interrupt_between_the_hand_over_and_its_gate_loses_no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-LIVE, KM-HANDOFF"""
    mutex = KeyedMutex()
    mutex.lock("k")
    waiter = start_waiter(mutex, "k")
    struck_after(monkeypatch, LockTable, "release")
    with pytest.raises(KeyboardInterrupt):
        mutex.unlock("k")
    waiter.result(DEADLINE)
    assert mutex.snapshot()["k"].refs == 1


def test_an_unlock_that_was_interrupted_at_its_beginning_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-ATOMIC: neither the holder nor a waiter."""
    mutex = KeyedMutex()
    mutex.lock("k")
    waiter = start_waiter(mutex, "k")
    before = mutex.snapshot()

    with monkeypatch.context() as patched:
        patched.setattr(LockTable, "release", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mutex.unlock("k")
    assert mutex.snapshot() == before
    mutex.unlock("k")
    waiter.result(DEADLINE)


@pytest.mark.parametrize("behind", [0, 1])
def test_a_lease_that_was_interrupted_on_entry_holds_nothing(behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT: the key is free, or another's; and the lease may be entered again."""
    mutex = KeyedMutex()
    lease = mutex.hold("k")
    waiting: list[Future[None]] = []
    granted = LockTable.request

    def struck(self: LockTable[threading.Lock], *arguments: object) -> object:
        monkeypatch.setattr(LockTable, "request", granted)
        assert granted(self, *arguments) is None  # type: ignore[arg-type]
        # As another thread would that asks between the grant and the interrupt.
        waiting.extend(start(mutex.lock, "k") for _ in range(behind))
        raise KeyboardInterrupt

    monkeypatch.setattr(LockTable, "request", struck)
    with pytest.raises(KeyboardInterrupt):
        lease.__enter__()
    for waiter in waiting:
        waiter.result(DEADLINE)
        mutex.unlock("k")
    assert len(mutex) == 0
    with lease:
        assert "k" in mutex
    assert len(mutex) == 0


@pytest.mark.parametrize("end", [Lease.release, lambda lease: lease.__exit__(None, None, None)])
def test_a_lease_whose_end_was_interrupted_before_it_began_ends(
    end: Callable[[Lease], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """KM-INTERRUPT, KM-HANDOFF, KM-TOKEN: the block is left either way, so the key goes on, once."""
    mutex = KeyedMutex()
    lease = mutex.hold("k")
    lease.__enter__()
    waiter = start_waiter(mutex, "k")

    with monkeypatch.context() as patched:
        patched.setattr(KeyedMutex, "_release", interrupt)
        with pytest.raises(KeyboardInterrupt):
            end(lease)
    waiter.result(DEADLINE)
    with pytest.raises(UnheldKeyError):
        lease.release()
    assert mutex.snapshot()["k"].refs == 1


def test_a_lease_whose_end_was_interrupted_after_it_was_made_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-TOKEN: the later holder is not touched."""
    mutex = KeyedMutex()
    lease = mutex.hold("k")
    lease.__enter__()
    waiter = start_waiter(mutex, "k")
    struck_after(monkeypatch, KeyedMutex, "_release")
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    waiter.result(DEADLINE)
    with pytest.raises(UnheldKeyError):
        lease.release()
    assert mutex.snapshot()["k"].refs == 1


def test_a_snapshot_is_frozen() -> None:
    """KM-REF"""
    mutex = KeyedMutex()
    mutex.lock("k")
    snapshot = mutex.snapshot()
    with pytest.raises(TypeError):
        del snapshot["k"]  # type: ignore[attr-defined]
    mutex.unlock("k")
    assert list(snapshot) == ["k"]


def test_a_lease_holds_for_its_block() -> None:
    """KM-TOKEN, KM-IDLE"""
    mutex = KeyedMutex()
    with mutex.hold("k") as lease:
        assert isinstance(lease, Lease)
        assert "k" in mutex
    assert len(mutex) == 0


def test_a_lease_ends_with_its_block_also_on_an_error() -> None:
    """KM-TOKEN, KM-IDLE: and the error goes through."""
    mutex = KeyedMutex()
    with pytest.raises(LookupError, match="mine"), mutex.hold("k"):
        raise LookupError("mine")
    assert len(mutex) == 0


def test_a_lease_takes_the_timeout_of_lock() -> None:
    """KM-EXPIRED, KM-CANCEL: the block does not run, and the lease may be tried again."""
    mutex = KeyedMutex()
    mutex.lock("k")
    lease = mutex.hold("k", 0)
    with pytest.raises(TimeoutError, match=r"no grant of 'k' within 0 s"), lease:
        raise AssertionError("the block ran")
    assert mutex.snapshot()["k"].refs == 1
    mutex.unlock("k")
    with lease:
        assert "k" in mutex
    with pytest.raises(ValueError, match="timeout"), mutex.hold("k", -1):
        raise AssertionError("the block ran")


def test_a_lease_released_early_is_not_released_again_by_its_block() -> None:
    """KM-TOKEN: the holder after it is not touched."""
    mutex = KeyedMutex()
    with mutex.hold("k") as lease:
        lease.release()
        assert len(mutex) == 0
        mutex.lock("k")
        before = mutex.snapshot()
    assert mutex.snapshot() == before


def test_a_lease_releases_once() -> None:
    """KM-TOKEN, KM-UNHELD, KM-ATOMIC: on an idle key, and on one that a later holder has."""
    mutex = KeyedMutex()
    with mutex.hold("k") as lease:
        lease.release()
        with pytest.raises(UnheldKeyError, match="nobody holds"):
            lease.release()
        mutex.lock("k")
        before = mutex.snapshot()
        with pytest.raises(UnheldKeyError, match="has ended"):
            lease.release()
    assert mutex.snapshot() == before


def test_a_lease_is_over_after_its_block() -> None:
    """KM-TOKEN, KM-UNHELD, KM-ATOMIC: a later holder is not touched."""
    mutex = KeyedMutex()
    with mutex.hold("k") as lease:
        pass
    with pytest.raises(UnheldKeyError, match="nobody holds"):
        lease.release()
    mutex.lock("k")
    before = mutex.snapshot()
    with pytest.raises(UnheldKeyError, match="has ended"):
        lease.release()
    assert mutex.snapshot() == before


def test_a_lease_that_was_not_granted_releases_nothing() -> None:
    """KM-TOKEN, KM-ATOMIC"""
    mutex = KeyedMutex()
    mutex.lock("k")
    before = mutex.snapshot()
    with pytest.raises(UnheldKeyError):
        mutex.hold("k").release()
    assert mutex.snapshot() == before


def test_a_lease_whose_grant_was_ended_by_key_says_so_and_leaves_the_later_holder() -> None:
    """KM-TOKEN"""
    mutex = KeyedMutex()
    lease = mutex.hold("k")
    lease.__enter__()
    mutex.unlock("k")
    mutex.lock("k")
    with pytest.raises(UnheldKeyError, match="has ended"):
        lease.__exit__(None, None, None)
    assert mutex.snapshot()["k"].refs == 1


def test_a_lease_is_entered_once() -> None:
    """KM-TOKEN: neither inside its block nor after it."""
    mutex = KeyedMutex()
    lease = mutex.hold("k")
    with lease:
        before = mutex.snapshot()
        with pytest.raises(LeaseReusedError, match=r"^this lease of 'k' was used; call hold\(\) again$") as caught:
            lease.__enter__()
        assert mutex.snapshot() == before
    assert isinstance(caught.value, KMutexError)
    with pytest.raises(LeaseReusedError), lease:
        raise AssertionError("the block ran")
    assert len(mutex) == 0


def test_a_lease_is_not_entered_again_while_it_waits() -> None:
    """KM-TOKEN"""
    mutex = KeyedMutex()
    mutex.lock("k")
    lease = mutex.hold("k")
    first = start(lease.__enter__)
    until(lambda: waiters(mutex, "k") == 1)
    with pytest.raises(LeaseReusedError):
        lease.__enter__()
    with pytest.raises(UnheldKeyError):
        lease.release()
    mutex.unlock("k")
    assert first.result(DEADLINE) is lease
    lease.__exit__(None, None, None)
    assert len(mutex) == 0


def test_a_lease_that_was_not_granted_may_be_entered_again() -> None:
    """KM-ATOMIC: the failed entry has changed nothing, of the lease neither."""
    mutex = KeyedMutex()
    mutex.lock("k")
    lease = mutex.hold("k", timeout=0)
    with pytest.raises(TimeoutError):
        lease.__enter__()
    mutex.unlock("k")
    with lease:
        assert "k" in mutex


@pytest.mark.parametrize("behind", [0, 1])
def test_a_grant_that_beat_the_timeout_and_was_unlocked_since(behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-RACE, KM-ATOMIC: the call returns, as it does without a timeout, and whoever waits behind is served."""
    mutex = KeyedMutex()
    mutex.lock("k")
    others: list[Future[None]] = []
    pass_gate = _threads._pass

    def too_late(gate: threading.Lock, timeout: float | None) -> bool:
        if timeout != 1:
            return pass_gate(gate, timeout)
        others.extend(start_waiter(mutex, "k") for _ in range(behind))
        mutex.unlock("k")
        mutex.unlock("k")
        return False

    monkeypatch.setattr(_threads, "_pass", too_late)
    mutex.lock("k", timeout=1)
    for other in others:
        other.result(DEADLINE)
    assert len(mutex) == behind


def test_leases_of_two_threads_hand_over() -> None:
    """KM-HANDOFF, KM-TOKEN"""
    mutex = KeyedMutex()

    def second() -> int:
        with mutex.hold("k", DEADLINE):
            return mutex.snapshot()["k"].holder

    with mutex.hold("k"):
        other = start(second)
        until(lambda: waiters(mutex, "k") == 1)
        ticket = mutex.snapshot()["k"].waiters[0]
    assert other.result(DEADLINE) == ticket
    assert len(mutex) == 0


def test_it_is_not_reentrant() -> None:
    """KM-EXCL: a thread that holds the key waits for itself."""
    mutex = KeyedMutex()
    with mutex.hold("k"), pytest.raises(TimeoutError):
        mutex.lock("k", 0.01)
    assert len(mutex) == 0


def test_a_key_that_only_looks_hashable_is_refused_once() -> None:
    """KM-ATOMIC: the error is the key's own, and undoing nothing adds no second one."""
    mutex = KeyedMutex()
    with pytest.raises(TypeError) as refused:
        mutex.lock(([],))
    assert refused.value.__context__ is None
    assert len(mutex) == 0
