"""A clause is named for what a run contains only where that plays a part in it."""

from __future__ import annotations

from typing import Any

import pytest

from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.run_judge import BLAMED
from kmutex.engine.shrink import unblamed
from kmutex.verify.evidence import Violation
from kmutex.verify.plan import Unit
from kmutex.verify.results import UnitResult, rightly_named
from tests.lockers import misjudged, threads_bad


@pytest.mark.parametrize(
    ("text", "blame"),
    [
        ("0+a-a | 0xa | 0+a 1+a", "KM-ATOMIC"),
        ("0+b | 1~b | c1 | 2+a 3+a", "KM-CANCEL"),
        ("0+b | 1?b | 2+a 3+a", "KM-EXPIRED"),
        ("0+b | 1~b | c1 | 0-b | 1xb | 2+a 3+a", "KM-CANCEL"),
    ],
)
def test_what_plays_no_part_is_not_named(text: str, blame: str) -> None:
    """Two find the key free at the same time, whatever else goes on: KM-EXCL alone."""
    bench = Harness(misjudged.LooksThenTakes)
    with bench.control():
        result = bench.explorer.every(parse(text), "locks", 1)
        found = result.found["KM-EXCL"]
        assert found.finding.clauses == (blame, "KM-EXCL")
        named = unblamed(bench.explorer, found)
    assert named.finding.clauses == ("KM-EXCL",)
    assert not named.schedule.program.ingredients & set(BLAMED[blame])


def test_what_plays_a_part_stays_named() -> None:
    """Nobody is left waiting unless a wait ends: KM-CANCEL or KM-RACE, after as much search without it."""
    bench = Harness(threads_bad.WakeupDropped)
    with bench.control():
        result = bench.explorer.every(parse("0+a | 1~a | 2+a | c1 0-a"), "locks", 1)
        found = next(iter(result.found.values()))
        assert unblamed(bench.explorer, found) is found
    assert found.finding.clauses[0] in ("KM-CANCEL", "KM-RACE")


def blamed(clauses: tuple[str, ...], program: str, symptom: str = "KM-EXCL") -> Violation:
    return Violation(clauses, "two hold it", f"{program} @locks", f"...\n>> {clauses[0]}: two hold it", symptom)


def unit(program: str, *found: Violation) -> UnitResult:
    return UnitResult(Unit(0, "interleavings", "every", program), found=list(found))


def test_what_a_plainer_program_shows_later_is_known_all_the_same() -> None:
    """Units of one pass don't know of each other; the rows do."""
    plain = unit("0+a 1+a", blamed(("KM-EXCL",), "0+a 1+a"))
    stray = unit("0+a 1+a 2xb", blamed(("KM-ATOMIC", "KM-EXCL"), "0+a 1+a 2xb"))
    other = unit("0+a 1xa", blamed(("KM-ATOMIC", "KM-UNHELD"), "0+a 1xa", "KM-UNHELD"))
    first, second, third = rightly_named([stray, plain, other])
    assert first.found[0].clauses == ("KM-EXCL",)
    assert first.found[0].picture.endswith(">> KM-EXCL: two hold it")
    assert (second, third) == (plain, other)
    assert rightly_named([stray]) == [stray]


def test_a_refused_try_of_a_free_key_is_no_lost_key() -> None:
    """KM-EXPIRED, not KM-LIVE: whoever waits for the key gets it."""
    bench = Harness(misjudged.RefusesFirstTry)
    with bench.control():
        result = bench.explorer.every(parse("0+a"), "locks", 0)
    assert {name for found in result.found.values() for name in found.finding.clauses} == {"KM-EXPIRED"}


class _KeepsTheKey:
    """An unlock that does nothing."""

    def __init__(self) -> None:
        self._held: set[Any] = set()
        self._lock = threads_bad.Handing()

    def lock(self, key: Any, timeout: float | None = None) -> None:
        self._lock.lock(key, timeout)

    def unlock(self, key: Any) -> None:
        pass


def test_a_lost_key_is_lost_for_whoever_tries_and_then_waits() -> None:
    """KM-LIVE, as before, though the first to ask again only tries."""
    bench = Harness(_KeepsTheKey, without=["unheld"])
    with bench.control():
        result = bench.explorer.every(parse("0+a-a"), "locks", 0)
    assert "KM-LIVE" in result.found
