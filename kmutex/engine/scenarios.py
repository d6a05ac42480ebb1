"""The programs that every locker is put through.

Most put a locker into a small situation (the key is free, held, waited for by one or two) and then let two or three
things happen at once. The plain ones come first: what they show is not blamed on anything else. Nobody needs to
unlock at the end of a program: the epilogue does.
"""

from __future__ import annotations

import functools

from kmutex.engine.program import ASKING, Phase, Program, parse
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
)


def programs(
    *,
    cancel: bool = True,
    tries: bool = True,
    interrupt: bool = True,
    leases: bool = False,
    strays: bool = True,
    reentrant: bool = False,
    striped: bool = False,
) -> list[Program]:
    """The programs for a locker with these features, in the order in which they are to be run.

    cancel: a wait can be given up (a timeout, a cancelled task). tries: timeout 0. interrupt: threads.
    leases: the locker has ``hold``. strays: the unlock of an unheld key can be asked. reentrant: who holds a key gets
    it again. striped: one key at a time is asked for, since two may be one lock.
    """
    texts = [*PLAIN, *(TRIES if tries else ()), *(CANCELS if cancel else ()), *(INTERRUPTS if interrupt else ())]
    texts += STRAYS
    if cancel and tries:
        texts += CANCELS_AND_TRIES + STRAYS_AFTER
    texts += LEASES if leases else ()
    wanted = [parse(text) for text in texts]
    return [
        program
        for program in wanted
        if (strays or "x" not in program.kinds)
        and not (reentrant and _asks_again(program))
        and not (striped and len(program.keys) > 1)
    ]


def programs_for(shape: Shape, *, interrupt: bool) -> list[Program]:
    """The programs for what a factory makes. interrupt: whether interrupted threads are judged."""
    return programs(
        cancel=shape.timeout or shape.kind == "asyncio",
        tries=shape.tries,
        interrupt=shape.kind == "threads" and interrupt,
        leases=shape.leases,
        strays=shape.strays,
        reentrant=shape.reentrant,
        striped=shape.striped,
    )


def _asks_again(program: Program) -> bool:
    """Whether a client asks for a key that it may hold already."""
    held: set[tuple[int, str]] = set()
    for client, steps in (one for phase in program.phases for one in phase.steps):
        for kind, key in steps:
            if kind in ASKING and (client, key) in held:
                return True
            (held.add if kind in ASKING else held.discard)((client, key))
    return False


@functools.lru_cache(maxsize=256)
def with_epilogue(program: Program, *, tries: bool = True, strays: bool = True) -> tuple[Program, int]:
    """The program, and after it: everybody lets go, and then for each key: is it as good as new? And how many
    phases that adds.

    As good as new: taken at once by somebody, contended for by two in order, and unheld in the end, which is asked only
    where a stray unlock can be.
    """
    letting_go: dict[int, str] = {}
    for phase in program.phases:
        for client, steps in phase.steps:
            for step in steps:
                if step.kind in ASKING:
                    ending = ("]" if step.kind == "[" else "-") + step.key
                    letting_go[client] = letting_go.get(client, str(client)) + ending
    texts = [" ".join(letting_go.values())] if letting_go else []
    for key in program.keys:
        first = f"0?{key}-{key}" if tries else f"0+{key}-{key}"
        texts.append(f"{first} | 0+{key} | 1+{key} | 2+{key} | 0-{key} | 1-{key} | 2-{key}")
        texts += [f"0x{key}"] if strays else []
    phases: tuple[Phase, ...] = parse(" | ".join(texts)).phases
    return Program((*program.phases, *phases)), len(phases)
