"""The report of a class: a table, JSON, a page for each submission, and the formats of Gradescope and nbgrader.

A page is one file that loads nothing and runs nothing. Everything that a student wrote is plain text in it.
"""

from __future__ import annotations

import csv
import io
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from kmutex.teach.alike import Pair, groups
from kmutex.teach.clauses import clauses
from kmutex.teach.grade_class import FORMAT, Asked, Record
from kmutex.teach.points import Part, Scheme, of_rows, of_tests, score

COLUMNS = (
    *("student", "late", "file", "verdict", "exit", "score", "total", "violated", "open", "reason", "notes", "alike"),
    *("seconds", "page"),
)
NBGRADER = (
    *("assignment", "duedate", "timestamp", "student_id", "last_name", "first_name", "email", "raw_score"),
    *("late_submission_penalty", "score", "max_score"),
)
"""The columns that `nbgrader export` writes."""


class Marked(NamedTuple):
    """A record and its score."""

    record: Record
    parts: list[Part]
    score: float
    total: float

    @property
    def grade(self) -> dict[str, Any]:
        """The answer; empty if there is no answer."""
        return self.record.grade or {}

    @property
    def open(self) -> list[str]:
        """The undecided clauses, or lockers."""
        return [part.name for part in self.parts if part.result in ("inconclusive", "hung", "error")]

    @property
    def page(self) -> str:
        """The path of its page in the folder of the report."""
        return f"pages/{self.record.name}.html"


def marked(record: Record, by: Scheme) -> Marked:
    """Return the record with its score; a submission that was not graded has no points."""
    grade = record.grade
    parts = [] if grade is None else of_tests(grade["lockers"]) if "lockers" in grade else of_rows(by, grade["rows"])
    return Marked(record, parts, score(by, parts), by.total)


def written(
    class_: Sequence[Marked], asked: Asked, pairs: Sequence[Pair], short: Sequence[str], ignored: Sequence[str]
) -> dict[str, str]:
    """Return the text of each file of the report, by its path."""
    others: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        others[pair.one].append(pair.other)
        others[pair.other].append(pair.one)
    files = {
        "grades.csv": _table(COLUMNS, (_row(one, others) for one in class_)),
        "grades.json": _json(_body(class_, asked, pairs, short, ignored)),
        "index.html": _index(class_, asked, pairs),
    }
    files |= {one.page: page(one) for one in class_}
    files |= {f"gradescope/{one.record.name}.json": gradescope(one) for one in class_}
    if any(one.record.assignment for one in class_):
        files["nbgrader.csv"] = _table(NBGRADER, map(_nbgrader_row, class_))
        for one in class_:
            if one.record.assignment and one.record.file:
                notebook = Path(next(iter(one.record.files))).stem
                files[f"feedback/{one.record.name}/{one.record.assignment}/{notebook}.html"] = page(one)
    return files


def _row(one: Marked, others: Mapping[str, list[str]]) -> dict[str, Any]:
    record = one.record
    return {
        "student": record.student,
        "late": "late" if record.late else "",
        "file": record.file,
        "verdict": record.verdict,
        "exit": record.exit,
        "score": one.score,
        "total": one.total,
        "violated": " ".join(one.grade.get("violated", ())),
        "open": " ".join(one.open),
        "reason": record.reason,
        "notes": "; ".join(one.grade.get("notes", ())),
        "alike": "; ".join(others.get(record.student, ())),
        "seconds": record.seconds,
        "page": one.page,
    }


def _nbgrader_row(one: Marked) -> dict[str, Any]:
    return {
        "assignment": one.record.assignment,
        "student_id": one.record.student,
        "raw_score": one.score,
        "late_submission_penalty": 0.0,
        "score": one.score,
        "max_score": one.total,
    }


def _table(columns: Sequence[str], rows: Iterator[dict[str, Any]]) -> str:
    out = io.StringIO()
    table = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        # A spreadsheet would evaluate such a text as a formula.
        table.writerow(
            {
                name: f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t")) else value
                for name, value in row.items()
            }
        )
    return out.getvalue()


def _json(body: dict[str, Any]) -> str:
    return json.dumps(body, indent=2) + "\n"


def _body(
    class_: Sequence[Marked], asked: Asked, pairs: Sequence[Pair], short: Sequence[str], ignored: Sequence[str]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "asked": asdict(asked),
        "alike": [pair._asdict() for pair in pairs],
        "too_short_to_compare": list(short),
        "ignored": list(ignored),
        "submissions": [
            {
                **{name: value for name, value in asdict(one.record).items() if name not in ("source", "key")},
                "score": one.score,
                "total": one.total,
                "parts": [part._asdict() for part in one.parts],
                "page": one.page,
            }
            for one in class_
        ],
    }


def gradescope(one: Marked) -> str:
    """Return results.json, by Gradescope's autograder specification."""
    possible = sum(part.possible for part in one.parts)
    said = {clause: finding for finding in one.grade.get("findings", ()) for clause in finding["clauses"]}
    met = {row["locker"]: row["detail"] for row in one.grade.get("lockers", ())}
    tests = []
    for part in one.parts:
        finding = said.get(part.name)
        shown = f"{finding['message']}\n\n{finding['picture']}" if finding else met.get(part.name, "")
        tests.append(
            {
                "name": _title(part.name),
                "score": round(one.total * part.earned / possible, 2),
                "max_score": round(one.total * part.possible / possible, 2),
                "status": "passed" if part.earned else "failed",
                "output": "\n".join(text for text in (part.result, shown) if text),
                "output_format": "text",
            }
        )
    lines = [one.record.reason or one.record.verdict, *one.grade.get("notes", ()), *one.grade.get("left_out", ())]
    return _json(
        {
            "score": one.score,
            "execution_time": round(one.record.seconds),
            "output": "\n".join(lines),
            "output_format": "text",
            "tests": tests,
        }
    )


def _title(name: str) -> str:
    clause = clauses().get(name)
    return f"{name}: {clause.title}" if clause else name


# ------------------------------------------------------------------------------------------------------------
# Pages

_STYLE = """\
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
pre{font:13px/1.4 ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace;overflow-x:auto;padding:.8rem;\
border:1px solid #8886;border-radius:4px}
table{border-collapse:collapse}
th,td{text-align:left;padding:.2rem .8rem .2rem 0;border-bottom:1px solid #8884;vertical-align:top}
td.number{text-align:right}"""


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n<main>\n{body}\n</main>\n</html>\n"
    )


def page(one: Marked) -> str:
    """Return the page of one submission, for its student."""
    record, grade = one.record, one.grade
    parts = [f"<h1>{escape(record.student)}</h1>"]
    parts.append(f"<p>{escape(record.file or 'no file')}: <strong>{escape(record.verdict)}</strong>, ")
    parts.append(f"{one.score:g} of {one.total:g} points.</p>")
    parts += [f"<p>{escape(line)}</p>" for line in (record.reason, *grade.get("notes", ())) if line]
    if one.open:
        parts.append(f"<p>Not decided, so not earned; please look at it: {escape(', '.join(one.open))}.</p>")
    for finding in grade.get("findings", ()):
        parts.append(f"<h2>{escape(finding['clauses'][0])}: {escape(finding['title'])}</h2>")
        parts.append(f"<p>The contract: {escape(finding['statement'])}</p>")
        parts.append(f"<p>Here: {escape(finding['message'])}</p>")
        parts += [f"<pre>{escape(finding[name])}</pre>" for name in ("picture", "replay") if finding[name]]
        if finding["lesson"] is not None:
            parts.append(f"<p>Read about it: <code>kmutex lesson show {finding['lesson']}</code></p>")
    if one.parts:
        details = {row["locker"]: row["detail"] for row in grade.get("lockers", ())}
        rows = (
            (_title(part.name), part.result, f"{part.earned:g} of {part.possible:g}", details.get(part.name, ""))
            for part in one.parts
        )
        parts += ["<h2>Points</h2>", _rows(("", "result", "weight", ""), rows)]
    if grade.get("left_out"):
        parts.append("<h2>What was left out</h2>")
        parts += [f"<p>{escape(line)}</p>" for line in grade["left_out"]]
    if record.source:
        parts.append("<h2>The code</h2>")
        lines = enumerate(record.source.splitlines(), 1)
        parts.append("<pre>" + "\n".join(f"{number:>4}  {escape(line)}" for number, line in lines) + "</pre>")
    return _document(f"{record.student}: {record.verdict}", "\n".join(parts))


def _rows(head: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return "<table>\n<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + f"</tr>\n{body}\n</table>"


def _index(class_: Sequence[Marked], asked: Asked, pairs: Sequence[Pair]) -> str:
    what = "tests" if asked.tests else "lockers"
    title = f"{len(class_)} submissions: {what}" + (f" of lesson {asked.lesson}" if asked.lesson else "")
    lines = [f"<h1>{escape(title)}</h1>", "<table>", "<tr><th>student<th>file<th>verdict<th>points<th></tr>"]
    for one in class_:
        more = "; ".join(text for text in (one.record.reason, " ".join(one.grade.get("violated", ()))) if text)
        lines.append(
            f'<tr><td><a href="{escape(one.page)}">{escape(one.record.student)}</a><td>{escape(one.record.file)}'
            f"<td>{escape(one.record.verdict)}<td>{one.score:g} of {one.total:g}<td>{escape(more)}</tr>"
        )
    lines.append("</table>")
    if pairs:
        lines.append("<h2>Alike</h2><p>Alike does not mean copied: look at both.</p>")
        alike = ((", ".join(names), f"{least:.0%} or more") for names, least in groups(pairs))
        lines.append(_rows(("", "share"), alike))
    return _document(title, "\n".join(lines))
