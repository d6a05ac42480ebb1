"""Sound keyed lockers for threads, each in another style; some promise no order.

`lock(key, timeout=None)` takes seconds and raises TimeoutError; `unlock(key)` raises for a key without a holder;
`len()`, where there is one, counts the keys held or waited for. A class named `...Leases` adds `hold(key)`.
They share a table at most, so that a checker meets as many shapes as possible.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

_E = TypeVar("_E")


def _checked(timeout: float | None) -> float | None:
    """Refuse a negative or NaN timeout, and cut a huge one to what the platform can wait."""
    if timeout is None:
        return None
    if not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
    return min(timeout, threading.TIMEOUT_MAX)


class _Guarded(Generic[_E]):
    """A guard, and an entry for each key in use."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, _E] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)


class _Ticketed:
    """lock and unlock over the two calls each style writes in its own way."""

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        """Return the ticket that now holds the key, or raise TimeoutError."""
        raise NotImplementedError

    def _release(self, key: Hashable, ticket: object | None) -> None:
        """Release the key; with a ticket only where that ticket is the holder."""
        raise NotImplementedError

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self._acquire(key, _checked(timeout))

    def unlock(self, key: Hashable) -> None:
        self._release(key, None)


class _Lease:
    """One grant of one key."""

    def __init__(self, locker: _Ticketed, key: Hashable, ticket: object) -> None:
        self._locker, self._key, self._ticket = locker, key, ticket
        self.released = False

    def release(self) -> None:
        self._locker._release(self._key, self._ticket)
        self.released = True


class _Leases(_Ticketed):
    """Adds hold() to a locker whose tickets name the grant."""

    @contextlib.contextmanager
    def hold(self, key: Hashable, timeout: float | None = None) -> Iterator[_Lease]:
        lease = _Lease(self, key, self._acquire(key, _checked(timeout)))
        try:
            yield lease
        finally:
            if not lease.released:
                lease.release()


def _leasing(locker: type[_Ticketed]) -> type:
    """The same locker with hold()."""
    name = f"{locker.__name__}Leases"
    return type(name, (_Leases, locker), {"__doc__": f"{locker.__name__} with hold().", "__module__": __name__})


class _Table(_Guarded[Any], _Ticketed):
    """How one asks for an entry and hands it on differs."""

    def _holder(self, entry: Any) -> Any:
        """The ticket that holds the key."""
        return entry.holder

    def _hand_on(self, key: Hashable, entry: Any) -> None:
        """End its grant, within the guard."""
        raise NotImplementedError

    def _release(self, key: Hashable, ticket: object | None) -> None:
        with self._guard:
            entry = self._entries.get(key)
            holder = None if entry is None else self._holder(entry)
            if holder is None or ticket not in (None, holder):
                raise RuntimeError(f"{key!r} is not held")
            self._hand_on(key, entry)


class ConditionTable(_Ticketed):
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


class EventPerWaiter(_Ticketed):
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


class _GateEntry:
    """A holder's ticket and the gates of those behind it; a gate is a Lock that its owner acquires twice."""

    def __init__(self, holder: threading.Lock) -> None:
        self.holder: threading.Lock | None = holder
        self.gates: dict[threading.Lock, None] = {}


class GatePerWaiter(_Table):
    """A closed Lock per waiter, opened by whoever hands the key on; an ordered dict makes leaving O(1)."""

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        gate = threading.Lock()
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                self._entries[key] = _GateEntry(gate)
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

    def _hand_on(self, key: Hashable, entry: _GateEntry) -> None:
        gate = next(iter(entry.gates), None)
        entry.holder = gate
        if gate is None:
            del self._entries[key]
        else:
            del entry.gates[gate]
            gate.release()


class _ConditionEntry:
    """A line of tickets, its head the holder, and the condition of the key."""

    def __init__(self, guard: threading.Lock) -> None:
        self.moved = threading.Condition(guard)
        self.line: list[object] = []


class ConditionPerKey(_Table):
    """A Condition per key over the one guard of the table, with the deadline kept by hand."""

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        ticket = object()
        deadline = None if seconds is None else time.monotonic() + seconds
        with self._guard:
            entry = self._entries.get(key)
            if entry is None:
                entry = self._entries[key] = _ConditionEntry(self._guard)
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

    def _step_out(self, key: Hashable, entry: _ConditionEntry, ticket: object) -> None:
        entry.line.remove(ticket)
        if entry.line:
            entry.moved.notify_all()
        else:
            del self._entries[key]

    def _holder(self, entry: _ConditionEntry) -> object:
        return entry.line[0]

    def _hand_on(self, key: Hashable, entry: _ConditionEntry) -> None:
        self._step_out(key, entry, entry.line[0])


class _Waiter:
    """granted is written under the guard, before the event is set."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.granted = False


class _Slot:
    """users counts the holder and the waiters."""

    def __init__(self) -> None:
        self.users = 0
        self.holder: _Waiter | None = None
        self.waiting: list[_Waiter] = []


class DeleteByIdentity(_Table):
    """Evicts an idle slot only where the table still has this very slot."""

    def _evict(self, key: Hashable, slot: _Slot) -> None:
        if self._entries.get(key) is slot:
            del self._entries[key]

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        me = _Waiter()
        with self._guard:
            slot = self._entries.setdefault(key, _Slot())
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

    def _quit(self, key: Hashable, slot: _Slot, me: _Waiter) -> None:
        if me in slot.waiting:
            slot.waiting.remove(me)
            slot.users -= 1
        elif slot.holder is me:
            self._hand_on(key, slot)

    def _hand_on(self, key: Hashable, slot: _Slot) -> None:
        slot.users -= 1
        slot.holder = slot.waiting.pop(0) if slot.waiting else None
        if slot.holder is not None:
            slot.holder.granted = True
            slot.holder.event.set()
        if slot.users == 0:
            self._evict(key, slot)


class DeleteByKey(DeleteByIdentity):
    """Evicts by key: the same thing, as the count is looked at in the same turn of the guard."""

    def _evict(self, key: Hashable, slot: _Slot) -> None:
        del self._entries[key]


class FuturePerWaiter(_Table):
    """A concurrent Future per waiter; cancel() is refused once the grant was written into it."""

    def _acquire(self, key: Hashable, seconds: float | None) -> object:
        place: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._guard:
            line = self._entries.get(key)
            if line is None:
                self._entries[key] = deque([place])
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
                    self._hand_on(key, line)
            raise
        return place

    def _hand_on(self, key: Hashable, line: deque[concurrent.futures.Future[None]]) -> None:
        line.popleft()
        if line:
            line[0].set_result(None)
        else:
            del self._entries[key]

    def _holder(self, line: deque[concurrent.futures.Future[None]]) -> object:
        return line[0]


class LockAndCount(_Table):
    """A dict of [Lock, count, ticket]: sound but for order, as a threading.Lock lets newcomers in."""

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

    def _holder(self, entry: list) -> object | None:
        return entry[2]

    def _hand_on(self, key: Hashable, entry: list) -> None:
        entry[2] = None
        entry[0].release()
        self._drop(key, entry)


class PlainCondition(_Ticketed):
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


ConditionTableLeases = _leasing(ConditionTable)
EventPerWaiterLeases = _leasing(EventPerWaiter)
GatePerWaiterLeases = _leasing(GatePerWaiter)
ConditionPerKeyLeases = _leasing(ConditionPerKey)
DeleteByIdentityLeases = _leasing(DeleteByIdentity)
DeleteByKeyLeases = _leasing(DeleteByKey)
FuturePerWaiterLeases = _leasing(FuturePerWaiter)
LockAndCountLeases = _leasing(LockAndCount)
PlainConditionLeases = _leasing(PlainCondition)


# Held out: not to be looked at while the checker is built or tuned.


class TableIsACondition(threading.Condition):
    """The locker is the condition of its whole table; a key's first ticket holds it."""

    def __init__(self) -> None:
        super().__init__(threading.Lock())
        self.tickets: dict[Hashable, list[object]] = {}

    def __len__(self) -> int:
        with self:
            return len(self.tickets)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        ticket = object()
        with self:
            tickets = self.tickets.setdefault(key, [])
            if tickets and timeout == 0:
                raise TimeoutError(key)
            tickets.append(ticket)
            try:
                if not self.wait_for(lambda: tickets[0] is ticket, timeout):
                    raise TimeoutError(key)
            except BaseException:
                self._strike(key, tickets, ticket)
                raise

    def unlock(self, key: Hashable) -> None:
        with self:
            if key not in self.tickets:
                raise RuntimeError(f"{key!r} is not held")
            self._strike(key, self.tickets[key], self.tickets[key][0])

    def _strike(self, key: Hashable, tickets: list[object], ticket: object) -> None:
        tickets.remove(ticket)
        if not tickets:
            del self.tickets[key]
        self.notify_all()


class Mailboxes:
    """Each waiter reads its own mailbox of one letter; unlock posts the grant."""

    def __init__(self) -> None:
        self._guard = threading.RLock()
        self._table: dict[Hashable, deque[queue.Queue[str]]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._table)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            boxes = self._table.get(key)
            if boxes is None:
                self._table[key] = deque()
                return
            if timeout == 0:
                raise TimeoutError(key)
            box: queue.Queue[str] = queue.Queue(maxsize=1)
            boxes.append(box)
        expired = False
        try:
            try:
                box.get(timeout=timeout)
            except queue.Empty:
                with self._guard:
                    expired = box in boxes
                    if expired:
                        boxes.remove(box)
        except BaseException:
            with self._guard:
                if box in boxes:
                    boxes.remove(box)
                elif not expired:
                    self.unlock(key)
            raise
        if expired:
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._table:
                raise RuntimeError(f"{key!r} is not held")
            if self._table[key]:
                self._table[key].popleft().put_nowait("yours")
            else:
                del self._table[key]


class _Granting(threading.Event):
    """An event that knows its place among a key's waiters."""

    def __init__(self, line: list[_Granting]) -> None:
        super().__init__()
        self.line = line

    def __enter__(self) -> _Granting:
        self.line.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in self.line:
            self.line.remove(self)


class EventSubclassOnAStack(_Guarded[list[_Granting]]):
    """The undo is registered on an ExitStack before the wait and dropped from it once the key is ours."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with contextlib.ExitStack() as undo:
            with self._guard:
                if key not in self._entries:
                    self._entries[key] = []
                    return
                if timeout == 0:
                    raise TimeoutError(key)
                gate = _Granting(self._entries[key])
                undo.callback(self._give_up, key, gate)
                gate.__enter__()
            if not gate.wait(timeout):
                with self._guard:
                    if not gate.is_set():
                        gate.__exit__()
                        raise TimeoutError(key)
            undo.pop_all()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._move(key)

    def _give_up(self, key: Hashable, gate: _Granting) -> None:
        with self._guard:
            if gate.is_set():
                self._move(key)
            else:
                gate.__exit__()

    def _move(self, key: Hashable) -> None:
        line = self._entries[key]
        if line:
            line.pop(0).set()
        else:
            del self._entries[key]


def closures() -> SimpleNamespace:
    """Two functions over shared variables, in a plain namespace; it has no length."""
    guard = threading.Lock()
    held: dict[Hashable, list[threading.Semaphore]] = {}
    granted: set[threading.Semaphore] = set()

    def pass_on(key: Hashable) -> None:
        if held[key]:
            gate = held[key].pop(0)
            granted.add(gate)
            gate.release()
        else:
            del held[key]

    def lock(key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with guard:
            if key not in held:
                held[key] = []
                return
            if timeout == 0:
                raise TimeoutError(key)
            gate = threading.BoundedSemaphore(1)
            gate.acquire()
            held[key].append(gate)
            waiting = held[key]
        try:
            gate.acquire(timeout=timeout)
            with guard:
                if gate in granted:
                    granted.remove(gate)
                    return
                waiting.remove(gate)
        except BaseException:
            with guard:
                if gate in granted:
                    granted.remove(gate)
                    pass_on(key)
                elif gate in waiting:
                    waiting.remove(gate)
            raise
        raise TimeoutError(key)

    def unlock(key: Hashable) -> None:
        with guard:
            if key not in held:
                raise RuntimeError(f"{key!r} is not held")
            pass_on(key)

    return SimpleNamespace(lock=lock, unlock=unlock)


@dataclass(eq=False)
class _Request:
    gate: threading.Event = field(default_factory=threading.Event)
    granted: bool = False


@dataclass(eq=False)
class _Configured:
    """A dataclass told which error to raise; its states are tuples, replaced whole under the guard."""

    error: Callable[[str], Exception]
    _guard: Any = field(default_factory=threading.Lock)
    _states: dict[Hashable, tuple[_Request, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._states)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            if key not in self._states:
                self._states[key] = ()
                return
            if timeout == 0:
                raise TimeoutError(key)
            request = _Request()
            self._states[key] = (*self._states[key], request)
        try:
            if request.gate.wait(timeout):
                return
            with self._guard:
                if request.granted:
                    return
                self._strike(key, request)
        except BaseException:
            with self._guard:
                if request.granted:
                    self._next(key)
                else:
                    self._strike(key, request)
            raise
        raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._states:
                raise self.error(f"{key!r} is not held")
            self._next(key)

    def _strike(self, key: Hashable, request: _Request) -> None:
        if request in self._states.get(key, ()):
            self._states[key] = tuple(other for other in self._states[key] if other is not request)

    def _next(self, key: Hashable) -> None:
        match self._states[key]:
            case ():
                del self._states[key]
            case (first, *others):
                self._states[key] = tuple(others)
                first.granted = True
                first.gate.set()


configured = functools.partial(_Configured, error=PermissionError)


class _Predecessor:
    __slots__ = ("abandoned", "before", "gate", "released")

    def __init__(self, before: _Predecessor | None) -> None:
        self.before = before
        self.gate = threading.Event()
        self.released = False
        self.abandoned = False


class WaitsOnPredecessor:
    """Each request waits on the gate of the one before it; who gives up refers its successor further back.

    The table knows the last request of each key only. An abandoned one opens its gate too: its successor
    wakes, finds it abandoned and goes on to wait for the one before it.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tails: dict[Hashable, _Predecessor] = {}
        self._holders: dict[Hashable, _Predecessor] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._tails)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._guard:
            before = self._tails.get(key)
            if before is not None and timeout == 0:
                raise TimeoutError(key)
            mine = self._tails[key] = _Predecessor(before)
            if before is None:
                self._holders[key] = mine
                return
        try:
            while True:
                opened = before.gate.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
                with self._guard:
                    before = self._nearest(mine)
                    if before.released:
                        mine.before = None
                        self._holders[key] = mine
                        return
                    if not opened:
                        self._abandon(key, mine, before)
                        raise TimeoutError(key)
        except BaseException:
            with self._guard:
                if not mine.abandoned:
                    before = self._nearest(mine)
                    if before.released:
                        self._release(key, mine)
                    else:
                        self._abandon(key, mine, before)
            raise

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            holder = self._holders.pop(key, None)
            if holder is None:
                raise RuntimeError(f"{key!r} is not held")
            self._release(key, holder)

    def _nearest(self, mine: _Predecessor) -> _Predecessor:
        before = mine.before
        while before is not None and before.abandoned:
            before = before.before
        assert before is not None
        mine.before = before
        return before

    def _release(self, key: Hashable, mine: _Predecessor) -> None:
        mine.released = True
        if self._tails[key] is mine:
            del self._tails[key]
        mine.gate.set()

    def _abandon(self, key: Hashable, mine: _Predecessor, before: _Predecessor) -> None:
        mine.abandoned = True
        if self._tails[key] is mine:
            self._tails[key] = before
        mine.gate.set()


class Sharded:
    """Sixteen tables with a guard each; a guard is held for a few steps only, so keys stay independent."""

    def __init__(self) -> None:
        self._shards = [EventPerWaiter() for _ in range(16)]

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self._shards[hash(key) % 16].lock(key, timeout)

    def unlock(self, key: Hashable) -> None:
        self._shards[hash(key) % 16].unlock(key)


class _Call:
    size = 0

    def __init__(self, key: Hashable, may_wait: bool) -> None:
        hash(key)
        self.key = key
        self.may_wait = may_wait
        self.answer: queue.Queue[bool] = queue.Queue(maxsize=1)


_Service = Callable[[_Call], "bool | None"]


class Actor:
    """A daemon thread owns the table; callers send it calls and read the answers."""

    def __init__(self) -> None:
        self._inbox: queue.Queue[tuple[_Service, _Call, queue.Queue[bool]]] = queue.Queue()
        self._table: dict[Hashable, deque[_Call]] = {}
        threading.Thread(target=self._serve, daemon=True, name="lock-table").start()

    def __len__(self) -> int:
        call = _Call(None, False)
        self._ask(self._count, call)
        return call.size

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        call = _Call(key, timeout != 0)
        try:
            self._inbox.put((self._request, call, call.answer))
            try:
                granted = call.answer.get(timeout=timeout if timeout else None)
            except queue.Empty:
                granted = self._ask(self._expire, call)
        except BaseException:
            self._ask(self._abandon, call)
            raise
        if not granted:
            raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        if not self._ask(self._release, _Call(key, False)):
            raise RuntimeError(f"{key!r} is not held")

    def _ask(self, what: _Service, call: _Call) -> bool:
        reply: queue.Queue[bool] = queue.Queue(maxsize=1)
        self._inbox.put((what, call, reply))
        return reply.get()

    def _serve(self) -> None:
        while True:
            what, call, reply = self._inbox.get()
            answer = what(call)
            if answer is not None:
                reply.put(answer)

    def _request(self, call: _Call) -> bool | None:
        calls = self._table.get(call.key)
        if calls is None:
            self._table[call.key] = deque([call])
            return True
        if not call.may_wait:
            return False
        calls.append(call)
        return None

    def _count(self, call: _Call) -> bool:
        call.size = len(self._table)
        return True

    def _expire(self, call: _Call) -> bool:
        calls = self._table[call.key]
        if calls[0] is call:
            return True
        calls.remove(call)
        return False

    def _abandon(self, call: _Call) -> bool:
        calls = self._table.get(call.key, deque())
        if call in calls:
            if calls[0] is call:
                return self._release(call)
            calls.remove(call)
        return True

    def _release(self, call: _Call) -> bool:
        calls = self._table.get(call.key)
        if calls is None:
            return False
        calls.popleft()
        if calls:
            calls[0].answer.put(True)
        else:
            del self._table[call.key]
        return True


# No order promised: verify these without "fifo".


class Polls:
    """Polls with a short sleep."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: set[Hashable] = set()

    def __len__(self) -> int:
        return len(self._held)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        start = time.monotonic()
        while True:
            with self._guard:
                if key not in self._held:
                    self._held.add(key)
                    return
            if timeout is not None and time.monotonic() - start >= timeout:
                raise TimeoutError(key)
            time.sleep(0.001)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._held.remove(key)


class NotifiesOne:
    """A condition per contended key; who is interrupted hands the wake-up on, who times out looks again."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: set[Hashable] = set()
        self._waiting: dict[Hashable, tuple[threading.Condition, list[int]]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._held.union(self._waiting))

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            if key not in self._held:
                self._held.add(key)
                return
            if timeout == 0:
                raise TimeoutError(key)
            freed, count = self._waiting.setdefault(key, (threading.Condition(self._guard), [0]))
            count[0] += 1
            try:
                if not freed.wait_for(lambda: key not in self._held, timeout):
                    raise TimeoutError(key)
                self._held.add(key)
            except BaseException:
                if key not in self._held:
                    freed.notify()
                raise
            finally:
                count[0] -= 1
                if not count[0]:
                    del self._waiting[key]

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._held:
                raise RuntimeError(f"{key!r} is not held")
            self._held.discard(key)
            if key in self._waiting:
                self._waiting[key][0].notify()
