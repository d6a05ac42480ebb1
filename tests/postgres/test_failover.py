"""A standby that was behind becomes the primary, and a dump goes into another server: tokens rise all the same."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from kmutex.postgres import PostgresKeyedMutex, UnusableServerError
from kmutex.postgres import _sql as sql
from servers import NotInstalledError, Postgres, eventually
from tests.driver import DEADLINE, until
from tests.postgres.shared import asked, server

server()


class Standby(Postgres):
    """Of another server, as it is now."""

    def __init__(self, primary: Postgres) -> None:
        super().__init__()
        data = self.folder / "data"
        copy = [str(self.bin / "pg_basebackup"), "-D", str(data), "-h", "127.0.0.1", "-p", str(primary.port)]
        assert self._popen([*copy, "-U", "postgres", "-R", "-c", "fast", "--no-sync"]).wait(DEADLINE) == 0, self.log()


@pytest.fixture
def primary() -> Iterator[Postgres]:
    try:
        with Postgres(wal_level="replica", max_wal_senders=4, hot_standby="on") as made:
            yield made
    except NotInstalledError as error:
        pytest.skip(str(error))


def test_tokens_rise_over_a_failover(primary: Postgres) -> None:
    """KM-EXCL up to the token. What it does not hear of any more was reserved, and drawn, after it fell behind."""
    with PostgresKeyedMutex(primary.conninfo) as before, Standby(primary) as standby:
        with before.hold("k"):
            pass
        with PostgresKeyedMutex(standby.conninfo) as early, pytest.raises(UnusableServerError, match="standby"):
            early.lock("k")
        until(lambda: asked(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == "1")
        with psycopg.connect(standby.conninfo, autocommit=True) as admin:
            # Cut off: nothing arrives from here on.
            admin.execute("ALTER SYSTEM SET primary_conninfo = ''")
            admin.execute("SELECT pg_reload_conf()")
        until(lambda: asked(standby, "SELECT count(*) FROM pg_stat_wal_receiver") == "0")
        asked(primary, f"SELECT setval('{sql.SCHEMA}.ticket', 1)")
        before.lock("k")
        token = before._held[next(iter(before._held))].token
        asked(standby, "SELECT pg_promote()")
        eventually(lambda: asked(standby, "SELECT pg_is_in_recovery()") == "False")
        behind = int(asked(standby, f"SELECT upto FROM {sql.SCHEMA}.reserved"))
        assert behind < int(asked(primary, f"SELECT upto FROM {sql.SCHEMA}.reserved")), "it was not behind"
        with PostgresKeyedMutex(standby.conninfo) as after, after.hold("k", timeout=0) as lease:
            assert lease.token > token
            assert list(after.snapshot()) == ["k"]


def test_tokens_rise_over_a_dump(primary: Postgres) -> None:
    """KM-EXCL up to the token, KM-REF: also rows and the counter go into a dump, and nobody believes them."""
    dump = shutil.which("pg_dump", path=str(primary.bin))
    assert dump
    with PostgresKeyedMutex(primary.conninfo) as mutex, Postgres() as other:
        mutex.lock("held in the dump")
        address = ["-h", "127.0.0.1", "-U", "postgres"]
        content = subprocess.run(
            [dump, *address, "-p", str(primary.port), "postgres"], capture_output=True, check=True, timeout=DEADLINE
        ).stdout
        assert b"COPY kmutex_2.queue" in content
        asked(primary, f"SELECT setval('{sql.SCHEMA}.ticket', 1)")
        with mutex.hold("k") as last:
            pass
        load = [str(other.bin / "psql"), *address, "-p", str(other.port), "-q", "-v", "ON_ERROR_STOP=1", "postgres"]
        subprocess.run(load, input=content, check=True, capture_output=True, timeout=DEADLINE)
        with PostgresKeyedMutex(other.conninfo) as restored:
            with restored.hold("k", timeout=0) as lease:
                assert lease.token > last.token
            restored.lock("held in the dump", timeout=0)
