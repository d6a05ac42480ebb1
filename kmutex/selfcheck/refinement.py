"""Compare the lock table with the model: in every reachable state, for every action.

For each state of the correct model, a real table is brought there by the model's shortest run, as a driver would, and
then takes the action. Outcome, wake-ups and snapshot must be the model's (`comparison`).

The same is done from every state that the invariant of the proof allows, up to a smaller bound, whether a run leads
there or not: the proof is about steps from those (`kmutex_model.proof`).

The same steps compare the table with the three functions of ``kmutex._entry``, which CrossHair has confirmed and which
do not run in production: after each call the table's entry must be theirs. That ties those contracts to the real code.

There are no rows for KM-EXPIRED, KM-INTERRUPT and KM-LOOP: timeouts and `wake` belong to the drivers, which
``kmutex.selfcheck.driver_refinement`` compares.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import NamedTuple

from kmutex import _entry
from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError
from kmutex.selfcheck import driver_refinement
from kmutex.selfcheck.comparison import STRANGER, Observed, StepTally, View, bound_text, by_path
from kmutex.verify.evidence import Result, Row, Violation
from kmutex_model.actions import CORRECT, Action, action_key
from kmutex_model.explore import explore
from kmutex_model.proof.tie import allowed
from kmutex_model.properties import make_transition
from kmutex_model.state import Config, Race, State
from kmutex_model.state import Entry as ModelEntry

METHOD = "refinement"
ALLOWED_METHOD = "refinement, allowed states"
RULES_METHOD = "refinement, rules"
BOUNDS: tuple[tuple[int, int], ...] = ((4, 2),)
"""Clients and keys. Four clients are the fewest with a waiter in the middle of a queue."""
ALLOWED_BOUNDS: tuple[tuple[int, int], ...] = ((3, 1), (2, 2), (3, 2))
"""Of these, 2 x 2 has states that no run reaches."""
RACES: tuple[Race, ...] = ("keep", "pass")

CLAUSES = (
    "KM-EXCL",
    "KM-REF",
    "KM-IDLE",
    "KM-FIFO",
    "KM-HANDOFF",
    "KM-INDEP",
    "KM-CANCEL",
    "KM-RACE",
    "KM-UNHELD",
    "KM-ATOMIC",
    "KM-TOKEN",
)
"""The clauses that the comparison of the table covers."""


class Rules(NamedTuple):
    """The functions of ``kmutex._entry``, or replacements."""

    after_request: Callable[[Entry | None, Ticket], Entry] = _entry.after_request
    after_release: Callable[[Ticket, Ticket | None, tuple[Ticket, ...]], Entry | None] = _entry.after_release
    after_cancel: Callable[[Ticket, tuple[Ticket, ...], Ticket, tuple[Ticket, ...]], Entry] = _entry.after_cancel


RULE_CLAUSES: dict[str, tuple[str, ...]] = {
    "after_request": ("KM-EXCL", "KM-FIFO", "KM-REF"),
    "after_release": ("KM-HANDOFF", "KM-FIFO", "KM-IDLE", "KM-REF"),
    "after_cancel": ("KM-CANCEL", "KM-REF"),
}
"""By rule: the clauses of its contracts, which its docstring names too."""


class Waker(NamedTuple):
    """The waker of a ticket."""

    ticket: Ticket


MakeTable = Callable[[], LockTable]


def check(
    on_progress: Callable[[str], None] | None = None,
    *,
    table: MakeTable = LockTable,
    rules: Rules | None = None,
    bounds: Sequence[tuple[int, int]] = BOUNDS,
    allowed_bounds: Sequence[tuple[int, int]] = ALLOWED_BOUNDS,
    subjects: Sequence[driver_refinement.Subject] = driver_refinement.SUBJECTS,
) -> list[Row]:
    """Compare the table, the rules and the drivers with the model; return one row for each clause of each.

    ``bounds`` are clients and keys, each explored with both races; ``allowed_bounds`` the same, from every allowed
    state. The drivers have their own bound.
    """
    say = on_progress or (lambda text: None)
    of_table = [*check_table(say, table, rules or Rules(), bounds), *check_allowed(say, table, allowed_bounds)]
    return [*of_table, *driver_refinement.check(say, subjects)]


def check_table(
    say: Callable[[str], None], make: MakeTable, rules: Rules, bounds: Sequence[tuple[int, int]] = BOUNDS
) -> list[Row]:
    """Return the rows of the table and of the rules."""
    tally = StepTally(METHOD, "kmutex._core:LockTable", CLAUSES)
    book = RuleBook(rules)
    started = time.perf_counter()
    for clients, keys in bounds:
        for race in RACES:
            say(f"LockTable, {bound_text([(clients, keys)])}, {race}")
            _walk(Config(clients, keys, race), make, book, tally)
    bound = f"LockTable, {bound_text(bounds)}, both races"
    return [*tally.rows(bound), *book.rows(bound, time.perf_counter() - started, tally.skipped)]


def check_allowed(
    say: Callable[[str], None], make: MakeTable, bounds: Sequence[tuple[int, int]] = ALLOWED_BOUNDS
) -> list[Row]:
    """Return the rows of the table, from every state that the invariant allows; empty without bounds.

    A table is brought there by requests only, key by key: it does not know whether a call has returned.
    """
    if not bounds:
        return []
    tally = StepTally(ALLOWED_METHOD, "kmutex._core:LockTable", CLAUSES)
    unreached = 0
    for clients, keys in bounds:
        say(f"LockTable, all allowed states, {bound_text([(clients, keys)])}")
        states = allowed(Config(clients, keys, "keep"))
        for race in RACES:
            config = Config(clients, keys, race)
            unreached += len(states.difference(explore(CORRECT, config, properties=()).graph))
            for state in sorted(states, key=repr):
                _from(config, state, make, tally)
    return tally.rows(f"LockTable, {bound_text(bounds)}, both races, {unreached} states that no run reaches")


def _from(config: Config, state: State, make: MakeTable, tally: StepTally) -> None:
    tally.states += 1
    for action in CORRECT.enabled(config, state):
        after, outcome = CORRECT.step(config, state, action)
        t = make_transition(config, state, action, outcome, after)
        for way in ways(action):
            bench = DrivenTable(make, config, action.key if action.name == "stale_release" else None)
            bench.bring_to(state)
            place = f"{config.clients}x{config.keys} {config.race}, {action}{f' by {way}' if way else ''} in {state}"
            tally.compare(t, bench.observe(config.race, state, action, way), (place, ""))


def _walk(config: Config, make: MakeTable, book: RuleBook, tally: StepTally) -> None:
    graph = explore(CORRECT, config, properties=()).graph
    spoilt: set[State] = set()
    wrong: set[tuple[State, Action]] = set()
    for state in graph:
        if state in graph.parents:
            before, action, _ = graph.parents[state]
            if before in spoilt or (before, action) in wrong:
                spoilt.add(state)
                tally.skipped += 1
                continue
        tally.states += 1
        path = graph.path(state)
        reached = (CORRECT.initial(config), *(step.state for step in CORRECT.replay(config, path)))
        for action in CORRECT.enabled(config, state):
            after, outcome = CORRECT.step(config, state, action)
            t = make_transition(config, state, action, outcome, after)
            for way in ways(action):
                bench = DrivenTable(make, config, action.key if action.name == "stale_release" else None)
                run = by_path(t, path, way)
                for at, earlier in zip(reached[:-1], path, strict=True):
                    bench.take(config.race, at, earlier)
                bench.book = book
                book.run = run
                if not tally.compare(t, bench.observe(config.race, state, action, way), (run, "")):
                    wrong.add((state, action))


def ways(action: Action) -> Iterator[str]:
    """Yield the calls on the table for an action; runs that lead to a state use the first.

    A release is by the ticket of a lease or by the key alone. For `wake` there is no call.
    """
    if action.name == "release":
        yield from ("ticket", "key")
    elif action.name != "wake":
        yield ""


class DrivenTable:
    """A table, used as by a driver, and the client of each ticket."""

    def __init__(self, make: MakeTable, config: Config, leased: int | None = None) -> None:
        """Make a table. The key ``leased`` was taken and released before the run, so it has an old lease."""
        self.book: RuleBook | None = None
        self._table = make()
        self._tickets = itertools.count(1)
        self._keys = range(config.keys)
        self._asker: dict[Ticket, int] = {}
        self._own: dict[int, Ticket] = {}
        self._old: Ticket | None = None
        if leased is not None:
            old = self._old = next(self._tickets)
            self._table.request(_key(leased), old, lambda: Waker(old))
            self._table.release(_key(leased), old)

    def observe(self, race: Race, state: State, action: Action, way: str) -> Observed:
        """Take the action, and return what was observed."""
        raw, before = dict(self._table.snapshot()), self.view()
        outcome, told = self.take(race, state, action, way)
        return Observed(outcome, told, before, self.view(), dict(self._table.snapshot()) == raw)

    def bring_to(self, state: State) -> None:
        """Ask for each key as its holder and waiters did, the holder first."""
        for number, entry in enumerate(state.entries):
            for client in () if entry is None else (entry.holder, *entry.queue):
                self._ask(_key(number), client, "request")

    def view(self) -> View:
        """Return the state of the table, with clients for tickets."""
        seen = self._table.snapshot()
        return View(
            tuple(self._entry(seen.get(_key(key))) for key in self._keys),
            len(self._table),
            tuple(_key(key) in self._table for key in self._keys),
        )

    def take(self, race: Race, state: State, action: Action, way: str = "") -> tuple[str, tuple[int, ...]]:
        """Make the calls of a driver; return the outcome, and the clients that were told of a grant."""
        number, client = action_key(state, action), action.client
        assert number is not None
        assert client is not None
        way = way or next(ways(action), "")
        key = _key(number)
        try:
            if action.name in ("request", "try"):
                return self._ask(key, client, action.name)
            if action.name in ("cancel", "interrupt"):
                return self._leave(key, client, state.clients[client].phase, race, action.name)
            if action.name == "release":
                ticket = self._own.pop(client)
                return "released", self._told(self._release(key, ticket if way == "ticket" else None))
            if action.name in ("stray_unlock", "stale_release"):
                return "released", self._told(self._release(key, self._old))
        except UnheldKeyError:
            return "unheld", ()
        except Exception as error:
            return f"{type(error).__name__}: {error}", ()
        return "returned", ()

    def _ask(self, key: Hashable, client: int, name: str) -> tuple[str, tuple[int, ...]]:
        ticket = next(self._tickets)
        self._asker[ticket] = client
        was = self._was(key)
        waker = self._table.request(key, ticket, lambda: Waker(ticket))
        if self.book is not None:
            self.book.request(was, ticket, self._table.entry(key))
        if waker is None:
            self._own[client] = ticket
            return "granted", ()
        if waker.ticket != ticket:
            return f"waits with the waker of ticket {waker.ticket}", ()
        if name == "request":
            self._own[client] = ticket
            return "waiting", ()
        return ("timeout" if self._cancel(key, ticket) else "granted"), ()

    def _leave(self, key: Hashable, client: int, phase: str, race: Race, name: str) -> tuple[str, tuple[int, ...]]:
        # A timeout cancels. An interrupt, or a task's cancellation after the grant, withdraws.
        ticket = self._own[client]
        told = "interrupted" if name == "interrupt" else "cancelled"
        if name == "cancel" and (phase == "waiting" or race == "keep"):
            if not self._cancel(key, ticket):
                return "kept", ()
            del self._own[client]
            return told, ()
        was = self._was(key)
        waker = self._table.withdraw(key, ticket)
        if self.book is not None and was is not None:
            if was.holder == ticket:
                self.book.release(was, self._table.entry(key))
            else:
                self.book.cancel(was, ticket, self._table.entry(key))
        del self._own[client]
        return told, self._told(waker)

    def _cancel(self, key: Hashable, ticket: Ticket) -> bool:
        was = self._was(key)
        gone = self._table.cancel(key, ticket)
        if gone and self.book is not None and was is not None:
            self.book.cancel(was, ticket, self._table.entry(key))
        return gone

    def _release(self, key: Hashable, ticket: Ticket | None) -> Waker | None:
        was = self._was(key)
        waker = self._table.release(key, ticket)
        if self.book is not None and was is not None:
            self.book.release(was, self._table.entry(key))
        return waker

    def _was(self, key: Hashable) -> Entry | None:
        return None if self.book is None else self._table.entry(key)

    def _told(self, waker: Waker | None) -> tuple[int, ...]:
        return () if waker is None else (self._asker.get(waker.ticket, STRANGER),)

    def _entry(self, entry: Entry | None) -> ModelEntry | None:
        if entry is None:
            return None
        holder, *waiters = (self._asker.get(ticket, STRANGER) for ticket in (entry.holder, *entry.waiters))
        return ModelEntry(holder, tuple(waiters), entry.refs)


def _key(number: int) -> Hashable:
    # An equal value each time but never the same object, like a caller's keys.
    return ("key", number)


class RuleBook:
    """Compares each change of an entry with the rules."""

    def __init__(self, rules: Rules) -> None:
        self.cases: Counter[str] = Counter()
        self.run = ""
        self._rules = rules
        self._wrong: dict[str, str] = {}

    def request(self, was: Entry | None, ticket: Ticket, now: Entry | None) -> None:
        self._compare("after_request", lambda: self._rules.after_request(was, ticket), now)

    def release(self, was: Entry, now: Entry | None) -> None:
        oldest, younger = (was.waiters[0], was.waiters[1:]) if was.waiters else (None, ())
        self._compare("after_release", lambda: self._rules.after_release(was.holder, oldest, younger), now)

    def cancel(self, was: Entry, ticket: Ticket, now: Entry | None) -> None:
        if ticket not in was.waiters:
            self._compare("after_cancel", lambda: was, now)
            return
        at = was.waiters.index(ticket)
        before, after = was.waiters[:at], was.waiters[at + 1 :]
        self._compare("after_cancel", lambda: self._rules.after_cancel(was.holder, before, ticket, after), now)

    def _compare(self, rule: str, says: Callable[[], Entry | None], now: Entry | None) -> None:
        self.cases[rule] += 1
        try:
            wanted = says()
        except Exception as error:
            self._wrong.setdefault(rule, f"{rule} raised {type(error).__name__}: {error} ({self.run})")
            return
        if wanted != now:
            self._wrong.setdefault(rule, f"{rule} says {wanted}, and the table has {now} ({self.run})")

    def rows(self, bound: str, seconds: float, skipped: int) -> list[Row]:
        """Return one row for each clause of a rule's contracts. Each of its rules must have been used."""
        return [
            self._row(clause, [rule for rule in RULE_CLAUSES if clause in RULE_CLAUSES[rule]], bound, seconds, skipped)
            for clause in CLAUSES
            if any(clause in clauses for clauses in RULE_CLAUSES.values())
        ]

    def _row(self, clause: str, rules: list[str], bound: str, seconds: float, skipped: int) -> Row:
        wrong = [self._wrong[rule] for rule in rules if rule in self._wrong]
        unused = [rule for rule in rules if not self.cases[rule]]
        result, detail = Result.HOLDS, ""
        if wrong:
            result, detail = Result.VIOLATED, wrong[0]
        elif unused:
            result, detail = Result.INCONCLUSIVE, f"no step within the bound came to {', '.join(unused)}"
        elif skipped:
            result, detail = Result.INCONCLUSIVE, "steps on the way to some states went wrong"
        figures = ", ".join(f"{rule} {self.cases[rule]:,} times" for rule in rules)
        return Row(
            clause=clause,
            method=RULES_METHOD,
            bound=f"{bound}, {figures}{'' if skipped else ', complete'}",
            cases=sum(self.cases[rule] for rule in rules),
            result=result,
            seconds=seconds,
            detail=detail,
            subject="kmutex._entry",
            violations=tuple(Violation((clause,), message) for message in wrong),
        )
