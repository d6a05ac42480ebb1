"""A counterexample without what it does not need: clients, steps and cancellations that can be left out are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from kmutex.engine.explorer import Explorer, Found
from kmutex.engine.judge import BLAMED
from kmutex.engine.program import Phase, Program

MOST = 100
"""Runs of one program that are made in search of the same breach."""
MOST_WITHOUT = 400
"""Runs of a program without what a breach is blamed on."""
LEAST_BOUND = 2
"""Preemptions of these."""


def shrink(
    explorer: Explorer,
    found: Found,
    *,
    symptoms: Sequence[tuple[frozenset[str], str]] = (),
    go_on: Callable[[], bool] = lambda: True,
) -> Found:
    """A run of a smaller program that breaks the same clauses in no more events and with no more choices; one from
    which nothing more can be left out so, or ``found`` itself.

    A clause that is named for something in the program, and that the same is broken without, is named no longer.

    symptoms: what programs with these ingredients have shown, so that it is not blamed on anything else. go_on: asked
    before each run; where it says no, the smallest so far is returned.
    """
    found = unblamed(explorer, found, go_on)
    again = True
    while again and go_on():
        again = False
        for program in parts(found.schedule.program):
            better = _same(explorer, found, program, symptoms, go_on)
            if better is not None:
                found, again = better, True
                break
    return found


def unblamed(explorer: Explorer, found: Found, go_on: Callable[[], bool] = lambda: True) -> Found:
    """A run that shows the same symptom without what it is blamed on; ``found`` itself if none is seen."""
    while found.finding.clauses[0] in BLAMED and found.finding.clauses[0] != found.finding.symptom and go_on():
        blame = found.finding.clauses[0]
        program = _without(found.schedule.program, BLAMED[blame])
        if program is None:
            break
        result = explorer.every(
            program,
            found.schedule.level,
            max(LEAST_BOUND, len(found.schedule.picks)),
            go_on=lambda runs: runs < MOST_WITHOUT and go_on(),
        )
        same = [
            other
            for other in result.breaches
            if other.finding.symptom == found.finding.symptom and blame not in other.finding.clauses
        ]
        if not same:
            break
        found = min(same, key=lambda other: len(other.finding.events))
    return found


def _without(program: Program, kinds: str) -> Program | None:
    """The program without these kinds of steps. A wait that may end becomes one that does not. None: nobody does
    anything in what is left, or nothing was left out."""
    plain = {"~": "+", "!": "+", "[": "+", "]": "-", "%": "-", "&": "-"}
    phases = []
    for phase in program.phases:
        steps = tuple(
            (client, tuple(step._replace(kind=plain[step.kind]) if step.kind in kinds else step for step in kept))
            for client, every in phase.steps
            if (kept := [step for step in every if step.kind not in kinds or step.kind in plain])
        )
        phases.append(Phase(steps, () if "~" in kinds or "!" in kinds else phase.cancel))
    left = next(_program(phases), None)
    return None if left == program else left


def parts(program: Program) -> Iterator[Program]:
    """The programs with one client less, then those with one step or one cancellation less."""
    for client in sorted({client for phase in program.phases for client, _ in phase.steps}):
        yield from _program(
            Phase(
                tuple((other, steps) for other, steps in phase.steps if other != client),
                tuple(other for other in phase.cancel if other != client),
            )
            for phase in program.phases
        )
    for number, phase in enumerate(program.phases):
        for less in _less(phase):
            yield from _program([*program.phases[:number], less, *program.phases[number + 1 :]])


def _less(phase: Phase) -> Iterator[Phase]:
    for place, (client, steps) in enumerate(phase.steps):
        for step in range(len(steps)):
            rest = steps[:step] + steps[step + 1 :]
            kept = ((client, rest),) if rest else ()
            yield Phase(phase.steps[:place] + kept + phase.steps[place + 1 :], phase.cancel)
    for client in phase.cancel:
        yield Phase(phase.steps, tuple(other for other in phase.cancel if other != client))


def _program(phases: Iterator[Phase] | Sequence[Phase]) -> Iterator[Program]:
    """The program of the phases that are not empty, if anybody does anything in it."""
    program = Program(tuple(phase for phase in phases if phase.steps or phase.cancel))
    if any(phase.steps for phase in program.phases):
        clients = {client for phase in program.phases for client, _ in phase.steps}
        if all(client in clients for phase in program.phases for client in phase.cancel):
            yield program


def _same(
    explorer: Explorer,
    found: Found,
    program: Program,
    symptoms: Sequence[tuple[frozenset[str], str]],
    go_on: Callable[[], bool],
) -> Found | None:
    """The shortest run of the program that breaks the same clauses in no more events and with no more choices."""
    ingredients = program.ingredients
    known = {symptom for plainer, symptom in symptoms if plainer < ingredients}
    result = explorer.every(
        program,
        found.schedule.level,
        len(found.schedule.picks),
        known=known,
        go_on=lambda runs: runs < MOST and go_on(),
    )
    same = [
        other
        for other in result.breaches
        if other.finding.symptom == found.finding.symptom
        and other.finding.clauses == found.finding.clauses
        and len(other.finding.events) <= len(found.finding.events)
        and len(other.schedule.picks) <= len(found.schedule.picks)
    ]
    return min(same, key=lambda other: len(other.finding.events), default=None)
