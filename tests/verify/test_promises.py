"""What most lockers never promised (order, interrupts, a second loop) is told of a stranger's, and is no violation."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from kmutex.engine.features import PROMISES, UnknownFeatureError, unpromised
from kmutex.engine.harness import Harness
from kmutex.testing import check_histories
from kmutex.verify.evidence import Result, Row, exit_status
from kmutex.verify.runner import Checked, replay, verify
from tests.commands import run_kmutex
from tests.lockers import kmutex_bad

HERE = "tests.verify.test_promises"
ROOT = Path(__file__).resolve().parents[2]
ENOUGH = ("4", "15", "60")
"""Seconds to verify with, one after the other, until they are enough for this machine."""


class Careless:
    """Sound, but for an interrupt in its wait: the count stays."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Any, list[Any]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def lock(self, key: Any, timeout: float | None = None) -> None:
        with self._guard:
            entry = self._entries.setdefault(key, [threading.Lock(), 0])
            entry[1] += 1
        if not entry[0].acquire(timeout=-1 if timeout is None else timeout):
            self._drop(key, entry)
            raise TimeoutError

    def unlock(self, key: Any) -> None:
        with self._guard:
            entry = self._entries[key]
        entry[0].release()
        self._drop(key, entry)

    def _drop(self, key: Any, entry: list[Any]) -> None:
        with self._guard:
            entry[1] -= 1
            if not entry[1]:
                del self._entries[key]


class AsyncAnyLoop:
    """Sound on one loop, with a future for each waiter; it does not care which loop that is."""

    def __init__(self) -> None:
        self._queues: dict[Any, list[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Any) -> None:
        queue = self._queues.get(key)
        if queue is None:
            self._queues[key] = []
            return
        turn = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.unlock(key)
            elif turn in queue:
                queue.remove(turn)
            raise

    def unlock(self, key: Any) -> None:
        queue = self._queues[key]
        while queue:
            turn = queue.pop(0)
            if not turn.done():
                turn.set_result(None)
                return
        del self._queues[key]


def checked(name: str, clause: str = "", **options: Any) -> Checked:
    """With as many seconds as the machine needs for an answer, also about this clause."""
    for seconds in ENOUGH:
        found = verify(name, seconds=float(seconds), **options)
        if exit_status(found.rows) != 2 and results(found.rows).get(clause) != {Result.INCONCLUSIVE}:
            break
    return found


def results(rows: list[Row]) -> dict[str, set[Result]]:
    by_clause: dict[str, set[Result]] = {}
    for row in rows:
        by_clause.setdefault(row.clause, set()).add(row.result)
    return by_clause


@pytest.mark.parametrize(
    ("name", "clause", "promise"),
    [
        ("tests.lockers.kmutex_bad:Stack", "KM-FIFO", "fifo"),
        (f"{HERE}:Careless", "KM-INTERRUPT", "interrupt"),
        (f"{HERE}:AsyncAnyLoop", "KM-LOOP", "loop"),
    ],
)
@pytest.mark.long
def test_a_broken_clause_that_nobody_promised_is_told_and_counts_if_it_is_promised(
    name: str, clause: str, promise: str
) -> None:
    """Exit status 0 and the run; 1 with the promise alone, and with all of them."""
    found = checked(name)
    assert exit_status(found.rows) == 0, [row for row in found.rows if row.result is Result.INCONCLUSIVE]
    told = [row for row in found.rows if row.result is Result.NOT_PROMISED and row.clause == clause and row.violations]
    assert told
    assert set(told[0].violations[0].clauses) <= {"KM-FIFO", "KM-HANDOFF", "KM-INTERRUPT", "KM-LOOP"}
    # The rest was judged all the same.
    assert results(found.rows)["KM-EXCL"] == results(found.rows)["KM-LIVE"] == {Result.HOLDS}
    for promises in ([promise], PROMISES):
        strict = checked(name, clause, promises=promises)
        assert exit_status(strict.rows) == 1
        assert Result.VIOLATED in results(strict.rows)[clause]
        assert Result.NOT_PROMISED not in results(strict.rows)[clause]


def test_an_unpromised_breach_replays() -> None:
    """The schedule that is told shows it again, as no violation, and as one where it is promised."""
    name = "tests.lockers.kmutex_bad:Stack"
    program = "0+a | 1+a | 2+a | 0-a @locks"
    loose, strict = replay(name, program), replay(name, program, promises=["fifo"])
    assert (loose.found, [violation.clauses for violation in loose.unpromised]) == ([], [("KM-FIFO",)])
    assert ([violation.clauses for violation in strict.found], strict.unpromised) == ([("KM-FIFO",)], [])
    assert "\n>> KM-FIFO, not promised: " in loose.unpromised[0].picture


def test_what_is_promised_and_broken_in_the_same_run_is_found() -> None:
    """KM-REF by a count that stays, after an overtaking that counts for nothing."""
    found = replay(f"{HERE}:StackThatKeeps", "0+a | 1+a | 2+a | 0-a | 1-a 2-a @locks")
    assert [violation.clauses[0] for violation in found.unpromised] == ["KM-FIFO"]
    assert [violation.clauses for violation in found.found] == [("KM-IDLE",)]


class StackThatKeeps(kmutex_bad.Stack):
    """Serves the youngest first, and counts one too many."""

    def __len__(self) -> int:
        return super().__len__() or 1


def test_the_own_lockers_promise_everything() -> None:
    """And so does whoever says it; a promise that is none is refused."""
    assert unpromised(None, "kmutex") == unpromised(None, "kmutex._threads") == frozenset()
    assert unpromised(None, "kmutexes") == unpromised((), "kmutex") == frozenset(PROMISES)
    assert unpromised(("fifo",), "mine") == {"interrupt", "loop"}
    with pytest.raises(UnknownFeatureError, match="'len' is not a promise; a locker may promise fifo, interrupt, loop"):
        unpromised(("fifo", "len"), "mine")


def test_the_suite_and_the_histories_hold_a_locker_to_the_same() -> None:
    """Without a promise the youngest may be served first; with it, KM-FIFO."""
    assert Harness(kmutex_bad.Stack).off >= {"KM-FIFO", "KM-HANDOFF", "KM-INTERRUPT", "KM-LOOP"}
    assert not Harness(kmutex_bad.Stack, promises=PROMISES).off
    print("seed 0")
    loose = check_histories(kmutex_bad.Stack, kind=None, without=(), examples=30, seed=0)
    strict = check_histories(kmutex_bad.Stack, kind=None, without=(), promises=["fifo"], examples=30, seed=0)
    assert loose.finding is None
    assert loose.witnesses["KM-EXCL"]
    assert strict.finding is not None
    assert strict.finding.clauses[0] == "KM-FIFO"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ((), 0, "KM-FIFO, not promised: client"),
        (("--with", "interrupt,loop"), 0, "KM-FIFO, not promised: client"),
        (("--with", "fifo"), 1, "KM-FIFO: client"),
        (("--strict",), 1, "KM-FIFO: client"),
        (("--strict", "--without", "fifo"), 0, "no clause is violated in this run"),
        (("--with", "speed"), 4, "'speed' is not a promise"),
    ],
)
def test_the_command_takes_promises(options: tuple[str, ...], status: int, said: str) -> None:
    """--strict for all of them, --with for some."""
    program = ("--replay", "0+a | 1+a | 2+a | 0-a @locks")
    done = run_kmutex(ROOT, "verify", "tests.lockers.kmutex_bad:Stack", *options, *program, timeout=200)
    assert done.status == status, done.err
    assert said in done.out + done.err
