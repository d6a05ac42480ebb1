"""The checker, clause by clause: broken logs that fail at the right line, correct ones that pass, and the unknown."""

from __future__ import annotations

import io
import json
import re

import pytest

from kmutex.cli.check_trace import picture
from kmutex.picture.text import text
from kmutex.testing import CLAUSES as THEIRS
from kmutex.trace.check import CLAUSES, INVISIBLE, TAIL, Checker, ClauseResult, LogReport
from kmutex.trace.events import Header, LogEvent, TraceFormatError, read_event, read_header, read_object
from kmutex.trace.reader import check
from kmutex.trace.tally import REMEMBERED

WORDS = {
    "rq": "request",
    "wt": "waiting",
    "gr": "grant",
    "rl": "release",
    "rd": "released",
    "un": "unheld",
    "to": ("fail", "timeout"),
    "ca": ("fail", "cancelled"),
    "er": ("fail", "error"),
    "rf": ("fail", "refused"),
    "ir": ("fail", "interrupted"),
    "kp": "kept",
}
WORD = re.compile(r"(?:(\w)/)?([a-z]{2})(\d+)(!?)(?:\*(\d+))?(?:%(\d+))?(?::(\d+))?(?:@(\d+))?")


def log(recorded: str, text: str, key: str = "k", **header: object) -> bytes:
    """A log of one key from words such as ``rq1 gr1 rl1 rd1``, or of several: ``a/rq1 b/rq1``.

    After one: ``!`` is a timeout of 0 or a lease, ``*2`` that it asks for two keys, ``%1`` its event loop, ``:3`` the
    references, ``@1`` the holder; ``end`` and ``end:2`` with its keys.
    """
    lines: list[dict[str, object]] = [{"trace": 1, "recorded": recorded, **header}]
    for word in text.split():
        if word.startswith("end"):
            number = word.partition(":")[2]
            lines.append({"event": "end", **({"keys": int(number)} if number else {})})
            continue
        match = WORD.fullmatch(word)
        assert match is not None, word
        other, name, call, mark, *numbers = match.groups()
        kind = WORDS[name]
        line: dict[str, object] = {"key": other or key, "call": int(call)}
        line.update({"event": kind} if isinstance(kind, str) else {"event": kind[0], "why": kind[1]})
        if mark:
            line.update({"lease": True} if kind in ("release", "unheld") else {"timeout": 0})
        for field, value in zip(("all", "loop", "refs", "holder"), numbers, strict=True):
            if value is not None:
                line[field] = int(value)
        lines.append(line)
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def judged(data: bytes) -> LogReport:
    return check(io.BytesIO(data))


def clause(report: LogReport, name: str) -> ClauseResult:
    return next(row for row in report.clauses if row.clause == name)


BROKEN = [
    # clause, kind, log, line of the first impossible event, whose
    ("KM-EXCL", "outside", "rq1 gr1 rq2 gr2", 5, 2),
    ("KM-EXCL", "outside", "rq1 rq2 gr2 gr1 rl2 rl1", 5, 1),
    ("KM-EXCL", "outside", "rq1 gr1 rl5 rq2 gr2 un5", 6, 2),
    ("KM-FIFO", "outside", "rq9 gr9 rq1 wt1 rq2 rl9 rd9 gr2 rl2 rd2 gr1 rl1 rd1", 12, 1),
    ("KM-INDEP", "outside", "rq1 to1", 3, 1),
    ("KM-INDEP", "outside", "rq1 wt1", 3, 1),
    ("KM-INDEP", "outside", "rq9 gr9 rl9 rd9 rq1 wt1 gr1", 7, 1),
    ("KM-EXPIRED", "outside", "rq1! to1", 3, 1),
    ("KM-UNHELD", "outside", "rq1 gr1 rl1 rd1 rl7 rd7", 7, 7),
    ("KM-TOKEN", "outside", "rq1 gr1 rl1! rd1 rq2 gr2 rl1! rd1", 9, 1),
    ("KM-REF", "outside", "rq1 gr1 rl1 un1", 5, 1),
    ("KM-IDLE", "outside", "rq1 gr1 end", 4, 1),
    ("KM-IDLE", "outside", "rq1 gr1 rl1 rd1 end:1", 6, ""),
    ("KM-LIVE", "outside", "rq1 gr1 rq2 rl1 rd1 end", 7, 2),
    ("KM-LIVE", "outside", "rq1 gr1 rl1 end", 5, 1),
    ("KM-EXCL", "inside", "rq1 gr1 rq2 gr2", 5, 2),
    ("KM-FIFO", "inside", "rq1 gr1 rq2 rq3 rl1 gr3", 7, 3),
    ("KM-HANDOFF", "inside", "rq1 gr1 rq2 rl1 rq3 gr3", 6, 3),
    ("KM-HANDOFF", "inside", "rq1 gr1 rq2 rl1 ca2", 6, 2),
    ("KM-INDEP", "inside", "rq1 rq2 gr1", 3, 2),
    ("KM-INDEP", "inside", "rq1 to1", 3, 1),
    ("KM-EXPIRED", "inside", "rq1! to1", 3, 1),
    ("KM-CANCEL", "inside", "rq1 gr1 rq2 ca2 rl1 gr2", 7, 2),
    ("KM-CANCEL", "inside", "rq1 gr1 rq2 ca2 rl2", 6, 2),
    ("KM-RACE", "inside", "rq1 gr1 rq2 rq3 rl1 gr2 ca2 rq4", 9, 4),
    ("KM-UNHELD", "inside", "rl1", 2, 1),
    ("KM-TOKEN", "inside", "rq1 gr1 rl1 rq2 gr2 rl1!", 7, 1),
    ("KM-REF", "inside", "rq1 gr1 un1", 4, 1),
    ("KM-REF", "inside", "rq1:1 gr1:1 rq2:1", 4, 2),
    ("KM-REF", "inside", "rq1:1 gr1:1 rl1:1", 4, 1),
    ("KM-IDLE", "inside", "rq1 gr1 rl1 end:2", 5, ""),
    ("KM-IDLE", "inside", "rq1 gr1 end", 4, 1),
    ("KM-LIVE", "inside", "rq1 gr1 rq2 end", 5, 2),
    ("KM-EXCL", "inside", "rq1:1@1 gr1:1@1 rq2:2@2", 4, 2),
    ("KM-FIFO", "inside", "rq1:1@1 gr1:1@1 rq2:2@1 rq3:3@1 rl1:2@3", 6, 1),
    ("KM-HANDOFF", "inside", "rq1:1@1 gr1:1@1 rq2:2@1 rl1:1@9", 5, 1),
    ("KM-HANDOFF", "inside", "rq1:1 gr1:1 rq2:2 rl1:0", 5, 1),
    ("KM-EXPIRED", "inside", "rq1 rf1", 3, 1),
    ("KM-RACE", "inside", "rq1 gr1 rq2 kp2", 5, 2),
    ("KM-INTERRUPT", "inside", "rq1 gr1 rq2 ir1 rl1", 6, 1),
    ("KM-INTERRUPT", "inside", "rq1 gr1 rq2 ir2 rl1 gr2", 7, 2),
    ("KM-ATOMIC", "inside", "rq1:1 gr1:1 rq2:2 un9:1", 5, 9),
    ("KM-ATOMIC", "inside", "rq1:1@1 gr1:1@1 rq2:2@1 un9:2@2", 5, 9),
    ("KM-ATOMIC", "inside", "rq1:1 gr1:1 rq2:2 to2:2", 5, 2),
    ("KM-ATOMIC", "inside", "rq1:1@1 gr1:1@1 rq2:2@1 rq3:3@1 ca2:2@3", 6, 2),
    ("KM-LOOP", "inside", "rq1%1 gr1 rq2%2", 4, 2),
    ("KM-LOOP", "inside", "a/rq1%1 a/gr1 b/rq2%2", 4, 2),
    ("KM-ALL", "inside", "a/rq1*2 a/gr1 b/rq2*2 b/gr2 b/rq1*2 a/rq2*2", 6, 1),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq2 b/rq1*2", 7, 1),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 a/rq2 a/rf1", 8, 1),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 b/rq2 b/rf1", 8, 1),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 a/rq2 a/to1 a/rq3", 9, 3),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 a/rl1!", 7, 1),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 b/to1 b/rl9 end", 9, 1),
]
"""Known bad; line 1 is the header."""


@pytest.mark.parametrize(("name", "recorded", "text", "line", "call"), BROKEN)
def test_a_broken_log_fails_at_its_first_impossible_line(
    name: str, recorded: str, text: str, line: int, call: object
) -> None:
    """KM-EXCL, KM-FIFO, KM-HANDOFF, KM-CANCEL, KM-RACE, KM-UNHELD, KM-REF, KM-IDLE, KM-INDEP, KM-TOKEN, KM-LIVE."""
    report = judged(log(recorded, text))
    finding = next(found for found in report.findings if found.clause == name)
    assert report.verdict.value == "fail"
    assert (finding.line, finding.call) == (line, call)
    assert clause(report, name).outcome.value == "violated"
    assert f"line {line}" in clause(report, name).detail
    # Without that line and what follows, nothing is wrong.
    if "end" not in text:
        before = log(recorded, text).splitlines(keepends=True)[: line - 1]
        assert not judged(b"".join(before)).findings


def test_each_clause_that_can_be_judged_has_a_broken_log() -> None:
    """For each kind of log; KM-EXPIRED and the others. The rest is said to be invisible, with a reason."""
    for recorded in ("outside", "inside"):
        have = {name for name, kind, *_ in BROKEN if kind == recorded}
        assert have | set(INVISIBLE[recorded]) == set(CLAUSES)  # type: ignore[index]
        assert all(INVISIBLE[recorded].values())  # type: ignore[index]
    assert not INVISIBLE["inside"]
    assert CLAUSES == THEIRS


HOLDS = [
    # clause, kind, log, how often it was put to the test
    ("KM-EXCL", "outside", "rq1 gr1 rq2 rl1 rd1 gr2 rl2 rd2 end:0", 1),
    ("KM-EXCL", "outside", "rq1 rq2 gr1 rl1 gr2 rd1 rl2 rd2 end:0", 2),
    ("KM-FIFO", "outside", "rq9 gr9 rq1 wt1 rq2 rl9 rd9 gr1 rl1 rd1 gr2 rl2 rd2 end:0", 1),
    ("KM-INDEP", "outside", "rq1 gr1 rq2 to2 rl1 rd1 end:0", 1),
    ("KM-EXPIRED", "outside", "rq1 gr1 rq2! to2 rl1 rd1 end:0", 1),
    ("KM-UNHELD", "outside", "rq1 gr1 rl1 rd1 rl7 un7 end:0", 1),
    ("KM-TOKEN", "outside", "rq1 gr1 rl1! rd1 rq2 gr2 rl1! un1 rl2 rd2 end:0", 1),
    ("KM-IDLE", "outside", "rq1 gr1 rl1 rd1 end:0", 1),
    ("KM-LIVE", "outside", "rq1 gr1 rq2 rl1 rd1 gr2 rl2 rd2 end:0", 1),
    ("KM-EXCL", "inside", "rq1 gr1 rq2 rl1 gr2 rl2 end:0", 1),
    ("KM-FIFO", "inside", "rq1 gr1 rq2 rq3 rl1 gr2 rl2 gr3 rl3 end:0", 1),
    ("KM-HANDOFF", "inside", "rq1 gr1 rq2 rl1 gr2 rq3 rl2 gr3 rl3 end:0", 2),
    ("KM-CANCEL", "inside", "rq1 gr1 rq2 rq3 ca2 rl1 gr3 rl3 end:0", 1),
    ("KM-RACE", "inside", "rq1 gr1 rq2 rq3 rl1 gr2 ca2 gr3 rl3 end:0", 1),
    ("KM-RACE", "inside", "rq1 gr1 ca1 end:0", 1),
    ("KM-EXPIRED", "inside", "rq1 gr1 rq2! to2 rl1 end:0", 1),
    ("KM-UNHELD", "inside", "rq1 gr1 rl1 un7 end:0", 1),
    ("KM-TOKEN", "inside", "rq1 gr1 rl1 rq2 gr2 un1! rl2 end:0", 1),
    ("KM-REF", "inside", "rq1:1 gr1:1 rq2:2 rl1:1 gr2:1 rl2:0 un7:0 end:0", 7),
    ("KM-IDLE", "inside", "rq1 gr1 rl1 end:0", 1),
    ("KM-LIVE", "inside", "rq1 gr1 rq2 rl1 gr2 rl2 end:0", 1),
    ("KM-EXPIRED", "inside", "rq1 gr1 rq2 rf2 rl1 end:0", 1),
    ("KM-RACE", "inside", "rq1 gr1 rq2 rl1 gr2 kp2 rl2 end:0", 1),
    ("KM-INTERRUPT", "inside", "rq1 gr1 rq2 rq3 ir2 ir1 gr3 rl3 end:0", 2),
    ("KM-ATOMIC", "inside", "rq1:1@1 gr1:1@1 rq2:2@1 un9:2@1 rq3:3@1 ca2:2@1 rl1:1@3 gr3:1@3 ir3:0 end:0", 3),
    ("KM-LOOP", "inside", "rq1%1 gr1 rl1%1 rq2%2 gr2 rl2%2 rq3%1 gr3 rl3%1 end:0", 2),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 a/rq2 b/rl9 b/gr1 a/rl1! a/gr2 b/rl1! a/rl2 end:0", 1),
    ("KM-ALL", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 a/rq2 a/to1 a/gr2 a/rl2 b/to1 b/rl9 end:0", 1),
    # Of two that overlap at other keys only, none stands behind the other; and a name may be used again.
    ("KM-ALL", "inside", "a/rq1*2 a/gr1 c/rq2 c/gr2 b/rq1*2 b/gr1 a/rl1! b/rl1! c/rl2 a/rq1*1 a/gr1 a/rl1! end:0", 1),
    # Refused in one step; who took one of its keys meanwhile by an unlock of the key is no matter.
    ("KM-EXPIRED", "inside", "b/rq9 b/gr9 a/rq1*2 a/gr1 b/rq1*2 a/rf1 b/rf1 b/rl9 end:0", 1),
    ("KM-ALL", "inside", "a/rq1*2 a/gr1 b/rq1*2 b/gr1 a/rl1 a/un1! b/rl1! end:0", 1),
]


@pytest.mark.parametrize(("name", "recorded", "text", "cases"), HOLDS)
def test_a_correct_log_passes_and_says_how_often_the_clause_was_tried(
    name: str, recorded: str, text: str, cases: int
) -> None:
    """KM-EXCL, KM-FIFO, KM-HANDOFF, KM-CANCEL, KM-RACE, KM-UNHELD, KM-REF, KM-IDLE, KM-TOKEN, KM-LIVE."""
    report = judged(log(recorded, text))
    assert (report.verdict.value, report.findings, report.unknown) == ("pass", (), ())
    row = clause(report, name)
    assert (row.outcome.value, row.judged, row.undecided) == ("holds", cases, 0)


def test_a_free_key_beside_a_held_one_is_granted_at_once() -> None:
    """KM-INDEP, from inside; one key alone does not put it to the test."""
    both = log("inside", "rq1 gr1") + log("inside", "rq2 gr2 rl2", key="other").partition(b"\n")[2]
    assert clause(judged(both), "KM-INDEP").judged == 1
    assert clause(judged(log("inside", "rq1 gr1 rl1")), "KM-INDEP").outcome.value == "not exercised"


def test_what_was_not_exercised_is_no_pass_of_the_clause() -> None:
    report = judged(log("inside", "rq1 gr1 rl1 end"))
    assert report.verdict.value == "pass"
    assert {row.outcome.value for row in report.clauses} == {"not exercised"}
    assert all(row.detail for row in report.clauses)
    outside = judged(log("outside", "rq1 gr1 rl1 rd1 end"))
    assert {row.clause for row in outside.clauses if row.outcome.value == "unknown"} == set(INVISIBLE["outside"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("KM-FIFO", "rq9 gr9 rq1 rq2 rl9 rd9 gr2 rl2 rd2 gr1 rl1 rd1 end:0"),
        ("KM-FIFO", "rq9 gr9 rq1 rq2 wt1 wt2 rl9 rd9 gr2 rl2 rd2 gr1 rl1 rd1 end:0"),
        ("KM-FIFO", "rq9 gr9 rq1 wt1 rq2 rl9 rd9 gr2 rl2 rd2 ca1 end:0"),
        ("KM-INDEP", "rq1 rq2 to1 to2 end:0"),
        ("KM-EXPIRED", "rq1 gr1 rl1 rq2! to2 rd1 end:0"),
        ("KM-HANDOFF", "rq1 gr1 rq2 rl1 rd1 gr2 rl2 rd2 end:0"),
    ],
)
def test_what_cannot_be_seen_from_outside_is_unknown_and_no_violation(name: str, text: str) -> None:
    """KM-FIFO, KM-INDEP, KM-EXPIRED, KM-HANDOFF."""
    report = judged(log("outside", text))
    assert (report.verdict.value, report.findings) == ("pass", ())
    assert clause(report, name).outcome.value == "unknown"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (log("outside", "rq1 gr1")[:-9], "line 3 is cut off"),
        (log("inside", "gr1 rl1"), "lines are missing"),
        (log("outside", "rq1 gr1 rl1 rd1 rd1"), "lines are missing"),
        (log("outside", "rq1 gr1 rl1 rd1", starts="running"), "begins while the system runs"),
        (log("outside", ""), "no event"),
        (log("outside", "rq1 gr1 rl5 rd5 rq2 gr2 rl1 rd1 rl2 rd2"), "may have ended another call"),
        (log("outside", "rq1 gr1 rl5 rq2 gr2"), "has not returned"),
    ],
)
def test_a_log_that_is_not_whole_is_unknown(data: bytes, words: str) -> None:
    report = judged(data)
    assert report.verdict.value == "unknown"
    assert words in "; ".join(report.unknown)
    assert all(row.outcome.value in ("unknown", "not exercised") for row in report.clauses)


def test_numbers_show_that_a_line_is_missing() -> None:
    """And what was live then is not held against the lines that follow."""
    lines = [
        '{"trace": 1, "recorded": "outside"}',
        '{"event": "request", "key": "k", "call": 1, "n": 1}',
        '{"event": "grant", "key": "k", "call": 1, "n": 2}',
        '{"event": "request", "key": "k", "call": 2, "n": 5}',
        '{"event": "grant", "key": "k", "call": 2, "n": 6}',
    ]
    whole = [line.replace('"n": 5', '"n": 3').replace('"n": 6', '"n": 4') for line in lines]
    assert judged("\n".join([*lines, ""]).encode()).verdict.value == "unknown"
    assert judged("\n".join([*whole, ""]).encode()).verdict.value == "fail"


def numbered(data: bytes, start: int = 1) -> bytes:
    first, *rest = data.decode().splitlines()
    lines = [line[:-1] + f', "n": {number}}}' for number, line in enumerate(rest, start)]
    return "\n".join([first, *lines, ""]).encode()


@pytest.mark.parametrize(
    ("recorded", "text"), [("inside", "a/rq9 a/gr9 gr1 a/rq8 a/gr8"), ("outside", "a/rq9 a/gr9 rd1 a/rq8 a/gr8")]
)
def test_where_no_line_is_missing_the_wrong_one_is_named(recorded: str, text: str) -> None:
    """And what is known of other keys stays known: KM-EXCL there is a violation still. Else lines may be missing."""
    report = judged(numbered(log(recorded, text)))
    (why,) = report.unknown
    assert why.startswith("line 4, key 'k', is wrong: ")
    assert why.endswith("; no line is missing, by their numbers")
    assert [finding.clause for finding in report.findings] == ["KM-EXCL"]
    alone = judged(numbered(log(recorded, text.partition(" a/rq8")[0])))
    assert (alone.verdict.value, alone.findings) == ("unknown", ())
    for less in (log(recorded, text), numbered(log(recorded, text), 7)):
        assert "lines are missing" in judged(less).unknown[0]


def test_a_byte_order_mark_is_borne_or_named() -> None:
    """That of UTF-8 says nothing. UTF-16, which some shells write, is named; in the middle it is no JSON."""
    data = log("inside", "rq1 gr1 rl1 end:0")
    assert judged(b"\xef\xbb\xbf" + data) == judged(data)
    for encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(TraceFormatError, match=r"^line 1: not UTF-8 text but UTF-16, by its byte order mark"):
            judged(("\ufeff" + data.decode()).encode(encoding))
    with pytest.raises(TraceFormatError, match=r"^line 2: not JSON"):
        judged(data.replace(b"\n", b"\n\xef\xbb\xbf", 1))


@pytest.mark.parametrize(
    "lines",
    [
        '{"event": "end"}, {"event": "end"}\n\n',
        '{"event": "request", "key": "k"\n"call": 1}\n',
        '{"event": "request", "key": "k", "call": 1, "x": [{}\n{}]}\n{"event": "end"}, {"event": "end"}\n',
        '{"event": "request", "key": "k", "call": 1, "x": "}\n{"}\n',
        '{"event": "request", "key": "k", "call": 1}\r\n[{}]\n',
    ],
)
def test_a_line_is_one_object_though_many_are_read_at_once(lines: str) -> None:
    """Halves of an object, or two of them, in a line are no trace, whatever the lines make together."""
    with pytest.raises(TraceFormatError, match=r"^line [23]: not (a )?JSON"):
        judged(HEAD + lines.encode())


def test_lines_with_objects_within_and_lines_of_any_length_are_read() -> None:
    """Blocks of lines are read in several ways, and give the same, whatever the fields that are ignored."""
    data = log("outside", "rq1 gr1 rl1 rd1 " * 300)
    odd = []
    for number, line in enumerate(data.splitlines()):
        more = b'"%s"' % (b"y" * (97 * number % 60_000)) if number % 7 else b"{}"
        odd.append(line[:-1] + b', "x": ' + more + b"}")
    assert judged(b"\r\n".join([*odd, b""])) == judged(data)


@pytest.mark.parametrize("text", ["rq1 to1 end", "rl7 rd7 end", "rq1 gr1 rl1! rd1 rq2 gr2 rl1! rd1 rl2 rd2 end"])
def test_what_follows_from_nobody_else_is_not_concluded_where_somebody_may_be_unseen(text: str) -> None:
    """KM-INDEP, KM-UNHELD, KM-TOKEN: the same log fails where the locker was idle at its start."""
    assert judged(log("outside", text)).verdict.value == "fail"
    assert judged(log("outside", text, starts="running")).verdict.value == "unknown"


@pytest.mark.parametrize(("recorded", "text"), [("outside", "gr1 rq2 gr2"), ("inside", "gr1 rq2 gr2")])
def test_a_violation_that_is_seen_counts_also_where_others_are_unseen(recorded: str, text: str) -> None:
    """KM-EXCL: two calls that are both seen to hold."""
    report = judged(log(recorded, text, starts="running"))
    assert [(found.clause, found.line) for found in report.findings] == [("KM-EXCL", 4)]


def test_a_log_without_an_end_leaves_its_calls_unfinished() -> None:
    """KM-LIVE is unknown then; the same log with an end violates it."""
    report = judged(log("inside", "rq1 gr1 rq2 rl1 gr2 rq3"))
    assert report.verdict.value == "pass"
    assert clause(report, "KM-LIVE").outcome.value == "unknown"
    assert any("2 calls are unfinished" in note for note in report.notes)
    assert clause(judged(log("inside", "rq1 gr1 rq2 rl1 gr2 rq3 end")), "KM-LIVE").outcome.value == "violated"


def test_a_clock_that_goes_back_is_noted_and_not_judged() -> None:
    lines = log("outside", "rq1 gr1 rl1 rd1").decode().splitlines()
    stamped = [line[:-1] + f', "at": {at}}}' for line, at in zip(lines[1:], (3, 2.5, 4, 1), strict=True)]
    report = judged("\n".join([lines[0], *stamped, ""]).encode())
    assert report.verdict.value == "pass"
    assert report.notes == ('"at" goes backwards in 2 lines',)


def test_after_a_violation_the_key_is_judged_again_once_it_is_idle() -> None:
    """KM-EXCL, KM-UNHELD: the second finding is of its own."""
    report = judged(log("outside", "rq1 gr1 rq2 gr2 rl1 rd1 rl2 rd2 rl7 rd7"))
    assert [(found.clause, found.line) for found in report.findings] == [("KM-EXCL", 5), ("KM-UNHELD", 11)]
    twice = judged(log("outside", "rq1 gr1 rq2 gr2 rl1 rd1 rl2 rd2 rq3 gr3 rq4 gr4"))
    assert [(found.clause, found.line) for found in twice.findings] == [("KM-EXCL", 5)]
    assert any("2 violations in all" in note for note in twice.notes)


def test_the_picture_has_a_lane_for_each_call_and_the_last_lines_only() -> None:
    (finding,) = judged(log("outside", "rq1 gr1 rq2 gr2")).findings
    assert text(picture(finding)).splitlines() == [
        "line  call 1   call 2",
        "----  -------  -------",
        "   2  request  |",
        "   3  grant    |",
        "   4  |        request",
        "   5  |        grant",
    ]
    many = "rq0 gr0 " + " ".join(f"rq{call}" for call in range(1, 60)) + " gr59"
    (finding,) = judged(log("outside", many)).findings
    assert len(finding.events) == TAIL
    assert finding.events[-1].line == finding.line == 63


# -- memory ------------------------------------------------------------------------------------------------------------


def events_of(recorded: str, text: str, key: str = "k", line: int = 2) -> list[LogEvent]:
    first, *rest = log(recorded, text, key=key).splitlines(keepends=True)
    return [
        read_event(line + number, read_object(2, raw), read_header(first).recorded) for number, raw in enumerate(rest)
    ]


@pytest.mark.parametrize(
    ("recorded", "text"),
    [
        ("outside", "rq1 gr1 rq2 ca2 rl7 un7 rl1 rd1"),
        ("inside", "rq1 gr1 rq2 ca2 un7 rl1"),
        ("outside", "rq1 gr1 rq2 gr2 rl1 rd1 rl2 rd2"),
    ],
)
def test_nothing_is_kept_of_keys_that_are_idle(recorded: str, text: str) -> None:
    """After more keys than are remembered, correct or broken, nothing is live; with a call under way, its key is."""
    plain = events_of(recorded, text, "k")
    checker = Checker(Header(recorded, "idle"))  # type: ignore[arg-type]
    for number in range(10_000):
        for event in plain:
            checker.feed(event._replace(key=f"k{number}"))
        assert checker.live_keys == checker.live_calls == 0
    assert checker.report().periods == 10_000
    assert checker.report().most_live_keys == 1
    assert len(checker._tally._failed) <= REMEMBERED
    checker.feed(LogEvent(1, "request", "last", 1))
    assert (checker.live_keys, checker.live_calls) == (1, 1)


def test_what_is_kept_of_a_busy_key_is_its_calls_and_its_tail() -> None:
    """A key that is never idle, with two calls at a time, for 70,000 calls."""
    checker = Checker(Header("inside", "idle"))
    for event in events_of("inside", "rq0 gr0"):
        checker.feed(event)
    for call in range(1, 70_000):
        for line, (kind, whose) in enumerate((("request", call), ("release", call - 1), ("grant", call)), 3 * call):
            checker.feed(LogEvent(line, kind, "k", whose))  # type: ignore[arg-type]
        assert checker.live_calls == 1
    (key,) = checker._keys.values()
    assert len(key.tail) == TAIL
    report = checker.report()
    assert (report.most_live_calls, report.findings) == (2, ())
    assert report.events > 200_000
    assert clause(report, "KM-HANDOFF").judged == 69_999


def test_the_count_of_live_calls_is_right_through_gaps_and_violations() -> None:
    """It is what the judges hold, whatever came."""
    text = "rq1 gr1 rq2 gr2 rq3 rl9 rd9 gr8 ca3 rl1 rd1 rq4 rl2 rd2 gr4 to5 rl8 rd8 rl4 rd4 rq5 gr5 rq6"
    checker = Checker(Header("outside", "idle"))
    for name in ("a", "b"):
        for event in events_of("outside", text, name):
            checker.feed(event)
            assert checker.live_calls == sum(key.judge.live for key in checker._keys.values())
            assert checker._tally.held == sum(
                key.judge.held for key in checker._keys.values() if key.gaps == checker._gaps
            )


def test_a_log_full_of_gaps_is_read_and_says_how_many() -> None:
    """In one sentence; nothing is kept of each."""
    checker = Checker(Header("inside", "idle"))
    for number in range(1000):
        checker.feed(LogEvent(number + 2, "request", f"k{number}", 1, number=2 * number))
    report = checker.report()
    assert report.verdict.value == "unknown"
    assert len(report.unknown) == 1
    assert "998 more such places" in report.unknown[0]
    assert checker.live_calls == sum(key.judge.live for key in checker._keys.values()) == 1000


def test_more_live_calls_than_the_cap_are_unknown() -> None:
    """Also where a violation follows; one that came before stands."""
    data = log("inside", "rq1 gr1 rq2 rq3 rq4 gr4")
    assert check(io.BytesIO(data)).verdict.value == "fail"
    report = check(io.BytesIO(data), most_live=3)
    assert report.verdict.value == "unknown"
    assert "more than 3 calls" in report.unknown[0]


# -- what is no trace --------------------------------------------------------------------------------------------------

HEAD = b'{"trace": 1, "recorded": "outside"}\n'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1: the file is empty"),
        (b"\x00\xff\xfe\x01 binary", "line 1: not UTF-8"),
        (b"hello\n", "line 1: not JSON"),
        (b"[]\n", "line 1: not a JSON object"),
        (b"[" * 60_000 + b"\n", "line 1: not JSON"),
        (b"{}\n", "line 1: no header"),
        (b'{"trace": true, "recorded": "outside"}\n', "line 1: no header"),
        (b'{"trace": 2, "recorded": "outside"}\n', "line 1: trace 2"),
        (b'{"trace": 1}\n', 'line 1: "recorded"'),
        (b'{"trace": 1, "recorded": "inside", "starts": "now"}\n', 'line 1: "starts"'),
        (HEAD + b"\n", "line 2: not JSON"),
        (HEAD + b'{"event": "lock", "key": "k", "call": 1}\n', 'line 2: "event"'),
        (HEAD + b'{"event": ["end"]}\n', 'line 2: "event"'),
        (HEAD + b'{"event": "request", "call": 1}\n', 'line 2: "key"'),
        (HEAD + b'{"event": "request", "key": 1, "call": 1}\n', 'line 2: "key"'),
        (HEAD + b'{"event": "request", "key": "k"}\n', 'line 2: "call"'),
        (HEAD + b'{"event": "request", "key": "k", "call": true}\n', 'line 2: "call"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "at": NaN}\n', 'line 2: "at"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "at": "now"}\n', 'line 2: "at"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "timeout": -1}\n', 'line 2: "timeout"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "lease": 1}\n', 'line 2: "lease"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "refs": "1"}\n', 'line 2: "refs"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "n": -1}\n', 'line 2: "n"'),
        (HEAD + b'{"event": "fail", "key": "k", "call": 1}\n', 'line 2: the "why"'),
        (HEAD + b'{"event": "end", "keys": -1}\n', 'line 2: "keys"'),
        (HEAD + b'{"event": "end"}\n{"event": "end"}\n', "line 3: nothing may come after the end"),
        (HEAD * 2, 'line 2: "event"'),
        (HEAD + b'{"event": "request", "key": "' + b"k" * 70_000 + b'", "call": 1}\n', "line 2: longer than"),
        (HEAD + b"x" * 70_000, "line 2: longer than"),
        (log("outside", "rq1 rq1"), "line 3: call 1 asks again"),
        (log("inside", "rq1 gr1 rq1"), "line 4: call 1 asks again"),
        (log("inside", "rq1 gr1 rd1"), 'line 4: "event"'),
        (log("outside", "rq1 gr1 kp1"), 'line 4: "event"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "all": 0}\n', 'line 2: "all"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "loop": []}\n', 'line 2: "loop"'),
        (HEAD + b'{"event": "request", "key": "k", "call": 1, "holder": true}\n', 'line 2: "holder"'),
        (log("inside", "a/rq1*2 a/gr1 b/rq1*3"), "line 4: call 1 asks for other keys"),
        (log("inside", "a/rq1*1 a/gr1 b/rq1*1"), "line 4: call 1 asks for other keys"),
    ],
    ids=range(38),
)
def test_what_is_no_trace_is_refused_with_its_line(data: bytes, words: str) -> None:
    with pytest.raises(TraceFormatError) as raised:
        judged(data)
    assert words in str(raised.value)


def test_the_last_line_may_lack_its_end() -> None:
    """Where it is whole it counts."""
    assert judged(log("outside", "rq1 gr1 rl1 rd1 end")[:-1]).verdict.value == "pass"


def test_unknown_fields_are_ignored_and_calls_may_be_text() -> None:
    """The text "1" and the number 1 are two calls: KM-EXCL."""
    lines = [
        '{"trace": 1, "recorded": "outside", "host": "a"}',
        '{"event": "request", "key": "\\ud800", "call": 1, "thread": [1]}',
        '{"event": "request", "key": "\\ud800", "call": "1"}',
        '{"event": "grant", "key": "\\ud800", "call": 1}',
        '{"event": "grant", "key": "\\ud800", "call": "1"}',
    ]
    (finding,) = judged("\n".join([*lines, ""]).encode()).findings
    assert (finding.clause, finding.line, finding.call) == ("KM-EXCL", 5, "1")
