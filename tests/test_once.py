"""Work done once: `once` for threads and `async_once` for asyncio, behind the face of tests/driver.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any, Protocol, TypeVar

import pytest

from kmutex import AsyncNoopLocker, KeyedLocker, KeyedMutex, NoopLocker, async_once, once
from kmutex.engine.observer import Observer
from kmutex.engine.program import Step, parse
from kmutex.engine.search import Search
from kmutex.engine.threads import Bytecode, Crew, ThreadRun, replaced
from tests.driver import Driver, Tasks, Threads, at_once, both, tasks, turns, waiters

T = TypeVar("T")
Look = Callable[[], Awaitable[T | None]]
Do = Callable[[], Awaitable[T]]


class Killed(BaseException):
    """No Exception: what an interrupt or the end of a thread looks like."""


class Once(Protocol):
    async def __call__(self, driver: Driver, key: Hashable, look: Look[T], do: Do[T], /) -> T: ...


async def ours(driver: Driver, key: Hashable, look: Look[T], do: Do[T], timeout: float | None = None) -> T:
    """The one of this library that fits the driver."""
    if isinstance(driver, Tasks):
        return await async_once(driver.locker, key, look, do, timeout=timeout)
    return once(driver.locker, key, lambda: at_once(look()), lambda: at_once(do()), timeout=timeout)


async def nothing() -> None:
    """A look that finds nothing."""


async def never() -> Any:
    pytest.fail("was called")


def always(value: T) -> Callable[[], Awaitable[T]]:
    async def give() -> T:
        return value

    return give


# What every `once` must do; each is tried on known-bad ones below.


async def check_one_does_it_and_all_see_it(driver: Driver, subject: Once) -> None:
    """Eight at once: the first is kept in the work until the others wait."""
    done: dict[str, object] = {}
    calls: list[str] = []

    async def look() -> object | None:
        await driver.pause()
        return done.get("k")

    async def do() -> object:
        calls.append("do")
        if len(calls) == 1:
            await driver.until(lambda: len(waiters(driver.locker, "k")) == 7)
        done["k"] = object()
        return done["k"]

    clients = [driver.start(subject, driver, "k", look, do) for _ in range(8)]
    seen = {id(await driver.result(client)) for client in clients}
    assert calls == ["do"]
    assert seen == {id(done["k"])}
    assert len(driver.locker) == 0


async def check_a_failure_is_its_own_callers(driver: Driver, subject: Once, failure: type[BaseException]) -> None:
    """The leader fails while two wait: it alone fails, the second does the work, the third finds it."""
    done: dict[str, str] = {}
    calls: list[int] = []

    async def look() -> str | None:
        return done.get("k")

    def do_as(number: int) -> Do[str]:
        async def do() -> str:
            calls.append(number)
            if number == 0:
                await driver.until(lambda: len(waiters(driver.locker, "k")) == 2)
                raise failure(f"of {number}")
            done["k"] = f"by {number}"
            return done["k"]

        return do

    clients = []
    for number in range(3):
        clients.append(driver.start(subject, driver, "k", look, do_as(number)))
        await driver.until(lambda at=number: (calls and len(waiters(driver.locker, "k")) == at) or len(calls) > 1)  # type: ignore[misc]
    outcomes: list[BaseException | str] = []
    for client in clients:
        try:
            outcomes.append(await driver.result(client))
        except failure as error:
            outcomes.append(error)
    assert isinstance(outcomes[0], failure)
    assert [str(outcome) for outcome in outcomes] == ["of 0", "by 1", "by 1"]
    assert calls == [0, 1]
    assert len(driver.locker) == 0


async def check_what_is_done_is_not_done_again(driver: Driver, subject: Once) -> None:
    """A result that counts as false is a result: only None means that nothing is there."""
    for found in (0, "", (), False):
        assert await subject(driver, "k", always(found), never) == found
    assert len(driver.locker) == 0


async def check_a_failure_releases_the_key(driver: Driver, subject: Once, failure: type[BaseException]) -> None:
    """Waiters of such a key would wait forever, so the caller is alone."""

    async def do() -> str:
        raise failure

    with pytest.raises(failure):
        await subject(driver, "k", nothing, do)
    assert len(driver.locker) == 0


@both
async def test_one_does_it_and_all_see_it(driver: Driver) -> None:
    """KM-EXCL, KM-ONE, KM-RESULT, KM-RETURN: eight callers, one call of do."""
    await check_one_does_it_and_all_see_it(driver, ours)


@pytest.mark.parametrize("failure", [RuntimeError, Killed])
@both
async def test_a_failing_leader_fails_only_itself(driver: Driver, failure: type[BaseException]) -> None:
    """KM-HANDOFF, KM-INTERRUPT, KM-LEADER: whatever it raises, the next waiter takes over."""
    await check_a_failure_is_its_own_callers(driver, ours, failure)


@pytest.mark.parametrize("failure", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_leader_fails_only_itself(failure: type[BaseException]) -> None:
    """KM-HANDOFF, KM-INTERRUPT: for threads; in a task, these end the loop."""
    at_once(check_a_failure_is_its_own_callers(Threads(), ours, failure))


@pytest.mark.parametrize("failure", ["error", "cancelled"])
@tasks
async def test_a_failing_or_cancelled_task_fails_only_itself(driver: Tasks, failure: str) -> None:
    """KM-CANCEL, KM-HANDOFF, KM-LEADER, KM-FOLLOWER: the second does the work, a waiter that is cancelled leaves, the
    last finds it."""
    done: dict[str, str] = {}
    calls: list[int] = []
    fail = asyncio.Event()

    async def look() -> str | None:
        return done.get("k")

    async def do(number: int) -> str:
        calls.append(number)
        if number == 0:
            await fail.wait()
            raise RuntimeError("of 0")
        done["k"] = f"by {number}"
        return done["k"]

    clients = [driver.start(ours, driver, "k", look, lambda number=number: do(number)) for number in range(4)]
    await turns()
    assert (calls, len(waiters(driver.locker, "k"))) == ([0], 3)
    clients[2].cancel()
    if failure == "cancelled":
        clients[0].cancel()
    else:
        fail.set()
    results = await asyncio.gather(*clients, return_exceptions=True)
    first = asyncio.CancelledError if failure == "cancelled" else RuntimeError
    assert [type(result) for result in results] == [first, str, asyncio.CancelledError, str]
    assert results[1] == results[3] == "by 1"
    assert calls == [0, 1]
    assert len(driver.locker) == 0


@both
async def test_only_none_means_not_done(driver: Driver) -> None:
    await check_what_is_done_is_not_done_again(driver, ours)


@pytest.mark.parametrize("failure", [RuntimeError, Killed])
@both
async def test_a_failure_releases_the_key(driver: Driver, failure: type[BaseException]) -> None:
    """KM-IDLE, KM-FORGET"""
    await check_a_failure_releases_the_key(driver, ours, failure)


@both
async def test_a_look_that_fails_releases_the_key(driver: Driver) -> None:
    """KM-IDLE: do is not called, and the next caller is served."""

    async def look() -> str:
        raise OSError("no such store")

    with pytest.raises(OSError, match="no such store"):
        await ours(driver, "k", look, never)
    assert len(driver.locker) == 0
    assert await ours(driver, "k", nothing, always("done")) == "done"


@both
async def test_a_waiter_whose_time_is_over_calls_nothing(driver: Driver) -> None:
    """KM-CANCEL, KM-EXPIRED, KM-FOLLOWER: TimeoutError with the work under way, and the worker is not disturbed."""
    for timeout in (0, 0.001):
        await driver.lock("k")
        with pytest.raises(TimeoutError):
            await ours(driver, "k", never, never, timeout)
        assert waiters(driver.locker, "k") == ()
        driver.unlock("k")
    assert len(driver.locker) == 0
    assert await ours(driver, "k", nothing, always("free"), 0) == "free"


@pytest.mark.parametrize(
    ("key", "timeout", "error"), [("k", -1, ValueError), ("k", float("nan"), ValueError), ([], 1, TypeError)]
)
@both
async def test_arguments_are_the_lockers(driver: Driver, key: Any, timeout: float, error: type[Exception]) -> None:
    """KM-EXPIRED: a bad timeout or key is refused, with nothing called."""
    with pytest.raises(error):
        await ours(driver, key, never, never, timeout)
    assert len(driver.locker) == 0


@both
async def test_other_keys_go_on(driver: Driver) -> None:
    """KM-INDEP, KM-APART: work on one key while another is being worked on."""

    async def do() -> str:
        return await ours(driver, "b", nothing, always("inner"))

    assert await ours(driver, "a", nothing, do) == "inner"
    assert len(driver.locker) == 0


@both
async def test_with_the_no_op_all_do_it_at_the_same_time(driver: Driver) -> None:
    """Nothing is suppressed: four callers are in the work together, and none goes on before the last has come."""
    free = type(driver)(NoopLocker() if isinstance(driver, Threads) else AsyncNoopLocker())
    inside: list[None] = []

    async def do() -> int:
        inside.append(None)
        await free.until(lambda: len(inside) == 4)
        return len(inside)

    clients = [free.start(ours, free, "k", nothing, do) for _ in range(4)]
    assert [await free.result(client) for client in clients] == [4] * 4


def test_without_a_timeout_the_locker_is_given_none() -> None:
    """A locker whose ``hold`` takes a key and nothing else will do."""

    class Plain:
        def hold(self, key: str) -> nullcontext[None]:
            return nullcontext()

    async def nothing_yet() -> None:
        return None

    async def work() -> str:
        return "done"

    assert once(Plain(), "k", lambda: None, lambda: "done") == "done"
    assert asyncio.run(async_once(Plain(), "k", nothing_yet, work)) == "done"


# Known-bad ones.


async def forgets_to_release(driver: Driver, key: Hashable, look: Look[T], do: Do[T]) -> T:
    await driver.lock(key)
    found = await look()
    result = await do() if found is None else found
    driver.unlock(key)
    return result


async def looks_before_it_holds(driver: Driver, key: Hashable, look: Look[T], do: Do[T]) -> T:
    found = await look()
    async with driver.hold(key):
        return await do() if found is None else found


async def releases_for_exceptions_only(driver: Driver, key: Hashable, look: Look[T], do: Do[T]) -> T:
    await driver.lock(key)
    try:
        found = await look()
        result = await do() if found is None else found
    except Exception:
        driver.unlock(key)
        raise
    driver.unlock(key)
    return result


async def takes_false_for_nothing(driver: Driver, key: Hashable, look: Look[T], do: Do[T]) -> T:
    async with driver.hold(key):
        return await look() or await do()


def shares_the_failure() -> Once:
    """What a single flight does: whoever waits gets the leader's outcome, its failure too."""
    outcomes: dict[Hashable, BaseException] = {}

    async def shared(driver: Driver, key: Hashable, look: Look[T], do: Do[T]) -> T:
        async with driver.hold(key):
            found = await look()
            if found is not None:
                return found
            if key in outcomes:
                raise outcomes[key]
            try:
                return await do()
            except BaseException as error:
                outcomes[key] = error
                raise

    return shared


@both
async def test_the_checks_catch_one_that_looks_too_early(driver: Driver) -> None:
    with pytest.raises(AssertionError):
        await check_one_does_it_and_all_see_it(driver, looks_before_it_holds)


@pytest.mark.parametrize("failure", [RuntimeError, Killed])
@both
@pytest.mark.long
async def test_the_checks_catch_one_that_shares_a_failure(driver: Driver, failure: type[BaseException]) -> None:
    with pytest.raises(AssertionError):
        await check_a_failure_is_its_own_callers(driver, shares_the_failure(), failure)


@pytest.mark.parametrize(
    ("bad", "failure"), [(forgets_to_release, RuntimeError), (releases_for_exceptions_only, Killed)]
)
@both
async def test_the_checks_catch_one_that_keeps_the_key(driver: Driver, bad: Once, failure: type[BaseException]) -> None:
    with pytest.raises(AssertionError):
        await check_a_failure_releases_the_key(driver, bad, failure)


@both
async def test_the_checks_catch_one_that_takes_false_for_nothing(driver: Driver) -> None:
    with pytest.raises(pytest.fail.Exception):
        await check_what_is_done_is_not_done_again(driver, takes_false_for_nothing)


# Every interleaving, within a bound.


class Workplace:
    """A subject for the scheduler: to "lock" a letter is to want the work of that letter. The first attempt fails."""

    def __init__(self, subject: Once, make: Callable[[], KeyedLocker]) -> None:
        self._subject = subject
        self.locker = make()
        self.done: dict[Hashable, int] = {}
        self.attempts = 0
        self.finished = 0

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        async def look() -> int | None:
            return self.done.get(key)

        async def do() -> int:
            return self._do(key)

        at_once(self._subject(Threads(self.locker), key, look, do))

    def unlock(self, key: Hashable) -> None:
        """The work is done: there is nothing to release."""

    def _do(self, key: Hashable) -> int:
        self.attempts += 1
        number = self.attempts
        if number == 1:
            raise Killed
        self.finished += 1
        self.done[key] = number
        return number


class Outcome(Observer):
    """It keeps what was made and what was raised."""

    def __init__(self) -> None:
        self.subject: Any = None
        self.errors: list[BaseException] = []
        self.back = 0
        self.stuck: Mapping[int, Step] = {}

    def made(self, subject: Any) -> None:
        self.subject = subject

    def returned(self, client: int, step: Step) -> None:
        self.back += 1

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self.errors.append(error)

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self.stuck = waiting


CREW = Crew()


def every_way(subject: Once, make: Callable[[], KeyedLocker]) -> Iterator[Outcome]:
    """Three want the same work at once; switches at the lock operations and in this file's code, one preemption."""
    search = Search(1)
    for chooser in search:
        outcome = Outcome()
        with replaced():
            ThreadRun(
                lambda: Workplace(subject, make),
                parse("0+a 1+a 2+a"),
                chooser,
                outcome,
                crew=CREW,
                keys=lambda letter: letter,
                bytecode=Bytecode(lambda name: name == __file__),
            ).run()
        yield outcome
    assert search.complete


def exactly_one_fails_and_one_does_it(outcome: Outcome) -> bool:
    work = outcome.subject
    return (
        [type(error) for error in outcome.errors] == [Killed]
        and outcome.back == 2
        and not outcome.stuck
        and (work.attempts, work.finished) == (2, 1)
        and len(getattr(work.locker, "snapshot", dict)()) == 0
    )


def test_in_every_order_one_failure_is_one_and_the_work_is_done_once() -> None:
    """KM-EXCL, KM-HANDOFF: three callers, the first to work is killed; two ways that must fail do fail."""
    good = [exactly_one_fails_and_one_does_it(outcome) for outcome in every_way(ours, KeyedMutex)]
    assert len(good) > 10
    assert all(good)
    assert not all(exactly_one_fails_and_one_does_it(o) for o in every_way(looks_before_it_holds, KeyedMutex))
    assert not all(exactly_one_fails_and_one_does_it(o) for o in every_way(ours, NoopLocker))
