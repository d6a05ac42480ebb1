"""Steps that are right, and all that differ from one of them in one thing: where each clause draws its line.

A broken model makes some mistakes only. Here the state after each step of the correct model is changed in one place at
a time: a client stands elsewhere, an entry has another holder, queue or count, or the caller is told something else.
On all these, formula and property of each clause must agree, so neither can lose a conjunct that the other has. No
property has what KM-LIVE's rank and the ghost say of a step: here it is once more, of states instead of relations.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple, get_args

from kmutex_model.actions import CORRECT, Action, Model
from kmutex_model.broken import BROKEN
from kmutex_model.explore import explore
from kmutex_model.proof import clauses
from kmutex_model.proof.clauses import StepClause
from kmutex_model.proof.logic import TRUE, Term, every, implies, some
from kmutex_model.proof.relations import SIGNATURE, explicit
from kmutex_model.proof.tie import Judge, values_of
from kmutex_model.properties import Property, Transition, make_transition
from kmutex_model.state import IDLE, Client, Config, Entry, Phase, State, owners, record_order, with_client, with_entry
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
    wide = Config(3, 2, "keep")
    several = [state for state in explore(CORRECT, wide).graph if state.order[0] and owners(state, 1)]
    yield from ((CORRECT, wide, state) for state in several if state.clients[0].phase == "waiting")
    for broken in BROKEN:
        small = Config(2, 1, broken.config.race)
        found = explore(broken.model, small, properties=broken.judged_by, max_states=500).graph
        yield from ((broken.model, small, state) for state in found if explicit(small, state))


def _steps() -> Iterator[Transition]:
    for model, config, before in _starts():
        for action in model.enabled(config, before):
            right = model.step(config, before, action)
            asked = [order[::-1] for order in right.state.order]
            others = (
                *(record_order(before, other) for other in changed(config, right.state)),
                right.state._replace(order=tuple(asked)),
            )
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


# ------------------------------------------------------------------------------------------------------------
# The rank of KM-LIVE


def _before_it(state: State, w: int, j: int) -> set[int]:
    order = state.order[j]
    return set(order[: order.index(w)]) if w in order else set()


def _at(state: State, j: int, *phases: Phase) -> set[int]:
    return {number for number, client in enumerate(state.clients) if client.key == j and client.phase in phases}


def _falls(t: Transition, w: int, j: int) -> bool:
    return w not in _at(t.after, j, "waiting") or bool(_before_it(t.before, w, j) - _before_it(t.after, w, j))


def _never_rises(t: Transition, w: int, j: int) -> bool:
    return w not in _at(t.after, j, "waiting") or _before_it(t.after, w, j) <= _before_it(t.before, w, j)


def _owner_stays(t: Transition, w: int, j: int) -> bool:
    own = ("granted", "holding"), ("holding",)
    return _falls(t, w, j) or all(_at(t.before, j, *phases) <= _at(t.after, j, *phases) for phases in own)


def _fair_step_lowers(t: Transition, w: int, j: int) -> bool:
    if t.action.name == "wake" and t.key == j:
        return t.action.client in _at(t.after, j, "holding")
    return t.action.name != "release" or t.key != j or _falls(t, w, j)


_OF_RANK: dict[str, Callable[[Transition, int, int], bool]] = {
    "the rank never rises": _never_rises,
    "the owner stays": _owner_stays,
    "a fair step lowers it": _fair_step_lowers,
}


LATER = " for a later one"
"""Of waiters that are not the oldest: what holds for all may be broken for the oldest, and so not tell more."""


def _for_each_waiter(name: str, later: bool) -> Property:
    def check(t: Transition) -> str:
        places = itertools.product(range(t.config.clients), range(t.config.keys))
        waiting = [(w, j) for w, j in places if w in _at(t.before, j, "waiting")]
        asked = [(w, j) for w, j in waiting if _before_it(t.before, w, j) or not later]
        return "" if all(_OF_RANK[name](t, w, j) for w, j in asked) else name

    return Property(name + LATER * later, "", (), on_step=check)


def _others_stay(t: Transition) -> str:
    moved = [
        c for c, pair in enumerate(zip(t.before.clients, t.after.clients, strict=True)) if pair[0].key != pair[1].key
    ]
    return "" if set(moved) <= {t.action.client} else "somebody else came or went"


def judge_of_rank(home: ModuleType = clauses) -> Judge:
    """Of the formulas that only KM-LIVE and the ghost have. home: where they are."""

    def of_each(of_rank: clauses.OfRank, later: bool) -> StepClause:
        def holds(x: clauses.Taken) -> Term:
            def is_asked(w: Term, j: Term) -> Term:
                return some(lambda a: x.s.order(j, a, w)) if later else TRUE

            return every(lambda w, j: implies(is_asked(w, j), of_rank(x, w, j)))

        return StepClause(lambda x: True, holds)

    ghost = "the ghost"
    formulas = {name + LATER * later: of_each(of, later) for name, of in home.RANK.items() for later in (False, True)}
    formulas[ghost] = StepClause(lambda x: True, home.only_the_actor_comes_or_goes)
    properties = [_for_each_waiter(name, later) for name in _OF_RANK for later in (False, True)]
    return Judge({}, formulas, [*properties, Property(ghost, "", (), on_step=_others_stay)])


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
