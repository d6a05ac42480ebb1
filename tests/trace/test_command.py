"""kmutex check-trace as a user runs it: exit status, words, files; and the page of the format against the code."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import kmutex
import kmutex_model
from kmutex import cli
from kmutex.cli import check_trace as command
from kmutex.trace.check import CLAUSES, INVISIBLE
from kmutex.trace.events import KINDS
from kmutex.trace.reader import EVERY, check

HEAD = '{"trace": 1, "recorded": "outside"}\n'
INSIDE = HEAD.replace("outside", "inside")


def line(event: str, call: object, **more: object) -> str:
    return json.dumps({"event": event, "key": "k", "call": call, **more}) + "\n"


GOOD = HEAD + line("request", 1) + line("grant", 1) + line("release", 1) + line("released", 1) + '{"event": "end"}\n'
BAD = HEAD + line("request", 1) + line("grant", 1) + line("request", 2) + line("grant", 2)


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as done:
        cli.main(["check-trace", *map(str, arguments)])
    out, err = capsys.readouterr()
    return done.value.code, out, err


@pytest.fixture
def written(tmp_path: Path) -> Any:
    def write(data: str | bytes, name: str = "log.ndjson") -> Path:
        path = tmp_path / name
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        return path

    return write


@pytest.mark.parametrize(
    ("data", "status", "last"),
    [
        (GOOD, 0, "pass: 5 events; keys went idle 1 time; at most 1 call and 1 key live at once"),
        (BAD, 1, "fail (KM-EXCL): 4 events"),
        (GOOD[:-4], 2, "unknown: 4 events"),
    ],
)
def test_the_verdict_is_the_exit_status_and_the_last_line(
    data: str, status: int, last: str, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """KM-EXCL is the one that is broken. A file that is not a terminal gets no progress."""
    code, out, err = run(capsys, written(data))
    assert (code, err) == (status, "")
    assert out.splitlines()[-1].startswith(last)
    assert all(f"\n {clause} " in out for clause in CLAUSES)


def test_a_violation_is_shown_with_its_line_and_its_lanes(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """KM-EXCL."""
    _, out, _ = run(capsys, written(BAD))
    assert 'KM-EXCL: line 5, key "k": call 2 got the key while call 1 held it' in out
    assert "   5  |        grant" in out.splitlines()


@pytest.mark.parametrize(
    ("name", "begin"), [("p.svg", "<svg "), ("p.MMD", "sequenceDiagram\n"), ("p.md", "```mermaid\n"), ("p.txt", "line")]
)
def test_the_first_violation_is_drawn(name: str, begin: str, written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """KM-EXCL, with the words of the verdict in the picture; of two violations the one that comes first in the log."""
    log = written(BAD + line("unheld", 1))
    picture = log.with_name(name)
    assert run(capsys, log, "--picture", picture)[0] == 1
    drawn = picture.read_text(encoding="utf-8")
    assert drawn.startswith(begin)
    assert all(words in drawn for words in ("call 1", "call 2", "request", "KM-EXCL: line 5"))
    assert "unheld" not in drawn


def test_without_a_violation_there_is_no_picture(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    log = written(GOOD)
    picture = log.with_name("p.svg")
    code, _, err = run(capsys, log, "--picture", picture)
    assert (code, err) == (0, f"kmutex: {picture}: not written, there is no violation to draw\n")
    assert not picture.exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("p.png", "a picture's name ends in .svg, .mmd, .md or .txt"),
        ("nowhere/p.svg", "there is no such folder"),
        ("log.txt", "this is the log itself"),
    ],
)
def test_a_picture_that_cannot_be_written_is_wrong_usage(
    name: str, words: str, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    log = written(BAD, "log.txt")
    code, out, err = run(capsys, log, "--picture", log.parent / name)
    assert (code, out) == (4, "")
    assert words in err
    assert log.read_text(encoding="utf-8") == BAD


def test_odd_names_are_shown_with_escapes(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever stands in a key or a call: control characters, markup, half of a pair."""
    odd = "\x1b[31m [bold]\n\ud800"
    data = "".join(
        [HEAD, *(line(event, call, key=odd) for call in (odd, 2) for event in ("request", "grant"))]
    ).replace('"key": "k", ', "")
    code, out, _ = run(capsys, written(data))
    assert code == 1
    assert "\x1b" not in out
    assert "call \\x1b[31m [bold]\\n\\ud800" in out


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "line 1: the file is empty"),
        (bytes(range(256)), "line 1: not JSON"),
        (bytes(range(255, 127, -1)), "line 1: not UTF-8"),
        ((HEAD + line("request", "\x1b[31m") * 2).encode(), "line 3: call \\x1b[31m asks again"),
        (b"no trace\n", "line 1: not JSON"),
        (HEAD.encode() + b"x" * 1_000_000, "line 2: longer than"),
        ((GOOD + "{}\n").encode(), 'line 7: "event"'),
    ],
)
def test_what_is_no_trace_is_said_in_one_line(
    data: bytes, words: str, written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 3, and no result is written."""
    code, out, err = run(capsys, written(data), "--json", tmp_path / "result.json")
    assert (code, out) == (3, "")
    assert err.startswith("kmutex: cannot read ")
    assert err.count("\n") == 1
    assert words in err
    assert not (tmp_path / "result.json").exists()


def test_what_can_not_be_read_is_said_in_one_line(
    tmp_path: Path, written: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    packed = gzip.compress(GOOD.encode() * 100, mtime=0)
    for path in (
        tmp_path,
        tmp_path / "missing",
        written("no gzip", "plain.gz"),
        written(packed[:20] + bytes(40) + packed[60:], "damaged.gz"),
    ):
        code, out, err = run(capsys, path)
        assert (code, out, err.count("\n")) == (3, "", 1), (path, out)
        assert err.startswith("kmutex: cannot read ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "FILE"),
        (("a", "b"), "unrecognized"),
        (("a", "--json", "no/such/folder"), "no such folder"),
        (("a", "--nonsense"), "unrecognized"),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, *arguments)
    assert code == 4
    assert words in err


def test_the_log_is_not_overwritten(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(GOOD)
    code, _, err = run(capsys, path, "--json", path)
    assert (code, path.read_text()) == (4, GOOD)
    assert "the log itself" in err
    # A log that is not there is said to be missing, also where the result would replace an older one.
    assert run(capsys, path.with_name("missing"), "--json", path)[0] == 3


def test_a_packed_log(written: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """And one that breaks off, which is unknown."""
    packed = gzip.compress(BAD.encode())
    assert run(capsys, written(packed, "log.gz"))[0] == 1
    long = gzip.compress((HEAD + "".join(line("request", call) for call in range(50_000))).encode())
    code, out, _ = run(capsys, written(long[: len(long) // 2], "cut.gz"))
    assert code == 2
    assert "is cut off" in out


def test_standard_input(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for data, status in ((GOOD, 0), (BAD, 1), ("", 3)):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data.encode())))
        assert run(capsys, "-")[0] == status


FORM = {
    "format": str,
    "file": str,
    "exit": int,
    "verdict": str,
    "events": int,
    "periods": int,
    "most_live_calls": int,
    "most_live_keys": int,
    "seconds": float,
    "unknown": list,
    "notes": list,
    "clauses": list,
    "findings": list,
}
CLAUSE = {"clause": str, "outcome": str, "judged": int, "undecided": int, "detail": str}
FINDING = {"clause": str, "line": int, "key": str, "call": int, "message": str, "picture": str}


@pytest.mark.parametrize(("data", "status"), [(GOOD, 0), (BAD, 1), (GOOD[:-4], 2)])
def test_the_json_has_the_form_that_is_written_down(
    data: str, status: int, written: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "result.json"
    run(capsys, written(data), "--json", path)
    body = json.loads(path.read_text(encoding="utf-8"))
    assert {name: type(value) for name, value in body.items()} == FORM
    assert (body["format"], body["exit"]) == ("kmutex-check-trace/1", status)
    assert [row["clause"] for row in body["clauses"]] == list(CLAUSES)
    assert all({name: type(value) for name, value in row.items()} == CLAUSE for row in body["clauses"])
    assert all({name: type(value) for name, value in found.items()} == FINDING for found in body["findings"])
    assert bool(body["findings"]) == (status == 1)
    assert bool(body["unknown"]) == (status == 2)


# -- progress, and many events -----------------------------------------------------------------------------------------

MANY = 200_000


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A correct log from inside with that many events, on a thousand keys."""
    path = tmp_path_factory.mktemp("many") / "many.ndjson"
    rng = random.Random(7)
    queues: dict[int, list[int]] = {}
    call = written = 0
    with path.open("w", encoding="utf-8") as file:
        file.write(INSIDE)

        def write(event: str, key: int, who: int) -> None:
            file.write(f'{{"event": "{event}", "key": "k{key}", "call": {who}}}\n')

        while written < MANY:
            key = rng.randrange(1000)
            queue = queues.setdefault(key, [])
            holder = queue[0] if queue else 0
            if queue and rng.random() < 0.6:
                write("release", key, queue.pop(0))
            else:
                call += 1
                queue.append(call)
                write("request", key, call)
            written += 1
            if queue and queue[0] != holder:
                write("grant", key, queue[0])
                written += 1
    return path


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.sampled(2)
@pytest.mark.parametrize("quiet", [True, False])
def test_progress_on_a_terminal(
    quiet: bool, many: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The share of the file, events and their rate; --quiet says nothing. The log is checked all the same."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "250")
    code, out, _ = run(capsys, many, *(["--quiet"] if quiet else []))
    assert code == 0
    assert f"pass: {MANY:,}"[:9] in out.splitlines()[-1]
    shown = terminal.getvalue()
    if quiet:
        assert shown == ""
    else:
        assert re.search(r"many\.ndjson: \d+%, [0-9,]+ events, [0-9,]+ a second, [0-9,]+ calls live", shown)


@pytest.mark.long
def test_the_checker_is_told_of_progress_as_it_reads(many: Path) -> None:
    """And does not read ahead of it: the share grows to the end."""
    told: list[tuple[int, int]] = []
    with many.open("rb") as stream:
        report = check(stream, on_progress=lambda lines, checker: told.append((lines, checker.live_keys)))
    assert [lines for lines, _ in told] == list(range(EVERY, MANY + 1, EVERY))
    assert all(keys <= 1000 for _, keys in told)
    assert report.events >= MANY
    assert report.most_live_keys <= 1000


def test_one_wrong_line_among_many_is_found(many: Path) -> None:
    """KM-FIFO, KM-EXCL or another: two neighbours at one key change places, in the midst of a correct log."""
    lines = many.read_bytes().splitlines(keepends=True)
    at = next(
        number
        for number in range(len(lines) // 2, len(lines))
        if b'"release"' in lines[number] and b'"grant"' in lines[number + 1]
    )
    lines[at : at + 2] = lines[at : at + 2][::-1]
    report = check(io.BytesIO(b"".join(lines)))
    assert report.verdict.value == "fail"
    assert report.findings[0].clause == "KM-EXCL"
    assert report.findings[0].line == at + 1


def test_a_reader_that_goes_away_is_no_violation(written: Any) -> None:
    """The status is 141, as for verify, and a sound log in a process of its own gives 0."""
    path = os.pathsep.join(str(Path(str(package.__file__)).parents[1]) for package in (kmutex, kmutex_model))
    arguments = [sys.executable, "-m", "kmutex", "check-trace", str(written(GOOD))]
    environment = {**os.environ, "PYTHONPATH": path}
    done = subprocess.run(arguments, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(arguments, env=environment, stdout=nobody, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


# -- the page ----------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).resolve().parents[2] / "specs" / "trace.md"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def test_the_page_says_what_each_clause_is_judged_by(page: str) -> None:
    """In the order of the contract; "no" or "never" where the checker says that it can't be seen."""
    rows = re.findall(r"^\| (KM-[A-Z]+) \| (.+) \| (.+) \|$", page, re.MULTILINE)
    assert [clause for clause, *_ in rows] == list(CLAUSES)
    for clause, *cells in rows:
        for recorded, cell in zip(("outside", "inside"), cells, strict=True):
            never = re.match(r"no\b", cell) is not None or "never said to hold" in cell
            assert never == (clause in INVISIBLE[recorded]), (clause, recorded)  # type: ignore[index]


def test_the_page_has_every_event_and_field(page: str) -> None:
    fields = ("starts", "n", "at", "why", "timeout", "lease", "refs", "holder", "all", "loop")
    for name in (*KINDS["outside"], *KINDS["inside"], *FORM, *CLAUSE, *FINDING, *fields):
        assert f"`{name}`" in page or f'"{name}"' in page, name
    for recorded, column in (("outside", 1), ("inside", 2)):
        rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", page, re.MULTILINE)
        used = {row[0] for row in rows if row[0] in KINDS["outside"] | KINDS["inside"] and row[column] != "not used"}
        assert used == KINDS[recorded]  # type: ignore[index]
    for status, name in ((0, "pass"), (1, "fail"), (2, "unknown")):
        assert f"| {status} | `{name}` |" in page
        assert command._STATUS[name] == status


def test_the_examples_of_the_page_are_what_they_say(page: str) -> None:
    """KM-EXCL, KM-HANDOFF."""
    blocks = re.findall(r"^```trace (\w+) ?(\S*) ?(\d*)\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 3
    for verdict, clause, number, text in blocks:
        report = check(io.BytesIO(text.encode()))
        assert report.verdict.value == verdict
        assert [(found.clause, str(found.line)) for found in report.findings] == ([(clause, number)] if clause else [])
