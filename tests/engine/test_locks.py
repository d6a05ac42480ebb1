"""The scheduler's locks behave as those of threading do, alone and under control."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from kmutex.engine.observer import Ending, UncontrolledError
from kmutex.engine.program import Step, parse
from kmutex.engine.search import Chooser
from kmutex.engine.threads import CoopLock, CoopRLock, Crew, ThreadRun, replaced
from tests.engine.event_log import EventLog

REAL = {CoopLock: threading.Lock, CoopRLock: threading.RLock}


@pytest.fixture(scope="module")
def crew() -> Crew:
    return Crew()


class Log(EventLog):
    """With the words of an error, and beside the lines all whose time was over."""

    def __init__(self) -> None:
        super().__init__()
        self.overdue: set[int] = set()

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self.lines.append(f"{client} {step}: {type(error).__name__}: {error}")

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self.lines.append(f"quiet {sorted(waiting)}")
        self.overdue |= overdue


def ran(make: Callable[[], Any], text: str, crew: Crew, picks: tuple[int, ...] = ()) -> tuple[Ending, Log]:
    """One run within `replaced`: how it ended, and what was seen."""
    log = Log()
    run = ThreadRun(make, parse(text), Chooser(picks), log, crew=crew, keys=str, patience=5.0)
    return run.run(), log


@pytest.fixture
def control() -> Iterator[None]:
    with replaced():
        yield


# -- misuse, as threading answers it -----------------------------------------------------------------------------------

MISUSES: dict[str, Callable[[Any], object]] = {
    "release of what is not held": lambda lock: lock.release(),
    "a negative timeout": lambda lock: lock.acquire(timeout=-2),
    "a timeout without blocking": lambda lock: lock.acquire(False, 1),
    "no blocking and a negative timeout": lambda lock: lock.acquire(False, -2),
    "a timeout that is too large": lambda lock: lock.acquire(timeout=threading.TIMEOUT_MAX * 2),
    "a second release": lambda lock: (lock.acquire(), lock.release(), lock.release()),
    "a try": lambda lock: (lock.acquire(False), lock.release()),
    "a try with -1": lambda lock: (lock.acquire(False, -1), lock.release()),
    "a timeout of 0": lambda lock: (lock.acquire(True, 0), lock.release()),
    "a block": lambda lock: lock.__enter__() and lock.__exit__(None, None, None),
}


def outcome(call: Callable[[Any], object], lock: Any) -> object:
    try:
        return call(lock)
    except Exception as error:
        return type(error)


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("kind", REAL)
def test_use_and_misuse_are_answered_alike(kind: type, misuse: str) -> None:
    """The same value, or an error of the same type."""
    assert outcome(MISUSES[misuse], kind()) == outcome(MISUSES[misuse], REAL[kind]())


def test_misuse_is_an_error_at_all() -> None:
    """The witness of the above: some of these raise, of three kinds, and some do not."""
    found = [outcome(call, threading.Lock()) for call in MISUSES.values()]
    assert {RuntimeError, ValueError, OverflowError} <= {answer for answer in found if isinstance(answer, type)}
    assert any(isinstance(answer, tuple) for answer in found)


@pytest.mark.parametrize("kind", [CoopRLock, threading.RLock])
def test_a_reentrant_lock_counts(kind: Any) -> None:
    lock = kind()
    assert lock.acquire()
    assert lock.acquire(False)
    assert lock._is_owned()
    saved = lock._release_save()
    assert not lock._is_owned()
    lock._acquire_restore(saved)
    lock.release()
    assert lock._is_owned()
    lock.release()
    with pytest.raises(RuntimeError):
        lock.release()


def test_a_wait_outside_a_run_would_be_for_ever() -> None:
    """Nobody could release it: said, not waited for. A try is no wait."""
    lock = CoopLock()
    lock.acquire()
    assert not lock.acquire(False)
    assert not lock.acquire(timeout=0)
    with pytest.raises(UncontrolledError):
        lock.acquire()


# -- what threading and queue build upon them --------------------------------------------------------------------------


class Built:
    """A locker of one key upon one of threading's own tools."""

    def __init__(self) -> None:
        self._held = False
        self._changed = threading.Condition()

    def lock(self, key: str, timeout: float | None = None) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: not self._held, timeout):
                raise TimeoutError(f"at {time.monotonic():.0f}")
            self._held = True

    def unlock(self, key: str) -> None:
        with self._changed:
            self._held = False
            self._changed.notify()


class ByEvent(Built):
    def __init__(self) -> None:
        self._free = threading.Event()
        self._free.set()

    def lock(self, key: str, timeout: float | None = None) -> None:
        if not self._free.wait(timeout):
            raise TimeoutError(f"at {time.monotonic():.0f}")
        self._free.clear()

    def unlock(self, key: str) -> None:
        self._free.set()


class BySemaphore(Built):
    def __init__(self) -> None:
        self._free = threading.BoundedSemaphore()

    def lock(self, key: str, timeout: float | None = None) -> None:
        if not self._free.acquire(timeout=timeout):
            raise TimeoutError(f"at {time.monotonic():.0f}")

    def unlock(self, key: str) -> None:
        self._free.release()


class ByQueue(Built):
    make: Callable[[], Any] = queue.Queue

    def __init__(self) -> None:
        self._tokens = self.__class__.make()
        self._tokens.put("token")

    def lock(self, key: str, timeout: float | None = None) -> None:
        try:
            self._tokens.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError(f"at {time.monotonic():.0f}") from None

    def unlock(self, key: str) -> None:
        self._tokens.put("token")


class BySimpleQueue(ByQueue):
    make = staticmethod(lambda: queue.SimpleQueue())


BUILT = [Built, ByEvent, BySemaphore, ByQueue, BySimpleQueue]


@pytest.mark.parametrize("make", BUILT)
def test_what_is_built_upon_locks_is_under_control(make: type, control: None, crew: Crew) -> None:
    """A wait for it is seen at once as a wait, and its end as well."""
    ending, log = ran(make, "0+a | 1+a | 0-a", crew)
    assert ending is Ending.DONE
    assert "quiet [1]" in log.lines
    assert log.lines[-2:] == ["1 lock a", "quiet []"]


@pytest.mark.parametrize("make", BUILT)
def test_a_timed_wait_ends_on_the_virtual_clock(make: type, control: None, crew: Crew) -> None:
    """At its deadline, which is 5 s after the call, at 1000 s; nobody waits for that."""
    ending, log = ran(make, "0+a | 1~a | c1", crew)
    assert ending is Ending.DONE
    assert log.lines[-3:] == ["1 cancelled", "1 lock (cancellable) a: TimeoutError: at 1005", "quiet []"]


class ByBarrier(Built):
    """Nobody gets the key alone: only two at once pass."""

    def __init__(self) -> None:
        self._pair = threading.Barrier(2)

    def lock(self, key: str, timeout: float | None = None) -> None:
        self._pair.wait()

    def unlock(self, key: str) -> None:
        """Nothing to do."""


def test_a_barrier_is_under_control(control: None, crew: Crew) -> None:
    ending, log = ran(ByBarrier, "0+a | 1+a", crew)
    assert ending is Ending.DONE
    assert "quiet [0]" in log.lines
    assert log.lines[-1] == "quiet []"


def test_replaced_puts_everything_back() -> None:
    """Also after an error within it."""
    modules = (threading, queue, time, __import__("_thread"))
    before = [dict(vars(module)) for module in modules]

    def fail_within() -> None:
        with replaced():
            assert threading.Lock is CoopLock
            assert [dict(vars(module)) for module in modules] != before
            raise KeyError

    with pytest.raises(KeyError):
        fail_within()
    assert [dict(vars(module)) for module in modules] == before
