"""One process's session on the server: two connections, whatever the number of waiters, and a thread that watches.

The session lives as long as the connection that watches, which holds its advisory lock: the server drops the lock when
the connection ends, in any manner, and others then see that the session is dead. If either connection breaks, or the
server is silent for too long, the session ends the other too. A lost session can't be restored: a later lock needs a
new one.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import secrets
import select
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import ConnStatus, DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult

from kmutex.postgres import _sql as sql
from kmutex.postgres._errors import LockLostError, UnusableServerError
from kmutex.postgres._key import Name

KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}
"""A host that disappears is noticed after about ten seconds. Settings in the conninfo come first."""

CLOSED = getattr(select, "POLLRDHUP", 0)
"""The flag of a connection that the other side has ended. On systems without it, the next beat notices."""

Rows = list[tuple[str | None, ...]]

requests = itertools.count(1)
"""Numbers of requests in this process, assigned before the server is asked, so that traces of a call have a name."""

CUT_SHORT = ("57014", "57P05", "")
"""The states of a statement or connection that a timeout has ended, and of one that ended without a message."""

TRIES = 5
"""The number of tries to begin a session, if timeouts end them."""

FORKED = "a session does not survive a fork: make a locker in each process"

_open: weakref.WeakSet[psycopg.Connection] = weakref.WeakSet()
_sessions: weakref.WeakSet[Session] = weakref.WeakSet()


def _in_child() -> None:
    # A child's copies would keep the session alive after the parent's death, and closing them would end the parent's
    # connection. They are replaced, not closed: libpq in the child still has their numbers.
    nowhere = os.open(os.devnull, os.O_RDWR)
    for connection in list(_open):
        with contextlib.suppress(psycopg.Error, OSError):
            os.dup2(nowhere, connection.fileno(), inheritable=False)
    os.close(nowhere)
    for session in list(_sessions):
        # A new one, because a thread of the parent may have held the old one.
        session.lost = threading.Event()
        session.lost.set()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def check_seconds(**seconds: float) -> None:
    """Raise ValueError for a number that is not positive, or not finite."""
    for name, value in seconds.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive number of seconds, not {value!r}")


class Answer(NamedTuple):
    """The server's answer to a request."""

    ticket: int | None
    """Its ticket; None if it was refused, without a trace."""
    holds: bool


class Left(NamedTuple):
    """The server's answer to the end of a request."""

    was: str
    """Its earlier state: held, waited, or gone."""
    request: int | None
    """The request of this session that holds the key now, if any."""
    ticket: int | None


class _RefusedError(Exception):
    """The server refused. The session turns it into an error for the caller."""

    def __init__(self, result: PGresult) -> None:
        self.state = (result.error_field(DiagnosticField.SQLSTATE) or b"").decode()
        # Further lines of a message have details and context.
        message = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
        super().__init__(message.decode("utf-8", "replace").strip().partition("\n")[0])


class Session:
    """A session on the server. Calls are for any thread."""

    def __init__(self, conninfo: str, *, sweep_every: float, patience: float) -> None:
        """Connect.

        Args:
            conninfo: A connection string of libpq.
            sweep_every: Seconds between two searches for dead sessions, while a caller waits.
            patience: Seconds that the server may be silent.

        Raises:
            psycopg.OperationalError: No server answers.
            UnusableServerError: The server can't keep a queue.
        """
        self.lost = threading.Event()
        """Set once the session is over."""
        self.on_grant: Callable[[Session, int, int], None] = lambda session, request, ticket: None
        """Called with a request, and its ticket, once the server has confirmed its grant. Perhaps more than once."""
        self.on_lost: Callable[[Session], None] = lambda session: None
        self.waits: Callable[[], bool] = lambda: False
        """Tells whether a caller of this process waits, so that dead sessions matter."""
        self.requests: Callable[[], set[int]] = set
        """Returns the requests that the server must have, or the session is over."""
        self.process = os.getpid()
        self._why = "it was closed"
        self._sweep_every = sweep_every
        self._patience = patience
        self._turn = threading.Lock()
        self._asked_at: float | None = None
        """When the present call was sent."""
        self._listening, self.id = _begin(conninfo, patience, _enter)
        try:
            self._asking, _ = _begin(conninfo, patience, lambda run: run.script(sql.PREPARE))
        except BaseException:
            self._listening.close()
            raise
        self._thread = threading.Thread(target=self._live, name=f"kmutex session {self.id}", daemon=True)
        self._thread.start()
        _sessions.add(self)

    def enqueue(self, name: Name, request: int, wait: bool) -> Answer:
        """Ask for a key; raise LockLostError if the session, and with it the request, is over."""
        for _ in range(3):
            ticket, holds = self._call("enqueue", *name, self.id, request, wait)[0]
            if holds is not None:
                return Answer(_number(ticket), holds == "t")
            # The reserved tickets have run out, once in a million. The first caller reserves more; others may too.
            (row,) = self._call("reserve")
            self._call("allow", row[0])
        self._lose("its place on the server has gone")
        raise self.over()

    def leave(self, name: Name, request: int, *, wait_only: bool = False) -> Left:
        """End a request, with ``wait_only`` unless it holds; raise LockLostError if it ended with the session."""
        row = self._call("leave", *name, self.id, request, wait_only)[0]
        return Left(str(row[0]), _number(row[1]), _number(row[2]))

    def show(self, space: str) -> list[tuple[str, int]]:
        """Return each request of a stored space, in order: its key as stored, and its ticket."""
        return [(str(key), int(ticket or 0)) for key, ticket in self._call("show", space)]

    def over(self) -> LockLostError:
        """Return the error for a session that is needed but lost."""
        return LockLostError(f"the session on the server is over: {self._why}")

    def close(self) -> None:
        """End the session and what it holds; it then counts as lost. In a child of a fork it does nothing."""
        if os.getpid() != self.process:
            return
        self._lose("it was closed")
        if threading.current_thread() is not self._thread:
            self._thread.join()
        with self._turn:
            self._asking.close()
        self._listening.close()

    def _call(self, statement: str, *arguments: object) -> Rows:
        """Run one statement, as one transaction.

        It uses psycopg's thin layer above libpq: no signal can strike between sending and answer, and it takes a third
        of the time. The thread that watches wakes it if the answer is overdue.
        """
        if os.getpid() != self.process:
            raise LockLostError(FORKED)
        values = [str(argument).encode() for argument in arguments]
        with self._turn:
            if self.lost.is_set():
                raise self.over()
            try:
                self._asked_at = time.monotonic()
                result = self._asking.pgconn.exec_prepared(statement.encode(), values)
            except psycopg.Error as error:
                self._lose(f"the connection broke: {error}")
                raise self.over() from error
            finally:
                self._asked_at = None
            try:
                return _rows(result)
            except _RefusedError as error:
                # After a refusal, the state of the queue is unknown; the end of the session settles it.
                self._lose(str(error))
                raise self.over() from error

    # -- the thread that watches ---------------------------------------------------------------------------------

    def _live(self) -> None:
        why = "it was closed"
        try:
            self._watch()
        except BaseException as error:
            # After any error: a session that is not watched is not safe to use.
            why = f"{type(error).__name__}: {error}" if not isinstance(error, _RefusedError) else str(error)
        self._lose(why)
        self.on_lost(self)

    def _watch(self) -> None:
        """Until the session is over, receive grants, search for dead sessions, and check that the server answers.

        The session is lost unless the server answers on both connections within `patience`: half of it after the last
        answer, a new question is sent, and its answer may take the other half.
        """
        half = self._patience / 2
        pause = min(self._sweep_every, half / 2)
        poll = select.poll()
        poll.register(self._listening.fileno(), select.POLLIN | CLOSED)
        # Answers on the other connection are for its callers; only its end matters here.
        poll.register(self._asking.fileno(), CLOSED)
        sweep_at = time.monotonic() + self._sweep_every
        beat_at = time.monotonic() + half - pause
        wait = pause
        while not self.lost.is_set():
            events = dict(poll.poll(wait * 1000))
            wait = pause
            if events.get(self._asking.fileno()):
                raise ConnectionError("the server ended the connection")
            now = time.monotonic()
            asked_at = self._asked_at
            if asked_at is not None and now - asked_at > half and not _readable(self._asking):
                raise TimeoutError(f"the server has not answered in {half:g} s")
            hints = self._hints()
            # Notices that come together with an answer do not wake the poll, so after an answer it does not wait.
            if hints:
                # Any client may have sent it.
                self._look("{" + ",".join(map(str, hints)) + "}")
                wait = 0
            if now >= beat_at:
                self._beat()
                beat_at = now + half - pause
                wait = 0
            if now >= sweep_at and self.waits():
                self._sweep(pause)
                self._look(None)
                sweep_at = time.monotonic() + self._sweep_every
                wait = 0

    def _hints(self) -> set[int]:
        pgconn = self._listening.pgconn
        pgconn.consume_input()
        hints = set()
        while (note := pgconn.notifies()) is not None:
            # ASCII digits, of a number that the server can have.
            if note.extra.isdigit() and len(note.extra) < 19:
                hints.add(int(note.extra))
        return hints

    def _look(self, named: str | None) -> None:
        """Ask which requests hold their keys."""
        for request, ticket in self._ask("holding", self.id, named):
            self.on_grant(self, int(request or 0), int(ticket or 0))

    def _sweep(self, seconds: float) -> None:
        """Remove dead sessions in batches, until there are no more, or the time is over."""
        end = time.monotonic() + seconds
        while self._ask("sweep") != [("0",)] and time.monotonic() < end:
            pass

    def _beat(self) -> None:
        if self._turn.acquire(blocking=False):
            try:
                _exchange(self._asking, "beat", [self.id], self._patience / 2)
            finally:
                self._turn.release()
        # Otherwise a call is under way, and its answer will do.
        known = self.requests()
        rows = self._ask("mine", self.id)
        # A request that was known before the answer and still is was not ended meanwhile by this process.
        if not rows or (known & self.requests()) - {_number(row[0]) for row in rows}:
            raise ConnectionError("its place on the server has gone")
        self._sweep(self._patience / 8)

    def _ask(self, statement: str, *arguments: object) -> Rows:
        return _exchange(self._listening, statement, arguments, self._patience / 2)

    def _lose(self, why: str) -> None:
        if not self.lost.is_set():
            self._why = why
        self.lost.set()
        for connection in (self._listening, self._asking):
            # Not close(): another thread may use the connection, and this wakes it.
            if connection.pgconn.status == ConnStatus.OK:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(connection.fileno())) as ending:
                    ending.shutdown(socket.SHUT_RDWR)


# -- the beginning -----------------------------------------------------------------------------------------------------


class _Asker:
    """Runs the statements of a beginning, with one deadline for all."""

    def __init__(self, connection: psycopg.Connection, seconds: float) -> None:
        self._connection = connection
        self._end = time.monotonic() + seconds

    def __call__(self, statement: str, *arguments: object) -> Rows:
        values = [str(argument).encode() for argument in arguments]
        pgconn = self._connection.pgconn
        return _rows(self._wait(lambda: pgconn.send_query_params(statement.encode(), values)))

    def script(self, text: str) -> None:
        _rows(self._wait(lambda: self._connection.pgconn.send_query(text.encode())))

    def _wait(self, send: Callable[[], None]) -> PGresult:
        return _answer(self._connection, send, max(0.0, self._end - time.monotonic()))


T = TypeVar("T")


def _begin(conninfo: str, patience: float, then: Callable[[_Asker], T]) -> tuple[psycopg.Connection, T]:
    """Return a usable connection with all settings, and the result of ``then`` on it."""
    untimed = ""
    for left in reversed(range(TRIES)):
        connection = _connect(conninfo, patience, untimed)
        role, version, pinned = connection.info.user, connection.pgconn.server_version, False
        try:
            run = _Asker(connection, patience)
            _check(connection, run)
            run.script(sql.settings(patience, version))
            pinned = True
            return connection, then(run)
        except BaseException as error:
            connection.close()
            # Before the settings are fixed, a foreign timeout may be too short for two statements. Not on the first
            # try: a pooler refuses these options, or keeps them for others.
            if not isinstance(error, _RefusedError):
                raise
            if pinned or not left or error.state not in CUT_SHORT:
                raise _unusable(role, error) from error
            untimed = "-c statement_timeout=0" + (" -c idle_session_timeout=0" if version >= 140000 else "")
    raise AssertionError("the last try has returned or raised")


def _connect(conninfo: str, patience: float, options: str) -> psycopg.Connection:
    patient = {"connect_timeout": max(2, math.ceil(patience))}
    parameters: dict[str, Any] = {**KEEPALIVE, **patient, **conninfo_to_dict(conninfo), "autocommit": True}
    if options:
        # The user's options come last, and so win.
        parameters["options"] = f"{options} {parameters.get('options', os.environ.get('PGOPTIONS', ''))}"
    connection = psycopg.connect(**parameters)
    _open.add(connection)
    return connection


def _check(connection: psycopg.Connection, run: _Asker) -> None:
    """Raise UnusableServerError for an unusable server, before anything is changed on a perhaps shared connection."""
    ((pid, standby),) = run(sql.LOOK)
    if int(pid or 0) != connection.pgconn.backend_pid:
        raise UnusableServerError(
            "a connection pooler answers for the server, and a lock needs connections of its own: "
            "name the server itself in the conninfo"
        )
    if standby == "t":
        raise UnusableServerError("the server is a standby, which only reads: name the primary in the conninfo")
    version = connection.pgconn.server_version
    if version < sql.OLDEST:
        raise UnusableServerError(
            f"the server is PostgreSQL {version // 10000}: use {sql.OLDEST // 10000} or a newer one"
        )


def _enter(run: _Asker) -> int:
    """Return the number of a new session that lives as long as this connection."""
    _install(run)
    while True:
        # Hard to guess for clients that can take any advisory lock, and not in use.
        number = secrets.randbelow((1 << 31) - 1) + 1
        channel = f"kmutex_{secrets.token_hex(16)}"
        if run(sql.ENTER, number) == [("t",)] and run(sql.REGISTER, number, channel):
            break
    run(sql.LEFT_OVER, number)
    run(f"LISTEN {channel}")
    run.script(sql.PREPARE)
    if run(sql.PREPARED["alive"]) != [("t",)]:
        ((upto,),) = run(sql.PREPARED["reserve"])
        run(sql.PREPARED["allow"], upto)
    run(sql.PREPARED["sweep"])
    return number


def _install(run: _Asker) -> None:
    """Create what is missing. If two do so at once, one of them is refused, and looks again."""
    for left in reversed(range(10)):
        if run(sql.INSTALLED) == [("t",)]:
            return
        try:
            run.script(sql.INSTALL)
        except _RefusedError as error:
            # The other has made the same name or row; internal_error is a function that both replace.
            if error.state not in ("23505", "42710", "42P06", "42P07", "42723", "XX000", "40P01") or not left:
                raise


def _unusable(role: str, error: _RefusedError) -> Exception:
    if not error.state or error.state.startswith(("08", "53", "57P")):
        # It shuts down, or has no room: it may be usable later.
        return psycopg.OperationalError(str(error))
    what = f"the server refused: {error}"
    if error.state == "42501":
        what += f"; the role {role} needs the grants that docs/postgres.md lists, or CREATE on the database"
    elif error.state == "25006":
        what += "; it only reads: name one that writes"
    return UnusableServerError(what)


def _exchange(connection: psycopg.Connection, statement: str, arguments: Sequence[object], seconds: float) -> Rows:
    """Run one prepared statement in the thread that watches, where no signal strikes."""
    values = [None if argument is None else str(argument).encode() for argument in arguments]
    return _rows(
        _answer(connection, lambda: connection.pgconn.send_query_prepared(statement.encode(), values), seconds)
    )


def _answer(connection: psycopg.Connection, send: Callable[[], None], seconds: float) -> PGresult:
    """Return the last result, or the first error result; raise psycopg.OperationalError if it is late."""
    pgconn = connection.pgconn
    end = time.monotonic() + seconds
    poll = select.poll()
    send()
    found: PGresult | None = None
    broken: psycopg.OperationalError | None = None
    while True:
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                if found is None:
                    raise broken or psycopg.OperationalError("the server gave no answer")
                return found
            if found is None or found.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
                found = result
        if broken is not None:
            raise broken
        poll.register(pgconn.socket, select.POLLIN | (select.POLLOUT if pgconn.flush() else 0))
        # One more look after the deadline: this thread may have been late, and not the server.
        if not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise psycopg.errors.ConnectionTimeout(f"the server has not answered in {seconds:g} s")
        try:
            pgconn.consume_input()
        except psycopg.OperationalError as error:
            # The server may have sent a message before the end.
            broken = error


def _readable(connection: psycopg.Connection) -> bool:
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _rows(result: PGresult) -> Rows:
    if result.status == ExecStatus.COMMAND_OK:
        return []
    if result.status != ExecStatus.TUPLES_OK:
        raise _RefusedError(result)
    return [
        tuple(_text(result.get_value(row, column)) for column in range(result.nfields)) for row in range(result.ntuples)
    ]


def _number(value: str | None) -> int | None:
    return None if value is None else int(value)


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
