"""A client may give up after a time."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, Entry] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, Entry())
            entry.users += 1
        if not entry.lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries[key]
            entry.lock.release()
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)
