"""Reports for programs: JSON, JUnit XML, SARIF, and the annotations of GitHub Actions.

What a dashboard compares from run to run (names, rules, places) contains no counts and no seeds.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from kmutex._clauses import EVERY_CLAUSE
from kmutex._console import version
from kmutex._specs import read
from kmutex.verify.evidence import VERDICT, Result, Row, Violation
from kmutex.verify.report import FAILED, Report, place_of, worst

SARIF = "2.1.0"


class Call(NamedTuple):
    """One call of the command."""

    command: str
    seed: int
    jobs: int
    seconds: float


def as_json(reports: Sequence[Report], call: Call) -> str:
    """Return the rows and the verdict, as docs/verify.md describes."""
    rows = [row for report in reports for row in report.rows]
    status = worst(report.status for report in reports)
    body: dict[str, Any] = {
        "format": "kmutex-verify/1",
        "kmutex": version(),
        "python": sys.version.split()[0],
        "command": call.command,
        "subjects": subjects_of(reports),
        "seed": call.seed,
        "jobs": call.jobs,
        "exit": status,
        "verdict": {**VERDICT, FAILED: "failed"}[status],
        "violated": sorted({row.clause for row in rows if row.result is Result.VIOLATED}),
        "failed": {report.subject: report.failed for report in reports if report.failed},
        "seconds": round(call.seconds, 3),
        "rows": [row for report in reports for row in rows_as_dicts(report)],
    }
    return json.dumps(body, indent=2) + "\n"


def subjects_of(reports: Iterable[Report]) -> list[str]:
    """Return the names of the subjects; rows about the model or proofs belong to their code."""
    found = [report.subject or [row.subject for row in report.rows if ":" in row.subject] for report in reports]
    return list(dict.fromkeys(name for names in found for name in ([names] if isinstance(names, str) else names)))


def rows_as_dicts(report: Report) -> list[dict[str, Any]]:
    """Return the rows for JSON."""
    plain = []
    for row in report.rows:
        body = {**asdict(row), "result": row.result.value, "seconds": round(row.seconds, 3)}
        body["violations"] = [_violation(report, row.subject, violation) for violation in row.violations]
        plain.append(body)
    return plain


def _violation(report: Report, subject: str, violation: Violation) -> dict[str, Any]:
    file, line = place_of(violation) or ("", 0)
    return {
        "clauses": list(violation.clauses),
        "message": violation.message,
        "schedule": violation.schedule,
        "replay": report.replay(subject, violation),
        "picture": violation.picture,
        "file": file,
        "line": line,
    }


def as_junit(reports: Sequence[Report]) -> str:
    """Return a test case for each row: "violated" is a failure, "inconclusive" an error, and rows that are off, not
    promised or not applicable are skipped."""
    suites = ElementTree.Element("testsuites", name="kmutex verify")
    for report in reports:
        for subject, group in groupby(report.rows, key=lambda row: row.subject):
            _suite(suites, report, subject, list(group))
        if report.failed:
            suite = ElementTree.SubElement(
                suites, "testsuite", name=report.subject, tests="1", failures="0", errors="1", skipped="0", time="0.000"
            )
            case = ElementTree.SubElement(suite, "testcase", classname="-", name="put to work", time="0.000")
            ElementTree.SubElement(case, "error", message=report.failed)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def _suite(suites: ElementTree.Element, report: Report, subject: str, rows: Sequence[Row]) -> None:
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        name=subject or "kmutex",
        tests=str(len(rows)),
        failures=str(sum(row.result is Result.VIOLATED for row in rows)),
        errors=str(sum(row.result is Result.INCONCLUSIVE for row in rows)),
        skipped=str(sum(row.result in _SKIPPED for row in rows)),
        time=f"{sum(row.seconds for row in rows):.3f}",
    )
    for row in rows:
        case = ElementTree.SubElement(
            suite, "testcase", classname=row.clause, name=_name(row), time=f"{row.seconds:.3f}"
        )
        place = place_of(row.violations[0]) if row.violations else None
        if place is not None:
            case.set("file", place[0])
            case.set("line", str(place[1]))
        said = f"bound: {row.bound}; cases: {row.cases}"
        if row.result is Result.VIOLATED:
            shown = (f"{v.message}\n{v.picture}\nreplay: {report.replay(subject, v)}" for v in row.violations)
            ElementTree.SubElement(case, "failure", message=row.detail, type=row.clause).text = "\n\n".join(shown)
        elif row.result is Result.INCONCLUSIVE:
            ElementTree.SubElement(case, "error", message=row.detail, type="inconclusive")
        elif row.result in _SKIPPED:
            ElementTree.SubElement(case, "skipped", message=row.detail)
        ElementTree.SubElement(case, "system-out").text = said


def _name(row: Row) -> str:
    """Return a name that is the same in each run, and differs from the row of the part that was run."""
    return f"{row.method}, the rest" if row.bound == "-" and row.result is Result.INCONCLUSIVE else row.method


_SKIPPED = (Result.OFF, Result.NOT_PROMISED, Result.NOT_APPLICABLE)


def annotation(report: Report, subject: str, violation: Violation) -> str:
    """Return one line that GitHub Actions shows at the subject's code."""
    place = place_of(violation)
    where = {"file": place[0], "line": str(place[1])} if place is not None else {}
    title = f"{', '.join(violation.clauses)} ({subject})"
    words = "\n".join(filter(None, [violation.message, report.replay(subject, violation)]))
    return _command("error", {**where, "title": title}, words)


def remark(level: str, title: str, words: str) -> str:
    """Return one line that GitHub Actions shows with the run. ``level`` is error, warning or notice."""
    return _command(level, {"title": title}, words)


def _command(level: str, properties: dict[str, str], words: str) -> str:
    said = ",".join(f"{name}={_escaped(value, more=True)}" for name, value in properties.items())
    return f"::{level} {said}::{_escaped(words)}"


def _escaped(words: str, *, more: bool = False) -> str:
    words = words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return words.replace(":", "%3A").replace(",", "%2C") if more else words


def as_sarif(reports: Sequence[Report], call: Call) -> str:
    """Return SARIF 2.1.0: a rule for each clause, a result for each cause and for each undecided clause."""
    found = [(report, subject, cause) for report in reports for subject, cause in report.causes()]
    results = [_result(report, subject, cause.shown, cause.clauses) for report, subject, cause in found]
    for report in reports:
        results += _undecided(report)
    failed = [
        {"level": "error", "message": {"text": f"cannot verify {report.subject}: {report.failed}"}}
        for report in reports
        if report.failed
    ]
    invocation = {
        "commandLine": call.command,
        "exitCode": worst(report.status for report in reports),
        "executionSuccessful": not failed,
        "toolExecutionNotifications": failed,
    }
    driver = {
        "name": "kmutex",
        "semanticVersion": version(),
        "rules": [
            {"id": clause, "name": words["title"], "shortDescription": {"text": words["statement"]}}
            for clause, words in _words().items()
        ],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [invocation],
        "originalUriBaseIds": {"SRCROOT": {"uri": f"file://{quote(Path.cwd().as_posix().rstrip('/'))}/"}},
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    body = {
        "version": SARIF,
        "runs": [run],
    }
    return json.dumps(body, indent=2) + "\n"


def _words() -> dict[str, dict[str, str]]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    tables = tomllib.loads(read("clauses.toml")).values()
    found = {row["id"]: row for table in tables if isinstance(table, list) for row in table}
    return {clause: found.get(clause, {"title": clause, "statement": clause}) for clause in EVERY_CLAUSE}


def _result(report: Report, subject: str, violation: Violation, clauses: Sequence[str]) -> dict[str, Any]:
    more = [clause for clause in clauses if clause != violation.clauses[0]]
    words = f"{subject}: {violation.message}"
    words += f"\nThe same cause breaks {', '.join(more)}." if more else ""
    words += f"\n\n{violation.picture}" if violation.picture else ""
    words += f"\n\nReplay it: {report.replay(subject, violation)}" if violation.schedule else ""
    body: dict[str, Any] = {
        "ruleId": violation.clauses[0],
        "ruleIndex": EVERY_CLAUSE.index(violation.clauses[0]),
        "level": "error",
        "kind": "fail",
        "message": {"text": words},
        "partialFingerprints": {"kmutexCause/v1": f"{subject} {violation.clauses[0]}"},
        "properties": {"clauses": list(clauses), "schedule": violation.schedule},
    }
    place = place_of(violation)
    if place is not None:
        body["locations"] = [{"physicalLocation": _location(*place)}]
        flow = [
            {
                "location": {
                    "physicalLocation": _location(*(place_of(Violation((), "", place=event.place)) or place)),
                    "message": {"text": f"client {event.client} stands here"},
                }
            }
            for event in violation.events
            if event.place
        ]
        if flow:
            body["codeFlows"] = [{"threadFlows": [{"locations": flow}]}]
    return body


def _location(file: str, line: int) -> dict[str, Any]:
    inside = not os.path.isabs(file)
    artifact = {"uri": quote(file), "uriBaseId": "SRCROOT"} if inside else {"uri": f"file://{quote(file)}"}
    return {"artifactLocation": artifact, "region": {"startLine": line}}


def _undecided(report: Report) -> list[dict[str, Any]]:
    """Return results for inconclusive clauses: they do not pass, so a reader must see them."""
    why: dict[tuple[str, str], str] = {}
    violated = {(row.subject, row.clause) for row in report.rows if row.result is Result.VIOLATED}
    for row in report.rows:
        if row.result is Result.INCONCLUSIVE and (row.subject, row.clause) not in violated:
            why.setdefault((row.subject, row.clause), row.detail)
    return [
        {
            "ruleId": clause,
            "ruleIndex": EVERY_CLAUSE.index(clause),
            "level": "none",
            "kind": "open",
            "message": {"text": f"{subject}: not decided: {detail}"},
        }
        for (subject, clause), detail in why.items()
    ]
