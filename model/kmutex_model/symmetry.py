"""Symmetry reduction: states that differ only by the numbers of clients and keys are explored once.

A renaming gives every client and every key another number. If a model's steps commute with renamings, it is enough to
look at one of all states that are renamings of each other: any mistake from another one is also a mistake from this
one, with other numbers. `standard` picks it, and `asymmetry` checks whether the model is symmetric.

What this leaves out: KM-LIVE, since "client 0 waits forever" needs to know from step to step who client 0 is; and
situations that read numbers (`Sometimes.numbered`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import permutations
from typing import NamedTuple

from kmutex_model.actions import Action, Machine
from kmutex_model.properties import Transition, make_transition
from kmutex_model.state import NOBODY, Client, Config, Entry, State


class Renaming(NamedTuple):
    """The new number of each client and of each key."""

    clients: tuple[int, ...]
    keys: tuple[int, ...]

    def inverse(self) -> Renaming:
        """The renaming that undoes it."""
        return Renaming(_inverse(self.clients), _inverse(self.keys))

    def then(self, other: Renaming) -> Renaming:
        """First this one, then the other."""
        return Renaming(tuple(other.clients[n] for n in self.clients), tuple(other.keys[n] for n in self.keys))

    def state(self, state: State) -> State:
        """The state in the new numbers."""
        entries, clients, order = list(state.entries), list(state.clients), list(state.order)
        for key, entry in enumerate(state.entries):
            entries[self.keys[key]] = entry and Entry(self._who(entry.holder), self._all(entry.queue), entry.refs)
            order[self.keys[key]] = self._all(state.order[key])
        for number, (phase, at) in enumerate(state.clients):
            clients[self.clients[number]] = Client(phase, None if at is None else self.keys[at])
        return State(tuple(entries), tuple(clients), tuple(order))

    def action(self, action: Action) -> Action:
        """The action in the new numbers."""
        client = None if action.client is None else self.clients[action.client]
        return Action(action.name, client, None if action.key is None else self.keys[action.key])

    def _who(self, client: int) -> int:
        return NOBODY if client == NOBODY else self.clients[client]

    def _all(self, clients: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.clients[client] for client in clients)


def standard(state: State) -> tuple[State, Renaming]:
    """The one that stands for all renamings of the state, and the renaming that leads to it.

    The busiest key comes first, and clients count up along its holder and queue, then along the next key's. In the
    correct model that settles every number that matters. Elsewhere it may leave two states for one, which costs time
    and nothing else: the result is a renaming of the state in any case.
    """
    keys = sorted(range(len(state.entries)), key=lambda key: _busy(state, key))
    clients: dict[int, None] = {}
    for key in keys:
        entry = state.entries[key]
        if entry is not None:
            clients.update(dict.fromkeys((entry.holder, *entry.queue)))
        clients.update(dict.fromkeys(state.order[key]))
    clients.pop(NOBODY, None)
    rest = [client for client in range(len(state.clients)) if client not in clients]
    places = {key: place for place, key in enumerate(keys)}
    rest.sort(key=lambda c: (state.clients[c].phase, places.get(state.clients[c].key, -1)))  # type: ignore[arg-type]
    renaming = Renaming(_inverse((*clients, *rest)), _inverse(tuple(keys)))
    return renaming.state(state), renaming


def _busy(state: State, key: int) -> tuple[object, ...]:
    entry = state.entries[key]
    if entry is None:
        return (1, 0, "", 0, -len(state.order[key]))
    phase = "" if entry.holder == NOBODY else state.clients[entry.holder].phase
    return (0, -len(entry.queue), phase, -entry.refs, -len(state.order[key]))


def _inverse(numbers: tuple[int, ...]) -> tuple[int, ...]:
    places = sorted(range(len(numbers)), key=numbers.__getitem__)
    return tuple(places)


def renamings(config: Config) -> Iterator[Renaming]:
    """All of them; first the one that changes nothing."""
    for clients in permutations(range(config.clients)):
        for keys in permutations(range(config.keys)):
            yield Renaming(clients, keys)


def asymmetry(
    model: Machine,
    config: Config,
    states: Iterable[State],
    judged: Callable[[Transition], object] = lambda transition: None,
) -> str:
    """Where the model reads a number: a step that it does not take in the same way in other numbers; "" if nowhere.

    judged: what is thought of a step, which must be the same in other numbers, too.
    Looks at one of all states that differ by numbers, every step from it, and every renaming.
    """
    for state in {standard(state)[0]: state for state in states}.values():
        steps = {action: model.step(config, state, action) for action in model.enabled(config, state)}
        thought = {
            action: judged(make_transition(config, state, action, outcome, after))
            for action, (after, outcome) in steps.items()
        }
        for renaming in renamings(config):
            other = renaming.state(state)
            if set(model.enabled(config, other)) != {renaming.action(action) for action in steps}:
                return f"{model.name} can do other things in {other} than in {state}, which differ by numbers only"
            for action, (after, outcome) in steps.items():
                there = renaming.action(action)
                step = model.step(config, other, there)
                if step != (renaming.state(after), outcome):
                    return f"{model.name} does {action} in {state} in another way than {there} in {other}"
                if judged(make_transition(config, other, there, step.outcome, step.state)) != thought[action]:
                    return f"a property thinks of {action} in {state} in another way than of {there} in {other}"
    return ""
