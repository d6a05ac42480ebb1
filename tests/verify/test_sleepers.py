"""Lockers that sleep before they lock: nothing is wrong with that, and it excuses nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from kmutex.engine.explorer import Explorer
from kmutex.engine.shapes import look
from kmutex.engine.threads import Crew, replaced
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.checks.event_loops import _settle
from kmutex.verify.plan import Unit
from kmutex.verify.results import UnitResult


class _Entry:
    def __init__(self, lock: Any) -> None:
        self.lock = lock
        self.users = 0


class Naps:
    """A sound locker by counts."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Any, _Entry] = {}

    def lock(self, key: Any) -> None:
        time.sleep(0.001)
        with self._guard:
            entry = self._entries.setdefault(key, _Entry(threading.Lock()))
            entry.users += 1
        entry.lock.acquire()

    def unlock(self, key: Any) -> None:
        with self._guard:
            entry = self._entries[key]
            entry.lock.release()
            entry.users -= 1
            if not entry.users:
                del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class OneForAll(Naps):
    """One lock for every key (KM-INDEP)."""

    def lock(self, key: Any) -> None:
        super().lock("any")

    def unlock(self, key: Any) -> None:
        super().unlock("any")


class AsyncNaps:
    """The same for asyncio."""

    def __init__(self) -> None:
        self._entries: dict[Any, _Entry] = {}

    async def lock(self, key: Any) -> None:
        await asyncio.sleep(0.001)
        entry = self._entries.setdefault(key, _Entry(asyncio.Lock()))
        entry.users += 1
        try:
            await entry.lock.acquire()
        except BaseException:
            self._drop(key, entry)
            raise

    def unlock(self, key: Any) -> None:
        self._entries[key].lock.release()
        self._drop(key, self._entries[key])

    def _drop(self, key: Any, entry: _Entry) -> None:
        entry.users -= 1
        if not entry.users:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class AsyncOneForAll(AsyncNaps):
    """One lock for every key (KM-INDEP)."""

    async def lock(self, key: Any) -> None:
        await super().lock("any")

    def unlock(self, key: Any) -> None:
        super().unlock("any")


@pytest.fixture(autouse=True)
def control() -> Iterator[None]:
    """The scheduler's locks are in force for what a test makes. Between tests pytest waits for its own."""
    with replaced():
        yield


@pytest.fixture(scope="module")
def crew() -> Crew:
    return Crew()


def found(make: Any, check: str, crew: Crew) -> set[str]:
    shape = look(make, frozenset(("fifo", "interrupt", "timeout")))
    explorer = Explorer(make, crew=crew if shape.kind == "threads" else None, off=frozenset(), tries=False)
    outcome = UnitResult(Unit(0, check, check))
    CHECKS[check](Context(make, shape, explorer, lambda runs: runs, frozenset()), outcome)
    assert outcome.runs
    return {clause for one in outcome.found for clause in one.clauses}


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (Naps, "keys"),
        pytest.param(Naps, "memory", marks=pytest.mark.long),
        (AsyncNaps, "keys"),
        pytest.param(AsyncNaps, "memory", marks=pytest.mark.long),
        (AsyncNaps, "loops"),
        (AsyncNaps, "unstarted"),
    ],
)
def test_a_sound_locker_may_sleep(make: Any, check: str, crew: Crew) -> None:
    """KM-INDEP, KM-LIVE, KM-CANCEL, KM-LOOP: with many keys, each call has its own sleeps."""
    assert found(make, check, crew) == set()


@pytest.mark.parametrize("make", [OneForAll, AsyncOneForAll])
def test_a_sleep_excuses_nothing(make: Any, crew: Crew) -> None:
    """The control: KM-INDEP."""
    assert "KM-INDEP" in found(make, "keys", crew)


@pytest.mark.parametrize("steps", range(45))
def test_who_is_woken_at_any_step_goes_on(steps: int) -> None:
    """All is settled only when nobody sleeps and whoever slept has had the steps that were left to it."""

    async def run() -> bool:
        done = []

        async def sleeper() -> None:
            timer = asyncio.get_running_loop().call_later(1000.0, done.clear)
            for _ in range(steps):
                await asyncio.sleep(0)
            timer.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            done.append(True)

        task = asyncio.ensure_future(sleeper())
        await _settle()
        return task.done() and bool(done)

    assert asyncio.run(run())
