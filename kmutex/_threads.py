"""The keyed mutex for threads: the lock table behind one guard, and a gate for each waiter."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Mapping
from types import TracebackType

from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey
from kmutex._protocol import check_timeout


class KeyedMutex:
    """A mutex for each key, made on demand and gone when idle. For threads; not re-entrant.

    Any hashable value is a key. Waiters are served in the order in which they asked (KM-FIFO), `unlock` passes
    the key straight to the oldest (KM-HANDOFF), and no call on one key waits for another key (KM-INDEP): the
    guard of the table is held for a few dictionary steps and never while anybody waits.

    A thread that locks a key it holds already waits for itself: forever, or until its timeout.
    """

    __slots__ = ("_guard", "_table", "_tickets")

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._table: LockTable[threading.Lock] = LockTable()
        self._tickets = itertools.count(NO_TICKET + 1)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Return once the caller holds ``key`` (KM-EXCL).

        timeout: seconds; None waits for ever, 0 takes a free key and otherwise raises at once (KM-EXPIRED).
        TimeoutError: the time is over and the caller does not hold the key (KM-CANCEL). A grant that came
        before the caller could leave the queue is kept, so the call returns although its time is over (KM-RACE).
        ValueError: the timeout is negative or NaN. TypeError: the key is not hashable. Nothing has changed.
        """
        self._acquire(key, timeout)

    def unlock(self, key: Hashable) -> None:
        """Release ``key``, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE).

        UnheldKeyError: nobody holds it; nothing has changed (KM-UNHELD, KM-ATOMIC).
        """
        with self._guard:
            gate = self._table.release(key)
            if gate is not None:
                gate.release()

    def hold(self, key: Hashable, timeout: float | None = None) -> Lease:
        """Hold ``key`` for a ``with`` block. Arguments and errors are those of `lock`, raised on entry."""
        return Lease(self, key, timeout)

    def snapshot(self) -> Mapping[Hashable, Entry]:
        """Every live key with its holder, waiters and refs at one moment; it does not change afterwards (KM-REF)."""
        with self._guard:
            return self._table.snapshot()

    def __len__(self) -> int:
        """The number of live keys: held, with waiters or without. 0 when all is idle (KM-IDLE)."""
        return len(self._table)

    def __contains__(self, key: Hashable) -> bool:
        """Whether somebody holds ``key`` just now."""
        return key in self._table

    def _acquire(self, key: Hashable, timeout: float | None) -> Ticket:
        if timeout is not None:
            check_timeout(timeout)
        ticket = NO_TICKET
        try:
            # Asking and queueing are one step under the guard: whoever releases the key next sees the waiter,
            # so there is no moment in which a wake-up can be lost.
            with self._guard:
                ticket = next(self._tickets)
                gate = self._table.request(key, ticket, _closed_gate)
            if gate is None or _pass(gate, timeout):
                return ticket
            # The time is over, but the grant may have come since. Only the table knows, under the guard.
            with self._guard:
                if not self._table.cancel(key, ticket):
                    return ticket
        except BaseException:
            # Wherever the exception struck, the ticket was known before the request was made, so it finds what
            # there is to undo: nothing, a place in the queue, or a grant that goes on to the next (KM-INTERRUPT).
            self._withdraw(key, ticket)
            raise
        raise TimeoutError(f"no grant of {key!r} within {timeout} s")

    def _release(self, key: Hashable, ticket: Ticket) -> None:
        with self._guard:
            gate = self._table.release(key, ticket)
            if gate is not None:
                gate.release()

    def _withdraw(self, key: Hashable, ticket: Ticket) -> None:
        if ticket == NO_TICKET:
            return
        try:
            hash(key)
        except TypeError:
            return  # The table has refused it: there is nothing to undo.
        with self._guard:
            gate = self._table.withdraw(key, ticket)
            if gate is not None:
                gate.release()


class Lease(LeaseOfKey[KeyedMutex]):
    """One grant of one key, as a context manager: ``with km.hold(key) as lease``; ends its own only (KM-TOKEN)."""

    __slots__ = ()

    def __enter__(self) -> Lease:
        if self._ticket != NOT_ENTERED:
            raise self._reused()
        self._ticket = NO_TICKET
        try:
            self._ticket = self._mutex._acquire(self._key, self._timeout)
        except BaseException:
            self._ticket = NOT_ENTERED
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # As `release`, without another call: most leases end here.
        if self._ticket != NO_TICKET:
            self._mutex._release(self._key, self._ticket)
            self._ticket = NO_TICKET


def _closed_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


def _pass(gate: threading.Lock, timeout: float | None) -> bool:
    """Wait until the gate is opened: True. False: the time is over."""
    if timeout is None:
        return gate.acquire()
    return gate.acquire(timeout=min(timeout, threading.TIMEOUT_MAX))
