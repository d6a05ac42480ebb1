"""Requests for several keys at once, `hold_all(keys)`, as a state machine of its own: KM-ALL.

Rule 1   Every action is one step, atomic, by one client.
Rule 2   An idle client may ask for a set of keys. In that step it takes its place at the end of the queue of each.
         A client that is first in all of its queues holds all of its keys.
Rule 3   A client that waits holds nothing that it may use; but where it stands first, nobody else can come first.
Rule 4   A client that leaves, because it releases or because it was cancelled, leaves all its queues in one step. A
         client that is then first in all of its own is granted in that step; its call returns some time later ("wake").
Rule 5   A cancel that meets a grant: by `race` the call returns and holds, or it raises and the client leaves.

A set of keys is a number whose bits are its keys, so that `request(0,3)` asks for the keys 0 and 1. There are no
counts and no entries here: `kmutex_model.actions` has the table for one key.

The explorer is that of the keyed mutex, and so are `Action`, `Property`, `Sometimes` and `Eventually`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kmutex_model.actions import Action, NotEnabledError
from kmutex_model.properties import Eventually, Property, Sometimes
from kmutex_model.state import Config

Phase = Literal["idle", "waiting", "granted", "holding"]


class Asker(NamedTuple):
    """One client, between two steps. `key` is the set of keys it asked for, None where it is idle."""

    phase: Phase
    key: int | None


class SeveralState(NamedTuple):
    """Everything between two steps.

    queues   by key: who asked for it, oldest first; the first holds it
    clients  by client
    order    ghost: the clients that are not idle, in the order in which they asked
    """

    queues: tuple[tuple[int, ...], ...]
    clients: tuple[Asker, ...]
    order: tuple[int, ...]


class SeveralStep(NamedTuple):
    """Where an action led, and what the caller was told."""

    state: SeveralState
    outcome: str


class SeveralTransition(NamedTuple):
    """One step as the properties read it. `key` is a set of keys."""

    config: Config
    before: SeveralState
    action: Action
    key: int
    outcome: str
    after: SeveralState


IDLE = Asker("idle", None)
Effect = Callable[[Config, SeveralState, int, int], SeveralStep]


def keys_in(some: int | None) -> tuple[int, ...]:
    """The keys of a set."""
    return tuple(key for key in range((some or 0).bit_length()) if (some or 0) >> key & 1)


def first_everywhere(state: SeveralState, client: int, some: int | None) -> bool:
    """Whether the client stands first in the queue of each of these keys."""
    return all(state.queues[key][:1] == (client,) for key in keys_in(some))


def _become(state: SeveralState, client: int, phase: Phase, some: int | None) -> SeveralState:
    new = IDLE if phase == "idle" else Asker(phase, some)
    clients = (*state.clients[:client], new, *state.clients[client + 1 :])
    order = tuple(c for c in state.order if c != client) + (() if phase == "idle" else (client,))
    return state._replace(clients=clients, order=order if state.clients[client] == IDLE or new == IDLE else state.order)


def _queued(state: SeveralState, client: int, key: int, place: int | None = None) -> SeveralState:
    queue = state.queues[key]
    at = len(queue) if place is None else place
    return _with_queue(state, key, (*queue[:at], client, *queue[at:]))


def _with_queue(state: SeveralState, key: int, queue: tuple[int, ...]) -> SeveralState:
    return state._replace(queues=(*state.queues[:key], queue, *state.queues[key + 1 :]))


def _left(state: SeveralState, client: int) -> SeveralState:
    for key, queue in enumerate(state.queues):
        state = _with_queue(state, key, tuple(c for c in queue if c != client))
    return _become(state, client, "idle", None)


def _granted(state: SeveralState) -> SeveralState:
    """Rule 4: all who wait and stand first everywhere."""
    for client, (phase, some) in enumerate(state.clients):
        if phase == "waiting" and first_everywhere(state, client, some):
            state = _become(state, client, "granted", some)
    return state


# ------------------------------------------------------------------------------------------------------------
# Effects


def ask(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    """Rule 2."""
    for key in keys_in(some):
        state = _queued(state, client, key)
    got = first_everywhere(state, client, some)
    return SeveralStep(_become(state, client, "holding" if got else "waiting", some), "holding" if got else "waiting")


def leave(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    """Rule 4."""
    return SeveralStep(_granted(_left(state, client)), "left")


def cancel_granted(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    """Rule 5."""
    if config.race == "pass":
        return leave(config, state, client, some)
    return SeveralStep(_become(state, client, "holding", some), "holding")


def come_back(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    """The call of one that was granted returns."""
    return SeveralStep(_become(state, client, "holding", some), "holding")


Place = tuple[str, Phase]
TABLE: dict[Place, Effect] = {
    ("request", "idle"): ask,
    ("cancel", "waiting"): leave,
    ("cancel", "granted"): cancel_granted,
    ("wake", "granted"): come_back,
    ("release", "holding"): leave,
}


@dataclass(frozen=True)
class SeveralModel:
    """A table under a name: the correct one, or a broken one."""

    name: str
    table: dict[Place, Effect]

    def initial(self, config: Config) -> SeveralState:
        """Return the state in which nobody has asked; raise ValueError if the bound has no client or no key."""
        if config.clients < 1 or config.keys < 1:
            raise ValueError(f"at least one client and one key are needed, not {config}")
        return SeveralState(((),) * config.keys, (IDLE,) * config.clients, ())

    def enabled(self, config: Config, state: SeveralState) -> tuple[Action, ...]:
        """Every action that can happen here, in a fixed order."""
        found = []
        for number, client in enumerate(state.clients):
            if client.key is None:
                found += [Action("request", number, some) for some in range(1, 1 << config.keys)]
            else:
                found += [
                    Action(name, number)
                    for name, phase in self.table
                    if phase == client.phase and (name != "claim" or can_claim(state, number, client.key))
                ]
        return tuple(found)

    def step(self, config: Config, state: SeveralState, action: Action) -> SeveralStep:
        """Take the action. NotEnabledError if it cannot happen here."""
        client = -1 if action.client is None else action.client
        if client in range(config.clients):
            phase, at = state.clients[client]
            some = action.key if phase == "idle" else at if action.key is None else None
            effect = self.table.get((action.name, phase))
            if effect is not None and some is not None and some in range(1, 1 << config.keys):
                return effect(config, state, client, some)
        raise NotEnabledError(f"{action} cannot happen in {state}")

    def replacing(self, name: str, rows: dict[Place, Effect]) -> SeveralModel:
        """The same model, under another name, with these rows in place of its own, or in addition to them."""
        return SeveralModel(name, {**self.table, **rows})


SEVERAL = SeveralModel("several", TABLE)


# ------------------------------------------------------------------------------------------------------------
# Properties


def _all_or_none(config: Config, state: SeveralState) -> str:
    for client, (phase, some) in enumerate(state.clients):
        stands = tuple(key for key, queue in enumerate(state.queues) if client in queue)
        if phase == "idle" and stands:
            return f"client {client} is idle and stands in the queues of keys {stands}"
        if phase == "waiting" and stands != keys_in(some):
            return f"client {client} asked for keys {keys_in(some)} and stands in the queues of {stands}"
        if phase == "waiting" and first_everywhere(state, client, some):
            return f"client {client} waits, and stands first everywhere"
        if phase in ("granted", "holding") and not first_everywhere(state, client, some):
            return f"client {client} has keys {keys_in(some)}, and another stands before it"
    return ""


def _waits_for_older(config: Config, state: SeveralState) -> str:
    for key, queue in enumerate(state.queues):
        asked = tuple(client for client in state.order if client in queue)
        if asked != tuple(client for client in queue if client in state.order):
            return f"the queue of key {key} is {queue}, and they asked in the order {asked}"
    return ""


def _ahead(state: SeveralState, client: int) -> list[int]:
    """The keys that the client, which waits, would have already."""
    return [key for key in keys_in(state.clients[client].key) if state.queues[key][:1] == (client,)]


def _waits_with_a_part(t: SeveralTransition) -> bool:
    return any(phase == "waiting" and _ahead(t.after, c) for c, (phase, _) in enumerate(t.after.clients))


def _part_is_given_up(t: SeveralTransition) -> bool:
    client = t.action.client
    assert client is not None
    part = _ahead(t.before, client) if t.action.name == "cancel" and t.before.clients[client].phase == "waiting" else []
    return any(t.after.queues[key] for key in part)


def _passes_others(t: SeveralTransition) -> bool:
    return t.outcome == "holding" and any(phase == "waiting" for phase, _ in t.before.clients)


KM_ALL = Property(
    "KM-ALL",
    "a client stands in the queues of all its keys or of none, and has all of them or none",
    in_state=_all_or_none,
    sometimes=(
        Sometimes("a client waits, and would have one of its keys", _waits_with_a_part, clients=2, keys=2),
        Sometimes("one that waits gives up a key, which another gets", _part_is_given_up, clients=3, keys=2),
        Sometimes("a client gets its keys while another waits for others", _passes_others, clients=3, keys=2),
    ),
)

KM_ALL_ORDER = Property(
    "KM-ALL",
    "in each queue clients stand in the order in which they asked, so that nobody waits for a younger one",
    in_state=_waits_for_older,
    sometimes=(
        Sometimes(
            "two clients stand in the queues of the same two keys",
            lambda t: sum(len(keys_in(key)) > 1 for phase, key in t.after.clients if phase == "waiting") > 1,
            clients=3,
            keys=2,
        ),
    ),
)

KM_ALL_LIVE = Property(
    "KM-ALL",
    "if every holder lets go in the end, every request that is not cancelled gets its keys in the end",
    eventually=Eventually(
        pending=lambda state, c: state.clients[c].phase == "waiting", fair=("wake", "release", "claim")
    ),
    sometimes=(
        Sometimes(
            "two clients are granted in one step",
            lambda t: (
                sum(
                    now.phase == "granted" and was.phase == "waiting"
                    for was, now in zip(t.before.clients, t.after.clients, strict=True)
                )
                > 1
            ),
            clients=3,
            keys=2,
        ),
    ),
)

ALL: tuple[Property, ...] = (KM_ALL, KM_ALL_ORDER, KM_ALL_LIVE)


# ------------------------------------------------------------------------------------------------------------
# What each property is there to catch


@dataclass(frozen=True)
class BrokenSeveral:
    """A model, the clause it must be found to violate, at which bound, and judged by which properties."""

    model: SeveralModel
    clause: str
    story: str
    config: Config
    judged_by: tuple[Property, ...] = ALL


def _wanted(state: SeveralState, client: int, some: int) -> list[int]:
    """The keys that are to be asked for yet: upwards by one half of the clients, downwards by the other."""
    left = [key for key in keys_in(some) if client not in state.queues[key]]
    return left[:: -1 if client % 2 else 1]


def can_claim(state: SeveralState, client: int, some: int) -> bool:
    """Whether a client that asks for one key after the other has got those so far, and wants more."""
    taken = sum(1 << key for key in keys_in(some) if client in state.queues[key])
    return bool(_wanted(state, client, some)) and first_everywhere(state, client, taken)


def _claim(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    wanted = _wanted(state, client, some)
    state = _queued(state, client, wanted[0])
    got = len(wanted) == 1 and first_everywhere(state, client, some)
    return SeveralStep(_become(state, client, "holding" if got else "waiting", some), "holding" if got else "waiting")


def _leave_alone(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    """Rule 4 for clients that stand in some of their queues only."""
    state = _left(state, client)
    for other, (phase, asked) in enumerate(state.clients):
        if phase == "waiting" and not _wanted(state, other, asked or 0) and first_everywhere(state, other, asked):
            state = _become(state, other, "granted", asked)
    return SeveralStep(state, "left")


def _keep_a_part(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    part = _ahead(state, client)
    after = _left(state, client)
    for key in part:
        after = _queued(after, client, key, 0)
    return SeveralStep(_granted(after), "left")


def _enough(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    for key in keys_in(some):
        state = _queued(state, client, key)
    got = any(state.queues[key][:1] == (client,) for key in keys_in(some))
    return SeveralStep(_become(state, client, "holding" if got else "waiting", some), "holding" if got else "waiting")


def _tell_nobody(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    return SeveralStep(_left(state, client), "left")


def _push_in(config: Config, state: SeveralState, client: int, some: int) -> SeveralStep:
    for key in keys_in(some):
        # Behind the holder in all queues but the first.
        state = _queued(state, client, key, None if key == keys_in(some)[0] else min(1, len(state.queues[key])))
    got = first_everywhere(state, client, some)
    return SeveralStep(_become(state, client, "holding" if got else "waiting", some), "holding" if got else "waiting")


_ONE_BY_ONE: dict[Place, Effect] = {
    ("request", "idle"): _claim,
    ("claim", "waiting"): _claim,
    ("cancel", "waiting"): _leave_alone,
    ("release", "holding"): _leave_alone,
}

BROKEN: tuple[BrokenSeveral, ...] = (
    BrokenSeveral(
        SEVERAL.replacing("one_by_one", _ONE_BY_ONE),
        "KM-ALL",
        "one key is asked for after the other, by some upwards and by some downwards; judged by its results alone",
        Config(2, 2, "keep"),
        judged_by=(KM_ALL_LIVE,),
    ),
    BrokenSeveral(
        SEVERAL.replacing("in_steps", _ONE_BY_ONE),
        "KM-ALL",
        "the places are taken in several steps",
        Config(1, 2, "keep"),
        judged_by=(KM_ALL,),
    ),
    BrokenSeveral(
        SEVERAL.replacing("keeps_a_part", {("cancel", "waiting"): _keep_a_part}),
        "KM-ALL",
        "a client that gives up leaves the queues in which it waits, and keeps the keys whose turn had come",
        Config(2, 2, "pass"),
    ),
    BrokenSeveral(
        SEVERAL.replacing("first_somewhere", {("request", "idle"): _enough}),
        "KM-ALL",
        "the first key that is free is taken for all",
        Config(2, 2, "keep"),
    ),
    BrokenSeveral(
        SEVERAL.replacing("tells_nobody", {("release", "holding"): _tell_nobody}),
        "KM-ALL",
        "a release wakes nobody",
        Config(2, 1, "keep"),
    ),
    BrokenSeveral(
        SEVERAL.replacing("pushes_in", {("request", "idle"): _push_in}),
        "KM-ALL",
        "a place is the last in one queue, and the second in another",
        Config(3, 2, "keep"),
        judged_by=(KM_ALL_ORDER,),
    ),
    BrokenSeveral(
        SEVERAL.replacing("starves_the_older", {("request", "idle"): _push_in}),
        "KM-ALL",
        "the same, judged by its results alone",
        Config(3, 2, "keep"),
        judged_by=(KM_ALL_LIVE,),
    ),
)
