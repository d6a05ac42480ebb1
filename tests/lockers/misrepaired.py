"""Repairs of the lessons that many would hand in, and that are wrong: tests/teach/test_lessons.py has each rejected."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from tests.lockers.repaired import AsyncHanding, AsyncOfOneLoop, Flight, Handing, Kept, Sorting, Waiting, Weak


class OneForAll(Kept):
    """One lock, whatever the key."""

    def lock(self, key: Hashable) -> None:
        super().lock("all")

    def unlock(self, key: Hashable) -> None:
        super().unlock("all")


class LooksFirst:
    """Waits until the key is not in the set, and then puts it there."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._held: set[Hashable] = set()

    def lock(self, key: Hashable) -> None:
        with self._changed:
            while key in self._held:
                self._changed.wait()
        with self._changed:
            self._held.add(key)

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            self._held.remove(key)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._held)


class RaisesAndKeeps(Waiting):
    """A wait that came back without the grant raises, whatever has been granted since."""

    def _timed_out(self, key: Hashable, turn: threading.Event) -> None:
        with self._guard:
            if turn in self._queues[key]:
                self._queues[key].remove(turn)
        raise TimeoutError(key)


class LooksOutside(RaisesAndKeeps):
    """Who gives up looks for its grant before it has the guard."""

    def _timed_out(self, key: Hashable, turn: threading.Event) -> None:
        if not turn.is_set():
            super()._timed_out(key, turn)


class RefusesBeforeItLooks(Waiting):
    """Timeout 0 is over before it has looked, so that a free key is refused."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout == 0:
            raise TimeoutError(key)
        super().lock(key, timeout)


class RefusedStaysQueued(Waiting):
    """Timeout 0 is refused at once, after its event was put into the queue."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout == 0:
            with self._guard:
                if key in self._queues:
                    self._queues[key].append(threading.Event())
                    raise TimeoutError(key)
        super().lock(key, timeout)


class ExceptionsOnly(Waiting):
    """Cleans up by `except Exception`, which an interrupt is not."""

    def _interrupted(self, key: Hashable, turn: threading.Event) -> None:
        pass


class LeavesTheQueueOnly(Waiting):
    """An interrupted client leaves the queue; if it has been granted the key, it keeps that."""

    def _interrupted(self, key: Hashable, turn: threading.Event) -> None:
        with self._guard:
            if turn in self._queues[key]:
                self._queues[key].remove(turn)


class FromBothEnds(Handing):
    """The oldest, and if several wait the newest: everybody has a chance."""

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        queue.popleft()
        queue.rotate(1)
        if queue:
            queue[0].set()
        else:
            del self._queues[key]


class WakesAll:
    """Frees the key and wakes all who wait: whoever is quick has it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[Hashable, int] = {}
        self._held: set[Hashable] = set()

    def lock(self, key: Hashable) -> None:
        with self._changed:
            self._waiting[key] = self._waiting.get(key, 0) + 1
            while key in self._held:
                self._changed.wait()
            self._held.add(key)

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            self._held.remove(key)
            self._waiting[key] -= 1
            if not self._waiting[key]:
                del self._waiting[key]
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._waiting)


class ReleasesFirst(Weak):
    """Forgets the lock after it has released it: the next holder may have put its own there."""

    def unlock(self, key: Hashable) -> None:
        self._held[key].release()
        del self._held[key]


class KeepsAll(Weak):
    """Keeps each lock that was ever made, so that none is lost."""

    def __init__(self) -> None:
        super().__init__()
        self._all: list[threading.Lock] = []

    def lock(self, key: Hashable) -> None:
        super().lock(key)
        self._all.append(self._held[key])


class AsyncRefusesWaits(AsyncOfOneLoop):
    """Refuses a second loop only where the call would wait, as asyncio.Lock does."""

    async def lock(self, key: Hashable) -> None:
        if key in self._queues:
            self._check()
        else:
            self._loop = asyncio.get_running_loop()
        await AsyncHanding.lock(self, key)


class AsyncRefusesLate(AsyncOfOneLoop):
    """Refuses a second loop, after the call has taken its place in the queue."""

    async def lock(self, key: Hashable) -> None:
        try:
            self._check()
        except RuntimeError:
            self._queues.setdefault(key, deque()).append(asyncio.get_running_loop().create_future())
            raise
        await AsyncHanding.lock(self, key)


class TakesTwice(Sorting):
    """Sorts, and takes a key that is named twice two times."""

    def _arranged(self, keys: Iterable[Hashable]) -> list[Any]:
        return sorted(keys, key=repr)


class UnderOneGuard(Sorting):
    """Takes the keys in any order, under a guard that nobody can take meanwhile, nor who wants to let go of one."""

    def __init__(self) -> None:
        super().__init__()
        self._taking = threading.Lock()

    def _arranged(self, keys: Iterable[Hashable]) -> list[Any]:
        return list(dict.fromkeys(keys))

    def unlock(self, key: Hashable) -> None:
        with self._taking:
            super().unlock(key)

    def lock(self, key: Hashable) -> None:
        with self._taking:
            super().lock(key)


class CallerForgets(Flight):
    """Behind a shield, and a cancelled caller takes the key out of the table although the run goes on."""

    async def _outcome(self, key: Hashable, task: asyncio.Task[Any]) -> Any:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._tasks.pop(key, None)
            raise


class LeaderUnshielded(Flight):
    """Only those who join wait behind a shield: the first has made the task, and may end it."""

    async def do(self, key: Hashable, work: Callable[[], Any]) -> Any:
        if key in self._tasks:
            return await asyncio.shield(self._tasks[key])
        self._tasks[key] = asyncio.create_task(self._run(key, work))
        return await self._tasks[key]
