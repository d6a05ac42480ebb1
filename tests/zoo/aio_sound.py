"""Sound keyed lockers for asyncio, each in another style, and two that only lack first-in-first-out.

`await lock(key)`; `unlock(key)` is a plain call and raises RuntimeError for a key without a holder; `len()`
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
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Hashable


class Ticketed:
    """lock and unlock over two calls each style writes in its own way; the first loop to use it owns it."""

    _loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> None:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        elif self._loop is not running:
            raise RuntimeError(f"{self!r} belongs to another event loop")

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


class Lease:
    """One grant of one key."""

    def __init__(self, locker: Ticketed, key: Hashable, ticket: object) -> None:
        self._locker, self._key, self._ticket = locker, key, ticket
        self.released = False

    def release(self) -> None:
        self._locker._check_loop()
        self._locker._release(self._key, self._ticket)
        self.released = True


class Leases(Ticketed):
    """Adds hold() to a locker whose tickets name the grant."""

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[Lease]:
        self._check_loop()
        lease = Lease(self, key, await self._acquire(key))
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class FutureEntry:
    """A holder's ticket and the futures of those behind it."""

    def __init__(self, holder: object) -> None:
        self.holder = holder
        self.waiters: deque[asyncio.Future[None]] = deque()


class FuturePerWaiter(Ticketed):
    """A future per waiter; unlock makes it the holder before it completes it. Evicts by key."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, FutureEntry] = {}

    async def _acquire(self, key: Hashable) -> object:
        me: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = self._entries.get(key)
        if entry is None:
            self._entries[key] = FutureEntry(me)
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

    def _evict(self, key: Hashable, entry: FutureEntry) -> None:
        del self._entries[key]

    def _hand_on(self, key: Hashable, entry: FutureEntry) -> None:
        while entry.waiters:
            heir = entry.waiters.popleft()
            if not heir.done():
                entry.holder = heir
                heir.set_result(None)
                return
        entry.holder = None
        self._evict(key, entry)

    def _release(self, key: Hashable, ticket: object | None) -> None:
        entry = self._entries.get(key)
        if entry is None or ticket not in (None, entry.holder):
            raise RuntimeError(f"{key!r} is not held")
        self._hand_on(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class FuturePerWaiterByIdentity(FuturePerWaiter):
    """FuturePerWaiter that evicts an entry only where the table still has this very entry."""

    def _evict(self, key: Hashable, entry: FutureEntry) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]


class FutureQueue(Ticketed):
    """An ordered dict of futures per key whose first one is the holder's; leaving is O(1)."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, OrderedDict[asyncio.Future[None], None]] = {}

    async def _acquire(self, key: Hashable) -> object:
        queue = self._queues.setdefault(key, OrderedDict())
        me: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue[me] = None
        if len(queue) == 1:
            me.set_result(None)
            return me
        entered = False
        try:
            await me
            entered = True
        finally:
            if not entered and me in queue:
                self._leave(key, queue, me)
        return me

    def _leave(
        self, key: Hashable, queue: OrderedDict[asyncio.Future[None], None], me: asyncio.Future[None]
    ) -> None:
        del queue[me]
        # A cancelled future may still be in the queue, as its task runs later: it is passed over.
        if any(place.done() and not place.cancelled() for place in queue):
            return
        heir = next((place for place in queue if not place.done()), None)
        if heir is not None:
            queue.move_to_end(heir, last=False)
            heir.set_result(None)
        elif not queue:
            del self._queues[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        queue = self._queues.get(key)
        holder = None if queue is None else next(iter(queue))
        if queue is None or holder is None or holder.cancelled() or ticket not in (None, holder):
            raise RuntimeError(f"{key!r} is not held")
        self._leave(key, queue, holder)

    def __len__(self) -> int:
        return len(self._queues)


class LockEntry:
    """users counts the holder and the waiters; ticket is None until the next holder has run."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0
        self.ticket: object | None = None


class LockAndCountNoLoopCheck(Ticketed):
    """An asyncio.Lock with a count, which leaves the loop to asyncio.Lock, that looks only where it waits."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, LockEntry] = {}

    def _check_loop(self) -> None:
        pass

    async def _acquire(self, key: Hashable) -> object:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = LockEntry()
        entry.users += 1
        try:
            await entry.lock.acquire()
        except BaseException:
            self._drop(key, entry)
            raise
        entry.ticket = ticket = object()
        return ticket

    def _drop(self, key: Hashable, entry: LockEntry) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        entry = self._entries.get(key)
        if entry is None or entry.ticket is None or ticket not in (None, entry.ticket):
            raise RuntimeError(f"{key!r} is not held")
        entry.ticket = None
        entry.lock.release()
        self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class LockAndCount(LockAndCountNoLoopCheck):
    """An asyncio.Lock with a count, and the loop checked at each call."""

    _check_loop = Ticketed._check_loop


class ConditionTable(Ticketed):
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


class EventPerWaiter(Ticketed):
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


class EventEntry:
    """users counts the holder and those that poll."""

    def __init__(self) -> None:
        self.held: object | None = None
        self.users = 0
        self.freed = asyncio.Event()


class FlagAndEvent(Ticketed):
    """A flag, a count and an Event that wakes everybody to look again: sound but for order."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, EventEntry] = {}

    async def _acquire(self, key: Hashable) -> object:
        entry = self._entries.setdefault(key, EventEntry())
        entry.users += 1
        try:
            while entry.held is not None:
                entry.freed.clear()
                await entry.freed.wait()
        except BaseException:
            self._drop(key, entry)
            raise
        entry.held = ticket = object()
        return ticket

    def _drop(self, key: Hashable, entry: EventEntry) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        entry = self._entries.get(key)
        if entry is None or entry.held is None or ticket not in (None, entry.held):
            raise RuntimeError(f"{key!r} is not held")
        entry.held = None
        entry.freed.set()
        self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class FlagAndCondition(Ticketed):
    """A dict of [holder, count] and one Condition, `while held: await wait()`: sound but for order."""

    def __init__(self) -> None:
        self._freed: asyncio.Condition | None = None
        self._entries: dict[Hashable, list] = {}
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

    def __len__(self) -> int:
        return len(self._entries)


class FuturePerWaiterLeases(Leases, FuturePerWaiter):
    """FuturePerWaiter with hold()."""


class FuturePerWaiterByIdentityLeases(Leases, FuturePerWaiterByIdentity):
    """FuturePerWaiterByIdentity with hold()."""


class FutureQueueLeases(Leases, FutureQueue):
    """FutureQueue with hold()."""


class LockAndCountLeases(Leases, LockAndCount):
    """LockAndCount with hold()."""


class LockAndCountNoLoopCheckLeases(Leases, LockAndCountNoLoopCheck):
    """LockAndCountNoLoopCheck with hold()."""


class ConditionTableLeases(Leases, ConditionTable):
    """ConditionTable with hold()."""


class EventPerWaiterLeases(Leases, EventPerWaiter):
    """EventPerWaiter with hold()."""


class FlagAndEventLeases(Leases, FlagAndEvent):
    """FlagAndEvent with hold()."""


class FlagAndConditionLeases(Leases, FlagAndCondition):
    """FlagAndCondition with hold()."""
