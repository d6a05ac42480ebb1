"""A case: what is sent to a port, move by move, and every outcome that is allowed.

    0+a/1+a/ua,c1

Moves are separated by ``/``. The commands of one move, separated by ``,``, are sent at once, so they may meet in any
order; the next move is sent in a quiescent state.

    0+a  call 0: lock a             ua  unlock a
    0?a  call 0: lock a, timeout 0  c0  cancel call 0
    0!a  call 0: lock a, cancelled before it begins
    0+a:50  call 0: lock a within 50 ms
    0+a:50,ua  the unlock is sent as these 50 ms end, a little sooner or later
    r0   release the lease that call 0 got

Calls are numbered from 0 in the order in which they are made. The text is the id of the case, and the argument of
``--case``. After its moves every case is drained: each key that may be held is unlocked until all keys are idle.

    0+a/1+a/ua@300      on 300 keys side by side, each move on all of them at once
    0+a/1+a/ua,c1*20    20 times in a row
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

MOST_CALLS = 40
"""The most calls of one case, on one key. The allowed outcomes are computed step by step; more would take long."""
MOST_AT_ONCE = 4
"""The most commands of one move, for the same reason."""

SHORT = 1_000
"""Milliseconds. A time limit up to this is over within its move, where the call waits."""
LONG = 10_000
"""Milliseconds. From this on a time limit is not over in the case."""
_ASKING = {"+": "lock", "?": "try", "!": "done", ":": "limit"}
ASKING = frozenset(_ASKING.values())
"""Commands that are calls of lock."""

_COMMAND = re.compile(
    r"(?P<call>\d{1,2})(?P<ask>[+?!])(?P<asked>[a-z])|(?P<limited>\d{1,2})\+(?P<within>[a-z]):(?P<ms>[1-9]\d{0,5})|"
    r"u(?P<key>[a-z])|(?P<end>[cr])(?P<ended>\d{1,2})",
    re.ASCII,
)


class CaseError(ValueError):
    """The text is not a case, or can't be played. The message is one line."""


class Command(NamedTuple):
    """One thing to send. `call` is None for "unlock", `key` for "cancel" and "lease"."""

    op: str
    """lock, try, done (cancelled before it begins), limit (within a time), unlock, cancel, lease (unlock the grant of
    one call), or free: unlock, if a call has the key."""
    call: int | None
    key: str | None
    ms: int | None = None
    """The time limit of "limit", else None."""

    def __str__(self) -> str:
        if self.op in ("unlock", "free"):
            return f"u{self.key}"
        if self.op in _ENDING:
            return f"{_ENDING[self.op]}{self.call}"
        if self.op == "limit":
            return f"{self.call}+{self.key}:{self.ms}"
        return f"{self.call}{_SIGNS[self.op]}{self.key}"


_ENDING = {"cancel": "c", "lease": "r"}
_SIGNS = {op: sign for sign, op in _ASKING.items()}

Move = tuple[Command, ...]


class Seen(NamedTuple):
    """The observation of a move, in the quiescent state after it.

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
"""An allowed outcome of a case: one Seen for each move."""


class Case(NamedTuple):
    """A case, and its allowed outcomes."""

    id: str
    moves: tuple[Move, ...]
    """The moves, including those that drain it."""
    courses: tuple[Course, ...]
    needs: tuple[str, ...]
    """Features of specs/protocol.md that it needs."""
    keys: int = 1
    """The number of keys on which it is played in parallel; see `spread`."""
    rounds: int = 1
    """How many times it is played in a row."""

    @property
    def size(self) -> tuple[int, int, int]:
        """How wide it goes: the keys, the most that wait for one of them, and the moves."""
        letters = {command.key for move in self.moves for command in move if command.key is not None}
        deep = max((row[2] for course in self.courses for seen in course for row in seen.table), default=0)
        return self.keys * len(letters), deep, self.rounds * len(self.moves)


def format_moves(moves: tuple[Move, ...]) -> str:
    """The text of the moves."""
    return "/".join(",".join(str(command) for command in move) for move in moves)


def parse_moves(text: str) -> tuple[Move, ...]:
    """Parse moves.

    Raises:
        CaseError: The text is not a case.
    """
    moves = tuple(tuple(_command(part) for part in move.split(",")) for move in text.split("/"))
    for move in moves:
        if len(move) > MOST_AT_ONCE:
            raise CaseError(f"{format_moves((move,))!r} is {len(move)} commands at once; {MOST_AT_ONCE} is the most")
        meets = [command.op for command in move] == ["limit", "unlock"] and move[0].key == move[1].key
        meets = meets and (move[0].ms or 0) <= SHORT
        if len(move) > 1 and not meets and any(command.op in ("done", "limit") for command in move):
            alone = "a call with ! or a time limit is a move by itself, or a short one meets an unlock: 1+a:50,ua"
            raise CaseError(f"{format_moves((move,))!r}: {alone}")
    asked = [command.call for move in moves for command in move if command.op in ASKING]
    if asked != list(range(len(asked))):
        raise CaseError(f"{text!r}: calls are numbered 0, 1, ... in the order in which they are made")
    if len(asked) > MOST_CALLS:
        raise CaseError(f"{text!r} has {len(asked)} calls; at most {MOST_CALLS} are allowed")
    keys: dict[int, str] = {}
    for move in moves:
        ended = [keys.get(c.call) if c.call is not None else c.key for c in move if c.op in ("lease", "unlock")]
        now = dict(keys)
        for command in move:
            if command.op == "lock":
                now[command.call or 0] = command.key or ""
            if command.op in _ENDING and command.call not in (now if command.op == "cancel" else keys):
                raise CaseError(f"{text!r}: {command} is of a call that is not made before it")
        if len(set(ended)) < len(ended):
            raise CaseError(f"{format_moves((move,))!r} ends what one key has twice at once; put a / between")
        keys |= {c.call: c.key for c in move if c.call is not None and c.key is not None}
    return moves


_TIMES = re.compile(r"(?P<moves>[^@*]*)(@(?P<keys>\d{1,3}))?(\*(?P<rounds>\d{1,4}))?", re.ASCII)
MOST_KEYS = 500
"""The most keys in parallel: `stat` has all of them in one line."""


def parse_times(text: str) -> tuple[tuple[Move, ...], int, int]:
    """Parse moves, the number of keys, and the number of rounds.

    Raises:
        CaseError: The text is not a case.
    """
    match = _TIMES.fullmatch(text)
    if match is None:
        raise CaseError(
            f"{text!r} is not a case; after its moves a case has @KEYS, *TIMES, both in this order, or neither"
        )
    keys, rounds = int(match["keys"] or 1), int(match["rounds"] or 1)
    if not 1 <= keys <= MOST_KEYS or not rounds:
        raise CaseError(f"{text!r}: a case is played on 1 to {MOST_KEYS} keys, 1 to 9999 times")
    return parse_moves(match["moves"]), keys, rounds


def format_times(moves: tuple[Move, ...], keys: int = 1, rounds: int = 1) -> str:
    """The text of the moves, with the keys and rounds where there are more than one."""
    return format_moves(moves) + (f"@{keys}" if keys > 1 else "") + (f"*{rounds}" if rounds > 1 else "")


def spread(case: Case) -> Case:
    """Return the case as it is sent: a copy on each key, with the moves of all copies together.

    Keys are independent (KM-INDEP), so an outcome that is right for one is right for all together.
    """
    if case.keys == 1:
        return case
    (course,) = case.courses
    made = sum(command.op in ASKING for move in case.moves for command in move)
    names = list(key_names(case.keys))
    copies = range(case.keys)

    def name(key: str, copy: int) -> str:
        return names[copy] if key == "a" else f"{key}:{names[copy]}"

    def renamed(command: Command, copy: int) -> Command:
        call = None if command.call is None else copy * made + command.call
        return command._replace(call=call, key=None if command.key is None else name(command.key, copy))

    moves = tuple(tuple(renamed(command, copy) for copy in copies for command in move) for move in case.moves)
    seen = tuple(
        Seen(
            tuple(sorted((copy * made + call, outcome) for copy in copies for call, outcome in one.calls)),
            one.unlocks * case.keys,
            tuple(sorted((name(key, copy), refs, waiters) for copy in copies for key, refs, waiters in one.table)),
        )
        for one in course
    )
    return case._replace(moves=moves, courses=(seen,), keys=1)


def key_names(count: int) -> Iterator[str]:
    """Yield keys that are easily confused: by their length, their beginning, their end, or their case."""
    odd = ("a", "A", "a ", "", " ", "aa", "\u00e9", "e\u0301", "__proto__", "constructor", "0", "00")
    yield from odd[:count]
    for number in range(count - len(odd)):
        long = f"{number:x<64}" if number % 8 == 0 else f"{number:x>64}"
        yield long if number % 4 == 0 else f"{chr(0x100 + number)}.key" if number % 4 == 1 else f"key-{number}"


def _command(part: str) -> Command:
    match = _COMMAND.fullmatch(part)
    if match is None:
        raise CaseError(
            f"{part!r} is not a command; commands are 0+a 0?a 0!a 0+a:50 ua c0 r0, moves are separated by /"
        )
    if match["ask"]:
        return Command(_ASKING[match["ask"]], int(match["call"]), match["asked"])
    if match["ms"]:
        ms = int(match["ms"])
        if SHORT < ms < LONG:
            raise CaseError(f"{part!r}: nobody knows whether {ms} ms are over; up to {SHORT}, or {LONG} and more")
        return Command("limit", int(match["limited"]), match["within"], ms)
    if match["key"]:
        return Command("unlock", None, match["key"])
    return Command("cancel" if match["end"] == "c" else "lease", int(match["ended"]), None)


# -- as JSON: the form is in specs/vectors.md ----------------------------------------------------------------------


def case_as_json(case: Case) -> dict[str, Any]:
    """The case as the vector file has it."""
    return {
        "id": case.id,
        **({"keys": case.keys} if case.keys > 1 else {}),
        **({"rounds": case.rounds} if case.rounds > 1 else {}),
        "needs": list(case.needs),
        "moves": [[_command_as_json(command) for command in move] for move in case.moves],
        "courses": [[_seen_as_json(seen) for seen in course] for course in case.courses],
    }


def case_from_json(body: Mapping[str, Any]) -> Case:
    """The case that `case_as_json` wrote."""
    moves = tuple(
        tuple(Command(part["op"], part.get("call"), part.get("key"), part.get("ms")) for part in move)
        for move in body["moves"]
    )
    courses = tuple(tuple(_seen_from_json(seen) for seen in course) for course in body["courses"])
    return Case(body["id"], moves, courses, tuple(body["needs"]), body.get("keys", 1), body.get("rounds", 1))


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
