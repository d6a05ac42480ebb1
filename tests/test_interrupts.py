"""An interrupt before every bytecode of a call, and what it leaves behind (KM-INTERRUPT).

What is left held is compared with a list of the boundaries that pure Python can't close, which is short, and with
`with threading.Lock()`. docs/adr/0006-interrupts.md says why these are left. A compiled lock has no bytecodes: for
storms of real signals see tests/bench/test_interrupts_bench.py.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Hashable
from types import CodeType
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, WrongLoopError, compiled
from kmutex._threads import InnerMutex, UntypedMutex
from kmutex.testing.interrupts import Boundary, everywhere
from tests.driver import DEADLINE, free_guards, in_python, start
from tests.lockers.several import InStripes

KEY = "k"


def traced(code: CodeType) -> bool:
    """The calls of the library, and `run`, in whose frame the with statement stands."""
    return "/kmutex/_" in code.co_filename or code.co_name == "run"


class Waiter:
    """A thread that waits for the key, and lets it go when it has it."""

    def __init__(self, mutex: UntypedMutex) -> None:
        self.started = False
        self._mutex = mutex
        self._thread = threading.Thread(target=self._work, daemon=True)

    def start(self) -> None:
        """Return when it stands in the queue."""
        self.started = True
        self._thread.start()
        # The entry of a key without waiters is a ticket. To look at it calls nothing that is traced.
        while isinstance(self._mutex._mutex._table._entries[KEY], int):
            pass

    def _work(self) -> None:
        self._mutex.lock(KEY)
        self._mutex.unlock(KEY)

    def join(self) -> bool:
        """Whether it was served."""
        self._thread.join(DEADLINE)
        return not self._thread.is_alive()


def let_go(mutex: UntypedMutex) -> None:
    """End what an interrupt has left held, if it has."""
    if KEY in mutex:
        mutex.unlock(KEY)


kinds = pytest.mark.parametrize("kind", [UntypedMutex, pytest.param(InStripes, marks=in_python)])
Make = Callable[[], tuple[Callable[[], object], Callable[[], bool]]]
"""A run, and what says after it whether something is held."""


def left_held(make: Make, traced: Callable[[CodeType], bool] = traced) -> tuple[list[Boundary], int]:
    """The boundaries that leave something held, and the number of all."""
    held: list[Callable[[], bool]] = []

    def make_run() -> Callable[[], object]:
        run, is_held = make()
        held.append(is_held)
        return run

    found = [boundary for boundary in everywhere(make_run, traced) if held[-1]()]
    return found, len(held) - 1


def own(found: list[Boundary]) -> set[str]:
    """The functions of the library among them."""
    return {boundary.function.rpartition(".")[2] for boundary in found if not boundary.function.endswith("run")}


def in_the_with_statement(found: list[Boundary]) -> int:
    return sum(boundary.function.endswith("run") for boundary in found)


def plain_lock() -> tuple[Callable[[], object], Callable[[], bool]]:
    lock = threading.Lock()

    def run() -> None:
        with lock:
            pass

    return run, lock.locked


def hold_on(mutex: UntypedMutex) -> Callable[[], object]:
    def run() -> None:
        with mutex.hold(KEY):
            pass

    return run


def hold(kind: type[UntypedMutex] = UntypedMutex) -> tuple[Callable[[], object], Callable[[], bool]]:
    mutex = kind()
    return hold_on(mutex), lambda: KEY in mutex


def hold_all(kind: type[UntypedMutex] = UntypedMutex) -> tuple[Callable[[], object], Callable[[], bool]]:
    mutex = kind()

    def run() -> None:
        with mutex.hold_all(["a", KEY, "b"]):
            pass

    return run, lambda: len(mutex) > 0


@kinds
@pytest.mark.parametrize(("block", "least"), [(hold, 100), (hold_all, 300)])
def test_a_block_leaves_no_more_held_than_a_plain_lock_but_for_two_boundaries(
    block: Callable[[type[UntypedMutex]], Any], least: int, kind: type[UntypedMutex]
) -> None:
    """KM-INTERRUPT, KM-ALL: the end of __enter__ and the beginning of __exit__, where no line of theirs can catch it;
    compiled, there are none. Anywhere else all of the keys are given back."""
    plain, _ = left_held(plain_lock)
    found, boundaries = left_held(lambda: block(kind))
    assert in_the_with_statement(found) == len(plain) > 0
    if compiled:
        assert len(found) == len(plain), [str(boundary) for boundary in found]
        return
    assert boundaries > least
    assert own(found) <= {"__enter__", "__exit__"}
    assert len(found) - len(plain) <= 4, [str(boundary) for boundary in found]


def test_whatever_is_left_the_locker_works_on() -> None:
    """KM-INTERRUPT, KM-INDEP: no interrupt leaves the guard taken, so other keys and `unlock` of this one go on."""
    mutexes: list[UntypedMutex] = []

    def make_run() -> Callable[[], object]:
        mutexes.append(UntypedMutex())
        return hold_on(mutexes[-1])

    for _ in everywhere(make_run, traced):
        mutex = mutexes[-1]
        start(lambda mutex=mutex: (mutex.lock("other"), mutex.unlock("other"))).result(DEADLINE)
        let_go(mutex)
        assert len(mutex) == 0


@in_python
@pytest.mark.parametrize("how", ["hold", "unlock", "release"])
def test_a_waiter_is_served_wherever_the_interrupt_strikes(how: str) -> None:
    """KM-INTERRUPT, KM-LIVE, KM-HANDOFF: the key is still held, and an unlock serves the waiter, or it was served."""
    waiters: list[tuple[UntypedMutex, Waiter]] = []

    def make_run() -> Callable[[], object]:
        mutex = UntypedMutex()
        waiter = Waiter(mutex)
        waiters.append((mutex, waiter))
        if how == "hold":

            def run() -> None:
                with mutex.hold(KEY):
                    waiter.start()
        else:
            lease = mutex.hold(KEY)
            lease.__enter__()
            waiter.start()

            def run() -> None:
                if how == "unlock":
                    mutex.unlock(KEY)
                else:
                    lease.release()

        return run

    served = 0
    for boundary in everywhere(make_run, traced):
        mutex, waiter = waiters[-1]
        if not waiter.started:
            let_go(mutex)
            continue
        holder = mutex.snapshot().get(KEY)
        if holder is not None and holder.waiters:
            mutex.unlock(KEY)
        else:
            served += 1
        assert waiter.join(), f"{boundary} has lost the wake-up"
        assert len(mutex) == 0
    assert served > 10


class Owner:
    """A thread that unlocks the key, which is held, once somebody waits for it; or never, if told that nobody will."""

    def __init__(self, mutex: UntypedMutex) -> None:
        self.unlocked = False
        self._mutex = mutex
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while not self._over.is_set():
            if self._mutex.snapshot()[KEY].waiters:
                self.unlocked = True
                self._mutex.unlock(KEY)
                return

    def end(self) -> None:
        """Nobody will wait any more."""
        self._over.set()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


@in_python
@pytest.mark.parametrize("how", ["hold", "lock"])
def test_a_call_that_waits_and_is_interrupted_holds_nothing(how: str) -> None:
    """KM-INTERRUPT, KM-CANCEL, KM-RACE: before the wait, and after the grant; but for the very end of the call."""
    rounds: list[tuple[UntypedMutex, Owner]] = []

    def make_run() -> Callable[[], object]:
        mutex = UntypedMutex()
        mutex.lock(KEY)
        rounds.append((mutex, Owner(mutex)))

        def run() -> None:
            if how == "lock":
                mutex.lock(KEY)
            else:
                mutex.hold(KEY).__enter__()

        return run

    kept, granted = [], 0
    for boundary in everywhere(make_run, traced):
        mutex, owner = rounds[-1]
        owner.end()
        granted += owner.unlocked
        if owner.unlocked and KEY in mutex:
            kept.append(boundary)
        let_go(mutex)
        assert len(mutex) == 0, boundary
    rounds[-1][1].end()
    assert granted > 5
    assert own(kept) <= {"lock", "__enter__"}
    assert all(boundary.instruction in LAST for boundary in kept if not boundary.function.endswith("run")), kept


LAST = {"LOAD_CONST", "RETURN_VALUE", "RETURN_CONST", "LOAD_FAST", "POP_BLOCK", "ROT_TWO", "SWAP", "POP_TOP"}
"""Instructions between the last line of a function and its caller."""


@in_python
def test_an_interrupt_in_the_undoing_of_a_timeout_leaves_no_waiter() -> None:
    """KM-INTERRUPT, KM-EXPIRED"""
    mutexes: list[UntypedMutex] = []

    def make_run() -> Callable[[], object]:
        mutex = UntypedMutex()
        mutex.lock(KEY)
        mutexes.append(mutex)

        def run() -> None:
            with contextlib.suppress(TimeoutError):
                mutex.lock(KEY, timeout=0)

        return run

    boundaries = list(everywhere(make_run, traced))
    assert len(boundaries) > 100
    for boundary, mutex in zip(boundaries, mutexes, strict=False):
        assert all(free_guards(mutex)), boundary
        assert mutex.snapshot()[KEY].waiters == (), boundary


def try_all(mutex: UntypedMutex) -> None:
    with contextlib.suppress(TimeoutError), mutex.hold_all(["a", KEY], timeout=0):
        pass


@in_python
@kinds
@pytest.mark.parametrize(
    "call", [UntypedMutex.snapshot, lambda mutex: mutex.unlock(KEY), lambda mutex: mutex.lock("b"), try_all]
)
def test_no_call_leaves_the_guard_taken(call: Callable[[UntypedMutex], object], kind: type[UntypedMutex]) -> None:
    """KM-INTERRUPT, KM-INDEP: seen from another thread, since the guard lets its owner in again."""
    mutexes: list[UntypedMutex] = []

    def make_run() -> Callable[[], object]:
        mutex = kind()
        mutex.lock(KEY)
        mutexes.append(mutex)

        def run() -> None:
            call(mutex)

        return run

    for boundary in everywhere(make_run, traced):
        assert all(free_guards(mutexes[-1])), boundary
    assert len(mutexes) > 10


class LeavesItToSettle(InnerMutex):
    """The careless twin: what lets go of the guard is a function, at whose beginning a second signal raises."""

    __slots__ = ()

    def _acquire(self, key: Hashable, ticket: int, timeout: float | None) -> bool:
        self._guard.acquire()
        self._table.request(key, ticket, threading.Lock)
        self._guard.release()
        return True


@in_python
@pytest.mark.parametrize("kind", [InnerMutex, LeavesItToSettle])
@pytest.mark.parametrize("how", ["hold", "lock", "hand over", "lease"])
def test_two_signals_at_one_moment_lose_neither_the_guard_nor_a_wake_up(kind: type[InnerMutex], how: str) -> None:
    """KM-INTERRUPT, KM-INDEP, KM-LIVE: the second handler raises while the first exception is on its way."""
    made: list[tuple[UntypedMutex, threading.Lock | None]] = []

    def make_run() -> Callable[[], object]:
        mutex = UntypedMutex()
        mutex._mutex = kind(False, None)
        lease = mutex.hold(KEY)
        gate = None
        if how in ("hand over", "lease"):
            lease.__enter__()
            gate = mutex._mutex._table.request(KEY, WAITER, threading.Lock)
            assert gate is not None
            gate.acquire()
        made.append((mutex, gate))

        def run() -> None:
            if how == "hold":
                with lease:
                    pass
            elif how == "lock":
                mutex.lock(KEY)
                mutex.unlock(KEY)
            elif how == "lease":
                lease.release()
            else:
                mutex.unlock(KEY)

        return run

    def followed(code: CodeType) -> bool:
        return traced(code) or code is LeavesItToSettle._acquire.__code__

    taken, asleep = [], []
    for boundary in everywhere(make_run, followed, twice=True):
        mutex, gate = made[-1]
        if not all(free_guards(mutex)):
            taken.append(boundary)
        elif gate is not None and mutex.snapshot()[KEY].holder == WAITER and gate.locked():
            asleep.append(boundary)
    assert len(made) > 10
    assert asleep == []
    if kind is InnerMutex or how in ("hand over", "lease"):
        assert taken == []
    else:
        assert taken, "the second signal came nowhere"


WAITER = 10
"""A ticket, of nobody."""


@in_python
def test_an_interrupted_release_within_the_block_ends_the_lease_once() -> None:
    """KM-INTERRUPT, KM-TOKEN: the interrupt comes out of the block, and no error of a second release in its place."""
    held: list[UntypedMutex] = []

    def make_run() -> Callable[[], object]:
        mutex = UntypedMutex()
        held.append(mutex)

        def run() -> None:
            with mutex.hold(KEY) as lease:
                lease.release()

        return run

    within = [boundary for boundary in everywhere(make_run, traced) if boundary.function.endswith("release")]
    assert len(within) > 10


class Loop:
    """What a mutex asks of an event loop."""

    def __init__(self, running: bool) -> None:
        self.running = running

    def is_running(self) -> bool:
        return self.running

    def create_future(self) -> Loop:
        return self


@pytest.mark.parametrize("running", [True, False])
def test_an_interrupted_change_of_loops_takes_the_mutex_from_no_loop(running: bool) -> None:
    """KM-LOOP: else it would belong to nobody, and the next loop would take it while the first one runs."""
    made: list[tuple[Any, Loop]] = []

    def make_run() -> Callable[[], object]:
        mutex: Any = AsyncKeyedMutex()._mutex
        owner = Loop(running)
        mutex._moved_to(owner)
        made.append((mutex, owner))

        def run() -> None:
            with contextlib.suppress(WrongLoopError):
                mutex._moved_to(Loop(True))

        return run

    for boundary in everywhere(make_run, lambda code: code is Loop.is_running.__code__):
        mutex, owner = made[-1]
        assert mutex._loop is owner, boundary
        assert mutex._make() is owner, boundary
    assert len(made) > 3


def test_the_harness_strikes_each_boundary_once_and_then_none() -> None:
    """The twin of the tests above: a locker that forgets its guard is seen to."""
    calls: list[int] = []

    def run() -> None:
        calls.append(1)

    found = list(everywhere(lambda: run, traced))
    assert [boundary.number for boundary in found] == list(range(len(found)))
    assert len(found) > 3
    assert 1 <= len(calls) < len(found) + 1

    class Careless:
        def __init__(self) -> None:
            self.guard = threading.Lock()

        def __enter__(self) -> None:
            self.guard.acquire()

        def __exit__(self, *error: object) -> None:
            self.guard.release()

    def careless() -> tuple[Callable[[], object], Callable[[], bool]]:
        lock = Careless()

        def run() -> None:
            with lock:
                pass

        return run, lock.guard.locked

    plain, _ = left_held(plain_lock)
    found, _ = left_held(careless, lambda code: traced(code) or code.co_filename == __file__)
    assert own(found) == {"__enter__", "__exit__"}
    assert len(found) > len(plain) + 4
