"""The recorders: logs of real lockers, good and bad, from real threads and tasks; and that they do the locker no harm.

Whoever waits is waited for by its place in the snapshot, never by the clock.
"""

from __future__ import annotations

import asyncio
import io
import json
import random
import threading
import time
from collections.abc import Callable, Hashable, Mapping
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
from kmutex.trace import AsyncRecorder, Recorder
from kmutex.trace.check import LogReport
from kmutex.trace.reader import check
from tests.lockers import asyncio_bad, threads_bad

DEADLINE = 120.0
"""Seconds after which a test that waits has failed; nothing here takes long."""


def until(state: Callable[[], bool]) -> None:
    end = time.monotonic() + DEADLINE
    turn = threading.Event()
    while not state():
        assert time.monotonic() < end, "the state never came"
        turn.wait(0.0005)


def start(call: Callable[..., object], *arguments: object) -> threading.Thread:
    thread = threading.Thread(target=call, args=arguments, daemon=True)
    thread.start()
    return thread


def join(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(DEADLINE)
        assert not thread.is_alive()


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


def served_in_turn(locker: Any, out: io.StringIO) -> LogReport:
    """One holds, three queue one after the other, each seen in the queue before the next asks."""
    km = Recorder(locker, out)
    km.lock("k")
    threads = []
    for number in range(1, 4):

        def one() -> None:
            km.lock("k")
            km.unlock("k")

        threads.append(start(one))
        until(lambda number=number: len(locker.snapshot()["k"].waiters) == number)  # type: ignore[misc]
        assert km.observe() == 1
        assert km.observe() == 0
    km.unlock("k")
    join(*threads)
    km.close()
    return judged(out)


# -- threads -----------------------------------------------------------------------------------------------------------


def test_waiters_that_were_seen_are_judged_in_order() -> None:
    """KM-FIFO, KM-LIVE, KM-IDLE: with `observe`, from outside."""
    report = served_in_turn(KeyedMutex(), io.StringIO())
    assert (report.verdict.value, report.notes, report.unknown) == ("pass", (), ())
    assert outcome(report, "KM-FIFO") == ("holds", 2)
    assert outcome(report, "KM-EXCL") == ("holds", 3)
    assert outcome(report, "KM-LIVE") == ("holds", 3)
    assert outcome(report, "KM-IDLE") == ("holds", 1)
    assert outcome(report, "KM-INDEP") == ("holds", 3)


def test_a_locker_that_serves_the_youngest_fails() -> None:
    """KM-FIFO: tests/lockers, LastInFirstOut; the line is the grant of the one who was overtaken."""
    out = io.StringIO()
    report = served_in_turn(shown(threads_bad.LastInFirstOut), out)
    (finding,) = report.findings
    assert finding.clause == "KM-FIFO"
    assert json.loads(out.getvalue().splitlines()[finding.line - 1])["event"] == "grant"
    assert finding.call == 3
    assert outcome(served_in_turn(shown(threads_bad.Handing), io.StringIO()), "KM-FIFO") == ("holds", 2)


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
    until(lambda: len(locker.snapshot()["a"].waiters) == len(threads))
    km.unlock("a")
    until(lambda: km.observe() < 0 or not any(thread.is_alive() for thread in threads))
    join(*threads)
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


def test_a_locker_that_locks_nothing_fails() -> None:
    """KM-EXCL: the no-op, and tests/lockers, WeakRegistry."""
    for locker in (NoopLocker(), threads_bad.WeakRegistry()):
        out = io.StringIO()
        km = Recorder(locker, out)
        km.lock("k")
        if isinstance(locker, NoopLocker):
            km.lock("k")
        else:
            join(start(km.lock, "k"))
        (finding,) = judged(out).findings
        assert (finding.clause, finding.line, finding.call, finding.key) == ("KM-EXCL", 5, 2, "k")


def test_a_stray_unlock_that_is_accepted_fails() -> None:
    """KM-UNHELD: tests/lockers, StrayUnlockAccepted."""
    out = io.StringIO()
    Recorder(threads_bad.StrayUnlockAccepted(), out).unlock("k")
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


def test_an_entry_that_stays_fails_at_the_end() -> None:
    """KM-IDLE: tests/lockers, NeverEvicts; seen by the length that `close` writes."""
    out = io.StringIO()
    km = Recorder(threads_bad.NeverEvicts(), out)
    km.lock("k")
    km.unlock("k")
    km.close()
    assert [found.clause for found in judged(out).findings] == ["KM-IDLE"]


def test_a_waiter_that_is_left_at_the_end_fails() -> None:
    """KM-LIVE; without `close` it is unfinished. KM-IDLE for the holder."""
    out = io.StringIO()
    locker = KeyedMutex()
    km = Recorder(locker, out)
    km.lock("k")
    waiting = start(km.lock, "k")
    until(lambda: len(locker.snapshot()["k"].waiters) == 1)
    assert judged(out).verdict.value == "pass"
    assert outcome(judged(out), "KM-LIVE")[0] == "unknown"
    km.close()
    assert {found.clause for found in judged(out).findings} == {"KM-IDLE", "KM-LIVE"}
    km.unlock("k")
    join(waiting)


def test_an_unlock_of_the_grant_of_another_is_no_violation() -> None:
    """KM-TOKEN: `unlock(key)` is by key. The lease's own release then fails, and nothing is said of that key."""
    out = io.StringIO()
    km = Recorder(KeyedMutex(), out)
    with pytest.raises(UnheldKeyError), km.hold("k"):
        km.unlock("k")
    report = judged(out)
    assert (report.verdict.value, report.findings) == ("unknown", ())
    assert "may have ended the grant of another" in report.unknown[0]


def test_the_lines_and_their_fields() -> None:
    """In the order in which they are written: before a call, and after it."""
    out = io.StringIO()
    km = Recorder(KeyedMutex(), out)
    km.lock("k", 5)
    with pytest.raises(TimeoutError):
        km.lock("k", timeout=0)
    with pytest.raises(ValueError, match="timeout"):
        km.lock("k", -1)
    km.unlock("k")
    with km.hold(("k", 1)):
        pass
    km.close()
    km.close()
    km.lock("not recorded any more")
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


def once_through(km: Recorder) -> None:
    km.lock("a")
    with pytest.raises(TimeoutError):
        km.lock("a", 0)
    km.unlock("a")
    with km.hold("b") as lease:
        lease.release()
    with pytest.raises(UnheldKeyError):
        km.unlock("a")


LINES = 13


@pytest.mark.parametrize("lines", range(LINES))
def test_a_line_that_cannot_be_written_changes_nothing_for_the_locker(lines: int) -> None:
    """KM-ATOMIC: every call does what it would, wherever the disk is full; the log is unknown, and never a failure."""
    out, locker = Full(lines, OSError("no space")), KeyedMutex()
    km = Recorder(locker, out)
    once_through(km)
    assert len(locker) == 0
    assert str(km.error) == "no space"
    with pytest.raises(OSError, match="no space"):
        km.close()
    if lines:
        report = judged(out)
        assert report.verdict.value == "unknown"
        assert "is cut off" in report.unknown[-1] or "no event" in report.unknown[-1]


def test_that_was_each_of_its_lines() -> None:
    out = Full(LINES, OSError("no space"))
    once_through(Recorder(KeyedMutex(), out))
    assert len(out.getvalue().splitlines()) == LINES
    assert judged(out).verdict.value == "pass"


@pytest.mark.parametrize("lines", range(1, 9))
def test_an_interrupt_in_a_line_leaves_no_grant_behind(lines: int) -> None:
    """KM-INTERRUPT: out of `lock` and `hold` it leaves the key idle; out of `unlock` the key is released or held."""
    out, locker = Full(lines, KeyboardInterrupt()), KeyedMutex()
    km = Recorder(locker, out)
    held: list[str] = []

    def use() -> None:
        km.lock("a")
        held.append("a")
        km.unlock("a")
        held.clear()
        with km.hold("b"):
            held.append("b")

    with pytest.raises(KeyboardInterrupt):
        use()
    # In unlock it may strike before the key goes or after; never is a key held that the caller can't let go of.
    assert set(locker.snapshot()) <= set(held) - {"b"}
    assert isinstance(km.error, RuntimeError)
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
    assert "in the midst" in str(km.error)
    km.unlock("b")
    km.unlock("a")
    assert len(locker) == 0
    assert not judged(out).findings


# -- tasks -------------------------------------------------------------------------------------------------------------


def run(test: Any) -> Any:
    return asyncio.run(asyncio.wait_for(test, DEADLINE))


def test_tasks_pass_with_cancellation() -> None:
    """KM-EXCL, KM-FIFO, KM-LIVE: one waiter of three is cancelled, the others are served in order."""

    async def scenario(locker: Any, out: io.StringIO) -> LogReport:
        km = AsyncRecorder(locker, out)
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
        tasks = []
        for number in (1, 2, 3):
            tasks.append(asyncio.create_task(one(number)))
            await asyncio.sleep(0)
            assert km.observe() == 1
        tasks[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[1]
        km.unlock("k")
        await asyncio.gather(tasks[0], tasks[2])
        await km.lock("k")
        with pytest.raises(TimeoutError):
            await km.lock("k", 0)
        km.unlock("k")
        km.close()
        assert served == [1, 3]
        return judged(out)

    out = io.StringIO()
    report = run(scenario(AsyncKeyedMutex(), out))
    assert (report.verdict.value, report.findings, report.unknown) == ("pass", (), ())
    assert outcome(report, "KM-FIFO") == ("holds", 1)
    assert outcome(report, "KM-EXCL")[0] == "holds"
    assert outcome(report, "KM-EXPIRED") == ("holds", 1)
    assert {json.loads(line).get("why") for line in out.getvalue().splitlines()} == {None, "cancelled", "timeout"}


def test_a_bad_locker_for_tasks_fails() -> None:
    """KM-EXCL: the no-op. KM-FIFO: tests/lockers, LastInFirstOut. KM-UNHELD: StrayUnlockAccepted."""

    async def two_hold() -> LogReport:
        out = io.StringIO()
        km = AsyncRecorder(AsyncNoopLocker(), out)
        await km.lock("k")
        async with km.hold("k"):
            pass
        return judged(out)

    async def overtaken() -> LogReport:
        out = io.StringIO()
        km = AsyncRecorder(shown(asyncio_bad.LastInFirstOut), out)
        await km.lock("k")

        async def one() -> None:
            await km.lock("k")
            km.unlock("k")

        tasks = []
        for _ in range(3):
            tasks.append(asyncio.create_task(one()))
            await asyncio.sleep(0)
            assert km.observe() == 1
        km.unlock("k")
        await asyncio.gather(*tasks)
        return judged(out)

    async def stray() -> LogReport:
        out = io.StringIO()
        AsyncRecorder(asyncio_bad.StrayUnlockAccepted(), out).unlock("k")
        return judged(out)

    for scenario, clause in ((two_hold, "KM-EXCL"), (overtaken, "KM-FIFO"), (stray, "KM-UNHELD")):
        assert [found.clause for found in run(scenario()).findings] == [clause]


@pytest.mark.parametrize("lines", range(1, 9))
def test_an_interrupt_in_a_line_of_a_task_leaves_no_grant_behind(lines: int) -> None:
    """KM-INTERRUPT: as for threads."""

    class Stop(BaseException):
        pass

    async def scenario() -> None:
        out, locker = Full(lines, Stop()), AsyncKeyedMutex()
        km = AsyncRecorder(locker, out)
        got: list[str] = []

        async def use() -> None:
            await km.lock("a")
            got.append("a")
            async with km.hold("b"):
                got.append("b")
            km.unlock("a")

        with pytest.raises(Stop):
            await use()
        assert set(locker.snapshot()) <= set(got) - {"b"}

    run(scenario())
