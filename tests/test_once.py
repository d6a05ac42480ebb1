"""Work done once: `once` on threads, `async_once` on tasks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import pytest

from kmutex import AsyncKeyedMutex, AsyncNoopLocker, KeyedLocker, KeyedMutex, NoopLocker, async_once, once
from kmutex.engine.program import Step, parse
from kmutex.engine.search import Search
from kmutex.engine.threads import Bytecode, Crew, ThreadRun, replaced

T = TypeVar("T")
PATIENCE = 60.0
"""Seconds after which a state that never comes fails the test."""


class Killed(BaseException):
    """No Exception: what an interrupt or the end of a thread looks like."""


class Once(Protocol):
    def __call__(
        self, locker: KeyedLocker, key: Hashable, look: Callable[[], T | None], do: Callable[[], T], /
    ) -> T: ...


def reached(state: Callable[[], bool]) -> None:
    """Return when the state is there. It is looked at again and again, without a pause of any fixed length."""
    gate = threading.Event()
    for _ in range(int(PATIENCE * 1000)):
        if state():
            return
        gate.wait(0.001)
    raise AssertionError("the state was not reached")


def waiting(locker: KeyedMutex, key: Hashable) -> int:
    entry = locker.snapshot().get(key)
    return 0 if entry is None else len(entry.waiters)


# What every `once` must do; each is tried on known-bad ones below.


def check_one_does_it_and_all_see_it(subject: Once) -> None:
    """Eight at once: the first is kept in the work until the others wait."""
    locker = KeyedMutex()
    done: dict[str, object] = {}
    calls: list[str] = []

    def do() -> object:
        calls.append("do")
        if len(calls) == 1:
            reached(lambda: waiting(locker, "k") == 7)
        done["k"] = object()
        return done["k"]

    with ThreadPoolExecutor(8) as pool:
        results = [pool.submit(subject, locker, "k", lambda: done.get("k"), do) for _ in range(8)]
        seen = {id(result.result(PATIENCE)) for result in results}
    assert calls == ["do"]
    assert seen == {id(done["k"])}
    assert len(locker) == 0


def check_a_failure_is_its_own_callers(subject: Once, failure: type[BaseException]) -> None:
    """The leader fails while two wait: it alone fails, the second does the work, the third finds it."""
    locker = KeyedMutex()
    done: dict[str, str] = {}
    calls: list[int] = []
    started = threading.Event()

    def do_as(number: int) -> Callable[[], str]:
        def do() -> str:
            calls.append(number)
            if number == 0:
                started.set()
                reached(lambda: waiting(locker, "k") == 2)
                raise failure(f"of {number}")
            done["k"] = f"by {number}"
            return done["k"]

        return do

    with ThreadPoolExecutor(3) as pool:
        results: list[Future[str]] = []
        for number in range(3):
            results.append(pool.submit(subject, locker, "k", lambda: done.get("k"), do_as(number)))
            assert started.wait(PATIENCE)
            reached(lambda at=number: waiting(locker, "k") == at or len(calls) > 1)  # type: ignore[misc]
        errors = [result.exception(PATIENCE) for result in results]
    assert [type(error) for error in errors] == [failure, type(None), type(None)]
    assert str(errors[0]) == "of 0"
    assert [result.result() for result in results[1:]] == ["by 1", "by 1"]
    assert calls == [0, 1]
    assert len(locker) == 0


def check_what_is_done_is_not_done_again(subject: Once) -> None:
    """A result that counts as false is a result: only None means that nothing is there."""
    locker = KeyedMutex()
    for found in (0, "", (), False):
        assert subject(locker, "k", lambda found=found: found, lambda: pytest.fail("done twice")) == found  # type: ignore[misc]
    assert len(locker) == 0


def test_one_does_it_and_all_see_it() -> None:
    """KM-EXCL: eight callers, one call of do."""
    check_one_does_it_and_all_see_it(once)


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt, SystemExit, Killed])
def test_a_failing_leader_fails_only_itself(failure: type[BaseException]) -> None:
    """KM-HANDOFF, KM-INTERRUPT: whatever it raises, the next waiter takes over."""
    check_a_failure_is_its_own_callers(once, failure)


def test_only_none_means_not_done() -> None:
    check_what_is_done_is_not_done_again(once)


def test_a_look_that_fails_releases_the_key() -> None:
    """KM-IDLE: do is not called, and the next caller is served."""
    locker = KeyedMutex()

    def look() -> str:
        raise OSError("no such store")

    with pytest.raises(OSError, match="no such store"):
        once(locker, "k", look, lambda: pytest.fail("was called"))
    assert len(locker) == 0
    assert once(locker, "k", lambda: None, lambda: "done") == "done"


def test_a_waiter_whose_time_is_over_calls_nothing() -> None:
    """KM-CANCEL, KM-EXPIRED: TimeoutError with the work under way, and the worker is not disturbed."""
    locker = KeyedMutex()
    for timeout in (0, 0.001):
        locker.lock("k")
        with pytest.raises(TimeoutError):
            once(locker, "k", lambda: pytest.fail("looked"), lambda: pytest.fail("did"), timeout=timeout)
        assert waiting(locker, "k") == 0
        locker.unlock("k")
    assert len(locker) == 0
    assert once(locker, "k", lambda: None, lambda: "free", timeout=0) == "free"


@pytest.mark.parametrize(
    ("key", "timeout", "error"), [("k", -1, ValueError), ("k", float("nan"), ValueError), ([], 1, TypeError)]
)
def test_arguments_are_the_lockers(key: Any, timeout: float, error: type[Exception]) -> None:
    """KM-EXPIRED: a bad timeout or key is refused, with nothing called."""
    locker = KeyedMutex()
    with pytest.raises(error):
        once(locker, key, lambda: pytest.fail("looked"), lambda: pytest.fail("did"), timeout=timeout)
    assert len(locker) == 0


def test_other_keys_go_on() -> None:
    """KM-INDEP: work on one key while another is being worked on."""
    locker = KeyedMutex()
    assert once(locker, "a", lambda: None, lambda: once(locker, "b", lambda: None, lambda: "inner")) == "inner"
    assert len(locker) == 0


def test_with_the_no_op_all_do_it_at_the_same_time() -> None:
    """Nothing is suppressed: four callers are in the work together, or the barrier would break."""
    together = threading.Barrier(4, timeout=PATIENCE)
    with ThreadPoolExecutor(4) as pool:
        results = [pool.submit(once, NoopLocker(), "k", lambda: None, together.wait) for _ in range(4)]
        assert sorted(result.result() for result in results) == [0, 1, 2, 3]


# Known-bad ones.


def forgets_to_release(locker: KeyedLocker, key: Hashable, look: Callable[[], T | None], do: Callable[[], T]) -> T:
    locker.lock(key)
    found = look()
    result = do() if found is None else found
    locker.unlock(key)
    return result


def looks_before_it_holds(locker: KeyedLocker, key: Hashable, look: Callable[[], T | None], do: Callable[[], T]) -> T:
    found = look()
    with locker.hold(key):
        return do() if found is None else found


def releases_for_exceptions_only(
    locker: KeyedLocker, key: Hashable, look: Callable[[], T | None], do: Callable[[], T]
) -> T:
    locker.lock(key)
    try:
        found = look()
        result = do() if found is None else found
    except Exception:
        locker.unlock(key)
        raise
    locker.unlock(key)
    return result


def takes_false_for_nothing(locker: KeyedLocker, key: Hashable, look: Callable[[], T | None], do: Callable[[], T]) -> T:
    with locker.hold(key):
        return look() or do()


class SharesTheFailure:
    """What a single flight does: whoever waits gets the leader's outcome, its failure too."""

    def __init__(self) -> None:
        self.outcomes: dict[Hashable, BaseException] = {}

    def __call__(self, locker: KeyedLocker, key: Hashable, look: Callable[[], T | None], do: Callable[[], T]) -> T:
        with locker.hold(key):
            found = look()
            if found is not None:
                return found
            if key in self.outcomes:
                raise self.outcomes[key]
            try:
                return do()
            except BaseException as error:
                self.outcomes[key] = error
                raise


def test_the_checks_catch_one_that_looks_too_early() -> None:
    with pytest.raises(AssertionError):
        check_one_does_it_and_all_see_it(looks_before_it_holds)


@pytest.mark.parametrize(
    ("bad", "failure"),
    [
        (SharesTheFailure(), RuntimeError),
        (SharesTheFailure(), Killed),
    ],
)
def test_the_checks_catch_one_that_shares_a_failure(bad: Once, failure: type[BaseException]) -> None:
    with pytest.raises(AssertionError):
        check_a_failure_is_its_own_callers(bad, failure)


@pytest.mark.parametrize(
    ("bad", "failure"), [(forgets_to_release, RuntimeError), (releases_for_exceptions_only, Killed)]
)
def test_the_checks_catch_one_that_keeps_the_key(bad: Once, failure: type[BaseException]) -> None:
    """Waiters of such a key would wait for ever, so it is alone here; the good one passes the same."""

    def keeps(subject: Once) -> int:
        locker = KeyedMutex()

        def do() -> str:
            raise failure

        with pytest.raises(failure):
            subject(locker, "k", lambda: None, do)
        return len(locker)

    assert keeps(bad) == 1
    assert keeps(once) == 0


def test_the_checks_catch_one_that_takes_false_for_nothing() -> None:
    with pytest.raises(pytest.fail.Exception):
        check_what_is_done_is_not_done_again(takes_false_for_nothing)


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
        self._subject(self.locker, key, lambda: self.done.get(key), lambda: self._do(key))

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


class Outcome:
    """An `Observer` that keeps what was made and what was raised."""

    stopped = False

    def __init__(self) -> None:
        self.subject: Any = None
        self.errors: list[BaseException] = []
        self.back = 0
        self.stuck: Mapping[int, Step] = {}

    def made(self, subject: Any) -> None:
        self.subject = subject

    def phase(self, number: int) -> None: ...

    def called(self, client: int, step: Step) -> None: ...

    def returned(self, client: int, step: Step) -> None:
        self.back += 1

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self.errors.append(error)

    def cancelled(self, client: int) -> None: ...

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
    good = [exactly_one_fails_and_one_does_it(outcome) for outcome in every_way(once, KeyedMutex)]
    assert len(good) > 10
    assert all(good)
    assert not all(exactly_one_fails_and_one_does_it(o) for o in every_way(looks_before_it_holds, KeyedMutex))
    assert not all(exactly_one_fails_and_one_does_it(o) for o in every_way(once, NoopLocker))


# asyncio.


async def settled(state: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if state():
            return
        await asyncio.sleep(0)
    raise AssertionError("the state was not reached")


def async_waiting(locker: AsyncKeyedMutex, key: Hashable) -> int:
    entry = locker.snapshot().get(key)
    return 0 if entry is None else len(entry.waiters)


def test_one_task_does_it_and_all_see_it() -> None:
    """KM-EXCL: five tasks, one call of do."""

    async def main() -> None:
        locker = AsyncKeyedMutex()
        done: dict[str, object] = {}
        calls = []

        async def look() -> object | None:
            await asyncio.sleep(0)
            return done.get("k")

        async def do() -> object:
            calls.append("do")
            await settled(lambda: async_waiting(locker, "k") == 4)
            done["k"] = object()
            return done["k"]

        results = await asyncio.gather(*(async_once(locker, "k", look, do) for _ in range(5)))
        assert {id(result) for result in results} == {id(done["k"])}
        assert calls == ["do"]
        assert len(locker) == 0

    asyncio.run(main())


@pytest.mark.parametrize("failure", ["error", "cancelled"])
def test_a_failing_or_cancelled_task_fails_only_itself(failure: str) -> None:
    """KM-CANCEL, KM-HANDOFF: the second does the work, a waiter that is cancelled leaves, the last finds it."""

    async def main() -> None:
        locker = AsyncKeyedMutex()
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

        def start(number: int) -> asyncio.Task[str]:
            return asyncio.create_task(async_once(locker, "k", look, lambda: do(number)))

        tasks = [start(number) for number in range(4)]
        await settled(lambda: calls == [0] and async_waiting(locker, "k") == 3)
        tasks[2].cancel()
        if failure == "cancelled":
            tasks[0].cancel()
        else:
            fail.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        first = asyncio.CancelledError if failure == "cancelled" else RuntimeError
        assert [type(result) for result in results] == [first, str, asyncio.CancelledError, str]
        assert results[1] == results[3] == "by 1"
        assert calls == [0, 1]
        assert len(locker) == 0

    asyncio.run(main())


def test_a_task_whose_time_is_over_calls_nothing() -> None:
    """KM-CANCEL, KM-EXPIRED: with the key held, and at once where the timeout is 0."""

    async def main() -> None:
        locker = AsyncKeyedMutex()

        async def never() -> str:
            pytest.fail("was called")

        for timeout in (0, 0.001):
            await locker.lock("k")
            with pytest.raises(TimeoutError):
                await async_once(locker, "k", never, never, timeout=timeout)
            locker.unlock("k")
        assert len(locker) == 0

    asyncio.run(main())


def test_with_the_no_op_all_tasks_do_it() -> None:
    """Three tasks are in the work together: none goes on before the last has come."""

    async def main() -> None:
        inside = 0

        async def look() -> None:
            return None

        async def do() -> int:
            nonlocal inside
            inside += 1
            await settled(lambda: inside == 3)
            return inside

        assert await asyncio.gather(*(async_once(AsyncNoopLocker(), "k", look, do) for _ in range(3))) == [3, 3, 3]

    asyncio.run(main())
