"""A case: what is sent to a port, move by move, and every course that a right port may take.

    0+a/1+a/ua,c1

Moves are divided by ``/``. The commands of one move, divided by ``,``, are sent at once, so that they may meet in
any order; the next move is sent when all is quiet.

    0+a  call 0: lock a             ua  unlock a
    0?a  call 0: lock a, timeout 0  c0  cancel call 0
    r0   release the lease that call 0 got

Calls are numbered from 0 in the order in which they are made. The text names the case: it is its id, and what
``--case`` takes. After its moves every case is drained: each key that may be held is unlocked until all is idle.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

MOST_CALLS = 12
"""Calls of one case. What a right port may do is worked out by trying every order; more would take long."""
MOST_AT_ONCE = 4
"""Commands of one move, for the same reason."""

_COMMAND = re.compile(
    r"(?P<call>\d{1,2})(?P<ask>[+?])(?P<asked>[a-z])|u(?P<key>[a-z])|(?P<end>[cr])(?P<ended>\d{1,2})", re.ASCII
)


class CaseError(ValueError):
    """The text is not a case, or no port can be put through it. One line."""


class Command(NamedTuple):
    """One thing to send. `call` is None for "unlock", `key` for "cancel" and "lease"."""

    op: str
    """lock, try, unlock, cancel, or lease: the unlock of the grant of one call."""
    call: int | None
    key: str | None

    def __str__(self) -> str:
        if self.op == "unlock":
            return f"u{self.key}"
        if self.op in _ENDING:
            return f"{_ENDING[self.op]}{self.call}"
        return f"{self.call}{'+' if self.op == 'lock' else '?'}{self.key}"


_ENDING = {"cancel": "c", "lease": "r"}

Move = tuple[Command, ...]


class Seen(NamedTuple):
    """What a move showed once all was quiet.

    calls    how calls of lock ended in it: (call, "granted" | "cancelled" | "timeout"), by call
    unlocks  how the unlocks in it ended, in the order in which they were sent: "released" | "unheld"
    table    what `stat` says after it: (key, refs, waiters), by key
    """

    calls: tuple[tuple[int, str], ...]
    unlocks: tuple[str, ...]
    table: tuple[tuple[str, int, int], ...]

    def __str__(self) -> str:
        said = [f"call {call} {outcome}" for call, outcome in self.calls] + [f"unlock {how}" for how in self.unlocks]
        table = ", ".join(f"{key} has {refs} refs and {waiters} waiters" for key, refs, waiters in self.table)
        return f"{', '.join(said) or 'nothing'}; then {table or 'no live key'}"


Course = tuple[Seen, ...]
"""One Seen for each move."""


class Case(NamedTuple):
    """A case, and the courses that a port may take through it."""

    id: str
    moves: tuple[Move, ...]
    """With those that drain it."""
    courses: tuple[Course, ...]
    needs: tuple[str, ...]
    """Features of specs/protocol.md without which it says nothing."""


def format_moves(moves: tuple[Move, ...]) -> str:
    """The text of the moves."""
    return "/".join(",".join(str(command) for command in move) for move in moves)


def parse_moves(text: str) -> tuple[Move, ...]:
    """The moves that a text says. CaseError: it says none."""
    moves = tuple(tuple(_command(part) for part in move.split(",")) for move in text.split("/"))
    for move in moves:
        if len(move) > MOST_AT_ONCE:
            raise CaseError(f"{format_moves((move,))!r} is {len(move)} commands at once; {MOST_AT_ONCE} is the most")
    asked = [command.call for move in moves for command in move if command.op in ("lock", "try")]
    if asked != list(range(len(asked))):
        raise CaseError(f"{text!r}: calls are numbered 0, 1, ... in the order in which they are made")
    if len(asked) > MOST_CALLS:
        raise CaseError(f"{text!r} has {len(asked)} calls; at most {MOST_CALLS} are worked out")
    keys: dict[int, str] = {}
    for move in moves:
        ended = [keys.get(c.call) if c.call is not None else c.key for c in move if c.op in ("lease", "unlock")]
        for command in move:
            if command.op in _ENDING and command.call not in keys:
                raise CaseError(f"{text!r}: {command} is of a call that is not made in an earlier move")
        if len(set(ended)) < len(ended):
            raise CaseError(f"{format_moves((move,))!r} ends what one key has twice at once; put a / between")
        keys |= {c.call: c.key for c in move if c.call is not None and c.key is not None}
    return moves


def _command(part: str) -> Command:
    match = _COMMAND.fullmatch(part)
    if match is None:
        raise CaseError(f"{part!r} is no command; commands are 0+a 0?a ua c0 r0, moves are divided by /")
    if match["ask"]:
        return Command("lock" if match["ask"] == "+" else "try", int(match["call"]), match["asked"])
    if match["key"]:
        return Command("unlock", None, match["key"])
    return Command("cancel" if match["end"] == "c" else "lease", int(match["ended"]), None)


# -- as JSON: the form is in specs/vectors.md ----------------------------------------------------------------------


def case_as_json(case: Case) -> dict[str, Any]:
    """The case as the vector file has it."""
    return {
        "id": case.id,
        "needs": list(case.needs),
        "moves": [[_command_as_json(command) for command in move] for move in case.moves],
        "courses": [[_seen_as_json(seen) for seen in course] for course in case.courses],
    }


def case_from_json(body: Mapping[str, Any]) -> Case:
    """The case that `case_as_json` wrote."""
    moves = tuple(
        tuple(Command(part["op"], part.get("call"), part.get("key")) for part in move) for move in body["moves"]
    )
    courses = tuple(tuple(_seen_from_json(seen) for seen in course) for course in body["courses"])
    return Case(body["id"], moves, courses, tuple(body["needs"]))


def _command_as_json(command: Command) -> dict[str, Any]:
    return {name: value for name, value in command._asdict().items() if value is not None}


def _seen_as_json(seen: Seen) -> dict[str, Any]:
    return {
        "calls": {str(call): outcome for call, outcome in seen.calls},
        "unlocks": list(seen.unlocks),
        "table": {key: {"refs": refs, "waiters": waiters} for key, refs, waiters in seen.table},
    }


def _seen_from_json(body: Mapping[str, Any]) -> Seen:
    return Seen(
        tuple(sorted((int(call), outcome) for call, outcome in body["calls"].items())),
        tuple(body["unlocks"]),
        tuple(sorted((key, entry["refs"], entry["waiters"]) for key, entry in body["table"].items())),
    )
