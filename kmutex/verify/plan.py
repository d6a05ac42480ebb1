"""The plan for a subject: units of work, in passes.

A pass is one method at one bound. Its units are independent, so several workers can share them. The simplest and
widest pass comes first; the rest of the time is for random schedules.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from kmutex.engine.explorer import Level
from kmutex.engine.program import Program, parse
from kmutex.engine.scenarios import programs_for
from kmutex.engine.shapes import Shape
from kmutex.verify.generated import generated
from kmutex_model.state import Race

Bytecodes = Literal["followed", "none", "unseen"]
"""Whether the subject's bytecodes are followed, so that threads switch between them; or it ran none; or this Python
does not report them."""
SEEDS = 60
"""Random schedules of one program in one unit."""
SEEDS_APART = 1_000_000
"""The number of seeds for random schedules that belong to one seed of the plan."""
MOST_PLAIN_RUNS = 100
"""The most runs of one program in the first pass, which must be completed."""
MOST_RUNS = 2_000
"""The most runs of one program in one pass. A program with more schedules is not complete, and the bound says so."""
FAMILIES = 3
"""Parts of the check of hold_all."""
FIRST_DRAWN = 2
"""Random schedules of each program, by the first strategies of the portfolio, before the bounded search."""
WIDE = 5
"""Programs with at least so many clients get random schedules only: there are too many orders of waking."""


@dataclass(frozen=True)
class Unit:
    """A piece of work for one worker."""

    number: int
    method: str
    """The pass that it belongs to."""
    task: str
    """What the worker does: "every" schedule, "some" at random, "histories", or a check of `checks`."""
    program: str = ""
    level: Level = "locks"
    bound: int = 0
    seed: int = 0
    most: int = 0
    """Runs after which the unit ends, even if there are more schedules."""
    required: bool = False
    """Whether clauses are undecided if this was not run. If `most` has ended it early, the bound says so."""
    deeper: bool = False
    """Whether it repeats an earlier pass at a higher bound. It is skipped once a violation is known."""
    part: int = 0
    """The part of the check, if that has several."""
    chance: bool = False
    """Whether it belongs to what is run while there is time, such as random schedules; that is not planned work."""
    among: int = 0
    """The number of all programs of its sort, if the pass has all of up to so many steps."""

    @property
    def ingredients(self) -> frozenset[str]:
        """Return what the program has in addition to plain locking."""
        return parse(self.program).ingredients if self.program else frozenset()


def plan(shape: Shape, off: frozenset[str] = frozenset(), seed: int = 0) -> Iterator[list[Unit]]:
    """Yield the passes for a subject, each as a list of units.

    Args:
        shape: The subject's shape.
        off: Clauses that are not judged.
        seed: The seed for random schedules and histories.
    """
    counter = iter(range(1_000_000))
    flight = shape.form == "flight"
    wanted = programs_for(shape, interrupt="KM-INTERRUPT" not in off)
    wide = [program for program in wanted if program.clients >= WIDE]
    wanted = [program for program in wanted if program.clients < WIDE]
    busy = [program for program in wanted if _concurrent(program)]

    def every(
        method: str,
        chosen: Iterable[Program],
        level: Level,
        bound: int,
        *,
        required: bool = False,
        deeper: bool = False,
    ) -> list[Unit]:
        most = MOST_PLAIN_RUNS if required else MOST_RUNS
        kind = Unit(0, method, "every", "", level, bound, most=most, required=required, deeper=deeper)
        return [replace(kind, number=next(counter), program=str(p)) for p in chosen]

    def some(
        method: str, chosen: Iterable[Program], level: Level, first: int, *, most: int = SEEDS, chance: bool = False
    ) -> list[Unit]:
        kind = Unit(0, method, "some", "", level, seed=seed * SEEDS_APART + first, most=most, chance=chance)
        return [replace(kind, number=next(counter), program=str(p)) for p in chosen]

    histories = [Unit(0, "histories", "histories", seed=seed * SEEDS_APART + number) for number in range(2)]

    # They take about a second, and show mistakes that no short program shows.
    names = ["keys", "memory"]
    if not flight:
        names += ["holding", "queues", "tickets", "timeouts", "snapshots"]
        names += [*(("loops", "unstarted") if shape.kind == "asyncio" and not shape.trio else ())]
    quick = [Unit(next(counter), name, name) for name in names]
    quick += [Unit(next(counter), "several", "several", part=part) for part in range(FAMILIES if shape.several else 0)]

    if shape.kind == "threads":
        yield every("interleavings at locks, plain", wanted, "locks", 0, required=True)
        yield quick
        yield some("portfolio", busy, "bytecode", 0, most=FIRST_DRAWN)
        # Two clients give many races in little time, above all if switches come at locks only.
        yield every("interleavings at locks", [p for p in wanted if p.clients < 3], "locks", 1)
        yield every("interleavings at bytecodes", [p for p in busy if p.clients < 3], "bytecode", 1)
        yield every("interleavings at locks", [p for p in wanted if p.clients >= 3], "locks", 1)
        yield some("chance, many clients", wide, "locks", 0)
        if not flight:
            yield [replace(unit, number=next(counter)) for unit in histories]
        yield every("interleavings at bytecodes", [p for p in busy if p.clients >= 3], "bytecode", 1)
        yield every("interleavings at locks, deeper", busy, "locks", 2, deeper=True)
        chance: Level = "bytecode"
    else:
        yield every("interleavings of tasks, plain", wanted, "tasks", 0, required=True)
        yield quick
        yield some("portfolio", busy, "tasks", 0, most=FIRST_DRAWN)
        yield every("interleavings of tasks", wanted, "tasks", 2)
        yield some("chance, many clients", wide, "tasks", 0)
        if shape.timeout:
            timed = [program for program in wanted if "~" in program.kinds]
            yield every("interleavings with timeouts", timed, "timeouts", 2)
        if not flight:
            yield [replace(unit, number=next(counter)) for unit in histories]
        yield every("interleavings of tasks, deeper", busy, "tasks", 4, deeper=True)
        chance = "tasks"
    for first in range(SEEDS, SEEDS_APART, SEEDS):
        yield some("chance", busy, chance, first, chance=True)
        if first == SEEDS and not flight:
            small = _generated(shape, [*wanted, *wide])
            bounded = every(
                "programs from the model", small, *(("locks", 1) if shape.kind == "threads" else ("tasks", 2))
            )
            yield [replace(unit, chance=True, among=len(small)) for unit in bounded]


def _generated(shape: Shape, chosen: list[Program]) -> list[Program]:
    kinds = "+-" + "~c" * (shape.timeout or shape.kind == "asyncio") + "?" * shape.tries + "x" * shape.strays
    race: Race = "keep" if shape.kind == "threads" else "pass"
    return generated(frozenset(kinds), 1 if shape.striped else 2, race, chosen)


def _concurrent(program: Program) -> bool:
    """Return whether two events can overlap: in a phase, or because a wait can end at any time."""
    return bool(program.kinds & frozenset("~!t")) or any(
        len(phase.steps) + len(phase.cancel) > 1 for phase in program.phases
    )
