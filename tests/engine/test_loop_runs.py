"""Runs on an event loop whose next step is a choice: what keeps its order, and what is free."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from kmutex.engine.eventloop import LoopRun
from kmutex.engine.observer import Ending, SubjectFailedError, UncontrolledError
from kmutex.engine.program import Step, parse
from kmutex.engine.search import Chooser, Search
from tests.engine.event_log import EventLog


class Log(EventLog):
    """Without the phases."""

    def phase(self, number: int) -> None:
        pass


def ran(
    make: Callable[[], Any], text: str, chooser: Chooser | None = None, *, timeouts: bool = False
) -> tuple[Ending, Log]:
    log = Log()
    run = LoopRun(make, parse(text), chooser or Chooser(), log, keys=str, timeouts=timeouts)
    return run.run(), log


def every(make: Callable[[], Any], text: str, bound: int, *, timeouts: bool = False) -> list[Log]:
    found = []
    for chooser in Search(bound):
        ending, log = ran(make, text, chooser, timeouts=timeouts)
        assert ending is Ending.DONE
        found.append(log)
    return found


class OneLock:
    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def lock(self, key: str, timeout: float | None = None) -> None:
        await asyncio.wait_for(self._lock.acquire(), timeout)

    def unlock(self, key: str) -> None:
        self._lock.release()


class Steps:
    """Two callbacks are made ready at each call, one after the other; what ran is written down."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    async def lock(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        loop.call_soon(self.ran.append, f"{key} first")
        loop.call_soon(self.ran.append, f"{key} second")
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def unlock(self, key: str) -> None:
        """Nothing to do."""


def test_ready_callbacks_keep_their_order() -> None:
    """In every way within two preemptions; and the ways differ in when a client comes."""
    logs = every(Steps, "0+a 1+b", 2)
    for log in logs:
        for key in "ab":
            assert log.subject.ran.index(f"{key} first") < log.subject.ran.index(f"{key} second")
    assert len({tuple(log.subject.ran) for log in logs}) > 1


class Phases:
    """Three steps of the loop, each written down, and so is the cancellation."""

    def __init__(self) -> None:
        self.seen: list[int | str] = []

    async def lock(self, key: str) -> None:
        try:
            for step in range(3):
                self.seen.append(step)
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            raise
        self.seen.append("done")

    def unlock(self, key: str) -> None:
        """Nothing to do."""


def test_a_cancellation_may_strike_at_every_step() -> None:
    """After each of the three, or not at all; never twice."""
    seen = {tuple(log.subject.seen) for log in every(Phases, "0~a", 0)}
    assert seen == {(*range(steps), "cancelled") for steps in (1, 2, 3)} | {(0, 1, 2, "done")}


def test_a_wait_ends_because_its_task_is_cancelled_or_its_time_is_over() -> None:
    """Both are ways that the same program can take, and so is that the key comes first."""
    for timeouts, error in ((False, "CancelledError"), (True, "TimeoutError")):
        logs = every(OneLock, "0+a | 1~a | 0-a", 1, timeouts=timeouts)
        ends = {log.lines[-2].partition(" a")[2] for log in logs if log.lines[-2].startswith("1 ")}
        ends |= {line.partition(" a")[2] for log in logs for line in log.lines if line.startswith("1 lock, may")}
        assert {"", f": {error}"} <= ends


class Noisy:
    """Everybody is woken when a wait ends, and waits on for what is left of its time."""

    def __init__(self) -> None:
        self._held = False
        self._waiters: list[asyncio.Future[None]] = []

    async def lock(self, key: str, timeout: float | None = None) -> None:
        loop = asyncio.get_running_loop()
        ends = None if timeout is None else loop.time() + timeout
        while self._held:
            self._waiters.append(loop.create_future())
            try:
                await asyncio.wait_for(self._waiters[-1], self._left(ends, loop.time(), timeout))
            except BaseException:
                self._wake()
                raise
        self._held = True

    def _left(self, ends: float | None, now: float, timeout: float | None) -> float | None:
        return None if ends is None else ends - now

    def unlock(self, key: str) -> None:
        self._held = False
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()


class NoisyAnew(Noisy):
    """The same, for all of its time again."""

    def _left(self, ends: float | None, now: float, timeout: float | None) -> float | None:
        return timeout


def test_a_time_that_begins_anew_is_overdue() -> None:
    """KM-EXPIRED, KM-CANCEL: 1 is woken by the end of 2, when the time of both is over."""
    for make, last in ((Noisy, "quiet [] []"), (NoisyAnew, "quiet [1] [1]")):
        ending, log = ran(make, "0+a | 1~a | 2~a | c2", timeouts=True)
        assert ending is Ending.DONE
        assert "2 lock (cancellable) a: TimeoutError" in log.lines
        assert log.lines[-1] == last


class Late(OneLock):
    """Lets the others go on before it sets its timer."""

    async def lock(self, key: str, timeout: float | None = None) -> None:
        await asyncio.sleep(0)
        await super().lock(key, timeout)


@pytest.mark.parametrize("make", [OneLock, Noisy, Late])
@pytest.mark.parametrize("text", ["0+a | 1~a 2~a | c1 c2 | 0-a", "0+a | 1~a | 2~a | 0-a"])
def test_a_timer_that_is_set_late_is_not_overdue(make: Callable[[], Any], text: str) -> None:
    """Where another's time ends between a call and its timer."""
    for log in every(make, text, 1, timeouts=True):
        assert all(line.endswith("[]") for line in log.lines if line.startswith("quiet"))


class Timers:
    """Notes what its timers did, in their order."""

    def __init__(self) -> None:
        self.fired: list[tuple[str, float]] = []

    async def lock(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        loop.call_later(0.2, lambda: self.fired.append(("late", loop.time() - begun)))
        loop.call_later(0.1, lambda: self.fired.append(("early", loop.time() - begun)))
        loop.call_later(0.15, lambda: self.fired.append(("never", 0.0))).cancel()
        await asyncio.sleep(0.3)

    def unlock(self, key: str) -> None:
        """Nothing to do."""


def test_timers_fire_in_the_order_of_their_ends() -> None:
    """On the virtual clock, with those polls that a wait is granted; a cancelled one does not."""
    _, log = ran(Timers, "0+a")
    assert [name for name, _ in log.subject.fired] == ["early", "late"]
    assert [round(at, 6) for _, at in log.subject.fired] == [0.1, 0.2]


class Spins:
    """Waits by asking at every step of the loop."""

    def __init__(self) -> None:
        self._held = False

    async def lock(self, key: str) -> None:
        while self._held:
            await asyncio.sleep(0)
        self._held = True

    def unlock(self, key: str) -> None:
        self._held = False


def test_spinning_counts_as_waiting() -> None:
    """It comes to rest, and goes on when something has happened."""
    ending, log = ran(Spins, "0+a | 1+a | 0-a")
    assert ending is Ending.DONE
    assert "quiet [1] []" in log.lines
    assert log.lines[-2:] == ["1 lock a", "quiet [] []"]


class Busy(Spins):
    """Each call begins many tasks that have an end, and waits for them."""

    async def lock(self, key: str) -> None:
        for _ in range(200):
            await asyncio.ensure_future(asyncio.sleep(0))
        await super().lock(key)


def test_much_work_is_not_taken_for_spinning() -> None:
    """A call that takes 200 tasks, one after the other, is not waiting."""
    ending, log = ran(Busy, "0+a")
    assert ending is Ending.DONE
    assert log.lines == ["quiet [] []", "0 lock a ...", "0 lock a", "quiet [] []"]


class Forever(Spins):
    """Begins one task after the other, without an end."""

    async def lock(self, key: str) -> None:
        while True:
            await asyncio.ensure_future(asyncio.sleep(0))


def test_a_run_without_an_end_is_called_so() -> None:
    assert ran(Forever, "0+a")[0] is Ending.ENDLESS


class InAThread(Spins):
    async def lock(self, key: str) -> None:
        await asyncio.to_thread(lambda: None)


def test_work_for_an_executor_is_out_of_control() -> None:
    """The run ends with the scheduler's own error, which is no answer of the subject's."""
    with pytest.raises(UncontrolledError, match="executor"):
        ran(InAThread, "0+a")


class Fails(Log):
    def __init__(self, at: str) -> None:
        super().__init__()
        self._at = at

    def called(self, client: int, step: Step) -> None:
        self._fail("called")

    def returned(self, client: int, step: Step) -> None:
        self._fail("returned")

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self._fail("quiet")

    def _fail(self, at: str) -> None:
        if at == self._at:
            raise LookupError(f"the observer fails when it is told of {at}")


@pytest.mark.parametrize("at", ["called", "returned", "quiet"])
def test_an_error_of_the_observer_surfaces(at: str) -> None:
    """It is not lost in a task."""
    with pytest.raises(LookupError, match=f"told of {at}"):
        LoopRun(OneLock, parse("0+a"), Chooser(), Fails(at), keys=str).run()


class CanNotBeMade:
    def __init__(self) -> None:
        raise ValueError("no\nway")


def test_a_factory_that_fails_is_no_finding() -> None:
    with pytest.raises(SubjectFailedError, match=r"^the factory raised ValueError: no$"):
        ran(CanNotBeMade, "0+a")


def test_the_same_picks_give_the_same_events() -> None:
    """And the search shows more than one outcome."""
    seen = []
    for chooser in Search(2):
        _, log = ran(OneLock, "0+a-a 1~a 2+a-a", chooser)
        picks = [pick for pick, _ in chooser.path]
        assert ran(OneLock, "0+a-a 1~a 2+a-a", Chooser(picks))[1].lines == log.lines
        seen.append(tuple(log.lines))
    assert len(set(seen)) > 1


def test_the_loop_that_ran_before_runs_again() -> None:
    async def within() -> bool:
        loop = asyncio.get_running_loop()
        ran(OneLock, "0+a")
        return asyncio.get_running_loop() is loop

    assert asyncio.run(within())
