"""The keyed mutex for anyio, on asyncio and on trio alike: ``pip install 'kmutex[anyio]'``.

The lock table on one event loop, and an event for each waiter. Nothing here awaits between two steps on the table, so
there is no guard. What anyio and trio ask of a call that may wait is kept: each acquire is a checkpoint, and as
cancellation is level-triggered, a call in a cancelled scope takes nothing.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic

try:
    import anyio
    from anyio.lowlevel import (
        EventLoopToken,
        cancel_shielded_checkpoint,
        checkpoint,
        checkpoint_if_cancelled,
        current_token,
    )
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("kmutex.anyio needs anyio: pip install 'kmutex[anyio]'", name=error.name) from None

from kmutex._core import LockTable, MutexBase
from kmutex._entry import Entry, Ticket
from kmutex._errors import LeaseReusedError, UnheldKeyError, WrongLoopError
from kmutex._lease import NO_TICKET, NOT_ENTERED, distinct
from kmutex._protocol import K, check_timeout
from kmutex._text import brief

LONGEST = 1e9
"""The longest timeout in seconds, some thirty years: a clock can't add an integer of any size."""
_moving = threading.Lock()
"""Held while a mutex moves to another loop: two loops may want it at once."""


class AnyioKeyedMutex(MutexBase, Generic[K]):
    """A mutex for each key, made on demand and removed when idle. For the tasks of one event loop; not re-entrant.

    The contract is that of `kmutex.AsyncKeyedMutex`, on either backend. If a cancellation meets a grant, the
    cancellation wins: the call raises and the key goes to the next waiter (KM-RACE). A grant that came before the
    timeout is kept. Once its event loop has ended, an idle mutex can be used in the next loop, of either backend
    (KM-LOOP).
    """

    __slots__ = ("__weakref__", "_loop", "_table", "_tickets")

    def __init__(self) -> None:
        self._loop: EventLoopToken | None = None
        self._table: LockTable = LockTable()
        self._tickets = itertools.count(NO_TICKET + 1)

    async def lock(self, key: K, timeout: float | None = None) -> None:
        """Return once the calling task holds ``key`` (KM-EXCL). A checkpoint, even if the key is free.

        If the task is cancelled, the backend's cancellation is raised. The task then does not hold the key; if it was
        granted, the next waiter holds it (KM-RACE).

        Args:
            key: Any hashable value.
            timeout: Seconds; None waits forever, 0 takes a free key and otherwise raises (KM-EXPIRED).

        Raises:
            TimeoutError: The time was over before the grant (KM-CANCEL).
            ValueError: The timeout is negative or NaN. Nothing has changed.
            TypeError: The key is not hashable. Nothing has changed.
            WrongLoopError: The mutex belongs to another event loop (KM-LOOP). Nothing has changed.
        """
        await self._acquire((key,), next(self._tickets), timeout)

    def unlock(self, key: K) -> None:
        """Release ``key``, whoever holds it. A plain call, and not a checkpoint.

        The oldest waiter then holds it (KM-HANDOFF). If nobody waits, its entry is removed (KM-IDLE).

        Args:
            key: A key that is held.

        Raises:
            UnheldKeyError: Nobody holds the key. Nothing has changed (KM-UNHELD, KM-ATOMIC).
            WrongLoopError: The mutex belongs to another event loop (KM-LOOP). Nothing has changed.
        """
        self._here()
        self._wake(self._table.release(key))

    def hold(self, key: K, timeout: float | None = None) -> AnyioLease:
        """Hold ``key`` for an ``async with`` block.

        Args:
            key: As for `lock`.
            timeout: As for `lock`.

        Returns:
            A lease for one block. Entering it does what `lock` does, and raises the same errors.
        """
        return AnyioLease(self, (key,), timeout)

    def hold_all(self, keys: Iterable[K], timeout: float | None = None) -> AnyioLease:
        """Hold several keys for an ``async with`` block, by one request: all of them, or none (KM-ALL).

        Args:
            keys: As for `kmutex.KeyedMutex.hold_all`.
            timeout: As for `lock`.

        Returns:
            A lease for one block. Entering it raises the errors of `lock`.

        Raises:
            TypeError: A key is not hashable, or ``keys`` is a str or bytes. Nothing has changed.
        """
        return AnyioLease(self, distinct(keys), timeout)

    def snapshot(self) -> Mapping[K, Entry]:
        """Return every live key with its holder, waiters and refs at one moment, as a value that stays (KM-REF)."""
        return self._table.snapshot()

    def _seen_table(self) -> LockTable:
        return self._table

    async def _acquire(self, keys: tuple[Hashable, ...], ticket: Ticket, timeout: float | None) -> None:
        check_timeout(timeout)
        for key in keys:
            hash(key)  # Refused before anything has changed.
        self._here()
        await checkpoint_if_cancelled()
        try:
            grants = self._table.request_all(keys, ticket, anyio.Event)
            if not grants:
                await cancel_shielded_checkpoint()
            elif timeout == 0:
                self._withdraw(keys, ticket)
                await checkpoint()
                raise _expired(keys, timeout)
            else:
                await _granted(keys, grants, timeout)
        except BaseException:
            self._withdraw(keys, ticket)
            raise

    def _withdraw(self, keys: tuple[Hashable, ...], ticket: Ticket) -> None:
        # A ticket that was granted and cancelled stands at the head of the queue: withdrawing it passes the key on.
        failed: Exception | None = None
        for key in keys:
            try:
                self._wake(self._table.withdraw(key, ticket))
            except Exception as error:
                failed = error  # Of that key's own methods.
        if failed is not None:
            raise failed

    def _release(self, keys: tuple[Hashable, ...], ticket: Ticket) -> None:
        self._here()
        failed: UnheldKeyError | None = None
        for key in keys:
            try:
                self._wake(self._table.release(key, ticket))
            except UnheldKeyError as error:
                failed = error  # Somebody unlocked that one. The others are released all the same.
        if failed is not None:
            raise failed

    def _wake(self, granted: anyio.Event | None) -> None:
        if granted is not None:
            granted.set()

    def _here(self) -> None:
        """Let the mutex belong to the running loop.

        Raises:
            WrongLoopError: No loop runs, or the mutex still belongs to another one (KM-LOOP).
        """
        try:
            running = current_token()
        except Exception:
            raise WrongLoopError("an AnyioKeyedMutex is for anyio, and no event loop runs here") from None
        if running == self._loop:
            return
        with _moving:
            owner = self._loop
            # As for asyncio: calls that the owner makes meanwhile come here too, and wait.
            self._loop = running
            if owner is not None and owner != running and (_runs(owner) or len(self._table)):
                self._loop = owner
                why = "which still runs" if _runs(owner) else "where keys are held"
                raise WrongLoopError(f"this AnyioKeyedMutex belongs to another event loop, {why}")


async def _granted(keys: tuple[Hashable, ...], grants: list[anyio.Event], timeout: float | None) -> None:
    with anyio.move_on_after(None if timeout is None else min(timeout, LONGEST)) as scope:
        for granted in grants:
            await granted.wait()
    if scope.cancelled_caught and not all(granted.is_set() for granted in grants):
        raise _expired(keys, timeout)
    # asyncio has raised by now if a cancellation met the grant. trio would let the next checkpoint say so, which is
    # the caller's, which would then hold the key.
    await checkpoint_if_cancelled()


def _expired(keys: tuple[Hashable, ...], timeout: float | None) -> TimeoutError:
    return TimeoutError(f"no grant of {_named(keys)} within {timeout} s")


def _named(keys: tuple[Hashable, ...]) -> str:
    return brief(keys[0] if len(keys) == 1 else keys)


def _runs(loop: EventLoopToken) -> bool:
    native: Any = loop.native_token
    if hasattr(native, "is_running"):
        return bool(native.is_running())
    try:
        native.run_sync_soon(int)  # trio's own word for it: it refuses once the run is over.
    except RuntimeError:
        return False
    return True


class AnyioLease:
    """One grant of one key: ``async with km.hold(key) as lease``. It ends its own grant only (KM-TOKEN).

    It is for one block: entering it again after a grant raises `kmutex.LeaseReusedError`.
    """

    # No LeaseOfKey: where that is compiled, no class in Python can inherit from it.
    __slots__ = ("_keys", "_mutex", "_ticket", "_timeout")

    def __init__(self, mutex: AnyioKeyedMutex[Any], keys: tuple[Hashable, ...], timeout: float | None) -> None:
        self._mutex, self._keys, self._timeout = mutex, keys, timeout
        self._ticket = NOT_ENTERED

    async def __aenter__(self) -> AnyioLease:
        if self._ticket != NOT_ENTERED:
            raise LeaseReusedError(f"this lease of {_named(self._keys)} was used; call hold() again")
        self._ticket = NO_TICKET
        try:
            ticket = next(self._mutex._tickets)
            await self._mutex._acquire(self._keys, ticket, self._timeout)
        except BaseException:
            self._ticket = NOT_ENTERED
            raise
        self._ticket = ticket
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # No checkpoint, as at the end of a block of anyio's own Lock.
        if self._ticket != NO_TICKET:
            self.release()

    def release(self) -> None:
        """End the grant now; the block then ends without a second release. A plain call, and not a checkpoint.

        Raises:
            UnheldKeyError: It was not granted, or it has ended, by an earlier call or by an `unlock` of the key. A
                later holder keeps the key.
            WrongLoopError: The mutex belongs to another event loop (KM-LOOP). Nothing has changed.
        """
        self._mutex._release(self._keys, self._ticket)
        self._ticket = NO_TICKET
