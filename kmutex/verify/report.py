"""Rows of evidence as a table, as JSON and as JUnit XML."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any
from xml.etree import ElementTree

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmutex.verify.evidence import Result, Row, Violation, exit_status

_STYLE = {
    Result.HOLDS: "green",
    Result.VIOLATED: "bold red",
    Result.INCONCLUSIVE: "yellow",
    Result.NOTED: "cyan",
    Result.NOT_PROMISED: "cyan",
    Result.OFF: "dim",
    Result.NOT_APPLICABLE: "dim",
}
VERDICT = {0: "holds", 1: "violated", 2: "inconclusive"}


def show(rows: Sequence[Row], console: Console, *, options: str = "") -> None:
    """The table, then each violated clause with its lanes and the command that replays it, then the verdict."""
    many = len({row.subject for row in rows}) > 1
    for subject, group in groupby(_by_method(rows), key=lambda row: row.subject):
        console.print(_table(group, title=subject if many else None))
    broken = [("", "bold red", *each) for each in violations(rows)]
    unkept = [(", not promised", "cyan", *each) for each in violations(rows, Result.NOT_PROMISED)]
    for remark, style, subject, clauses, violation in broken + unkept:
        console.print()
        console.print(Text(f"{', '.join(clauses)}{remark}: {violation.message}", style=style))
        if violation.picture:
            console.print(Text(violation.picture), soft_wrap=True)
        if violation.schedule:
            console.print("replay it with:", style="dim")
            command = f"kmutex verify {shlex.quote(subject)}{options} --replay {shlex.quote(violation.schedule)}"
            console.print(Text(command), soft_wrap=True)
    console.print()
    console.print(summary(rows), style=_STYLE[_overall(rows)], soft_wrap=True)


def _table(rows: Iterable[Row], *, title: str | None) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=SIMPLE_HEAD)
    table.add_column("clause", no_wrap=True)
    table.add_column("method", no_wrap=True)
    table.add_column("bound", overflow="fold")
    table.add_column("cases", justify="right", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    for (method, bound), group in groupby(rows, key=lambda row: (row.method, row.bound)):
        table.add_section()
        for number, row in enumerate(group):
            # What a method covered, and how long it took, is the same for each clause that it speaks of.
            said = (method, bound, f"{row.seconds:.1f}" if row.seconds else "-") if number == 0 else ("", "", "")
            cases = f"{row.cases:,}" if row.cases else "-"
            result = Text(row.result.value, style=_STYLE[row.result])
            table.add_row(row.clause, said[0], said[1], cases, result, said[2])
            if row.detail and row.result is not Result.HOLDS:
                table.add_row("", "", Text(row.detail, style=_STYLE[row.result]), "", "", "")
    return table


def _by_method(rows: Sequence[Row]) -> list[Row]:
    """The rows of one method together, subjects and methods in the order in which they first come."""
    order: dict[tuple[str, str], int] = {}
    subjects: dict[str, int] = {}
    for row in rows:
        subjects.setdefault(row.subject, len(subjects))
        order.setdefault((row.subject, row.method), len(order))
    return sorted(rows, key=lambda row: (subjects[row.subject], row.method == "-", order[(row.subject, row.method)]))


def summary(rows: Sequence[Row]) -> str:
    """One line: the verdict, and how many clauses are what."""
    by_clause: dict[str, set[Result]] = {}
    for row in rows:
        if row.clause != "-":
            by_clause.setdefault(row.clause, set()).add(row.result)
    worst = [next(result for result in _WORST if result in results) for results in by_clause.values()]
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
"""What a clause is, from its rows: the first of these that one of them says."""


def _overall(rows: Sequence[Row]) -> Result:
    return (Result.HOLDS, Result.VIOLATED, Result.INCONCLUSIVE)[exit_status(rows)]


def violations(rows: Iterable[Row], result: Result = Result.VIOLATED) -> list[tuple[str, tuple[str, ...], Violation]]:
    """One violation for each clause, each run shown once, under all that it breaks; of rows with this result."""
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


def as_json(rows: Sequence[Row], *, subjects: Sequence[str], seconds: float) -> str:
    """The rows and the verdict. The form is in docs/verify.md."""
    body: dict[str, Any] = {
        "format": "kmutex-verify/1",
        "python": sys.version.split()[0],
        "subjects": list(subjects),
        "exit": exit_status(rows),
        "verdict": VERDICT[exit_status(rows)],
        "violated": sorted({row.clause for row in rows if row.result is Result.VIOLATED}),
        "seconds": round(seconds, 3),
        "rows": rows_as_dicts(rows),
    }
    return json.dumps(body, indent=2) + "\n"


def rows_as_dicts(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The rows for JSON."""
    plain = [{**asdict(row), "result": row.result.value, "seconds": round(row.seconds, 3)} for row in rows]
    for row in plain:
        for violation in row["violations"]:
            del violation["symptom"]
    return plain


_SKIPPED = (Result.OFF, Result.NOT_PROMISED, Result.NOT_APPLICABLE)


def as_junit(rows: Sequence[Row]) -> str:
    """A test case for each row: violated is a failure, inconclusive an error; what is off, not promised or not
    applicable is skipped."""
    suites = ElementTree.Element("testsuites", name="kmutex verify")
    for subject, group in groupby(rows, key=lambda row: row.subject):
        cases = list(group)
        suite = ElementTree.SubElement(
            suites,
            "testsuite",
            name=subject or "kmutex",
            tests=str(len(cases)),
            failures=str(sum(row.result is Result.VIOLATED for row in cases)),
            errors=str(sum(row.result is Result.INCONCLUSIVE for row in cases)),
            skipped=str(sum(row.result in _SKIPPED for row in cases)),
        )
        for row in cases:
            case = ElementTree.SubElement(
                suite, "testcase", classname=row.clause, name=f"{row.method} [{row.bound}]", time=f"{row.seconds:.3f}"
            )
            if row.result is Result.VIOLATED:
                body = "\n\n".join(f"{v.message}\n{v.picture}\nreplay: {v.schedule}" for v in row.violations)
                ElementTree.SubElement(case, "failure", message=row.detail).text = body
            elif row.result is Result.INCONCLUSIVE:
                ElementTree.SubElement(case, "error", message=row.detail)
            elif row.result in _SKIPPED:
                ElementTree.SubElement(case, "skipped", message=row.detail)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"
