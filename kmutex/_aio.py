"""The keyed mutex for asyncio: the lock table on one event loop, and a future for each waiter.

One loop runs one step at a time and nothing here awaits between two steps on the table, so there is no guard.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from kmutex._core import LockTable, MutexBase
from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError, WrongLoopError
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey, distinct
from kmutex._mypyc import mypyc_attr
from kmutex._protocol import check_timeout
from kmutex._text import brief

if TYPE_CHECKING:
    from kmutex._owners import Owner
    from kmutex._steps import StepLog

LONGEST = 1e9
"""The longest timer in seconds, some thirty years: a loop's clock can't add an integer of any size."""


_running: Final = asyncio._get_running_loop
"""None where no loop runs, which get_running_loop() would raise for. Compiled, a constant is found without a lookup."""
_moving = threading.Lock()
"""Held while a mutex moves to another loop: two loops may want it at once."""


class AsyncInnerMutex:
    """The part that locks, shared by a mutex and its leases. Private, so compiled calls look for no overrides."""

    __slots__ = ("_last", "_loop", "_make", "_table")

    def __init__(self, diagnose: bool, record: StepLog | None) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._make: Any = None
        """The loop's `create_future`, kept: to look it up makes an object at each call."""
        self._table: LockTable = _watched() if diagnose else LockTable()
        if record is not None:
            self._table = _recorded(self._table, record)
        self._last: Ticket = NO_TICKET

    def _begin(self, timeout: float | int | None) -> Ticket:
        """Check that the call may be made here, and return its ticket."""
        if timeout is not None:
            check_timeout(timeout)
        loop = _running()
        if loop is None or loop is not self._loop:
            self._moved_to(loop)
        # Behind the check, so no two threads come here at once, and no two calls get the same ticket.
        self._last += 1
        return self._last

    def _request(self, key: Any, ticket: Ticket, timeout: float | int | None) -> asyncio.Future[None] | None:
        # A plain function: a call that does not wait need not pay for a second coroutine.
        future: asyncio.Future[None] | None = self._table.request(key, ticket, self._make)
        return future

    async def _grant(self, key: Any, ticket: Ticket, future: asyncio.Future[None], timeout: float | int | None) -> None:
        if timeout == 0:
            self._table.cancel(key, ticket, "refused")
            raise self._expired(key, timeout)
        timer = None
        try:
            if timeout is not None:
                seconds = min(timeout, LONGEST)
                timer = future.get_loop().call_later(seconds, self._expire, key, ticket, future, timeout)
            await future
        except BaseException:
            # A granted ticket that is cancelled before its task runs again is still the head of the queue: withdrawing
            # it passes the key on. A ticket that timed out left the queue in `_expire`.
            heir: asyncio.Future[None] | None = self._table.withdraw(key, ticket)
            if heir is not None:
                self._wake(heir)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, key: Any, ticket: Ticket, future: asyncio.Future[None], timeout: float | int) -> None:
        # Leaving the queue and failing the future are one step of the loop, so no grant can come between.
        if not future.done():
            try:
                self._table.cancel(key, ticket)
                error: Exception = self._expired(key, timeout)
            except Exception as failed:
                error = failed  # Raised by the key's own methods. Without an error the task would wait forever.
            future.set_exception(error)

    def _release(self, key: Any, ticket: Ticket) -> None:
        loop = _running()
        if loop is None or loop is not self._loop:
            self._moved_to(loop)
        future: asyncio.Future[None] | None = self._table.release(key, ticket)
        if future is not None:
            self._wake(future)

    def _wake(self, future: asyncio.Future[None]) -> None:
        # A future that is done here was cancelled, and its task has not run yet. It holds the key until then; when it
        # runs, `_grant` withdraws it and the key goes to the next.
        if not future.done():
            future.set_result(None)

    def _expired(self, key: Any, timeout: float | int) -> TimeoutError:
        return TimeoutError(f"no grant of {brief(key)} within {timeout} s{self._about(key)}")

    def _about(self, key: Any) -> str:
        about = self._table.about(key)
        return f"; {about}" if about else ""

    def _moved_to(self, running: asyncio.AbstractEventLoop | None) -> None:
        """Let the mutex belong to the running loop.

        Raises:
            WrongLoopError: No loop runs, or the mutex still belongs to another one (KM-LOOP).
        """
        if running is None:
            raise WrongLoopError("an AsyncKeyedMutex is for asyncio, and no event loop of asyncio runs here")
        with _moving:
            owner = self._loop
            if owner is not running:
                # Once `_loop` is None, calls from the owner come here too, and wait. An earlier call came from a loop
                # that runs, and whether the owner runs is checked after that.
                try:
                    self._loop = None
                    if owner is not None and (owner.is_running() or len(self._table)):
                        why = "which still runs" if owner.is_running() else "where keys are held"
                        raise WrongLoopError(f"this AsyncKeyedMutex belongs to another event loop, {why}")
                except BaseException:
                    self._loop = owner  # After an interrupt, too: the next caller would find a mutex of no loop.
                    raise
                self._make = running.create_future
                self._loop = running  # Last: who passes the check finds the loop's own futures.


@mypyc_attr(allow_interpreted_subclasses=True)
class AsyncUntypedMutex(MutexBase):
    """`kmutex.AsyncKeyedMutex` without what mypyc can't compile; see `kmutex._threads.UntypedMutex`."""

    __slots__ = ("_mutex",)

    def __init__(self, *, diagnose: bool = False, record: StepLog | None = None) -> None:
        """Make a mutex.

        Args:
            diagnose: As for `KeyedMutex`.
            record: As for `KeyedMutex`.

        Raises:
            KMutexError: ``record`` is the log of another mutex.
        """
        self._mutex = AsyncInnerMutex(diagnose, record)

    async def lock(self, key: Any, timeout: float | int | None = None) -> None:
        """Return once the calling task holds ``key`` (KM-EXCL). A free key is taken without giving up control.

        Args:
            key: Any hashable value.
            timeout: Seconds; None waits forever, 0 takes a free key and otherwise raises at once (KM-EXPIRED).

        Raises:
            TimeoutError: The time was over before the grant (KM-CANCEL).
            CancelledError: The task was cancelled. It does not hold the key; if it was granted, the next waiter
                holds it (KM-RACE).
            ValueError: The timeout is negative or NaN. Nothing has changed.
            TypeError: The key is not hashable. Nothing has changed.
            WrongLoopError: The mutex belongs to another event loop (KM-LOOP). Nothing has changed.
        """
        mutex = self._mutex
        ticket = mutex._begin(timeout)
        future = mutex._request(key, ticket, timeout)
        if future is not None:
            await mutex._grant(key, ticket, future, timeout)

    def unlock(self, key: Any) -> None:
        """Release ``key``, whoever holds it. A plain call, without ``await``.

        The oldest waiter then holds it (KM-HANDOFF). If nobody waits, its entry is removed (KM-IDLE).

        Args:
            key: A key that is held.

        Raises:
            UnheldKeyError: Nobody holds the key. Nothing has changed (KM-UNHELD, KM-ATOMIC).
            WrongLoopError: The mutex belongs to another event loop (KM-LOOP). Nothing has changed.
        """
        mutex = self._mutex
        loop = _running()
        if loop is None or loop is not mutex._loop:
            mutex._moved_to(loop)
        future: asyncio.Future[None] | None = mutex._table.release(key)
        if future is not None:
            mutex._wake(future)

    def hold(self, key: Any, timeout: float | int | None = None) -> AsyncLease:
        """Hold ``key`` for an ``async with`` block.

        Args:
            key: As for `lock`.
            timeout: As for `lock`.

        Returns:
            A lease for one block. Entering it does what `lock` does, and raises the same errors.
        """
        return AsyncLease(self._mutex, key, timeout, self)

    def hold_all(self, keys: Iterable[Any], timeout: float | int | None = None) -> AsyncLease:
        """Hold all of ``keys`` for an ``async with`` block, by one request (KM-ALL).

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
        return AsyncLease(_Several(self._mutex), distinct(keys), timeout, self)

    def owner(self, key: Any) -> Owner | None:
        """Return who holds ``key``, since when and from where; None if nobody does.

        Raises:
            KMutexError: The mutex was made without ``diagnose=True``.
        """
        from kmutex._owners import owner_in

        return owner_in(self._mutex._table, key)

    def snapshot(self) -> Mapping[Any, Entry]:
        """Return every live key with its holder, waiters and refs at one moment, as a value that stays (KM-REF)."""
        return self._mutex._table.snapshot()

    def _seen_table(self) -> LockTable:
        return self._mutex._table


class AsyncLease(LeaseOfKey):
    """One grant of one key: ``async with km.hold(key) as lease``. It ends its own grant only (KM-TOKEN).

    It is for one block: entering it again after a grant raises LeaseReusedError.
    """

    __slots__ = ()

    async def __aenter__(self) -> AsyncLease:
        if self._ticket != NOT_ENTERED:
            raise self._reused()
        self._ticket = NO_TICKET
        mutex: AsyncInnerMutex = self._mutex
        try:
            ticket = mutex._begin(self._timeout)
            future = mutex._request(self._key, ticket, self._timeout)
            if future is not None:
                await mutex._grant(self._key, ticket, future, self._timeout)
        except BaseException:
            self._ticket = NOT_ENTERED
            raise
        self._ticket = ticket
        return self

    def release(self) -> None:
        """End the grant now; the block then ends without a second release. A plain call, without ``await``.

        Raises:
            UnheldKeyError: It was not granted, or it has ended, by an earlier call or by an `unlock` of the key. A
                later holder keeps the key.
            WrongLoopError: The mutex belongs to another event loop (KM-LOOP). Nothing has changed.
        """
        mutex: AsyncInnerMutex = self._mutex
        mutex._release(self._key, self._ticket)
        self._ticket = NO_TICKET

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The same as `release`, without another call: most leases end here.
        if self._ticket != NO_TICKET:
            mutex: AsyncInnerMutex = self._mutex
            mutex._release(self._key, self._ticket)
            self._ticket = NO_TICKET


class _Several(AsyncInnerMutex):
    """The same mutex for a lease of several keys: the lease's key is a tuple of keys.

    A ticket joins all queues in one step of the loop, so a request waits for older requests only.
    """

    __slots__ = ("_error", "_futures", "_mutex")

    def __init__(self, mutex: AsyncInnerMutex) -> None:
        self._mutex, self._table = mutex, mutex._table
        self._loop = None  # Not used, nor `_make`: the other mutex has them.
        self._make = None
        self._last = NO_TICKET
        self._futures: list[asyncio.Future[None]] = []
        """One for each key that was not free."""
        self._error: Exception | None = None
        """Raised when the time is over."""

    def _begin(self, timeout: float | int | None) -> Ticket:
        return self._mutex._begin(timeout)

    def _request(self, key: Any, ticket: Ticket, timeout: float | int | None) -> asyncio.Future[None] | None:
        self._error = None
        try:
            self._futures = self._table.request_all(key, ticket, self._mutex._make)
            if self._futures and timeout == 0:
                self._withdraw(key, ticket, "refused")
                raise self._expired(key, timeout)
        except BaseException:
            self._withdraw(key, ticket)
            raise
        return self._futures[0] if self._futures else None

    async def _grant(self, key: Any, ticket: Ticket, future: asyncio.Future[None], timeout: float | int | None) -> None:
        timer = None
        try:
            if timeout is not None:
                seconds = min(timeout, LONGEST)
                timer = future.get_loop().call_later(seconds, self._expire, key, ticket, future, timeout)
            for each in self._futures:
                await each
            if self._error is not None:
                raise self._error
        except BaseException:
            self._withdraw(key, ticket)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _expire(self, key: Any, ticket: Ticket, future: asyncio.Future[None], timeout: float | int) -> None:
        # As for one key. The futures get no exception: asyncio would log one that nobody awaits any more.
        if not all(each.done() for each in self._futures):
            try:
                self._withdraw(key, ticket, "timeout")
                self._error = self._expired(key, timeout)
            except Exception as failed:
                self._error = failed
            for each in self._futures:
                self._wake(each)

    def _release(self, key: Any, ticket: Ticket) -> None:
        self._moved_to(_running())
        failed: UnheldKeyError | None = None
        for one in key:
            try:
                future = self._table.release(one, ticket)
            except UnheldKeyError as error:
                failed = error  # Somebody unlocked this key. The others are released all the same.
                continue
            if future is not None:
                self._wake(future)
        if failed is not None:
            raise failed

    def _withdraw(self, key: Any, ticket: Ticket, why: str = "cancelled") -> None:
        failed: Exception | None = None
        for one in key:
            try:
                heir = self._table.withdraw(one, ticket, why)
            except Exception as error:
                failed = error  # Raised by the key's own methods.
                continue
            if heir is not None:
                self._wake(heir)
        if failed is not None:
            raise failed

    def _about(self, key: Any) -> str:
        return "".join(f"; {brief(one)}: {about}" for one in key if (about := self._table.about(one)))

    def _moved_to(self, running: asyncio.AbstractEventLoop | None) -> None:
        self._mutex._moved_to(running)


def _watched() -> LockTable:
    from kmutex._owners import WatchedTable

    return WatchedTable(_task)


def _recorded(table: LockTable, log: StepLog) -> LockTable:
    from kmutex._steps import RecordedTable

    return RecordedTable(table, log, _running)


def _task() -> str:
    task = asyncio.current_task()
    return "no task" if task is None else f"task {task.get_name()!r}"
