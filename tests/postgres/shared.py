"""The server that the tests of kmutex.postgres share, and what they do to lockers of other processes."""

from __future__ import annotations

import atexit
import functools
import queue
import subprocess
import sys
import threading
from pathlib import Path

import psycopg
import pytest

from servers import NotInstalledError, Postgres

PATIENCE = 120.0
"""Real seconds until a state that must come has come."""
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


def asked(of: Postgres, question: str, *arguments: object) -> str:
    """The one value that a server gives, as text."""
    with psycopg.connect(of.conninfo, autocommit=True) as connection:
        row = connection.execute(question.encode(), arguments or None).fetchone()
        assert row is not None
        return str(row[0])


class Client:
    """A process with a locker, told line by line what to do."""

    def __init__(self, conninfo: str, *options: str) -> None:
        command = [sys.executable, str(Path(__file__).with_name("client.py")), conninfo, *options]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line.strip())
        self._answers.put("")

    def say(self, line: str) -> None:
        """Tell it to do something."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")

    def hear(self) -> str:
        """Its next answer; empty if it is dead."""
        answer = self._answers.get(timeout=PATIENCE)
        if not answer:
            self._answers.put(answer)
        return answer

    def ask(self, line: str) -> str:
        """Tell it, and wait for what it says."""
        self.say(line)
        return self.hear()

    def kill(self) -> None:
        """kill -9"""
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self) -> None:
        """Let it go, well or not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
