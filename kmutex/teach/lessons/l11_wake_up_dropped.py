"""For asyncio: unlock wakes the first in the queue, who takes the key as it runs."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable


class Entry:
    def __init__(self) -> None:
        self.held = False
        self.queue: deque[asyncio.Future[None]] = deque()


class Locker:
    def __init__(self) -> None:
        self._entries: dict[Hashable, Entry] = {}

    async def lock(self, key: Hashable) -> None:
        entry = self._entries.setdefault(key, Entry())
        if entry.held or entry.queue:
            turn = asyncio.get_running_loop().create_future()
            entry.queue.append(turn)
            try:
                await turn
            finally:
                entry.queue.remove(turn)
        entry.held = True

    def unlock(self, key: Hashable) -> None:
        entry = self._entries.get(key)
        if entry is None or not entry.held:
            raise RuntimeError(f"{key!r} is not held")
        entry.held = False
        for turn in entry.queue:
            if not turn.cancelled():
                turn.set_result(None)
                return
        del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)
