"""Leases, for callers who forget to unlock."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable


class Lease:
    def __init__(self, locker: Locker, key: Hashable) -> None:
        self._locker = locker
        self._key = key

    def release(self) -> None:
        self._locker.unlock(self._key)

    def __enter__(self) -> Lease:
        self._locker.lock(self._key)
        return self

    def __exit__(self, *_: object) -> None:
        if self._key in self._locker:
            self.release()


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def hold(self, key: Hashable) -> Lease:
        return Lease(self, key)

    def lock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                self._queues[key] = deque()
                return
            turn = threading.Event()
            self._queues[key].append(turn)
        turn.wait()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            queue = self._queues[key]
            if queue:
                queue.popleft().set()
            else:
                del self._queues[key]

    def __contains__(self, key: Hashable) -> bool:
        return key in self._queues

    def __len__(self) -> int:
        return len(self._queues)
