"""Keyed lockers for threads with one known mistake each; the docstring of each class says which.

`lock(key, timeout=None)` takes seconds and raises TimeoutError; `unlock(key)` raises for a key without a
holder, save where that is the mistake; `len()` counts the keys that are held or waited for.
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Hashable, Iterator


def checked(timeout: float | None) -> float | None:
    """Refuse a negative or NaN timeout, and cut a huge one to what the platform can wait."""
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


def for_lock(seconds: float | None) -> float:
    """The same wait as Lock.acquire spells it."""
    return -1 if seconds is None else seconds


class Waiter:
    """One caller in a queue."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.granted = False
        self.gone = False


class EvictWithWaiters:
    """unlock takes the lock out of the table although others still wait for it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
            if lock.acquire(blocking=False):
                return
        if not lock.acquire(timeout=for_lock(seconds)):
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._locks.pop(key).release()

    def __len__(self) -> int:
        return len(self._locks)


class Counted:
    """A lock and the number of its users."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class CountOutsideGuard:
    """Finds the entry in one turn of the guard and counts in another: it may count on an evicted one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, Counted] = {}

    def _find(self, key: Hashable) -> Counted:
        with self._guard:
            return self._entries.setdefault(key, Counted())

    def _count(self, entry: Counted) -> None:
        with self._guard:
            entry.users += 1

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        entry = self._find(key)
        self._count(entry)
        acquired = False
        try:
            acquired = entry.lock.acquire(timeout=for_lock(seconds))
            if not acquired:
                raise TimeoutError(key)
        except BaseException:
            with self._guard:
                if acquired:
                    entry.lock.release()
                self._drop(key, entry)
            raise

    def _drop(self, key: Hashable, entry: Counted) -> None:
        entry.users -= 1
        if entry.users == 0 and self._entries.get(key) is entry:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries[key]
            entry.lock.release()
            self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class EvictByLocked:
    """Takes an open lock for an idle one, but it is also open between its release and the next acquire."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
            if lock.acquire(blocking=False):
                return
        if not lock.acquire(timeout=for_lock(seconds)):
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._locks[key]
            lock.release()
            if not lock.locked():
                del self._locks[key]

    def __len__(self) -> int:
        return len(self._locks)


class NonAtomicCount:
    """Reads the count under the guard, but writes it back later, over the counting of others."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[Hashable, threading.Lock] = {}
        self._users: dict[Hashable, int] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
            users = self._users.setdefault(key, 0)
        self._users[key] = users + 1
        acquired = False
        try:
            acquired = lock.acquire(timeout=for_lock(seconds))
            if not acquired:
                raise TimeoutError(key)
        except BaseException:
            with self._guard:
                if acquired:
                    lock.release()
                self._drop(key)
            raise

    def _drop(self, key: Hashable) -> None:
        self._users[key] -= 1
        if self._users[key] <= 0:
            del self._users[key], self._locks[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._locks[key].release()
            self._drop(key)

    def __len__(self) -> int:
        return len(self._locks)


class RefEntry:
    """refs counts the holder and the waiters."""

    def __init__(self) -> None:
        self.refs = 0
        self.held = False
        self.queue: deque[threading.Event] = deque()


class CancelKeepsCount:
    """A caller that gives up leaves the queue, but its reference stays."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, RefEntry] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            entry = self._entries.setdefault(key, RefEntry())
            if not entry.held and not entry.queue:
                entry.held = True
                entry.refs += 1
                return
            if seconds == 0:
                raise TimeoutError(key)
            entry.refs += 1
            turn = threading.Event()
            entry.queue.append(turn)
        try:
            turn.wait(seconds)
        except BaseException:
            with self._guard:
                if turn.is_set():
                    self._hand_on(key, entry)
                else:
                    entry.queue.remove(turn)
            raise
        with self._guard:
            if not turn.is_set():
                entry.queue.remove(turn)
                raise TimeoutError(key)

    def _hand_on(self, key: Hashable, entry: RefEntry) -> None:
        entry.refs -= 1
        entry.held = bool(entry.queue)
        if entry.queue:
            entry.queue.popleft().set()
        elif entry.refs == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.held:
                raise RuntimeError(f"{key!r} is not held")
            self._hand_on(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class FailedTryLeavesEntry:
    """A try (timeout 0) counts itself before it looks, and leaves that count where the key is taken."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._refs: Counter[Hashable] = Counter()
        self._held: dict[Hashable, deque[threading.Lock]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            self._refs[key] += 1
            if key not in self._held:
                self._held[key] = deque()
                return
            if seconds == 0:
                raise TimeoutError(key)
            gate = threading.Lock()
            gate.acquire()
            gates = self._held[key]
            gates.append(gate)
        opened = False
        try:
            opened = gate.acquire(timeout=for_lock(seconds))
        except BaseException:
            with self._guard:
                if gate in gates:
                    gates.remove(gate)
                    self._refs[key] -= 1
                else:
                    self._hand_on(key)
            raise
        if not opened:
            with self._guard:
                if gate in gates:
                    gates.remove(gate)
                    self._refs[key] -= 1
                    raise TimeoutError(key)

    def _hand_on(self, key: Hashable) -> None:
        self._refs[key] -= 1
        if self._held[key]:
            self._held[key].popleft().release()
        else:
            del self._held[key]
        if self._refs[key] == 0:
            del self._refs[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._held:
                raise KeyError(key)
            self._hand_on(key)

    def __len__(self) -> int:
        return len(self._refs)


class NeverEvicts:
    """An idle key keeps its queue in the table for ever."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[Hashable, list[object]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, [])
            queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: ticket not in queue or queue[0] is ticket, seconds):
                    raise TimeoutError(key)
            except BaseException:
                if ticket in queue:
                    queue.remove(ticket)
                    self._changed.notify_all()
                raise

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            if not self._queues.get(key):
                raise RuntimeError(f"{key!r} is not held")
            self._queues[key].pop(0)
            self._changed.notify_all()

    def __len__(self) -> int:
        return len(self._queues)


class CancelDeletesKey:
    """The last waiter to give up deletes the key, although it is held."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._gates: dict[Hashable, list[threading.Lock]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            gates = self._gates.get(key)
            if gates is None:
                self._gates[key] = []
                return
            if seconds == 0:
                raise TimeoutError(key)
            gate = threading.Lock()
            gate.acquire()
            gates.append(gate)
        opened = False
        try:
            opened = gate.acquire(timeout=for_lock(seconds))
        except BaseException:
            with self._guard:
                if gate in gates:
                    self._give_up(key, gates, gate)
                else:
                    self._hand_on(key)
            raise
        if not opened:
            with self._guard:
                if gate in gates:
                    self._give_up(key, gates, gate)
                    raise TimeoutError(key)

    def _give_up(self, key: Hashable, gates: list[threading.Lock], gate: threading.Lock) -> None:
        gates.remove(gate)
        if not gates:
            self._gates.pop(key, None)

    def _hand_on(self, key: Hashable) -> None:
        if self._gates[key]:
            self._gates[key].pop(0).release()
        else:
            del self._gates[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._hand_on(key)

    def __len__(self) -> int:
        return len(self._gates)


class ConditionEntry:
    """A flag and the conditions of those that wait, all over the guard of the table."""

    def __init__(self) -> None:
        self.held = False
        self.line: list[threading.Condition] = []


class WakeupDropped:
    """A waiter that was woken, but gives up, leaves the line without waking the one behind it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, ConditionEntry] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._guard:
            entry = self._entries.setdefault(key, ConditionEntry())
            if not entry.held and not entry.line:
                entry.held = True
                return
            if seconds == 0:
                raise TimeoutError(key)
            mine = threading.Condition(self._guard)
            entry.line.append(mine)
            try:
                while entry.held or entry.line[0] is not mine:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        raise TimeoutError(key)
                    if not mine.wait(left):
                        raise TimeoutError(key)
                entry.held = True
            finally:
                entry.line.remove(mine)
                if not entry.held and not entry.line:
                    del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.held:
                raise RuntimeError(f"{key!r} is not held")
            entry.held = False
            if entry.line:
                entry.line[0].notify()
            else:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class GrantKeptOnCancel:
    """A caller whose grant came between its timeout and the guard still raises, and the key stays held."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._gates: dict[Hashable, deque[threading.Lock]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            if key not in self._gates:
                self._gates[key] = deque()
                return
            if seconds == 0:
                raise TimeoutError(key)
            gates = self._gates[key]
            gate = threading.Lock()
            gate.acquire()
            gates.append(gate)
        opened = False
        try:
            opened = gate.acquire(timeout=for_lock(seconds))
        finally:
            if not opened:
                with self._guard, contextlib.suppress(ValueError):
                    gates.remove(gate)
        if not opened:
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            gates = self._gates[key]
            if gates:
                gates.popleft().release()
            else:
                del self._gates[key]

    def __len__(self) -> int:
        return len(self._gates)


class HeadEntry:
    """A flag and a queue whose members take themselves out when they have been woken."""

    def __init__(self) -> None:
        self.held = False
        self.queue: deque[threading.Event] = deque()


class CancelledHeadStays:
    """Wakes the head, which takes itself out when it runs; one that gave up stays and blocks the rest."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, HeadEntry] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            entry = self._entries.setdefault(key, HeadEntry())
            if not entry.held and not entry.queue:
                entry.held = True
                return
            if seconds == 0:
                raise TimeoutError(key)
            turn = threading.Event()
            entry.queue.append(turn)
        try:
            turn.wait(seconds)
        except BaseException:
            with self._guard:
                if turn.is_set():
                    entry.queue.popleft()
                    self._wake(key, entry)
            raise
        with self._guard:
            if not turn.is_set():
                raise TimeoutError(key)
            entry.queue.popleft()
            entry.held = True

    def _wake(self, key: Hashable, entry: HeadEntry) -> None:
        if entry.queue:
            entry.queue[0].set()
        else:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.held:
                raise RuntimeError(f"{key!r} is not held")
            entry.held = False
            self._wake(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class HandedToDeadWaiter:
    """Marks who gave up as gone, but hands the key on without looking at the mark."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[Waiter]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        me = Waiter()
        with self._guard:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                return
            if seconds == 0:
                raise TimeoutError(key)
            queue.append(me)
        try:
            me.event.wait(seconds)
        except BaseException:
            with self._guard:
                if me.granted:
                    self._hand_on(key)
                else:
                    me.gone = True
            raise
        with self._guard:
            if not me.granted:
                me.gone = True
                raise TimeoutError(key)

    def _hand_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if not queue:
            del self._queues[key]
            return
        heir = queue.popleft()
        heir.granted = True
        heir.event.set()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._hand_on(key)

    def __len__(self) -> int:
        return len(self._queues)


class CancelWakesNext:
    """Who gives up wakes the one behind it, also where it had no grant and the key is held."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            if key not in self._queues:
                self._queues[key] = deque()
                return
            if seconds == 0:
                raise TimeoutError(key)
            turn = threading.Event()
            queue = self._queues[key]
            queue.append(turn)
        try:
            turn.wait(seconds)
        except BaseException:
            with self._guard:
                if turn.is_set():
                    self._hand_on(key)
                else:
                    self._give_up(queue, turn)
            raise
        with self._guard:
            if not turn.is_set():
                self._give_up(queue, turn)
                raise TimeoutError(key)

    def _give_up(self, queue: deque[threading.Event], turn: threading.Event) -> None:
        queue.remove(turn)
        if queue:
            queue.popleft().set()

    def _hand_on(self, key: Hashable) -> None:
        if self._queues[key]:
            self._queues[key].popleft().set()
        else:
            del self._queues[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._hand_on(key)

    def __len__(self) -> int:
        return len(self._queues)


class WokenWithoutReserving:
    """unlock frees the key and wakes the head, which takes it without a look whether a newcomer has it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, RefEntry] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            entry = self._entries.setdefault(key, RefEntry())
            if not entry.held:
                entry.refs += 1
                entry.held = True
                return
            if seconds == 0:
                raise TimeoutError(key)
            entry.refs += 1
            turn = threading.Event()
            entry.queue.append(turn)
        entered = False
        try:
            turn.wait(seconds)
            with self._guard:
                if not turn.is_set():
                    raise TimeoutError(key)
                entry.held = True
                entered = True
        finally:
            if not entered:
                with self._guard:
                    if not turn.is_set():
                        entry.queue.remove(turn)
                    elif not entry.held:
                        self._wake(entry)
                    self._drop(key, entry)

    def _wake(self, entry: RefEntry) -> None:
        if entry.queue:
            entry.queue.popleft().set()

    def _drop(self, key: Hashable, entry: RefEntry) -> None:
        entry.refs -= 1
        if entry.refs == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.held:
                raise RuntimeError(f"{key!r} is not held")
            entry.held = False
            self._wake(entry)
            self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)


class CancelledAcquirerEnters:
    """Does not look whether the wait ended by a grant or by its timeout, and enters either way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[Hashable, list[object]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, [])
            if queue and seconds == 0:
                raise TimeoutError(key)
            queue.append(ticket)
            try:
                self._changed.wait_for(lambda: ticket not in queue or queue[0] is ticket, seconds)
            except BaseException:
                if ticket in queue:
                    self._leave(key, queue, ticket)
                raise

    def _leave(self, key: Hashable, queue: list[object], ticket: object) -> None:
        queue.remove(ticket)
        if not queue:
            del self._queues[key]
        self._changed.notify_all()

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            queue = self._queues[key]
            self._leave(key, queue, queue[0])

    def __len__(self) -> int:
        return len(self._queues)


class Handing:
    """The plain sound form that the lockers below depart from: a queue of events per held key."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            if key not in self._queues:
                self._queues[key] = deque()
                return
            if seconds == 0:
                raise TimeoutError(key)
            turn = threading.Event()
            queue = self._queues[key]
            queue.append(turn)
        try:
            turn.wait(seconds)
        except BaseException:
            with self._guard:
                if turn.is_set():
                    self._hand_on(key)
                else:
                    queue.remove(turn)
            raise
        with self._guard:
            if not turn.is_set():
                queue.remove(turn)
                raise TimeoutError(key)

    def _hand_on(self, key: Hashable) -> None:
        if self._queues[key]:
            self._next(self._queues[key]).set()
        else:
            del self._queues[key]

    def _next(self, queue: deque[threading.Event]) -> threading.Event:
        return queue.popleft()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"{key!r} is not held")
            self._hand_on(key)

    def __len__(self) -> int:
        return len(self._queues)


class StrayUnlockAccepted(Handing):
    """unlock of a key that nobody holds does nothing and says nothing."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key in self._queues:
                self._hand_on(key)


class LastInFirstOut(Handing):
    """Hands the key to the youngest waiter."""

    def _next(self, queue: deque[threading.Event]) -> threading.Event:
        return queue.pop()


class FailedUnlockCorruptsCount:
    """unlock counts down before it finds that the key is not held: a failed one leaves a count of -1."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._refs: Counter[Hashable] = Counter()
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            if key not in self._queues:
                self._queues[key] = deque()
                self._refs[key] += 1
                return
            if seconds == 0:
                raise TimeoutError(key)
            self._refs[key] += 1
            turn = threading.Event()
            queue = self._queues[key]
            queue.append(turn)
        try:
            turn.wait(seconds)
        except BaseException:
            with self._guard:
                self._refs[key] -= 1
                if turn.is_set():
                    self._hand_on(key)
                else:
                    queue.remove(turn)
            raise
        with self._guard:
            if not turn.is_set():
                self._refs[key] -= 1
                queue.remove(turn)
                raise TimeoutError(key)

    def _hand_on(self, key: Hashable) -> None:
        if self._queues[key]:
            self._queues[key].popleft().set()
        if self._refs[key] <= 0:
            del self._refs[key], self._queues[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._refs[key] -= 1
            if key not in self._queues:
                raise RuntimeError(f"{key!r} is not held")
            self._hand_on(key)

    def __len__(self) -> int:
        return len(self._refs)


class ForgetfulLease:
    """Does not remember that it was released."""

    def __init__(self, locker: LeaseReleasedTwice, key: Hashable) -> None:
        self._locker, self._key = locker, key
        self.released = False

    def release(self) -> None:
        self._locker.unlock(self._key)
        self.released = True


class LeaseReleasedTwice(Handing):
    """A lease unlocks by key each time it is released, so that its second release hits a later holder."""

    @contextlib.contextmanager
    def hold(self, key: Hashable, timeout: float | None = None) -> Iterator[ForgetfulLease]:
        self.lock(key, timeout)
        lease = ForgetfulLease(self, key)
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class StaleLease:
    """Remembers that it was released, but not which grant it stands for."""

    def __init__(self, locker: StaleLeaseReleasesLater, key: Hashable) -> None:
        self._locker, self._key = locker, key
        self.released = False

    def release(self) -> None:
        if self.released:
            raise RuntimeError("lease already released")
        self._locker.unlock(self._key)
        self.released = True


class StaleLeaseReleasesLater(Handing):
    """A lease releases once, but by key: if unlock(key) ended its grant, it ends that of a later holder."""

    @contextlib.contextmanager
    def hold(self, key: Hashable, timeout: float | None = None) -> Iterator[StaleLease]:
        self.lock(key, timeout)
        lease = StaleLease(self, key)
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class InterruptBetweenCountAndAcquire:
    """Cleans up after a timeout only: an interrupt between count and acquire leaves the count."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._refs: Counter[Hashable] = Counter()
        self._gates: dict[Hashable, deque[threading.Lock]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        gate = threading.Lock()
        with self._guard:
            gates = self._gates.setdefault(key, deque())
            if self._refs[key] and seconds == 0:
                raise TimeoutError(key)
            self._refs[key] += 1
            if self._refs[key] == 1:
                return
            gate.acquire()
            gates.append(gate)
        if not gate.acquire(timeout=for_lock(seconds)):
            with self._guard:
                if gate in gates:
                    gates.remove(gate)
                    self._refs[key] -= 1
                    raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            gates = self._gates[key]
            self._refs[key] -= 1
            if gates:
                gates.popleft().release()
            if self._refs[key] == 0:
                del self._refs[key], self._gates[key]

    def __len__(self) -> int:
        return len(self._gates)


class SharedConditionNotifyOne:
    """One condition for all keys, and unlock notifies one waiter of it: maybe that of another key."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[Hashable, list[object]] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, [])
            queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: ticket not in queue or queue[0] is ticket, seconds):
                    raise TimeoutError(key)
            except BaseException:
                if ticket in queue:
                    granted = queue[0] is ticket
                    self._leave(key, queue, ticket)
                    if granted:
                        self._changed.notify()
                raise

    def _leave(self, key: Hashable, queue: list[object], ticket: object) -> None:
        queue.remove(ticket)
        if not queue:
            del self._queues[key]

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            if key not in self._queues:
                raise RuntimeError(f"{key!r} is not held")
            self._leave(key, self._queues[key], self._queues[key][0])
            self._changed.notify()

    def __len__(self) -> int:
        return len(self._queues)


class WeakLock:
    """A lock as an object of its own, for the registry to refer to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()


class WeakRegistry:
    """Locks live in a weak dictionary, and nothing but those still inside lock() refers to them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[Hashable, WeakLock] = weakref.WeakValueDictionary()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        with self._guard:
            entry = self._locks.setdefault(key, WeakLock())
        if not entry.lock.acquire(timeout=for_lock(seconds)):
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._locks[key].lock.release()

    def __len__(self) -> int:
        return len(self._locks)


class StripedKeys:
    """A fixed number of locks shared by all keys, so that keys of one stripe wait for each other."""

    stripes = 8

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: list[deque[tuple[threading.Event, Hashable]]] = [deque() for _ in range(self.stripes)]
        self._holders: dict[int, Hashable] = {}
        self._users: Counter[Hashable] = Counter()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        stripe = hash(key) % self.stripes
        queue = self._queues[stripe]
        with self._guard:
            if stripe not in self._holders:
                self._holders[stripe] = key
                self._users[key] += 1
                return
            if seconds == 0:
                raise TimeoutError(key)
            turn = threading.Event()
            queue.append((turn, key))
            self._users[key] += 1
        entered = False
        try:
            turn.wait(seconds)
            with self._guard:
                if not turn.is_set():
                    raise TimeoutError(key)
                entered = True
        finally:
            if not entered:
                with self._guard:
                    self._forget(key)
                    if turn.is_set():
                        self._hand_on(stripe)
                    else:
                        queue.remove((turn, key))

    def _forget(self, key: Hashable) -> None:
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]

    def _hand_on(self, stripe: int) -> None:
        if self._queues[stripe]:
            turn, self._holders[stripe] = self._queues[stripe].popleft()
            turn.set()
        else:
            del self._holders[stripe]

    def unlock(self, key: Hashable) -> None:
        stripe = hash(key) % self.stripes
        with self._guard:
            if stripe not in self._holders or self._holders[stripe] != key:
                raise RuntimeError(f"{key!r} is not held")
            self._forget(key)
            self._hand_on(stripe)

    def __len__(self) -> int:
        return len(self._users)


class KeyedByType(Handing):
    """Takes 1, 1.0 and True for three keys, although they are equal."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        super().lock((type(key), key), timeout)

    def unlock(self, key: Hashable) -> None:
        super().unlock((type(key), key))


class OneLockForAllKeys(StripedKeys):
    """A single stripe: every key waits for every other."""

    stripes = 1


class GuardHeldWhileWaiting:
    """Waits for the key with the guard of the table in its hand: no other key can be locked meanwhile."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._counting = threading.Lock()
        self._entries: dict[Hashable, Counted] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = checked(timeout)
        if not self._guard.acquire(timeout=for_lock(seconds)):
            raise TimeoutError(key)
        try:
            with self._counting:
                entry = self._entries.setdefault(key, Counted())
                entry.users += 1
            acquired = False
            try:
                acquired = entry.lock.acquire(timeout=for_lock(seconds))
            finally:
                if not acquired:
                    with self._counting:
                        self._drop(key, entry)
            if not acquired:
                raise TimeoutError(key)
        finally:
            self._guard.release()

    def _drop(self, key: Hashable, entry: Counted) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._counting:
            entry = self._entries[key]
            entry.lock.release()
            self._drop(key, entry)

    def __len__(self) -> int:
        return len(self._entries)
