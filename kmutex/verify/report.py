"""The report of a check for a terminal or a log: 80 columns, whatever the output is."""

from __future__ import annotations

import os
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from kmutex._clauses import EVERY_CLAUSE
from kmutex.engine.timeline import WIDTH
from kmutex.verify.causes import Cause, causes
from kmutex.verify.evidence import VERDICT, Result, Row, Violation, exit_status

if TYPE_CHECKING:
    from rich.console import Console

_STYLE = {
    Result.HOLDS: "green",
    Result.VIOLATED: "bold red",
    Result.INCONCLUSIVE: "magenta",
    Result.NOT_PROMISED: "cyan",
    Result.NOTED: "cyan",
    Result.OFF: "dim",
    Result.NOT_APPLICABLE: "dim",
}
_SIGN = {
    Result.VIOLATED: "X",
    Result.INCONCLUSIVE: "?",
    Result.NOT_PROMISED: "p",
    Result.NOTED: "n",
    Result.NOT_PROMISED: "p",
}
"""The signs in the matrix that replace the number of cases."""
_COLUMN = 5
"""The width of a method's column in the matrix."""
_MANY_CLAUSES = 6
"""From this number on, clauses are counted and not named."""
FAILED = 3
"""The exit status for a subject that could not be run."""
_WORST_FIRST = (1, FAILED, 2, 0)


@dataclass(frozen=True)
class Report:
    """The evidence about one subject, or about several by one call."""

    subject: str
    rows: tuple[Row, ...] = ()
    told: tuple[Violation, ...] = ()
    """Violations that were shown as soon as they were found, one for each cause."""
    taken: str = ""
    """Which methods are called for what; empty if unknown."""
    options: str = ""
    """The options that a replay needs, with a blank before each."""
    failed: str = ""
    """Why it could not be run; else empty."""

    @property
    def status(self) -> int:
        """Return the exit status."""
        return FAILED if self.failed else exit_status(self.rows)

    @property
    def subjects(self) -> set[str]:
        """Return the names of its subjects."""
        return {self.subject} if self.subject else {row.subject for row in self.rows if ":" in row.subject}

    def replay(self, subject: str, violation: Violation) -> str:
        """Return the whole command that replays it; empty if the method has no schedule."""
        if not violation.schedule:
            return ""
        return f"kmutex verify {shlex.quote(subject)}{self.options} --replay {shlex.quote(violation.schedule)}"

    def causes(self, result: Result = Result.VIOLATED) -> list[tuple[str, Cause]]:
        """Return each cause of rows with this result, with its subject; those that were shown come first."""
        found = []
        for subject in dict.fromkeys(row.subject for row in self.rows):
            rows = [row for row in self.rows if row.subject == subject]
            mine = [violation for _, _, violation in violations(rows, result)]
            told = self.told if subject == self.subject and result is Result.VIOLATED else ()
            found += [(subject, cause) for cause in causes(mine, told)]
        return found


def worst(statuses: Iterable[int]) -> int:
    """Return the exit status of several: violated comes before failed, failed before inconclusive."""
    had = set(statuses)
    return next((status for status in _WORST_FIRST if status in had), 2)


def place_of(violation: Violation) -> tuple[str, int] | None:
    """Return file and line of the subject's code, the file relative to the current folder if it is in it."""
    file, _, line = violation.place.rpartition(":")
    if not file:
        return None
    beside = os.path.relpath(file)
    return (Path(file).as_posix() if beside.startswith(os.pardir) else Path(beside).as_posix()), int(line)


def violations(rows: Iterable[Row], result: Result = Result.VIOLATED) -> list[tuple[str, tuple[str, ...], Violation]]:
    """Return one violation for each clause of rows with this result. Each run is there once, with all its clauses."""
    shown: dict[str, tuple[str, Violation]] = {}
    named: dict[str, list[str]] = {}
    covered: set[tuple[str, str]] = set()
    for row in rows:
        if row.result is not result or not row.violations or (row.subject, row.clause) in covered:
            continue
        best = row.violations[0]
        identity = row.subject + best.message + best.schedule + best.picture
        shown.setdefault(identity, (row.subject, best))
        for clause in best.clauses:
            covered.add((row.subject, clause))
            if clause not in named.setdefault(identity, []):
                named[identity].append(clause)
    return [(subject, tuple(named[identity]), violation) for identity, (subject, violation) in shown.items()]


# ------------------------------------------------------------------------------------------------------------
# For the terminal


def show_violation(
    console: Console, report: Report, subject: str, violation: Violation, *, promised: bool = True
) -> None:
    """Print the message, the timeline with source lines, the place, and the commands that replay and explain it."""
    _say(console, violation.said(promised=promised), "bold red" if promised else "cyan")
    if violation.picture:
        _say(console)
        console.print(Text(violation.picture), soft_wrap=True)
    _say(console)
    place = place_of(violation)
    if place is not None:
        console.print(Text("code:   ", "dim") + Text(f"{place[0]}:{place[1]}"), soft_wrap=True)
    if violation.schedule:
        console.print(Text("replay: ", "dim") + Text(report.replay(subject, violation)), soft_wrap=True)
    console.print(Text("clause: ", "dim") + Text(f"kmutex explain {violation.clauses[0]}"), soft_wrap=True)
    _say(console)


def show(console: Console, report: Report, *, footer: str = "") -> None:
    """Print the violations that were not shown yet, the matrix, the bounds, and the verdict in the last line."""
    subjects = report.subjects
    show_causes(console, report)
    loose = report.causes(Result.NOT_PROMISED)
    for subject, cause in loose if report.status != 1 else ():
        show_violation(console, report, subject, cause.shown, promised=False)
    # Clauses that are also violated are printed there.
    counts = {row.clause for row in report.rows if row.result is Result.VIOLATED}
    broken = [clause for clause in EVERY_CLAUSE if any(clause in cause.clauses for _, cause in loose)]
    broken = [clause for clause in broken if clause not in counts]
    if broken:
        _say(console, f"Broken and not promised, so it does not count: {', '.join(broken)}", "cyan")
        _say(console)
    groups: dict[str, list[Row]] = {}
    for row in report.rows:
        # The rows about the model and the code form one table, whichever function they are about.
        groups.setdefault(row.subject if row.subject in subjects else "", []).append(row)
    for subject, rows in groups.items():
        title = f"{subject}: {report.taken}" if report.taken else subject or "the model and the code"
        _say(console, title, "bold")
        _matrix(console, rows)
        _say(console)
    if footer:
        _say(console, footer, "dim")
    _say(console, summary(report.rows), _STYLE[_overall(report.rows)])


def show_causes(console: Console, report: Report) -> None:
    """Print one violation for each cause that was not shown yet, and what else the cause breaks."""
    for subject, cause in report.causes():
        if cause.shown not in report.told:
            show_violation(console, report, subject, cause.shown)
    for subject, cause in report.causes():
        if cause.others:
            of = f" of {subject}" if len(report.subjects) > 1 else ""
            _say(console, f"Broken{of} by the same cause as {cause.shown.clauses[0]}:")
            for other in cause.others:
                _say(console, f"  {', '.join(other.clauses)}: {other.message}", indent="    ")
            _say(console)


def _say(console: Console, words: str = "", style: str = "", indent: str = "") -> None:
    lines = textwrap.wrap(words, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    for line in lines or [""]:
        console.print(Text(line, style), soft_wrap=True)


def _matrix(console: Console, rows: Sequence[Row]) -> None:
    """Print a table of clauses by methods, and below it the bounds of each method."""
    methods = list(dict.fromkeys(row.method for row in rows if row.method != "-" and row.clause != "-"))
    clauses = [clause for clause in EVERY_CLAUSE if any(row.clause == clause for row in rows)]
    at_once = (WIDTH - _FIRST) // _COLUMN
    for first in range(0, max(1, len(methods)), at_once):
        some = methods[first : first + at_once]
        heads = "".join(f"{number:>{_COLUMN}}" for number in range(first + 1, first + 1 + len(some)))
        _say(console, " " * _FIRST + heads, "bold")
        for clause in clauses:
            mine = [row for row in rows if row.clause == clause]
            # Further blocks have only the clauses with a number in them.
            if first == 0 or any(row.method in some for row in mine):
                console.print(_line(clause, mine, some), soft_wrap=True)
    _say(console)
    for number, method in enumerate(methods, 1):
        mine = [row for row in rows if row.method == method]
        bounds = "; ".join(dict.fromkeys(row.bound for row in mine if row.bound != "-")) or "nothing was run"
        seconds = sum(row.seconds for row in mine)
        _say(console, f"{number:>2}  {method}, {seconds:.1f} s: {bounds}", indent="    ")
    _remarks(console, rows)


_FIRST = 28
"""The width of a clause and its result."""


def _line(clause: str, rows: Sequence[Row], methods: Sequence[str]) -> Text:
    result = _worst(row.result for row in rows)
    line = Text(f"{clause:<13}") + Text(f"{result.value:<{_FIRST - 13}}", _STYLE[result])
    if all(row.method == "-" for row in rows):
        why = ("\n" + " " * _FIRST).join(textwrap.wrap(rows[0].detail, WIDTH - _FIRST))
        return line + Text(why, _STYLE[result])
    for method in methods:
        line += _cell([row for row in rows if row.method == method])
    return line


def _cell(rows: Sequence[Row]) -> Text:
    if not rows:
        return Text(f"{'-':>{_COLUMN}}", "dim")
    worst = _worst(row.result for row in rows)
    cases = sum(row.cases for row in rows)
    # If the rest was not run, the number of cases that were run is still shown.
    kept = worst is Result.INCONCLUSIVE and any(row.result is Result.HOLDS for row in rows)
    sign = _number(cases) if kept else _SIGN.get(worst) or _number(cases)
    return Text(f"{sign:>{_COLUMN}}", _STYLE[worst])


def _number(cases: int) -> str:
    if cases < 10_000:
        return str(cases)
    return f"{cases // 1000}k" if cases < 1_000_000 else f"{cases // 1_000_000}M"


def _remarks(console: Console, rows: Sequence[Row]) -> None:
    """Print the meaning of the signs, and why clauses are undecided."""
    had = {row.result for row in rows if row.method != "-" and row.clause != "-"}
    meant = [f"{sign} {result.value}" for result, sign in _SIGN.items() if result in had]
    signs = ", ".join(["a number: how often the clause was put to the test", *meant])
    _say(console, f"    {signs}", "dim", "    ")
    why: dict[tuple[Result, str], list[str]] = {}
    for row in rows:
        if row.result in (Result.INCONCLUSIVE, Result.NOTED) and row.method != "-" and row.clause != "-":
            why.setdefault((row.result, row.detail), []).append(row.clause)
    for (result, detail), named in why.items():
        clauses = list(dict.fromkeys(named))
        some = ", ".join(clauses) if len(clauses) < _MANY_CLAUSES else f"{len(clauses)} clauses"
        _say(console, f"{result.value}: {detail} ({some})", _STYLE[result], "    ")
    left: dict[str, list[str]] = {}
    for row in rows:
        if row.clause == "-":
            left.setdefault(row.detail, []).append(row.method)
    for detail, unrun in left.items():
        _say(console, f"{detail}: {'; '.join(unrun)}", "dim", "    ")


def summary(rows: Sequence[Row]) -> str:
    """Return one line: the verdict, and the number of clauses with each result."""
    by_clause: dict[str, set[Result]] = {}
    for row in rows:
        if row.clause != "-":
            by_clause.setdefault(row.clause, set()).add(row.result)
    worst = [_worst(results) for results in by_clause.values()]
    counts = [(result, worst.count(result)) for result in _WORST if result in worst]
    parts = ", ".join(f"{number} {_MANY.get(result, result.value)}" for result, number in counts)
    violated = sorted(clause for clause, results in by_clause.items() if Result.VIOLATED in results)
    names = f" ({', '.join(violated)})" if violated else ""
    return f"{VERDICT[exit_status(rows)]}{names}: of {len(worst)} clauses, {parts}"


_MANY = {Result.HOLDS: "hold"}
_WORST = (
    Result.VIOLATED,
    Result.INCONCLUSIVE,
    Result.NOT_PROMISED,
    Result.HOLDS,
    Result.NOTED,
    Result.OFF,
    Result.NOT_APPLICABLE,
)
"""The result of a clause is the first of these that one of its rows has."""


def _worst(results: Iterable[Result]) -> Result:
    had = set(results)
    return next(result for result in _WORST if result in had)


def _overall(rows: Sequence[Row]) -> Result:
    return (Result.HOLDS, Result.VIOLATED, Result.INCONCLUSIVE)[exit_status(rows)]
