"""Tokens of a key rise, whatever of the server's log a crash loses.

Here the log reaches the disk only where somebody waits for it: the process that writes it meanwhile is stopped.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import psycopg
import pytest

from kmutex.postgres import PostgresKeyedMutex
from kmutex.postgres import _sql as sql
from servers import Postgres, eventually
from tests.driver import DEADLINE
from tests.postgres.shared import asked

CRASHES = 4


@pytest.fixture(scope="module")
def own() -> Iterator[Postgres]:
    try:
        with Postgres(fsync="on", wal_writer_delay="10s", checkpoint_timeout="1d") as server:
            yield server
    except RuntimeError as error:
        pytest.skip(str(error))


def hold_back_the_log(server: Postgres) -> int:
    """Nothing is written behind anybody's back from here on. The process that would."""
    find = "SELECT pid, wait_event FROM pg_stat_activity WHERE backend_type = 'walwriter'"
    while True:
        with psycopg.connect(server.conninfo, autocommit=True) as admin:
            row = admin.execute(find).fetchone()
            assert row is not None
            os.kill(row[0], signal.SIGSTOP)
            # Not in the middle of its work: it would keep the lock of the log, and hold up everybody.
            if admin.execute(find).fetchone() == (row[0], "WalWriterMain"):
                return int(row[0])
            os.kill(row[0], signal.SIGCONT)


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(status.parent.name))
    return found


def crash(server: Postgres, log_writer: int, how: str) -> None:
    """And it serves again."""
    assert server.process is not None
    if how == "a process of it":
        started = asked(server, "SELECT pg_postmaster_start_time()")
        os.kill(log_writer, signal.SIGKILL)
        eventually(lambda: not alive(log_writer))
    else:
        orphans = children(server.process.pid)
        server.process.kill() if how == "all of it" else server.process.send_signal(signal.SIGQUIT)
        for pid in orphans:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.process.wait(DEADLINE)
        eventually(lambda: not any(alive(pid) for pid in orphans))
        server.start()
        started = ""
    eventually(server.answers)

    def serves() -> bool:
        with suppress(psycopg.OperationalError):
            return bool(asked(server, "SELECT 1"))
        return False

    eventually(serves)
    if started:
        assert started == asked(server, "SELECT pg_postmaster_start_time()"), "it was not the crash that was wanted"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", ["a process of it", "all of it", "at once"])
def test_tokens_rise_over_crashes(own: Postgres, how: str) -> None:
    """KM-EXCL up to the token. The twin is the same engine that goes on where its counter stands: it steps back."""
    last = twin = 0
    stepped_back = 0
    in_twin = f"{own.conninfo} dbname=twin"
    with psycopg.connect(own.conninfo, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS twin")
        admin.execute("CREATE DATABASE twin")
    with psycopg.connect(in_twin, autocommit=True) as admin:
        admin.execute(believes_the_counter().encode())
    for _ in range(CRASHES):
        with ExitStack() as ending:
            lockers = [ending.enter_context(PostgresKeyedMutex(own.conninfo)) for _ in range(2)]
            with ThreadPoolExecutor(2) as pool:
                # Both begin the life of the server that crashed.
                list(pool.map(lambda locker: locker.lock(str(id(locker))), lockers))
            careless = ending.enter_context(PostgresKeyedMutex(in_twin))
            careless.lock("begins its life")
            # Closed, and not committed: they do not outlive the crash.
            slow = [ending.enter_context(closing(psycopg.connect(info))) for info in (own.conninfo, in_twin)]
            log_writer = hold_back_the_log(own)
            # In a transaction that is not over: a sequence is logged once in 33 numbers, and this one has done it.
            for one in slow:
                one.execute("SELECT nextval(%s) FROM generate_series(1, 50)", (f"{sql.SCHEMA}.ticket",))
            for _ in range(10):
                for locker in lockers:
                    with locker.hold("k", timeout=DEADLINE) as lease:
                        assert lease.token > last
                        last = lease.token
                with careless.hold("k", timeout=DEADLINE) as lease:
                    twin = lease.token
            crash(own, log_writer, how)
        with PostgresKeyedMutex(own.conninfo) as after, after.hold("k", timeout=DEADLINE) as lease:
            assert lease.token > last
            last = lease.token
        with PostgresKeyedMutex(in_twin) as after, after.hold("k", timeout=DEADLINE) as lease:
            stepped_back += lease.token <= twin
    assert stepped_back


def believes_the_counter() -> str:
    """The tables and functions of an engine whose lives have no bounds: what is reserved has no part in its tokens."""
    careless = sql.INSTALL.replace(f"PERFORM setval('{sql.SCHEMA}.ticket', in_upto - {sql.RESERVED});", "")
    careless = careless.replace(
        f"SET base = in_upto - {sql.RESERVED}, upto = in_upto", "SET base = 0, upto = 1::bigint << 60"
    )
    assert careless.count("upto") < sql.INSTALL.count("upto")
    return careless


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "careless"])
def test_what_is_reserved_is_on_the_disk_before_it_is_drawn(own: Postgres, durable: bool) -> None:
    """Also where the clock, behind all that was reserved, does not help. The twin does not wait for the disk."""
    with PostgresKeyedMutex(own.conninfo) as mutex, mutex.hold("k"):
        pass
    with psycopg.connect(own.conninfo, autocommit=True) as admin:
        if not durable:
            admin.execute(sql.INSTALL.replace("PERFORM set_config('synchronous_commit', 'on', true)", "PERFORM 1"))
        admin.execute(f"UPDATE {sql.SCHEMA}.reserved SET upto = upto * 2")
        admin.execute(f"DELETE FROM {sql.SCHEMA}.life")
    with ExitStack() as ending:
        ending.callback(_install_again, own)
        mutex = ending.enter_context(PostgresKeyedMutex(own.conninfo))
        with mutex.hold("before"):
            pass
        with psycopg.connect(own.conninfo, autocommit=True) as admin:
            admin.execute(f"DELETE FROM {sql.SCHEMA}.life")
        log_writer = hold_back_the_log(own)
        with PostgresKeyedMutex(own.conninfo) as another, another.hold("k") as lease:
            token = lease.token
        crash(own, log_writer, "a process of it")
        with mutex.hold("k", timeout=DEADLINE) as lease:
            assert (lease.token > token) == durable


def _install_again(server: Postgres) -> None:
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        admin.execute(sql.INSTALL)


def test_more_is_reserved_when_it_runs_out(own: Postgres) -> None:
    """In the middle of the work of several sessions; no call notices, and nothing above what is reserved is drawn."""
    with ExitStack() as ending:
        lockers = [ending.enter_context(PostgresKeyedMutex(own.conninfo)) for _ in range(3)]
        lockers[0].lock("k")
        lockers[0].unlock("k")
        drawn: list[int] = []

        def draw(locker: PostgresKeyedMutex) -> None:
            for _ in range(20):
                with locker.hold("k", timeout=DEADLINE) as lease:
                    drawn.append(lease.token)

        with psycopg.connect(own.conninfo, autocommit=True) as admin, ThreadPoolExecutor(3) as pool:
            admin.execute(f"UPDATE {sql.SCHEMA}.life SET upto = (SELECT last_value + 7 FROM {sql.SCHEMA}.ticket)")
            short = int(asked(own, f"SELECT upto FROM {sql.SCHEMA}.life"))
            list(pool.map(draw, lockers))
        assert drawn == sorted(set(drawn))
        assert len(drawn) == 3 * 20
        assert drawn[0] <= short < drawn[-1]
        assert drawn[-1] <= int(asked(own, f"SELECT upto FROM {sql.SCHEMA}.reserved"))


@pytest.mark.parametrize("looks", [True, False], ids=["looks", "careless"])
def test_what_was_reserved_long_ago_begins_no_life(own: Postgres, looks: bool) -> None:
    """One reserves, and stands still; others reserve, and use it all up; the first goes on. The twin lets it."""
    with PostgresKeyedMutex(own.conninfo) as mutex:
        mutex.lock("another")
        session = mutex._session
        assert session is not None
        with psycopg.connect(own.conninfo, autocommit=True) as admin:
            if not looks:
                newer = f" AND in_upto - {sql.RESERVED} >= (SELECT l.upto FROM {sql.SCHEMA}.life l)"
                assert newer in sql.INSTALL
                admin.execute(sql.INSTALL.replace(newer, "").encode())
            use_up = f"SELECT setval('{sql.SCHEMA}.ticket', upto) FROM {sql.SCHEMA}.life"
            ((early,),) = session._call("reserve")
            asked(own, use_up)
            with mutex.hold("k") as lease:
                before = lease.token
            assert early is not None
            assert before > int(early)
            asked(own, use_up)
            session._call("allow", early)
            with mutex.hold("k") as lease:
                assert (lease.token > before) == looks
            _install_again(own)
            # Whatever the twin has done, for the tests to come.
            admin.execute(f"DELETE FROM {sql.SCHEMA}.life")


@pytest.mark.parametrize("value", [1, 9223372036854775800])
def test_a_counter_that_somebody_has_set_is_not_believed(own: Postgres, value: int) -> None:
    """Far below what was drawn, or above all bounds."""
    with PostgresKeyedMutex(own.conninfo) as mutex:
        with mutex.hold("k") as before:
            pass
        asked(own, f"SELECT setval('{sql.SCHEMA}.ticket', %s)", value)
        with mutex.hold("k", timeout=DEADLINE) as lease:
            assert before.token < lease.token < 1 << 60
