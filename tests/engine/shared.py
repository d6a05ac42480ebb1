"""The server that the tests of kmutex.postgres share, and what they do to lockers of other processes."""

from __future__ import annotations

import atexit
import functools
import subprocess
import sys
from pathlib import Path

import pytest

from servers import NotInstalledError, Postgres

ROOT = Path(__file__).resolve().parents[2]


@functools.lru_cache(maxsize=1)
def server() -> Postgres:
    """Started at the first call, and stopped at the end. Where it is not installed the tests are skipped."""
    try:
        made = Postgres()
    except NotInstalledError as error:
        pytest.skip(str(error), allow_module_level=True)
    made.__enter__()
    atexit.register(made.__exit__, None, None, None)
    return made


class Client:
    """A process with a locker, told line by line what to do."""

    def __init__(self, conninfo: str, *options: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("client.py")), conninfo, *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def say(self, line: str) -> None:
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def hear(self) -> str:
        """Its next answer; empty if it is dead."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ask(self, line: str) -> str:
        """Tell it, and wait for what it says."""
        self.say(line)
        return self.hear()

    def kill(self) -> None:
        """kill -9"""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Let it go, well or not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
