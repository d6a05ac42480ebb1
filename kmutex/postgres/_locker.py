"""The common part of both lockers: their session, once there is one, and its waiters and holders."""

from __future__ import annotations

import os
import threading
import time
from typing import Generic, NoReturn, Protocol, SupportsIndex, TypeVar

import psycopg

from kmutex._errors import not_copied
from kmutex.postgres._errors import LockLostError, UnusableServerError
from kmutex.postgres._grant import Grant
from kmutex.postgres._key import Name, stored_space
from kmutex.postgres._session import FORKED, Session, check_seconds


class Waiting(Protocol):
    """A request of a caller that waits in this process."""

    name: Name
    session: Session | None
    """The session of the request; None until there is one."""
    queued: bool
    """True once the server has queued it, until it is withdrawn."""


W = TypeVar("W", bound=Waiting)


class LockerOfSession(Generic[W]):
    """The state of a locker and its session, if any. The drivers for threads and asyncio add how to wait."""

    __slots__ = (
        "__weakref__",
        "_connecting",
        "_conninfo",
        "_failed",
        "_failed_at",
        "_guard",
        "_held",
        "_patience",
        "_process",
        "_session",
        "_space",
        "_sweep_every",
        "_waiting",
    )

    def __init__(self, conninfo: str, *, space: str = "", sweep_every: float = 1.0, patience: float = 10.0) -> None:
        """Make a locker. It connects at the first `lock`.

        Args:
            conninfo: A connection string of libpq.
            space: The namespace of the keys: equal keys of two spaces are different keys.
            sweep_every: Seconds between two searches for dead sessions, while a caller waits here.
            patience: Seconds within which the server must answer; no call waits longer for an answer. After that time
                without an answer, `lost` is set. If the server hears nothing for three times as long, others get the
                key.

        Raises:
            ValueError: The space has a NUL or a lone surrogate, or more than 256 characters; or a number of seconds is
                not positive, or not finite.
            TypeError: The space is not a str.
        """
        stored_space(space)
        check_seconds(sweep_every=sweep_every, patience=patience)
        self._conninfo = conninfo
        self._space = space
        self._sweep_every = sweep_every
        self._patience = patience
        self._process: int | None = None
        """The process that uses it; None before its first use."""
        self._connecting = threading.Lock()
        self._failed: psycopg.Error | UnusableServerError | None = None
        self._failed_at = 0.0
        # Protects the two tables; never held during a query.
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._waiting: dict[int, W] = {}
        self._held: dict[Name, Grant] = {}

    def __bool__(self) -> bool:
        """Return True, even if no key is held."""
        return True

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Raise TypeError: a locker can be neither copied nor pickled."""
        raise not_copied(self)

    def __len__(self) -> int:
        """Return the number of keys that this locker holds or waits for, without asking the server.

        `snapshot` shows the keys of all processes.
        """
        self._check_process()
        with self._guard:
            held = {name for name, grant in self._held.items() if not grant.session.lost.is_set()}
            return len(held | {waiter.name for waiter in self._waiting.values()})

    def _check_process(self) -> None:
        # Called before any lock of this process is taken: after a fork, a thread of the parent may have held it.
        if self._process is None:
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise LockLostError(FORKED)

    def _live(self, asked_at: float) -> Session:
        """Return the session, or a new one.

        If another call has failed to connect since ``asked_at`` (of time.monotonic(), when this call began), this call
        fails too: a hundred callers without a server do not wait one after the other.
        """
        with self._connecting:
            if self._session is None or self._session.lost.is_set():
                if self._failed is not None and self._failed_at >= asked_at:
                    raise type(self._failed)(str(self._failed)) from self._failed
                try:
                    session = Session(self._conninfo, sweep_every=self._sweep_every, patience=self._patience)
                except (psycopg.Error, UnusableServerError) as error:
                    self._failed, self._failed_at = error, time.monotonic()
                    raise
                session.waits = lambda: bool(self._waiting)
                session.requests = lambda: self._requests(session)
                session.on_lost = self._on_lost
                session.on_grant = self._on_grant
                self._session = session
            return self._session

    def _requests(self, session: Session) -> set[int]:
        """Return the requests that the server has confirmed in this session, and that nobody is ending."""
        # Each table is copied in one step, and in this order: a request moves from the first to the second.
        waiting = [(number, waiter) for number, waiter in list(self._waiting.items()) if waiter.queued]
        held = [grant.request for grant in list(self._held.values()) if grant.session is session]
        return {*held, *(number for number, waiter in waiting if waiter.session is session)}

    def _on_lost(self, session: Session) -> None:
        """Handle the end of a session. Called by the thread that watches it."""
        raise NotImplementedError

    def _on_grant(self, session: Session, request: int, ticket: int) -> None:
        """Handle a grant. Called by the thread that watches the session."""
        raise NotImplementedError
