"""The keyed mutex for threads: the lock table behind one guard, and a gate for each waiter."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex, TypeVar

from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError, not_copied
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey, distinct
from kmutex._mypyc import mypyc_attr
from kmutex._protocol import check_timeout
from kmutex._text import brief

if TYPE_CHECKING:
    from kmutex._owners import Owner
    from kmutex._steps import StepLog

T = TypeVar("T")

# `float | int`, wherever a timeout is taken: of a plain float, a compiled call makes one, and 10**400 has none.


class InnerMutex:
    """What a mutex and its leases lock by. Theirs alone: compiled, nobody can override what is called within."""

    __slots__ = ("_guard", "_table", "_tickets")

    def __init__(self, diagnose: bool, record: StepLog | None) -> None:
        # An RLock, so that `_give_back` may call release() without knowing whether this thread owns it.
        self._guard = threading.RLock()
        self._table: LockTable = _watched() if diagnose else LockTable()
        if record is not None:
            self._table = _recorded(self._table, record)
        self._tickets = itertools.count(NO_TICKET + 1)

    def _acquire(self, key: Any, ticket: Ticket, timeout: float | int | None) -> bool:
        # False: the time is over. The caller settles the ticket if anything is raised here, or by an interrupt on the
        # way back to it; so what is no interrupt is not raised here.
        # Asking and queueing are one step under the guard: whoever releases the key next sees the waiter,
        # so there is no moment in which a wake-up can be lost.
        # Nothing says what type a gate is: compiled, its calls would be held to it, and gevent's release() returns more
        # than None.
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
        # The time is over, but the grant may have come since. Only the table knows, under the guard.
        with self._guard:
            return not self._table.cancel(key, ticket, "refused" if timeout == 0 else "timeout")

    def _release(self, key: Any, ticket: Ticket | None) -> None:
        # The caller settles if anything but UnheldKeyError is raised here.
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
        """What ``look`` gives, which looks at the table at one moment."""
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
        # An interrupt may strike after the last line under the guard and before the guard is let go.
        # `_acquire` and `_release` don't leave it to this: of two signals at one moment, the second raises where the
        # next Python function begins. So they release it where they catch. From CPython 3.11 on no signal is looked
        # for before that call; where one is, and after it, the caller's `_settle` is there for what is left.
        # Nor do they say `with`, which takes far longer than the two calls (docs/adr/0005-what-a-lock-costs.md).
        with contextlib.suppress(RuntimeError):  # It is not this thread's.
            self._guard.release()

    def _settle(self, key: Any, ticket: Ticket, why: str = "interrupted") -> None:
        """Put in order what an exception has left of a call, wherever it struck (KM-INTERRUPT). why: as for the table.

        Nothing is left of the ticket: no place in the queue and no grant, which goes on to the next. The holder of the
        key, whoever it is by then, has its gate open: the interrupt may have come between a hand-over and its gate. To
        open the gate of a holder that is through it already changes nothing, since a gate is passed once.
        """
        self._give_back()
        try:
            hash(key)
        except TypeError:
            return  # The table has refused it: there is nothing to undo.
        with self._guard:
            self._table.withdraw(key, ticket, why)
            gate = self._table.waker(key)
            if gate is not None and gate.locked():
                gate.release()


@mypyc_attr(allow_interpreted_subclasses=True)
class UntypedMutex:
    """`kmutex.KeyedMutex`, but for what mypyc can't compile: the type of its keys, and weak references to it.

    Where it is compiled, a call of one of its own methods would look for an override, which takes time. So what locks
    is in another object.
    """

    __slots__ = ("_mutex",)

    def __init__(self, *, diagnose: bool = False, record: StepLog | None = None) -> None:
        """diagnose: note who asks for each key, when and where; see `owner`. It makes each call some times slower.

        record: a log of this mutex's own, ``kmutex.trace.StepLog(file)``, for `kmutex check-trace`; so does it.
        KMutexError: it is the log of another mutex.
        """
        self._mutex = InnerMutex(diagnose, record)

    def lock(self, key: Any, timeout: float | int | None = None) -> None:
        """Return once the caller holds ``key`` (KM-EXCL).

        timeout: seconds; None waits forever, 0 takes a free key and otherwise raises at once (KM-EXPIRED).
        TimeoutError: the time is over and the caller does not hold the key (KM-CANCEL). A grant that came
        before the caller could leave the queue is kept, so the call returns although its time is over (KM-RACE).
        ValueError: the timeout is negative or NaN. TypeError: the key is not hashable. Nothing has changed.
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
        """Release ``key``, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE).

        UnheldKeyError: nobody holds it; nothing has changed (KM-UNHELD, KM-ATOMIC).
        """
        try:
            self._mutex._release(key, None)
        except UnheldKeyError:
            raise
        except BaseException:
            self._mutex._settle(key, NO_TICKET)
            raise

    def hold(self, key: Any, timeout: float | int | None = None) -> Lease:
        """Hold ``key`` for a ``with`` block. Arguments and errors are those of `lock`, raised on entry."""
        return Lease(self._mutex, key, timeout, self)

    def hold_all(self, keys: Iterable[Any], timeout: float | int | None = None) -> Lease:
        """Hold all of ``keys`` for a ``with`` block, by one request: all of them, or none where it raises (KM-ALL).

        keys: in any order; one that is named twice counts once. Callers that hold nothing else never wait for each
        other in a circle, whatever keys they name. Other arguments and errors are those of `lock`, raised on entry.
        TypeError: a key is not hashable, or ``keys`` is a text. Nothing has changed.
        """
        return Lease(_Several(self._mutex), distinct(keys), timeout, self)

    def owner(self, key: Any) -> Owner | None:
        """Who holds ``key``, since when and from where; None where nobody does.

        KMutexError: the mutex was made without ``diagnose=True``.
        """
        from kmutex._owners import owner_in

        mutex = self._mutex
        return mutex._seen(lambda: owner_in(mutex._table, key))

    def snapshot(self) -> Mapping[Any, Entry]:
        """Every live key with its holder, waiters and refs at one moment; it does not change afterwards (KM-REF)."""
        return self._mutex._seen(self._mutex._table.snapshot)

    def __len__(self) -> int:
        """The number of live keys: held, with waiters or without. 0 when all is idle (KM-IDLE)."""
        return len(self._mutex._table)

    def __contains__(self, key: object) -> bool:
        """Whether somebody holds ``key`` just now."""
        return key in self._mutex._table

    def __bool__(self) -> bool:
        """True, also where nothing is held: a locker that is there, is there."""
        return True

    def __repr__(self) -> str:
        """What is held, in one line."""
        return f"<{type(self).__name__} at {id(self):#x}, {self._mutex._seen(self._mutex._table.shown)}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """TypeError: neither copied nor pickled. Weak references are possible."""
        raise not_copied(self)


class Lease(LeaseOfKey):
    """One grant of one key, as a context manager: ``with km.hold(key) as lease``; ends its own only (KM-TOKEN)."""

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
        """End the grant now; the block then ends without a second release. It ends if interrupted too (KM-INTERRUPT).

        UnheldKeyError: it was not granted, or has ended: by this call before, or by an `unlock` of the key.
        A later holder is not touched.
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
            # As `release`, without another call: most leases end here.
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
        # The block is left either way, so what an interrupt has kept from being released is released.
        ticket = self._ticket
        if ticket > NO_TICKET:
            self._ticket = NO_TICKET
            self._mutex._settle(self._key, ticket)


class _Several(InnerMutex):
    """The same mutex for a lease of several keys: what is a key to the lease is a tuple of keys here.

    A ticket takes its places in all queues in one step under the guard. So whoever stands before it in one queue asked
    before it, and those before it in another can't wait for it: waits lead to older requests only, and never in a
    circle. Places that come to be the first are held while it waits for the others.
    """

    __slots__ = ()

    def __init__(self, mutex: InnerMutex) -> None:
        self._guard, self._table, self._tickets = mutex._guard, mutex._table, mutex._tickets

    def _acquire(self, key: Any, ticket: Ticket, timeout: float | int | None) -> bool:
        # What is raised here is settled by the caller, as for one key.
        end = None if timeout is None else time.monotonic() + min(timeout, threading.TIMEOUT_MAX)
        guard, table = self._guard, self._table
        try:
            guard.acquire()
            gates = table.request_all(key, ticket, _closed_gate)
            refused = timeout == 0 and bool(gates)
            if refused:
                # In the same step: nobody is refused a key for the sake of a request that gets none.
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
                failed = error  # Somebody unlocked that one. The others are released all the same.
        if failed is not None:
            raise failed

    def _settle(self, key: Any, ticket: Ticket, why: str = "interrupted") -> None:
        failed: Exception | None = None
        for one in key:
            try:
                super()._settle(one, ticket, why)
            except Exception as error:
                failed = error  # Of that key's own methods.
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
    """Wait until the gate is opened: True. False: the time is over."""
    if timeout is None:
        return gate.acquire()
    return gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
