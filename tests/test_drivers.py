"""What the keyed mutex does for threads, asyncio and anyio alike; `tests/driver.py` has the face that they share."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any

import anyio
import pytest

from kmutex import Entry, KMutexError, LeaseReusedError, UnheldKeyError
from kmutex._lease import NO_TICKET
from tests.driver import DEADLINE, Cancellable, Driver, both, cancellable, every, waiters


async def never_runs(lease: AbstractAsyncContextManager[Any]) -> None:
    async with lease:
        raise AssertionError("the block ran")


@every
async def test_it_is_a_keyed_locker(driver: Driver) -> None:
    assert isinstance(driver.locker, driver.face)


@every
async def test_lock_takes_a_free_key_without_a_pause_and_unlock_drops_it(driver: Driver) -> None:
    """KM-EXCL, KM-REF, KM-IDLE"""
    mutex = driver.locker
    await driver.at_once(driver.lock("k"))
    assert "k" in mutex
    assert "other" not in mutex
    assert len(mutex) == 1
    entry = mutex.snapshot()["k"]
    assert (entry.waiters, entry.refs) == ((), 1)
    driver.unlock("k")
    assert "k" not in mutex
    assert len(mutex) == 0
    assert mutex.snapshot() == {}


@every
async def test_tickets_are_never_used_twice_and_never_the_one_that_means_none(driver: Driver) -> None:
    """KM-TOKEN"""
    seen = []
    for _ in range(3):
        await driver.lock("k")
        seen.append(driver.locker.snapshot()["k"].holder)
        driver.unlock("k")
    assert len(set(seen)) == 3
    assert NO_TICKET not in seen


@every
async def test_waiters_are_served_in_the_order_of_their_requests(driver: Driver) -> None:
    """KM-FIFO, KM-HANDOFF, KM-LIVE"""
    await driver.lock("k")
    queue = [await driver.start_waiter("k") for _ in range(4)]
    for served, waiter in enumerate(queue, 1):
        driver.unlock("k")
        await driver.result(waiter)
        assert [client.done() for client in queue] == [True] * served + [False] * (4 - served)
    driver.unlock("k")
    assert len(driver.locker) == 0


@every
async def test_a_newcomer_does_not_barge(driver: Driver) -> None:
    """KM-HANDOFF: the key belongs to the waiter from the unlock on, before its thread or task has run."""
    await driver.lock("k")
    waiter = await driver.start_waiter("k")
    (ticket,) = waiters(driver.locker, "k")
    driver.unlock("k")
    assert driver.locker.snapshot() == {"k": Entry(ticket, ())}
    with pytest.raises(TimeoutError):
        await driver.at_once(driver.lock("k", 0))
    await driver.result(waiter)
    assert driver.locker.snapshot() == {"k": Entry(ticket, ())}


@every
async def test_a_queue_on_one_key_does_not_delay_another(driver: Driver) -> None:
    """KM-INDEP: for threads, the guard is free while three of them wait."""
    await driver.lock("a")
    queue = [await driver.start_waiter("a") for _ in range(3)]

    async def elsewhere() -> int:
        await driver.at_once(driver.lock("b", 0))
        await driver.at_once(driver.lock("c"))
        driver.unlock("b")
        driver.unlock("c")
        return len(driver.locker)

    assert await driver.result(driver.start(elsewhere)) == 1
    assert len(waiters(driver.locker, "a")) == 3
    for waiter in queue:
        driver.unlock("a")
        await driver.result(waiter)


@pytest.mark.parametrize("how", ["lock", "hold"])
@every
async def test_clients_exclude_each_other(driver: Driver, how: str) -> None:
    """KM-EXCL, KM-LIVE: and somewhere in the run somebody waited, else it shows nothing."""
    inside = {"a": 0, "b": 0}
    most_refs = 0

    async def critical(key: str) -> None:
        nonlocal most_refs
        inside[key] += 1
        await driver.pause()
        assert inside[key] == 1
        most_refs = max(most_refs, driver.locker.snapshot()[key].refs)
        inside[key] -= 1

    async def work(key: str) -> None:
        for _ in range(100):
            if how == "hold":
                async with driver.hold(key):
                    await critical(key)
            else:
                await driver.lock(key)
                await critical(key)
                driver.unlock(key)

    await driver.lock("a")
    workers = [driver.start(work, key) for key in "aaabb"]
    await driver.until(lambda: len(waiters(driver.locker, "a")) == 3)
    driver.unlock("a")
    for worker in workers:
        await driver.result(worker)
    assert most_refs > 1
    assert len(driver.locker) == 0


@every
async def test_unlock_of_a_key_nobody_holds(driver: Driver) -> None:
    """KM-UNHELD, KM-ATOMIC"""
    await driver.lock("held")
    before = driver.locker.snapshot()
    with pytest.raises(UnheldKeyError, match="'k'"):
        driver.unlock("k")
    assert driver.locker.snapshot() == before
    driver.unlock("held")
    with pytest.raises(UnheldKeyError):
        driver.unlock("held")


@every
async def test_unlock_by_key_releases_the_holder_whoever_that_is(driver: Driver) -> None:
    """KM-TOKEN: another thread or task may unlock."""

    async def unlock() -> None:
        driver.unlock("k")

    await driver.lock("k")
    await driver.result(driver.start(unlock))
    assert len(driver.locker) == 0


@pytest.mark.parametrize("timeout", [0, 0.0, -0.0, False])
@every
async def test_timeout_0(driver: Driver, timeout: float) -> None:
    """KM-EXPIRED, KM-CANCEL: a free key is taken, a held one raises without a pause and leaves no trace."""
    await driver.at_once(driver.lock("k", timeout))
    before = driver.locker.snapshot()
    assert "k" in before
    with pytest.raises(TimeoutError, match=rf"^no grant of 'k' within {timeout} s$"):
        await driver.at_once(driver.lock("k", timeout))
    assert driver.locker.snapshot() == before


@pytest.mark.parametrize("timeout", [-1, -1e-9, -math.inf, math.nan])
@every
async def test_a_timeout_that_is_none_is_refused_free_or_held(driver: Driver, timeout: float) -> None:
    """KM-EXPIRED, KM-ATOMIC"""
    with pytest.raises(ValueError, match=r"^timeout must be None or at least 0 seconds, not "):
        await driver.lock("k", timeout)
    assert len(driver.locker) == 0
    await driver.lock("k")
    before = driver.locker.snapshot()
    with pytest.raises(ValueError, match="timeout"):
        await driver.lock("k", timeout)
    assert driver.locker.snapshot() == before


@pytest.mark.parametrize(
    "timeout",
    [
        math.inf,
        1e300,
        10**30,
        pytest.param(10**400, id="10**400"),
        threading.TIMEOUT_MAX,
        threading.TIMEOUT_MAX * 2,
    ],
)
@every
async def test_a_timeout_longer_than_any_wait_is_one(driver: Driver, timeout: float) -> None:
    """KM-EXPIRED: infinite, more than the platform's lock or the loop can be told, more than a float can hold."""
    await driver.lock("k", timeout)
    waiter = await driver.start_waiter("k", timeout)
    driver.unlock("k")
    await driver.result(waiter)
    assert waiters(driver.locker, "k") == ()


@pytest.mark.parametrize("timeout", ["1", 1j])
@every
async def test_a_timeout_of_a_wrong_type_leaves_no_trace(driver: Driver, timeout: float) -> None:
    """KM-ATOMIC"""
    await driver.lock("k")
    before = driver.locker.snapshot()
    with pytest.raises(TypeError):
        await driver.lock("k", timeout)
    assert driver.locker.snapshot() == before


@every
async def test_a_waiter_that_times_out_leaves_the_queue(driver: Driver) -> None:
    """KM-CANCEL, KM-REF: the others keep their order, and it never holds later."""
    await driver.lock("k")
    first = await driver.start_waiter("k")
    order = waiters(driver.locker, "k")
    with pytest.raises(TimeoutError, match=r"^no grant of 'k' within 0\.01 s$"):
        await driver.lock("k", 0.01)
    last = await driver.start_waiter("k")
    assert waiters(driver.locker, "k")[:1] == order
    assert driver.locker.snapshot()["k"].refs == 3
    for waiter in (first, last):
        driver.unlock("k")
        await driver.result(waiter)
    driver.unlock("k")
    assert len(driver.locker) == 0


@pytest.mark.parametrize("key", [[], ([],), {}])
@every
async def test_an_unhashable_key_changes_nothing(driver: Driver, key: Hashable) -> None:
    """KM-ATOMIC: also one that only turns out to be, inside a tuple. Undoing nothing adds no second error."""
    with pytest.raises(TypeError, match="unhashable") as refused:
        await driver.lock(key)
    assert refused.value.__context__ is None
    with pytest.raises(TypeError, match="unhashable"):
        driver.unlock(key)
    with pytest.raises(TypeError, match="unhashable"):
        await never_runs(driver.hold(key))
    assert len(driver.locker) == 0
    await driver.lock("k", 0)


@every
async def test_any_hashable_value_is_a_key(driver: Driver) -> None:
    """KM-INDEP: equal values are one key."""
    keys: list[Hashable] = [None, 0, "", (), ("a", 1), frozenset({1}), object()]
    for key in keys:
        await driver.lock(key, 0)
    assert len(driver.locker) == len(keys)
    with pytest.raises(TimeoutError):
        await driver.lock(0.0, 0)
    for key in keys:
        driver.unlock(key)
    assert len(driver.locker) == 0


class WordlessKey:
    """A key whose words can't be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


@every
async def test_a_key_without_words_ends_the_wait_all_the_same(driver: Driver) -> None:
    """KM-CANCEL: the error names its type, and the waiter has left."""
    key = WordlessKey()
    await driver.lock(key)
    with pytest.raises(TimeoutError, match=r"^no grant of <WordlessKey> within 0\.001 s$"):
        await driver.lock(key, 0.001)
    assert waiters(driver.locker, key) == ()


@every
async def test_it_is_not_reentrant(driver: Driver) -> None:
    """KM-EXCL: who holds the key waits for itself."""
    async with driver.hold("k"):
        with pytest.raises(TimeoutError):
            await driver.lock("k", 0.01)
    assert len(driver.locker) == 0


@every
async def test_a_snapshot_is_frozen(driver: Driver) -> None:
    """KM-REF"""
    await driver.lock("k")
    snapshot = driver.locker.snapshot()
    with pytest.raises(TypeError):
        del snapshot["k"]
    driver.unlock("k")
    assert list(snapshot) == ["k"]


@every
async def test_a_lease_holds_for_its_block(driver: Driver) -> None:
    """KM-TOKEN, KM-IDLE"""
    assert type(driver.locker.hold("k")) is driver.lease
    async with driver.hold("k"):
        assert "k" in driver.locker
    assert len(driver.locker) == 0


@every
async def test_a_lease_ends_with_its_block_also_on_an_error(driver: Driver) -> None:
    """KM-TOKEN, KM-IDLE: and the error goes through."""

    async def fails() -> None:
        async with driver.hold("k"):
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        await fails()
    assert len(driver.locker) == 0


@every
async def test_a_lease_takes_the_timeout_of_lock(driver: Driver) -> None:
    """KM-EXPIRED, KM-CANCEL, KM-ATOMIC: the block does not run, and the lease may be tried again."""
    await driver.lock("k")
    lease = driver.hold("k", 0)
    with pytest.raises(TimeoutError, match=r"^no grant of 'k' within 0 s$"):
        await never_runs(lease)
    assert driver.locker.snapshot()["k"].refs == 1
    driver.unlock("k")
    async with lease:
        assert "k" in driver.locker
    with pytest.raises(ValueError, match="timeout"):
        await never_runs(driver.hold("k", -1))
    assert len(driver.locker) == 0


@every
async def test_a_lease_released_early_is_not_released_again_by_its_block(driver: Driver) -> None:
    """KM-TOKEN: the holder after it is not touched."""
    async with driver.hold("k") as lease:
        lease.release()
        assert len(driver.locker) == 0
        await driver.lock("k")
        before = driver.locker.snapshot()
    assert driver.locker.snapshot() == before


@pytest.mark.parametrize("where", ["within", "after"])
@every
async def test_a_lease_is_released_once(driver: Driver, where: str) -> None:
    """KM-TOKEN, KM-UNHELD, KM-ATOMIC: before the end of its block or by it; a later holder is not touched."""

    async def a_second_release_is_refused() -> None:
        with pytest.raises(UnheldKeyError, match="nobody holds"):
            lease.release()
        await driver.lock("k")
        before = driver.locker.snapshot()
        with pytest.raises(UnheldKeyError, match="has ended"):
            lease.release()
        assert driver.locker.snapshot() == before

    async with driver.hold("k") as lease:
        if where == "within":
            lease.release()
            await a_second_release_is_refused()
    if where == "after":
        await a_second_release_is_refused()
    assert driver.locker.snapshot()["k"].refs == 1


@every
async def test_a_lease_that_was_not_granted_releases_nothing(driver: Driver) -> None:
    """KM-TOKEN, KM-ATOMIC"""
    await driver.lock("k")
    before = driver.locker.snapshot()
    with pytest.raises(UnheldKeyError):
        driver.locker.hold("k").release()
    assert driver.locker.snapshot() == before


@every
async def test_a_lease_whose_grant_was_ended_by_key_says_so_and_leaves_the_later_holder(driver: Driver) -> None:
    """KM-TOKEN"""
    lease = driver.hold("k")
    await lease.__aenter__()
    driver.unlock("k")
    await driver.lock("k")
    with pytest.raises(UnheldKeyError, match="has ended"):
        await lease.__aexit__(None, None, None)
    assert driver.locker.snapshot()["k"].refs == 1


@every
async def test_a_lease_is_entered_once(driver: Driver) -> None:
    """KM-TOKEN: neither inside its block nor after it."""
    lease = driver.hold("k")
    async with lease:
        before = driver.locker.snapshot()
        with pytest.raises(LeaseReusedError, match=r"^this lease of 'k' was used; call hold\(\) again$") as caught:
            await lease.__aenter__()
        assert driver.locker.snapshot() == before
    assert isinstance(caught.value, KMutexError)
    with pytest.raises(LeaseReusedError):
        await never_runs(lease)
    assert len(driver.locker) == 0


@every
async def test_a_lease_is_not_entered_again_while_it_waits(driver: Driver) -> None:
    """KM-TOKEN, KM-ATOMIC: the failed calls leave it where it waits."""
    await driver.lock("k")
    lease = driver.hold("k")
    first = driver.start(lease.__aenter__)
    await driver.until(lambda: waiters(driver.locker, "k"))
    with pytest.raises(LeaseReusedError):
        await lease.__aenter__()
    with pytest.raises(UnheldKeyError, match="has ended"):
        lease.release()
    assert len(waiters(driver.locker, "k")) == 1
    driver.unlock("k")
    assert await driver.result(first) is lease
    await lease.__aexit__(None, None, None)
    assert len(driver.locker) == 0


@every
async def test_leases_of_two_clients_hand_over(driver: Driver) -> None:
    """KM-HANDOFF, KM-TOKEN"""

    async def second() -> int:
        async with driver.hold("k"):
            return driver.locker.snapshot()["k"].holder  # type: ignore[no-any-return]

    async with driver.hold("k"):
        other = driver.start(second)
        await driver.until(lambda: waiters(driver.locker, "k"))
        (ticket,) = waiters(driver.locker, "k")
    assert await driver.result(other) == ticket
    assert len(driver.locker) == 0


@every
async def test_several_keys_are_held_by_one_request(driver: Driver) -> None:
    """KM-ALL, KM-EXCL, KM-IDLE: each once, by one ticket; none of them makes an empty block."""
    mutex = driver.locker
    async with driver.hold_all(["a", "b", "a"]) as lease:
        held = mutex.snapshot()
        assert set(held) == {"a", "b"}
        assert len({entry.holder for entry in held.values()}) == 1
        with pytest.raises(TimeoutError):
            await driver.lock("b", 0)
        await driver.lock("c", 0)
        lease.release()
        assert set(mutex.snapshot()) == {"c"}
    driver.unlock("c")
    async with driver.hold_all([]):
        assert len(mutex) == 0


@every
async def test_a_request_for_several_waits_in_all_queues_at_once(driver: Driver) -> None:
    """KM-ALL, KM-FIFO: who asks later for the one key that was free waits behind it, and gets it when it gives up."""
    mutex = driver.locker
    await driver.lock("a")

    async def both_keys() -> str:
        async with driver.hold_all(["b", "a"], DEADLINE):
            return "done"

    several = driver.start(both_keys)
    await driver.until(lambda: waiters(mutex, "a"))
    (ticket,) = waiters(mutex, "a")
    assert mutex.snapshot()["b"] == Entry(ticket, ())
    later = await driver.start_waiter("b")
    driver.unlock("a")
    assert await driver.result(several) == "done"
    await driver.result(later)
    assert mutex.snapshot()["b"].waiters == ()
    driver.unlock("b")
    assert len(mutex) == 0


@every
async def test_a_request_for_several_whose_time_is_over_leaves_all_queues(driver: Driver) -> None:
    """KM-ALL, KM-CANCEL, KM-EXPIRED: what it was first for goes to the next; timeout 0 takes its places not at all."""
    mutex = driver.locker
    await driver.lock("a")
    before = mutex.snapshot()
    for timeout in (0, 0.01):
        with pytest.raises(TimeoutError, match=rf"^no grant of \('b', 'a', 'c'\) within {timeout} s$"):
            await driver.hold_all(["b", "a", "c"], timeout).__aenter__()
        assert mutex.snapshot() == before
    driver.unlock("a")
    async with driver.hold_all(["b", "a", "c"], 0):
        assert len(mutex) == 3
    assert len(mutex) == 0


@every
async def test_two_that_name_their_keys_in_other_orders_never_wait_for_each_other(driver: Driver) -> None:
    """KM-ALL, KM-LIVE: a hundred times each, with others that take one of the keys alone."""

    async def work(*keys: str) -> None:
        for _ in range(100):
            async with driver.hold_all(keys):
                await driver.pause()

    orders = ("ab", "ba", "abc", "cab", "c", "b")
    for worker in [driver.start(work, *keys) for keys in orders]:
        await driver.result(worker)
    assert len(driver.locker) == 0


@every
async def test_a_failed_request_for_several_changes_nothing(driver: Driver) -> None:
    """KM-ALL, KM-ATOMIC: an argument that is none, and a text, which is one key."""
    mutex = driver.locker
    with pytest.raises(TypeError, match=r"^hold_all takes a list or set of keys, and 'ab' is one key$"):
        driver.hold_all("ab")
    with pytest.raises(TypeError, match="unhashable"):
        driver.hold_all(["a", ["b"]])
    with pytest.raises(ValueError, match="timeout"):
        await driver.hold_all(["a", "b"], -1).__aenter__()
    assert len(mutex) == 0


@every
async def test_a_lease_of_several_ends_its_own_grants(driver: Driver) -> None:
    """KM-ALL, KM-TOKEN: where one of them was unlocked by its key, the others are let go, and a later holder stays."""
    mutex = driver.locker
    lease = driver.hold_all(["a", "b", "c"])
    await lease.__aenter__()
    with pytest.raises(LeaseReusedError):
        await lease.__aenter__()
    driver.unlock("b")
    await driver.lock("b")
    with pytest.raises(UnheldKeyError, match="'b' has ended"):
        await lease.__aexit__(None, None, None)
    assert set(mutex.snapshot()) == {"b"}


class OnceOnly:
    """A key whose comparison fails as often as it is told to, once it has passed as often as it is told to."""

    passes = fails = 0

    def __hash__(self) -> int:
        return 0

    def __eq__(self, other: object) -> bool:
        if OnceOnly.passes:
            OnceOnly.passes -= 1
        elif OnceOnly.fails:
            OnceOnly.fails -= 1
            raise RuntimeError("no comparison")
        return self is other


@both
async def test_a_key_that_fails_among_several_leaves_none_held(driver: Driver) -> None:
    """KM-ALL, KM-ATOMIC: the places that were taken already are given back, and those of a wait that is over."""
    mutex = driver.locker
    first, second = OnceOnly(), OnceOnly()
    lease = driver.hold_all(["a", first, second])
    OnceOnly.fails = 1
    with pytest.raises(RuntimeError, match="no comparison"):
        await lease.__aenter__()
    assert OnceOnly.fails == 0
    assert len(mutex) == 0
    async with lease:
        assert len(mutex) == 3
    await driver.lock(first)
    for fails, left in ((1, {first}), (2, {first, second})):
        OnceOnly.passes, OnceOnly.fails = 2, fails  # Named and asked for; and given up, again and again.
        with pytest.raises(RuntimeError, match="no comparison"):
            await driver.hold_all([first, second, "b"], 0.01).__aenter__()
        assert OnceOnly.passes == OnceOnly.fails == 0
        assert set(mutex.snapshot()) == left
    OnceOnly.passes, OnceOnly.fails = 2, 1
    with pytest.raises(RuntimeError, match="no comparison"):
        await driver.lock(second, 0.01)
    assert OnceOnly.passes == OnceOnly.fails == 0
    assert waiters(mutex, second) == ()


@cancellable
async def test_a_cancelled_waiter_leaves_the_queue(driver: Cancellable) -> None:
    """KM-CANCEL, KM-REF, KM-FIFO"""
    mutex = driver.locker
    await driver.lock("k")
    queue = [await driver.start_waiter("k") for _ in range(3)]
    order = waiters(mutex, "k")
    queue[1].cancel()
    await driver.settle()
    assert queue[1].cancelled()
    assert waiters(mutex, "k") == (order[0], order[2])
    for _ in range(3):
        driver.unlock("k")
    await driver.settle()
    assert [client.done() for client in queue] == [True] * 3
    assert len(mutex) == 0


@pytest.mark.parametrize("grant_first", [True, False])
@pytest.mark.parametrize("behind", [0, 1, 2])
@cancellable
async def test_a_cancellation_that_meets_a_grant_passes_the_key_on(
    driver: Cancellable, behind: int, grant_first: bool
) -> None:
    """KM-RACE, KM-HANDOFF, KM-IDLE: in one turn, before the waiter's task runs; the call raises, and does not hold."""
    mutex = driver.locker
    await driver.lock("k")
    victim = await driver.start_waiter("k")
    others = [await driver.start_waiter("k") for _ in range(behind)]
    order = waiters(mutex, "k")
    if grant_first:
        driver.unlock("k")
        victim.cancel()
    else:
        victim.cancel()
        driver.unlock("k")
    await driver.settle()
    assert victim.cancelled()
    assert [client.done() for client in others] == [True, False][:behind]
    assert mutex.snapshot() == ({"k": Entry(order[1], order[2:])} if behind else {})
    for client in others:
        driver.unlock("k")
        await driver.result(client)
    assert len(mutex) == 0


@cancellable
async def test_a_chain_of_cancelled_waiters_is_passed_over(driver: Cancellable) -> None:
    """KM-RACE, KM-LIVE"""
    mutex = driver.locker
    await driver.lock("k")
    queue = [await driver.start_waiter("k") for _ in range(4)]
    order = waiters(mutex, "k")
    driver.unlock("k")
    for client in queue[:3]:
        client.cancel()
    await driver.settle()
    assert [client.cancelled() for client in queue] == [True] * 3 + [False]
    assert mutex.snapshot() == {"k": Entry(order[3], ())}


@pytest.mark.parametrize("first", [0, 1, 2])
@cancellable
async def test_a_cancelled_request_for_several_leaves_all_queues(driver: Cancellable, first: int) -> None:
    """KM-ALL, KM-CANCEL, KM-RACE: with none of its keys, with some, and in the step in which it got the last."""
    mutex = driver.locker
    keys = ["a", "b"]
    for key in keys:
        await driver.lock(key)
    victim = driver.start(driver.hold_all(["b", "a"]).__aenter__)
    await driver.settle()
    others = [await driver.start_waiter(key) for key in keys]
    for key in keys[:first]:
        driver.unlock(key)
        if key == "a":
            await driver.settle()
    victim.cancel()
    await driver.settle()
    assert victim.cancelled()
    assert [other.done() for other in others] == [True, True][:first] + [False, False][first:]
    for key in keys[first:] + keys:
        driver.unlock(key)
        await driver.settle()
    assert len(mutex) == 0


@cancellable
async def test_a_cancelled_block_releases(driver: Cancellable) -> None:
    """KM-TOKEN, KM-IDLE"""
    inside = anyio.Event()

    async def work() -> None:
        async with driver.hold("k"):
            inside.set()
            await anyio.sleep_forever()

    client = driver.start(work)
    await inside.wait()
    client.cancel()
    await driver.settle()
    assert client.cancelled()
    assert len(driver.locker) == 0
