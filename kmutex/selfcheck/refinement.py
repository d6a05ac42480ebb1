"""The lock table beside the model: in every reachable state, through every action, step by step.

For each state of the correct model a real table is brought there by the model's shortest run, as a driver would
drive it, and then put through the action. Outcome, wake-ups and snapshot must be the model's (`comparison`).

The same is done from every state that the invariant of the proof allows, up to a smaller bound, whether a run leads
there or not: the proof is about steps from those (`kmutex_model.proof`).

The same steps hold the table against the three functions of ``kmutex._entry``, which CrossHair has confirmed and
which do not run in production: after each call the table's entry must be what they say. That ties those
contracts to what runs.

What is not called here is not shown here: `wake` is the driver's business, and so are timeouts, hence no row for
KM-EXPIRED, KM-INTERRUPT and KM-LOOP. The drivers are compared in ``kmutex.selfcheck.driver_refinement``.
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
"""What the comparison of the table discharges."""


class Rules(NamedTuple):
    """The functions of ``kmutex._entry``, or others in their place."""

    after_request: Callable[[Entry | None, Ticket], Entry] = _entry.after_request
    after_release: Callable[[Ticket, Ticket | None, tuple[Ticket, ...]], Entry | None] = _entry.after_release
    after_cancel: Callable[[Ticket, tuple[Ticket, ...], Ticket, tuple[Ticket, ...]], Entry] = _entry.after_cancel


RULE_CLAUSES: dict[str, tuple[str, ...]] = {
    "after_request": ("KM-EXCL", "KM-FIFO", "KM-REF"),
    "after_release": ("KM-HANDOFF", "KM-FIFO", "KM-IDLE", "KM-REF"),
    "after_cancel": ("KM-CANCEL", "KM-REF"),
}
"""The clauses that each rule has contracts for; its docstring names the same."""


class Waker(NamedTuple):
    """What the table keeps for a waiter here: whose it is."""

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
    """Compare the table, the rules and the drivers with the model; one row for each clause of each.

    on_progress: is told, in a few words, what comes next. table, rules, subjects: what is judged.
    bounds: clients and keys; each is walked with both races. allowed_bounds: likewise, from every allowed state. The
    drivers have a bound of their own.
    """
    say = on_progress or (lambda text: None)
    of_table = [*check_table(say, table, rules or Rules(), bounds), *check_allowed(say, table, allowed_bounds)]
    return [*of_table, *driver_refinement.check(say, subjects)]


def check_table(
    say: Callable[[str], None], make: MakeTable, rules: Rules, bounds: Sequence[tuple[int, int]] = BOUNDS
) -> list[Row]:
    """The rows of the table and of the rules."""
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
    """The rows of the table, from every state that the invariant allows; none without bounds.

    A table is brought there by requests alone, key by key: it can't tell a call that has returned from one that will.
    """
    if not bounds:
        return []
    tally = StepTally(ALLOWED_METHOD, "kmutex._core:LockTable", CLAUSES)
    unreached = 0
    for clients, keys in bounds:
        say(f"LockTable, all that is allowed, {bound_text([(clients, keys)])}")
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
    """The calls on the table that an action stands for; the first is what a run on the way to a state takes.

    A release goes by the ticket of a lease or by the key alone. `wake` is no call at all: nothing.
    """
    if action.name == "release":
        yield from ("ticket", "key")
    elif action.name != "wake":
        yield ""


class DrivenTable:
    """A table, driven as a driver drives it, and who asked with which ticket."""

    def __init__(self, make: MakeTable, config: Config, leased: int | None = None) -> None:
        """leased: a key that was taken and let go before the run, so that there is an old lease of it."""
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
        """Take the action and say what was to be seen."""
        raw, before = dict(self._table.snapshot()), self.view()
        outcome, told = self.take(race, state, action, way)
        return Observed(outcome, told, before, self.view(), dict(self._table.snapshot()) == raw)

    def bring_to(self, state: State) -> None:
        """Ask for each key as those did that hold it or wait for it, the holder first."""
        for number, entry in enumerate(state.entries):
            for client in () if entry is None else (entry.holder, *entry.queue):
                self._ask(_key(number), client, "request")

    def view(self) -> View:
        """What the table shows, with each ticket as the client that asked with it."""
        seen = self._table.snapshot()
        return View(
            tuple(self._entry(seen.get(_key(key))) for key in self._keys),
            len(self._table),
            tuple(_key(key) in self._table for key in self._keys),
        )

    def take(self, race: Race, state: State, action: Action, way: str = "") -> tuple[str, tuple[int, ...]]:
        """The calls that a driver would make: the outcome, and the clients that were told of a grant."""
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
        # A waiter whose time is over is cancelled. An interrupt, or a task's cancellation after the grant, withdraws.
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
    # Equal each time and never the same object, as a caller's keys are.
    return ("key", number)


class RuleBook:
    """What the rules say of each change of an entry, beside what the table made of it."""

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
        """One row for each clause that a rule has contracts for. Each of its rules must have been put to use."""
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
