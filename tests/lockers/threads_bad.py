"""Keyed lockers for threads with one known mistake each; the docstring says which.

`lock(key, timeout=None)` takes seconds and raises TimeoutError; `unlock(key)` raises for a key without a holder, save
where that is the mistake; `len()` counts the keys that are held or waited for. `Handing` and `Counting` are sound: a
subclass of them shows its mistake and nothing else.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
import weakref
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterator
from threading import Condition, Event, Lock
from typing import Generic, TypeVar

_E = TypeVar("_E")


def _checked(timeout: float | None) -> float | None:
    """Refuse a negative or NaN timeout, and cut a huge one to what the platform can wait."""
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


def _for_lock(seconds: float | None) -> float:
    """The same wait as Lock.acquire spells it."""
    return -1 if seconds is None else seconds


class _Waiter:
    __slots__ = ("gate", "gone", "granted", "rank")

    def __init__(self, rank: float = 0) -> None:
        self.gate = threading.Event()
        self.granted = self.gone = False
        self.rank = rank


class _Guarded(Generic[_E]):
    """A guard, and an entry for each key in use."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, _E] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)


class Handing:
    """Sound: a key in the table is held, its deque is the queue, and unlock grants to the head."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, deque[_Waiter]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._queues)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = self._new_queue()
                return
            if timeout == 0:
                raise TimeoutError(key)
            waiter = self._enqueue(queue, timeout)
        self._wait(key, queue, waiter, timeout)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._pass_on(key)

    def _new_queue(self) -> deque[_Waiter]:
        return deque()

    def _enqueue(self, queue: deque[_Waiter], timeout: float | None) -> _Waiter:
        waiter = _Waiter()
        queue.append(waiter)
        return waiter

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        queue.remove(waiter)

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        try:
            if not waiter.gate.wait(timeout):
                with self._guard:
                    self._expire(key, queue, waiter)
        except TimeoutError:
            raise
        except BaseException:
            with self._guard:
                self._interrupted(key, queue, waiter)
            raise

    def _expire(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        if not waiter.granted:
            self._remove(queue, waiter)
            raise TimeoutError(key)

    def _interrupted(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        if waiter.granted:
            self._pass_on(key)
        else:
            self._remove(queue, waiter)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if queue:
            self._grant(self._next(queue))
        else:
            del self._queues[key]

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        return queue.popleft()

    def _grant(self, waiter: _Waiter) -> None:
        waiter.granted = True
        waiter.gate.set()


class _Entry:
    __slots__ = ("__weakref__", "lock", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class Counting(_Guarded[_Entry]):
    """Sound but for order: users counts the holder and the waiters, and changes under the guard only."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        entry = self._join(key)
        try:
            taken = entry.lock.acquire(timeout=_for_lock(seconds))
        except BaseException:
            with self._guard:
                self._drop(key, entry)
            raise
        if not taken:
            with self._guard:
                self._drop(key, entry)
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.lock.locked():
                raise RuntimeError(f"unlock of unheld key {key!r}")
            entry.lock.release()
            self._drop(key, entry)

    def _join(self, key: Hashable) -> _Entry:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry()
            entry.users += 1
            return entry

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0:
            del self._entries[key]


class _Translated(Handing):
    def _name(self, key: Hashable) -> Hashable:
        return key

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        super().lock(self._name(key), timeout)

    def unlock(self, key: Hashable) -> None:
        super().unlock(self._name(key))


class _InLine:
    """Sound: one condition for the table, and a queue of tickets for each key; its head holds."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._queues: dict[Hashable, list[object]] = {}

    def __len__(self) -> int:
        with self._changed:
            return len(self._queues)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, [])
            if queue and seconds == 0:
                raise TimeoutError(key)
            queue.append(ticket)
            try:
                self._wait(key, queue, ticket, seconds)
            except BaseException:
                if ticket in queue:
                    self._leave(key, queue, ticket)
                raise

    def _wait(self, key: Hashable, queue: list[object], ticket: object, seconds: float | None) -> None:
        if not self._changed.wait_for(lambda: ticket not in queue or queue[0] is ticket, seconds):
            raise TimeoutError(key)

    def _leave(self, key: Hashable, queue: list[object], ticket: object) -> None:
        queue.remove(ticket)
        if not queue:
            del self._queues[key]
        self._changed.notify_all()

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            if not self._queues.get(key):
                raise RuntimeError(f"{key!r} is not held")
            self._leave(key, self._queues[key], self._queues[key][0])


class EvictWithWaiters(_Guarded[threading.Lock]):
    """unlock takes the lock out of the table although others still wait for it."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        with self._guard:
            lock = self._entries.setdefault(key, threading.Lock())
            if lock.acquire(blocking=False):
                return
        if not lock.acquire(timeout=_for_lock(seconds)):
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._entries.pop(key).release()


class CountOutsideGuard(Counting):
    """Finds the entry in one turn of the guard and counts in another: it may count on an evicted one."""

    def _join(self, key: Hashable) -> _Entry:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
        self._count(entry)
        return entry

    def _count(self, entry: _Entry) -> None:
        with self._guard:
            entry.users += 1

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0 and self._entries.get(key) is entry:
            del self._entries[key]


class EvictByLocked(EvictWithWaiters):
    """Takes an open lock for an idle one, but it is also open between its release and the next acquire."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            lock = self._entries[key]
            lock.release()
            if not lock.locked():
                del self._entries[key]


class NonAtomicCount(Counting):
    """Reads the count under the guard, but writes it back later, over the counting of others."""

    def _join(self, key: Hashable) -> _Entry:
        with self._guard:
            entry = self._entries.setdefault(key, _Entry())
            users = entry.users
        entry.users = users + 1
        return entry

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users <= 0:
            del self._entries[key]


class _RefEntry:
    """refs counts the holder and the waiters."""

    def __init__(self) -> None:
        self.refs = 0
        self.held = False
        self.queue: deque[threading.Event] = deque()


class _Referenced(_Guarded[_RefEntry]):
    """Sound: an event for each waiter, set by whoever hands the key on; the count says when the entry goes."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        with self._guard:
            entry = self._count(key, seconds)
            if not entry.held:
                entry.held = True
                return
            turn = threading.Event()
            entry.queue.append(turn)
        self._wait(key, entry, turn, seconds)

    def _count(self, key: Hashable, seconds: float | None) -> _RefEntry:
        entry = self._entries.setdefault(key, _RefEntry())
        if entry.held and seconds == 0:
            raise TimeoutError(key)
        entry.refs += 1
        return entry

    def _wait(self, key: Hashable, entry: _RefEntry, turn: threading.Event, seconds: float | None) -> None:
        try:
            turn.wait(seconds)
        except BaseException:
            with self._guard:
                self._give_up(key, entry, turn)
            raise
        with self._guard:
            if not turn.is_set():
                self._give_up(key, entry, turn)
                raise TimeoutError(key)
            entry.held = True

    def _give_up(self, key: Hashable, entry: _RefEntry, turn: threading.Event) -> None:
        entry.refs -= 1
        if turn.is_set():
            self._hand_on(key, entry)
        else:
            entry.queue.remove(turn)

    def _hand_on(self, key: Hashable, entry: _RefEntry) -> None:
        """By one that is counted no more."""
        entry.held = bool(entry.queue)
        if entry.queue:
            entry.queue.popleft().set()
        if entry.refs <= 0:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.held:
                raise RuntimeError(f"{key!r} is not held")
            entry.refs -= 1
            self._hand_on(key, entry)


class CancelKeepsCount(_Referenced):
    """A caller that gives up leaves the queue, but its reference stays."""

    def _give_up(self, key: Hashable, entry: _RefEntry, turn: threading.Event) -> None:
        if turn.is_set():
            super()._give_up(key, entry, turn)
        else:
            entry.queue.remove(turn)


class FailedTryLeavesEntry(_Referenced):
    """A try (timeout 0) counts itself before it looks, and leaves that count where the key is taken."""

    def _count(self, key: Hashable, seconds: float | None) -> _RefEntry:
        entry = self._entries.setdefault(key, _RefEntry())
        entry.refs += 1
        if entry.held and seconds == 0:
            raise TimeoutError(key)
        return entry


class NeverEvicts(_InLine):
    """An idle key keeps its queue in the table forever."""

    def _leave(self, key: Hashable, queue: list[object], ticket: object) -> None:
        queue.remove(ticket)
        self._changed.notify_all()


class _Gated(_Guarded[list[threading.Lock]]):
    """Sound: a closed Lock for each waiter, opened by whoever hands the key on."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        with self._guard:
            gates = self._entries.get(key)
            if gates is None:
                self._entries[key] = []
                return
            if seconds == 0:
                raise TimeoutError(key)
            gate = threading.Lock()
            gate.acquire()
            gates.append(gate)
        self._wait(key, gates, gate, seconds)

    def _wait(self, key: Hashable, gates: list[threading.Lock], gate: threading.Lock, seconds: float | None) -> None:
        opened = False
        try:
            opened = gate.acquire(timeout=_for_lock(seconds))
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

    def _hand_on(self, key: Hashable) -> None:
        if self._entries[key]:
            self._entries[key].pop(0).release()
        else:
            del self._entries[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._hand_on(key)


class CancelDeletesKey(_Gated):
    """The last waiter to give up deletes the key, although it is held."""

    def _give_up(self, key: Hashable, gates: list[threading.Lock], gate: threading.Lock) -> None:
        gates.remove(gate)
        if not gates:
            self._entries.pop(key, None)


class _ConditionEntry:
    """A flag and the conditions of those that wait, all over the guard of the table."""

    def __init__(self) -> None:
        self.held = False
        self.line: list[threading.Condition] = []


class WakeupDropped(_Guarded[_ConditionEntry]):
    """A waiter that was woken, but gives up, leaves the line without waking the one behind it."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._guard:
            entry = self._entries.setdefault(key, _ConditionEntry())
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


class GrantKeptOnCancel(_Gated):
    """A caller whose grant came between its timeout and the guard still raises, and the key stays held."""

    def _wait(self, key: Hashable, gates: list[threading.Lock], gate: threading.Lock, seconds: float | None) -> None:
        opened = False
        try:
            opened = gate.acquire(timeout=_for_lock(seconds))
        finally:
            if not opened:
                with self._guard, contextlib.suppress(ValueError):
                    gates.remove(gate)
        if not opened:
            raise TimeoutError(key)


class _HeadEntry:
    """A flag and a queue whose members take themselves out when they have been woken."""

    def __init__(self) -> None:
        self.held = False
        self.queue: deque[threading.Event] = deque()


class CancelledHeadStays(_Guarded[_HeadEntry]):
    """Wakes the head, which takes itself out when it runs; one that gave up stays and blocks the rest."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        with self._guard:
            entry = self._entries.setdefault(key, _HeadEntry())
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

    def _wake(self, key: Hashable, entry: _HeadEntry) -> None:
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


class HandedToDeadWaiter(Handing):
    """Marks who gave up as gone, but hands the key on without looking at the mark."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        waiter.gone = True


class CancelWakesNext(Handing):
    """Who gives up wakes the one behind it, also where it had no grant and the key is held."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        queue.remove(waiter)
        if queue:
            self._grant(queue.popleft())


class WokenWithoutReserving(_Referenced):
    """unlock frees the key and wakes the head, which takes it without a look whether a newcomer has it."""

    def _hand_on(self, key: Hashable, entry: _RefEntry) -> None:
        super()._hand_on(key, entry)
        entry.held = False

    def _give_up(self, key: Hashable, entry: _RefEntry, turn: threading.Event) -> None:
        if turn.is_set() and entry.held:
            entry.refs -= 1
        else:
            super()._give_up(key, entry, turn)


class CancelledAcquirerEnters(_InLine):
    """Does not look whether the wait ended by a grant or by its timeout, and enters either way."""

    def _wait(self, key: Hashable, queue: list[object], ticket: object, seconds: float | None) -> None:
        self._changed.wait_for(lambda: ticket not in queue or queue[0] is ticket, seconds)


class StrayUnlockAccepted(Handing):
    """unlock of a key that nobody holds does nothing and says nothing."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key in self._queues:
                self._pass_on(key)


class LastInFirstOut(Handing):
    """Hands the key to the youngest waiter."""

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        return queue.pop()


class FailedUnlockCorruptsCount(_Referenced):
    """unlock counts down before it finds that the key is not held: a failed one leaves a count of -1."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, _RefEntry())
            entry.refs -= 1
            if not entry.held:
                raise RuntimeError(f"{key!r} is not held")
            self._hand_on(key, entry)


class _ForgetfulLease:
    """Does not remember that it was released."""

    def __init__(self, locker: _LeasesByKey, key: Hashable) -> None:
        self._locker, self._key = locker, key
        self.released = False

    def release(self) -> None:
        self._locker.unlock(self._key)
        self.released = True


class _StaleLease(_ForgetfulLease):
    """Remembers that it was released, but not which grant it stands for."""

    def release(self) -> None:
        if self.released:
            raise RuntimeError("lease already released")
        super().release()


class _LeasesByKey(Handing):
    _lease = _ForgetfulLease

    @contextlib.contextmanager
    def hold(self, key: Hashable, timeout: float | None = None) -> Iterator[_ForgetfulLease]:
        self.lock(key, timeout)
        lease = self._lease(self, key)
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class LeaseReleasedTwice(_LeasesByKey):
    """A lease unlocks by key each time it is released, so that its second release hits a later holder."""


class StaleLeaseReleasesLater(_LeasesByKey):
    """A lease releases once, but by key: if unlock(key) ended its grant, it ends that of a later holder."""

    _lease = _StaleLease


class InterruptBetweenCountAndAcquire(_Referenced):
    """Cleans up after a timeout only: an interrupt between count and acquire leaves the count."""

    def _wait(self, key: Hashable, entry: _RefEntry, turn: threading.Event, seconds: float | None) -> None:
        turn.wait(seconds)
        with self._guard:
            if not turn.is_set():
                self._give_up(key, entry, turn)
                raise TimeoutError(key)


class SharedConditionNotifyOne(_InLine):
    """One condition for all keys, and unlock notifies one waiter of it: maybe that of another key."""

    def _leave(self, key: Hashable, queue: list[object], ticket: object) -> None:
        held = queue[0] is ticket
        queue.remove(ticket)
        if not queue:
            del self._queues[key]
        if held:
            self._changed.notify()


class WeakRegistry:
    """Locks live in a weak dictionary, and nothing but those still inside lock() refers to them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: weakref.WeakValueDictionary[Hashable, _Entry] = weakref.WeakValueDictionary()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        with self._guard:
            entry = self._locks.setdefault(key, _Entry())
        if not entry.lock.acquire(timeout=_for_lock(seconds)):
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._locks[key].lock.release()

    def __len__(self) -> int:
        return len(self._locks)


class StripedKeys(Handing):
    """A fixed number of locks shared by all keys, so that keys of one stripe wait for each other."""

    stripes = 8

    def __init__(self) -> None:
        super().__init__()
        self._holders: dict[Hashable, Hashable] = {}
        self._users: Counter[Hashable] = Counter()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        stripe = hash(key) % self.stripes
        with self._guard:
            self._users[key] += 1
        try:
            super().lock(stripe, timeout)
        except BaseException:
            self._forget(key)
            raise
        self._holders[stripe] = key

    def _forget(self, key: Hashable) -> None:
        with self._guard:
            self._users[key] -= 1
            if self._users[key] == 0:
                del self._users[key]

    def unlock(self, key: Hashable) -> None:
        stripe = hash(key) % self.stripes
        with self._guard:
            if self._holders.get(stripe) != key:
                raise RuntimeError(f"{key!r} is not held")
            del self._holders[stripe]
        super().unlock(stripe)
        self._forget(key)

    def __len__(self) -> int:
        return len(self._users)


class KeyedByType(_Translated):
    """Takes 1, 1.0 and True for three keys, although they are equal."""

    def _name(self, key: Hashable) -> Hashable:
        return (type(key), key)


class OneLockForAllKeys(StripedKeys):
    """A single stripe: every key waits for every other."""

    stripes = 1


class GuardHeldWhileWaiting(Counting):
    """Waits for the key with a guard of the whole table in its hand: no other key can be locked meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self._door = threading.Lock()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        seconds = _checked(timeout)
        if not self._door.acquire(timeout=_for_lock(seconds)):
            raise TimeoutError(key)
        try:
            super().lock(key, seconds)
        finally:
            self._door.release()


# Held out: not to be looked at while the checker is built or tuned.


# Data races on plain attributes.


class FastPathOutsideGuard(Handing):
    """The free-key test stands before the guard, so two callers can both find the key free."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        if key not in self._queues:
            with self._guard:
                self._queues[key] = deque()
            return
        super().lock(key, timeout)


class LiveCounterOutsideGuard(Handing):
    """The counter behind len is raised outside the guard; with two keys an update is lost."""

    def __init__(self) -> None:
        super().__init__()
        self._live = 0

    def __len__(self) -> int:
        return self._live

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            queue = self._queues.get(key)
            if queue is not None:
                if timeout == 0:
                    raise TimeoutError(key)
                waiter = self._enqueue(queue, timeout)
            else:
                self._queues[key] = deque()
        if queue is not None:
            self._wait(key, queue, waiter, timeout)
        else:
            self._live += 1

    def _pass_on(self, key: Hashable) -> None:
        super()._pass_on(key)
        if key not in self._queues:
            self._live -= 1


class DoubleCheckedOnce(Counting):
    """The entry is looked up before the guard and created under it without a second look."""

    def _join(self, key: Hashable) -> _Entry:
        entry = self._entries.get(key)
        if entry is None:
            with self._guard:
                entry = self._entries[key] = _Entry()
                entry.users += 1
                return entry
        with self._guard:
            if self._entries.get(key) is not entry:
                entry = self._entries.setdefault(key, _Entry())
            entry.users += 1
            return entry

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0 and self._entries.get(key) is entry:
            del self._entries[key]


class SetdefaultThenCount(Counting):
    """The entry is fetched before the guard and counted under it; an eviction in between leaves a stale entry."""

    def _join(self, key: Hashable) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        with self._guard:
            entry.users += 1
        return entry

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0:
            self._entries.pop(key, None)


class ReadOutsideActInside(Handing):
    """The queue is read before the guard and used under it: a second holder, or a waiter in an evicted queue."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        queue = self._queues.get(key)
        if queue is not None and timeout == 0:
            raise TimeoutError(key)
        with self._guard:
            if queue is None:
                self._queues[key] = deque()
                return
            waiter = self._enqueue(queue, timeout)
        self._wait(key, queue, waiter, timeout)


class EvictCheckOutsideGuard(Handing):
    """Unlock sees an empty queue before the guard and evicts a waiter that came in between."""

    def unlock(self, key: Hashable) -> None:
        queue = self._queues.get(key)
        if queue is not None and not queue:
            with self._guard:
                if self._queues.pop(key, None) is None:
                    raise RuntimeError(f"unlock of unheld key {key!r}")
            return
        super().unlock(key)


class PopThenWake(Handing):
    """Unlock takes the entry out, lets the guard go and grants in a second turn; a newcomer gets in between."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            queue = self._queues.pop(key)
        with self._guard:
            if queue:
                self._queues[key] = queue
                self._pass_on(key)


class TryPopsTheLast(Handing):
    """A failed try removes the last waiter, who may have come after it."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout != 0:
            super().lock(key, timeout)
            return
        with self._guard:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                return
            waiter = self._enqueue(queue, timeout)
        if not waiter.gate.wait(0):
            with self._guard:
                if not waiter.granted:
                    queue.pop()
                    raise TimeoutError(key)


class TryGivesUpOnBusyGuard(Handing):
    """With timeout 0 a busy guard counts as a busy key."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout != 0:
            super().lock(key, timeout)
            return
        if not self._guard.acquire(blocking=False):
            raise TimeoutError(key)
        try:
            if key in self._queues:
                raise TimeoutError(key)
            self._queues[key] = deque()
        finally:
            self._guard.release()


class EventClearedLate:
    """The wake-up event is cleared after the guard is let go, so a release in between is lost."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._held: set[Hashable] = set()
        self._freed: dict[Hashable, tuple[Event, list[int]]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._held | set(self._freed))

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._guard:
            if key not in self._held:
                self._held.add(key)
                return
            if timeout == 0:
                raise TimeoutError(key)
            event, users = self._freed.setdefault(key, (Event(), [0]))
            users[0] += 1
        try:
            while True:
                event.clear()
                event.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
                with self._guard:
                    if key not in self._held:
                        self._held.add(key)
                        return
                if deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(key)
        finally:
            with self._guard:
                users[0] -= 1
                if not users[0]:
                    del self._freed[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._held.remove(key)
            if key in self._freed:
                self._freed[key][0].set()


# Time-outs that race a grant.


class GrantLostInTimeout(Handing):
    """A grant between the failed timed wait and the guard is dropped and the key stays held by nobody."""

    def _expire(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        if waiter in queue:
            queue.remove(waiter)
        raise TimeoutError(key)


class PassesOnAndKeeps(Handing):
    """A grant that races the time-out is passed on and kept as well."""

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        woken = False
        try:
            woken = waiter.gate.wait(timeout)
        finally:
            if not woken:
                with self._guard:
                    if waiter.granted:
                        self._pass_on(key)
                    else:
                        queue.remove(waiter)
        if not waiter.granted:
            raise TimeoutError(key)


class NotifyEatenByTimeout:
    """The one notified waiter may be the one timing out; it raises and nobody else is woken."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: set[Hashable] = set()
        self._freed: dict[Hashable, tuple[Condition, list[int]]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._held | set(self._freed))

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._guard:
            if key not in self._held:
                self._held.add(key)
                return
            if timeout == 0:
                raise TimeoutError(key)
            freed, users = self._freed.setdefault(key, (Condition(self._guard), [0]))
            users[0] += 1
            try:
                while key in self._held:
                    if not freed.wait(None if deadline is None else max(0.0, deadline - time.monotonic())):
                        raise TimeoutError(key)
                self._held.add(key)
            except TimeoutError:
                raise
            except BaseException:
                freed.notify()
                raise
            finally:
                users[0] -= 1
                if not users[0]:
                    del self._freed[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._held.remove(key)
            if key in self._freed:
                self._freed[key][0].notify()


class PooledGateStaysSet(Handing):
    """A gate granted to a timed waiter is reused while still open; needs a timed and then another contended wait."""

    def __init__(self) -> None:
        super().__init__()
        self._spare: list[Event] = []

    def _enqueue(self, queue: deque[_Waiter], timeout: float | None) -> _Waiter:
        waiter = _Waiter()
        if self._spare:
            waiter.gate = self._spare.pop()
        queue.append(waiter)
        return waiter

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        super()._wait(key, queue, waiter, timeout)
        with self._guard:
            if waiter.gate.wait(0) and timeout is None:
                waiter.gate.clear()
            self._spare.append(waiter.gate)


# Clean-up paths.


class CleansUpExceptionsOnly(Handing):
    """KeyboardInterrupt out of the wait leaves a dead waiter in the queue."""

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        try:
            woken = waiter.gate.wait(timeout)
        except Exception:
            with self._guard:
                self._interrupted(key, queue, waiter)
            raise
        if not woken:
            with self._guard:
                self._expire(key, queue, waiter)


class InterruptKeepsTheGrant(Handing):
    """An untimed waiter interrupted after its grant keeps the key; needs interrupt against grant."""

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        try:
            if waiter.gate.wait(timeout):
                return
            with self._guard:
                if waiter.granted:
                    return
            raise TimeoutError(key)
        except BaseException:
            with self._guard:
                if waiter in queue:
                    queue.remove(waiter)
                elif timeout is not None:
                    self._pass_on(key)
            raise


class InterruptPopsTheHead(Handing):
    """An interrupted waiter removes the head of the queue; wrong with two waiters only."""

    def _interrupted(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter) -> None:
        if waiter.granted:
            self._pass_on(key)
        else:
            queue.popleft()


class _Equal(_Waiter):
    """Its rank is its timeout."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Equal) and (self.rank, self.granted) == (other.rank, other.granted)

    def __hash__(self) -> int:
        return hash(self.rank)


class RemovesAnEqualWaiter(Handing):
    """Waiters with the same time-out are equal, and the first equal one is removed."""

    def _enqueue(self, queue: deque[_Waiter], timeout: float | None) -> _Waiter:
        queue.append(_Equal(-1 if timeout is None else timeout))
        return queue[-1]


class RotatesOnRemoval(Handing):
    """Removal from the middle leaves the queue rotated; needs three waiters."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        while queue[0] is not waiter:
            queue.rotate(-1)
        queue.popleft()


class SwapsWithTheLast(Handing):
    """A cancelled waiter's place is filled by the last one; needs three waiters."""

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        place = queue.index(waiter)
        last = queue.pop()
        if last is not waiter:
            queue[place] = last


class SkipsOneDeadWaiter(Handing):
    """Unlock skips one cancelled waiter, not two in a row."""

    def __init__(self) -> None:
        super().__init__()
        self._dead: set[_Waiter] = set()

    def _remove(self, queue: deque[_Waiter], waiter: _Waiter) -> None:
        self._dead.add(waiter)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if queue and queue[0] in self._dead:
            self._dead.discard(queue.popleft())
        super()._pass_on(key)


class IdleKeptAfterTimeout(Counting):
    """The timed-out caller counts down and never evicts; needs the holder to leave before it counts down."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        entry = self._join(key)
        try:
            if entry.lock.acquire(timeout=-1 if timeout is None else timeout):
                return
        except BaseException:
            with self._guard:
                self._drop(key, entry)
            raise
        with self._guard:
            entry.users -= 1
        raise TimeoutError(key)


class LenDriftsOnInterruptedGrant(Handing):
    """The counter behind len misses evictions on the interrupted-after-grant path."""

    def __init__(self) -> None:
        super().__init__()
        self._live = 0

    def __len__(self) -> int:
        with self._guard:
            return self._live

    def _new_queue(self) -> deque[_Waiter]:
        self._live += 1
        return deque()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._pass_on(key)
            if key not in self._queues:
                self._live -= 1


class GuardLeftLocked(Handing):
    """A failed unlock leaves the table guard locked."""

    def unlock(self, key: Hashable) -> None:
        self._guard.acquire()
        self._queues[key]
        self._pass_on(key)
        self._guard.release()


# Waking and order.


class NotifyOneOnTable(_InLine):
    """notify() on the table's one condition may wake a waiter for another key."""

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            queue = self._queues.get(key)
            if queue is None:
                raise LookupError(key)
            del queue[0]
            if not queue:
                del self._queues[key]
            self._changed.notify()


class ConditionReplaced(_Guarded[Condition]):
    """Waiters beyond the first stay on the condition of an ended holding; needs two waiters."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._guard:
            while (ended := self._entries.get(key)) is not None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if left == 0:
                    raise TimeoutError(key)
                try:
                    ended.wait(left)
                except BaseException:
                    ended.notify()
                    raise
            self._entries[key] = Condition(self._guard)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._entries.pop(key).notify()


class EarliestDeadlineFirst(Handing):
    """Waiters with a time-out overtake those without."""

    def _rank(self, timeout: float | None) -> float:
        return float("inf") if timeout is None else time.monotonic() + timeout

    def _enqueue(self, queue: deque[_Waiter], timeout: float | None) -> _Waiter:
        queue.append(_Waiter(self._rank(timeout)))
        return queue[-1]

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        first = min(queue, key=lambda waiter: waiter.rank)
        queue.remove(first)
        return first


class NewestFirstWithinASecond(EarliestDeadlineFirst):
    """Within one second of the clock the newest waiter goes first."""

    def _rank(self, timeout: float | None) -> float:
        return int(time.monotonic())

    def _next(self, queue: deque[_Waiter]) -> _Waiter:
        queue.reverse()
        newest = super()._next(queue)
        queue.reverse()
        return newest


class ByThreadName(EarliestDeadlineFirst):
    """Waiters are ranked by thread name."""

    def _rank(self, timeout: float | None) -> float:
        return int.from_bytes(threading.current_thread().name.encode().ljust(64, b"\0"), "big")


class ThirdWaiterPushesOut(Handing):
    """The queue has room for two; the third waiter silently drops the first."""

    def _new_queue(self) -> deque[_Waiter]:
        return deque(maxlen=2)


class ThreadGateNotCleared(Handing):
    """A thread's own gate stays open after its first grant; needs one thread to wait twice."""

    def __init__(self) -> None:
        super().__init__()
        self._mine = threading.local()

    def _enqueue(self, queue: deque[_Waiter], timeout: float | None) -> _Waiter:
        waiter = _Waiter()
        waiter.gate = self._mine.__dict__.setdefault("gate", waiter.gate)
        queue.append(waiter)
        return waiter


# Time-outs.


class TimeoutRestarts(_InLine):
    """Each wake-up starts the time-out anew; needs wake-ups from another key (hard)."""

    def _wait(self, key: Hashable, queue: list[object], ticket: object, seconds: float | None) -> None:
        while queue[0] is not ticket:
            if not self._changed.wait(seconds) and queue[0] is not ticket:
                raise TimeoutError(key)


class ZeroMeansForever(Handing):
    """timeout=0 is taken for None and blocks."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        super().lock(key, timeout if timeout else None)


class TimeoutNotPassedDown(Handing):
    """A positive time-out never expires."""

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        super()._wait(key, queue, waiter, None)


class ZeroRefusedWhileAnyHeld(Handing):
    """timeout=0 fails on a free key while another key is held."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout == 0:
            with self._guard:
                if self._queues:
                    raise TimeoutError(key)
        super().lock(key, timeout)


# Unlock of an unheld key.


class ForgivesDoubleUnlock(Handing):
    """The key released last may be released again."""

    def __init__(self) -> None:
        super().__init__()
        self._last: list[Hashable] = []

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key in self._queues:
                self._pass_on(key)
                self._last = [key]
            elif key not in self._last:
                raise RuntimeError(f"unlock of unheld key {key!r}")


class HeldMeansWanted:
    """Unlock trusts the count of users, so a stray unlock passes while a waiter has been woken but has not run."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._freed = threading.Condition(self._guard)
        self._users: dict[Hashable, int] = {}
        self._held: set[Hashable] = set()

    def __len__(self) -> int:
        with self._guard:
            return len(self._users)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            self._users[key] = self._users.get(key, 0) + 1
            try:
                if not self._freed.wait_for(lambda: key not in self._held, timeout):
                    raise TimeoutError(key)
                self._held.add(key)
            except BaseException:
                self._drop(key)
                raise

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._users:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._held.discard(key)
            self._drop(key)
            self._freed.notify_all()

    def _drop(self, key: Hashable) -> None:
        self._users[key] = self._users[key] - 1 if key in self._users else 0
        if self._users[key] <= 0:
            del self._users[key]


class FailedUnlockLeavesEntry(_Referenced):
    """A failed unlock creates the entry it looked up."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._entries.setdefault(key, _RefEntry())
        super().unlock(key)


# What counts as the same key.


class KeyedById(_Translated):
    """Equal keys that are different objects do not exclude each other."""

    def _name(self, key: Hashable) -> Hashable:
        return id(key)


class KeyedByHash(_Translated):
    """Different keys with the same hash, as -1 and -2, share a lock."""

    def _name(self, key: Hashable) -> Hashable:
        return hash(key)


class KeyedByStr(_Translated):
    """1 and '1' share a lock."""

    def _name(self, key: Hashable) -> Hashable:
        return str(key)


class FalsyKeysShare(_Translated):
    """All falsy keys, 0 and '' and None, share one lock."""

    def _name(self, key: Hashable) -> Hashable:
        return key or "default"


class FirstTicketIsFalsy:
    """The very first holder has ticket 0, which the truth test takes for nobody."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._owners: dict[Hashable, int] = {}
        self._queues: dict[Hashable, deque[int]] = {}

    def __len__(self) -> int:
        with self._changed:
            return len(self._owners)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._changed:
            ticket = next(self._numbers)
            if not self._owners.get(key):
                self._owners[key] = ticket
                return
            if timeout == 0:
                raise TimeoutError(key)
            queue = self._queues.setdefault(key, deque())
            queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: self._owners.get(key) == ticket, timeout):
                    raise TimeoutError(key)
            except BaseException:
                if self._owners.get(key) == ticket:
                    self._grant(key)
                else:
                    queue.remove(ticket)
                    if not queue:
                        del self._queues[key]
                raise

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            if key not in self._owners:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._grant(key)

    def _grant(self, key: Hashable) -> None:
        queue = self._queues.get(key)
        if queue is None:
            del self._owners[key]
            return
        self._owners[key] = queue.popleft()
        if not queue:
            del self._queues[key]
        self._changed.notify_all()


# Registries.


class CachedPerThread(Counting):
    """A thread's cache brings back an entry another thread evicted; needs both threads twice."""

    def __init__(self) -> None:
        super().__init__()
        self._cache = threading.local()

    def _join(self, key: Hashable) -> _Entry:
        known: dict[Hashable, _Entry] = self._cache.__dict__.setdefault("entries", {})
        with self._guard:
            entry = known.get(key) or self._entries.get(key) or _Entry()
            known[key] = self._entries[key] = entry
            entry.users += 1
            return entry

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0:
            if self._entries.get(key) is entry:
                del self._entries[key]
            self._cache.__dict__.get("entries", {}).pop(key, None)


class ReentrantPerKey(_Guarded[tuple[threading.RLock, list[int]]]):
    """An RLock per key lets its own thread in again and refuses unlock from any other."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            rlock, users = self._entries.setdefault(key, (threading.RLock(), [0]))
            users[0] += 1
        taken = False
        try:
            taken = rlock.acquire(timeout=-1 if timeout is None else timeout)
        finally:
            if not taken:
                with self._guard:
                    self._drop(key)
        if not taken:
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._entries[key][0].release()
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        users = self._entries[key][1]
        users[0] -= 1
        if not users[0]:
            del self._entries[key]


class FewUsersAtOnce(Handing):
    """Four holders and waiters over all keys; the fifth caller blocks on a free key."""

    def __init__(self) -> None:
        super().__init__()
        self._room = threading.Semaphore(4)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        if not self._room.acquire(timeout=timeout):
            raise TimeoutError(key)
        try:
            super().lock(key, timeout)
        except BaseException:
            self._room.release()
            raise

    def unlock(self, key: Hashable) -> None:
        super().unlock(key)
        self._room.release()


class LruEvictsHeldKeys(Handing):
    """A third key evicts the oldest of two, held or not."""

    def __init__(self) -> None:
        super().__init__()
        self._queues: OrderedDict[Hashable, deque[_Waiter]] = OrderedDict()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            if key not in self._queues and len(self._queues) >= 2:
                self._queues.popitem(last=False)
        super().lock(key, timeout)


class ManyStripes:
    """256 stripes; integer keys that differ by 256 share one."""

    def __init__(self) -> None:
        self._stripes = [Handing() for _ in range(256)]

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self._stripes[hash(key) % 256].lock("stripe", timeout)

    def unlock(self, key: Hashable) -> None:
        self._stripes[hash(key) % 256].unlock("stripe")


class WeakEntriesOnePerThread:
    """A thread that holds two keys keeps only the later entry alive."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: weakref.WeakValueDictionary[Hashable, _Entry] = weakref.WeakValueDictionary()
        self._in_use: dict[int, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _Entry()
        try:
            if not entry.lock.acquire(timeout=-1 if timeout is None else timeout):
                raise TimeoutError(key)
            with self._guard:
                self._in_use[threading.get_ident()] = entry
        finally:
            del entry

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or not entry.lock.locked():
                raise RuntimeError(f"unlock of unheld key {key!r}")
            for ident, used in list(self._in_use.items()):
                if used is entry:
                    del self._in_use[ident]
            entry.lock.release()


class GrantReadOutsideGuard(Handing):
    """The grant is looked for before the guard only; one that comes in between is dropped."""

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        try:
            if waiter.gate.wait(timeout):
                return
        except BaseException:
            with self._guard:
                self._interrupted(key, queue, waiter)
            raise
        if waiter.granted:
            return
        with self._guard:
            if waiter in queue:
                queue.remove(waiter)
        raise TimeoutError(key)


class UnlockInTwoTurns(Handing):
    """Test and release are two turns of the guard; two unlocks of one holding can both succeed."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            held = key in self._queues
        if not held:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        with self._guard:
            if key in self._queues:
                self._pass_on(key)


class SleepsWhileUnlockEnds(Handing):
    """A woken waiter sleeps for a millisecond, so that the unlock is through, and then writes itself down as the owner:
    where the unlock takes longer, it strikes out the new owner."""

    def __init__(self) -> None:
        super().__init__()
        self._owners: dict[Hashable, int] = {}

    def lock(self, key: Hashable) -> None:  # type: ignore[override]
        super().lock(key)
        self._owners[key] = threading.get_ident()

    def _wait(self, key: Hashable, queue: deque[_Waiter], waiter: _Waiter, timeout: float | None) -> None:
        try:
            waiter.gate.wait()
            time.sleep(0.001)
        except BaseException:
            with self._guard:
                self._interrupted(key, queue, waiter)
            raise

    def unlock(self, key: Hashable) -> None:
        if key not in self._owners:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        with self._guard:
            self._pass_on(key)
        self._owners.pop(key, None)
