"""What the catalogue says of the lockers, shown by hand on real threads and a real loop, without kmutex."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from tests.lockers import demo
from tests.lockers.catalogue import Row, entries, load, rows


def each(*rows: Row) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


@each(*(row for row in entries() if row.demo))
def test_bad_locker_is_bad(row: Row) -> None:
    """Its script sees a violation of a clause by which the catalogue calls it, or what is to be noted."""
    if row.demo == "explored only":
        assert row.name == "threads.LockAndCountStrict"
        pytest.skip(row.note)
    finding = demo.shown(row)
    assert finding is not None
    assert finding[0] in row.clauses, finding


@pytest.mark.sampled(4)
@each(*entries(kind=("threads", "asyncio"), origin="written", shape="lock", expect="holds"))
def test_sound_locker_passes_every_script(row: Row) -> None:
    """No script, no halt and no contention finds anything in it; the seed stands in the objection."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    assert demo.objections(row, demo.halts(), seed) == []


@each(*entries(kind="threads", expect="violation", held_out=True))
def test_held_out_bad_thread_locker_does_plain_lock_and_unlock(row: Row) -> None:
    """The mistake is not in the plainest use, so that it has to be looked for."""
    subject = load(row)()
    subject.lock("key")
    subject.unlock("key")
    subject.lock("key", 5)
    subject.unlock("key")
    assert demo.size(subject) == 0


@each(*entries(kind="asyncio", expect="violation", held_out=True))
def test_held_out_bad_asyncio_locker_does_plain_lock_and_unlock(row: Row) -> None:
    """The mistake is not in the plainest use, so that it has to be looked for."""

    async def use() -> None:
        subject = load(row)()
        for _ in range(2):
            await subject.lock("key")
            subject.unlock("key")
            await demo.settle()
        assert demo.size(subject) == 0

    asyncio.run(use())


@pytest.mark.parametrize(
    ("name", "clauses"), [("WeakRegistry", {"KM-EXCL", "KM-UNHELD"}), ("NeverEvicts", {"KM-IDLE"})]
)
def test_contention_of_threads_can_find_something(name: str, clauses: set[str]) -> None:
    """The contention that sound lockers pass is not blind."""
    finding = demo.contend(load(f"threads.{name}"), seed=1)
    assert finding is not None
    assert finding[0] in clauses


def test_contention_of_tasks_can_find_something() -> None:
    """The contention that sound lockers pass is not blind: references of cancelled tasks stay."""

    async def script(locker: Any) -> demo.Finding:
        return await demo.aio_contend(locker, seed=1)

    finding = demo.within_loop(script, load("asyncio.CancelKeepsCount"))
    assert finding is not None
    assert finding[0] == "KM-IDLE"


@pytest.mark.parametrize("name", ["StrayUnlockAccepted", "KeyedByStr", "FalsyKeysShare", "ForgivesDoubleUnlock"])
def test_the_script_for_one_caller_can_find_something(name: str) -> None:
    """KM-UNHELD, KM-INDEP: with keys of more than one sort."""
    finding = demo.alone(load(f"threads.{name}"))
    assert finding is not None
    assert finding[0] in rows()[f"threads.{name}"].clauses


@pytest.mark.parametrize(
    "name", ["GrantKeptOnCancel", "WakeupDropped", "HandedToDeadWaiter", "CancelledAcquirerEnters"]
)
def test_the_script_for_cancellations_beside_a_grant_can_find_something(name: str) -> None:
    """KM-RACE: in one turn of the loop, either of them first."""
    assert demo.within_loop(demo.aio_cancelled_meets_grant, load(f"asyncio.{name}")) is not None
