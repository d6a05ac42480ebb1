"""Keyed locks for asyncio in the forms in which people write them, sound and broken. None has the face of the contract.

What they have in common stands in `_Table`: a lock and a count for each key. A broken one departs from it in one place.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Any
from weakref import WeakValueDictionary


class _Entry:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class _Table:
    """A lock and a count for each key, as long as anybody uses it."""

    def __init__(self) -> None:
        self._entries: dict[Any, _Entry] = {}

    async def take(self, key: Any) -> None:
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        try:
            await entry.lock.acquire()
        except BaseException:
            self._leave(key, entry)
            raise

    def held(self, key: Any) -> bool:
        return key in self._entries

    def give(self, key: Any) -> None:
        if key not in self._entries:
            raise RuntimeError(f"{key!r} is not held")
        entry = self._entries[key]
        entry.lock.release()
        self._leave(key, entry)

    def _leave(self, key: Any, entry: _Entry) -> None:
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
        self._entries.pop(key).lock.release()

    def _leave(self, key: Any, entry: _Entry) -> None:
        pass


class _Leaking(_Table):
    """The mistake: nothing is ever thrown away."""

    def _leave(self, key: Any, entry: _Entry) -> None:
        pass


class _Forgetful(_Table):
    """The mistake: a waiter that is cancelled stays counted."""

    async def take(self, key: Any) -> None:
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        await entry.lock.acquire()


# -- a lock for each key --------------------------------------------------------------------------------------------


class WeakLocks:
    """An accessor: locks live in a weak table as long as anybody has one."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    def get(self, key: Hashable) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            lock = self._locks[key] = asyncio.Lock()
        return lock


class DictOfLocks(defaultdict[Hashable, asyncio.Lock]):
    """A dict of locks with a default: it grows forever."""

    def __init__(self) -> None:
        super().__init__(asyncio.Lock)


class AwaitedAccessor:
    """An accessor that is awaited, with a lock of its own around the weak table."""

    def __init__(self) -> None:
        self._guard = asyncio.Lock()
        self._locks: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()

    async def get_lock(self, key: Hashable) -> asyncio.Lock:
        async with self._guard:
            lock = self._locks.get(key)
            if lock is None:
                lock = self._locks[key] = asyncio.Lock()
            return lock


class AwaitedAccessorUnguarded(AwaitedAccessor):
    """The same without the guard, and another task comes between the look and the entry."""

    async def get_lock(self, key: Hashable) -> asyncio.Lock:
        lock = self._locks.get(key)
        if lock is None:
            await asyncio.sleep(0)
            lock = self._locks[key] = asyncio.Lock()
        return lock


_registry: dict[Hashable, asyncio.Lock] = {}
_weak_registry: WeakValueDictionary[Hashable, asyncio.Lock] = WeakValueDictionary()


def weak_lock_for(key: Hashable) -> asyncio.Lock:
    """A function over a weak registry at the top of the module."""
    lock = _weak_registry.get(key)
    if lock is None:
        lock = _weak_registry[key] = asyncio.Lock()
    return lock


def lock_for(key: Hashable) -> asyncio.Lock:
    """A function over a registry at the top of the module, which keeps all of it."""
    return _registry.setdefault(key, asyncio.Lock())


def fresh_lock_for(key: Hashable) -> asyncio.Lock:
    """A function that forgets to look: every caller gets a lock of its own, and the registry the last."""
    lock = _registry[key] = asyncio.Lock()
    return lock


# -- blocks ---------------------------------------------------------------------------------------------------------


class LockBlocks(_Over):
    """An asynchronous generator made a block, and no other way in."""

    @contextlib.asynccontextmanager
    async def lock(self, key: Hashable) -> AsyncIterator[None]:
        await self._locks.take(key)
        try:
            yield
        finally:
            self._locks.give(key)


class LockBlocksEvicting(LockBlocks):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class LockBlocksForgetful(LockBlocks):
    """The same over a table in which a cancelled waiter stays counted."""

    _table = _Forgetful


class _Scope:
    def __init__(self, table: _Table, key: Hashable) -> None:
        self._table, self._key = table, key

    async def __aenter__(self) -> _Scope:
        await self._table.take(self._key)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._table.give(self._key)


class CalledScopes(_Over):
    """Called with a key, it gives an object for async with."""

    def __call__(self, key: Hashable) -> _Scope:
        return _Scope(self._locks, key)


class CalledScopesEvicting(CalledScopes):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


_locked: dict[Hashable, asyncio.Lock] = {}


@contextlib.asynccontextmanager
async def locked(key: Hashable) -> AsyncIterator[None]:
    """A block over a registry at the top of the module, which keeps all of it."""
    async with _locked.setdefault(key, asyncio.Lock()):
        yield


# -- an object for each key -----------------------------------------------------------------------------------------


class KeyLock:
    """An object for each key, over a table of the class."""

    _table = _Table()

    def __init__(self, key: Hashable) -> None:
        self._key = key

    async def __aenter__(self) -> KeyLock:
        await self._table.take(self._key)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._table.give(self._key)


class KeyLockEvicting(KeyLock):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting()


class KeyLockLeaking(KeyLock):
    """The same over a table that keeps all."""

    _table = _Leaking()


# -- calls with a key -----------------------------------------------------------------------------------------------


class AwaitedUnlock(_Over):
    """lock(key) and unlock(key), both awaited."""

    async def lock(self, key: Hashable) -> None:
        await self._locks.take(key)

    async def unlock(self, key: Hashable) -> None:
        self._locks.give(key)


class AwaitedUnlockEvicting(AwaitedUnlock):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class AwaitedUnlockForgetful(AwaitedUnlock):
    """The same over a table in which a cancelled waiter stays counted."""

    _table = _Forgetful


class AcquireBool(_Over):
    """acquire(key, blocking) says whether, and release(key) is a plain call."""

    async def acquire(self, key: Hashable, blocking: bool = True) -> bool:
        if not blocking and self._locks.held(key):
            return False
        await self._locks.take(key)
        return True

    def release(self, key: Hashable) -> None:
        self._locks.give(key)


class AcquireBoolEvicting(AcquireBool):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class AcquireBoolLies(AcquireBool):
    """acquire() says True of a held key, too, if it may not wait."""

    async def acquire(self, key: Hashable, blocking: bool = True) -> bool:
        return await super().acquire(key, blocking) or True


class TextKeys(_Over):
    """Keys are str, by annotation, and so 1 and '1' are no two keys of it."""

    async def lock(self, key: str) -> None:
        await self._locks.take(f"lock:{key}")

    def unlock(self, key: str) -> None:
        self._locks.give(f"lock:{key}")


# -- with what the lock gave ----------------------------------------------------------------------------------------


class _Token:
    def __init__(self, key: Hashable) -> None:
        self.key, self.spent = key, False


class Tokens(_Over):
    """lock(key) gives a token, and unlock(token) takes it once."""

    async def lock(self, key: Hashable) -> _Token:
        await self._locks.take(key)
        return _Token(key)

    async def unlock(self, token: _Token) -> None:
        if token.spent:
            raise RuntimeError("used before")
        token.spent = True
        self._locks.give(token.key)


class TokensAnyTime(Tokens):
    """unlock(token) takes an old token, too, and ends the grant of somebody else."""

    async def unlock(self, token: _Token) -> None:
        self._locks.give(token.key)


class Unlockers(_Over):
    """lock(key) gives a function that unlocks, once."""

    async def lock(self, key: Hashable) -> Callable[[], None]:
        await self._locks.take(key)
        return _Grant(self._locks, key).release


class TokensEvicting(Tokens):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


class _Grant:
    def __init__(self, table: _Table, key: Hashable) -> None:
        self._table, self._key, self._over = table, key, False

    async def __aenter__(self) -> _Grant:
        return self

    async def __aexit__(self, *error: object) -> None:
        self.release()

    def release(self) -> None:
        if self._over:
            raise RuntimeError("released before")
        self._over = True
        self._table.give(self._key)


class Grants(_Over):
    """``async with await acquire(key)``: a grant that is held already, and can be released by itself."""

    async def acquire(self, key: Hashable) -> _Grant:
        await self._locks.take(key)
        return _Grant(self._locks, key)


class GrantsEvicting(Grants):
    """The same over a table whose entries go with waiters behind them."""

    _table = _Evicting


# -- a lock that is lent, and given back to who lent it ---------------------------------------------------------------


class LentLocks:
    """get(key) lends a lock and counts who has it, and release(key, lock) counts down; in between it is a lock."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _Entry] = {}

    async def get(self, key: Hashable) -> asyncio.Lock:
        entry = self._entries.setdefault(key, _Entry())
        entry.users += 1
        return entry.lock

    async def release(self, key: Hashable, lock: asyncio.Lock) -> None:
        entry = self._entries[key]
        assert entry.lock is lock
        entry.users -= 1
        if not entry.users:
            del self._entries[key]


class LentLocksForgotten(LentLocks):
    """Whoever gives a lock back throws it away, though others have it."""

    async def release(self, key: Hashable, lock: asyncio.Lock) -> None:
        self._entries.pop(key, None)


class HeldLocks(_Over):
    """await acquire_lock(key) gives the lock, held; its user releases it, and says put(key)."""

    async def acquire_lock(self, key: Hashable) -> asyncio.Lock:
        await self._locks.take(key)
        return self._locks._entries[key].lock

    def put(self, key: Hashable) -> None:
        self._locks._leave(key, self._locks._entries[key])


class HeldLocksForgetful(HeldLocks):
    """The same, and a waiter that is cancelled stays counted."""

    _table = _Forgetful


# -- an object for a storage and a key --------------------------------------------------------------------------------


class _LockStorage:
    """What the locks of all keys share."""

    def __init__(self) -> None:
        self.table = _Table()


class StoredLock:
    """Lock(storage, key): an object for each key, made with what all of them share."""

    def __init__(self, storage: _LockStorage, key: Hashable) -> None:
        self._table, self._key = storage.table, key

    async def __aenter__(self) -> None:
        await self._table.take(self._key)

    async def __aexit__(self, *error: object) -> None:
        self._table.give(self._key)


class StoredLockKept:
    """An object for a key over a plain dict, which keeps all."""

    def __init__(self, locks: dict[str, asyncio.Lock], key: str) -> None:
        self._lock = locks.setdefault(f"lock:{key}", asyncio.Lock())

    async def acquire(self) -> None:
        await self._lock.acquire()

    def release(self) -> None:
        self._lock.release()
