"""What both lockers are: a session, or none yet, and who waits for and holds what in it."""

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
    """A request of somebody who waits in this process."""

    name: Name
    session: Session | None
    """Where it was made; None until there is one."""
    queued: bool
    """The server has said that it waits, and nobody has asked it to take it back."""


W = TypeVar("W", bound=Waiting)


class LockerOfSession(Generic[W]):
    """The state of a locker, and its session when it needs one. Threads and asyncio add how to wait."""

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
        """Connects at the first `lock`. conninfo: as for libpq. space: keys of two spaces are different keys.

        sweep_every: seconds between two looks for sessions that have died, while anybody waits here.
        patience: seconds in which the server must answer. `lost` is set at latest so long after its last answer, and
        no call waits longer for an answer; others have the key after three times as long, if the server heard nothing.
        ValueError: the space has a NUL or a lone surrogate, or more than 256 characters; the seconds are not
        positive, or not finite. TypeError: the space is no str.
        """
        stored_space(space)
        check_seconds(sweep_every=sweep_every, patience=patience)
        self._conninfo = conninfo
        self._space = space
        self._sweep_every = sweep_every
        self._patience = patience
        self._process: int | None = None
        """Where it is used; None until it is."""
        self._connecting = threading.Lock()
        self._failed: psycopg.Error | UnusableServerError | None = None
        self._failed_at = 0.0
        # Of the two tables; never held while the server is asked.
        self._guard = threading.Lock()
        self._session: Session | None = None
        self._waiting: dict[int, W] = {}
        self._held: dict[Name, Grant] = {}

    def __bool__(self) -> bool:
        """True, also where nothing is held: a locker that is there, is there."""
        return True

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """TypeError: neither copied nor pickled."""
        raise not_copied(self)

    def __len__(self) -> int:
        """The number of keys that this locker holds or waits for; the server is not asked. `snapshot` shows all."""
        self._check_process()
        with self._guard:
            held = {name for name, grant in self._held.items() if not grant.session.lost.is_set()}
            return len(held | {waiter.name for waiter in self._waiting.values()})

    def _check_process(self) -> None:
        # Before any lock of this process is taken: in the child of a fork another thread may have had it.
        if self._process is None:
            self._process = os.getpid()
        elif self._process != os.getpid():
            raise LockLostError(FORKED)

    def _live(self, asked_at: float) -> Session:
        """The session, or a new one. asked_at: when the call began that needs it, by time.monotonic().

        Where a try has failed since then it has failed for this call too: a hundred who found the server gone do not
        wait for it one after the other.
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
        """Those that the server has said it has, in this session, and that nobody is ending."""
        # Copied in one step each, and in this order: from the one table a request goes to the other.
        waiting = [(number, waiter) for number, waiter in list(self._waiting.items()) if waiter.queued]
        held = [grant.request for grant in list(self._held.values()) if grant.session is session]
        return {*held, *(number for number, waiter in waiting if waiter.session is session)}

    def _on_lost(self, session: Session) -> None:
        """From the thread that watches: the session is over."""
        raise NotImplementedError

    def _on_grant(self, session: Session, request: int, ticket: int) -> None:
        """From the thread that watches: the request holds its key."""
        raise NotImplementedError
