"""Several processes on one server, and what may befall them: kill -9, a restart, a cut connection, many waiters.

Beside a look stands, where it is cheap, a careless twin that must show the opposite.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from kmutex import KeyedLocker, LeaseReusedError, UnheldKeyError
from kmutex.postgres import LONGEST, LockLostError, PostgresKeyedMutex
from kmutex.postgres import _sql as sql
from kmutex.postgres._key import name_of
from servers import Postgres
from tests.driver import DEADLINE, start_waiter, until, waiters
from tests.postgres import client
from tests.postgres.shared import Client, server

server()
SOON = 0.1
"""Seconds between two looks for the dead, in these tests."""


@pytest.fixture
def space(request: pytest.FixtureRequest) -> str:
    """Keys of this test alone."""
    return str(request.node.name).replace(" ", "_")


@pytest.fixture
def mutex(space: str) -> Iterator[PostgresKeyedMutex]:
    with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as made:
        yield made


@pytest.fixture
def clients(space: str) -> Iterator[list[Client]]:
    with ExitStack() as ending:
        made = [Client(f"{server().conninfo} application_name={space}", space) for _ in range(4)]
        for one in made:
            ending.callback(one.end)
        yield made


def is_dead(session: int) -> bool:
    """Whether the server has noticed that nobody is behind a session any more."""
    with psycopg.connect(server().conninfo) as connection:
        row = connection.execute(f"SELECT %s NOT IN (SELECT {sql.SCHEMA}.living())", (session,)).fetchone()
        assert row is not None
        return bool(row[0])


def sessions(space: str) -> list[int]:
    """Those that have a row, by their tickets."""
    with psycopg.connect(server().conninfo) as connection:
        found = connection.execute(
            f"SELECT session FROM {sql.SCHEMA}.queue WHERE space = %s ORDER BY ticket", (space.encode(),)
        )
        return [session for (session,) in found]


def connections(space: str) -> int:
    """Of the processes that `clients` made."""
    with psycopg.connect(server().conninfo) as connection:
        ask = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        row = connection.execute(ask, (space,)).fetchone()
        assert row is not None
        return int(row[0])


# -- all is well ---------------------------------------------------------------------------------------------------


def test_processes_are_served_in_the_order_in_which_they_asked(
    mutex: PostgresKeyedMutex, clients: list[Client]
) -> None:
    """KM-EXCL, KM-FIFO, KM-HANDOFF: other processes and this one ask in turn, and nobody barges."""
    mutex.lock("k")
    for at, one in enumerate(clients):
        one.say("lock k")
        until(lambda at=at: len(waiters(mutex, "k")) == at + 1)  # type: ignore[misc]
    queue = mutex.snapshot()["k"].waiters
    assert list(queue) == sorted(queue)
    mutex.unlock("k")
    for at, one in enumerate(clients):
        assert one.hear() == f"got {queue[at]}"
        assert mutex.snapshot()["k"].holder == queue[at]
        with pytest.raises(TimeoutError):
            mutex.lock("k", timeout=0)
        assert one.ask("unlock k") == "done"
    assert not mutex.snapshot()


def test_what_is_written_under_the_lock_stands_in_the_order_of_tokens(
    mutex: PostgresKeyedMutex, clients: list[Client], tmp_path: Path
) -> None:
    """KM-EXCL: many threads of many processes write in their turns, and none is refused."""
    file = str(tmp_path / "resource")
    client.prepare(file)
    for one in clients:
        one.say(f"add k {file} 4 5")
    assert [one.hear() for one in clients] == ["added"] * len(clients)
    found = client.tokens(file)
    assert len(found) == len(clients) * 4 * 5
    assert found == sorted(set(found))
    assert not mutex.snapshot()


def test_a_timeout_leaves_the_queue_of_all(mutex: PostgresKeyedMutex, clients: list[Client]) -> None:
    """KM-CANCEL: who gives up is passed over, and the others keep their order."""
    mutex.lock("k")
    for at, (one, word) in enumerate(zip(clients, ("lock k", "lock k 2", "lock k", "lock k"), strict=True)):
        one.say(word)
        until(lambda at=at: len(waiters(mutex, "k")) >= min(at + 1, 3))  # type: ignore[misc]
    assert clients[1].hear() == "TimeoutError"
    assert len(waiters(mutex, "k")) == 3
    mutex.unlock("k")
    for one in (clients[0], clients[2], clients[3]):
        assert one.hear().startswith("got ")
        assert one.ask("unlock k") == "done"
    assert not mutex.snapshot()


def test_closing_gives_up_what_is_held(mutex: PostgresKeyedMutex, space: str) -> None:
    """KM-LIVE: a locker that is closed holds nothing, and can be used again."""
    other = PostgresKeyedMutex(server().conninfo, space=space)
    lease = other.hold("k")
    lease.__enter__()
    waiter = start_waiter(mutex, "k")
    other.close()
    waiter.result(DEADLINE)
    assert lease.lost.is_set()
    mutex.unlock("k")
    with other.hold("k") as again:
        assert again.token > lease.token
    other.close()


def test_leases(mutex: PostgresKeyedMutex) -> None:
    """KM-TOKEN: a lease ends its own grant only, and once; its token stays."""
    lease = mutex.hold("k")
    with pytest.raises(UnheldKeyError):
        _ = lease.token
    with lease:
        lease.release()
        with mutex.hold("k") as later:
            with pytest.raises(UnheldKeyError):
                lease.release()
            assert later.token > lease.token
            assert len(mutex) == 1
    with pytest.raises(LeaseReusedError), lease:
        pass
    assert len(mutex) == 0


def test_keys_are_texts_or_bytes(mutex: PostgresKeyedMutex) -> None:
    """KM-INDEP: a text and its bytes are two keys; what can't be shared is refused before the server is asked."""
    assert isinstance(mutex, KeyedLocker)
    keys: list[str | bytes] = ["a", b"a", "", b"", "\udc80 \0 é", b"\xff\0", "k" * LONGEST]
    for key in keys:
        mutex.lock(key, timeout=0)
    assert set(mutex.snapshot()) == set(keys)
    assert len(mutex) == len(keys)
    for key in keys:
        mutex.unlock(key)
    assert not mutex.snapshot()
    for wrong in (1, None, ("a",)):
        with pytest.raises(TypeError):
            mutex.lock(wrong)
    with pytest.raises(ValueError, match="at most"):
        mutex.lock("k" * (LONGEST + 1))
    with pytest.raises(ValueError, match="timeout"):
        mutex.lock("k", timeout=float("nan"))
    for space in ("a\0b", "\udc80", "s" * 257):
        with pytest.raises(ValueError, match="space"):
            PostgresKeyedMutex(server().conninfo, space=space)


def test_keys_of_equal_hashes_are_two_keys(mutex: PostgresKeyedMutex, space: str) -> None:
    """KM-INDEP: both are held at once. The twin, a lock on the hash itself, holds only one of them."""
    seen: dict[int, bytes] = {}
    one = other = b""
    for number in itertools.count():
        # Digests: a checksum tells apart all texts that differ in a few digits only.
        other = hashlib.sha256(str(number).encode()).digest()
        one = seen.setdefault(name_of(space, other).turn, other)
        if one != other:
            break
    with psycopg.connect(server().conninfo) as first, psycopg.connect(server().conninfo) as second:
        ask = "SELECT pg_try_advisory_lock(1, %s)"
        assert first.execute(ask, (name_of(space, one).turn,)).fetchone() == (True,)
        assert second.execute(ask, (name_of(space, other).turn,)).fetchone() == (False,)
    with PostgresKeyedMutex(server().conninfo, space=space) as another, mutex.hold(one), another.hold(other, timeout=0):
        assert set(mutex.snapshot()) == {one, other}
    assert not mutex.snapshot()


# -- kill -9 -------------------------------------------------------------------------------------------------------


def test_a_killed_holder_is_followed(mutex: PostgresKeyedMutex, clients: list[Client]) -> None:
    """KM-LIVE: kill -9 of a holder with waiters, and of one without."""
    assert clients[0].ask("lock k").startswith("got ")
    clients[1].say("lock k")
    until(lambda: len(waiters(mutex, "k")) == 1)
    clients[0].kill()
    assert clients[1].hear().startswith("got ")
    clients[1].kill()
    mutex.lock("k", timeout=DEADLINE)
    mutex.unlock("k")
    assert not mutex.snapshot()


def test_who_never_looks_for_the_dead_stays_locked_out(
    mutex: PostgresKeyedMutex, clients: list[Client], space: str
) -> None:
    """The careless twin of the test above: it waits behind the dead until its time is over."""
    with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=3600) as careless:
        assert clients[0].ask("lock k").startswith("got ")
        waiter = start_waiter(careless, "k", 1.0)
        clients[0].kill()
        until(lambda: is_dead(sessions(space)[0]))
        assert isinstance(waiter.exception(DEADLINE), TimeoutError)
    mutex.lock("k", timeout=0)


def test_a_killed_waiter_is_passed_over(mutex: PostgresKeyedMutex, clients: list[Client], space: str) -> None:
    """KM-CANCEL: kill -9 of waiters; the key goes to the next that lives, at once and not by a look for the dead."""
    for one in clients[1:]:
        one.end()
    careful = [PostgresKeyedMutex(server().conninfo, space=space, sweep_every=3600) for _ in range(2)]
    careful[0].lock("k")
    clients[0].say("lock k")
    until(lambda: len(waiters(mutex, "k")) == 1)
    waiter = start_waiter(careful[1], "k")
    clients[0].kill()
    until(lambda: is_dead(sessions(space)[1]))
    careful[0].unlock("k")
    waiter.result(DEADLINE)
    careful[1].unlock("k")
    assert not mutex.snapshot()
    for each in careful:
        each.close()


def test_a_try_takes_what_a_dead_session_held(mutex: PostgresKeyedMutex, clients: list[Client], space: str) -> None:
    """KM-EXPIRED: timeout 0 finds out by itself that the holder is dead, and hands the key on if others wait."""
    assert clients[0].ask("lock k").startswith("got ")
    with pytest.raises(TimeoutError):
        mutex.lock("k", timeout=0)
    clients[0].kill()
    until(lambda: is_dead(sessions(space)[0]))
    mutex.lock("k", timeout=0)
    mutex.unlock("k")
    assert clients[1].ask("lock k").startswith("got ")
    with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=3600) as patient:
        waiter = start_waiter(patient, "k")
        clients[1].kill()
        until(lambda: is_dead(sessions(space)[0]))
        with pytest.raises(TimeoutError):
            mutex.lock("k", timeout=0)
        waiter.result(DEADLINE)


def test_a_thousand_waiters_on_one_key(
    mutex: PostgresKeyedMutex, clients: list[Client], space: str, tmp_path: Path
) -> None:
    """KM-LIVE, KM-FIFO: all are served after kill -9 of the holder, over two connections for each process."""
    file = str(tmp_path / "resource")
    client.prepare(file)
    holder, *others = clients
    assert holder.ask("lock k").startswith("got ")
    for one, threads in zip(others, (334, 333, 333), strict=True):
        one.say(f"add k {file} {threads} 1")
    until(lambda: len(waiters(mutex, "k")) == 1000)
    queue = list(mutex.snapshot()["k"].waiters)
    assert connections(space) == 2 * len(clients)
    holder.kill()
    assert [one.hear() for one in others] == ["added"] * len(others)
    assert client.tokens(file) == queue
    assert not mutex.snapshot()


# -- the lock is lost ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connection", ["_listening", "_asking"])
@pytest.mark.parametrize("cut", ["by the server", "on the way"])
def test_a_cut_connection_is_noticed(mutex: PostgresKeyedMutex, space: str, connection: str, cut: str) -> None:
    """KM-EXCL up to the token: the holder learns of its loss, its waiters too, and another process is served.

    A cut of the connection that asks is noticed at the next call; a waiting locker makes one each `sweep_every`.
    """
    with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as unlucky:
        lease = unlucky.hold("k")
        lease.__enter__()
        assert not lease.lost.is_set()
        waiter = start_waiter(unlucky, "k")
        follower = start_waiter(mutex, "k")
        session = unlucky._session
        assert session is not None
        victim = getattr(session, connection)
        if cut == "by the server":
            with psycopg.connect(server().conninfo) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", (victim.info.backend_pid,))
        else:
            with socket.socket(fileno=os.dup(victim.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
        assert lease.lost.wait(DEADLINE)
        assert isinstance(waiter.exception(DEADLINE), LockLostError)
        follower.result(DEADLINE)
        with pytest.raises(LockLostError):
            lease.release()
        with pytest.raises(UnheldKeyError):
            lease.release()
        assert len(unlucky) == 0
        mutex.unlock("k")
        late = unlucky.hold("k", timeout=DEADLINE)
        late.__enter__()
        assert unlucky._session is not None
        unlucky._session.close()
        with unlucky.hold("k", timeout=DEADLINE), pytest.raises(LockLostError):
            late.release()
        with unlucky.hold("k", timeout=DEADLINE) as again:
            assert again.token > lease.token
            assert not again.lost.is_set()


def test_a_block_ends_with_the_loss_unless_it_failed_itself(mutex: PostgresKeyedMutex) -> None:
    """KM-TOKEN: nobody leaves a block as if it had been protected to its end."""

    def lose() -> None:
        assert mutex._session is not None
        mutex._session.close()

    with pytest.raises(LockLostError), mutex.hold("k"):
        lose()

    def fail() -> None:
        lose()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), mutex.hold("k"):
        fail()
    mutex.lock("k")
    lose()
    with pytest.raises(LockLostError):
        mutex.unlock("k")
    with pytest.raises(UnheldKeyError):
        mutex.unlock("k")


@pytest.mark.parametrize("check", ["check", "trust"])
def test_a_late_writer_is_refused_by_its_token(
    mutex: PostgresKeyedMutex, clients: list[Client], space: str, tmp_path: Path, check: str
) -> None:
    """A holder is stopped, loses its lock and wakes up: its write is refused. The twin's resource trusts everybody."""
    file = str(tmp_path / "resource")
    client.prepare(file)
    late = clients[0]
    old = int(late.ask("lock k").removeprefix("got "))
    (session,) = sessions(space)
    late.process.send_signal(signal.SIGSTOP)
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        holds = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s"
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM ({holds}) AS the", (sql.ALIVE, session))
    with mutex.hold("k", timeout=DEADLINE) as lease:
        assert lease.token > old
        assert client.write(file, lease.token, "here", check=True)
    late.process.send_signal(signal.SIGCONT)
    answer = late.ask(f"write k {file} {check}")
    found = client.tokens(file)
    if check == "check":
        assert answer == "refused"
        assert found == sorted(found)
    else:
        assert answer == "accepted"
        assert found != sorted(found)
    assert late.ask("lost k") == "lost"
    assert late.ask("unlock k") == "LockLostError"


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_befalls_them_nobody_is_locked_out(
    mutex: PostgresKeyedMutex, clients: list[Client], space: str, tmp_path: Path, seed: int
) -> None:
    """KM-EXCL, KM-LIVE: writers are killed and connections cut at random, holders' and waiters' alike.

    Each token has written from one process only, the accepted ones rise, and the survivors do all their work.
    """
    print(f"seed {seed}")
    chance = random.Random(seed)
    file = str(tmp_path / "resource")
    client.prepare(file)
    for one in clients:
        one.say(f"add k {file} 5 30")
    victims = clients[:2]
    with psycopg.connect(server().conninfo, autocommit=True) as admin:
        written = 0
        for blow in range(12):
            # The next blow falls when somebody has got on, or all is done.
            until(lambda before=written: len(client.tokens(file)) > before)  # type: ignore[misc]
            written = len(client.tokens(file))
            if blow in (4, 8):
                victims.pop().kill()
                continue
            ask = "SELECT pid FROM pg_stat_activity WHERE application_name = %s ORDER BY pid"
            pids = [pid for (pid,) in admin.execute(ask, (space,))]
            if pids:
                admin.execute("SELECT pg_terminate_backend(%s)", (chance.choice(pids),))
    for one in clients[2:]:
        assert one.hear() == "added"
    found = client.tokens(file)
    assert found == sorted(found)
    by_token = client.writers(file)
    assert all(len(who) == 1 for who in by_token.values())
    assert len(by_token) == len(found)
    counts = Counter(who for (who,) in by_token.values())
    assert sorted(counts.values())[-2:] == [5 * 30] * 2
    assert len(found) < 5 * 30 * len(clients), "nobody was struck in the midst"
    mutex.lock("k", timeout=DEADLINE)
    mutex.unlock("k")
    assert not mutex.snapshot()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["a restart", "a crash"])
def test_a_restart_of_the_server_ends_every_lock(how: signal.Signals) -> None:
    """Nothing stays locked, and tokens go on rising, also where the server had no time to write anything down.

    The twin is a sequence that is kept as the queue is: after the crash it gives the same numbers again.
    """
    with Postgres() as own, ExitStack() as ending:
        mutex = ending.enter_context(PostgresKeyedMutex(own.conninfo, sweep_every=SOON))
        far = Client(own.conninfo)
        ending.callback(far.end)
        with psycopg.connect(own.conninfo, autocommit=True) as connection:
            connection.execute("CREATE UNLOGGED SEQUENCE twin")
            connection.execute("CHECKPOINT")
            twin = connection.execute("SELECT nextval('twin')").fetchone()
        lease = mutex.hold("k")
        lease.__enter__()
        far.say("lock k")
        waiter = start_waiter(mutex, "k")
        until(lambda: len(waiters(mutex, "k")) == 2)
        last = max(mutex.snapshot()["k"].waiters)
        own.stop(how)
        assert lease.lost.wait(DEADLINE)
        assert isinstance(waiter.exception(DEADLINE), LockLostError)
        assert far.hear() == "LockLostError"
        own.start()
        with psycopg.connect(own.conninfo, autocommit=True) as connection:
            after = connection.execute("SELECT nextval('twin')").fetchone()
            assert (after == twin) == (how == signal.SIGQUIT)
        with mutex.hold("k", timeout=0) as again:
            assert again.token > last
            assert list(mutex.snapshot()) == ["k"]
        assert int(far.ask("lock k").removeprefix("got ")) > last
