"""What is measured: this library, the recipes that people write, every keyed locker on PyPI that runs, and references.

A subject is told by the code that its user would write. The workloads are compiled from it, as timeit does, so nobody
pays for an adapter. In that code ``l`` is the locker, ``k`` the key, ``t`` seconds.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, TypedDict

from kmutex import AsyncKeyedMutex, KeyedMutex
from twin import in_python

OURS, PLAIN = "kmutex", "kmutex, not compiled"
FLOOR = "floor"

Names = dict[str, Any]


@dataclass(frozen=True)
class Subject:
    """Something to measure.

    names: called before each sample; the names that its code uses, ``l`` among them. What it raises is the reason why
    the subject is not measured.
    hold: what stands after ``with`` or ``async with``. lock, unlock: statements; without them a block is entered and
    left by hand, and it is left out where lock and unlock are measured by themselves. timed: a call with a timeout; it
    raises TimeoutError or is false where the time is over. keyed: different keys are independent. peer: what this
    library is to be ahead of. package: on PyPI. note: what it does not promise, or how it was put to work.
    """

    name: str
    kind: str
    names: Callable[[], Names]
    hold: str = ""
    lock: str = ""
    unlock: str = ""
    timed: str = ""
    keyed: bool = True
    peer: bool = True
    package: str = ""
    note: str = ""

    def version(self) -> str:
        """Of its package, as installed; empty where it has none."""
        return metadata.version(self.package) if self.package else ""


class Floor:
    """What a keyed lock in Python can't do without: a guard round trip, a dict insert, a delete and a method call."""

    __slots__ = ("_entries", "_guard")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, None] = {}

    def call(self, key: Hashable) -> None:
        with self._guard:
            self._entries[key] = None
            del self._entries[key]


class FloorByName(Floor):
    """The same without a ``with``: the guard's two methods are called."""

    __slots__ = ()

    def call(self, key: Hashable) -> None:
        guard = self._guard
        guard.acquire()
        try:
            self._entries[key] = None
            del self._entries[key]
        finally:
            guard.release()


class EmptyBlock:
    """What a ``with`` block costs before anything is locked: a call that makes a lease, and its two ends."""

    __slots__ = ()

    def hold(self, key: Hashable) -> EmptyLease:
        return EmptyLease(self, key)


class EmptyLease:
    __slots__ = ("_key", "_mutex")

    def __init__(self, mutex: EmptyBlock, key: Hashable) -> None:
        self._mutex = mutex
        self._key = key

    def __enter__(self) -> EmptyLease:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        pass

    async def __aenter__(self) -> EmptyLease:
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        pass


class LockAndCount:
    """The recipe: a dict of [lock, count] behind a guard."""

    __slots__ = ("_entries", "_guard", "_make")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, list[Any]] = {}
        self._make = make

    def lock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = [self._make(), 0]
            entry[1] += 1
        entry[0].acquire()

    def lock_in_time(self, key: Hashable, timeout: float) -> bool:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = [self._make(), 0]
            entry[1] += 1
        if entry[0].acquire(timeout=timeout):
            return True
        with self._guard:
            entry[1] -= 1
            if not entry[1]:
                del self._entries[key]
        return False

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries[key]
            entry[1] -= 1
            if not entry[1]:
                del self._entries[key]
        entry[0].release()

    @contextmanager
    def generated(self, key: Hashable) -> Iterator[None]:
        self.lock(key)
        try:
            yield
        finally:
            self.unlock(key)

    def hold(self, key: Hashable) -> AbstractContextManager[None]:
        return _Hold(self, key)


class _Hold:
    __slots__ = ("_key", "_locks")

    def __init__(self, locks: LockAndCount, key: Hashable) -> None:
        self._locks = locks
        self._key = key

    def __enter__(self) -> None:
        self._locks.lock(self._key)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._locks.unlock(self._key)


class AsyncLockAndCount:
    """The same for asyncio, where nothing comes between two awaits, so without a guard."""

    __slots__ = ("_entries", "_make")

    def __init__(self, make: Callable[[], Any]) -> None:
        self._entries: dict[Hashable, list[Any]] = {}
        self._make = make

    async def lock(self, key: Hashable) -> None:
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = [self._make(), 0]
        entry[1] += 1
        try:
            await entry[0].acquire()
        except BaseException:
            self._drop(key, entry)
            raise

    def unlock(self, key: Hashable) -> None:
        entry = self._entries[key]
        entry[0].release()
        self._drop(key, entry)

    def hold(self, key: Hashable) -> _AsyncHold:
        return _AsyncHold(self, key)

    def _drop(self, key: Hashable, entry: list[Any]) -> None:
        entry[1] -= 1
        if not entry[1]:
            del self._entries[key]


class _AsyncHold:
    __slots__ = ("_key", "_locks")

    def __init__(self, locks: AsyncLockAndCount, key: Hashable) -> None:
        self._locks = locks
        self._key = key

    async def __aenter__(self) -> None:
        await self._locks.lock(self._key)

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        self._locks.unlock(self._key)


def _aiologic_lock() -> Any:
    import aiologic

    return aiologic.Lock()


class _Green:
    """aiologic.Lock under the names that `LockAndCount` calls; looked up once, as attributes of an instance."""

    __slots__ = ("acquire", "release")

    def __init__(self) -> None:
        lock = _aiologic_lock()
        self.acquire = lock.green_acquire
        self.release = lock.green_release


class _Asynchronous:
    __slots__ = ("acquire", "release")

    def __init__(self) -> None:
        lock = _aiologic_lock()
        self.acquire = lock.async_acquire
        self.release = lock.async_release


def _anyio_lock() -> Any:
    import anyio

    return anyio.Lock(fast_acquire=True)


def _oslo() -> Names:
    from oslo_concurrency import lockutils

    return {"l": lockutils.Semaphores(), "lock": lockutils.lock}


def _oslo_fair() -> Names:
    from oslo_concurrency import lockutils

    return {"l": None, "lock": lockutils.lock}


def _ae_lockname() -> Names:
    from ae.lockname import NamedLocks

    class Quiet(NamedLocks):  # type: ignore[misc]
        def dpo(self, *args: Any, **kwargs: Any) -> None:
            """Print nothing."""

    return {"l": Quiet(reentrant_locks=False), "NamedLocks": Quiet}


def _aiopriman() -> Names:
    from aiopriman.manager import LockManager
    from aiopriman.storage import StorageData

    return {"l": StorageData(), "LockManager": LockManager}


def _of_package(module: str, name: str) -> Callable[[], Names]:
    """A locker that is made without arguments, and used by its methods alone."""
    return lambda: {"l": getattr(import_module(module), name)()}


def _checked(make: Callable[[], Any], wrapped: Callable[[], Any]) -> Callable[[], Names]:
    """The import is tried at once, not at the first lock."""

    def names() -> Names:
        make()
        return {"l": wrapped()}

    return names


class Code(TypedDict):
    """How most subjects are spoken to."""

    lock: str
    unlock: str
    hold: str


CALLS: Code = {"lock": "l.lock(k)", "unlock": "l.unlock(k)", "hold": "l.hold(k)"}
AWAITED: Code = {**CALLS, "lock": "await l.lock(k)"}

THREADS: tuple[Subject, ...] = (
    Subject(OURS, "threads", lambda: {"l": KeyedMutex()}, **CALLS, timed="l.lock(k, t) is None", peer=False),
    Subject(
        PLAIN,
        "threads",
        lambda: {"l": in_python("KeyedMutex")()},
        **CALLS,
        timed="l.lock(k, t) is None",
        peer=False,
        note="the same source in Python; measured where the build is compiled",
    ),
    Subject(
        "recipe",
        "threads",
        lambda: {"l": LockAndCount(threading.Lock)},
        **CALLS,
        timed="l.lock_in_time(k, t)",
        note="a dict of [threading.Lock, count] behind a guard; the block is a class. Newcomers overtake;"
        " an interrupt in the wait leaves the count too high",
    ),
    Subject(
        "recipe, generator",
        "threads",
        lambda: {"l": LockAndCount(threading.Lock)},
        hold="l.generated(k)",
        note="the same, its block made with contextlib.contextmanager",
    ),
    Subject(
        "aiologic per key",
        "threads",
        _checked(_aiologic_lock, lambda: LockAndCount(_Green)),
        **CALLS,
        timed="l.lock_in_time(k, t)",
        package="aiologic",
        note="the recipe with aiologic.Lock, which belongs to its thread",
    ),
    Subject(
        "oslo.concurrency",
        "threads",
        _oslo,
        hold="lock(k, do_log=False, semaphores=l)",
        package="oslo.concurrency",
        note="lockutils.lock: a semaphore for each name, kept by weak references",
    ),
    Subject(
        "oslo.concurrency, fair",
        "threads",
        _oslo_fair,
        hold="lock(k, do_log=False, fair=True)",
        package="oslo.concurrency",
        note="the same with fair=True: a readers-writer lock for each name; one table for the whole process",
    ),
    Subject(
        "ae-lockname",
        "threads",
        _ae_lockname,
        lock="l.acquire(k)",
        unlock="l.release(k)",
        hold="NamedLocks(k, reentrant_locks=False)",
        package="ae-lockname",
        note="its debug printing, 4 lines for each lock, is switched off; one table for the whole process",
    ),
    Subject(
        "defaultdict(Lock)",
        "threads",
        lambda: {"l": defaultdict(threading.Lock)},
        lock="l[k].acquire()",
        unlock="l[k].release()",
        hold="l[k]",
        timed="l[k].acquire(timeout=t)",
        peer=False,
        note="a threading.Lock for each key, kept forever: a reference for what a lock and a hand-off cost at least",
    ),
    Subject(
        "threading.Lock",
        "threads",
        lambda: {"l": threading.Lock()},
        lock="l.acquire()",
        unlock="l.release()",
        hold="l",
        timed="l.acquire(timeout=t)",
        keyed=False,
        peer=False,
        note="one lock for everything: a reference, no keyed lock",
    ),
)

ASYNCIO: tuple[Subject, ...] = (
    Subject(OURS, "asyncio", lambda: {"l": AsyncKeyedMutex()}, **AWAITED, peer=False),
    Subject(
        PLAIN,
        "asyncio",
        lambda: {"l": in_python("AsyncKeyedMutex")()},
        **AWAITED,
        peer=False,
        note="the same source in Python; measured where the build is compiled",
    ),
    Subject(
        "asyncio.Lock per key",
        "asyncio",
        lambda: {"l": AsyncLockAndCount(asyncio.Lock)},
        **AWAITED,
        note="the recipe: a dict of [asyncio.Lock, count]; the block is a class",
    ),
    Subject(
        "anyio.Lock per key",
        "asyncio",
        _checked(_anyio_lock, lambda: AsyncLockAndCount(_anyio_lock)),
        **AWAITED,
        package="anyio",
        note="the recipe with anyio.Lock(fast_acquire=True), which belongs to its task",
    ),
    Subject(
        "aiologic per key",
        "asyncio",
        _checked(_aiologic_lock, lambda: AsyncLockAndCount(_Asynchronous)),
        **AWAITED,
        package="aiologic",
        note="the recipe with aiologic.Lock, which belongs to its task",
    ),
    Subject(
        "asyncio-keyed-lock",
        "asyncio",
        _of_package("asyncio_keyed_lock", "AsyncioKeyedLock"),
        hold="l(k)",
        package="asyncio-keyed-lock",
        note="an asyncio.Lock for each key and a count; a block only",
    ),
    Subject(
        "namedlocks",
        "asyncio",
        _of_package("named_locks", "AsyncNamedLock"),
        hold="l.lock(k)",
        package="namedlocks",
        note="an asyncio.Lock for each key, evicted by a look at its private list of waiters; a block only",
    ),
    Subject(
        "asyncio-tokenized-lock",
        "asyncio",
        _of_package("asyncio_tokenized_lock.lock", "LockManager"),
        hold="l.register(k)",
        package="asyncio-tokenized-lock",
        note="through LockManager.register; a lock that is made otherwise does not exclude",
    ),
    Subject(
        "aiopriman",
        "asyncio",
        _aiopriman,
        lock="await LockManager(l, k).acquire()",
        unlock="LockManager(l, k).release()",
        hold="LockManager(l, k)",
        package="aiopriman",
        note="an asyncio.Lock for each key, evicted when nobody has it or waits; keys are strings",
    ),
    Subject(
        "defaultdict(Lock)",
        "asyncio",
        lambda: {"l": defaultdict(asyncio.Lock)},
        lock="await l[k].acquire()",
        unlock="l[k].release()",
        hold="l[k]",
        peer=False,
        note="an asyncio.Lock for each key, kept forever: a reference for what a lock and a hand-off cost at least",
    ),
    Subject(
        "asyncio.Lock",
        "asyncio",
        lambda: {"l": asyncio.Lock()},
        lock="await l.acquire()",
        unlock="l.release()",
        hold="l",
        keyed=False,
        peer=False,
        note="one lock for everything: a reference, no keyed lock",
    ),
)

REFERENCES: tuple[Subject, ...] = tuple(
    reference
    for kind in ("threads", "asyncio")
    for reference in (
        Subject(
            FLOOR,
            kind,
            lambda: {"l": Floor()},
            lock="l.call(k)",
            unlock="pass",
            peer=False,
            note="one guard round trip, one dict insert, one delete and a method call; it locks nothing",
        ),
        Subject(
            "floor, by name",
            kind,
            lambda: {"l": FloorByName()},
            lock="l.call(k)",
            unlock="pass",
            peer=False,
            note="the same, its guard acquired and released by name instead of with `with`",
        ),
        Subject(
            "empty block",
            kind,
            lambda: {"l": EmptyBlock()},
            hold="l.hold(k)",
            peer=False,
            note="a call that makes a lease, and its two ends; it locks nothing",
        ),
    )
)

LEFT_OUT: tuple[tuple[str, str], ...] = (
    ("keyedlock", "on PyPI by its page; pip found no version of it here"),
    ("async-key-locker 0.1.0", "every release raises TypeError: it awaits asyncio.Lock.release()"),
    ("mutexcache 0.1.1", "its constructor raises TypeError: the ExpiringDict under it takes no max_len of None"),
    ("treelock, mutextree", "readers-writer locks over the paths of a tree, not a mutex for each key"),
    ("asyncio-multilock, fifolock, aiorwlock, locked-dict", "one lock, or what locks are made of; no keys"),
    ("ilock, namedatomiclock, fasteners, filelock", "between processes, through files: another trade"),
    ("keylock, keylocker", "encryption; the name is all they share"),
    ("best-simple-caching", "a cache that locks each key within; its lock can't be had by itself"),
)


def installed(subjects: Sequence[Subject]) -> tuple[list[Subject], dict[str, str]]:
    """Those that can be put to work here, and why each of the others can't."""
    found, missing = [], {}
    for subject in subjects:
        try:
            if subject.package or subject.name == PLAIN:
                subject.version()
                subject.names()
        except (
            Exception
        ) as error:  # Whatever a stranger's package raises: it can't be measured, and the reason is shown.
            missing[f"{subject.name} ({subject.kind})"] = f"{type(error).__name__}: {error}"
        else:
            found.append(subject)
    return found, missing
