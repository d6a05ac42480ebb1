"""Asyncio lockers with one mistake each; manifest.toml names the clause each one breaks.

`_Futures` is correct (direct hand-off, a future per waiter); it stands here so that a subclass shows its
mistake and nothing else.
"""

import asyncio
import heapq
import itertools
from asyncio import CancelledError, Future
from collections import defaultdict, deque
from collections.abc import Coroutine, Hashable
from contextlib import suppress
from typing import Any

Waiter = Future[None]


class _Futures:
    """Correct: a key in the table is held, its deque is the queue, and unlock grants to the head."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[Hashable, deque[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def _bind(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")
        return loop

    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = self._new_queue()
            return
        waiter = loop.create_future()
        queue.append(waiter)
        await self._wait(key, queue, waiter)

    def unlock(self, key: Hashable) -> None:
        if key not in self._queues:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        self._pass_on(key)

    def _new_queue(self) -> "deque[Waiter]":
        return deque()

    async def _wait(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        try:
            await waiter
        except BaseException:
            self._undo(key, queue, waiter)
            raise

    def _undo(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        if waiter.done() and not waiter.cancelled():
            self._pass_on(key)
        else:
            self._remove(queue, waiter)

    def _remove(self, queue: "deque[Waiter]", waiter: Waiter) -> None:
        with suppress(ValueError):
            queue.remove(waiter)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._queues[key]


# Cancellation.


class ShieldedWaiterStays(_Futures):
    async def _wait(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        try:
            await asyncio.shield(waiter)
        except CancelledError:
            if waiter.cancelled():
                self._remove(queue, waiter)
            elif waiter.done():
                self._pass_on(key)
            raise


class CancelledWalksIn(_Futures):
    async def _wait(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        try:
            with suppress(CancelledError):
                await waiter
        finally:
            self._remove(queue, waiter)


class CountsDownOnExceptionOnly:
    def __init__(self) -> None:
        self._entries: dict[Hashable, asyncio.Lock] = {}
        self._users: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def lock(self, key: Hashable) -> None:
        entry = self._entries.setdefault(key, asyncio.Lock())
        self._users[key] = self._users.get(key, 0) + 1
        try:
            await entry.acquire()
        except Exception:
            self._drop(key)
            raise

    def unlock(self, key: Hashable) -> None:
        self._entries[key].release()
        self._drop(key)

    def _drop(self, key: Hashable) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key], self._entries[key]


class GrantNotPassedOn(_Futures):
    async def _wait(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        try:
            await waiter
        except CancelledError:
            if waiter in queue:
                queue.remove(waiter)
            raise


class PassesOnOnlyToWaiters(_Futures):
    """A cancelled grant goes to the next waiter; where there is none, the key stays held."""

    def _undo(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        if waiter.cancelled() or not waiter.done():
            self._remove(queue, waiter)
        elif queue:
            self._pass_on(key)


class SetsResultOnCancelled(_Futures):
    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if queue:
            queue.popleft().set_result(None)
        else:
            del self._queues[key]


class AllCancelledFallsOff(_Futures):
    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if not queue:
            del self._queues[key]
            return
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                break


class SkipsOneCancelled(_Futures):
    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        waiter = queue.popleft() if queue else None
        if waiter is not None and waiter.done():
            waiter = queue.popleft() if queue else None
        if waiter is None:
            del self._queues[key]
        elif not waiter.done():
            waiter.set_result(None)


class CancelPopsTheHead(_Futures):
    def _remove(self, queue: "deque[Waiter]", waiter: Waiter) -> None:
        if waiter in queue:
            queue.popleft()


class CancelReversesTheRest(_Futures):
    def _remove(self, queue: "deque[Waiter]", waiter: Waiter) -> None:
        kept = [other for other in queue if other is not waiter]
        queue.clear()
        queue.extendleft(kept)


class InnerTaskFinishes(_Futures):
    """The wait runs in a task of its own; its grant is lost where the caller is cancelled just after."""

    async def lock(self, key: Hashable) -> None:
        self._bind()
        if key not in self._queues:
            self._queues[key] = deque()
            return
        await asyncio.ensure_future(super().lock(key))


class CheckpointAfterGrant(_Futures):
    """A polite turn of the loop after the grant, where a cancellation finds nobody to undo it."""

    async def _wait(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        await super()._wait(key, queue, waiter)
        await asyncio.sleep(0)


class ChecksThenYields(_Futures):
    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        queue = self._queues.get(key)
        if queue is None:
            await asyncio.sleep(0)
            self._queues[key] = deque()
            return
        waiter = loop.create_future()
        queue.append(waiter)
        await self._wait(key, queue, waiter)


class TakesWhenCalled(_Futures):
    """A plain def: a free key is taken by the call itself, before anybody awaits what it returns."""

    def lock(self, key: Hashable) -> Coroutine[Any, Any, None]:
        self._bind()
        if key not in self._queues:
            self._queues[key] = deque()
            return self._taken()
        return super().lock(key)

    async def _taken(self) -> None:
        return None


class LongWaitersGoLast(_Futures):
    """A waiter whose turn has not come after 50 ms is put at the end of the queue, once."""

    async def _wait(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        timer = self._bind().call_later(0.05, self._demote, queue, waiter)
        try:
            await super()._wait(key, queue, waiter)
        finally:
            timer.cancel()

    def _demote(self, queue: "deque[Waiter]", waiter: Waiter) -> None:
        if waiter in queue:
            queue.remove(waiter)
            queue.append(waiter)


# Granting.


class CallbackTakesTheKey:
    """Unlock frees the key and wakes the head; a done callback takes it, one turn of the loop later."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: set[Hashable] = set()
        self._queues: dict[Hashable, deque[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._held | set(self._queues))

    async def lock(self, key: Hashable) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")
        self._loop = loop
        if key not in self._held:
            self._held.add(key)
            return
        waiter = loop.create_future()

        def take(done: Waiter) -> None:
            if not done.cancelled():
                self._held.add(key)

        waiter.add_done_callback(take)
        self._queues.setdefault(key, deque()).append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.cancelled() or not waiter.done():
                self._forget(key, waiter)
            else:
                self.unlock(key)
            raise

    def unlock(self, key: Hashable) -> None:
        self._held.remove(key)
        for waiter in self._queues.get(key, ()):
            if not waiter.done():
                waiter.set_result(None)
                self._forget(key, waiter)
                return

    def _forget(self, key: Hashable, waiter: Waiter) -> None:
        queue = self._queues[key]
        queue.remove(waiter)
        if not queue:
            del self._queues[key]


class UnlocksOnTheNextTurn(_Futures):
    def unlock(self, key: Hashable) -> None:
        if key not in self._queues:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        self._bind().call_soon(self._settle, key)

    def _settle(self, key: Hashable) -> None:
        if key in self._queues:
            self._pass_on(key)


class OneEventForAllWaiters:
    """An event per key is set while the key is free; whoever waited does not look again."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[asyncio.Event, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def lock(self, key: Hashable) -> None:
        if key not in self._entries:
            free = asyncio.Event()
            free.set()
            self._entries[key] = (free, [0])
        free, users = self._entries[key]
        users[0] += 1
        if not free.is_set():
            try:
                await free.wait()
            except BaseException:
                self._drop(key, users)
                raise
        free.clear()

    def unlock(self, key: Hashable) -> None:
        free, users = self._entries[key]
        if free.is_set():
            raise RuntimeError(f"unlock of unheld key {key!r}")
        free.set()
        self._drop(key, users)

    def _drop(self, key: Hashable, users: list[int]) -> None:
        users[0] -= 1
        if not users[0]:
            del self._entries[key]


class ActorOutlivesItsKey:
    """A task per key hands the key out; it ends after an unlock that leaves no caller, dead or alive."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: set[Hashable] = set()
        self._callers: dict[Hashable, asyncio.Queue[Waiter]] = {}
        self._freed: dict[Hashable, asyncio.Event] = {}
        self._actors: dict[Hashable, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._actors)

    async def lock(self, key: Hashable) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")
        self._loop = loop
        if key not in self._actors:
            self._callers[key] = asyncio.Queue()
            self._freed[key] = asyncio.Event()
            self._actors[key] = loop.create_task(self._serve(key))
        caller = loop.create_future()
        self._callers[key].put_nowait(caller)
        try:
            await caller
        except BaseException:
            if not caller.cancelled() and caller.done():
                self.unlock(key)
            raise

    def unlock(self, key: Hashable) -> None:
        self._held.remove(key)
        self._freed[key].set()

    async def _serve(self, key: Hashable) -> None:
        callers, freed = self._callers[key], self._freed[key]
        while True:
            caller = await callers.get()
            if caller.done():
                continue
            freed.clear()
            self._held.add(key)
            caller.set_result(None)
            await freed.wait()
            if callers.empty():
                del self._actors[key], self._callers[key], self._freed[key]
                return


# Order, keys, memory, loops.


class ThirdWaiterPushesOut(_Futures):
    def _new_queue(self) -> "deque[Waiter]":
        return deque(maxlen=2)


class ByTaskName(_Futures):
    """Waiters are kept in the order of their tasks' names; the arrival only breaks ties."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers = itertools.count()
        self._ranks: dict[Waiter, tuple[str, int]] = {}

    async def _wait(self, key: Hashable, queue: "deque[Waiter]", waiter: Waiter) -> None:
        task = asyncio.current_task()
        self._ranks[waiter] = (task.get_name() if task else "", next(self._numbers))
        ordered = sorted(queue, key=self._ranks.__getitem__)
        queue.clear()
        queue.extend(ordered)
        try:
            await super()._wait(key, queue, waiter)
        finally:
            del self._ranks[waiter]


class RankedByQueueLength:
    """A heap of waiters, each ranked by how many waited when it came."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heaps: dict[Hashable, list[tuple[int, int, Waiter]]] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._heaps)

    async def lock(self, key: Hashable) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")
        self._loop = loop
        heap = self._heaps.get(key)
        if heap is None:
            self._heaps[key] = []
            return
        waiter = loop.create_future()
        place = (len(heap), next(self._serial), waiter)
        heapq.heappush(heap, place)
        try:
            await waiter
        except BaseException:
            if waiter.cancelled() or not waiter.done():
                with suppress(ValueError):
                    heap.remove(place)
                    heapq.heapify(heap)
            else:
                self.unlock(key)
            raise

    def unlock(self, key: Hashable) -> None:
        heap = self._heaps[key]
        while heap:
            waiter = heapq.heappop(heap)[-1]
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._heaps[key]


class _Translated(_Futures):
    def _name(self, key: Hashable) -> Hashable:
        return key

    async def lock(self, key: Hashable) -> None:
        await super().lock(self._name(key))

    def unlock(self, key: Hashable) -> None:
        super().unlock(self._name(key))


class KeyedByRepr(_Translated):
    def _name(self, key: Hashable) -> Hashable:
        return repr(key)


class KeyedIgnoringCase(_Translated):
    def _name(self, key: Hashable) -> Hashable:
        return key.lower() if isinstance(key, str) else key


class SameTaskWalksIn(_Futures):
    """A task that already took a free key is let in again."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[Hashable, asyncio.Task[Any] | None] = {}

    async def lock(self, key: Hashable) -> None:
        self._bind()
        if key in self._queues and self._takers.get(key) is asyncio.current_task():
            return
        await super().lock(key)
        self._takers[key] = asyncio.current_task()

    def unlock(self, key: Hashable) -> None:
        super().unlock(key)
        self._takers.pop(key, None)


class FailedUnlockLeavesEntry:
    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held: set[Hashable] = set()
        self._queues: defaultdict[Hashable, deque[Waiter]] = defaultdict(deque)

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Hashable) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")
        self._loop = loop
        queue = self._queues[key]
        if key not in self._held:
            self._held.add(key)
            return
        waiter = loop.create_future()
        queue.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self.unlock(key)
            elif waiter in queue:
                queue.remove(waiter)
            raise

    def unlock(self, key: Hashable) -> None:
        queue = self._queues[key]
        if key not in self._held:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._held.remove(key)
        del self._queues[key]


class LenCountsWaiters(_Futures):
    def __len__(self) -> int:
        return sum(1 + len(queue) for queue in self._queues.values())


class LoopCheckedWhenWaiting(_Futures):
    async def lock(self, key: Hashable) -> None:
        if key not in self._queues:
            self._queues[key] = deque()
            return
        await super().lock(key)


class LoopForgottenWhenIdle(_Futures):
    def _pass_on(self, key: Hashable) -> None:
        super()._pass_on(key)
        if not self._queues:
            self._loop = None


class FourUsersPerTable(_Futures):
    """At most four callers hold or wait, over all keys together."""

    def __init__(self) -> None:
        super().__init__()
        self._room: asyncio.Semaphore | None = None

    async def lock(self, key: Hashable) -> None:
        self._bind()
        if self._room is None:
            self._room = asyncio.Semaphore(4)
        await self._room.acquire()
        try:
            await super().lock(key)
        except BaseException:
            self._room.release()
            raise

    def unlock(self, key: Hashable) -> None:
        super().unlock(key)
        if self._room is not None:
            self._room.release()
