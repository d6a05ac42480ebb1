"""The report of a check of a port, as text, JSON, JUnit XML, TAP and HTML."""

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
from kmutex._text import counted
from kmutex.conform.known_failures import listing
from kmutex.conform.player import (
    EARLY,
    PARTS,
    PORT_FEATURES,
    RACES,
    CaseVerdict,
    Played,
    Waits,
    clauses_unjudged,
    lacking,
)
from kmutex.conform.run import ENOUGH, Options, Result
from kmutex.conform.vectors import Vector
from kmutex.engine.timeline import picture, timeline
from kmutex.picture.svg import svg

MOST_SHOWN = 3
"""Failures of the vectors that the text shows with a picture, the shortest first; the files have all."""
_WORDS = {0: "conforms", 1: "violated", 2: "inconclusive", 3: "the adapter failed"}
_STYLE = {0: "green", 1: "bold red", 2: "yellow", 3: "bold red"}


class ConformReport:
    """A result, in the light of known failures."""

    def __init__(self, result: Result, options: Options, command: Sequence[str], vectors: Sequence[Vector]) -> None:
        """Make the report. ``command`` starts the adapter; ``vectors`` are all that were planned."""
        self.result = result
        self.options = options
        self.command = list(command)
        self.vectors = vectors
        by_id = {vector.case.id: vector for vector in vectors}
        table = "stat" in result.features
        passed = [played for played in result.played if played.verdict is CaseVerdict.PASSED]
        self.passed = len(passed)
        self.tested = Counter(
            clause
            for played in passed
            for vector in [by_id.get(played.case.id)]
            if vector is not None
            for clause in (vector.clauses if table else vector.outside)
        )
        """By clause, the vectors that passed and would show, at this level, a known-bad model that breaks it."""
        self.bounds = tuple(map(max, zip(*(played.case.size for played in passed), strict=True))) or (0, 0, 0)
        """The most keys, the most waiters for one key, and the most moves of cases that passed."""
        self.known: list[Played] = []
        self.flaky: list[Played] = []
        self.failed: list[Played] = []
        self.broken: list[Played] = []
        self.slow: list[Played] = []
        for played in result.played:
            if played.verdict is CaseVerdict.PASSED:
                continue
            if result.listed(played, options.flaky):
                self.flaky.append(played)
            elif played.verdict is CaseVerdict.SLOW:
                self.slow.append(played)
            elif result.listed(played, options.known):
                self.known.append(played)
            else:
                # Of a random sequence, the short form.
                short = played is result.whole and result.smaller
                (self.failed if played.verdict is CaseVerdict.FAILED else self.broken).append(short or played)
        self.healed = [played.case.id for played in passed if listing(options.known, played.case.id)]
        """Listed as known failures, and passed."""
        ids = [played.case.id for played in result.played]
        self.never = [
            entry
            for entry, reason in options.known.items()
            if not any(listing({entry: reason}, name) for name in ids) and not entry.startswith("random:")
        ]
        """Listed as known failures, and not played."""

    @property
    def decided(self) -> bool:
        """Whether every planned case has a verdict."""
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
        keys, waiters, moves = self.bounds
        parts = [
            f"{counted(len(result.vectors), 'vector')} and {counted(len(result.random), 'random sequence')}",
            f"{self.passed} passed",
            *(f"{len(cases)} {word}" for word, cases in self._groups() if cases),
        ]
        if result.skipped:
            parts.append(f"{result.skipped} not begun")
        bounds = f"up to {counted(keys, 'key')}, {counted(waiters, 'waiter')} and {counted(moves, 'move')}"
        said = f"{_WORDS[self.exit_status]}{names}: {', '.join(parts)}, {result.seconds:.1f} s; {bounds}"
        whys: dict[str, str] = {}
        for clause, why in self.unjudged().items():
            whys[why] = f"{whys[why]}, {clause}" if why in whys else clause
        return f"{said}; not judged: {', '.join(f'{clauses} ({why})' for why, clauses in whys.items())}"

    def unjudged(self) -> dict[str, str]:
        """By clause that is neither said to hold nor violated, or part of one, why."""
        features = self.result.features
        lacks = {clause: name for name, clauses in PORT_FEATURES.items() if name not in features for clause in clauses}
        shown = {clause for vector in self.vectors for clause in vector.clauses}
        outside = {clause for vector in self.vectors for clause in vector.outside}
        found = {}
        for row in clause_rows(self):
            if row.said in ("holds", "violated", "known failure"):
                continue
            if row.clause in lacks:
                found[row.clause] = f"no {lacks[row.clause]}"
            elif row.clause in self.options.without:
                found[row.clause] = "--without"
            elif row.tested:
                found[row.clause] = "not every case came to an end"
            elif "stat" not in features and row.clause in shown - outside:
                found[row.clause] = "only stat shows it"
            else:
                found[row.clause] = "no case that tests it passed"
        found |= dict.fromkeys(_NOT_HERE, "no words in the protocol")
        tried = {name for played in self.result.played for name in played.case.needs} | {"token"}
        for name, part in PARTS.items():
            if name not in features:
                found[part] = f"no {name}"
            elif name not in tried:
                found[part] = "no case that tests them was played"
        return found

    def _groups(self) -> list[tuple[str, Sequence[object]]]:
        return [
            ("failed", self.failed),
            ("known failures", self.known),
            ("flaky, as listed", self.flaky),
            ("slow", self.slow),
            ("on which the adapter broke", self.broken),
            ("known failures that passed", self.healed),
            ("known failures that were not played", self.never),
        ]

    def remarks(self) -> list[str]:
        """Remarks in addition to the figures."""
        result = self.result
        said = [
            f"without the feature {name}: {lacking(name)} not judged"
            + (f", {count} vectors left out" if (count := result.left_out.get(name)) else "")
            for name in PORT_FEATURES
            if name not in result.features
        ]
        said += [f"{clause} was shown broken {ENOUGH} times, and not asked for after that" for clause in result.broken]
        left = Counter(reason for reason in result.unplayed.values() if not reason.startswith(("needs ", "not begun")))
        said += [f"{count} vectors: {reason}" for reason, count in left.items()]
        if "cancel" in result.features and len(result.features & set(RACES)) != 1:
            said.append("KM-RACE: not one of keep and pass is declared, so either was right each time")
        if "done" in result.features and len(result.features & set(EARLY)) != 1:
            said.append("KM-CANCEL: not one of take and refuse is declared, so either was right each time")
        said += [f"{name} is listed as a known failure and passed: take it out of the list" for name in self.healed]
        said += [f"{name} is listed as a known failure and was not played" for name in self.never]
        if self.slow:
            said.append("slow: failed, and not when it was played again, alone and with a longer silence")
            said.append("give a longer --settle, or --jobs 1 where adapters lock the same thing")
        if result.skipped:
            said.append(f"{result.skipped} cases were not begun: out of time, or no sense in going on")
        if result.farewell:
            said.append(result.farewell)
        return said

    def replay(self, played: Played) -> str:
        """Return the command that replays one case."""
        waits, usual = self.options.waits, Waits()
        timeout = "" if waits.timeout == usual.timeout else f" --timeout {waits.timeout:g}"
        settle = "" if waits.settle == usual.settle else f" --settle {1000 * waits.settle:g}"
        return f"kmutex conform{timeout}{settle} --case {shlex.quote(played.case.id)} -- {shlex.join(self.command)}"

    def shown(self) -> list[Played]:
        """The cases that are shown with a timeline: failures and broken adapters, the shortest first."""
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
    off = clauses_unjudged(report.result.features) | report.options.without
    failed: Counter[str] = Counter(clause for played in report.failed for clause in played.clauses)
    listed = (*report.known, *report.flaky)
    known: Counter[str] = Counter(clause for played in listed for clause in played.clauses)
    rows = []
    for clause in CLAUSES:
        if clause in _NOT_HERE:
            continue
        if failed[clause]:
            said = "violated"
        elif clause in off:
            said = "off"
        elif known[clause]:
            said = "known failure"  # Also a flaky one.
        elif report.tested[clause] and report.decided:
            said = "holds"
        else:
            said = "inconclusive"
        rows.append(ClauseRow(clause, said, report.tested[clause], failed[clause]))
    return rows


_HEADS = ("clause", "result", "vectors passed", "cases that break it")
_NOT_HERE = ("KM-INTERRUPT", "KM-LOOP", "KM-ALL")
"""Clauses that the protocol can't test."""


def show(report: ConformReport, console: Console) -> None:
    """Print the report."""
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
    """Return the report as JSON, as docs/conform.md describes."""
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
        "unplayed": result.unplayed,
        "bounds": dict(zip(("keys", "waiters", "moves"), report.bounds, strict=True)),
        "unjudged": report.unjudged(),
        "jobs": result.jobs,
        "seconds": round(result.seconds, 3),
        "clauses": {
            row.clause: {"result": row.said, "vectors": row.tested, "broken_by": row.failed}
            for row in clause_rows(report)
        },
        "remarks": report.remarks(),
        "known": [_as_json(report, played) for played in report.known],
        "flaky": [_as_json(report, played) for played in report.flaky],
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


class _Line(NamedTuple):
    """A case in a report for CI. how: passed, failed, error, or skipped; why: one line, "" where it passed."""

    group: str
    name: str
    how: str
    why: str
    clauses: tuple[str, ...]
    text: str
    seconds: float


def _lines(report: ConformReport) -> list[_Line]:
    """Every case, played or not."""
    result, options = report.result, report.options
    vectors = {id(played) for played in result.vectors}
    listed = {id(played) for played in (*report.known, *report.flaky)}
    lines = []
    for played in result.played:
        group = "vectors" if id(played) in vectors else "random"
        how, why, shown = "passed", "", played
        if id(played) in listed:
            how, why = "skipped", result.listed(played, {**options.known, **options.flaky})
        elif played.verdict is not CaseVerdict.PASSED:
            shown = result.smaller if played is result.whole and result.smaller is not None else played
            how = "failed" if played.verdict is CaseVerdict.FAILED else "error"
            why = shown.message if how == "failed" else f"{shown.verdict.value}: {shown.message}"
        elif played.case.id in report.healed:
            how, why = "failed", "listed as a known failure, and passed"
        text = f"{timeline(shown.events)}\nreplay: {report.replay(shown)}" if how in ("failed", "error") else ""
        lines.append(_Line(group, played.case.id, how, why, shown.clauses, text, played.seconds))
    lines += [_Line("vectors", name, "skipped", why, (), "", 0.0) for name, why in result.unplayed.items()]
    return lines


def as_junit(report: ConformReport) -> str:
    """A test case for each: failed is a failure, broken and slow are errors; listed and unplayed ones are skipped."""
    lines = _lines(report)
    count = Counter(line.how for line in lines)
    suite = ElementTree.Element(
        "testsuite",
        name=f"kmutex conform {report.result.name}",
        tests=str(len(lines)),
        failures=str(count["failed"]),
        errors=str(count["error"]),
        skipped=str(count["skipped"]),
        time=f"{report.result.seconds:.3f}",
    )
    for line in lines:
        of = {"classname": f"kmutex.{line.group}", "name": line.name, "time": f"{line.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", of)
        if line.how != "passed":
            kind = {"failed": "failure"}.get(line.how, line.how)
            found = ElementTree.SubElement(case, kind, message=line.why)
            if line.text:
                found.set("type", " ".join(line.clauses) or "adapter")
                found.text = line.text
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def as_tap(report: ConformReport) -> str:
    """The Test Anything Protocol, version 14: the listed ones are TODO, those that were not played SKIP."""
    lines = _lines(report)
    said = ["TAP version 14", f"1..{len(lines)}"]
    for number, line in enumerate(lines, 1):
        bad = line.how in ("failed", "error") or (line.how == "skipped" and line.name not in report.result.unplayed)
        mark = "" if line.how != "skipped" else f" # {'TODO' if bad else 'SKIP'} {line.why}"
        said.append(f"{'not ok' if bad else 'ok'} {number} - {line.group} {line.name}{mark}")
        if line.text:
            said += [
                "  ---",
                f"  message: {json.dumps(line.why)}",
                f"  clauses: {json.dumps(line.clauses)}",
                "  text: |",
            ]
            said += [f"    {row}" for row in line.text.splitlines()]
            said += [f"  duration_ms: {1000 * line.seconds:.0f}", "  ..."]
    return "\n".join(said) + "\n"


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
    """Return the report as one page that loads nothing."""
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
    listed = {**report.options.known, **report.options.flaky}
    known = "\n".join(
        f"<li><code>{text(p.case.id)}</code>: {text(result.listed(p, listed))}</li>"
        for p in (*report.known, *report.flaky)
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
