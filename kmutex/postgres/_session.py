"""One process's session on the server: two connections, whatever the number of waiters, and a thread that listens.

The session lives as long as the connection that listens, for that one holds its advisory lock: the server drops the
lock when the connection ends, however it ends, and others then see that the session is dead. If either connection
breaks, the session ends the other too. There is no way back: who wants a lock afterwards makes a new session.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus, ExecStatus
from psycopg.pq.abc import PGresult

from kmutex.postgres import _sql as sql
from kmutex.postgres._errors import LockLostError
from kmutex.postgres._key import Name, key_of, name_of

KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""A peer that has gone without a word is noticed after about ten seconds. What the conninfo says comes first."""
SETTINGS = (
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
    # The queue is small and its dead rows many, whatever the statistics say: it is read by its indexes.
    "SET enable_seqscan = off",
    "SET enable_bitmapscan = off",
)

requests = itertools.count(1)
"""Of this process; known before the server is asked, so that what a call has left behind can be named."""


class Answer(NamedTuple):
    """What became of a request."""

    ticket: int | None
    """None: it was refused, and has left nothing."""
    holds: bool


class Left(NamedTuple):
    """What ended with a request."""

    was: str
    """held, waited, or gone."""
    request: int | None
    """The request of this session that holds the key now."""
    ticket: int | None


class Session:
    """A session on the server. Calls are for any thread."""

    def __init__(self, conninfo: str, *, sweep_every: float) -> None:
        """conninfo: as for libpq. sweep_every: seconds. psycopg.OperationalError: there is no such server."""
        self.lost = threading.Event()
        """Set when the session is over."""
        self.on_grant: Callable[[Session, int, int], None] = lambda session, request, ticket: None
        """Told of a request, and its ticket, that has come to hold its key. Maybe more than once."""
        self.on_lost: Callable[[Session], None] = lambda session: None
        self.waits: Callable[[], bool] = lambda: False
        """Whether anybody of this process waits, so that it is worth while to look for the dead."""
        self._sweep_every = sweep_every
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._prepared: dict[bytes, bytes] = {}
        self._listening = _connect(conninfo)
        try:
            self.id = _enter(self._listening)
            self._asking = _connect(conninfo)
        except BaseException:
            self._listening.close()
            raise
        self._thread = threading.Thread(target=self._listen, name=f"kmutex session {self.id}", daemon=True)
        self._thread.start()

    def enqueue(self, name: Name, request: int, wait: bool) -> Answer:
        """Ask for a key. LockLostError: the session is over, and so is the request."""
        row = self._call(sql.ENQUEUE, *name, self.id, request, wait)[0]
        return Answer(_number(row[0]), row[1] == "t")

    def leave(self, name: Name, request: int, *, wait_only: bool = False) -> Left:
        """End a request, or with ``wait_only`` end it unless it holds. LockLostError: it ended with the session."""
        row = self._call(sql.LEAVE, *name, self.id, request, wait_only)[0]
        return Left(str(row[0]), _number(row[1]), _number(row[2]))

    def show(self, space: str) -> list[tuple[str, int]]:
        """Each request of a space: its key as stored, and its ticket; in order."""
        return [(str(key), int(ticket or 0)) for key, ticket in self._call(sql.SHOW, space)]

    def sweep(self) -> None:
        """Remove what dead sessions have left, and look which requests of this one hold, told or not."""
        for space, key in self._call(sql.LEFT_BEHIND, self.id):
            self._call(sql.SWEEP, space, key, turn_of(str(space), str(key)))
        for request, ticket in self._call(sql.HOLDING, self.id):
            self.on_grant(self, int(request or 0), int(ticket or 0))

    def close(self) -> None:
        """End it, and what it holds. It counts as lost then."""
        self._lose()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._turn:
            self._asking.close()
        self._listening.close()

    def _call(self, statement: str, *arguments: object) -> list[tuple[str | None, ...]]:
        """One statement, which is one transaction.

        It goes to libpq by psycopg's thin layer: a signal can't strike between its sending and its answer, and it
        takes a third of the time.
        """
        if os.getpid() != self._process:
            raise LockLostError("a session does not survive a fork: make a locker in each process")
        values = [str(argument).encode() for argument in arguments]
        with self._turn:
            if self.lost.is_set():
                raise LockLostError("the connection to the server was lost")
            try:
                result = self._execute(statement.encode(), values)
            except psycopg.Error as error:
                self._lose()
                raise LockLostError(f"the connection to the server was lost: {error}") from error
            if result.status != ExecStatus.TUPLES_OK:
                # What the server refuses leaves the state of the queue in doubt; the end of the session settles it.
                what = result.error_message.decode("utf-8", "replace").strip()
                self._lose()
                raise LockLostError(f"the session is over: {what}")
            return [
                tuple(_text(result.get_value(row, column)) for column in range(result.nfields))
                for row in range(result.ntuples)
            ]

    def _execute(self, statement: bytes, values: list[bytes]) -> PGresult:
        name = self._prepared.get(statement)
        if name is None:
            name = f"kmutex {len(self._prepared)}".encode()
            prepared = self._asking.pgconn.prepare(name, statement)
            if prepared.status != ExecStatus.COMMAND_OK:
                return prepared
            self._prepared[statement] = name
        return self._asking.pgconn.exec_prepared(name, values)

    def _listen(self) -> None:
        with contextlib.suppress(psycopg.Error, OSError, LockLostError):
            while not self.lost.is_set():
                for note in self._listening.notifies(timeout=self._sweep_every):
                    request, ticket = note.payload.split()
                    self.on_grant(self, int(request), int(ticket))
                if self.waits():
                    self.sweep()
        self._lose()
        self.on_lost(self)

    def _lose(self) -> None:
        self.lost.set()
        for connection in (self._listening, self._asking):
            # Not close(): another thread may be within the connection, and this wakes it.
            if connection.pgconn.status == ConnStatus.OK:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as ending:
                    ending.shutdown(socket.SHUT_RDWR)


def turn_of(space: str, stored: str) -> int:
    """The hash of a key in its stored form."""
    return name_of(space, key_of(stored)).turn


def _connect(conninfo: str) -> psycopg.Connection:
    parameters: dict[str, Any] = {**KEEPALIVE, **conninfo_to_dict(conninfo), "autocommit": True}
    connection = psycopg.connect(**parameters)
    try:
        for setting in SETTINGS:
            connection.execute(setting)
    except BaseException:
        connection.close()
        raise
    return connection


def _enter(connection: psycopg.Connection) -> int:
    """The number of a new session that lives as long as this connection."""
    row = connection.execute(sql.INSTALLED).fetchone()
    if not row or not row[0]:
        with connection.transaction():
            connection.execute(sql.INSTALL)
    while True:
        number = _first(connection, sql.NEW_SESSION)
        # The numbers come round after two thousand millions; one whose session still lives is passed over.
        if _first(connection, sql.ENTER, number):
            break
    connection.execute(sql.LEFT_OVER, (number,))
    connection.execute(f"LISTEN {sql.SCHEMA}_{number}")
    return number


def _first(connection: psycopg.Connection, statement: str, *arguments: object) -> int:
    row = connection.execute(statement, arguments).fetchone()
    assert row is not None
    return int(row[0])


def _number(value: str | None) -> int | None:
    return None if value is None else int(value)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
