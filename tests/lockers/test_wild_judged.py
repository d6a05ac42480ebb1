"""What the bugs from the wild have shown to be missing in the programs: each finds its bug, and accepts the twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex.engine.explorer import Level
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.scenarios import programs_for
from tests.lockers.catalogue import load, rows
from tests.lockers.repaired import Leasing
from tests.lockers.wild_threads import EtcdMutexRepaired

ENDED_BY_ANOTHER = "0[a | 1oa | 0^a | 1+a"
ENDED_TWICE = "0[a | 1+a | 2+a | 0^a 3oa"
ENDED_LONG_AGO = "0[a | 1[a | 2+a | 0^a | 3oa | 1]a"
KINDS: list[tuple[str, str, Level, str]] = [
    # A key's entry serves another key while somebody is on the way to it.
    ("threads.AsyncKeyedLockPool", "0+a | 0-a 1+a 2+b", "locks", "KM-INDEP"),
    # One waiter was woken, the next is cancelled, and there is a third.
    ("asyncio.CPythonDoubleAcquire", "0+a | 1+a | 2~a | 3+a | 0-a", "tasks", "KM-EXCL"),
    # A lease that somebody else ends, in vain or together with its holder.
    ("threads.MeziantouLeases", ENDED_BY_ANOTHER, "locks", "KM-TOKEN"),
    ("threads.MeziantouDisposer", ENDED_TWICE, "locks", "KM-EXCL"),
    # A block whose exit waits, and is cancelled there.
    ("asyncio.LightRAGKeyedLock", "0+a | 1+a | 0*a", "tasks", "KM-LIVE"),
]


def broken(make: Callable[[], Any], program: str, level: Level, bound: int = 1) -> set[str]:
    """The clauses that all runs of the program show broken, of a locker of which nothing is said beforehand."""
    harness = Harness(make)
    assert program in map(str, programs_for(harness.shape, interrupt=True))
    with harness.control():
        result = harness.explorer.every(parse(program), level, bound)
    assert result.complete
    return {clause for found in result.found.values() for clause in found.finding.clauses}


@pytest.mark.parametrize(("name", "program", "level", "clause"), KINDS, ids=[name for name, *_ in KINDS])
def test_the_program_finds_the_bug_and_accepts_the_twin(name: str, program: str, level: Level, clause: str) -> None:
    """Without a flag."""
    assert clause in broken(load(name), program, level)
    assert broken(load(rows()[name].twin), program, level) == set()


@pytest.mark.parametrize("program", [ENDED_BY_ANOTHER, "0[a | 1+a | 0^a | 2oa | 1-a", ENDED_TWICE, ENDED_LONG_AGO])
@pytest.mark.parametrize("make", [EtcdMutexRepaired, Leasing, KeyedMutex, AsyncKeyedMutex])
def test_who_else_ends_a_lease_does_a_sound_locker_no_harm(make: Callable[[], Any], program: str) -> None:
    """Whoever is first ends it, and a holder that came later keeps it; to end an old one may raise or do nothing."""
    assert broken(make, program, "tasks" if make is AsyncKeyedMutex else "locks") == set()
