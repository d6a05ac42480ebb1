"""The result of a unit of work, and the rows of evidence that follow from all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kmutex._clauses import CLAUSES, FLIGHT_CLAUSES
from kmutex.engine.estimate import missed
from kmutex.engine.explorer import parse_schedule
from kmutex.engine.program import parse
from kmutex.engine.run_judge import BLAMED
from kmutex.engine.shapes import Shape
from kmutex.engine.strategies import DEPTH
from kmutex.verify.evidence import Result, Row, Violation
from kmutex.verify.generated import SIZE
from kmutex.verify.plan import Unit


@dataclass
class UnitResult:
    """A worker's result of one unit."""

    unit: Unit
    runs: int = 0
    complete: bool = False
    reduced: bool = False
    """Whether runs were left out that differ from another only in the order of steps that commute."""
    endless: int = 0
    seconds: float = 0.0
    longest: int = 0
    """The number of choices in the longest run."""
    estimate: float | None = None
    """The estimated number of schedules within the bound, if not all were run."""
    by_pct: int = 0
    """The number of runs whose schedule was drawn by PCT."""
    witnesses: Counter[str] = field(default_factory=Counter)
    found: list[Violation] = field(default_factory=list)
    unpromised: list[Violation] = field(default_factory=list)
    """Runs that break a clause which the subject does not promise."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """Clause and remark: differences from the reference that are not violations."""
    undecided: list[tuple[str, str]] = field(default_factory=list)
    """Clause and reason: checks that could not be completed."""
    bound: str = ""
    """The text of the bound, if the method has its own."""

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON values, to send it from the worker to the runner."""
        # `asdict` does not make a dict of a Counter.
        return {**asdict(replace(self, witnesses=Counter())), "witnesses": dict(self.witnesses)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> UnitResult:
        """Restore a result from `as_plain`."""
        return cls(
            **{
                **plain,
                "unit": Unit(**plain["unit"]),
                "witnesses": Counter(plain["witnesses"]),
                "found": [Violation.from_plain(found) for found in plain["found"]],
                "unpromised": [Violation.from_plain(found) for found in plain["unpromised"]],
                "notes": [(clause, text) for clause, text in plain["notes"]],
                "undecided": [(clause, reason) for clause, reason in plain["undecided"]],
            }
        )


def rows(
    subject: str,
    shape: Shape,
    off: frozenset[str],
    outcomes: Iterable[UnitResult],
    left: Iterable[Unit],
    *,
    unpromised: frozenset[str] = frozenset(),
    why: str = "",
) -> list[Row]:
    """Return the evidence, clause by clause.

    Args:
        subject: The name of the subject.
        shape: Its shape.
        outcomes: The results of the units.
        left: Planned units that were not run.
        off: Clauses that were not judged.
        why: Why units are left.
        unpromised: Clauses that the subject does not promise.
    """
    done = rightly_named(outcomes)
    violated = any(outcome.found for outcome in done)
    methods = list(dict.fromkeys([outcome.unit.method for outcome in done]))
    unrun = [UnitResult(unit) for unit in left]
    missing = [outcome.unit for outcome in unrun if outcome.unit.required]
    table: list[Row] = []
    for clause in FLIGHT_CLAUSES if shape.form == "flight" else CLAUSES:
        if clause in off:
            table.append(Row(clause, "-", "-", 0, Result.OFF, 0.0, "declared off with --without", subject))
            continue
        seen = (_row(clause, method, subject, _of(done, method), len(_of(unrun, method))) for method in methods)
        mine = [row for row in seen if row is not None]
        if mine and clause == "KM-EXCL" and "self-exclusion" in shape.loose:
            # Other callers are excluded, and the row is about those.
            detail = "it was found to be re-entrant; that a holder waits for itself is not promised"
            mine.append(Row(clause, mine[0].method, "-", 0, Result.NOTED, 0.0, detail, subject))
        table.extend(mine)
        if not mine:
            row = _untested(clause, subject, shape)
            if clause in unpromised and row.result is Result.INCONCLUSIVE:
                row = replace(row, result=Result.NOT_PROMISED)
            table.append(row)
        elif missing and clause not in unpromised and not any(row.result is Result.VIOLATED for row in mine):
            detail = f"{len(missing)} of the planned programs were not run{': ' + why if why else ''}"
            table.append(Row(clause, missing[0].method, "-", 0, Result.INCONCLUSIVE, 0.0, detail, subject))
    for method in dict.fromkeys(outcome.unit.method for outcome in unrun):
        only = _SEEN_ONLY_BY.get(method, ()) if method not in methods and not violated else ()
        for clause in only:
            if any(row.clause == clause for row in table) and clause not in off | unpromised:
                detail = f"the check of {method} was not run{': ' + why if why else ''}"
                table.append(Row(clause, method, "-", 0, Result.INCONCLUSIVE, 0.0, detail, subject))
        if method not in methods and not only:
            # A deeper pass that was not reached does not change the bounds of the other passes.
            table.append(Row("-", method, "-", 0, Result.NOTED, 0.0, f"not run: {why or 'left out'}", subject))
    return table


_SEEN_ONLY_BY = {
    "keys": ("KM-INDEP", "KM-APART"),
    "memory": ("KM-IDLE", "KM-FORGET"),
    "holding": ("KM-EXCL",),
}
"""By check: the clauses that short programs with few keys can't decide."""
SAVED = "saved schedules"
"""The method of the schedules that are run first."""


def rows_of_saved(subject: str, schedule: str, found: Iterable[Violation]) -> list[Row]:
    """Return the evidence of a saved schedule that still breaks a clause."""
    return [
        Row(clause, SAVED, schedule, 1, Result.VIOLATED, 0.0, one.message, subject, (one,))
        for one in found
        for clause in one.clauses
    ]


def rightly_named(outcomes: Iterable[UnitResult]) -> list[UnitResult]:
    """Return the results with corrected names: a symptom of a simpler program is not blamed on an ingredient.

    A unit knows the symptoms of simpler programs at its start; other units of its pass may add some later.
    """
    done = list(outcomes)
    shown = {
        (parse_schedule(violation.schedule).program.ingredients, violation.symptom)
        for outcome in done
        for violation in outcome.found
        if violation.schedule
    }
    return [replace(outcome, found=[_rightly_named(each, shown) for each in outcome.found]) for outcome in done]


def _rightly_named(violation: Violation, shown: Set[tuple[frozenset[str], str]]) -> Violation:
    first, *rest = violation.clauses
    if not violation.schedule or not rest or first == violation.symptom or first not in BLAMED:
        return violation
    ingredients = parse_schedule(violation.schedule).program.ingredients
    if not any(symptom == violation.symptom and plainer < ingredients for plainer, symptom in shown):
        return violation
    picture = violation.picture.replace(f">> {first}: {violation.message}", f">> {rest[0]}: {violation.message}")
    return replace(violation, clauses=tuple(rest), picture=picture)


def _of(outcomes: list[UnitResult], method: str) -> list[UnitResult]:
    return [outcome for outcome in outcomes if outcome.unit.method == method]


def _row(clause: str, method: str, subject: str, done: list[UnitResult], unrun: int) -> Row | None:
    cases = sum(outcome.witnesses[clause] for outcome in done)
    found = [violation for outcome in done for violation in outcome.found if clause in violation.clauses]
    unkept = [violation for outcome in done for violation in outcome.unpromised if clause in violation.clauses]
    notes = [text for outcome in done for about, text in outcome.notes if about == clause]
    undecided = [reason for outcome in done for about, reason in outcome.undecided if about == clause]
    if not cases and not found and not unkept and not notes and not undecided:
        return None
    seconds = sum(outcome.seconds for outcome in done)
    bound = _bound(done, unrun)
    for broken, result in ((found, Result.VIOLATED), (unkept, Result.NOT_PROMISED)):
        if broken:
            broken.sort(key=lambda violation: (violation.clauses[0] != clause, violation.length))
            return Row(clause, method, bound, cases, result, seconds, broken[0].message, subject, tuple(broken[:3]))
    if undecided:
        return Row(clause, method, bound, cases, Result.INCONCLUSIVE, seconds, undecided[0], subject)
    endless = sum(outcome.endless for outcome in done)
    if endless:
        detail = f"{endless} runs did not end within the step limit"
        return Row(clause, method, bound, cases, Result.INCONCLUSIVE, seconds, detail, subject)
    if notes and not cases:
        return Row(clause, method, bound, len(notes), Result.NOTED, seconds, notes[0], subject)
    return Row(clause, method, bound, cases, Result.HOLDS, seconds, notes[0] if notes else "", subject)


def _bound(done: list[UnitResult], unrun: int) -> str:
    own = [outcome.bound for outcome in done if outcome.bound]
    if own:
        return "; ".join(own)
    chosen = [parse(outcome.unit.program) for outcome in done if outcome.unit.program]
    if not chosen:
        return "not run to its end"
    clients = max(program.clients for program in chosen)
    keys = max(len(program.keys) for program in chosen)
    runs = sum(outcome.runs for outcome in done)
    if done[0].unit.task == "some":
        size = f"{clients} clients, {keys} key{'s' if keys > 1 else ''}, {runs:,} drawn runs"
        by_pct = sum(outcome.by_pct for outcome in done)
        chances = [
            # PCT gives the end of a client's wait a rank, like a client.
            missed(outcome.by_pct, 2 * program.clients, outcome.longest, DEPTH)
            for outcome, program in zip(done, chosen, strict=True)
        ]
        return f"{size}, {by_pct:,} by PCT: depth {DEPTH} missed with at most {max(chances):.2%}" if by_pct else size
    bounds = sorted({outcome.unit.bound for outcome in done})
    depth = f"{'-'.join(map(str, bounds))} preemption{'s' if bounds[-1] != 1 else ''}"
    reduced = any(outcome.reduced for outcome in done)
    if reduced:
        depth += " up to steps that commute"
    size = f"{clients} clients, {keys} key{'s' if keys > 1 else ''}, {depth}, {runs:,}"
    whole = sum(outcome.complete for outcome in done)
    planned = len(done) + unrun
    if done[0].unit.among:
        return f"{size} runs, {whole} of the {done[0].unit.among} further programs of up to {SIZE} steps complete"
    if whole == planned:
        return f"{size} runs"
    there = [outcome.estimate if outcome.estimate is not None else outcome.runs for outcome in done]
    counted = all(outcome.complete or outcome.estimate is not None for outcome in done) and not unrun
    share = ""
    if counted:
        # Not all of them: some program is not complete.
        part = f"{min(0.99, runs / sum(there)):.0%}"
        # A run of a reduced search stands for others too, and gives neither the share nor the number of all.
        share = f", at least {part} of the schedules" if reduced else f", {part} of about {sum(there):,.0f} schedules"
    return f"{size} runs, {whole} of {planned} programs complete{share}"


_SEEN_ONLY_WITH = {
    "KM-TOKEN": ("leases", "the subject has no hold() that gives a lease"),
    "KM-UNHELD": ("strays", "a caller that has no lock has nothing to release"),
    "KM-ATOMIC": ("strays", "a caller that has no lock has nothing to release"),
    "KM-REF": ("counts", "the subject has no len()"),
    "KM-EXPIRED": ("tries", "it can't be asked without waiting"),
    "KM-ALL": ("several", "the subject has no hold_all() of several keys"),
}


def _untested(clause: str, subject: str, shape: Shape) -> Row:
    attribute, reason = _SEEN_ONLY_WITH.get(clause, ("", ""))
    if attribute and not getattr(shape, attribute) and not (attribute == "leases" and shape.bodies):
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, reason, subject)
    if clause == "KM-INDEP" and shape.striped:
        return Row(clause, "-", "-", 0, Result.NOT_PROMISED, 0.0, "keys were found to share locks", subject)
    if clause == "KM-RACE" and shape.form in ("get", "key") and shape.kind == "threads":
        reason = "callers wait for the lock itself, so the end of a wait can't meet a grant"
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, reason, subject)
    if clause in ("KM-CANCEL", "KM-RACE") and shape.kind == "threads" and not shape.timeout:
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, "lock() takes no timeout", subject)
    if clause == "KM-FOLLOWER" and shape.kind == "threads":
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, "calls are not interrupted", subject)
    if clause == "KM-LOOP" and (shape.kind == "threads" or shape.trio):
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, "for asyncio only", subject)
    if clause == "KM-INTERRUPT" and shape.kind == "asyncio":
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, "cancelling a task is KM-CANCEL", subject)
    return Row(clause, "-", "-", 0, Result.INCONCLUSIVE, 0.0, "no run put it to the test", subject)
