"""Leaving out schedules that differ in the order of steps that commute changes no verdict: on every thread locker of
the catalogue, with and without."""

from __future__ import annotations

import pytest

from kmutex import KeyedMutex
from kmutex.engine.explorer import Level
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.search import ANYTHING, ASKED, GRANTED, LET_GO, LETTING_GO, OTHER, Event, Footprint
from kmutex.engine.threads import acts_unseen
from tests.lockers.catalogue import Row, each, entries, load

OUT_OF_CONTROL = "threads.configured"
"""Keeps a real lock where its module was imported before (kmutex/engine/threads/patching.py)."""
LOCKERS = [
    row
    for row in entries(kind="threads", origin="written", shape="lock", expect=("violation", "holds"))
    if row.name != OUT_OF_CONTROL
]
PROGRAMS = (("0+a-a 1+a", 2), ("0+a | 0-a 1+a", 1), ("0+a-a 1+b-b", 1))
TRIES = (("0+a | 0-a 1?a", 2),)
CANCELS = (("0+a | 1~a | 0-a", 2),)
"""Programs and bounds where threads switch at locks only."""
AT_BYTECODES = (("0+a | 0-a 1+a", 2),)
MOST = {"locks": 500, "bytecode": 1_500}
"""Runs of a program; where there are more, and none shows anything, it is compared at the next lower bound."""
LOWER = {
    "threads.Actor": {text: 0 for text, _ in (*PROGRAMS, *TRIES, *CANCELS)},  # a queue for each call
}
"""Lockers with more runs than that, and the bounds at which they are compared."""


@each(LOCKERS, "violation")
def test_the_verdict_on_a_bad_locker_is_the_same_with_and_without(row: Row) -> None:
    """The same symptoms, by the same names, within the same bound; and never in more runs."""
    compare(row)


@each(LOCKERS, "holds")
def test_the_verdict_on_a_sound_locker_is_the_same_with_and_without(row: Row) -> None:
    """Neither is accused."""
    compare(row)


@pytest.mark.long
@each(LOCKERS, "violation")
def test_the_verdict_at_bytecodes_on_a_bad_locker_is_the_same_with_and_without(row: Row) -> None:
    compare_at_bytecodes(row)


@pytest.mark.long
@each(LOCKERS, "holds")
def test_the_verdict_at_bytecodes_on_a_sound_locker_is_the_same_with_and_without(row: Row) -> None:
    compare_at_bytecodes(row)


def compare(row: Row) -> None:
    bench = Harness(load(row), without=row.without, promises=PROMISES)
    wanted = [*PROGRAMS, *(TRIES if bench.shape.tries else ()), *(CANCELS if bench.shape.timeout else ())]
    with bench.control():
        bounds = {(text, bound): compared(bench, text, "locks", bound) for text, bound in wanted}
    lower = {text: found for (text, bound), found in bounds.items() if found < bound}
    assert lower == LOWER.get(row.name, {})


def compare_at_bytecodes(row: Row) -> None:
    bench = Harness(load(row), without=row.without, promises=PROMISES)
    with bench.control():
        for text, bound in AT_BYTECODES:
            compared(bench, text, "bytecode", bound)


def compared(bench: Harness, text: str, level: Level, bound: int) -> int:
    """The bound at which the two searches were compared: this, or the highest at which all can be run."""
    whole, less = (
        bench.explorer.every(parse(text), level, bound, reduced=way, go_on=lambda runs: runs < MOST[level])
        for way in (False, True)
    )
    if bound and not (whole.complete or whole.found):
        return compared(bench, text, level, bound - 1)
    assert whole.complete or whole.found, text
    names = [{(name, found.finding.clauses) for name, found in one.found.items()} for one in (whole, less)]
    assert names[0] == names[1], text
    assert whole.complete <= less.complete, text
    assert bool(whole.endless) == bool(less.endless), text
    assert less.runs <= whole.runs
    return bound


def test_only_lockers_with_weak_references_are_searched_as_a_whole() -> None:
    """So that the two tests above compare something."""
    assert [row.name for row in LOCKERS if acts_unseen(load(row))] == [
        "threads.WeakRegistry",
        "threads.WeakEntriesOnePerThread",
    ]


@pytest.mark.long
def test_three_clients_take_a_seventh_of_the_runs() -> None:
    """Those cut short are among them."""
    bench = Harness(KeyedMutex)
    with bench.control():
        less, whole = (
            bench.explorer.every(parse("0+a-a 1+a 2+a"), "locks", 3, reduced=reduced) for reduced in (True, False)
        )
    assert whole.complete
    assert less.complete
    assert not whole.found
    assert not less.found
    assert less.runs * 7 <= whole.runs


def test_what_is_left_out_is_replayed_as_any_other() -> None:
    """A schedule that the reduced search has found says the same in a run of its own."""
    row = next(row for row in LOCKERS if row.name == "threads.CountOutsideGuard")
    bench = Harness(load(row), without=row.without)
    with bench.control():
        found = bench.explorer.every(parse("0+a-a 1+a-a"), "locks", 2, reduced=True).breaches
        assert found
        for one in found:
            again = bench.explorer.again(one.schedule)
            assert one.finding.message in [other.finding.message for other in again.breaches]


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (Footprint(reads=frozenset("a")), Footprint(reads=frozenset("a")), True),
        (Footprint(reads=frozenset("a")), Footprint(writes=frozenset("a")), False),
        (Footprint(writes=frozenset("a")), Footprint(writes=frozenset("a")), False),
        (Footprint(writes=frozenset("a")), Footprint(writes=frozenset("b")), True),
        (ANYTHING, Footprint(), False),
    ],
)
def test_steps_commute_unless_one_writes_what_the_other_touches(one: Footprint, other: Footprint, apart: bool) -> None:
    assert one.apart(other) == other.apart(one) == apart


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (GRANTED, LETTING_GO, False),
        (ASKED, LET_GO, False),
        (ASKED, ASKED, True),
        (GRANTED, ASKED, True),
        (OTHER, ASKED, False),
    ],
)
def test_calls_and_returns_of_a_key_whose_order_is_judged_do_not_commute(one: str, other: str, apart: bool) -> None:
    """And those of two keys do."""
    first, second = Event(one, "a"), Event(other, "a")
    assert first.apart(second) == second.apart(first) == apart
    assert Event(one, "a").apart(Event(other, "b")) == (OTHER not in (one, other))
