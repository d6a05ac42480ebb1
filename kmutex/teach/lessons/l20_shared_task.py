"""For asyncio, no lock: do(key, work) runs the work once for all who want it at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any

Work = Callable[[], Coroutine[Any, Any, Any]]


class Locker:
    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def do(self, key: Hashable, work: Work) -> Any:
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._run(key, work))
        return await self._tasks[key]

    async def _run(self, key: Hashable, work: Work) -> Any:
        try:
            return await work()
        finally:
            del self._tasks[key]
