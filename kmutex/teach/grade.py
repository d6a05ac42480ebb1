"""Grading a learner's locker: the whole contract, and first the program of the lesson that it repairs.

The answer is the text of the clause, the run with the lines of the learner's own code, and the command that replays it.
The repair is for the learner to find.
"""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmutex._clauses import EVERY_CLAUSE
from kmutex._sandbox import Confinement
from kmutex.engine.features import PROMISES, clauses_off
from kmutex.engine.program import FLIGHT
from kmutex.engine.timeline import timeline
from kmutex.teach import lesson as lessons
from kmutex.teach.clauses import Clause, clause_of
from kmutex.teach.misleading import ALONE, TWO_KEYS, by_default, sleeps, spins, stuck_in_unlock
from kmutex.teach.own_work import borrowed
from kmutex.teach.submission import read
from kmutex.verify.evidence import VERDICT, Result, Row, Violation, exit_status
from kmutex.verify.formats import rows_as_dicts
from kmutex.verify.plan import MOST_RUNS, Unit
from kmutex.verify.report import Report, violations
from kmutex.verify.runner import (
    BY_MODE,
    LONGEST_REPLAY,
    WORKERS,
    Plan,
    Progress,
    ReplayError,
    SubjectError,
    left_out,
    replay,
    verify,
)

if TYPE_CHECKING:
    from kmutex.engine.shapes import Kind, Shape
    from kmutex.teach.lesson import Lesson
    from kmutex.teach.submission import Submission

MOST_SHOWN = 3
"""The most runs that are shown."""
METHOD = "the lesson's program"
"""The method name in the rows of a lesson's own check."""
ONE_FOR_ALL = "one lock for all keys"
STUCK_UNLOCK = "unlock waits for itself"
"""The method names in the rows of `_of_one_cause`."""
ONE_LOCK = "client 1 waits for b, which is free, until client 0 lets go of a: the keys share one lock"
STUCK = (
    "client {}'s call to unlock never comes back: "
    "it waits for something that it has itself, and nobody else was in a call"
)
ASLEEP = (
    "a thread that sleeps is woken only when nobody else can move; "
    "what needs it to wake early is not tried, so take it out"
)
QUICK = BY_MODE["quick"]._replace(after=math.inf)
"""For a class, or for a first answer: a fixed amount of work to its end, so that a busy machine changes no verdict."""
WHOLE = BY_MODE["full"]._replace(after=math.inf)
"""For a class: all that is planned, and a fixed amount of it."""
OUT_OF_CONTROL = ("no scheduling point", "did not return")
"""Words of errors about code that never reaches a scheduling point."""


class WrongKindError(Exception):
    """The lesson is about the other kind of locker. The message is one line; the exit status is 4."""


class BorrowedError(Exception):
    """The locker is not the learner's own. The message is one line; the exit status is 3."""


class LacksError(Exception):
    """The locker lacks what the lesson is about. The message is one line; the exit status is 3."""


@dataclass(frozen=True)
class Explained:
    """A broken clause, with its explanation for a learner."""

    clauses: tuple[str, ...]
    clause: Clause
    """The first of them, as a message."""
    message: str
    picture: str
    replay: str
    """A command that plays it again, from the learner's folder; "" if there is none."""
    lesson: Lesson | None
    """The lesson about the clause."""


@dataclass(frozen=True)
class Grade:
    """The result."""

    rows: tuple[Row, ...]
    findings: tuple[Explained, ...]
    lesson_runs: int
    """The number of schedules in which the lesson's program was run."""
    notes: tuple[str, ...] = ()
    """Reasons why the verdict may be wrong, one line each."""
    left_out: tuple[str, ...] = ()
    """The parts of the whole search that a quick one omits."""

    @property
    def status(self) -> int:
        """The exit status."""
        return exit_status(self.rows)

    @property
    def verdict(self) -> str:
        """The same as a word."""
        return VERDICT[self.status]

    @property
    def violated(self) -> list[str]:
        """The ids of the broken clauses."""
        return sorted({row.clause for row in self.rows if row.result is Result.VIOLATED})

    @property
    def others(self) -> list[str]:
        """Those of them that no finding names."""
        named = {clause for finding in self.findings for clause in finding.clauses}
        return [clause for clause in self.violated if clause not in named]

    @property
    def open(self) -> list[Row]:
        """What was not decided."""
        return [row for row in self.rows if row.result is Result.INCONCLUSIVE]


def grade(
    handed_in: Submission,
    one: Lesson | None,
    *,
    without: tuple[str, ...],
    seconds: float,
    megabytes: int,
    how: Plan = Plan(),  # noqa: B008
    workers: int = WORKERS,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Grade:
    """Judge it by the contract, in at most ``seconds``; the lesson's program is run first.

    Each run that is shown is then played again for its lines, which takes as long again at most.

    without: features it is declared to lack. how, workers: as for `verify`. SubjectError: it could not be put to work.
    BorrowedError, WrongKindError, LacksError.
    """
    tree = read(handed_in.path)
    if said := borrowed(handed_in.path, handed_in.factory):
        raise BorrowedError(said)
    confined = Confinement(handed_in.folder, megabytes, 2 * seconds)
    again = min(seconds, LONGEST_REPLAY)
    units = _units(one) if one is not None else []
    try:
        shape, rows = verify(
            handed_in.target,
            without=without,
            promises=PROMISES,
            seconds=seconds,
            first=units,
            confined=confined,
            workers=workers,
            how=how,
            on_progress=on_progress,
        )
    except ReplayError as error:
        raise WrongKindError(f"{handed_in.path} is not for the lesson: {error}") from None
    except SubjectError as error:
        if any(words in str(error) for words in OUT_OF_CONTROL) and (lines := spins(tree)):
            where = ", ".join(map(str, lines))
            raise SubjectError(f"{error}; a busy wait: the loop in line {where} calls nothing that waits") from None
        raise
    if one is not None and (lacks := _lacking(one, shape)):
        raise LacksError(f"lesson {one.number} is about {lacks}")
    own = [row for row in rows if row.method == METHOD]
    kind = shape.kind
    sleeping = sleeps(tree)
    if sleeping:
        rows = [_by_the_sleep(row) for row in rows]
    elif exit_status(rows) != 0:
        rows = [*_of_one_cause(handed_in, rows, kind, without, confined, again), *rows]
    found = [
        _finding(handed_in, clauses, violation, without, confined, again, lambda clause: _about(clause, one, kind))
        for clauses, violation in _chosen(rows, one)[:MOST_SHOWN]
    ]
    notes = tuple(f"line {line}: {name}: {ASLEEP}" for line, name in sleeping)
    less = left_out(shape, clauses_off(without), how)
    return Grade(tuple(rows), tuple(found), max((row.cases for row in own), default=0), notes, tuple(less))


def _by_the_sleep(row: Row) -> Row:
    """The row, undecided where a client may have waited for nothing but another's sleep."""
    if row.result is not Result.VIOLATED or not row.violations or "KM-INDEP" not in row.violations[0].clauses:
        return row
    said = "who waits there may wait for the sleep in the locker; take it out and grade again"
    return replace(row, result=Result.INCONCLUSIVE, detail=said, violations=())


def _of_one_cause(
    handed_in: Submission, rows: Sequence[Row], kind: Kind, without: tuple[str, ...], confined: Confinement, most: float
) -> Iterator[Row]:
    """The row of what breaks all that comes after it, where the runs that were found may not show it plainly: an unlock
    that waits for itself; a client that waits for a free key, because another client has another key."""
    symptoms = {violation.symptom for _, _, violation in violations(rows)}
    tries: list[tuple[str, Callable[[Violation], bool], str, str]] = []
    if symptoms & _STUCK_SYMPTOMS:
        tries.append((ALONE, _stuck, STUCK_UNLOCK, ""))
    if "independence" not in without:
        tries.append((TWO_KEYS, lambda violation: violation.clauses[0] == "KM-INDEP", ONE_FOR_ALL, ONE_LOCK))
    for program, is_cause, method, words in tries:
        schedule = by_default(program, kind)
        try:
            found = replay(
                handed_in.target, schedule, without=without, promises=PROMISES, confined=confined, seconds=most
            ).found
        except (SubjectError, ReplayError):
            continue
        for violation in filter(is_cause, found):
            shown = replace(violation, message=words or violation.message, schedule=schedule)
            clause, bound = violation.clauses[0], f"{program}, 1 run"
            yield Row(clause, method, bound, 1, Result.VIOLATED, 0.0, violations=(shown,))
            return


def _lacking(one: Lesson, shape: Shape) -> str:
    """What the lesson is about and the locker has not; "" if it has all."""
    kinds = one.schedule.program.kinds
    if (shape.form == "flight") != bool(kinds & FLIGHT):
        return "locks, and this has no lock(key)" if shape.form == "flight" else "do(key, work), and this has none"
    if "[" in kinds and not shape.leases:
        return "leases, and the locker has no hold(key)"
    if one.by == lessons.SEVERAL and not shape.several:
        return "several keys, and the locker has no hold_all(keys)"
    if shape.kind == "threads" and kinds & frozenset("~?") and not shape.timeout:
        return "timeouts, and lock takes none"
    return ""


def _units(one: Lesson) -> list[Unit]:
    program, level = str(one.schedule.program), one.schedule.level
    if one.by:
        return [Unit(-1, METHOD, one.by, level=level, required=True)]
    return [Unit(-1, METHOD, "every", program, level, lessons.MOST_PREEMPTIONS, most=MOST_RUNS, required=True)]


def _chosen(rows: list[Row], one: Lesson | None) -> list[tuple[tuple[str, ...], Violation]]:
    """Runs to be shown, each once: the lesson's own and its clause before the others, then in the contract's order."""
    own_first = sorted(rows, key=lambda row: row.method != METHOD)
    mine = one.clause if one is not None else ""
    order = {clause: number for number, clause in enumerate(EVERY_CLAUSE)}
    found = [(clauses, violation) for _, clauses, violation in violations(own_first)]
    found.sort(key=lambda each: (each[1].clauses[0] != mine, order[each[1].clauses[0]]))
    # These two break whatever is tried after them: the rest would only hide them.
    for cause in (_stuck, lambda violation: violation.message == ONE_LOCK):
        if alone := [(clauses, violation) for clauses, violation in found if cause(violation)]:
            return alone[:1]
    chosen: dict[str, tuple[tuple[str, ...], Violation]] = {}
    names: set[str] = set()
    for clauses, violation in found:
        run = violation.schedule or violation.picture
        if run not in chosen and violation.clauses[0] not in names:
            chosen[run] = (clauses, violation)
            names.add(violation.clauses[0])
    return list(chosen.values())


_STUCK_SYMPTOMS = {"KM-LIVE", "KM-INDEP"}


def _stuck(violation: Violation) -> bool:
    return violation.symptom in _STUCK_SYMPTOMS and stuck_in_unlock(violation.events) is not None


def _finding(
    handed_in: Submission,
    clauses: tuple[str, ...],
    violation: Violation,
    without: tuple[str, ...],
    confined: Confinement,
    seconds: float,
    about: Callable[[str], Lesson | None],
) -> Explained:
    picture, command = violation.picture, ""
    if violation.schedule:
        features = "".join(f" --without {name}" for name in without)
        command = f"kmutex verify {handed_in.target} --strict{features} --replay {shlex.quote(violation.schedule)}"
        if handed_in.folder != Path.cwd():
            folder = os.path.relpath(handed_in.folder)
            # A folder may be called -d.
            command = f"cd {'-- ' * folder.startswith('-')}{shlex.quote(folder)} && {command}"
        if not any(event.place for event in violation.events):
            picture = _with_lines(handed_in, violation, without, confined, seconds)
    name, message = violation.clauses[0], violation.message
    if _stuck(violation):
        name, message = "KM-LIVE", STUCK.format(stuck_in_unlock(violation.events))
    clause = clause_of(name)
    return Explained(clauses, clause, message, picture, command, about(clause.id))


def _about(clause: str, one: Lesson | None, kind: Kind) -> Lesson | None:
    return one if one is not None and one.clause == clause else lessons.about(clause, kind)


def _with_lines(
    handed_in: Submission, violation: Violation, without: tuple[str, ...], confined: Confinement, seconds: float
) -> str:
    """The picture with the lines at which clients stood; the plain one where the run does not come up again so."""
    try:
        found, _, events, _, _ = replay(
            handed_in.target,
            violation.schedule,
            without=without,
            promises=PROMISES,
            confined=confined,
            seconds=seconds,
        )
    except (SubjectError, ReplayError):
        return violation.picture
    same = any(violation.message in (seen.message, ONE_LOCK) for seen in found)
    return timeline(events) if same else violation.picture


def body(handed_in: Submission, one: Lesson | None, without: tuple[str, ...], result: Grade) -> dict[str, Any]:
    """The answer for JSON, as docs/grade.md has it."""
    options = "".join(f" --without {name}" for name in without)
    return {
        "format": "kmutex-grade/1",
        "python": sys.version.split()[0],
        "file": str(handed_in.path),
        "factory": handed_in.factory,
        "lesson": one.number if one is not None else None,
        "without": list(without),
        "exit": result.status,
        "verdict": result.verdict,
        "violated": result.violated,
        "notes": list(result.notes),
        "left_out": list(result.left_out),
        "findings": [_as_dict(finding) for finding in result.findings],
        "rows": rows_as_dicts(Report(handed_in.target, tuple(result.rows), options=options)),
    }


def _as_dict(finding: Explained) -> dict[str, Any]:
    return {
        "clauses": list(finding.clauses),
        "title": finding.clause.title,
        "statement": finding.clause.statement,
        "message": finding.message,
        "picture": finding.picture,
        "replay": finding.replay,
        "lesson": finding.lesson.number if finding.lesson is not None else None,
    }
