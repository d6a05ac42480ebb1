"""The threads of a run: the state of each, and the real threads that serve one run after the other."""

from __future__ import annotations

import _thread
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

from kmutex.engine.limits import TIMEOUT
from kmutex.engine.program import Step
from kmutex.engine.search import EVENT
from kmutex.engine.threads.locks import Abandoned, CoopLock

real_lock = _thread.allocate_lock
real_start_new_thread = _thread.start_new_thread


class Client:
    """A thread of the run: one of the program's, or one that the subject started itself (index -1)."""

    def __init__(self, index: int, timeout: float = TIMEOUT) -> None:
        self.index = index
        self.place = index
        """Among all threads of the run."""
        self.on: Hashable = EVENT
        """The object of its next operation; None if unknown."""
        self.timeout = timeout
        self.ident = 0
        self.baton = real_lock()
        self.baton.acquire()
        self.gone = real_lock()
        """Held while a thread that the subject started exists."""
        self.steps: deque[Step] = deque()
        self.step: Step | None = None
        self.step_ends: float | None = None
        self.timed = False
        self.late = False
        """Whether its last wait ended after the deadline of the call."""
        self.idle = False
        self.done = False
        self.traced = False
        self.lock: CoopLock | None = None
        self.ended: CoopLock | None = None
        """For a thread that the subject started: held until it has ended."""
        self.asleep = False
        self.ends: float | None = None
        self.woken = ""
        self.parked = False
        self.polls = 0
        self.yields = 0
        self.got: dict[str, Any] = {}

    @property
    def waits(self) -> bool:
        return self.lock is not None or self.asleep

    def able(self) -> bool:
        if self.done:
            return False
        if self.idle:
            return bool(self.steps)
        if self.woken:
            return True
        if self.lock is not None:
            return self.lock.free()
        return not self.asleep

    def cancellable(self) -> str:
        """Return how a choice can end its wait now: "expired", "interrupted", or not ("")."""
        if self.step is None or self.woken or not self.waits or (self.lock is not None and self.lock.free()):
            return ""
        if self.step.kind == "~" and self.ends is not None:
            return "expired"
        if self.step.kind in "!t" and self.parked:
            return "interrupted"
        return ""

    def due(self, now: float) -> bool:
        """Return whether its wait or its whole call is out of time, so that it must check the clock.

        False if it has checked already and has begun a new wait for the whole timeout: then it does not check again.
        """
        ends, call_ends = self.ends, self.step_ends
        if ends is None or ends <= now:
            return ends is not None
        return call_ends is not None and call_ends <= now and not (self.late and ends >= call_ends + self.timeout)

    def polling(self) -> bool:
        """Return whether its wait ends at another time than its call."""
        if self.ends is None or self.woken:
            return False
        return self.asleep or self.step_ends is None or self.ends < self.step_ends


class _Seat:
    """A real thread that serves one client after the other."""

    def __init__(self) -> None:
        self._go = real_lock()
        self._go.acquire()
        self._free = real_lock()
        self._body: Callable[[], None] | None = None
        ready = real_lock()
        ready.acquire()
        real_start_new_thread(self._serve, (ready,))
        ready.acquire()

    def start(self, body: Callable[[], None]) -> None:
        self._free.acquire()
        self._body = body
        self._go.release()

    def at_rest(self, seconds: float) -> bool:
        if self._free.acquire(timeout=seconds):
            self._free.release()
            return True
        return False

    def _serve(self, ready: Any) -> None:
        trace_as_others()
        ready.release()
        outer = sys.gettrace()
        while True:
            self._go.acquire()
            body = self._body
            assert body is not None
            try:
                body()
            except Abandoned:
                pass
            finally:
                sys.settrace(outer)
                self._body = body = None
                self._free.release()


def trace_as_others() -> None:
    """Install what threading.settrace installs (coverage, a debugger) in a thread that threading did not start."""
    sys.settrace(threading.gettrace())
    _called()


def _called() -> None:
    """Make a first call: a tracer for all threads may replace itself by another one for this thread."""


class Crew:
    """The threads that serve run after run; new threads for each run would cost more than most runs."""

    def __init__(self) -> None:
        self._seats: list[_Seat] = []

    def seat(self, clients: int) -> None:
        """Start threads for so many clients. Not within a run, where their tracers would use the run's locks."""
        while len(self._seats) < clients:
            self._seats.append(_Seat())

    def start(self, number: int, body: Callable[[], None]) -> None:
        self._seats[number].start(body)

    def replace(self, number: int) -> None:
        self._seats[number] = _Seat()

    def at_rest(self, number: int, seconds: float) -> bool:
        return self._seats[number].at_rest(seconds)


@contextmanager
def one_core(number: int) -> Iterator[None]:
    """Keep this thread, and those that it starts, on one core: ``number`` modulo the number of cores.

    The threads of a run take turns: waking the next one on another core costs more than most of its steps.
    """
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    try:
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
