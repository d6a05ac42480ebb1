"""Small known-bad lockers, each with one mistake, and a sound one without an order."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from threading import Lock
from types import MappingProxyType
from typing import Any

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex._aio import AsyncInnerMutex
from kmutex._core import LockTable, Waker
from kmutex._entry import Entry
from kmutex._threads import Lease, UntypedMutex


class NeverEvicts(KeyedMutex):
    """len() counts every key there ever was (KM-IDLE)."""

    __slots__ = ("_ever",)

    def __init__(self) -> None:
        super().__init__()
        self._ever: set[Hashable] = set()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self._ever.add(key)
        super().lock(key, timeout)

    def hold(self, key: Hashable, timeout: float | None = None) -> Lease:
        self._ever.add(key)
        return super().hold(key, timeout)

    def __len__(self) -> int:
        return len(self._ever)


class Forgets(KeyedMutex):
    """len() leaves out keys without waiters (KM-REF)."""

    __slots__ = ()

    def __len__(self) -> int:
        return sum(bool(entry.waiters) for entry in self.snapshot().values())


class StrayAccepted(KeyedMutex):
    """Shrugs off the unlock of a key that nobody holds (KM-UNHELD)."""

    __slots__ = ()

    def unlock(self, key: Hashable) -> None:
        if key in self:
            super().unlock(key)


class IgnoresTime(KeyedMutex):
    """Waits forever, whatever time it is given, unless that is 0 (KM-CANCEL)."""

    __slots__ = ()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        super().lock(key, 0 if timeout == 0 else None)


class _OneTable(UntypedMutex):
    """`KeyedMutex` as it is with the GIL. Without it, each stripe has a table of its own, and tickets."""

    __slots__ = ("__weakref__",)


class Stack(_OneTable):
    """Serves the youngest waiter first (KM-FIFO)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._mutex._table = _StackTable()


class _StackTable(LockTable):
    __slots__ = ()

    def release(self, key: Hashable, ticket: int | None = None) -> Lock | None:
        queue = self._entries.get(key)
        if isinstance(queue, OrderedDict) and len(queue) > 2 and ticket is None:
            youngest = next(reversed(queue))
            queue.move_to_end(next(iter(queue)), last=False)
            holder = next(iter(queue))
            del queue[holder]
            queue.move_to_end(youngest, last=False)
            return queue[youngest]
        return super().release(key, ticket)


class CountsLate:
    """Looks whether anybody waits in one turn of the guard, and drops the lock in another (KM-EXCL)."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, Lock] = {}
        self._users: dict[Hashable, int] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        with self._guard:
            self._users[key] = self._users.get(key, 0) + 1
        if not lock.acquire(timeout=-1 if timeout is None else timeout):
            with self._guard:
                self._drop(key)
            raise TimeoutError

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks[key]
            self._drop(key)
            lock.release()

    def _drop(self, key: Hashable) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            del self._users[key]
            self._locks.pop(key, None)


class AsyncCancelKeepsPlace(AsyncKeyedMutex):
    """A cancelled waiter stays in the queue (KM-CANCEL)."""

    __slots__ = ()

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout == 0 or key not in self:
            await super().lock(key, timeout)
            return
        waiting = asyncio.ensure_future(super().lock(key, timeout))
        await asyncio.shield(waiting)


class AsyncTryLeavesTrace(AsyncKeyedMutex):
    """A try that fails is counted forever (KM-EXPIRED)."""

    __slots__ = ("_tried",)

    def __init__(self) -> None:
        super().__init__()
        self._tried: set[Hashable] = set()

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout == 0 and key in self:
            self._tried.add(key)
        await super().lock(key, timeout)

    def __len__(self) -> int:
        return len(set(self.snapshot()) | self._tried)


class Barging:
    """Sound, and in no order: whoever comes when the key is free takes it."""

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._holders: dict[Hashable, bool] = {}
        self._waiting: dict[Hashable, int] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        with self._free:
            self._waiting[key] = self._waiting.get(key, 0) + 1
            try:
                if not self._free.wait_for(lambda: key not in self._holders, timeout):
                    raise TimeoutError
                self._holders[key] = True
            finally:
                self._waiting[key] -= 1
                if not self._waiting[key]:
                    del self._waiting[key]

    def unlock(self, key: Hashable) -> None:
        with self._free:
            del self._holders[key]
            self._free.notify_all()

    def __len__(self) -> int:
        return len(self._holders.keys() | self._waiting.keys())


class OldLeaseReleases(_OneTable):
    """An old lease ends the grant of a later holder behind whom somebody waits (KM-TOKEN)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._mutex._table = _OlderTable()


class _OlderTable(LockTable):
    __slots__ = ()

    def release(self, key: Hashable, ticket: int | None = None) -> Waker | None:
        queue = self._entries.get(key)
        if isinstance(queue, OrderedDict) and len(queue) > 1 and ticket and 0 < ticket <= next(iter(queue)):
            ticket = None
        return super().release(key, ticket)


class LiveSnapshot(_OneTable):
    """A snapshot is a view of the table, which goes on (KM-REF)."""

    __slots__ = ()

    def snapshot(self) -> Mapping[Hashable, Entry]:
        view: Any = MappingProxyType(self._mutex._table._entries)
        return view  # type: ignore[no-any-return]


class SixtyFourTickets(_OneTable):
    """Tickets come round (KM-TOKEN, KM-EXCL)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        tickets: Any = itertools.cycle(range(1, 65))
        self._mutex._tickets = tickets


class YoungestOfMany(_OneTable):
    """Serves the youngest where six or more wait (KM-FIFO)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._mutex._table = _YoungestOfMany()


class _YoungestOfMany(_StackTable):
    __slots__ = ()

    def release(self, key: Hashable, ticket: int | None = None) -> Lock | None:
        queue = self._entries.get(key)
        if isinstance(queue, OrderedDict) and len(queue) > 6:
            return super().release(key, ticket)
        return LockTable.release(self, key, ticket)


class CapsTime(KeyedMutex):
    """Waits for a minute at the most (KM-EXPIRED)."""

    __slots__ = ()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        super().lock(key, None if timeout is None else min(timeout, 60.0))


class TakesAnyTime(KeyedMutex):
    """A negative timeout and NaN are taken for 0 (KM-EXPIRED)."""

    __slots__ = ()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        super().lock(key, None if timeout is None else timeout if timeout >= 0 else 0)


class AsyncExpiresTwice(AsyncKeyedMutex):
    """A timer fires although the wait is over (KM-RACE)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._mutex = _ExpiresTwice(False, None)


class _ExpiresTwice(AsyncInnerMutex):
    __slots__ = ()

    def _expire(self, key: Hashable, ticket: int, future: asyncio.Future[None], timeout: float) -> None:
        self._table.cancel(key, ticket)
        future.set_exception(TimeoutError(f"no grant of {key!r} within {timeout} s"))


class AsyncLeaseInAnyLoop(AsyncKeyedMutex):
    """A lease may be left in another loop (KM-LOOP)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._mutex = _AnyLoop(False, None)


class _AnyLoop(AsyncInnerMutex):
    __slots__ = ()

    def _release(self, key: Hashable, ticket: int) -> None:
        future = self._table.release(key, ticket)
        if future is not None:
            self._wake(future)


class AsyncClosedWaits(AsyncKeyedMutex):
    """A waiter whose coroutine is closed stays in the queue (KM-CANCEL)."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._mutex = _ClosedWaits(False, None)


class _ClosedWaits(AsyncInnerMutex):
    __slots__ = ()

    async def _grant(self, key: Hashable, ticket: int, future: asyncio.Future[None], timeout: float | None) -> None:
        if timeout is not None:
            await super()._grant(key, ticket, future, timeout)
            return
        try:
            await future
        except asyncio.CancelledError:
            heir = self._table.withdraw(key, ticket)
            if heir is not None:
                self._wake(heir)
            raise
