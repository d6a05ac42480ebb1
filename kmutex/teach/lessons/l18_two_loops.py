"""For asyncio: lesson 12, repaired. One locker at the top of a module, for everybody."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable


class Locker:
    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[asyncio.Future[None]]] = {}

    async def lock(self, key: Hashable) -> None:
        if key not in self._queues:
            self._queues[key] = deque()
            return
        queue = self._queues[key]
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self.unlock(key)
            elif turn in queue:
                queue.remove(turn)
            raise

    def unlock(self, key: Hashable) -> None:
        queue = self._queues[key]
        while queue:
            turn = queue.popleft()
            if not turn.cancelled():
                turn.set_result(None)
                return
        del self._queues[key]

    def __len__(self) -> int:
        return len(self._queues)
