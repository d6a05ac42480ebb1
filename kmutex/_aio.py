"""The keyed mutex for asyncio: the lock table on one event loop, and a future for each waiter.

One loop runs one step at a time and nothing here awaits between two steps on the table, so there is no guard.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
from asyncio import _get_running_loop
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError, WrongLoopError, not_copied
from kmutex._lease import NO_TICKET, NOT_ENTERED, LeaseOfKey, distinct
from kmutex._mypyc import mypyc_attr
from kmutex._protocol import check_timeout
from kmutex._text import brief

if TYPE_CHECKING:
    from kmutex._owners import Owner
    from kmutex._steps import StepLog

LONGEST = 1e9
"""Seconds of a timer, some thirty years: a loop's clock can't add an integer of any size."""


_moving = threading.Lock()
"""Held for a mutex to go to another loop: two loops may want it at once."""


class AsyncInnerMutex:
    """What a mutex and its leases lock by. Theirs alone: compiled, nobody can override what is called within."""

    __slots__ = ("_loop", "_table", "_tickets")

    def __init__(self, diagnose: bool, record: StepLog | None) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._table: LockTable = _watched() if diagnose else LockTable()
        if record is not None:
            self._table = _recorded(self._table, record)
        self._tickets = itertools.count(NO_TICKET + 1)

    def _request(self, key: Any, ticket: Ticket, timeout: float | int | None) -> asyncio.Future[None] | None:
        # A plain function: who waits for nothing need not pay for a second coroutine.
        if timeout is not None:
            check_timeout(timeout)
        loop = _get_running_loop()
        if loop is None or loop is not self._loop:
            loop = self._moved_to(loop)
        future: asyncio.Future[None] | None = self._table.request(key, ticket, loop.create_future)
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
            # A granted ticket that is cancelled before its task runs again still stands at the head of the queue:
            # withdrawing it passes the key on. One that timed out left the queue in `_expire`.
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
                error = failed  # Of the key's own methods. Without any the task would wait forever.
            future.set_exception(error)

    def _release(self, key: Any, ticket: Ticket) -> None:
        loop = _get_running_loop()
        if loop is None or loop is not self._loop:
            self._moved_to(loop)
        future: asyncio.Future[None] | None = self._table.release(key, ticket)
        if future is not None:
            self._wake(future)

    def _wake(self, future: asyncio.Future[None]) -> None:
        # A future that is done here was cancelled, and its task has not run yet. It holds the key for that long;
        # when it runs, `_grant` withdraws it and the key goes on.
        if not future.done():
            future.set_result(None)

    def _expired(self, key: Any, timeout: float | int) -> TimeoutError:
        return TimeoutError(f"no grant of {brief(key)} within {timeout} s{self._about(key)}")

    def _about(self, key: Any) -> str:
        about = self._table.about(key)
        return f"; {about}" if about else ""

    def _moved_to(self, running: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
        """The running loop, which the mutex belongs to now. WrongLoopError: it can't (KM-LOOP)."""
        if running is None:
            raise WrongLoopError("an AsyncKeyedMutex is for asyncio, and no event loop of asyncio runs here")
        with _moving:
            owner = self._loop
            if owner is not running:
                # Calls that the owner makes meanwhile come here too, and wait. One that was made before this line was
                # made by a loop that runs, which is looked at after it.
                self._loop = running
                if owner is not None and (owner.is_running() or len(self._table)):
                    self._loop = owner
                    why = "which still runs" if owner.is_running() else "where keys are held"
                    raise WrongLoopError(f"this AsyncKeyedMutex belongs to another event loop, {why}")
        return running


@mypyc_attr(allow_interpreted_subclasses=True)
class AsyncUntypedMutex:
    """`kmutex.AsyncKeyedMutex`, but for what mypyc can't compile; see `kmutex._threads.UntypedMutex`."""

    __slots__ = ("_mutex",)

    def __init__(self, *, diagnose: bool = False, record: StepLog | None = None) -> None:
        """Arguments and errors are those of `KeyedMutex`."""
        self._mutex = AsyncInnerMutex(diagnose, record)

    async def lock(self, key: Any, timeout: float | int | None = None) -> None:
        """Return once the calling task holds ``key`` (KM-EXCL). A free key is taken without a pause.

        timeout: seconds; None waits forever, 0 takes a free key and otherwise raises at once (KM-EXPIRED).
        TimeoutError: the time was over before the grant (KM-CANCEL).
        CancelledError: the task was cancelled; it does not hold the key, and if it was granted, the next does.
        ValueError: the timeout is negative or NaN. TypeError: the key is not hashable. WrongLoopError: KM-LOOP.
        Nothing has changed.
        """
        mutex = self._mutex
        ticket = next(mutex._tickets)
        future = mutex._request(key, ticket, timeout)
        if future is not None:
            await mutex._grant(key, ticket, future, timeout)

    def unlock(self, key: Any) -> None:
        """Release ``key``, whoever holds it: to the oldest waiter, or the entry goes (KM-HANDOFF, KM-IDLE).

        UnheldKeyError: nobody holds it; nothing has changed (KM-UNHELD, KM-ATOMIC). WrongLoopError: KM-LOOP.
        """
        mutex = self._mutex
        loop = _get_running_loop()  # None outside of a loop, so nothing need be caught where all is well.
        if loop is None or loop is not mutex._loop:
            mutex._moved_to(loop)
        future: asyncio.Future[None] | None = mutex._table.release(key)
        if future is not None:
            mutex._wake(future)

    def hold(self, key: Any, timeout: float | int | None = None) -> AsyncLease:
        """Hold ``key`` for an ``async with`` block. Arguments and errors are those of `lock`, raised on entry."""
        return AsyncLease(self._mutex, key, timeout, self)

    def hold_all(self, keys: Iterable[Any], timeout: float | int | None = None) -> AsyncLease:
        """Hold all of ``keys`` for an ``async with`` block, by one request; see `KeyedMutex.hold_all` (KM-ALL)."""
        return AsyncLease(_Several(self._mutex), distinct(keys), timeout, self)

    def owner(self, key: Any) -> Owner | None:
        """Who holds ``key``, since when and from where; None where nobody does.

        KMutexError: the mutex was made without ``diagnose=True``.
        """
        from kmutex._owners import owner_in

        return owner_in(self._mutex._table, key)

    def snapshot(self) -> Mapping[Any, Entry]:
        """Every live key with its holder, waiters and refs at one moment; it does not change afterwards (KM-REF)."""
        return self._mutex._table.snapshot()

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
        return f"<{type(self).__name__} at {id(self):#x}, {self._mutex._table.shown()}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """TypeError: neither copied nor pickled. Weak references are possible."""
        raise not_copied(self)


class AsyncLease(LeaseOfKey):
    """One grant of one key: ``async with km.hold(key) as lease``. Ends its own grant only (KM-TOKEN)."""

    __slots__ = ()

    async def __aenter__(self) -> AsyncLease:
        if self._ticket != NOT_ENTERED:
            raise self._reused()
        self._ticket = NO_TICKET
        mutex: AsyncInnerMutex = self._mutex
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

    def release(self) -> None:
        """End the grant now; the block then ends without a second release. A plain call.

        UnheldKeyError: it was not granted, or has ended: by this call before, or by an `unlock` of the key.
        A later holder is not touched.
        """
        mutex: AsyncInnerMutex = self._mutex
        mutex._release(self._key, self._ticket)
        self._ticket = NO_TICKET

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # As `release`, without another call: most leases end here.
        if self._ticket != NO_TICKET:
            mutex: AsyncInnerMutex = self._mutex
            mutex._release(self._key, self._ticket)
            self._ticket = NO_TICKET


class _Several(AsyncInnerMutex):
    """The same mutex for a lease of several keys: what is a key to the lease is a tuple of keys here.

    A ticket takes its places in all queues in one step of the loop, so that waits lead to older requests only.
    """

    __slots__ = ("_error", "_futures", "_mutex")

    def __init__(self, mutex: AsyncInnerMutex) -> None:
        self._mutex, self._table, self._tickets = mutex, mutex._table, mutex._tickets
        self._loop = None  # The other knows.
        self._futures: list[asyncio.Future[None]] = []
        """Of the keys that were not free, one each."""
        self._error: Exception | None = None
        """Why it ends without a grant, when the time is over."""

    def _request(self, key: Any, ticket: Ticket, timeout: float | int | None) -> asyncio.Future[None] | None:
        if timeout is not None:
            check_timeout(timeout)
        make = self._moved_to(_get_running_loop()).create_future
        self._error = None
        try:
            self._futures = self._table.request_all(key, ticket, make)
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
        # As for one key. The futures are not failed: one that nobody awaits any more would be complained of.
        if not all(each.done() for each in self._futures):
            try:
                self._withdraw(key, ticket, "timeout")
                self._error = self._expired(key, timeout)
            except Exception as failed:
                self._error = failed
            for each in self._futures:
                self._wake(each)

    def _release(self, key: Any, ticket: Ticket) -> None:
        self._moved_to(_get_running_loop())
        failed: UnheldKeyError | None = None
        for one in key:
            try:
                future = self._table.release(one, ticket)
            except UnheldKeyError as error:
                failed = error  # Somebody unlocked that one. The others are released all the same.
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
                failed = error  # Of that key's own methods.
                continue
            if heir is not None:
                self._wake(heir)
        if failed is not None:
            raise failed

    def _about(self, key: Any) -> str:
        return "".join(f"; {brief(one)}: {about}" for one in key if (about := self._table.about(one)))

    def _moved_to(self, running: asyncio.AbstractEventLoop | None) -> asyncio.AbstractEventLoop:
        return self._mutex._moved_to(running)


def _watched() -> LockTable:
    from kmutex._owners import WatchedTable

    return WatchedTable(_task)


def _recorded(table: LockTable, log: StepLog) -> LockTable:
    from kmutex._steps import RecordedTable

    return RecordedTable(table, log, _get_running_loop)


def _task() -> str:
    task = asyncio.current_task()
    return "no task" if task is None else f"task {task.get_name()!r}"
