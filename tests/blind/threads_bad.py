"""Thread lockers with one mistake each; manifest.toml names the clause each one breaks.

`_Gates` (direct hand-off, a gate per waiter) and `_Counted` (a plain lock and a count per key, so no order)
are correct; they stand here so that a subclass shows its mistake and nothing else.
"""

import heapq
import itertools
import threading
import time
import weakref
from collections import OrderedDict, defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from threading import Condition, Event, Lock


def _checked(timeout: float | None) -> None:
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be zero or more, not {timeout!r}")


class _Waiter:
    __slots__ = ("gate", "granted")

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.granted = False


class _Gates:
    """Correct: a key in the table is held, its deque is the queue, and unlock grants to the head."""

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
            waiter = self._enqueue(queue)
        self._wait(key, queue, waiter, timeout)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._pass_on(key)

    def _new_queue(self) -> "deque[_Waiter]":
        return deque()

    def _enqueue(self, queue: "deque[_Waiter]") -> _Waiter:
        waiter = _Waiter()
        queue.append(waiter)
        return waiter

    def _remove(self, queue: "deque[_Waiter]", waiter: _Waiter) -> None:
        queue.remove(waiter)

    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
        try:
            if not waiter.gate.wait(timeout):
                with self._guard:
                    if not waiter.granted:
                        self._remove(queue, waiter)
                        raise TimeoutError(key)
        except TimeoutError:
            raise
        except BaseException:
            with self._guard:
                if waiter.granted:
                    self._pass_on(key)
                else:
                    self._remove(queue, waiter)
            raise

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if queue:
            waiter = queue.popleft()
            waiter.granted = True
            waiter.gate.set()
        else:
            del self._queues[key]


class _Entry:
    __slots__ = ("__weakref__", "lock", "users")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0


class _Counted:
    """Correct without order: users = holder + waiters, changed under the guard only."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, _Entry] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        entry = self._join(key)
        try:
            taken = entry.lock.acquire(timeout=-1 if timeout is None else timeout)
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


# Data races on plain attributes.


class FastPathOutsideGuard(_Gates):
    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        if key not in self._queues:
            with self._guard:
                self._queues[key] = deque()
            return
        super().lock(key, timeout)


class LiveCounterOutsideGuard(_Gates):
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
                waiter = self._enqueue(queue)
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


class DoubleCheckedOnce(_Counted):
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


class SetdefaultThenCount(_Counted):
    def _join(self, key: Hashable) -> _Entry:
        entry = self._entries.setdefault(key, _Entry())
        with self._guard:
            entry.users += 1
        return entry

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        entry.users -= 1
        if entry.users == 0:
            self._entries.pop(key, None)


class ReadOutsideActInside(_Gates):
    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        queue = self._queues.get(key)
        if queue is not None and timeout == 0:
            raise TimeoutError(key)
        with self._guard:
            if queue is None:
                self._queues[key] = deque()
                return
            waiter = self._enqueue(queue)
        self._wait(key, queue, waiter, timeout)


class EvictCheckOutsideGuard(_Gates):
    def unlock(self, key: Hashable) -> None:
        queue = self._queues.get(key)
        if queue is not None and not queue:
            with self._guard:
                if self._queues.pop(key, None) is None:
                    raise RuntimeError(f"unlock of unheld key {key!r}")
            return
        super().unlock(key)


class PopThenWake(_Gates):
    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            queue = self._queues.pop(key)
        with self._guard:
            if queue:
                self._queues[key] = queue
                self._pass_on(key)


class TryPopsTheLast(_Gates):
    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout != 0:
            super().lock(key, timeout)
            return
        with self._guard:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                return
            waiter = self._enqueue(queue)
        if not waiter.gate.wait(0):
            with self._guard:
                if not waiter.granted:
                    queue.pop()
                    raise TimeoutError(key)


class TryGivesUpOnBusyGuard(_Gates):
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
    """One event per key says "perhaps free"; it is cleared after the guard is let go."""

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


class GrantLostInTimeout(_Gates):
    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
        try:
            if not waiter.gate.wait(timeout):
                with self._guard:
                    if waiter in queue:
                        queue.remove(waiter)
                raise TimeoutError(key)
        except TimeoutError:
            raise
        except BaseException:
            with self._guard:
                if waiter.granted:
                    self._pass_on(key)
                else:
                    queue.remove(waiter)
            raise


class PassesOnAndKeeps(_Gates):
    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
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
    """A condition per key over one guard, no order kept, one waiter notified per unlock."""

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


class PooledGateStaysSet(_Gates):
    """Gates are reused; one that was granted to a timed waiter goes back into the pool still open."""

    def __init__(self) -> None:
        super().__init__()
        self._spare: list[Event] = []

    def _enqueue(self, queue: "deque[_Waiter]") -> _Waiter:
        waiter = _Waiter()
        if self._spare:
            waiter.gate = self._spare.pop()
        queue.append(waiter)
        return waiter

    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
        super()._wait(key, queue, waiter, timeout)
        with self._guard:
            if waiter.gate.wait(0) and timeout is None:
                waiter.gate.clear()
            self._spare.append(waiter.gate)


# Clean-up paths.


class CleansUpExceptionsOnly(_Gates):
    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
        try:
            woken = waiter.gate.wait(timeout)
        except Exception:
            with self._guard:
                if waiter.granted:
                    self._pass_on(key)
                else:
                    queue.remove(waiter)
            raise
        if not woken:
            with self._guard:
                if not waiter.granted:
                    queue.remove(waiter)
                    raise TimeoutError(key)


class InterruptKeepsTheGrant(_Gates):
    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
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


class InterruptPopsTheHead(_Gates):
    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
        try:
            if not waiter.gate.wait(timeout):
                with self._guard:
                    if not waiter.granted:
                        queue.remove(waiter)
                        raise TimeoutError(key)
        except TimeoutError:
            raise
        except BaseException:
            with self._guard:
                if waiter.granted:
                    self._pass_on(key)
                else:
                    queue.popleft()
            raise


@dataclass
class _Request:
    timeout: float | None
    gate: Event = field(default_factory=Event, compare=False)
    granted: bool = False


class RemovesAnEqualWaiter:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._queues: dict[Hashable, list[_Request]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._queues)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            if key not in self._queues:
                self._queues[key] = []
                return
            if timeout == 0:
                raise TimeoutError(key)
            request = _Request(timeout)
            queue = self._queues[key]
            queue.append(request)
        try:
            if request.gate.wait(timeout):
                return
        except BaseException:
            with self._guard:
                if request.granted:
                    self._grant(key)
                else:
                    queue.remove(request)
            raise
        with self._guard:
            if request.granted:
                return
            queue.remove(request)
        raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise KeyError(key)
            self._grant(key)

    def _grant(self, key: Hashable) -> None:
        queue = self._queues[key]
        if not queue:
            del self._queues[key]
            return
        request = queue.pop(0)
        request.granted = True
        request.gate.set()


class RotatesOnRemoval(_Gates):
    def _remove(self, queue: "deque[_Waiter]", waiter: _Waiter) -> None:
        while queue[0] is not waiter:
            queue.rotate(-1)
        queue.popleft()


class SwapsWithTheLast(_Gates):
    def _remove(self, queue: "deque[_Waiter]", waiter: _Waiter) -> None:
        place = queue.index(waiter)
        last = queue.pop()
        if last is not waiter:
            queue[place] = last


class SkipsOneDeadWaiter(_Gates):
    """Cancelled waiters are struck out by identity and skipped when their turn comes."""

    def __init__(self) -> None:
        super().__init__()
        self._dead: set[_Waiter] = set()

    def _remove(self, queue: "deque[_Waiter]", waiter: _Waiter) -> None:
        self._dead.add(waiter)

    def _pass_on(self, key: Hashable) -> None:
        queue = self._queues[key]
        if queue and queue[0] in self._dead:
            self._dead.discard(queue.popleft())
        super()._pass_on(key)


class IdleKeptAfterTimeout(_Counted):
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


class LenDriftsOnInterruptedGrant(_Gates):
    def __init__(self) -> None:
        super().__init__()
        self._live = 0

    def __len__(self) -> int:
        with self._guard:
            return self._live

    def _new_queue(self) -> "deque[_Waiter]":
        self._live += 1
        return deque()

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._queues:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._pass_on(key)
            if key not in self._queues:
                self._live -= 1


class GuardLeftLocked(_Gates):
    def unlock(self, key: Hashable) -> None:
        self._guard.acquire()
        self._queues[key]
        self._pass_on(key)
        self._guard.release()


# Waking and order.


class NotifyOneOnTable:
    """One condition for the whole table; the waiter that is notified may want another key."""

    def __init__(self) -> None:
        self._changed = Condition(Lock())
        self._queues: dict[Hashable, list[object]] = {}

    def __len__(self) -> int:
        with self._changed:
            return len(self._queues)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, [])
            if queue and timeout == 0:
                raise TimeoutError(key)
            queue.append(ticket)
            try:
                if not self._changed.wait_for(lambda: queue[0] is ticket, timeout):
                    raise TimeoutError(key)
            except BaseException:
                self._leave(key, queue, ticket)
                self._changed.notify_all()
                raise

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            queue = self._queues.get(key)
            if queue is None:
                raise LookupError(key)
            self._leave(key, queue, queue[0])
            self._changed.notify()

    def _leave(self, key: Hashable, queue: list[object], ticket: object) -> None:
        queue.remove(ticket)
        if not queue:
            del self._queues[key]


class ConditionReplaced:
    """Each holding has its own condition; unlock wakes one waiter and the others stay on the old one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._holdings: dict[Hashable, Condition] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._holdings)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._guard:
            while (ended := self._holdings.get(key)) is not None:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                if left == 0:
                    raise TimeoutError(key)
                try:
                    ended.wait(left)
                except BaseException:
                    ended.notify()
                    raise
            self._holdings[key] = Condition(self._guard)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            self._holdings.pop(key).notify()


class EarliestDeadlineFirst:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._numbers = itertools.count()
        self._heaps: dict[Hashable, list[tuple[float, float, _Waiter]]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._heaps)

    def _rank(self, timeout: float | None) -> tuple[float, float]:
        return (float("inf") if timeout is None else time.monotonic() + timeout, next(self._numbers))

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            heap = self._heaps.get(key)
            if heap is None:
                self._heaps[key] = []
                return
            if timeout == 0:
                raise TimeoutError(key)
            waiter = _Waiter()
            place = (*self._rank(timeout), waiter)
            heapq.heappush(heap, place)
        try:
            if not waiter.gate.wait(timeout):
                with self._guard:
                    if not waiter.granted:
                        raise TimeoutError(key)
        except BaseException as error:
            with self._guard:
                if not waiter.granted:
                    heap.remove(place)
                    heapq.heapify(heap)
                elif isinstance(error, TimeoutError):
                    return
                else:
                    self._grant(key)
            raise

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            if key not in self._heaps:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._grant(key)

    def _grant(self, key: Hashable) -> None:
        if not self._heaps[key]:
            del self._heaps[key]
            return
        waiter = heapq.heappop(self._heaps[key])[-1]
        waiter.granted = True
        waiter.gate.set()


class NewestFirstWithinASecond(EarliestDeadlineFirst):
    def _rank(self, timeout: float | None) -> tuple[float, float]:
        return (int(time.monotonic()), -next(self._numbers))


class ByThreadName(EarliestDeadlineFirst):
    def _rank(self, timeout: float | None) -> tuple[float, float]:
        name = threading.current_thread().name.encode()
        return (int.from_bytes(name.ljust(64, b"\0"), "big"), next(self._numbers))


class ThirdWaiterPushesOut(_Gates):
    def _new_queue(self) -> "deque[_Waiter]":
        return deque(maxlen=2)


class ThreadGateNotCleared(_Gates):
    """One gate per thread for its whole life, opened by its first grant and never shut again."""

    def __init__(self) -> None:
        super().__init__()
        self._mine = threading.local()

    def _enqueue(self, queue: "deque[_Waiter]") -> _Waiter:
        waiter = _Waiter()
        waiter.gate = self._mine.__dict__.setdefault("gate", waiter.gate)
        queue.append(waiter)
        return waiter


# Time-outs.


class TimeoutRestarts:
    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._queues: dict[Hashable, deque[object]] = {}

    def __len__(self) -> int:
        with self._changed:
            return len(self._queues)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        ticket = object()
        with self._changed:
            queue = self._queues.setdefault(key, deque())
            if queue and timeout == 0:
                raise TimeoutError(key)
            queue.append(ticket)
            try:
                while queue[0] is not ticket:
                    if not self._changed.wait(timeout) and queue[0] is not ticket:
                        raise TimeoutError(key)
            except BaseException:
                queue.remove(ticket)
                self._tidy(key, queue)
                raise

    def unlock(self, key: Hashable) -> None:
        with self._changed:
            queue = self._queues[key]
            queue.popleft()
            self._tidy(key, queue)

    def _tidy(self, key: Hashable, queue: deque[object]) -> None:
        if not queue:
            del self._queues[key]
        self._changed.notify_all()


class ZeroMeansForever(_Gates):
    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        super().lock(key, timeout if timeout else None)


class TimeoutNotPassedDown(_Gates):
    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
        super()._wait(key, queue, waiter, None)


class ZeroRefusedWhileAnyHeld(_Gates):
    """A timeout of zero is turned away where the key is free but another one is held."""

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        if timeout == 0:
            with self._guard:
                if self._queues:
                    raise TimeoutError(key)
        super().lock(key, timeout)


# Unlock of an unheld key.


class ForgivesDoubleUnlock(_Gates):
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
    """Whether a key is held is judged by its users, waiters among them."""

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


class _Slot:
    def __init__(self) -> None:
        self.held = False
        self.queue: deque[_Waiter] = deque()


class FailedUnlockLeavesEntry:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._slots: defaultdict[Hashable, _Slot] = defaultdict(_Slot)

    def __len__(self) -> int:
        with self._guard:
            return len(self._slots)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        _checked(timeout)
        with self._guard:
            slot = self._slots[key]
            if not slot.held:
                slot.held = True
                return
            if timeout == 0:
                raise TimeoutError(key)
            waiter = _Waiter()
            slot.queue.append(waiter)
        try:
            if waiter.gate.wait(timeout):
                return
        except BaseException:
            with self._guard:
                if waiter.granted:
                    self._grant(key, slot)
                else:
                    slot.queue.remove(waiter)
            raise
        with self._guard:
            if not waiter.granted:
                slot.queue.remove(waiter)
                raise TimeoutError(key)

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            slot = self._slots[key]
            if not slot.held:
                raise RuntimeError(f"unlock of unheld key {key!r}")
            self._grant(key, slot)

    def _grant(self, key: Hashable, slot: _Slot) -> None:
        if slot.queue:
            waiter = slot.queue.popleft()
            waiter.granted = True
            waiter.gate.set()
        else:
            del self._slots[key]


# What counts as the same key.


class _Translated(_Gates):
    def _name(self, key: Hashable) -> Hashable:
        return key

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        super().lock(self._name(key), timeout)

    def unlock(self, key: Hashable) -> None:
        super().unlock(self._name(key))


class KeyedById(_Translated):
    def _name(self, key: Hashable) -> Hashable:
        return id(key)


class KeyedByHash(_Translated):
    def _name(self, key: Hashable) -> Hashable:
        return hash(key)


class KeyedByStr(_Translated):
    def _name(self, key: Hashable) -> Hashable:
        return str(key)


class FalsyKeysShare(_Translated):
    def _name(self, key: Hashable) -> Hashable:
        return key or "default"


class FirstTicketIsFalsy:
    """Tickets count from zero over the locker's whole life, and the owner is tested for truth."""

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


class CachedPerThread(_Counted):
    """Each thread remembers the entries it has used, also after another thread evicted them."""

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


class ReentrantPerKey:
    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Hashable, tuple[threading.RLock, list[int]]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._entries)

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


class FewUsersAtOnce(_Gates):
    """At most four callers hold or wait, over all keys together."""

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


class LruEvictsHeldKeys(_Gates):
    """The table keeps its two latest keys, held or not."""

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
    def __init__(self) -> None:
        self._stripes = [_Gates() for _ in range(256)]

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        self._stripes[hash(key) % 256].lock("stripe", timeout)

    def unlock(self, key: Hashable) -> None:
        self._stripes[hash(key) % 256].unlock("stripe")


class WeakEntriesOnePerThread:
    """Entries live as long as a thread uses them, but a thread is noted with its latest entry only."""

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


class GrantReadOutsideGuard(_Gates):
    """After a failed timed wait the grant is looked for before the guard, not under it."""

    def _wait(self, key: Hashable, queue: "deque[_Waiter]", waiter: _Waiter, timeout: float | None) -> None:
        try:
            if waiter.gate.wait(timeout):
                return
        except BaseException:
            with self._guard:
                if waiter.granted:
                    self._pass_on(key)
                else:
                    queue.remove(waiter)
            raise
        if waiter.granted:
            return
        with self._guard:
            if waiter in queue:
                queue.remove(waiter)
        raise TimeoutError(key)


class UnlockInTwoTurns(_Gates):
    """Unlock tests the table under the guard, lets it go, and grants under a second turn of the guard."""

    def unlock(self, key: Hashable) -> None:
        with self._guard:
            held = key in self._queues
        if not held:
            raise RuntimeError(f"unlock of unheld key {key!r}")
        with self._guard:
            if key in self._queues:
                self._pass_on(key)
