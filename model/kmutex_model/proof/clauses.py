"""The clauses of `kmutex_model.properties` as formulas about states of any size. The tie holds the two together.

A clause of a state must hold in every state. A clause of a step speaks of a `Taken`: the state before, who did what,
what the caller was told, and the state after. KM-LIVE is neither: it is proved by a rank, at the end of this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from kmutex_model.proof.logic import (
    FALSE,
    TRUE,
    Term,
    both,
    choose,
    either,
    every,
    implies,
    no,
    number,
    same,
    some,
    truth,
)
from kmutex_model.proof.relations import PHASES, Relations
from kmutex_model.state import Phase, Race
from kmutex_model.turn import Outcome


class Taken(NamedTuple):
    """A step that was taken by client `c`, who was in `phase`, at key `k`."""

    race: Race
    s: Relations
    action: str
    phase: Phase
    c: Term
    k: Term
    outcome: Outcome
    t: Relations

    def act_on(self, action: str, phase: Phase) -> bool:
        """Whether this is that action, by a client in that phase."""
        return (self.action, self.phase) == (action, phase)


OfState = Callable[[Relations], Term]
OfStep = Callable[[Taken], Term]

# ------------------------------------------------------------------------------------------------------------
# Words the clauses share


def stands_alike(x: Taken, d: Term) -> Term:
    """The client stands after the step where it stood before."""
    return every(lambda j: both(*(same(x.s.get(phase)(d, j), x.t.get(phase)(d, j)) for phase in PHASES)))


def others_stand_alike(x: Taken) -> Term:
    """All but the actor do."""
    return every(lambda d: same(d, x.c) | stands_alike(x, d))


def entry_alike(x: Taken, k: Term) -> Term:
    """The entry of the key is after the step what it was before."""
    s, t = x.s, x.t
    return both(
        same(s.present(k), t.present(k)),
        same(s.refs(k), t.refs(k)),
        every(lambda a: same(s.holder(k, a), t.holder(k, a)) & same(s.queued(k, a), t.queued(k, a))),
        every(lambda a, b: same(s.ahead(k, a, b), t.ahead(k, a, b))),
    )


def all_alike(x: Taken) -> Term:
    """Nothing has changed."""
    return both(
        every(lambda k: entry_alike(x, k)),
        every(lambda d: stands_alike(x, d)),
        every(lambda k, a, b: same(x.s.order(k, a, b), x.t.order(k, a, b))),
    )


def gets(x: Taken, d: Term, j: Term) -> Term:
    """The client owns the key after the step and did not before."""
    return x.t.owns(d, j) & ~x.s.owns(d, j)


def nobody_waits(s: Relations, k: Term) -> Term:
    return every(lambda d: ~s.waiting(d, k))


def waited_longest(s: Relations, k: Term, w: Term) -> Term:
    """Of those that wait for the key, this client asked first."""
    return s.waiting(w, k) & every(lambda d: either(~s.waiting(d, k), same(d, w), s.order(k, w, d)))


def went_on(x: Taken) -> Term:
    """The actor has let go, and who waited longest has the key, or the entry is evicted."""
    s, t, k = x.s, x.t, x.k
    return both(
        t.idle(x.c),
        implies(nobody_waits(s, k), ~t.present(k)),
        every(lambda w: implies(waited_longest(s, k, w), both(t.granted(w, k), t.present(k), t.holder(k, w)))),
    )


def left_the_queue(x: Taken) -> Term:
    """The actor is gone from the queue, and nothing else has changed."""
    s, t, c, k = x.s, x.t, x.c, x.k
    last = same(s.refs(k), number(1))
    without = both(
        same(t.refs(k), s.refs(k) + -1),
        every(lambda a: same(t.holder(k, a), s.holder(k, a))),
        every(lambda a: same(t.queued(k, a), s.queued(k, a) & ~same(a, c))),
        every(lambda a, b: same(t.ahead(k, a, b), both(s.ahead(k, a, b), ~same(a, c), ~same(b, c)))),
    )
    return both(t.idle(c), others_stand_alike(x), s.present(k), same(t.present(k), ~last), last | without)


# ------------------------------------------------------------------------------------------------------------
# Clauses of a state


def one_owner(s: Relations) -> Term:
    return every(lambda k, a, b: implies(s.owns(a, k) & s.owns(b, k), same(a, b)))


def refs_are_true(s: Relations) -> Term:
    return every(lambda k: same(choose(s.present(k), s.refs(k), number(0)), s.there(k)))


def no_idle_entry(s: Relations) -> Term:
    return every(lambda k: implies(s.present(k), some(lambda c: s.at(c, k))))


def never_between_owners(s: Relations) -> Term:
    return every(lambda k, w: implies(s.waiting(w, k), some(lambda c: s.owns(c, k))))


def cancelled_is_gone(s: Relations) -> Term:
    return every(lambda k, c: implies(s.present(k) & either(s.holder(k, c), s.queued(k, c)), ~s.idle(c)))


STATE: dict[str, OfState] = {
    "KM-EXCL": one_owner,
    "KM-REF": refs_are_true,
    "KM-IDLE": no_idle_entry,
    "KM-HANDOFF": never_between_owners,
    "KM-CANCEL": cancelled_is_gone,
}

# ------------------------------------------------------------------------------------------------------------
# Clauses of a step


def in_order(x: Taken) -> Term:
    """Who gets a key is, of those that waited at the key of the step, the one that asked first; the actor, unless it
    is the one that gets it, does not count."""

    def ahead_of(d: Term, e: Term) -> Term:
        """If `e` waited too, `d` did, and `e` did not ask before it."""
        counts = ~same(e, x.c) & x.s.waiting(e, x.k)
        return implies(counts, x.s.waiting(d, x.k) & ~x.s.order(x.k, e, d))

    return every(lambda d, j: implies(gets(x, d, j), every(lambda e: ahead_of(d, e))))


def handed_off(x: Taken) -> Term:
    newcomer = every(lambda d, j: implies(gets(x, d, j) & x.s.idle(d), every(lambda e: ~x.s.at(e, x.k))))
    if x.act_on("release", "holding"):
        return choose(nobody_waits(x.s, x.k), newcomer, went_on(x))
    return newcomer


def keys_apart(x: Taken) -> Term:
    s, t, k = x.s, x.t, x.k
    apart = every(lambda j: same(j, k) | (entry_alike(x, j) & every(lambda a: same(s.at(a, j), t.at(a, j)))))
    strangers = every(lambda d: either(same(d, x.c), s.at(d, k), stands_alike(x, d)))
    at_once = TRUE
    if x.action == "request" and x.outcome != "granted":
        at_once = some(lambda d: s.at(d, k))
    return both(apart, strangers, at_once)


def cancel_before_grant(x: Taken) -> Term:
    return left_the_queue(x) if x.outcome == "cancelled" else FALSE


def cancel_after_grant(x: Taken) -> Term:
    if x.outcome != {"keep": "kept", "pass": "cancelled"}[x.race]:
        return FALSE
    if x.race == "pass":
        return went_on(x)
    holds = every(lambda j: both(same(x.t.holding(x.c, j), same(j, x.k)), ~x.t.waiting(x.c, j), ~x.t.granted(x.c, j)))
    return both(holds, every(lambda j: entry_alike(x, j)), others_stand_alike(x))


def unheld_is_refused(x: Taken) -> Term:
    return truth(x.outcome == "unheld")


def own_grant_only(x: Taken) -> Term:
    mine = every(lambda d: either(same(d, x.c), no(x.s.owns(d, x.k)), stands_alike(x, d)))
    if x.action != "stale_release":
        return mine
    return mine & all_alike(x) if x.outcome == "unheld" else FALSE


def no_time_no_wait(x: Taken) -> Term:
    free = every(lambda d: ~x.s.owns(d, x.k))
    took = x.t.holding(x.c, x.k) if x.outcome == "granted" else FALSE
    failed = all_alike(x) if x.outcome == "timeout" else FALSE
    return choose(free, took, failed)


def interrupted_is_gone(x: Taken) -> Term:
    if x.outcome != "interrupted":
        return FALSE
    return left_the_queue(x) if x.phase == "waiting" else went_on(x)


class StepClause(NamedTuple):
    """A clause of a step: of which steps it speaks, and what must hold of those."""

    speaks: Callable[[Taken], bool]
    holds: OfStep

    def formula(self, x: Taken) -> Term:
        """What must hold of any step."""
        return self.holds(x) if self.speaks(x) else TRUE


def _of_all(x: Taken) -> bool:
    return True


STEP: dict[str, StepClause] = {
    "KM-FIFO": StepClause(_of_all, in_order),
    "KM-HANDOFF": StepClause(_of_all, handed_off),
    "KM-INDEP": StepClause(_of_all, keys_apart),
    "KM-CANCEL": StepClause(lambda x: x.act_on("cancel", "waiting"), cancel_before_grant),
    "KM-RACE": StepClause(lambda x: x.act_on("cancel", "granted"), cancel_after_grant),
    "KM-UNHELD": StepClause(lambda x: x.action == "stray_unlock", unheld_is_refused),
    "KM-ATOMIC": StepClause(lambda x: x.outcome in ("timeout", "unheld"), all_alike),
    "KM-TOKEN": StepClause(_of_all, own_grant_only),
    "KM-EXPIRED": StepClause(lambda x: x.action == "try", no_time_no_wait),
    "KM-INTERRUPT": StepClause(lambda x: x.action == "interrupt", interrupted_is_gone),
}

# ------------------------------------------------------------------------------------------------------------
# Of a step, and in no clause


def only_the_actor_comes_or_goes(x: Taken) -> Term:
    """Nobody but the actor comes to a key or leaves one: what makes the ghost `there` a count."""
    return every(lambda d, j: same(d, x.c) | same(x.s.at(d, j), x.t.at(d, j)))


# ------------------------------------------------------------------------------------------------------------
# KM-LIVE. A client w waits at key j. Its rank is the set of those that asked before it; then whether the call of the
# key's owner has yet to return. A rank can't fall forever: the set is finite and has nobody to lose in the end.


def rank_falls(x: Taken, w: Term, j: Term) -> Term:
    """The waiter waits no more, or one that asked before it does not any more."""
    return ~x.t.waiting(w, j) | some(lambda a: x.s.order(j, a, w) & ~x.t.order(j, a, w))


def rank_never_rises(x: Taken, w: Term, j: Term) -> Term:
    """Nobody comes to stand before the waiter."""
    stays = x.s.waiting(w, j) & x.t.waiting(w, j)
    return implies(stays, every(lambda a: implies(x.t.order(j, a, w), x.s.order(j, a, w))))


def owner_stays(x: Taken, w: Term, j: Term) -> Term:
    """While the set stays, the owner does, and a call that has returned has returned."""
    stays = every(
        lambda d: both(
            implies(x.s.owns(d, j), x.t.owns(d, j)),
            implies(x.s.holding(d, j), x.t.holding(d, j)),
        )
    )
    return implies(x.s.waiting(w, j), rank_falls(x, w, j) | stays)


def fair_step_helps(x: Taken, w: Term, j: Term) -> Term:
    """A fair step of the key's owner makes the rank fall: `release` the set, `wake` what is left of the call."""
    here = x.s.waiting(w, j) & same(x.k, j)
    if x.action == "release":
        return implies(here, rank_falls(x, w, j))
    if x.action == "wake":
        return implies(here, x.t.holding(x.c, j) & ~x.t.granted(x.c, j))
    return TRUE


OfRank = Callable[[Taken, Term, Term], Term]
RANK: dict[str, OfRank] = {
    "the rank never rises": rank_never_rises,
    "the owner stays": owner_stays,
    "a fair step lowers it": fair_step_helps,
}
FAIR = ("wake", "release")
