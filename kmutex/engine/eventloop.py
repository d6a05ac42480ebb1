"""Run programs on a special event loop, whose next step is a choice. `trioloop` has another loop, for trio.

asyncio promises that callbacks run in the order in which they were scheduled, and lockers may rely on it, so the
ready queue keeps its order. The choice is when external events come: a client begins its next step, a task is
cancelled, a timer fires. Each of them can come before any step of the loop, in any order. Together these are all the
orders that a real loop can show.

A client pauses when it has got a key (its work would await something there), but not after an unlock: its next step
follows in the same step of the loop, like code after an unlock.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Protocol

from kmutex._text import said
from kmutex.engine.faces import settled
from kmutex.engine.limits import ENDLESS, MOST_STEPS, POLLS, TIMEOUT
from kmutex.engine.observer import Ending, Observer, SubjectFailedError, UncontrolledError, without_frames
from kmutex.engine.program import ASKING, FLIGHT, RAISING, Program, Step, leased_by, possible
from kmutex.engine.search import EVENT, Chooser, Move
from kmutex.engine.threads.locks import World

MOST_IDLE = 600
"""Loop steps without an event, per task of this phase, after which tasks that still spin count as waiting."""

_Alternative = tuple[Callable[[], None], int, Move]
"""The action, its cost, and its description for a chooser."""

_client: contextvars.ContextVar[_Client | None] = contextvars.ContextVar("client", default=None)


class _Client:
    def __init__(self, index: int, run: LoopRun) -> None:
        self.index = index
        self.run = run
        self.steps: deque[Step] = deque()
        self.step: Step | None = None
        self.step_ends: float | None = None
        self.timed = False
        self.gate: Any = None
        self.task: Any = None
        self.cancelled = False
        self.told = False
        """Whether anything of it has run since it was cancelled."""
        self.again = False
        """Whether it was cancelled once more then."""
        self.polls = 0
        self.got: dict[str, Any] = {}

    @property
    def cleans_up(self) -> bool:
        return self.told and not self.again

    @property
    def openable(self) -> bool:
        return self.gate is not None and not self.gate.done() and bool(self.steps)


class _Timer:
    def __init__(self, handle: asyncio.TimerHandle, owner: _Client | None) -> None:
        self.handle = handle
        self.owner = owner

    @property
    def when(self) -> float:
        return self.handle.when()


class Loop(asyncio.AbstractEventLoop):
    """The part of an event loop that locks, tasks, futures and timeouts need."""

    def __init__(self) -> None:
        self.ready: deque[asyncio.Handle] = deque()
        self.timers: list[_Timer] = []
        self.begun = 0
        """The number of tasks so far."""
        self.now = 1000.0
        self.failed: Callable[[BaseException], None] = lambda error: None
        """Called with an error that a callback raised."""

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        # Other contexts have no error of a callback: a task's error is for its awaiter, and the rest are warnings of
        # garbage collection.
        if "handle" in context and "exception" in context:
            self.failed(context["exception"])

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if when < self.now + ENDLESS:
            self.timers.append(_Timer(handle, _client.get()))
        return handle

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        self.timers = [timer for timer in self.timers if timer.handle is not handle]

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any], **kwargs: Any
    ) -> asyncio.Task[Any]:
        self.begun += 1
        context = kwargs.pop("context", None)
        if context is None:
            return asyncio.Task(coro, loop=self, **kwargs)
        return context.run(asyncio.Task, coro, loop=self, **kwargs)  # type: ignore[no-any-return]

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]
        raise UncontrolledError("the subject hands work to an executor, which the scheduler does not replace")

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, this is the running loop, also where another one runs a task now.

        At its end, all callbacks and timers are dropped.
        """
        before = asyncio._get_running_loop()
        # From 3.14 on a thread has one current task, and not one for each loop.
        task = None if before is None else asyncio.current_task(before)
        if before is not None and task is not None:
            asyncio.tasks._leave_task(before, task)
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            self.ready.clear()
            self.timers.clear()
            asyncio._set_running_loop(before)
            if before is not None and task is not None:
                asyncio.tasks._enter_task(before, task)

    def start(
        self, client: _Client, body: Callable[[_Client], Coroutine[Any, Any, None]], context: contextvars.Context
    ) -> Any:
        return self.create_task(body(client), context=context)

    def call(self, task: Any, call: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        return call

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @property
    def steps(self) -> Sequence[int]:
        return [-1] if self.ready else []

    def step(self, number: int) -> None:
        handle = self.ready.popleft()
        if not handle.cancelled():
            owner = handle._context.get(_client)  # type: ignore[attr-defined]
            handle._run()
            if owner is not None:
                owner.told = owner.cancelled

    def fire(self, timer: _Timer) -> None:
        """Let a timer fire now, and move the clock to its time if that is later."""
        self.timers.remove(timer)
        self.now = max(self.now, timer.when)
        self.ready.append(timer.handle)

    def drop(self, task: asyncio.Task[None]) -> None:
        """End a client's coroutine wherever it waits; what the subject does about it is its last word."""
        if task.done():
            return
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        coroutine = task.get_coro()
        try:
            if inspect.iscoroutine(coroutine):
                coroutine.close()
        except BaseException:
            return  # The run is over, and its verdict given.


class ClientLoop(Protocol):
    """What a run asks of the loop that its clients are tasks of."""

    now: float
    """Virtual seconds."""
    failed: Callable[[BaseException], None]

    @property
    def begun(self) -> int: ...

    @property
    def timers(self) -> Sequence[Any]:
        """What ends waits by the clock: each has an `owner`, and `when` it does."""
        ...

    @property
    def steps(self) -> Sequence[int]:
        """What could run next, by whose turn it is: a client's number, or -1."""
        ...

    def step(self, number: int) -> None: ...

    def time(self) -> float: ...

    def running(self) -> AbstractContextManager[None]: ...

    def create_future(self) -> Any: ...

    def start(self, client: Any, body: Callable[[Any], Coroutine[Any, Any, None]], context: contextvars.Context) -> Any:
        """The task of a client, which can be cancelled."""
        ...

    def call(self, task: Any, call: Coroutine[Any, Any, None]) -> Coroutine[Any, Any, None]:
        """A call of this task's, in what it is cancelled by."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    def fire(self, timer: Any) -> None: ...

    def drop(self, task: Any) -> None: ...


class LoopRun:
    """One run of one program on a new subject."""

    def __init__(
        self,
        make: Callable[[], Any],
        program: Program,
        chooser: Chooser,
        observer: Observer,
        *,
        keys: Callable[[str], Any],
        timeouts: bool = False,
        quiet_tail: int = 0,
        loop: ClientLoop | None = None,
        timeout: float = TIMEOUT,
    ) -> None:
        """Prepare a run.

        Args:
            make: Makes a new subject.
            program: The program.
            observer: Gets the events.
            chooser: Makes the choices.
            keys: Gives the key for a letter.
            timeouts: Whether a cancellable wait has a timeout, which ends it. If not, its task is cancelled.
            quiet_tail: The number of phases at the end without choices.
            loop: The loop of earlier runs, for subjects that keep objects of it; None for a new one.
            timeout: Virtual seconds of a cancellable wait.
        """
        self._make = make
        self._phases = deque(enumerate(program.phases))
        self._plain_from = len(program.phases) - quiet_tail
        self._chooser = chooser
        self._observer = observer
        self._keys = keys
        self._timeouts = timeouts
        self._clients = [_Client(index, self) for index in range(program.clients)]
        self._loop: ClientLoop = Loop() if loop is None else loop  # type: ignore[abstract]
        self._loop.failed = self._failed
        self._timeout = timeout
        self._plain = True
        self._idle = 0
        self._steps = 0
        self._begun = 0
        self._subject: Any = None
        self._error: BaseException | None = None
        self._closing = False

    def run(self) -> Ending:
        """Run to the end; raise UncontrolledError or SubjectFailedError if that is not possible."""
        World.loop_time = self._loop.time
        try:
            with self._loop.running():
                try:
                    return self._to_the_end()
                finally:
                    self._closing = True
                    for client in self._clients:
                        if client.task is not None:
                            self._loop.drop(client.task)
        finally:
            World.loop_time = None

    def _to_the_end(self) -> Ending:
        self._begin()
        ending = None
        while ending is None:
            self._steps += 1
            ending = Ending.ENDLESS if self._steps > MOST_STEPS else self._go_on()
            if self._error is not None:
                raise self._error
        return ending

    def _begin(self) -> None:
        try:
            self._subject = self._make()
        except BaseException as error:
            raise SubjectFailedError(f"the factory raised {said(error)}") from None
        self._observer.made(self._subject)
        for client in self._clients:
            context = contextvars.copy_context()
            context.run(_client.set, client)
            client.task = self._loop.start(client, self._body, context)
        while self._loop.steps:
            self._step(0)

    async def _body(self, me: _Client) -> None:
        try:
            await self._serve(me)
        except GeneratorExit:
            raise
        except BaseException as error:
            # An error of the observer or of this scheduler: not a finding, and it must not be lost in a task.
            self._error = error

    async def _serve(self, me: _Client) -> None:
        while True:
            me.gate = self._loop.create_future()
            await me.gate
            while me.steps:
                step = me.steps.popleft()
                if not possible(step, me.got, self._got_by_others(me)):
                    continue
                await self._perform(me, step)
                if step.kind in ASKING and me.steps:
                    break

    async def _perform(self, me: _Client, step: Step) -> None:
        me.step = step
        me.cancelled = me.again = me.told = me.timed = False
        timed = step.kind == "~" and self._timeouts
        me.step_ends = self._loop.now + self._timeout if timed else self._loop.now if step.kind == "?" else None
        self._observer.called(me.index, step)
        error: BaseException | None = None
        try:
            await self._loop.call(me.task, self._call(me, step, self._timeout if timed else None))
        except (GeneratorExit, UncontrolledError):
            raise
        except BaseException as caught:
            if self._closing:
                raise  # The subject is being unwound: not an event of the run.
            error = without_frames(caught)
        if error is not None and me.step_ends is not None and me.step_ends <= self._loop.now and step.kind == "~":
            # It has read the clock itself.
            self._observer.cancelled(me.index)
        me.step = me.step_ends = None
        if me.task is not None and hasattr(me.task, "uncancel"):
            for _ in range(me.cancelled + me.again):
                me.task.uncancel()
        self._event()
        if error is None:
            self._observer.returned(me.index, step)
        else:
            self._observer.raised(me.index, step, error)

    async def _call(self, me: _Client, step: Step, timeout: float | None) -> None:
        key = self._keys(step.key)
        if step.kind in FLIGHT:
            await self._subject.perform(me.index, step, key)
        elif step.kind == "?":
            await self._subject.lock(key, timeout=0)
        elif timeout is not None:
            await self._subject.lock(key, timeout=timeout)
        elif step.kind in "+~!":
            await self._subject.lock(key)
        elif step.kind == "[":
            block = self._subject.hold(key)
            me.got[step.key] = (block, await block.__aenter__())
        elif step.kind == "^":
            await settled(me.got[step.key][1].release())
        elif step.kind == "o":
            await settled(leased_by(self._got_by_others(me), step.key)[1].release())
        elif step.kind == "]":
            await me.got.pop(step.key)[0].__aexit__(None, None, None)
        elif step.kind in RAISING:
            await self._leave_by_error(me.got.pop(step.key), key, RAISING[step.kind]())
        else:
            if step.kind != "u":
                me.got.pop(step.key, None)
            await settled(self._subject.unlock(key))
        if step.kind in ASKING:
            me.got.setdefault(step.key, None)

    def _got_by_others(self, me: _Client) -> Iterator[dict[str, Any]]:
        return (client.got for client in self._clients if client is not me)

    async def _leave_by_error(self, block: Any, key: Any, error: BaseException) -> None:
        if block is None:
            await self._subject.leave(key, error)
            return
        try:
            await block[0].__aexit__(type(error), error, error.__traceback__)
        except BaseException as raised:
            if raised is not error:
                raise

    def _failed(self, error: BaseException) -> None:
        if not self._closing:
            self._observer.failed(without_frames(error))

    # -- the next step -------------------------------------------------------------------------------------------

    def _go_on(self) -> Ending | None:
        """Do one step of the run; return how the run ended, if it did."""
        if self._observer.stopped:
            return Ending.STOPPED
        spinning = self._idle > MOST_IDLE * (1 + self._loop.begun - self._begun)
        moves: list[_Alternative] = []
        steps = self._loop.steps
        if not spinning:
            moves += [(partial(self._step, at), min(1, at), Move(who, "run")) for at, who in enumerate(steps)]
        for client in self._clients:
            if client.openable:
                cost = 1 if moves and steps else 0
                moves.append((self._opener(client), cost, Move(client.index, "run", EVENT)))
        if not moves:
            return None if self._end_a_wait() else self._quiet()
        moves += self._cancels()
        moves += [(self._firer(timer), 1, Move(timer.owner.index, "early")) for timer in self._early() if timer.owner]
        self._choose(moves)
        return None

    def _choose(self, moves: list[_Alternative]) -> None:
        pick = 0
        if len(moves) > 1 and not self._plain:
            pick = self._chooser.choose([cost for _, cost, _ in moves], [move for _, _, move in moves])
        moves[pick][0]()

    def _step(self, number: int) -> None:
        self._idle += 1
        self._loop.step(number)

    def _event(self) -> None:
        self._idle = 0
        for client in self._clients:
            client.polls = 0

    async def sleep(self, seconds: float) -> None:
        await self._loop.sleep(seconds)

    def go_on(self) -> None:
        """Reset the step limit, for a subject that makes many calls in one."""
        self._steps = 0
        self._event()

    def _opener(self, client: _Client) -> Callable[[], None]:
        def open_it() -> None:
            self._event()
            assert client.gate is not None
            client.gate.set_result(None)

        return open_it

    def _cancels(self) -> list[_Alternative]:
        return [
            (self._canceller(client), 0, Move(client.index, "cancel"))
            for client in self._clients
            if self._cancellable(client)
        ]

    def _cancellable(self, client: _Client) -> bool:
        if client.step is None or client.step.kind not in "~!t*":
            return False
        if client.cancelled:
            # Once more, while it cleans up after the first time.
            return client.cleans_up and client.step.kind in "~!" and not self._timeouts
        return self._own_timer(client) is not None if self._timeouts else True

    def _own_timer(self, client: _Client) -> Any:
        mine = [timer for timer in self._loop.timers if timer.owner is client]
        return min(mine, key=lambda timer: timer.when, default=None)

    def _canceller(self, client: _Client) -> Callable[[], None]:
        def cancel() -> None:
            client.again, client.told = client.cancelled, False
            client.cancelled = True
            self._event()
            timer = self._own_timer(client) if self._timeouts else None
            if timer is not None:
                self._loop.now = max(self._loop.now, client.step_ends or 0)
                self._loop.fire(timer)
            elif client.task is not None:
                client.task.cancel()
            self._observer.cancelled(client.index)

        return cancel

    def _early(self) -> list[Any]:
        """Timers of the subject's own that may fire while others can move. Nobody's call is late by that."""
        ends = [c.step_ends for c in self._clients if c.step_ends is not None and c.step_ends > self._loop.now]
        return [
            timer
            for timer in self._loop.timers
            if timer.owner is not None and timer.owner.polls < POLLS and all(timer.when < end for end in ends)
        ]

    def _firer(self, timer: Any) -> Callable[[], None]:
        def fire() -> None:
            assert timer.owner is not None
            timer.owner.polls += 1
            self._loop.fire(timer)

        return fire

    def _end_a_wait(self) -> bool:
        """Fire the next timer that needs no choice: one that is due, or a poll."""
        for timer in sorted(self._loop.timers, key=lambda timer: timer.when):
            due = timer.when <= self._loop.now
            owner = timer.owner
            asked = owner is not None and owner.step_ends is not None and timer.when >= owner.step_ends
            if due or (not asked and (owner is None or owner.polls < POLLS)):
                if owner is not None:
                    owner.polls += 1
                    if asked and not owner.cancelled:
                        owner.cancelled = True
                        self._observer.cancelled(owner.index)
                self._loop.fire(timer)
                return True
        return False

    def _quiet(self) -> Ending | None:
        """In a quiescent state, begin the next phase, cancel a wait, or end the run."""
        waiting: dict[int, Step] = {}
        overdue = set()
        for client in self._clients:
            if client.step is None:
                continue
            waiting[client.index] = client.step
            if client.step_ends is None:
                continue
            timer = self._own_timer(client)
            if timer is not None and not client.timed:
                # The caller's time begins at its call, the timer's when it was set, and the clock may have moved in
                # between.
                client.step_ends = max(client.step_ends, timer.when)
                client.timed = True
            # A timer that was set again for the whole timeout does not end the wait in time.
            anew = timer is None or timer.when >= client.step_ends + self._timeout
            if anew and client.step_ends <= self._loop.now:
                overdue.add(client.index)
        self._observer.quiet(waiting, frozenset(overdue))
        if self._observer.stopped:
            return Ending.STOPPED
        if not self._phases:
            return Ending.DONE
        self._choose([(self._next_phase, 0, Move(-1, "phase")), *self._cancels()])
        return None

    def _next_phase(self) -> None:
        at, phase = self._phases.popleft()
        self._plain = at >= self._plain_from
        self._observer.phase(at)
        self._begun = self._loop.begun
        self._event()
        for index in phase.cancel:
            client = self._clients[index]
            if self._cancellable(client):
                self._canceller(client)()
            elif client.step is not None and client.step.kind == "~" and client.step_ends is not None:
                # No timer will end its wait: it is overdue.
                self._loop.now = max(self._loop.now, client.step_ends)
        for index, steps in phase.steps:
            self._clients[index].steps.extend(steps)


def progress() -> None:
    """Note that a call has returned, for a subject that makes many calls in one."""
    me = _client.get()
    if me is not None:
        me.run.go_on()


async def sleep(seconds: float) -> None:
    """Virtual seconds, for a client."""
    me = _client.get()
    assert me is not None
    await me.run.sleep(seconds)


def trio_loop() -> ClientLoop:
    """Return a loop of trio, loaded on use; raise UnknownTrioError for an unknown version."""
    from kmutex.engine.trioloop import TrioLoop

    return TrioLoop()


def in_a_loop(call: Callable[[], Any]) -> Any:
    """Return what ``call()`` returns within a running loop."""
    with Loop().running():  # type: ignore[abstract]
        return call()
