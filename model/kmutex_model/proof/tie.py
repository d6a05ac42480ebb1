"""That the proof is about the explorer's model: relations and formulas beside it, on every state up to a bound.

From each state that a model reaches (of a broken one: before anything is wrong) both are asked what can happen. They
must name the same steps, neither more, with the same state after and the same words to the caller; and on each step,
right or wrong, each clause's formula must say what its property says.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from kmutex_model.actions import CORRECT, KEYED, Action, Model, Row
from kmutex_model.explore import explore
from kmutex_model.proof import clauses
from kmutex_model.proof.invariant import PARTS, Part
from kmutex_model.proof.logic import Term, function, python, table
from kmutex_model.proof.relations import NUMBERS, SIGNATURE, explicit, named, numbered
from kmutex_model.proof.steps import ACTOR, KEY, Case, cases_in_race
from kmutex_model.properties import ALL, Property, make_transition
from kmutex_model.state import Client, Config, Entry, Phase, Race, State

BEFORE, AFTER = named(), named("_after")
BOUNDS: tuple[tuple[int, int], ...] = ((3, 2), (4, 1))
RACES: tuple[Race, ...] = ("keep", "pass")
MOST_STATES = 20_000
"""Where an exploration of a broken model ends: a mistake that nobody sees may make its states endless."""

_BEFORE = (*SIGNATURE, *NUMBERS, "Client", "Key")
_AFTER = tuple(f"{name}_after" for name in SIGNATURE)


@dataclass
class Tie:
    """What was compared, and where the two differ."""

    states: int = 0
    steps: int = 0
    verdicts: int = 0
    violations: Counter[str] = field(default_factory=Counter)
    """By clause, the verdicts in which both say that it is violated."""
    unsayable: int = 0
    """States and steps left out: a queue has a client twice, which no relation says."""
    differences: list[str] = field(default_factory=list)


def tie(
    models: Iterable[tuple[Model, Config]],
    *,
    of_state: dict[str, clauses.OfState] | None = None,
    of_step: dict[str, clauses.StepClause] | None = None,
) -> Tie:
    """Compare each model with its own relations. of_state, of_step: the formulas, by default those of `clauses`."""
    found = Tie()
    for model, config in models:
        judge = Judge(of_state or clauses.STATE, of_step or clauses.STEP)
        _compare(model, config, judge, found)
    return found


class _Cases:
    """The cases of a row, ready to be asked in a state."""

    def __init__(self, row: Row, race: Race) -> None:
        self._asked = [self._ready(case) for case in cases_in_race(row, BEFORE, race)]

    @staticmethod
    def _ready(case: Case) -> tuple[Case, Callable[..., Any], Callable[..., Any]]:
        names = (*_BEFORE, str(ACTOR), str(KEY), *map(str, case.witnesses))
        after = ", ".join(f"{name!r}: {table(case.after.get(name), sorts)}" for name, (sorts, _) in SIGNATURE.items())
        return case, function(names, python(case.guard)), function(names, f"{{{after}}}")

    def possible(self, config: Config, values: Sequence[Any], client: int, key: int) -> Iterator[tuple[Case, Any]]:
        """The cases that can be taken by this client at this key, each with the relations after it."""
        for case, guard, after in self._asked:
            ranges = (range(config.clients if w.sort == "Client" else config.keys) for w in case.witnesses)
            for witnesses in itertools.product(*ranges):
                if guard(*values, client, key, *witnesses):
                    yield case, after(*values, client, key, *witnesses)


class Judge:
    """The clauses' formulas beside the properties."""

    def __init__(
        self,
        of_state: dict[str, clauses.OfState] = clauses.STATE,
        of_step: dict[str, clauses.StepClause] = clauses.STEP,
        properties: Sequence[Property] = ALL,
    ) -> None:
        self._of_step = of_step
        self._state = {clause: function(_BEFORE, python(formula(BEFORE))) for clause, formula in of_state.items()}
        self._step: dict[tuple[Any, ...], dict[str, Callable[..., Any]]] = {}
        self._in_state = {p.clause: p.in_state for p in properties if p.in_state}
        self._on_step = {p.clause: p.on_step for p in properties if p.on_step}

    def state(self, config: Config, state: State, values: Sequence[Any]) -> Iterator[tuple[str, bool, str]]:
        """For each clause of a state what its formula says, and what its property does."""
        for clause, formula in self._state.items():
            yield clause, formula(*values), self._in_state[clause](config, state)

    def step(
        self, transition: Any, phase: Phase, values: Sequence[Any], after: Sequence[Any]
    ) -> Iterator[tuple[str, bool, str]]:
        """The same for each clause of a step."""
        action, race = transition.action.name, transition.config.race
        kind = (race, action, phase, transition.outcome)
        if kind not in self._step:
            x = clauses.Taken(race, BEFORE, action, phase, ACTOR, KEY, transition.outcome, AFTER)
            names = (*_BEFORE, *_AFTER, str(ACTOR), str(KEY))
            self._step[kind] = {c: function(names, python(clause.formula(x))) for c, clause in self._of_step.items()}
        for clause, formula in self._step[kind].items():
            says = formula(*values, *after, transition.action.client, transition.key)
            yield clause, says, self._on_step[clause](transition)


# ------------------------------------------------------------------------------------------------------------
# The comparison


def values_of(config: Config, relations: dict[str, Any]) -> list[Any]:
    known = {**relations, **numbered(config), "Client": range(config.clients), "Key": range(config.keys)}
    return [known[name] for name in _BEFORE]


def _compare(model: Model, config: Config, judge: Judge, found: Tie) -> None:
    rows = [(row, _cases(row, config.race)) for row in model.table]
    for state in explore(model, config, max_states=None if model is CORRECT else MOST_STATES).graph:
        relations = explicit(config, state)
        if relations is None:
            found.unsayable += 1
            continue
        found.states += 1
        where = f"{model.name}, {config}, {state}"
        values = values_of(config, relations)
        _agree(judge.state(config, state, values), found, where)
        possible = _possible(rows, config, values, found, where)
        actions = {_place(state, action): action for action in model.enabled(config, state)}
        if possible.keys() != actions.keys():
            found.differences.append(f"{where}: only one of the two can do {sorted(possible.keys() ^ actions.keys())}")
            continue
        for place, action in actions.items():
            found.steps += 1
            after, outcome = model.step(config, state, action)
            after_relations = explicit(config, after)
            if after_relations is None:
                found.unsayable += 1
                continue
            case, said = possible[place]
            unlike = [name for name in SIGNATURE if said[name] != after_relations[name]]
            if unlike == ["there"] and _others_came(state, after, place[2]):
                # The ghost looks at the actor only; the obligation about that fails for such a model.
                unlike = []
            if unlike or case.outcome != outcome:
                found.differences.append(f"{where}, {action}: {unlike or [case.outcome, outcome]} ({case.name})")
                continue
            t = make_transition(config, state, action, outcome, after)
            here = f"{where}, {action}"
            after_values = [after_relations[name] for name in SIGNATURE]
            _agree(judge.step(t, place[1], values, after_values), found, here)
            _agree(judge.state(config, after, values_of(config, after_relations)), found, here)


@cache
def _cases(row: Row, race: Race) -> _Cases:
    return _Cases(row, race)


Place: TypeAlias = tuple[str, Phase, int, int]
"""An action, the phase of its client, its client, and its key."""


def _place(state: State, action: Action) -> Place:
    assert action.client is not None
    client = state.clients[action.client]
    key = action.key if action.name in KEYED else client.key
    assert key is not None
    return action.name, client.phase, action.client, key


def _possible(
    rows: Sequence[tuple[Row, _Cases]], config: Config, values: Sequence[Any], found: Tie, where: str
) -> dict[Place, tuple[Case, Any]]:
    """What the relations say can happen. Of one action by one client at one key there must be one way only."""
    ways: dict[Place, tuple[Case, Any]] = {}
    for row, cases in rows:
        for client, key in itertools.product(range(config.clients), range(config.keys)):
            place = (row.action, row.phase, client, key)
            for case, after in cases.possible(config, values, client, key):
                if place in ways and (ways[place][0].outcome, ways[place][1]) != (case.outcome, after):
                    found.differences.append(f"{where}: two ways for {place}")
                ways[place] = case, after
    return ways


def _others_came(state: State, after: State, actor: int) -> bool:
    pairs = enumerate(zip(state.clients, after.clients, strict=True))
    return any(was.key != now.key for client, (was, now) in pairs if client != actor)


def _agree(said: Iterator[tuple[str, bool, str]], found: Tie, where: str) -> None:
    for clause, holds, message in said:
        found.verdicts += 1
        found.violations[clause] += bool(message)
        if holds != (message == ""):
            found.differences.append(f"{where}: {clause}: the formula says {holds}, the property {message!r}")


# ------------------------------------------------------------------------------------------------------------
# The invariant beside what is reached


def allowed(config: Config, parts: Sequence[Part] = PARTS) -> set[State]:
    """Every state with so many clients and keys that satisfies the invariant, whether a run leads there or not.

    Tried are all places of the clients, all orders of those that wait, and for each key no entry or one with any
    holder, any queue and any count.
    """
    holds = function(_BEFORE, " and ".join(python(part.holds(BEFORE)) for part in parts))
    every_client, every_key = range(config.clients), range(config.keys)
    places = [Client("idle", None)]
    places += [Client(phase, key) for phase in ("waiting", "granted", "holding") for key in every_key]
    queues = [q for size in range(config.clients + 1) for q in itertools.permutations(every_client, size)]
    entries = [None, *(Entry(h, q, n) for h in (-1, *every_client) for q in queues for n in range(config.clients + 1))]

    @cache
    def fitting(key: int, here: tuple[Client, ...], line: tuple[int, ...]) -> list[Entry | None]:
        # Each part but "one place", which any clients here satisfy, speaks of one key at a time. So an entry that is
        # wrong while nobody is elsewhere is wrong whoever is.
        lines = tuple(line if k == key else () for k in every_key)
        tables = [(tuple(entry if k == key else None for k in every_key), entry) for entry in entries]
        return [
            entry for table, entry in tables if holds(*values_of(config, _explicit(config, State(table, here, lines))))
        ]

    found = set()
    for clients in itertools.product(places, repeat=config.clients):
        waiting = [[c for c in every_client if clients[c] == ("waiting", key)] for key in every_key]
        for order in itertools.product(*(itertools.permutations(who) for who in waiting)):
            at = [tuple(c if c.key == key else Client("idle", None) for c in clients) for key in every_key]
            tables = itertools.product(*(fitting(key, at[key], order[key]) for key in every_key))
            found |= {State(table, clients, order) for table in tables}
    return {state for state in found if holds(*values_of(config, _explicit(config, state)))}


def _explicit(config: Config, state: State) -> dict[str, Any]:
    relations = explicit(config, state)
    assert relations is not None
    return relations


def state_of(config: Config, relations: dict[str, Any]) -> State:
    """The state of the explorer that looks so. ValueError: none does."""

    def in_line(members: Sequence[bool], ahead: Sequence[Sequence[bool]]) -> tuple[int, ...]:
        line = [client for client, member in enumerate(members) if member]
        return tuple(sorted(line, key=lambda c: sum(row[c] for row in ahead)))

    clients = []
    for c in range(config.clients):
        at = [Client(p, k) for p in ("waiting", "granted", "holding") for k in range(config.keys) if relations[p][c][k]]
        clients.append(at[0] if at else Client("idle", None))
    entries: list[Entry | None] = []
    for k in range(config.keys):
        holders = [c for c in range(config.clients) if relations["holder"][k][c]]
        queue = in_line(relations["queued"][k], relations["ahead"][k])
        entry = Entry(holders[0] if holders else -1, queue, relations["refs"][k])
        entries.append(entry if relations["present"][k] else None)
    waits = [[relations["waiting"][c][k] for c in range(config.clients)] for k in range(config.keys)]
    order = tuple(in_line(waits[k], relations["order"][k]) for k in range(config.keys))
    state = State(tuple(entries), tuple(clients), order)
    seen = explicit(config, state)
    if seen is None or any(seen[name] != relations[name] for name in SIGNATURE if name != "refs"):
        raise ValueError("no state of the explorer looks so")
    return state


def formula_of_step(
    formula: Callable[[clauses.Taken], Term], case: Case, extra: Sequence[Term] = ()
) -> Callable[..., Any]:
    """A formula about a taken case as a function of the relations before, those after, the actor, the key and more."""
    x = clauses.Taken(case.race, BEFORE, case.row.action, case.row.phase, ACTOR, KEY, case.outcome, AFTER)
    return function((*_BEFORE, *_AFTER, str(ACTOR), str(KEY), *map(str, extra)), python(formula(x)))


def values_of_step(config: Config, before: State, after: State) -> list[Any]:
    """The relations before and after, as `formula_of_step` wants them."""
    later = _explicit(config, after)
    return [*values_of(config, _explicit(config, before)), *(later[name] for name in SIGNATURE)]
