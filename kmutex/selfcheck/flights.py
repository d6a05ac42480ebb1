"""`once` and `async_once` as single flights, so that the contract of duplicate suppression can be held against them.

What is done is looked for among the results of runs that ended after the caller came, and these are kept as long as
anybody calls. That is all that `once` needs to be a single flight in which the next caller takes over.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Hashable
from threading import Lock
from typing import Any

from kmutex import AsyncKeyedMutex, KeyedMutex, async_once, once


class _Results:
    """The last result of each key that is asked for, and how many ask for it."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._times = itertools.count()
        self._asking: dict[Hashable, int] = {}
        self._last: dict[Hashable, tuple[int, Any]] = {}

    def __len__(self) -> int:
        return len(self._asking)

    def enter(self, key: Hashable) -> int:
        """When the caller came."""
        with self._guard:
            self._asking[key] = self._asking.get(key, 0) + 1
            return next(self._times)

    def put(self, key: Hashable, result: Any) -> None:
        """The work ended now."""
        with self._guard:
            self._last[key] = next(self._times), result

    def get(self, key: Hashable, came: int) -> Any:
        """The result of a run that ended since, or None."""
        ended, result = self._last.get(key, (came, None))
        return result if ended > came else None

    def leave(self, key: Hashable) -> None:
        """The caller goes; nothing stays behind the last."""
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
        """The result of the work, done by this caller or by another who calls at the same time."""
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
        """The result of the work, done by this caller or by another who calls at the same time."""
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
