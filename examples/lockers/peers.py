"""Other people's locks behind the interface that ``kmutex verify`` takes.

    cd examples/lockers
    kmutex verify peers:KeyedLock        # the package asyncio-keyed-lock
    kmutex verify peers:AsyncioLock      # one asyncio.Lock for each key, and a count
    kmutex verify peers:AnyioLock        # one anyio.Lock for each key, and a count
    kmutex verify peers:LockAndCount --without fifo    # the recipe for threads that barges

What it says of them, and why, is in docs/peers.md.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
from asyncio_keyed_lock import AsyncioKeyedLock


class KeyedLock:
    """asyncio-keyed-lock: its context manager, taken apart into lock and unlock."""

    def __init__(self) -> None:
        self._lock = AsyncioKeyedLock()
        self._held: dict[Hashable, AbstractAsyncContextManager[None]] = {}

    async def lock(self, key: Any) -> None:
        block = self._lock(key)
        await block.__aenter__()
        self._held[key] = block

    def unlock(self, key: Any) -> None:
        leaving = self._held.pop(key).__aexit__(None, None, None)
        try:
            leaving.send(None)  # type: ignore[attr-defined]
        except StopIteration:
            return
        raise RuntimeError("leaving the block waits for something")

    def __len__(self) -> int:
        return self._lock.active_keys_count


class _PerKey:
    """A lock for each key and the number of those who hold it or wait for it."""

    make: Any

    def __init__(self) -> None:
        self._entries: dict[Hashable, list[Any]] = {}

    async def lock(self, key: Hashable) -> None:
        entry = self._entries.setdefault(key, [self.make(), 0])
        entry[1] += 1
        try:
            await entry[0].acquire()
        except BaseException:
            self._drop(key, entry)
            raise

    def unlock(self, key: Hashable) -> None:
        entry = self._entries[key]
        entry[0].release()
        self._drop(key, entry)

    def _drop(self, key: Hashable, entry: list[Any]) -> None:
        entry[1] -= 1
        if not entry[1]:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class AsyncioLock(_PerKey):
    """One asyncio.Lock for each key."""

    make = asyncio.Lock


class AnyioLock(_PerKey):
    """One anyio.Lock for each key. It must be released by the task that acquired it."""

    make = anyio.Lock


class LockAndCount:
    """The recipe that most people write for threads: a dict of [Lock, count]. Correct, but newcomers overtake."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, list[Any]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, [threading.Lock(), 0])
            entry[1] += 1
        taken = False
        try:
            taken = entry[0].acquire(timeout=-1 if timeout is None else timeout)
        finally:
            if not taken:
                self._drop(key, entry)
        if not taken:
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries[key]
        entry[0].release()
        self._drop(key, entry)

    def _drop(self, key: Hashable, entry: list[Any]) -> None:
        with self._guard:
            entry[1] -= 1
            if not entry[1]:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)
