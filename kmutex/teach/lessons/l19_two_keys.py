"""Hand-off, and hold_all for who needs several keys at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager


class Locker:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    @contextmanager
    def hold_all(self, keys: Iterable[Hashable]) -> Iterator[None]:
        with ExitStack() as held:
            for key in dict.fromkeys(keys):
                self.lock(key)
                held.callback(self.unlock, key)
            yield

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

    def __len__(self) -> int:
        return len(self._queues)
