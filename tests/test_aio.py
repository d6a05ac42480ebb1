"""The keyed mutex for asyncio. Time is the test's own where it matters: `Clock` moves the loop's."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, TypeVar

import pytest

from kmutex import (
    AsyncKeyedLocker,
    AsyncKeyedMutex,
    AsyncLease,
    Entry,
    KMutexError,
    LeaseReusedError,
    UnheldKeyError,
    WrongLoopError,
    _aio,
)

DEADLINE = 120.0
"""Seconds after which a test that waits has failed; nothing here takes long."""

T = TypeVar("T")


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run ``test`` in a loop of its own."""
    return asyncio.run(asyncio.wait_for(test, DEADLINE))


async def turns(count: int = 10) -> None:
    """Let the loop go round, so that everything that can run has run."""
    for _ in range(count):
        await asyncio.sleep(0)


class Clock:
    """The time of the running loop from here on; it moves when the test says so."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.now = loop.time()
        loop.time = lambda: self.now  # type: ignore[method-assign]


def waiters(mutex: AsyncKeyedMutex, key: Hashable) -> tuple[int, ...]:
    entry = mutex.snapshot().get(key)
    return () if entry is None else entry.waiters


async def start_waiter(mutex: AsyncKeyedMutex, key: Hashable, timeout: float | None = None) -> asyncio.Task[None]:
    """A task that asks for ``key``, which is held; returns when it stands in the queue."""
    before = len(waiters(mutex, key))
    task = asyncio.create_task(mutex.lock(key, timeout))
    await turns(1)
    assert len(waiters(mutex, key)) == before + 1
    return task


def test_it_is_an_async_keyed_locker() -> None:
    assert isinstance(AsyncKeyedMutex(), AsyncKeyedLocker)


def test_lock_takes_a_free_key_without_a_pause_and_unlock_drops_it() -> None:
    """KM-EXCL, KM-REF, KM-IDLE"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        with pytest.raises(StopIteration):
            mutex.lock("k").send(None)
        assert "k" in mutex
        assert "other" not in mutex
        assert len(mutex) == 1
        entry = mutex.snapshot()["k"]
        assert (entry.waiters, entry.refs) == ((), 1)
        mutex.unlock("k")
        assert "k" not in mutex
        assert len(mutex) == 0
        assert mutex.snapshot() == {}

    run(test())


def test_tickets_are_never_used_twice_and_never_the_one_that_means_none() -> None:
    """KM-TOKEN"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        seen = []
        for _ in range(3):
            await mutex.lock("k")
            seen.append(mutex.snapshot()["k"].holder)
            mutex.unlock("k")
        assert len(set(seen)) == 3
        assert _aio.NO_TICKET not in seen

    run(test())


def test_waiters_are_served_in_the_order_of_their_requests() -> None:
    """KM-FIFO, KM-HANDOFF, KM-LIVE"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        queue = [await start_waiter(mutex, "k") for _ in range(4)]
        for served in range(1, 5):
            mutex.unlock("k")
            await turns()
            assert [task.done() for task in queue] == [True] * served + [False] * (4 - served)
        mutex.unlock("k")
        assert len(mutex) == 0

    run(test())


def test_a_newcomer_does_not_barge() -> None:
    """KM-HANDOFF: the key belongs to the waiter from the unlock on, before its task has run."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        waiter = await start_waiter(mutex, "k")
        (ticket,) = waiters(mutex, "k")
        mutex.unlock("k")
        assert mutex.snapshot() == {"k": Entry(ticket, ())}
        with pytest.raises(TimeoutError):
            await mutex.lock("k", 0)
        await waiter
        assert mutex.snapshot() == {"k": Entry(ticket, ())}

    run(test())


def test_a_queue_on_one_key_does_not_delay_another() -> None:
    """KM-INDEP"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("a")
        queue = [await start_waiter(mutex, "a") for _ in range(3)]
        await mutex.lock("b", 0)
        mutex.unlock("b")
        assert len(waiters(mutex, "a")) == 3
        for task in queue:
            mutex.unlock("a")
            await task

    run(test())


def test_tasks_exclude_each_other() -> None:
    """KM-EXCL, KM-LIVE: and somewhere in the run somebody waited, else it shows nothing."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        inside = {"a": 0, "b": 0}
        most_refs = 0

        async def work(key: str) -> None:
            nonlocal most_refs
            for _ in range(20):
                async with mutex.hold(key):
                    inside[key] += 1
                    await turns(1)
                    assert inside[key] == 1
                    most_refs = max(most_refs, mutex.snapshot()[key].refs)
                    inside[key] -= 1

        await asyncio.gather(*(work(key) for key in "aaabb"))
        assert most_refs == 3
        assert len(mutex) == 0

    run(test())


def test_unlock_of_a_key_nobody_holds() -> None:
    """KM-UNHELD, KM-ATOMIC"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("held")
        before = mutex.snapshot()
        with pytest.raises(UnheldKeyError, match="'k'"):
            mutex.unlock("k")
        assert mutex.snapshot() == before
        mutex.unlock("held")
        with pytest.raises(UnheldKeyError):
            mutex.unlock("held")

    run(test())


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, False])
def test_timeout_0(timeout: float) -> None:
    """KM-EXPIRED, KM-CANCEL: a free key is taken, a held one raises without a pause and leaves no trace."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k", timeout)
        before = mutex.snapshot()
        with pytest.raises(TimeoutError, match=rf"^no grant of 'k' within {timeout} s$"):
            mutex.lock("k", timeout).send(None)
        assert mutex.snapshot() == before

    run(test())


@pytest.mark.parametrize("timeout", [-1, -1e-9, -math.inf, math.nan])
def test_a_timeout_that_is_none_is_refused_free_or_held(timeout: float) -> None:
    """KM-EXPIRED, KM-ATOMIC"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        with pytest.raises(ValueError, match=r"^timeout must be None or at least 0 seconds, not "):
            await mutex.lock("k", timeout)
        assert len(mutex) == 0
        await mutex.lock("k")
        before = mutex.snapshot()
        with pytest.raises(ValueError, match="timeout"):
            await mutex.lock("k", timeout)
        assert mutex.snapshot() == before

    run(test())


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**30])
def test_a_timeout_longer_than_any_wait_is_one(timeout: float) -> None:
    """KM-EXPIRED"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k", timeout)
        waiter = await start_waiter(mutex, "k", timeout)
        mutex.unlock("k")
        await waiter

    run(test())


@pytest.mark.parametrize("timeout", ["1", 1j])
def test_a_timeout_of_a_wrong_type_leaves_no_trace(timeout: float) -> None:
    """KM-ATOMIC"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        before = mutex.snapshot()
        with pytest.raises(TypeError):
            await mutex.lock("k", timeout)
        assert mutex.snapshot() == before

    run(test())


def test_a_timer_that_cannot_be_set_leaves_no_ref(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-ATOMIC, KM-INTERRUPT: the request was made already, and is withdrawn."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        before = mutex.snapshot()

        def fails(*arguments: object) -> asyncio.TimerHandle:
            raise KeyboardInterrupt

        monkeypatch.setattr(asyncio.get_running_loop(), "call_later", fails)
        with pytest.raises(KeyboardInterrupt):
            mutex.lock("k", 1).send(None)
        assert mutex.snapshot() == before
        monkeypatch.undo()

    run(test())


def test_a_waiter_that_times_out_leaves_the_queue() -> None:
    """KM-CANCEL, KM-REF: the others keep their order, and it never holds later."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        clock = Clock()
        first = await start_waiter(mutex, "k")
        late = await start_waiter(mutex, "k", 5)
        last = await start_waiter(mutex, "k", 50)
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

    run(test())


def test_a_grant_before_the_time_is_over_stops_the_timer() -> None:
    """KM-RACE: what the loop was told to run later is called off, granted or not."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        loop = asyncio.get_running_loop()
        set_timer, timers = loop.call_later, []

        def noted(delay: float, call: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
            timers.append(set_timer(delay, call, *arguments))
            return timers[-1]

        loop.call_later = noted  # type: ignore[method-assign, assignment]
        granted = await start_waiter(mutex, "k", 50)
        cancelled = await start_waiter(mutex, "k", 50)
        cancelled.cancel()
        mutex.unlock("k")
        await granted
        await turns()
        assert [timer.cancelled() for timer in timers] == [True, True]

    run(test())


def test_a_grant_and_the_timer_in_one_step_is_a_grant() -> None:
    """KM-RACE: the grant came first, so the timer finds it done."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        clock = Clock()
        waiter = await start_waiter(mutex, "k", 5)
        (ticket,) = waiters(mutex, "k")
        clock.now += 6
        mutex.unlock("k")
        await waiter
        assert mutex.snapshot() == {"k": Entry(ticket, ())}

    run(test())


def test_an_unlock_after_the_timer_passes_the_late_waiter_over() -> None:
    """KM-RACE, KM-CANCEL: the time was over first; the task of the late one has not run when the key moves on."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        clock = Clock()
        late = await start_waiter(mutex, "k", 5)
        after = await start_waiter(mutex, "k")
        _, ticket = waiters(mutex, "k")
        clock.now += 6
        # This timer is due with the other, and set later: it runs between that one and the task it woke.
        asyncio.get_running_loop().call_later(0, mutex.unlock, "k")
        await turns()
        assert isinstance(late.exception(), TimeoutError)
        assert after.done()
        assert mutex.snapshot() == {"k": Entry(ticket, ())}

    run(test())


def test_a_cancelled_waiter_leaves_the_queue() -> None:
    """KM-CANCEL, KM-REF"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        queue = [await start_waiter(mutex, "k") for _ in range(3)]
        order = waiters(mutex, "k")
        queue[1].cancel()
        await turns()
        assert queue[1].cancelled()
        assert waiters(mutex, "k") == (order[0], order[2])
        mutex.unlock("k")
        mutex.unlock("k")
        mutex.unlock("k")
        await turns()
        assert queue[0].done()
        assert queue[2].done()
        assert len(mutex) == 0

    run(test())


@pytest.mark.parametrize("grant_first", [True, False])
@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_cancellation_that_meets_a_grant_passes_the_key_on(grant_first: bool, behind: int) -> None:
    """KM-RACE, KM-HANDOFF, KM-IDLE: both in one step of the loop; the call raises, and does not hold."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        victim = await start_waiter(mutex, "k")
        others = [await start_waiter(mutex, "k") for _ in range(behind)]
        order = waiters(mutex, "k")
        if grant_first:
            mutex.unlock("k")
            victim.cancel()
        else:
            victim.cancel()
            mutex.unlock("k")
        await turns()
        assert victim.cancelled()
        assert [task.done() for task in others] == [True, False][:behind]
        assert mutex.snapshot() == ({"k": Entry(order[1], order[2:])} if behind else {})
        for task in others:
            mutex.unlock("k")
            await task
        assert len(mutex) == 0

    run(test())


def test_a_chain_of_cancelled_waiters_is_passed_over() -> None:
    """KM-RACE, KM-LIVE: granted one after the other, each already cancelled; the last one that lives holds."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        queue = [await start_waiter(mutex, "k") for _ in range(4)]
        order = waiters(mutex, "k")
        mutex.unlock("k")
        for task in queue[:3]:
            task.cancel()
        await turns()
        assert [task.cancelled() for task in queue[:3]] == [True] * 3
        await queue[3]
        assert mutex.snapshot() == {"k": Entry(order[3], ())}

    run(test())


def test_a_waiter_whose_task_is_thrown_away_leaves_no_ref() -> None:
    """KM-INTERRUPT: a closed coroutine gets a GeneratorExit in the wait."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        waiter = mutex.lock("k")
        waiter.send(None)
        assert len(waiters(mutex, "k")) == 1
        waiter.close()
        assert mutex.snapshot()["k"].refs == 1

    run(test())


def test_wait_for_around_lock_cancels_it() -> None:
    """KM-CANCEL: the timeout of a caller is a cancellation like any other."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(mutex.lock("k"), 0.01)
        assert mutex.snapshot()["k"].refs == 1

    run(test())


@pytest.mark.parametrize("key", [[], ([],), {}])
def test_an_unhashable_key_changes_nothing(key: Hashable) -> None:
    """KM-ATOMIC, KM-LOOP: the mutex does not even belong to the loop afterwards."""
    mutex = AsyncKeyedMutex()

    async def refused() -> None:
        with pytest.raises(TypeError, match="unhashable"):
            await mutex.lock(key)
        with pytest.raises(TypeError, match="unhashable"):
            mutex.unlock(key)
        with pytest.raises(TypeError, match="unhashable"):
            await mutex.hold(key).__aenter__()
        assert len(mutex) == 0

    run(refused())
    run(mutex.lock("k", 0))


def test_another_loop_is_refused_at_once_free_or_held() -> None:
    """KM-LOOP, KM-ATOMIC"""
    mutex = AsyncKeyedMutex()
    run(mutex.lock("held"))
    before = mutex.snapshot()

    async def refused() -> None:
        for key in ("held", "free"):
            with pytest.raises(
                WrongLoopError, match=r"^this AsyncKeyedMutex belongs to another event loop; make one for each loop$"
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


def test_it_belongs_to_its_loop_also_when_all_is_idle() -> None:
    """KM-LOOP"""
    mutex = AsyncKeyedMutex()

    async def once() -> None:
        async with mutex.hold("k"):
            pass

    run(once())
    assert len(mutex) == 0
    with pytest.raises(WrongLoopError):
        run(mutex.lock("k"))


def test_a_refused_call_does_not_bind_it_to_a_loop() -> None:
    """KM-LOOP, KM-ATOMIC"""
    mutex = AsyncKeyedMutex()

    async def refused() -> None:
        with pytest.raises(UnheldKeyError):
            mutex.unlock("k")
        with pytest.raises(ValueError, match="timeout"):
            await mutex.lock("k", -1)

    run(refused())
    run(mutex.lock("k"))
    assert "k" in mutex


def test_outside_a_loop_it_is_refused() -> None:
    """KM-LOOP: `unlock` is a plain call, and still wants the loop."""
    mutex = AsyncKeyedMutex()
    run(mutex.lock("k"))
    with pytest.raises(WrongLoopError, match=r"^an AsyncKeyedMutex is used from within a running event loop only$"):
        mutex.unlock("k")
    with pytest.raises(WrongLoopError, match="from within a running event loop only"):
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
        with pytest.raises(WrongLoopError, match="from within a running event loop only"):
            lease.release()
        assert mutex.snapshot() == before
        loop.run_until_complete(lease.__aexit__(None, None, None))
    finally:
        loop.close()
    assert len(mutex) == 0


def test_a_snapshot_is_frozen() -> None:
    """KM-REF"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        snapshot = mutex.snapshot()
        with pytest.raises(TypeError):
            del snapshot["k"]  # type: ignore[attr-defined]
        mutex.unlock("k")
        assert list(snapshot) == ["k"]

    run(test())


def test_a_lease_holds_for_its_block_also_on_an_error() -> None:
    """KM-TOKEN, KM-IDLE: and the error goes through."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()

        async def fails() -> None:
            async with mutex.hold("k") as lease:
                assert isinstance(lease, AsyncLease)
                assert "k" in mutex
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            await fails()
        assert len(mutex) == 0

    run(test())


def test_a_lease_takes_the_timeout_of_lock() -> None:
    """KM-EXPIRED, KM-CANCEL: the block does not run, and the lease may be tried again."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        lease = mutex.hold("k", 0)
        with pytest.raises(TimeoutError):
            await lease.__aenter__()
        assert mutex.snapshot()["k"].refs == 1
        mutex.unlock("k")
        async with lease:
            assert "k" in mutex
        with pytest.raises(ValueError, match="timeout"):
            await mutex.hold("k", -1).__aenter__()

    run(test())


def test_a_lease_releases_once() -> None:
    """KM-TOKEN, KM-UNHELD, KM-ATOMIC: on an idle key, and on one that a later holder has; nor does its block."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        async with mutex.hold("k") as lease:
            lease.release()
            with pytest.raises(UnheldKeyError, match="nobody holds"):
                lease.release()
            await mutex.lock("k")
            before = mutex.snapshot()
            with pytest.raises(UnheldKeyError, match="has ended"):
                lease.release()
        assert mutex.snapshot() == before

    run(test())


def test_a_lease_is_over_after_its_block() -> None:
    """KM-TOKEN, KM-UNHELD, KM-ATOMIC: a later holder is not touched."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        async with mutex.hold("k") as lease:
            pass
        with pytest.raises(UnheldKeyError, match="nobody holds"):
            lease.release()
        await mutex.lock("k")
        before = mutex.snapshot()
        with pytest.raises(UnheldKeyError, match="has ended"):
            lease.release()
        assert mutex.snapshot() == before

    run(test())


def test_a_lease_that_was_not_granted_releases_nothing() -> None:
    """KM-TOKEN, KM-ATOMIC"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        before = mutex.snapshot()
        with pytest.raises(UnheldKeyError):
            mutex.hold("k").release()
        assert mutex.snapshot() == before

    run(test())


def test_a_lease_whose_grant_was_ended_by_key_says_so_and_leaves_the_later_holder() -> None:
    """KM-TOKEN"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        lease = mutex.hold("k")
        await lease.__aenter__()
        mutex.unlock("k")
        await mutex.lock("k")
        with pytest.raises(UnheldKeyError, match="has ended"):
            await lease.__aexit__(None, None, None)
        assert mutex.snapshot()["k"].refs == 1

    run(test())


def test_a_lease_is_entered_once() -> None:
    """KM-TOKEN: neither inside its block nor after it."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        lease = mutex.hold("k")
        async with lease:
            before = mutex.snapshot()
            with pytest.raises(LeaseReusedError, match=r"^this lease of 'k' was used; call hold\(\) again$"):
                await lease.__aenter__()
            assert mutex.snapshot() == before
        with pytest.raises(LeaseReusedError):
            await lease.__aenter__()
        assert len(mutex) == 0

    run(test())


def test_a_lease_is_not_entered_again_while_it_waits() -> None:
    """KM-TOKEN, KM-ATOMIC: a failed entry leaves the lease as it was."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        lease = mutex.hold("k")
        first = asyncio.ensure_future(lease.__aenter__())
        await asyncio.sleep(0)
        assert len(mutex.snapshot()["k"].waiters) == 1
        with pytest.raises(LeaseReusedError):
            await lease.__aenter__()
        with pytest.raises(UnheldKeyError, match="has ended"):
            lease.release()
        assert len(mutex.snapshot()["k"].waiters) == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        mutex.unlock("k")
        async with lease:
            assert "k" in mutex

    run(test())


def test_a_waiter_whose_time_is_over_leaves_the_queue_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-CANCEL: in the step in which the timer fires, before its task runs again, so no grant can meet it there."""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        loop = asyncio.get_running_loop()
        fire: list[Callable[[], object]] = []

        def kept(delay: float, call: Callable[..., object], *arguments: object) -> asyncio.Handle:
            fire.append(lambda: call(*arguments))
            return asyncio.Handle(call, arguments, loop)

        with monkeypatch.context() as patch:
            patch.setattr(loop, "call_later", kept)
            waiter = asyncio.ensure_future(mutex.lock("k", timeout=60))
            await asyncio.sleep(0)
        assert len(mutex.snapshot()["k"].waiters) == 1
        fire[0]()
        assert mutex.snapshot()["k"].waiters == ()
        with pytest.raises(TimeoutError):
            await waiter
        mutex.unlock("k")

    run(test())


def test_a_cancelled_block_releases() -> None:
    """KM-TOKEN, KM-IDLE"""

    async def test() -> None:
        mutex = AsyncKeyedMutex()
        inside = asyncio.Event()

        async def work() -> None:
            async with mutex.hold("k"):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        await turns()
        assert task.cancelled()
        assert len(mutex) == 0

    run(test())


class WordlessKey:
    """A key whose words can't be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def test_a_key_without_words_ends_the_wait_all_the_same() -> None:
    """KM-CANCEL: the error is the key's own, and the waiter has left."""

    async def scenario() -> None:
        mutex, key = AsyncKeyedMutex(), WordlessKey()
        await mutex.lock(key)
        with pytest.raises(RuntimeError, match="no words"):
            await mutex.lock(key, timeout=0.001)
        assert mutex.snapshot()[key].waiters == ()

    asyncio.run(scenario())


def test_a_timeout_of_any_size_is_taken() -> None:
    """KM-EXPIRED: a number that no float can hold waits as long as need be."""

    async def scenario() -> None:
        mutex = AsyncKeyedMutex()
        await mutex.lock("k")
        waiter = asyncio.create_task(mutex.lock("k", timeout=10**400))
        while not mutex.snapshot()["k"].waiters:
            await asyncio.sleep(0)
        mutex.unlock("k")
        await waiter
        assert mutex.snapshot()["k"].waiters == ()

    asyncio.run(scenario())
