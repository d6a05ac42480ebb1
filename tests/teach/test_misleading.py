"""What makes a grade mislead: each with the locker that shows it, and one that must not be taken for it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from kmutex.engine.run_judge import Event
from kmutex.engine.timeline import timeline
from kmutex.teach import grade
from kmutex.teach.lesson import lesson
from kmutex.teach.misleading import sleeps, spins, stuck_in_unlock
from kmutex.verify.evidence import Result, Row, Violation
from tests.commands import run_kmutex

LOCKER = """\
import threading
import time


class Locker:
    def __init__(self):
        self._guard = threading.Lock()
        self._locks = {{}}

    def lock(self, key):
        {lock}

    def unlock(self, key):
        {unlock}

    def _forget(self, key):
        with self._guard:
            del self._locks[key]
"""
GLOBAL = LOCKER.format(lock="self._guard.acquire()", unlock="self._guard.release()")
WAITS_FOR_ITSELF = LOCKER.format(
    lock="self._locks.setdefault(key, threading.Lock()).acquire()",
    unlock="with self._guard:\n            self._locks[key].release()\n            self._forget(key)",
)
TAKES_TWICE = (
    LOCKER.format(
        lock="with self._guard:\n            it = self._locks.setdefault(key, threading.Lock())\n        it.acquire()",
        unlock="with self._guard:\n            self._give_back(key)",
    )
    + """
    def _give_back(self, key):
        with self._guard:
            self._locks.pop(key).release()
"""
)
"""In the runs that break its clauses others are in their calls, too."""
SPINS = LOCKER.format(
    lock="while key in self._locks:\n            pass\n        self._locks[key] = 1", unlock="del self._locks[key]"
)
CASES = {
    "sleeps": (None, ["--lesson", "3"], 2, ["time.sleep", "not decided"], ["KM-INDEP: Keys", "lesson show 6"]),
    "shared": (GLOBAL, [], 1, ["the keys share one lock", "KM-INDEP: Keys", "lesson show 6"], ["lesson show 8"]),
    "itself": (WAITS_FOR_ITSELF, [], 1, ["call to unlock never comes back", "KM-LIVE: "], ["nobody holds it"]),
    "twice": (
        TAKES_TWICE,
        ["--quick", "--seconds", "90"],
        1,
        ["call to unlock never comes back", "KM-LIVE: "],
        ["KM-INDEP: "],
    ),
    "spins": (SPINS, [], 3, ["a busy wait: the loop in line 11"], []),
    "nohold": (None, ["--lesson", "9"], 3, ["lesson 9 is about leases, and the locker has no hold(key)"], []),
    "notime": (None, ["--lesson", "14"], 3, ["lesson 14 is about timeouts, and lock takes none"], []),
    "noall": (None, ["--lesson", "19"], 3, ["lesson 19 is about several keys, and the locker has no hold_all"], []),
    "nolock": (lesson(20).source, ["--lesson", "12"], 3, ["lesson 12 is about locks, and this has no lock(key)"], []),
}
"""By file: the code, the arguments, the exit status, what is said, and what is not. None: the code of `_code`."""


def _code(name: str) -> str:
    """A sound locker; one that sleeps in its unlock is sound too."""
    queue = lesson(9).source.partition("\n\nclass Locker:")[2]
    body = queue.replace(queue[queue.index("    def hold") : queue.index("    def lock")], "")
    head = "import threading\nimport time\nfrom collections import deque\n\n\nclass Locker:"
    whole = head + body.replace(": Hashable", "").replace(": dict[Hashable, deque[threading.Event]]", "")
    sleep = "        with self._guard:\n            time.sleep(0.01)\n            queue ="
    return whole.replace("        with self._guard:\n            queue =", sleep) if name == "sleeps" else whole


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_a_cause_is_told_in_its_own_words(name: str, tmp_path: Path) -> None:
    code, arguments, status, said, unsaid = CASES[name]
    (tmp_path / f"{name}_locker.py").write_text(code or _code(name), encoding="utf-8")
    done = run_kmutex(tmp_path, "grade", f"{name}_locker.py", "--seconds", "6", *arguments, timeout=200)
    words = done.out + done.err
    assert done.status == status, words
    assert [part for part in said if part not in words] == []
    assert [part for part in unsaid if part in words] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import time\ndef lock():\n    time.sleep(1)", [(3, "time.sleep")]),
        ("from time import sleep as nap\ndef lock():\n    nap(0.1)", [(3, "time.sleep")]),
        ("import asyncio as a\nasync def lock():\n    await a.sleep(1)", [(3, "asyncio.sleep")]),
        ("import asyncio\nasync def lock():\n    await asyncio.sleep(0)", []),
        ("import time\ntime.sleep(1)\ndef lock():\n    bed.sleep(1)", []),
    ],
)
def test_a_sleep_in_a_function_is_seen(text: str, found: list[tuple[int, str]]) -> None:
    assert sleeps(ast.parse(text)) == found


@pytest.mark.parametrize(
    ("loop", "lines"),
    [
        ("while key in held: pass", [2]),
        ("while not self.free: n += 1", [2]),
        ("while key in held: guard.acquire()", []),
        ("while True: return", []),
    ],
)
def test_a_loop_that_waits_for_nobody_is_seen(loop: str, lines: list[int]) -> None:
    assert spins(ast.parse(f"def lock(self, key):\n    {loop}")) == lines


def _events(*texts: str) -> list[Event]:
    return [Event(int(text[0]), text[2:]) for text in texts]


HELD = ("0 lock a ...", "0 lock a: got it")


def test_an_unlock_that_waits_for_itself_is_told_from_one_that_waits_for_another() -> None:
    assert stuck_in_unlock(_events(*HELD, "0 unlock a ...", "1 lock a ...")) == 0
    # The guard is kept by who waits: lesson 6.
    assert stuck_in_unlock(_events(*HELD, "1 lock a ...", "0 unlock a ...")) is None
    assert stuck_in_unlock(_events(*HELD, "0 unlock a ...", "0 unlock a: done", "1 lock a ...")) is None


def test_what_waits_for_a_sleep_is_undecided_and_nothing_else_is() -> None:
    def row(*clauses: str) -> Row:
        return Row(clauses[0], "m", "", 1, Result.VIOLATED, 0.0, violations=(Violation(clauses, "it waits"),))

    changed = grade._by_the_sleep(row("KM-INDEP", "KM-LIVE"))
    assert (changed.result, changed.violations) == (Result.INCONCLUSIVE, ())
    assert grade._by_the_sleep(row("KM-EXCL")) == row("KM-EXCL")


def test_the_picture_of_a_leak_has_no_blank_lines() -> None:
    """It is of no client's doing: no lane, and so no head."""
    assert (
        timeline([Event(-1, "1,200 keys, one after the other: 0+a-a")]) == ">> 1,200 keys, one after the other: 0+a-a"
    )


# ------------------------------------------------------------------------------------------------------------
# Where Python has no process groups and no limits


def _without_resource(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    hide = "import sys; sys.modules['resource'] = None; from kmutex.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", hide, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_on_windows_verify_and_grade_say_what_works_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(lesson(1).source, encoding="utf-8")
    for arguments in (["verify"], ["grade", "mine.py"], ["show", "mine:Locker", "-o", "page.html"]):
        done = _without_resource(*arguments, folder=tmp_path)
        assert (done.returncode, done.stdout) == (3, "")
        assert len(done.stderr.splitlines()) == 1
        assert "WSL" in done.stderr
        assert "error of kmutex" not in done.stderr


def test_what_the_line_says_to_work_there_does(tmp_path: Path) -> None:
    """The page of `kmutex explore` has a test of its own."""
    done = _without_resource("lesson", "run", "1", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    use = "import sys; sys.modules['resource'] = None; from kmutex import KeyedMutex; KeyedMutex().lock('a')"
    assert subprocess.run([sys.executable, "-c", use], cwd=tmp_path, check=False).returncode == 0
