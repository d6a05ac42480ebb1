"""A readers-writer lock for each key, first in, first out: readers share, a writer has the key alone.

`kmutex prove examples/tables/readers_writer.py` proves it for any number of clients and keys, writers' waits too.
A reader that asks while anybody waits joins the queue, so that no writer starves.
"""

from queued import ONE_PLACE, QUEUE, WHERE, at, come_back, idle, join, nobody_queued, nothing, owns, promised

from kmutex_model.proof import claims
from kmutex_model.proof.lock import Claim, Live, Lock, Move, Part, Relation, View, is_oldest, left, minus, plus
from kmutex_model.proof.logic import Term, both, choose, either, every, implies, no, same, some


def free_to_read(s: View, k: Term) -> Term:
    """What the table says: nobody waits, and no writer has the key."""
    return every(lambda d: ~s.queued(k, d) & no(s.holder(k, d) & s.writes(d, k)))


def alone(s: View, c: Term, k: Term) -> Term:
    """What the table says: nobody else has the key."""
    return every(lambda d: same(d, c) | ~s.holder(k, d))


# Effects


def enter_to_read(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {"present": plus(s.present, k), "holder": plus(s.holder, k, c), "holding": plus(s.holding, c, k)}


def enter_to_write(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {**enter_to_read(s, c, k), "writes": plus(s.writes, c, k)}


def join_to_write(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {**join(s, c, k), "writes": plus(s.writes, c, k)}


def gone(s: View, c: Term, k: Term) -> dict[str, Relation]:
    """The client is at no key any more, and the table knows."""
    return {
        **left(s, k, lambda d: same(d, c)),
        "waiting": minus(s.waiting, c, k),
        "granted": minus(s.granted, c, k),
        "holding": minus(s.holding, c, k),
        "holder": minus(s.holder, k, c),
        "writes": minus(s.writes, c, k),
    }


def evict(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {**gone(s, c, k), "present": minus(s.present, k)}


def admit(s: View, c: Term, k: Term, who) -> dict[str, Relation]:  # type: ignore[no-untyped-def]
    """The client is gone, and those of the queue of whom `who` is so own the key with who else owns it."""

    def granted(d: Term, j: Term) -> Term:
        return both(same(j, k), s.queued(k, d), who(d), ~same(d, c))

    without = gone(s, c, k)
    return {
        **without,
        **left(s, k, lambda d: same(d, c) | who(d)),
        "waiting": lambda d, j: without["waiting"](d, j) & ~granted(d, j),
        "granted": lambda d, j: without["granted"](d, j) | granted(d, j),
        "holder": lambda j, d: without["holder"](j, d) | granted(d, j),
    }


def to_the_writer(s: View, c: Term, k: Term, heir: Term) -> dict[str, Relation]:
    return admit(s, c, k, lambda d: same(d, heir))


def to_all(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return admit(s, c, k, lambda d: claims.TRUE)


def to_the_first(s: View, c: Term, k: Term, writer: Term) -> dict[str, Relation]:
    """Those before the first writer read together."""
    return admit(s, c, k, lambda d: s.ahead(k, d, writer))


def no_writer_queued(s: View, c: Term, k: Term) -> Term:
    return every(lambda d: same(d, c) | no(s.queued(k, d) & s.writes(d, k)))


def first_writer(s: View, c: Term, k: Term, writer: Term) -> Term:
    """Of the writers in the queue, besides this client, the oldest."""
    queued = both(s.queued(k, writer), s.writes(writer, k), ~same(writer, c))
    return queued & every(
        lambda d: either(same(d, c), same(d, writer), no(s.queued(k, d) & s.writes(d, k)), s.ahead(k, writer, d))
    )


def lets_go(name: str, phase: str, outcome: str) -> tuple[Move, ...]:
    """An owner goes; the last one evicts the entry, or lets in a writer, or the readers before the first writer."""

    def last(s: View, c: Term, k: Term) -> Term:
        return getattr(s, phase)(c, k) & alone(s, c, k)

    return (
        Move(name, outcome, lambda s, c, k: getattr(s, phase)(c, k) & ~alone(s, c, k), gone, f"{phase}, not the last"),
        Move(name, outcome, lambda s, c, k: last(s, c, k) & nobody_queued(s, k), evict, f"{phase}, no heir"),
        Move(
            name,
            outcome,
            lambda s, c, k, heir: both(last(s, c, k), is_oldest(s, k, heir), s.writes(heir, k)),
            to_the_writer,
            f"{phase}, to a writer",
        ),
        Move(
            name,
            outcome,
            lambda s, c, k: both(last(s, c, k), ~nobody_queued(s, k), no_writer_queued(s, c, k)),
            to_all,
            f"{phase}, to readers",
        ),
        Move(
            name,
            outcome,
            lambda s, c, k, writer: both(last(s, c, k), first_writer(s, c, k, writer), ~is_oldest(s, k, writer)),
            to_the_first,
            f"{phase}, to the readers before a writer",
        ),
    )


def gives_up(name: str, outcome: str) -> tuple[Move, ...]:
    """A waiter goes. Where readers own the key, it may be the writer that held up others: they join them."""

    def reading(s: View, c: Term, k: Term) -> Term:
        return s.waiting(c, k) & every(lambda d: no(s.holder(k, d) & s.writes(d, k)))

    return (
        Move(name, outcome, lambda s, c, k: s.waiting(c, k) & ~reading(s, c, k), gone, "waiting for a writer"),
        Move(
            name, outcome, lambda s, c, k: reading(s, c, k) & no_writer_queued(s, c, k), to_all, "waiting for readers"
        ),
        Move(
            name,
            outcome,
            lambda s, c, k, writer: reading(s, c, k) & first_writer(s, c, k, writer),
            to_the_first,
            "waiting for readers, with a writer",
        ),
    )


def asks(name: str, outcome: str, waits_to_read, waits_to_write) -> tuple[Move, ...]:  # type: ignore[no-untyped-def]
    def may_read(s: View, c: Term, k: Term) -> Term:
        return idle(s, c) & free_to_read(s, k)

    def must_not_read(s: View, c: Term, k: Term) -> Term:
        return idle(s, c) & ~free_to_read(s, k)

    return (
        Move(f"{name}_read", "granted", may_read, enter_to_read, "free", keyed=True),
        Move(f"{name}_read", outcome, must_not_read, waits_to_read, "not free", keyed=True),
        Move(
            f"{name}_write", "granted", lambda s, c, k: idle(s, c) & ~s.present(k), enter_to_write, "free", keyed=True
        ),
        Move(f"{name}_write", outcome, lambda s, c, k: idle(s, c) & s.present(k), waits_to_write, "held", keyed=True),
    )


MOVES = (
    *asks("request", "waiting", join, join_to_write),
    *asks("try", "timeout", nothing, nothing),
    Move("wake", "returned", lambda s, c, k: s.granted(c, k), come_back),
    *gives_up("cancel", "cancelled"),
    *lets_go("cancel", "granted", "passed on"),
    *gives_up("interrupt", "interrupted"),
    *lets_go("interrupt", "granted", "interrupted late"),
    *lets_go("release", "holding", "released"),
    Move("stray_unlock", "unheld", lambda s, c, k: idle(s, c), nothing, keyed=True),
)

# What is true of every state


def writers_alone(s: View) -> Term:
    return every(lambda k, a, b: implies(both(s.holder(k, a), s.holder(k, b), s.writes(a, k)), same(a, b)))


def a_writer_is_there(s: View) -> Term:
    """A reader waits only where a writer is."""
    return every(
        lambda k: either(
            every(lambda d: no(s.queued(k, d) & ~s.writes(d, k))),
            some(lambda w: s.writes(w, k) & (s.holder(k, w) | s.queued(k, w))),
        )
    )


PARTS = (
    ONE_PLACE,
    Part("the holders own", lambda s: every(lambda k, c: same(s.holder(k, c), owns(s, c, k)))),
    Part("writers are alone", writers_alone),
    Part("who writes is there", lambda s: every(lambda k, c: implies(s.writes(c, k), at(s, c, k)))),
    Part("a reader waits for a writer", a_writer_is_there),
    Part("an entry has a holder", lambda s: every(lambda k: implies(s.present(k), some(lambda c: s.holder(k, c))))),
    Part("only an entry has", lambda s: every(lambda k, c: implies(s.holder(k, c) | s.queued(k, c), s.present(k)))),
    *QUEUE,
)

# What is promised


def writes_at(s: View, c: Term, k: Term) -> Term:
    return owns(s, c, k) & s.writes(c, k)


def nobody_else_owns(x: claims.Step) -> Term:
    return every(lambda d: same(d, x.c) | ~owns(x.s, d, x.k))


def timeout_zero(x: claims.Step) -> Term:
    nobody_waits = every(lambda d: ~x.s.waiting(d, x.k))
    if x.move.name == "try_read":
        free = nobody_waits & every(lambda d: ~writes_at(x.s, d, x.k))
    elif x.move.name == "try_write":
        free = every(lambda d: ~owns(x.s, d, x.k))
    else:
        return claims.TRUE
    return choose(free, x.t.holding(x.c, x.k), claims.timed_out(x))


def shared(x: claims.Step) -> Term:
    """Who asks to read where nobody waits and no writer owns the key, has it at once."""
    if x.move.name != "request_read":
        return claims.TRUE
    free = every(lambda d: ~x.s.waiting(d, x.k) & ~writes_at(x.s, d, x.k))
    return implies(free, x.t.holding(x.c, x.k))


LOCK = Lock(
    relations={
        "present": (("Key",), "Bool"),
        "holder": (("Key", "Client"), "Bool"),
        **WHERE,
        "writes": (("Client", "Key"), "Bool"),
    },
    moves=MOVES,
    parts=PARTS,
    claims=promised(
        Claim(
            "KM-EXCL",
            "who writes owns the key alone",
            in_state=lambda s: every(lambda k, a, b: implies(writes_at(s, a, k) & owns(s, b, k), same(a, b))),
        ),
        Claim(
            "KM-REF",
            "the table names the owners, all and no others",
            in_state=lambda s: every(lambda k, c: same(s.present(k) & s.holder(k, c), owns(s, c, k))),
        ),
        Claim(
            "KM-HANDOFF",
            "while somebody waits the key is owned, and the last release gives it to the oldest waiter",
            in_state=lambda s: every(lambda k, w: implies(s.waiting(w, k), some(lambda c: owns(s, c, k)))),
            on_step=claims.where(claims.went_on(at, nobody_else_owns), "release"),
        ),
        Claim("KM-EXPIRED", "timeout 0 takes a key that is free, or fails without a trace", on_step=timeout_zero),
        Claim(
            "sharing",
            "a reader waits only where a writer is, and has a key at once that only readers are at",
            in_state=lambda s: every(
                lambda k, c: implies(s.waiting(c, k) & ~s.writes(c, k), some(lambda w: at(s, w, k) & s.writes(w, k)))
            ),
            on_step=shared,
        ),
        stands=lambda s, c, k: either(s.queued(k, c), s.holder(k, c)),
        due=nobody_else_owns,
    ),
    live=Live(
        "every waiter is served, if every owner lets go in the end",
        waits=lambda s, w, j: s.waiting(w, j),
        # Those who asked before; then who owns the key; then those of them whose calls have yet to return.
        levels=(
            lambda s, w, j, a: s.order(j, a, w),
            lambda s, w, j, a: owns(s, a, j),
            lambda s, w, j, a: s.granted(a, j),
        ),
        fair=("release", "wake"),
        helps=lambda x, w, j: same(x.k, j),
        # A queue in which one waits has an oldest; and if a writer is in it, there is a first writer.
        given=lambda s, waiter, k, c, heir, writer: both(
            owns(s, c, k),
            is_oldest(s, k, heir),
            no_writer_queued(s, c, k) | first_writer(s, c, k, writer),
        ),
    ),
)
