"""Sound keyed lockers for asyncio, each in another style; some promise no order.

`await lock(key)`; `unlock(key)` is a plain call and raises for a key without a holder; `len()`, where there is one,
counts the keys that are held or waited for. A class named `...Leases` adds `hold(key)`.

asyncio.Lock, as read in CPython 3.10.13, 3.11.7, 3.12.1 and 3.13.0, is first-in-first-out and nobody barges:
release clears the flag and wakes the head, but acquire takes the fast path only where every future in the
queue is cancelled, and the woken head stays in the queue, not cancelled, until it has run. A woken head that
is cancelled wakes the next one. Two edges follow: between release and the run of the head, `locked()` is
False; and an exception other than CancelledError thrown into a woken head loses the wake-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import types
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Hashable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

_E = TypeVar("_E")

_Waiter = asyncio.Future[None]


class _Entries(Generic[_E]):
    """An entry for each key in use."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _E] = {}

    def __len__(self) -> int:
        return len(self._entries)


class _OneLoop:
    """The loop of the first call is the locker's for good, as KM-LOOP allows."""

    _loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        if self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")
        return loop

    def _check_if_any(self) -> None:
        """For unlock, a plain call: it may come from outside any loop."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if self._loop is not None and self._loop is not loop:
            raise RuntimeError("this locker belongs to another event loop")


class _Ticketed(_OneLoop):
    """lock and unlock over two calls each style writes in its own way; the first loop to use it owns it."""

    async def _acquire(self, key: Hashable) -> object:
        """Return the ticket that now holds the key."""
        raise NotImplementedError

    def _release(self, key: Hashable, ticket: object | None) -> None:
        """Release the key; with a ticket only where that ticket is the holder."""
        raise NotImplementedError

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        await self._acquire(key)

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        self._release(key, None)


class _Lease:
    """One grant of one key."""

    def __init__(self, locker: _Ticketed, key: Hashable, ticket: object) -> None:
        self._locker, self._key, self._ticket = locker, key, ticket
        self.released = False

    def release(self) -> None:
        self._locker._check_loop()
        self._locker._release(self._key, self._ticket)
        self.released = True


class _Leases(_Ticketed):
    """Adds hold() to a locker whose tickets name the grant."""

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[_Lease]:
        self._check_loop()
        lease = _Lease(self, key, await self._acquire(key))
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


def _leasing(locker: type[_Ticketed]) -> type:
    """The same locker with hold()."""
    name = f"{locker.__name__}Leases"
    return type(name, (_Leases, locker), {"__doc__": f"{locker.__name__} with hold().", "__module__": __name__})


class _Table(_Entries[Any], _Ticketed):
    """An entry knows its holder; how one asks for it and hands it on differs."""

    def _hand_on(self, key: Hashable, entry: Any) -> None:
        """End its grant."""
        raise NotImplementedError

    def _release(self, key: Hashable, ticket: object | None) -> None:
        entry = self._entries.get(key)
        if entry is None or entry.holder is None or ticket not in (None, entry.holder):
            raise RuntimeError(f"{key!r} is not held")
        self._hand_on(key, entry)


class _Counted(_Table):
    """The entry goes with the last of its users, the holder and those who wait."""

    def _drop(self, key: Hashable, entry: Any) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[key]


class _FutureEntry:
    """A holder's ticket and the futures of those behind it."""

    def __init__(self, holder: object) -> None:
        self.holder = holder
        self.waiters: deque[asyncio.Future[None]] = deque()


class FuturePerWaiter(_Table):
    """A future per waiter; unlock makes it the holder before it completes it. Evicts by key."""

    async def _acquire(self, key: Hashable) -> object:
        me: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = _FutureEntry(me)
            return me
        entry.waiters.append(me)
        try:
            await me
        except BaseException:
            if me in entry.waiters:
                entry.waiters.remove(me)
            elif entry.holder is me:
                self._hand_on(key, entry)
            raise
        return me

    def _evict(self, key: Hashable, entry: _FutureEntry) -> None:
        del self._entries[key]

    def _hand_on(self, key: Hashable, entry: _FutureEntry) -> None:
        while entry.waiters:
            heir = entry.waiters.popleft()
            if not heir.done():
                entry.holder = heir
                heir.set_result(None)
                return
        entry.holder = None
        self._evict(key, entry)


class FuturePerWaiterByIdentity(FuturePerWaiter):
    """FuturePerWaiter that evicts an entry only where the table still has this very entry."""

    def _evict(self, key: Hashable, entry: _FutureEntry) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]


class _LockEntry:
    """users counts the holder and the waiters; holder is None until the next one has run."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.holder: object | None = None


class LockAndCountNoLoopCheck(_Counted):
    """An asyncio.Lock with a count, which leaves the loop to asyncio.Lock, that looks only where it waits."""

    def _check_loop(self) -> Any:
        pass

    async def _acquire(self, key: Hashable) -> object:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = _LockEntry()
        entry.users += 1
        try:
            await entry.lock.acquire()
        except BaseException:
            self._drop(key, entry)
            raise
        entry.holder = ticket = object()
        return ticket

    def _hand_on(self, key: Hashable, entry: _LockEntry) -> None:
        entry.holder = None
        entry.lock.release()
        self._drop(key, entry)


class LockAndCount(LockAndCountNoLoopCheck):
    """An asyncio.Lock with a count, and the loop checked at each call."""

    _check_loop = _Ticketed._check_loop


class NextLoop(FuturePerWaiter):
    """An idle one whose loop has ended goes on in the next."""

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and not self._loop.is_running() and not len(self):
            self._loop = None
        return super()._check_loop()


class ConditionTable(_Ticketed):
    """One asyncio.Condition for the table; unlock is a plain call, so a task of its own notifies."""

    def __init__(self) -> None:
        self._moved: asyncio.Condition | None = None
        self._lines: dict[Hashable, list[object]] = {}
        self._notifiers: set[asyncio.Task[None]] = set()

    async def _acquire(self, key: Hashable) -> object:
        ticket = object()
        line = self._lines.setdefault(key, [])
        line.append(ticket)
        if line[0] is ticket:
            return ticket
        if self._moved is None:
            self._moved = asyncio.Condition()
        try:
            async with self._moved:
                await self._moved.wait_for(lambda: ticket not in line or line[0] is ticket)
        except BaseException:
            if ticket in line:
                self._leave(key, line, ticket)
            raise
        return ticket

    def _leave(self, key: Hashable, line: list[object], ticket: object) -> None:
        line.remove(ticket)
        if not line:
            del self._lines[key]
            return
        notifier = asyncio.get_running_loop().create_task(self._notify())
        self._notifiers.add(notifier)
        notifier.add_done_callback(self._notifiers.discard)

    async def _notify(self) -> None:
        assert self._moved is not None
        async with self._moved:
            self._moved.notify_all()

    def _release(self, key: Hashable, ticket: object | None) -> None:
        line = self._lines.get(key)
        if line is None or ticket not in (None, line[0]):
            raise RuntimeError(f"{key!r} is not held")
        self._leave(key, line, line[0])

    def __len__(self) -> int:
        return len(self._lines)


class EventPerWaiter(_Ticketed):
    """An asyncio.Event per waiter, which is also the ticket."""

    def __init__(self) -> None:
        self._holders: dict[Hashable, asyncio.Event] = {}
        self._waiting: dict[Hashable, list[asyncio.Event]] = {}

    async def _acquire(self, key: Hashable) -> object:
        turn = asyncio.Event()
        if key not in self._holders:
            self._holders[key] = turn
            return turn
        self._waiting.setdefault(key, []).append(turn)
        try:
            await turn.wait()
        except BaseException:
            if self._holders.get(key) is turn:
                self._pass_on(key)
            elif turn in self._waiting.get(key, []):
                self._waiting[key].remove(turn)
                if not self._waiting[key]:
                    del self._waiting[key]
            raise
        return turn

    def _pass_on(self, key: Hashable) -> None:
        waiting = self._waiting.get(key)
        if not waiting:
            del self._holders[key]
            return
        self._holders[key] = waiting.pop(0)
        self._holders[key].set()
        if not waiting:
            del self._waiting[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        holder = self._holders.get(key)
        if holder is None or ticket not in (None, holder):
            raise RuntimeError(f"{key!r} is not held")
        self._pass_on(key)

    def __len__(self) -> int:
        return len(self._holders)


class _EventEntry:
    """users counts the holder and those that poll."""

    def __init__(self) -> None:
        self.holder: object | None = None
        self.users = 0
        self.freed = asyncio.Event()


class FlagAndEvent(_Counted):
    """A flag, a count and an Event that wakes everybody to look again: sound but for order."""

    async def _acquire(self, key: Hashable) -> object:
        entry = self._entries.setdefault(key, _EventEntry())
        entry.users += 1
        try:
            while entry.holder is not None:
                entry.freed.clear()
                await entry.freed.wait()
        except BaseException:
            self._drop(key, entry)
            raise
        entry.holder = ticket = object()
        return ticket

    def _hand_on(self, key: Hashable, entry: _EventEntry) -> None:
        entry.holder = None
        entry.freed.set()
        self._drop(key, entry)


class FlagAndCondition(_Entries[list], _Ticketed):
    """A dict of [holder, count] and one Condition, `while held: await wait()`: sound but for order."""

    def __init__(self) -> None:
        super().__init__()
        self._freed: asyncio.Condition | None = None
        self._notifiers: set[asyncio.Task[None]] = set()

    async def _acquire(self, key: Hashable) -> object:
        if self._freed is None:
            self._freed = asyncio.Condition()
        entry = self._entries.setdefault(key, [None, 0])
        entry[1] += 1
        try:
            while entry[0] is not None:
                async with self._freed:
                    await self._freed.wait_for(lambda: entry[0] is None)
        except BaseException:
            self._drop(key, entry)
            raise
        entry[0] = ticket = object()
        return ticket

    def _drop(self, key: Hashable, entry: list) -> None:
        entry[1] -= 1
        if entry[1] == 0:
            del self._entries[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        entry = self._entries.get(key)
        if entry is None or entry[0] is None or ticket not in (None, entry[0]):
            raise RuntimeError(f"{key!r} is not held")
        entry[0] = None
        self._drop(key, entry)
        notifier = asyncio.get_running_loop().create_task(self._notify())
        self._notifiers.add(notifier)
        notifier.add_done_callback(self._notifiers.discard)

    async def _notify(self) -> None:
        assert self._freed is not None
        async with self._freed:
            self._freed.notify_all()


FuturePerWaiterLeases = _leasing(FuturePerWaiter)
FuturePerWaiterByIdentityLeases = _leasing(FuturePerWaiterByIdentity)
LockAndCountLeases = _leasing(LockAndCount)
LockAndCountNoLoopCheckLeases = _leasing(LockAndCountNoLoopCheck)
ConditionTableLeases = _leasing(ConditionTable)
EventPerWaiterLeases = _leasing(EventPerWaiter)
FlagAndEventLeases = _leasing(FlagAndEvent)
FlagAndConditionLeases = _leasing(FlagAndCondition)


# Held out: not to be looked at while the checker is built or tuned.


class Mailboxes(_OneLoop):
    """Each waiter reads a queue of one letter of its own."""

    def __init__(self) -> None:
        self._boxes: dict[Hashable, OrderedDict[int, asyncio.Queue[str]]] = {}
        self._serial = itertools.count()

    def __len__(self) -> int:
        return len(self._boxes)

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
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
        self._check_if_any()
        boxes = self._boxes.get(key)
        if boxes is None:
            raise RuntimeError(f"{key!r} is not held")
        if boxes:
            boxes.popitem(last=False)[1].put_nowait("yours")
        else:
            del self._boxes[key]


class _Link:
    def __init__(self) -> None:
        self.holder: _Waiter | None = None
        self.users = 0
        self.tail: _Waiter | None = None


class ChainOfFutures(_Entries[_Link], _OneLoop):
    """Each request waits for the future of the one before it and resolves its own when it is done."""

    async def lock(self, key: Hashable) -> None:
        mine = self._check_loop().create_future()
        link = self._entries.setdefault(key, _Link())
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
        self._check_if_any()
        link = self._entries.get(key)
        if link is None or link.holder is None:
            raise RuntimeError(f"{key!r} is not held")
        link.holder.set_result(None)
        link.holder = None
        self._drop(key, link)

    def _drop(self, key: Hashable, link: _Link) -> None:
        link.users -= 1
        if link.users == 0:
            del self._entries[key]


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


class _Acquiring:
    """What AwaitableRequests.lock returns: nothing happens before it is awaited."""

    __slots__ = ("_key", "_table")

    def __init__(self, table: AwaitableRequests, key: Hashable) -> None:
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


class AwaitableRequests(_Entries[dict[_Waiter, None]], _OneLoop):
    """lock returns an object with __await__; it is not a coroutine."""

    def lock(self, key: Hashable) -> Awaitable[None]:
        return _Acquiring(self, key)

    def request(self, key: Hashable) -> _Waiter | None:
        loop = self._check_loop()
        if key not in self._entries:
            self._entries[key] = {}
            return None
        waiter = loop.create_future()
        self._entries[key][waiter] = None
        return waiter

    def cancel(self, key: Hashable, waiter: _Waiter) -> None:
        if waiter.done() and not waiter.cancelled():
            self.unlock(key)
        elif waiter in self._entries.get(key, ()):
            del self._entries[key][waiter]

    def unlock(self, key: Hashable) -> None:
        self._check_if_any()
        if key not in self._entries:
            raise RuntimeError(f"{key!r} is not held")
        queue = self._entries[key]
        while queue:
            waiter = next(iter(queue))
            del queue[waiter]
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._entries[key]


class PrunedByCallback(_Entries[list[_Waiter]], _OneLoop):
    """A done callback takes a cancelled future out of the queue; the waiter itself only passes a grant on."""

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        queue = self._entries.get(key)
        if queue is None:
            self._entries[key] = []
            return
        waiter = loop.create_future()
        queue.append(waiter)

        def prune(done: _Waiter) -> None:
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
        self._check_if_any()
        if key not in self._entries:
            raise RuntimeError(f"{key!r} is not held")
        self._grant_next(key)

    def _grant_next(self, key: Hashable) -> None:
        queue = self._entries[key]
        waiter = next((waiter for waiter in queue if not waiter.done()), None)
        if waiter is None:
            del self._entries[key]
        else:
            waiter.set_result(None)


def closures() -> SimpleNamespace:
    """Two functions over shared variables, in a plain namespace; it has no length."""
    home = _OneLoop()
    held: dict[Hashable, list[Callable[[], bool]]] = {}

    async def lock(key: Hashable) -> None:
        loop = home._check_loop()
        if key not in held:
            held[key] = []
            return
        waiter: _Waiter = loop.create_future()
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
        home._check_if_any()
        if key not in held:
            raise RuntimeError(f"{key!r} is not held")
        while held[key]:
            if held[key].pop(0)():
                return
        del held[key]

    return SimpleNamespace(lock=lock, unlock=unlock)


@dataclass(eq=False)
class _Place:
    future: _Waiter | None
    after: _Place | None = field(default=None, repr=False)
    gone: bool = False


class LinkedPlaces(_Entries[tuple[_Place, _Place]], _OneLoop):
    """A chain per key from the holder's place to the last one; `lock` is a generator-based coroutine."""

    @types.coroutine
    def lock(self, key: Hashable) -> Generator[Any, None, None]:
        loop = self._check_loop()
        if key not in self._entries:
            place = _Place(None)
            self._entries[key] = (place, place)
            return
        holder, last = self._entries[key]
        future = loop.create_future()
        place = last.after = _Place(future)
        self._entries[key] = (holder, place)
        try:
            yield from future
        except BaseException:
            if future.done() and not future.cancelled():
                self._advance(key)
            place.gone = True
            raise

    def unlock(self, key: Hashable) -> None:
        self._check_if_any()
        if key not in self._entries:
            raise RuntimeError(f"{key!r} is not held")
        self._advance(key)

    def _advance(self, key: Hashable) -> None:
        holder, last = self._entries[key]
        place = holder.after
        while place is not None and (place.gone or place.future is None or place.future.done()):
            place = place.after
        if place is None or place.future is None:
            del self._entries[key]
            return
        self._entries[key] = (place, last)
        place.future.set_result(None)


class ShieldedGrants(_Entries[deque[_Waiter]], _OneLoop):
    """The future is shielded, so that a cancelled caller decides by itself what becomes of it."""

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        if key not in self._entries:
            self._entries[key] = deque()
            return
        queue, grant = self._entries[key], loop.create_future()
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
        self._check_if_any()
        if key not in self._entries:
            raise RuntimeError(f"{key!r} is not held")
        self._pass_on(key)

    def _pass_on(self, key: Hashable) -> None:
        if self._entries[key]:
            self._entries[key].popleft().set_result(None)
        else:
            del self._entries[key]


class ActorPerKey(_OneLoop):
    """A task per key in use serves its callers in turn and ends with the key's last user."""

    def __init__(self) -> None:
        self._callers: dict[Hashable, deque[_Waiter]] = {}
        self._freed: dict[Hashable, asyncio.Event] = {}
        self._actors: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._callers)

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
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
        self._check_if_any()
        freed = self._freed.pop(key, None)
        if freed is None:
            raise RuntimeError(f"{key!r} is not held")
        self._close_if_idle(key)
        freed.set()

    async def _serve(self, key: Hashable, callers: deque[_Waiter], freed: asyncio.Event) -> None:
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


class BargingEvents(_Entries[asyncio.Event], _OneLoop):
    """An event per holding, set when it ends; whoever waited looks again."""

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        while key in self._entries:
            await self._entries[key].wait()
        self._entries[key] = asyncio.Event()

    def unlock(self, key: Hashable) -> None:
        self._check_if_any()
        self._entries.pop(key).set()
