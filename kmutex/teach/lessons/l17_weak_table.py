"""No counting: the table refers to its locks weakly, and a lock that nobody has any more goes by itself."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from weakref import WeakValueDictionary


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()

    def _lock_of(self, key: Hashable) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def lock(self, key: Hashable) -> None:
        self._lock_of(key).acquire()

    def unlock(self, key: Hashable) -> None:
        self._lock_of(key).release()

    def __len__(self) -> int:
        return len(self._locks)
