"""Hand-off; those who wait are kept in a list."""

from __future__ import annotations

import threading
from collections.abc import Hashable


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, list[threading.Event]] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                self._queues[key] = []
                return
            turn = threading.Event()
            self._queues[key].append(turn)
        turn.wait()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            queue = self._queues[key]
            if queue:
                queue.pop().set()
            else:
                del self._queues[key]

    def __len__(self) -> int:
        return len(self._queues)
