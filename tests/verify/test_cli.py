"""The command as a user runs it: another process, in a folder with the user's module. Its exit status and its words.

The commands are started together and two at a time, for most of them wait for something.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from kmutex.testing import CLAUSES
from tests.commands import ENDING, Done, environment, left_by, marked, run, run_kmutex
from tests.verify.folder import prepared

QUICK = ("--seconds", "2")
FILES = ("--json", "rows.json", "--junit", "rows.xml")
ENOUGH = ("3", "10", "40")
"""Seconds to verify with, one after the other, until they are enough for this machine."""
kmutex_ = partial(run_kmutex, timeout=200)


def verify(folder: Path, subject: str, *arguments: str) -> Done:
    return kmutex_(folder, "verify", f"subjects:{subject}", *arguments)


def enough(run_with: Callable[..., Done]) -> Done:
    """Run with more seconds as long as the time was too short for an answer."""
    for seconds in ENOUGH:
        done = run_with("--seconds", seconds, *FILES)
        if done.status != 2:
            break
    return done


def verify_enough(folder: Path, subject: str, *arguments: str) -> Done:
    return enough(lambda *more: verify(folder, subject, *arguments, *more))


# -- the commands ------------------------------------------------------------------------------------------------------

Command = Callable[[Path], Done]


def _commands() -> dict[str, Command]:
    commands: dict[str, Command] = {}
    commands["no module"] = lambda folder: kmutex_(folder, "verify", "no_such_module:Locker", *QUICK)
    commands["no option"] = lambda folder: kmutex_(folder, "verify", "--fast")
    commands["sound"] = lambda folder: verify_enough(folder, "Sound", "--without", "fifo")
    commands["sound, no timeout"] = lambda folder: verify_enough(folder, "NoTimeout")
    commands["async"] = lambda folder: verify_enough(folder, "AsyncSound", "--strict")
    commands["async, plain call"] = lambda folder: verify_enough(folder, "AsyncPlain", "--strict")
    commands["evicts"] = lambda folder: verify_enough(folder, "Evicts")
    commands["async, bad"] = lambda folder: verify_enough(folder, "AsyncKeepsCancelled")
    commands["prints"] = lambda folder: verify_enough(folder, "Prints")
    commands["odd words"] = lambda folder: verify_enough(folder, "OddWords")
    commands["endless"] = lambda folder: verify(folder, "Spinning", "--without", "fifo", *QUICK)
    commands["no time"] = lambda folder: verify(folder, "Slow", "--seconds", "1")
    commands["shadows"] = _in_the_shadow
    commands["in the way"] = _in_the_way
    return commands


def _in_the_shadow(folder: Path) -> Done:
    """In a folder whose modules are named as those of the standard library, and of what the command needs."""
    for name in sorted(sys.stdlib_module_names | {"rich", "kmutex", "kmutex_model", "hypothesis"}):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')\n", encoding="utf-8")
    # Python itself imports some of them for -m; who has installed the command has a script elsewhere.
    script = folder.with_name(f"{folder.name}-script")
    script.write_text("from kmutex.cli import main\nmain()\n", encoding="utf-8")
    return enough(
        lambda *more: run(folder, sys.executable, str(script), "verify", "subjects:Evicts", *more, timeout=200)
    )


def _in_the_way(folder: Path) -> Done:
    """The same for -m, with what the command imports after Python has found it."""
    for name in ("argparse", "queue", "json", "rich"):
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the wrong {name}')\n", encoding="utf-8")
    return verify_enough(folder, "Evicts")


COMMANDS = _commands()


@pytest.fixture(scope="module")
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The commands that the chosen tests want, running."""
    wanted: dict[str, None] = {}
    for item in request.session.items:
        marker = item.get_closest_marker("command")
        names = marker.args if marker else ()
        callspec = getattr(item, "callspec", None)
        if item.path == Path(__file__) and callspec is not None and "command" in callspec.params:
            names = (callspec.params["command"],)
        wanted.update(dict.fromkeys(name for name in names if item.path == Path(__file__)))
    root = tmp_path_factory.mktemp("cli")
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(COMMANDS[name], prepared(root / str(number))) for number, name in enumerate(wanted)}


@pytest.fixture
def done(command: str, started: dict[str, Future[Done]]) -> Done:
    result = started[command].result()
    assert "Traceback" not in result.out + result.err
    assert result.left == []
    return result


# -- 3 and 4: test_refused.py has them all, in one process ----------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        ("no module", 3, "kmutex: cannot verify no_such_module:Locker: there is no module"),
        ("no option", 4, "kmutex: unrecognized arguments: --fast"),
    ],
)
def test_the_status_is_that_of_the_process(command: str, status: int, words: str, done: Done) -> None:
    assert (done.status, done.out) == (status, "")
    assert done.err.splitlines()[-1].startswith(words)


# -- 0 -----------------------------------------------------------------------------------------------------------------


def rows(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((done.folder / "rows.json").read_text(encoding="utf-8"))
    return found


def results(done: Done) -> dict[str, set[str]]:
    by_clause: dict[str, set[str]] = {}
    for row in rows(done)["rows"]:
        if row["clause"] != "-":  # A pass that was not reached speaks of no clause.
            by_clause.setdefault(row["clause"], set()).add(row["result"])
    return by_clause


@pytest.mark.long
@pytest.mark.parametrize("command", ["sound"])
def test_a_sound_locker_holds(command: str, done: Done) -> None:
    """And what was declared is off: KM-FIFO and KM-HANDOFF. That it takes a negative timeout is a remark."""
    assert (done.status, done.err) == (0, "")
    off = {clause for clause, found in results(done).items() if found == {"off"}}
    missing = {clause for clause, found in results(done).items() if found == {"not applicable"}}
    assert off == {"KM-FIFO", "KM-HANDOFF"}
    assert missing == {"KM-TOKEN", "KM-LOOP", "KM-ALL"}
    judged = {clause: found for clause, found in results(done).items() if clause not in off | missing}
    assert judged.pop("KM-EXPIRED") == {"holds", "noted"}
    assert all(found == {"holds"} for found in judged.values())
    assert done.out.splitlines()[-1].startswith("holds: of 16 clauses, 11 hold, 2 off")
    assert len(re.findall(r"^KM-(?:FIFO|HANDOFF) +off +declared off", done.out, re.MULTILINE)) == 2


@pytest.mark.parametrize("command", ["sound, no timeout"])
@pytest.mark.long
def test_a_locker_without_timeouts_holds(command: str, done: Done) -> None:
    """Nothing can be tried or cancelled: KM-EXPIRED, KM-CANCEL and KM-RACE do not apply."""
    assert (done.status, done.err) == (0, "")
    for clause in ("KM-CANCEL", "KM-RACE", "KM-EXPIRED"):
        assert results(done)[clause] == {"not applicable"}
    assert results(done)["KM-EXCL"] == {"holds"}
    assert rows(done)["violated"] == []


@pytest.mark.parametrize("command", ["async", "async, plain call"])
@pytest.mark.long
def test_an_asyncio_locker_holds(command: str, done: Done) -> None:
    """As a coroutine function, and as a plain call that returns something to await."""
    assert (done.status, done.err) == (0, "")
    assert results(done)["KM-LOOP"] == {"holds"}
    assert results(done)["KM-CANCEL"] == {"holds"}
    assert {row["method"] for row in rows(done)["rows"]} >= {"interleavings of tasks", "loops"}


# -- 1 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize("command", ["evicts", "async, bad", "prints", "odd words", "shadows", "in the way"])
def test_a_bad_locker_is_caught(command: str, done: Done) -> None:
    """Whatever it prints or says, and whatever lies beside it."""
    wanted = {"KM-CANCEL"} if command == "async, bad" else {"KM-REF", "KM-EXCL"}
    assert (done.status, done.err) == (1, "")
    assert set(rows(done)["violated"]) & wanted
    assert f"violated ({', '.join(rows(done)['violated'])})" in " ".join(done.out.split())


@pytest.mark.parametrize("command", ["shadows", "in the way"])
def test_a_file_beside_the_subject_replaces_nothing(command: str, done: Done) -> None:
    """Every method was at work that is for threads, so nothing of it imported the wrong module."""
    assert "the wrong" not in done.out + done.err
    assert "interleavings at locks, plain" in {row["method"] for row in rows(done)["rows"]}


def moves(picture: list[str]) -> list[tuple[str, str]]:
    """Who did what, from a timeline: the column's head and the text with single blanks, line by line."""
    heads = re.split(" {2,}", picture[0])
    found = []
    for line in picture[2:]:
        if not line or line.startswith(">>"):
            break
        before, text = re.fullmatch(r"((?:\| +)*)(.*?)(?: +\|)*", line).groups()  # type: ignore[union-attr]
        found.append((heads[before.count("|")], " ".join(text.split())))
    return found


@pytest.mark.parametrize("command", ["evicts", "async, bad"])
def test_the_printed_command_shows_the_same_again(command: str, done: Done, tmp_path: Path) -> None:
    """The whole line, as a shell takes it: exit status 1, the same clauses and the same timeline, also as a picture in
    which nothing comes after what is wrong."""
    script = tmp_path / "kmutex"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m kmutex "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    blocks = re.findall(r"^(KM-.*)\n\n((?:.+\n)+)\n(?:code: .*\n)?replay: (.*)$", done.out, re.MULTILINE)
    assert blocks
    for heading, shown, line in blocks:
        assert line.startswith("kmutex verify subjects:")
        mark = uuid.uuid4().hex
        variables = environment(mark)
        variables["PATH"] = f"{tmp_path}{os.pathsep}{variables['PATH']}"
        again = subprocess.run(
            ["/bin/sh", "-c", f"{line} --picture again.svg"],
            cwd=done.folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (again.returncode, again.stderr) == (0 if ", not promised: " in heading else 1, ""), again.stdout
        assert heading.partition(": ")[2] in again.stdout
        assert set(heading.partition(": ")[0].split(", ")) & set(
            again.stdout.splitlines()[-1].replace(",", "").replace(":", "").split()
        )
        seen = moves(shown.splitlines())
        assert seen
        assert moves(again.stdout.splitlines())[: len(seen)] == seen
        told = (ElementTree.parse(done.folder / "again.svg").getroot().findtext("{*}desc") or "").split("; ")
        said = [" ".join(line.split()) for line in told[: len(seen)]]
        assert len(said) == len(seen)
        # The picture as text has less room for a line of code.
        for whole, (head, text) in zip(said, seen, strict=True):
            assert whole.removesuffix("...").startswith(f"{head}: {text.removesuffix('...')}")
        assert told[-1].startswith("KM-")
        assert left_by(mark) == []


@pytest.mark.parametrize("command", ["odd words"])
def test_words_that_no_xml_takes_are_written_with_escapes(command: str, done: Done) -> None:
    """In each of the three forms of the report."""
    words = "OSError: \\x00\\x1b[31m\\ud800 caf\xe9 ]]> [bold]"
    assert words in " ".join(done.out.split())
    assert words in json.dumps(rows(done), ensure_ascii=False).replace("\\\\", "\\")
    failures = ElementTree.parse(done.folder / "rows.xml").iter("failure")
    assert any(words in str(failure.get("message")) for failure in failures)


# -- 2 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.sampled(2)
@pytest.mark.parametrize("command", ["endless", "no time"])
def test_what_was_not_decided_is_inconclusive(command: str, done: Done) -> None:
    """Runs without an end, or too little time: never a pass."""
    assert (done.status, done.err) == (2, "")
    assert "\ninconclusive: of 16 clauses, " in done.out


# -- the files ---------------------------------------------------------------------------------------------------------

FORM = {
    "format": str,
    "kmutex": str,
    "python": str,
    "command": str,
    "subjects": list,
    "seed": int,
    "jobs": int,
    "exit": int,
    "verdict": str,
    "violated": list,
    "failed": dict,
    "seconds": float,
    "rows": list,
}
ROW = {
    "clause": str,
    "method": str,
    "bound": str,
    "cases": int,
    "result": str,
    "seconds": float,
    "detail": str,
    "subject": str,
    "violations": list,
}
VIOLATION = {
    "clauses": list,
    "message": str,
    "schedule": str,
    "replay": str,
    "picture": str,
    "file": str,
    "line": int,
}
RESULTS = {"holds", "violated", "inconclusive", "noted", "off", "not promised", "not applicable"}


def conforms(value: dict[str, Any], form: dict[str, type]) -> bool:
    return {name: type(found) for name, found in value.items()} == form


@pytest.mark.parametrize("command", ["sound", "async", "evicts", "odd words"])
def test_the_json_has_the_form_that_is_written_down(command: str, done: Done) -> None:
    """docs/verify.md; every clause has a row."""
    body = rows(done)
    assert conforms(body, FORM)
    assert body["format"] == "kmutex-verify/1"
    assert body["exit"] == done.status
    assert body["verdict"] == ("holds", "violated", "inconclusive")[done.status]
    assert {row["clause"] for row in body["rows"]} - {"-"} == set(CLAUSES)
    assert all(row["result"] == "noted" for row in body["rows"] if row["clause"] == "-")
    assert set(body["violated"]) == {row["clause"] for row in body["rows"] if row["result"] == "violated"}
    for row in body["rows"]:
        assert conforms(row, ROW)
        assert row["result"] in RESULTS
        assert [row["subject"]] == body["subjects"]
        assert not row["violations"] or row["result"] in ("violated", "not promised")
        assert row["violations"] or row["result"] != "violated"
        assert row["result"] != "holds" or row["cases"] > 0
        for violation in row["violations"]:
            assert conforms(violation, VIOLATION)
            assert violation["file"] == "subjects.py"
            assert violation["line"] > 1
            assert row["clause"] in violation["clauses"]


def test_the_form_of_the_json_is_that_of_its_page() -> None:
    """docs/verify.md names the fields that the command writes, and no others."""
    page = Path(__file__).parents[2] / "docs" / "verify.md"
    if not page.is_file():
        pytest.skip("there is no checkout around")
    section = page.read_text(encoding="utf-8").partition("## JSON")[2]
    named = {word for line in section.splitlines() for word in line.split("`")[1::2]}
    assert named >= set(FORM) | set(ROW) | set(VIOLATION)


@pytest.mark.parametrize("command", ["sound", "async", "evicts", "odd words"])
def test_the_junit_file_agrees_with_the_json(command: str, done: Done) -> None:
    suites = ElementTree.parse(done.folder / "rows.xml").getroot()
    assert suites.tag == "testsuites"
    (suite,) = suites
    found = [row["result"] for row in rows(done)["rows"]]
    assert int(suite.attrib["tests"]) == len(suite.findall("testcase")) == len(found)
    for attribute, tag, names in (
        ("failures", "failure", {"violated"}),
        ("errors", "error", {"inconclusive"}),
        ("skipped", "skipped", {"off", "not promised", "not applicable"}),
    ):
        wanted = sum(result in names for result in found)
        assert int(suite.attrib[attribute]) == len(suite.findall(f"testcase/{tag}")) == wanted
    assert [case.attrib["classname"] for case in suite] == [row["clause"] for row in rows(done)["rows"]]


# -- how it ends -------------------------------------------------------------------------------------------------------


def begun(folder: Path, mark: str, *arguments: str) -> subprocess.Popen[bytes]:
    """The command, once it has a worker."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kmutex", "verify", *arguments],
        cwd=folder,
        env=environment(mark),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(ENDING):
        if len(marked(mark)) > 1:
            break
        time.sleep(0.005)
    assert len(marked(mark)) > 1
    return process


@pytest.mark.parametrize(
    ("sent", "status", "words"), [("SIGTERM", 143, b""), ("SIGINT", 130, b"kmutex: interrupted\n")]
)
def test_an_ended_command_leaves_no_process(tmp_path: Path, sent: str, status: int, words: bytes) -> None:
    """Also not the worker that hangs in an import."""
    mark = uuid.uuid4().hex
    process = begun(prepared(tmp_path / "here"), mark, "hangs:Locker", "--seconds", "100")
    process.send_signal(getattr(signal, sent))
    out, err = process.communicate()
    assert (process.returncode, out, err) == (status, b"", words)
    assert left_by(mark) == []


def test_a_reader_that_goes_away_is_no_violation(tmp_path: Path) -> None:
    """The status is 141, without a complaint, and the file is written."""
    folder = prepared(tmp_path / "here")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run(
            [sys.executable, "-m", "kmutex", "verify", "subjects:AsyncSound", "--seconds", "1", "--json", "rows.json"],
            cwd=folder,
            env=environment(uuid.uuid4().hex),
            stdout=nobody,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr) == (141, b"")
    assert json.loads((folder / "rows.json").read_text(encoding="utf-8"))["rows"]


def test_a_terminal_that_knows_ascii_only_gets_the_report(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "here")
    variables = {**environment(uuid.uuid4().hex), "PYTHONIOENCODING": "ascii"}
    schedule = "0+a 1+b @locks"
    done = subprocess.run(
        [sys.executable, "-m", "kmutex", "verify", "subjects:OddWords", "--replay", schedule],
        cwd=folder,
        env=variables,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert b"caf\\xe9" in done.stdout
