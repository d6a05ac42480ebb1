"""A role without any grant may connect, send notifications, and take any advisory lock. It can't let anybody in or out.

And a role with the grants that docs/postgres.md lists, and no others, can use a locker.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from kmutex.postgres import LockLostError, PostgresKeyedMutex, UnusableServerError
from kmutex.postgres import _sql as sql
from tests.driver import DEADLINE, start, start_waiter, until, waiters
from tests.postgres.shared import ROOT, Client, asked, server

server()
SOON = 0.1
STRANGER = f"host=127.0.0.1 port={server().port} user=stranger dbname=postgres"


@pytest.fixture(scope="module")
def stranger() -> Iterator[psycopg.Connection]:
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        admin.execute("CREATE ROLE stranger LOGIN")
    with psycopg.connect(STRANGER, autocommit=True) as made:
        yield made


@pytest.fixture
def space(request: pytest.FixtureRequest) -> str:
    """Keys of this test alone."""
    return str(request.node.name).replace(" ", "_")


@pytest.fixture
def pair(space: str) -> Iterator[tuple[PostgresKeyedMutex, PostgresKeyedMutex]]:
    with ExitStack() as ending:
        one, other = (
            ending.enter_context(PostgresKeyedMutex(server().conninfo, space=space, sweep_every=3600)) for _ in range(2)
        )
        yield one, other


def channel(mutex: PostgresKeyedMutex) -> str:
    """As the administrator sees it."""
    assert mutex._session is not None
    return asked(server(), f"SELECT channel FROM {sql.SCHEMA}.session WHERE number = %s", mutex._session.id)


def request_of(mutex: PostgresKeyedMutex) -> int:
    (request,) = mutex._waiting
    return request


def heard(mutex: PostgresKeyedMutex) -> None:
    """Until the session has read all that was sent before this."""
    assert mutex._session is not None
    seen: list[int] = []
    ask = mutex._session._ask

    def listen(statement: str, *arguments: object) -> object:
        rows = ask(statement, *arguments)
        if statement == "holding" and "4242" in str(arguments):
            seen.append(1)
        return rows

    mutex._session._ask = listen  # type: ignore[method-assign,assignment]
    with psycopg.connect(STRANGER, autocommit=True) as one:
        one.execute("SELECT pg_notify(%s, '4242')", (channel(mutex),))
    until(lambda: seen)


JUNK = ["", "x", "1", "1 2 3", "-1", "٣", "²", "1" * 30, "9" * 18, "é", "1 x", "1e9", " 1", "\n"]


def test_junk_ends_nobody(pair: tuple[PostgresKeyedMutex, PostgresKeyedMutex], stranger: psycopg.Connection) -> None:
    """KM-LIVE: notifications of all kinds, on the very channel; the waiter still gets its key."""
    one, other = pair
    with one.hold("k") as lease:
        waiter = start_waiter(other, "k")
        until(lambda: len(waiters(one, "k")) == 1)
        for junk in JUNK:
            stranger.execute("SELECT pg_notify(%s, %s)", (channel(other), junk))
            stranger.execute("SELECT pg_notify(%s, %s)", (channel(one), junk))
        heard(other)
        assert not waiter.done()
        assert not lease.lost.is_set()
    waiter.result(DEADLINE)
    other.unlock("k")


@pytest.mark.parametrize("confirm", [True, False], ids=["confirmed", "careless"])
def test_a_forged_notification_lets_nobody_in(
    pair: tuple[PostgresKeyedMutex, PostgresKeyedMutex], stranger: psycopg.Connection, confirm: bool
) -> None:
    """KM-EXCL: with the right channel and the right request. The twin believes what it is told."""
    one, other = pair
    with one.hold("k"):
        waiter = start_waiter(other, "k")
        until(lambda: len(waiters(one, "k")) == 1)
        session = other._session
        assert session is not None
        if not confirm:
            session._look = lambda named: session.on_grant(session, int((named or "")[1:-1]), 1)  # type: ignore[method-assign]
        stranger.execute("SELECT pg_notify(%s, %s)", (channel(other), str(request_of(other))))
        if confirm:
            heard(other)
            assert not waiter.done()
        else:
            waiter.result(DEADLINE)
            assert list(one._held) == list(other._held)
    if confirm:
        waiter.result(DEADLINE)


def test_names_are_not_to_be_guessed(pair: tuple[PostgresKeyedMutex, PostgresKeyedMutex]) -> None:
    """128 random bits for a channel; and what a stranger can read has none of them."""
    one, other = pair
    one.lock("k")
    other.lock("another")
    names = [channel(one), channel(other)]
    assert len(set(names)) == 2
    for name in names:
        assert re.fullmatch("kmutex_[0-9a-f]{32}", name)
    with psycopg.connect(STRANGER, autocommit=True) as curious:
        for question in ("SELECT * FROM pg_stat_activity", "SELECT * FROM pg_locks", "SELECT pg_listening_channels()"):
            shown = repr(curious.execute(question.encode()).fetchall())
            assert not any(name.removeprefix("kmutex_") in shown for name in names)
        for table in ("session", "queue", "turn", "life", "reserved"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                curious.execute(f"SELECT * FROM {sql.SCHEMA}.{table}".encode())


def test_a_watch_that_fails_is_a_lost_session(pair: tuple[PostgresKeyedMutex, PostgresKeyedMutex]) -> None:
    """KM-LIVE: whatever goes wrong in the thread that watches, the holder and the waiter are told at once."""
    one, other = pair
    lease = other.hold("mine")
    lease.__enter__()
    one.lock("k")
    waiter = start_waiter(other, "k")
    until(lambda: len(waiters(one, "k")) == 1)
    session = other._session
    assert session is not None

    def fail(named: str | None) -> None:
        raise ZeroDivisionError("whatever")

    session._look = fail  # type: ignore[method-assign]
    with psycopg.connect(STRANGER, autocommit=True) as anybody:
        anybody.execute("SELECT pg_notify(%s, '1')", (channel(other),))
    error = waiter.exception(DEADLINE)
    assert isinstance(error, LockLostError)
    assert "ZeroDivisionError: whatever" in str(error)
    assert lease.lost.is_set()


@pytest.mark.parametrize("first", [0x6B6D_7501, 0x6B6D_7502, 0x6B6D_7503])
def test_advisory_locks_of_a_stranger_hold_up_nobody(
    pair: tuple[PostgresKeyedMutex, PostgresKeyedMutex], stranger: psycopg.Connection, first: int
) -> None:
    """KM-LIVE, KM-EXPIRED: all that it can name of ours: turns, 0, and what pg_locks shows of living sessions."""
    one, other = pair
    one.lock("k")
    assert one._session is not None
    numbers = [0, -1, *range(sql.TURNS), one._session.id]
    stranger.execute("SELECT pg_try_advisory_lock(%s, n) FROM unnest(%s::int[]) n", (first, numbers))
    try:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                other.lock("k", timeout=0)
            other.lock("another", timeout=0)
            other.unlock("another")
        one.unlock("k")
        other.lock("k", timeout=0)
        with PostgresKeyedMutex(server().conninfo) as late:
            late.lock("k", timeout=0)
    finally:
        stranger.execute("SELECT pg_advisory_unlock_all()")


def test_the_dead_are_dead_though_a_stranger_takes_their_lock(space: str, stranger: psycopg.Connection) -> None:
    """KM-LIVE: it waited for the lock of a session that lived, and has it now. The look for the dead is not fooled."""
    holder = Client(server().conninfo, space)
    try:
        assert holder.ask("lock k").startswith("got ")
        mine = f"SELECT session FROM {sql.SCHEMA}.queue WHERE space = %s"
        session = int(asked(server(), mine, space.encode()))
        ghost = psycopg.connect(STRANGER, autocommit=True)
        waiting = start(ghost.execute, "SELECT pg_advisory_lock(%s, %s)", (sql.ALIVE, session))
        locks = "SELECT count(*) FROM pg_locks WHERE classid = %s AND objid = %s"
        until(lambda: asked(server(), locks, sql.ALIVE, session) == "2")
        holder.kill()
        waiting.result(DEADLINE)
        with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as mutex:
            mutex.lock("k", timeout=DEADLINE)
        ghost.close()
    finally:
        holder.end()


def test_a_client_with_grants_holds_up_others_for_their_patience_only(space: str) -> None:
    """KM-EXPIRED: it sits on a turn in a transaction without an end. The call comes back; its session is over."""
    with (
        PostgresKeyedMutex(server().conninfo, space=space, patience=2.0) as mutex,
        psycopg.connect(server().conninfo) as sitting,
    ):
        mutex.lock("k")
        sitting.execute(f"SELECT FROM {sql.SCHEMA}.turn FOR UPDATE".encode())
        with pytest.raises(LockLostError, match=r"timeout|not answered"):
            mutex.lock("another", timeout=0)
        sitting.rollback()
        mutex.lock("another", timeout=0)


def grants() -> str:
    """What docs/postgres.md has an administrator say."""
    page = (ROOT / "docs" / "postgres.md").read_text(encoding="utf-8")
    found = re.search(r"```sql\n(.*?)```", page, re.DOTALL)
    assert found
    return found[1].replace("ROLE", "guest")


def test_the_grants_of_the_page_are_enough(space: str) -> None:
    """And without them there is one clear line, before and after the schema is there."""
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        admin.execute("CREATE ROLE guest LOGIN")
        admin.execute("CREATE DATABASE rented")
    rented = f"host=127.0.0.1 port={server().port} dbname=rented"
    guest = PostgresKeyedMutex(f"{rented} user=guest", space=space, sweep_every=SOON)
    with pytest.raises(UnusableServerError, match="role guest needs the grants"):
        guest.lock("k")
    with PostgresKeyedMutex(f"{rented} user=postgres", space=space, sweep_every=SOON) as owner:
        owner.lock("k")
        with pytest.raises(UnusableServerError, match="role guest needs the grants"):
            guest.lock("k")
        assert len(guest) == 0
        with psycopg.connect(f"{rented} user=postgres", autocommit=True) as admin:
            admin.execute(grants().encode())
        waiter = start_waiter(guest, "k")
        until(lambda: len(waiters(owner, "k")) == 1)
        owner.unlock("k")
        waiter.result(DEADLINE)
        with psycopg.connect(f"{rented} user=postgres", autocommit=True) as admin:
            admin.execute(f"DELETE FROM {sql.SCHEMA}.life")
        guest.lock("another")  # It may begin a life, too.
    guest.close()


def test_a_table_that_is_dropped(space: str) -> None:
    """The session is over, with the server's own words; the next call makes what is missing."""
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        admin.execute("CREATE DATABASE dropped")
    conninfo = f"{server().conninfo} dbname=dropped"
    with PostgresKeyedMutex(conninfo, space=space) as mutex, psycopg.connect(conninfo, autocommit=True) as admin:
        for table in ("queue", "life", "turn", "session", "reserved", "ticket"):
            lease = mutex.hold("k")
            lease.__enter__()
            kind = "SEQUENCE" if table == "ticket" else "TABLE"
            admin.execute(f"DROP {kind} {sql.SCHEMA}.{table} CASCADE".encode())
            if table not in ("reserved", "session"):
                with pytest.raises(LockLostError, match="does not exist"):
                    mutex.lock("another")
                assert lease.lost.is_set()
            mutex.close()
            with mutex.hold("k", timeout=DEADLINE) as again:
                # What was reserved is what tokens rest on, over everything else.
                assert again.token > lease.token or table == "reserved"


REMOVED = {
    "truncated": f"TRUNCATE {sql.SCHEMA}.queue",
    "deleted": f"DELETE FROM {sql.SCHEMA}.queue",
    "its session": f"DELETE FROM {sql.SCHEMA}.session",
}


@pytest.mark.parametrize("how", list(REMOVED))
def test_who_finds_its_requests_removed_is_told(how: str) -> None:
    """KM-EXCL up to the token, KM-LIVE: an administrator breaks a lock. Holder and waiter learn of it by themselves."""
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        admin.execute("DROP DATABASE IF EXISTS broken")
        admin.execute("CREATE DATABASE broken")
    conninfo = f"{server().conninfo} dbname=broken"
    with ExitStack() as ending:
        one, other = (ending.enter_context(PostgresKeyedMutex(conninfo, patience=2.0)) for _ in range(2))
        lease = one.hold("k")
        lease.__enter__()
        waiter = start_waiter(other, "k")
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(REMOVED[how].encode())
        assert lease.lost.wait(DEADLINE)
        assert isinstance(waiter.exception(DEADLINE), LockLostError)
        with pytest.raises(LockLostError):
            lease.release()
        one.lock("k", timeout=0)


def test_the_twin_that_asks_for_its_own_row_only_is_not_told() -> None:
    """KM-EXCL up to the token: it holds what another holds, and has heard from the server since."""
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        admin.execute("CREATE DATABASE unasked")
    conninfo = f"{server().conninfo} dbname=unasked"
    with PostgresKeyedMutex(conninfo, patience=2.0) as twin, PostgresKeyedMutex(conninfo, patience=2.0) as other:
        lease = twin.hold("k")
        lease.__enter__()
        session = twin._session
        assert session is not None
        asked_for: list[str] = []
        ask = session._ask
        session.requests = set

        def count(statement: str, *arguments: object) -> object:
            rows = ask(statement, *arguments)
            asked_for.append(statement)
            return rows

        session._ask = count  # type: ignore[method-assign,assignment]
        with psycopg.connect(conninfo, autocommit=True) as admin:
            admin.execute(REMOVED["deleted"].encode())
        del asked_for[:]
        until(lambda: asked_for.count("mine") > 1)
        other.lock("k", timeout=0)
        assert not lease.lost.is_set()


def test_a_database_that_only_reads_by_its_defaults_is_no_hindrance(space: str) -> None:
    """A server that can't write at all is another matter: tests/postgres/test_failover.py."""
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        admin.execute("CREATE DATABASE reading")
        admin.execute("ALTER DATABASE reading SET default_transaction_read_only = on")
    with PostgresKeyedMutex(f"{server().conninfo} dbname=reading", space=space) as mutex:
        mutex.lock("k")


@pytest.mark.parametrize("space", [5, None, b"x"])
def test_a_space_is_a_text(space: object) -> None:
    """In one line, and before anything is asked."""
    with pytest.raises(TypeError, match="a space must be a str"):
        PostgresKeyedMutex("", space=space)  # type: ignore[arg-type]
