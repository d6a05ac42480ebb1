"""A set of the keys that are held."""

from __future__ import annotations

from collections.abc import Hashable


class Locker:
    def __init__(self) -> None:
        self._held: set[Hashable] = set()

    def lock(self, key: Hashable) -> None:
        self._held.add(key)

    def unlock(self, key: Hashable) -> None:
        self._held.remove(key)

    def __len__(self) -> int:
        return len(self._held)
