"""What a keyed locker offers, so that code can take any: the mutex, the no-op, or the reader's own."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol, runtime_checkable

TIMED_OUT = (TimeoutError, asyncio.TimeoutError, concurrent.futures.TimeoutError)
"""How a locker may say that the time is over. They are one class from Python 3.11 on."""


class Releasable(Protocol):
    """A lease: the right to end one grant, once (KM-TOKEN)."""

    def release(self) -> None:
        """End the grant before its block ends. UnheldKeyError: it has ended already."""


@runtime_checkable
class KeyedLocker(Protocol):
    """A keyed locker for threads. ``kmutex.KeyedMutex`` says what each call promises."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None: ...

    def unlock(self, key: Hashable) -> None: ...

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractContextManager[Releasable]: ...


@runtime_checkable
class AsyncKeyedLocker(Protocol):
    """A keyed locker for asyncio. ``kmutex.AsyncKeyedMutex`` says what each call promises."""

    async def lock(self, key: Hashable, timeout: float | None = None) -> None: ...

    def unlock(self, key: Hashable) -> None: ...

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractAsyncContextManager[Releasable]: ...


def check_timeout(timeout: float | None) -> None:
    """ValueError unless ``timeout`` is None or a number of seconds from 0 up; NaN is none (KM-EXPIRED)."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
