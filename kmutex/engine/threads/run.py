"""Run programs on real threads, one at a time: they pass a baton, and the next holder of the baton is a choice.

A thread that finds a lock taken gives the baton away. The clock is virtual. A timed wait ends when the scheduler
decides that it ends, and the clock then stands at its end. Polling waits (sleep, or a short timed wait in a loop) are
not scheduling choices: each is woken at most twice without progress, and then the client counts as blocked.
"""

from __future__ import annotations

import _thread
import gc
import itertools
import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from kmutex._text import said
from kmutex.engine.limits import ENDLESS, MOST_STEPS, POLLS, TIMEOUT
from kmutex.engine.observer import Ending, Observer, SubjectFailedError, UncontrolledError, without_frames
from kmutex.engine.program import ASKING, FLIGHT, RAISING, Program, Step, leased_by, possible
from kmutex.engine.search import (
    ANYTHING,
    ASKED,
    EVENT,
    GRANTED,
    LET_GO,
    LETTING_GO,
    OTHER,
    Chooser,
    Event,
    Footprint,
    Move,
)
from kmutex.engine.threads.bytecode import UNKNOWN, Bytecode, Place, where
from kmutex.engine.threads.clients import Client, Crew, real_lock, real_start_new_thread, trace_as_others
from kmutex.engine.threads.locks import Abandoned, CoopLock, CoopRLock, World
from kmutex.engine.watchdog import Watchdog

MOST_ALONE = 3_000
"""The most instructions of one thread without a lock operation before another gets the baton."""
EARLY = "early"
"""How a wait of the subject itself ends before the other threads have done all that they can."""
LEAST_SLEEP = 1e-6
"""The least virtual seconds of a sleep: a sleep that ends at once would never count as waiting."""
LEAST_WATCH = 0.05
"""Real seconds until the first check whether a run makes progress, and the least time between two checks."""

_SEEN_AS = {**dict.fromkeys("+~!?[", (ASKED, GRANTED)), **dict.fromkeys("-]", (LETTING_GO, LET_GO))}
"""By kind of step: the events of its call and its return."""
_NUMBERS = itertools.count(1)
_NOTHING = nullcontext()


class ThreadRun:
    """One run of one program on a new subject."""

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
        switches: bool = True,
        quiet_tail: int = 0,
        patience: float = 5.0,
        timeout: float = TIMEOUT,
    ) -> None:
        """A run of ``program`` on what ``make()`` returns.

        keys: the value for a key's letter. bytecode: which instructions the run is told of; None: of none. switches:
        whether threads switch there too, and not at lock operations only.
        quiet_tail: the last phases of the program in which there is nothing to choose.
        patience: seconds without a scheduling point, as Watchdog counts them, before the run counts as out of control.
        timeout: virtual seconds that a cancellable wait asks for.
        """
        self.aside = False
        self.abandoning = False
        self.ending: Ending | None = None
        self.taken: set[CoopLock | CoopRLock] = set()
        """Older locks that were held in this run: a module's global lock outlives it."""
        self.number = next(_NUMBERS)
        self._make = make
        self._phases = deque(enumerate(program.phases))
        self._plain_from = len(program.phases) - quiet_tail
        self._chooser = chooser
        self._observer = observer
        self._crew = crew
        self._keys = keys
        self._bytecode = bytecode
        self._switches = bytecode if switches else None
        self._patience = patience
        self._timeout = timeout
        self._clients = [Client(index, timeout) for index in range(program.clients)]
        self._running = self._clients[0]
        self.plain = True
        self._watching = chooser.watches and chooser.is_new
        self.followed = self._switches is not None or self._watching
        """Whether instructions matter: not once there is nothing left to choose."""
        self._now = 1000.0
        self._steps = 0
        self._most_steps = MOST_STEPS
        self._alone = 0
        self._subject: Any = None
        self._error: BaseException | None = None
        self._ended = real_lock()
        self._ended.acquire()
        self._locks = 0
        self._trail: list[tuple[int, Footprint]] = []
        """The steps since the last choice; those of the running thread since then are in the other four."""
        self._reads: set[Hashable] = set()
        self._writes: set[Hashable] = set()
        self._events: set[Event] = set()
        self._anything = False

    # -- called from the thread that starts the run --------------------------------------------------------------

    def run(self) -> Ending:
        """Run to the end; raise UncontrolledError or SubjectFailedError if that is not possible."""
        self._crew.seat(len(self._clients))
        World.run = self
        # Garbage collection comes at any time, and its finalizers and callbacks would run, and be traced, in the middle
        # of a step of this scheduler.
        collecting = gc.isenabled()
        gc.disable()
        try:
            for number, client in enumerate(self._clients):
                self._crew.start(number, lambda client=client: self._body(client))  # type: ignore[misc]
            self._clients[0].baton.release()
            self._watch()
            if self.ending is Ending.DONE:
                self._chooser.passed(self._trail)
            self._abandon()
        finally:
            World.run = None
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
                raise UncontrolledError(f"no scheduling point for {self._patience:g} s{where()}")

    def _abandon(self) -> None:
        self.abandoning = True
        for number, client in enumerate(self._clients):
            if client.ended is not None:
                # The interpreter waits for this thread at its end.
                client.ended.set_free()
            if not client.done and client.baton.locked():
                client.baton.release()
            if client.index < 0:
                # Its last events are still received.
                client.gone.acquire(timeout=1.0)
            elif not self._crew.at_rest(number, 1.0):
                self._crew.replace(number)
        for lock in self.taken:
            lock.set_free()

    def mine(self) -> bool:
        """Return whether the calling thread has the baton. A thread that outlived its run does not."""
        return self._running.ident == _thread.get_ident()

    # -- called from the threads of the run ----------------------------------------------------------------------

    def lock_name(self) -> Hashable:
        """Return a name for a lock that is made now."""
        self._locks += 1
        return self._locks

    def point(self, on: Hashable = None, *, sync: bool = False) -> None:
        """Choose whether the running thread continues. ``on`` is the object of its next operation."""
        if self.abandoning:
            if sync:
                raise Abandoned
            return
        me = self._running
        self._count(me, sync)
        if self.plain:
            return
        # Most calls of a traced run are this scheduler's own, and nobody looks at these.
        tracer = self._bytecode.pause() if sync and self._bytecode is not None else None
        try:
            self._choose_at(me, on)
        finally:
            if tracer is not None:
                sys.settrace(tracer)

    def _choose_at(self, me: Client, on: Hashable) -> None:
        me.on = on
        # Where it stands now is further on, whatever it has touched on its way.
        self._passed(me, empty=True)
        moves: list[tuple[str, Client]] = [("run", me)]
        costs = [0]
        for other in self._others(me):
            if other.able():
                moves.append(("run", other))
                costs.append(1)
            how = other.cancellable()
            if how:
                moves.append((how, other))
                costs.append(1 if self._switches else 0)
            if self._may_be_early(other):
                moves.append((EARLY, other))
                costs.append(1)
        if len(moves) > 1:
            number = self._asked(me, costs, moves)
            how, other = moves[number]
            if how == EARLY:
                self._wake_early(other)
                self._hand_to(me, other)
            elif how != "run":
                self._cancel(other, how)
            elif number:
                self._hand_to(me, other)

    def instruction(self, place: Place) -> None:
        """A thread is about to execute an instruction that reads, or writes, what others can see."""
        if self.plain or self.aside or self.abandoning or not self.followed or not self.mine():
            return
        on, writes = place.access
        if place.switches and self._switches is not None:
            self._switches.met = True
            self.point(on)
            on, writes = place.called or place.access
        if self._watching:
            self._anything |= on is UNKNOWN
            (self._writes if writes else self._reads).add(on)

    def touch(self, what: Hashable) -> None:
        """Note that the running thread reads and writes this object in its present step."""
        if self._watching:
            self._writes.add(what)

    def _passed(self, me: Client | None, *, anything: bool = False, empty: bool = False) -> None:
        """What the running thread has done since the last choice, or the last switch, is done. None: the run itself.

        empty: a step also where it has touched nothing."""
        if self._watching and (empty or self._reads or self._writes or self._events or anything or self._anything):
            touched = Footprint(frozenset(self._reads), frozenset(self._writes), frozenset(self._events))
            self._trail.append((-1 if me is None else me.place, ANYTHING if anything or self._anything else touched))
            self._reads.clear()
            self._writes.clear()
            self._events.clear()
            self._anything = False

    def _asked(self, me: Client, costs: list[int], moves: list[tuple[str, Client]]) -> int:
        """Return the number of the move that the chooser takes."""
        chooser = self._chooser
        if not chooser.sees:
            return chooser.choose(costs)
        if self._watching:
            self._passed(me)
            chooser.passed(self._trail)
            self._trail = []
        number = chooser.choose(costs, [Move(c.place, how, c.lock.name if c.lock else c.on) for how, c in moves])
        if number < 0:
            self._end(Ending.STOPPED)
            self._rest(me)
        if not self._watching and chooser.watches and chooser.is_new:
            # What was done before is known from another run, and to trace it would take most of the time.
            self._watching = self.followed = True
            self._anything = False
            self._catch_up(me)
        return number

    def wait_for(self, lock: CoopLock, timeout: float | None) -> bool:
        """Wait until ``lock`` is free and take it; return False if the time is over first."""
        me = self._running
        me.lock = lock
        me.ends = None if timeout is None or timeout >= ENDLESS else self._now + timeout
        if me.ends is not None and me.step_ends is not None and not me.timed:
            # The caller's time began at its call, the wait's begins here, and the clock may have moved in between.
            me.step_ends = max(me.step_ends, me.ends)
            me.timed = True
        me.parked = False
        tracer = None if self._bytecode is None else self._bytecode.pause()
        try:
            while True:
                self._give_up(me)
                self.touch(lock.name)
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
            if tracer is not None:
                sys.settrace(tracer)

    def sleep(self, seconds: float) -> None:
        """time.sleep under the virtual clock."""
        if self.abandoning:
            raise Abandoned
        if self.aside:
            return
        self._anything = True
        me = self._running
        if seconds <= 0 and me.yields < POLLS:
            # It ends at once, so the thread may continue before any other. A loop of these is still a poll.
            me.yields += 1
            self.point()
            return
        me.parked = False
        me.asleep = True
        me.ends = self._now + max(seconds, LEAST_SLEEP)
        try:
            while not me.woken:
                self._give_up(me)
                self._anything = True
            woken, me.woken = me.woken, ""
            if woken == "interrupted":
                raise KeyboardInterrupt
        finally:
            me.asleep = False
            me.ends = None

    def now(self) -> float:
        """Return the virtual time in seconds."""
        return self._now

    def ended_of_this(self) -> CoopLock | None:
        """Return the lock that is free once the running thread has ended, if the subject started that thread."""
        return self._running.ended if self.mine() else None

    def adopt(self, body: Callable[[], object], ended: CoopLock) -> None:
        """Add a thread that the subject starts, as one more client without steps.

        ended: a lock that is taken, and is free once the thread has ended.
        """
        client = Client(-1)
        client.place = len(self._clients)
        client.on = None
        client.ended = ended
        self._anything = True
        client.gone.acquire()
        ready = real_lock()
        ready.acquire()

        def whole() -> None:
            client.ident = _thread.get_ident()
            trace_as_others()
            ready.release()
            client.baton.acquire()
            try:
                if self.abandoning:
                    return
                with self._traced():
                    body()
            except Abandoned:
                pass
            finally:
                client.done = True
                ended.set_free()
                if not self.abandoning:
                    self._leave(client)
                client.gone.release()

        self._clients.append(client)
        # The thread's tracer may take a lock as it begins.
        self.aside = True
        try:
            real_start_new_thread(whole, ())
            ready.acquire()
        finally:
            self.aside = False

    def _body(self, me: Client) -> None:
        me.ident = _thread.get_ident()
        me.baton.acquire()
        try:
            if self.abandoning:
                return
            if me is self._clients[0]:
                # Others may call while the factory waits for a thread of its own.
                self._prepare()
            while True:
                while me.steps:
                    self._perform(me, me.steps.popleft())
                me.idle = True
                self._give_up(me)
                me.idle = False
        except Abandoned:
            pass
        except BaseException as error:
            # An error of the observer or of this scheduler: not a finding, and it must not be lost in a thread.
            self._error = error
            self._end(Ending.STOPPED)
        finally:
            me.done = True

    def _prepare(self) -> None:
        try:
            with self._traced():
                self._subject = self._make()
        except Abandoned:
            raise
        except BaseException as error:
            self._error = SubjectFailedError(f"the factory raised {said(error)}")
            self._end(Ending.STOPPED)
            raise Abandoned from None
        self._observer.made(self._subject)

    def _perform(self, me: Client, step: Step) -> None:
        if not possible(step, me.got, self._got_by_others(me)):
            return
        self.point(EVENT)
        me.step = step
        me.timed = me.late = False
        asked = self._now
        me.step_ends = self._now + self._timeout if step.kind == "~" else self._now if step.kind == "?" else None
        call, answer = _SEEN_AS.get(step.kind, (OTHER, OTHER))
        self._tell(lambda: self._observer.called(me.index, step), call, step.key)
        error: BaseException | None = None
        try:
            with self._traced():
                self._call(me, step)
        except Abandoned:
            raise
        except BaseException as caught:
            if self.abandoning:
                # The subject is being unwound: not an event of the run.
                raise Abandoned from None
            if isinstance(caught, UncontrolledError):
                self._error = caught
                self._end(Ending.STOPPED)
                raise Abandoned from None
            error = without_frames(caught)
        if error is not None and step.kind == "~" and self._now >= asked + self._timeout:
            # It has read the clock itself.
            self._tell_cancelled(me)
        me.step = me.step_ends = None
        self.progress()
        if error is not None:
            failed = error
            self._tell(lambda: self._observer.raised(me.index, step, failed))
        else:
            self._tell(lambda: self._observer.returned(me.index, step), answer, step.key)

    def _call(self, me: Client, step: Step) -> None:
        key = self._keys(step.key)
        subject = self._subject
        if step.kind in FLIGHT:
            subject.perform(me.index, step, key)
        elif step.kind in "+!":
            subject.lock(key)
        elif step.kind == "~":
            subject.lock(key, timeout=self._timeout)
        elif step.kind == "?":
            subject.lock(key, timeout=0)
        elif step.kind == "[":
            block = subject.hold(key)
            me.got[step.key] = (block, block.__enter__())
        elif step.kind == "^":
            me.got[step.key][1].release()
        elif step.kind == "o":
            leased_by(self._got_by_others(me), step.key)[1].release()
        elif step.kind == "]":
            me.got.pop(step.key)[0].__exit__(None, None, None)
        elif step.kind in RAISING:
            self._leave_by_error(me.got.pop(step.key), key, RAISING[step.kind]())
        else:
            if step.kind != "u":
                me.got.pop(step.key, None)
            subject.unlock(key)
        if step.kind in ASKING:
            me.got.setdefault(step.key, None)

    def _got_by_others(self, me: Client) -> Iterator[dict[str, Any]]:
        return (client.got for client in self._clients if client is not me)

    def _leave_by_error(self, block: Any, key: Any, error: BaseException) -> None:
        if block is None:
            self._subject.leave(key, error)
            return
        try:
            block[0].__exit__(type(error), error, error.__traceback__)
        except BaseException as raised:
            if raised is not error:
                raise

    def _tell(self, what: Callable[[], None], event: str = OTHER, key: str = "") -> None:
        if self._watching:
            self._events.add(Event(event, key))
        self.aside = True
        try:
            what()
        except BaseException as error:
            # It may strike within a call of the subject, and is not the call's answer.
            self._error = error
        finally:
            self.aside = False
        if self._error is not None or self._observer.stopped:
            self._end(Ending.STOPPED)
            self._rest(self._running)

    # -- the next step -------------------------------------------------------------------------------------------

    def _others(self, me: Client) -> list[Client]:
        at = self._clients.index(me)
        return self._clients[at + 1 :] + self._clients[:at]

    def _count(self, me: Client, sync: bool) -> None:
        self._steps += 1
        if self._steps > self._most_steps:
            self._end(Ending.ENDLESS)
            self._rest(me)
        self._alone = 0 if sync else self._alone + 1
        if self._alone > MOST_ALONE:
            self._alone = 0
            other = next((other for other in self._others(me) if other.able()), None)
            if other is not None:
                self._hand_to(me, other)

    def progress(self) -> None:
        """Note progress: clients that poll may check again."""
        for client in self._clients:
            client.polls = client.yields = 0

    def go_on(self) -> None:
        """Reset the step limit, for a subject that makes many calls in one."""
        self._most_steps = self._steps + MOST_STEPS
        self.progress()

    def _give_up(self, me: Client) -> None:
        """Block the running thread; return when it has the baton again."""
        if self.abandoning:
            raise Abandoned
        following = self._next(me)
        if following is not me:
            self._hand_to(me, following)

    def _leave(self, me: Client) -> None:
        """End the running thread."""
        try:
            following = self._next(me)
        except Abandoned:
            return  # The run has ended with it, and nobody would wake it.
        if not self.abandoning and self.ending is None:
            self._passed(me)
            self._running = following
            following.baton.release()

    def _hand_to(self, me: Client, other: Client) -> None:
        self._passed(me)
        self._running = other
        self._alone = 0
        other.baton.release()
        self._rest(me)

    def _rest(self, me: Client) -> None:
        if me.done:
            raise Abandoned
        me.baton.acquire()
        if self.abandoning:
            raise Abandoned
        self._catch_up(me)

    def _next(self, me: Client) -> Client:
        while True:
            self._steps += 1
            if self._steps > self._most_steps:
                self._end(Ending.ENDLESS)
                self._rest(me)
            able = [client for client in (me, *self._others(me)) if client.able()]
            if able:
                cancels = [] if self.plain else [(client, client.cancellable()) for client in self._clients]
                cancels = [(client, how) for client, how in cancels if how]
                early = [] if self.plain else [client for client in self._clients if self._may_be_early(client)]
                moves = [("run", client) for client in able] + [(how, client) for client, how in cancels]
                costs = [0] * len(moves) + [1] * len(early)
                moves += [(EARLY, client) for client in early]
                how, client = moves[self._choose(me, moves, costs)]
                if how == EARLY:
                    self._wake_early(client)
                    return client
                if how == "run":
                    return client
                self._cancel(client, how)
            elif not self._end_a_wait():
                self._quiet(me)

    def _choose(self, me: Client, moves: list[tuple[str, Client]], costs: list[int] | None = None) -> int:
        if len(moves) == 1 or self.plain:
            return 0
        return self._asked(me, costs or [0] * len(moves), moves)

    def _may_be_early(self, client: Client) -> bool:
        """Whether its own sleep, or short wait, may be over while others can move. Nobody's call is late by that."""
        if not client.waits or client.able() or not client.polling() or client.polls >= POLLS:
            return False
        ends = client.ends or 0
        return all(c.step_ends is None or c.step_ends <= self._now or ends < c.step_ends for c in self._clients)

    def _wake_early(self, client: Client) -> None:
        self._passed(client, anything=True)
        client.polls += 1
        self._now = max(self._now, client.ends or 0)
        client.woken = "expired"

    def _end_a_wait(self) -> bool:
        """End the next wait that needs no choice: one that is due, or a poll."""
        self._anything = True
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

    def _cancel(self, client: Client, how: str) -> None:
        self._passed(client, anything=True)
        client.woken = how
        if how == "expired":
            self._now = max(self._now, client.ends or 0, client.step_ends or 0)
        self.progress()
        self._tell_cancelled(client)

    def _tell_cancelled(self, client: Client) -> None:
        self._tell(lambda: self._observer.cancelled(client.index))

    def _quiet(self, me: Client) -> None:
        """In a quiescent state, begin the next phase, cancel a wait, or end the run."""
        if self._subject is None:
            # The factory waits forever: no client can call yet.
            self._end(Ending.STOPPED)
            self._rest(me)
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
        self._passed(None, anything=True)
        number = self._choose(me, [("phase", me), *((how, client) for client, how in cancels)])
        if number:
            client, how = cancels[number - 1]
            self._cancel(client, how)
            return
        if not self._phases:
            self._end(Ending.DONE)
            self._rest(me)
        at, phase = self._phases.popleft()
        self.plain = at >= self._plain_from
        self.followed &= not self.plain
        self._tell(lambda: self._observer.phase(at))
        self._passed(None, anything=True)
        for index in phase.cancel:
            client = self._clients[index]
            how = client.cancellable()
            if how:
                self._cancel(client, how)
            elif client.step is not None and client.step.kind == "~" and client.step_ends is not None:
                # No time limit will end its wait: it may check the clock, or it is overdue.
                self._now = max(self._now, client.step_ends)
        for index, steps in phase.steps:
            self._clients[index].steps.extend(steps)
        self.progress()

    def _end(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self.plain, self.followed = True, False
            self._ended.release()

    def _catch_up(self, me: Client) -> None:
        if self._bytecode is not None and self.followed and not me.traced:
            me.traced = True
            self._bytecode.catch_up(self)

    def _traced(self) -> AbstractContextManager[object]:
        """In what the subject does within it, each place of `Bytecode` is a point of the run."""
        return _NOTHING if self._bytecode is None else self._bytecode.within(self)
