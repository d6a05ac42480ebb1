"""The number of users is read under the guard and written when the lock has been found."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._users: dict[Hashable, int] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
            users = self._users.setdefault(key, 0)
        self._users[key] = users + 1
        lock.acquire()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._locks[key].release()
            self._users[key] -= 1
            if self._users[key] <= 0:
                del self._locks[key], self._users[key]

    def __len__(self) -> int:
        return len(self._locks)
