"""Keyed lockers for asyncio with one known mistake each; the docstring says which.

`await lock(key)`; `unlock(key)` is a plain call that raises for a key without a holder, save where that is the mistake;
`len()` counts the keys that are held or waited for. Most belong to the first loop that uses them and raise in another.
`Handing` is sound: a subclass of it shows its mistake and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from asyncio import CancelledError, Future
from collections import Counter, deque
from collections.abc import AsyncIterator, Coroutine, Hashable, MutableMapping
from contextlib import suppress
from typing import Any, Generic, TypeVar

_E = TypeVar("_E")

_Waiter = Future[None]


class _Entries(Generic[_E]):
    """An entry for each key in use."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _E] = {}

    def __len__(self) -> int:
        return len(self._entries)


class _OneLoop:
    """Refuses a second event loop."""

    _loop: asyncio.AbstractEventLoop | None = None

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        running = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = running
        if self._loop is not running:
            raise RuntimeError("this locker belongs to another event loop")
        return running


class Handing(_OneLoop):
    """Sound: a key in the table is held, its deque is the queue, and unlock grants to the head."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[_Waiter]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
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

    def _new_queue(self) -> deque[_Waiter]:
        return deque()

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        try:
            await waiter
        except BaseException:
            self._give_up(key, queue, waiter)
            raise

    def _give_up(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        if waiter.done() and not waiter.cancelled():
            self._pass_on(key)
        else:
            self._remove(queue, waiter)

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        with suppress(ValueError):
            queue.remove(waiter)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue:
            waiter = self._next(queue)
            if not waiter.done():
                waiter.set_result(None)
                return
        del self._queues[key]

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        return queue.popleft()


class _Translated(Handing):
    def _name(self, key: Hashable) -> Hashable:
        return key

    async def lock(self, key: Hashable) -> None:
        await super().lock(self._name(key))

    def unlock(self, key: Hashable) -> None:
        super().unlock(self._name(key))


class _Locks(_OneLoop):
    """A lock for each key; how it is given back is up to a subclass."""

    def __init__(self) -> None:
        self._locks: MutableMapping[Hashable, asyncio.Lock] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        lock = self._locks.setdefault(key, asyncio.Lock())
        await lock.acquire()

    def __len__(self) -> int:
        return len(self._locks)


class EvictWithWaiters(_Locks):
    """unlock takes the lock out of the table although others still wait for it."""

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        self._locks.pop(key).release()


class _Counted:
    """A lock and the number of its users."""

    def __init__(self, lock: asyncio.Lock | asyncio.Semaphore) -> None:
        self.lock = lock
        self.users = 0


class _Counting(_Entries[_Counted], _OneLoop):
    """Sound: users counts the holder and the waiters, and the last of them takes the entry out."""

    _new_lock: type[asyncio.Lock | asyncio.Semaphore] = asyncio.Lock

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entry(key)
        entry.users += 1
        await self._acquire(key, entry)

    async def _acquire(self, key: Hashable, entry: _Counted) -> None:
        try:
            await entry.lock.acquire()
        except BaseException:
            self._drop(key, entry)
            raise

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries[key]
        entry.lock.release()
        self._drop(key, entry)

    def _entry(self, key: Hashable) -> _Counted:
        return self._entries.setdefault(key, _Counted(self._new_lock()))

    def _drop(self, key: Hashable, entry: _Counted) -> None:
        entry.users -= 1
        self._evict_idle(key, entry)

    def _evict_idle(self, key: Hashable, entry: _Counted) -> None:
        if entry.users <= 0:
            del self._entries[key]


class CountAfterWait(_Counting):
    """Counts itself after the wait only, so that the count misses those who wait."""

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entry(key)
        await entry.lock.acquire()
        entry.users += 1


class EvictByLocked(_Locks):
    """Takes an open lock for an idle one, but it is also open until the woken waiter has run."""

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        lock = self._locks[key]
        lock.release()
        if not lock.locked():
            del self._locks[key]


class NonAtomicCount(_Counting):
    """Reads the count before a wait and writes it back after, over the counting of others."""

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        users = self._entries[key].users if key in self._entries else 0
        # A turn of the loop, as a real table has where it fetches or logs something.
        await asyncio.sleep(0)
        entry = self._entry(key)
        entry.users = users + 1
        await self._acquire(key, entry)


class CancelKeepsCount(_Counting):
    """Takes its count back on Exception, which CancelledError is not."""

    async def _acquire(self, key: Hashable, entry: _Counted) -> None:
        try:
            await entry.lock.acquire()
        except Exception:
            self._drop(key, entry)
            raise


class NeverEvicts(_Locks):
    """An idle key keeps its lock in the table forever."""

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        if key not in self._locks:
            raise RuntimeError(f"{key!r} is not held")
        self._locks[key].release()


class CancelDeletesKey(Handing):
    """The last waiter to give up deletes the key, although it is held."""

    def _give_up(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        super()._give_up(key, queue, waiter)
        if not queue:
            self._queues.pop(key, None)


class _FlagEntry:
    """A flag, the queue, and refs for the holder and the waiters."""

    def __init__(self) -> None:
        self.held = False
        self.refs = 0
        self.queue: deque[asyncio.Future[None]] = deque()


class _Waking(_Entries[_FlagEntry], _OneLoop):
    """unlock frees the key and wakes one that waits; who takes it then, and how one leaves, is up to a subclass."""

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entries.get(key)
        if entry is None or not entry.held:
            raise RuntimeError(f"{key!r} is not held")
        entry.held = False
        self._wake(key, entry)
        self._drop(key, entry)

    def _wake(self, key: Hashable, entry: _FlagEntry) -> None:
        raise NotImplementedError

    def _drop(self, key: Hashable, entry: _FlagEntry) -> None:
        entry.refs -= 1
        if entry.refs == 0:
            del self._entries[key]


class WakeupDropped(_Waking):
    """A waiter that was woken, but is cancelled before it runs, leaves without waking the one behind it."""

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        entry = self._entries.setdefault(key, _FlagEntry())
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

    def _wake(self, key: Hashable, entry: _FlagEntry) -> None:
        for turn in entry.queue:
            if not turn.cancelled():
                turn.set_result(None)
                break


class GrantKeptOnCancel(Handing):
    """A caller cancelled after its grant finds itself out of the queue and leaves the key held."""

    def _give_up(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        self._remove(queue, waiter)


class HandedToDeadWaiter(Handing):
    """Hands the key to the head of the queue, cancelled or not."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        pass

    def _pass_on(self, key: Hashable) -> None:
        if not self._queues[key]:
            del self._queues[key]
            return
        waiter = self._queues[key].popleft()
        if not waiter.done():
            waiter.set_result(None)


class CancelWakesNext(Handing):
    """A cancelled waiter hands on the key, also where it never had it."""

    def _give_up(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        self._remove(queue, waiter)
        if queue or not waiter.cancelled():
            self._pass_on(key)


class WokenWithoutReserving(_Waking):
    """unlock frees the key and wakes the head, which takes it without a look whether a newcomer has it."""

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        entry = self._entries.setdefault(key, _FlagEntry())
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
                    self._wake(key, entry)
                self._drop(key, entry)
                raise
        entry.held = True

    def _wake(self, key: Hashable, entry: _FlagEntry) -> None:
        while entry.queue:
            turn = entry.queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return


class CancelledAcquirerEnters(Handing):
    """Swallows the cancellation after its clean-up: the caller goes on as if it held the key."""

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        try:
            await waiter
        except CancelledError:
            self._give_up(key, queue, waiter)


class StrayUnlockAccepted(Handing):
    """unlock of a key that nobody holds does nothing and says nothing."""

    def unlock(self, key: Hashable) -> None:
        if key in self._queues:
            self._pass_on(key)


class StrayUnlockAdmitsTwo(_Counting):
    """A semaphore per key kept for the next use: a stray unlock adds a permit, and two can hold."""

    _new_lock = asyncio.Semaphore

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entry(key)
        entry.lock.release()
        if entry.users:
            self._drop(key, entry)


class FailedUnlockCorruptsCount(_Counting):
    """unlock counts down before it finds that the key is not held: a failed one leaves a count of -1."""

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        entry = self._entry(key)
        entry.users -= 1
        entry.lock.release()
        self._evict_idle(key, entry)


class _ForgetfulLease:
    """Does not remember that it was released."""

    def __init__(self, locker: _LeasesByKey, key: Hashable) -> None:
        self._locker, self._key = locker, key
        self.released = False

    def release(self) -> None:
        self._locker.unlock(self._key)
        self.released = True


class _StaleLease(_ForgetfulLease):
    """Remembers that it was released, but not which grant it stands for."""

    def release(self) -> None:
        if self.released:
            raise RuntimeError("lease already released")
        super().release()


class _LeasesByKey(Handing):
    _lease = _ForgetfulLease

    @contextlib.asynccontextmanager
    async def hold(self, key: Hashable) -> AsyncIterator[_ForgetfulLease]:
        await self.lock(key)
        lease = self._lease(self, key)
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class LeaseReleasedTwice(_LeasesByKey):
    """A lease unlocks by key each time it is released, so that its second release hits a later holder."""


class StaleLeaseReleasesLater(_LeasesByKey):
    """A lease releases once, but by key: if unlock(key) ended its grant, it ends that of a later holder."""

    _lease = _StaleLease


class SharedConditionNotifyOne(_OneLoop):
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


class WeakRegistry(_Locks):
    """Locks live in a weak dictionary, and nothing but those still inside lock() refers to them."""

    def __init__(self) -> None:
        self._locks = weakref.WeakValueDictionary()

    def unlock(self, key: Hashable) -> None:
        self._check_loop()
        self._locks[key].release()


class LastInFirstOut(Handing):
    """Hands the key to the youngest waiter."""

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        return queue.pop()


class LastFillsTheGap(Handing):
    """The youngest waiter takes the place of one that was cancelled."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        place = queue.index(waiter)
        youngest = queue.pop()
        if youngest is not waiter:
            queue[place] = youngest


class StripedKeys(_OneLoop):
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


class KeyedByType(_Translated):
    """Takes 1, 1.0 and True for three keys, although they are equal."""

    def _name(self, key: Hashable) -> Hashable:
        return (type(key), key)


class OneLockForAllKeys(StripedKeys):
    """A single stripe: every key waits for every other."""

    stripes = 1


class GuardHeldWhileWaiting(_Counting):
    """Waits for the key with the guard of the table in its hand: no other key can be locked meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._guard = asyncio.Lock()

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        async with self._guard:
            await super().lock(key)


class TakenBeforeRefused(Handing):
    """Looks at the loop when the free key has been taken already, so that a refused call keeps it."""

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


class GoesOnThoughHeld(Handing):
    """Goes to the next loop when its own has ended, with keys that are held and waited for in that."""

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is not None and not self._loop.is_running():
            self._loop = None
        return super()._check_loop()


# Held out: not to be looked at while the checker is built or tuned.


# Cancellation.


class ShieldedWaiterStays(Handing):
    """A cancelled waiter's shielded future stays queued and is granted to nobody."""

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        try:
            await asyncio.shield(waiter)
        except CancelledError:
            if waiter.cancelled():
                self._remove(queue, waiter)
            elif waiter.done():
                self._pass_on(key)
            raise


class PassesOnOnlyToWaiters(Handing):
    """A waiter cancelled after its grant leaves the key held where nobody else waits."""

    def _give_up(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        if waiter.cancelled() or not waiter.done():
            self._remove(queue, waiter)
        elif queue:
            self._pass_on(key)


class SetsResultOnCancelled(Handing):
    """Unlock resolves a future that was cancelled in the same turn and raises InvalidStateError."""

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if queue:
            queue.popleft().set_result(None)
        else:
            del self._queues[key]


class AllCancelledFallsOff(Handing):
    """Where every queued future is already cancelled, unlock forgets to evict."""

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


class SkipsOneCancelled(Handing):
    """Unlock skips one cancelled future; with two cancelled in one turn the key stays held."""

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        waiter = queue.popleft() if queue else None
        if waiter is not None and waiter.done():
            waiter = queue.popleft() if queue else None
        if waiter is None:
            del self._queues[key]
        elif not waiter.done():
            waiter.set_result(None)


class CancelPopsTheHead(Handing):
    """A cancelled waiter removes the head; needs two waiters."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        if waiter in queue:
            queue.popleft()


class CancelReversesTheRest(Handing):
    """A cancellation reverses those who remain; needs three waiters."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        kept = [other for other in queue if other is not waiter]
        queue.clear()
        queue.extendleft(kept)


class InnerTaskFinishes(Handing):
    """The wait is a task of its own; a grant it got is lost if the caller is cancelled before resuming."""

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        if key not in self._queues:
            self._queues[key] = deque()
            return
        await asyncio.ensure_future(super().lock(key))


class CheckpointAfterGrant(Handing):
    """A sleep(0) after the grant, outside the undo."""

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        await super()._wait(key, queue, waiter)
        await asyncio.sleep(0)


class ChecksThenYields(Handing):
    """A sleep(0) between finding the key free and taking it."""

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
        queue = self._queues.get(key)
        if queue is None:
            await asyncio.sleep(0)
            self._queues[key] = deque()
            return
        waiter = loop.create_future()
        queue.append(waiter)
        await self._wait(key, queue, waiter)


class TakesWhenCalled(Handing):
    """A free key is taken when lock is called; a coroutine that is never awaited keeps it (hard)."""

    def lock(self, key: Hashable) -> Coroutine[Any, Any, None]:
        self._check_loop()
        if key not in self._queues:
            self._queues[key] = deque()
            return self._taken()
        return super().lock(key)

    async def _taken(self) -> None:
        return None


# Granting.


class UnlocksOnTheNextTurn(Handing):
    """Unlock acts a turn later, so a second unlock in the same turn is accepted."""

    def unlock(self, key: Hashable) -> None:
        if key not in self._queues:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        self._check_loop().call_soon(self._settle, key)

    def _settle(self, key: Hashable) -> None:
        if key in self._queues:
            self._pass_on(key)


class ActorOutlivesItsKey(_OneLoop):
    """The task of a key stays forever where only cancelled callers remained at the last unlock."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._callers: dict[Hashable, asyncio.Queue[_Waiter]] = {}
        self._freed: dict[Hashable, asyncio.Event] = {}
        self._actors: dict[Hashable, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return len(self._actors)

    async def lock(self, key: Hashable) -> None:
        loop = self._check_loop()
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


class ThirdWaiterPushesOut(Handing):
    """The queue has room for two; the third waiter silently drops the first."""

    def _new_queue(self) -> deque[_Waiter]:
        return deque(maxlen=2)


class RankedByQueueLength(Handing):
    """Waiters are ranked by the length of the queue they met: a newcomer can pass an older one (needs four waiters)."""

    def __init__(self) -> None:
        super().__init__()
        self._met: dict[_Waiter, int] = {}

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        self._met[waiter] = len(queue)
        try:
            await super()._wait(key, queue, waiter)
        finally:
            del self._met[waiter]

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        first = min(queue, key=self._met.__getitem__)
        queue.remove(first)
        return first


class KeyedByRepr(_Translated):
    """Equal keys with different reprs, as 1 and True, do not exclude each other."""

    def _name(self, key: Hashable) -> Hashable:
        return repr(key)


class KeyedIgnoringCase(_Translated):
    """'a' and 'A' share a lock."""

    def _name(self, key: Hashable) -> Hashable:
        return key.lower() if isinstance(key, str) else key


class SameTaskWalksIn(Handing):
    """The task that holds a key is let in again."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[Hashable, asyncio.Task[Any] | None] = {}

    async def lock(self, key: Hashable) -> None:
        self._check_loop()
        if key in self._queues and self._takers.get(key) is asyncio.current_task():
            return
        await super().lock(key)
        self._takers[key] = asyncio.current_task()

    def unlock(self, key: Hashable) -> None:
        super().unlock(key)
        self._takers.pop(key, None)


class FailedUnlockLeavesEntry(_Counting):
    """A failed unlock creates the entry it looked up."""

    def unlock(self, key: Hashable) -> None:
        self._entry(key)
        super().unlock(key)


class LenCountsWaiters(Handing):
    """len counts waiters too; wrong under contention only."""

    def __len__(self) -> int:
        return sum(1 + len(queue) for queue in self._queues.values())


class LoopCheckedWhenWaiting(Handing):
    """The loop is checked on the contended path only."""

    async def lock(self, key: Hashable) -> None:
        if key not in self._queues:
            self._queues[key] = deque()
            return
        await super().lock(key)


class LoopForgottenWhenIdle(Handing):
    """An idle locker moves to another loop, also while its own still runs."""

    def _pass_on(self, key: Hashable) -> None:
        super()._pass_on(key)
        if not self._queues:
            self._loop = None


class ForgetsToPassOnTwice(Handing):
    """Whoever gives up lets the others have a turn first; if it is cancelled once more in that time, it keeps the
    grant that it was given."""

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        try:
            await waiter
        except BaseException:
            await asyncio.sleep(0)
            self._give_up(key, queue, waiter)
            raise


class LongWaitersLast(Handing):
    """Who has waited for a minute is served after all who have not."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[_Waiter, float] = {}

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        self._since[waiter] = waiter.get_loop().time()
        try:
            await super()._wait(key, queue, waiter)
        finally:
            del self._since[waiter]

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        patient = queue[0].get_loop().time() - 60
        chosen = next((waiter for waiter in queue if self._since.get(waiter, patient) > patient), queue[0])
        queue.remove(chosen)
        return chosen


class SleepsWhileUnlockEnds(Handing):
    """A woken waiter sleeps for a millisecond, so that the unlock is through, and then writes itself down as the owner:
    where the unlock takes longer, it strikes out the new owner."""

    def __init__(self) -> None:
        super().__init__()
        self._owners: dict[Hashable, object] = {}

    async def lock(self, key: Hashable) -> None:
        await super().lock(key)
        self._owners[key] = asyncio.current_task()

    async def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        try:
            await waiter
            await asyncio.sleep(0.001)
        except BaseException:
            self._give_up(key, queue, waiter)
            raise

    async def unlock(self, key: Hashable) -> None:  # type: ignore[override]
        if key not in self._owners:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        self._pass_on(key)
        for _ in range(4):
            await asyncio.sleep(0)
        self._owners.pop(key, None)
