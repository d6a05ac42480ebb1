"""Lockers whose hold_all has one mistake each, upon the mutexes of this library; and sound ones without an order."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex import _aio as aio
from kmutex import _threads as threads
from kmutex._lease import distinct
from kmutex._stripes import StripedMutex, _AllStripes, _Guards

Keys = Iterable[Hashable]


class TakesOneByOne(KeyedMutex):
    """Takes the keys one after the other, in the order in which they are named, each with all of the time (KM-ALL)."""

    @contextmanager
    def hold_all(self, keys: Keys, timeout: float | None = None) -> Iterator[None]:  # type: ignore[override]
        with ExitStack() as stack:
            for key in dict.fromkeys(keys):
                stack.enter_context(self.hold(key, timeout))
            yield


class Sorts(KeyedMutex):
    """Takes the keys one after the other, the smallest first: sound, and serves who asked later."""

    @contextmanager
    def hold_all(self, keys: Keys) -> Iterator[None]:  # type: ignore[override]
        with ExitStack() as stack:
            for key in sorted(set(keys)):  # type: ignore[type-var]
                stack.enter_context(self.hold(key))
            yield


class NamedTwice(KeyedMutex):
    """Takes a place for each time that a key is named, and so waits for itself (KM-ALL)."""

    def hold_all(self, keys: Keys, timeout: float | None = None) -> threads.Lease:
        return threads.Lease(threads._Several(self._mutex), tuple(keys), timeout)


class _KeepsAPart(threads._Several):
    def _settle(self, key: Any, ticket: int) -> None:
        super()._settle(tuple(one for one in key if not self._table.holds(one, ticket)), ticket)


class KeepsAPart(KeyedMutex):
    """Who gives up leaves the queues in which it waits, and keeps the keys that it was first for (KM-ALL)."""

    def _several(self, keys: tuple[Any, ...]) -> threads.InnerMutex:
        return _KeepsAPart(self._mutex)


class _FirstIsEnough(threads._Several):
    def _acquire(self, key: Any, ticket: int, timeout: float | None) -> bool:
        return super()._acquire(key[:1], ticket, timeout)


class FirstIsEnough(KeyedMutex):
    """Waits for the first key only (KM-ALL)."""

    def _several(self, keys: tuple[Any, ...]) -> threads.InnerMutex:
        return _FirstIsEnough(self._mutex)


class InStripes(StripedMutex):
    """The mutex for a Python without the GIL, with as few stripes as keep the keys of the checks apart: sound."""

    def __init__(self) -> None:
        keys = "abcdk"
        count = next(n for n in itertools.count(len(keys)) if len({hash(key) % n for key in keys}) == len(keys))
        self._stripes = tuple([threads.UntypedMutex() for _ in range(count)])
        self._mutex = _AllStripes([stripe._mutex for stripe in self._stripes])

    def _stripe(self, key: Hashable) -> threads.UntypedMutex:
        return self._stripes[hash(key) % len(self._stripes)]

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self._stripe(key).lock(key, timeout)

    def unlock(self, key: Hashable) -> None:
        self._stripe(key).unlock(key)

    def hold(self, key: Hashable, timeout: float | None = None) -> threads.Lease:
        return threads.Lease(self._stripe(key)._mutex, key, timeout, self)


class GuardsAsNamed(InStripes):
    """Takes the guards of the stripes in the order in which the keys are named, and so may wait in a ring (KM-ALL)."""

    def _several(self, keys: tuple[Any, ...]) -> threads.InnerMutex:
        several = threads._Several(self._mutex)
        several._guard = _Guards([self._stripe(key)._mutex._guard for key in keys])
        return several


class TicketsOfEachStripe(InStripes):
    """Each stripe counts its tickets from one, and hold_all from one as well: two requests with one ticket (KM-ALL)."""

    def __init__(self) -> None:
        super().__init__()
        for mutex in (self._mutex, *(stripe._mutex for stripe in self._stripes)):
            mutex._tickets = itertools.count(1)


class AsyncTakesOneByOne(AsyncKeyedMutex):
    """Takes the keys one after the other, in the order in which they are named (KM-ALL)."""

    @asynccontextmanager
    async def hold_all(self, keys: Keys, timeout: float | None = None) -> AsyncIterator[None]:  # type: ignore[override]
        async with AsyncExitStack() as stack:
            for key in self._arranged(keys):
                await stack.enter_async_context(self.hold(key, timeout))
            yield

    def _arranged(self, keys: Keys) -> list[Any]:
        return list(dict.fromkeys(keys))


class AsyncSorts(AsyncTakesOneByOne):
    """Takes the keys one after the other, the smallest first: sound, and serves who asked later."""

    def _arranged(self, keys: Keys) -> list[Any]:
        return sorted(set(keys))  # type: ignore[type-var]


class _AsyncKeepsAPart(aio._Several):
    def _withdraw(self, key: Any, ticket: int) -> None:
        super()._withdraw(tuple(one for one in key if not self._table.holds(one, ticket)), ticket)


class AsyncKeepsAPart(AsyncKeyedMutex):
    """Who is cancelled leaves the queues in which it waits, and keeps the keys that it was first for (KM-ALL)."""

    def hold_all(self, keys: Keys, timeout: float | None = None) -> aio.AsyncLease:
        return aio.AsyncLease(_AsyncKeepsAPart(self), distinct(keys), timeout)
