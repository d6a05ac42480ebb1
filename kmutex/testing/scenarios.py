"""The programs that every locker is put through. Plain ones first: what they show is not blamed on anything else."""

from __future__ import annotations

from kmutex.schedule.program import Phase, Program, parse

PLAIN = (
    "0+a-a",
    "0+a 1+a | 0-a 1-a",
    "0+a 1+b | 0-a 1-b",
    "0+a | 1+a | 0-a 2+a | 1-a 2-a",
    "0+a | 1+a-a | 2+a-a | 0-a",
    "0+a | 1+a-a | 0-a+a-a",
    "0+a | 1+a-a | 2+b-b | 0-a",
    "0+a | 1+b | 2+a-a | 3+b-b | 1-b | 0-a",
    "0+a+b | 1+a-a 2+b-b | 0-a-b",
    "0+a-a | 0+a-a | 1+a-a | 0+a-a 1+a-a",
    "0+a | 1+a-a+a-a | 2+a-a | 0-a",
    "0+a | 1+a-a | 2+a-a | 3+a-a | 0-a",
    "0+a | 1+a-a | 2+a-a | 3+a-a | 4+a-a | 0-a",
    "0+a-a 1+a-a",
    "0+a-a 1+b-b",
    "0+a | 1+a-a | 0-a 2+b-b",
    "0+a-a 1+a | 1-a 0+a-a",
    "0+a 1+a 2+a | 0-a 1-a 2-a",
    "0+a 1+a 2+b | 0-a 1-a 2-b",
    "0+a-a 1+a-a 2+a | 2-a",
)
TRIES = (
    "0?a-a",
    "0+a | 1?a-a | 0-a",
    "0+a | 0?a | 0-a",
    "0+a | 1+a-a | 0-a?a-a",
    "0+a | 1?a-a | 2+a-a | 0-a",
    "0+a | 1+a-a | 2?a-a | 0-a",
    "0+a | 1?a-a | 1?a-a | 0-a | 1?a-a",
    "0+a 1?a | 0-a 1-a",
    "0+a-a 1?a | 1-a",
    "0?a 1?a | 0-a 1-a",
    "0+a | 1+a | 0-a 2?a | 1-a 2-a",
)
CANCELS = (
    "0+a | 1~a-a | c1 | 0-a",
    "0+a | 1~a-a | 0-a",
    "0+a | 1~a-a | 2+a-a | c1 | 0-a",
    "0+a | 1+a-a | 2~a-a | 3+a-a | c2 | 0-a",
    "0+a | 1+a-a | 2~a-a | c2 | 3+a-a | 0-a",
    "0+a | 1~a-a | c1 | 1~a-a | 0-a",
    "0+a | 1~a-a | c1 | 2+a-a | 0-a | 1+a-a",
    "0+a | 1~a-a 2~a-a | c1 c2 | 0-a",
    "0+a | 1+a-a | 2~a-a | 3+a-a | 4~a-a | 5+a-a | c2 c4 | 0-a",
    "0+a | 1~a-a | 2+b | 3+b-b | c1 | 2-b | 0-a",
    "0+a | 1~a-a | c1 | 0-a+a-a 2+a-a",
    "0+a | 1~a-a | 2+a-a | 0-a",
    "0+a | 1~a-a | 2~a-a | 0-a",
    "0+a | 1+a-a | 2~a-a | 0-a",
    "0+a | 1~a | 0-a 2+a | 1-a 2-a",
    "0+a | 1~a-a | 2+a-a | 3+a-a | 0-a",
)
INTERRUPTS = (
    "0+a | 1!a-a | c1 | 0-a",
    "0+a | 1!a-a | 2+a-a | c1 | 0-a",
    "0+a | 1+a-a | 2!a-a | 3+a-a | c2 | 0-a",
    "0+a | 1!a-a | c1 | 0-a | 1+a-a",
    "0+a | 1!a-a | 2+a-a | 0-a",
    "0+a | 1!a | 0-a 2+a | 1-a 2-a",
)
STRAYS = (
    "0xa",
    "0+a-a | 0xa",
    "0+a | 1xb | 0-a",
    "0xa | 0+a-a",
    "0+a-a | 0xa | 0+a | 1+a-a | 2+a-a | 0-a",
    "0xa | 0xa | 0+a | 1+a-a | 2+a-a | 0-a",
    "0+a | 1+a-a | 2xb | 0-a",
    "0+a-a | 1xa | 0+a 1+a | 0-a 1-a",
)
STRAYS_AFTER = (
    "0+a | 1~a-a | c1 | 0-a | 1xa | 0+a | 1+a-a | 0-a",
    "0+a | 1?a-a | 0-a | 1xa | 0+a 1+a | 0-a 1-a",
)
"""Unlocks of an unheld key after something that may have left a trace."""
LEASES = (
    "0[a]a",
    "0[a^a]a",
    "0[a 1[a | 0]a 1]a",
    "0[a | 1[a]a | 0]a",
    "0[a^a | 1+a | 0]a | 2+a-a | 1-a",
    "0[a | 1+a | 0^a | 0^a | 2+a-a | 1-a | 0]a",
)


def programs(*, cancel: bool = True, tries: bool = True, interrupt: bool = True, leases: bool = False) -> list[Program]:
    """The programs for a locker with these features, in the order in which they are to be run.

    cancel: a wait can be given up (a timeout, a cancelled task). tries: timeout 0. interrupt: threads.
    leases: the locker has ``hold``.
    """
    texts = [*PLAIN, *(TRIES if tries else ()), *(CANCELS if cancel else ()), *(INTERRUPTS if interrupt else ())]
    texts += STRAYS
    if cancel and tries:
        texts += STRAYS_AFTER
    texts += LEASES if leases else ()
    return [parse(text) for text in texts]


def with_epilogue(program: Program, *, tries: bool = True) -> tuple[Program, int]:
    """The program, and after it for each of its keys: is it as good as new? And how many phases that adds.

    As good as new: taken at once by somebody, contended for by two in order, and unheld in the end.
    """
    phases: list[Phase] = []
    for key in program.keys:
        first = f"0?{key}-{key}" if tries else f"0+{key}-{key}"
        text = f"{first} | 0+{key} | 1+{key}-{key} | 2+{key}-{key} | 0-{key} | 0x{key}"
        phases += parse(text).phases
    return Program((*program.phases, *phases)), len(phases)
