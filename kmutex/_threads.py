"""The keyed mutex for threads: the lock table behind one guard, and a gate for each waiter."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections.abc import Hashable, Mapping
from types import TracebackType

from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey
from kmutex._protocol import check_timeout

# `float | int`, wherever a timeout is taken: of a plain float, a compiled call makes one, and 10**400 has none.


class KeyedMutex:
    """A mutex for each key, made on demand and gone when idle. For threads; not re-entrant.

    Any hashable value is a key. Waiters are served in the order in which they asked (KM-FIFO), `unlock` passes
    the key straight to the oldest (KM-HANDOFF), and no call on one key waits for another key (KM-INDEP): the
    guard of the table is held for a few dictionary steps and never while anybody waits.

    A thread that locks a key it holds already waits for itself: forever, or until its timeout.
    """

    __slots__ = ("_guard", "_table", "_tickets")

    def __init__(self) -> None:
        # An RLock, so that `_give_back` may call release() without knowing whether this thread owns it.
        self._guard = threading.RLock()
        self._table: LockTable[threading.Lock] = LockTable()
        self._tickets = itertools.count(NO_TICKET + 1)

    def lock(self, key: Hashable, timeout: float | int | None = None) -> None:
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
        raise _expired(key, timeout)

    def unlock(self, key: Hashable) -> None:
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

    def hold(self, key: Hashable, timeout: float | int | None = None) -> Lease:
        """Hold ``key`` for a ``with`` block. Arguments and errors are those of `lock`, raised on entry."""
        return Lease(self, key, timeout)

    def snapshot(self) -> Mapping[Hashable, Entry]:
        """Every live key with its holder, waiters and refs at one moment; it does not change afterwards (KM-REF)."""
        try:
            with self._guard:
                return self._table.snapshot()
        except BaseException:
            self._give_back()
            raise

    def __len__(self) -> int:
        """The number of live keys: held, with waiters or without. 0 when all is idle (KM-IDLE)."""
        return len(self._table)

    def __contains__(self, key: Hashable) -> bool:
        """Whether somebody holds ``key`` just now."""
        return key in self._table

    def _acquire(self, key: Hashable, ticket: Ticket, timeout: float | int | None) -> bool:
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

    def _release(self, key: Hashable, ticket: Ticket | None) -> None:
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

    def _give_back(self) -> None:
        # An interrupt may strike after the last line under the guard and before the guard is let go.
        # `_acquire` and `_release` don't leave it to this: of two signals at one moment, the second raises where the
        # next Python function begins. So they release it where they catch. From CPython 3.11 on no signal is looked
        # for before that call; where one is, and after it, the caller's `_settle` is there for what is left.
        # Nor do they say `with`, which takes far longer than the two calls (docs/adr/0005-what-a-lock-costs.md).
        with contextlib.suppress(RuntimeError):  # It is not this thread's.
            self._guard.release()

    def _settle(self, key: Hashable, ticket: Ticket) -> None:
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


class Lease(LeaseOfKey[KeyedMutex]):
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
        raise _expired(self._key, timeout)

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


def _expired(key: Hashable, timeout: float | int | None) -> TimeoutError:
    return TimeoutError(f"no grant of {key!r} within {timeout} s")


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


def _pass(gate: threading.Lock, timeout: float | int | None) -> bool:
    """Wait until the gate is opened: True. False: the time is over."""
    if timeout is None:
        return gate.acquire()
    return gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
