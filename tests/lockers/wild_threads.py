"""Published bugs of keyed locks and single-flight groups for threads, each written anew beside its repaired twin.

`wild.toml` names where each was published. A twin and its bad one differ in the one mistake only, so the bad one
is a subclass. Each keeps the shape that such projects give it: `lock` and `unlock`, an accessor, a block, a token, ...
The recipes on a plain lock and a count never promised an order.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from itertools import islice
from threading import Event, Lock, Semaphore, get_ident
from typing import Any, ClassVar
from weakref import WeakValueDictionary


class _Entry:
    """What a key in use has: its lock, and how many hold it or wait for it."""

    __slots__ = ("__weakref__", "key", "lock", "owner", "users")

    def __init__(self) -> None:
        self.lock = Lock()
        self.users = 0
        self.owner: int | None = None
        self.key: Hashable = None


def _seconds(timeout: float | None) -> float:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be zero or more, not {timeout!r}")
    return -1 if timeout is None else timeout


class _Counted:
    """A guard, and an entry for each key that is held or waited for, which goes with its last user."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def _enter(self, key: Hashable) -> _Entry:
        entry = self._join(key)
        try:
            entry.lock.acquire()
        except BaseException:
            with self._guard:
                self._leave(key, entry)
            raise
        return entry

    def _join(self, key: Hashable) -> _Entry:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
            return entry

    def _held(self, key: Hashable) -> _Entry:
        if key not in self._entries:
            raise RuntimeError(f"nobody holds {key!r}")
        return self._entries[key]

    def _leave(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[key]


class MobyLockerRepaired(_Counted):
    """Repaired: the last reference and the entry go in one turn of the guard."""

    def lock(self, key: Hashable) -> None:
        self._enter(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._held(key)
            entry.lock.release()
            self._leave(key, entry)


class MobyLocker(MobyLockerRepaired):
    """KM-EXCL: unlock counts down in one turn of the guard and takes the entry out in another, over a new caller."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._held(key)
            entry.lock.release()
            entry.users -= 1
            idle = not entry.users
        if idle:
            with self._guard:
                self._entries.pop(key, None)


class _Swept:
    __slots__ = ("lock", "waiting")

    def __init__(self) -> None:
        self.lock = Lock()
        self.waiting = 0


class PouchKMutexRepaired:
    """Repaired: the sweep takes out what has neither a waiter nor a holder."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._keys: dict[Hashable, _Swept] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._keys.setdefault(key, _Swept())
            entry.waiting += 1
        try:
            entry.lock.acquire()
        except BaseException:
            with self._guard:
                entry.waiting -= 1
                self._sweep(key)
            raise
        with self._guard:
            entry.waiting -= 1

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._keys:
                raise RuntimeError(f"unlock of unlocked key {key!r}")
            self._keys[key].lock.release()
            self._sweep(key)

    def _idle(self, entry: _Swept) -> bool:
        return not entry.waiting and not entry.lock.locked()

    def _sweep(self, used: Hashable) -> None:
        for key in {used, *islice(self._keys, 4)}:
            if key in self._keys and self._idle(self._keys[key]):
                del self._keys[key]


class PouchKMutex(PouchKMutexRepaired):
    """KM-EXCL: the sweep looks for waiters and not for the holder, so it takes out keys that are held."""

    def _idle(self, entry: _Swept) -> bool:
        return not entry.waiting


class GuavaWeakLocksRepaired:
    """Repaired: the lock of a held key has a strong reference as long as it is held."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._locks: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()
        self._held: dict[Hashable, Any] = {}

    def acquire(self, key: Hashable, blocking: bool = True) -> bool:
        lock = self._lock_for(key)
        if not lock.acquire(blocking):
            return False
        self._keep(key, lock)
        return True

    def release(self, key: Hashable) -> None:
        lock = self._lock_for(key)
        self._held.pop(key, None)
        lock.release()

    def _keep(self, key: Hashable, lock: Any) -> None:
        self._held[key] = lock

    def _lock_for(self, key: Hashable) -> Any:
        with self._guard:
            lock = self._locks.get(key)
            if lock is None:
                lock = self._locks[key] = Lock()
            return lock


class GuavaWeakLocks(GuavaWeakLocksRepaired):
    """KM-EXCL: nothing but the weak table knows the lock of a held key, so the next caller gets another lock."""

    def _keep(self, key: Hashable, lock: Any) -> None:
        pass


class BonoboExclusiveRepaired:
    """Repaired: the registry of the class is read and written in one turn of its guard. One object for each key."""

    _guard = Lock()
    _locks: ClassVar[WeakValueDictionary[Hashable, Any]] = WeakValueDictionary()

    def __init__(self, key: Hashable) -> None:
        with self._guard:
            self._lock = self._of(key)

    @classmethod
    def _of(cls, key: Hashable) -> Any:
        lock = cls._locks.get(key)
        if lock is None:
            lock = cls._locks[key] = Lock()
        return lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class BonoboExclusive(BonoboExclusiveRepaired):
    """KM-EXCL: nothing guards the step from not finding a lock in the registry to putting a new one there."""

    _locks: ClassVar[WeakValueDictionary[Hashable, Any]] = WeakValueDictionary()

    def __init__(self, key: Hashable) -> None:
        self._lock = self._of(key)


class LockProviderCountRepaired:
    """Repaired: the count of users is read and written back in one turn of the guard."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._users: dict[Hashable, int] = {}
        self._locks: dict[Hashable, Any] = {}

    def acquire(self, key: Hashable) -> bool:
        lock = self._enter(key)
        try:
            return bool(lock.acquire())
        except BaseException:
            with self._guard:
                self._leave(key)
            raise

    def _enter(self, key: Hashable) -> Any:
        with self._guard:
            self._join(key)
            return self._locks.setdefault(key, Lock())

    def release(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._locks:
                raise RuntimeError(f"nobody holds {key!r}")
            self._locks[key].release()
            self._leave(key)

    def _join(self, key: Hashable) -> None:
        users = self._users.get(key, 0)
        self._users[key] = users + 1

    def _leave(self, key: Hashable) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key], self._locks[key]


class LockProviderCount(LockProviderCountRepaired):
    """KM-EXCL: two callers count themselves at once and are counted as one, so the first to leave evicts the other."""

    def _enter(self, key: Hashable) -> Any:
        self._join(key)
        with self._guard:
            return self._locks.setdefault(key, Lock())


class AsyncKeyedLockPoolRepaired(_Counted):
    """Repaired: who found an entry without the guard looks under it whether it is still the entry of that key."""

    def __init__(self) -> None:
        super().__init__()
        self._spare: _Entry | None = None

    @contextlib.contextmanager
    def lock(self, key: Hashable) -> Iterator[None]:
        entry = self._join(key)
        try:
            with entry.lock:
                yield
        finally:
            self._leave(entry)

    def _join(self, key: Hashable) -> _Entry:
        while True:
            entry = self._entries.get(key)
            with self._guard:
                if entry is not None:
                    if self._joined(entry, key):
                        return entry
                elif key not in self._entries:
                    entry, self._spare = self._spare or _Entry(), None
                    entry.key, entry.users = key, 1
                    self._entries[key] = entry
                    return entry

    def _joined(self, entry: _Entry, key: Hashable) -> bool:
        if not entry.users or entry.key != key:
            return False
        entry.users += 1
        return True

    def _leave(self, entry: _Entry) -> None:
        with self._guard:
            entry.users -= 1
            if not entry.users:
                self._entries.pop(entry.key, None)
                entry.key, self._spare = None, entry


class AsyncKeyedLockPool(AsyncKeyedLockPoolRepaired):
    """KM-EXCL: a caller joins an entry that was given back to the pool after it had found it."""

    def _joined(self, entry: _Entry, key: Hashable) -> bool:
        entry.users += 1
        return True


class _Doorman:
    __slots__ = ("busy", "gone", "guard", "queue")

    def __init__(self) -> None:
        self.guard = Lock()
        self.queue: deque[Any] = deque()
        self.busy = self.gone = False


class ImageSharpDoormenRepaired:
    """Repaired: a doorman that leaves the table says so, and who had found him before looks for another."""

    def __init__(self) -> None:
        self._doormen: dict[Hashable, _Doorman] = {}

    def lock(self, key: Hashable) -> None:
        while True:
            doorman = self._doormen.setdefault(key, _Doorman())
            with doorman.guard:
                if doorman.gone:
                    continue
                if not doorman.busy:
                    doorman.busy = True
                    return
                gate = Lock()
                gate.acquire()
                doorman.queue.append(gate)
                break
        try:
            gate.acquire()
        except BaseException:
            with doorman.guard:
                if gate in doorman.queue:
                    doorman.queue.remove(gate)
                else:
                    self._next(key, doorman)
            raise

    def unlock(self, key: Hashable) -> None:
        doorman = self._doormen.get(key)
        if doorman is None:
            raise RuntimeError(f"nobody holds {key!r}")
        with doorman.guard:
            if doorman.gone or not doorman.busy:
                raise RuntimeError(f"nobody holds {key!r}")
            self._next(key, doorman)

    def _next(self, key: Hashable, doorman: _Doorman) -> None:
        if doorman.queue:
            doorman.queue.popleft().release()
        else:
            doorman.gone = True
            del self._doormen[key]


class ImageSharpDoormen(ImageSharpDoormenRepaired):
    """KM-LIVE: a doorman leaves the table marked busy, and a caller that had found him queues there, never served."""

    def _next(self, key: Hashable, doorman: _Doorman) -> None:
        if doorman.queue:
            doorman.queue.popleft().release()
        else:
            del self._doormen[key]


class _Lease:
    __slots__ = ("entry", "key", "owner", "spent")

    def __init__(self, key: Hashable, entry: Any) -> None:
        self.key, self.entry = key, entry
        self.owner = get_ident()
        self.spent = False


class MeziantouLeasesRepaired(_Counted):
    """Repaired: a lease is spent once the release has succeeded. Only the thread that locked may release."""

    def lock(self, key: Hashable) -> _Lease:
        return _Lease(key, self._enter(key))

    def unlock(self, lease: _Lease) -> None:
        with self._guard:
            if lease.spent:
                raise RuntimeError("this lease has been given back")
            self._exit(lease)
            lease.spent = True

    def _exit(self, lease: _Lease) -> None:
        if lease.owner != get_ident():
            raise RuntimeError("another thread has locked this")
        lease.entry.lock.release()
        self._leave(lease.key, lease.entry)


class MeziantouLeases(MeziantouLeasesRepaired):
    """KM-ATOMIC: a lease counts as spent before the release that may fail; after one, the owner can't free the key."""

    def unlock(self, lease: _Lease) -> None:
        with self._guard:
            if lease.spent:
                raise RuntimeError("this lease has been given back")
            lease.spent = True
            self._exit(lease)


class _Permit:
    __slots__ = ("semaphore", "users")

    def __init__(self) -> None:
        self.semaphore = Semaphore(1)
        self.users = 0


class MeziantouDisposerRepaired:
    """Repaired: whether a lease is spent is read and written in one turn of the guard."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._permits: dict[Hashable, _Permit] = {}

    def lock(self, key: Hashable) -> _Lease:
        with self._guard:
            permit = self._permits.setdefault(key, _Permit())
            permit.users += 1
        try:
            permit.semaphore.acquire()
        except BaseException:
            with self._guard:
                self._leave(key, permit)
            raise
        return _Lease(key, permit)

    def unlock(self, lease: _Lease) -> None:
        with self._guard:
            if lease.spent:
                raise RuntimeError("this lease has been given back")
            lease.spent = True
            lease.entry.semaphore.release()
            self._leave(lease.key, lease.entry)

    def _leave(self, key: Hashable, permit: _Permit) -> None:
        permit.users -= 1
        if permit.users == 0:
            del self._permits[key]


class MeziantouDisposer(MeziantouDisposerRepaired):
    """KM-TOKEN: two threads give one lease back at once, both pass the check, and both release."""

    def unlock(self, lease: _Lease) -> None:
        if lease.spent:
            raise RuntimeError("this lease has been given back")
        with self._guard:
            lease.spent = True
            lease.entry.semaphore.release()
            self._leave(lease.key, lease.entry)


class KeyedSemaphoresTryLockRepaired(_Counted):
    """Repaired: a call that got nothing takes its reference back."""

    def lock(self, key: Hashable, timeout: float | None = None) -> bool:
        wait = _seconds(timeout)
        entry = self._join(key)
        try:
            got = entry.lock.acquire(timeout=wait)
        except BaseException:
            with self._guard:
                self._leave(key, entry)
            raise
        if not got:
            self._refused(key, entry)
        return got

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._held(key)
            entry.lock.release()
            self._leave(key, entry)

    def _refused(self, key: Hashable, entry: _Entry) -> None:
        with self._guard:
            self._leave(key, entry)


class KeyedSemaphoresTryLock(KeyedSemaphoresTryLockRepaired):
    """KM-IDLE: a call that got nothing in its time keeps its reference, so the key is never idle again."""

    def _refused(self, key: Hashable, entry: _Entry) -> None:
        pass


class VsThreadingEntryRepaired:
    """Repaired: a grant in the last moment of a wait is kept, and the call says so."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._queues: dict[Hashable, deque[Event]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> bool:
        _seconds(timeout)
        with self._guard:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                return True
            turn = Event()
            queue.append(turn)
        try:
            if turn.wait(timeout):
                return True
        except BaseException:
            with self._guard:
                if turn in queue:
                    queue.remove(turn)
                else:
                    self._pass_on(key)
            raise
        with self._guard:
            if turn in queue:
                queue.remove(turn)
                return False
            return self._granted_late(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"nobody holds {key!r}")
            self._pass_on(key)

    def _granted_late(self, key: Hashable) -> bool:
        return True

    def _pass_on(self, key: Hashable) -> None:
        if self._queues[key]:
            self._queues[key].popleft().set()
        else:
            del self._queues[key]


class VsThreadingEntry(VsThreadingEntryRepaired):
    """KM-RACE: a grant in the last moment of a wait is passed on, and the caller is let in all the same."""

    def _granted_late(self, key: Hashable) -> bool:
        self._pass_on(key)
        return True


class SuiMutexTableRepaired:
    """Repaired: the guard of the table is let go before the wait for a lock. The table holds locks weakly."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._locks: WeakValueDictionary[Hashable, Any] = WeakValueDictionary()

    @contextlib.contextmanager
    def acquire_lock(self, key: Hashable) -> Iterator[None]:
        with self._guard:
            lock = self._of(key)
        with lock:
            yield

    def _of(self, key: Hashable) -> Any:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = Lock()
        return lock


class SuiMutexTable(SuiMutexTableRepaired):
    """KM-INDEP: who waits for one key holds the guard of the table, and nobody gets at the other keys."""

    @contextlib.contextmanager
    def acquire_lock(self, key: Hashable) -> Iterator[None]:
        with self._guard:
            lock = self._of(key)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


class MilvusKeyLockRepaired(_Counted):
    """Repaired: a lock is open before it goes to the pool that all keys take their locks from."""

    def __init__(self) -> None:
        super().__init__()
        self._spare: _Entry | None = None

    def acquire(self, key: Hashable, blocking: bool = True) -> bool:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry, self._spare = self._spare or _Entry(), None
                self._entries[key] = entry
            entry.users += 1
        got = False
        try:
            got = entry.lock.acquire(blocking)
        finally:
            if not got:
                with self._guard:
                    self._leave(key, entry)
        return got

    def release(self, key: Hashable) -> None:
        with self._guard:
            entry = self._held(key)
            entry.lock.release()
            self._leave(key, entry)

    def _held(self, key: Hashable) -> _Entry:
        entry = self._entries.get(key)
        if entry is None or not entry.lock.locked():
            raise RuntimeError(f"nobody holds {key!r}")
        return entry

    def _leave(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[key]
            self._spare = entry


class MilvusKeyLock(MilvusKeyLockRepaired):
    """KM-EXPIRED: a lock goes to the pool while it is still locked, and a try of a free key that gets it fails."""

    def release(self, key: Hashable) -> None:
        with self._guard:
            entry = self._held(key)
            self._leave(key, entry)
        entry.lock.release()


class OpenstorageKeyLockRepaired(_Counted):
    """Repaired: a call has one reference, however often it tries."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        wait = _seconds(timeout)
        entry = self._join(key)
        try:
            if not self._try(key, entry) and not entry.lock.acquire(timeout=wait):
                raise TimeoutError(key)
        except BaseException:
            with self._guard:
                self._leave(key, entry)
            raise

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._held(key)
            entry.lock.release()
            self._leave(key, entry)

    def _try(self, key: Hashable, entry: _Entry) -> bool:
        return entry.lock.acquire(blocking=False)


class OpenstorageKeyLock(OpenstorageKeyLockRepaired):
    """KM-REF: each try of one call counts as a further reference, and unlock takes one back."""

    def _try(self, key: Hashable, entry: _Entry) -> bool:
        return self._join(key).lock.acquire(blocking=False)


class EtcdMutexRepaired:
    """Repaired: unlock compares the revision of the holder with that of the caller."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._revision = 0
        self._held: dict[Hashable, int] = {}
        self._queues: dict[Hashable, deque[Event]] = {}

    def lock(self, key: Hashable) -> int:
        with self._guard:
            if key not in self._held:
                self._queues[key] = deque()
                return self._grant(key)
            turn = Event()
            self._queues[key].append(turn)
        try:
            turn.wait()
        except BaseException:
            with self._guard:
                if turn in self._queues[key]:
                    self._queues[key].remove(turn)
                else:
                    self._next(key)
            raise
        with self._guard:
            return self._held[key]

    def unlock(self, key: Hashable, revision: int) -> None:
        with self._guard:
            if not self._owns(key, revision):
                raise RuntimeError(f"revision {revision} does not hold {key!r}")
            self._next(key)

    def _owns(self, key: Hashable, revision: int) -> bool:
        return self._held.get(key) == revision

    def _grant(self, key: Hashable) -> int:
        self._revision += 1
        self._held[key] = self._revision
        return self._revision

    def _next(self, key: Hashable) -> None:
        if self._queues[key]:
            self._grant(key)
            self._queues[key].popleft().set()
        else:
            del self._held[key], self._queues[key]


class EtcdMutex(EtcdMutexRepaired):
    """KM-TOKEN: unlock looks at the name only, so an unlock that comes again ends the grant of the next holder."""

    def _owns(self, key: Hashable, revision: int) -> bool:
        return key in self._held


class _Flight:
    """One run of the work for a key, and its result or error."""

    __slots__ = ("done", "error", "value")

    def __init__(self) -> None:
        self.done = Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def result(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


class _Group:
    """Sound: the first caller of a key runs the work, the others share its result or its error."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._flights: dict[Hashable, _Flight] = {}

    def do(self, key: Hashable, fn: Callable[[], Any]) -> Any:
        with self._guard:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = _Flight()
        if leads:
            self._fly(key, flight, fn)
            return flight.result()
        flight.done.wait()
        return self._shared(flight)

    def _fly(self, key: Hashable, flight: _Flight, fn: Callable[[], Any]) -> None:
        try:
            flight.value = fn()
        except BaseException as error:
            flight.error = error
        finally:
            self._land(key, flight)

    def _land(self, key: Hashable, flight: _Flight) -> None:
        with self._guard:
            if self._flights.get(key) is flight:
                del self._flights[key]
        flight.done.set()

    def _shared(self, flight: _Flight) -> Any:
        return flight.result()


class GoForgetRepaired(_Group):
    """Repaired: a run that ends takes its own flight out of the table, and no later one."""

    def forget(self, key: Hashable) -> None:
        """From now on, callers of the key start a run of their own."""
        with self._guard:
            self._flights.pop(key, None)


class GoForget(GoForgetRepaired):
    """KM-ONE: a run that was forgotten takes the flight of the next run out of the table when it ends."""

    def _land(self, key: Hashable, flight: _Flight) -> None:
        with self._guard:
            self._flights.pop(key, None)
        flight.done.set()


class ErpcOnceRepaired(_Group):
    """Repaired: the flight ends however the work ends."""


class ErpcOnce(_Group):
    """KM-LEADER: if the work raises, its flight never ends, and no later call with that key returns."""

    def _fly(self, key: Hashable, flight: _Flight, fn: Callable[[], Any]) -> None:
        flight.value = fn()
        self._land(key, flight)


class RueidisSingleRepaired(_Group):
    """Repaired: who shared a run that failed gets its error."""


class RueidisSingle(_Group):
    """KM-RESULT: who shared a run that failed is told that it succeeded."""

    def _shared(self, flight: _Flight) -> Any:
        return flight.value
