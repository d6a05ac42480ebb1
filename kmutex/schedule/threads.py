"""Programs on real threads, one at a time: they pass a baton, and who gets it next is a choice.

While `replaced` is in force, the locks that anybody makes are ours. Of `threading` only Lock and RLock are
replaced: Condition, Event, Semaphore, Barrier and queue.Queue are written in Python upon them and so come under
control by themselves. A thread that finds our lock taken gives the baton away; a lock that is set free may be taken by
anybody, whoever waited longest.

The clock is virtual. A timed wait ends when somebody decides that it ends, and the clock then stands at its
end. A wait that the caller did not ask for (a poll: sleep, or a short timed wait in a loop) is ended without a
choice, twice after the last event; a locker that polls is quiet when two looks have changed nothing.

Between two operations on locks, plain attribute code is uninterrupted unless `bytecode` says otherwise: then a
thread may also lose the baton before each instruction of the subject's own code that reads or writes what others
can see.
"""

from __future__ import annotations

import _thread
import dis
import gc
import queue
import sys
import sysconfig
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from kmutex.schedule.choices import Chooser
from kmutex.schedule.limits import MOST_STEPS, POLLS, TIMEOUT
from kmutex.schedule.observer import Ending, Observer, SubjectFailedError, UncontrolledError
from kmutex.schedule.program import ASKING, Program, Step, possible
from kmutex.schedule.watchdog import Watchdog
from kmutex.schedule.words import said

MOST_ALONE = 3_000
"""Instructions that one thread may execute without a lock operation before another gets the baton."""
LEAST_SLEEP = 1e-6
"""Virtual seconds that a loop of sleeps takes for each: what is over at once would never count as waiting."""
LEAST_WATCH = 0.05
"""Real seconds until the first look at whether a run goes on, and between two looks at the least."""

_real_lock = _thread.allocate_lock
_real_time = {name: getattr(time, name) for name in ("sleep", "monotonic", "time", "perf_counter")}
_real_start_new_thread = _thread.start_new_thread


class _Abandoned(SystemExit):
    """Unwinds a thread whose run is over. A SystemExit, so that a thread of the subject's ends without a word."""


class _World:
    """What the replaced primitives ask: the run that is going on, if any."""

    run: ThreadRun | None = None


class CoopLock:
    """A threading.Lock whose waiting is a choice of the scheduler."""

    def __init__(self) -> None:
        self._taken = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout < 0 and timeout != -1:
            raise ValueError("timeout value must be a non-negative number")
        if timeout > threading.TIMEOUT_MAX:
            raise OverflowError("timeout value is too large")
        run = _World.run
        if run is None or run.aside:
            return self._acquire_aside(blocking and timeout != 0)
        if not run.mine():
            raise _Abandoned
        run.point(sync=True)
        if self._taken:
            if not blocking or timeout == 0:
                return False
            return run.wait_for(self, None if timeout < 0 else timeout)
        self._taken = True
        return True

    def _acquire_aside(self, blocking: bool) -> bool:
        if self._taken and blocking:
            raise UncontrolledError("would wait for a lock that is not released")
        taken, self._taken = self._taken, True
        return not taken

    def free(self) -> bool:
        """Whether a waiter could take it now."""
        return not self._taken

    def take(self) -> None:
        """Take it, free as it is."""
        self._taken = True

    def release(self) -> None:
        run = _World.run
        if run is not None and not run.aside and not run.mine():
            self._taken = False
            return
        if not self._taken and not (run is not None and run.abandoning):
            raise RuntimeError("release unlocked lock")
        self._taken = False
        if run is not None and not run.aside:
            run.point(sync=True)

    def locked(self) -> bool:
        run = _World.run
        if run is not None and not run.aside and run.mine():
            run.point(sync=True)
        return self._taken

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._taken = False

    acquire_lock = acquire
    release_lock = release
    locked_lock = locked


class CoopRLock:
    """A threading.RLock upon a CoopLock."""

    def __init__(self) -> None:
        self._lock = CoopLock()
        self._owner: object = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = _whoami()
        if self._owner == me:
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner, self._count = me, 1
        return True

    def release(self) -> None:
        run = _World.run
        if self._owner != _whoami():
            if run is not None and (run.abandoning or not run.mine()):
                return
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._owner == _whoami()

    def _recursion_count(self) -> int:
        return self._count if self._is_owned() else 0

    def _release_save(self) -> tuple[int, object]:
        saved = (self._count, self._owner)
        self._count, self._owner = 0, None
        self._lock.release()
        return saved

    def _acquire_restore(self, saved: tuple[int, object]) -> None:
        self._lock.acquire()
        self._count, self._owner = saved

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]


def _whoami() -> object:
    run = _World.run
    return "aside" if run is not None and run.aside else _thread.get_ident()


class _Client:
    """A thread of the run: one of the program's, or one that the subject started itself (index -1)."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.ident = 0
        self.baton = _real_lock()
        self.baton.acquire()
        self.steps: deque[Step] = deque()
        self.step: Step | None = None
        self.step_ends: float | None = None
        self.timed = False
        self.late = False
        """Whether it stood in a wait, and came back from it after the time of its whole call."""
        self.idle = False
        self.done = False
        self.lock: CoopLock | None = None
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
        """How its wait can be ended by a choice now: "expired", "interrupted", or not ("")."""
        if self.step is None or self.woken or not self.waits or (self.lock is not None and self.lock.free()):
            return ""
        if self.step.kind == "~" and self.ends is not None:
            return "expired"
        if self.step.kind == "!" and self.parked:
            return "interrupted"
        return ""

    def due(self, now: float) -> bool:
        """Whether its wait is over, or the time of its whole call: then it must come to look at the clock.

        Not where it has looked already, and waits on for the whole time again: nothing makes it look then.
        """
        ends, call_ends = self.ends, self.step_ends
        if ends is None or ends <= now:
            return ends is not None
        return call_ends is not None and call_ends <= now and not (self.late and ends >= call_ends + TIMEOUT)

    def polling(self) -> bool:
        """Whether it waits for a time that is not the end of its call."""
        if self.ends is None or self.woken:
            return False
        return self.asleep or self.step_ends is None or self.ends < self.step_ends


class _Seat:
    """A real thread that serves one client after the other."""

    def __init__(self) -> None:
        self._go = _real_lock()
        self._go.acquire()
        self._free = _real_lock()
        self._body: Callable[[], None] | None = None
        _real_start_new_thread(self._serve, ())

    def start(self, body: Callable[[], None]) -> None:
        self._free.acquire()
        self._body = body
        self._go.release()

    def at_rest(self, seconds: float) -> bool:
        if self._free.acquire(timeout=seconds):
            self._free.release()
            return True
        return False

    def _serve(self) -> None:
        while True:
            self._go.acquire()
            body = self._body
            assert body is not None
            try:
                body()
            except _Abandoned:
                pass
            finally:
                sys.settrace(None)
                self._body = body = None
                self._free.release()


class Crew:
    """The threads that serve run after run; making them anew for each would cost more than most runs."""

    def __init__(self) -> None:
        self._seats: list[_Seat] = []

    def start(self, number: int, body: Callable[[], None]) -> None:
        while len(self._seats) <= number:
            self._seats.append(_Seat())
        self._seats[number].start(body)

    def replace(self, number: int) -> None:
        self._seats[number] = _Seat()

    def at_rest(self, number: int, seconds: float) -> bool:
        return self._seats[number].at_rest(seconds)


class ThreadRun:
    """One run of one program on a fresh subject."""

    def __init__(
        self,
        make: Callable[[], Any],
        program: Program,
        chooser: Chooser,
        observer: Observer,
        *,
        crew: Crew,
        keys: Callable[[str], Any],
        bytecode: Bytecode | None = None,
        quiet_tail: int = 0,
        patience: float = 5.0,
    ) -> None:
        """A run of ``program`` on what ``make()`` returns.

        keys: the value for a key's letter. bytecode: where to switch between lock operations, or nowhere.
        quiet_tail: the last phases of the program in which there is nothing to choose.
        patience: seconds without a scheduling point, as Watchdog counts them, before the run counts as out of control.
        """
        self.aside = False
        self.abandoning = False
        self.ending: Ending | None = None
        self._make = make
        self._phases = deque(enumerate(program.phases))
        self._plain_from = len(program.phases) - quiet_tail
        self._chooser = chooser
        self._observer = observer
        self._crew = crew
        self._keys = keys
        self._bytecode = bytecode
        self._patience = patience
        self._clients = [_Client(index) for index in range(program.clients)]
        self._running = self._clients[0]
        self.plain = True
        self._now = 1000.0
        self._steps = 0
        self._alone = 0
        self._subject: Any = None
        self._error: BaseException | None = None
        self._ended = _real_lock()
        self._ended.acquire()

    # -- called from the thread that wants the run ---------------------------------------------------------------

    def run(self) -> Ending:
        """Run to the end. UncontrolledError, SubjectFailedError: there was none."""
        _World.run = self
        # A collection comes when it likes, and what it calls (finalizers, callbacks) would run in the midst of a
        # step of this scheduler, and be traced.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for number, client in enumerate(self._clients):
                self._crew.start(number, lambda client=client: self._body(client))  # type: ignore[misc]
            self._clients[0].baton.release()
            self._watch()
            self._abandon()
        finally:
            _World.run = None
            if collecting:
                gc.enable()
        if self._error is not None:
            raise self._error
        assert self.ending is not None
        return self.ending

    def _watch(self) -> None:
        seen = -1
        left = 0.0
        while not self._ended.acquire(timeout=max(left, LEAST_WATCH)):
            if self._steps != seen:
                seen = self._steps
                watchdog = Watchdog()
            left = self._patience - watchdog.silent()
            if left <= 0:
                raise UncontrolledError(f"no scheduling point for {self._patience:g} s{_where()}")

    def _abandon(self) -> None:
        self.abandoning = True
        for number, client in enumerate(self._clients):
            if not client.done and client.baton.locked():
                client.baton.release()
            if client.index >= 0 and not self._crew.at_rest(number, 1.0):
                self._crew.replace(number)

    def mine(self) -> bool:
        """Whether the calling thread is the one that has the baton. One that outlived its own run is not."""
        return self._running.ident == _thread.get_ident()

    # -- called from the threads of the run ----------------------------------------------------------------------

    def point(self, *, sync: bool = False) -> None:
        """The running thread could go on; whether it does is a choice."""
        if self.abandoning:
            if sync:
                raise _Abandoned
            return
        me = self._running
        self._count(me, sync)
        if self.plain:
            return
        moves: list[tuple[str, _Client]] = [("run", me)]
        costs = [0]
        for other in self._others(me):
            if other.able():
                moves.append(("run", other))
                costs.append(1)
            how = other.cancellable()
            if how:
                moves.append((how, other))
                costs.append(0 if self._bytecode is None else 1)
        if len(moves) > 1:
            how, other = moves[self._chooser.choose(costs)]
            if how == "run":
                self._hand_to(me, other)
            else:
                self._cancel(other, how)

    def wait_for(self, lock: CoopLock, timeout: float | None) -> bool:
        """Wait until ``lock`` is free and take it: True. False: the time is over."""
        me = self._running
        me.lock = lock
        me.ends = None if timeout is None else self._now + timeout
        if me.ends is not None and me.step_ends is not None and not me.timed:
            # The caller's time runs from its call, the wait's from here, and the clock may have moved between.
            me.step_ends = max(me.step_ends, me.ends)
            me.timed = True
        me.parked = False
        try:
            while True:
                self._give_up(me)
                if me.woken:
                    woken, me.woken = me.woken, ""
                    if woken == "interrupted":
                        raise KeyboardInterrupt
                    return False
                if lock.free():
                    lock.take()
                    return True
        finally:
            if me.parked and me.step_ends is not None and me.step_ends <= self._now:
                me.late = True
            me.lock = None
            me.ends = None

    def sleep(self, seconds: float) -> None:
        """time.sleep under the virtual clock."""
        if self.abandoning:
            raise _Abandoned
        if self.aside:
            return
        me = self._running
        if seconds <= 0 and me.yields < POLLS:
            # It is up at once, so it may go on before anybody else does. A loop of these is a poll all the same.
            me.yields += 1
            self.point()
            return
        me.parked = False
        me.asleep = True
        me.ends = self._now + max(seconds, LEAST_SLEEP)
        try:
            while not me.woken:
                self._give_up(me)
            woken, me.woken = me.woken, ""
            if woken == "interrupted":
                raise KeyboardInterrupt
        finally:
            me.asleep = False
            me.ends = None

    def now(self) -> float:
        """The virtual time in seconds."""
        return self._now

    def adopt(self, body: Callable[[], None]) -> None:
        """A thread that the subject starts: one more client, without steps of its own."""
        client = _Client(-1)

        def whole() -> None:
            client.ident = _thread.get_ident()
            client.baton.acquire()
            try:
                if self.abandoning:
                    return
                self._trace()
                body()
            except _Abandoned:
                pass
            finally:
                client.done = True
                if not self.abandoning:
                    self._leave(client)

        self._clients.append(client)
        _real_start_new_thread(whole, ())

    def _body(self, me: _Client) -> None:
        me.ident = _thread.get_ident()
        me.baton.acquire()
        try:
            if self.abandoning:
                return
            self._trace()
            if self._subject is None:
                self._prepare()
            while True:
                while me.steps:
                    self._perform(me, me.steps.popleft())
                me.idle = True
                self._give_up(me)
                me.idle = False
        except _Abandoned:
            pass
        except BaseException as error:
            # Of the observer or of this scheduler: not a finding, and not to be lost in a thread.
            self._error = error
            self._end(Ending.STOPPED)
        finally:
            me.done = True

    def _prepare(self) -> None:
        try:
            self._subject = self._make()
        except _Abandoned:
            raise
        except BaseException as error:
            self._error = SubjectFailedError(f"the factory raised {said(error)}")
            self._end(Ending.STOPPED)
            raise _Abandoned from None
        self._observer.made(self._subject)

    def _perform(self, me: _Client, step: Step) -> None:
        if not possible(step, me.got):
            return
        self.point()
        me.step = step
        me.timed = me.late = False
        asked = self._now
        me.step_ends = self._now + TIMEOUT if step.kind == "~" else self._now if step.kind == "?" else None
        self._tell(lambda: self._observer.called(me.index, step))
        error: BaseException | None = None
        try:
            self._call(me, step)
        except _Abandoned:
            raise
        except BaseException as caught:
            if self.abandoning:
                # The subject's way of being unwound, not an event of the run.
                raise _Abandoned from None
            # The traceback holds the subject's frames, and so the entries in them, alive.
            error = caught.with_traceback(None)
        if error is not None and step.kind == "~" and self._now >= asked + TIMEOUT:
            # It looked at the clock itself.
            self._tell_cancelled(me)
        me.step = me.step_ends = None
        self.progress()
        if error is not None:
            failed = error
            self._tell(lambda: self._observer.raised(me.index, step, failed))
        else:
            self._tell(lambda: self._observer.returned(me.index, step))

    def _call(self, me: _Client, step: Step) -> None:
        key = self._keys(step.key)
        subject = self._subject
        if step.kind in "+!":
            subject.lock(key)
        elif step.kind == "~":
            subject.lock(key, timeout=TIMEOUT)
        elif step.kind == "?":
            subject.lock(key, timeout=0)
        elif step.kind == "[":
            block = subject.hold(key)
            me.got[step.key] = (block, block.__enter__())
        elif step.kind == "^":
            me.got[step.key][1].release()
        elif step.kind == "]":
            me.got.pop(step.key)[0].__exit__(None, None, None)
        else:
            if step.kind != "u":
                me.got.pop(step.key, None)
            subject.unlock(key)
        if step.kind in ASKING:
            me.got.setdefault(step.key, None)

    def _tell(self, what: Callable[[], None]) -> None:
        self.aside = True
        try:
            what()
        except BaseException as error:
            # It may strike within a call of the subject's, and is no answer of that.
            self._error = error
        finally:
            self.aside = False
        if self._error is not None or self._observer.stopped:
            self._end(Ending.STOPPED)
            self._rest(self._running)

    # -- who goes on ---------------------------------------------------------------------------------------------

    def _others(self, me: _Client) -> Iterator[_Client]:
        at = self._clients.index(me)
        for step in range(1, len(self._clients)):
            yield self._clients[(at + step) % len(self._clients)]

    def _count(self, me: _Client, sync: bool) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            self._end(Ending.ENDLESS)
            self._rest(me)
        self._alone = 0 if sync else self._alone + 1
        if self._alone > MOST_ALONE:
            self._alone = 0
            other = next((other for other in self._others(me) if other.able()), None)
            if other is not None:
                self._hand_to(me, other)

    def progress(self) -> None:
        """Something has happened: whoever polls may look again."""
        for client in self._clients:
            client.polls = client.yields = 0

    def _give_up(self, me: _Client) -> None:
        """The running thread can't go on. Returns when it has the baton again."""
        if self.abandoning:
            raise _Abandoned
        following = self._next(me)
        if following is not me:
            self._hand_to(me, following)

    def _leave(self, me: _Client) -> None:
        """The running thread is at its end."""
        following = self._next(me)
        if not self.abandoning and self.ending is None:
            self._running = following
            following.baton.release()

    def _hand_to(self, me: _Client, other: _Client) -> None:
        self._running = other
        self._alone = 0
        other.baton.release()
        self._rest(me)

    def _rest(self, me: _Client) -> None:
        me.baton.acquire()
        if self.abandoning:
            raise _Abandoned

    def _next(self, me: _Client) -> _Client:
        while True:
            self._steps += 1
            if self._steps > MOST_STEPS:
                self._end(Ending.ENDLESS)
                self._rest(me)
            able = [client for client in (me, *self._others(me)) if client.able()]
            if able:
                cancels = [] if self.plain else [(client, client.cancellable()) for client in self._clients]
                cancels = [(client, how) for client, how in cancels if how]
                number = self._choose(len(able) + len(cancels))
                if number < len(able):
                    return able[number]
                self._cancel(*cancels[number - len(able)])
            elif not self._end_a_wait():
                self._quiet(me)

    def _choose(self, alternatives: int) -> int:
        if alternatives == 1 or self.plain:
            return 0
        return self._chooser.choose([0] * alternatives)

    def _end_a_wait(self) -> bool:
        """End the next wait that ends without a choice: one that is due, or a poll."""
        timed = [c for c in self._clients if c.waits and c.ends is not None and not c.woken]
        due = [c for c in timed if c.due(self._now)]
        polls = [c for c in timed if c.polling() and c.polls < POLLS]
        for client in due or sorted(polls, key=lambda c: c.ends or 0):
            client.polls += 1
            self._now = max(self._now, client.ends or 0)
            client.woken = "expired"
            if client.step_ends is not None and client.step_ends <= self._now:
                self._tell_cancelled(client)
            return True
        return False

    def _cancel(self, client: _Client, how: str) -> None:
        client.woken = how
        if how == "expired":
            self._now = max(self._now, client.ends or 0, client.step_ends or 0)
        self.progress()
        self._tell_cancelled(client)

    def _tell_cancelled(self, client: _Client) -> None:
        self._tell(lambda: self._observer.cancelled(client.index))

    def _quiet(self, me: _Client) -> None:
        """Nobody can move: the next phase begins, or a wait is cancelled, or the run is over."""
        waiting: dict[int, Step] = {}
        overdue = set()
        for client in self._clients:
            if client.index >= 0 and client.step is not None:
                client.parked = True
                waiting[client.index] = client.step
                if client.step_ends is not None and client.step_ends <= self._now:
                    overdue.add(client.index)
        self._tell(lambda: self._observer.quiet(waiting, frozenset(overdue)))
        cancels = [(client, client.cancellable()) for client in self._clients]
        cancels = [(client, how) for client, how in cancels if how] if self._phases else []
        number = self._choose(1 + len(cancels))
        if number:
            self._cancel(*cancels[number - 1])
            return
        if not self._phases:
            self._end(Ending.DONE)
            self._rest(me)
        at, phase = self._phases.popleft()
        self.plain = at >= self._plain_from
        self._tell(lambda: self._observer.phase(at))
        for index in phase.cancel:
            client = self._clients[index]
            how = client.cancellable()
            if how:
                self._cancel(client, how)
            elif client.step is not None and client.step.kind == "~" and client.step_ends is not None:
                # It waits in nothing that ends by itself: it may look at the clock, or it is overdue.
                self._now = max(self._now, client.step_ends)
        for index, steps in phase.steps:
            self._clients[index].steps.extend(steps)
        self.progress()

    def _end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self.plain = True
            self._ended.release()

    def _trace(self) -> None:
        if self._bytecode is not None:
            sys.settrace(self._bytecode.tracer(self))


class Bytecode:
    """The places in the subject's own code where a thread may lose the baton between lock operations."""

    def __init__(self, own: Callable[[str], bool]) -> None:
        """own: whether a file's code is the subject's."""
        self._own = own
        self._places: dict[CodeType, frozenset[int] | None] = {}

    def tracer(self, run: ThreadRun) -> Callable[[FrameType, str, Any], Any]:
        """A function for sys.settrace."""

        def enter(frame: FrameType, event: str, arg: Any) -> Any:
            if run.plain or run.aside or run.abandoning:
                return None
            places = self._of(frame.f_code)
            if not places:
                return None

            def step(frame: FrameType, event: str, arg: Any) -> Any:
                if event == "opcode":
                    if frame.f_lasti in places and not run.aside:
                        run.point()
                elif event == "line":
                    frame.f_trace_opcodes = True
                return step

            # From 3.12 on the flag takes effect only when it is set again on a line.
            frame.f_trace_opcodes = True
            return step

        return enter

    def _of(self, code: CodeType) -> frozenset[int] | None:
        try:
            return self._places[code]
        except KeyError:
            places = frozenset(_shared(code)) if self._own(code.co_filename) else None
            self._places[code] = places
            return places


def bytecode_events_seen() -> bool:
    """Whether this interpreter reports every instruction of a function that is traced: 3.12 needs a first time.

    Without this, a search at bytecode level would be complete over switches that never happened.
    """
    seen: list[int] = []

    def probe(value: int) -> int:
        doubled = value + value
        return doubled + 1

    def step(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen.append(frame.f_lasti)
        return step

    before = sys.gettrace()
    for _ in range(3):
        seen.clear()
        sys.settrace(lambda frame, event, arg: step(frame, event, arg) if frame.f_code is probe.__code__ else None)
        try:
            probe(1)
        finally:
            sys.settrace(before)
    adds = [i.offset for i in dis.get_instructions(probe) if i.opname.startswith("BINARY")]
    return set(adds) <= set(seen)


_SEEN_BY_OTHERS = (
    "LOAD_ATTR",
    "STORE_ATTR",
    "DELETE_ATTR",
    "BINARY_SUBSCR",
    "STORE_SUBSCR",
    "DELETE_SUBSCR",
    "CONTAINS_OP",
    "COMPARE_OP",
    "CALL",
    "FOR_ITER",
    "STORE_GLOBAL",
    "STORE_DEREF",
)


def _shared(code: CodeType) -> Iterator[int]:
    """The offsets of the instructions that read or write what another thread may see."""
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name.startswith(_SEEN_BY_OTHERS) and not name.startswith("CALL_INTRINSIC"):
            yield instruction.offset


_LIBRARY = tuple(
    str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")
)


def foreign(filename: str) -> bool:
    """Whether a file is the standard library's or this scheduler's, not a subject's."""
    if filename.startswith("<"):
        return True
    path = str(Path(filename).resolve())
    if "site-packages" not in path and path.startswith(_LIBRARY):
        return True
    package = Path(__file__).resolve().parents[1]
    return path.startswith(tuple(str(package / part) for part in ("schedule", "testing", "verify")))


@contextmanager
def replaced() -> Iterator[None]:
    """Lock, RLock, the clock and thread starts are ours while this is in force; import the subject inside."""
    changes: list[tuple[Any, str, Any]] = [
        (threading, "Lock", CoopLock),
        (threading, "RLock", CoopRLock),
        (threading, "_RLock", CoopRLock),
        (threading, "_CRLock", CoopRLock),
        (threading, "_allocate_lock", CoopLock),
        (threading, "_time", _now),
        (threading, "excepthook", _hook(threading.excepthook)),
        (_thread, "allocate_lock", CoopLock),
        (_thread, "RLock", CoopRLock),
        (queue, "SimpleQueue", queue._PySimpleQueue),  # type: ignore[attr-defined]
        (queue, "time", _now),
        (time, "sleep", _sleep),
        (time, "monotonic", _now),
        (time, "time", _now),
        (time, "perf_counter", _now),
    ]
    for name in ("_start_new_thread", "_start_joinable_thread"):
        if hasattr(threading, name):
            changes.append((threading, name, _starter(getattr(threading, name))))
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)


def progress() -> None:
    """For a subject that makes many calls in one: a call of these has come back."""
    if _World.run is not None:
        _World.run.progress()


def _now() -> float:
    run = _World.run
    return float(_real_time["monotonic"]()) if run is None else run.now()


def _sleep(seconds: float) -> None:
    run = _World.run
    if run is None:
        _real_time["sleep"](seconds)
    elif run.aside or run.mine():
        run.sleep(seconds)
    else:
        raise _Abandoned


def _hook(real: Callable[[Any], object]) -> Callable[[Any], object]:
    """An excepthook that is silent about threads unwound by us: the real one would run code, and take locks, then."""
    return lambda args: None if args.exc_type is _Abandoned else real(args)


def _starter(real: Callable[..., Any]) -> Callable[..., Any]:
    def start(function: Callable[..., None], *args: Any, **kwargs: Any) -> Any:
        run = _World.run
        if run is None:
            return real(function, *args, **kwargs)
        arguments = args[0] if args and isinstance(args[0], tuple) else ()
        run.adopt(lambda: function(*arguments))
        return kwargs.get("handle", 0)

    return start


def _where() -> str:
    """The subject's line that is running now, for a message."""
    for frame in sys._current_frames().values():
        seen: FrameType | None = frame
        lines = []
        while seen is not None:
            if not foreign(seen.f_code.co_filename):
                lines.append(f"{Path(seen.f_code.co_filename).name}:{seen.f_lineno} in {seen.f_code.co_name}")
            seen = seen.f_back
        if lines and frame.f_code.co_name not in ("_rest", "_hand_to"):
            return f", at {lines[0]}"
    return ""
