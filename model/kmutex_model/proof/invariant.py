"""The inductive invariant: true at first, kept by every step, and strong enough for every clause.

A clause alone is not enough to prove itself: from a state that no run reaches, one correct step may break it. The
parts below say what such states are, so that they need not be looked at. Each part is needed: without it some
obligation fails (`obligations.needed_parts`), and docs/proof.md shows the broken action that each keeps out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kmutex_model.proof.logic import Term, both, choose, every, implies, no, number, same, some
from kmutex_model.proof.relations import Relations


class Part(NamedTuple):
    """One conjunct: its name, what it says, and the formula. `tla` is its name in specs/KMutexInductive.tla."""

    name: str
    statement: str
    holds: Callable[[Relations], Term]
    tla: str


def one_place(s: Relations) -> Term:
    def apart(c: Term, j: Term, k: Term) -> Term:
        return implies(s.at(c, j) & s.at(c, k), same(j, k))

    def one_phase(c: Term, k: Term) -> Term:
        waits, gets, holds = s.waiting(c, k), s.granted(c, k), s.holding(c, k)
        return both(no(waits & gets), no(waits & holds), no(gets & holds))

    return both(every(lambda c, j, k: apart(c, j, k)), every(lambda c, k: one_phase(c, k)))


def holder_owns(s: Relations) -> Term:
    return every(lambda k, c: same(s.holder(k, c), s.owns(c, k)))


def one_holder(s: Relations) -> Term:
    return every(lambda k, a, b: implies(s.holder(k, a) & s.holder(k, b), same(a, b)))


def queue_is_the_waiting(s: Relations) -> Term:
    return every(lambda k, c: same(s.queued(k, c), s.waiting(c, k)))


def queue_is_in_order(s: Relations) -> Term:
    return every(lambda k, a, b: same(s.ahead(k, a, b), s.order(k, a, b)))


def line_of_the_queued(s: Relations) -> Term:
    return every(lambda k, a, b: implies(s.ahead(k, a, b), both(s.queued(k, a), s.queued(k, b), ~s.ahead(k, b, a))))


def line_is_transitive(s: Relations) -> Term:
    return every(lambda k, a, b, c: implies(s.ahead(k, a, b) & s.ahead(k, b, c), s.ahead(k, a, c)))


def line_is_total(s: Relations) -> Term:
    return every(
        lambda k, a, b: implies(both(s.queued(k, a), s.queued(k, b), ~same(a, b)), s.ahead(k, a, b) | s.ahead(k, b, a))
    )


def entry_has_a_holder(s: Relations) -> Term:
    return every(lambda k: implies(s.present(k), some(lambda c: s.holder(k, c))))


def refs_are_counted(s: Relations) -> Term:
    return every(lambda k: same(choose(s.present(k), s.refs(k), number(0)), s.there(k)))


PARTS: tuple[Part, ...] = (
    Part(
        "one place",
        "a client is at one key at most, and in one phase there",
        one_place,
        "OnePlace",
    ),
    Part(
        "the holder owns",
        "the table's holder is who owns the key",
        holder_owns,
        "HolderOwns",
    ),
    Part(
        "one holder",
        "a key has one holder at most",
        one_holder,
        "OneHolder",
    ),
    Part(
        "the queue is who waits",
        "who is queued waits, and who waits is queued",
        queue_is_the_waiting,
        "QueueIsWaiting",
    ),
    Part(
        "the queue is in order",
        "the queue stands in the order in which they asked",
        queue_is_in_order,
        "QueueInOrder",
    ),
    Part(
        "a line: of the queued",
        "only the queued stand before each other, and not both ways",
        line_of_the_queued,
        "LineOfQueued",
    ),
    Part(
        "a line: transitive",
        "who stands before one stands before all behind that one",
        line_is_transitive,
        "LineTransitive",
    ),
    Part(
        "a line: total",
        "of two that are queued, one stands before the other",
        line_is_total,
        "LineTotal",
    ),
    Part(
        "an entry has a holder",
        "a key in the table is held",
        entry_has_a_holder,
        "EntryHeld",
    ),
    Part(
        "references are counted",
        "the references are as many as are there, and none where the key is absent",
        refs_are_counted,
        "RefsCounted",
    ),
)


def invariant(s: Relations, parts: tuple[Part, ...] = PARTS) -> dict[str, Term]:
    """Each part of the invariant in this state, by name."""
    return {part.name: part.holds(s) for part in parts}


def somebody_counts(s: Relations) -> Term:
    """A fact about how many are at a key, which a solver can't know since it can't count: where somebody is, there is
    at least one."""
    return every(lambda k, c: implies(s.at(c, k), s.there(k).at_least(1)))


def counting(s: Relations, c: Term, k: Term) -> Term:
    """Three more such facts, of this client and key: of nobody there are none; of this client alone there is one; with
    another there are at least two."""
    nobody = every(lambda d: ~s.at(d, k))
    nobody_else = every(lambda d: ~s.at(d, k) | same(d, c))
    another = some(lambda d: s.at(d, k) & ~same(d, c))
    return both(
        implies(nobody, same(s.there(k), number(0))),
        implies(s.at(c, k) & nobody_else, same(s.there(k), number(1))),
        implies(s.at(c, k) & another, s.there(k).at_least(2)),
    )
