"""The same case searched by each tool: how many schedules it ran until it saw something wrong, and for how long.

Callers lock, look whether they are alone, and unlock. Something is wrong if two are inside, a call raises, nobody can
go on, or an entry is left at the end. frontrun and interleave-test are told so by a function of this file, kmutex by
its judge, with the order of waiters left out, which the others can't see.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from kmutex.engine.harness import Harness
from kmutex.engine.program import parse

KEY = "a"
MOST = 1_000_000
STEP = 5
"""Schedules of interleave-test between two looks at the clock: it has no limit of its own for a whole search."""


class Searched(NamedTuple):
    """found: whether something was seen to be wrong; None: the tool gave up before its time, and says nothing."""

    found: bool | None
    schedules: int
    seconds: float


@dataclass
class World:
    """What the callers of one execution share."""

    locker: Any
    inside: int = 0
    wrong: list[str] = field(default_factory=list)

    def visit(self) -> None:
        """One caller."""
        try:
            self.locker.lock(KEY)
            self.inside += 1
            if self.inside > 1:
                self.wrong.append("two are inside")
            self.inside -= 1
            self.locker.unlock(KEY)
        except (KeyError, IndexError, RuntimeError, AttributeError, TypeError, ValueError) as error:
            self.wrong.append(repr(error))

    def fine(self) -> bool:
        """Whether nothing was seen to be wrong, and nothing is left."""
        return not self.wrong and not (hasattr(type(self.locker), "__len__") and len(self.locker))


Make = Callable[[], Any]
Search = Callable[[Make, int, int, float], Searched]
"""By the locker, the number of callers, a seed, and the seconds after which it is given up."""


def by_kmutex(make: Make, callers: int, seed: int, limit: float) -> Searched:
    """What `kmutex verify` runs first: POS, SURW and others in turn, with a switch at any bytecode."""
    program = parse(" ".join(f"{number}+a-a" for number in range(callers)))
    bench = Harness(make, without=("fifo",))
    with bench.control():
        explorer = bench.explorer.on(bench.fitted.make, afterwards=False)
        started = time.perf_counter()
        seeds = range(seed * MOST, (seed + 1) * MOST)
        done = explorer.some(program, "bytecode", seeds, go_on=lambda runs: time.perf_counter() - started < limit)
        return Searched(bool(done.found), done.runs, time.perf_counter() - started)


def by_frontrun(strategy: str) -> Search:
    """strategy: "dpor", which takes no seed, or "random"."""

    def search(make: Make, callers: int, seed: int, limit: float) -> Searched:
        frontrun: Any = importlib.import_module("frontrun")
        options: dict[str, Any] = {"max_executions": MOST}
        if strategy == "random":
            options = {"strategy": "random", "max_attempts": MOST, "seed": seed}
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = frontrun.explore(
                setup=lambda: World(make()),
                workers=World.visit,
                count=callers,
                invariant=World.fine,
                detect_io=False,
                reproduce_on_failure=0,
                clock="virtual",
                total_timeout=limit,
                **options,
            )
        seconds = time.perf_counter() - started
        found = None if result.property_holds is None and seconds < limit else result.property_holds is False
        return Searched(found, result.num_explored, seconds)

    return search


def by_interleave_test(strategy: str) -> Search:
    """strategy: "random" or "pct"."""

    def search(make: Make, callers: int, seed: int, limit: float) -> Searched:
        interleave_test: Any = importlib.import_module("interleave_test")

        def model() -> None:
            world = World(make())
            tasks = [interleave_test.spawn(world.visit) for _ in range(callers)]
            for task in tasks:
                task.join()
            assert world.fine()

        started = time.perf_counter()
        schedules = 0
        while time.perf_counter() - started < limit:
            result = interleave_test.explore(
                model, iterations=STEP, seed=seed * MOST + schedules, strategy=strategy, raise_on_failure=False
            )
            schedules += result.schedules_run
            if result.failure is not None:
                return Searched(True, schedules, time.perf_counter() - started)
        return Searched(False, schedules, time.perf_counter() - started)

    return search


class Tool(NamedTuple):
    """A way of searching, and the package that it needs."""

    name: str
    package: str
    search: Search
    seeded: bool = True

    def ready(self) -> None:
        """Import what the search needs."""
        if self.package != "kmutex":
            os.environ["FRONTRUN_ACTIVE"] = "1"  # as its command does
            importlib.import_module(self.package.replace("-", "_"))

    @property
    def version(self) -> str:
        """Of the package; empty: it is not installed here."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return ""


TOOLS = (
    Tool("kmutex", "kmutex", by_kmutex),
    Tool("frontrun, DPOR", "frontrun", by_frontrun("dpor"), seeded=False),
    Tool("frontrun, random", "frontrun", by_frontrun("random")),
    Tool("interleave-test, random", "interleave-test", by_interleave_test("random")),
    Tool("interleave-test, PCT", "interleave-test", by_interleave_test("pct")),
)
