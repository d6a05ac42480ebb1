"""Single flights for asyncio, `await do(key, work)`: sound ones, and some with one known mistake each.

A subclass of a sound one shows its mistake and nothing else.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

Work = Callable[[], Awaitable[Any]]


class TaskFlight:
    """Sound: the work is a task of its own, so that no caller's cancellation reaches it."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Future[Any]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    async def do(self, key: Hashable, work: Work) -> Any:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = self._begin(key, work)
        return await self._outcome(task)

    def _begin(self, key: Hashable, work: Work) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda _: self._tasks.pop(key))
        return task

    async def _outcome(self, task: asyncio.Future[Any]) -> Any:
        return await asyncio.shield(task)


class InnerTaskFlight(TaskFlight):
    """Sound: the task takes itself from the table as its last step."""

    def _begin(self, key: Hashable, work: Work) -> asyncio.Future[Any]:
        async def run() -> Any:
            try:
                return await work()
            finally:
                del self._tasks[key]

        return asyncio.ensure_future(run())


class FutureFlight:
    """Sound: the leader does the work itself; who waited for one that failed or was cancelled looks again."""

    def __init__(self) -> None:
        self._futures: dict[Hashable, asyncio.Future[Any]] = {}

    def __len__(self) -> int:
        return len(self._futures)

    async def do(self, key: Hashable, work: Work) -> Any:
        while (future := self._futures.get(key)) is not None:
            done, result = await self._wait(key, future)
            if done:
                return result
        future = self._futures[key] = asyncio.get_running_loop().create_future()
        outcome = (False, None)
        try:
            result = await work()
            outcome = (True, result)
            return result
        finally:
            self._end(key, future, outcome)

    async def _wait(self, key: Hashable, future: asyncio.Future[Any]) -> tuple[bool, Any]:
        done, result = await asyncio.shield(future)
        return done, result

    def _end(self, key: Hashable, future: asyncio.Future[Any], outcome: tuple[bool, Any]) -> None:
        del self._futures[key]
        future.set_result(outcome)


class LockedFlight:
    """Sound: a lock for each key while anybody wants it; who gets it looks whether one before has done the work."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[asyncio.Lock, list[Any], list[int]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def do(self, key: Hashable, work: Work) -> Any:
        lock, results, callers = self._entries.setdefault(key, (asyncio.Lock(), [], [0]))
        callers[0] += 1
        seen = len(results)
        try:
            async with lock:
                if len(results) == seen:
                    results.append(await work())
                return results[-1]
        finally:
            callers[0] -= 1
            if not callers[0]:
                del self._entries[key]


class SharingFlight:
    """Sound: an error of the leader's is shared, and its cancellation told as an error of another kind."""

    def __init__(self) -> None:
        self._futures: dict[Hashable, asyncio.Future[Any]] = {}

    async def do(self, key: Hashable, work: Work) -> Any:
        future = self._futures.get(key)
        if future is not None:
            return await asyncio.shield(future)
        future = self._futures[key] = asyncio.get_running_loop().create_future()
        try:
            result = await work()
        except BaseException as error:
            del self._futures[key]
            future.set_exception(self._told(error))
            future.exception()  # Nobody may wait for it.
            raise
        del self._futures[key]
        future.set_result(result)
        return result

    def _told(self, error: BaseException) -> BaseException:
        return error if isinstance(error, Exception) else RuntimeError("the caller that did the work was cancelled")


# KM-ONE


class FlightYieldsAfterLooking(TaskFlight):
    """It lets others run between looking and beginning: they look and begin as well."""

    async def do(self, key: Hashable, work: Work) -> Any:
        task = self._tasks.get(key)
        if task is None:
            await asyncio.sleep(0)
            task = self._tasks[key] = self._begin(key, work)
        return await self._outcome(task)

    def _begin(self, key: Hashable, work: Work) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return task


# KM-RESULT


class FlightForgetsAtNextCall(TaskFlight):
    """A task that is done is taken from the table by whoever calls next, who is given its result."""

    def __len__(self) -> int:
        return sum(not task.done() for task in self._tasks.values())

    def _begin(self, key: Hashable, work: Work) -> asyncio.Future[Any]:
        return asyncio.ensure_future(work())

    async def do(self, key: Hashable, work: Work) -> Any:
        task = self._tasks.get(key)
        if task is not None and task.done():
            return await self._tasks.pop(key)
        return await super().do(key, work)


class FlightRemembersFailures(TaskFlight):
    """The error of a key's work is raised for the next caller, too, who never had anything to do with it."""

    def __init__(self) -> None:
        super().__init__()
        self._failed: BaseException | None = None

    async def do(self, key: Hashable, work: Work) -> Any:
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        return await super().do(key, work)

    def _begin(self, key: Hashable, work: Work) -> asyncio.Future[Any]:
        task = super()._begin(key, work)
        task.add_done_callback(self._note)
        return task

    def _note(self, task: asyncio.Future[Any]) -> None:
        self._failed = None if task.cancelled() else task.exception()


# KM-LEADER


class FlightLeaderCancelsAll(SharingFlight):
    """The leader's CancelledError becomes the outcome of the future: all who wait are cancelled with it."""

    def _told(self, error: BaseException) -> BaseException:
        return error


class FlightLeaderForgetsOnCancel(SharingFlight):
    """It cleans up after an Exception: a cancelled leader leaves a future that nobody resolves."""

    async def do(self, key: Hashable, work: Work) -> Any:
        future = self._futures.get(key)
        if future is not None:
            return await asyncio.shield(future)
        future = self._futures[key] = asyncio.get_running_loop().create_future()
        try:
            result = await work()
        except Exception as error:
            del self._futures[key]
            future.set_exception(error)
            future.exception()
            raise
        del self._futures[key]
        future.set_result(result)
        return result


class FlightLeaderLeavesItsTask(TaskFlight):
    """The leader takes the task from the table as it leaves: cancelled, it goes while the work goes on."""

    async def do(self, key: Hashable, work: Work) -> Any:
        task = self._tasks.get(key)
        if task is not None:
            return await self._outcome(task)
        task = self._tasks[key] = asyncio.ensure_future(work())
        try:
            return await self._outcome(task)
        finally:
            self._tasks.pop(key, None)


# KM-FOLLOWER


class FlightFollowerNotShielded(FutureFlight):
    """Who waits awaits the leader's future itself: its cancellation cancels the future for all."""

    async def _wait(self, key: Hashable, future: asyncio.Future[Any]) -> tuple[bool, Any]:
        done, result = await future
        return done, result

    def _end(self, key: Hashable, future: asyncio.Future[Any], outcome: tuple[bool, Any]) -> None:
        del self._futures[key]
        if not future.done():
            future.set_result(outcome)


class FlightFollowerTidiesUp(FutureFlight):
    """Who is cancelled in its wait takes the future from the table, though the work goes on."""

    async def _wait(self, key: Hashable, future: asyncio.Future[Any]) -> tuple[bool, Any]:
        try:
            return await super()._wait(key, future)
        except asyncio.CancelledError:
            self._futures.pop(key, None)
            raise

    def _end(self, key: Hashable, future: asyncio.Future[Any], outcome: tuple[bool, Any]) -> None:
        if self._futures.get(key) is future:
            del self._futures[key]
        future.set_result(outcome)


# KM-FORGET


class FlightKeepsTasks(TaskFlight):
    """A task that is done stays in the table until its key is wanted again."""

    async def do(self, key: Hashable, work: Work) -> Any:
        task = self._tasks.get(key)
        if task is None or task.done():
            task = self._tasks[key] = asyncio.ensure_future(work())
        return await self._outcome(task)


# KM-APART


class FlightOneLockForAll(LockedFlight):
    """One lock for all keys: work for one waits for work for another."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = asyncio.Lock()

    async def do(self, key: Hashable, work: Work) -> Any:
        async with self._lock:
            return await work()


class FlightByHash(TaskFlight):
    """The table is kept by the hash of the key: -1 and -2 are one."""

    async def do(self, key: Hashable, work: Work) -> Any:
        return await super().do(hash(key), work)


# KM-RETURN


class FlightWakesOne:
    """Those who wait have a future each, and the end of the work resolves the first of them."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, list[asyncio.Future[Any]]] = {}

    async def do(self, key: Hashable, work: Work) -> Any:
        if key in self._waiting:
            future = asyncio.get_running_loop().create_future()
            self._waiting[key].append(future)
            done, result = await future
            return result if done else await self.do(key, work)
        self._waiting[key] = []
        outcome = (False, None)
        try:
            result = await work()
            outcome = (True, result)
            return result
        finally:
            for future in [future for future in self._waiting.pop(key) if not future.done()][:1]:
                future.set_result(outcome)


class AwaitableFlight:
    """Sound: run(key, awaitable) is given the work as a coroutine, and drops it where another's goes on."""

    def __init__(self) -> None:
        self._flight = TaskFlight()

    async def run(self, key: Hashable, awaitable: Awaitable[Any]) -> Any:
        try:
            return await self._flight.do(key, lambda: awaitable)
        finally:
            if asyncio.iscoroutine(awaitable) and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
                awaitable.close()


class AwaitableFlightLate:
    """The mistake: the table is looked into before a step in which others come."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Future[Any]] = {}

    async def run(self, key: Hashable, awaitable: Awaitable[Any]) -> Any:
        task = self._tasks.get(key)
        if task is None:
            await asyncio.sleep(0)
            task = self._tasks[key] = asyncio.ensure_future(awaitable)
            task.add_done_callback(lambda _: self._tasks.pop(key, None))
        return await asyncio.shield(task)


def cached(ttl: float = 60.0) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Sound: a decorator with an argument, which does the work once for all who call while it is done, and keeps the
    result for a time, as its name says."""

    def decorator(func: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        flight, kept = TaskFlight(), dict[Any, tuple[float, Any]]()

        async def call(key: Any) -> Any:
            if key in kept and time.monotonic() - kept[key][0] <= ttl:
                return kept[key][1]
            result = await flight.do(key, lambda: func(key))
            kept[key] = (time.monotonic(), result)
            return result

        return call

    return decorator


def synchronized(
    key_fn: Callable[..., Any],
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """Sound: a decorator that is told how to make the key; who calls for the same key waits, and then does it too."""

    def decorator(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        flight = LockedFlight()

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await flight.do(key_fn(*args, **kwargs), lambda: function(*args, **kwargs))

        return call

    return decorator


def synchronized_while_free(
    key_fn: Callable[..., Any],
) -> Callable[[Callable[..., Awaitable[Any]]], Callable[..., Awaitable[Any]]]:
    """The mistake: whoever leaves throws the lock of the key away, though others wait for it."""

    def decorator(function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        locks: dict[Any, asyncio.Lock] = {}

        async def call(*args: Any, **kwargs: Any) -> Any:
            key = key_fn(*args, **kwargs)
            async with locks.setdefault(key, asyncio.Lock()):
                try:
                    return await function(*args, **kwargs)
                finally:
                    locks.pop(key, None)

        return call

    return decorator
