"""The features that a locker may be declared to lack, and those that count only if it promises them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Feature(NamedTuple):
    """A property that a locker can be declared to lack."""

    clauses: tuple[str, ...]
    """The clauses that are then not judged."""
    meaning: str
    """What a locker without it does, as a phrase after "it"."""


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
"""Features that a keyed mutex need not have. They are judged only if the locker promises them."""
LEADERS = {
    "takeover": "when the work of a single flight fails, the next caller does it",
    "share": "when the work of a single flight fails, all who wait for it get the error",
    "cancel": "a cancelled caller whose work is run cancels all who wait for it",
}
"""What a single flight can be declared to do. If neither of the first two is declared, a trial finds out which."""
_OWN = "kmutex"
"""The package whose lockers promise all of PROMISES."""


class UnknownFeatureError(ValueError):
    """An unknown feature or promise."""


def clauses_off(without: Iterable[str]) -> frozenset[str]:
    """Return the clauses that are not judged for a locker that lacks these features.

    Args:
        without: Names of `FEATURES`.

    Raises:
        UnknownFeatureError: A name is unknown.
    """
    names = list(without)
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise UnknownFeatureError(f"{unknown[0]!r} is not a feature; the features are {', '.join(FEATURES)}")
    return frozenset(clause for name in names for clause in FEATURES[name].clauses)


def unpromised(promises: Iterable[str] | None, module: str) -> frozenset[str]:
    """Return the features that are not promised. The report mentions one that does not hold, without a violation.

    Args:
        promises: Names of `PROMISES` or `LEADERS`. None: all for a factory of this package, else no promise.
        module: The module of the factory.

    Raises:
        UnknownFeatureError: A name is unknown, or two of them exclude each other.
    """
    if promises is None:
        promises = PROMISES if module.partition(".")[0] == _OWN else ()
    names = [name for name in promises if name not in LEADERS]
    unknown = [name for name in names if name not in PROMISES]
    if unknown:
        known = ", ".join((*PROMISES, *LEADERS))
        raise UnknownFeatureError(f"{unknown[0]!r} is not a promise; a locker may promise {known}")
    if {"takeover", "share"} <= set(promises):
        raise UnknownFeatureError("takeover and share exclude each other; declare one")
    return frozenset(PROMISES) - frozenset(names)
