"""`once` and `async_once` as single flights, to check them against the contract of duplicate suppression.

A caller looks for the result of a run that ended after its call began; results are kept while there is any call. With
that, `once` is a single flight in which the next caller takes over.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Hashable
from threading import Lock
from typing import Any

from kmutex import AsyncKeyedMutex, KeyedMutex, async_once, once


class _Results:
    """The last result of each key with a call, and the number of its calls."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._times = itertools.count()
        self._asking: dict[Hashable, int] = {}
        self._last: dict[Hashable, tuple[int, Any]] = {}

    def __len__(self) -> int:
        return len(self._asking)

    def enter(self, key: Hashable) -> int:
        """Begin a call; return its time."""
        with self._guard:
            self._asking[key] = self._asking.get(key, 0) + 1
            return next(self._times)

    def put(self, key: Hashable, result: Any) -> None:
        """Note that the work ended now."""
        with self._guard:
            self._last[key] = next(self._times), result

    def get(self, key: Hashable, came: int) -> Any:
        """Return the result of a run that ended since, or None."""
        ended, result = self._last.get(key, (came, None))
        return result if ended > came else None

    def leave(self, key: Hashable) -> None:
        """End a call; the last one removes the entry."""
        with self._guard:
            self._asking[key] -= 1
            if not self._asking[key]:
                del self._asking[key]
                self._last.pop(key, None)


class Once:
    """`once` with a `KeyedMutex`."""

    def __init__(self) -> None:
        self._locker = KeyedMutex()
        self._results = _Results()

    def __len__(self) -> int:
        return len(self._locker) + len(self._results)

    def do(self, key: Hashable, work: Callable[[], Any]) -> Any:
        """Return the result of the work, done by this caller or by another at the same time."""
        came = self._results.enter(key)

        def do() -> Any:
            result = work()
            self._results.put(key, result)
            return result

        try:
            return once(self._locker, key, lambda: self._results.get(key, came), do)
        finally:
            self._results.leave(key)


class AsyncOnce:
    """`async_once` with an `AsyncKeyedMutex`."""

    def __init__(self) -> None:
        self._locker = AsyncKeyedMutex()
        self._results = _Results()

    def __len__(self) -> int:
        return len(self._locker) + len(self._results)

    async def do(self, key: Hashable, work: Callable[[], Awaitable[Any]]) -> Any:
        """Return the result of the work, done by this caller or by another at the same time."""
        came = self._results.enter(key)

        async def look() -> Any:
            return self._results.get(key, came)

        async def do() -> Any:
            result = await work()
            self._results.put(key, result)
            return result

        try:
            return await async_once(self._locker, key, look, do)
        finally:
            self._results.leave(key)
