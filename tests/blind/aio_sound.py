"""Asyncio lockers that keep the contract, each in its own way; the last two make no promise of order."""

import asyncio
import contextlib
import heapq
import itertools
import types
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Generator, Hashable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

Waiter = asyncio.Future[None]


class _OneLoop:
    """The loop of the first call is the locker's for good."""

    _loop: asyncio.AbstractEventLoop | None = None

    def _bind(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")
        return loop

    def _check(self) -> None:
        """For unlock, a plain call: it may come from outside any loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")


class DequeOfFutures(_OneLoop):
    """A key in the table is held; its deque is the queue; a cancelled future is skipped."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = deque()
            return
        waiter = loop.create_future()
        queue.append(waiter)
        try:
            await waiter
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._pass_on(key)
            elif waiter in queue:
                queue.remove(waiter)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        if key not in self._queues:
            raise KeyError(key)
        self._pass_on(key)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue:
            waiter = queue.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._queues[key]


class LockAndCount:
    """asyncio's lock per key, which is fair, and a count of its users; the loop check is left to the lock."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, tuple[asyncio.Lock, list[int]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def lock(self, key: Hashable) -> None:
        lock, users = self._entries.setdefault(key, (asyncio.Lock(), [0]))
        users[0] += 1
        try:
            await lock.acquire()
        except BaseException:
            self._drop(key, users)
            raise

    def unlock(self, key: Hashable) -> None:
        lock, users = self._entries[key]
        lock.release()
        self._drop(key, users)

    def _drop(self, key: Hashable, users: list[int]) -> None:
        users[0] -= 1
        if not users[0]:
            del self._entries[key]


class EventPerWaiter(_OneLoop):
    """The first event of a key's list belongs to its holder."""

    def __init__(self) -> None:
        self._lists: dict[Hashable, list[asyncio.Event]] = {}

    def __len__(self) -> int:
        return len(self._lists)

    async def lock(self, key: Hashable) -> None:
        self._bind()
        turn = asyncio.Event()
        events = self._lists.setdefault(key, [])
        events.append(turn)
        if events[0] is turn:
            return
        try:
            await turn.wait()
        except BaseException:
            self._leave(key, events, turn)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        events = self._lists.get(key)
        if events is None:
            raise LookupError(f"{key!r} is not held")
        self._leave(key, events, events[0])

    def _leave(self, key: Hashable, events: list[asyncio.Event], turn: asyncio.Event) -> None:
        events.remove(turn)
        if events:
            events[0].set()
        else:
            del self._lists[key]


class TableCondition(_OneLoop):
    """One condition for the table. Unlock moves the queue at once and lets a task wake the waiters."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[object]] = {}
        self._changed: asyncio.Condition | None = None
        self._wakers: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Hashable) -> None:
        self._bind()
        if self._changed is None:
            self._changed = asyncio.Condition()
        ticket = object()
        queue = self._queues.setdefault(key, deque())
        queue.append(ticket)
        if queue[0] is ticket:
            return
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: queue[0] is ticket)
        except BaseException:
            self._leave(key, queue, ticket)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        queue = self._queues.get(key)
        if queue is None:
            raise RuntimeError(f"{key!r} is not held")
        self._leave(key, queue, queue[0])

    def _leave(self, key: Hashable, queue: deque[object], ticket: object) -> None:
        queue.remove(ticket)
        if not queue:
            del self._queues[key]
        elif self._loop is not None:
            waker = self._loop.create_task(self._wake())
            self._wakers.add(waker)
            waker.add_done_callback(self._wakers.discard)

    async def _wake(self) -> None:
        assert self._changed is not None
        async with self._changed:
            self._changed.notify_all()


class Mailboxes(_OneLoop):
    """Each waiter reads a queue of one letter of its own."""

    def __init__(self) -> None:
        self._boxes: dict[Hashable, OrderedDict[int, asyncio.Queue[str]]] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._boxes)

    async def lock(self, key: Hashable) -> None:
        self._bind()
        boxes = self._boxes.get(key)
        if boxes is None:
            self._boxes[key] = OrderedDict()
            return
        number, box = next(self._serial), asyncio.Queue[str](maxsize=1)
        boxes[number] = box
        try:
            await box.get()
        except BaseException:
            if boxes.pop(number, None) is None:
                self.unlock(key)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        boxes = self._boxes.get(key)
        if boxes is None:
            raise RuntimeError(f"{key!r} is not held")
        if boxes:
            boxes.popitem(last=False)[1].put_nowait("yours")
        else:
            del self._boxes[key]


class _Link:
    def __init__(self) -> None:
        self.holder: Waiter | None = None
        self.users = 0
        self.tail: Waiter | None = None


class ChainOfFutures(_OneLoop):
    """Each request waits for the future of the one before it and resolves its own when it is done."""

    def __init__(self) -> None:
        self._links: dict[Hashable, _Link] = {}

    def __len__(self) -> int:
        return len(self._links)

    async def lock(self, key: Hashable) -> None:
        mine = self._bind().create_future()
        link = self._links.setdefault(key, _Link())
        link.users += 1
        before, link.tail = link.tail, mine
        if before is not None:
            try:
                await asyncio.shield(before)
            except BaseException:
                if before.done():
                    mine.set_result(None)
                else:
                    before.add_done_callback(lambda _: mine.set_result(None))
                self._drop(key, link)
                raise
        link.holder = mine

    def unlock(self, key: Hashable) -> None:
        self._check()
        link = self._links.get(key)
        if link is None or link.holder is None:
            raise RuntimeError(f"{key!r} is not held")
        link.holder.set_result(None)
        link.holder = None
        self._drop(key, link)

    def _drop(self, key: Hashable, link: _Link) -> None:
        link.users -= 1
        if link.users == 0:
            del self._links[key]


class SemaphoreAndCount:
    """A bounded semaphore of one per key; the loop check is left to it."""

    def __init__(self) -> None:
        self._semaphores: dict[Hashable, asyncio.BoundedSemaphore] = {}
        self._users: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._semaphores)

    @contextlib.contextmanager
    def _counted(self, key: Hashable) -> Iterator[asyncio.BoundedSemaphore]:
        self._users[key] = self._users.get(key, 0) + 1
        try:
            yield self._semaphores.setdefault(key, asyncio.BoundedSemaphore(1))
        except BaseException:
            self._leave(key)
            raise

    async def lock(self, key: Hashable) -> None:
        with self._counted(key) as semaphore:
            await semaphore.acquire()

    def unlock(self, key: Hashable) -> None:
        self._semaphores[key].release()
        self._leave(key)

    def _leave(self, key: Hashable) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key], self._semaphores[key]


class HeapOfTurns(DequeOfFutures):
    """Inherits the loop check only; a heap of (number, future) per key, the cancelled removed at once."""

    def __init__(self) -> None:
        super().__init__()
        self._heaps: dict[Hashable, list[tuple[int, Waiter]]] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._heaps)

    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        if key not in self._heaps:
            self._heaps[key] = []
            return
        heap = self._heaps[key]
        turn = (next(self._serial), loop.create_future())
        heapq.heappush(heap, turn)
        try:
            await turn[1]
        except BaseException:
            if turn in heap:
                heap.remove(turn)
                heapq.heapify(heap)
            elif turn[1].done() and not turn[1].cancelled():
                self._pass_on(key)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        if key not in self._heaps:
            raise ValueError(f"{key!r} is not held")
        self._pass_on(key)

    def _pass_on(self, key: Hashable) -> None:
        heap = self._heaps[key]
        while heap:
            _, future = heapq.heappop(heap)
            if not future.done():
                future.set_result(None)
                return
        del self._heaps[key]


class _Acquiring:
    """What AwaitableRequests.lock returns: nothing happens before it is awaited."""

    __slots__ = ("_key", "_table")

    def __init__(self, table: "AwaitableRequests", key: Hashable) -> None:
        self._table = table
        self._key = key

    def __await__(self) -> Generator[Any, None, None]:
        waiter = self._table.request(self._key)
        if waiter is None:
            return
        try:
            yield from waiter.__await__()
        except BaseException:
            self._table.cancel(self._key, waiter)
            raise


class AwaitableRequests(_OneLoop):
    def __init__(self) -> None:
        self._queues: dict[Hashable, dict[Waiter, None]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    def lock(self, key: Hashable) -> Awaitable[None]:
        return _Acquiring(self, key)

    def request(self, key: Hashable) -> Waiter | None:
        loop = self._bind()
        if key not in self._queues:
            self._queues[key] = {}
            return None
        waiter = loop.create_future()
        self._queues[key][waiter] = None
        return waiter

    def cancel(self, key: Hashable, waiter: Waiter) -> None:
        if waiter.done() and not waiter.cancelled():
            self.unlock(key)
        elif waiter in self._queues.get(key, ()):
            del self._queues[key][waiter]

    def unlock(self, key: Hashable) -> None:
        self._check()
        if key not in self._queues:
            raise RuntimeError(f"{key!r} is not held")
        queue = self._queues[key]
        while queue:
            waiter = next(iter(queue))
            del queue[waiter]
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._queues[key]


class PrunedByCallback(_OneLoop):
    """A done callback takes a cancelled future out of the queue; the waiter itself only passes a grant on."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, list[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = []
            return
        waiter = loop.create_future()
        queue.append(waiter)

        def prune(done: Waiter) -> None:
            if done in queue:
                queue.remove(done)

        waiter.add_done_callback(prune)
        try:
            await waiter
        except BaseException:
            if not waiter.cancel() and not waiter.cancelled():
                self._grant_next(key)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        if key not in self._queues:
            raise RuntimeError(f"{key!r} is not held")
        self._grant_next(key)

    def _grant_next(self, key: Hashable) -> None:
        queue = self._queues[key]
        waiter = next((waiter for waiter in queue if not waiter.done()), None)
        if waiter is None:
            del self._queues[key]
        else:
            waiter.set_result(None)


def closures() -> SimpleNamespace:
    """Two functions over shared variables, in a plain namespace; it has no length."""
    home = _OneLoop()
    held: dict[Hashable, list[Callable[[], bool]]] = {}

    async def lock(key: Hashable) -> None:
        loop = home._bind()
        if key not in held:
            held[key] = []
            return
        waiter: Waiter = loop.create_future()
        offers = held[key]

        def offer() -> bool:
            if waiter.done():
                return False
            waiter.set_result(None)
            return True

        offers.append(offer)
        try:
            await waiter
        except BaseException:
            if offer in offers:
                offers.remove(offer)
            elif waiter.done() and not waiter.cancelled():
                unlock(key)
            raise

    def unlock(key: Hashable) -> None:
        home._check()
        if key not in held:
            raise RuntimeError(f"{key!r} is not held")
        while held[key]:
            if held[key].pop(0)():
                return
        del held[key]

    return SimpleNamespace(lock=lock, unlock=unlock)


@dataclass(eq=False)
class _Place:
    future: Waiter | None
    after: "_Place | None" = field(default=None, repr=False)
    gone: bool = False


class LinkedPlaces(_OneLoop):
    """A chain per key from the holder's place to the last one; `lock` is a generator-based coroutine."""

    def __init__(self) -> None:
        self._ends: dict[Hashable, tuple[_Place, _Place]] = {}

    def __len__(self) -> int:
        return len(self._ends)

    @types.coroutine
    def lock(self, key: Hashable) -> Generator[Any, None, None]:
        loop = self._bind()
        if key not in self._ends:
            place = _Place(None)
            self._ends[key] = (place, place)
            return
        holder, last = self._ends[key]
        future = loop.create_future()
        place = last.after = _Place(future)
        self._ends[key] = (holder, place)
        try:
            yield from future
        except BaseException:
            if future.done() and not future.cancelled():
                self._advance(key)
            place.gone = True
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        if key not in self._ends:
            raise RuntimeError(f"{key!r} is not held")
        self._advance(key)

    def _advance(self, key: Hashable) -> None:
        holder, last = self._ends[key]
        place = holder.after
        while place is not None and (place.gone or place.future is None or place.future.done()):
            place = place.after
        if place is None or place.future is None:
            del self._ends[key]
            return
        self._ends[key] = (place, last)
        place.future.set_result(None)


class ShieldedGrants(_OneLoop):
    """The future is shielded, so that a cancelled caller decides by itself what becomes of it."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        if key not in self._queues:
            self._queues[key] = deque()
            return
        queue, grant = self._queues[key], loop.create_future()
        queue.append(grant)
        try:
            await asyncio.shield(grant)
        except BaseException:
            if grant.done():
                self._pass_on(key)
            else:
                queue.remove(grant)
                grant.cancel()
            raise

    def unlock(self, key: Hashable) -> None:
        self._check()
        if key not in self._queues:
            raise RuntimeError(f"{key!r} is not held")
        self._pass_on(key)

    def _pass_on(self, key: Hashable) -> None:
        if self._queues[key]:
            self._queues[key].popleft().set_result(None)
        else:
            del self._queues[key]


class ActorPerKey(_OneLoop):
    """A task per key in use serves its callers in turn and ends with the key's last user."""

    def __init__(self) -> None:
        self._callers: dict[Hashable, deque[Waiter]] = {}
        self._freed: dict[Hashable, asyncio.Event] = {}
        self._actors: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._callers)

    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        if key not in self._callers:
            self._callers[key] = deque()
            self._freed[key] = asyncio.Event()
            actor = loop.create_task(self._serve(key, self._callers[key], self._freed[key]))
            self._actors.add(actor)
            actor.add_done_callback(self._actors.discard)
            return
        caller = loop.create_future()
        callers = self._callers[key]
        callers.append(caller)
        try:
            await caller
        except BaseException:
            if caller in callers:
                callers.remove(caller)
            elif caller.done() and not caller.cancelled():
                self.unlock(key)
            if key not in self._freed and self._callers.get(key) is callers:
                self._close_if_idle(key)
            raise

    def _close_if_idle(self, key: Hashable) -> None:
        if all(caller.done() for caller in self._callers[key]):
            del self._callers[key]

    def unlock(self, key: Hashable) -> None:
        self._check()
        freed = self._freed.pop(key, None)
        if freed is None:
            raise RuntimeError(f"{key!r} is not held")
        self._close_if_idle(key)
        freed.set()

    async def _serve(self, key: Hashable, callers: "deque[Waiter]", freed: asyncio.Event) -> None:
        while True:
            await freed.wait()
            if self._callers.get(key) is not callers:
                return
            while callers and callers[0].done():
                callers.popleft()
            if not callers:
                del self._callers[key]
                return
            freed = self._freed[key] = asyncio.Event()
            callers.popleft().set_result(None)


# No order promised: verify these without "fifo".


class BargingFutures(_OneLoop):
    """Unlock frees the key and wakes everybody who waits for it; the first to run takes it."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._freed: dict[Hashable, list[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def lock(self, key: Hashable) -> None:
        loop = self._bind()
        while key in self._held:
            freed = loop.create_future()
            self._freed.setdefault(key, []).append(freed)
            try:
                await freed
            finally:
                waiting = self._freed.get(key, [])
                if freed in waiting:
                    waiting.remove(freed)
                    if not waiting:
                        del self._freed[key]
        self._held.add(key)

    def unlock(self, key: Hashable) -> None:
        self._check()
        self._held.remove(key)
        for freed in self._freed.pop(key, []):
            if not freed.done():
                freed.set_result(None)


class BargingEvents(_OneLoop):
    """An event per holding, set when it ends; whoever waited looks again."""

    def __init__(self) -> None:
        self._ended: dict[Hashable, asyncio.Event] = {}

    def __len__(self) -> int:
        return len(self._ended)

    async def lock(self, key: Hashable) -> None:
        self._bind()
        while key in self._ended:
            await self._ended[key].wait()
        self._ended[key] = asyncio.Event()

    def unlock(self, key: Hashable) -> None:
        self._check()
        self._ended.pop(key).set()
