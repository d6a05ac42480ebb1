"""One repair for each lesson's locker, by number. Not shipped: the lessons never show them."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from weakref import WeakValueDictionary


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Counting:
    """Found and counted in one turn of the guard, waited for outside it, evicted by the last."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        entry.lock.acquire()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries[key]
            entry.lock.release()
            self._leave(key, entry)

    def _leave(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class Timed(Counting):
    """The same, where a client that gives up is counted out."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
        if not entry.lock.acquire(timeout=-1 if timeout is None else timeout):
            with self._guard:
                self._leave(key, entry)
            raise TimeoutError(key)


class Handing:
    """unlock makes the oldest waiter the holder."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def lock(self, key: Hashable) -> None:
        turn = threading.Event()
        with self._guard:
            if key not in self._queues:
                self._queues[key] = deque([turn])
                return
            self._queues[key].append(turn)
        turn.wait()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._pass_on(key)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        queue.popleft()
        if queue:
            queue[0].set()
        else:
            del self._queues[key]

    def __len__(self) -> int:
        return len(self._queues)


class _Lease:
    def __init__(self, locker: Leasing, key: Hashable) -> None:
        self._locker = locker
        self._key = key
        self._grant: object = None

    def release(self) -> None:
        self._locker.end(self._key, self._grant)

    def __enter__(self) -> _Lease:
        self._locker.lock(self._key)
        self._grant = self._locker.grant(self._key)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Leasing(Handing):
    """A lease knows its grant."""

    def hold(self, key: Hashable) -> _Lease:
        return _Lease(self, key)

    def grant(self, key: Hashable) -> object:
        with self._guard:
            return self._queues[key][0]

    def end(self, key: Hashable, grant: object) -> None:
        with self._guard:
            if key in self._queues and self._queues[key][0] is grant:
                self._pass_on(key)


class AsyncHanding:
    """For asyncio; a cancelled client that was granted the key passes it on."""

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


class _AsyncEntry:
    def __init__(self) -> None:
        self.held = False
        self.queue: deque[asyncio.Future[None]] = deque()


class AsyncWaking:
    """For asyncio; a cancelled client that was woken wakes the next."""

    def __init__(self) -> None:
        self._entries: dict[Hashable, _AsyncEntry] = {}

    async def lock(self, key: Hashable) -> None:
        entry = self._entries.setdefault(key, _AsyncEntry())
        if entry.held or entry.queue:
            turn = asyncio.get_running_loop().create_future()
            entry.queue.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                entry.queue.remove(turn)
                if not turn.cancelled():
                    self._wake(key, entry)
                raise
            entry.queue.remove(turn)
        entry.held = True

    def unlock(self, key: Hashable) -> None:
        entry = self._entries.get(key)
        if entry is None or not entry.held:
            raise RuntimeError(f"{key!r} is not held")
        entry.held = False
        self._wake(key, entry)

    def _wake(self, key: Hashable, entry: _AsyncEntry) -> None:
        for turn in entry.queue:
            if not turn.cancelled():
                turn.set_result(None)
                return
        del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class Kept:
    """A lock for each key, which is never taken out: enough for the first lesson, which asks for no more."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        lock.acquire()

    def unlock(self, key: Hashable) -> None:
        self._locks[key].release()

    def __len__(self) -> int:
        return len(self._locks)


class Waiting:
    """Hand-off with a timeout: a grant of the last moment is kept, and whatever else ends the wait is undone."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        turn = threading.Event()
        with self._guard:
            if key not in self._queues:
                self._queues[key] = deque()
                return
            if timeout == 0:
                raise TimeoutError(key)
            self._queues[key].append(turn)
        try:
            granted = turn.wait(timeout)
        except BaseException:
            self._interrupted(key, turn)
            raise
        if not granted:
            self._timed_out(key, turn)

    def _timed_out(self, key: Hashable, turn: threading.Event) -> None:
        with self._guard:
            if not turn.is_set():
                self._queues[key].remove(turn)
                raise TimeoutError(key)

    def _interrupted(self, key: Hashable, turn: threading.Event) -> None:
        with self._guard:
            if turn.is_set():
                self._pass_on(key)
            else:
                self._queues[key].remove(turn)

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


class Weak:
    """Whoever holds a key keeps its lock alive."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()
        self._held: dict[Hashable, threading.Lock] = {}

    def lock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        lock.acquire()
        self._held[key] = lock

    def unlock(self, key: Hashable) -> None:
        self._held.pop(key).release()

    def __len__(self) -> int:
        return len(self._locks)


class AsyncOfOneLoop(AsyncHanding):
    """It belongs to the loop that uses it, until that has ended and no key is in use."""

    def __init__(self) -> None:
        super().__init__()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def lock(self, key: Hashable) -> None:
        self._check()
        await super().lock(key)

    def _check(self) -> None:
        running = asyncio.get_running_loop()
        if self._loop is not running:
            if self._loop is not None and (self._queues or self._loop.is_running()):
                raise RuntimeError("this locker belongs to another event loop")
            self._loop = running


class Sorting(Handing):
    """hold_all takes the keys in one order, each once."""

    @contextmanager
    def hold_all(self, keys: Iterable[Hashable]) -> Iterator[None]:
        with ExitStack() as held:
            for key in self._arranged(keys):
                self.lock(key)
                held.callback(self.unlock, key)
            yield

    def _arranged(self, keys: Iterable[Hashable]) -> list[Any]:
        return sorted(set(keys), key=repr)


class Flight:
    """The work is a task of its own: callers wait for it behind a shield, and it takes itself out of the table."""

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}

    async def do(self, key: Hashable, work: Callable[[], Any]) -> Any:
        if key not in self._tasks:
            self._tasks[key] = asyncio.create_task(self._run(key, work))
        return await self._outcome(key, self._tasks[key])

    async def _outcome(self, key: Hashable, task: asyncio.Task[Any]) -> Any:
        return await asyncio.shield(task)

    async def _run(self, key: Hashable, work: Callable[[], Any]) -> Any:
        try:
            return await work()
        finally:
            self._tasks.pop(key, None)


REPAIRED: dict[int, Callable[[], Any]] = {
    0: Kept,
    **dict.fromkeys((1, 2, 3, 4, 5, 6, 8), Counting),
    7: Handing,
    9: Leasing,
    10: Timed,
    11: AsyncWaking,
    12: AsyncHanding,
    **dict.fromkeys((13, 14, 15), Waiting),
    16: Handing,
    17: Weak,
    18: AsyncOfOneLoop,
    19: Sorting,
    20: Flight,
}
