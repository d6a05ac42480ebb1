"""A program: what the clients of a run do, as a value and as text.

    0+a | 1~a-a 2+b-b | 0-a

A program is a sequence of phases, separated by ``|``. In each phase some clients (a digit) do one or more steps. The
steps of one phase run concurrently. The next phase begins in a quiescent state: every client waits or has done its
steps of this phase. A client that still waits does its later steps once its wait has ended.

    +a  lock a, for as long as it takes        -a  unlock a, if the client got it
    ~a  lock a; may be cancelled in the wait   ?a  lock a without waiting (timeout 0)
    !a  lock a; may be interrupted in the wait xa  unlock a, which nobody holds
    [a  enter a lease of a                     ]a  leave it
    ^a  release the lease inside its block     ua  unlock a, which the client has by a lease
    oa  release the lease that another has     *a  leave the block of a; may be cancelled while that waits
    %a  leave the block of a by an error       &a  leave it because its task is cancelled
    c1  (alone) cancel client 1 in its wait, now

Cancelled means: for threads the timeout fires, for asyncio the task is cancelled.

For a subject that suppresses duplicates, clients call do(a, work) instead; the work of ``d``, ``f`` and ``t`` runs
until a client ends it:

    da  do a                                   fa  do a; its work, if it is run, fails at its end
    na  do a; its work ends at once            ta  do a; may be cancelled, whatever it waits for
    ea  end the oldest present run of a        ga  forget a: later calls do not join earlier runs

Cancelled means here: for threads an interrupt strikes, for asyncio the task is cancelled.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

STEPS = {
    "+": "lock",
    "~": "lock (cancellable)",
    "!": "lock (interruptible)",
    "?": "try",
    "-": "unlock",
    "x": "unlock unheld",
    "[": "enter lease",
    "]": "leave lease",
    "^": "release lease",
    "u": "unlock leased",
    "o": "release another's lease",
    "%": "leave by an error",
    "&": "leave cancelled",
    "*": "leave (cancellable)",
    "d": "do",
    "f": "do (will fail)",
    "n": "do (at once)",
    "t": "do (cancellable)",
    "e": "end work",
    "g": "forget",
}
ASKING = frozenset("+~!?[")
"""The steps that end with holding the key, if they succeed."""
DOING = frozenset("dfnt")
"""The steps that ask for the result of a key's work."""
FLIGHT = DOING | {"e", "g"}
"""The steps for a subject that suppresses duplicates."""


class BodyError(Exception):
    """The error that the body of a block raises in a run."""


RAISING: dict[str, type[BaseException]] = {"%": BodyError, "&": asyncio.CancelledError}
"""The steps that leave a block by an error, and that error."""

_TOKEN = re.compile(r"c(?P<cancel>\d)|(?P<client>\d)(?P<steps>(?:[-+~!?xu\[\]^%&*odfnteg][a-z])+)")
_STEP = re.compile(r"([-+~!?xu\[\]^%&*odfnteg])([a-z])")


class ProgramError(ValueError):
    """The text is not a program."""


class Step(NamedTuple):
    """One call of one client."""

    kind: str
    """A key of STEPS."""
    key: str
    """The letter that stands for the key."""

    def __str__(self) -> str:
        return f"{STEPS[self.kind]} {self.key}"


class Phase(NamedTuple):
    """The steps between two quiescent states."""

    steps: tuple[tuple[int, tuple[Step, ...]], ...]
    """Each client and its steps, in the order of the text."""
    cancel: tuple[int, ...] = ()
    """Clients that are cancelled in their wait as the phase begins."""


class Program(NamedTuple):
    """Phases, one after the other."""

    phases: tuple[Phase, ...]

    @property
    def clients(self) -> int:
        """The number of clients: one more than the highest number in the program."""
        return 1 + max(client for phase in self.phases for client, _ in phase.steps)

    @property
    def keys(self) -> tuple[str, ...]:
        """The letters of its keys, in alphabetical order."""
        return tuple(sorted({step.key for phase in self.phases for _, steps in phase.steps for step in steps}))

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its steps, and "c" if a phase cancels a client."""
        kinds = {step.kind for phase in self.phases for _, steps in phase.steps for step in steps}
        return frozenset(kinds | {"c"} if any(phase.cancel for phase in self.phases) else kinds)

    @property
    def words(self) -> str:
        """What happens, in words."""
        said = []
        for phase in self.phases:
            said += [f"client {client} is cancelled in its wait" for client in phase.cancel]
            said += [f"client {client}: {', '.join(map(str, steps))}" for client, steps in phase.steps]
        return "; ".join(said)

    @property
    def ingredients(self) -> frozenset[str]:
        """What it has in addition to plain locking."""
        return self.kinds - frozenset("+-cden")

    @property
    def alike(self) -> dict[int, int]:
        """By client: an earlier client that does the same, if there is one."""
        done = {
            client: tuple(
                (tuple(steps for other, steps in phase.steps if other == client), client in phase.cancel)
                for phase in self.phases
            )
            for client in range(self.clients)
        }
        return {
            client: max(before)
            for client, all_of_it in done.items()
            if (before := [other for other in range(client) if done[other] == all_of_it])
        }

    def __str__(self) -> str:
        return " | ".join(
            " ".join(
                [f"c{client}" for client in phase.cancel]
                + [f"{client}" + "".join(step.kind + step.key for step in steps) for client, steps in phase.steps]
            )
            for phase in self.phases
        )


def parse(text: str) -> Program:
    """Parse a program.

    Raises:
        ProgramError: The text is not a program.
    """
    phases = []
    for part in text.split("|"):
        steps: list[tuple[int, tuple[Step, ...]]] = []
        cancel: list[int] = []
        for word in part.split():
            found = _TOKEN.fullmatch(word)
            if found is None:
                raise ProgramError(f"{word!r} in {text!r} is not a step; see kmutex.engine.program for the form")
            if found["cancel"] is not None:
                cancel.append(int(found["cancel"]))
            else:
                pairs = _STEP.findall(found["steps"])
                steps.append((int(found["client"]), tuple(Step(kind, key) for kind, key in pairs)))
        if not steps and not cancel:
            raise ProgramError(f"a phase of {text!r} is empty")
        phases.append(Phase(tuple(steps), tuple(cancel)))
    program = Program(tuple(phases))
    if not any(phase.steps for phase in phases):
        raise ProgramError(f"nobody does anything in {text!r}")
    if any(client >= program.clients for phase in phases for client in phase.cancel):
        raise ProgramError(f"{text!r} cancels a client that it does not have")
    return program


def leased_by(clients: Iterable[Mapping[str, object]], key: str) -> Any:
    """Return the lease by which one of these clients has, or had, the key; None if there is no lease."""
    return next((got[key] for got in clients if got.get(key) is not None), None)


def possible(step: Step, got: Mapping[str, object], others: Iterable[Mapping[str, object]] = ()) -> bool:
    """Return whether a client has the grant that the step ends.

    Args:
        step: The step.
        got: By key that the client has: its lease, or None if it was locked.
        others: The same for the other clients.
    """
    if step.kind == "o":
        return leased_by(others, step.key) is not None
    if step.kind in "-*":
        return step.key in got and got[step.key] is None
    if step.kind in RAISING:
        return step.key in got
    return step.kind not in "^]u" or got.get(step.key) is not None
