"""Compare one step of the model with the same step of real code, clause by clause.

A `View` has the state of the real table in the terms of the model. Each `Comparison` decides which steps put its clause
to the test, and compares what the clause is about. In addition everything is compared: the outcome, the clients that
were told of a grant, and every entry. So each difference is found, even one that no clause is about.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kmutex.verify.evidence import Result, Row, Violation
from kmutex_model.actions import format_schedule
from kmutex_model.properties import Transition, actor_before, gets_it
from kmutex_model.state import Entry, State, owners

STRANGER = -2
"""A ticket of no client of the model."""

FAILED = ("timeout", "unheld")


class View(NamedTuple):
    """The state of a table, for the keys of the model."""

    entries: tuple[Entry | None, ...]
    live: int
    """The result of len()."""
    present: tuple[bool, ...]
    """The result of ``key in table``, by key."""


class Observed(NamedTuple):
    """One step of the real code."""

    outcome: str
    """In the model's terms if it has such an outcome, else the error."""
    told: tuple[int, ...]
    """The clients, without the acting one, that were told of a grant, in the order of their numbers."""
    before: View
    after: View
    same: bool
    """Whether the snapshots before and after are equal, ticket by ticket."""


class Comparison(NamedTuple):
    """The check of one clause in a step."""

    clause: str
    tested: Callable[[Transition], bool]
    """Whether the model's step puts the clause to the test."""
    differs: Callable[[Transition, Observed], str]
    """Returns the difference in what the clause is about; "" if there is none."""


def expected_view(state: State) -> View:
    """Return the view that a table must have in this state of the model."""
    present = tuple(entry is not None for entry in state.entries)
    return View(state.entries, sum(present), present)


def expected_told(t: Transition) -> tuple[int, ...]:
    """Return the clients that must be told: those that waited and have got the key."""
    return tuple(client for client in gets_it(t) if client != t.action.client)


def difference(t: Transition, o: Observed) -> str:
    """Return all differences of the two steps in one line; "" if they agree."""
    found = []
    if o.before != expected_view(t.before):
        found.append("the run did not lead to the state in which the step begins")
    if o.outcome != t.outcome:
        found.append(f"the outcome is {o.outcome!r}, not {t.outcome!r}")
    if o.told != expected_told(t):
        found.append(f"told of a grant: {_clients(o.told)}, not {_clients(expected_told(t))}")
    wanted = expected_view(t.after)
    for key, (seen, entry) in enumerate(zip(o.after.entries, wanted.entries, strict=True)):
        if seen != entry:
            found.append(f"the entry of key {key} is {_shown(seen)}, not {_shown(entry)}")
    if o.after.live != wanted.live or o.after.present != wanted.present:
        found.append(f"it counts {o.after.live} live keys {o.after.present}, not {wanted.live} {wanted.present}")
    if t.outcome in FAILED and not o.same:
        found.append("the call failed and the snapshot is another")
    return "; ".join(found)


def _clients(clients: Sequence[int]) -> str:
    return ", ".join(f"client {client}" for client in clients) or "nobody"


def _shown(entry: Entry | None) -> str:
    return "absent" if entry is None else f"{_chain(entry)}, refs {entry.refs}"


def _chain(entry: Entry | None) -> tuple[int, ...]:
    return () if entry is None else (entry.holder, *entry.queue)


# ------------------------------------------------------------------------------------------------------------
# The clauses


def _leaves(phase: str) -> Callable[[Transition], bool]:
    return lambda t: t.action.name in ("cancel", "interrupt") and actor_before(t).phase == phase


def _here(t: Transition, o: Observed) -> str:
    """Return a difference in the outcome, in the clients that were told, or at the key itself."""
    seen, entry = o.after.entries[t.key], t.after.entries[t.key]
    if o.outcome != t.outcome or o.told != expected_told(t) or seen != entry:
        return difference(t, o)
    return ""


def _second_holder(t: Transition, o: Observed) -> str:
    owner = owners(t.before, t.key)[0]
    if owner in owners(t.after, t.key):
        got = o.told or ((t.action.client,) if o.outcome == "granted" else ())
        return f"client {owner} owns key {t.key}, and so does now {got}" if got else ""
    return f"key {t.key} was granted to {_clients(o.told)} at once" if len(o.told) > 1 else ""


def _counted(t: Transition, o: Observed) -> str:
    seen, entry = o.after.entries[t.key], t.after.entries[t.key]
    refs, wanted = (0 if e is None else e.refs for e in (seen, entry))
    if refs != wanted or sorted(_chain(seen)) != sorted(_chain(entry)):
        return f"the entry of key {t.key} is {_shown(seen)}, not {_shown(entry)}"
    return ""


def _evicted(t: Transition, o: Observed) -> str:
    wanted = expected_view(t.after)
    if o.after.entries[t.key] is not None or o.after.present[t.key] or o.after.live != wanted.live:
        return f"nobody is at key {t.key}: {_shown(o.after.entries[t.key])}, {o.after.live} live keys"
    return ""


def _order_matters(t: Transition) -> bool:
    waited = len(t.before.order[t.key])
    return (t.outcome == "waiting" and waited > 0) or (bool(expected_told(t)) and waited > 1)


def _out_of_order(t: Transition, o: Observed) -> str:
    seen, wanted = _chain(o.after.entries[t.key]), _chain(t.after.entries[t.key])
    if (sorted(seen) == sorted(wanted) and seen != wanted) or (o.told and o.told != expected_told(t)):
        return f"key {t.key} is with {seen} and {_clients(o.told)} was told; {wanted} is the order of the requests"
    return ""


def _newcomer(t: Transition) -> bool:
    owner = owners(t.before, t.key)
    return t.action.name in ("request", "try") and any(t.before.clients[c].phase == "granted" for c in owner)


def _not_handed(t: Transition, o: Observed) -> str:
    holder = _chain(o.after.entries[t.key])[:1]
    if o.told != expected_told(t) or holder != _chain(t.after.entries[t.key])[:1] or o.outcome == "granted":
        return difference(t, o)
    return ""


def _not_refused(t: Transition, o: Observed) -> str:
    return "" if o.outcome == "unheld" else f"key {t.key} has no holder, and its unlock was told {o.outcome!r}"


def _failed_and_changed(t: Transition, o: Observed) -> str:
    return difference(t, o) if o.outcome in FAILED and not o.same else ""


def _old_lease(t: Transition, o: Observed) -> str:
    return "" if o.outcome == "unheld" and o.same else difference(t, o) or "an old lease changed the snapshot"


def _others_there(t: Transition) -> bool:
    return any(entry is not None for key, entry in enumerate(t.before.entries) if key != t.key)


def _elsewhere(t: Transition, o: Observed) -> str:
    for key, entry in enumerate(t.after.entries):
        if key != t.key and (o.after.entries[key] != entry or o.after.present[key] != (entry is not None)):
            return f"an action on key {t.key} left key {key} as {_shown(o.after.entries[key])}, not {_shown(entry)}"
    if t.action.name in ("request", "try") and t.outcome == "granted" and o.outcome != "granted":
        return f"key {t.key} is free and another is held, and the request was told {o.outcome!r}"
    return ""


COMPARISONS: tuple[Comparison, ...] = (
    Comparison(
        "KM-UNHELD",
        lambda t: t.action.name in ("stray_unlock", "stale_release") and t.before.entries[t.key] is None,
        _not_refused,
    ),
    Comparison("KM-TOKEN", lambda t: t.action.name == "stale_release", _old_lease),
    Comparison("KM-ATOMIC", lambda t: t.outcome in FAILED, _failed_and_changed),
    Comparison("KM-RACE", _leaves("granted"), _here),
    Comparison("KM-INTERRUPT", lambda t: t.action.name == "interrupt", _here),
    Comparison("KM-CANCEL", _leaves("waiting"), _here),
    Comparison("KM-EXPIRED", lambda t: t.action.name == "try", _here),
    Comparison("KM-INDEP", _others_there, _elsewhere),
    Comparison("KM-EXCL", lambda t: bool(owners(t.before, t.key)), _second_holder),
    Comparison("KM-FIFO", _order_matters, _out_of_order),
    Comparison("KM-HANDOFF", lambda t: bool(expected_told(t)) or _newcomer(t), _not_handed),
    Comparison("KM-IDLE", lambda t: t.before.entries[t.key] is not None and t.after.entries[t.key] is None, _evicted),
    Comparison("KM-REF", lambda t: t.before.entries[t.key] is not None or t.after.entries[t.key] is not None, _counted),
)
"""The more telling name first."""


# ------------------------------------------------------------------------------------------------------------
# The totals


class StepTally:
    """Counts the cases of each clause and keeps the first violation of each; walks are shortest first."""

    def __init__(self, method: str, subject: str, clauses: Sequence[str]) -> None:
        self.cases: Counter[str] = Counter()
        self.states = 0
        self.steps = 0
        self.skipped = 0
        """The number of states that were not compared, because a step before them differed."""
        self._method = method
        self._subject = subject
        self._clauses = tuple(clauses)
        self._violations: dict[str, Violation] = {}
        self._started = time.perf_counter()

    def compare(self, t: Transition, o: Observed, run: tuple[str, str]) -> bool:
        """Compare a step; return whether both agree. ``run`` describes it as text, and as an argument of --replay."""
        tested = [c for c in COMPARISONS if c.clause in self._clauses and c.tested(t)]
        self.steps += 1
        self.cases.update(c.clause for c in tested)
        whole = difference(t, o)
        found = {c.clause: message for c in tested if (message := c.differs(t, o))}
        if whole and not found:
            # The difference is not in what its clauses are about, so the step does not show them to hold.
            found = dict.fromkeys([c.clause for c in tested] or self._clauses, whole)
        for clause, message in found.items():
            self.violated(clause, tuple(found), f"{message} ({run[0]})", run[1])
        return not found

    def violated(self, clause: str, together: tuple[str, ...], message: str, schedule: str = "") -> None:
        """Note a violation. ``together`` has all clauses that the step breaks, the best name first."""
        names = (clause, *(name for name in together if name != clause)) if clause not in together else together
        self._violations.setdefault(clause, Violation(names, message, schedule))

    def rows(self, bound: str) -> list[Row]:
        """Return one row for each clause. Without a case, or if a state was left out, it is inconclusive."""
        return [self._row(clause, bound) for clause in self._clauses]

    def _row(self, clause: str, bound: str) -> Row:
        covered = f"{bound}, {self.states:,} states, {self.steps:,} steps"
        covered += f", {self.skipped:,} states left out" if self.skipped else ", complete"
        violation = self._violations.get(clause)
        result, detail = Result.HOLDS, ""
        if violation is not None:
            result, detail = Result.VIOLATED, violation.message
        elif self.skipped:
            result, detail = Result.INCONCLUSIVE, "steps on the way to some states went wrong"
        elif not self.cases[clause]:
            result, detail = Result.INCONCLUSIVE, "no step within the bound puts it to the test"
        return Row(
            clause=clause,
            method=self._method,
            bound=covered,
            cases=self.cases[clause],
            result=result,
            seconds=time.perf_counter() - self._started,
            detail=detail,
            subject=self._subject,
            violations=(violation,) if violation else (),
        )


def by_path(t: Transition, path: Sequence[object], way: str = "") -> str:
    """Return the run as text, for a message."""
    actions = format_schedule((*path, t.action))  # type: ignore[arg-type]
    return f"{t.config.clients}x{t.config.keys} {t.config.race}: {actions}{f' by {way}' if way else ''}"


def bound_text(bounds: Sequence[tuple[int, int]]) -> str:
    """Return clients and keys as text."""
    return " and ".join(f"{_some(clients, 'client')} x {_some(keys, 'key')}" for clients, keys in bounds)


def _some(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
