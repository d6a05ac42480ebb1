"""Entries know how many use them; finding one and counting on it are two methods."""

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

    def _find(self, key: Hashable) -> Entry:
        with self._guard:
            return self._entries.setdefault(key, Entry())

    def _count(self, entry: Entry) -> None:
        with self._guard:
            entry.users += 1

    def lock(self, key: Hashable) -> None:
        entry = self._find(key)
        self._count(entry)
        entry.lock.acquire()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries[key]
            entry.lock.release()
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)
