"""Keyed locks for threads in the forms in which people write them, sound and broken. None has the face of the contract.

What they have in common stands in `_Table`: a lock and a count for each key, under one guard. A broken one departs from
it in one place.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future
from datetime import timedelta
from typing import Any
from weakref import WeakValueDictionary


class _LockTimeout(Exception):  # noqa: N818 - a name as people give it
    """The time is over."""


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class _Table:
    """A lock and a count for each key, as long as anybody uses it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Any, _Entry] = {}

    def take(self, key: Any, blocking: bool = True, timeout: float | None = None) -> bool:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        got = False
        try:
            got = entry.lock.acquire(blocking, -1 if timeout is None or not blocking else timeout)
        finally:
            if not got:
                self._leave(key, entry)
        return got

    def give(self, key: Any) -> None:
        with self._guard:
            if key not in self._entries:
                raise RuntimeError(f"{key!r} is not held")
            entry = self._entries[key]
        entry.lock.release()
        self._leave(key, entry)

    def _leave(self, key: Any, entry: _Entry) -> None:
        with self._guard:
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]


class _Over:
    """Over a table of locks, which a broken one makes of another kind."""

    _table: Callable[[], Any] = _Table

    def __init__(self) -> None:
        self._locks = self._table()


class _Evicting(_Table):
    """The mistake: whoever lets go throws the entry away, waiters or not."""

    def give(self, key: Any) -> None:
        with self._guard:
            entry = self._entries.pop(key)
        entry.lock.release()

    def _leave(self, key: Any, entry: _Entry) -> None:
        pass


class _Leaking(_Table):
    """The mistake: nothing is ever thrown away."""

    def _leave(self, key: Any, entry: _Entry) -> None:
        pass


# -- a lock for each key --------------------------------------------------------------------------------------------


class _OneLock:
    """A lock of its own that a weak table can hold."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class WeakLocks:
    """An accessor: locks live in a weak table as long as anybody has one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[Hashable, _OneLock] = WeakValueDictionary()

    def __getitem__(self, key: Hashable) -> _OneLock:
        with self._guard:
            lock = self._locks.get(key)
            if lock is None:
                lock = self._locks[key] = _OneLock()
            return lock


class WeakLocksUnguarded(WeakLocks):
    """An accessor of a weak table without the guard: two callers make two locks."""

    def __getitem__(self, key: Hashable) -> _OneLock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = _OneLock()
        return lock


class DictOfLocks(defaultdict[Hashable, threading.Lock]):
    """A dict of locks with a default: it grows forever."""

    def __init__(self) -> None:
        super().__init__(threading.Lock)


class _Handle:
    def __init__(self, table: _Table, key: Hashable) -> None:
        self._table, self._key = table, key

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        return self._table.take(self._key, blocking, timeout)

    def release(self) -> None:
        self._table.give(self._key)


class CountedAccessor(_Over):
    """An accessor whose locks find their entry in the table when they are acquired."""

    def get_lock(self, key: Hashable) -> _Handle:
        return _Handle(self._locks, key)


class CountedAccessorEvicting(CountedAccessor):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


_registry: dict[Hashable, threading.Lock] = {}
_registry_guard = threading.Lock()
_weak_registry: WeakValueDictionary[Hashable, _OneLock] = WeakValueDictionary()


def weak_lock_for(key: Hashable) -> _OneLock:
    """A function over a weak registry at the top of the module."""
    with _registry_guard:
        lock = _weak_registry.get(key)
        if lock is None:
            lock = _weak_registry[key] = _OneLock()
        return lock


def lock_for(key: Hashable) -> threading.Lock:
    """A function over a registry at the top of the module, which keeps all of it."""
    with _registry_guard:
        return _registry.setdefault(key, threading.Lock())


_fresh: dict[Hashable, threading.Lock] = {}


def fresh_lock_for(key: Hashable) -> threading.Lock:
    """A function that forgets to look: every caller gets a lock of its own, and the registry the last."""
    lock = _fresh[key] = threading.Lock()
    return lock


class StripedLocks:
    """A table of so many locks, for all keys: it is not for each key, and says so by its form."""

    def __init__(self) -> None:
        self._locks = [threading.Lock() for _ in range(16)]

    def lock_for(self, key: Hashable) -> threading.Lock:
        return self._locks[hash(key) % len(self._locks)]


class ReentrantLocks:
    """An RLock for each key, counted: its holder gets it again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, Any] = {}
        self._users: dict[Hashable, int] = {}

    def acquire(self, key: Hashable, timeout: float = -1) -> bool:
        with self._guard:
            lock = self._locks.setdefault(key, threading.RLock())
            self._users[key] = self._users.get(key, 0) + 1
        got = False
        try:
            got = bool(lock.acquire(timeout=timeout))
        finally:
            if not got:
                self._leave(key)
        return got

    def release(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks[key]
        lock.release()
        self._leave(key)

    def _leave(self, key: Hashable) -> None:
        with self._guard:
            self._users[key] -= 1
            if not self._users[key]:
                del self._locks[key], self._users[key]


# -- blocks ---------------------------------------------------------------------------------------------------------


class LockBlocks(_Over):
    """A generator made a block, and no other way in."""

    @contextlib.contextmanager
    def lock(self, key: Hashable) -> Iterator[None]:
        self._locks.take(key)
        try:
            yield
        finally:
            self._locks.give(key)


class LockBlocksEvicting(LockBlocks):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class LockBlocksLeaking(LockBlocks):
    """The same over a table that keeps all."""

    _table = _Leaking


class LockBlocksLeftTwice(LockBlocks):
    """A body that raises is counted out by its handler, and once more at the end."""

    @contextlib.contextmanager
    def lock(self, key: Hashable) -> Iterator[None]:
        table = self._locks
        with table._guard:
            entry = table._entries.setdefault(key, _Entry())
            entry.users += 1
        try:
            with entry.lock:
                yield
        except Exception:
            self._gone(key, entry)
            raise
        finally:
            self._gone(key, entry)

    def _gone(self, key: Hashable, entry: _Entry) -> None:
        with self._locks._guard:
            entry.users -= 1
            if entry.users <= 0:
                self._locks._entries.pop(key, None)


class _Scope:
    def __init__(self, table: _Table, key: Hashable, timeout: float | None) -> None:
        self._table, self._key, self._timeout = table, key, timeout

    def __enter__(self) -> _Scope:
        if not self._table.take(self._key, timeout=self._timeout):
            raise _LockTimeout(self._key)
        return self

    def __exit__(self, *error: object) -> None:
        self._table.give(self._key)


class CalledScopes(_Over):
    """Called with a key, it gives an object for with; time over is an error of its own."""

    def __call__(self, key: Hashable, max_wait: float | None = None) -> _Scope:
        return _Scope(self._locks, key, max_wait)


class CalledScopesEvicting(CalledScopes):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class TryingBlocks(_Over):
    """A block that is told whether it has the lock, and is entered without it when the time is over."""

    @contextlib.contextmanager
    def hold(self, key: Hashable, timeout: float | None = None) -> Iterator[bool]:
        got = self._locks.take(key, timeout=timeout)
        try:
            yield got
        finally:
            if got:
                self._locks.give(key)


_locked: dict[Hashable, threading.Lock] = {}


@contextlib.contextmanager
def locked(key: Hashable) -> Iterator[None]:
    """A block over a registry at the top of the module, which keeps all of it."""
    with _registry_guard:
        lock = _locked.setdefault(key, threading.Lock())
    with lock:
        yield


# -- an object for each key -----------------------------------------------------------------------------------------


class KeyLock:
    """An object for each key, over a table of the class."""

    _table = _Table()

    def __init__(self, key: Hashable) -> None:
        self._key = key

    def acquire(self, timeout: float | None = None) -> bool:
        return self._table.take(self._key, timeout=timeout)

    def release(self) -> None:
        self._table.give(self._key)

    def __enter__(self) -> KeyLock:
        self.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


class KeyLockEvicting(KeyLock):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting()


class KeyLockLeaking(KeyLock):
    """The same over a table that keeps all."""

    _table = _Leaking()


# -- calls with a key -----------------------------------------------------------------------------------------------


class AcquireBool(_Over):
    """acquire(key, blocking, timeout) says whether, and release(key)."""

    def acquire(self, key: Hashable, blocking: bool = True, timeout: float = -1) -> bool:
        return self._locks.take(key, blocking, None if timeout < 0 else timeout)

    def release(self, key: Hashable) -> None:
        self._locks.give(key)


class AcquireBoolEvicting(AcquireBool):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class AcquireBoolLies(AcquireBool):
    """acquire() says True when the time is over, too."""

    def acquire(self, key: Hashable, blocking: bool = True, timeout: float = -1) -> bool:
        super().acquire(key, blocking, timeout)
        return True


class SaysFalse(_Over):
    """lock(key, timeout) returns False when the time is over, and True else."""

    def lock(self, key: Hashable, timeout: float | None = None) -> bool:
        return self._locks.take(key, timeout=timeout)

    def unlock(self, key: Hashable) -> None:
        self._locks.give(key)


class SaysFalseLeaking(SaysFalse):
    """The same over a table that keeps all."""

    _table = _Leaking


class SaysFalseTooLate:
    """lock(key, timeout) returns False when the time is over, and has counted a user who never leaves."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def lock(self, key: Hashable, timeout: float | None = None) -> bool:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        return entry.lock.acquire(timeout=-1 if timeout is None else timeout)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries[key]
            entry.lock.release()
            entry.users -= 1
            if not entry.users:
                del self._entries[key]


class GivesUpByItself(_Over):
    """acquire(key) waits for ten seconds if nobody says how long, and time over is an error of its own."""

    def acquire(self, key: Hashable, timeout_seconds: float = 10.0) -> None:
        if not self._locks.take(key, timeout=timeout_seconds):
            raise _LockTimeout(key)

    def release(self, key: Hashable) -> None:
        self._locks.give(key)


class NeverWaitsLong(_Over):
    """enter(key) and leave(key): no limit of any kind."""

    def enter(self, key: Hashable) -> None:
        self._locks.take(key)

    def leave(self, key: Hashable) -> None:
        self._locks.give(key)


class TextKeys(_Over):
    """Keys are str, by annotation, and so 1 and '1' are no two keys of it."""

    def lock(self, key: str, timeout: float | None = None) -> None:
        if not self._locks.take(f"lock:{key}", timeout=timeout):
            raise TimeoutError(key)

    def unlock(self, key: str) -> None:
        self._locks.give(f"lock:{key}")


class TextKeysShort(TextKeys):
    """Keys are str, and two that are long and alike are one."""

    def lock(self, key: str, timeout: float | None = None) -> None:
        super().lock(key[:64], timeout)

    def unlock(self, key: str) -> None:
        super().unlock(key[:64])


# -- with what the lock gave ----------------------------------------------------------------------------------------


class _Token:
    def __init__(self, key: Hashable) -> None:
        self.key, self.spent = key, False


class Tokens(_Over):
    """lock(key) gives a token, None when the time is over, and unlock(token) takes it once."""

    def lock(self, key: Hashable, wait: float | None = None) -> _Token | None:
        return _Token(key) if self._locks.take(key, timeout=wait) else None

    def unlock(self, token: _Token) -> None:
        if token.spent:
            raise RuntimeError("used before")
        token.spent = True
        self._locks.give(token.key)


class TokensAnyTime(Tokens):
    """unlock(token) takes an old token, too, and ends the grant of somebody else."""

    def unlock(self, token: _Token) -> None:
        self._locks.give(token.key)


class TokensEvicting(Tokens):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class KeyedTokens(Tokens):
    """unlock(key, token) wants both."""

    def unlock(self, key: Hashable, token: _Token) -> None:  # type: ignore[override]
        if token.key != key:
            raise RuntimeError("the token of another key")
        super().unlock(token)


class _Grant:
    def __init__(self, table: _Table, key: Hashable) -> None:
        self._table, self._key, self._over = table, key, False

    def release(self) -> None:
        if self._over:
            raise RuntimeError("released before")
        self._over = True
        self._table.give(self._key)


class Grants(_Over):
    """acquire(key) gives a grant, which is released by itself."""

    def acquire(self, key: Hashable) -> _Grant:
        self._locks.take(key)
        return _Grant(self._locks, key)


class GrantsEvicting(Grants):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class Unlockers(_Over):
    """lock(key) gives a function that unlocks, once. A time limit is a timedelta."""

    def lock(self, key: Hashable, timeout: timedelta | None = None) -> Callable[[], None]:
        if not self._locks.take(key, timeout=None if timeout is None else timeout.total_seconds()):
            raise TimeoutError(key)
        return _Grant(self._locks, key).release


class UnlockersAnyTime(Unlockers):
    """The function works each time, and ends the grant of somebody else."""

    def lock(self, key: Hashable, timeout: timedelta | None = None) -> Callable[[], None]:
        super().lock(key, timeout)
        return functools.partial(self._locks.give, key)


class Futures:
    """acquire(key) returns at once, with a future that is done when the key is the caller's."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._asked: dict[Hashable, deque[Future[None]]] = {}

    def acquire(self, key: Hashable) -> Future[None]:
        mine: Future[None] = Future()
        with self._guard:
            asked = self._asked.setdefault(key, deque())
            asked.append(mine)
            if len(asked) == 1:
                mine.set_result(None)
        return mine

    def release(self, key: Hashable) -> None:
        with self._guard:
            asked = self._asked[key]
            asked.popleft()
            if asked:
                self._next(asked).set_result(None)
            else:
                del self._asked[key]

    def _next(self, asked: deque[Future[None]]) -> Future[None]:
        return asked[0]


class FuturesLost(Futures):
    """It hands the key to a future that nobody has."""

    def _next(self, asked: deque[Future[None]]) -> Future[None]:
        return Future()


# -- a lock that is lent, and given back to who lent it ---------------------------------------------------------------


class LentLocks:
    """get(key) lends a lock and counts who has it, and release(key, lock) counts down; in between it is a lock."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def get(self, key: Hashable) -> threading.Lock:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
            return entry.lock

    def release(self, key: Hashable, lock: threading.Lock) -> None:
        with self._guard:
            entry = self._entries[key]
            assert entry.lock is lock
            entry.users -= 1
            if not entry.users:
                del self._entries[key]


class LentLocksForgotten(LentLocks):
    """Whoever gives a lock back throws it away, though others have it."""

    def release(self, key: Hashable, lock: threading.Lock) -> None:
        with self._guard:
            self._entries.pop(key, None)


class HeldLocks(_Over):
    """acquire_lock(key) waits and gives the lock, held; its user releases it, and says put(key)."""

    _table = LentLocks

    def acquire_lock(self, key: Hashable) -> threading.Lock:
        lock = self._locks.get(key)
        lock.acquire()
        return lock

    def put(self, key: Hashable) -> None:
        self._locks.release(key, self._locks._entries[key].lock)


class _LentUncounted(LentLocks):
    """The mistake: nobody counts down."""

    def release(self, key: Hashable, lock: threading.Lock) -> None:
        pass


class HeldLocksUncounted(HeldLocks):
    """The same, and put(key) does nothing."""

    _table = _LentUncounted


class BorrowedLocks(_Over):
    """get_lock(key) gives a lock, and release_lock(key, lock) releases it and drops it when nobody has it."""

    _table = LentLocks

    def get_lock(self, key: Hashable) -> threading.Lock:
        return self._locks.get(key)

    def release_lock(self, key: Hashable, lock: threading.Lock) -> None:
        lock.release()
        self._locks.release(key, lock)


class BorrowedLocksForgotten(BorrowedLocks):
    """The same over a table that throws away what others have."""

    _table = LentLocksForgotten


class _LentBlock:
    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0

    def __enter__(self) -> None:
        self.lock.acquire()

    def __exit__(self, *error: object) -> None:
        self.lock.release()


class LentBlocks:
    """get_lock(key) lends a block, and done(key) is said when it has been left."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._blocks: dict[Hashable, _LentBlock] = {}

    def get_lock(self, key: Hashable) -> _LentBlock:
        with self._guard:
            block = self._blocks.setdefault(key, _LentBlock())
            block.users += 1
            return block

    def done(self, key: Hashable) -> None:
        with self._guard:
            self._blocks[key].users -= 1
            if not self._blocks[key].users:
                del self._blocks[key]


# -- an object for a storage and a key --------------------------------------------------------------------------------


class _LockStorage:
    """What the locks of all keys share."""

    def __init__(self) -> None:
        self.table = _Table()


class StoredLock:
    """Lock(storage, key): an object for each key, made with what all of them share."""

    def __init__(self, storage: _LockStorage, key: Hashable) -> None:
        self._table, self._key = storage.table, key

    def acquire(self, timeout: float | None = None) -> bool:
        return self._table.take(self._key, timeout=timeout)

    def release(self) -> None:
        self._table.give(self._key)


class StoredLockForgotten:
    """An object for a key over a plain dict, from which whoever leaves throws the lock away."""

    def __init__(self, key: Hashable, locks: dict[Hashable, threading.Lock]) -> None:
        self._key, self._locks = key, locks

    def __enter__(self) -> None:
        if self._key not in self._locks:
            self._locks[self._key] = threading.Lock()
        self._lock = self._locks[self._key]
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._locks.pop(self._key, None)
        self._lock.release()


# -- a lock that is got, and let go of by the call that takes it back -------------------------------------------------


class HandedLocks(LentLocks):
    """acquire(key, timeout) gives the lock, held, and release(key, lock) releases it: it is the next holder's as well,
    so that it is no token of one grant."""

    def acquire(self, key: Hashable, timeout: float = -1) -> threading.Lock | None:
        lock = self.get(key)
        if lock.acquire(timeout=timeout):
            return lock
        super().release(key, lock)
        return None

    def release(self, key: Hashable, lock: threading.Lock) -> None:
        lock.release()
        super().release(key, lock)


class HandedLocksTooLate(HandedLocks):
    """The same, and who gives up stays counted."""

    def acquire(self, key: Hashable, timeout: float = -1) -> threading.Lock | None:
        lock = self.get(key)
        return lock if lock.acquire(timeout=timeout) else None


@functools.lru_cache(maxsize=128)
def cached_lock_for(key: Hashable) -> threading.Lock:
    """A function that makes a lock, and a cache of so many: it drops locks that are held."""
    return threading.Lock()
