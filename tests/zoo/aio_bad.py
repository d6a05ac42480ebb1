"""Keyed lockers for asyncio with one known mistake each; the docstring of each class says which.

`await lock(key)`; `unlock(key)` is a plain call that raises for a key without a holder, save where that is
the mistake; `len()` counts the keys that are held or waited for. All but TwoLoops belong to the first loop
that uses them and raise in another.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Hashable


class OneLoop:
    """Refuses a second event loop."""

    _loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise RuntimeError(f"{self!r} belongs to another event loop")
        return running


class EvictWithWaiters(OneLoop):
    """unlock takes the lock out of the table although others still wait for it."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        lock = self._locks.setdefault(key, asyncio.Lock())
        await lock.acquire()

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        self._locks.pop(key).release()

    def __len__(self) -> int:
        return len(self._locks)


class Counted:
    """A lock and the number of its users."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class CountAfterWait(OneLoop):
    """Counts itself after the wait only, so that the count misses those who wait."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, Counted] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.setdefault(key, Counted())
        await entry.lock.acquire()
        entry.users += 1

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries[key]
        entry.lock.release()
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class EvictByLocked(OneLoop):
    """Takes an open lock for an idle one, but it is also open until the woken waiter has run."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        if key not in self._locks:
            self._locks[key] = asyncio.Lock()
        await self._locks[key].acquire()

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        lock = self._locks[key]
        lock.release()
        if not lock.locked():
            del self._locks[key]

    def __len__(self) -> int:
        return len(self._locks)


class NonAtomicCount(OneLoop):
    """Reads the count before a wait and writes it back after, over the counting of others."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}
        self._users: dict[Hashable, int] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        users = self._users.get(key, 0)
        # A turn of the loop, as a real table has where it fetches or logs something.
        await asyncio.sleep(0)
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] = users + 1
        try:
            await lock.acquire()
        except BaseException:
            self._drop(key)
            raise

    def _drop(self, key: Hashable) -> None:
        self._users[key] -= 1
        if self._users[key] <= 0:
            del self._users[key], self._locks[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        self._locks[key].release()
        self._drop(key)

    def __len__(self) -> int:
        return len(self._locks)


class CancelKeepsCount(OneLoop):
    """Takes its count back on Exception, which CancelledError is not."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, Counted] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.setdefault(key, Counted())
        entry.users += 1
        try:
            await entry.lock.acquire()
        except Exception:
            self._drop(key, entry)
            raise

    def _drop(self, key: Hashable, entry: Counted) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries[key]
        entry.lock.release()
        self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class NeverEvicts(OneLoop):
    """An idle key keeps its lock in the table for ever."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        await self._locks.setdefault(key, asyncio.Lock()).acquire()

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        if key not in self._locks:
            raise RuntimeError(f"{key!r} is not held")
        self._locks[key].release()

    def __len__(self) -> int:
        return len(self._locks)


class Handing(OneLoop):
    """The plain sound form that others below depart from: a queue of futures per held key."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        if key not in self._queues:
            self._queues[key] = deque()
            return
        queue = self._queues[key]
        turn = loop.create_future()
        queue.append(turn)
        try:
            await turn
        except BaseException:
            self._give_up(key, queue, turn)
            raise

    def _give_up(self, key: Hashable, queue: deque[asyncio.Future[None]], turn: asyncio.Future[None]) -> None:
        if turn in queue:
            queue.remove(turn)
        elif not turn.cancelled():
            self._hand_on(key)

    def _hand_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue:
            turn = self._next(queue)
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[key]

    def _next(self, queue: deque[asyncio.Future[None]]) -> asyncio.Future[None]:
        return queue.popleft()

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        if key not in self._queues:
            raise RuntimeError(f"{key!r} is not held")
        self._hand_on(key)

    def __len__(self) -> int:
        return len(self._queues)


class CancelDeletesKey(Handing):
    """The last waiter to give up deletes the key, although it is held."""

    def _give_up(self, key: Hashable, queue: deque[asyncio.Future[None]], turn: asyncio.Future[None]) -> None:
        super()._give_up(key, queue, turn)
        if not queue:
            self._queues.pop(key, None)


class FlagEntry:
    """A flag, the queue, and refs for the holder and the waiters."""

    def __init__(self) -> None:
        self.held = False
        self.refs = 0
        self.queue: deque[asyncio.Future[None]] = deque()


class WakeupDropped(OneLoop):
    """A waiter that was woken, but is cancelled before it runs, leaves without waking the one behind it."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, FlagEntry] = {}

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        entry = self._entries.setdefault(key, FlagEntry())
        entry.refs += 1
        if entry.held or entry.queue:
            turn = loop.create_future()
            entry.queue.append(turn)
            try:
                await turn
            except BaseException:
                self._drop(key, entry)
                raise
            finally:
                entry.queue.remove(turn)
        entry.held = True

    def _drop(self, key: Hashable, entry: FlagEntry) -> None:
        entry.refs -= 1
        if entry.refs == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.get(key)
        if entry is None or not entry.held:
            raise RuntimeError(f"{key!r} is not held")
        entry.held = False
        self._drop(key, entry)
        for turn in entry.queue:
            if not turn.cancelled():
                turn.set_result(None)
                break

    def __len__(self) -> int:
        return len(self._entries)


class GrantKeptOnCancel(OneLoop):
    """A caller cancelled after its grant finds itself out of the queue and leaves the key held."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        if key not in self._queues:
            self._queues[key] = deque()
            return
        queue = self._queues[key]
        turn = loop.create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            with contextlib.suppress(ValueError):
                queue.remove(turn)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        queue = self._queues[key]
        while queue:
            turn = queue.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                return
        del self._queues[key]

    def __len__(self) -> int:
        return len(self._queues)


class CancelledHeadStays(OneLoop):
    """Wakes the head, which takes itself out when it runs; a cancelled one stays and blocks the rest."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, FlagEntry] = {}

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        entry = self._entries.setdefault(key, FlagEntry())
        if entry.held or entry.queue:
            turn = loop.create_future()
            entry.queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    entry.queue.popleft()
                    self._wake(key, entry)
                raise
            entry.queue.popleft()
        entry.held = True

    def _wake(self, key: Hashable, entry: FlagEntry) -> None:
        if not entry.queue:
            del self._entries[key]
        elif not entry.queue[0].done():
            entry.queue[0].set_result(None)

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.get(key)
        if entry is None or not entry.held:
            raise RuntimeError(f"{key!r} is not held")
        entry.held = False
        self._wake(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class HandedToDeadWaiter(Handing):
    """Hands the key to the head of the queue, cancelled or not."""

    def _give_up(self, key: Hashable, queue: deque[asyncio.Future[None]], turn: asyncio.Future[None]) -> None:
        if turn not in queue and not turn.cancelled():
            self._hand_on(key)

    def _hand_on(self, key: Hashable) -> None:
        if not self._queues[key]:
            del self._queues[key]
            return
        turn = self._queues[key].popleft()
        if not turn.done():
            turn.set_result(None)


class CancelWakesNext(Handing):
    """A cancelled waiter hands on the key, also where it never had it."""

    def _give_up(self, key: Hashable, queue: deque[asyncio.Future[None]], turn: asyncio.Future[None]) -> None:
        if turn in queue:
            queue.remove(turn)
        if queue or not turn.cancelled():
            self._hand_on(key)


class WokenWithoutReserving(OneLoop):
    """unlock frees the key and wakes the head, which takes it without a look whether a newcomer has it."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, FlagEntry] = {}

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        entry = self._entries.setdefault(key, FlagEntry())
        entry.refs += 1
        if entry.held:
            turn = loop.create_future()
            entry.queue.append(turn)
            try:
                await turn
            except BaseException:
                if turn in entry.queue:
                    entry.queue.remove(turn)
                elif not turn.cancelled() and not entry.held:
                    self._wake(entry)
                self._drop(key, entry)
                raise
        entry.held = True

    def _wake(self, entry: FlagEntry) -> None:
        while entry.queue:
            turn = entry.queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _drop(self, key: Hashable, entry: FlagEntry) -> None:
        entry.refs -= 1
        if entry.refs == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.get(key)
        if entry is None or not entry.held:
            raise RuntimeError(f"{key!r} is not held")
        entry.held = False
        self._wake(entry)
        self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class CancelledAcquirerEnters(OneLoop):
    """Swallows the cancellation after its clean-up: the caller goes on as if it held the key."""

    def __init__(self) -> None:
        self._holders: dict[Hashable, asyncio.Event] = {}
        self._waiting: dict[Hashable, list[asyncio.Event]] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        turn = asyncio.Event()
        if key not in self._holders:
            self._holders[key] = turn
            return
        self._waiting.setdefault(key, []).append(turn)
        try:
            await turn.wait()
        except asyncio.CancelledError:
            if turn.is_set():
                self._pass_on(key)
            else:
                self._leave(key, turn)

    def _leave(self, key: Hashable, turn: asyncio.Event) -> None:
        self._waiting[key].remove(turn)
        if not self._waiting[key]:
            del self._waiting[key]

    def _pass_on(self, key: Hashable) -> None:
        if key in self._waiting:
            turn = self._waiting[key][0]
            self._leave(key, turn)
            self._holders[key] = turn
            turn.set()
        else:
            del self._holders[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        if key not in self._holders:
            raise RuntimeError(f"{key!r} is not held")
        self._pass_on(key)

    def __len__(self) -> int:
        return len(self._holders)


class StrayUnlockAccepted(Handing):
    """unlock of a key that nobody holds does nothing and says nothing."""

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        if key in self._queues:
            self._hand_on(key)


class SemaphoreEntry:
    """A semaphore of one permit and the number of its users."""

    def __init__(self) -> None:
        self.permit = asyncio.Semaphore(1)
        self.users = 0


class StrayUnlockAdmitsTwo(OneLoop):
    """A semaphore per key kept for the next use: a stray unlock adds a permit, and two can hold."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, SemaphoreEntry] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.setdefault(key, SemaphoreEntry())
        entry.users += 1
        try:
            await entry.permit.acquire()
        except BaseException:
            self._drop(key, entry)
            raise

    def _drop(self, key: Hashable, entry: SemaphoreEntry) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.setdefault(key, SemaphoreEntry())
        entry.permit.release()
        if entry.users:
            self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class FailedUnlockCorruptsCount(OneLoop):
    """unlock counts down before it finds that the key is not held: a failed one leaves a count of -1."""

    def __init__(self) -> None:
        self._users: Counter[Hashable] = Counter()
        self._locks: dict[Hashable, asyncio.Lock] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        lock = self._locks.setdefault(key, asyncio.Lock())
        self._users[key] += 1
        try:
            await lock.acquire()
        except BaseException:
            self._users[key] -= 1
            self._evict_idle(key)
            raise

    def _evict_idle(self, key: Hashable) -> None:
        if self._users[key] <= 0:
            del self._users[key], self._locks[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        self._users[key] -= 1
        self._locks[key].release()
        self._evict_idle(key)

    def __len__(self) -> int:
        return len(self._users)


class ForgetfulLease:
    """Does not remember that it was released."""

    def __init__(self, locker: LeaseReleasedTwice, key: Hashable) -> None:
        self._locker, self._key = locker, key
        self.released = False

    def release(self) -> None:
        self._locker.unlock(self._key)
        self.released = True


class LeaseReleasedTwice(Handing):
    """A lease unlocks by key each time it is released, so that its second release hits a later holder."""

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[ForgetfulLease]:
        await self.lock(key)
        lease = ForgetfulLease(self, key)
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class StaleLease:
    """Remembers that it was released, but not which grant it stands for."""

    def __init__(self, locker: StaleLeaseReleasesLater, key: Hashable) -> None:
        self._locker, self._key = locker, key
        self.released = False

    def release(self) -> None:
        if self.released:
            raise RuntimeError("lease already released")
        self._locker.unlock(self._key)
        self.released = True


class StaleLeaseReleasesLater(Handing):
    """A lease releases once, but by key: if unlock(key) ended its grant, it ends that of a later holder."""

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[StaleLease]:
        await self.lock(key)
        lease = StaleLease(self, key)
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class SharedConditionNotifyOne(OneLoop):
    """One list of sleepers for all keys, and unlock wakes the first of it: maybe that of another key."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, list[object]] = {}
        self._sleepers: deque[asyncio.Future[None]] = deque()

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        ticket = object()
        line = self._lines.setdefault(key, [])
        line.append(ticket)
        try:
            while ticket in line and line[0] is not ticket:
                sleeper = loop.create_future()
                self._sleepers.append(sleeper)
                try:
                    await sleeper
                finally:
                    self._sleepers.remove(sleeper)
        except BaseException:
            if ticket in line:
                granted = line[0] is ticket
                self._leave(key, line, ticket)
                if granted:
                    self._notify()
            raise

    def _leave(self, key: Hashable, line: list[object], ticket: object) -> None:
        line.remove(ticket)
        if not line:
            del self._lines[key]

    def _notify(self) -> None:
        for sleeper in self._sleepers:
            if not sleeper.done():
                sleeper.set_result(None)
                return

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        line = self._lines.get(key)
        if line is None:
            raise RuntimeError(f"{key!r} is not held")
        self._leave(key, line, line[0])
        self._notify()

    def __len__(self) -> int:
        return len(self._lines)


class WeakRegistry(OneLoop):
    """Locks live in a weak dictionary, and nothing but those still inside lock() refers to them."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[Hashable, asyncio.Lock] = weakref.WeakValueDictionary()

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        lock = self._locks.setdefault(key, asyncio.Lock())
        await lock.acquire()

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        self._locks[key].release()

    def __len__(self) -> int:
        return len(self._locks)


class LastInFirstOut(Handing):
    """Hands the key to the youngest waiter."""

    def _next(self, queue: deque[asyncio.Future[None]]) -> asyncio.Future[None]:
        return queue.pop()


class LastFillsTheGap(Handing):
    """The youngest waiter takes the place of one that was cancelled, so that nothing need be moved."""

    def _give_up(self, key: Hashable, queue: deque[asyncio.Future[None]], turn: asyncio.Future[None]) -> None:
        if turn not in queue:
            super()._give_up(key, queue, turn)
            return
        place = queue.index(turn)
        youngest = queue.pop()
        if youngest is not turn:
            queue[place] = youngest


class StripedKeys(OneLoop):
    """A fixed number of locks shared by all keys, so that keys of one stripe wait for each other."""

    stripes = 8

    def __init__(self) -> None:
        self._locks = [asyncio.Lock() for _ in range(self.stripes)]
        self._holders: dict[int, Hashable] = {}
        self._users: Counter[Hashable] = Counter()

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        stripe = hash(key) % self.stripes
        self._users[key] += 1
        try:
            await self._locks[stripe].acquire()
        except BaseException:
            self._forget(key)
            raise
        self._holders[stripe] = key

    def _forget(self, key: Hashable) -> None:
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        stripe = hash(key) % self.stripes
        if stripe not in self._holders or self._holders[stripe] != key:
            raise RuntimeError(f"{key!r} is not held")
        del self._holders[stripe]
        self._locks[stripe].release()
        self._forget(key)

    def __len__(self) -> int:
        return len(self._users)


class KeyedByType(Handing):
    """Takes 1, 1.0 and True for three keys, although they are equal."""

    async def lock(self, key: Hashable) -> None:
        await super().lock((type(key), key))

    def unlock(self, key: Hashable) -> None:
        super().unlock((type(key), key))


class OneLockForAllKeys(StripedKeys):
    """A single stripe: every key waits for every other."""

    stripes = 1


class GuardHeldWhileWaiting(OneLoop):
    """Waits for the key with the guard of the table in its hand: no other key can be locked meanwhile."""

    def __init__(self) -> None:
        self._guard = asyncio.Lock()
        self._entries: dict[Hashable, Counted] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        async with self._guard:
            entry = self._entries.setdefault(key, Counted())
            entry.users += 1
            try:
                await entry.lock.acquire()
            except BaseException:
                self._drop(key, entry)
                raise

    def _drop(self, key: Hashable, entry: Counted) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries[key]
        entry.lock.release()
        self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class TakenBeforeRefused(Handing):
    """Looks at the loop when the free key has been taken already."""

    async def lock(self, key: Hashable) -> None:
        if key in self._queues:
            await super().lock(key)
            return
        self._queues[key] = deque()
        self._check_loop()


class TwoLoops(Handing):
    """Never looks at the loop, so that one loop completes a future of another and its waiter is not woken."""

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()
