"""What a check of a port found, as text, JSON, JUnit XML and HTML."""

from __future__ import annotations

import html
import json
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kmutex._clauses import CLAUSES
from kmutex.conform.player import PORT_FEATURES, CaseVerdict, Played, Waits, clauses_unjudged
from kmutex.conform.run import Options, Result
from kmutex.conform.vectors import Vector
from kmutex.engine.timeline import picture, timeline
from kmutex.picture.svg import svg

MOST_SHOWN = 3
"""Failures of the vectors that the text shows with a picture, the shortest first; the files have all."""
_WORDS = {0: "conforms", 1: "violated", 2: "inconclusive", 3: "the adapter failed"}
_STYLE = {0: "green", 1: "bold red", 2: "yellow", 3: "bold red"}


class ConformReport:
    """A result, with what is known to fail taken into account."""

    def __init__(self, result: Result, options: Options, command: Sequence[str], vectors: Sequence[Vector]) -> None:
        """command: what starts the adapter. vectors: those it was to be put through."""
        self.result = result
        self.options = options
        self.command = list(command)
        known = options.known
        by_id = {vector.case.id: vector for vector in vectors}
        table = "stat" in result.features
        self.tested = Counter(
            clause
            for played in result.vectors
            if played.verdict is CaseVerdict.PASSED
            for clause in (by_id[played.case.id].clauses if table else by_id[played.case.id].outside)
        )
        """By clause, the vectors that passed and would show, at this level, a known-bad model that breaks it."""
        self.known: list[Played] = []
        self.failed: list[Played] = []
        for played in result.played:
            if played.verdict is CaseVerdict.FAILED:
                (self.known if result.excused(played, known) else self.failed).append(played)
        if result.smaller is not None and result.smaller.verdict is CaseVerdict.FAILED:
            # The check stops at the first random sequence that fails, so this is the short form of the last.
            self.failed[-1] = result.smaller
        self.healed = [p.case.id for p in result.played if p.case.id in known and p.verdict is CaseVerdict.PASSED]
        """Listed as known failures, and passed."""
        ids = {played.case.id for played in result.played}
        self.never = [name for name in known if name not in ids]
        """Listed as known failures, and not played."""
        self.broken = [played for played in result.played if played.verdict is CaseVerdict.BROKEN]
        self.slow = [played for played in result.played if played.verdict is CaseVerdict.SLOW]
        self.passed = sum(played.verdict is CaseVerdict.PASSED for played in result.played)

    @property
    def decided(self) -> bool:
        """Whether every case that was planned has come to a clear end."""
        return not (self.broken or self.slow or self.result.skipped or self.result.farewell)

    @property
    def exit_status(self) -> int:
        """0 conforms, 1 a clause is violated or a known failure passed, 3 the adapter broke, 2 not all was decided."""
        if self.failed or self.healed:
            return 1
        if self.broken or self.result.farewell:
            return 3
        if not self.decided or not self.passed or self.never:
            return 2
        return 0

    @property
    def violated(self) -> list[str]:
        """The clauses that are violated, known failures left out, in the order of the contract."""
        found = {clause for played in self.failed for clause in played.clauses}
        return [clause for clause in CLAUSES if clause in found]

    @property
    def summary(self) -> str:
        """One line."""
        result = self.result
        names = f" ({', '.join(self.violated)})" if self.violated else ""
        parts = [
            f"{len(result.vectors)} vectors and {len(result.random)} random sequences",
            f"{self.passed} passed",
            *(f"{len(cases)} {word}" for word, cases in self._groups() if cases),
        ]
        if result.skipped:
            parts.append(f"{result.skipped} not begun")
        return f"{_WORDS[self.exit_status]}{names}: {', '.join(parts)}, {result.seconds:.1f} s"

    def _groups(self) -> list[tuple[str, Sequence[object]]]:
        return [
            ("failed", self.failed),
            ("known failures", self.known),
            ("slow", self.slow),
            ("on which the adapter broke", self.broken),
            ("known failures that passed", self.healed),
            ("known failures that were not played", self.never),
        ]

    def remarks(self) -> list[str]:
        """What the figures do not say."""
        result = self.result
        said = [
            f"without the feature {name}: {', '.join(PORT_FEATURES[name])} not judged"
            + (f", {count} vectors left out" if (count := result.left_out.get(name)) else "")
            for name in PORT_FEATURES
            if name not in result.features
        ]
        said += [f"{name} is listed as a known failure and passed: take it out of the list" for name in self.healed]
        said += [f"{name} is listed as a known failure and was not played" for name in self.never]
        if self.slow:
            said.append("slow: failed with the short silence, and not with the long one; give a longer --settle")
        if result.skipped:
            said.append(f"{result.skipped} cases were not begun: out of time, or no sense in going on")
        if result.farewell:
            said.append(result.farewell)
        return said

    def replay(self, played: Played) -> str:
        """The command that plays one case again."""
        waits, usual = self.options.waits, Waits()
        timeout = "" if waits.timeout == usual.timeout else f" --timeout {waits.timeout:g}"
        settle = "" if waits.settle == usual.settle else f" --settle {1000 * waits.settle:g}"
        return f"kmutex conform{timeout}{settle} --case {shlex.quote(played.case.id)} -- {shlex.join(self.command)}"

    def shown(self) -> list[Played]:
        """What is worth a picture: failures and breaks, the shortest first."""
        worth = [*self.failed, *self.broken, *self.slow]
        return sorted(worth, key=lambda played: (len(played.case.id), played.case.id))


class ClauseRow(NamedTuple):
    """A clause in the table: the vectors that passed and put it to the test, and the cases that show it broken."""

    clause: str
    said: str
    tested: int
    failed: int


def clause_rows(report: ConformReport) -> list[ClauseRow]:
    """A row for each clause that a port is judged by."""
    off = clauses_unjudged(report.result.features)
    failed: Counter[str] = Counter(clause for played in report.failed for clause in played.clauses)
    known: Counter[str] = Counter(clause for played in report.known for clause in played.clauses)
    rows = []
    for clause in CLAUSES:
        if clause in _NOT_HERE:
            continue
        if failed[clause]:
            said = "violated"
        elif clause in off:
            said = "off"
        elif known[clause]:
            said = "known failure"
        elif report.tested[clause] and report.decided:
            said = "holds"
        else:
            said = "inconclusive"
        rows.append(ClauseRow(clause, said, report.tested[clause], failed[clause]))
    return rows


_HEADS = ("clause", "result", "vectors passed", "cases that break it")
_NOT_HERE = ("KM-INTERRUPT", "KM-LOOP", "KM-ALL")
"""The protocol has no words for these."""


def show(report: ConformReport, console: Console) -> None:
    """The report for people."""
    result = report.result
    level = "level 2" if "stat" in result.features else "level 1, a black box"
    console.print(Text(f"{result.name}: {level}, {', '.join(sorted(result.features)) or 'no features'}"))
    table = Table(pad_edge=False, box=SIMPLE_HEAD)
    for head in _HEADS:
        table.add_column(head, no_wrap=True, justify="left" if head in _HEADS[:2] else "right")
    styles = {"violated": "bold red", "holds": "green", "off": "dim"}
    for row in clause_rows(report):
        table.add_row(
            row.clause,
            Text(row.said, style=styles.get(row.said, "yellow")),
            f"{row.tested or '-'}",
            f"{row.failed or '-'}",
        )
    console.print(table)
    for remark in report.remarks():
        console.print(Text(remark, style="dim"), soft_wrap=True)
    shown = report.shown()
    for played in shown[:MOST_SHOWN]:
        console.print()
        console.print(
            Text(f"{', '.join(played.clauses) or played.verdict.value}: {played.message}", style="bold red"),
            soft_wrap=True,
        )
        if played.events:
            console.print(Text(timeline(played.events)), soft_wrap=True)
        console.print("replay it with:", style="dim")
        console.print(Text(report.replay(played)), soft_wrap=True)
    if len(shown) > MOST_SHOWN:
        console.print(f"\n{len(shown) - MOST_SHOWN} more; --html, --json or --junit FILE has them all")
    console.print()
    console.print(Text(report.summary, style=_STYLE[report.exit_status]), soft_wrap=True)


def as_json(report: ConformReport) -> str:
    """The report for programs; the form is in docs/conform.md."""
    result = report.result
    body: dict[str, Any] = {
        "format": "kmutex-conform/1",
        "adapter": report.command,
        "name": result.name,
        "features": sorted(result.features),
        "exit": report.exit_status,
        "verdict": _WORDS[report.exit_status],
        "violated": report.violated,
        "vectors": len(result.vectors),
        "random": len(result.random),
        "seed": report.options.seed,
        "passed": report.passed,
        "skipped": result.skipped,
        "left_out": result.left_out,
        "seconds": round(result.seconds, 3),
        "clauses": {
            row.clause: {"result": row.said, "vectors": row.tested, "broken_by": row.failed}
            for row in clause_rows(report)
        },
        "remarks": report.remarks(),
        "known": [_as_json(report, played) for played in report.known],
        "cases": [_as_json(report, played) for played in report.shown()],
    }
    return json.dumps(body, indent=2) + "\n"


def _as_json(report: ConformReport, played: Played) -> dict[str, Any]:
    return {
        "case": played.case.id,
        "verdict": played.verdict.value,
        "clauses": list(played.clauses),
        "message": played.message,
        "picture": timeline(played.events),
        "replay": report.replay(played),
    }


def as_junit(report: ConformReport) -> str:
    """A test case for each that was played: failed is a failure, broken and slow are errors, known ones skipped."""
    result = report.result
    cases = result.played
    if result.smaller is not None:
        cases = [*cases, result.smaller]
    bad = [played for played in cases if played.verdict in (CaseVerdict.BROKEN, CaseVerdict.SLOW)]
    suite = ElementTree.Element(
        "testsuite",
        name=f"kmutex conform {result.name}",
        tests=str(len(cases) + len(report.healed)),
        failures=str(sum(p.verdict is CaseVerdict.FAILED for p in cases) - len(report.known) + len(report.healed)),
        errors=str(len(bad)),
        skipped=str(len(report.known)),
    )
    for played in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=" ".join(played.clauses) or "-", name=played.case.id)
        text = f"{timeline(played.events)}\nreplay: {report.replay(played)}"
        if played in report.known:
            reason = report.options.known.get(played.case.id, "breaks only what a known failure breaks")
            ElementTree.SubElement(case, "skipped", message=reason)
        elif played.verdict is CaseVerdict.FAILED:
            ElementTree.SubElement(case, "failure", message=played.message).text = text
        elif played in bad:
            ElementTree.SubElement(case, "error", message=f"{played.verdict.value}: {played.message}").text = text
    for name in report.healed:
        case = ElementTree.SubElement(suite, "testcase", classname="known failures", name=name)
        ElementTree.SubElement(case, "failure", message="listed as a known failure, and passed")
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


_STYLE_SHEET = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { text-align: left; padding: .25rem 1rem .25rem 0; border-bottom: 1px solid #8886; }
pre { overflow-x: auto; padding: 1rem; border: 1px solid #8886; border-radius: .5rem; font-size: .85rem; }
.picture { overflow-x: auto; }
article { margin: 2.5rem 0; }
.violated, .bad { color: #c62828; font-weight: 600; }
.holds { color: #2e7d32; }
@media (prefers-color-scheme: dark) { .violated, .bad { color: #ff8a80; } .holds { color: #81c784; } }
"""


def as_html(report: ConformReport) -> str:
    """A page of its own, without anything from elsewhere."""
    result = report.result
    text = html.escape
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    rows = "\n".join(
        f'<tr><td>{row.clause}</td><td class="{row.said.split()[0]}">{row.said}</td>'
        f"<td>{row.tested or '-'}</td><td>{row.failed or '-'}</td></tr>"
        for row in clause_rows(report)
    )
    remarks = "\n".join(f"<li>{text(remark)}</li>" for remark in report.remarks())
    cases = "\n".join(_article(report, played) for played in report.shown())
    known = "\n".join(
        f"<li><code>{text(p.case.id)}</code>: {text(report.options.known.get(p.case.id, p.message))}</li>"
        for p in report.known
    )
    title = f"kmutex conform: {result.name}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{_STYLE_SHEET}</style>
</head>
<body>
<main>
<h1>{text(title)}</h1>
<p><strong class="{"holds" if report.exit_status == 0 else "bad"}">{text(report.summary)}</strong></p>
<p>Features: {text(", ".join(sorted(result.features)) or "none")}. Random sequences from seed {report.options.seed}.
Adapter: <code>{text(shlex.join(report.command))}</code>.</p>
<table>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
{f"<ul>{remarks}</ul>" if remarks else ""}
{cases}
{f"<h2>Known failures</h2><ul>{known}</ul>" if known else ""}
</main>
</body>
</html>
"""


def _article(report: ConformReport, played: Played) -> str:
    text = html.escape
    return f"""<article>
<h2>{text(", ".join(played.clauses) or played.verdict.value)}: <code>{text(played.case.id)}</code></h2>
<p>{text(played.message)}</p>
<div class="picture">{svg(picture(played.events), title=played.message or played.case.id)}</div>
<details><summary>The picture as text</summary><pre>{text(timeline(played.events))}</pre></details>
<p>Play it again: <code>{text(report.replay(played))}</code></p>
</article>"""
