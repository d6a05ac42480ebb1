"""Counterexamples lose what they do not need, and nothing that they do."""

from __future__ import annotations

from collections.abc import Callable
from operator import le
from typing import Any

import pytest

from kmutex import KeyedMutex
from kmutex.engine.explorer import Found
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.shrink import in_full, parts, shrink
from tests.lockers.kmutex_bad import CountsLate, Forgets, IgnoresTime, Stack, StrayAccepted


class ForgetsContended(KeyedMutex):
    """Known bad: len() leaves out keys with waiters (KM-REF)."""

    __slots__ = ()

    def __len__(self) -> int:
        return sum(not entry.waiters for entry in self.snapshot().values())


CASES = [
    (Forgets, "0+b | 1+a | 2+c-c | 3?b | 1-a", "KM-REF"),
    (StrayAccepted, "0+a | 1+a | 2+b | 0-a | 3xc | 2-b", "KM-UNHELD"),
    (IgnoresTime, "3+b | 0+a | 2+a | 1~a | 3-b | c1 | 0-a", "KM-CANCEL"),
    (Stack, "3+b-b | 0+a | 1+a | 4+b-b | 2+a | 0-a", "KM-FIFO"),
    (CountsLate, "2+b | 0+a-a 1+a | 2-b", "KM-REF"),
]


def first(bench: Harness, text: str, clause: str) -> Found:
    """The shortest run of the program that breaks the clause."""
    result = bench.explorer.every(parse(text), "locks", 2, go_on=lambda runs: runs < 3_000)
    found = [one for one in result.found.values() if clause in one.finding.clauses]
    assert found, f"no run breaks {clause}: {result.found}"
    return min(found, key=lambda one: len(one.finding.events))


def size(found: Found) -> tuple[int, int, bool, int]:
    """Events, choices, whether some of it is left to the epilogue, steps."""
    left = in_full(found) != found.schedule.program
    steps = sum(len(steps) for phase in found.schedule.program.phases for _, steps in phase.steps)
    return len(found.finding.events), len(found.schedule.picks), left, steps


def clients(found: Found) -> set[int]:
    return {client for phase in found.schedule.program.phases for client, _ in phase.steps}


@pytest.mark.parametrize(("make", "text", "clause"), CASES, ids=[case[0].__name__ for case in CASES])
def test_nothing_that_is_left_can_be_left_out(make: Callable[[], Any], text: str, clause: str) -> None:
    """The same clauses, a smaller program, and no part of it shows them with as little."""
    bench = Harness(make, promises=PROMISES)
    with bench.control():
        long = first(bench, text, clause)
        short = shrink(bench.explorer, long)
        assert short.finding.clauses == long.finding.clauses
        assert size(short) < size(long)
        assert clients(short) < clients(long)
        for program in parts(short.schedule.program):
            result = bench.explorer.every(program, "locks", len(short.schedule.picks), go_on=lambda runs: runs < 100)
            same = [one for one in result.found.values() if one.finding.clauses == short.finding.clauses]
            assert [one.schedule for one in same if all(map(le, size(one), size(short)))] == [], short.schedule
        replayed = bench.explorer.again(short.schedule)
        assert short.finding.events in [one.finding.events for one in replayed.found.values()]


def test_what_only_the_epilogue_shows_is_said_by_the_program() -> None:
    """KM-REF: two clients and two calls, in a program that makes them itself, with clients 0 and 1."""
    bench = Harness(ForgetsContended)
    with bench.control():
        found = first(bench, "0+b-b | 2+a-a", "KM-REF")
        assert in_full(found) != found.schedule.program
        assert str(shrink(bench.explorer, found).schedule.program) == "0+a | 1+a"


def test_a_run_is_not_made_smaller_after_the_time() -> None:
    """What was found stays as it was."""
    bench = Harness(Forgets)
    with bench.control():
        found = first(bench, "0+b | 1+a | 2+c", "KM-REF")
        assert shrink(bench.explorer, found, go_on=lambda: False) is found


def test_the_clauses_stay_the_same() -> None:
    """KM-CANCEL: a shorter run of something else is no shorter run of this."""
    bench = Harness(IgnoresTime)
    with bench.control():
        found = first(bench, "0+a | 1~a | c1", "KM-CANCEL")
        assert shrink(bench.explorer, found).finding.clauses == found.finding.clauses
    sound = Harness(KeyedMutex)
    with sound.control():
        assert shrink(sound.explorer, found) is found


def test_the_parts_of_a_program() -> None:
    assert [str(part) for part in parts(parse("0+a | 1~a-a | c1 0-a"))] == [
        "1~a-a | c1",
        "0+a | 0-a",
        "1~a-a | c1 0-a",
        "0+a | 1-a | c1 0-a",
        "0+a | 1~a | c1 0-a",
        "0+a | 1~a-a | c1",
        "0+a | 1~a-a | 0-a",
    ]
