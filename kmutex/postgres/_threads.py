"""The keyed mutex of several processes, for threads: a session on the server, and a gate for each waiter here."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from types import TracebackType
from typing import NoReturn, SupportsIndex

from kmutex._entry import Entry
from kmutex._errors import not_copied
from kmutex._protocol import check_timeout
from kmutex._text import brief
from kmutex._threads import _closed_gate, _pass
from kmutex.postgres._errors import LockLostError
from kmutex.postgres._grant import Grant, LeaseOfGrant, ending, entries
from kmutex.postgres._key import Name, check_space, name_of
from kmutex.postgres._session import Session, requests


class _Waiter:
    """A request that waits here, and what became of it before its gate was opened."""

    __slots__ = ("gate", "grant", "name", "session")

    def __init__(self, session: Session, name: Name) -> None:
        self.session = session
        self.name = name
        self.grant: Grant | None = None
        self.gate = _closed_gate()


class PostgresKeyedMutex:
    """A mutex for each key, shared by all processes that name the same database and space. For threads.

    The contract is that of `kmutex.KeyedMutex` for keys that are str or bytes, with what docs/postgres.md takes
    back. To be closed, or used as a context manager. It has two connections, whatever the number of waiters; all
    calls of one locker take turns at one of them, for one round trip each and never while anybody waits for a key.

    A lock can be lost while it is held: when the connection breaks, and with it the session. `lost` of the lease is
    set then, unlocking raises LockLostError, and the next `lock` makes a new session.
    """

    __slots__ = ("__weakref__", "_conninfo", "_guard", "_held", "_session", "_space", "_sweep_every", "_waiting")

    def __init__(self, conninfo: str, *, space: str = "", sweep_every: float = 1.0) -> None:
        """Connects at the first `lock`. conninfo: as for libpq. space: keys of two spaces are different keys.

        sweep_every: seconds between two looks for sessions that have died, while anybody waits here.
        ValueError: the space has a NUL or a lone surrogate, or more than 256 characters.
        """
        check_space(space)
        self._conninfo = conninfo
        self._space = space
        self._sweep_every = sweep_every
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._waiting: dict[int, _Waiter] = {}
        self._held: dict[Name, Grant] = {}

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Return once the caller holds ``key`` (KM-EXCL).

        timeout: seconds; None waits for ever, 0 takes a free key and otherwise raises at once (KM-EXPIRED). It bounds
        the wait for the key, not that for the server.
        TimeoutError: the time is over and the caller does not hold the key (KM-CANCEL). A grant that came before the
        caller could leave the queue is kept (KM-RACE).
        LockLostError: the connection broke; the request is gone. psycopg.OperationalError: there was no connection.
        ValueError: the timeout is negative or NaN, or the key too long. TypeError: the key is neither str nor bytes.
        """
        self._acquire(key, timeout)

    def unlock(self, key: Hashable) -> None:
        """Release ``key``, which some thread of this locker holds: the oldest waiter anywhere has it then (KM-HANDOFF).

        UnheldKeyError: nobody holds it through this locker, though another process may (KM-UNHELD, KM-ATOMIC).
        LockLostError: it was held, and lost; it counts as released.
        """
        self._release(key, None)

    def hold(self, key: Hashable, timeout: float | None = None) -> PostgresLease:
        """Hold ``key`` for a ``with`` block. Arguments and errors are those of `lock`, raised on entry.

        A lock that is lost within the block is a LockLostError at its end, unless the block raises something itself.
        """
        return PostgresLease(self, key, timeout)

    def snapshot(self) -> Mapping[str | bytes, Entry]:
        """Every live key of the space with its holder and waiters in all processes, by their tokens (KM-REF)."""
        with self._guard:
            return entries(self._live().show(self._space))

    def __len__(self) -> int:
        """The number of keys that this locker holds or waits for; the server is not asked. `snapshot` shows all."""
        with self._guard:
            held = {name for name, grant in self._held.items() if not grant.session.lost.is_set()}
            return len(held | {waiter.name for waiter in self._waiting.values()})

    def __bool__(self) -> bool:
        """True, also where nothing is held: a locker that is there, is there."""
        return True

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """TypeError: neither copied nor pickled."""
        raise not_copied(self)

    def close(self) -> None:
        """Give up the session, with all that it holds and waits for. A later `lock` makes a new one."""
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
        name = name_of(self._space, key)
        request = next(requests)
        session = None
        try:
            # The gate is here before the guard is given back, so whoever brings the grant finds it.
            with self._guard:
                session = self._live()
                answer = session.enqueue(name, request, timeout != 0)
                if answer.holds and answer.ticket is not None:
                    grant = Grant(session, name, request, answer.ticket)
                    self._held[name] = grant
                    return grant
                if answer.ticket is not None:
                    waiter = self._waiting[request] = _Waiter(session, name)
            if answer.ticket is None:
                session = None  # Nothing to undo.
                raise TimeoutError(f"{brief(key)} is held")
            if not _pass(waiter.gate, timeout):
                with self._guard:
                    if request in self._waiting:
                        left = session.leave(name, request, wait_only=True)
                        if left.was != "held":
                            del self._waiting[request]
                            session = None  # Nothing to undo.
                            raise TimeoutError(f"no grant of {brief(key)} within {timeout} s")
                        self._grant(session, request, left.ticket)
            if waiter.grant is None:
                raise LockLostError(f"the connection to the server was lost while {brief(key)} was waited for")
            return waiter.grant
        except BaseException:
            # The request was known before it was made, so it finds what there is to undo (KM-INTERRUPT).
            if session is not None:
                self._withdraw(session, name, request)
            raise

    def _release(self, key: Hashable, grant: Grant | None) -> None:
        name = name_of(self._space, key)
        with self._guard:
            held = ending(key, self._held.get(name), grant)
            del self._held[name]
            left = held.session.leave(name, held.request)
            if left.was != "held":
                raise LockLostError(f"{brief(key)} was lost before it was released")
            self._grant(held.session, left.request, left.ticket)

    def _withdraw(self, session: Session, name: Name, request: int) -> None:
        with self._guard:
            self._waiting.pop(request, None)
            held = self._held.get(name)
            if held is not None and held.request == request:
                del self._held[name]
            if session.lost.is_set():
                return
            left = session.leave(name, request)
            self._grant(session, left.request, left.ticket)

    def _live(self) -> Session:
        """The session, or a new one. Under the guard."""
        if self._session is None or self._session.lost.is_set():
            self._session = Session(self._conninfo, sweep_every=self._sweep_every)
            self._listen_to(self._session)
        return self._session

    def _listen_to(self, session: Session) -> None:
        session.waits = lambda: bool(self._waiting)
        session.on_lost = self._lost
        session.on_grant = self._told

    def _told(self, session: Session, request: int, ticket: int) -> None:
        with self._guard:
            self._grant(session, request, ticket)

    def _grant(self, session: Session, request: int | None, ticket: int | None) -> None:
        """Under the guard. Told twice is told once: the second finds nobody waiting."""
        if request is None or ticket is None:
            return
        waiter = self._waiting.pop(request, None)
        if waiter is not None:
            waiter.grant = self._held[waiter.name] = Grant(session, waiter.name, request, ticket)
            waiter.gate.release()

    def _lost(self, session: Session) -> None:
        with self._guard:
            for request, waiter in list(self._waiting.items()):
                if waiter.session is session:
                    del self._waiting[request]
                    waiter.gate.release()


class PostgresLease(LeaseOfGrant[PostgresKeyedMutex]):
    """One grant of one key, as a context manager: ``with km.hold(key) as lease``; ends its own only (KM-TOKEN)."""

    __slots__ = ()

    @property
    def lost(self) -> threading.Event:
        """Set once the session is over: the lock is no longer held, whatever the block does. To be waited for, too."""
        return self._granted().session.lost

    def __enter__(self) -> PostgresLease:
        self._enter_once()
        self._grant = self._locker._acquire(self._key, self._timeout)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)
