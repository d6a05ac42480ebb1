"""A state of any number of clients and keys: relations in the place of tuples.

table   present(k), holder(k,c), queued(k,c), ahead(k,a,b), refs(k): the program's opinion. `ahead`: a stands before b
truth   waiting(c,k), granted(c,k), holding(c,k): the phase of each client; if none of them holds, it is idle
ghosts  order(k,a,b): a asked before b, and both wait; there(k): how many clients are at k.
        Both follow from what the clients do and never from the table (`recorded`)
numbers before(a,b), lower(j,k): the order of the numbers of clients and of keys. A step changes neither

`explicit` is how a state of the explorer looks in these relations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kmutex_model.proof.logic import (
    FALSE,
    Sort,
    Term,
    applied,
    both,
    choose,
    either,
    every,
    number,
    same,
)
from kmutex_model.state import Config, Entry, State

SIGNATURE: dict[str, tuple[tuple[Sort, ...], Sort]] = {
    "present": (("Key",), "Bool"),
    "holder": (("Key", "Client"), "Bool"),
    "queued": (("Key", "Client"), "Bool"),
    "ahead": (("Key", "Client", "Client"), "Bool"),
    "refs": (("Key",), "Int"),
    "waiting": (("Client", "Key"), "Bool"),
    "granted": (("Client", "Key"), "Bool"),
    "holding": (("Client", "Key"), "Bool"),
    "order": (("Key", "Client", "Client"), "Bool"),
    "there": (("Key",), "Int"),
}
NUMBERS: dict[str, tuple[tuple[Sort, ...], Sort]] = {
    "before": (("Client", "Client"), "Bool"),
    "lower": (("Key", "Key"), "Bool"),
}
TABLE = ("present", "holder", "queued", "ahead", "refs")
PHASES = ("waiting", "granted", "holding")


@dataclass(frozen=True)
class Relations:
    """A state. Each field is a relation or function, and gives a term for terms."""

    present: Callable[[Term], Term]
    holder: Callable[[Term, Term], Term]
    queued: Callable[[Term, Term], Term]
    ahead: Callable[[Term, Term, Term], Term]
    refs: Callable[[Term], Term]
    waiting: Callable[[Term, Term], Term]
    granted: Callable[[Term, Term], Term]
    holding: Callable[[Term, Term], Term]
    order: Callable[[Term, Term, Term], Term]
    there: Callable[[Term], Term]

    def owns(self, c: Term, k: Term) -> Term:
        """The key is this client's, be it that its call has returned or not."""
        return self.granted(c, k) | self.holding(c, k)

    def at(self, c: Term, k: Term) -> Term:
        """The client owns the key or waits for it."""
        return either(self.waiting(c, k), self.granted(c, k), self.holding(c, k))

    def idle(self, c: Term) -> Term:
        """The client is at no key."""
        return every(lambda k: ~self.at(c, k))

    def is_free(self, k: Term) -> Term:
        """The key has no entry, or one that nobody holds."""
        return ~self.present(k) | every(lambda c: ~self.holder(k, c))

    def is_oldest(self, k: Term, c: Term) -> Term:
        """The client is first in the queue of the key."""
        return self.queued(k, c) & every(lambda d: ~self.queued(k, d) | same(d, c) | self.ahead(k, c, d))

    def get(self, name: str) -> Callable[..., Term]:
        """The relation of that name."""
        relation: Callable[..., Term] = getattr(self, name)
        return relation


def named(suffix: str = "") -> Relations:
    """A state of which nothing is known: each relation under its name, with the suffix."""

    def relation(name: str, sort: Sort) -> Callable[..., Term]:
        return lambda *args: applied(name + suffix, sort, *args)

    return Relations(**{name: relation(name, sort) for name, (_, sort) in SIGNATURE.items()})


class Vocabulary(NamedTuple):
    """What a solver is told of a state.

    relations  each with the sorts of its places, and its own
    counts     the numbers that count clients, each with the relation of client and key that is counted
    orders     the relations that are the order of the numbers of clients or keys
    """

    relations: Mapping[str, tuple[tuple[Sort, ...], Sort]]
    counts: Mapping[str, Callable[[Term, Term], Term]]
    orders: Mapping[str, Sort]


KMUTEX = Vocabulary({**SIGNATURE, **NUMBERS}, {"there": named().at}, {"before": "Client", "lower": "Key"})

EMPTY = Relations(
    **{
        name: ((lambda *args: FALSE) if sort == "Bool" else (lambda *args: number(0)))
        for name, (_, sort) in SIGNATURE.items()
    }
)
"""Nobody has asked for anything."""


def recorded(before: Relations, after: Relations, actor: Term) -> Relations:
    """`after` with the ghosts brought up to date from what the clients did.

    `there` looks at the acting client only. That nobody else comes to a key or goes is an obligation of its own.
    """

    def order(k: Term, a: Term, b: Term) -> Term:
        stayed = both(after.waiting(a, k), after.waiting(b, k), before.waiting(a, k))
        return stayed & either(before.order(k, a, b), ~before.waiting(b, k))

    def there(k: Term) -> Term:
        was, now = before.at(actor, k), after.at(actor, k)
        return before.there(k) + choose(now & ~was, number(1), choose(was & ~now, number(-1), number(0)))

    return replace(after, order=order, there=there)


def facts_of_numbers() -> Term:
    """The numbers of clients, and those of keys, are in a strict order in which any two have their places."""

    def before(a: Term, b: Term) -> Term:
        return applied("before", "Bool", a, b)

    def lower(j: Term, k: Term) -> Term:
        return applied("lower", "Bool", j, k)

    return both(
        every(lambda a: ~before(a, a)),
        every(lambda a, b, c: ~before(a, b) | ~before(b, c) | before(a, c)),
        every(lambda a, b: either(same(a, b), before(a, b), before(b, a))),
        every(lambda k: ~lower(k, k)),
        every(lambda j, k, j_: ~lower(j, k) | ~lower(k, j_) | lower(j, j_)),
        every(lambda j, k: either(same(j, k), lower(j, k), lower(k, j))),
    )


# ------------------------------------------------------------------------------------------------------------
# States of the explorer


def explicit(config: Config, state: State) -> dict[str, Any] | None:
    """The state as relations: nested lists under each name. None where a queue has a client twice, which no relation
    says; only broken models have such a state."""
    every_client, every_key = range(config.clients), range(config.keys)
    entries = [entry or Entry(-1, (), 0) for entry in state.entries]
    if any(len(set(entry.queue)) < len(entry.queue) for entry in entries):
        return None
    return {
        "present": [entry is not None for entry in state.entries],
        "holder": [[entry.holder == c for c in every_client] for entry in entries],
        "queued": [[c in entry.queue for c in every_client] for entry in entries],
        "ahead": [_ahead(entry.queue, config.clients) for entry in entries],
        "refs": [entry.refs for entry in entries],
        **{name: [[client == (name, k) for k in every_key] for client in state.clients] for name in PHASES},
        "order": [_ahead(order, config.clients) for order in state.order],
        "there": [sum(client.key == k for client in state.clients) for k in every_key],
    }


def numbered(config: Config) -> dict[str, Any]:
    """The order of the numbers within a bound."""
    return {
        "before": [[a < b for b in range(config.clients)] for a in range(config.clients)],
        "lower": [[j < k for k in range(config.keys)] for j in range(config.keys)],
    }


def _ahead(queue: Sequence[int], clients: int) -> list[list[bool]]:
    place = {client: number for number, client in enumerate(queue)}
    return [[a in place and b in place and place[a] < place[b] for b in range(clients)] for a in range(clients)]
