"""What the keyed mutex for anyio does beside test_drivers.py, on asyncio and on trio: checkpoints, scopes, loops."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import pytest
import trio.testing

from kmutex import Entry, KMutexError, WrongLoopError
from kmutex.anyio import AnyioKeyedMutex
from kmutex.testing import KeyedLockerSuite
from tests.driver import Grouped, GroupedOnTrio, grouped, waiters


@pytest.mark.long
class TestTheShippedSuite(KeyedLockerSuite):
    """On asyncio, whose loop the scheduler controls; on trio the tests below and test_drivers.py."""

    make = staticmethod(AnyioKeyedMutex)
    strict = True


HOW = pytest.mark.parametrize("how", ["lock", "hold"])


async def acquire(driver: Grouped, how: str, timeout: float | None = None) -> None:
    if how == "lock":
        await driver.lock("k", timeout)
    else:
        await driver.hold("k", timeout).__aenter__()


async def is_checkpoint(driver: Grouped, call: Callable[[], Awaitable[object]]) -> bool:
    """Whether others get their turn during the call, and it can be cancelled. trio tells by itself."""
    if isinstance(driver, GroupedOnTrio):
        try:
            with trio.testing.assert_checkpoints():
                await call()
        except AssertionError:
            return False
        return True
    ran = False

    async def other() -> None:
        nonlocal ran
        ran = True

    driver.start(other)
    await call()
    return ran


@HOW
@grouped
async def test_an_acquire_is_a_checkpoint_also_where_the_key_is_free(driver: Grouped, how: str) -> None:
    """Others get their turn; an unlock and the end of a block are none, and let nobody in."""
    assert await is_checkpoint(driver, lambda: acquire(driver, how))

    async def plain() -> None:
        driver.unlock("k")

    assert not await is_checkpoint(driver, plain)


@HOW
@grouped
async def test_a_failed_try_is_a_checkpoint(driver: Grouped, how: str) -> None:
    """KM-EXPIRED: who tries again and again lets the holder work. Nothing is left in the queue meanwhile."""
    await driver.lock("k")

    async def tried() -> None:
        with pytest.raises(TimeoutError):
            await acquire(driver, how, 0)

    assert await is_checkpoint(driver, tried)
    assert driver.locker.snapshot()["k"].refs == 1


@pytest.mark.parametrize("timeout", [None, 0, 5])
@pytest.mark.parametrize("held", [False, True])
@HOW
@grouped
async def test_in_a_cancelled_scope_nothing_is_taken(
    driver: Grouped, how: str, held: bool, timeout: float | None
) -> None:
    """KM-CANCEL, KM-ATOMIC: cancelled before, so not taken, free or held."""
    if held:
        await driver.lock("k")
    before = driver.locker.snapshot()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await acquire(driver, how, timeout)
    assert scope.cancelled_caught
    assert driver.locker.snapshot() == before


@grouped
async def test_a_shield_in_a_cancelled_scope_takes_and_keeps(driver: Grouped) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        with anyio.CancelScope(shield=True):
            await driver.lock("k")
    assert "k" in driver.locker


@grouped
async def test_a_scope_around_the_wait_is_a_timeout_like_any_other(driver: Grouped) -> None:
    """KM-CANCEL"""
    await driver.lock("k")
    with anyio.move_on_after(0.01) as scope:
        await driver.lock("k", 1000)
    assert scope.cancelled_caught
    assert driver.locker.snapshot()["k"].refs == 1


@grouped
async def test_a_grant_that_beat_the_timeout_is_kept(driver: Grouped) -> None:
    """KM-RACE: the time is over before the waiter's task runs, and the grant had come before that."""
    mutex = driver.locker
    await driver.lock("k")
    waiter = await driver.start_waiter("k", 0.01)
    (ticket,) = waiters(mutex, "k")
    end = anyio.current_time() + 0.02
    driver.unlock("k")
    while anyio.current_time() < end:
        pass  # In the way of the loop, so that both are due when it goes on.
    await driver.result(waiter)
    assert mutex.snapshot() == {"k": Entry(ticket, ())}


def test_a_grant_that_a_waiter_finds_when_its_time_is_over_is_kept() -> None:
    """KM-RACE: on asyncio the timeout has woken the waiter's task, and the grant comes before that task runs."""

    async def main() -> None:
        mutex: AnyioKeyedMutex[str] = AnyioKeyedMutex()
        await mutex.lock("k")
        loop = asyncio.get_running_loop()
        async with anyio.create_task_group() as group:
            group.start_soon(mutex.lock, "k", 0.01)
            await anyio.wait_all_tasks_blocked()
            (ticket,) = waiters(mutex, "k")
            loop.call_later(0.02, lambda: mutex._wake(mutex._table.release("k")))
            end = loop.time() + 0.03
            while loop.time() < end:
                pass  # In the way of the loop, so that both are due when it goes on, the timeout first.
        assert mutex.snapshot() == {"k": Entry(ticket, ())}

    anyio.run(main)


@grouped
async def test_a_comparison_that_fails_while_a_waiter_leaves_is_told(driver: Grouped) -> None:
    """A request that may still stand in the queue is no cancellation like any other."""
    broken = False

    class Key:
        def __hash__(self) -> int:
            return 0

        def __eq__(self, other: object) -> bool:
            if broken:
                raise RuntimeError("no comparison")
            return self is other

    async def breaks() -> None:
        nonlocal broken
        broken = True

    first, second = Key(), Key()
    await driver.lock(first)
    await driver.lock(second)
    driver.start(breaks)
    with pytest.raises(RuntimeError, match="no comparison"), anyio.move_on_after(0.01):
        await driver.lock(second)


@pytest.mark.parametrize("second", ["asyncio", "trio"])
@pytest.mark.parametrize("first", ["asyncio", "trio"])
def test_another_loop_is_refused_free_or_held(first: str, second: str) -> None:
    """KM-LOOP, KM-ATOMIC: of the same backend and of the other."""
    mutex = AnyioKeyedMutex()

    async def refused() -> None:
        for key in ("held", "free"):
            with pytest.raises(WrongLoopError, match="belongs to another event loop") as caught:
                await mutex.lock(key)
            assert isinstance(caught.value, KMutexError)
            with pytest.raises(WrongLoopError, match="belongs to another"):
                await mutex.hold(key).__aenter__()
            with pytest.raises(WrongLoopError, match="belongs to another"):
                mutex.unlock(key)

    anyio.run(mutex.lock, "held", backend=first)
    before = mutex.snapshot()
    anyio.run(refused, backend=second)
    assert mutex.snapshot() == before


@pytest.mark.parametrize("second", ["asyncio", "trio"])
@pytest.mark.parametrize("first", ["asyncio", "trio"])
def test_an_idle_one_goes_on_in_the_next_loop(first: str, second: str) -> None:
    """KM-LOOP: once its own has ended, whatever the backends; while that runs, another thread's loop is refused."""
    mutex: AnyioKeyedMutex[str] = AnyioKeyedMutex()

    async def used() -> None:
        async with mutex.hold("k"):
            pass

    async def refused() -> None:
        with pytest.raises(WrongLoopError, match="which still runs"):
            await mutex.lock("k")

    async def both() -> None:
        await used()
        await anyio.to_thread.run_sync(lambda: anyio.run(refused, backend=first))

    anyio.run(used, backend=first)
    anyio.run(both, backend=second)
    assert len(mutex) == 0


def test_outside_a_loop_it_is_refused() -> None:
    """KM-LOOP"""
    mutex = AnyioKeyedMutex()
    with pytest.raises(WrongLoopError, match=r"^an AnyioKeyedMutex is for anyio, and no event loop runs here$"):
        mutex.unlock("k")
    with pytest.raises(WrongLoopError, match="no event loop runs here"):
        mutex.lock("k").send(None)
    assert len(mutex) == 0
