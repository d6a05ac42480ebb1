"""The keyed mutex for threads: the lock table behind one guard, and a gate for each waiter."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from kmutex._core import LockTable, MutexBase
from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey, distinct
from kmutex._mypyc import mypyc_attr
from kmutex._protocol import check_timeout
from kmutex._text import brief

if TYPE_CHECKING:
    from kmutex._owners import Owner
    from kmutex._protocol import Guard
    from kmutex._steps import StepLog

T = TypeVar("T")

# Timeouts are `float | int`: a compiled call would convert an int to a plain float, and 10**400 has no float.


class InnerMutex:
    """The part that locks, shared by a mutex and its leases. Private, so compiled calls look for no overrides."""

    __slots__ = ("_guard", "_table", "_tickets")

    def __init__(self, diagnose: bool, record: StepLog | None) -> None:
        # An RLock, so that `_give_back` may call release() without knowing whether this thread owns it.
        self._guard: Guard = threading.RLock()
        self._table: LockTable = _watched() if diagnose else LockTable()
        if record is not None:
            self._table = _recorded(self._table, record)
        self._tickets = itertools.count(NO_TICKET + 1)

    def _acquire(self, key: Any, ticket: Ticket, timeout: float | int | None) -> bool:
        # Returns False if the time is over. If anything is raised here, or an interrupt strikes before the caller has
        # the result, the caller settles the ticket; so only unexpected errors are raised here.
        # Asking and queueing are one step under the guard: the next release of the key sees the waiter, so no wake-up
        # can be lost.
        # A gate has no type annotation: compiled calls would enforce it, and gevent's release() returns more than None.
        guard = self._guard
        try:
            guard.acquire()
            gate = self._table.request(key, ticket, _closed_gate)
            guard.release()
        except BaseException:
            try:  # noqa: SIM105 (see `_give_back`)
                guard.release()
            except RuntimeError:
                pass
            raise
        if gate is None or _pass(gate, timeout):
            return True
        # The time is over, but the grant may have come since. Only the table can tell, under the guard.
        with self._guard:
            return not self._table.cancel(key, ticket, "refused" if timeout == 0 else "timeout")

    def _release(self, key: Any, ticket: Ticket | None) -> None:
        # If anything but UnheldKeyError is raised here, the caller settles.
        guard = self._guard
        try:
            guard.acquire()
            gate = self._table.release(key, ticket)
            if gate is not None:
                gate.release()
            guard.release()
        except BaseException:
            try:  # noqa: SIM105 (see `_give_back`)
                guard.release()
            except RuntimeError:
                pass
            raise

    def _seen(self, look: Callable[[], T]) -> T:
        """Return what ``look`` returns, which reads the table in one step."""
        try:
            with self._guard:
                return look()
        except BaseException:
            self._give_back()
            raise

    def _expired(self, key: Any, timeout: float | int | None) -> TimeoutError:
        return TimeoutError(f"no grant of {brief(key)} within {timeout} s{self._seen(lambda: self._about(key))}")

    def _about(self, key: Any) -> str:
        about = self._table.about(key)
        return f"; {about}" if about else ""

    def _give_back(self) -> None:
        # An interrupt may strike after the last line under the guard and before the guard is released.
        # `_acquire` and `_release` do not call this: of two signals at once, the second is raised where the next Python
        # function begins. So they release the guard where they catch. CPython 3.11 and later check for no signal before
        # that call. Where an older one does, and after the call, the caller's `_settle` does the rest.
        # They do not use `with` either, which takes far longer than the two calls (docs/adr/0005-what-a-lock-costs.md).
        with contextlib.suppress(RuntimeError):  # This thread does not own it.
            self._guard.release()

    def _settle(self, key: Any, ticket: Ticket, why: str = "interrupted") -> None:
        """Undo a call that an exception has cut short, wherever it struck (KM-INTERRUPT).

        The ticket leaves the queue, and its grant, if any, goes to the next waiter. The gate of the present holder is
        opened: the interrupt may have come between a handover and its gate. Opening the gate of a holder that has
        passed it changes nothing, because a gate is passed once.

        Args:
            key: The key of the call.
            ticket: The ticket of the call.
            why: The reason for a log, as for `LockTable.withdraw`.
        """
        self._give_back()
        try:
            hash(key)
        except TypeError:
            return  # The table refused the key, so there is nothing to undo.
        with self._guard:
            self._table.withdraw(key, ticket, why)
            gate = self._table.waker(key)
            if gate is not None and gate.locked():
                gate.release()


@mypyc_attr(allow_interpreted_subclasses=True)
class UntypedMutex(MutexBase):
    """`kmutex.KeyedMutex` without what mypyc can't compile: the type of its keys, and weak references to it.

    In a compiled class, a call of one of its own methods looks for an override, which takes time. So the part that
    locks is another object.
    """

    __slots__ = ("_mutex",)

    def __init__(self, *, diagnose: bool = False, record: StepLog | None = None) -> None:
        """Make a mutex.

        Args:
            diagnose: Note who asks for each key, when and where; see `owner`. Each call is then several times slower.
            record: A log for `kmutex check-trace`, as ``kmutex.trace.StepLog(file)``. Each mutex needs a log of its
                own. Each call is then several times slower.

        Raises:
            KMutexError: ``record`` is the log of another mutex.
        """
        self._mutex = InnerMutex(diagnose, record)

    def lock(self, key: Any, timeout: float | int | None = None) -> None:
        """Return once the caller holds ``key`` (KM-EXCL).

        A grant that comes before the caller has left the queue is kept: the call then returns, even if its time is
        over (KM-RACE).

        Args:
            key: Any hashable value.
            timeout: Seconds; None waits forever, 0 takes a free key and otherwise raises at once (KM-EXPIRED).

        Raises:
            TimeoutError: The time is over and the caller does not hold the key (KM-CANCEL).
            ValueError: The timeout is negative or NaN. Nothing has changed.
            TypeError: The key is not hashable. Nothing has changed.
        """
        if timeout is not None:
            check_timeout(timeout)
        mutex = self._mutex
        ticket = next(mutex._tickets)
        try:
            if mutex._acquire(key, ticket, timeout):
                return
        except BaseException:
            mutex._settle(key, ticket)
            raise
        raise mutex._expired(key, timeout)

    def unlock(self, key: Any) -> None:
        """Release ``key``, whoever holds it.

        The oldest waiter then holds it (KM-HANDOFF). If nobody waits, its entry is removed (KM-IDLE).

        Args:
            key: A key that is held.

        Raises:
            UnheldKeyError: Nobody holds the key. Nothing has changed (KM-UNHELD, KM-ATOMIC).
        """
        try:
            self._mutex._release(key, None)
        except UnheldKeyError:
            raise
        except BaseException:
            self._mutex._settle(key, NO_TICKET)
            raise

    def hold(self, key: Any, timeout: float | int | None = None) -> Lease:
        """Hold ``key`` for a ``with`` block.

        Args:
            key: As for `lock`.
            timeout: As for `lock`.

        Returns:
            A lease for one block. Entering it does what `lock` does, and raises the same errors.
        """
        return Lease(self._mutex, key, timeout, self)

    def hold_all(self, keys: Iterable[Any], timeout: float | int | None = None) -> Lease:
        """Hold all of ``keys`` for a ``with`` block, by one request (KM-ALL).

        If entering the block raises, the caller holds no key of them. Callers that hold nothing else never deadlock
        with each other, whatever keys they name.

        Args:
            keys: Any hashable values, in any order. A key that is named twice counts once.
            timeout: Seconds for all keys together; otherwise as for `lock`.

        Returns:
            A lease for one block. Entering it raises the errors of `lock`.

        Raises:
            TypeError: A key is not hashable, or ``keys`` is a str or bytes. Nothing has changed.
        """
        named = distinct(keys)
        return Lease(self._several(named), named, timeout, self)

    def _several(self, keys: tuple[Any, ...]) -> InnerMutex:
        """The mutex for a lease of these keys."""
        return _Several(self._mutex)

    def owner(self, key: Any) -> Owner | None:
        """Return who holds ``key``, since when and from where; None if nobody does.

        Raises:
            KMutexError: The mutex was made without ``diagnose=True``.
        """
        from kmutex._owners import owner_in

        mutex = self._mutex
        return mutex._seen(lambda: owner_in(mutex._table, key))

    def snapshot(self) -> Mapping[Any, Entry]:
        """Return every live key with its holder, waiters and refs at one moment, as a value that stays (KM-REF)."""
        return self._mutex._seen(self._mutex._table.snapshot)

    def _seen_table(self) -> LockTable:
        return self._mutex._table

    def _shown(self) -> str:
        return self._mutex._seen(self._mutex._table.shown)


class Lease(LeaseOfKey):
    """One grant of one key: ``with km.hold(key) as lease``. It ends its own grant only (KM-TOKEN).

    It is for one block: entering it again after a grant raises LeaseReusedError.
    """

    __slots__ = ()

    def __enter__(self) -> Lease:
        if self._ticket != NOT_ENTERED:
            raise self._reused()
        mutex: InnerMutex = self._mutex
        timeout = self._timeout
        if timeout is not None:
            check_timeout(timeout)
        self._ticket = NO_TICKET
        ticket = next(mutex._tickets)
        try:
            if mutex._acquire(self._key, ticket, timeout):
                self._ticket = ticket
                return self
        except BaseException:
            self._ticket = NOT_ENTERED
            mutex._settle(self._key, ticket)
            raise
        self._ticket = NOT_ENTERED
        raise mutex._expired(self._key, timeout)

    def release(self) -> None:
        """End the grant now; the block then ends without a second release.

        The grant ends even if an interrupt strikes this call (KM-INTERRUPT).

        Raises:
            UnheldKeyError: It was not granted, or it has ended, by an earlier call or by an `unlock` of the key. A
                later holder keeps the key.
        """
        try:
            mutex: InnerMutex = self._mutex
            mutex._release(self._key, self._ticket)
            self._ticket = NO_TICKET
        except UnheldKeyError:
            raise
        except BaseException:
            self._finish()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # The same as `release`, without another call: most leases end here.
            if self._ticket != NO_TICKET:
                mutex: InnerMutex = self._mutex
                mutex._release(self._key, self._ticket)
                self._ticket = NO_TICKET
        except UnheldKeyError:
            raise
        except BaseException:
            self._finish()
            raise

    def _finish(self) -> None:
        # The block ends in any case, so a key that an interrupt has kept held is released here.
        ticket = self._ticket
        if ticket > NO_TICKET:
            self._ticket = NO_TICKET
            self._mutex._settle(self._key, ticket)


class _Several(InnerMutex):
    """The same mutex for a lease of several keys: the lease's key is a tuple of keys.

    A ticket joins all queues in one step under the guard. So every request before it in any queue is older, and a
    request waits for older requests only: there is no cycle. A key whose turn comes is held while the ticket waits for
    the other keys.
    """

    __slots__ = ()

    def __init__(self, mutex: InnerMutex) -> None:
        self._guard, self._table, self._tickets = mutex._guard, mutex._table, mutex._tickets

    def _acquire(self, key: Any, ticket: Ticket, timeout: float | int | None) -> bool:
        # The caller settles after an error here, as for one key.
        end = None if timeout is None else time.monotonic() + min(timeout, threading.TIMEOUT_MAX)
        guard, table = self._guard, self._table
        try:
            guard.acquire()
            gates = table.request_all(key, ticket, _closed_gate)
            refused = timeout == 0 and bool(gates)
            if refused:
                # In the same step: nobody is refused a key because of a request that gets none.
                for one in key:
                    table.withdraw(one, ticket, "refused")
            guard.release()
        except BaseException:
            try:  # noqa: SIM105 (see `_give_back`)
                guard.release()
            except RuntimeError:
                pass
            raise
        if refused:
            return False
        for gate in gates:
            if not _pass(gate, None if end is None else max(0.0, end - time.monotonic())):
                break
        else:
            return True
        # The time is over, but the last grant may have come since.
        with guard:
            if all(table.holds(one, ticket) for one in key):
                return True
        self._settle(key, ticket, "timeout")
        return False

    def _release(self, key: Any, ticket: Ticket | None) -> None:
        failed: UnheldKeyError | None = None
        for one in key:
            try:
                super()._release(one, ticket)
            except UnheldKeyError as error:
                failed = error  # Somebody unlocked this key. The others are released all the same.
        if failed is not None:
            raise failed

    def _settle(self, key: Any, ticket: Ticket, why: str = "interrupted") -> None:
        self._give_back()  # Of no keys, too.
        failed: Exception | None = None
        for one in key:
            try:
                super()._settle(one, ticket, why)
            except Exception as error:
                failed = error  # Raised by the key's own methods.
        if failed is not None:
            raise failed

    def _about(self, key: Any) -> str:
        return "".join(f"; {brief(one)}: {about}" for one in key if (about := self._table.about(one)))


def _watched() -> LockTable:
    from kmutex._owners import WatchedTable

    return WatchedTable(_thread)


def _thread() -> str:
    return f"thread {threading.current_thread().name!r}"


def _recorded(table: LockTable, log: StepLog) -> LockTable:
    from kmutex._steps import RecordedTable

    return RecordedTable(table, log)


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


def _pass(gate: threading.Lock, timeout: float | int | None) -> bool:
    """Wait until the gate is opened; return False if the time is over first."""
    if timeout is None:
        return gate.acquire()
    return gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
