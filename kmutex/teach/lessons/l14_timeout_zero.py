"""Hand-off with a timeout, also for callers who do not want to wait."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        turn = threading.Event()
        with self._guard:
            if key not in self._queues:
                self._queues[key] = deque()
                return
            self._queues[key].append(turn)
        if not turn.wait(timeout or None):
            with self._guard:
                if turn in self._queues[key]:
                    self._queues[key].remove(turn)
                    raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._pass_on(key)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if queue:
            queue.popleft().set()
        else:
            del self._queues[key]

    def __len__(self) -> int:
        return len(self._queues)
