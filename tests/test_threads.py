"""What the keyed mutex for threads does beside test_drivers.py: its gates, and interrupts."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from fractions import Fraction
from typing import NoReturn

import pytest

from kmutex import Entry, Lease, UnheldKeyError, _threads
from kmutex._core import LockTable
from kmutex._threads import UntypedMutex
from tests.driver import DEADLINE, in_python, start, start_waiter, until, waiters


def test_a_timeout_that_the_wait_itself_refuses_leaves_no_trace() -> None:
    """KM-ATOMIC"""
    mutex = UntypedMutex()
    mutex.lock("k")
    before = mutex.snapshot()
    with pytest.raises(TypeError):
        mutex.lock("k", Fraction(1, 2))  # type: ignore[arg-type]
    assert mutex.snapshot() == before


@in_python
@pytest.mark.parametrize("several", [False, True])
def test_a_grant_that_beats_the_timeout_is_kept(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-RACE: the wait reports that the time is over, the table that the grant came; the call returns holding."""
    mutex = UntypedMutex()
    mutex.lock("k")
    given: list[bool] = []

    def late(gate: threading.Lock, timeout: float) -> bool:
        given.append(0 <= timeout <= 0.01)
        assert gate.acquire(timeout=DEADLINE)
        return False

    monkeypatch.setattr(_threads, "_pass", late)
    waiter = start(mutex.hold_all(["k"], 0.01).__enter__) if several else start_waiter(mutex, "k", 0.01)
    until(lambda: waiters(mutex, "k"))
    ticket = waiters(mutex, "k")[0]
    mutex.unlock("k")
    waiter.result(DEADLINE)
    assert mutex.snapshot() == {"k": Entry(ticket, ())}
    assert given == [True]


@contextmanager
def interrupts() -> Iterator[Callable[[], None]]:
    """SIGINT raises KeyboardInterrupt in the main thread, once, whatever the runner has set; yields what sends it.

    It is sent until it has struck: CPython does not see one that comes as the wait begins before the wait is over.
    """
    if threading.current_thread() is not threading.main_thread():
        pytest.skip("only the main thread is interrupted")
    target = threading.get_ident()
    struck: list[int] = []

    def strike(number: int, _frame: object) -> None:
        if not struck:
            struck.append(number)
            raise KeyboardInterrupt

    def sent_and_struck() -> bool:
        signal.pthread_kill(target, signal.SIGINT)
        return bool(struck)

    before = signal.signal(signal.SIGINT, strike)
    try:
        yield lambda: until(sent_and_struck)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("timeout", [None, DEADLINE])
def test_ctrl_c_in_the_wait_leaves_no_ref(timeout: float | None) -> None:
    """KM-INTERRUPT, KM-CANCEL: a real SIGINT while the thread stands in the queue."""
    mutex = UntypedMutex()
    mutex.lock("k")
    with interrupts() as send:

        def when_it_waits() -> None:
            until(lambda: waiters(mutex, "k"))
            send()

        sender = start(when_it_waits)
        with pytest.raises(KeyboardInterrupt):
            mutex.lock("k", timeout)
        sender.result(DEADLINE)
    assert mutex.snapshot()["k"].refs == 1
    mutex.unlock("k")
    assert len(mutex) == 0


@in_python
def test_an_interrupt_after_the_grant_passes_the_key_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-RACE: the call raises, so it must not hold."""
    mutex = UntypedMutex()
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


@in_python
def test_an_interrupt_after_the_grant_with_nobody_behind_evicts(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-IDLE"""
    mutex = UntypedMutex()
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
    mutex = UntypedMutex()
    mutex.lock("k")
    before = mutex.snapshot()

    monkeypatch.setattr(_threads, "_closed_gate", interrupt)
    with pytest.raises(KeyboardInterrupt):
        mutex.lock("k")
    assert mutex.snapshot() == before


def test_an_interrupt_before_the_ticket_is_drawn_touches_nothing() -> None:
    """KM-INTERRUPT"""
    mutex = UntypedMutex()
    mutex.lock("k")
    before = mutex.snapshot()

    class Struck:
        def __next__(self) -> int:
            raise KeyboardInterrupt

    mutex._mutex._tickets = Struck()  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        mutex.lock("k")
    assert mutex.snapshot() == before


def test_an_interrupt_in_the_wait_for_the_guard_leaves_nothing() -> None:
    """KM-INTERRUPT: no request was made, and the guard, which is another thread's, is left to it."""
    mutex = UntypedMutex()
    guard = mutex._mutex._guard

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

    mutex._mutex._guard = Struck()  # type: ignore[assignment]
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


@in_python
def test_an_interrupt_between_the_hand_over_and_its_gate_loses_no_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-LIVE, KM-HANDOFF"""
    mutex = UntypedMutex()
    mutex.lock("k")
    waiter = start_waiter(mutex, "k")
    struck_after(monkeypatch, LockTable, "release")
    with pytest.raises(KeyboardInterrupt):
        mutex.unlock("k")
    waiter.result(DEADLINE)
    assert mutex.snapshot()["k"].refs == 1


@in_python
def test_an_unlock_that_was_interrupted_at_its_beginning_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-ATOMIC: neither the holder nor a waiter."""
    mutex = UntypedMutex()
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


@in_python
@pytest.mark.parametrize("behind", [0, 1])
def test_a_lease_that_was_interrupted_on_entry_holds_nothing(behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT: the key is free, or another's; and the lease may be entered again."""
    mutex = UntypedMutex()
    lease = mutex.hold("k")
    waiting: list[Future[None]] = []
    granted = LockTable.request

    def struck(self: LockTable, *arguments: object) -> object:
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


@in_python
@pytest.mark.parametrize("end", [Lease.release, lambda lease: lease.__exit__(None, None, None)])
def test_a_lease_whose_end_was_interrupted_before_it_began_ends(
    end: Callable[[Lease], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """KM-INTERRUPT, KM-HANDOFF, KM-TOKEN: the block is left either way, so the key goes on, once."""
    mutex = UntypedMutex()
    lease = mutex.hold("k")
    lease.__enter__()
    waiter = start_waiter(mutex, "k")

    with monkeypatch.context() as patched:
        patched.setattr(_threads.InnerMutex, "_release", interrupt)
        with pytest.raises(KeyboardInterrupt):
            end(lease)
    waiter.result(DEADLINE)
    with pytest.raises(UnheldKeyError):
        lease.release()
    assert mutex.snapshot()["k"].refs == 1


@in_python
def test_a_lease_whose_end_was_interrupted_after_it_was_made_ends_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-INTERRUPT, KM-TOKEN: the later holder is not touched."""
    mutex = UntypedMutex()
    lease = mutex.hold("k")
    lease.__enter__()
    waiter = start_waiter(mutex, "k")
    struck_after(monkeypatch, _threads.InnerMutex, "_release")
    with pytest.raises(KeyboardInterrupt):
        lease.release()
    waiter.result(DEADLINE)
    with pytest.raises(UnheldKeyError):
        lease.release()
    assert mutex.snapshot()["k"].refs == 1


@in_python
@pytest.mark.parametrize("behind", [0, 1])
def test_a_grant_that_beat_the_timeout_and_was_unlocked_since(behind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-RACE, KM-ATOMIC: the call returns, as it does without a timeout, and whoever waits behind is served."""
    mutex = UntypedMutex()
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
