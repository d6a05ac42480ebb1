"""The whole proof, as plain records: what was shown, what the controls caught, and what the tie compared.

A clause is proved only if all of this is so: every obligation of its own, of the invariant and of the ghost is proved
by every solver; each is in the decidable fragment; each case can be taken at all; every part of the invariant is
needed; every broken model of the clause is convicted; and the tie finds no difference.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from kmutex_model.actions import CORRECT, Model, format_schedule
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.proof.controls import Control, control
from kmutex_model.proof.obligations import (
    BEFORE,
    GHOST,
    INVARIANT,
    NeededPart,
    Obligation,
    Shown,
    needed_parts,
    obligations,
    oldest_of_finite,
    outside_the_fragment,
    possible,
    refute,
    show,
)
from kmutex_model.proof.relations import SIGNATURE
from kmutex_model.proof.solvers import SECONDS, Solver, Structure, solvers
from kmutex_model.proof.steps import cases_of
from kmutex_model.proof.tie import BOUNDS, RACES, Tie, state_of, tie
from kmutex_model.state import Config, State

Say = Callable[[str], None]
CLAUSES = tuple(dict.fromkeys(broken.clause for broken in BROKEN))
"""What is proved: every clause that the model has."""


class Line(NamedTuple):
    """One obligation. seconds: by solver. counterexample: the state and the step, where it is refuted."""

    clause: str
    what: str
    step: str
    result: str
    seconds: dict[str, float]
    counterexample: str = ""

    @property
    def proved(self) -> bool:
        return self.result == "proved"


class PartLine(NamedTuple):
    """One part of the invariant, and what fails without it."""

    name: str
    statement: str
    needed_for: str
    counterexample: str


class Obligations(NamedTuple):
    """What was asked of the solvers about one model."""

    lines: tuple[Line, ...]
    parts: tuple[PartLine, ...]
    faults: tuple[str, ...]
    """Why what is proved may mean less than it seems to."""
    solvers: tuple[str, ...]
    """With their versions."""


class ControlLine(NamedTuple):
    """The result for one broken model. ``run`` leads from the start through the wrong step; "" without such a run."""

    model: str
    clause: str
    story: str
    obligation: str
    size: str
    before: str
    step: str
    said: str
    run: str
    breaks: tuple[str, ...]
    seconds: float
    fault: str


def prove(
    model: Model = CORRECT,
    names: Iterable[str] | None = None,
    *,
    seconds: float = SECONDS,
    say: Say = lambda text: None,
) -> Obligations:
    """Ask the solvers of these names (by default all that are installed) everything that has to be shown of the model.

    seconds: the longest for one question. NoSolverError: a solver is not installed.
    """
    by = solvers(names)
    faults, shown, lines = [], [], []
    every = list(obligations(model))
    for number, one in enumerate(every):
        say(f"obligation {number + 1} of {len(every)}: {one.clause}")
        result = show(one, by, seconds=seconds)
        shown.append(result)
        lines.append(_line(result, by))
        if fault := outside_the_fragment(one):
            faults.append(f"{one.clause}, {one.name}: not in the decidable fragment ({fault})")
    if model is CORRECT:
        say("each case can be taken")
        cases = [case for row in model.table for case in cases_of(row, BEFORE)]
        faults += [f"{case.name}: can't be taken at all" for case in cases if not possible(case, by[0])]
    finite = oldest_of_finite(by[0])
    faults += [f"{one.obligation.name}: {one.result}" for one in finite if one.result != "proved"]
    parts: list[NeededPart] = []
    if all(line.proved for line in lines):
        say("each part of the invariant is needed")
        parts = needed_parts([*shown, *finite], by[0])
        faults += [f"{one.part.name}: nothing fails without it" for one in parts if one.obligation is None]
    versions = tuple(f"{solver.name} {solver.version}" for solver in by)
    return Obligations(tuple(lines), tuple(map(_part_line, parts)), tuple(faults), versions)


def _line(shown: Shown, by: Sequence[Solver]) -> Line:
    one = shown.obligation
    seconds = {name: answer.seconds for name, answer in shown.answers.items()}
    line = Line(one.clause, one.what, one.case.name if one.case else "", shown.result, seconds)
    if shown.result == "proved":
        return line
    found = refute(one, by)
    if found is None:
        return line
    again, structure = found
    # A finite counterexample decides it, whatever was said of all sizes; "unsat" would contradict it.
    said = {answer.verdict for answer in shown.answers.values()}
    result = "solvers differ" if "unsat" in said else again.result
    return line._replace(result=result, counterexample=told(one, structure))


def told(one: Obligation, found: Structure) -> str:
    """Return a counterexample as text: the state before, and the numbers of clients and keys."""
    config = Config(found.clients, found.keys, one.case.race if one.case else "keep")
    try:
        before = tell(state_of(config, found.relations))
    except ValueError:
        before = _relations_told(found)
    named = ", ".join(f"{name} {number}" for name, number in found.constants.items() if "!" not in name)
    return f"{before}; {named}" if named else before


def _relations_told(found: Structure) -> str:
    """A state that no tuple of clients can be, relation by relation."""
    said = []
    for name, (sorts, sort) in SIGNATURE.items():
        sizes = (found.clients if one == "Client" else found.keys for one in sorts)
        for place in itertools.product(*map(range, sizes)):
            value = found.relations[name]
            for number in place:
                value = value[number]
            if value:
                said.append(f"{name}({', '.join(map(str, place))})" + (f" = {value}" if sort == "Int" else ""))
    return f"{found.clients} clients, {found.keys} keys: {', '.join(said) or 'nobody anywhere'}"


def tell(state: State) -> str:
    """Return a state as text."""
    keys = []
    for number, entry in enumerate(state.entries):
        if entry is None:
            keys.append(f"key {number} absent")
        else:
            holder = "nobody" if entry.holder < 0 else f"client {entry.holder}"
            queue = f", queue {' '.join(map(str, entry.queue))}" if entry.queue else ""
            keys.append(f"key {number} with {holder}{queue}, {entry.refs} counted")
    clients = [
        f"client {number} {client.phase}" + ("" if client.key is None else f" at {client.key}")
        for number, client in enumerate(state.clients)
    ]
    return f"{'; '.join(keys)}; {', '.join(clients)}"


def _part_line(one: NeededPart) -> PartLine:
    if one.obligation is None or one.found is None:
        return PartLine(one.part.name, one.part.statement, "", "")
    named = f"{one.obligation.clause}, {one.obligation.name}"
    return PartLine(one.part.name, one.part.statement, named, told(one.obligation, one.found))


def check_controls(
    names: Iterable[str] | None = None, known_bad: Sequence[Broken] = BROKEN, *, say: Say = lambda text: None
) -> list[ControlLine]:
    """Each broken model, which must be convicted. NoSolverError: a solver is not installed."""
    by, found = solvers(names), []
    for broken in known_bad:
        say(f"known-bad {broken.model.name}")
        found.append(_control_line(control(broken, by)))
    return found


def _control_line(one: Control) -> ControlLine:
    return ControlLine(
        one.broken.model.name,
        one.broken.clause,
        one.broken.story,
        one.refuted.name if one.refuted else "",
        f"{one.config.clients}x{one.config.keys} {one.config.race}" if one.config else "",
        tell(one.state) if one.state else "",
        str(one.action) if one.action else "",
        one.said,
        format_schedule(one.run.path) if one.run else "",
        one.breaks,
        one.seconds,
        one.fault,
    )


def check_tie(*, say: Say = lambda text: None) -> Tie:
    """The correct model at `BOUNDS` in both races, and each broken one where it is known to show its mistake."""
    say("the tie")
    correct = [(CORRECT, Config(clients, keys, race)) for clients, keys in BOUNDS for race in RACES]
    return tie([*correct, *((broken.model, broken.config) for broken in BROKEN)])


def fault_of(clause: str, shown: Obligations, caught: Sequence[ControlLine], tied: Tie) -> tuple[str, str]:
    """Whether the clause is proved: "holds", "violated" or "inconclusive", and why not."""
    mine = [line for line in shown.lines if line.clause == clause]
    rests_on = [line for line in shown.lines if line.clause in (INVARIANT, GHOST)]
    for line in mine:
        if line.result == "refuted":
            return "violated", f"{line.what}: {line.step} ({line.counterexample})"
    for line in (*mine, *rests_on):
        if not line.proved:
            return "inconclusive", f"{line.clause}, {line.what}: {line.step}: {line.result}"
    known_bad = [line for line in caught if line.clause == clause]
    if not mine or not known_bad:
        return "inconclusive", "nothing was shown" if not mine else "there is no known-bad model of it"
    for control_ in known_bad:
        if control_.fault:
            return "inconclusive", f"known-bad {control_.model}: {control_.fault}"
    if tied.differences or (not tied.violations[clause] and clause != "KM-LIVE"):
        return "inconclusive", f"the tie: {(tied.differences or ['it was never violated'])[0]}"
    return ("inconclusive", shown.faults[0]) if shown.faults else ("holds", "")
