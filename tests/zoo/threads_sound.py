"""Sound keyed lockers for threads, each in another style, and two that only lack first-in-first-out.

`lock(key, timeout=None)` takes seconds and raises TimeoutError; `unlock(key)` raises RuntimeError for a key
without a holder; `len()` counts the keys held or waited for. A class named `...Leases` adds `hold(key)`.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator


def checked(timeout: float | None) -> float | None:
    """Refuse a negative or NaN timeout, and cut a huge one to what the platform can wait."""
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


class Ticketed:
    """lock and unlock over the two calls each style writes in its own way."""

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        """Return the ticket that now holds the key, or raise TimeoutError."""
        raise NotImplementedError

    def _release(self, key: Hashable, ticket: object | None) -> None:
        """Release the key; with a ticket only where that ticket is the holder."""
        raise NotImplementedError

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self._acquire(key, checked(timeout))

    def unlock(self, key: Hashable) -> None:
        self._release(key, None)


class Lease:
    """One grant of one key."""

    def __init__(self, locker: Ticketed, key: Hashable, ticket: object) -> None:
        self._locker, self._key, self._ticket = locker, key, ticket
        self.released = False

    def release(self) -> None:
        self._locker._release(self._key, self._ticket)
        self.released = True


class Leases(Ticketed):
    """Adds hold() to a locker whose tickets name the grant."""

    @contextlib.contextmanager
    def hold(self, key: Hashable, timeout: float | None = None) -> Iterator[Lease]:
        lease = Lease(self, key, self._acquire(key, checked(timeout)))
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


class ConditionTable(Ticketed):
    """One Condition for the whole table and a queue of tickets per key; the head of the queue holds."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[Hashable, deque[object]] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, deque())
            if queue and seconds == 0:
                raise TimeoutError(key)
            queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: ticket not in queue or queue[0] is ticket, seconds):
                    raise TimeoutError(key)
            except BaseException:
                if ticket in queue:
                    self._leave(key, queue, ticket)
                raise
        return ticket

    def _leave(self, key: Hashable, queue: deque[object], ticket: object) -> None:
        queue.remove(ticket)
        if not queue:
            del self._queues[key]
        self._changed.notify_all()

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._changed:
            queue = self._queues.get(key)
            if queue is None or ticket not in (None, queue[0]):
                raise RuntimeError(f"{key!r} is not held")
            self._leave(key, queue, queue[0])

    def __len__(self) -> int:
        with self._changed:
            return len(self._queues)


class EventPerWaiter(Ticketed):
    """An Event per waiter, also its ticket; unlock writes the next holder before it sets the event."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holder: dict[Hashable, threading.Event] = {}
        self._queues: dict[Hashable, deque[threading.Event]] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        me = threading.Event()
        with self._guard:
            if key not in self._holder:
                self._holder[key] = me
                return me
            if seconds == 0:
                raise TimeoutError(key)
            self._queues.setdefault(key, deque()).append(me)
        try:
            if me.wait(seconds):
                return me
        except BaseException:
            with self._guard:
                if me.is_set():
                    if self._holder.get(key) is me:
                        self._pass_on(key)
                else:
                    self._forget(key, me)
            raise
        with self._guard:
            if me.is_set():
                return me
            self._forget(key, me)
        raise TimeoutError(key)

    def _forget(self, key: Hashable, me: threading.Event) -> None:
        queue = self._queues[key]
        queue.remove(me)
        if not queue:
            del self._queues[key]

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues.get(key)
        if queue is None:
            del self._holder[key]
            return
        heir = queue.popleft()
        if not queue:
            del self._queues[key]
        self._holder[key] = heir
        heir.set()

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            holder = self._holder.get(key)
            if holder is None or ticket not in (None, holder):
                raise RuntimeError(f"{key!r} is not held")
            self._pass_on(key)

    def __len__(self) -> int:
        with self._guard:
            return len(self._holder)


class GateEntry:
    """A holder's ticket and the gates of those behind it; a gate is a Lock that its owner acquires twice."""

    def __init__(self, holder: threading.Lock) -> None:
        self.holder: threading.Lock | None = holder
        self.gates: dict[threading.Lock, None] = {}


class GatePerWaiter(Ticketed):
    """A closed Lock per waiter, opened by whoever hands the key on; an ordered dict makes leaving O(1)."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, GateEntry] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        gate = threading.Lock()
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                self._entries[key] = GateEntry(gate)
                return gate
            if seconds == 0:
                raise TimeoutError(key)
            gate.acquire()
            entry.gates[gate] = None
        opened = False
        try:
            opened = gate.acquire(timeout=-1 if seconds is None else seconds)
        except BaseException:
            with self._guard:
                if gate in entry.gates:
                    del entry.gates[gate]
                elif entry.holder is gate:
                    self._hand_on(key, entry)
            raise
        if not opened:
            with self._guard:
                if gate in entry.gates:
                    del entry.gates[gate]
                    raise TimeoutError(key)
        return gate

    def _hand_on(self, key: Hashable, entry: GateEntry) -> None:
        gate = next(iter(entry.gates), None)
        entry.holder = gate
        if gate is None:
            del self._entries[key]
        else:
            del entry.gates[gate]
            gate.release()

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or ticket not in (None, entry.holder):
                raise RuntimeError(f"unlock of unlocked key {key!r}")
            self._hand_on(key, entry)

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)


class Seat:
    """A place in a line: state is 'waiting', 'holding' or 'gone'."""

    def __init__(self) -> None:
        self.state = "waiting"
        self.called = threading.Event()


class ReentrantGuard(Ticketed):
    """An RLock as the guard; who gives up is marked gone, and cut once at either end of the line."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._lines: dict[Hashable, list[Seat]] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        seat = Seat()
        with self._guard:
            line = self._lines.setdefault(key, [])
            line.append(seat)
            if line[0] is seat:
                seat.state = "holding"
                return seat
            if seconds == 0:
                self._give_up(key, seat)
                raise TimeoutError(key)
        try:
            seat.called.wait(seconds)
        except BaseException:
            self._give_up(key, seat)
            raise
        with self._guard:
            if not seat.called.is_set():
                self._give_up(key, seat)
                raise TimeoutError(key)
        return seat

    def _give_up(self, key: Hashable, seat: Seat) -> None:
        with self._guard:
            was, seat.state = seat.state, "gone"
            if was == "holding":
                self._advance(key)
            elif was == "waiting":
                line = self._lines[key]
                while line[-1].state == "gone":
                    line.pop()

    def _advance(self, key: Hashable) -> None:
        with self._guard:
            line = self._lines[key]
            while line and line[0].state == "gone":
                line.pop(0)
            if not line:
                del self._lines[key]
            else:
                line[0].state = "holding"
                line[0].called.set()

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            line = self._lines.get(key)
            if line is None or ticket not in (None, line[0]):
                raise RuntimeError(f"{key!r} is not held")
            self._give_up(key, line[0])

    def __len__(self) -> int:
        with self._guard:
            return len(self._lines)


class SemaphoreEntry:
    """refs counts the holder and the waiters."""

    def __init__(self) -> None:
        self.refs = 0
        self.holder: object | None = None
        self.queue: deque[threading.Semaphore] = deque()


class SemaphorePerWaiter(Ticketed):
    """A Semaphore(0) per waiter, and a count of references that decides about eviction."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, SemaphoreEntry] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        turn = threading.Semaphore(0)
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = SemaphoreEntry()
            elif seconds == 0:
                raise TimeoutError(key)
            entry.refs += 1
            if entry.holder is None:
                entry.holder = turn
                return turn
            entry.queue.append(turn)
        entered = False
        try:
            if not turn.acquire(timeout=seconds):
                with self._guard:
                    if entry.holder is not turn:
                        raise TimeoutError(key)
            entered = True
        finally:
            if not entered:
                with self._guard:
                    if entry.holder is turn:
                        self._drop(key, entry)
                    elif turn in entry.queue:
                        entry.queue.remove(turn)
                        entry.refs -= 1
        return turn

    def _drop(self, key: Hashable, entry: SemaphoreEntry) -> None:
        entry.refs -= 1
        if entry.refs == 0:
            entry.holder = None
            del self._entries[key]
        else:
            turn = entry.queue.popleft()
            entry.holder = turn
            turn.release()

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or ticket not in (None, entry.holder):
                raise RuntimeError(f"{key!r} is not held")
            self._drop(key, entry)

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)


class ConditionEntry:
    """A line of tickets, its head the holder, and the condition of the key."""

    def __init__(self, guard: threading.Lock) -> None:
        self.moved = threading.Condition(guard)
        self.line: list[object] = []


class ConditionPerKey(Ticketed):
    """A Condition per key over the one guard of the table, with the deadline kept by hand."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, ConditionEntry] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        ticket = object()
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = ConditionEntry(self._guard)
            entry.line.append(ticket)
            try:
                while ticket in entry.line and entry.line[0] is not ticket:
                    left = None if deadline is None else deadline - time.monotonic()
                    if seconds == 0 or (left is not None and left <= 0):
                        raise TimeoutError(key)
                    entry.moved.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
            except BaseException:
                if ticket in entry.line:
                    self._step_out(key, entry, ticket)
                raise
        return ticket

    def _step_out(self, key: Hashable, entry: ConditionEntry, ticket: object) -> None:
        entry.line.remove(ticket)
        if entry.line:
            entry.moved.notify_all()
        else:
            del self._entries[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or ticket not in (None, entry.line[0]):
                raise RuntimeError(f"{key!r} is not held")
            self._step_out(key, entry, entry.line[0])

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)


class Waiter:
    """granted is written under the guard, before the event is set."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.granted = False


class Slot:
    """users counts the holder and the waiters."""

    def __init__(self) -> None:
        self.users = 0
        self.holder: Waiter | None = None
        self.waiting: list[Waiter] = []


class DeleteByIdentity(Ticketed):
    """Evicts an idle slot only where the table still has this very slot."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._slots: dict[Hashable, Slot] = {}

    def _evict(self, key: Hashable, slot: Slot) -> None:
        if self._slots.get(key) is slot:
            del self._slots[key]

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        me = Waiter()
        with self._guard:
            slot = self._slots.setdefault(key, Slot())
            slot.users += 1
            if slot.holder is None:
                slot.holder = me
                me.granted = True
                return me
            if seconds == 0:
                slot.users -= 1
                raise TimeoutError(key)
            slot.waiting.append(me)
        try:
            me.event.wait(seconds)
        except BaseException:
            with self._guard:
                self._quit(key, slot, me)
            raise
        with self._guard:
            if not me.granted:
                self._quit(key, slot, me)
                raise TimeoutError(key)
        return me

    def _quit(self, key: Hashable, slot: Slot, me: Waiter) -> None:
        if me in slot.waiting:
            slot.waiting.remove(me)
            slot.users -= 1
        elif slot.holder is me:
            self._next(key, slot)

    def _next(self, key: Hashable, slot: Slot) -> None:
        slot.users -= 1
        slot.holder = slot.waiting.pop(0) if slot.waiting else None
        if slot.holder is not None:
            slot.holder.granted = True
            slot.holder.event.set()
        if slot.users == 0:
            self._evict(key, slot)

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            slot = self._slots.get(key)
            if slot is None or ticket not in (None, slot.holder):
                raise RuntimeError(f"{key!r} is not held")
            self._next(key, slot)

    def __len__(self) -> int:
        with self._guard:
            return len(self._slots)


class DeleteByKey(DeleteByIdentity):
    """Evicts by key: the same thing, as the count is looked at in the same turn of the guard."""

    def _evict(self, key: Hashable, slot: Slot) -> None:
        del self._slots[key]


class FuturePerWaiter(Ticketed):
    """A concurrent Future per waiter; cancel() is refused once the grant was written into it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._lines: dict[Hashable, deque[concurrent.futures.Future[None]]] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        place: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._guard:
            line = self._lines.get(key)
            if line is None:
                self._lines[key] = deque([place])
                return place
            if seconds == 0:
                raise TimeoutError(key)
            line.append(place)
        try:
            place.result(seconds)
        except concurrent.futures.TimeoutError:
            with self._guard:
                if place.cancel():
                    line.remove(place)
                    raise TimeoutError(key) from None
        except BaseException:
            with self._guard:
                if place.cancel():
                    line.remove(place)
                elif line and line[0] is place:
                    self._shift(key, line)
            raise
        return place

    def _shift(self, key: Hashable, line: deque[concurrent.futures.Future[None]]) -> None:
        line.popleft()
        if line:
            line[0].set_result(None)
        else:
            del self._lines[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            line = self._lines.get(key)
            if line is None or ticket not in (None, line[0]):
                raise RuntimeError(f"{key!r} is not held")
            self._shift(key, line)

    def __len__(self) -> int:
        with self._guard:
            return len(self._lines)


class LockAndCount(Ticketed):
    """A dict of [Lock, count, ticket]: sound but for order, as a threading.Lock lets newcomers in."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, list] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        with self._guard:
            entry = self._entries.setdefault(key, [threading.Lock(), 0, None])
            entry[1] += 1
        ticket = object()
        acquired = False
        try:
            acquired = entry[0].acquire(timeout=-1 if seconds is None else seconds)
            if not acquired:
                raise TimeoutError(key)
            with self._guard:
                entry[2] = ticket
        except BaseException:
            with self._guard:
                if acquired:
                    entry[2] = None
                    entry[0].release()
                self._drop(key, entry)
            raise
        return ticket

    def _drop(self, key: Hashable, entry: list) -> None:
        entry[1] -= 1
        if entry[1] == 0:
            del self._entries[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            entry = self._entries.get(key)
            if entry is None or entry[2] is None or ticket not in (None, entry[2]):
                raise RuntimeError(f"{key!r} is not held")
            entry[2] = None
            entry[0].release()
            self._drop(key, entry)

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)


class PlainCondition(Ticketed):
    """One Condition and `while held: wait()`: sound but for order."""

    def __init__(self) -> None:
        self._freed = threading.Condition()
        self._holders: dict[Hashable, object] = {}
        self._users: dict[Hashable, int] = {}

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        ticket = object()
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._freed:
            self._users[key] = self._users.get(key, 0) + 1
            try:
                while key in self._holders:
                    left = None if deadline is None else deadline - time.monotonic()
                    if seconds == 0 or (left is not None and left <= 0):
                        raise TimeoutError(key)
                    self._freed.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
                self._holders[key] = ticket
            except BaseException:
                self._drop(key)
                raise
        return ticket

    def _drop(self, key: Hashable) -> None:
        self._users[key] -= 1
        if self._users[key] == 0:
            del self._users[key]

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._freed:
            if key not in self._holders or ticket not in (None, self._holders[key]):
                raise RuntimeError(f"{key!r} is not held")
            del self._holders[key]
            self._drop(key)
            self._freed.notify_all()

    def __len__(self) -> int:
        with self._freed:
            return len(self._users)


class ConditionTableLeases(Leases, ConditionTable):
    """ConditionTable with hold()."""


class EventPerWaiterLeases(Leases, EventPerWaiter):
    """EventPerWaiter with hold()."""


class GatePerWaiterLeases(Leases, GatePerWaiter):
    """GatePerWaiter with hold()."""


class ReentrantGuardLeases(Leases, ReentrantGuard):
    """ReentrantGuard with hold()."""


class SemaphorePerWaiterLeases(Leases, SemaphorePerWaiter):
    """SemaphorePerWaiter with hold()."""


class ConditionPerKeyLeases(Leases, ConditionPerKey):
    """ConditionPerKey with hold()."""


class DeleteByIdentityLeases(Leases, DeleteByIdentity):
    """DeleteByIdentity with hold()."""


class DeleteByKeyLeases(Leases, DeleteByKey):
    """DeleteByKey with hold()."""


class FuturePerWaiterLeases(Leases, FuturePerWaiter):
    """FuturePerWaiter with hold()."""


class LockAndCountLeases(Leases, LockAndCount):
    """LockAndCount with hold()."""


class PlainConditionLeases(Leases, PlainCondition):
    """PlainCondition with hold()."""
