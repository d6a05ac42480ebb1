"""unlock frees the key and wakes a waiter, who takes it if it is still free."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Entry:
    def __init__(self, guard: threading.Lock) -> None:
        self.freed = threading.Condition(guard)
        self.held = False
        self.users = 0


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, Entry] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, Entry(self._guard))
            entry.users += 1
            while entry.held:
                entry.freed.wait()
            entry.held = True

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.held:
                raise RuntimeError(f"{key!r} is not held")
            entry.held = False
            entry.users -= 1
            if entry.users == 0:
                del self._entries[key]
            else:
                entry.freed.notify()

    def __len__(self) -> int:
        return len(self._entries)
