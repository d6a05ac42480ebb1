"""A row of the table as a relation: the row's effect, read with clients and keys of any number.

The effect is run on a turn whose answers are not known. Where it asks, both answers are tried, one run for each, and
each run is a `Case`: what must be so for it to be taken, the state after it, and what the caller was told. Where it
names somebody ("the oldest"), the case has a witness: a client of which only that is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from kmutex_model.actions import KeyView, Row
from kmutex_model.proof.logic import (
    FALSE,
    TRUE,
    Sort,
    Term,
    applied,
    both,
    choose,
    every,
    no,
    number,
    same,
    some,
    variable,
)
from kmutex_model.proof.relations import EMPTY, PHASES, TABLE, Relations, recorded
from kmutex_model.state import Phase, Race
from kmutex_model.turn import Outcome, Turn

ACTOR = variable("actor", "Client")
KEY = variable("key", "Key")


class Case(NamedTuple):
    """One way in which a row is taken."""

    row: Row
    race: Race
    path: str
    """What was answered on the way: "nobody waits", "somebody waits"."""
    witnesses: tuple[Term, ...]
    guard: Term
    after: Relations
    outcome: Outcome

    @property
    def name(self) -> str:
        """The row, the race where it matters, and the path, on one line."""
        where = f"{self.row.action} while {self.row.phase}" + ("" if self.row.key == "any" else f", key {self.row.key}")
        return where + (f", {self.race}" if self.race_matters else "") + (f" ({self.path})" if self.path else "")

    @property
    def race_matters(self) -> bool:
        """Whether the race can make a difference: only where a cancel meets a grant."""
        return _race_matters(self.row)


def _race_matters(row: Row) -> bool:
    return (row.action, row.phase) == ("cancel", "granted")


def cases_of(row: Row, before: Relations) -> Iterator[Case]:
    """All cases of a row in the state `before`, of both races where that matters."""
    races: tuple[Race, ...] = ("keep", "pass") if _race_matters(row) else ("keep",)
    for race in races:
        yield from cases_in_race(row, before, race)


def cases_in_race(row: Row, before: Relations, race: Race) -> Iterator[Case]:
    """All cases of a row in the state `before`, in one race."""
    enabled = both(in_phase(before, row.phase), shown_as(before, row.key))
    todo: list[tuple[bool, ...]] = [()]
    while todo:
        turn = SymbolicTurn(before, race, todo.pop())
        outcome = row.effect(turn)
        todo += turn.untried
        after = recorded(before, turn.now, ACTOR)
        yield Case(
            row, race, ", ".join(turn.path), tuple(turn.witnesses), both(enabled, *turn.conditions), after, outcome
        )


def in_phase(s: Relations, phase: Phase) -> Term:
    """The actor is in that phase, at the key."""
    return s.idle(ACTOR) if phase == "idle" else s.get(phase)(ACTOR, KEY)


def shown_as(s: Relations, view: KeyView) -> Term:
    """The table shows the key so."""
    if view == "any":
        return TRUE
    return s.is_free(KEY) if view == "free" else no(s.is_free(KEY))


class SymbolicTurn(Turn):
    """A turn whose answers are chosen beforehand, as far as `answers` go, and are yes after that.

    conditions  what must be so for this run
    untried     the other runs that were met: answers that lead to each
    """

    def __init__(self, before: Relations, race: Race, answers: tuple[bool, ...]) -> None:
        self.client: Term = ACTOR
        self.key: Term = KEY
        self.race = race
        self.now = before
        self.conditions: list[Term] = []
        self.witnesses: list[Term] = []
        self.path: list[str] = []
        self.untried: list[tuple[bool, ...]] = []
        self._answers = answers
        self._given: list[bool] = []

    def _ask(self, condition: Term, yes: str, otherwise: str) -> bool:
        if condition.op == "bool":
            return bool(condition.args[0])
        for known in (True, False):
            if (condition if known else no(condition)) in self.conditions:
                return known
        place = len(self._given)
        if place < len(self._answers):
            answer = self._answers[place]
        else:
            answer = True
            self.untried.append((*self._given, False))
        self._given.append(answer)
        self.conditions.append(condition if answer else no(condition))
        self.path.append(yes if answer else otherwise)
        return answer

    def _witness(self, name: str, sort: Sort, known: Callable[[Term], Term]) -> Term:
        witness = variable(f"{name}_{len(self.witnesses)}", sort)
        self.witnesses.append(witness)
        self.conditions.append(known(witness))
        return witness

    # Questions

    def has_entry(self) -> bool:
        return self._ask(self.now.present(KEY), "has an entry", "has no entry")

    def any_entry(self) -> bool:
        return self._ask(some(lambda k: self.now.present(k)), "some key has an entry", "no key has an entry")

    def is_free(self) -> bool:
        return self._ask(self.now.is_free(KEY), "free", "held")

    def nobody_waits(self) -> bool:
        return self._ask(every(lambda c: ~self.now.queued(KEY, c)), "nobody waits", "somebody waits")

    def is_counted(self) -> bool:
        return self._ask(~same(self.now.refs(KEY), number(0)), "counted", "not counted")

    def same(self, one: Term, other: Term) -> bool:
        return self._ask(same(one, other), "the same", "another")

    def stands(self, who: Term, phase: Phase) -> bool:
        here = self.now.idle(who) if phase == "idle" else self.now.get(phase)(who, KEY)
        return self._ask(here, f"is {phase}", f"is not {phase}")

    def another_key_is_waited_for(self) -> bool:
        waited = some(lambda k, c: ~same(k, KEY) & self.now.queued(k, c))
        return self._ask(waited, "another key is waited for", "no other key is waited for")

    # Witnesses

    def holder(self) -> Term:
        return self._witness("holder", "Client", lambda c: self.now.holder(KEY, c))

    def oldest(self, key: Term | None = None) -> Term:
        return self._witness("oldest", "Client", lambda c: self.now.is_oldest(key or KEY, c))

    def youngest(self) -> Term:
        return self._witness("youngest", "Client", self._is_youngest)

    def _is_youngest(self, c: Term) -> Term:
        s = self.now
        return s.queued(KEY, c) & every(lambda d: ~s.queued(KEY, d) | same(d, c) | s.ahead(KEY, d, c))

    def lowest(self) -> Term:
        s = self.now
        return self._witness(
            "lowest",
            "Client",
            lambda c: s.queued(KEY, c) & every(lambda d: ~s.queued(KEY, d) | ~applied("before", "Bool", d, c)),
        )

    def lowest_other_key(self) -> Term:
        def waited(k: Term) -> Term:
            return ~same(k, KEY) & some(lambda c: self.now.queued(k, c))

        return self._witness(
            "other_key", "Key", lambda k: waited(k) & every(lambda j: ~waited(j) | ~applied("lower", "Bool", j, k))
        )

    # Changes

    def move(self, who: Term, phase: Phase, key: Term | None = None) -> None:
        def stands(name: str) -> Callable[[Term, Term], Term]:
            old = self.now.get(name)
            return lambda c, k: choose(same(c, who), same(k, key or KEY) if phase == name else FALSE, old(c, k))

        waiting, granted, holding = map(stands, PHASES)
        self.now = replace(self.now, waiting=waiting, granted=granted, holding=holding)

    def new_entry(self) -> None:
        self.evict()
        self._put("present", lambda: TRUE)

    def evict(self) -> None:
        for name in TABLE:
            self._put(name, EMPTY.get(name))

    def evict_all(self) -> None:
        self.now = replace(self.now, **{name: EMPTY.get(name) for name in TABLE})

    def give(self, who: Term) -> None:
        self._put("holder", lambda c: same(c, who))

    def free(self) -> None:
        self._put("holder", lambda c: FALSE)

    def count(self, by: int) -> None:
        was = self.now.refs(KEY)
        self._put("refs", lambda: was + by)

    def enqueue(self, who: Term) -> None:
        s = self.now
        self._put("ahead", lambda a, b: s.ahead(KEY, a, b) | (s.queued(KEY, a) & same(b, who)))
        self._put("queued", lambda c: s.queued(KEY, c) | same(c, who))

    def enqueue_first(self, who: Term) -> None:
        s = self.now
        self._put("ahead", lambda a, b: s.ahead(KEY, a, b) | (same(a, who) & s.queued(KEY, b)))
        self._put("queued", lambda c: s.queued(KEY, c) | same(c, who))

    def dequeue(self, who: Term) -> None:
        s = self.now
        self._put("ahead", lambda a, b: both(s.ahead(KEY, a, b), ~same(a, who), ~same(b, who)))
        self._put("queued", lambda c: s.queued(KEY, c) & ~same(c, who))

    def replace_by(self, other: Term, who: Term) -> None:
        s = self.now

        def ahead(a: Term, b: Term) -> Term:
            moved = choose(
                same(a, other),
                s.ahead(KEY, who, b) & ~same(b, other),
                choose(same(b, other), s.ahead(KEY, a, who), s.ahead(KEY, a, b)),
            )
            return both(~same(a, who), ~same(b, who), moved)

        self._put("ahead", ahead)
        self._put("queued", lambda c: s.queued(KEY, c) & ~same(c, who))

    def _put(self, name: str, new: Callable[..., Term]) -> None:
        """Change one part of the entry."""
        old = self.now.get(name)

        def changed(k: Term, *rest: Term) -> Term:
            return choose(same(k, KEY), new(*rest), old(k, *rest))

        self.now = replace(self.now, **{name: changed})
