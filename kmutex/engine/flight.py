"""Drive a subject that suppresses duplicates: the program decides when and how the work ends.

The subject has ``do(key, work)``: a plain call for threads, awaited for asyncio, where ``work`` is a coroutine
function. Each caller brings its own work, so it is known whose work is run; each run gives its own result or error, so
it is known which run a caller's result is of.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

from kmutex.engine.faces import Kind
from kmutex.engine.program import Step
from kmutex.engine.threads import CoopLock
from kmutex.engine.ways import FlightCall


class FlightFace:
    """Adapts any form of single flight to do(key, work). For threads."""

    def __init__(self, subject: Any, call: FlightCall) -> None:
        self.subject = subject
        self._call = call
        self._called: Callable[..., Any] = getattr(subject, call.name) if call.name else subject
        if call.options:
            self._called = self._called(**dict(call.options))
        if call.decorates and not call.by_key:
            self._work: ContextVar[Callable[[], Any]] = ContextVar("work")
            self._called = self._called(self._decorated())

    def do(self, key: Any, work: Callable[[], Any]) -> Any:
        """What the subject gives for the key and the work."""
        if self._call.by_key:
            return self._called(key)(work)()
        if not self._call.decorates:
            given = work() if self._call.awaitable else work
            return self._called(given, key) if self._call.function_first else self._called(key, given)
        # A thread of the crew serves many runs, and would keep the work of each alive.
        before = self._work.set(work)
        try:
            return self._called(key)
        finally:
            self._work.reset(before)

    def forget(self, key: Any) -> Any:
        """Have the subject forget the key."""
        return self.subject.forget(key)

    def _decorated(self) -> Callable[[Any], Any]:
        # The caller is known by the context: a decorated function gets the key only.
        return lambda key: self._work.get()()


class AsyncFlightFace(FlightFace):
    """The same for the tasks of an event loop."""

    async def do(self, key: Any, work: Callable[[], Any]) -> Any:
        """What the subject gives for the key and the work."""
        if self._call.by_key or not self._call.decorates:
            return await super().do(key, work)
        # The context ends with the task.
        self._work.set(work)
        return await self._called(key)

    async def forget(self, key: Any) -> None:
        """Have the subject forget the key."""
        answer = super().forget(key)
        if inspect.isawaitable(answer):
            await answer

    def _decorated(self) -> Callable[[Any], Any]:
        async def decorated(key: Any) -> Any:
            return await self._work.get()()

        return decorated


def flight_face(kind: Kind, *, counts: bool = False) -> type[FlightFace]:
    """Return the adapter class for this kind; ``counts`` adds len()."""
    base = FlightFace if kind == "threads" else AsyncFlightFace
    return type(base.__name__, (base,), {"__len__": lambda self: len(self.subject)}) if counts else base


class WorkRun:
    """One run of the work of a key. It is its own result if it succeeds."""

    def __init__(self, client: int, key: str) -> None:
        """Make a run of a client's work for a letter."""
        self.client = client
        self.key = key
        self.how = ""
        """How it ended: "ended", "failed" or "cancelled"; empty until then."""

    def __repr__(self) -> str:
        return f"<the result of client {self.client}'s work for {self.key}>"


class WorkFailedError(Exception):
    """The work fails, as in the program."""

    def __init__(self, run: WorkRun) -> None:
        super().__init__(f"client {run.client}'s work for {run.key} failed")
        self.run = run


class Watch(Protocol):
    """Gets the events that calls and returns do not show."""

    def began(self, run: WorkRun) -> None:
        """The subject runs a caller's work."""

    def over(self, run: WorkRun) -> None:
        """The run is over; `WorkRun.how` says how."""

    def given(self, client: int, value: object) -> None:
        """What the client's call is about to return."""


class _Bench:
    """The common part of both kinds. A run uses it as its subject, which performs steps instead of lock and unlock."""

    def __init__(self, subject: Any) -> None:
        self.subject = subject
        self.watch: Watch | None = None
        """Set by the judge when the run has made its subject."""
        self._going: list[tuple[WorkRun, Callable[[], None]]] = []
        """Runs that wait for their end, oldest first, with the function that ends each."""

    @contextmanager
    def _run(self, client: int, step: Step) -> Iterator[WorkRun]:
        assert self.watch is not None
        run = WorkRun(client, step.key)
        self.watch.began(run)
        try:
            yield run
            if step.kind == "f":
                raise WorkFailedError(run)
            run.how = "ended"
        except (GeneratorExit, SystemExit):
            raise  # The whole program is being unwound.
        except BaseException as error:
            run.how = "failed" if isinstance(error, WorkFailedError) else "cancelled"
            raise
        finally:
            self._going = [going for going in self._going if going[0] is not run]
            if run.how:
                self.watch.over(run)

    def _end(self, letter: str) -> None:
        for going in self._going:
            if going[0].key == letter:
                self._going.remove(going)
                going[1]()
                return

    def _answer(self, client: int, value: object) -> None:
        assert self.watch is not None
        self.watch.given(client, value)


class ThreadBench(_Bench):
    """For threads."""

    def perform(self, client: int, step: Step, key: Any) -> None:
        """One step of a client; what the subject raises passes through."""
        if step.kind == "e":
            self._end(step.key)
            return
        if step.kind == "g":
            self.subject.forget(key)
            return

        def work() -> WorkRun:
            with self._run(client, step) as run:
                if step.kind != "n":
                    gate = CoopLock()
                    gate.acquire()
                    self._going.append((run, gate.release))
                    gate.acquire()
            return run

        self._answer(client, self.subject.do(key, work))


class TaskBench(_Bench):
    """For asyncio."""

    async def perform(self, client: int, step: Step, key: Any) -> None:
        """One step of a client; what the subject raises passes through."""
        if step.kind == "e":
            self._end(step.key)
            return
        if step.kind == "g":
            await self.subject.forget(key)
            return

        async def work() -> WorkRun:
            with self._run(client, step) as run:
                if step.kind != "n":
                    gate = asyncio.Event()
                    self._going.append((run, gate.set))
                    await gate.wait()
            return run

        self._answer(client, await self.subject.do(key, work))


def on_the_bench(make: Callable[[], Any], kind: Kind) -> Callable[[], Any]:
    """Return a factory whose subjects a run can drive."""
    bench = ThreadBench if kind == "threads" else TaskBench
    return lambda: bench(make())
