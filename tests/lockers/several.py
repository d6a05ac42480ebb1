"""Lockers whose hold_all has one mistake each, upon the mutexes of this library; and sound ones without an order."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable, Iterable, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager
from typing import Any

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex import _aio as aio
from kmutex import _threads as threads
from kmutex._lease import distinct

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

    def hold_all(self, keys: Keys, timeout: float | None = None) -> threads.Lease:
        return threads.Lease(_KeepsAPart(self._mutex), distinct(keys), timeout)


class _FirstIsEnough(threads._Several):
    def _acquire(self, key: Any, ticket: int, timeout: float | None) -> bool:
        return super()._acquire(key[:1], ticket, timeout)


class FirstIsEnough(KeyedMutex):
    """Waits for the first key only (KM-ALL)."""

    def hold_all(self, keys: Keys, timeout: float | None = None) -> threads.Lease:
        return threads.Lease(_FirstIsEnough(self._mutex), distinct(keys), timeout)


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
