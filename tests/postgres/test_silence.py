"""A session whose server is silent, or ends one connection of the two: the holder learns of it, and calls come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator

import psycopg
import pytest

from kmutex.postgres import AsyncPostgresKeyedMutex, LockLostError, PostgresKeyedMutex, _session
from kmutex.postgres._session import Session
from tests.driver import DEADLINE, run, start, start_waiter, until, waiters
from tests.postgres.between import Wire
from tests.postgres.shared import Client, server

server()
SOON = 0.1
PATIENCE = 2.0


@pytest.fixture
def space(request: pytest.FixtureRequest) -> str:
    """Keys of this test alone."""
    return str(request.node.name).replace(" ", "_")


@pytest.fixture
def wire() -> Iterator[Wire]:
    with Wire(server().port) as made:
        yield made


def through(wire: Wire) -> str:
    return f"host=127.0.0.1 port={wire.port} user=postgres dbname=postgres"


@pytest.fixture
def other(space: str) -> Iterator[PostgresKeyedMutex]:
    with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as made:
        yield made


def terminate(victim: psycopg.Connection) -> None:
    with psycopg.connect(server().conninfo) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,))


@pytest.mark.parametrize("connection", ["_listening", "_asking"])
def test_a_holder_that_does_nothing_learns_that_a_connection_was_ended(
    space: str, other: PostgresKeyedMutex, connection: str
) -> None:
    """KM-EXCL up to the token: no call is made, nobody waits here, no look and no beat falls due for an hour."""
    with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=3600, patience=7200) as mutex:
        lease = mutex.hold("k")
        lease.__enter__()
        terminate(getattr(mutex._session, connection))
        assert lease.lost.wait(DEADLINE)
        with pytest.raises(LockLostError, match="over"):
            lease.release()
        other.lock("k", timeout=DEADLINE)


def test_without_word_of_the_end_a_beat_finds_it(
    space: str, other: PostgresKeyedMutex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system does not tell that the other side has closed."""
    monkeypatch.setattr(_session, "CLOSED", 0)
    with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=3600, patience=PATIENCE) as mutex:
        lease = mutex.hold("k")
        lease.__enter__()
        assert mutex._session is not None
        terminate(mutex._session._asking)
        assert lease.lost.wait(DEADLINE)
        other.lock("k", timeout=DEADLINE)


def test_a_silent_wire_is_noticed_in_time_and_no_call_stays(space: str, other: PostgresKeyedMutex, wire: Wire) -> None:
    """KM-EXCL up to the token, KM-LIVE: traffic is swallowed while every keepalive is answered.

    The twin's patience is an hour: what the bounded locker must have done by then, it has not.
    """
    twin = PostgresKeyedMutex(through(wire), space=f"{space} twin", sweep_every=3600, patience=3600)
    with PostgresKeyedMutex(through(wire), space=space, sweep_every=SOON, patience=PATIENCE) as mutex:
        lease = mutex.hold("k")
        lease.__enter__()
        careless = twin.hold("k")
        careless.__enter__()
        waiting = start_waiter(mutex, "k")
        until(lambda: len(waiters(other, "k")) == 1)
        wire.swallow()
        calls = [
            start(mutex.lock, "another", 1.0),
            start(lambda: list(mutex.snapshot())),
            start(mutex.lock, "k", 0),
        ]
        # Not a word from the server is needed for these.
        assert len(mutex) >= 1
        assert lease.lost.wait(DEADLINE)
        for call in (*calls, waiting):
            assert isinstance(call.exception(DEADLINE), LockLostError)
        with pytest.raises(LockLostError):
            lease.release()
        assert len(mutex) == 0
        start(mutex.close).result(DEADLINE)
        # The server ends by itself what does not ask any more.
        other.lock("k", timeout=DEADLINE)
        assert not careless.lost.is_set()
    stuck = start(twin.lock, "another", 0.1)
    assert not stuck.done()
    twin.close()
    assert isinstance(stuck.exception(DEADLINE), LockLostError)


def test_many_who_find_the_server_gone_wait_for_one_try(space: str, wire: Wire) -> None:
    """A session is tried for all who ask meanwhile, and not for one after the other."""
    tried: list[float] = []

    class Counting(PostgresKeyedMutex):
        __slots__ = ()

        def _live(self, asked_at: float) -> Session:
            try:
                return super()._live(asked_at)
            finally:
                tried.append(self._failed_at)

    with contextlib.closing(Counting(through(wire), space=space, patience=PATIENCE)) as mutex:
        wire.swallow()
        calls = [start(mutex.lock, f"k{number}", 0.1) for number in range(8)]
        for call in calls:
            assert isinstance(call.exception(DEADLINE), psycopg.OperationalError)
        assert len(tried) == len(calls)
        # One who came after the first try had failed may have made another.
        assert len(set(tried)) < len(calls)
        assert len(mutex) == 0


def test_tasks_come_back_too(space: str, other: PostgresKeyedMutex, wire: Wire) -> None:
    """KM-EXPIRED, KM-EXCL up to the token: the asyncio face, on a silent wire."""

    async def use() -> None:
        mutex = AsyncPostgresKeyedMutex(through(wire), space=space, sweep_every=SOON, patience=PATIENCE)
        lease = mutex.hold("k")
        await lease.__aenter__()
        wire.swallow()
        with pytest.raises((TimeoutError, LockLostError)):
            await mutex.lock("another", 0.2)
        with pytest.raises((psycopg.OperationalError, LockLostError)):
            await mutex.lock("a third")
        await asyncio.wait_for(lease.lost.wait(), DEADLINE)
        with pytest.raises(LockLostError):
            lease.release()
        await asyncio.wait_for(mutex.close(), DEADLINE)

    run(use())
    other.lock("k", timeout=DEADLINE)


def test_a_server_that_never_says_a_word(space: str) -> None:
    """Somebody accepts the connection and says nothing: an error, and the tables are as before."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        conninfo = f"host=127.0.0.1 port={mute.getsockname()[1]} user=postgres dbname=postgres"
        mutex = PostgresKeyedMutex(conninfo, space=space, patience=PATIENCE)
        with pytest.raises(psycopg.OperationalError):
            mutex.lock("k", timeout=1)
        assert len(mutex) == 0


def test_a_server_that_falls_silent_at_the_beginning(space: str, wire: Wire) -> None:
    """The same, after the connection was made."""
    conninfo = through(wire)
    with contextlib.closing(PostgresKeyedMutex(conninfo, space=space, patience=PATIENCE)) as mutex:
        calling = start(mutex.lock, "k", 1.0)
        until(lambda: wire.pairs)
        wire.swallow()
        # Before, in the middle of, or after the beginning: whatever it was, it is over.
        error = calling.exception(DEADLINE)
        assert error is None or isinstance(error, (psycopg.OperationalError, LockLostError))


def test_a_stopped_holder_is_followed(space: str, other: PostgresKeyedMutex) -> None:
    """KM-LIVE: a process that is stopped for long is no holder; woken, it knows. Its server ended it, by itself."""
    late = Client(server().conninfo, space, str(PATIENCE))
    try:
        assert late.ask("lock k").startswith("got ")
        os.kill(late.process.pid, signal.SIGSTOP)
        other.lock("k", timeout=DEADLINE)
        os.kill(late.process.pid, signal.SIGCONT)
        assert late.ask("lost k") == "lost"
        assert late.ask("unlock k") == "LockLostError"
    finally:
        late.end()


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [PostgresKeyedMutex, AsyncPostgresKeyedMutex])
def test_seconds_are_positive(make: type[PostgresKeyedMutex], value: float) -> None:
    """Before anything is asked."""
    with pytest.raises(ValueError, match="patience"):
        make("", patience=value)
    with pytest.raises(ValueError, match="sweep_every"):
        make("", sweep_every=value)
