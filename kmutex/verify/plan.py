"""What a subject is put through: units of work, in passes.

A pass is one method at one bound. Its units are independent, so several workers can share them. The plainest and
widest pass comes first; what is left of the time goes to chance.
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
"""Of the subject: followed, so that threads switch between them; none was met; this Python does not tell of them."""
SEEDS = 60
"""Random runs of one program in one unit."""
SEEDS_APART = 1_000_000
"""Seeds of random runs that belong to one seed of the whole."""
MOST_PLAIN_RUNS = 100
"""The same for the first pass, which must come to its end."""
MOST_RUNS = 2_000
"""Runs of one program in one pass; one that has more ways counts as not complete, and the bound says so."""
FAMILIES = 3
"""Parts of the check of hold_all."""
FIRST_DRAWN = 2
"""Of each program, runs that are drawn by the first strategies of the portfolio before the bounded search."""
WIDE = 5
"""Clients from which on a program is left to chance: with so many, every order of waking is too many."""


@dataclass(frozen=True)
class Unit:
    """A piece of work for one worker."""

    number: int
    method: str
    """The pass it belongs to."""
    task: str
    """What the worker does: every, some, histories, or a check of `checks`."""
    program: str = ""
    level: Level = "locks"
    bound: int = 0
    seed: int = 0
    most: int = 0
    """Runs after which the unit ends although there are more ways."""
    required: bool = False
    """Whether the clauses count as undecided when this was not run. Where `most` cut it short, the bound says so."""
    deeper: bool = False
    """Whether it only goes deeper than passes before it: it is left out once a violation is known."""
    part: int = 0
    """Which part of a check it is, where that has several."""
    chance: bool = False
    """Whether it is of what goes on as long as there is time, such as random runs: no part of what is planned."""
    among: int = 0
    """How many programs there are of its sort, where they are all that are not longer than so many steps."""

    @property
    def ingredients(self) -> frozenset[str]:
        """What the program has beside plain locking."""
        return parse(self.program).ingredients if self.program else frozenset()


def plan(shape: Shape, off: frozenset[str] = frozenset(), seed: int = 0) -> Iterator[list[Unit]]:
    """The passes for a subject of this shape, one list of units each. off: clauses that are not judged. seed: what
    the random runs and histories derive from."""
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

    # They take about a second, and show what no short program does.
    names = ["keys", "memory"]
    if not flight:
        names += ["holding", "queues", "tickets", "timeouts", "snapshots"]
        names += [*(("loops", "unstarted") if shape.kind == "asyncio" else ())]
    quick = [Unit(next(counter), name, name) for name in names]
    quick += [Unit(next(counter), "several", "several", part=part) for part in range(FAMILIES if shape.several else 0)]

    if shape.kind == "threads":
        yield every("interleavings at locks, plain", wanted, "locks", 0, required=True)
        yield quick
        yield some("portfolio", busy, "bytecode", 0, most=FIRST_DRAWN)
        # Two clients are many races for little time, and the most for the least where switches come at locks only.
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
    """Whether two things can happen at once in it: in a phase, or because a wait can end at any time."""
    return bool(program.kinds & frozenset("~!t")) or any(
        len(phase.steps) + len(phase.cancel) > 1 for phase in program.phases
    )
