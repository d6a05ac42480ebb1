"""What a locker may do without, by declaration, and what it must have promised before it is held to it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Feature(NamedTuple):
    """A property that a locker can be declared to lack."""

    clauses: tuple[str, ...]
    """The clauses that are then not judged."""
    meaning: str
    """What a locker without it does."""


FEATURES = {
    "fifo": Feature(("KM-FIFO", "KM-HANDOFF"), "grants keys in no order: a newcomer may overtake a waiter"),
    "timeout": Feature(("KM-EXPIRED",), "has no timeout argument: a waiting thread can't give up"),
    "interrupt": Feature(("KM-INTERRUPT",), "does not clean up when an interrupt strikes its wait"),
    "evict": Feature(("KM-IDLE", "KM-FORGET"), "keeps the entries of idle keys"),
    "len": Feature(("KM-REF",), "has a len() that means something else than the live keys"),
    "unheld": Feature(("KM-UNHELD", "KM-ATOMIC"), "accepts the unlock of a key that nobody holds"),
    "independence": Feature(("KM-INDEP", "KM-APART"), "lets keys share a lock"),
    "self-exclusion": Feature((), "is re-entrant: its holder gets the key again"),
    "lease": Feature(("KM-TOKEN",), "has a hold() whose lease may release another's grant"),
    "loop": Feature(("KM-LOOP",), "does not notice use from a second event loop"),
    "fresh": Feature(("KM-RESULT",), "is a single flight that keeps results, and gives them to those who come later"),
}


PROMISES = ("fifo", "interrupt", "loop")
"""Features that are no part of being a keyed mutex: a locker is held to them only if it promises them."""
LEADERS = {
    "takeover": "when the work of a single flight fails, the next caller does it",
    "share": "when the work of a single flight fails, all who wait for it get the error",
    "cancel": "a cancelled caller whose work is run cancels all who wait for it",
}
"""What a single flight can be declared to do; the first two are found by looking where neither is declared."""
_OWN = "kmutex"
"""The package whose lockers promise them all."""


class UnknownFeatureError(ValueError):
    """An unknown feature or promise."""


def clauses_off(without: Iterable[str]) -> frozenset[str]:
    """The clauses that are not judged without these features. UnknownFeatureError: one of them is unknown."""
    names = list(without)
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise UnknownFeatureError(f"{unknown[0]!r} is no feature; the features are {', '.join(FEATURES)}")
    return frozenset(clause for name in names for clause in FEATURES[name].clauses)


def unpromised(promises: Iterable[str] | None, module: str) -> frozenset[str]:
    """The features that are not promised. A broken one is told, and is no violation.

    promises: those of `PROMISES` that the locker makes; None: all where its factory is in this package, else none.
    module: where the factory is. UnknownFeatureError: a promise is unknown, and not one of `LEADERS`.
    """
    if promises is None:
        promises = PROMISES if module.partition(".")[0] == _OWN else ()
    names = [name for name in promises if name not in LEADERS]
    unknown = [name for name in names if name not in PROMISES]
    if unknown:
        known = ", ".join((*PROMISES, *LEADERS))
        raise UnknownFeatureError(f"{unknown[0]!r} is no promise; a locker may promise {known}")
    if {"takeover", "share"} <= set(promises):
        raise UnknownFeatureError("takeover and share exclude each other; declare one")
    return frozenset(PROMISES) - frozenset(names)
