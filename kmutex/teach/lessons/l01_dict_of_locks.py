"""A lock for each key, in a dict."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        lock.acquire()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._locks[key].release()

    def __len__(self) -> int:
        return len(self._locks)
