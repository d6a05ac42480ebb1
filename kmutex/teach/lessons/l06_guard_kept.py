"""Nothing can come in between, for all of it is under the guard."""

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

    def lock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, Entry())
            entry.users += 1
            entry.lock.acquire()

    def unlock(self, key: Hashable) -> None:
        entry = self._entries[key]
        entry.lock.release()
        with self._guard:
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)
