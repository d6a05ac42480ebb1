"""The programs for every locker.

Most of them create a small situation (the key is free, held, or one or two clients wait for it), and then let two or
three events overlap. The simple programs come first: their symptoms are not blamed on anything else. No client needs to
unlock at the end of a program: the epilogue does.
"""

from __future__ import annotations

import functools

from kmutex.engine.program import ASKING, DOING, FLIGHT, Phase, Program, Step, parse
from kmutex.engine.shapes import Shape

PLAIN = (
    "0+a-a",
    # One after the other: waiters, their order, and newcomers.
    "0+a | 1+a | 2+a | 3+a | 0-a",
    "0+a | 1+a | 2+a | 3+a | 4+a | 0-a | 1-a | 2-a | 3-a",
    "0+a | 1+a | 2+a | 3+a | 0-a | 1-a | 4+a | 2-a",
    "0+a | 1+a | 0-a+a",
    "0+a | 1+a-a+a | 2+a | 0-a",
    "0+a | 1+a | 2+b-b | 0-a",
    "0+a | 1+b | 2+a | 3+b | 1-b | 0-a",
    "0+a+b | 1+a 2+b | 0-a-b",
    "0+a-a | 0+a-a | 1+a-a | 0+a 1+a",
    # At once: the key is free.
    "0+a 1+a",
    "0+a 1+b",
    "0+a-a 1+a",
    "0+a-a 1+a-a",
    "0+a-a 1+b-b",
    "0+a-a+a-a 1+a",
    "0+a 1+a 2+a",
    "0+a 1+a 2+b",
    "0+a-a 1+a 2+a",
    # At once: the key is held, or waited for.
    "0+a | 0-a 1+a",
    "0+a | 0-a 1+b",
    "0+a | 1+a 2+a",
    "0+a | 1+a 2+b",
    "0+a | 0-a 1+a 2+a",
    "0+a | 0-a 1+a 2+b",
    "0+a | 1+b | 0-a 1-b",
    "0+a | 1+a | 0-a 2+a",
    "0+a | 1+a | 0-a 2+b",
    "0+a | 1+a | 0-a+a 2+a",
    "0+a | 1+a | 2+a | 0-a 3+a",
    "0+a | 1+b | 2+a | 3+b | 0-a 1-b",
)
TRIES = (
    "0?a-a",
    "0+a | 1?a",
    "0+a | 0?a",
    "0+a | 1+a | 0-a?a",
    "0+a | 1?a | 2+a | 0-a",
    "0+a | 1+a | 2?a | 0-a",
    "0+a | 1?a | 1?a | 0-a | 1?a",
    "0+a 1?a",
    "0?a 1?a",
    "0+a 1?b",
    "0+a-a 1?a",
    "0+a | 0-a 1?a",
    "0+a | 0-a 1?b",
    "0+a | 1?a 2+a",
    "0+a | 1?a 2?a",
    "0+a | 1+a | 0-a 2?a",
    "0+a | 1+a | 2?a 3+a",
)
CANCELS = (
    "0+a | 0~a | c0",
    "0+a | 1~a | c1",
    "0+a | 1~a | c1 | 1~a | 0-a",
    "0+a | 1~a | c1 | 2+a | 0-a | 1+a",
    "0+a | 1~a | 2+a | c1 | 0-a",
    "0+a | 1+a | 2~a | 3+a | c2 | 0-a",
    "0+a | 1~a | 2+a | 3+a | c1 | 0-a | 2-a",
    "0+a | 1+a | 2~a | c2 | 3+a | 0-a",
    "0+a | 1+a | 2~a | 3+a | 4~a | 5+a | c2 c4 | 0-a | 1-a",
    "0+a | 1~a | 2+b | 3+b | c1 | 2-b | 0-a",
    "0+a | 1~a | 2~a | c2 | 3+a | 0-a",
    "0+a | 1~a 2~a | c1 c2 | 0-a",
    "0+a 1~a",
    "0+a | 1~a 2+a | c1",
    "0+a | 1~a | 0-a",
    "0+a | 1~a | 0-a 2+a",
    "0+a | 1~a | 0-a 2+b",
    "0+a | 1~a | c1 2+a",
    "0+a | 1~a | c1 0-a",
    "0+a | 1~a | c1 0-a 2+a",
    "0+a | 1+a | 2~a | 3+a | 0-a",
    "0+a | 1~a | c1 | 0-a+a 2+a",
    "0+a | 1~a | 2+a | 0-a",
    "0+a | 1+a | 2~a | 0-a",
    "0+a | 1~a | 2~a | 0-a",
    "0+a | 1~a | 2~a | c1 c2",
    "0+a | 1~a | 2+a | c1 3+a",
    "0+a | 1+a | 2~a | c2 3+a",
)
CANCELS_AND_TRIES = (
    "0+a | 1~a | 0-a 2?a",
    "0+a | 1~a | c1 2?a",
)
INTERRUPTS = (
    "0+a | 1!a | c1",
    "0+a | 1!a | 2+a | c1 | 0-a",
    "0+a | 1+a | 2!a | 3+a | c2 | 0-a",
    "0+a | 1!a | c1 | 0-a | 1+a",
    "0+a | 1!a | 0-a",
    "0+a | 1!a | 0-a 2+a",
    "0+a | 1!a | c1 2+a",
    "0+a | 1!a | 2+a | 0-a",
    "0+a | 1!a | 2!a | 0-a",
)
STRAYS = (
    "0xa",
    "0xa | 0xa",
    "0+a-a | 0xa",
    "0+a-axa",
    "0+a-a | 1xa | 0xa | 0+a | 1+a | 2+a | 0-a",
    "0+a | 1xb",
    "0+a | 1+a | 2xb | 0-a",
    "0+a-a | 1xa | 0+a 1+a",
    "0+a 1xb",
    "0+a | 1xb 2+a",
    "0+a | 0-a 1xa",
)
STRAYS_AFTER = (
    "0+a | 1~a | c1 | 0-a | 1xa | 0+a | 1+a | 0-a",
    "0+a | 1?a | 0-a | 1xa | 0+a 1+a",
)
"""Unlocks of an unheld key after events that may have left a trace."""
LEASES = (
    "0[a]a",
    "0[a^a]a",
    "0[a 1[a",
    "0[a | 1[a | 0]a",
    "0[a | 0^a 1+a",
    "0[a^a | 1+a | 0]a | 2+a | 1-a",
    "0[a | 1+a | 0^a | 0^a | 2+a | 1-a | 0]a",
    "0[a | 1[a | 0^a | 0]a | 2+a | 1]a",
    "0[a | 0ua | 1+a | 0]a | 2+a | 1-a",
    # The same with a waiter behind a later holder.
    "0[a | 1+a | 2+a | 0ua | 0^a",
    "0[a | 1+a | 2+a | 0ua | 0]a",
    "0[a | 1[a | 2+a | 0^a | 3oa | 1]a",
    # By a client that was given the lease: refused or not, the lease ends once.
    "0[a | 1oa | 0^a | 1+a",
    "0[a | 1+a | 0^a | 2oa | 1-a",
    "0[a | 1+a | 2+a | 0^a 3oa",
)

FLIGHTS = (
    "0na",
    "0na | 0na | 1na",
    # One after the other: a leader, followers, and calls after the end.
    "0da | 1da | 2ea",
    "0da | 1da | 2da | 3ea",
    "0da | 1dana | 2ea",
    "0da | 1da | 2ea | 0da | 1da | 2ea",
    "0da | 1db | 2eb | 2ea",
    "0da | 1db | 2da | 3ea | 3eb",
    # At once.
    "0na 1na",
    "0na 1nb",
    "0da 1da",
    "0da 1db",
    "0nana 1na",
    "0da 1da 2da",
    "0da | 1da 2da | 3ea",
    "0da | 1da 2ea",
    "0da | 1na 2ea",
    "0da | 1da | 2ea 3da",
    "0da | 1dana | 2ea 3na",
    "0da | 1db | 2ea 3eb",
    "0da | 1da 2db | 3ea",
)
"""For duplicate suppression. No client needs to end the work at the end of a program: the epilogue does."""
FAILURES = (
    "0fa | 1ea",
    "0fa | 1ea | 0da | 2da | 1ea",
    "0fa | 1da | 2ea",
    "0fa | 1da | 2da | 3ea",
    "0fa | 1fa | 2da | 3ea | 3ea",
    "0fa | 1db | 2ea | 2eb",
    "0fa 1da",
    "0fa | 1da 2ea",
    "0fa | 1da | 2ea 3da",
    "0fa | 1dana | 2ea",
)
CANCELLED_CALLS = (
    # A leader: cancelled alone, and with followers.
    "0ta | c0",
    "0ta | c0 | 1da | 2da | 3ea",
    "0ta | 1da | c0",
    "0ta | 1da | 2da | c0 | 3ea",
    "0ta | 1db | c0",
    "0ta | 1da",
    "0ta | 1da | 2ea",
    "0ta | 1da | c0 2da",
    # A follower.
    "0da | 1ta | c1",
    "0da | 1ta | 2da | c1 | 3ea",
    "0da | 1ta | c1 | 1da | 2ea",
    "0da | 1ta | c1 | 2da | 3ea",
    "0da | 1ta | c1 | 2ea | 1na",
    "0da | 1ta | 2ea",
    "0da | 1ta | c1 2ea",
    "0da | 1ta | c1 2da",
    # All of them.
    "0ta | 1ta | c1 | c0 | 2da | 3ea",
    "0ta | 1ta | c0 | c1 | 2da | 3ea",
    "0ta | 1ta | c0 c1 | 2da | 3ea",
)


FORGETTING = (
    "0ga | 0da | 1da | 2ea",
    "0da | 1ga | 1da | 2ea | 3da",
    "0da | 1da | 2ga | 2ea | 0na",
)


def flights(*, cancel: bool = True, forget: bool = False) -> list[Program]:
    """Return the programs for a subject that suppresses duplicates, in the order in which they are run.

    Args:
        cancel: Whether a call can be cancelled (a task) or interrupted (a thread).
        forget: Whether it has forget(key).
    """
    texts = [*FLIGHTS, *FAILURES, *(CANCELLED_CALLS if cancel else ()), *(FORGETTING if forget else ())]
    return [parse(text) for text in texts]


BODIES = (
    "0+a%a",
    "0+a%a | 1+a",
    # An entry that is let go once too often is missing for the waiter, and a newcomer makes another.
    "0+a | 1+a | 0%a | 2+a",
    "0+a | 1+a | 2+a | 0%a | 1%a",
    "0+a%a 1+a",
)
"""Blocks whose body raises."""
CANCELLED_BODIES = ("0+a&a | 1+a", "0+a | 1+a | 0&a | 2+a", "0+a | 1+a | 0*a")
LEASED_BODIES = ("0[a%a | 1+a", "0[a | 1[a | 0%a | 2+a")


def programs(
    *,
    cancel: bool = True,
    tries: bool = True,
    interrupt: bool = True,
    leases: bool = False,
    strays: bool = True,
    reentrant: bool = False,
    striped: bool = False,
    bodies: bool = False,
    tasks: bool = False,
) -> list[Program]:
    """Return the programs for a locker with these features, in the order in which they are run.

    Args:
        cancel: Whether a wait can be cancelled, by a timeout or as a task.
        tries: Whether it takes timeout 0.
        interrupt: Whether interrupts of threads are judged.
        leases: Whether it has ``hold``.
        strays: Whether a client without the key can call unlock.
        reentrant: Whether a holder gets its key again.
        striped: Whether keys may share a lock, so that only one key at a time is used.
        bodies: Whether it is held by a block, whose body can raise.
        tasks: Whether the task in such a block can be cancelled.
    """
    texts = [*PLAIN, *(TRIES if tries else ()), *(CANCELS if cancel else ()), *(INTERRUPTS if interrupt else ())]
    texts += STRAYS
    if cancel and tries:
        texts += CANCELS_AND_TRIES + STRAYS_AFTER
    texts += LEASES + LEASED_BODIES if leases else ()
    texts += BODIES if bodies else ()
    texts += CANCELLED_BODIES if bodies and tasks else ()
    wanted = [parse(text) for text in texts]
    return [
        program
        for program in wanted
        if (strays or not program.kinds & frozenset("xu"))
        and not (reentrant and asks_again(program))
        and not (striped and len(program.keys) > 1)
    ]


def programs_for(shape: Shape, *, interrupt: bool) -> list[Program]:
    """Return the programs for a shape; ``interrupt`` tells whether interrupted threads are judged."""
    if shape.form == "flight":
        return flights(cancel=interrupt or shape.kind == "asyncio", forget=shape.forgets)
    return programs(
        cancel=shape.timeout or shape.kind == "asyncio",
        tries=shape.tries,
        interrupt=shape.kind == "threads" and interrupt,
        leases=shape.leases,
        strays=shape.strays,
        reentrant=shape.reentrant,
        striped=shape.striped,
        bodies=shape.bodies,
        tasks=shape.kind == "asyncio",
    )


def asks_again(program: Program) -> bool:
    """Return whether a client asks for a key that it may hold already."""
    held: set[tuple[int, str]] = set()
    for client, steps in (one for phase in program.phases for one in phase.steps):
        for kind, key in steps:
            if kind in ASKING and (client, key) in held:
                return True
            (held.add if kind in ASKING else held.discard)((client, key))
    return False


@functools.lru_cache(maxsize=256)
def with_epilogue(
    program: Program, *, tries: bool = True, strays: bool = True, afterwards: bool = True
) -> tuple[Program, int]:
    """Return the program with its epilogue, and the number of phases in that.

    In the epilogue every client releases its keys, and then each key must be as good as new: granted at once, passed on
    in order between waiters, and unheld at the end, if that can be tested by a stray unlock. For duplicate suppression,
    all work is ended; then one client leads, another follows, and a third calls after the end. ``afterwards=False``
    omits the second part for locks.
    """
    if program.kinds & FLIGHT:
        return _with_flight_epilogue(program)
    letting_go: dict[int, tuple[Step, ...]] = {}
    for phase in program.phases:
        for client, steps in phase.steps:
            for step in steps:
                if step.kind in ASKING:
                    ending = Step("]" if step.kind == "[" else "-", step.key)
                    letting_go[client] = (*letting_go.get(client, ()), ending)
    first = (Phase(tuple(letting_go.items())),) if letting_go else ()
    texts = []
    for key in program.keys if afterwards else ():
        alone = f"0?{key}-{key}" if tries else f"0+{key}-{key}"
        texts.append(f"{alone} | 0+{key} | 1+{key} | 2+{key} | 0-{key} | 1-{key} | 2-{key}")
        texts += [f"0x{key}"] if strays else []
    phases = (*first, *(parse(" | ".join(texts)).phases if texts else ()))
    return Program((*program.phases, *phases)), len(phases)


def _with_flight_epilogue(program: Program) -> tuple[Program, int]:
    """End all work. Each call may have its own run: if those before it fail, or if runs are not shared."""
    texts = []
    nobody = max(2, program.clients)
    for key in program.keys:
        calls = [step for phase in program.phases for _, steps in phase.steps for step in steps if step.kind in DOING]
        texts += [f"{nobody}e{key}"] * sum(step.key == key for step in calls)
    texts += [f"0d{key} | 1d{key} | {nobody}e{key} | {nobody}e{key} | 0n{key}" for key in program.keys]
    phases: tuple[Phase, ...] = parse(" | ".join(texts)).phases
    return Program((*program.phases, *phases)), len(phases)
