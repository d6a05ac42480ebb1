"""What a subject is put through: units of work, in passes, and what their results add up to.

A pass is one method at one bound. Its units are independent, so several workers can share them. The plainest and
widest pass comes first; what is left of the time goes to chance.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from kmutex._clauses import CLAUSES
from kmutex.engine.explorer import Level
from kmutex.engine.program import Program, parse
from kmutex.engine.scenarios import programs
from kmutex.engine.shapes import Shape
from kmutex.verify.evidence import Result, Row, Violation

SEEDS = 60
"""Random runs of one program in one unit."""
MOST_PLAIN_RUNS = 100
"""The same for the first pass, which must come to its end."""
MOST_RUNS = 2_000
"""Runs of one program in one pass; one that has more ways counts as not complete, and the bound says so."""
WIDE = 5
"""Clients from which on a program is left to chance: with so many, every order of waking is too many."""


@dataclass(frozen=True)
class Unit:
    """A piece of work for one worker."""

    number: int
    method: str
    """The pass it belongs to."""
    task: str
    """What the worker does: every, some, histories, or a check of `checks`."""
    program: str = ""
    level: Level = "locks"
    bound: int = 0
    seed: int = 0
    most: int = 0
    """Runs after which the unit ends although there are more ways."""
    required: bool = False
    """Whether the clauses count as undecided when this was not run. Where `most` cut it short, the bound says so."""
    deeper: bool = False
    """Whether it only goes deeper than passes before it: it is left out once a violation is known."""

    @property
    def ingredients(self) -> frozenset[str]:
        """What the program has beside plain locking."""
        return parse(self.program).kinds - frozenset("+-c") if self.program else frozenset()


@dataclass
class Outcome:
    """What a worker says of a unit."""

    unit: Unit
    runs: int = 0
    complete: bool = False
    endless: int = 0
    seconds: float = 0.0
    longest: int = 0
    witnesses: Counter[str] = field(default_factory=Counter)
    found: list[Violation] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    """Clause and remark: a difference from the reference that is no violation."""
    bound: str = ""
    """The bound in words, where the method has its own."""

    def as_plain(self) -> dict[str, Any]:
        """For JSON, on its way from the worker to the runner."""
        # A Counter is no dict to asdict.
        return {**asdict(replace(self, witnesses=Counter())), "witnesses": dict(self.witnesses)}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Outcome:
        """What `as_plain` gave."""
        return cls(
            **{
                **plain,
                "unit": Unit(**plain["unit"]),
                "witnesses": Counter(plain["witnesses"]),
                "found": [Violation.from_plain(found) for found in plain["found"]],
                "notes": [(clause, text) for clause, text in plain["notes"]],
            }
        )


def plan(shape: Shape, off: frozenset[str] = frozenset()) -> Iterator[list[Unit]]:
    """The passes for a subject of this shape, one list of units each. off: clauses that are not judged."""
    counter = iter(range(1_000_000))
    wanted = programs(
        cancel=shape.timeout or shape.kind == "asyncio",
        tries=shape.timeout,
        interrupt=shape.kind == "threads" and "KM-INTERRUPT" not in off,
        leases=shape.leases,
    )
    wide = [program for program in wanted if program.clients >= WIDE]
    wanted = [program for program in wanted if program.clients < WIDE]
    busy = [program for program in wanted if _concurrent(program)]

    def every(
        method: str,
        chosen: Iterable[Program],
        level: Level,
        bound: int,
        *,
        required: bool = False,
        deeper: bool = False,
    ) -> list[Unit]:
        most = MOST_PLAIN_RUNS if required else MOST_RUNS
        kind = Unit(0, method, "every", "", level, bound, most=most, required=required, deeper=deeper)
        return [replace(kind, number=next(counter), program=str(p)) for p in chosen]

    def some(method: str, chosen: Iterable[Program], level: Level, preemptions: int, seed: int) -> list[Unit]:
        return [Unit(next(counter), method, "some", str(p), level, preemptions, seed=seed) for p in chosen]

    if shape.kind == "threads":
        yield every("interleavings at locks, plain", wanted, "locks", 0, required=True)
        # Two clients at bytecodes are many races for little time.
        yield every("interleavings at bytecodes", [p for p in busy if p.clients < 3], "bytecode", 1)
        yield every("interleavings at locks", wanted, "locks", 1)
        yield some("chance, many clients", wide, "locks", 1, 0)
        yield [Unit(next(counter), "keys", "keys"), Unit(next(counter), "memory", "memory")]
        yield [Unit(next(counter), "histories", "histories", seed=seed) for seed in range(2)]
        yield every("interleavings at bytecodes", [p for p in busy if p.clients >= 3], "bytecode", 1)
        yield every("interleavings at locks, deeper", busy, "locks", 2, deeper=True)
        chance: Level = "bytecode"
    else:
        yield every("interleavings of tasks, plain", wanted, "tasks", 0, required=True)
        yield every("interleavings of tasks", wanted, "tasks", 2)
        yield some("chance, many clients", wide, "tasks", 1, 0)
        yield [Unit(next(counter), "loops", "loops"), Unit(next(counter), "unstarted", "unstarted")]
        yield [Unit(next(counter), "keys", "keys"), Unit(next(counter), "memory", "memory")]
        if shape.timeout:
            timed = [program for program in wanted if "~" in program.kinds]
            yield every("interleavings with timeouts", timed, "timeouts", 2)
        yield [Unit(next(counter), "histories", "histories", seed=seed) for seed in range(2)]
        yield every("interleavings of tasks, deeper", busy, "tasks", 4, deeper=True)
        chance = "tasks"
    for seed in range(SEEDS, 1_000_000, SEEDS):
        yield some("chance", busy, chance, 2 + seed // SEEDS % 2, seed)


def _concurrent(program: Program) -> bool:
    """Whether two things can happen at once in it: in a phase, or because a wait can end at any time."""
    return bool(program.kinds & frozenset("~!")) or any(
        len(phase.steps) + len(phase.cancel) > 1 for phase in program.phases
    )


def rows(
    subject: str, shape: Shape, off: frozenset[str], outcomes: Iterable[Outcome], left: Iterable[Unit], *, why: str = ""
) -> list[Row]:
    """The evidence, clause by clause. left: units that were planned and not run; why: for what reason."""
    done = list(outcomes)
    methods = list(dict.fromkeys([outcome.unit.method for outcome in done]))
    unrun = [Outcome(unit) for unit in left]
    missing = [outcome.unit for outcome in unrun if outcome.unit.required]
    table: list[Row] = []
    for clause in CLAUSES:
        if clause in off:
            table.append(Row(clause, "-", "-", 0, Result.OFF, 0.0, "declared off with --without", subject))
            continue
        seen = (_row(clause, method, subject, _of(done, method), len(_of(unrun, method))) for method in methods)
        mine = [row for row in seen if row is not None]
        table.extend(mine)
        if not mine:
            table.append(_untested(clause, subject, shape, bool(missing)))
        elif missing and not any(row.result is Result.VIOLATED for row in mine):
            detail = f"{len(missing)} of the planned programs were not run{': ' + why if why else ''}"
            table.append(Row(clause, missing[0].method, "-", 0, Result.INCONCLUSIVE, 0.0, detail, subject))
    for method in dict.fromkeys(outcome.unit.method for outcome in unrun):
        if method not in methods:
            # A deeper pass that was not reached takes nothing away from the bounds of those that were.
            table.append(Row("-", method, "-", 0, Result.NOTED, 0.0, f"not run: {why or 'left out'}", subject))
    return table


def _of(outcomes: list[Outcome], method: str) -> list[Outcome]:
    return [outcome for outcome in outcomes if outcome.unit.method == method]


def _row(clause: str, method: str, subject: str, done: list[Outcome], unrun: int) -> Row | None:
    cases = sum(outcome.witnesses[clause] for outcome in done)
    found = [violation for outcome in done for violation in outcome.found if clause in violation.clauses]
    notes = [text for outcome in done for about, text in outcome.notes if about == clause]
    if not cases and not found and not notes:
        return None
    seconds = sum(outcome.seconds for outcome in done)
    bound = _bound(done, unrun)
    if found:
        found.sort(key=lambda violation: (violation.clauses[0] != clause, len(violation.picture)))
        return Row(clause, method, bound, cases, Result.VIOLATED, seconds, found[0].message, subject, tuple(found[:3]))
    endless = sum(outcome.endless for outcome in done)
    if endless:
        detail = f"{endless} runs had no end within the step limit"
        return Row(clause, method, bound, cases, Result.INCONCLUSIVE, seconds, detail, subject)
    if notes and not cases:
        return Row(clause, method, bound, len(notes), Result.NOTED, seconds, notes[0], subject)
    return Row(clause, method, bound, cases, Result.HOLDS, seconds, notes[0] if notes else "", subject)


def _bound(done: list[Outcome], unrun: int) -> str:
    own = [outcome.bound for outcome in done if outcome.bound]
    if own:
        return "; ".join(own)
    chosen = [parse(outcome.unit.program) for outcome in done]
    clients = max(program.clients for program in chosen)
    keys = max(len(program.keys) for program in chosen)
    runs = sum(outcome.runs for outcome in done)
    bounds = sorted({outcome.unit.bound for outcome in done})
    depth = f"{'-'.join(map(str, bounds))} preemption{'s' if bounds[-1] > 1 else ''}"
    size = f"{clients} clients, {keys} key{'s' if keys > 1 else ''}, {depth}, {runs:,}"
    if done[0].unit.task == "some":
        return f"{size} random runs"
    whole = sum(outcome.complete for outcome in done)
    planned = len(done) + unrun
    return f"{size} runs" if whole == planned else f"{size} runs, {whole} of {planned} programs complete"


_SEEN_ONLY_WITH = {
    "KM-TOKEN": ("leases", "the subject has no hold()"),
    "KM-IDLE": ("counts", "the subject has no len()"),
    "KM-REF": ("counts", "the subject has no len()"),
    "KM-EXPIRED": ("timeout", "lock() takes no timeout"),
}


def _untested(clause: str, subject: str, shape: Shape, missing: bool) -> Row:
    attribute, reason = _SEEN_ONLY_WITH.get(clause, ("", ""))
    if attribute and not getattr(shape, attribute):
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, reason, subject)
    if clause in ("KM-CANCEL", "KM-RACE") and shape.kind == "threads" and not shape.timeout:
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, "lock() takes no timeout", subject)
    if clause == "KM-LOOP" and shape.kind == "threads":
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, "for asyncio only", subject)
    if clause == "KM-INTERRUPT" and shape.kind == "asyncio":
        return Row(clause, "-", "-", 0, Result.NOT_APPLICABLE, 0.0, "cancelling a task is KM-CANCEL", subject)
    reason = "the time was over before it was put to the test" if missing else "no run put it to the test"
    return Row(clause, "-", "-", 0, Result.INCONCLUSIVE, 0.0, reason, subject)
