"""Shrink a counterexample: drop clients, steps and cancellations that it does not need."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from kmutex.engine.explorer import Explorer, Found
from kmutex.engine.program import Phase, Program
from kmutex.engine.run_judge import BLAMED
from kmutex.engine.scenarios import asks_again, with_epilogue

MOST = 100
"""The most runs of one program in search of the same violation."""
MOST_WITHOUT = 400
"""The most runs of a program without the suspected cause."""
FEW = 1
"""So few choices are not shrunk one by one: all schedules as near to the default are tried."""
LEAST_BOUND = 2
"""The least bound on preemptions for them."""


def shrink(
    explorer: Explorer,
    found: Found,
    *,
    symptoms: Sequence[tuple[frozenset[str], str]] = (),
    go_on: Callable[[], bool] = lambda: True,
) -> Found:
    """Return a locally minimal counterexample for the same clauses, with at most as many events and choices.

    Each step drops what makes the run shortest. A clause about an ingredient is no longer named if the shorter program
    shows the symptom without that ingredient.

    Args:
        explorer: Runs the subject.
        found: The counterexample.
        symptoms: Ingredients of programs, with a symptom that they showed, so that it is not blamed on anything else.
        go_on: Called before each run; False ends the search with the shortest so far.
    """
    if not go_on():
        return found
    found = _with_fewer_picks(explorer, found, symptoms, go_on)
    small = _reduced(explorer, unblamed(explorer, found, go_on), symptoms, go_on)
    # A violation in the epilogue is turned into one of a full program, which can then be shrunk too.
    full = in_full(small)
    spelled = _same(explorer, small, full, symptoms, go_on) if full != small.schedule.program else None
    if spelled is not None:
        small = min(small, _reduced(explorer, spelled, symptoms, go_on), key=_size)
    renumbered = _renumbered(small.schedule.program)
    if renumbered == small.schedule.program:
        return small
    return _same(explorer, small, renumbered, symptoms, go_on) or small


def _with_fewer_picks(
    explorer: Explorer,
    found: Found,
    symptoms: Sequence[tuple[frozenset[str], str]],
    go_on: Callable[[], bool],
) -> Found:
    """Return the same violation with a schedule nearer to the default: most random choices are not needed. Drop halves
    of the choices, then quarters, and so on, as long as the same clauses are broken."""
    known = _known(found.schedule.program, symptoms)
    parts = 2
    while len(found.schedule.picks) > FEW and go_on():
        picks = found.schedule.picks
        size = -(-len(picks) // parts)
        for start in range(0, len(picks), size):
            fewer = found.schedule._replace(picks=picks[:start] + picks[start + size :])
            again = next((one for one in explorer.again(fewer, known=known).breaches if _as_bad(one, found)), None)
            if again is not None and len(again.schedule.picks) < len(picks):
                found, parts = again, max(2, parts - 1)
                break
            if not go_on():
                return found
        else:
            if size == 1:
                break
            parts = min(len(picks), 2 * parts)
    return found


def _known(program: Program, symptoms: Sequence[tuple[frozenset[str], str]]) -> set[str]:
    ingredients = program.ingredients
    return {symptom for plainer, symptom in symptoms if plainer < ingredients}


def _as_bad(one: Found, found: Found) -> bool:
    return (one.finding.symptom, one.finding.clauses) == (found.finding.symptom, found.finding.clauses)


def _reduced(
    explorer: Explorer,
    found: Found,
    symptoms: Sequence[tuple[frozenset[str], str]],
    go_on: Callable[[], bool],
) -> Found:
    again = asks_again(found.schedule.program)
    while go_on():
        # Without its unlock, a client asks for a key that it has: a re-entrant locker is right to grant that.
        smaller = (program for program in parts(found.schedule.program) if again or not asks_again(program))
        tried = (_same(explorer, found, program, symptoms, go_on) for program in smaller)
        better = min((one for one in tried if one is not None), key=_size, default=None)
        if better is None or _size(better) > _size(found):
            break
        found = better
    return found


def _size(found: Found) -> tuple[int, bool, int]:
    """Return a sort key: events, then whether some of them are in the epilogue, then the program's length."""
    program = found.schedule.program
    return len(found.finding.events), in_full(found) != program, len(str(program))


def _renumbered(program: Program) -> Program:
    """Return the program with clients renumbered in the order in which they appear."""
    number: dict[int, int] = {}
    for phase in program.phases:
        for client, _ in phase.steps:
            number.setdefault(client, len(number))
    return Program(
        tuple(
            Phase(
                tuple((number[client], steps) for client, steps in phase.steps),
                tuple(number[client] for client in phase.cancel),
            )
            for phase in program.phases
        )
    )


def in_full(found: Found) -> Program:
    """Return the program of all calls in the run, including those of the epilogue."""
    calls: dict[int, deque[str]] = {}
    for event in found.finding.events:
        if event.change in ("asks", "calls", "lets go"):
            calls.setdefault(event.client, deque()).append(event.text)
    phases = []
    for phase in with_epilogue(found.schedule.program, tries=found.schedule.tries)[0].phases:
        made = []
        for client, steps in phase.steps:
            kept = []
            for step in steps:
                # A step that was not possible did not make a call.
                if client in calls and calls[client] and calls[client][0] == f"{step} ...":
                    calls[client].popleft()
                    kept.append(step)
            if kept:
                made.append((client, tuple(kept)))
        phases.append(Phase(tuple(made), phase.cancel))
    (program,) = [*_program(phases), found.schedule.program][:1]
    return program


def unblamed(explorer: Explorer, found: Found, go_on: Callable[[], bool] = lambda: True) -> Found:
    """Return a run with the same symptom without the suspected cause; ``found`` itself if there is no such run."""
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
    """Return the program without these kinds of steps. A wait that may end becomes one that does not. None if the
    program is then empty, or did not change."""
    plain = {"~": "+", "!": "+", "[": "+", "]": "-", "%": "-", "&": "-", "*": "-"}
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
    """Yield the programs with one client less, then those with one step or one cancellation less."""
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
    """Yield the program of the phases that are not empty, if there is any step in it."""
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
    """Return the shortest run of the program that breaks the same clauses, with at most as many events and choices."""
    result = explorer.every(
        program,
        found.schedule.level,
        len(found.schedule.picks),
        known=_known(program, symptoms),
        go_on=lambda runs: runs < MOST and go_on(),
    )
    same = [
        other
        for other in result.breaches
        if _as_bad(other, found)
        and len(other.finding.events) <= len(found.finding.events)
        and len(other.schedule.picks) <= len(found.schedule.picks)
    ]
    return min(same, key=_size, default=None)
