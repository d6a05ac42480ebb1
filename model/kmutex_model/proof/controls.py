"""What the proof can catch: every broken model must fail an obligation of its own clause, for a reason that is real.

A failed obligation comes with a state that the invariant allows and a step from it. Both are taken to the explorer's
model: the same broken step is taken there, from the same state, and the clause's own property must convict it. So a
control shows two things: that the proof is not blind, and that what it saw is so.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from kmutex_model.actions import CORRECT, KEYED, Action
from kmutex_model.broken import Broken
from kmutex_model.explore import Counterexample, explore
from kmutex_model.proof import clauses
from kmutex_model.proof.obligations import (
    BEFORE,
    INVARIANT,
    LIVE,
    WAITER,
    WAITER_KEY,
    Obligation,
    obligations,
    refutations,
    refute,
)
from kmutex_model.proof.solvers import Solver, Structure
from kmutex_model.proof.steps import ACTOR, KEY, Case, cases_of
from kmutex_model.proof.tie import formula_of_step, state_of, values_of_step
from kmutex_model.properties import ALL, Property, make_transition
from kmutex_model.state import Config, State

MOST_STATES = 20_000


class Control(NamedTuple):
    """The result for one broken model.

    refuted     the obligation of its clause that failed; None if none did
    breaks      the parts of the invariant that its steps do not keep
    config      the size of the counterexample, `state` the state before, `action` the step
    said        how the property convicts the step; for KM-LIVE, how the rank does
    run         a run of the broken model to that state and through the step, if it has one
    fault       why the control fails, or an empty string
    """

    broken: Broken
    refuted: Obligation | None = None
    breaks: tuple[str, ...] = ()
    config: Config | None = None
    state: State | None = None
    action: Action | None = None
    said: str = ""
    run: Counterexample | None = None
    seconds: float = 0.0
    fault: str = ""


def differing(broken: Broken) -> list[Case]:
    """The cases of the rows that the correct model does not have, in the races where they differ."""
    rows = [row for row in broken.model.table if row not in CORRECT.table]
    return [case for row in rows for case in cases_of(row, BEFORE)]


def control(broken: Broken, by: Sequence[Solver]) -> Control:
    """Look for an obligation of the model's clause that fails, and take its counterexample to the explorer."""
    started = time.perf_counter()
    every = list(obligations(broken.model, only=differing(broken)))
    breaks = tuple(
        dict.fromkeys(
            one.what.removesuffix(", kept")
            for one in every
            if one.clause == INVARIANT and refute(one, by[:1]) is not None
        )
    )
    # A step that breaks a clause is a better story than a state that does.
    mine = sorted((one for one in every if one.clause == broken.clause), key=lambda one: one.what != "on the step")
    best = Control(broken, breaks=breaks, fault=f"no obligation of {broken.clause} fails")
    for one in mine:
        for shown, structure in refutations(one, by):
            found = replay(broken, one, structure, breaks)
            if shown.result != "refuted":
                found = found._replace(fault=f"{one.name}: {shown.result}")
            if best.refuted is None or best.fault or found.run:
                best = found
            if found.fault or found.run:
                break
        # The first that fails is as good as any, if only a run leads to it.
        if best.refuted and (best.fault or best.run):
            break
    return best._replace(seconds=time.perf_counter() - started)


def replay(broken: Broken, one: Obligation, found: Structure, breaks: tuple[str, ...] = ()) -> Control:
    """Take the counterexample's step in the explorer's model; `fault` says if that finds nothing wrong with it."""
    race = one.case.race if one.case and one.case.race_matters else broken.config.race
    config = Config(found.clients, found.keys, race)
    part = Control(broken, one, breaks, config)
    try:
        state = state_of(config, found.relations)
    except ValueError as error:
        return part._replace(fault=str(error))
    client, key = found.constants[str(ACTOR)], found.constants[str(KEY)]
    part = part._replace(state=state)
    if one.case is None:
        fair = [a for a in broken.model.enabled(config, state) if a.name in clauses.FAIR and a.client == client]
        if fair:
            return part._replace(fault=f"in the explorer's model {fair[0]} can be taken")
        said = f"client {found.constants[str(WAITER)]} waits for key {key}, and its owner has no fair step"
        return part._replace(said=said, run=_run(part, None, said))
    action = Action(one.case.row.action, client, key if one.case.row.action in KEYED else None)
    part = part._replace(action=action)
    after, outcome = broken.model.step(config, state, action)
    if one.clause == LIVE:
        waiter, where = found.constants[str(WAITER)], found.constants[str(WAITER_KEY)]
        of_rank = clauses.RANK[one.what]
        holds = formula_of_step(lambda x: of_rank(x, WAITER, WAITER_KEY), one.case, (WAITER, WAITER_KEY))
        if outcome != one.case.outcome or holds(*values_of_step(config, state, after), client, key, waiter, where):
            return part._replace(fault="the explorer's step breaks no rank")
        said = f"not so for client {waiter} at key {where}: {one.what}"
        return part._replace(said=said, run=_run(part, action, said))
    transition = make_transition(config, state, action, outcome, after)
    (prop,) = [prop for prop in ALL if prop.clause == one.clause]
    said = (prop.on_step(transition) if prop.on_step else "") or (prop.in_state(config, after) if prop.in_state else "")
    if not said:
        return part._replace(fault="the property finds nothing wrong with the explorer's step")
    return part._replace(said=said, run=_run(part, action, said))


def _run(part: Control, action: Action | None, said: str) -> Counterexample | None:
    """A run of the broken model that leads to the state by steps with which nothing is wrong."""
    assert part.config is not None
    assert part.state is not None
    found = explore(part.broken.model, part.config, properties=_safety(), max_states=MOST_STATES)
    if part.state not in found.graph:
        return None
    path = found.graph.path(part.state, *((action,) if action else ()))
    return Counterexample(part.broken.clause, path, said)


def _safety() -> list[Property]:
    return [prop for prop in ALL if not prop.eventually]
