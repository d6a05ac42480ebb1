"""The defaults of a server, a database or a role are other people's; a session has its own.

Each hostile default is checked to reach an ordinary connection, so that the test would be worth nothing unnoticed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from kmutex.postgres import PostgresKeyedMutex
from kmutex.postgres import _sql as sql
from tests.driver import DEADLINE, start, start_waiter, until, waiters
from tests.postgres.shared import asked, server

server()
SOON = 0.1

PARALLEL = (
    "debug_parallel_query" if int(asked(server(), "SHOW server_version_num")) >= 160000 else "force_parallel_mode"
)

HOSTILE = {
    "default_transaction_isolation": ("repeatable read", "serializable", "read uncommitted"),
    "default_transaction_read_only": ("on",),
    "default_transaction_deferrable": ("on",),
    "bytea_output": ("escape",),
    "client_encoding": ("LATIN1", "SQL_ASCII"),
    "search_path": ("evil, pg_catalog", ""),
    "standard_conforming_strings": ("off",),
    "backslash_quote": ("off",),
    "quote_all_identifiers": ("on",),
    "transform_null_equals": ("on",),
    "array_nulls": ("off",),
    "DateStyle": ("SQL, DMY",),
    "IntervalStyle": ("sql_standard",),
    "TimeZone": ("Pacific/Kiritimati",),
    "extra_float_digits": ("-15",),
    "row_security": ("off",),
    "statement_timeout": ("2s",),
    "lock_timeout": ("1ms",),
    "idle_in_transaction_session_timeout": ("1ms",),
    "synchronous_commit": ("off", "local"),
    "session_replication_role": ("replica",),
    "exit_on_error": ("on",),
    "check_function_bodies": ("off",),
    "client_min_messages": ("error", "debug5"),
    "default_tablespace": ("nowhere",),
    "enable_indexscan": ("off",),
    "plan_cache_mode": ("force_custom_plan", "force_generic_plan"),
    PARALLEL: ("on",),
    "jit_above_cost": ("0",),
    "plpgsql.variable_conflict": ("use_column", "use_variable"),
    "plpgsql.extra_errors": ("all",),
    "lc_messages": ("C.UTF-8",),
    "work_mem": ("64",),
    "tcp_keepalives_idle": ("0",),
}


@pytest.fixture(scope="module")
def admin() -> Iterator[psycopg.Connection]:
    """Of a database of its own, in which somebody has made operators of his."""
    with psycopg.connect(server().conninfo, autocommit=True) as made:
        made.execute("CREATE DATABASE hostile")
        made.execute("CREATE ROLE hostile SUPERUSER LOGIN")
    with psycopg.connect(server().conninfo, dbname="hostile", autocommit=True) as made:
        made.execute("CREATE SCHEMA evil")
        for kind in ("integer", "bigint", "text", "bytea", "oid"):
            name = f"evil.no_{kind}"
            made.execute(f"CREATE FUNCTION {name}({kind}, {kind}) RETURNS boolean LANGUAGE sql AS 'SELECT false'")
            for operator in ("=", "<>", "<"):
                made.execute(f"CREATE OPERATOR evil.{operator} (FUNCTION={name}, LEFTARG={kind}, RIGHTARG={kind})")
        yield made


@pytest.fixture
def conninfo(admin: psycopg.Connection) -> Iterator[str]:
    """Of a role whose defaults a test may set; the schema is made anew under them."""
    admin.execute(f"DROP SCHEMA IF EXISTS {sql.SCHEMA} CASCADE")
    yield f"host=127.0.0.1 port={server().port} user=hostile dbname=hostile"
    admin.execute("ALTER ROLE hostile RESET ALL")


@pytest.mark.parametrize(("setting", "value"), [(name, value) for name, values in HOSTILE.items() for value in values])
def test_no_default_of_others_matters(admin: psycopg.Connection, conninfo: str, setting: str, value: str) -> None:
    """KM-EXCL, KM-FIFO, KM-LIVE, KM-REF: a hand-over between sessions, a try, a timeout, a sweep of the dead."""
    literal = "''" if not value else value if setting == "search_path" else f"'{value}'"
    admin.execute(f"ALTER ROLE hostile SET {setting} = {literal}".encode())
    with ExitStack() as ending:
        one, other = (
            ending.enter_context(PostgresKeyedMutex(conninfo, space="café", sweep_every=SOON)) for _ in range(2)
        )
        with one.hold("ключ", timeout=0) as lease:
            with pytest.raises(TimeoutError):
                other.lock("ключ", timeout=0)
            with pytest.raises(TimeoutError):
                other.lock("ключ", timeout=0.05)
            waiter = start_waiter(other, "ключ", DEADLINE)
            until(lambda: len(waiters(one, "ключ")) == 1)
            assert list(one.snapshot()) == ["ключ"]
        waiter.result(DEADLINE)
        assert not lease.lost.is_set()
        assert one.snapshot()["ключ"].holder > lease.token
        last = start_waiter(one, "ключ", DEADLINE)
        until(lambda: len(waiters(one, "ключ")) == 1)
        other.close()
        last.result(DEADLINE)
        one.unlock("ключ")
        assert not one.snapshot()


def test_the_settings_of_a_session_do_not_follow_those_of_others(conninfo: str, admin: psycopg.Connection) -> None:
    """What the session pins is what both of its connections have, whatever the role says."""
    pinned = dict(part.removeprefix("SET ").split(" = ") for part in sql.settings(10, 150000).split("; "))
    for setting, (value, *_) in HOSTILE.items():
        if setting not in ("default_tablespace", "search_path"):
            admin.execute(f"ALTER ROLE hostile SET {setting} = '{value}'".encode())
    with PostgresKeyedMutex(conninfo) as mutex, mutex.hold("k"):
        assert mutex._session is not None
        rows = mutex._session._call("enqueue", "\\x", "\\x00", 0, mutex._session.id, 10**9, False)
        assert rows
        for name, value in pinned.items():
            statement = f"PREPARE {name} AS SELECT setting FROM pg_catalog.pg_settings WHERE name = '{name}'"
            mutex._session._asking.pgconn.exec_(statement.encode())
            ((found,),) = mutex._session._call(name)
            assert str(found).lower().replace('"', "") == value.strip("'").lower(), name


@pytest.mark.parametrize("setting", ["statement_timeout", "idle_session_timeout"])
def test_a_timeout_shorter_than_the_beginning_does_not_keep_it_from_beginning(
    admin: psycopg.Connection, conninfo: str, setting: str
) -> None:
    """It is tried again, without it."""
    admin.execute(f"ALTER ROLE hostile SET {setting} = 1")
    for _ in range(3):
        with PostgresKeyedMutex(conninfo) as mutex:
            mutex.lock("k", timeout=0)


def test_an_idle_holder_is_not_ended(admin: psycopg.Connection, conninfo: str) -> None:
    """KM-EXCL: who does nothing but hold is no idle session of others; an ordinary connection is ended meanwhile."""
    admin.execute("ALTER ROLE hostile SET idle_session_timeout = '1s'")
    with PostgresKeyedMutex(conninfo) as mutex, mutex.hold("k") as lease:
        with psycopg.connect(conninfo, autocommit=True) as idle:
            pid = idle.info.backend_pid
            gone = "SELECT FROM pg_stat_activity WHERE pid = %s"
            until(lambda: not admin.execute(gone, (pid,)).fetchall())
        assert not lease.lost.is_set()
        assert list(mutex.snapshot()) == ["k"]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_isolation_of_others_breaks_no_exclusion(admin: psycopg.Connection, conninfo: str, isolation: str) -> None:
    """KM-EXCL: lockers in a storm, each with a session of its own, on one key; no session is lost."""
    admin.execute(f"ALTER ROLE hostile SET default_transaction_isolation = '{isolation}'")
    with ExitStack() as ending:
        lockers = [ending.enter_context(PostgresKeyedMutex(conninfo)) for _ in range(4)]
        inside: list[int] = []
        wrong: list[list[int]] = []

        def play(me: int) -> None:
            for _ in range(60):
                with lockers[me].hold("k", timeout=DEADLINE):
                    inside.append(me)
                    if len(inside) != 1:
                        wrong.append(list(inside))
                    inside.remove(me)

        for thread in [start(lambda me=me: play(me)) for me in range(4)]:
            thread.result(DEADLINE)
        assert not wrong


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_the_encoding_of_a_database_is_no_part_of_a_name(encoding: str) -> None:
    """KM-INDEP, KM-EXCL: texts that it can't write are keys and spaces as all others."""
    with psycopg.connect(server().conninfo, autocommit=True) as made:
        made.execute(f"CREATE DATABASE db_{encoding.lower()} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    conninfo = f"{server().conninfo} dbname=db_{encoding.lower()}"
    latin = f"{conninfo} client_encoding=latin1"
    with PostgresKeyedMutex(conninfo, space="日本 café") as one, PostgresKeyedMutex(latin, space="日本 café") as two:
        one.lock("é")
        with pytest.raises(TimeoutError):
            two.lock("é", timeout=0)
        assert set(two.snapshot()) == {"é"}
