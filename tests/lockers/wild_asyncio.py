"""Published bugs of keyed locks and single-flight groups for asyncio, each written anew beside its repaired twin.

`wild.toml` names where each was published. A twin and its bad one differ in the one mistake only, so the bad one
is a subclass, or both are subclasses of one sound form. Each keeps the shape that such projects give it. All but
`PyKeyValueLocks` leave other event loops to the futures that they wait for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any
from weakref import WeakValueDictionary

Turn = asyncio.Future[None]


def _turn() -> Turn:
    return asyncio.get_running_loop().create_future()


class _Fair:
    """Sound: a key in the table is held, its queue has the waiters, and release hands the key to the oldest."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Turn]] = {}

    async def acquire(self, key: Hashable) -> None:
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
            return
        turn = _turn()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            self._gave_up(key, queue, turn)
            raise

    def release(self, key: Hashable) -> None:
        if key not in self._queues:
            raise RuntimeError(f"nobody holds {key!r}")
        queue = self._queues[key]
        if not queue:
            del self._queues[key]
            return
        turn = queue.popleft()
        if not turn.done():  # Else its task is about to give up, and hands the key on itself.
            turn.set_result(None)

    def _gave_up(self, key: Hashable, queue: deque[Turn], turn: Turn) -> None:
        if turn in queue:
            queue.remove(turn)
        else:
            self.release(key)


class _Block:
    """`async with` for one key of a table with acquire and release."""

    def __init__(self, locks: _Fair, key: Hashable) -> None:
        self._locks, self._key = locks, key

    async def __aenter__(self) -> None:
        await self._locks.acquire(self._key)

    async def __aexit__(self, *error: object) -> None:
        self._locks.release(self._key)


class AnyioHandoffRepaired(_Fair):
    """Repaired: a waiter that is cancelled after the key was handed to it hands it on."""


class AnyioHandoff(_Fair):
    """KM-RACE: a waiter that is cancelled after the key was handed to it raises, and stays its owner."""

    def _gave_up(self, key: Hashable, queue: deque[Turn], turn: Turn) -> None:
        if turn in queue:
            queue.remove(turn)


class AnyioCheckpointRepaired:
    """Repaired: a caller that is cancelled after it took a free key gives it back."""

    def __init__(self) -> None:
        self._locks = self._make()

    def __call__(self, key: Hashable) -> _Block:
        return _Block(self._locks, key)

    def _make(self) -> _Fair:
        return _Yielding()


class _Yielding(_Fair):
    async def acquire(self, key: Hashable) -> None:
        await super().acquire(key)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            self._cancelled_in_entry(key)
            raise

    def _cancelled_in_entry(self, key: Hashable) -> None:
        self.release(key)


class _YieldingCareless(_Yielding):
    def _cancelled_in_entry(self, key: Hashable) -> None:
        pass


class AnyioCheckpoint(AnyioCheckpointRepaired):
    """KM-RACE: taking a free key ends with a turn of the loop; a cancellation there raises, and the key stays held."""

    def _make(self) -> _Fair:
        return _YieldingCareless()


class AnyioCancelledQueuedRepaired:
    """Repaired: release takes cancelled waiters out of the queue, and frees the key if there are no others."""

    def __init__(self) -> None:
        self._owners: dict[Hashable, asyncio.Task[Any] | None] = {}
        self._waiters: dict[Hashable, deque[tuple[asyncio.Task[Any] | None, Turn]]] = {}

    async def acquire(self, key: Hashable) -> None:
        task = asyncio.current_task()
        if key not in self._owners and not self._waiters.get(key):
            self._owners[key] = task
            return
        turn = _turn()
        waiter = (task, turn)
        self._waiters.setdefault(key, deque()).append(waiter)
        try:
            await turn
        except asyncio.CancelledError:
            if waiter in self._waiters.get(key, ()):
                self._waiters[key].remove(waiter)
                self._tidy(key)
            elif not turn.cancelled():
                self.release(key)
            raise

    def release(self, key: Hashable) -> None:
        if key not in self._owners:
            raise RuntimeError(f"nobody holds {key!r}")
        del self._owners[key]
        for waiter in tuple(self._waiters.get(key, ())):
            if self._takes(key, waiter):
                self._owners[key] = waiter[0]
                waiter[1].set_result(None)
                break
        self._tidy(key)

    def _takes(self, key: Hashable, waiter: tuple[asyncio.Task[Any] | None, Turn]) -> bool:
        self._waiters[key].remove(waiter)
        return not waiter[1].cancelled()

    def _tidy(self, key: Hashable) -> None:
        if key in self._waiters and not self._waiters[key]:
            del self._waiters[key]


class AnyioCancelledQueued(AnyioCancelledQueuedRepaired):
    """KM-LIVE: release leaves cancelled waiters in the queue; a newcomer queues behind them and is never woken."""

    def _takes(self, key: Hashable, waiter: tuple[asyncio.Task[Any] | None, Turn]) -> bool:
        if waiter[1].cancelled():
            return False
        self._waiters[key].remove(waiter)
        return True


class _Waking:
    """Sound: unlock frees the key and wakes the first waiter, and a newcomer queues as long as there are waiters."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._waiters: dict[Hashable, deque[Turn]] = {}

    async def lock(self, key: Hashable) -> None:
        if key not in self._held and key not in self._waiters:
            self._held.add(key)
            return
        turn = _turn()
        self._waiters.setdefault(key, deque()).append(turn)
        try:
            try:
                await turn
            finally:
                self._waiters[key].remove(turn)
                if not self._waiters[key]:
                    del self._waiters[key]
        except asyncio.CancelledError:
            self._cancelled(key)
            raise
        self._held.add(key)

    def unlock(self, key: Hashable) -> None:
        if key not in self._held:
            raise RuntimeError(f"nobody holds {key!r}")
        self._held.discard(key)
        self._wake_first(key)

    def _cancelled(self, key: Hashable) -> None:
        if key not in self._held:
            self._wake_first(key)

    def _wake_first(self, key: Hashable) -> None:
        first = next(iter(self._waiters.get(key, ())), None)
        if first is not None and not first.done():
            first.set_result(None)


class CPythonLostWakeupRepaired(_Waking):
    """Repaired: a waiter that was woken and is cancelled wakes the next one."""


class CPythonLostWakeup(_Waking):
    """KM-LIVE: a waiter that was woken and is cancelled wakes nobody, and the others wait for a free key."""

    def _cancelled(self, key: Hashable) -> None:
        pass


class CPythonDoubleAcquireRepaired(_Waking):
    """Repaired: to wake is to wake the first waiter, and nobody if that one has been woken."""


class CPythonDoubleAcquire(_Waking):
    """KM-EXCL: a cancelled waiter wakes the first that is still asleep, behind one that was woken already."""

    def _wake_first(self, key: Hashable) -> None:
        for turn in self._waiters.get(key, ()):
            if not turn.done():
                turn.set_result(None)
                return


class SynapseLinearizerRepaired:
    """Repaired: a waiter that is cancelled leaves the queue of its key."""

    def __init__(self) -> None:
        self._locks = self._make()

    def queue(self, key: Hashable) -> _Block:
        return _Block(self._locks, key)

    def _make(self) -> _Fair:
        return _Fair()


class _Staying(_Fair):
    def _gave_up(self, key: Hashable, queue: deque[Turn], turn: Turn) -> None:
        pass


class SynapseLinearizer(SynapseLinearizerRepaired):
    """KM-CANCEL: a waiter that is cancelled stays in the queue, and the key is handed to it in its turn."""

    def _make(self) -> _Fair:
        return _Staying()


class _Context:
    """A block whose exit awaits a release, as where a lock of several processes is released with it."""

    def __init__(self, locks: _Fair, key: Hashable) -> None:
        self._locks, self._key = locks, key
        self._held = False

    async def __aenter__(self) -> None:
        await self._locks.acquire(self._key)
        self._held = True

    async def __aexit__(self, *error: object) -> None:
        self._held = False
        release = asyncio.ensure_future(self._release())
        cancelled = False
        while not release.done():
            try:
                await asyncio.shield(release)
            except asyncio.CancelledError:
                cancelled = True
        if cancelled:
            raise asyncio.CancelledError

    async def _release(self) -> None:
        await self._release_elsewhere()
        self._locks.release(self._key)

    async def _release_elsewhere(self) -> None:
        """Stands for the lock among processes, which is released first."""
        await asyncio.sleep(0)


class _HastyContext(_Context):
    async def __aexit__(self, *error: object) -> None:
        try:
            await asyncio.shield(self._release())
        finally:
            self._held = False

    async def _release(self) -> None:
        await self._release_elsewhere()
        if self._held:
            self._locks.release(self._key)


class LightRAGKeyedLockRepaired:
    """Repaired: the exit of a block notes what it has to release before it waits, and sees the release through."""

    _context = _Context

    def __init__(self) -> None:
        self._locks = _Fair()

    def lock(self, key: Hashable) -> _Context:
        return self._context(self._locks, key)


class LightRAGKeyedLock(LightRAGKeyedLockRepaired):
    """KM-LIVE: the release looks up its key when it runs, and an exit that is cancelled has cleared it by then."""

    _context = _HastyContext


class _Counted:
    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Sessions:
    """Sound: a lock goes when nobody holds it or waits for it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, _Counted] = {}

    @contextlib.asynccontextmanager
    async def _use(self, key: Hashable) -> AsyncIterator[None]:
        entry = self._locks.setdefault(key, _Counted())
        entry.users += 1
        try:
            async with entry.lock:
                yield
        finally:
            entry.users -= 1
            if self._idle(entry) and self._locks.get(key) is entry:
                del self._locks[key]

    def _idle(self, entry: _Counted) -> bool:
        return not entry.users


class NanobotSessionsRepaired(_Sessions):
    """Repaired: a lock is idle if nobody holds it or waits for it."""

    def session(self, key: Hashable) -> AbstractAsyncContextManager[None]:
        return self._use(key)


class NanobotSessions(NanobotSessionsRepaired):
    """KM-EXCL: a lock that is not locked counts as idle, but it is so, too, until the waiter that was woken runs."""

    def _idle(self, entry: _Counted) -> bool:
        return not entry.lock.locked()


class MCSManagerMutexesRepaired(_Sessions):
    """Repaired: who leaves takes the lock out of the table if nobody else uses it."""

    def hold(self, key: Hashable) -> AbstractAsyncContextManager[None]:
        return self._use(key)


class MCSManagerMutexes(MCSManagerMutexesRepaired):
    """KM-EXCL: whoever leaves takes the lock out of the table, also over one that waits for it."""

    def _idle(self, entry: _Counted) -> bool:
        return True


class MuxMutexMapRepaired:
    """Repaired: who waited for the holder of a key looks again whether it is free."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, Turn] = {}

    async def lock(self, key: Hashable) -> None:
        while key in self._locks:
            await asyncio.shield(self._locks[key])
        self._locks[key] = _turn()

    def unlock(self, key: Hashable) -> None:
        if key not in self._locks:
            raise RuntimeError(f"nobody holds {key!r}")
        self._locks.pop(key).set_result(None)


class MuxMutexMap(MuxMutexMapRepaired):
    """KM-EXCL: all who waited for the holder of a key go on at once when it leaves, without another look."""

    async def lock(self, key: Hashable) -> None:
        if key in self._locks:
            await asyncio.shield(self._locks[key])
        self._locks[key] = _turn()


class _Cell:
    """A place in the queue of a key: it ends with a release, or is abandoned by a waiter that gave up."""

    __slots__ = ("abandoned", "before", "ended", "key")

    def __init__(self, key: Hashable, before: _Cell | None) -> None:
        self.key, self.before = key, before
        self.ended = _turn()
        self.abandoned = False


class CatsMutexRepaired:
    """Repaired: who comes behind abandoned places looks on to the first that is not."""

    def __init__(self) -> None:
        self._last: dict[Hashable, _Cell] = {}

    async def lock(self, key: Hashable) -> _Cell:
        cell = self._last[key] = _Cell(key, self._last.get(key))
        try:
            await self._turn_of(cell)
        except asyncio.CancelledError:
            cell.abandoned = True
            cell.ended.set_result(None)
            if cell.before is not None:
                cell.before.ended.add_done_callback(lambda _: self._tidy(cell))
            raise
        cell.before = None
        return cell

    def unlock(self, cell: _Cell) -> None:
        if cell.ended.done():
            raise RuntimeError(f"this grant of {cell.key!r} has ended")
        cell.ended.set_result(None)
        self._tidy(cell)

    async def _turn_of(self, cell: _Cell) -> None:
        before = cell.before
        while before is not None:
            await asyncio.shield(before.ended)
            before = before.before if before.abandoned else None

    def _tidy(self, cell: _Cell) -> None:
        last = self._last.get(cell.key)
        while last is not None and last.ended.done():
            last = last.before if last.abandoned else None
        if last is None:
            self._last.pop(cell.key, None)


class CatsMutex(CatsMutexRepaired):
    """KM-CANCEL: who comes behind two waiters that gave up looks past the last of them only, and takes the key."""

    async def _turn_of(self, cell: _Cell) -> None:
        before = cell.before
        if before is not None:
            await asyncio.shield(before.ended)
            if before.abandoned and before.before is not None:
                await asyncio.shield(before.before.ended)


class VertxLocalLocksRepaired:
    """Repaired: a name is forgotten when the last who used it has left."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, _Counted] = {}

    async def lock(self, key: Hashable) -> None:
        entry = self._locks.setdefault(key, _Counted())
        entry.users += 1
        try:
            await entry.lock.acquire()
        except BaseException:
            self._leave(key, entry)
            raise

    def unlock(self, key: Hashable) -> None:
        if key not in self._locks:
            raise RuntimeError(f"nobody holds {key!r}")
        entry = self._locks[key]
        entry.lock.release()
        self._leave(key, entry)

    def _leave(self, key: Hashable, entry: _Counted) -> None:
        entry.users -= 1
        if not entry.users:
            del self._locks[key]


class VertxLocalLocks(VertxLocalLocksRepaired):
    """KM-IDLE: each name that was ever locked keeps its lock in the map."""

    def _leave(self, key: Hashable, entry: _Counted) -> None:
        entry.users -= 1


class PyKeyValueLocksRepaired:
    """Repaired: the first loop that asks for a lock is the loop of them all, and another one is refused."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()
        self._loop: asyncio.AbstractEventLoop | None = None

    def __getitem__(self, key: Hashable) -> asyncio.Lock:
        self._check()
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock

    def _check(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("these locks belong to another event loop")


class PyKeyValueLocks(PyKeyValueLocksRepaired):
    """KM-LOOP: tasks of two loops get one lock for a key, and the release in one does not wake the other."""

    def _check(self) -> None:
        pass


class _Dropped(Exception):  # noqa: N818
    """The leader of a flight is gone, and its followers may go on."""


class _Retrying:
    """Sound: followers share the result of the leader's run; if the leader is cancelled, the next one leads."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, asyncio.Future[Any]] = {}

    async def do(self, key: Hashable, fn: Callable[[], Awaitable[Any]]) -> Any:
        while key in self._flights:
            flight = self._flights[key]
            try:
                return await asyncio.shield(flight)
            except _Dropped:
                self._dropped(key)
        return await self._lead(key, fn)

    async def _lead(self, key: Hashable, fn: Callable[[], Awaitable[Any]]) -> Any:
        flight = self._flights[key] = asyncio.get_running_loop().create_future()
        try:
            value = await fn()
        except asyncio.CancelledError:
            self._cancelled(key, flight)
            raise
        except BaseException as error:
            self._end(key)
            flight.set_exception(error)
            flight.exception()  # There may be no followers to look at it.
            raise
        self._end(key)
        flight.set_result(value)
        return value

    def _end(self, key: Hashable) -> None:
        self._flights.pop(key, None)

    def _cancelled(self, key: Hashable, flight: asyncio.Future[Any]) -> None:
        self._end(key)
        flight.set_exception(_Dropped())
        flight.exception()

    def _dropped(self, key: Hashable) -> None:
        pass


class AsyncSingleflightRepaired(_Retrying):
    """Repaired: the first follower of a leader that is gone leads, and the others follow it."""


class AsyncSingleflight(_Retrying):
    """KM-ONE: each follower of a leader that is gone clears the key, also of the follower that leads now."""

    def _dropped(self, key: Hashable) -> None:
        self._flights.pop(key, None)


class OdysseusSharedCacheRepaired(_Retrying):
    """Repaired: the flight of a leader that is cancelled ends."""


class OdysseusSharedCache(_Retrying):
    """KM-LEADER: a leader that is cancelled leaves its flight pending, and no later call of that key returns."""

    def _cancelled(self, key: Hashable, flight: asyncio.Future[Any]) -> None:
        pass


class _Detached:
    """Sound: the work runs in a task of its own, which no caller's cancellation reaches."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def do(self, key: Hashable, fn: Callable[[], Awaitable[Any]]) -> Any:
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(self._run(key, fn))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await self._join(key, task)

    async def _join(self, key: Hashable, task: asyncio.Task[Any]) -> Any:
        return await asyncio.shield(task)

    async def _run(self, key: Hashable, fn: Callable[[], Awaitable[Any]]) -> Any:
        try:
            return await fn()
        finally:
            self._end(key)

    def _end(self, key: Hashable) -> None:
        if self._tasks.get(key) is asyncio.current_task():
            del self._tasks[key]


class JanosSingleflightRepaired(_Detached):
    """Repaired: a caller that is cancelled leaves the run, and the run stays in the table."""


class JanosSingleflight(_Detached):
    """KM-ONE: a caller that is cancelled takes the key out of the table although the run goes on."""

    async def _join(self, key: Hashable, task: asyncio.Task[Any]) -> Any:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._tasks.pop(key, None)
            raise


class JupyterToolCacheRepaired(_Detached):
    """Repaired: each caller awaits the shared task behind a shield."""


class JupyterToolCache(_Detached):
    """KM-LEADER: callers await the shared task itself, so one that is cancelled cancels it for all."""

    async def _join(self, key: Hashable, task: asyncio.Task[Any]) -> Any:
        return await task


class KettingInFlightRepaired(_Detached):
    """Repaired: a run that failed leaves the table like any other."""


class KettingInFlight(_Detached):
    """KM-RESULT: a run that failed stays in the table, and its error is the answer from then on."""

    async def _run(self, key: Hashable, fn: Callable[[], Awaitable[Any]]) -> Any:
        value = await fn()
        self._end(key)
        return value
