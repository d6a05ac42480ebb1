"""The keyed mutex for asyncio: the lock table on one event loop, and a future for each waiter.

One loop runs one step at a time and nothing here awaits between two steps on the table, so there is no guard.
"""

from __future__ import annotations

import asyncio
import itertools
from asyncio import _get_running_loop
from collections.abc import Hashable, Mapping
from types import TracebackType

from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket
from kmutex._errors import WrongLoopError
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey
from kmutex._protocol import check_timeout

LONGEST = 1e9
"""Seconds of a timer, some thirty years: a loop's clock can't add an integer of any size."""


class AsyncKeyedMutex:
    """A mutex for each key, made on demand and gone when idle. For the tasks of one event loop; not re-entrant.

    The contract is that of `KeyedMutex`, with two differences. It belongs to the loop in which it was first
    locked, and raises at once in any other, also where nothing would wait (KM-LOOP). And a cancellation that meets a
    grant wins: the call raises CancelledError and the grant goes on to the next waiter (KM-RACE).
    """

    __slots__ = ("_loop", "_table", "_tickets")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._table: LockTable[asyncio.Future[None]] = LockTable()
        self._tickets = itertools.count(NO_TICKET + 1)

    async def lock(self, key: Hashable, timeout: float | int | None = None) -> None:
        """Return once the calling task holds ``key`` (KM-EXCL). A free key is taken without a pause.

        timeout: seconds; None waits for ever, 0 takes a free key and otherwise raises at once (KM-EXPIRED).
        TimeoutError: the time was over before the grant (KM-CANCEL).
        CancelledError: the task was cancelled; it does not hold the key, and if it was granted, the next does.
        ValueError: the timeout is negative or NaN. TypeError: the key is not hashable. WrongLoopError: KM-LOOP.
        Nothing has changed.
        """
        ticket = next(self._tickets)
        future = self._request(key, ticket, timeout)
        if future is not None:
            await self._grant(key, ticket, future, timeout)

    def unlock(self, key: Hashable) -> None:
        """Release ``key``, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE).

        UnheldKeyError: nobody holds it; nothing has changed (KM-UNHELD, KM-ATOMIC). WrongLoopError: KM-LOOP.
        """
        loop = _get_running_loop()  # None outside of a loop, so nothing need be caught where all is well.
        if loop is None or loop is not self._loop:
            self._checked(loop)
        future = self._table.release(key)
        if future is not None:
            self._wake(future)

    def hold(self, key: Hashable, timeout: float | int | None = None) -> AsyncLease:
        """Hold ``key`` for an ``async with`` block. Arguments and errors are those of `lock`, raised on entry."""
        return AsyncLease(self, key, timeout)

    def snapshot(self) -> Mapping[Hashable, Entry]:
        """Every live key with its holder, waiters and refs at one moment; it does not change afterwards (KM-REF)."""
        return self._table.snapshot()

    def __len__(self) -> int:
        """The number of live keys: held, with waiters or without. 0 when all is idle (KM-IDLE)."""
        return len(self._table)

    def __contains__(self, key: Hashable) -> bool:
        """Whether somebody holds ``key`` just now."""
        return key in self._table

    def _request(self, key: Hashable, ticket: Ticket, timeout: float | int | None) -> asyncio.Future[None] | None:
        # A plain function: who waits for nothing need not pay for a second coroutine.
        if timeout is not None:
            check_timeout(timeout)
        loop = _get_running_loop()
        if loop is None or loop is not self._loop:
            loop = self._checked(loop)
        future = self._table.request(key, ticket, loop.create_future)
        self._loop = loop
        return future

    async def _grant(
        self, key: Hashable, ticket: Ticket, future: asyncio.Future[None], timeout: float | int | None
    ) -> None:
        if timeout == 0:
            self._table.cancel(key, ticket)
            raise TimeoutError(f"no grant of {key!r} within {timeout} s")
        timer = None
        try:
            if timeout is not None:
                seconds = min(timeout, LONGEST)
                timer = future.get_loop().call_later(seconds, self._expire, key, ticket, future, timeout)
            await future
        except BaseException:
            # A granted ticket that is cancelled before its task runs again still stands at the head of the queue:
            # withdrawing it passes the key on. One that timed out left the queue in `_expire`.
            heir = self._table.withdraw(key, ticket)
            if heir is not None:
                self._wake(heir)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, key: Hashable, ticket: Ticket, future: asyncio.Future[None], timeout: float | int) -> None:
        # Leaving the queue and failing the future are one step of the loop, so no grant can come between.
        if not future.done():
            try:
                self._table.cancel(key, ticket)
                error: Exception = TimeoutError(f"no grant of {key!r} within {timeout} s")
            except Exception as failed:
                error = failed  # Of the key's own methods. Without any the task would wait for ever.
            future.set_exception(error)

    def _release(self, key: Hashable, ticket: Ticket) -> None:
        loop = _get_running_loop()
        if loop is None or loop is not self._loop:
            self._checked(loop)
        future = self._table.release(key, ticket)
        if future is not None:
            self._wake(future)

    def _wake(self, future: asyncio.Future[None]) -> None:
        # A future that is done here was cancelled, and its task has not run yet. It holds the key for that long;
        # when it runs, `_grant` withdraws it and the key goes on.
        if not future.done():
            future.set_result(None)

    def _checked(self, running: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
        if running is None:
            raise WrongLoopError("an AsyncKeyedMutex is used from within a running event loop only")
        if self._loop is not None and running is not self._loop:
            raise WrongLoopError("this AsyncKeyedMutex belongs to another event loop; make one for each loop")
        return running


class AsyncLease(LeaseOfKey[AsyncKeyedMutex]):
    """One grant of one key: ``async with km.hold(key) as lease``. Ends its own grant only (KM-TOKEN)."""

    __slots__ = ()

    async def __aenter__(self) -> AsyncLease:
        if self._ticket != NOT_ENTERED:
            raise self._reused()
        self._ticket = NO_TICKET
        mutex = self._mutex
        try:
            ticket = next(mutex._tickets)
            future = mutex._request(self._key, ticket, self._timeout)
            if future is not None:
                await mutex._grant(self._key, ticket, future, self._timeout)
        except BaseException:
            self._ticket = NOT_ENTERED
            raise
        self._ticket = ticket
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # As `release`, without another call: most leases end here.
        if self._ticket != NO_TICKET:
            self._mutex._release(self._key, self._ticket)
            self._ticket = NO_TICKET
