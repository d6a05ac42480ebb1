"""The report: one block for each cause, one matrix, and the forms for programs. No subject is put to work here."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from kmutex.engine.explorer import parse_schedule
from kmutex.engine.harness import Harness
from kmutex.engine.run_judge import Event
from kmutex.engine.timeline import timeline
from kmutex.testing import CLAUSES
from kmutex.verify import formats
from kmutex.verify.causes import causes, same_cause
from kmutex.verify.evidence import Result, Row, Violation, shared
from kmutex.verify.report import Report, show, show_violation, worst
from tests.lockers import threads_bad

CALL = formats.Call("kmutex verify m:F --seed 7", 7, 2, 12.5)


harness = cache(Harness)


def violation(make: Any, schedule: str) -> Violation:
    """What the run shows of the locker."""
    bench = harness(make)
    with bench.control():
        (found, *_) = bench.explorer.again(parse_schedule(schedule)).found.values()
    finding = found.finding
    return Violation(
        finding.clauses,
        finding.message,
        schedule,
        timeline(finding.events),
        finding.symptom,
        finding.events,
        f"{threads_bad.__file__}:12",
    )


EVICTED = violation(threads_bad.EvictWithWaiters, "0+a | 1+a | 0-a @locks")
TWO_HOLDERS = violation(threads_bad.EvictWithWaiters, "0+a | 1+a | 0-a 2?a @locks 0:1")
LOST_UNLOCK = violation(threads_bad.EvictWithWaiters, "0+a 1+a @locks")
KEPT = violation(threads_bad.NeverEvicts, "0+a-a @locks")
KEPT_BY_A_WAITER = violation(threads_bad.CancelKeepsCount, "0+a | 1~a | c1 | 0-a @locks")
STRAY = violation(threads_bad.StrayUnlockAccepted, "0xa @locks")


def row(clause: str, result: Result, method: str = "interleavings at locks", **more: Any) -> Row:
    found = {"bound": "3 clients, 1 key, 60 runs, seed 7", "cases": 5, "seconds": 2.0, "subject": "m:F", **more}
    return Row(clause=clause, result=result, method=method, **found)


def report(*rows: Row, **more: Any) -> Report:
    return Report("m:F", rows, **{"options": " --without loop", **more})


BROKEN = report(
    row("KM-EXCL", Result.VIOLATED, violations=(TWO_HOLDERS,), detail=TWO_HOLDERS.message),
    row("KM-REF", Result.VIOLATED, violations=(EVICTED, LOST_UNLOCK), detail=EVICTED.message),
    row("KM-IDLE", Result.HOLDS, cases=12_345),
    row("KM-IDLE", Result.VIOLATED, "memory", violations=(KEPT,), detail=KEPT.message),
    row("KM-LIVE", Result.INCONCLUSIVE, "interleavings at locks, plain", detail="3 runs had no end"),
    row("KM-LOOP", Result.NOT_APPLICABLE, "-", bound="-", detail="for asyncio only", seconds=0.0),
    row("-", Result.NOTED, "chance", bound="-", detail="not run: the time was over", seconds=0.0),
)


def shown(some: Report) -> str:
    """As it is printed on a wide terminal."""
    out = io.StringIO()
    show(Console(file=out, width=200), some, footer="2.0 s")
    return out.getvalue()


# -- causes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("other", [TWO_HOLDERS, LOST_UNLOCK], ids=["EXCL", "LIVE"])
def test_what_one_mistake_breaks_is_one_cause(other: Violation) -> None:
    """KM-REF, KM-EXCL, KM-LIVE: the entry that is gone, a second holder and an unlock that raises."""
    assert same_cause(EVICTED, other)
    (cause,) = causes([other, EVICTED])
    assert cause.shown is EVICTED
    assert set(cause.clauses) == {*EVICTED.clauses, *other.clauses}


def test_two_mistakes_are_two_causes() -> None:
    """KM-IDLE, KM-CANCEL, KM-UNHELD, a refusal beside KM-REF: none explains another."""
    refused = replace(STRAY, clauses=("KM-EXPIRED",), message="client 0 tried a, which was free, and was refused")
    every = [STRAY, KEPT, KEPT_BY_A_WAITER, EVICTED, refused]
    assert KEPT_BY_A_WAITER.clauses[0] == "KM-CANCEL"
    assert len(causes(every)) == 5
    assert not any(same_cause(one, other) for one in every for other in every if one is not other)


def test_what_was_shown_stands_for_its_cause() -> None:
    """Also where a shorter run of the same comes later."""
    (cause,) = causes([EVICTED], shown=[TWO_HOLDERS])
    assert cause.shown is TWO_HOLDERS
    assert cause.clauses[: len(TWO_HOLDERS.clauses)] == list(TWO_HOLDERS.clauses)


@pytest.mark.parametrize("others", [0, 7])
def test_a_run_that_contains_a_broken_one_shows_nothing_new(others: int) -> None:
    """A stray unlock after the same three calls, which are broken already, whatever the clients are called, and however
    many others wait."""
    swapped = tuple(event._replace(client={0: 2, 1: 0}.get(event.client, event.client)) for event in EVICTED.events)
    waiting = tuple(Event(3 + number, "lock b ...") for number in range(others))
    events = (*waiting, *swapped, *STRAY.events)
    longer = replace(EVICTED, clauses=("KM-ATOMIC",), events=events, schedule="0+a @locks")
    assert same_cause(EVICTED, longer)
    assert not same_cause(EVICTED, replace(longer, events=STRAY.events))


# -- for a reader ------------------------------------------------------------------------------------------------------


def test_the_report_fits_80_columns_and_has_one_block_for_each_cause() -> None:
    """Commands and paths are not broken, for they are copied."""
    lines = shown(BROKEN).splitlines()
    assert [line for line in lines if len(line) > 80 and not line.startswith(("replay:", "code:"))] == []
    assert sum(line.startswith("replay: ") for line in lines) == 2
    at = lines.index("Broken by the same cause as KM-REF:")
    assert lines[at + 1] == f"  KM-EXCL: {TWO_HOLDERS.message}"
    assert " ".join(lines[-2:]).startswith("violated (KM-EXCL, KM-IDLE, KM-REF): of 5 clauses, 3 violated, 1 inconcl")


def test_the_matrix_has_each_clause_by_each_method() -> None:
    """A number for what holds, a sign for what does not, and the bound of each method below."""
    said = shown(BROKEN)
    line = {words[0]: words[1:] for words in map(str.split, said.splitlines()) if words and words[0] in CLAUSES}
    assert line["KM-EXCL"] == ["violated", "X", "-", "-"]
    assert line["KM-IDLE"] == ["violated", "12k", "X", "-"]
    assert line["KM-LIVE"] == ["inconclusive", "-", "-", "?"]
    assert line["KM-LOOP"] == ["not", "applicable", "for", "asyncio", "only"]
    for number, method in enumerate(("interleavings at locks", "memory", "interleavings at locks, plain"), 1):
        assert re.search(rf"^ {number}  {method}, \d+\.\d s: 3 clients, 1 key", said, re.MULTILINE)
    assert "not run: the time was over: chance" in said
    assert "inconclusive: 3 runs had no end (KM-LIVE)" in said


def test_what_was_run_of_a_method_keeps_its_number() -> None:
    """Where the rest was not run."""
    rest = row("KM-EXCL", Result.INCONCLUSIVE, bound="-", cases=0, detail="7 programs were not run")
    words = next(
        line.split() for line in shown(report(row("KM-EXCL", Result.HOLDS), rest)).splitlines() if "EXCL" in line
    )
    assert words == ["KM-EXCL", "inconclusive", "5"]


def test_what_was_told_is_not_told_again() -> None:
    lines = shown(replace(BROKEN, told=(EVICTED, KEPT))).splitlines()
    assert not any(line.startswith("replay: ") for line in lines)


UNFAIR = replace(KEPT, clauses=("KM-HANDOFF", "KM-FIFO"), message="client 0, who came new, got a")


def test_what_is_not_promised_has_its_run_and_does_not_count() -> None:
    """KM-FIFO and KM-HANDOFF, one cause: a block where nothing else is wrong, a line beside a violation."""
    loose = [row(name, Result.NOT_PROMISED, violations=(UNFAIR,)) for name in ("KM-FIFO", "KM-HANDOFF")]
    kept = report(row("KM-EXCL", Result.HOLDS), *loose)
    said = shown(kept)
    assert kept.status == 0
    assert f"KM-HANDOFF, KM-FIFO, not promised: {UNFAIR.message}" in " ".join(said.split())
    assert said.count("replay: ") == 1
    assert "Broken and not promised, so it does not count: KM-FIFO, KM-HANDOFF\n" in said
    beside = shown(replace(BROKEN, rows=(*BROKEN.rows, *loose)))
    assert beside.count("replay: ") == 2
    assert "Broken and not promised, so it does not count: KM-FIFO, KM-HANDOFF\n" in beside


def test_a_block_has_the_sentence_then_the_timeline_then_the_place_and_the_replay() -> None:
    out = io.StringIO()
    show_violation(Console(file=out, width=200), BROKEN, "m:F", EVICTED)
    first, *rest = out.getvalue().strip().split("\n\n")
    assert first == f"KM-REF: {EVICTED.message}"
    assert rest[0] == EVICTED.picture
    assert rest[1].splitlines() == [
        "code:   tests/lockers/threads_bad.py:12",
        "replay: kmutex verify m:F --without loop --replay '0+a | 1+a | 0-a @locks'",
        "clause: kmutex explain KM-REF",
    ]


@pytest.mark.parametrize(("statuses", "result"), [([0, 0], 0), ([0, 2], 2), ([2, 3, 0], 3), ([0, 2, 3, 1], 1), ([], 2)])
def test_of_several_the_worst_counts(statuses: Sequence[int], result: int) -> None:
    assert worst(statuses) == result


# -- for programs ------------------------------------------------------------------------------------------------------


def test_names_in_junit_are_the_same_in_each_run() -> None:
    """No count and no seed; the bound, which has them, stands in the output of the case."""
    suite = ElementTree.fromstring(formats.as_junit([BROKEN]).encode())[0]
    other = report(*(replace(one, bound="4 clients, 900 runs, seed 8", cases=77) for one in BROKEN.rows))
    again = ElementTree.fromstring(formats.as_junit([other]).encode())[0]
    names = [(case.get("classname"), case.get("name")) for case in suite]
    assert names == [(case.get("classname"), case.get("name")) for case in again]
    assert not any(re.search(r"\d", f"{name}") for _, name in names)
    assert "seed 7" in str(suite[0].findtext("system-out"))


def test_a_failure_in_junit_has_its_place_and_the_whole_command() -> None:
    suite = ElementTree.fromstring(formats.as_junit([BROKEN]).encode())[0]
    case = next(case for case in suite if case.get("classname") == "KM-REF")
    assert (case.get("file"), case.get("line")) == ("tests/lockers/threads_bad.py", "12")
    text = str(case.findtext("failure"))
    assert "kmutex verify m:F --without loop --replay '0+a | 1+a | 0-a @locks'" in text
    assert EVICTED.picture in text


def test_each_second_is_counted_once() -> None:
    """28 s of one method in two processes are 14 s of the real time, whatever number of clauses it speaks of."""
    rows = shared([row(clause, Result.HOLDS, seconds=28.0) for clause in CLAUSES], workers=2)
    suites = ElementTree.fromstring(formats.as_junit([report(*rows)]).encode())
    assert sum(float(str(case.get("time"))) for case in suites.iter("testcase")) == pytest.approx(14, abs=0.02)
    assert float(str(suites[0].get("time"))) == pytest.approx(14, abs=0.02)


def test_a_subject_that_failed_is_an_error_in_each_form() -> None:
    failed = Report("m:G", failed="there is no module 'm' here")
    body = json.loads(formats.as_json([BROKEN, failed], CALL))
    assert (body["exit"], body["verdict"], body["failed"]) == (1, "violated", {"m:G": failed.failed})
    assert body["subjects"] == ["m:F", "m:G"]
    assert json.loads(formats.as_json([failed], CALL))["verdict"] == "failed"
    suites = ElementTree.fromstring(formats.as_junit([BROKEN, failed]).encode())
    assert [suite.get("errors") for suite in suites] == ["1", "1"]
    (invocation,) = json.loads(formats.as_sarif([failed], CALL))["runs"][0]["invocations"]
    assert invocation["executionSuccessful"] is False
    assert failed.failed in invocation["toolExecutionNotifications"][0]["message"]["text"]


def test_an_annotation_is_one_line_with_its_place() -> None:
    """What ends a property or a line for GitHub is escaped."""
    odd = replace(EVICTED, message="50% of it:\nodd, or not")
    line = formats.annotation(BROKEN, "m:F", odd)
    head, _, words = line.removeprefix("::").partition("::")
    assert head == "error file=tests/lockers/threads_bad.py,line=12,title=KM-REF (m%3AF)"
    assert words.startswith("50%25 of it:%0Aodd, or not%0Akmutex verify m:F ")
    assert "\n" not in line


def valid_sarif(text: str) -> dict[str, Any]:
    """The one run of a log that has what SARIF 2.1.0 requires of the parts that are used here."""
    log = json.loads(text)
    assert log.keys() == {"version", "runs"}
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert driver["name"]
    rules = [rule["id"] for rule in driver["rules"]]
    assert len(set(rules)) == len(rules)
    assert all(rule["shortDescription"]["text"] for rule in driver["rules"])
    assert all(uri["uri"].endswith("/") for uri in run["originalUriBaseIds"].values())
    for invocation in run["invocations"]:
        assert isinstance(invocation["executionSuccessful"], bool)
    for result in run["results"]:
        assert result["message"]["text"]
        assert rules[result["ruleIndex"]] == result["ruleId"]
        # A level other than none says that it failed.
        assert (result["kind"], result["level"]) in {("fail", "error"), ("open", "none")}
        flows = [
            step["location"] for flow in result.get("codeFlows", []) for step in flow["threadFlows"][0]["locations"]
        ]
        for location in [*result.get("locations", []), *flows]:
            place = location["physicalLocation"]
            assert place["region"]["startLine"] >= 1
            artifact = place["artifactLocation"]
            assert artifact.get("uriBaseId", "SRCROOT") in run["originalUriBaseIds"]
            assert artifact["uri"].startswith("file:///") != ("uriBaseId" in artifact)
            assert " " not in artifact["uri"]
    found: dict[str, Any] = run
    return found


def test_sarif_has_a_result_for_each_cause() -> None:
    """With file and line, and one that is open for what is not decided."""
    stands = (*EVICTED.events[:3], EVICTED.events[3]._replace(text="  12  x", place=EVICTED.place), *EVICTED.events[3:])
    lined = replace(BROKEN.rows[1], violations=(replace(EVICTED, events=stands),))
    run = valid_sarif(formats.as_sarif([report(BROKEN.rows[0], lined, *BROKEN.rows[2:])], CALL))
    rules = {rule["id"]: rule["shortDescription"]["text"] for rule in run["tool"]["driver"]["rules"]}
    assert set(rules) >= set(CLAUSES)
    assert rules["KM-EXCL"] == "At any time at most one request holds a key."
    assert [(one["ruleId"], one["kind"]) for one in run["results"]] == [
        ("KM-REF", "fail"),
        ("KM-IDLE", "fail"),
        ("KM-LIVE", "open"),
    ]
    (place,) = run["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "tests/lockers/threads_bad.py"
    assert place["physicalLocation"]["region"] == {"startLine": 12}
    assert len(run["results"][0]["codeFlows"][0]["threadFlows"][0]["locations"]) == 1
    assert run["invocations"][0]["exitCode"] == 1


def test_what_is_no_sarif_is_seen() -> None:
    """The known-bad twins of the check above: a rule that is not the result's, a line 0, a level that does not fit."""
    good = formats.as_sarif([BROKEN], CALL)
    valid_sarif(good)
    for old, new in (('"ruleIndex": 1', '"ruleIndex": 2'), ('"startLine": 12', '"startLine": 0'), ('"fail"', '"pass"')):
        assert old in good
        with pytest.raises(AssertionError):
            valid_sarif(good.replace(old, new))
