"""Clauses that locks of many kinds share, for `kmutex_model.proof.lock`. Each is a formula in the words of the lock:
`owns` and `at` say who owns a key, and who is there, in a state."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from kmutex_model.proof.lock import Step, View
from kmutex_model.proof.logic import (
    FALSE,
    TRUE,
    Sort,
    Term,
    both,
    either,
    every,
    every_place,
    implies,
    no,
    same,
    some,
)

OfClient: TypeAlias = Callable[[View, Term, Term], Term]
"""(state, client, key) -> Term."""


def all_alike(x: Step) -> Term:
    """Nothing has changed."""
    return both(*(_alike(x, name, sorts, lambda *place: TRUE) for name, (sorts, _) in x.lock.moving.items()))


def alike_elsewhere(x: Step) -> Term:
    """Nothing has changed but at the key of the step."""

    def elsewhere(sorts: tuple[Sort, ...]) -> Callable[..., Term]:
        return lambda *place: both(*(~same(one, x.k) for one, sort in zip(place, sorts, strict=True) if sort == "Key"))

    moving = x.lock.moving.items()
    return both(*(_alike(x, name, sorts, elsewhere(sorts)) for name, (sorts, _) in moving if "Key" in sorts))


def _alike(x: Step, name: str, sorts: tuple[Sort, ...], where: Callable[..., Term]) -> Term:
    was, now = getattr(x.s, name), getattr(x.t, name)
    return every_place(sorts, lambda *place: implies(where(*place), same(was(*place), now(*place))))


def gets(x: Step, owns: OfClient, d: Term, j: Term) -> Term:
    """The client owns the key after the step and did not before."""
    return owns(x.t, d, j) & ~owns(x.s, d, j)


def idle(s: View, at: OfClient, c: Term) -> Term:
    """The client is at no key."""
    return every(lambda k: ~at(s, c, k))


def keys_apart(at: OfClient) -> Callable[[Step], Term]:
    """KM-INDEP: nothing changes elsewhere, and a client that must wait finds another client there."""

    def formula(x: Step) -> Term:
        waits = x.move.outcome in ("waiting", "timeout")
        return alike_elsewhere(x) & (some(lambda d: at(x.s, d, x.k)) if waits else TRUE)

    return formula


def in_order(owns: OfClient) -> Callable[[Step], Term]:
    """KM-FIFO: when a client gets a key, no client waits that had asked earlier. A newcomer has asked last."""

    def formula(x: Step) -> Term:
        def passes(d: Term, e: Term, j: Term) -> Term:
            return both(x.s.waiting(e, j), x.t.waiting(e, j), ~x.s.order(j, d, e), ~same(d, e))

        return every(lambda d, j: implies(gets(x, owns, d, j), every(lambda e: ~passes(d, e, j))))

    return formula


def went_on(at: OfClient, due: Callable[[Step], Term] = lambda x: TRUE) -> Callable[[Step], Term]:
    """The one that let go is gone, and where it is `due`, who waited longest at the key has been granted it."""

    def formula(x: Step) -> Term:
        gone = every(lambda j: ~at(x.t, x.c, j))
        heir = every(lambda w: implies(_waited_longest(x.s, x.k, w), x.t.granted(w, x.k)))
        return gone & implies(due(x), heir)

    return formula


def where(holds: Callable[[Step], Term], name: str, *cases: str) -> Callable[[Step], Term]:
    """Of the moves of this name only, and of these outcomes if some are given."""
    return lambda x: holds(x) if x.move.name == name and (not cases or x.move.outcome in cases) else TRUE


def _waited_longest(s: View, k: Term, w: Term) -> Term:
    return s.waiting(w, k) & every(lambda d: either(~s.waiting(d, k), same(d, w), s.order(k, w, d)))


def own_grant_only(owns: OfClient) -> Callable[[Step], Term]:
    """KM-TOKEN: nobody's grant is ended but by itself."""
    return lambda x: every(lambda d, j: either(same(d, x.c), no(owns(x.s, d, j)), owns(x.t, d, j)))


def timed_out(x: Step) -> Term:
    """The call failed at once, without a trace."""
    return all_alike(x) if x.move.outcome == "timeout" else FALSE


def failed_changes_nothing(x: Step) -> Term:
    """KM-ATOMIC."""
    return all_alike(x) if x.move.outcome in ("timeout", "unheld") else TRUE


def refused(x: Step) -> Term:
    """KM-UNHELD: the unlock of what is not one's own fails, and changes nothing."""
    if x.move.name != "stray_unlock":
        return TRUE
    return all_alike(x) if x.move.outcome == "unheld" else FALSE


def nothing_left_of_the_idle(at: OfClient, stands: OfClient) -> Callable[[View], Term]:
    """KM-CANCEL, of a state: a client that is at no key is in no entry."""
    return lambda s: every(lambda k, c: implies(stands(s, c, k), at(s, c, k)))


def left_alone(at: OfClient, owns: OfClient) -> Callable[[Step], Term]:
    """KM-CANCEL, KM-INTERRUPT: a waiter that gave up is gone, and the others wait, own and keep their places."""

    def formula(x: Step) -> Term:
        gone = every(lambda j: ~at(x.t, x.c, j))
        others = every(lambda d, j: same(d, x.c) | implies(at(x.s, d, j), at(x.t, d, j)))
        places = every(
            lambda j, a, b: implies(x.t.queued(j, a) & x.t.queued(j, b), same(x.s.ahead(j, a, b), x.t.ahead(j, a, b)))
        )
        own = every(lambda d, j: same(d, x.c) | implies(owns(x.s, d, j), owns(x.t, d, j)))
        return both(gone, others, places, own)

    return formula
