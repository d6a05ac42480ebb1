"""What there is: the table of keys, the clients, and one ghost.

Every value is immutable and compared by content, so that a state can be a dictionary key and "have we been
here before?" is one lookup. Clients and keys are small integers counted from 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Race = Literal["keep", "pass"]
Phase = Literal["idle", "waiting", "granted", "holding"]

NOBODY = -1
"""The holder of an entry that nobody holds. The correct model has no such entry; some broken ones do."""


class Config(NamedTuple):
    """The bound of an exploration, and who wins when a cancel meets a grant.

    `race` is "keep" (threads: a grant that beat the cancel is kept and the call returns) or "pass" (asyncio:
    the call raises and the grant goes on to the next waiter).
    """

    clients: int
    keys: int
    race: Race


class Entry(NamedTuple):
    """One key in use.

    `queue` has the waiting clients, oldest first. `refs` could be computed from the other two; it is stored,
    as the implementation stores it, so that a broken model can get it wrong.
    """

    holder: int
    queue: tuple[int, ...]
    refs: int


class Client(NamedTuple):
    """One caller, between two steps.

    idle     outside: neither asking nor holding; `key` is None
    waiting  inside lock(key), in the queue
    granted  inside lock(key), the key is already its own, but the call has not returned yet
    holding  lock(key) has returned; the client will unlock
    """

    phase: Phase
    key: int | None


class State(NamedTuple):
    """Everything between two steps.

    entries  the table, by key; None where the key is absent
    clients  by client; this is the truth about who waits and who owns, the table is the program's opinion
    order    ghost, by key: the clients that wait, in the order in which they asked. The program never reads
             it. It is computed from `clients` alone (`record_order`), so a model with a broken queue cannot
             break it. In the correct model it equals the queue and adds no states.
    """

    entries: tuple[Entry | None, ...]
    clients: tuple[Client, ...]
    order: tuple[tuple[int, ...], ...]


IDLE = Client("idle", None)


def initial(config: Config) -> State:
    """Nobody has asked for anything."""
    if config.clients < 1 or config.keys < 1:
        raise ValueError(f"at least one client and one key are needed, not {config}")
    if config.race not in ("keep", "pass"):
        raise ValueError(f"race must be 'keep' or 'pass', not {config.race!r}")
    return State((None,) * config.keys, (IDLE,) * config.clients, ((),) * config.keys)


def with_entry(state: State, key: int, entry: Entry | None) -> State:
    """The state with another entry (or none) at `key`."""
    return state._replace(entries=(*state.entries[:key], entry, *state.entries[key + 1 :]))


def with_client(state: State, client: int, new: Client) -> State:
    """The state with another value for `client`."""
    return state._replace(clients=(*state.clients[:client], new, *state.clients[client + 1 :]))


def owns(client: Client, key: int) -> bool:
    """Whether the key is this client's, be it that its call has returned or not."""
    return client.key == key and client.phase in ("granted", "holding")


def owners(state: State, key: int) -> tuple[int, ...]:
    """The clients that own the key; more than one is the end of mutual exclusion."""
    return tuple(c for c, client in enumerate(state.clients) if owns(client, key))


def present(state: State, key: int) -> tuple[int, ...]:
    """The clients that own the key or wait for it."""
    return tuple(c for c, client in enumerate(state.clients) if client.key == key)


def record_order(before: State, after: State) -> State:
    """`after` with the ghost brought up to date from what the clients did."""
    if after.clients == before.clients:
        return after if after.order == before.order else after._replace(order=before.order)
    order = []
    for key, waited in enumerate(before.order):
        waiting = [c for c, client in enumerate(after.clients) if client == Client("waiting", key)]
        stayed = [c for c in waited if c in waiting]
        order.append((*stayed, *(c for c in waiting if c not in stayed)))
    return after._replace(order=tuple(order))
