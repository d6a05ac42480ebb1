"""Every locker that is not held out, put through scenario programs: the bad are caught, the sound are not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from kmutex.engine.explorer import Level
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import Program, parse
from kmutex.engine.scenarios import programs
from kmutex.testing import CLAUSES
from kmutex.verify.checks import CHECKS
from kmutex.verify.plan import WIDE
from tests.lockers.catalogue import Row, each, entries, load
from tests.verify.checked import checked

# A run that has seen enough ends in the midst of what the subject began.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

LOCKERS = entries(kind=("threads", "asyncio"), origin="written", shape="lock", held_out=False)
MOST = 300
"""Runs of one program, for a bad locker: a mistake that needs more is looked for in the next program."""

FEW = {
    "threads": (
        "0+a | 1+a | 2+a | 0-a | 1-a",
        "0+a | 0-a 1?a",
        "0+a | 1~a | 0-a",
        "0+a | 1~a | c1 2+b",
        "0+a | 1!a | c1",
    ),
    "asyncio": ("0+a | 1+a | 2+a | 0-a | 1-a", "0+a | 0-a 1+a", "0+a | 1~a | 2+a | 0-a", "0+a | 1~a | c1 2+b"),
}
FEW_MORE = ("0+a | 1xb", "0+a 1+b", "0+a | 1+a | 2+b-b | 0-a")
FEW_TRIES = ("0+a | 1?a | 2+a | 0-a",)
FEW_LEASES = ("0[a | 1[a | 0^a | 0]a | 2+a | 1]a",)
"""Programs that put each clause to the test."""


class Judged:
    """A locker in the harness, to be judged within its `control`."""

    def __init__(self, row: Row) -> None:
        self.harness = Harness(load(row), without=row.without, promises=PROMISES)
        assert self.harness.shape.kind == row.kind
        self.off, self.shape, self.control = self.harness.off, self.harness.shape, self.harness.control
        self.explorer = self.harness.explorer
        self.witnesses: Counter[str] = Counter()
        self.notes: list[tuple[str, str]] = []

    def programs(self) -> list[Program]:
        wanted = programs(
            cancel=self.shape.timeout or self.shape.kind == "asyncio",
            tries=self.shape.timeout,
            interrupt=self.shape.kind == "threads",
            leases=self.shape.leases,
        )
        return [program for program in wanted if program.clients < WIDE]

    def clauses(self, program: Program, level: Level, bound: int, most: int = MOST) -> set[str]:
        """The clauses that the program's runs break."""
        result = self.explorer.every(program, level, bound, go_on=lambda runs: runs < most)
        self.witnesses += result.witnesses
        assert result.exited is None
        return {clause for found in result.found.values() for clause in found.finding.clauses}

    def special(self, name: str) -> set[str]:
        """The clauses that a check of its own finds broken."""
        outcome = checked(self.harness, name)
        self.witnesses += outcome.witnesses
        self.notes += outcome.notes
        return {clause for found in outcome.found for clause in found.clauses}

    def ways(self, clauses: tuple[str, ...]) -> Iterator[Callable[[], set[str]]]:
        """Ways to look for a mistake against these clauses, the cheapest first."""
        wanted = self.programs()
        if clauses == ("KM-TOKEN",):
            # Nothing else can show it.
            wanted = [program for program in wanted if "[" in program.kinds]
        lacks = () if self.shape.kind == "asyncio" else ("loops", "unstarted")
        lacks += () if self.shape.several else ("several",)
        checks = [name for name in CHECKS if name not in lacks]
        passes: tuple[tuple[Level, int], ...] = (("tasks", 0), ("tasks", 2), ("timeouts", 2))
        if self.shape.kind == "threads":
            passes = (("locks", 0), ("locks", 1), ("bytecode", 1))
        for number, (level, bound) in enumerate(passes):
            if level == "timeouts" and not self.shape.timeout:
                continue
            for program in wanted:
                yield lambda program=program, level=level, bound=bound: self.clauses(program, level, bound)  # type: ignore[misc]
            if number == 0:
                for check in checks:
                    yield lambda check=check: self.special(check)  # type: ignore[misc]


@each(LOCKERS, "violation")
def test_a_bad_locker_is_caught_by_a_right_name(row: Row) -> None:
    """Some way of looking finds a clause by which the catalogue calls its mistake."""
    judged = Judged(row)
    seen: set[str] = set()
    with judged.control():
        for way in judged.ways(row.clauses):
            seen |= way()
            if seen & set(row.clauses):
                return
    pytest.fail(f"found {sorted(seen)}, and not one of {row.clauses}")


@each(LOCKERS, "holds")
def test_a_sound_locker_is_not(row: Row) -> None:
    """A few programs completely, and the special checks: nothing is found, and every clause was put to the test."""
    judged = Judged(row)
    level: Level = "locks" if judged.shape.kind == "threads" else "tasks"
    texts = [*FEW[judged.shape.kind], *FEW_MORE, *(FEW_LEASES if judged.shape.leases else ())]
    texts += FEW_TRIES if judged.shape.timeout else ()
    with judged.control():
        for text in texts:
            result = judged.explorer.every(parse(text), level, 1)
            assert [found.finding for found in result.found.values()] == []
            assert result.complete, text
            assert not result.endless
            judged.witnesses += result.witnesses
        checks = ("keys", "queues", "tickets", "timeouts", "snapshots")
        for check in (*checks, "memory" if judged.shape.kind == "threads" else "loops"):
            assert judged.special(check) - judged.off == set()
    wanted = set(CLAUSES) - judged.off - {"KM-ALL"}  # None of these has hold_all.
    wanted -= set() if judged.shape.timeout else {"KM-EXPIRED"}
    wanted -= set() if judged.shape.leases else {"KM-TOKEN"}
    wanted -= {"KM-LOOP"} if judged.shape.kind == "threads" else {"KM-INTERRUPT"}
    assert {clause for clause in wanted if not judged.witnesses[clause]} == set()


@each(LOCKERS, "noted")
def test_a_difference_that_the_interface_allows_is_noted(row: Row) -> None:
    """KM-LOOP: neither a violation nor a witness, but a remark."""
    judged = Judged(row)
    with judged.control():
        assert judged.special("loops") == set()
    assert tuple(clause for clause, _ in judged.notes) == row.clauses
    assert not judged.witnesses["KM-LOOP"]
