"""The keyed mutex for threads: the lock table behind one guard, and a gate for each waiter."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NoReturn, SupportsIndex, TypeVar

from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError, not_copied
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey, distinct
from kmutex._protocol import K, check_timeout
from kmutex._text import brief

if TYPE_CHECKING:
    from kmutex._owners import Owner

T = TypeVar("T")

# `float | int`, wherever a timeout is taken: of a plain float, a compiled call makes one, and 10**400 has none.


class KeyedMutex(Generic[K]):
    """A mutex for each key, made on demand and gone when idle. For threads; not re-entrant.

    Any hashable value is a key; ``KeyedMutex[str]`` tells a type checker which. Waiters are served in the order in
    which they asked (KM-FIFO), `unlock` passes the key straight to the oldest (KM-HANDOFF), and no call on one key
    waits for another key (KM-INDEP): the guard of the table is held for a few dictionary steps and never while anybody
    waits.

    A thread that locks a key it holds already waits for itself: forever, or until its timeout.
    """

    __slots__ = ("__weakref__", "_guard", "_table", "_tickets")

    def __init__(self, *, diagnose: bool = False) -> None:
        """diagnose: note who asks for each key, when and where; see `owner`. It makes each call some times slower."""
        # An RLock, so that `_give_back` may call release() without knowing whether this thread owns it.
        self._guard = threading.RLock()
        self._table: LockTable[threading.Lock] = _watched() if diagnose else LockTable()
        self._tickets = itertools.count(NO_TICKET + 1)

    def lock(self, key: K, timeout: float | int | None = None) -> None:
        """Return once the caller holds ``key`` (KM-EXCL).

        timeout: seconds; None waits for ever, 0 takes a free key and otherwise raises at once (KM-EXPIRED).
        TimeoutError: the time is over and the caller does not hold the key (KM-CANCEL). A grant that came
        before the caller could leave the queue is kept, so the call returns although its time is over (KM-RACE).
        ValueError: the timeout is negative or NaN. TypeError: the key is not hashable. Nothing has changed.
        """
        if timeout is not None:
            check_timeout(timeout)
        ticket = next(self._tickets)
        try:
            if self._acquire(key, ticket, timeout):
                return
        except BaseException:
            self._settle(key, ticket)
            raise
        raise self._expired(key, timeout)

    def unlock(self, key: K) -> None:
        """Release ``key``, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE).

        UnheldKeyError: nobody holds it; nothing has changed (KM-UNHELD, KM-ATOMIC).
        """
        try:
            self._release(key, None)
        except UnheldKeyError:
            raise
        except BaseException:
            self._settle(key, NO_TICKET)
            raise

    def hold(self, key: K, timeout: float | int | None = None) -> Lease:
        """Hold ``key`` for a ``with`` block. Arguments and errors are those of `lock`, raised on entry."""
        return Lease(self, key, timeout)

    def hold_all(self, keys: Iterable[K], timeout: float | int | None = None) -> Lease:
        """Hold all of ``keys`` for a ``with`` block, by one request: all of them, or none where it raises (KM-ALL).

        keys: in any order; one that is named twice counts once. Callers that hold nothing else never wait for each
        other in a circle, whatever keys they name. Other arguments and errors are those of `lock`, raised on entry.
        TypeError: a key is not hashable, or ``keys`` is a text. Nothing has changed.
        """
        return Lease(_Several(self), distinct(keys), timeout)

    def owner(self, key: K) -> Owner | None:
        """Who holds ``key``, since when and from where; None where nobody does.

        KMutexError: the mutex was made without ``diagnose=True``.
        """
        from kmutex._owners import owner_in

        return self._seen(lambda: owner_in(self._table, key))

    def snapshot(self) -> Mapping[K, Entry]:
        """Every live key with its holder, waiters and refs at one moment; it does not change afterwards (KM-REF)."""
        return self._seen(self._table.snapshot)

    def __len__(self) -> int:
        """The number of live keys: held, with waiters or without. 0 when all is idle (KM-IDLE)."""
        return len(self._table)

    def __contains__(self, key: object) -> bool:
        """Whether somebody holds ``key`` just now."""
        return key in self._table

    def __bool__(self) -> bool:
        """True, also where nothing is held: a locker that is there, is there."""
        return True

    def __repr__(self) -> str:
        """What is held, in one line."""
        return f"<{type(self).__name__} at {id(self):#x}, {self._seen(self._table.shown)}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """TypeError: neither copied nor pickled. Weak references are possible."""
        raise not_copied(self)

    def _acquire(self, key: K, ticket: Ticket, timeout: float | int | None) -> bool:
        # False: the time is over. The caller settles the ticket if anything is raised here, or by an interrupt on the
        # way back to it; so what is no interrupt is not raised here.
        # Asking and queueing are one step under the guard: whoever releases the key next sees the waiter,
        # so there is no moment in which a wake-up can be lost.
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
            return not self._table.cancel(key, ticket)

    def _release(self, key: K, ticket: Ticket | None) -> None:
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

    def _settle(self, key: K, ticket: Ticket) -> None:
        """Put in order what an exception has left of a call, wherever it struck (KM-INTERRUPT).

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
            self._table.withdraw(key, ticket)
            gate = self._table.waker(key)
            if gate is not None and gate.locked():
                gate.release()


class Lease(LeaseOfKey[KeyedMutex[Any]]):
    """One grant of one key, as a context manager: ``with km.hold(key) as lease``; ends its own only (KM-TOKEN)."""

    __slots__ = ()

    def __enter__(self) -> Lease:
        if self._ticket != NOT_ENTERED:
            raise self._reused()
        mutex, timeout = self._mutex, self._timeout
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
            self._mutex._release(self._key, self._ticket)
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
                self._mutex._release(self._key, self._ticket)
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


class _Several(KeyedMutex[Any]):
    """The same mutex for a lease of several keys: what is a key to the lease is a tuple of keys here.

    A ticket takes its places in all queues in one step under the guard. So whoever stands before it in one queue asked
    before it, and those before it in another can't wait for it: waits lead to older requests only, and never in a
    circle. Places that come to be the first are held while it waits for the others.
    """

    __slots__ = ()

    def __init__(self, mutex: KeyedMutex[Any]) -> None:
        self._guard, self._table, self._tickets = mutex._guard, mutex._table, mutex._tickets

    def _acquire(self, key: Any, ticket: Ticket, timeout: float | int | None) -> bool:
        # What is raised here is settled by the caller, as for one key.
        end = None if timeout is None else time.monotonic() + min(timeout, threading.TIMEOUT_MAX)
        guard, table = self._guard, self._table
        try:
            guard.acquire()
            gates = [gate for one in key if (gate := table.request(one, ticket, _closed_gate)) is not None]
            refused = timeout == 0 and bool(gates)
            if refused:
                # In the same step: nobody is refused a key for the sake of a request that gets none.
                for one in key:
                    table.withdraw(one, ticket)
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
        self._settle(key, ticket)
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

    def _settle(self, key: Any, ticket: Ticket) -> None:
        failed: Exception | None = None
        for one in key:
            try:
                super()._settle(one, ticket)
            except Exception as error:
                failed = error  # Of that key's own methods.
        if failed is not None:
            raise failed

    def _about(self, key: Any) -> str:
        return "".join(f"; {brief(one)}: {about}" for one in key if (about := self._table.about(one)))


def _watched() -> LockTable[threading.Lock]:
    from kmutex._owners import WatchedTable

    return WatchedTable(lambda: f"thread {threading.current_thread().name!r}")


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


def _pass(gate: threading.Lock, timeout: float | int | None) -> bool:
    """Wait until the gate is opened: True. False: the time is over."""
    if timeout is None:
        return gate.acquire()
    return gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
