"""What many dead sessions have left goes, in batches, and nobody who lives is harmed by it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from kmutex.postgres import PostgresKeyedMutex
from kmutex.postgres import _sql as sql
from servers import Postgres
from tests.driver import DEADLINE, start_waiter, until
from tests.postgres.shared import asked, server

server()
MANY = 30_000
"""Dead sessions, and rows of theirs."""
SOON = 0.1


@pytest.fixture
def own() -> Iterator[Postgres]:
    """A server whose table of locks has no room for that many."""
    with Postgres(max_locks_per_transaction=10, max_connections=30) as made:
        with PostgresKeyedMutex(made.conninfo) as mutex:
            mutex.lock("k", timeout=0)
        yield made


def leave_behind(own: Postgres, keys: int) -> None:
    """What so many sessions would have left that were killed one after the other, in so many keys of other spaces."""
    with psycopg.connect(own.conninfo) as admin:
        admin.execute(
            f"INSERT INTO {sql.SCHEMA}.session SELECT n, 1, 'nobody' || n FROM generate_series(1, %s) n".encode(),
            (MANY,),
        )
        admin.execute(
            f"INSERT INTO {sql.SCHEMA}.queue "
            "SELECT 'far away', ('s' || n %% %s)::bytea, nextval(%s), (n %% %s) %% %s, n, n "
            "FROM generate_series(1, %s) n".encode(),
            (keys, f"{sql.SCHEMA}.ticket", keys, sql.TURNS, MANY),
        )


def left(own: Postgres) -> int:
    return int(
        asked(own, f"SELECT (SELECT count(*) FROM {sql.SCHEMA}.queue) + (SELECT count(*) FROM {sql.SCHEMA}.session)")
    )


@pytest.mark.parametrize("keys", [1, MANY], ids=["one key", "a key each"])
def test_many_dead_sessions_go_and_harm_nobody(own: Postgres, keys: int) -> None:
    """KM-LIVE, KM-REF: waiters of another space wait on and get their key; in the end no row is left."""
    with ExitStack() as ending:
        lockers = [ending.enter_context(PostgresKeyedMutex(own.conninfo, sweep_every=SOON)) for _ in range(3)]
        lease = lockers[0].hold("k")
        lease.__enter__()
        waiting = [start_waiter(locker, "k") for locker in lockers[1:]]
        leave_behind(own, keys)
        # One session row for each that lives, and one queue row for each who wants the key.
        until(lambda: left(own) == 2 * len(lockers))
        assert not lease.lost.is_set()
        assert not any(waiter.done() for waiter in waiting)
        lease.release()
        for waiter in waiting:
            waiter.result(DEADLINE)
            next(locker for locker in lockers if locker._held).unlock("k")


def test_a_key_that_many_dead_have_wanted_is_free(own: Postgres) -> None:
    """KM-EXPIRED: a try behind thirty thousand of them, by itself and at once."""
    leave_behind(own, 1)
    with PostgresKeyedMutex(own.conninfo, space="far away") as mutex:
        mutex.lock("0", timeout=0)
        assert list(mutex.snapshot()) == ["0"]


def test_the_careless_way_runs_out_of_memory(own: Postgres) -> None:
    """The twin: to try the lock of each session, in one transaction, as the first version did."""
    leave_behind(own, 1)
    with psycopg.connect(own.conninfo, autocommit=True) as admin, pytest.raises(psycopg.errors.OutOfMemory):
        admin.execute(
            f"SELECT pg_try_advisory_xact_lock_shared(%s, s.number) FROM {sql.SCHEMA}.session s".encode(), (sql.ALIVE,)
        )


def test_a_row_that_came_after_its_session_was_swept_goes_too(own: Postgres) -> None:
    """KM-LIVE, KM-REF: a call that was under way when its session died."""
    with PostgresKeyedMutex(own.conninfo, patience=4.0) as mutex:
        mutex.lock("before")
        with psycopg.connect(own.conninfo, autocommit=True) as admin:
            admin.execute(
                f"INSERT INTO {sql.SCHEMA}.queue SELECT '', 'sk', n, 0, n, n FROM generate_series(1, 120) n".encode()
            )
        until(lambda: left(own) == 2)
        assert list(mutex.snapshot()) == ["before"]


def test_they_go_though_nobody_waits(own: Postgres) -> None:
    """KM-REF: a session that only lives is enough."""
    leave_behind(own, 100)
    with PostgresKeyedMutex(own.conninfo, patience=4.0) as mutex:
        mutex.lock("k")
        until(lambda: left(own) == 2)
