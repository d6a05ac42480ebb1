"""Runs on real threads, one at a time: what they see, how they end, and that they can be repeated."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import kmutex
from kmutex.engine.observer import Ending, SubjectFailedError, UncontrolledError
from kmutex.engine.program import Step, parse
from kmutex.engine.search import Chooser, Search
from kmutex.engine.threads import Bytecode, Crew, ThreadRun, bytecode_events_seen, replaced
from tests.engine.event_log import EventLog


@pytest.fixture(autouse=True)
def control() -> Iterator[None]:
    with replaced():
        yield


@pytest.fixture(scope="module")
def crew() -> Crew:
    return Crew()


def here(filename: str) -> bool:
    return filename == __file__


def ran(
    make: Callable[[], Any],
    text: str,
    crew: Crew,
    chooser: Chooser | None = None,
    log: EventLog | None = None,
    *,
    bytecode: bool = False,
    patience: float = 5.0,
) -> tuple[Ending, EventLog]:
    log = log or EventLog()
    run = ThreadRun(
        make,
        parse(text),
        chooser or Chooser(),
        log,
        crew=crew,
        keys=str,
        bytecode=Bytecode(here) if bytecode else None,
        patience=patience,
    )
    return run.run(), log


class OneLock:
    """Every key is the same lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def lock(self, key: str, timeout: float | None = None) -> None:
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError

    def unlock(self, key: str) -> None:
        self._lock.release()


# -- how runs end ------------------------------------------------------------------------------------------------------


class TwoLocks:
    """Takes two locks, in an order that depends on the key."""

    def __init__(self) -> None:
        self._locks = {"a": threading.Lock(), "b": threading.Lock()}

    def lock(self, key: str, timeout: float | None = None) -> None:
        for name in sorted(self._locks, reverse=key == "b"):
            self._locks[name].acquire()

    def unlock(self, key: str) -> None:
        for lock in self._locks.values():
            lock.release()


def test_a_deadlock_is_seen_at_once(crew: Crew) -> None:
    """The plain run has none; with one preemption there is one, and it ends as done with both waiting."""
    found = []
    for chooser in Search(1):
        ending, log = ran(TwoLocks, "0+a-a 1+b-b", crew, chooser)
        assert ending is Ending.DONE
        found.append(log.waiting[-1])
    assert found[0] == {}
    assert {0: Step("+", "a"), 1: Step("+", "b")} in found


class Polls:
    """Looks again every 10 ms whether the key is free."""

    def __init__(self) -> None:
        self._held = False

    def lock(self, key: str, timeout: float | None = None) -> None:
        end = None if timeout is None else time.monotonic() + timeout
        while self._held:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError
            time.sleep(0.01)
        self._held = True

    def unlock(self, key: str) -> None:
        self._held = False


def test_a_locker_that_polls_comes_to_rest(crew: Crew) -> None:
    """Its waiting is quiet, and it goes on when the key is free."""
    ending, log = ran(Polls, "0+a | 1+a | 0-a", crew)
    assert ending is Ending.DONE
    assert log.lines[-2:] == ["1 lock a", "quiet [] []"]
    assert "quiet [1] []" in log.lines


def test_a_locker_that_polls_sees_its_time_over(crew: Crew) -> None:
    """It looks at the clock itself, which is the virtual one."""
    ending, log = ran(Polls, "0+a | 1~a | c1", crew)
    assert ending is Ending.DONE
    assert log.lines[-3:-1] == ["1 cancelled", "1 lock (cancellable) a: TimeoutError"]


class Noisy:
    """Everybody is woken when a wait ends, and waits on for what is left of its time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held = False

    def lock(self, key: str, timeout: float | None = None) -> None:
        with self._changed:
            try:
                self._wait(timeout)
            finally:
                self._changed.notify_all()
            self._held = True

    def _wait(self, timeout: float | None) -> None:
        if not self._changed.wait_for(lambda: not self._held, timeout):
            raise TimeoutError

    def unlock(self, key: str) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()


class NoisyAnew(Noisy):
    """The same, for all of its time again."""

    def _wait(self, timeout: float | None) -> None:
        while self._held:
            if not self._changed.wait(timeout):
                raise TimeoutError


def test_a_time_that_begins_anew_is_overdue(crew: Crew) -> None:
    """KM-EXPIRED, KM-CANCEL: 1 is woken by the end of 2, when the time of both is over."""
    for make, last in ((Noisy, "quiet [] []"), (NoisyAnew, "quiet [1] [1]")):
        ending, log = ran(make, "0+a | 1~a | 2~a | c2", crew)
        assert ending is Ending.DONE
        assert "2 lock (cancellable) a: TimeoutError" in log.lines
        assert log.lines[-1] == last


class ByTurns:
    """First come, first served, on a condition."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: list[object] = []

    def lock(self, key: str, timeout: float | None = None) -> None:
        turn = object()
        with self._changed:
            self._queue.append(turn)
            if not self._changed.wait_for(lambda: self._queue[0] is turn, timeout):
                self._queue.remove(turn)
                raise TimeoutError

    def unlock(self, key: str) -> None:
        with self._changed:
            self._queue.pop(0)
            self._changed.notify_all()


class TwoWaits(OneLock):
    """Waits for a guard, and then for the key, for its time each."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = threading.Lock()

    def lock(self, key: str, timeout: float | None = None) -> None:
        if not self._guard.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError
        self._guard.release()
        super().lock(key, timeout)


@pytest.mark.parametrize("make", [OneLock, Polls, Noisy, ByTurns, TwoWaits])
@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("0+a | 1~a 2~a | c1 c2 | 0-a", 1),
        pytest.param("0+a | 1~a | 2~a | 3~a | 0-a", 0, marks=pytest.mark.long),
    ],
)
def test_a_wait_that_begins_late_is_not_overdue(make: Callable[[], Any], text: str, bound: int, crew: Crew) -> None:
    """Where another's time ends between a call and its wait, or between two waits of which the first was no wait."""
    runs = 0
    for chooser in Search(bound):
        _, log = ran(make, text, crew, chooser)
        runs += 1
        assert all(line.endswith("[]") for line in log.lines if line.startswith("quiet")), log.lines
    assert runs > 1


class Yields:
    """Looks and takes in two steps, after a sleep that is up at once."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.taken: list[str] = []

    def lock(self, key: str) -> None:
        time.sleep(0)
        with self._guard:
            free = key not in self.taken
        with self._guard:
            if not free:
                raise KeyError(key)
            self.taken.append(key)

    def unlock(self, key: str) -> None:
        self.taken.remove(key)


def test_a_sleep_of_no_time_hides_no_race(crew: Crew) -> None:
    """A thread may come back from it before the others have come to rest: both can find the key free."""
    with_sleep = {line for chooser in Search(1) for line in ran(Yields, "0+a 1+a-a", crew, chooser)[1].lines}
    assert any(line.startswith("1 lock a: KeyError") for line in with_sleep)
    both = [ran(Yields, "0+a 1+a", crew, chooser)[1].lines for chooser in Search(1)]
    assert any({"0 lock a", "1 lock a"} <= set(lines) for lines in both)


class YieldsAndPolls(Polls):
    """The same as Polls, by sleeps of no time."""

    def lock(self, key: str, timeout: float | None = None) -> None:
        while self._held:
            time.sleep(0)
        self._held = True


def test_a_loop_of_sleeps_of_no_time_comes_to_rest(crew: Crew) -> None:
    ending, log = ran(YieldsAndPolls, "0+a | 1+a | 0-a", crew)
    assert ending is Ending.DONE
    assert log.lines[-2:] == ["1 lock a", "quiet [] []"]
    assert "quiet [1] []" in log.lines


class Spins(Polls):
    """Asks a lock again and again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def lock(self, key: str, timeout: float | None = None) -> None:
        while not self._lock.acquire(False):
            pass

    def unlock(self, key: str) -> None:
        self._lock.release()


def test_a_run_without_an_end_is_called_so(crew: Crew) -> None:
    assert ran(Spins, "0+a | 1+a", crew)[0] is Ending.ENDLESS
    assert ran(Spins, "0+a-a | 1+a", crew)[0] is Ending.DONE


class ByProcessLock(OneLock):
    def __init__(self) -> None:
        self._lock = multiprocessing.get_context("spawn").Lock()  # type: ignore[assignment]

    def lock(self, key: str, timeout: float | None = None) -> None:
        if not self._lock.acquire(timeout=timeout):  # type: ignore[arg-type]
            raise TimeoutError


class ByPipe:
    """Reads a token from a pipe."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        os.write(self._write, b".")

    def lock(self, key: str, timeout: float | None = None) -> None:
        os.read(self._read, 1)

    def unlock(self, key: str) -> None:
        os.write(self._write, b".")


class InPython:
    """Runs on without an end, in plain code."""

    held = False

    def lock(self, key: str, timeout: float | None = None) -> None:
        while self.held and not ENOUGH.is_set():
            pass
        self.held = True

    def unlock(self, key: str) -> None:
        self.held = False


ENOUGH = threading.Event()
real_sleep = time.sleep


@pytest.mark.parametrize("make", [ByPipe, InPython])
def test_a_wait_that_is_not_replaced_is_out_of_control(make: Any) -> None:
    """It is told with its line, and where nobody waits there is no complaint."""
    crew = Crew()
    assert ran(make, "0+a-a | 1+a", crew)[0] is Ending.DONE
    log = EventLog()
    try:
        with pytest.raises(
            UncontrolledError, match=r"no scheduling point for 0\.3 s, at test_thread_runs\.py:\d+ in lock"
        ):
            ran(make, "0+a | 1+a", crew, log=log, patience=0.3)
    finally:
        # Let the thread that is stuck go.
        ENOUGH.set()
        log.subject.unlock("a")
        ENOUGH.clear()


def test_a_lock_of_processes_is_out_of_control() -> None:
    crew, log = Crew(), EventLog()
    try:
        with pytest.raises(UncontrolledError, match="in lock"):
            ran(ByProcessLock, "0+a | 1+a", crew, log=log, patience=0.3)
    finally:
        log.subject.unlock("a")


class CanNotBeMade:
    def __init__(self) -> None:
        raise ValueError("no\nway")


def test_a_factory_that_fails_is_no_finding(crew: Crew) -> None:
    with pytest.raises(SubjectFailedError, match=r"^the factory raised ValueError: no$"):
        ran(CanNotBeMade, "0+a", crew)


@pytest.mark.parametrize("at", ["0 lock a ...", "0 lock a", "1 lock a", "quiet [1] []", "phase 1", "1 cancelled"])
def test_an_error_of_the_observer_surfaces(at: str, crew: Crew) -> None:
    """Wherever it strikes; and the crew serves the next run."""
    text = "0+a | 1~a | c1" if at == "1 cancelled" else "0+a | 1+a | 0-a"
    with pytest.raises(LookupError, match="the observer fails at"):
        ran(OneLock, text, crew, log=EventLog(at))
    assert ran(OneLock, "0+a-a", crew)[0] is Ending.DONE


# -- threads of the subject's own --------------------------------------------------------------------------------------


class Actor:
    """A thread of its own grants the key, asked through a mailbox."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._asking: list[threading.Event] = []
        self._held = False
        self.thread: threading.Thread | None = None

    def lock(self, key: str, timeout: float | None = None) -> None:
        mine = threading.Event()
        with self._changed:
            if self.thread is None:
                self.thread = threading.Thread(target=self._serve, daemon=True)
                self.thread.start()
            self._asking.append(mine)
            self._changed.notify_all()
        mine.wait()

    def unlock(self, key: str) -> None:
        with self._changed:
            self._held = False
            self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asking and not self._held)
                self._held = True
                self._asking.pop(0).set()


def test_a_thread_that_the_subject_starts_takes_part(crew: Crew) -> None:
    """In every run of a search: it grants, it never counts as a client, and it is gone when the run is over."""
    before = threading.active_count()
    runs = 0
    for chooser in Search(1):
        ending, log = ran(Actor, "0+a | 1+a | 0-a", crew, chooser)
        runs += 1
        assert ending is Ending.DONE
        assert log.lines[-1] == "quiet [] []"
        assert log.lines.count("0 lock a") == log.lines.count("1 lock a") == 1
        assert {client for waiting in log.waiting for client in waiting} <= {0, 1}
    assert runs > 1
    # Each is unwound; that takes it a moment, in which it does nothing else.
    for _ in range(2000):
        if threading.active_count() <= before:
            break
        real_sleep(0.005)
    assert threading.active_count() <= before


# -- switches between bytecodes ----------------------------------------------------------------------------------------


class Counter:
    """Counts its calls with a read and a write."""

    def __init__(self) -> None:
        self.number = 0

    def lock(self, key: str, timeout: float | None = None) -> None:
        seen = self.number
        self.number = seen + 1

    def unlock(self, key: str) -> None:
        """Nothing to do."""


def counts(crew: Crew, *, bytecode: bool) -> list[int]:
    found = []
    for chooser in Search(1):
        _, log = ran(Counter, "0+a 1+a", crew, chooser, bytecode=bytecode)
        found.append(log.subject.number)
    return found


@pytest.mark.skipif(not bytecode_events_seen(), reason="this Python does not report every instruction")
def test_a_lost_update_is_found_between_bytecodes(crew: Crew) -> None:
    """One of two counts is lost where the first is preempted between its read and its write."""
    found = counts(crew, bytecode=True)
    assert found[0] == 2
    assert set(found) == {1, 2}


def test_a_lost_update_is_not_found_at_locks(crew: Crew) -> None:
    """There is none to switch at: only the order of the two calls can differ."""
    found = counts(crew, bytecode=False)
    assert set(found) == {2}
    assert len(found) > 1


def test_whether_instructions_are_reported_is_told_the_same_twice() -> None:
    """And the tracer that was there is there again."""
    before = sys.gettrace()
    assert bytecode_events_seen() == bytecode_events_seen()
    assert sys.gettrace() is before


# -- the same again ----------------------------------------------------------------------------------------------------

PROGRAM = "0+a-a 1+a-a 2~a"


def events(crew: Crew) -> list[tuple[tuple[int, ...], list[str]]]:
    """All runs within one preemption: their picks and what was seen."""
    found = []
    for chooser in Search(1):
        _, log = ran(OneLock, PROGRAM, crew, chooser)
        found.append((tuple(pick for pick, _ in chooser.path), log.lines))
    return found


def test_the_same_picks_give_the_same_events_twice(crew: Crew) -> None:
    first = events(crew)
    assert events(crew) == first
    for picks, lines in first:
        assert ran(OneLock, PROGRAM, crew, Chooser(picks))[1].lines == lines
    assert len({tuple(lines) for _, lines in first}) > 1


def test_the_same_picks_give_the_same_events_in_another_process(crew: Crew) -> None:
    program = "\n".join(
        [
            "import importlib.util, sys",
            "from kmutex.engine.threads import Crew, replaced",
            f"spec = importlib.util.spec_from_file_location('again', {__file__!r})",
            "again = importlib.util.module_from_spec(spec)",
            "sys.modules['again'] = again",
            "spec.loader.exec_module(again)",
            "with replaced():",
            "    print(again.events(Crew()))",
        ]
    )
    path = [str(Path(str(kmutex.__file__)).parents[1]), *(entry for entry in sys.path if entry)]
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path), "PYTHONHASHSEED": "17"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == repr(events(crew)), done.stderr


AT_THE_END = r"""
import atexit
from kmutex import KeyedMutex
from kmutex.engine import explorer
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse

@atexit.register
def last():
    explorer.foreign = None  # as in a module that has been emptied
    exec(compile("def late(): pass\nlate()", "late.py", "exec"))

bench = Harness(KeyedMutex, promises=PROMISES)
with bench.control():
    print(bench.explorer.every(parse("0+a-a 1+a"), "bytecode", 0).runs > 0)
"""


def test_nothing_is_followed_while_the_interpreter_ends() -> None:
    """From Python 3.12 on the events stay on; what runs last then showed errors of modules that were empty."""
    done = subprocess.run([sys.executable, "-c", AT_THE_END], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_toy_program_has_as_many_ways_as_by_hand(crew: Crew) -> None:
    """Two clients whose calls touch no lock: at the bound 0, who comes first; each beginning of a call is a point.

    At the start both can go on: 2 ways. The first of them then stands before its call, and may be preempted there
    for 1: then the other stands before its own, and has spent the bound. So 2 ways within 0, and 4 within 1.
    """
    for bound, number in ((0, 2), (1, 4)):
        assert sum(1 for chooser in Search(bound) if ran(Counter, "0+a 1+a", crew, chooser)) == number
