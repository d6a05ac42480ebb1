"""Run programs on trio's own scheduler, whose order is a choice.

trio runs its tasks in batches: all that can run now, each once, in an order that it does not promise. Tasks that become
runnable meanwhile are for the next batch. So the next step is that of any task of the batch, and external events may
come before each, as on an event loop. trio itself runs, cancels and wakes the tasks.

For this, trio must run one task at a time: it has a switch for deterministic tests, and shuffles the batch by a random
generator of its module, which `_Picker` replaces.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import trio
import trio._core._run as _trio

from kmutex.engine.limits import ENDLESS
from kmutex.engine.observer import UncontrolledError
from kmutex.engine.threads.patching import REAL_RLOCK

NEEDED = (
    *("_ALLOW_DETERMINISTIC_SCHEDULING", "_r", "GLOBAL_RUN_CONTEXT", "Value"),
    *("setup_runner", "sniffio_library", "unrolled_run"),
)
"""The private names of trio that are used here."""
APART = 0.001
"""Virtual seconds between two calls with a timeout: trio lets all waits end whose time is over, and so each has its own
end."""
MOST_LAST = 50
"""The most batches for ending the remaining tasks of a run."""
_run: Any = _trio


class UnknownTrioError(Exception):
    """This version of trio lacks a private name. The message is one line."""


class _Clock(trio.abc.Clock):
    def __init__(self, now: float) -> None:
        self.now = now

    def start_clock(self) -> None: ...

    def current_time(self) -> float:
        return self.now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        return max(0.0, deadline - self.now)


class _Picker:
    """Replaces the random generator by which trio orders a batch: it keeps only the chosen task in it."""

    def __init__(self, runner: Any) -> None:
        self._runner = runner
        self.task: Any = None

    def shuffle(self, batch: list[Any]) -> None:
        if self.task is not None:
            self._runner.runq.extend(task for task in batch if task is not self.task)
            batch[:] = [self.task]


class _Ends(NamedTuple):
    """A cancel scope with a deadline, and the client within it."""

    owner: Any
    scope: Any

    @property
    def when(self) -> float:
        return self.scope.deadline  # type: ignore[no-any-return]


class _Task:
    """A client's task, with the interface of a task of an event loop."""

    def __init__(self, task: Any) -> None:
        self.task = task
        self.scope: Any = None

    def cancel(self) -> None:
        if self.scope is not None:
            self.scope.cancel()


class _Gate:
    """What a client waits for between its steps."""

    def __init__(self) -> None:
        self._event = trio.Event()

    def done(self) -> bool:
        return self._event.is_set()

    def set_result(self, _: None) -> None:
        self._event.set()

    def __await__(self) -> Iterator[Any]:
        return self._event.wait().__await__()


class TrioLoop:
    """A run of trio for the clients of one program: an `eventloop.ClientLoop`."""

    def __init__(self) -> None:
        """Begin a run; raise UnknownTrioError if this version of trio lacks a private name."""
        missing = [name for name in NEEDED if not hasattr(_run, name)]
        if missing:
            raise UnknownTrioError(f"trio {trio.__version__} has no {missing[0]}, by which its order is chosen")
        self._clock = _Clock(1000.0)
        self._runner: Any = None
        self._inputs = ""
        """trio's statistics of input and output before any wait."""
        self._queue: list[Any] = []
        self._batch = 0
        """The number of tasks at the head of the queue that are of this batch."""
        self._clients: list[tuple[Any, _Task]] = []
        self._seen: set[int] = set()
        """The numbers of the tasks so far."""
        self.failed: Callable[[BaseException], None] = lambda error: None

    @property
    def begun(self) -> int:
        """The number of tasks so far: one that has ended counts on."""
        self._seen.update(task._counter for task in self._runner.tasks)
        return len(self._seen)

    @property
    def now(self) -> float:
        return self._clock.now

    @now.setter
    def now(self, now: float) -> None:
        self._clock.now = now

    def time(self) -> float:
        return self._clock.now

    @contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, trio runs."""
        loop, library = asyncio._get_running_loop(), _run.sniffio_library.name
        before = _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r
        asyncio._set_running_loop(None)
        runner = self._runner = _run.setup_runner(self._clock, [], True, True)
        runner.entry_queue.lock = REAL_RLOCK()  # Within `controlled`, its own lock would be the scheduler's.
        self._picker = _Picker(runner)
        _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r = True, self._picker
        _run.sniffio_library.name = "trio"
        self._run = _run.unrolled_run(runner, self._main, (), host_uses_signal_set_wakeup_fd=True)
        try:
            next(self._run)
            while self.steps:
                self.step(0)
            self._own = frozenset(runner.tasks)
            self._inputs = repr(runner.io_manager.statistics())
            yield
        finally:
            self._end()
            _run.sniffio_library.name = library
            _run._ALLOW_DETERMINISTIC_SCHEDULING, _run._r = before
            asyncio._set_running_loop(loop)
        if runner.ki_pending:
            raise KeyboardInterrupt

    async def _main(self) -> None:
        with trio.CancelScope() as self._whole:
            await trio.sleep_forever()

    def _end(self) -> None:
        """End the run by cancelling all tasks, by force if a task resists."""
        if self._run.gi_frame is None:
            return  # It has failed.
        self._whole.cancel()
        self._picker.task = None
        try:
            self._let_end()
            for task in self._runner.tasks - self._own:
                self._close(task)
            self._let_end()
            self._run.throw(trio.TrioInternalError())
        except (StopIteration, trio.TrioInternalError):
            return

    def _let_end(self) -> None:
        for _ in range(MOST_LAST):
            self._run.send(self._runner.io_manager.get_events(0))

    def _close(self, task: Any) -> None:
        task._abort_func = None  # Of its shield, which ends here, no cancellation is to wake it.
        _run.GLOBAL_RUN_CONTEXT.task = task
        with suppress(BaseException):  # The run is over, and has its verdict.
            task.coro.close()
        del _run.GLOBAL_RUN_CONTEXT.task
        if task in self._runner.runq:
            self._runner.runq.remove(task)
        self._runner.task_exited(task, _run.Value(None))

    def start(self, client: Any, body: Callable[[Any], Coroutine[Any, Any, None]], context: contextvars.Context) -> Any:
        task = _Task(trio.lowlevel.spawn_system_task(body, client, context=context))
        self._clients.append((client, task))
        return task

    def create_future(self) -> Any:
        return _Gate()

    async def call(self, task: _Task, call: Coroutine[Any, Any, None]) -> None:
        """Make a client's call, which can be cancelled: then CancelledError, as on an event loop."""
        self._clock.now += APART
        with trio.CancelScope() as task.scope:
            await call
            return
        raise asyncio.CancelledError

    async def sleep(self, seconds: float) -> None:
        await trio.sleep(seconds)

    @property
    def steps(self) -> Sequence[int]:
        self._runner.deadlines.expire(self._clock.now)
        # trio keeps some waiting tasks in sets, so tasks that become runnable in one step are ordered by their start.
        woken = [task for task in self._runner.runq if task not in self._queue]
        self._queue += sorted(woken, key=lambda task: task._counter)
        if not self._batch:
            self._batch = len(self._queue)
        if not self._batch and self._inputs not in ("", repr(self._runner.io_manager.statistics())):
            raise UncontrolledError("the subject waits for input or output, which the scheduler does not replace")
        numbers = {task.task: client.index for client, task in self._clients}
        return [numbers.get(task, -1) for task in self._queue[: self._batch]]

    def step(self, number: int) -> None:
        """Let one of them run until it waits."""
        self._picker.task = self._queue.pop(number)
        self._batch -= 1
        self._run.send([])

    @property
    def timers(self) -> Sequence[_Ends]:
        found = []
        for deadline, _, scope in sorted(self._runner.deadlines._heap, key=lambda entry: entry[0]):
            if deadline == scope._registered_deadline and deadline < self._clock.now + ENDLESS:
                found.append(_Ends(self._owner(scope), scope))
        return found

    def _owner(self, scope: Any) -> Any:
        """The client in whose call the scope is, be it in a task that the call has started; None if in no call."""
        calls = {task.scope._cancel_status: client for client, task in self._clients if task.scope is not None}
        status = scope._cancel_status
        while status is not None and status not in calls:
            status = status.parent
        return None if status is None else calls[status]

    def fire(self, timer: _Ends) -> None:
        """Let a scope time out now, and those with an earlier deadline."""
        self._clock.now = max(self._clock.now, timer.when)

    def drop(self, task: _Task) -> None:
        """Do nothing: the task is cancelled with all others at the end of the run."""
