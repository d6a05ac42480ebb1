"""Several keys at once: a call joins the queues of all its keys in one step, and returns when it is first in each.

`kmutex prove examples/tables/hold_all.py` proves it for any number of clients and keys, and any sets of keys. Since all
places are taken in one step, a client waits for older ones only, so no two can wait for each other.
"""

from kmutex_model.proof import claims
from kmutex_model.proof.lock import LINE, Claim, Live, Lock, Move, Part, Relation, View, minus, plus
from kmutex_model.proof.logic import Term, both, choose, either, every, implies, no, same


def first_in_all(s: View, c: Term) -> Term:
    """What the table says: nobody stands before the client at any key."""
    return every(lambda j, d: ~s.ahead(j, d, c))


def chosen_free(s: View) -> Term:
    """What the table says: nobody stands at any key that is asked for."""
    return every(lambda j, d: no(s.chosen(j) & s.queued(j, d)))


def waits(s: View, c: Term) -> Term:
    return s.busy(c) & ~s.holding(c)


def owns(s: View, c: Term, k: Term) -> Term:
    """It asked for the key, with others perhaps, and its call has returned."""
    return s.asked(c, k) & s.holding(c)


# Effects


def join(s: View, c: Term) -> dict[str, Relation]:
    """The client is last in the queues of all that it has chosen."""
    return {
        "busy": plus(s.busy, c),
        "asked": lambda d, j: s.asked(d, j) | both(same(d, c), s.chosen(j)),
        "queued": lambda j, d: s.queued(j, d) | both(same(d, c), s.chosen(j)),
        "ahead": lambda j, a, b: s.ahead(j, a, b) | both(s.queued(j, a), same(b, c), s.chosen(j)),
        "older": lambda a, b: s.older(a, b) | both(s.busy(a), same(b, c)),
    }


def enter(s: View, c: Term) -> dict[str, Relation]:
    return {**join(s, c), "holding": plus(s.holding, c)}


def nothing(s: View, c: Term) -> dict[str, Relation]:
    return {}


def come_back(s: View, c: Term) -> dict[str, Relation]:
    return {"holding": plus(s.holding, c)}


def leave(s: View, c: Term) -> dict[str, Relation]:
    """The client is out of all queues. Whoever is first in all of its own now can come back."""
    return {
        "busy": minus(s.busy, c),
        "holding": minus(s.holding, c),
        "asked": lambda d, j: s.asked(d, j) & ~same(d, c),
        "queued": lambda j, d: s.queued(j, d) & ~same(d, c),
        "ahead": lambda j, a, b: both(s.ahead(j, a, b), ~same(a, c), ~same(b, c)),
        "older": lambda a, b: both(s.older(a, b), ~same(a, c), ~same(b, c)),
    }


MOVES = (
    Move("request", "waiting", lambda s, c: ~s.busy(c) & ~chosen_free(s), join, "some key is taken"),
    Move("request", "granted", lambda s, c: ~s.busy(c) & chosen_free(s), enter, "all are free"),
    Move("try", "granted", lambda s, c: ~s.busy(c) & chosen_free(s), enter, "all are free"),
    Move("try", "timeout", lambda s, c: ~s.busy(c) & ~chosen_free(s), nothing, "some key is taken"),
    Move("wake", "returned", lambda s, c: waits(s, c) & first_in_all(s, c), come_back),
    Move("cancel", "cancelled", waits, leave),
    Move("interrupt", "interrupted", waits, leave),
    Move("release", "released", lambda s, c: s.holding(c), leave),
    Move("stray_unlock", "unheld", lambda s, c: ~s.busy(c), nothing),
)

# What is true of every state


def of_the_busy(s: View) -> Term:
    """Who has asked for a key, or holds, is in a call or holds; and only such are older or younger."""
    asked = every(lambda c, k: implies(s.asked(c, k), s.busy(c)))
    holding = every(lambda c: implies(s.holding(c), s.busy(c)))
    return both(asked, holding, every(lambda a, b: implies(s.older(a, b), both(s.busy(a), s.busy(b)))))


def one_line_of_all(s: View) -> Term:
    """Of two that are busy, one is older; and who is older than an older one is older."""
    one_way = every(lambda a, b: no(s.older(a, b) & s.older(b, a)))
    on = every(lambda a, b, c: implies(s.older(a, b) & s.older(b, c), s.older(a, c)))
    total = every(lambda a, b: implies(both(s.busy(a), s.busy(b), ~same(a, b)), s.older(a, b) | s.older(b, a)))
    return both(one_way, on, total)


def only_for_older(s: View) -> Term:
    return every(lambda k, a, b: implies(s.ahead(k, a, b), s.older(a, b)))


PARTS = (
    Part("only the busy have asked", of_the_busy),
    Part("the busy are in one line", one_line_of_all),
    Part("every queue is in that line's order", only_for_older),
    Part("the queues are who asked", lambda s: every(lambda k, c: same(s.queued(k, c), s.asked(c, k)))),
    Part("the queues are in order", lambda s: every(lambda k, a, b: same(s.ahead(k, a, b), s.order(k, a, b)))),
    Part("who holds is first in all", lambda s: every(lambda c: implies(s.holding(c), first_in_all(s, c)))),
    *LINE,
)


# What is promised


def apart(x: claims.Step) -> Term:
    """Keys that the client has not asked for are as they were, and who finds all its keys free need not wait."""
    elsewhere = every(
        lambda j, d: either(x.s.asked(x.c, j), x.t.asked(x.c, j), same(x.s.queued(j, d), x.t.queued(j, d)))
    )
    others = every(lambda d, j: same(d, x.c) | same(owns(x.s, d, j), owns(x.t, d, j)))
    if x.move.name != "request":
        return elsewhere & others
    free = every(lambda j, d: no(x.s.chosen(j) & x.s.asked(d, j)))
    return both(elsewhere, others, implies(free, x.t.holding(x.c)))


def in_order(x: claims.Step) -> Term:
    """Who gets its keys leaves nobody there that had asked for one of them earlier."""

    def passes(d: Term, e: Term, j: Term) -> Term:
        return both(x.t.asked(d, j), x.t.asked(e, j), ~same(d, e), ~x.t.order(j, d, e))

    return every(lambda d: implies(x.t.holding(d) & ~x.s.holding(d), every(lambda e, j: ~passes(d, e, j))))


def all_or_none(s: View) -> Term:
    """Who holds stands first at each of its keys, and owns each."""
    return every(
        lambda c, j, d: implies(both(s.holding(c), s.asked(c, j), s.asked(d, j)), same(c, d) | s.order(j, c, d))
    )


def gone_alone(x: claims.Step) -> Term:
    """The client is nowhere any more, and the others stand where they stood."""
    gone = every(lambda j: ~x.t.asked(x.c, j) & ~x.t.queued(j, x.c))
    others = every(
        lambda d, j: same(d, x.c) | both(same(x.s.asked(d, j), x.t.asked(d, j)), same(x.s.holding(d), x.t.holding(d)))
    )
    places = every(
        lambda j, a, b: implies(x.t.queued(j, a) & x.t.queued(j, b), same(x.s.ahead(j, a, b), x.t.ahead(j, a, b)))
    )
    return both(gone, others, places)


def only_its_own(x: claims.Step) -> Term:
    return every(lambda d: either(same(d, x.c), no(x.s.holding(d)), x.t.holding(d)))


def timeout_zero(x: claims.Step) -> Term:
    if x.move.name != "try":
        return claims.TRUE
    free = every(lambda j, d: no(x.s.chosen(j) & x.s.asked(d, j)))
    return choose(free, x.t.holding(x.c), claims.timed_out(x))


LOCK = Lock(
    relations={
        "busy": (("Client",), "Bool"),
        "holding": (("Client",), "Bool"),
        "asked": (("Client", "Key"), "Bool"),
        "queued": (("Key", "Client"), "Bool"),
        "ahead": (("Key", "Client", "Client"), "Bool"),
        "older": (("Client", "Client"), "Bool"),
    },
    inputs={"chosen": (("Key",), "Bool")},
    line="asked",
    moves=MOVES,
    parts=PARTS,
    claims=(
        Claim(
            "KM-EXCL",
            "at most one client owns a key",
            in_state=lambda s: every(lambda k, a, b: implies(owns(s, a, k) & owns(s, b, k), same(a, b))),
        ),
        Claim("KM-INDEP", "keys do not meet unless a call asks for both; free ones are had at once", on_step=apart),
        Claim(
            "KM-REF",
            "the queue of a key is who waits for it or owns it, all and no others",
            in_state=lambda s: every(lambda k, c: same(s.queued(k, c), s.asked(c, k))),
        ),
        Claim("KM-FIFO", "nobody gets its keys before one that asked for one of them earlier", on_step=in_order),
        Claim("KM-CANCEL", "a cancelled call is gone from all queues", on_step=claims.where(gone_alone, "cancel")),
        Claim("KM-UNHELD", "who has not locked can't unlock", on_step=claims.refused),
        Claim("KM-ATOMIC", "a call that fails changes nothing", on_step=claims.failed_changes_nothing),
        Claim("KM-TOKEN", "a grant is ended by its own client only", on_step=only_its_own),
        Claim("KM-EXPIRED", "timeout 0 takes keys that are all free, or fails without a trace", on_step=timeout_zero),
        Claim(
            "KM-INTERRUPT", "an interrupted call is gone from all queues", on_step=claims.where(gone_alone, "interrupt")
        ),
        Claim("all or none", "who owns one of its keys owns them all", in_state=all_or_none),
        Claim("no deadlock", "who waits, waits for older ones only", in_state=only_for_older),
    ),
    absent={
        "KM-IDLE": "a key has no entry but its queue",
        "KM-HANDOFF": "a key is not handed over; whoever is first in all its queues comes back",
        "KM-RACE": "a grant is the return of the call, so no cancel meets it",
    },
    live=Live(
        "every call gets all its keys, if every owner lets go in the end",
        waits=lambda s, w, j: waits(s, w),
        # Those who are older; then those of them, and the waiter, who have yet to come back.
        levels=(
            lambda s, w, j, a: s.older(a, w),
            lambda s, w, j, a: both(s.older(a, w), ~s.holding(a)),
        ),
        fair=("release", "wake"),
        helps=lambda x, w, j: x.s.older(x.c, w),
        # Of those who are no younger than the waiter, one is the oldest.
        given=lambda s, waiter, k, c: both(
            s.busy(c), s.older(c, waiter) | same(c, waiter), every(lambda d: ~s.older(d, c))
        ),
    ),
)
