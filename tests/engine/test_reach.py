"""Mistakes that show only by what was no choice: a sleep of the locker's own that ends early, a second cancellation
while the first is cleaned up after, and hours that pass while somebody waits."""

from __future__ import annotations

import pytest

from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.plan import Unit
from kmutex.verify.results import UnitResult
from tests.lockers.catalogue import load


@pytest.mark.parametrize(
    ("name", "text", "bound", "clause"),
    [
        ("threads.SleepsWhileUnlockEnds", "0+a | 1+a | 0-a", 2, "KM-REF"),
        ("asyncio.SleepsWhileUnlockEnds", "0+a | 1+a | 0-a", 1, "KM-REF"),
        ("asyncio.ForgetsToPassOnTwice", "0+a | 1~a | 0-a", 0, "KM-LIVE"),
    ],
)
def test_it_is_found_within_a_bound_and_replayed(name: str, text: str, bound: int, clause: str) -> None:
    """KM-REF, KM-LIVE. What ends the sleep early costs a preemption, and with none less nothing is found."""
    bench = Harness(load(name), promises=PROMISES)
    level = bench.levels[0]
    with bench.control():
        for less in range(bound):
            assert not bench.explorer.every(parse(text), level, less).found
        found = bench.explorer.every(parse(text), level, bound).found[clause]
        again = bench.explorer.again(found.schedule).found[clause]
    assert again.finding.message == found.finding.message


def test_the_first_cancellation_alone_breaks_nothing() -> None:
    """KM-RACE: it is the second that the search adds."""
    bench = Harness(load("asyncio.ForgetsToPassOnTwice"), promises=PROMISES)
    with bench.control():
        twice = bench.explorer.every(parse("0+a | 1~a | 0-a"), "tasks", 0).found["KM-LIVE"].schedule
        once = bench.explorer.again(twice._replace(picks=twice.picks[:1]))
    assert len(twice.picks) == 2
    assert once.witnesses["KM-RACE"]
    assert not once.found


@pytest.mark.parametrize(("name", "wanted"), [("asyncio.LongWaitersLast", True), ("asyncio.Handing", False)])
def test_who_waits_for_hours_keeps_the_place(name: str, wanted: bool) -> None:
    """KM-FIFO, KM-HANDOFF: in the check that holds a key for hours."""
    bench = Harness(load(name), promises=PROMISES)
    with bench.control():
        context = Context(bench.fitted.make, bench.shape, bench.explorer, lambda runs: runs, frozenset())
        outcome = UnitResult(Unit(0, "holding", "holding"))
        CHECKS["holding"](context, outcome)
    assert any({"KM-FIFO", "KM-HANDOFF"} & {*found.clauses} for found in outcome.found) == wanted
