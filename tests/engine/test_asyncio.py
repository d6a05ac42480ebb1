"""The asyncio locker with its own thread and a real loop, beside lockers of other sessions on the same server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

from kmutex import AsyncKeyedLocker, UnheldKeyError, WrongLoopError
from kmutex.postgres import AsyncPostgresKeyedMutex, LockLostError, PostgresKeyedMutex
from tests.engine.shared import Client, server

server()
SOON = 0.1
PATIENCE = 60.0

Scene = Callable[[AsyncPostgresKeyedMutex, PostgresKeyedMutex], Awaitable[None]]


def play(space: str, scene: Scene) -> None:
    """A scene with a locker for asyncio and one for threads, each in a session of its own."""

    async def body() -> None:
        with PostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as other:
            async with AsyncPostgresKeyedMutex(server().conninfo, space=space, sweep_every=SOON) as mutex:
                await scene(mutex, other)

    asyncio.run(asyncio.wait_for(body(), PATIENCE))


@pytest.fixture
def space(request: pytest.FixtureRequest) -> str:
    """Keys of this test alone."""
    return str(request.node.name)


async def queued(mutex: AsyncPostgresKeyedMutex, key: str, number: int) -> None:
    """Until so many wait, anywhere."""
    while len(getattr((await mutex.snapshot()).get(key), "waiters", ())) != number:
        await asyncio.sleep(0)


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)


def test_tasks_and_threads_are_served_in_order(space: str) -> None:
    """KM-FIFO, KM-HANDOFF: across sessions of both kinds; the loop goes on while a task waits."""

    async def scene(mutex: AsyncPostgresKeyedMutex, other: PostgresKeyedMutex) -> None:
        order: list[str] = []

        async def task(name: str) -> None:
            async with mutex.hold("k"):
                order.append(name)

        def thread() -> None:
            with other.hold("k"):
                order.append("thread")

        assert isinstance(mutex, AsyncKeyedLocker)
        await mutex.lock("k")
        assert len(mutex) == 1
        first = asyncio.create_task(task("first"))
        await queued(mutex, "k", 1)
        second = asyncio.ensure_future(in_thread(thread))
        await queued(mutex, "k", 2)
        third = asyncio.create_task(task("third"))
        await queued(mutex, "k", 3)
        mutex.unlock("k")
        await asyncio.gather(first, second, third)
        assert order == ["first", "thread", "third"]
        assert not await mutex.snapshot()
        assert len(mutex) == 0

    play(space, scene)


def test_a_cancelled_task_leaves_the_queue_of_all(space: str) -> None:
    """KM-CANCEL, KM-EXPIRED: cancelled, timed out, refused at once; the others keep their places."""

    async def scene(mutex: AsyncPostgresKeyedMutex, other: PostgresKeyedMutex) -> None:
        other.lock("k")
        with pytest.raises(TimeoutError):
            await mutex.lock("k", timeout=0)
        with pytest.raises(TimeoutError):
            await mutex.lock("k", timeout=0.05)
        first = asyncio.create_task(mutex.lock("k"))
        await queued(mutex, "k", 1)
        second = asyncio.create_task(mutex.lock("k"))
        await queued(mutex, "k", 2)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        await queued(mutex, "k", 1)
        other.unlock("k")
        await second
        mutex.unlock("k")
        assert not await mutex.snapshot()

    play(space, scene)


def test_a_task_that_is_cancelled_at_once_leaves_nothing(space: str) -> None:
    """KM-RACE: at whatever moment the cancellation comes, the key is free in the end."""

    async def scene(mutex: AsyncPostgresKeyedMutex, other: PostgresKeyedMutex) -> None:
        cancelled = 0
        for turns in range(40):
            task = asyncio.create_task(mutex.lock("k"))
            for _ in range(turns * 5):
                await asyncio.sleep(0)
            task.cancel()
            try:
                await task
                mutex.unlock("k")
            except asyncio.CancelledError:
                cancelled += 1
        assert cancelled > 0
        await in_thread(other.lock, "k", PATIENCE)
        other.unlock("k")
        assert not await mutex.snapshot()
        assert len(mutex) == 0

    play(space, scene)


def test_a_killed_holder_is_followed(space: str) -> None:
    """KM-LIVE: kill -9 of a process that holds what a task waits for."""

    async def scene(mutex: AsyncPostgresKeyedMutex, other: PostgresKeyedMutex) -> None:
        holder = Client(server().conninfo, space)
        try:
            assert holder.ask("lock k").startswith("got ")
            waiting = asyncio.create_task(mutex.lock("k"))
            await queued(mutex, "k", 1)
            holder.kill()
            await waiting
            with pytest.raises(TimeoutError):
                other.lock("k", timeout=0)
            mutex.unlock("k")
        finally:
            holder.end()

    play(space, scene)


def test_a_loss_is_noticed(space: str) -> None:
    """KM-EXCL up to the token: the lease's event is set, those who wait are told, and the key goes on."""

    async def scene(mutex: AsyncPostgresKeyedMutex, other: PostgresKeyedMutex) -> None:
        lease = mutex.hold("k")
        await lease.__aenter__()
        waiting = asyncio.create_task(mutex.lock("k"))
        await queued(mutex, "k", 1)
        assert not lease.lost.is_set()
        lost = asyncio.create_task(lease.lost.wait())
        session = mutex._session
        assert session is not None
        with psycopg.connect(server().conninfo) as admin:
            admin.execute("SELECT pg_terminate_backend(%s)", (session._listening.info.backend_pid,))
        assert await lost
        assert lease.lost.is_set()
        with pytest.raises(LockLostError):
            await waiting
        with pytest.raises(LockLostError):
            lease.release()
        await in_thread(other.lock, "k", PATIENCE)
        other.unlock("k")

        async def lose_it() -> None:
            async with mutex.hold("k") as again:
                assert again.token > lease.token
                assert mutex._session is not None
                mutex._session.close()

        with pytest.raises(LockLostError):
            await lose_it()
        assert len(mutex) == 0

    play(space, scene)


def test_what_others_hold_is_not_unlocked_from_here(space: str) -> None:
    """KM-UNHELD, KM-TOKEN."""

    async def scene(mutex: AsyncPostgresKeyedMutex, other: PostgresKeyedMutex) -> None:
        with other.hold("k"):
            with pytest.raises(UnheldKeyError):
                mutex.unlock("k")
            assert len(await mutex.snapshot()) == 1
        async with mutex.hold("k") as lease:
            lease.release()
            with pytest.raises(UnheldKeyError):
                lease.release()

    play(space, scene)


def test_a_second_loop_is_refused(space: str) -> None:
    """KM-LOOP: also where nothing would wait."""
    mutex = AsyncPostgresKeyedMutex(server().conninfo, space=space)

    async def use() -> None:
        await mutex.lock("k")
        mutex.unlock("k")
        await mutex.close()

    asyncio.run(use())
    with pytest.raises(WrongLoopError):
        asyncio.run(use())
    with pytest.raises(WrongLoopError):
        mutex.unlock("k")


def test_without_a_server_the_call_fails() -> None:
    """KM-ATOMIC: nothing is left here."""

    async def use() -> None:
        async with AsyncPostgresKeyedMutex("host=127.0.0.1 port=1 dbname=postgres user=postgres") as mutex:
            with pytest.raises(psycopg.OperationalError):
                await mutex.lock("k")
            assert len(mutex) == 0

    asyncio.run(use())
