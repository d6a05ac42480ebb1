"""A long queue: a short one may be in order by chance, or by a special case (KM-FIFO, KM-CANCEL)."""

from __future__ import annotations

from kmutex.engine.program import Phase, Program, Step
from kmutex.verify.checks.context import Context
from kmutex.verify.results import UnitResult

WAITERS = (9, 24)
"""The numbers of waiters. With nine, the schedule still has a text form, and can be replayed."""


def queues(context: Context, outcome: UnitResult) -> None:
    """One client holds a key, many start to wait one after the other, some of them leave, and the rest are served."""
    cancels = context.shape.timeout or context.shape.kind == "asyncio"
    longest = 0
    for waiters in WAITERS:
        for program in (_line(waiters), *([_line(waiters, every=3)] if cancels else [])):
            result = context.explorer.every(program, context.level, 0, go_on=lambda runs: context.beat(runs) < 1)
            outcome.runs += result.runs
            if result.endless or result.exited:
                break
            outcome.witnesses.update({name: result.witnesses[name] for name in ("KM-FIFO", "KM-CANCEL")})
            outcome.found += [context.violation(found) for found in result.found.values()]
            outcome.unpromised += [context.violation(found) for found in result.unpromised.values()]
            longest = waiters
        if outcome.found or longest < waiters:
            break
    outcome.bound = f"a queue of up to {longest}"
    outcome.complete = longest == WAITERS[-1]


def _line(waiters: int, every: int = 0) -> Program:
    """Return the program. One of ``every`` waiters leaves before it is served; 0: no waiter leaves."""
    asking = [Step("~" if every and client and client % every == 0 else "+", "a") for client in range(waiters + 1)]
    phases = [Phase(((client, (step,)),)) for client, step in enumerate(asking)]
    if every:
        phases.append(Phase((), tuple(client for client, step in enumerate(asking) if step.kind == "~")))
    phases += [Phase(((client, (Step("-", "a"),)),)) for client in range(waiters + 1)]
    return Program(tuple(phases))
