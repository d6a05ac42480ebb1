"""Lockers that were judged wrongly once: bad ones that passed, each with a sound twin, and sound ones that did not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Iterator
from typing import Any

from kmutex import KeyedMutex
from tests.lockers.threads_sound import Actor


class CountingUsers:
    """A lock and a count for each key (sound)."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Any, list[Any]] = {}

    def _entry(self, key: Any) -> Any:
        return key

    def lock(self, key: Any, timeout: float | None = None) -> None:
        name = self._entry(key)
        with self._guard:
            entry = self._entries.setdefault(name, [threading.Lock(), 0])
            entry[1] += 1
        got = False
        try:
            got = entry[0].acquire(timeout=-1 if timeout is None else timeout)
        finally:
            if not got:
                self._drop(name, entry)
        if not got:
            raise TimeoutError

    def unlock(self, key: Any) -> None:
        name = self._entry(key)
        with self._guard:
            entry = self._entries[name]
        entry[0].release()
        self._drop(name, entry)

    def _drop(self, name: Any, entry: list[Any]) -> None:
        with self._guard:
            entry[1] -= 1
            if not entry[1]:
                del self._entries[name]


# -- what is kept ------------------------------------------------------------------------------------------------------


class AsyncCancelledCount:
    """A waiter that is cancelled leaves its count behind, and there is no len() to show it."""

    def __init__(self) -> None:
        self._entries: dict[Any, list[Any]] = {}

    async def lock(self, key: Any) -> None:
        entry = self._entries.setdefault(key, [asyncio.Lock(), 0])
        entry[1] += 1
        await entry[0].acquire()

    def unlock(self, key: Any) -> None:
        entry = self._entries[key]
        entry[0].release()
        self._drop(key, entry)

    def _drop(self, key: Any, entry: list[Any]) -> None:
        entry[1] -= 1
        if not entry[1]:
            del self._entries[key]


class AsyncCancelledCountRepaired(AsyncCancelledCount):
    """The count of a cancelled waiter is taken back (sound)."""

    async def lock(self, key: Any) -> None:
        entry = self._entries.setdefault(key, [asyncio.Lock(), 0])
        entry[1] += 1
        try:
            await entry[0].acquire()
        except BaseException:
            self._drop(key, entry)
            raise


class _NeverDropped(CountingUsers):
    def _drop(self, name: Any, entry: list[Any]) -> None:
        pass


class KeptUnderText(_NeverDropped):
    """Nothing is ever dropped, and what is kept is a text made from the key."""

    def _entry(self, key: Any) -> Any:
        return "lock:" + key if isinstance(key, str) else key


class KeptUnderHash(_NeverDropped):
    """Nothing is ever dropped, and what is kept is made from the key's hash."""

    def _entry(self, key: Any) -> Any:
        return hash(key) if isinstance(key, str) else key


_KEPT: dict[Any, threading.Lock] = {}


class KeptElsewhere(CountingUsers):
    """Counts right, and a table of the module keeps a lock for each text of a key."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        _KEPT.setdefault(f"lock:{key!r}", threading.Lock())
        super().lock(key, timeout)


class CountsUnderText(CountingUsers):
    """The same names, and entries that are dropped (sound)."""

    def _entry(self, key: Any) -> Any:
        return "lock:" + key if isinstance(key, str) else key


@functools.lru_cache(maxsize=256)
def _named(key: Any) -> tuple[str, Any]:
    return "lock", key


class RemembersNames(CountingUsers):
    """Remembers the names of its last 256 keys, and the last thousand things that it did (sound)."""

    def __init__(self) -> None:
        super().__init__()
        self._log: deque[str] = deque(maxlen=1000)

    def _entry(self, key: Any) -> Any:
        self._log.append(f"{key!r}")
        return key

    def lock(self, key: Any, timeout: float | None = None) -> None:
        _named(f"{key!r}")
        super().lock(key, timeout)


class WritesALog(CountingUsers):
    """Keeps a line for each call, whatever the key (sound as a locker)."""

    def __init__(self) -> None:
        super().__init__()
        self._log: list[str] = []

    def _entry(self, key: Any) -> Any:
        self._log.append("called")
        return key


class ActorKeeps(Actor):
    """A thread of its own serves all calls, and writes down each key for good; no two runs can share it."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        super().__init__()

    def lock(self, key: Any, timeout: float | None = None) -> None:
        self._seen.add(f"lock:{key!r}")
        super().lock(key, timeout)


# -- blocks whose body raises ------------------------------------------------------------------------------------------


class AsyncBlockWithoutFinally:
    """Whoever leaves the block by an error keeps the key forever."""

    def __init__(self) -> None:
        self._entries: dict[Any, list[Any]] = {}

    @contextlib.asynccontextmanager
    async def hold(self, key: Any) -> AsyncIterator[None]:
        entry = self._entries.setdefault(key, [asyncio.Lock(), 0])
        entry[1] += 1
        try:
            await entry[0].acquire()
        except BaseException:
            self._drop(key, entry)
            raise
        yield
        entry[0].release()
        self._drop(key, entry)

    def _drop(self, key: Any, entry: list[Any]) -> None:
        entry[1] -= 1
        if not entry[1]:
            del self._entries[key]


class AsyncBlockForErrorsOnly(AsyncBlockWithoutFinally):
    """Lets go after an error, and not after a cancellation, which is no Exception."""

    @contextlib.asynccontextmanager
    async def hold(self, key: Any) -> AsyncIterator[None]:
        inner = super().hold(key)
        await inner.__aenter__()
        try:
            yield
        except Exception:
            await inner.__aexit__(None, None, None)
            raise
        else:
            await inner.__aexit__(None, None, None)


class AsyncBlockRepaired(AsyncBlockWithoutFinally):
    """Lets go however the block is left (sound)."""

    @contextlib.asynccontextmanager
    async def hold(self, key: Any) -> AsyncIterator[None]:
        inner = super().hold(key)
        await inner.__aenter__()
        try:
            yield
        finally:
            await inner.__aexit__(None, None, None)


class AsyncBlockForgetsAfterwards:
    """Drops the idle entry behind the block: a body that raises leaves it, and the next use of the key clears it."""

    def __init__(self) -> None:
        self._locks: dict[Any, asyncio.Lock] = {}

    @contextlib.asynccontextmanager
    async def hold(self, key: Any) -> AsyncIterator[None]:
        lock = self._locks.setdefault(key, asyncio.Lock())
        async with lock:
            yield
        if not lock._waiters:
            self._locks.pop(key, None)


class BlockWithoutFinally(CountingUsers):
    """For threads: the key stays locked when the body of the block raises."""

    lock = unlock = None  # type: ignore[assignment]

    @contextlib.contextmanager
    def hold(self, key: Any) -> Iterator[None]:
        CountingUsers.lock(self, key)
        yield
        CountingUsers.unlock(self, key)


class BlockRepaired(BlockWithoutFinally):
    """With the finally (sound)."""

    @contextlib.contextmanager
    def hold(self, key: Any) -> Iterator[None]:
        CountingUsers.lock(self, key)
        try:
            yield
        finally:
            CountingUsers.unlock(self, key)


# -- held through a long time, and through many keys -------------------------------------------------------------------


class LastOnly:
    """A table of the last 160 locks that were asked for, whether they are held or not."""

    most = 160

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: OrderedDict[Any, threading.Lock] = OrderedDict()

    def _lock_of(self, key: Any) -> threading.Lock:
        with self._guard:
            lock = self._locks.pop(key, None) or threading.Lock()
            self._locks[key] = lock
            self._drop()
            return lock

    def _drop(self) -> None:
        if len(self._locks) > self.most:
            self._locks.popitem(last=False)

    def lock(self, key: Any, timeout: float | None = None) -> None:
        if not self._lock_of(key).acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError

    def unlock(self, key: Any) -> None:
        with self._guard:
            lock = self._locks.get(key)
        if lock is None:
            raise RuntimeError("nobody holds this key")
        lock.release()


class LastThousand(LastOnly):
    """The same with a thousand."""

    most = 1000


class LastOnlyRepaired(LastOnly):
    """Drops the oldest of those that nobody has or waits for (sound, and keeps 160 idle ones)."""

    def __init__(self) -> None:
        super().__init__()
        self._users: dict[Any, int] = {}

    def _drop(self) -> None:
        for key in list(self._locks)[: max(0, len(self._locks) - self.most)]:
            if not self._users.get(key):
                del self._locks[key]

    def lock(self, key: Any, timeout: float | None = None) -> None:
        with self._guard:
            self._users[key] = self._users.get(key, 0) + 1
        try:
            super().lock(key, timeout)
        except BaseException:
            self._gone(key)
            raise

    def unlock(self, key: Any) -> None:
        super().unlock(key)
        self._gone(key)

    def _gone(self, key: Any) -> None:
        with self._guard:
            self._users[key] -= 1
            if not self._users[key]:
                del self._users[key]


class ForAnHour(CountingUsers):
    """Entries that are older than an hour are swept, held or not."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[Any, float] = {}

    def _old(self, key: Any) -> bool:
        return time.monotonic() - self._since.get(key, 0.0) > 3600

    def lock(self, key: Any, timeout: float | None = None) -> None:
        with self._guard:
            for old in [each for each in self._entries if self._old(each)]:
                del self._entries[old], self._since[old]
            self._since.setdefault(key, time.monotonic())
        super().lock(key, timeout)

    def _drop(self, name: Any, entry: list[Any]) -> None:
        with self._guard:
            entry[1] -= 1
            if not entry[1] and self._entries.get(name) is entry:
                del self._entries[name]
                self._since.pop(name, None)


class ForAnHourRepaired(ForAnHour):
    """Sweeps what nobody uses (sound)."""

    def _old(self, key: Any) -> bool:
        return not self._entries[key][1] and super()._old(key)


class AsyncForAnHour:
    """A timer takes each entry out of the table after an hour."""

    def __init__(self) -> None:
        self._entries: dict[Any, list[Any]] = {}

    async def lock(self, key: Any) -> None:
        if key not in self._entries:
            self._entries[key] = [asyncio.Lock(), 0]
            asyncio.get_running_loop().call_later(3600, self._expire, key, self._entries[key])
        entry = self._entries[key]
        entry[1] += 1
        try:
            await entry[0].acquire()
        except BaseException:
            entry[1] -= 1
            raise

    def unlock(self, key: Any) -> None:
        entry = self._entries[key]
        entry[0].release()
        entry[1] -= 1

    def _expire(self, key: Any, entry: list[Any]) -> None:
        if self._entries.get(key) is entry:
            del self._entries[key]


class AsyncForAnHourByClock(AsyncCancelledCountRepaired):
    """Looks at the clock when a key is asked for, and makes a new lock where the old one is an hour old."""

    def __init__(self) -> None:
        super().__init__()
        self._since: dict[Any, float] = {}

    async def lock(self, key: Any) -> None:
        now = time.monotonic()
        if now - self._since.get(key, now) > 3600:
            del self._entries[key], self._since[key]
        self._since.setdefault(key, now)
        await super().lock(key)

    def _drop(self, key: Any, entry: list[Any]) -> None:
        super()._drop(key, entry)
        if key not in self._entries:
            self._since.pop(key, None)


# -- threads of its own ------------------------------------------------------------------------------------------------


class ByHelper:
    """Each unlock is done by a thread that is started for it and joined (sound)."""

    def __init__(self) -> None:
        self._mutex = KeyedMutex()

    def lock(self, key: Any, timeout: float | None = None) -> None:
        self._mutex.lock(key, timeout)

    def unlock(self, key: Any) -> None:
        errors: list[Exception] = []
        helper = threading.Thread(target=self._try, args=(key, errors))
        helper.start()
        helper.join()
        if helper.is_alive():
            raise RuntimeError("it was joined")
        if errors:
            raise errors[0]

    def _try(self, key: Any, errors: list[Exception]) -> None:
        try:
            self._mutex.unlock(key)
        except Exception as error:
            errors.append(error)

    def __len__(self) -> int:
        return len(self._mutex)


class ByHelperNotJoined(ByHelper):
    """Does not wait for its helper, so an unlock may come back before the key is free, and errors are lost."""

    def unlock(self, key: Any) -> None:
        threading.Thread(target=self._try, args=(key, [])).start()


# -- named wrongly -----------------------------------------------------------------------------------------------------


class LooksThenTakes:
    """Two that come at the same time both find the key free (KM-EXCL, whatever else goes on)."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._gates: dict[Any, deque[threading.Lock]] = {}

    def lock(self, key: Any, timeout: float | None = None) -> None:
        with self._guard:
            free = key not in self._gates
        gate = threading.Lock()
        with self._guard:
            if free:
                self._gates[key] = deque()
                return
            gate.acquire()
            self._gates.setdefault(key, deque()).append(gate)
        if not gate.acquire(timeout=-1 if timeout is None else timeout):
            with self._guard:
                if gate not in self._gates.get(key, ()):
                    return
                self._gates[key].remove(gate)
            raise TimeoutError

    def unlock(self, key: Any) -> None:
        with self._guard:
            if key not in self._gates:
                raise RuntimeError("nobody holds this key")
            if self._gates[key]:
                self._gates[key].popleft().release()
            else:
                del self._gates[key]


class RefusesFirstTry(CountingUsers):
    """A try is refused until the key has been waited for once; nothing is wrong with any other call."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[Any] = set()

    def lock(self, key: Any, timeout: float | None = None) -> None:
        if timeout == 0 and key not in self._known:
            raise TimeoutError
        self._known.add(key)
        super().lock(key, timeout)

    def unlock(self, key: Any) -> None:
        super().unlock(key)
        self._known.discard(key)
