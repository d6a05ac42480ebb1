"""The command ``kmutex check-trace``: its exit status, its words, and bad input."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

HEADER = '{"trace": 1, "recorded": "outside"}\n'
END = '{"event": "end"}\n'


def line(event: str, call: int, key: str = "a", **more: object) -> str:
    return json.dumps({"event": event, "key": key, "call": call, **more}) + "\n"


def turn(call: int, key: str = "a") -> str:
    return "".join(line(event, call, key) for event in ("request", "grant", "release", "released"))


def run(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "kmutex", "check-trace", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=300)
    assert b"Traceback" not in done.stdout + done.stderr
    return done


def test_a_log_that_passes_from_a_file_a_pipe_and_packed(tmp_path: Path) -> None:
    text = (HEADER + turn(1) + turn(2, "b") + END).encode()
    plain, packed = tmp_path / "log.ndjson", tmp_path / "log.ndjson.gz"
    plain.write_bytes(text)
    packed.write_bytes(gzip.compress(text))
    for done in (run(str(plain)), run(str(packed)), run("-", stdin=text)):
        assert done.returncode == 0, done.stdout + done.stderr
        assert b"pass: 9 events" in done.stdout


def test_a_log_that_fails_names_clause_and_line(tmp_path: Path) -> None:
    """KM-EXCL"""
    path, out = tmp_path / "log.ndjson", tmp_path / "out.json"
    path.write_text(HEADER + line("request", 1) + line("grant", 1) + line("request", 2) + line("grant", 2) + turn(3))
    done = run(str(path), "--json", str(out))
    assert done.returncode == 1
    assert b"KM-EXCL: line 5" in done.stdout
    said = json.loads(out.read_text(encoding="utf-8"))
    assert (said["verdict"], said["exit"]) == ("fail", 1)
    assert {finding["line"] for finding in said["findings"]} == {5}


def test_a_log_that_is_cut_off_is_unknown(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text((HEADER + turn(1) + line("request", 2)).rstrip("\n")[:-4])
    done = run(str(path))
    assert done.returncode == 2, done.stdout
    assert b"unknown" in done.stdout


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", b"line 1"),
        (b"\x80\x81\n", b"line 1: not UTF-8"),
        (b"hello\n", b"line 1: not JSON"),
        (b'{"event": "request"}\n', b"line 1: no header"),
        (b'{"trace": 2, "recorded": "inside"}\n', b"this kmutex reads trace 1"),
        (b'{"trace": 1, "recorded": "above"}\n', b'"recorded" must be'),
        (HEADER.encode() + b'{"event": "dance"}\n', b"line 2"),
        (HEADER.encode() + b'{"event": "request", "key": 1, "call": 1}\n', b'line 2: "key" must be text'),
        (HEADER.encode() + b"x" * 70_000 + b"\n", b"line 2: longer than 65536 bytes"),
        (HEADER.encode() + b"[" * 60_000 + b"\n", b"line 2"),
    ],
)
def test_what_is_no_trace_is_refused_in_one_line(content: bytes, words: bytes) -> None:
    done = run("-", stdin=content)
    assert done.returncode == 3, done.stdout + done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == b""


def test_what_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none"):
        done = run(str(path))
        assert (done.returncode, done.stdout) == (3, b"")
        assert len(done.stderr.strip().splitlines()) == 1


def test_wrong_usage_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.ndjson"
    path.write_text(HEADER + turn(1))
    assert run(str(path), "--json", str(path)).returncode == 4
    assert run(str(path), "--json", str(tmp_path / "no" / "out")).returncode == 4
    assert run().returncode == 4
    assert path.read_text() == HEADER + turn(1)
