"""A re-entrant lock for each key, first in, first out: its owner may lock again, and lets go as often.

`kmutex prove examples/tables/reentrant.py` proves it for any number of clients and keys, and any depth.
"""

from queued import ONE_PLACE, QUEUE, WHERE, at, come_back, give_up, idle, join, nobody_queued, nothing, owns, promised

from kmutex_model.proof import claims
from kmutex_model.proof.lock import Claim, Live, Lock, Move, Part, Relation, View, is_oldest, left, minus, more, plus
from kmutex_model.proof.logic import Term, both, choose, either, every, implies, no, number, same, some, truth


def set_to(numbers: Relation, value: int, *place: Term) -> Relation:
    return lambda *args: choose(both(*map(same, args, place)), number(value), numbers(*args))


# Effects


def enter(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {
        "present": plus(s.present, k),
        "holder": plus(s.holder, k, c),
        "count": set_to(s.count, 1, k),
        "holding": plus(s.holding, c, k),
        "depth": set_to(s.depth, 1, c, k),
    }


def again(s: View, c: Term, k: Term) -> dict[str, Relation]:
    """The owner locks again."""
    return {"count": more(s.count, 1, k), "depth": more(s.depth, 1, c, k)}


def once_less(s: View, c: Term, k: Term) -> dict[str, Relation]:
    """The owner has locked more often, and still owns the key."""
    return {"count": more(s.count, -1, k), "depth": more(s.depth, -1, c, k)}


def gone(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {
        "granted": minus(s.granted, c, k),
        "holding": minus(s.holding, c, k),
        "depth": more(s.depth, -1, c, k),
        "holder": minus(s.holder, k, c),
    }


def evict(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {**gone(s, c, k), "present": minus(s.present, k), "count": set_to(s.count, 0, k)}


def hand_on(s: View, c: Term, k: Term, heir: Term) -> dict[str, Relation]:
    """The oldest waiter owns the key, once."""
    without = gone(s, c, k)
    return {
        **left(s, k, lambda d: same(d, heir)),
        "waiting": minus(s.waiting, heir, k),
        "granted": plus(without["granted"], heir, k),
        "holding": without["holding"],
        "holder": plus(without["holder"], k, heir),
        "count": set_to(s.count, 1, k),
        "depth": set_to(without["depth"], 1, heir, k),
    }


def is_nested(s: View, k: Term) -> Term:
    """What the table says: the owner has locked more than once."""
    return s.count(k).at_least(2)


def lets_go(name: str, phase: str, outcome: str) -> tuple[Move, Move]:
    """The last unlock: the entry goes, or the oldest waiter has the key."""

    def last(s: View, c: Term, k: Term) -> Term:
        return getattr(s, phase)(c, k) & ~is_nested(s, k)

    return (
        Move(name, outcome, lambda s, c, k: last(s, c, k) & nobody_queued(s, k), evict, f"{phase}, no heir"),
        Move(name, outcome, lambda s, c, k, heir: last(s, c, k) & is_oldest(s, k, heir), hand_on, phase),
    )


MOVES = (
    Move("request", "granted", lambda s, c, k: idle(s, c) & ~s.present(k), enter, "free", keyed=True),
    Move("request", "waiting", lambda s, c, k: idle(s, c) & s.present(k), join, "held", keyed=True),
    Move("request", "granted", lambda s, c, k: s.holding(c, k) & s.holder(k, c), again, "again", keyed=True),
    Move("try", "granted", lambda s, c, k: idle(s, c) & ~s.present(k), enter, "free", keyed=True),
    Move("try", "timeout", lambda s, c, k: idle(s, c) & s.present(k), nothing, "held", keyed=True),
    Move("try", "granted", lambda s, c, k: s.holding(c, k) & s.holder(k, c), again, "again", keyed=True),
    Move("wake", "returned", lambda s, c, k: s.granted(c, k), come_back),
    Move("cancel", "cancelled", lambda s, c, k: s.waiting(c, k), give_up, "waiting"),
    *lets_go("cancel", "granted", "passed on"),
    Move("interrupt", "interrupted", lambda s, c, k: s.waiting(c, k), give_up, "waiting"),
    *lets_go("interrupt", "granted", "interrupted late"),
    Move("unlock", "still held", lambda s, c, k: s.holding(c, k) & is_nested(s, k), once_less),
    *lets_go("release", "holding", "released"),
    Move("stray_unlock", "unheld", lambda s, c, k: idle(s, c), nothing, keyed=True),
)

# What is true of every state


def depth_of_owners(s: View) -> Term:
    """Who owns a key has locked it once at least, once if its call has yet to return; nobody else has."""

    def of_one(c: Term, k: Term) -> Term:
        depth = s.depth(c, k)
        return both(
            implies(owns(s, c, k), depth.at_least(1)),
            implies(s.granted(c, k), same(depth, number(1))),
            implies(no(owns(s, c, k)), same(depth, number(0))),
        )

    return every(of_one)


def count_is_depth(s: View) -> Term:
    return every(lambda k, c: implies(owns(s, c, k), same(s.count(k), s.depth(c, k))))


PARTS = (
    ONE_PLACE,
    Part("the holder owns", lambda s: every(lambda k, c: same(s.holder(k, c), owns(s, c, k)))),
    Part("one holder", lambda s: every(lambda k, a, b: implies(s.holder(k, a) & s.holder(k, b), same(a, b)))),
    Part("who is counted", depth_of_owners),
    Part("the count is the depth", count_is_depth),
    Part("an absent key counts nothing", lambda s: every(lambda k: s.present(k) | same(s.count(k), number(0)))),
    Part("an entry has a holder", lambda s: every(lambda k: implies(s.present(k), some(lambda c: s.holder(k, c))))),
    Part("only an entry has", lambda s: every(lambda k, c: implies(s.holder(k, c) | s.queued(k, c), s.present(k)))),
    *QUEUE,
)

# What is promised


def locked(s: View, c: Term, k: Term) -> Term:
    """The client has locked the key more often than it has unlocked it."""
    return s.depth(c, k).at_least(1)


def nested(x: claims.Step) -> Term:
    """Who owns the key is let in again at once, and an unlock but the last leaves it its key."""
    deeper = truth(x.move.outcome == "granted") & same(x.t.depth(x.c, x.k), x.s.depth(x.c, x.k) + 1)
    kept = implies(x.s.depth(x.c, x.k).at_least(2), owns(x.t, x.c, x.k))
    if x.move.name in ("request", "try"):
        return implies(locked(x.s, x.c, x.k), deeper & owns(x.t, x.c, x.k))
    return kept if x.move.name in ("unlock", "release") else claims.TRUE


def timeout_zero(x: claims.Step) -> Term:
    if x.move.name != "try":
        return claims.TRUE
    free = every(lambda d: same(d, x.c) | ~locked(x.s, d, x.k))
    return choose(free, x.t.holding(x.c, x.k), claims.timed_out(x))


LOCK = Lock(
    relations={
        "present": (("Key",), "Bool"),
        "holder": (("Key", "Client"), "Bool"),
        "count": (("Key",), "Int"),
        **WHERE,
        "depth": (("Client", "Key"), "Int"),
    },
    moves=MOVES,
    parts=PARTS,
    claims=promised(
        Claim(
            "KM-EXCL",
            "of two clients, at most one has locked a key more often than it has unlocked it",
            in_state=lambda s: every(lambda k, a, b: implies(locked(s, a, k) & locked(s, b, k), same(a, b))),
        ),
        Claim(
            "KM-REF",
            "the table counts how often the owner has locked",
            in_state=lambda s: every(
                lambda k, c: both(
                    implies(locked(s, c, k), s.present(k) & same(s.count(k), s.depth(c, k))),
                    implies(~s.present(k), same(s.count(k), number(0))),
                )
            ),
        ),
        Claim(
            "KM-HANDOFF",
            "while somebody waits the key is owned, and the last unlock gives it to the oldest waiter",
            in_state=lambda s: every(lambda k, w: implies(s.waiting(w, k), some(lambda c: owns(s, c, k)))),
            on_step=claims.where(claims.went_on(at), "release"),
        ),
        Claim("KM-EXPIRED", "timeout 0 takes a key that no other has, or fails without a trace", on_step=timeout_zero),
        Claim("nesting", "the owner is let in at once, and has the key until its last unlock", on_step=nested),
        stands=lambda s, c, k: either(s.queued(k, c), s.holder(k, c)),
    ),
    live=Live(
        "every waiter is served, if every owner unlocks for the last time in the end",
        waits=lambda s, w, j: s.waiting(w, j),
        levels=(lambda s, w, j, a: s.order(j, a, w), lambda s, w, j, a: s.granted(a, j)),
        fair=("release", "wake"),
        helps=lambda x, w, j: same(x.k, j),
        given=lambda s, w, j, c, heir: owns(s, c, j) & is_oldest(s, j, heir),
        toward=("unlock",),
    ),
    small=lambda s: every(lambda k: no(s.count(k).at_least(3))),
)
