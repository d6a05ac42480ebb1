"""The recorder inside the table: each clause is decided on a log of our own mutexes, and nothing is paid when off."""

from __future__ import annotations

import asyncio
import io
import json
import random
import signal
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex, KMutexError, UnheldKeyError, compiled
from kmutex._core import LockTable
from kmutex._steps import RecordedTable
from kmutex.trace import StepLog
from kmutex.trace.check import CLAUSES, LogReport
from kmutex.trace.reader import check
from tests.driver import DEADLINE, Driver, Tasks, Threads, both, in_python, start, until, waiters
from tests.test_owners import block, instructions


def judged(out: io.StringIO) -> LogReport:
    return check(io.BytesIO(out.getvalue().encode()))


def outcomes(report: LogReport) -> dict[str, str]:
    return {row.clause: row.outcome.value for row in report.clauses}


def reasons(out: io.StringIO) -> list[str]:
    """Why requests were given up, in the order of the lines."""
    lines = [json.loads(line) for line in out.getvalue().splitlines()[1:]]
    return [line["why"] for line in lines if line["event"] == "fail"]


def recorded(driver: Driver, out: io.StringIO) -> tuple[Driver, StepLog]:
    """A driver of the same kind whose mutex writes its steps to ``out``."""
    log = StepLog(out)
    if isinstance(driver, Threads):
        return Threads(KeyedMutex(record=log)), log
    return Tasks(AsyncKeyedMutex(record=log)), log


async def every_clause(km: Driver) -> None:
    """One of each thing that a clause is about, which both drivers can do."""
    await km.lock("other")
    await km.lock("k")
    clients = [await km.start_waiter("k") for _ in range(3)]
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError):
            await km.lock("k", timeout)
    for client in clients:
        km.unlock("k")
        await km.result(client)
    km.unlock("k")
    with pytest.raises(UnheldKeyError):
        km.unlock("k")
    async with km.hold("k") as lease:
        lease.release()
        with pytest.raises(UnheldKeyError):
            lease.release()
    async with km.hold_all(["k", "j"]):
        pass
    for timeout in (0, 0.001):
        with pytest.raises(TimeoutError):
            async with km.hold_all(["k", "other", "j"], timeout):
                pass
    km.unlock("other")


ALWAYS = {
    *("KM-EXCL", "KM-REF", "KM-IDLE", "KM-FIFO", "KM-HANDOFF", "KM-INDEP", "KM-CANCEL"),
    *("KM-EXPIRED", "KM-UNHELD", "KM-ATOMIC", "KM-TOKEN", "KM-LIVE", "KM-ALL"),
}


@both
async def test_each_clause_of_both_drivers_is_decided(driver: Driver) -> None:
    """KM-EXCL, KM-REF, KM-IDLE, KM-FIFO, KM-HANDOFF, KM-INDEP, KM-CANCEL, KM-EXPIRED, KM-UNHELD, KM-ATOMIC, KM-TOKEN,
    KM-LIVE, KM-ALL: they hold. What is not exercised says so, and nothing is unknown."""
    out = io.StringIO()
    km, log = recorded(driver, out)
    await every_clause(km)
    log.close()
    report = judged(out)
    assert (report.verdict.value, report.findings, report.unknown) == ("pass", (), ())
    assert {clause for clause, outcome in outcomes(report).items() if outcome == "holds"} == ALWAYS
    assert all(row.undecided == 0 for row in report.clauses)
    assert reasons(out) == ["refused", "timeout", *["refused"] * 3, *["timeout"] * 3]


def test_a_cancelled_grant_and_the_next_loop_are_decided() -> None:
    """KM-RACE and KM-LOOP, of asyncio; the same log goes on in the second loop."""
    out = io.StringIO()
    log = StepLog(out)
    km: AsyncKeyedMutex = AsyncKeyedMutex(record=log)

    async def main() -> None:
        await km.lock("k")
        first, second = asyncio.ensure_future(km.lock("k")), asyncio.ensure_future(km.lock("k"))
        several = asyncio.ensure_future(km.hold_all(["j", "k"]).__aenter__())
        while len(waiters(km, "k")) < 3:
            await asyncio.sleep(0)
        several.cancel()
        await asyncio.wait([several])
        km.unlock("k")
        first.cancel()
        await second
        km.unlock("k")

    for _ in range(2):
        asyncio.run(asyncio.wait_for(main(), DEADLINE))
    log.close()
    report = judged(out)
    assert report.verdict.value == "pass"
    assert (outcomes(report)["KM-RACE"], outcomes(report)["KM-LOOP"]) == ("holds", "holds")
    assert reasons(out) == ["cancelled"] * 6


class StruckError(Exception):
    """What a signal handler raises."""


@pytest.mark.skipif(sys.platform == "win32", reason="no pthread_kill")
def test_interrupts_are_decided() -> None:
    """KM-INTERRUPT: of a waiter for one key, and of one for two, who leave; threads."""
    out = io.StringIO()
    log = StepLog(out)
    km: KeyedMutex = KeyedMutex(record=log)

    def strike(number: int, frame: object) -> None:
        raise StruckError

    def striker() -> None:
        until(lambda: len(waiters(km, "k")) == 1)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, strike)
    try:
        km.lock("k")
        for wait in (lambda: km.lock("k", DEADLINE), km.hold_all(["j", "k"], DEADLINE).__enter__):
            thread = start(striker)
            with pytest.raises(StruckError):
                wait()
            thread.result(DEADLINE)
    finally:
        signal.signal(signal.SIGUSR1, before)
    km.unlock("k")
    log.close()
    report = judged(out)
    assert report.verdict.value == "pass"
    assert outcomes(report)["KM-INTERRUPT"] == "holds"
    assert reasons(out) == ["interrupted"] * 3


def test_many_threads_and_keys_are_decided() -> None:
    """Locks, tries, timeouts, leases and several keys at random, by threads: no clause is violated or unknown."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    out = io.StringIO()
    log = StepLog(out)
    km: KeyedMutex = KeyedMutex(record=log)

    def work(number: int) -> None:
        rng = random.Random(seed + number)
        for _ in range(150):
            key, timeout = rng.choice("abc"), rng.choice([None, 0, 0.0005])
            kind = rng.randrange(4)
            try:
                if kind == 0:
                    with km.hold_all(rng.sample("abc", 2), timeout):
                        pass
                elif kind == 1:
                    with km.hold(key, timeout) as lease:
                        lease.release()
                else:
                    km.lock(key, timeout)
                    km.unlock(key)
            except TimeoutError:
                pass
            except UnheldKeyError:
                pass  # Somebody else unlocked it, as anybody may.

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    report = judged(out)
    assert (report.verdict.value, report.unknown) == ("pass", ()), report.findings
    assert "unknown" not in outcomes(report).values()


# -- known bad ---------------------------------------------------------------------------------------------------------


class Grants(LockTable):
    """KM-EXCL: everybody gets the key."""

    def request(self, key: Hashable, ticket: int, make_waker: Callable[[], str]) -> str | None:
        super().request(key, ticket, make_waker)
        return None


class Refuses(LockTable):
    """KM-INDEP: a free key is not granted in the step that asks for it."""

    def request(self, key: Hashable, ticket: int, make_waker: Callable[[], str]) -> str | None:
        return super().request(key, ticket, make_waker) or "waits"


class Keeps(LockTable):
    """KM-IDLE: an entry without references."""

    def release(self, key: Hashable, ticket: int | None = None) -> str | None:
        waker = super().release(key, ticket)
        self._entries.setdefault(key, OrderedDict())
        return waker


class Counts(LockTable):
    """KM-REF: a reference that is nobody's."""

    def request(self, key: Hashable, ticket: int, make_waker: Callable[[], str]) -> str | None:
        waker = super().request(key, ticket, make_waker)
        if waker is not None:
            super().request(key, 1000 + ticket, make_waker)
        return waker


class Youngest(LockTable):
    """KM-FIFO: the newest waiter is served."""

    def release(self, key: Hashable, ticket: int | None = None) -> str | None:
        super().release(key, ticket)
        entry: Any = self._entries.get(key)
        if not isinstance(entry, OrderedDict):
            return None
        entry.move_to_end(next(reversed(entry)), last=False)
        return str(next(iter(entry.values())))


class Frees(LockTable):
    """KM-HANDOFF: the key is set free, and who waits may try again."""

    def release(self, key: Hashable, ticket: int | None = None) -> str | None:
        super().release(key, ticket)
        self._entries.pop(key, None)
        return None


class Stays(LockTable):
    """KM-ATOMIC: who has given up stays in the queue."""

    def cancel(self, key: Hashable, ticket: int, why: str = "timeout") -> bool:
        return True


class Robs(LockTable):
    """KM-TOKEN: a lease ends the grant of whoever holds."""

    def release(self, key: Hashable, ticket: int | None = None) -> str | None:
        return super().release(key)


class Expires(Refuses):
    """KM-EXPIRED: a try gives up before it has looked."""

    def cancel(self, key: Hashable, ticket: int, why: str = "timeout") -> bool:
        del self._entries[key]
        return True


class Lets(LockTable):
    """KM-UNHELD: an unlock of a free key works."""

    def release(self, key: Hashable, ticket: int | None = None) -> str | None:
        return super().release(key, ticket) if key in self else None


class Returns(LockTable):
    """KM-RACE: whose time is over is told that the grant was first, and it was not."""

    def cancel(self, key: Hashable, ticket: int, why: str = "timeout") -> bool:
        return False


class Passes(LockTable):
    """KM-CANCEL, KM-INTERRUPT: the key goes to one that has given up."""

    def __init__(self) -> None:
        super().__init__()
        self.gone: list[int] = []

    def cancel(self, key: Hashable, ticket: int, why: str = "timeout") -> bool:
        self.gone.append(ticket)
        return super().cancel(key, ticket, why)

    def release(self, key: Hashable, ticket: int | None = None) -> str | None:
        super().release(key, ticket)
        if self.gone:
            self._entries[key] = self.gone.pop()
        return None


KNOWN_BAD: list[tuple[str, type[LockTable], str]] = [
    ("KM-EXCL", Grants, "q1 q2"),
    ("KM-REF", Counts, "q1 q2"),
    ("KM-IDLE", Keeps, "q1 u1"),
    ("KM-FIFO", Youngest, "q1 q2 q3 u1"),
    ("KM-HANDOFF", Frees, "q1 q2 u1"),
    ("KM-INDEP", Refuses, "q1 q2"),
    ("KM-CANCEL", Passes, "q1 q2 c2 u1"),
    ("KM-RACE", Returns, "q1 q2 c2"),
    ("KM-INTERRUPT", Passes, "q1 q2 w2 u1"),
    ("KM-EXPIRED", Expires, "q1 c1"),
    ("KM-UNHELD", Lets, "u0"),
    ("KM-ATOMIC", Stays, "q1 q2 c2"),
    ("KM-TOKEN", Robs, "q1 l1 q2 l1"),
    ("KM-LIVE", LockTable, "q1 q2"),
    ("KM-LOOP", LockTable, "q1 next q2 u1 u2"),
    ("KM-ALL", LockTable, "a1 q2 b1"),
]
"""The clause, a table that breaks it or one that is used as no mutex may, and the steps: see `steps`."""


def steps(table: RecordedTable, script: str, loops: list[object]) -> None:
    """Steps of tickets: q asks, u unlocks by key, l by lease, c is a try that gives up, w is interrupted; a, b ask for
    two keys at once, in two steps; next is another event loop."""
    for word in script.split():
        ticket = int(word[1:]) if word[1:].isdigit() else 0
        if word == "next":
            loops.append(object())
        elif word[0] in "qab":
            table._asked = 0 if word[0] == "q" else 2
            table.request("j" if word[0] == "a" else "k", ticket, lambda: "waits")
        elif word[0] in "ul":
            table.release("k", ticket if word[0] == "l" else None)
        elif word[0] == "c":
            table.cancel("k", ticket, "refused")
        else:
            table.withdraw("k", ticket, "interrupted")


@pytest.mark.parametrize(
    ("clause", "kind", "script"),
    # A class in Python can't inherit from a compiled table. The three that can be run there use the table itself.
    [pytest.param(*bad, id=bad[0], marks=() if bad[1] is LockTable else in_python) for bad in KNOWN_BAD],
)
def test_a_table_that_breaks_a_clause_writes_a_log_that_fails(clause: str, kind: type[LockTable], script: str) -> None:
    """KM-EXCL to KM-ALL: each is the first violation of a known-bad."""
    out = io.StringIO()
    log, loops = StepLog(out), [object()]
    steps(RecordedTable(kind(), log, lambda: loops[-1]), script, loops)
    log.close()
    report = judged(out)
    found = {finding.clause: finding.line for finding in report.findings}
    assert clause in found, (report.findings, out.getvalue())
    assert found[clause] == min(found.values())


def test_each_clause_has_a_known_bad() -> None:
    assert [clause for clause, *_ in KNOWN_BAD] == list(CLAUSES)


def test_a_sound_table_passes_what_the_broken_ones_fail() -> None:
    """The same steps, but for those that are no mutex's: nothing is found."""
    for clause, _, script in KNOWN_BAD:
        if clause in ("KM-LIVE", "KM-LOOP", "KM-ALL", "KM-UNHELD", "KM-TOKEN"):
            continue
        out = io.StringIO()
        log = StepLog(out)
        steps(RecordedTable(LockTable(), log), script, [])
        assert judged(out).findings == (), (clause, out.getvalue())


# -- it does no harm ---------------------------------------------------------------------------------------------------


class Fails(io.StringIO):
    """Writes the first lines, and no more."""

    def __init__(self, lines: int, error: BaseException) -> None:
        super().__init__()
        self.left = lines
        self.failing = error

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left < 0:
            raise self.failing
        return super().write(text)


def test_a_line_that_cannot_be_written_ends_the_log_and_harms_nobody() -> None:
    out = Fails(3, OSError(28, "No space left on device"))
    log = StepLog(out)
    km: KeyedMutex = KeyedMutex(record=log)
    for _ in range(3):
        with km.hold("k"):
            pass
    assert len(km) == 0
    assert log.error is out.failing
    with pytest.raises(OSError, match="No space"):
        log.close()
    assert len(out.getvalue().splitlines()) == 3
    assert judged(out).findings == ()


def test_an_interrupt_between_a_step_and_its_line_ends_the_log() -> None:
    """And the call is undone as without a log: KM-INTERRUPT."""
    out = Fails(1, KeyboardInterrupt())
    log = StepLog(out)
    km: KeyedMutex = KeyedMutex(record=log)
    with pytest.raises(KeyboardInterrupt):
        km.lock("k")
    assert len(km) == 0
    km.lock("k")
    with pytest.raises(KMutexError, match=r"^interrupted between a step and its line$"):
        log.close()
    assert judged(out).verdict.value == "unknown"


def test_a_lock_within_a_line_ends_the_log() -> None:
    """As a signal handler or a __del__ may take one."""

    class Locks(io.StringIO):
        def write(self, text: str) -> int:
            if "grant" in text and "inner" not in km:
                km.lock("inner")
            return super().write(text)

    out = Locks()
    log = StepLog(out)
    km: KeyedMutex = KeyedMutex(record=log)
    km.lock("k")
    assert set(km.snapshot()) == {"k", "inner"}
    assert isinstance(log.error, KMutexError)
    assert judged(out).findings == ()


def test_keys_that_read_the_same_are_two() -> None:
    """And equal ones are one, whatever they read: KM-EXCL is not violated by the names that a log has."""

    class Named:
        def __repr__(self) -> str:
            return "the same"

    out = io.StringIO()
    log = StepLog(out)
    km: KeyedMutex = KeyedMutex(record=log)
    keys = [Named(), Named(), "<Named> the same", 1, "1", "<int> 1", "\ud800"]
    for key in keys:
        km.lock(key)
    km.unlock(True)
    for key in keys[:3] + keys[4:]:
        km.unlock(key)
    with pytest.raises(TypeError, match="unhashable"):
        km.lock([])  # type: ignore[arg-type]
    log.close()
    report = judged(out)
    assert (report.verdict.value, report.unknown) == ("pass", ())
    assert report.most_live_keys == len(keys)


def test_a_log_is_of_one_mutex() -> None:
    log = StepLog(io.StringIO())
    KeyedMutex(record=log)
    with pytest.raises(KMutexError, match="each mutex needs a log of its own"):
        AsyncKeyedMutex(record=log)


@both
async def test_owners_are_known_beside_it(driver: Driver) -> None:
    """diagnose and record are two things, and can both be had."""
    kind: Any = type(driver.locker)
    mutex = kind(diagnose=True, record=StepLog(io.StringIO()))
    km = type(driver)(mutex)
    await km.lock("k")
    assert mutex.owner("k") is not None
    with pytest.raises(TimeoutError, match="has held it for"):
        await km.lock("k", 0)
    km.unlock("k")
    with pytest.raises(KMutexError, match="diagnose=True"):
        kind(record=StepLog(io.StringIO())).owner("k")


@pytest.mark.skipif(compiled, reason="there are no instructions to count: the same source in Python has them")
def test_it_costs_nothing_where_it_is_off() -> None:
    """Not one instruction, and the module is not loaded; where it is on, the lock's own are the same, and more."""
    off, on_ = instructions(block(KeyedMutex())), instructions(block(KeyedMutex(record=StepLog(io.StringIO()))))
    print(f"instructions of lock, unlock and a block: {off.total()} off, {on_.total()} on")
    assert not [name for name in off if name.startswith("kmutex._steps")]
    assert [name for name in on_ if name.startswith("kmutex._steps")]
    assert {name: count for name, count in on_.items() if not name.startswith("kmutex._steps")} == off
    assert type(KeyedMutex()._mutex._table) is type(AsyncKeyedMutex()._mutex._table) is LockTable
    program = "import sys; from kmutex import KeyedMutex; KeyedMutex().lock('k'); print('kmutex._steps' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
