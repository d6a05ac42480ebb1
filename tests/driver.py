"""The lockers for threads, asyncio and anyio behind one face, so that a test of what all must do is written once.

Such a test is a coroutine that takes a driver. With `Tasks` it runs in an event loop of its own. With `Threads` nothing
in it ever pauses: each call blocks its thread, as it does for a user, and the coroutine comes to its end in one step.

Whoever waits is waited for by its place in the snapshot, never by the clock.
"""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import anyio
import pytest
import trio.testing
from anyio.abc import TaskGroup
from anyio.lowlevel import checkpoint

from kmutex import AsyncKeyedLocker, AsyncKeyedMutex, AsyncLease, KeyedLocker, KeyedMutex, Lease, compiled
from kmutex._stripes import StripedMutex
from kmutex.anyio import AnyioKeyedMutex, AnyioLease

DEADLINE = 120.0
"""Seconds after which a test that waits has failed; nothing takes long."""

in_python = pytest.mark.skipif(compiled, reason="puts something into the code of the lock, or inherits from its parts")

T = TypeVar("T")


def until(state: Callable[[], object]) -> None:
    """Return once ``state`` is true; AssertionError after the deadline."""
    end = time.monotonic() + DEADLINE
    turn = threading.Event()
    while not state():
        assert time.monotonic() < end, "the state never came"
        turn.wait(0.0005)


def start(call: Callable[..., T], *arguments: object) -> Future[T]:
    """Run ``call`` in a thread of its own, which does not keep the interpreter alive if the test fails."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(call(*arguments))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def free_guards(mutex: Any) -> list[bool]:
    """Whether the guard of a mutex for threads, or each one of its stripes, is free for another thread."""
    guard = mutex._mutex._guard

    def look() -> list[bool]:
        guards = getattr(guard, "_guards", [guard])
        free = [one.acquire(blocking=False) for one in guards]
        for one, taken in zip(guards, free, strict=True):
            if taken:
                one.release()
        return free

    return start(look).result(DEADLINE)


def waiters(locker: Any, key: Hashable) -> tuple[int, ...]:
    """The tickets that wait for ``key``, oldest first."""
    entry = locker.snapshot().get(key)
    return () if entry is None else entry.waiters


def start_waiter(locker: Any, key: Hashable, timeout: float | None = DEADLINE) -> Future[None]:
    """A thread that asks for ``key``, which is held; returns when it stands in the queue."""
    before = len(waiters(locker, key))
    waiter = start(locker.lock, key, timeout)
    until(lambda: len(waiters(locker, key)) == before + 1 or waiter.done())
    assert not waiter.done(), "the waiter did not wait"
    return waiter


async def turns(count: int = 10) -> None:
    """Let the loop go round, so that everything that can run has run."""
    for _ in range(count):
        await asyncio.sleep(0)


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run ``test`` in a loop of its own."""
    return asyncio.run(asyncio.wait_for(test, DEADLINE))


def at_once(call: Coroutine[Any, Any, T]) -> T:
    """What ``call`` returns or raises, in its first step; AssertionError if it pauses."""
    try:
        call.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
    call.close()
    raise AssertionError("the call paused")


class _Block:
    """A lease of threads for ``async with``."""

    def __init__(self, lease: AbstractContextManager[Any]) -> None:
        self._lease = lease

    async def __aenter__(self) -> Any:
        entered = self._lease.__enter__()
        return self if entered is self._lease else entered

    async def __aexit__(self, *error: Any) -> bool | None:
        return self._lease.__exit__(*error)

    def release(self) -> None:
        self._lease.release()  # type: ignore[attr-defined]


class _OfALocker:
    """What drives a locker: a new one of its kind, or the one that is given."""

    mutex: ClassVar[Any]

    def __init__(self, locker: Any = None) -> None:
        self.locker = self.mutex() if locker is None else locker

    def unlock(self, key: Hashable) -> None:
        self.locker.unlock(key)


class Threads(_OfALocker):
    """A locker for threads, and clients that are threads."""

    kind, face, mutex, lease = "threads", KeyedLocker, KeyedMutex, Lease
    run = staticmethod(at_once)

    async def at_once(self, call: Coroutine[Any, Any, T]) -> T:
        """What ``call`` returns or raises; AssertionError if it has to wait."""
        return at_once(call)

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self.locker.lock(key, timeout)

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractAsyncContextManager[Any]:
        return _Block(self.locker.hold(key, timeout))

    def hold_all(self, keys: Iterable[Hashable], timeout: float | None = None) -> AbstractAsyncContextManager[Any]:
        return _Block(self.locker.hold_all(keys, timeout))

    def start(self, call: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> Future[T]:
        """A client of its own that makes this call."""
        return start(lambda: at_once(call(*arguments)))

    async def start_waiter(self, key: Hashable, timeout: float | None = None) -> Future[None]:
        """A client that asks for ``key``, which is held, once it stands in the queue."""
        return start_waiter(self.locker, key, timeout)

    async def result(self, client: Future[T]) -> T:
        """What its call returned or raised, when it has."""
        return client.result(DEADLINE)

    async def until(self, state: Callable[[], object]) -> None:
        """Let the others go on until ``state`` is true."""
        until(state)

    async def pause(self) -> None:
        """Let the others go on a bit."""
        time.sleep(0)


class ThreadsOnStripes(Threads):
    """The same on the mutex for a Python without the GIL."""

    kind, mutex = "stripes", StripedMutex


class _Awaited(_OfALocker):
    """A locker whose calls are awaited as they are."""

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        await self.locker.lock(key, timeout)

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractAsyncContextManager[Any]:
        held: AbstractAsyncContextManager[Any] = self.locker.hold(key, timeout)
        return held

    def hold_all(self, keys: Iterable[Hashable], timeout: float | None = None) -> AbstractAsyncContextManager[Any]:
        held: AbstractAsyncContextManager[Any] = self.locker.hold_all(keys, timeout)
        return held


class Tasks(_Awaited):
    """A locker for asyncio, and clients that are tasks."""

    kind, face, mutex, lease = "asyncio", AsyncKeyedLocker, AsyncKeyedMutex, AsyncLease
    run = staticmethod(run)

    async def at_once(self, call: Coroutine[Any, Any, T]) -> T:
        return at_once(call)

    def start(self, call: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> asyncio.Task[T]:
        return asyncio.create_task(call(*arguments))

    async def start_waiter(self, key: Hashable, timeout: float | None = None) -> asyncio.Task[None]:
        before = len(waiters(self.locker, key))
        task = self.start(self.lock, key, timeout)
        await turns(1)
        assert len(waiters(self.locker, key)) == before + 1, "the waiter did not wait"
        return task

    async def settle(self) -> None:
        """Return when nobody can go on but this task."""
        await turns()

    async def result(self, client: asyncio.Task[T]) -> T:
        await self.settle()  # If anybody else was woken with it, that is seen as well.
        return await client

    async def until(self, state: Callable[[], object]) -> None:
        while not state():
            await asyncio.sleep(0)

    async def pause(self) -> None:
        await asyncio.sleep(0)


class TasksOnUvloop(Tasks):
    """The same on uvloop, where it is installed."""

    kind = "uvloop"

    @staticmethod
    def run(test: Coroutine[Any, Any, T]) -> T:
        uvloop = importlib.import_module("uvloop")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # type: ignore[attr-defined,unused-ignore]
            return runner.run(asyncio.wait_for(test, DEADLINE))  # type: ignore[no-any-return,unused-ignore]


class Client(Generic[T]):
    """A task of anyio's that makes one call."""

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self._value: Any = None
        self._error: Exception | None = None

    async def work(self, call: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> None:
        try:
            with self.scope:
                self._value = await call(*arguments)
        except Exception as error:
            self._error = error
        finally:
            self.ended.set()

    def done(self) -> bool:
        return self.ended.is_set()

    def cancel(self) -> None:
        self.scope.cancel()

    def cancelled(self) -> bool:
        return self.scope.cancelled_caught

    def result(self) -> T:
        assert self.done()
        assert not self.cancelled(), "it was cancelled"
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[no-any-return]


class Grouped(_Awaited):
    """A locker for anyio, and clients that are tasks of a group, on one of its backends."""

    kind: ClassVar[str]
    group: ClassVar[TaskGroup]
    face, mutex, lease = AsyncKeyedLocker, AnyioKeyedMutex, AnyioLease

    @classmethod
    def run(cls, test: Coroutine[Any, Any, None]) -> None:
        """Run ``test`` in a loop of its own; what it has started ends with it."""

        async def main() -> None:
            with anyio.fail_after(DEADLINE):
                async with anyio.create_task_group() as cls.group:
                    await test
                    cls.group.cancel_scope.cancel()

        anyio.run(main, backend=cls.kind.partition(" ")[2])

    async def settle(self) -> None:
        """Return when nobody can go on but this task."""
        raise NotImplementedError

    async def at_once(self, call: Coroutine[Any, Any, T]) -> T:
        """It is a checkpoint and so pauses, but for one turn of the loop."""

        async def made() -> T:
            return await call

        client = self.start(made)
        await self.settle()
        return client.result()

    def start(self, call: Callable[..., Coroutine[Any, Any, T]], *arguments: object) -> Client[T]:
        client: Client[T] = Client()
        self.group.start_soon(client.work, call, *arguments)
        return client

    async def start_waiter(self, key: Hashable, timeout: float | None = None) -> Client[None]:
        before = len(waiters(self.locker, key))
        client = self.start(self.lock, key, timeout)
        await self.settle()
        assert len(waiters(self.locker, key)) == before + 1, "the waiter did not wait"
        return client

    async def result(self, client: Client[T]) -> T:
        await self.settle()  # If anybody else was woken with it, that is seen as well.
        await client.ended.wait()
        return client.result()

    async def until(self, state: Callable[[], object]) -> None:
        while not state():
            await self.pause()

    async def pause(self) -> None:
        await checkpoint()


class GroupedOnAsyncio(Grouped):
    kind = "anyio asyncio"

    async def settle(self) -> None:
        for _ in range(10):
            await checkpoint()


class GroupedOnTrio(Grouped):
    kind = "anyio trio"

    async def settle(self) -> None:
        await trio.testing.wait_all_tasks_blocked()


Driver: TypeAlias = "Threads | Tasks | Grouped"
Cancellable: TypeAlias = "Tasks | Grouped"
Test: TypeAlias = Callable[..., Awaitable[None]]


def on(*kinds: type[Threads] | type[Tasks] | type[Grouped]) -> Callable[[Test], Callable[..., None]]:
    """The test, a coroutine function, is run with a new `driver` of each kind."""

    def mark(test: Test) -> Callable[..., None]:
        @pytest.mark.parametrize("driver", kinds, ids=[kind.kind for kind in kinds])
        @functools.wraps(test)
        def with_driver(driver: Any, **arguments: Any) -> None:
            driver.run(test(driver(), **arguments))

        return with_driver

    return mark


uvloops = [TasksOnUvloop] if sys.version_info >= (3, 11) and importlib.util.find_spec("uvloop") else []
stripes = [] if compiled else [ThreadsOnStripes]
every = on(Threads, *stripes, Tasks, *uvloops, GroupedOnAsyncio, GroupedOnTrio)
both, tasks, grouped = on(Threads, Tasks), on(Tasks), on(GroupedOnAsyncio, GroupedOnTrio)
cancellable = on(Tasks, GroupedOnAsyncio, GroupedOnTrio)
