"""The command as a user runs it: another process, with a plain environment, and what it leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import kmutex
import kmutex_model
from kmutex import cli

MARK = "KMUTEX_TEST_MARK"
PATH = os.pathsep.join(str(Path(str(package.__file__)).parents[1]) for package in (kmutex, kmutex_model))
ENDING = 2000
"""Looks for a process that is about to end."""


@dataclass
class Done:
    """What became of a command."""

    status: int
    out: str
    err: str
    folder: Path
    left: list[int] = field(default_factory=list)
    """Processes that it started and that are still there."""


def environment(mark: str) -> dict[str, str]:
    """A plain environment that leads to the package under test, wherever that is, and marks whoever inherits it."""
    kept = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR", "PATH")}
    return {**kept, "PYTHONPATH": PATH, "PYTHONDONTWRITEBYTECODE": "1", MARK: mark}


def marked(mark: str) -> list[int]:
    """The processes with this mark."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:
            continue  # It is not ours, or it has just ended.
    return found


def left_by(mark: str) -> list[int]:
    """The marked processes that don't end: one that was killed may take a moment."""
    for _ in range(ENDING):
        left = marked(mark)
        if not left:
            break
        time.sleep(0.005)
    return left


def run(folder: Path, *command: str, timeout: float) -> Done:
    """Run any command in the folder, for so many seconds at most."""
    mark = uuid.uuid4().hex
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment(mark),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    return Done(done.returncode, out, err, folder, left_by(mark))


def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Done:
    """Run kmutex in this process, in the folder where it stands; whom it starts has a plain environment."""
    mark = uuid.uuid4().hex
    with monkeypatch.context() as changed:
        for name in os.environ.keys() - environment(mark).keys():
            changed.delenv(name)
        for name, value in environment(mark).items():
            changed.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return Done(ended.value.code, out, err, Path.cwd(), left_by(mark))


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The exit status of a command that is run in this process, and what it says."""
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def run_kmutex(folder: Path, *arguments: str, timeout: float) -> Done:
    """Run kmutex in the folder."""
    return run(folder, sys.executable, "-m", "kmutex", *arguments, timeout=timeout)
