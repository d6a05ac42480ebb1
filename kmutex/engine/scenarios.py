"""The programs that every locker is put through.

Most put a locker into a small situation (the key is free, held, waited for by one or two) and then let two or three
things happen at once. The plain ones come first: what they show is not blamed on anything else. Nobody needs to
unlock at the end of a program: the epilogue does.
"""

from __future__ import annotations

import functools

from kmutex.engine.program import ASKING, DOING, FLIGHT, Phase, Program, Step, parse
from kmutex.engine.shapes import Shape

PLAIN = (
    "0+a-a",
    # One after the other: who waits, in which order, and who comes new.
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
"""Unlocks of an unheld key after something that may have left a trace."""
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
    # The same where a later holder has somebody waiting behind it.
    "0[a | 1+a | 2+a | 0ua | 0^a",
    "0[a | 1+a | 2+a | 0ua | 0]a",
    "0[a | 1[a | 2+a | 0^a | 3oa | 1]a",
    # By somebody who was handed the lease: refused or not, it is ended once.
    "0[a | 1oa | 0^a | 1+a",
    "0[a | 1+a | 0^a | 2oa | 1-a",
    "0[a | 1+a | 2+a | 0^a 3oa",
)

FLIGHTS = (
    "0na",
    "0na | 0na | 1na",
    # One after the other: who works, who joins, and who comes when it is over.
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
"""Where duplicates are suppressed. Nobody needs to end the work at the end of a program: the epilogue does."""
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
    # A leader: cancelled alone, and with others who wait for its work.
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
    """The programs for a subject that suppresses duplicates, in the order in which they are to be run.

    cancel: a call can be cancelled (a task) or interrupted (a thread). forget: it has forget(key).
    """
    texts = [*FLIGHTS, *FAILURES, *(CANCELLED_CALLS if cancel else ()), *(FORGETTING if forget else ())]
    return [parse(text) for text in texts]


BODIES = (
    "0+a%a",
    "0+a%a | 1+a",
    "0+a | 1+a | 0%a",
    "0+a | 1+a | 2+a | 0%a | 1%a",
    "0+a%a 1+a",
)
"""Blocks whose body raises."""
CANCELLED_BODIES = ("0+a&a | 1+a", "0+a | 1+a | 0&a", "0+a | 1+a | 0*a")
LEASED_BODIES = ("0[a%a | 1+a", "0[a | 1[a | 0%a")


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
    """The programs for a locker with these features, in the order in which they are to be run.

    cancel: a wait can be given up (a timeout, a cancelled task). tries: timeout 0. interrupt: threads.
    leases: the locker has ``hold``. strays: the unlock of a key can be asked of who has it not by lock. reentrant: who
    holds a key gets it again. striped: one key at a time is asked for, since two may be one lock. bodies: it is held by
    a block, whose body can raise. tasks: and whose task can be cancelled there.
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
    """The programs for what a factory makes. interrupt: whether interrupted threads are judged."""
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
    """Whether a client asks for a key that it may hold already."""
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
    """The program, and after it: everybody lets go, and then for each key: is it as good as new? And how many
    phases that adds.

    As good as new: taken at once by somebody, contended for by two in order, and unheld in the end, which is asked only
    where a stray unlock can be. Where duplicates are suppressed: all work is ended, and then one leads, another joins,
    and a third comes when it is over. afterwards: False leaves that question out for locks.
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
    """Each call may be a run of its own, one after the other: when those before it fail, or where none is shared."""
    texts = []
    nobody = max(2, program.clients)
    for key in program.keys:
        calls = [step for phase in program.phases for _, steps in phase.steps for step in steps if step.kind in DOING]
        texts += [f"{nobody}e{key}"] * sum(step.key == key for step in calls)
    texts += [f"0d{key} | 1d{key} | {nobody}e{key} | {nobody}e{key} | 0n{key}" for key in program.keys]
    phases: tuple[Phase, ...] = parse(" | ".join(texts)).phases
    return Program((*program.phases, *phases)), len(phases)
