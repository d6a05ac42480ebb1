"""The recorders: logs of real lockers, good and bad, from threads and tasks; and that they do the locker no harm."""

from __future__ import annotations

import asyncio
import io
import json
import random
from collections.abc import Callable, Hashable, Mapping
from types import ModuleType
from typing import Any

import pytest

from kmutex import (
    AsyncKeyedLocker,
    AsyncKeyedMutex,
    AsyncNoopLocker,
    Entry,
    KeyedLocker,
    KeyedMutex,
    NoopLocker,
    UnheldKeyError,
)
from kmutex.testing import fit
from kmutex.trace import AsyncRecorder, Recorder
from kmutex.trace.check import LogReport
from kmutex.trace.reader import check
from tests.driver import DEADLINE, Driver, Tasks, Threads, both, start, tasks, until, waiters
from tests.lockers import asyncio_bad, shapes_asyncio, shapes_threads, threads_bad


def judged(out: io.StringIO) -> LogReport:
    return check(io.BytesIO(out.getvalue().encode()))


def kinds(out: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in out.getvalue().splitlines()[1:]]


def outcome(report: LogReport, clause: str) -> tuple[str, int]:
    row = next(row for row in report.clauses if row.clause == clause)
    return row.outcome.value, row.judged


def shown(base: type) -> Any:
    """The same locker with a snapshot: of its queues, without names."""

    class Shown(base):  # type: ignore[misc]
        def snapshot(self) -> Mapping[Hashable, Entry]:
            return {key: Entry(0, tuple(range(1, len(queue) + 1))) for key, queue in list(self._queues.items())}

        def hold(self, key: Hashable, timeout: float | None = None) -> Any:
            raise NotImplementedError

    return Shown()


def recorded(driver: Driver, out: io.StringIO, locker: Any = None) -> Driver:
    """A driver of the same kind whose calls are written to ``out``: of the same locker, or the one given."""
    kind = type(driver)
    return kind((Recorder if kind is Threads else AsyncRecorder)(driver.locker if locker is None else locker, out))


def bad(driver: Driver) -> ModuleType:
    """The known-bad lockers of its kind."""
    return threads_bad if isinstance(driver, Threads) else asyncio_bad


async def served_in_turn(driver: Driver, locker: Any, out: io.StringIO) -> LogReport:
    """One holds, three queue one after the other, each seen in the queue before the next asks."""
    km = recorded(driver, out, locker)

    async def one() -> None:
        await km.lock("k")
        km.unlock("k")

    await km.lock("k")
    clients = []
    for number in range(1, 4):
        clients.append(km.start(one))
        await km.until(lambda number=number: len(waiters(locker, "k")) == number)  # type: ignore[misc]
        assert km.locker.observe() == 1
        assert km.locker.observe() == 0
    km.unlock("k")
    for client in clients:
        await km.result(client)
    km.locker.close()
    return judged(out)


# -- what it tells -----------------------------------------------------------------------------------------------------


@both
async def test_waiters_that_were_seen_are_judged_in_order(driver: Driver) -> None:
    """KM-FIFO, KM-LIVE, KM-IDLE: with `observe`, from outside."""
    report = await served_in_turn(driver, driver.locker, io.StringIO())
    assert (report.verdict.value, report.notes, report.unknown) == ("pass", (), ())
    assert outcome(report, "KM-FIFO") == ("holds", 2)
    assert outcome(report, "KM-EXCL") == ("holds", 3)
    assert outcome(report, "KM-LIVE") == ("holds", 3)
    assert outcome(report, "KM-IDLE") == ("holds", 1)
    assert outcome(report, "KM-INDEP") == ("holds", 3)


@both
async def test_a_locker_that_serves_the_youngest_fails(driver: Driver) -> None:
    """KM-FIFO: tests/lockers, LastInFirstOut; the line is the grant of the one who was overtaken."""
    out = io.StringIO()
    report = await served_in_turn(driver, shown(bad(driver).LastInFirstOut), out)
    (finding,) = report.findings
    assert finding.clause == "KM-FIFO"
    assert json.loads(out.getvalue().splitlines()[finding.line - 1])["event"] == "grant"
    assert finding.call == 3
    good = await served_in_turn(driver, shown(bad(driver).Handing), io.StringIO())
    assert outcome(good, "KM-FIFO") == ("holds", 2)


def test_many_threads_and_keys_pass() -> None:
    """KM-EXCL, KM-UNHELD, KM-TOKEN: locks, tries, timeouts and leases, on a few keys, at random."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    out = io.StringIO()
    locker = KeyedMutex()
    km = Recorder(locker, out)

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        km.lock("a")
        km.unlock("a")
        for _ in range(150):
            key: Hashable = rng.choice(["a", "b", ("c", 1)])
            try:
                if rng.random() < 0.5:
                    km.lock(key, rng.choice([None, 0, 0.0005]))
                    km.unlock(key)
                else:
                    with km.hold(key, rng.choice([None, 0, 0.0005])) as lease:
                        if rng.random() < 0.3:
                            lease.release()
            except TimeoutError:
                pass

    km.lock("a")
    threads = [start(work, number) for number in range(6)]
    until(lambda: len(waiters(locker, "a")) == len(threads))
    km.unlock("a")
    until(lambda: km.observe() < 0 or all(thread.done() for thread in threads))
    for thread in threads:
        thread.result(DEADLINE)
    with pytest.raises(UnheldKeyError):
        km.unlock("a")
    with km.hold("a") as lease:
        lease.release()
        with pytest.raises(UnheldKeyError):
            lease.release()
    km.close()
    report = judged(out)
    assert (report.verdict.value, report.findings, report.unknown, report.notes) == ("pass", (), (), ())
    assert outcome(report, "KM-EXCL")[0] == outcome(report, "KM-IDLE")[0] == "holds"
    assert outcome(report, "KM-UNHELD") == outcome(report, "KM-TOKEN") == ("holds", 1)
    assert report.most_live_calls > 1


@both
async def test_a_locker_that_locks_nothing_fails(driver: Driver) -> None:
    """KM-EXCL: the no-op, by calls and by leases, and tests/lockers, WeakRegistry."""
    noop = NoopLocker() if isinstance(driver, Threads) else AsyncNoopLocker()
    for locker, how in ((noop, "lock"), (noop, "hold"), (bad(driver).WeakRegistry(), "lock")):
        out = io.StringIO()
        km = recorded(driver, out, locker)
        await km.lock("k")
        if how == "hold":
            async with km.hold("k"):
                pass
        else:
            await km.result(km.start(km.lock, "k"))
        (finding,) = judged(out).findings
        assert (finding.clause, finding.line, finding.call, finding.key) == ("KM-EXCL", 5, 2, "k")


@both
async def test_a_stray_unlock_that_is_accepted_fails(driver: Driver) -> None:
    """KM-UNHELD: tests/lockers, StrayUnlockAccepted."""
    out = io.StringIO()
    recorded(driver, out, bad(driver).StrayUnlockAccepted()).unlock("k")
    assert [found.clause for found in judged(out).findings] == ["KM-UNHELD"]


def test_a_lease_that_is_released_twice_fails() -> None:
    """KM-TOKEN: tests/lockers, LeaseReleasedTwice; the second release ends somebody else's grant."""
    out = io.StringIO()
    km = Recorder(threads_bad.LeaseReleasedTwice(), out)
    with km.hold("k") as lease:
        lease.release()
        km.lock("k")
        lease.release()
    (finding,) = judged(out).findings
    assert (finding.clause, finding.call) == ("KM-TOKEN", 1)


@both
async def test_an_entry_that_stays_fails_at_the_end(driver: Driver) -> None:
    """KM-IDLE: tests/lockers, NeverEvicts; seen by the length that `close` writes."""
    out = io.StringIO()
    km = recorded(driver, out, bad(driver).NeverEvicts())
    await km.lock("k")
    km.unlock("k")
    km.locker.close()
    assert [found.clause for found in judged(out).findings] == ["KM-IDLE"]


@both
async def test_a_waiter_that_is_left_at_the_end_fails(driver: Driver) -> None:
    """KM-LIVE; without `close` it is unfinished. KM-IDLE for the holder."""
    out = io.StringIO()
    km = recorded(driver, out)
    await km.lock("k")
    waiting = km.start(km.lock, "k")
    await km.until(lambda: waiters(driver.locker, "k"))
    assert judged(out).verdict.value == "pass"
    assert outcome(judged(out), "KM-LIVE")[0] == "unknown"
    km.locker.close()
    assert {found.clause for found in judged(out).findings} == {"KM-IDLE", "KM-LIVE"}
    km.unlock("k")
    await km.result(waiting)


@both
async def test_an_unlock_of_the_grant_of_another_is_no_violation(driver: Driver) -> None:
    """KM-TOKEN: `unlock(key)` is by key. The lease's own release then fails, and nothing is said of that key."""
    out = io.StringIO()
    km = recorded(driver, out)
    lease = km.hold("k")
    await lease.__aenter__()
    km.unlock("k")
    with pytest.raises(UnheldKeyError):
        await lease.__aexit__(None, None, None)
    report = judged(out)
    assert (report.verdict.value, report.findings) == ("unknown", ())
    assert "may have ended another call" in report.unknown[0]


@both
async def test_the_lines_and_their_fields(driver: Driver) -> None:
    """In the order in which they are written: before a call, and after it."""
    out = io.StringIO()
    km = recorded(driver, out)
    await km.lock("k", 5)
    with pytest.raises(TimeoutError):
        await km.lock("k", 0)
    with pytest.raises(ValueError, match="timeout"):
        await km.lock("k", -1)
    km.unlock("k")
    async with km.hold(("k", 1)):
        pass
    km.locker.close()
    km.locker.close()
    await km.lock("not recorded any more")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[0] == {"trace": 1, "recorded": "outside"}
    assert [line["n"] for line in lines[1:]] == list(range(1, len(lines)))
    times = [line.pop("at") for line in lines[1:-1]]
    assert times == sorted(times)
    assert [{name: value for name, value in line.items() if name != "n"} for line in lines[1:]] == [
        {"event": "request", "key": "k", "call": 1, "timeout": 5},
        {"event": "grant", "key": "k", "call": 1},
        {"event": "request", "key": "k", "call": 2, "timeout": 0},
        {"event": "fail", "key": "k", "call": 2, "why": "timeout"},
        {"event": "request", "key": "k", "call": 3},
        {"event": "fail", "key": "k", "call": 3, "why": "error"},
        {"event": "release", "key": "k", "call": 1},
        {"event": "released", "key": "k", "call": 1},
        {"event": "request", "key": "<tuple> ('k', 1)", "call": 4},
        {"event": "grant", "key": "<tuple> ('k', 1)", "call": 4},
        {"event": "release", "key": "<tuple> ('k', 1)", "call": 4, "lease": True},
        {"event": "released", "key": "<tuple> ('k', 1)", "call": 4},
        {"event": "end", "keys": 0},
    ]


def test_keys_that_are_two_have_two_names_and_equal_ones_have_one() -> None:
    """KM-EXCL, KM-INDEP: 1 and "1" are two keys, 1 and 1.0 are one."""
    out = io.StringIO()
    km = Recorder(KeyedMutex(), out)
    for key in (1, "1", "<int> 1", (1,)):
        km.lock(key)
    km.unlock(1.0)
    names = [json.loads(line)["key"] for line in out.getvalue().splitlines()[1:]]
    assert names == ["<int> 1"] * 2 + ["1"] * 2 + ["<str> '<int> 1'"] * 2 + ["<tuple> (1,)"] * 2 + ["<int> 1"] * 2


def test_recorders_are_lockers() -> None:
    assert isinstance(Recorder(KeyedMutex(), io.StringIO()), KeyedLocker)
    assert isinstance(AsyncRecorder(AsyncKeyedMutex(), io.StringIO()), AsyncKeyedLocker)


def test_what_cannot_be_observed_is_said() -> None:
    with pytest.raises(TypeError, match="snapshot"):
        Recorder(NoopLocker(), io.StringIO()).observe()


# -- no harm -----------------------------------------------------------------------------------------------------------


class Full(io.StringIO):
    """Takes some lines, and then, in the midst of one, no more; or raises something else."""

    def __init__(self, lines: int, error: BaseException) -> None:
        super().__init__()
        self.lines = lines
        self.error = error

    def write(self, text: str, /) -> int:
        self.lines -= 1
        if self.lines >= 0:
            return super().write(text)
        if self.lines == -1:
            super().write(text[: len(text) // 2])
        raise self.error


async def once_through(km: Driver) -> None:
    await km.lock("a")
    with pytest.raises(TimeoutError):
        await km.lock("a", 0)
    km.unlock("a")
    async with km.hold("b") as lease:
        lease.release()
    with pytest.raises(UnheldKeyError):
        km.unlock("a")


LINES = 13


@pytest.mark.parametrize("lines", range(LINES))
@both
async def test_a_line_that_cannot_be_written_changes_nothing_for_the_locker(driver: Driver, lines: int) -> None:
    """KM-ATOMIC: every call does what it would, wherever the disk is full; the log is unknown, and never a failure."""
    out = Full(lines, OSError("no space"))
    km = recorded(driver, out)
    await once_through(km)
    assert len(driver.locker) == 0
    assert str(km.locker.error) == "no space"
    with pytest.raises(OSError, match="no space"):
        km.locker.close()
    if lines:
        report = judged(out)
        assert report.verdict.value == "unknown"
        assert "is cut off" in report.unknown[-1] or "no event" in report.unknown[-1]


@both
async def test_that_was_each_of_its_lines(driver: Driver) -> None:
    out = Full(LINES, OSError("no space"))
    await once_through(recorded(driver, out))
    assert len(out.getvalue().splitlines()) == LINES
    assert judged(out).verdict.value == "pass"


class Stop(BaseException):
    """An interrupt that does not end the loop."""


@pytest.mark.parametrize("lines", range(1, 9))
@both
async def test_an_interrupt_in_a_line_leaves_no_grant_behind(driver: Driver, lines: int) -> None:
    """KM-INTERRUPT: out of `lock` and `hold` it leaves the key idle; out of `unlock` the key is released or held."""
    out = Full(lines, Stop())
    km = recorded(driver, out)
    held: list[str] = []

    async def use() -> None:
        await km.lock("a")
        held.append("a")
        km.unlock("a")
        held.clear()
        async with km.hold("b"):
            held.append("b")

    with pytest.raises(Stop):
        await use()
    # In unlock it may strike before the key goes or after; never is a key held that the caller can't let go of.
    assert set(driver.locker.snapshot()) <= set(held) - {"b"}
    assert isinstance(km.locker.error, RuntimeError)
    assert out.getvalue()[-1] != "\n"


def test_a_key_with_a_bad_repr_ends_the_recording_only() -> None:
    class Key:
        def __repr__(self) -> str:
            raise ZeroDivisionError("no name")

    out, locker, key = io.StringIO(), KeyedMutex(), Key()
    km = Recorder(locker, out)
    km.lock(key)
    assert key in locker
    km.unlock(key)
    assert len(locker) == 0
    assert isinstance(km.error, ZeroDivisionError)


def test_a_key_that_is_none_is_refused_as_by_the_locker() -> None:
    """And the recording goes on."""
    out = io.StringIO()
    km = Recorder(KeyedMutex(), out)
    for call in (km.lock, km.unlock, lambda key: km.hold(key).__enter__()):
        with pytest.raises(TypeError):
            call([])
    assert km.error is None
    assert kinds(out) == []


def test_a_use_in_the_midst_of_a_line_does_not_wait_for_itself() -> None:
    """As a signal handler may: it locks, and the recording ends there."""

    class Nested(io.StringIO):
        inner: Callable[[], None] | None = None

        def write(self, text: str, /) -> int:
            if self.inner is not None:
                call, self.inner = self.inner, None
                call()
            return super().write(text)

    out, locker = Nested(), KeyedMutex()
    km = Recorder(locker, out)
    out.inner = lambda: km.lock("b")
    km.lock("a")
    assert set(locker.snapshot()) == {"a", "b"}
    assert "while it wrote a line" in str(km.error)
    km.unlock("b")
    km.unlock("a")
    assert len(locker) == 0
    assert not judged(out).findings


# -- tasks -------------------------------------------------------------------------------------------------------------


@tasks
async def test_tasks_pass_with_cancellation(driver: Tasks) -> None:
    """KM-EXCL, KM-FIFO, KM-LIVE: one waiter of three is cancelled, the others are served in order."""
    out = io.StringIO()
    km = AsyncRecorder(driver.locker, out)
    served: list[int] = []

    async def one(number: int) -> None:
        if number == 3:
            async with km.hold("k"):
                served.append(number)
        else:
            await km.lock("k")
            served.append(number)
            km.unlock("k")

    await km.lock("k")
    clients = []
    for number in (1, 2, 3):
        clients.append(driver.start(one, number))
        await asyncio.sleep(0)
        assert km.observe() == 1
    clients[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await clients[1]
    km.unlock("k")
    await asyncio.gather(clients[0], clients[2])
    await km.lock("k")
    with pytest.raises(TimeoutError):
        await km.lock("k", 0)
    km.unlock("k")
    km.close()
    assert served == [1, 3]
    report = judged(out)
    assert (report.verdict.value, report.findings, report.unknown) == ("pass", (), ())
    assert outcome(report, "KM-FIFO") == ("holds", 1)
    assert outcome(report, "KM-EXCL")[0] == "holds"
    assert outcome(report, "KM-EXPIRED") == ("holds", 1)
    assert {json.loads(line).get("why") for line in out.getvalue().splitlines()} == {None, "cancelled", "timeout"}


def test_a_lock_of_another_form_is_recorded_behind_the_face_that_verify_gives_it() -> None:
    """An accessor, a block and a token, for threads: lock, unlock and hold."""
    for make in (shapes_threads.WeakLocks, shapes_threads.LockBlocks, shapes_threads.KeyedTokens):
        out = io.StringIO()
        km = Recorder(fit(make).make(), out)
        km.lock("a")
        km.unlock("a")
        with km.hold("a"):
            pass
        km.close()
        assert kinds(out) == ["request", "grant", "release", "released"] * 2 + ["end"]
        assert judged(out).findings == ()


def test_the_face_hides_no_mistake() -> None:
    """KM-EXCL: each caller gets a lock of its own, and both hold the key."""
    out = io.StringIO()
    km = AsyncRecorder(fit(shapes_asyncio.fresh_lock_for).make(), out)

    async def hold() -> None:
        async with km.hold("a"):
            await asyncio.sleep(0)

    async def both_hold() -> None:
        await asyncio.gather(hold(), hold())

    asyncio.run(both_hold())
    assert outcome(judged(out), "KM-EXCL")[0] == "violated"


def test_an_unlock_that_is_awaited_is_recorded_when_it_is_over() -> None:
    out = io.StringIO()
    km = AsyncRecorder(fit(shapes_asyncio.AwaitedUnlock).make(), out)

    async def use() -> None:
        await km.lock("a")
        gone = km.unlock("a")
        assert kinds(out) == ["request", "grant", "release"]
        await gone

    asyncio.run(use())
    assert kinds(out) == ["request", "grant", "release", "released"]
