"""What the locks here have in common whose waiters queue at one key: permits, reentrant and readers_writer.

Who is there, how a client joins, comes back and gives up, what is true of a queue, and the clauses that read alike.
"""

from collections.abc import Callable

from kmutex_model import properties
from kmutex_model.proof import claims
from kmutex_model.proof.lock import LINE, Claim, Part, Relation, View, joined, left, minus, plus
from kmutex_model.proof.logic import Term, both, every, implies, no, same, some

WHERE = {
    "queued": (("Key", "Client"), "Bool"),
    "ahead": (("Key", "Client", "Client"), "Bool"),
    "waiting": (("Client", "Key"), "Bool"),
    "granted": (("Client", "Key"), "Bool"),
    "holding": (("Client", "Key"), "Bool"),
}
"""The relations of a queue, and of clients that wait, have been granted the key, and have returned with it."""


def owns(s: View, c: Term, k: Term) -> Term:
    return s.granted(c, k) | s.holding(c, k)


def at(s: View, c: Term, k: Term) -> Term:
    return s.waiting(c, k) | owns(s, c, k)


def idle(s: View, c: Term) -> Term:
    return claims.idle(s, at, c)


def nobody_queued(s: View, k: Term) -> Term:
    return every(lambda d: ~s.queued(k, d))


# Effects


def join(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {**joined(s, k, c), "waiting": plus(s.waiting, c, k)}


def nothing(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {}


def come_back(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {"granted": minus(s.granted, c, k), "holding": plus(s.holding, c, k)}


def give_up(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {**left(s, k, lambda d: same(d, c)), "waiting": minus(s.waiting, c, k)}


# What is true of every state


def one_place(s: View) -> Term:
    apart = every(lambda c, j, k: implies(at(s, c, j) & at(s, c, k), same(j, k)))
    w, g, h = s.waiting, s.granted, s.holding
    return apart & every(lambda c, k: both(no(w(c, k) & g(c, k)), no(w(c, k) & h(c, k)), no(g(c, k) & h(c, k))))


ONE_PLACE = Part("one place", one_place)
QUEUE = (
    Part("the queue is who waits", lambda s: every(lambda k, c: same(s.queued(k, c), s.waiting(c, k)))),
    Part("the queue is in order", lambda s: every(lambda k, a, b: same(s.ahead(k, a, b), s.order(k, a, b)))),
    *LINE,
)

# What is promised


def promised(
    *own: Claim, stands: claims.OfClient, due: Callable[[claims.Step], Term] = lambda x: claims.TRUE, what: str = "key"
) -> tuple[Claim, ...]:
    """The clauses as this lock reads them, and those that read alike for all, in the order of the contract.

    stands  the table names the client at the key
    due     the step lets go of the key, so that the oldest waiter is to be granted it
    what    is granted
    """
    went_on, left_alone = claims.went_on(at, due), claims.left_alone(at, owns)
    alike = (
        Claim("KM-INDEP", "keys do not meet, and a key nobody is at is granted at once", on_step=claims.keys_apart(at)),
        Claim(
            "KM-IDLE",
            "a key that nobody is at has no entry",
            in_state=lambda s: every(lambda k: implies(s.present(k), some(lambda c: at(s, c, k)))),
        ),
        Claim("KM-FIFO", f"nobody gets a {what} before one that asked earlier", on_step=claims.in_order(owns)),
        Claim(
            "KM-CANCEL",
            "a cancelled waiter is gone, and others keep their places",
            in_state=claims.nothing_left_of_the_idle(at, stands),
            on_step=claims.where(left_alone, "cancel", "cancelled"),
        ),
        Claim(
            "KM-RACE",
            f"a cancel after the grant passes the {what} on",
            on_step=claims.where(went_on, "cancel", "passed on"),
        ),
        Claim("KM-UNHELD", "who has not locked can't unlock", on_step=claims.refused),
        Claim("KM-ATOMIC", "a call that fails changes nothing", on_step=claims.failed_changes_nothing),
        Claim("KM-TOKEN", "a grant is ended by its own client only", on_step=claims.own_grant_only(owns)),
        Claim(
            "KM-INTERRUPT",
            "an interrupted call leaves nothing behind, and a grant goes on",
            on_step=lambda x: both(
                claims.where(left_alone, "interrupt", "interrupted")(x),
                claims.where(went_on, "interrupt", "interrupted late")(x),
            ),
        ),
    )
    read = {claim.clause: claim for claim in (*alike, *own)}
    order = dict.fromkeys((*(prop.clause for prop in properties.ALL), *read))
    return tuple(read[clause] for clause in order if clause in read)
