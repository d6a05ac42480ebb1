"""Small lock-shaped cases after the ideas of SCTBench and ConVul, as keyed lockers with one mistake each.

SCTBench (P. Thomson, A. Donaldson and A. Betts, PPoPP 2014) and ConVul (R. Meng and others) are collections of programs
in C. What is here is written anew: the mistake that a program is known for, put into a keyed locker. Two or three
callers who lock, look whether they are alone, and unlock can see it. `Sound` has no mistake.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple


class Entry:
    """What a key has while it is in use."""

    def __init__(self) -> None:
        self.mutex = threading.Lock()
        self.users = 0


class Sound:
    """An entry is counted under the guard, and evicted there by the last."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.entries: dict[Hashable, Entry] = {}

    def __len__(self) -> int:
        return len(self.entries)

    def lock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries.setdefault(key, Entry())
            entry.users += 1
        entry.mutex.acquire()

    def unlock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries[key]
            entry.users -= 1
            if not entry.users:
                del self.entries[key]
        entry.mutex.release()


class Account(Sound):
    """SCTBench, account: a balance is moved without the guard, and an update is lost."""

    def lock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries.setdefault(key, Entry())
        entry.users += 1
        entry.mutex.acquire()


class WrongLock(Sound):
    """SCTBench, wronglock: what one side guards with one lock, the other guards with another."""

    def __init__(self) -> None:
        super().__init__()
        self.other = threading.Lock()

    def unlock(self, key: Hashable) -> None:
        with self.other:
            entry = self.entries[key]
            entry.users -= 1
            if not entry.users:
                del self.entries[key]
        entry.mutex.release()


class TwoStage(Sound):
    """SCTBench, twostage: what is made under one lock is finished under another, and is seen in between."""

    def __init__(self) -> None:
        super().__init__()
        self.second = threading.Lock()
        self.mutexes: dict[Hashable, threading.Lock] = {}

    def lock(self, key: Hashable) -> None:
        with self.guard:
            new = key not in self.entries
            entry = self.entries.setdefault(key, Entry())
            entry.users += 1
        if new:
            with self.second:
                self.mutexes[key] = entry.mutex
        self.mutexes[key].acquire()


class Reorder(Sound):
    """SCTBench, reorder: that it is ready is said before it is."""

    def __init__(self) -> None:
        super().__init__()
        self.ready: set[Hashable] = set()
        self.mutexes: dict[Hashable, threading.Lock] = {}

    def lock(self, key: Hashable) -> None:
        if key not in self.ready:
            self.ready.add(key)
            self.mutexes[key] = threading.Lock()
        self.mutexes[key].acquire()

    def unlock(self, key: Hashable) -> None:
        self.mutexes[key].release()


class Lazy(Sound):
    """SCTBench, lazy: what is made at its first use is made twice."""

    def lock(self, key: Hashable) -> None:
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = Entry()
        with self.guard:
            entry.users += 1
        entry.mutex.acquire()


class Deadlock(Sound):
    """SCTBench, deadlock01: two locks are taken in either order."""

    def lock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries.setdefault(key, Entry())
            entry.users += 1
            entry.mutex.acquire()


class Carter(Sound):
    """SCTBench, carter01: two locks are taken in either order, by who comes first and by who leaves last only."""

    def __init__(self) -> None:
        super().__init__()
        self.census = threading.Lock()
        self.inside = 0

    def lock(self, key: Hashable) -> None:
        with self.guard:
            with self.census:
                self.inside += 1
            entry = self.entries.setdefault(key, Entry())
            entry.users += 1
        entry.mutex.acquire()

    def unlock(self, key: Hashable) -> None:
        with self.census:
            self.inside -= 1
            if not self.inside:
                super().unlock(key)
                return
        super().unlock(key)


class Bluetooth(Sound):
    """SCTBench, bluetooth_driver: whoever has seen that it is not being stopped counts itself too late."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped: set[Entry] = set()

    def lock(self, key: Hashable) -> None:
        while True:
            entry = self.entries.setdefault(key, Entry())
            if entry in self.stopped:
                with self.guard:
                    continue
            with self.guard:
                entry.users += 1
            entry.mutex.acquire()
            return

    def unlock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries[key]
            entry.users -= 1
            if not entry.users:
                self.stopped.add(entry)
                del self.entries[key]
        entry.mutex.release()


class CircularBuffer(Sound):
    """SCTBench, circular_buffer: a slot is filled and the end moved in two steps, so two waiters take one slot."""

    def __init__(self) -> None:
        super().__init__()
        self.slots: list[Any] = [None] * 4
        self.begin = self.end = 0

    def __len__(self) -> int:
        return max(0, self.end - self.begin)

    def lock(self, key: Hashable) -> None:
        gate = threading.Lock()
        gate.acquire()
        at = self.end
        self.slots[at % 4] = gate
        self.end = at + 1
        if at == self.begin:
            gate.release()
        gate.acquire()

    def unlock(self, key: Hashable) -> None:
        with self.guard:
            self.begin += 1
            following = self.slots[self.begin % 4] if self.begin < self.end else None
        if following is not None:
            following.release()


class Stack(Sound):
    """SCTBench, stack: the top is read and moved without a lock, so two pop the same."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = [threading.Lock() for _ in range(3)]
        self.top = 2

    def lock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries.setdefault(key, Entry())
            entry.users += 1
        entry.mutex.acquire()
        mine = self.pool[self.top]
        self.top -= 1
        if not mine.acquire(blocking=False):
            raise RuntimeError("popped twice")

    def unlock(self, key: Hashable) -> None:
        super().unlock(key)
        self.top += 1
        self.pool[self.top].release()


class TokenRing(Sound):
    """SCTBench, token_ring: each passes the token on by what it has read of it before."""

    def __init__(self) -> None:
        super().__init__()
        self.last = self.served = 0
        self.turn = threading.Condition()

    def __len__(self) -> int:
        return 0

    def lock(self, key: Hashable) -> None:
        mine = self.last
        self.last = mine + 1
        with self.turn:
            while self.served != mine:
                self.turn.wait()

    def unlock(self, key: Hashable) -> None:
        with self.turn:
            self.served += 1
            self.turn.notify_all()


class Sync(Sound):
    """SCTBench, sync01: whoever is woken does not look again."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.held: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self.held)

    def lock(self, key: Hashable) -> None:
        with self.changed:
            if key in self.held:
                self.changed.wait()
            self.held.add(key)

    def unlock(self, key: Hashable) -> None:
        with self.changed:
            self.held.remove(key)
            self.changed.notify()


class LostSignal(Sound):
    """SCTBench, sync02: it looks in one step and begins to wait in another, and is not woken any more."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition()
        self.held: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self.held)

    def lock(self, key: Hashable) -> None:
        with self.guard:
            taken = key in self.held
            self.held.add(key)
        if taken:
            with self.changed:
                self.changed.wait()
            with self.guard:
                self.held.add(key)

    def unlock(self, key: Hashable) -> None:
        with self.guard:
            self.held.discard(key)
        with self.changed:
            self.changed.notify()


class DoubleFree(Sound):
    """ConVul, a double free: two see that they are the last, and both evict."""

    def unlock(self, key: Hashable) -> None:
        entry = self.entries[key]
        with self.guard:
            entry.users -= 1
        entry.mutex.release()
        if not entry.users:
            del self.entries[key]


class UseAfterFree(Sound):
    """ConVul, a use after free: an entry is found, and counted when it may be evicted already."""

    def lock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries.setdefault(key, Entry())
        with self.guard:
            entry.users += 1
        entry.mutex.acquire()


class NullDereference(Sound):
    """ConVul, a null pointer: it is looked up once to see whether it is there, and once to use it."""

    def lock(self, key: Hashable) -> None:
        with self.guard:
            if key not in self.entries:
                self.entries[key] = Entry()
        with self.guard:
            self.entries[key].users += 1
        self.entries[key].mutex.acquire()


class FreedByTheOther(Sound):
    """ConVul, a reference taken from a list after its lock: who is freed is who was found, not who is there now."""

    def unlock(self, key: Hashable) -> None:
        with self.guard:
            entry = self.entries[key]
            entry.users -= 1
            last = not entry.users
        entry.mutex.release()
        if last:
            with self.guard:
                self.entries.pop(key, None)


class Case(NamedTuple):
    """A locker, and how many callers show its mistake."""

    make: Callable[[], Any]
    callers: int = 2

    @property
    def label(self) -> str:
        number = "" if self.callers == 2 else f", {self.callers} callers"
        return f"{self.make.__name__}{number}"


CASES = (
    *(Case(make) for make in (Account, WrongLock, TwoStage, Reorder, Lazy, Deadlock, Carter, Bluetooth)),
    *(Case(make) for make in (CircularBuffer, Stack, TokenRing, LostSignal, DoubleFree, UseAfterFree)),
    *(Case(make) for make in (NullDereference, FreedByTheOther)),
    Case(Sync, 3),
)
"""Each has a mistake."""
SOUND = (Case(Sound), Case(Sound, 3))
ZOO = (
    *("EvictWithWaiters", "CountOutsideGuard", "EvictByLocked", "NonAtomicCount", "FastPathOutsideGuard"),
    *("DoubleCheckedOnce", "SetdefaultThenCount", "ReadOutsideActInside", "EventClearedLate"),
)
"""Known-bad lockers of tests/lockers whose mistake is seen by callers who lock and unlock, and needs a schedule."""


def zoo() -> list[Case]:
    """Those."""
    from tests.lockers import threads_bad

    return [Case(getattr(threads_bad, name)) for name in ZOO]
