"""Every locker of the zoo, put through the scenario programs in this process: the bad are caught, the sound are not.

Thread subjects live under the scheduler's locks only if their module is imported while these are in force, so the
modules of the zoo are loaded afresh here, under names of their own.
"""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kmutex.engine.explorer import Explorer, Level
from kmutex.engine.features import clauses_off
from kmutex.engine.program import Program, parse
from kmutex.engine.scenarios import programs
from kmutex.engine.shapes import Shape, look
from kmutex.engine.threads import Crew, replaced
from kmutex.testing import CLAUSES
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.plan import WIDE, Unit
from kmutex.verify.results import UnitResult

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# A run that has seen enough ends in the midst of what the subject began.
pytestmark = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")

ZOO = Path(__file__).resolve().parents[1] / "zoo"
ENTRIES: dict[str, dict[str, Any]] = tomllib.loads((ZOO / "manifest.toml").read_text(encoding="utf-8"))
BAD = [name for name, entry in ENTRIES.items() if entry["expect"] == "violation"]
SOUND = [name for name, entry in ENTRIES.items() if entry["expect"] == "holds"]
NOTED = [name for name, entry in ENTRIES.items() if entry["expect"] == "noted"]
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


@pytest.fixture(scope="module", autouse=True)
def control() -> Iterator[None]:
    """The scheduler's locks are in force as long as the tests of this module run."""
    with replaced():
        yield


@pytest.fixture(scope="module")
def crew() -> Crew:
    return Crew()


@pytest.fixture(scope="module")
def load(control: None) -> Iterator[Callable[[str], Any]]:
    """What a factory's name stands for, in a copy of its module that knows only the scheduler's locks."""
    loaded: dict[str, Any] = {}

    def module(name: str) -> Any:
        alias = f"judged_{name}"
        if alias not in loaded:
            spec = importlib.util.spec_from_file_location(alias, ZOO / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            loaded[alias] = sys.modules[alias] = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(loaded[alias])
        return loaded[alias]

    yield lambda factory: getattr(module(factory.partition(":")[0]), factory.partition(":")[2])
    for alias in loaded:
        del sys.modules[alias]


class Judged:
    """A locker of the zoo on the bench."""

    def __init__(self, entry: dict[str, Any], make: Any, crew: Crew) -> None:
        self.make = make
        self.off = clauses_off(entry["without"])
        self.shape: Shape = look(make, frozenset(entry["without"]))
        assert self.shape.kind == entry["kind"]
        self.explorer = Explorer(
            make, crew=crew if self.shape.kind == "threads" else None, off=self.off, tries=self.shape.timeout
        )
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
        outcome = UnitResult(Unit(0, name, name))
        CHECKS[name](Context(self.make, self.shape, self.explorer, lambda runs: runs, frozenset()), outcome)
        self.witnesses += outcome.witnesses
        self.notes += outcome.notes
        return {clause for found in outcome.found for clause in found.clauses}

    def ways(self, clauses: list[str]) -> Iterator[Callable[[], set[str]]]:
        """Ways to look for a mistake against these clauses, the cheapest first."""
        wanted = self.programs()
        if clauses == ["KM-TOKEN"]:
            # Nothing else can show it.
            wanted = [program for program in wanted if "[" in program.kinds]
        checks = ("keys", "memory") if self.shape.kind == "threads" else ("loops", "keys", "memory")
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


@pytest.mark.parametrize("name", BAD)
def test_a_bad_locker_is_caught_by_a_right_name(name: str, load: Callable[[str], Any], crew: Crew) -> None:
    """Some way of looking finds a clause by which the manifest calls its mistake."""
    entry = ENTRIES[name]
    judged = Judged(entry, load(entry["factory"]), crew)
    seen: set[str] = set()
    for way in judged.ways(entry["clauses"]):
        seen |= way()
        if seen & set(entry["clauses"]):
            return
    pytest.fail(f"found {sorted(seen)}, and not one of {entry['clauses']}")


@pytest.mark.parametrize("name", SOUND)
def test_a_sound_locker_is_not(name: str, load: Callable[[str], Any], crew: Crew) -> None:
    """A few programs completely, and the special checks: nothing is found, and every clause was put to the test."""
    entry = ENTRIES[name]
    judged = Judged(entry, load(entry["factory"]), crew)
    level: Level = "locks" if judged.shape.kind == "threads" else "tasks"
    texts = [*FEW[judged.shape.kind], *FEW_MORE, *(FEW_LEASES if judged.shape.leases else ())]
    texts += FEW_TRIES if judged.shape.timeout else ()
    for text in texts:
        result = judged.explorer.every(parse(text), level, 1)
        assert [found.finding for found in result.found.values()] == []
        assert result.complete, text
        assert not result.endless
        judged.witnesses += result.witnesses
    for check in ("keys", "memory") if judged.shape.kind == "threads" else ("loops", "keys"):
        assert judged.special(check) - judged.off == set()
    wanted = set(CLAUSES) - judged.off
    wanted -= set() if judged.shape.timeout else {"KM-EXPIRED"}
    wanted -= set() if judged.shape.leases else {"KM-TOKEN"}
    wanted -= {"KM-LOOP"} if judged.shape.kind == "threads" else {"KM-INTERRUPT"}
    assert {clause for clause in wanted if not judged.witnesses[clause]} == set()


@pytest.mark.parametrize("name", NOTED)
def test_a_difference_that_the_interface_allows_is_noted(name: str, load: Callable[[str], Any], crew: Crew) -> None:
    """KM-LOOP: neither a violation nor a witness, but a remark."""
    entry = ENTRIES[name]
    judged = Judged(entry, load(entry["factory"]), crew)
    assert judged.special("loops") == set()
    assert [clause for clause, _ in judged.notes] == entry["clauses"]
    assert not judged.witnesses["KM-LOOP"]
