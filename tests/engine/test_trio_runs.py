"""Programs on trio's scheduler: what is sound is accepted, mistakes are found, and a run is the same again."""

from __future__ import annotations

import gc
from collections.abc import Callable, Hashable
from typing import Any

import pytest
import trio
import trio._core._run

from kmutex.anyio import AnyioKeyedMutex
from kmutex.engine.explorer import Exploration
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.shapes import NotALockerError
from kmutex.engine.trioloop import NEEDED, TrioLoop, UnknownTrioError
from kmutex.testing import KeyedLockerSuite
from tests.lockers.catalogue import Row, entries, load

LOCKERS = [row for row in entries(origin="test") if row.module == "tests.lockers.trio_tables"]
PROGRAMS = (
    "0+a-a 1+a-a",
    "0+a | 1+a | 0-a 2+a",
    "0+a | 1+a | 2+a | 0-a | 1-a",
    "0+a | 1~a | 2+a | c1 0-a",
    "0+a | 1~a | 0-a | 2+a",
)


class OnTrio(AnyioKeyedMutex[Hashable]):
    """This library's, where it is trio's to run it: what waits by nothing but anyio is run on asyncio."""

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        trio.lowlevel.current_task()
        await super().lock(key, timeout)


def explored(
    make: Callable[[], Any], *programs: str, bound: int = 2, without: tuple[str, ...] = ()
) -> list[Exploration]:
    bench = Harness(make, without=without, promises=PROMISES)
    assert bench.shape.trio
    with bench.control():
        return [bench.explorer.every(parse(text), level, bound) for text in programs for level in bench.levels]


@pytest.mark.parametrize("make", [OnTrio, *(load(row) for row in LOCKERS if row.expect == "holds")])
def test_a_sound_one_is_accepted(make: Callable[[], Any]) -> None:
    """KM-EXCL, KM-FIFO, KM-RACE, KM-CANCEL, KM-LIVE: in every way within the bound, and there are some."""
    results = explored(make, *PROGRAMS)
    for result in results:
        assert (result.found, result.complete, result.endless) == ({}, True, 0)
    assert sum(result.runs for result in results) > 50


@pytest.mark.parametrize("row", [row for row in LOCKERS if row.expect == "violation"], ids=lambda row: row.name)
def test_a_broken_one_is_found_and_found_again(row: Row) -> None:
    """By the same run, from its text."""
    results = explored(load(row), *PROGRAMS, without=row.without)
    found = [found for result in results for found in result.found.values()]
    assert set(row.clauses) <= {clause for found in found for clause in found.finding.clauses}
    bench = Harness(load(row), without=row.without, promises=PROMISES)
    with bench.control():
        for one in found:
            again = bench.explorer.again(one.schedule)
            assert one.finding.symptom in again.found
            assert again.left_at is None


def test_the_order_of_a_batch_is_a_choice() -> None:
    """KM-FIFO: what trusts in an order that trio does not promise is sound as long as nobody chooses another."""
    make = load(next(row for row in LOCKERS if row.name.endswith("Broadcast")))
    program = "0+a | 1+a | 2+a | 0-a | 1-a"
    assert explored(make, program, bound=0)[0].found == {}
    (result,) = explored(make, program, bound=1)
    assert {found.finding.clauses[0] for found in result.found.values()} == {"KM-FIFO"}


class Shielded(OnTrio):
    """A cancelled wait goes on."""

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        with trio.CancelScope(shield=True):
            await super().lock(key, timeout)


def test_who_cannot_be_cancelled_is_ended(recwarn: pytest.WarningsRecorder) -> None:
    """KM-CANCEL: with the run, and without a complaint of trio's."""
    (result, _) = explored(Shielded, "0+a | 1~a | c1", bound=0)
    assert {found.finding.clauses[0] for found in result.found.values()} == {"KM-CANCEL"}
    gc.collect()
    assert [str(warning.message) for warning in recwarn] == []


def test_nothing_of_a_run_stays_with_trio() -> None:
    before = [getattr(trio._core._run, name) for name in NEEDED]
    explored(OnTrio, PROGRAMS[0])
    assert [getattr(trio._core._run, name) for name in NEEDED] == before
    trio.run(trio.sleep, 0)


def test_an_unknown_trio_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(trio._core._run, "unrolled_run")
    with pytest.raises(UnknownTrioError, match=r"^trio [\d.]+ has no unrolled_run, by which its order is chosen$"):
        TrioLoop()
    with pytest.raises(NotALockerError, match="has no unrolled_run"):
        assert Harness(OnTrio).shape


@pytest.mark.long
class TestTheShippedSuiteOnTrio(KeyedLockerSuite):
    make = staticmethod(OnTrio)
    strict = True
