"""The lockers for threads and for asyncio, each with a real server, beside a locker of another session."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from kmutex import UnheldKeyError, WrongLoopError
from kmutex.postgres import AsyncPostgresKeyedMutex, LockLostError, PostgresKeyedMutex
from tests.driver import DEADLINE, Driver, Tasks, Threads, run, start, waiters
from tests.postgres.shared import Client, server

server()
SOON = 0.1

Scene = Callable[[Any, PostgresKeyedMutex], Awaitable[None]]


def on(*kinds: type[Threads] | type[Tasks]) -> Callable[[Scene], Callable[..., None]]:
    """The scene is played with a driver of each kind, and with a locker for threads in a session of its own."""

    def mark(scene: Scene) -> Callable[..., None]:
        @pytest.mark.parametrize("kind", kinds, ids=[kind.kind for kind in kinds])
        def play(kind: type[Driver], request: pytest.FixtureRequest) -> None:
            space = str(request.node.name)  # Keys of this test alone.

            async def body() -> None:
                with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as other:
                    if kind is Tasks:
                        async with AsyncPostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as mutex:
                            await scene(Tasks(mutex), other)
                    else:
                        with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as locker:
                            await scene(Threads(locker), other)

            kind.run(body())

        # Not functools.wraps: pytest would ask for the arguments of the scene.
        play.__name__, play.__doc__ = scene.__name__, scene.__doc__
        return play

    return mark


both, tasks = on(Threads, Tasks), on(Tasks)


async def queued(driver: Driver, other: PostgresKeyedMutex, number: int) -> None:
    """Until so many wait for "k", anywhere."""
    await driver.until(lambda: len(waiters(other, "k")) == number)


@both
async def test_clients_of_two_sessions_are_served_in_order(driver: Driver, other: PostgresKeyedMutex) -> None:
    """KM-FIFO, KM-HANDOFF: across sessions; and the loop goes on while a task waits."""
    order: list[str] = []

    async def own(name: str) -> None:
        async with driver.hold("k"):
            order.append(name)

    def thread() -> None:
        with other.hold("k"):
            order.append("other")

    assert isinstance(driver.locker, driver.face)
    await driver.lock("k")
    assert len(driver.locker) == 1
    first = driver.start(own, "first")
    await queued(driver, other, 1)
    second = start(thread)
    await queued(driver, other, 2)
    third = driver.start(own, "third")
    await queued(driver, other, 3)
    driver.unlock("k")
    await driver.result(first)
    await driver.until(second.done)
    await driver.result(third)
    assert order == ["first", "other", "third"]
    await driver.until(lambda: not other.snapshot())  # An unlock of a task is a plain call, and arrives later.
    assert len(driver.locker) == 0


@both
async def test_a_killed_holder_is_followed(driver: Driver, other: PostgresKeyedMutex) -> None:
    """KM-LIVE: kill -9 of a process that holds what a client waits for."""
    holder = Client(server().conninfo, other._space)
    try:
        assert holder.ask("lock k").startswith("got ")
        waiting = driver.start(driver.lock, "k")
        await queued(driver, other, 1)
        holder.kill()
        await driver.result(waiting)
        with pytest.raises(TimeoutError):
            other.lock("k", timeout=0)
        driver.unlock("k")
    finally:
        holder.end()


@both
async def test_what_others_hold_is_not_unlocked_from_here(driver: Driver, other: PostgresKeyedMutex) -> None:
    """KM-UNHELD, KM-TOKEN, KM-ATOMIC: an unlock by key reaches this locker's own holder only."""
    with other.hold("k"):
        with pytest.raises(UnheldKeyError):
            driver.unlock("k")
        assert len(other.snapshot()) == 1
    async with driver.hold("k") as lease:
        lease.release()
        with pytest.raises(UnheldKeyError):
            lease.release()


@pytest.mark.parametrize("kind", [Threads, Tasks])
def test_without_a_server_the_call_fails(kind: type[Driver]) -> None:
    """KM-ATOMIC: nothing is left here."""
    make = PostgresKeyedMutex if kind is Threads else AsyncPostgresKeyedMutex
    driver = kind(make("host=127.0.0.1 port=1 dbname=postgres user=postgres"))

    async def use() -> None:
        with pytest.raises(psycopg.OperationalError):
            await driver.lock("k")
        assert len(driver.locker) == 0

    driver.run(use())


# -- tasks only --------------------------------------------------------------------------------------------------------


@tasks
async def test_a_cancelled_task_leaves_the_queue_of_all(driver: Tasks, other: PostgresKeyedMutex) -> None:
    """KM-CANCEL, KM-EXPIRED: cancelled, timed out, refused at once; the others keep their places."""
    other.lock("k")
    with pytest.raises(TimeoutError):
        await driver.lock("k", 0)
    with pytest.raises(TimeoutError):
        await driver.lock("k", 0.05)
    first = driver.start(driver.lock, "k")
    await queued(driver, other, 1)
    second = driver.start(driver.lock, "k")
    await queued(driver, other, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await queued(driver, other, 1)
    other.unlock("k")
    await second
    driver.unlock("k")
    assert not await driver.locker.snapshot()


@tasks
async def test_a_task_that_is_cancelled_at_once_leaves_nothing(driver: Tasks, other: PostgresKeyedMutex) -> None:
    """KM-RACE: at whatever moment the cancellation comes, the key is free in the end."""
    cancelled = 0
    for turns in range(40):
        task = driver.start(driver.lock, "k")
        for _ in range(turns * 5):
            await asyncio.sleep(0)
        task.cancel()
        try:
            await task
            driver.unlock("k")
        except asyncio.CancelledError:
            cancelled += 1
    assert cancelled > 0
    await asyncio.to_thread(other.lock, "k", DEADLINE)
    other.unlock("k")
    assert not await driver.locker.snapshot()
    assert len(driver.locker) == 0


@tasks
async def test_a_loss_is_noticed(driver: Tasks, other: PostgresKeyedMutex) -> None:
    """KM-EXCL up to the token: the lease's event is set, those who wait are told, and the key goes on."""
    mutex = driver.locker
    lease = mutex.hold("k")
    await lease.__aenter__()
    waiting = driver.start(driver.lock, "k")
    await queued(driver, other, 1)
    assert not lease.lost.is_set()
    lost = asyncio.create_task(lease.lost.wait())
    with psycopg.connect(server().conninfo) as admin:
        admin.execute("SELECT pg_terminate_backend(%s)", (mutex._session._listening.info.backend_pid,))
    assert await lost
    assert lease.lost.is_set()
    with pytest.raises(LockLostError):
        await waiting
    with pytest.raises(LockLostError):
        lease.release()
    await asyncio.to_thread(other.lock, "k", DEADLINE)
    other.unlock("k")

    async def lose_it() -> None:
        async with mutex.hold("k") as again:
            assert again.token > lease.token
            mutex._session.close()

    with pytest.raises(LockLostError):
        await lose_it()
    assert len(mutex) == 0


def test_a_second_loop_is_refused() -> None:
    """KM-LOOP: also where nothing would wait."""
    mutex = AsyncPostgresKeyedMutex(server().conninfo, space="two loops")

    async def use() -> None:
        await mutex.lock("k")
        mutex.unlock("k")
        await mutex.close()

    run(use())
    with pytest.raises(WrongLoopError):
        run(use())
    with pytest.raises(WrongLoopError):
        mutex.unlock("k")
