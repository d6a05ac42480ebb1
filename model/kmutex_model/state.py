"""The state: the table of keys, the clients, and one ghost variable.

Every value is immutable and compared by content, so a state can be a dictionary key, and one lookup finds out whether
it was reached before. Clients and keys are small integers counted from 0.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Race = Literal["keep", "pass"]
Phase = Literal["idle", "waiting", "granted", "holding"]

NOBODY = -1
"""The holder of an entry that nobody holds. The correct model has no such entry; some broken ones do."""


class Config(NamedTuple):
    """The bound of an exploration, and what wins when a cancel meets a grant."""

    clients: int
    """The number of clients."""
    keys: int
    """The number of keys."""
    race: Race
    """"keep", as for threads, if a grant that came before the cancel is kept and the call returns. "pass", as for
    asyncio, if the call raises and the grant goes to the next waiter."""


class Entry(NamedTuple):
    """One key in use."""

    holder: int
    """The client that holds it, or NOBODY."""
    queue: tuple[int, ...]
    """The waiting clients, oldest first."""
    refs: int
    """The number of clients that hold it or wait. Stored, so that a broken model can get it wrong."""


class Client(NamedTuple):
    """One caller, between two steps."""

    phase: Phase
    """"idle" is neither asking nor holding; "waiting" is inside lock(key), in the queue; "granted" is inside lock(key),
    which owns the key but has not returned yet; "holding" is after lock(key), and the client will unlock."""
    key: int | None
    """The key that it asks for or holds; None if it is idle."""


class State(NamedTuple):
    """The whole state between two steps."""

    entries: tuple[Entry | None, ...]
    """The entry of each key in the table, or None."""
    clients: tuple[Client, ...]
    """By client. This is the truth about who waits and who owns; the table is what the program knows of it."""
    order: tuple[tuple[int, ...], ...]
    """A ghost variable with the waiting clients of each key, in the order in which they asked. The program never reads
    it. It is computed from `clients` alone (`record_order`), so a model with a broken queue can't break it. In the
    correct model it equals the queue and adds no states."""


IDLE = Client("idle", None)


def initial(config: Config) -> State:
    """Return the initial state: nobody has asked for anything."""
    if config.clients < 1 or config.keys < 1:
        raise ValueError(f"at least one client and one key are needed, not {config}")
    if config.race not in ("keep", "pass"):
        raise ValueError(f"race must be 'keep' or 'pass', not {config.race!r}")
    return State((None,) * config.keys, (IDLE,) * config.clients, ((),) * config.keys)


def with_entry(state: State, key: int, entry: Entry | None) -> State:
    """Return the state with another entry (or None) at `key`."""
    return state._replace(entries=(*state.entries[:key], entry, *state.entries[key + 1 :]))


def with_client(state: State, client: int, new: Client) -> State:
    """Return the state with another value for `client`."""
    return state._replace(clients=(*state.clients[:client], new, *state.clients[client + 1 :]))


def owns(client: Client, key: int) -> bool:
    """Return whether the client owns the key, whether or not its call has returned."""
    return client.key == key and client.phase in ("granted", "holding")


def owners(state: State, key: int) -> tuple[int, ...]:
    """Return the clients that own the key. With mutual exclusion there is at most one."""
    return tuple(c for c, client in enumerate(state.clients) if owns(client, key))


def present(state: State, key: int) -> tuple[int, ...]:
    """Return the clients that own the key or wait for it."""
    return tuple(c for c, client in enumerate(state.clients) if client.key == key)


def record_order(before: State, after: State) -> State:
    """Return `after` with its ghost variable updated from what the clients did."""
    if after.clients == before.clients:
        return after if after.order == before.order else after._replace(order=before.order)
    order = []
    for key, waited in enumerate(before.order):
        waiting = [c for c, client in enumerate(after.clients) if client == Client("waiting", key)]
        stayed = [c for c in waited if c in waiting]
        order.append((*stayed, *(c for c in waiting if c not in stayed)))
    return after._replace(order=tuple(order))
