"""Group violations by cause: one mistake of a locker shows in many runs, under several clauses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from math import perm

from kmutex.engine.program import STEPS
from kmutex.engine.run_judge import Event
from kmutex.verify.evidence import Violation

_ABOUT = {
    "KM-CANCEL": "a wait that ended",
    "KM-RACE": "a wait that ended",
    "KM-EXPIRED": "a wait that ended",
    "KM-INTERRUPT": "a wait that ended",
    "KM-UNHELD": "an unlock by somebody else",
    "KM-ATOMIC": "an unlock by somebody else",
    "KM-TOKEN": "an unlock by somebody else",
    "KM-INDEP": "two keys",
    "KM-LOOP": "two loops",
    "KM-ALL": "several keys at once",
    "KM-LEADER": "a failed run",
    "KM-FOLLOWER": "a wait that ended",
    "KM-FORGET": "entries that are kept",
    "KM-APART": "two keys",
}
"""The topic of a run, by its first clause. `_about` finds the topic of the other clauses."""
_PLAIN = "plain locking"
_MOST_RENAMINGS = 720
"""If the clients of a short run can be named in more ways after those of a long one, it is not searched for in it."""


@dataclass
class Cause:
    """One violation that represents its cause, and others of the same cause."""

    shown: Violation
    clauses: list[str] = field(default_factory=list)
    """All broken clauses, first those of the run that is shown."""
    others: list[Violation] = field(default_factory=list)
    """Violations of the same cause that break more clauses than those before them."""

    def add(self, violation: Violation) -> None:
        """Add a violation of this cause."""
        if not set(violation.clauses) <= set(self.clauses):
            self.others.append(violation)
        self.clauses += [clause for clause in violation.clauses if clause not in self.clauses]


def causes(violations: Iterable[Violation], shown: Iterable[Violation] = ()) -> list[Cause]:
    """Group violations by cause. Those in ``shown`` represent their causes, in this order; every other cause is
    represented by its shortest run."""
    found: list[Cause] = []
    for violation in shown:
        found.append(Cause(violation, list(violation.clauses)))
    for violation in sorted(violations, key=lambda each: each.length):
        mine = next((cause for cause in found if same_cause(cause.shown, violation)), None)
        if mine is None:
            found.append(Cause(violation, list(violation.clauses)))
        else:
            mine.add(violation)
    return found


def same_cause(one: Violation, other: Violation) -> bool:
    """Return whether both have one cause: they have one topic, or one run contains the other, which is about plain
    locking."""
    if one == other or _about(one) == _about(other):
        return True
    for short, long in ((one, other), (other, one)):
        if _about(short) == _PLAIN and _contains(long.events, short.events):
            return True
    return False


def _about(violation: Violation) -> str:
    if not violation.schedule:
        # A special check, such as odd keys: it shares its cause with violations that have the same message.
        return f"{violation.clauses[0]}: {violation.message}"
    if violation.clauses == ("KM-EXPIRED",):
        return "a refusal"  # Of a key that is free. Nobody is left waiting, as after a wait that ended.
    about = _ABOUT.get(violation.clauses[0], _PLAIN)
    return _ABOUT["KM-FORGET"] if about == _PLAIN and "KM-IDLE" in violation.clauses else about


def _contains(long: Sequence[Event], short: Sequence[Event]) -> bool:
    """Return whether the events of the short run are in the long one, in this order, under some renaming of clients.

    A lock that waits without a limit counts as any kind of request."""
    wanted, had = _moves(short), _moves(long)
    mine = sorted({client for client, _ in wanted})
    theirs = sorted({client for client, _ in had})
    if not wanted or perm(len(theirs), len(mine)) > _MOST_RENAMINGS:
        return False
    return any(
        _follows([(named[client], move) for client, move in wanted], had)
        for named in (dict(zip(mine, chosen, strict=True)) for chosen in permutations(theirs, len(mine)))
    )


def _moves(events: Sequence[Event]) -> list[tuple[int, str]]:
    return [(event.client, _plainly(event.text)) for event in events if event.client >= 0 and not event.place]


_WAYS = tuple(STEPS[kind] for kind in "~!?[")


def _plainly(text: str) -> str:
    way = next((way for way in _WAYS if text.startswith(way)), None)
    return text if way is None else STEPS["+"] + text.removeprefix(way)


def _follows(wanted: Sequence[tuple[int, str]], had: Sequence[tuple[int, str]]) -> bool:
    rest = iter(had)
    return all(move in rest for move in wanted)
