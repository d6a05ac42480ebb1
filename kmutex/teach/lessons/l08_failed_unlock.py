"""An unlock of a key that nobody holds raises, as it should."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._users: Counter[Hashable] = Counter()

    def lock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
            self._users[key] += 1
        lock.acquire()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._users[key] -= 1
            self._locks[key].release()
            if self._users[key] == 0:
                del self._locks[key], self._users[key]

    def __len__(self) -> int:
        return len(self._locks)
