"""Steps that are right, and all that differ from one of them in one thing: where each clause draws its line.

A broken model makes some mistakes only. Here the state after each step of the correct model is changed in one place at
a time: a client stands elsewhere, an entry has another holder, queue or count, or the caller is told something else. On
all these, formula and property of each clause must agree, so neither can lose a conjunct that the other has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple, get_args

from kmutex_model.actions import CORRECT, Action, Model
from kmutex_model.broken import BROKEN
from kmutex_model.explore import explore
from kmutex_model.proof.relations import SIGNATURE, explicit
from kmutex_model.proof.tie import Judge, values_of
from kmutex_model.properties import Transition, make_transition
from kmutex_model.state import IDLE, Client, Config, Entry, Phase, State, record_order, with_client, with_entry
from kmutex_model.turn import Outcome

CONFIGS = tuple(Config(clients, keys, race) for clients, keys in ((3, 1), (2, 2)) for race in ("keep", "pass"))  # type: ignore[arg-type]
PHASES: tuple[Phase, ...] = ("waiting", "granted", "holding")


class Nearby(NamedTuple):
    """A step, with the relations before and after it."""

    transition: Transition
    phase: Phase
    values: list[Any]
    after: list[Any]
    values_after: list[Any]


def changed(config: Config, state: State) -> Iterator[State]:
    """The states that differ from this one in one thing."""
    places = [IDLE, *(Client(phase, key) for phase in PHASES for key in range(config.keys))]
    for client, place in itertools.product(range(config.clients), places):
        yield with_client(state, client, place)
    for key, entry in enumerate(state.entries):
        yield from (with_entry(state, key, other) for other in _entries(config, entry))


def _entries(config: Config, entry: Entry | None) -> Iterator[Entry | None]:
    if entry is None:
        yield Entry(-1, (), 0)
        yield from (Entry(client, (), 1) for client in range(config.clients))
        return
    yield None
    yield from (entry._replace(holder=holder) for holder in range(-1, config.clients))
    yield from (entry._replace(refs=entry.refs + by) for by in (-1, 1))
    queue = entry.queue
    yield from (entry._replace(queue=(*queue[:place], *queue[place + 1 :])) for place in range(len(queue)))
    yield from (entry._replace(queue=(*queue, client)) for client in range(config.clients) if client not in queue)
    yield entry._replace(queue=queue[::-1])


def _starts() -> Iterator[tuple[Model, Config, State]]:
    """Where the steps begin: in every state of the correct model, in those of the broken ones, and where three wait."""
    for config in CONFIGS:
        yield from ((CORRECT, config, state) for state in explore(CORRECT, config).graph)
    long = Config(4, 1, "keep")
    yield from ((CORRECT, long, state) for state in explore(CORRECT, long).graph if len(state.order[0]) == 3)
    for broken in BROKEN:
        small = Config(2, 1, broken.config.race)
        found = explore(broken.model, small, properties=broken.judged_by, max_states=500).graph
        yield from ((broken.model, small, state) for state in found if explicit(small, state))


def _steps() -> Iterator[Transition]:
    for model, config, before in _starts():
        for action in model.enabled(config, before):
            right = model.step(config, before, action)
            others = (record_order(before, other) for other in changed(config, right.state))
            told = ((state, outcome) for state in (right.state, before) for outcome in get_args(Outcome))
            for after, outcome in (*((state, right.outcome) for state in (right.state, before, *others)), *told):
                yield make_transition(config, before, action, outcome, after)
    # No model goes on from a waiter whose entry is gone, or counts it alone though there is a holder.
    config = Config(2, 1, "keep")
    lost = State((None,), (Client("waiting", 0), IDLE), ((0,),))
    alone = State((Entry(1, (0,), 1),), (Client("waiting", 0), Client("holding", 0)), ((0,),))
    for before, entry in itertools.product((lost, alone), (None, Entry(-1, (), -1))):
        for action, outcome in (("cancel", "cancelled"), ("interrupt", "interrupted")):
            after = record_order(before, with_client(with_entry(before, 0, entry), 0, IDLE))
            yield make_transition(config, before, Action(action, 0), outcome, after)  # type: ignore[arg-type]


@cache
def nearby() -> tuple[Nearby, ...]:
    """All of them, at small bounds."""
    found: dict[Transition, Nearby] = {}
    for t in _steps():
        relations = None if t in found else explicit(t.config, t.after)
        if relations is not None:
            assert t.action.client is not None
            phase = t.before.clients[t.action.client].phase
            values = values_of(t.config, _relations(t.config, t.before))
            later = [relations[name] for name in SIGNATURE]
            found[t] = Nearby(t, phase, values, later, values_of(t.config, relations))
    return tuple(found.values())


def _relations(config: Config, state: State) -> dict[str, Any]:
    relations = explicit(config, state)
    assert relations is not None
    return relations


def verdicts(judge: Judge, one: Nearby) -> Iterator[tuple[str, bool, bool]]:
    """For each clause what its formula says, and what its property does."""
    for clause, says, message in judge.step(one.transition, one.phase, one.values, one.after):
        yield clause, says, message == ""
    for clause, says, message in judge.state(one.transition.config, one.transition.after, one.values_after):
        yield clause, says, message == ""


def difference(judge: Judge) -> str:
    """The first step on which formula and property of a clause differ, or an empty string."""
    for one in nearby():
        for clause, formula, prop in verdicts(judge, one):
            if formula != prop:
                return f"{clause}: the formula says {formula}, the property {prop}, of {one.transition}"
    return ""
