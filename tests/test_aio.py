"""What the keyed mutex for asyncio does beside test_drivers.py: cancellation, timers, loops.

Time is the test's own where it matters: `Clock` moves the loop's.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, Entry, KMutexError, UnheldKeyError, WrongLoopError
from tests.driver import DEADLINE, Tasks, run, start, tasks, turns, waiters


class Clock:
    """The time of the running loop from here on; it moves when the test says so."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        loop.time = lambda: self.now  # type: ignore[method-assign]


@tasks
async def test_a_timer_that_cannot_be_set_leaves_no_ref(driver: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-ATOMIC, KM-INTERRUPT: the request was made already, and is withdrawn."""
    mutex = driver.locker
    await mutex.lock("k")
    before = mutex.snapshot()

    def fails(*arguments: object) -> asyncio.TimerHandle:
        raise KeyboardInterrupt

    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", fails)
    with pytest.raises(KeyboardInterrupt):
        mutex.lock("k", 1).send(None)
    assert mutex.snapshot() == before
    monkeypatch.undo()


@tasks
async def test_a_timer_takes_its_waiter_out_of_the_middle_and_not_before_its_time(driver: Tasks) -> None:
    """KM-CANCEL, KM-REF: the others keep their order, and it never holds later."""
    mutex = driver.locker
    await mutex.lock("k")
    clock = Clock()
    first = await driver.start_waiter("k")
    late = await driver.start_waiter("k", 5)
    last = await driver.start_waiter("k", 50)
    order = waiters(mutex, "k")
    clock.now += 4
    await turns()
    assert not late.done()
    clock.now += 2
    await turns()
    with pytest.raises(TimeoutError, match=r"^no grant of 'k' within 5 s$"):
        late.result()
    assert waiters(mutex, "k") == (order[0], order[2])
    assert mutex.snapshot()["k"].refs == 3
    for task in (first, last):
        mutex.unlock("k")
        await task
    mutex.unlock("k")
    assert len(mutex) == 0


@tasks
async def test_a_grant_before_the_time_is_over_stops_the_timer(driver: Tasks) -> None:
    """KM-RACE: what the loop was told to run later is called off, granted or not."""
    mutex = driver.locker
    await mutex.lock("k")
    loop = asyncio.get_running_loop()
    set_timer, timers = loop.call_later, []

    def noted(delay: float, call: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        timers.append(set_timer(delay, call, *arguments))
        return timers[-1]

    loop.call_later = noted  # type: ignore[method-assign, assignment]
    granted = await driver.start_waiter("k", 50)
    cancelled = await driver.start_waiter("k", 50)
    cancelled.cancel()
    mutex.unlock("k")
    await granted
    await turns()
    assert [timer.cancelled() for timer in timers] == [True, True]


@tasks
async def test_a_grant_and_the_timer_in_one_step_is_a_grant(driver: Tasks) -> None:
    """KM-RACE: the grant came first, so the timer finds it done."""
    mutex = driver.locker
    await mutex.lock("k")
    clock = Clock()
    waiter = await driver.start_waiter("k", 5)
    (ticket,) = waiters(mutex, "k")
    clock.now += 6
    mutex.unlock("k")
    await waiter
    assert mutex.snapshot() == {"k": Entry(ticket, ())}


@tasks
async def test_a_timer_that_comes_after_the_grant_changes_nothing(driver: Tasks) -> None:
    """KM-RACE: the unlock comes from a timer that is due first, so the other fires before the waiter's task has run."""
    mutex = driver.locker
    loop = asyncio.get_running_loop()
    await mutex.lock("k")
    clock = Clock()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    loop.call_later(1, mutex.unlock, "k")
    waiter = await driver.start_waiter("k", 5)
    (ticket,) = waiters(mutex, "k")
    clock.now += 6
    await driver.result(waiter)
    assert mutex.snapshot() == {"k": Entry(ticket, ())}
    assert reported == []


@tasks
async def test_an_unlock_after_the_timer_passes_the_late_waiter_over(driver: Tasks) -> None:
    """KM-RACE, KM-CANCEL: the time was over first; the task of the late one has not run when the key moves on."""
    mutex = driver.locker
    await mutex.lock("k")
    clock = Clock()
    late = await driver.start_waiter("k", 5)
    after = await driver.start_waiter("k")
    _, ticket = waiters(mutex, "k")
    clock.now += 6
    # This timer is due with the other, and set later: it runs between that one and the task it woke.
    asyncio.get_running_loop().call_later(0, mutex.unlock, "k")
    await turns()
    assert isinstance(late.exception(), TimeoutError)
    assert after.done()
    assert mutex.snapshot() == {"k": Entry(ticket, ())}


@tasks
async def test_a_waiter_whose_task_is_thrown_away_leaves_no_ref(driver: Tasks) -> None:
    """KM-INTERRUPT: a closed coroutine gets a GeneratorExit in the wait."""
    mutex = driver.locker
    await mutex.lock("k")
    waiter = mutex.lock("k")
    waiter.send(None)
    assert len(waiters(mutex, "k")) == 1
    waiter.close()
    assert mutex.snapshot()["k"].refs == 1


@tasks
async def test_wait_for_around_lock_cancels_it(driver: Tasks) -> None:
    """KM-CANCEL: the timeout of a caller is a cancellation like any other."""
    mutex = driver.locker
    await mutex.lock("k")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(mutex.lock("k"), 0.01)
    assert mutex.snapshot()["k"].refs == 1


def test_another_loop_is_refused_at_once_free_or_held() -> None:
    """KM-LOOP, KM-ATOMIC"""
    mutex = AsyncKeyedMutex()
    run(mutex.lock("held"))
    before = mutex.snapshot()

    async def refused() -> None:
        for key in ("held", "free"):
            with pytest.raises(
                WrongLoopError, match=r"^this AsyncKeyedMutex belongs to another event loop, where keys are held$"
            ) as caught:
                mutex.lock(key).send(None)
            assert isinstance(caught.value, KMutexError)
            assert isinstance(caught.value, RuntimeError)
            with pytest.raises(WrongLoopError, match="belongs to another"):
                mutex.unlock(key)
            with pytest.raises(WrongLoopError, match="belongs to another"):
                await mutex.hold(key).__aenter__()

    run(refused())
    assert mutex.snapshot() == before


def test_an_idle_one_goes_on_in_the_next_loop() -> None:
    """KM-LOOP: as often as there is a new one, also where somebody waits or gave up there; and back."""
    mutex = AsyncKeyedMutex()

    async def use() -> None:
        async with mutex.hold("k"):
            waiter, late = asyncio.ensure_future(mutex.lock("k")), asyncio.ensure_future(mutex.lock("k"))
            await turns(2)
            late.cancel()
            with pytest.raises(asyncio.CancelledError):
                await late
        await waiter
        mutex.unlock("k")

    for _ in range(3):
        run(use())
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        for loop in (first, second, first):
            loop.run_until_complete(use())
    finally:
        first.close()
        second.close()
    assert len(mutex) == 0


def test_another_loop_is_refused_while_its_own_runs_also_when_all_is_idle() -> None:
    """KM-LOOP: two loops in two threads; and when the other has ended, it may go on there."""
    mutex = AsyncKeyedMutex()

    async def use() -> None:
        async with mutex.hold("k"):
            pass

    async def unlock() -> None:
        mutex.unlock("k")

    async def refused() -> None:
        await use()
        for call in (use, unlock):
            with pytest.raises(WrongLoopError, match=r"^this AsyncKeyedMutex belongs to another .*, which still runs$"):
                await asyncio.to_thread(run, call())
        await use()

    run(refused())
    run(use())


def test_an_owner_that_begins_anew_while_another_loop_takes_over_keeps_it() -> None:
    """KM-LOOP: its loop is looked at after the change, so that a call it has made in between is not overlooked."""
    mutex = AsyncKeyedMutex()
    owner = asyncio.new_event_loop()
    owner.run_until_complete(mutex.lock("k"))
    owner.run_until_complete(asyncio.sleep(0))
    calls: list[str] = []

    def is_running() -> bool:
        # The owner has begun by now, and its call found the mutex its own, or comes to `_moved_to` and waits.
        calls.append("running")
        return True

    owner.is_running = is_running  # type: ignore[method-assign]
    mutex._mutex._table.release("k")
    with pytest.raises(WrongLoopError, match="still runs"):
        run(mutex.lock("k"))
    assert calls
    assert mutex._mutex._loop is owner
    del owner.is_running
    owner.run_until_complete(mutex.lock("k"))
    owner.close()


def test_of_two_loops_that_want_an_idle_one_at_once_one_gets_it() -> None:
    """KM-LOOP, KM-ATOMIC: in twenty rounds with new loops in two threads, never both, and the other leaves nothing."""
    mutex = AsyncKeyedMutex()
    for _ in range(20):
        meet = threading.Barrier(2)

        async def use(meet: threading.Barrier) -> bool:
            meet.wait(DEADLINE)
            try:
                await mutex.lock("k", 0)
            except WrongLoopError:
                return False
            finally:
                meet.wait(DEADLINE)
            mutex.unlock("k")
            return True

        clients = [start(run, use(meet)) for _ in range(2)]
        assert sorted(client.result(DEADLINE) for client in clients) == [False, True]
        assert len(mutex) == 0


def test_a_refused_call_does_not_bind_it_to_a_loop() -> None:
    """KM-LOOP, KM-ATOMIC"""
    mutex = AsyncKeyedMutex()

    async def refused() -> None:
        with pytest.raises(UnheldKeyError):
            mutex.unlock("k")
        with pytest.raises(ValueError, match="timeout"):
            await mutex.lock("k", -1)
        with pytest.raises(TypeError, match="unhashable"):
            await mutex.lock(([],))

    run(refused())
    run(mutex.lock("k"))
    assert "k" in mutex


def test_outside_a_loop_it_is_refused() -> None:
    """KM-LOOP: `unlock` is a plain call, and still wants the loop; so it is where trio runs."""
    mutex = AsyncKeyedMutex()
    run(mutex.lock("k"))
    with pytest.raises(WrongLoopError, match=r"^an AsyncKeyedMutex is for asyncio, and no .* of asyncio runs here$"):
        mutex.unlock("k")
    with pytest.raises(WrongLoopError, match="no event loop of asyncio runs here"):
        mutex.lock("k").send(None)
    assert mutex.snapshot()["k"].refs == 1


def test_a_lease_ends_in_its_loop_only() -> None:
    """KM-LOOP, KM-ATOMIC: nor outside of any loop, and it can still be ended where it belongs."""
    mutex = AsyncKeyedMutex()
    lease = mutex.hold("k")
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(lease.__aenter__())
        before = mutex.snapshot()

        async def refused() -> None:
            with pytest.raises(WrongLoopError, match="belongs to another"):
                lease.release()
            with pytest.raises(WrongLoopError, match="belongs to another"):
                await lease.__aexit__(None, None, None)

        run(refused())
        with pytest.raises(WrongLoopError, match="no event loop of asyncio runs here"):
            lease.release()
        assert mutex.snapshot() == before
        loop.run_until_complete(lease.__aexit__(None, None, None))
    finally:
        loop.close()
    assert len(mutex) == 0


@tasks
async def test_a_lease_whose_entry_was_cancelled_may_be_entered_again(driver: Tasks) -> None:
    """KM-TOKEN, KM-ATOMIC: a failed entry leaves the lease as it was."""
    mutex = driver.locker
    await mutex.lock("k")
    lease = mutex.hold("k")
    first = asyncio.create_task(lease.__aenter__())
    await turns(1)
    assert len(waiters(mutex, "k")) == 1
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    mutex.unlock("k")
    async with lease:
        assert "k" in mutex


@tasks
async def test_a_waiter_whose_time_is_over_leaves_the_queue_at_once(
    driver: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KM-CANCEL: in the step in which the timer fires, before its task runs again, so no grant can meet it there."""
    mutex = driver.locker
    await mutex.lock("k")
    loop = asyncio.get_running_loop()
    fire: list[Callable[[], object]] = []

    def kept(delay: float, call: Callable[..., object], *arguments: object) -> asyncio.Handle:
        fire.append(lambda: call(*arguments))
        return asyncio.Handle(call, arguments, loop)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "call_later", kept)
        waiter = await driver.start_waiter("k", 60)
    fire[0]()
    assert waiters(mutex, "k") == ()
    with pytest.raises(TimeoutError):
        await waiter
    mutex.unlock("k")


@tasks
async def test_a_timer_of_several_takes_them_out_at_once_and_complains_of_no_future(driver: Tasks) -> None:
    """KM-ALL, KM-CANCEL: in the step in which it fires; in one step with a cancellation, the cancellation wins."""
    mutex = driver.locker
    loop = asyncio.get_running_loop()
    reported: list[object] = []
    loop.set_exception_handler(lambda _, context: reported.append(context))
    for key in "ab":
        await mutex.lock(key)
    clock = Clock()
    late = asyncio.create_task(mutex.hold_all(["a", "b"], 5).__aenter__())
    cancelled = asyncio.create_task(mutex.hold_all(["a", "b"], 5).__aenter__())
    await turns(2)
    assert mutex.snapshot()["a"].refs == 3
    loop.call_later(4, cancelled.cancel)
    clock.now += 6
    await turns(2)  # The timers come behind what was ready before.
    assert {entry.refs for entry in mutex.snapshot().values()} == {1}
    await turns()
    assert isinstance(late.exception(), TimeoutError)
    assert cancelled.cancelled()
    assert {entry.refs for entry in mutex.snapshot().values()} == {1}
    for key in "ab":
        mutex.unlock(key)
    del late, cancelled
    gc.collect()
    await turns()
    assert reported == []


def test_several_keys_are_held_in_one_loop_at_a_time() -> None:
    """KM-ALL, KM-LOOP"""
    mutex = AsyncKeyedMutex()

    async def use() -> None:
        async with mutex.hold_all(["a", "b"]):
            for call in (mutex.hold_all(["c"]), mutex.hold("c")):
                with pytest.raises(WrongLoopError, match="still runs"):
                    await asyncio.to_thread(run, call.__aenter__())

    run(use())
    run(use())
