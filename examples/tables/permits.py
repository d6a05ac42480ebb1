"""A key with `limit` permits, first in, first out: a semaphore for each key, of any limit.

`kmutex prove examples/tables/permits.py` proves it for any number of clients, keys and permits.
"""

from queued import ONE_PLACE, QUEUE, WHERE, at, come_back, give_up, idle, join, nobody_queued, nothing, owns, promised

from kmutex_model.proof import claims
from kmutex_model.proof.lock import Claim, Live, Lock, Move, Part, Relation, View, is_oldest, left, minus, more, plus
from kmutex_model.proof.logic import Term, choose, every, implies, no, same


def has_permit(s: View, k: Term) -> Term:
    """What the table says: a permit is left."""
    return no(s.used(k).at_least(s.limit(k)))


# Effects


def enter(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {"used": more(s.used, 1, k), "present": plus(s.present, k), "holding": plus(s.holding, c, k)}


def put_back(s: View, c: Term, k: Term) -> dict[str, Relation]:
    """Nobody waits: the permit is free again, and the entry goes with the last."""
    return {
        "used": more(s.used, -1, k),
        "present": lambda j: choose(same(j, k), s.used(k).at_least(2), s.present(j)),
        "granted": minus(s.granted, c, k),
        "holding": minus(s.holding, c, k),
    }


def hand_on(s: View, c: Term, k: Term, heir: Term) -> dict[str, Relation]:
    """The permit goes to the oldest waiter, and as many are used as before."""
    return {
        **left(s, k, lambda d: same(d, heir)),
        "waiting": minus(s.waiting, heir, k),
        "granted": plus(minus(s.granted, c, k), heir, k),
        "holding": minus(s.holding, c, k),
    }


def lets_go(name: str, phase: str, outcome: str) -> tuple[Move, Move]:
    """A permit is given back: to nobody, or to the oldest."""
    return (
        Move(
            name, outcome, lambda s, c, k: getattr(s, phase)(c, k) & nobody_queued(s, k), put_back, f"{phase}, no heir"
        ),
        Move(name, outcome, lambda s, c, k, heir: getattr(s, phase)(c, k) & is_oldest(s, k, heir), hand_on, phase),
    )


MOVES = (
    Move("request", "granted", lambda s, c, k: idle(s, c) & has_permit(s, k), enter, "a permit is left", keyed=True),
    Move("request", "waiting", lambda s, c, k: idle(s, c) & ~has_permit(s, k), join, "no permit is left", keyed=True),
    Move("try", "granted", lambda s, c, k: idle(s, c) & has_permit(s, k), enter, "a permit is left", keyed=True),
    Move("try", "timeout", lambda s, c, k: idle(s, c) & ~has_permit(s, k), nothing, "no permit is left", keyed=True),
    Move("wake", "returned", lambda s, c, k: s.granted(c, k), come_back),
    Move("cancel", "cancelled", lambda s, c, k: s.waiting(c, k), give_up, "waiting"),
    *lets_go("cancel", "granted", "passed on"),
    Move("interrupt", "interrupted", lambda s, c, k: s.waiting(c, k), give_up, "waiting"),
    *lets_go("interrupt", "granted", "interrupted late"),
    *lets_go("release", "holding", "released"),
    Move("stray_unlock", "unheld", lambda s, c, k: idle(s, c), nothing, keyed=True),
)

# What is true of every state


PARTS = (
    ONE_PLACE,
    Part("permits are counted", lambda s: every(lambda k: same(s.used(k), s.owners(k)))),
    Part("no more than there are", lambda s: every(lambda k: s.limit(k).at_least(s.used(k)))),
    Part("who waits has no permit left", lambda s: every(lambda k, c: implies(s.queued(k, c), ~has_permit(s, k)))),
    Part("an entry has an owner", lambda s: every(lambda k: same(s.present(k), s.used(k).at_least(1)))),
    *QUEUE,
)

# What is promised


def work_conserving(s: View) -> Term:
    return every(lambda k, w: implies(s.waiting(w, k), s.owners(k).at_least(s.limit(k))))


def timeout_zero(x: claims.Step) -> Term:
    if x.move.name != "try":
        return claims.TRUE
    free = no(x.s.owners(x.k).at_least(x.s.limit(x.k)))
    return choose(free, x.t.holding(x.c, x.k), claims.timed_out(x))


LOCK = Lock(
    relations={
        "present": (("Key",), "Bool"),
        "used": (("Key",), "Int"),
        **WHERE,
    },
    counts={"owners": owns},
    rigid={"limit": (("Key",), (1, 2))},
    facts=lambda s: every(lambda k: s.limit(k).at_least(1)),
    moves=MOVES,
    parts=PARTS,
    claims=promised(
        Claim(
            "KM-EXCL",
            "at most `limit` clients own a key",
            in_state=lambda s: every(lambda k: s.limit(k).at_least(s.owners(k))),
        ),
        Claim(
            "KM-REF",
            "the table counts the permits that are owned",
            in_state=lambda s: every(lambda k: same(s.used(k), s.owners(k))),
        ),
        Claim(
            "KM-HANDOFF",
            "while somebody waits all permits are owned, and a release gives one to the oldest waiter",
            in_state=work_conserving,
            on_step=claims.where(claims.went_on(at), "release"),
        ),
        Claim("KM-UNHELD", "who has no permit can give none back", on_step=claims.refused),
        Claim("KM-EXPIRED", "timeout 0 takes a permit that is left, or fails without a trace", on_step=timeout_zero),
        stands=lambda s, c, k: s.queued(k, c),
        what="permit",
    ),
    live=Live(
        "every waiter is served, if every owner lets go in the end",
        waits=lambda s, w, j: s.waiting(w, j),
        # Those who asked before; then the owners whose calls have yet to return.
        levels=(lambda s, w, j, a: s.order(j, a, w), lambda s, w, j, a: s.granted(a, j)),
        fair=("release", "wake"),
        helps=lambda x, w, j: same(x.k, j),
        # There is an owner, since there is a permit at least; and a queue in which one waits has an oldest.
        given=lambda s, w, j, c, heir: owns(s, c, j) & is_oldest(s, j, heir),
    ),
)
