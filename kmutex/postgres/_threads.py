"""The keyed mutex of several processes, for threads: a session on the server, and a gate for each waiter here."""

from __future__ import annotations

import threading
import time
from collections.abc import Hashable, Mapping
from types import TracebackType

from kmutex._entry import Entry
from kmutex._errors import UnheldKeyError
from kmutex._protocol import check_timeout
from kmutex._threads import _closed_gate, _pass
from kmutex.postgres._errors import LockLostError
from kmutex.postgres._grant import Grant, LeaseOfGrant, ending, entries
from kmutex.postgres._key import Name, name_of, stored_space
from kmutex.postgres._locker import LockerOfSession
from kmutex.postgres._session import Session, requests


class _Waiter:
    """A request, from before it is made until it is granted or over, and its result."""

    __slots__ = ("gate", "grant", "name", "queued", "session")

    def __init__(self, name: Name) -> None:
        self.session: Session | None = None
        self.queued = False
        self.name = name
        self.grant: Grant | None = None
        self.gate = _closed_gate()


class PostgresKeyedMutex(LockerOfSession[_Waiter]):
    """A mutex for each key, shared by all processes that name the same database and space. For threads.

    The contract is that of `kmutex.KeyedMutex` for keys that are str or bytes, with the exceptions of
    docs/postgres.md. Close it, or use it as a context manager. It has two connections, for any number of waiters. The
    calls of one locker take turns at one of them, for one round trip each, and never while a caller waits for a key.

    A lock can be lost while it is held: if a connection breaks or the server is silent, the session ends. Then the
    lease's `lost` is set, unlocking raises LockLostError, and the next `lock` makes a new session.
    """

    __slots__ = ()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Return once the caller holds ``key`` (KM-EXCL).

        A grant that comes before the caller has left the queue is kept (KM-RACE).

        Args:
            key: A str or bytes.
            timeout: Seconds; None waits forever, 0 takes a free key and otherwise raises at once (KM-EXPIRED). It
                limits the wait for the key; the locker's patience limits the wait for the server.

        Raises:
            TimeoutError: The time is over and the caller does not hold the key (KM-CANCEL).
            LockLostError: The connection broke, or the server was silent or refused; the request is gone. Or this is
                the child of a fork, which must make its own locker.
            psycopg.OperationalError: No connection could be made.
            UnusableServerError: A connection pooler answers for the server; or the server is a standby, or too old; or
                the role may neither use nor create the schema.
            ValueError: The timeout is negative or NaN, or the key is too long.
            TypeError: The key is neither str nor bytes.
        """
        self._acquire(key, timeout)

    def unlock(self, key: Hashable) -> None:
        """Release ``key``, which any thread of this locker holds. The oldest waiter of all then has it (KM-HANDOFF).

        Args:
            key: A key that is held through this locker.

        Raises:
            UnheldKeyError: Nobody holds it through this locker, though another process may (KM-UNHELD, KM-ATOMIC).
            LockLostError: It was held and lost, and counts as released. In a child of a fork nothing is released.
        """
        self._release(key, None)

    def hold(self, key: Hashable, timeout: float | None = None) -> PostgresLease:
        """Hold ``key`` for a ``with`` block.

        If the lock is lost within the block, its end raises LockLostError, unless the block itself raises.

        Args:
            key: As for `lock`.
            timeout: As for `lock`.

        Returns:
            A lease for one block. Entering it does what `lock` does, and raises the same errors.
        """
        return PostgresLease(self, key, timeout)

    def snapshot(self) -> Mapping[str | bytes, Entry]:
        """Return every live key of the space with the tokens of its holder and waiters in all processes (KM-REF).

        Raises:
            LockLostError: As for `lock`, and so for the other errors of the server.
        """
        self._check_process()
        return entries(self._live(time.monotonic()).show(stored_space(self._space)))

    def close(self) -> None:
        """End the session, with all that it holds and waits for. A later `lock` makes a new one.

        In a child of a fork it does nothing: the session is the parent's.
        """
        session = self._session
        if session is not None:
            session.close()

    def __enter__(self) -> PostgresKeyedMutex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _acquire(self, key: Hashable, timeout: float | None) -> Grant:
        check_timeout(timeout)
        self._check_process()
        name = name_of(self._space, key)
        asked_at = time.monotonic()
        request = next(requests)
        waiter = _Waiter(name)
        try:
            # It is here before the server knows of it, so the thread that brings the grant finds it.
            with self._guard:
                self._waiting[request] = waiter
            session = waiter.session = self._live(asked_at)
            answer = session.enqueue(name, request, timeout != 0)
            if answer.ticket is None:
                self._forget(waiter, request)
                raise TimeoutError(f"{key!r} is held")
            if answer.holds:
                self._grant(session, request, answer.ticket)
            elif not self._wait(waiter, timeout):
                left = session.leave(name, request, wait_only=True)
                if left.was != "held":
                    self._forget(waiter, request)
                    raise TimeoutError(f"no grant of {key!r} within {timeout} s")
                self._grant(session, request, left.ticket)
            if waiter.grant is None:
                raise session.over()
            return waiter.grant
        except BaseException:
            # The request was known before it was made, so it finds what there is to undo (KM-INTERRUPT).
            self._withdraw(waiter.session, name, request)
            raise

    @staticmethod
    def _wait(waiter: _Waiter, timeout: float | None) -> bool:
        waiter.queued = True
        passed = _pass(waiter.gate, timeout)
        waiter.queued = False
        return passed

    def _release(self, key: Hashable, grant: Grant | None) -> None:
        self._check_process()
        name = name_of(self._space, key)
        held = None
        try:
            with self._guard:
                held = ending(key, self._held.get(name), grant)
                del self._held[name]
            left = held.session.leave(name, held.request)
        except (UnheldKeyError, LockLostError):
            raise
        except BaseException:
            # Interrupted: whether the server was asked or not, it is now (KM-INTERRUPT).
            if held is not None:
                self._withdraw(held.session, name, held.request)
            raise
        if left.was != "held":
            raise LockLostError(f"{key!r} was lost before it was released")
        self._grant(held.session, left.request, left.ticket)

    def _withdraw(self, session: Session | None, name: Name, request: int) -> None:
        with self._guard:
            self._waiting.pop(request, None)
            held = self._held.get(name)
            if held is not None and held.request == request:
                del self._held[name]
        if session is None or session.lost.is_set():
            return
        left = session.leave(name, request)
        self._grant(session, left.request, left.ticket)

    def _forget(self, waiter: _Waiter, request: int) -> None:
        """Forget a request that the server does not have."""
        with self._guard:
            self._waiting.pop(request, None)
        waiter.session = None

    def _grant(self, session: Session, request: int | None, ticket: int | None) -> None:
        """Grant a request, as the server said. A second call for the same request changes nothing."""
        if request is None or ticket is None:
            return
        with self._guard:
            waiter = self._waiting.pop(request, None)
            if waiter is not None:
                waiter.grant = self._held[waiter.name] = Grant(session, waiter.name, request, ticket)
                waiter.gate.release()

    def _on_grant(self, session: Session, request: int, ticket: int) -> None:
        self._grant(session, request, ticket)

    def _on_lost(self, session: Session) -> None:
        with self._guard:
            for request, waiter in list(self._waiting.items()):
                if waiter.session is session:
                    del self._waiting[request]
                    waiter.gate.release()


class PostgresLease(LeaseOfGrant[PostgresKeyedMutex]):
    """One grant of one key: ``with km.hold(key) as lease``. It ends its own grant only (KM-TOKEN)."""

    __slots__ = ()

    @property
    def lost(self) -> threading.Event:
        """An event that is set once the session is over. The lock is then no longer held, whatever the block does."""
        return self._granted().session.lost

    def __enter__(self) -> PostgresLease:
        self._enter_once()
        self._grant = self._locker._acquire(self._key, self._timeout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)
