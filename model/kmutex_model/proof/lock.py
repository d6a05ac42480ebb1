"""A lock with a state of its own: the form for locks that the words of `kmutex_model.turn` can't say.

Such a lock names its relations and its moves. A move says when it can be taken and what each relation is after it, as
terms. Two readers take the same terms: a solver, for any number of clients and keys, and `explored`, which plays the
moves on states of a few. A counterexample of the solver is played too (`replayed`), before it is believed.

Two ghosts are kept for every lock, from what the clients do and never from its table: `order(k, a, b)`, that a came to
the line of k before b and both are in it; and the numbers in `counts`, that say for how many clients something is so.
"""

from __future__ import annotations

import inspect
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from kmutex_model.actions import Action, format_schedule
from kmutex_model.explore import Graph, find_lasso
from kmutex_model.proof.invariant import line_is_total, line_is_transitive, line_of_the_queued
from kmutex_model.proof.logic import (
    FALSE,
    TRUE,
    Sort,
    Term,
    applied,
    both,
    choose,
    either,
    every,
    function,
    implies,
    no,
    number,
    python,
    same,
    some,
    some_place,
    sort_of,
    table,
    variable,
)
from kmutex_model.proof.obligations import GHOST, INVARIANT, LIVE, Obligation
from kmutex_model.proof.relations import Vocabulary
from kmutex_model.proof.solvers import Question, Solver, Structure
from kmutex_model.properties import Eventually

Signature: TypeAlias = Mapping[str, tuple[tuple[Sort, ...], Sort]]
Relation: TypeAlias = Callable[..., Term]
Values: TypeAlias = tuple[Any, ...]
"""A state of a few clients and keys: each relation as nested tuples, in the order of `Lock.moving`."""

WAITER, WAITER_KEY = variable("waiter", "Client"), variable("j_waiter", "Key")
ACTOR, AT = variable("c", "Client"), variable("k", "Key")
FINITE = ((1, 1), (2, 1), (3, 1), (4, 1), (2, 2), (3, 2))
"""Clients and keys for which it is asked whether those exist who are taken for granted."""


class LockError(Exception):
    """The lock is not described well. One line."""


class View:
    """A state: each relation under its name, as a function of terms."""

    def __init__(self, relations: Mapping[str, Relation]) -> None:
        self.relations = dict(relations)

    def __getattr__(self, name: str) -> Relation:
        if name == "relations" or name not in self.relations:
            raise AttributeError(f"the state has no {name!r}; it has {', '.join(self.__dict__.get('relations', ()))}")
        return self.relations[name]


# ------------------------------------------------------------------------------------------------------------
# Words for what a move changes


def plus(relation: Relation, *place: Term) -> Relation:
    """The relation, and so for these as well."""
    return lambda *args: relation(*args) | both(*map(same, args, place))


def minus(relation: Relation, *place: Term) -> Relation:
    """The relation, and not so for these."""
    return lambda *args: relation(*args) & ~both(*map(same, args, place))


def more(numbers: Relation, by: int, *place: Term) -> Relation:
    """The numbers, and more by so much for these."""
    return lambda *args: choose(both(*map(same, args, place)), numbers(*args) + by, numbers(*args))


def joined(s: View, k: Term, c: Term) -> dict[str, Relation]:
    """The client is last in the queue of the key."""
    return {
        "queued": plus(s.queued, k, c),
        "ahead": lambda j, a, b: s.ahead(j, a, b) | both(same(j, k), s.queued(j, a), same(b, c)),
    }


def left(s: View, k: Term, gone: Callable[[Term], Term]) -> dict[str, Relation]:
    """Those of whom `gone` is so are out of the queue of the key, and the others keep their places."""
    return {
        "queued": lambda j, c: s.queued(j, c) & ~(same(j, k) & gone(c)),
        "ahead": lambda j, a, b: s.ahead(j, a, b) & ~(same(j, k) & (gone(a) | gone(b))),
    }


def is_oldest(s: View, k: Term, c: Term) -> Term:
    """The client is first in the queue of the key."""
    return s.queued(k, c) & every(lambda d: ~s.queued(k, d) | same(d, c) | s.ahead(k, c, d))


# ------------------------------------------------------------------------------------------------------------
# The form


class Move(NamedTuple):
    """Something that client `c` can do.

    name, outcome  what is called, and what the caller is told
    needs          when it can be taken: (state, c, ...) -> Term. The letters of the other names say what they are: `k`
                   a key, others clients that the move is about, of whom `needs` must leave no choice
    then           (state, and the same) -> the new value of each relation that changes
    case           what tells it from other moves of that name
    keyed          whether the caller names the key, as in request(0,1)
    """

    name: str
    outcome: str
    needs: Callable[..., Term]
    then: Callable[..., Mapping[str, Relation]]
    case: str = ""
    keyed: bool = False

    @property
    def params(self) -> tuple[Term, ...]:
        """Who and what it is about."""
        _, *names = inspect.signature(self.needs).parameters
        return tuple(variable(name, sort_of(name)) for name in names)

    def __str__(self) -> str:
        return self.name + (f" ({self.case})" if self.case else "")


class Step(NamedTuple):
    """A move that was taken: the state before it, and after it."""

    lock: Lock
    s: View
    move: Move
    t: View

    @property
    def c(self) -> Term:
        """Who took it."""
        return ACTOR

    @property
    def k(self) -> Term:
        """At which key."""
        return AT


class Part(NamedTuple):
    """One conjunct of the invariant."""

    name: str
    holds: Callable[[View], Term]


class Claim(NamedTuple):
    """A clause, and how this lock reads it. on_step: TRUE of what it does not speak of."""

    clause: str
    statement: str
    in_state: Callable[[View], Term] | None = None
    on_step: Callable[[Step], Term] | None = None


class Live(NamedTuple):
    """KM-LIVE, by a rank: sets of clients, the first of which counts most. They shrink and never grow while one waits.

    waits   (state, client, key): whether it waits for the key
    levels  each (state, client, key, another) -> whether the other is in the set
    fair    the moves that are taken in the end where they can be
    helps   (step, client, key): whether this step, being fair, must shrink a set
    given   (state, client, key, ...): clients of whom this is so exist, since there are finitely many; the names of the
            others are those that fair moves have, and of those clients one such move can be taken
    toward  moves that may have to come before a fair one. That they are finitely many in a row is assumed
    """

    statement: str
    waits: Callable[[View, Term, Term], Term]
    levels: tuple[Callable[[View, Term, Term, Term], Term], ...]
    fair: tuple[str, ...]
    helps: Callable[[Step, Term, Term], Term]
    given: Callable[..., Term]
    toward: tuple[str, ...] = ()


class Lock(NamedTuple):
    """A lock, what it promises, and why.

    relations  its state; all are false, or 0, at first
    moves      what can happen
    parts      its invariant
    claims     what it promises, and `live`
    absent     clauses that it has not, each with the reason
    line       the relation (client, key) whose arrivals the ghost `order` records
    counts     ghosts that count for how many clients something is so: (state, client, key) -> Term
    rigid      what no move changes, with the values that are tried where all are tried
    facts      what is known of those
    inputs     what a caller chooses with a call: relations that a move may read
    small      which states are followed where the lock is played, if there are endlessly many
    """

    relations: Signature
    moves: tuple[Move, ...]
    parts: tuple[Part, ...]
    claims: tuple[Claim, ...]
    live: Live | None = None
    absent: Mapping[str, str] = {}
    line: str = "waiting"
    counts: Mapping[str, Callable[[View, Term, Term], Term]] = {}
    rigid: Mapping[str, tuple[tuple[Sort, ...], tuple[int, ...]]] = {}
    facts: Callable[[View], Term] = lambda s: TRUE
    inputs: Signature = {}  # noqa: RUF012
    small: Callable[[View], Term] = lambda s: TRUE

    def replacing(self, *moves: Move) -> Lock:
        """Return the lock with these moves in place of those with their names and cases; LockError without any."""
        table_ = {str(move): move for move in self.moves}
        for move in moves:
            if str(move) not in table_:
                raise LockError(f"there is no move {str(move)!r} to replace")
            table_[str(move)] = move
        return self._replace(moves=tuple(table_.values()))

    @property
    def moving(self) -> dict[str, tuple[tuple[Sort, ...], Sort]]:
        """What makes up a state."""
        counts: dict[str, tuple[tuple[Sort, ...], Sort]] = dict.fromkeys(self.counts, (("Key",), "Int"))
        return {**self.relations, "order": (("Key", "Client", "Client"), "Bool"), **counts}

    @property
    def all_relations(self) -> dict[str, tuple[tuple[Sort, ...], Sort]]:
        """What a solver is told of."""
        rigid: dict[str, tuple[tuple[Sort, ...], Sort]] = {
            name: (sorts, "Int") for name, (sorts, _) in self.rigid.items()
        }
        return {**self.moving, **rigid, **self.inputs}

    def state(self, suffix: str = "") -> View:
        """A state of which nothing is known. suffix: of the names of what moves."""

        def relation(name: str, sort: Sort) -> Relation:
            return lambda *args: applied(name + (suffix if name in self.moving else ""), sort, *args)

        return View({name: relation(name, sort) for name, (_, sort) in self.all_relations.items()})

    def at_first(self) -> View:
        """Nobody has done anything."""
        zero: dict[Sort, Term] = {"Bool": FALSE, "Int": number(0)}
        nothing = {name: (lambda *args, sort=sort: zero[sort]) for name, (_, sort) in self.moving.items()}
        return View({**self.state().relations, **nothing})

    def after(self, s: View, move: Move) -> View:
        """The state after the move, with the ghosts brought up to date."""
        changes = move.then(s, *move.params)
        if odd := set(changes) - set(self.relations):
            raise LockError(f"{move} changes {min(odd)!r}, which is no relation of the lock")
        t = View({**s.relations, **changes})
        was, now = getattr(s, self.line), getattr(t, self.line)

        def order(k: Term, a: Term, b: Term) -> Term:
            return both(now(a, k), now(b, k), was(a, k), s.order(k, a, b) | ~was(b, k))

        ghosts: dict[str, Relation] = {"order": order}
        named = [param for param in move.params if param.sort == "Client"]
        for name, counted in self.counts.items():
            ghosts[name] = _counted(s, t, name, counted, named)
        return View({**t.relations, **ghosts})


def _counted(
    s: View, t: View, name: str, counted: Callable[[View, Term, Term], Term], named: Sequence[Term]
) -> Relation:
    def count(k: Term) -> Term:
        total: Term = getattr(s, name)(k)
        for place, who in enumerate(named):
            was, now = counted(s, who, k), counted(t, who, k)
            change = choose(now & ~was, number(1), choose(was & ~now, number(-1), number(0)))
            again = either(*(same(who, other) for other in named[:place]))
            total = total + choose(again, number(0), change)
        return total

    return count


LINE = (
    Part("a line: of the queued", line_of_the_queued),  # type: ignore[arg-type]
    Part("a line: transitive", line_is_transitive),  # type: ignore[arg-type]
    Part("a line: total", line_is_total),  # type: ignore[arg-type]
)
"""That each queue is one: the same parts as the contract's."""


# ------------------------------------------------------------------------------------------------------------
# Obligations


class Asked(NamedTuple):
    """An obligation, the move that it is about, and the claim, if it is of one."""

    obligation: Obligation
    move: Move | None = None
    claim: Claim | None = None


def obligations(lock: Lock) -> Iterator[Asked]:
    """Everything that has to be shown of the lock."""
    s, empty = lock.state(), lock.at_first()
    facts = ("facts", both(lock.facts(s), _counting(lock, s)))
    vocabulary = _vocabulary(lock)
    inv = (facts, *((part.name, part.holds(s)) for part in lock.parts))

    def show(clause: str, what: str, known: Sequence[tuple[str, Term]], goal: Term, *who: Term) -> Obligation:
        return Obligation(clause, what, None, who, tuple(known), goal, vocabulary)

    for part in lock.parts:
        yield Asked(show(INVARIANT, f"{part.name}, at first", [facts], part.holds(empty)))
    for claim in lock.claims:
        if claim.in_state:
            yield Asked(show(claim.clause, "at first", [facts], claim.in_state(empty)), None, claim)
            yield Asked(show(claim.clause, "in every state", inv, claim.in_state(s)), None, claim)
    for move in lock.moves:
        t, who = lock.after(s, move), move.params
        taken = (*inv, ("the step", move.needs(s, *who)))
        # What counts before the step counts after it, since nobody else comes or goes: that is asked first.
        known = (*taken, ("counting", _counting(lock, t)))
        step = Step(lock, s, move, t)
        for part in lock.parts:
            yield Asked(show(INVARIANT, f"{part.name}, kept: {move}", known, part.holds(t), *who), move)
        for name, counted in lock.counts.items():
            yield Asked(show(GHOST, f"{name}: {move}", taken, _only_named(s, t, counted, who), *who), move)
        for claim in lock.claims:
            if claim.in_state:
                goal = claim.in_state(t)
                yield Asked(show(claim.clause, f"after the step: {move}", known, goal, *who), move, claim)
            if claim.on_step and (goal := claim.on_step(step)) != TRUE:
                yield Asked(show(claim.clause, f"on the step: {move}", known, goal, *who), move, claim)
        if lock.live:
            for what, goal in _of_rank(lock.live, step):
                if goal != TRUE:
                    yield Asked(show(LIVE, f"{what}: {move}", known, goal, *who, WAITER, WAITER_KEY), move)
    if lock.live:
        yield Asked(_fair_step(lock, lock.live, show, inv))


def _fair_step(lock: Lock, live: Live, show: Callable[..., Obligation], inv: Sequence[tuple[str, Term]]) -> Obligation:
    """While a client waits, some fair move can be taken, by those who are `given`."""
    s = lock.state()
    fair = [move for move in lock.moves if move.name in (*live.fair, *live.toward)]
    who = tuple(dict.fromkeys((*_given(live), *(param for move in fair for param in move.params))))
    known = (*inv, ("somebody waits", live.waits(s, *_given(live)[:2])), ("given", live.given(s, *_given(live))))
    return show(LIVE, "a fair step can be taken", known, either(*(move.needs(s, *move.params) for move in fair)), *who)


def _given(live: Live) -> tuple[Term, ...]:
    """The waiter, the key it waits for, and those who are given."""
    _, _, _, *others = inspect.signature(live.given).parameters
    return (WAITER, AT, *(variable(name, sort_of(name)) for name in others))


def given_of_finite(lock: Lock, by: Solver) -> list[str]:
    """What is wrong with what KM-LIVE takes as given: that a client waits, and there are none who are as said.

    True of finitely many clients only, so it is asked for some numbers of them, and taken for granted beyond.
    """
    if lock.live is None:
        return []
    s, live = lock.state(), lock.live
    waiter, key, *others = _given(live)
    known = [("facts", lock.facts(s)), *((part.name, part.holds(s)) for part in lock.parts)]
    known.append(("somebody waits", live.waits(s, waiter, key)))
    goal = some_place([one.sort for one in others], lambda *who: live.given(s, waiter, key, *who))
    faults = []
    for clients, keys in FINITE:
        question = Question((waiter, key), (*known, ("there are none", no(goal))), _vocabulary(lock)).within(
            clients, keys
        )
        if (said := by.ask(question).verdict) != "unsat":
            faults.append(f"{clients} clients, {keys} keys: that those exist who KM-LIVE takes as given: {said}")
    return faults


def _vocabulary(lock: Lock) -> Vocabulary:
    s = lock.state()

    def at(name: str) -> Callable[[Term, Term], Term]:
        return lambda c, k: lock.counts[name](s, c, k)

    return Vocabulary(lock.all_relations, {name: at(name) for name in lock.counts}, {})


def _only_named(s: View, t: View, counted: Callable[[View, Term, Term], Term], who: Sequence[Term]) -> Term:
    """Of nobody but those whom the move is about does it change whether they are counted."""

    def alike(d: Term, j: Term) -> Term:
        return either(*(same(d, one) for one in who if one.sort == "Client"), same(counted(s, d, j), counted(t, d, j)))

    return every(alike)


def _of_rank(live: Live, step: Step) -> Iterator[tuple[str, Term]]:
    """The rank never rises, and falls by a fair step that helps."""
    s, t = step.s, step.t

    def loses(of: Callable[[View, Term, Term, Term], Term], one: View, other: View) -> Term:
        """Whether somebody is in the set in the one state, and not in the other."""
        return some(lambda a: of(one, WAITER, WAITER_KEY, a) & ~of(other, WAITER, WAITER_KEY, a))

    waits = live.waits(s, WAITER, WAITER_KEY) & live.waits(t, WAITER, WAITER_KEY)
    fell: list[Term] = []
    for place, of in enumerate(live.levels):
        yield f"set {place + 1} of the rank never grows", either(no(waits), *fell, no(loses(of, t, s)))
        fell.append(loses(of, s, t))
    if step.move.name in live.fair:
        helps = live.helps(step, WAITER, WAITER_KEY)
        yield "a fair step lowers the rank", either(no(waits & helps), *fell)


def _counting(lock: Lock, s: View) -> Term:
    """What a solver can't know, since it can't count: without clients a count is zero, else at least one."""

    def of_one(count: Relation, counted: Callable[[View, Term, Term], Term]) -> Term:
        return both(
            every(lambda k: count(k).at_least(0)),
            every(lambda k, c: implies(counted(s, c, k), count(k).at_least(1))),
            every(lambda k: implies(every(lambda c: ~counted(s, c, k)), same(count(k), number(0)))),
        )

    return both(*(of_one(getattr(s, name), counted) for name, counted in lock.counts.items()))


# ------------------------------------------------------------------------------------------------------------
# Played on a few clients and keys


class Size(NamedTuple):
    """How many clients and keys, and what is rigid there, by name."""

    clients: int
    keys: int
    rigid: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return f"{self.clients}x{self.keys}" + "".join(f" {', '.join(map(str, value))}" for value in self.rigid)


class Taken(NamedTuple):
    """A move that was played: who took it and what it is about, what was chosen, and the state after it."""

    move: Move
    who: tuple[int, ...]
    inputs: tuple[Any, ...]
    after: Values


class Found(NamedTuple):
    """A run that breaks a clause."""

    clause: str
    said: str
    run: str


class Played(NamedTuple):
    """What was found by playing all states of a few clients and keys.

    broken  by clause, a shortest run that breaks it
    never   the moves that were never taken
    """

    broken: dict[str, Found]
    never: tuple[str, ...]


class Explicit:
    """A lock on states of a few clients and keys: its terms as Python functions."""

    def __init__(self, lock: Lock) -> None:
        self.lock = lock
        self._names = (*lock.moving, *lock.rigid, *lock.inputs, "Client", "Key")
        self._later = tuple(f"{name}_later" for name in lock.moving)
        self._moves = [(move, *self._compiled(move)) for move in lock.moves]
        s, t = lock.state(), lock.state("_later")
        self._small = function(self._names, python(lock.small(s)))
        self._of_state = [(one, function(self._names, python(one.in_state(s)))) for one in lock.claims if one.in_state]
        self._of_step = {
            (str(move), one.clause): function(self._after_names(move), python(one.on_step(Step(lock, s, move, t))))
            for move in lock.moves
            for one in lock.claims
            if one.on_step
        }
        if lock.live:
            self._waits = function((*self._names, str(WAITER), str(AT)), python(lock.live.waits(s, WAITER, AT)))

    def _after_names(self, move: Move) -> tuple[str, ...]:
        return (*self._names, *self._later, *map(str, move.params))

    def _compiled(self, move: Move) -> tuple[Callable[..., Any], Callable[..., Any], bool]:
        s = self.lock.state()
        names, t = (*self._names, *map(str, move.params)), self.lock.after(s, move)
        guard = python(move.needs(s, *move.params))
        later = f"[{', '.join(table(getattr(t, name), sorts) for name, (sorts, _) in self.lock.moving.items())}]"
        reads = any(f"{name}[" in text for text in (guard, later) for name in self.lock.inputs)
        return function(names, guard), function(names, later), reads

    def at_first(self, size: Size) -> Values:
        """Nobody has done anything."""
        return tuple(
            self._table(sorts, size, 0 if sort == "Int" else False) for sorts, sort in self.lock.moving.values()
        )

    @staticmethod
    def _table(sorts: Sequence[Sort], size: Size, value: Any) -> Any:
        for sort in reversed(sorts):
            value = (value,) * (size.clients if sort == "Client" else size.keys)
        return value

    def values(self, size: Size, state: Values, inputs: Sequence[Any] = ()) -> list[Any]:
        """What the functions are given."""
        given = inputs or [self._table(sorts, size, False) for sorts, _ in self.lock.inputs.values()]
        return [*state, *size.rigid, *given, range(size.clients), range(size.keys)]

    def steps(self, size: Size, state: Values) -> dict[Action, Taken]:
        """What can be done. LockError: one action has two ways."""
        found: dict[Action, Taken] = {}
        for move, guard, after, reads in self._moves:
            choices: Iterable[tuple[Any, ...]] = self._inputs(size) if reads else [()]
            for inputs in choices:
                values = self.values(size, state, inputs)
                ranges = (range(size.clients if one.sort == "Client" else size.keys) for one in move.params)
                for who in itertools.product(*ranges):
                    if guard(*values, *who):
                        action, taken = (
                            self._action(move, who, inputs),
                            Taken(move, who, inputs, frozen(after(*values, *who))),
                        )
                        other = found.setdefault(action, taken)
                        if (other.after, other.move.outcome) != (taken.after, move.outcome):
                            raise LockError(f"{action} can go two ways: {other.move}, and {move}")
        return found

    def _inputs(self, size: Size) -> Iterator[tuple[Any, ...]]:
        # What is chosen is a set of keys.
        return itertools.product(*(itertools.product((False, True), repeat=size.keys) for _ in self.lock.inputs))

    @staticmethod
    def _action(move: Move, who: Sequence[int], inputs: Sequence[Any]) -> Action:
        named = dict(zip(map(str, move.params), who, strict=True))
        chosen = "".join(str([key for key, one in enumerate(chosen) if one]) for chosen in inputs)
        return Action(move.name + chosen, named["c"], named["k"] if move.keyed else None)

    def broken_by(self, size: Size, state: Values, taken: Taken) -> list[str]:
        """The clauses that a step breaks, or the state after it."""
        values = [*self.values(size, state, taken.inputs), *taken.after, *taken.who]
        of_step = (one.clause for one in self.lock.claims if one.on_step)
        broken = [clause for clause in of_step if not self._of_step[str(taken.move), clause](*values)]
        return list(dict.fromkeys([*broken, *self.broken_in(size, taken.after)]))

    def broken_in(self, size: Size, state: Values) -> list[str]:
        """The clauses of a state that are broken in this one."""
        values = self.values(size, state)
        return [claim.clause for claim, holds in self._of_state if not holds(*values)]

    def small(self, size: Size, state: Values) -> bool:
        """Whether the state is followed."""
        return bool(self._small(*self.values(size, state)))

    def waits(self, size: Size, state: Values, client: int) -> bool:
        """Whether the client waits for some key."""
        values = self.values(size, state)
        return any(self._waits(*values, client, key) for key in range(size.keys))


def frozen(value: Any) -> Any:
    """Nested lists as tuples."""
    return tuple(map(frozen, value)) if isinstance(value, list) else value


SIZES = ((2, 1), (3, 1), (2, 2))
MOST_STATES = 5_000


def explored(lock: Lock, sizes: Sequence[tuple[int, int]] = SIZES, most: int = MOST_STATES) -> Played:
    """Play all states with so many clients and keys, up to so many states of each size."""
    found: dict[str, Found] = {}
    played, taken = Explicit(lock), set[str]()
    fair = (*lock.live.fair, *lock.live.toward) if lock.live else ()
    for size in (size for clients, keys in sizes for size in _rigid(lock, clients, keys)):
        graph, broken = _reached(played, size, most, taken)
        for clause, path in broken.items():
            found.setdefault(clause, Found(clause, _statement(lock, clause), f"{size}: {format_schedule(path)}"))
        if lock.live and LIVE not in found and len(graph) < most:
            goal = Eventually(lambda state, client, size=size: played.waits(size, state, client), fair)  # type: ignore[misc]
            if lasso := find_lasso(size, _without(graph, lock.live.toward), LIVE, goal):
                ends = format_schedule(lasso.cycle or ()) or "nothing"
                run = f"{size}: {format_schedule(lasso.path)}; and forever: {ends}"
                found[LIVE] = Found(LIVE, lasso.message, run)
    return Played(found, tuple(str(move) for move in lock.moves if str(move) not in taken))


def _without(graph: Graph, names: Sequence[str]) -> Graph:
    """The graph in which no run without end has such a move: each leads out of it, and is still seen to be possible.
    That there are finitely many in a row is assumed of them."""
    out: Any = "elsewhere"
    edges = {
        state: tuple((action, out if action.name in names else after) for action, after in of)
        for state, of in graph.edges.items()
    }
    return Graph(graph.initial, graph.parents, edges, graph.depths)


def _rigid(lock: Lock, clients: int, keys: int) -> Iterator[Size]:
    tables = [itertools.product(values, repeat=keys) for _, values in lock.rigid.values()]
    return (Size(clients, keys, rigid) for rigid in itertools.product(*tables))


def _statement(lock: Lock, clause: str) -> str:
    return next(f"not so: {one.statement}" for one in lock.claims if one.clause == clause)


def _reached(played: Explicit, size: Size, most: int, names: set[str]) -> tuple[Graph, dict[str, tuple[Action, ...]]]:
    """All states that are reached, up to so many, and for each clause the first run that breaks it. The moves that were
    taken are added to the names."""
    start = played.at_first(size)
    graph: Graph = Graph(start, {}, {}, {start: 0})  # type: ignore[arg-type, dict-item]
    reached: Any = graph.depths
    broken: dict[str, tuple[Action, ...]] = dict.fromkeys(played.broken_in(size, start), ())
    todo = deque([start])
    while todo:
        state: Any = todo.popleft()
        edges = []
        for action, taken in played.steps(size, state).items():
            names.add(str(taken.move))
            for clause in played.broken_by(size, state, taken):
                if clause not in broken:
                    broken[clause] = graph.path(state, action)
            after: Any = taken.after
            if after not in reached and len(reached) < most and played.small(size, after):
                reached[after] = reached[state] + 1
                graph.parents[after] = (state, action, None)
                todo.append(after)
            if after in reached:
                edges.append((action, after))
        graph.edges[state] = tuple(edges)
    return graph, broken


def replayed(lock: Lock, asked: Asked, found: Structure) -> str:
    """Replay a counterexample to a claim: take its step from its state, and check that the clause is broken. Return why
    it is wrong, or an empty string. An obligation without a step or a claim can't be replayed."""
    if asked.move is None or asked.claim is None:
        return ""
    played = Explicit(lock)
    state: Values = tuple(frozen(found.relations[name]) for name in lock.moving)
    rigid = tuple(frozen(found.relations[name]) for name in lock.rigid)
    size = Size(found.clients, found.keys, rigid)
    who = tuple(found.constants[str(param)] for param in asked.move.params)
    inputs = tuple(frozen(found.relations[name]) for name in lock.inputs)
    for taken in played.steps(size, state).values():
        if (taken.move, taken.who) == (asked.move, who) and taken.inputs in ((), inputs):
            broken = played.broken_by(size, state, taken)
            return "" if asked.claim.clause in broken else f"the step breaks only {', '.join(broken) or 'nothing'}"
    return "the step can't be taken"


def told(lock: Lock, found: Structure) -> str:
    """Return a counterexample of the solver as text: the state before the step, and the names of clients and keys."""
    said = []
    for name, (sorts, _) in lock.all_relations.items():
        sizes = (found.clients if sort == "Client" else found.keys for sort in sorts)
        for place in itertools.product(*map(range, sizes)):
            value = found.relations[name]
            for number_ in place:
                value = value[number_]
            if value:
                said.append(f"{name}({', '.join(map(str, place))})" + ("" if value is True else f" = {value}"))
    named = ", ".join(f"{name} is {number_}" for name, number_ in found.constants.items() if "!" not in name)
    return f"{found.clients} clients, {found.keys} keys: {', '.join(said) or 'nobody anywhere'}; {named}"
