"""A child of a fork does not touch the parent's session; a pooler that shares connections is refused at the start."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator

import psycopg
import pytest

from kmutex.postgres import AsyncPostgresKeyedMutex, LockLostError, PostgresKeyedMutex, UnusableServerError, _session
from kmutex.postgres import _sql as sql
from servers import Server
from tests.driver import DEADLINE, run, start_waiter
from tests.postgres.shared import Client, asked, server

server()
SOON = 0.1


def in_child(work: Callable[[], object]) -> int:
    """What becomes of it in a fork: 0, or 7 for LockLostError."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except LockLostError:
            status = 7
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def leave_the_block(mutex: PostgresKeyedMutex) -> None:
    mutex.__exit__(None, None, None)


def close_all_by_hand(mutex: PostgresKeyedMutex) -> None:
    """As a child may that shuts down whatever it finds."""
    assert mutex._session is not None
    mutex._session._listening.close()
    mutex._session._asking.close()


CHILD = {
    "close": (PostgresKeyedMutex.close, 0),
    "the end of the block": (leave_the_block, 0),
    "close of the connections": (close_all_by_hand, 0),
    "lock": (lambda mutex: mutex.lock("k2", timeout=0), 7),
    "unlock": (lambda mutex: mutex.unlock("k"), 7),
    "snapshot": (lambda mutex: mutex.snapshot(), 7),
    "len": (lambda mutex: len(mutex), 7),
    "its own locker": (lambda _: PostgresKeyedMutex(server().conninfo, space="child").lock("k", timeout=DEADLINE), 0),
}


@pytest.mark.parametrize("what", list(CHILD))
def test_a_child_leaves_the_parents_session_alone(what: str) -> None:
    """KM-EXCL: whatever it calls, the parent holds on, and unlocks."""
    work, status = CHILD[what]
    with PostgresKeyedMutex(server().conninfo, space="fork", sweep_every=SOON) as mutex:
        with mutex.hold("k") as lease:
            assert in_child(lambda: work(mutex)) == status
            assert in_child(lambda: 1 / lease.lost.is_set()) == 0, "the child believes that it holds the key"
            assert list(mutex.snapshot()) == ["k"]
            assert not lease.lost.is_set()
        assert not mutex.snapshot()


@pytest.mark.parametrize("guarded", [True, False], ids=["guarded", "careless"])
def test_a_child_that_closes_the_connections_does_not_end_them(guarded: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-EXCL. The twin leaves the parent's sockets to the child, which says goodbye to the server in its name."""
    with PostgresKeyedMutex(server().conninfo, space="fork", sweep_every=SOON) as mutex:
        lease = mutex.hold("k")
        lease.__enter__()
        if not guarded:
            monkeypatch.setattr(_session._open, "data", set())
        assert in_child(lambda: close_all_by_hand(mutex)) == 0
        if guarded:
            assert list(mutex.snapshot()) == ["k"]
            lease.release()
        else:
            assert lease.lost.wait(DEADLINE)


def test_a_child_that_outlives_its_parent_keeps_no_lock() -> None:
    """KM-LIVE: kill -9 of the parent, while a child has copies of all that was open."""
    with PostgresKeyedMutex(server().conninfo, space="orphan", sweep_every=SOON) as mutex:
        parent = Client(server().conninfo, "orphan")
        try:
            assert parent.ask("lock k").startswith("got ")
            child = int(parent.ask("fork k"))
            waiter = start_waiter(mutex, "k")
            parent.process.kill()
            waiter.result(DEADLINE)
            os.kill(child, 0)
            os.kill(child, signal.SIGKILL)
        finally:
            parent.end()


def test_a_child_of_a_loop_is_told_so() -> None:
    """KM-EXCL, KM-LOOP: the worker is not in the child, so nothing may be asked of it, and nothing waits for it."""

    async def use() -> None:
        async with (
            AsyncPostgresKeyedMutex(server().conninfo, space="fork loop") as mutex,
            mutex.hold("k") as lease,
        ):
            assert in_child(lambda: mutex.lock("another").send(None)) == 7
            assert in_child(lambda: mutex.unlock("k")) == 7
            assert in_child(lambda: close(mutex)) == 0
            assert set(await mutex.snapshot()) == {"k"}
            assert not lease.lost.is_set()

    def close(mutex: AsyncPostgresKeyedMutex) -> None:
        with pytest.raises(StopIteration):
            mutex.close().send(None)

    run(use())


# -- poolers ---------------------------------------------------------------------------------------------------------


class Bouncer(Server):
    """PgBouncer, in front of the shared server."""

    name = "pgbouncer"

    def __init__(self, mode: str) -> None:
        found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if found is None:
            pytest.skip("PgBouncer is not installed: apt-get install pgbouncer")
        self.binary = found
        self.mode = mode
        super().__init__()

    def start(self) -> None:
        told = self.folder / "pgbouncer.ini"
        told.write_text(
            f"[databases]\npostgres = host=127.0.0.1 port={server().port} dbname=postgres user=postgres\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nauth_type = any\n"
            f"unix_socket_dir =\npool_mode = {self.mode}\ndefault_pool_size = 2\n",
            encoding="utf-8",
        )
        told.chmod(0o644)
        self._launch([self.binary, str(told)])

    @property
    def conninfo(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres"


@pytest.fixture(params=["transaction", "session", "statement"])
def bouncer(request: pytest.FixtureRequest) -> Iterator[Bouncer]:
    with Bouncer(str(request.param)) as made:
        yield made


def thread(bouncer: Bouncer) -> None:
    with PostgresKeyedMutex(bouncer.conninfo, space="pool") as mutex:
        mutex.lock("k", timeout=0)


def task(bouncer: Bouncer) -> None:
    async def use() -> None:
        async with AsyncPostgresKeyedMutex(bouncer.conninfo, space="pool") as mutex:
            await mutex.lock("k", 0)

    run(use())


@pytest.mark.parametrize("use", [thread, task])
def test_a_pooler_is_refused_with_one_line(bouncer: Bouncer, use: Callable[[Bouncer], None]) -> None:
    """KM-EXCL, KM-ATOMIC: each time, in every mode; and nothing is left on the server's side of it."""
    locks = f"SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = {sql.ALIVE}"
    before = asked(server(), locks)
    for _ in range(3):
        with pytest.raises(UnusableServerError, match="a connection pooler answers for the server") as caught:
            use(bouncer)
        assert "\n" not in str(caught.value)
    assert asked(server(), locks) == before
    with PostgresKeyedMutex(server().conninfo, space="pool") as direct:
        direct.lock("k", timeout=0)


def test_the_pooler_of_these_tests_pools(bouncer: Bouncer) -> None:
    """Without the look the first statements would pass: it is a pooler that works, and not one that is broken."""
    with psycopg.connect(bouncer.conninfo, autocommit=True) as through:
        row = through.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        assert row[0] != through.info.backend_pid
