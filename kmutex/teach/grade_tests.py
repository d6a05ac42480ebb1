"""Grade a learner's tests: do they accept correct lockers, and catch broken ones?

Each locker is tested in a separate process. A test that hangs has neither passed nor caught anything: the reason would
be unknown.

A test that fails on a broken locker has caught it if it passes on a correct one that looks the same: with the names of
the broken one, its class and its module. So a test that fails always, or goes by a name, catches nothing.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmutex import _sandbox
from kmutex.teach.lesson import lessons
from kmutex.teach.submission import UnreadableError, module_of, read

if TYPE_CHECKING:
    from kmutex.engine.shapes import Kind
    from kmutex.teach.lesson import Lesson

WORKERS = 2
MODULE = "kmutex.teach.tests_inside"
SOUND: tuple[tuple[str, Kind], ...] = (("kmutex:KeyedMutex", "threads"), ("kmutex:AsyncKeyedMutex", "asyncio"))


class TestsFailedError(Exception):
    """The tests could not be run. One line; the exit status is 3."""


@dataclass(frozen=True)
class Opponent:
    """A locker that the tests are run against."""

    target: str
    kind: Kind
    lesson: Lesson | None
    """The lesson it is the locker of; None for one that is right."""

    @property
    def name(self) -> str:
        """How it is called. The locker of a lesson by its number: what is wrong with it is not told here."""
        return self.target if self.lesson is None else f"lesson {self.lesson.number}"


@dataclass(frozen=True)
class Met:
    """What the tests said of one locker."""

    opponent: Opponent
    result: str
    """accepted, rejected (of a correct one), caught, missed (of a broken one), hung, error, not tried."""
    detail: str
    ran: int
    """Tests that came to an end and were not skipped."""
    failed: tuple[str, ...] = ()
    """The tests that failed."""

    @property
    def status(self) -> int:
        """The status: 0, 1, or 2 if it is undecided."""
        return {"accepted": 0, "caught": 0, "not tried": 0, "rejected": 1, "missed": 1}.get(self.result, 2)


def overall(table: list[Met]) -> int:
    """Return the exit status: a wrong answer outweighs an undecided one."""
    found = {met.status for met in table}
    return 1 if 1 in found else 2 if 2 in found else 0


TESTS = {0: "pass", 1: "not yet", 2: "inconclusive"}
"""The meaning of the exit statuses."""


def tests_body(path: Path, table: list[Met]) -> dict[str, Any]:
    """Return the answer for JSON, as docs/grade.md describes."""
    return {
        "format": "kmutex-grade-tests/1",
        "python": sys.version.split()[0],
        "file": str(path),
        "exit": overall(table),
        "verdict": TESTS[overall(table)],
        "lockers": [
            {
                "locker": met.opponent.name,
                "kind": met.opponent.kind,
                "breaks": met.opponent.lesson.clause if met.opponent.lesson is not None else None,
                "result": met.result,
                "detail": met.detail,
                "tests": met.ran,
            }
            for met in table
        ],
    }


def grade_tests(
    path: Path,
    *,
    seconds: float,
    megabytes: int,
    chosen: Lesson | None = None,
    on_progress: Callable[[str], None] = lambda words: None,
) -> list[Met]:
    """Run the tests in the file against every locker, each time for at most ``seconds``.

    With ``chosen``, the only broken locker is that of this lesson.

    Raises:
        SubmissionError: The file can't be graded.
        UnreadableError: The file can't be read.
        TestsFailedError: The tests can't be run.
    """
    module_of(path)
    read(path)
    if importlib.util.find_spec("pytest") is None:
        raise TestsFailedError("grading tests needs pytest, which is not installed: python -m pip install pytest")
    against = [Opponent(target, kind, None) for target, kind in SOUND]
    against += [Opponent(one.target, one.kind, one) for one in lessons() if one.plain and chosen in (None, one)]
    running: list[subprocess.Popen[str]] = []
    done: list[Met] = []

    unfit: dict[Kind, tuple[str, ...]] = {}

    def meet(opponent: Opponent) -> Met:
        met = _meet(path, opponent, seconds, megabytes, running, unfit.get(opponent.kind, ()))
        done.append(met)
        on_progress(f"{path}: {len(done)} of {len(against)} lockers")
        return met

    pool = ThreadPoolExecutor(WORKERS)
    try:
        # The correct lockers first: they show whether there is a test that can be run.
        table = [*pool.map(meet, against[: len(SOUND)])]
        if not any(met.ran or met.result != "not tried" for met in table):
            raise TestsFailedError(f"{path} has no test that takes locker, async_locker or every_way")
        unfit.update((met.opponent.kind, met.failed) for met in table)
        table += pool.map(meet, against[len(SOUND) :])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for each in running:
            _sandbox.kill(each)
    return table


def _meet(
    path: Path,
    opponent: Opponent,
    seconds: float,
    megabytes: int,
    running: list[subprocess.Popen[str]],
    rejecting: Sequence[str] = (),
) -> Met:
    """Run the tests against a locker. A test catches it if it fails, and passes on a correct one with the same names.

    Tests in ``rejecting`` reject a correct locker, so they catch nothing and are not run.
    """
    unfit = dict.fromkeys(rejecting, "rejects a correct locker")
    while True:
        met = _once(path, opponent, seconds, megabytes, running, left_out=tuple(unfit))
        if met.result != "caught":
            break
        (name,) = met.failed
        control = _once(path, opponent, seconds, megabytes, running, correct=True, only=name)
        if control.result == "accepted":
            return met
        if control.result == "hung":
            return replace(met, result="hung", detail=f"{name} fails, and on a correct locker it does not end")
        unfit[name] = "fails on a correct locker too, where that has the same name"
    if unfit and met.result in ("missed", "not tried"):
        said = "; ".join(f"{name} {why}" for name, why in unfit.items())
        return replace(met, result="missed", detail=f"{met.detail}; {said}" if met.result == "missed" else said)
    return met


def _once(
    path: Path,
    opponent: Opponent,
    seconds: float,
    megabytes: int,
    running: list[subprocess.Popen[str]],
    *,
    correct: bool = False,
    only: str = "",
    left_out: tuple[str, ...] = (),
) -> Met:
    """Run the tests, or ``only`` one, against a locker; ``correct`` is a correct one with the same names."""
    folder = tempfile.mkdtemp(prefix="kmutex-grade-")
    log, empty = Path(folder, "log"), Path(folder, "pytest.ini")
    empty.write_text("[pytest]\n", encoding="utf-8")
    config = {
        # Without "..", which pytest removes: the test's own code is recognized by its file.
        "file": str(path.parent.resolve() / path.name),
        "target": opponent.target,
        "kind": opponent.kind,
        "without": opponent.lesson.without if opponent.lesson is not None else (),
        "sound": opponent.lesson is None,
        "in_place": {kind: target for target, kind in SOUND}[opponent.kind] if correct else "",
        "only": only,
        "left_out": left_out,
        "log": str(log),
        "empty": str(empty),
        "confine": {"megabytes": megabytes, "seconds": 2 * seconds},
    }
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS")}
    child = _sandbox.start(
        MODULE,
        config,
        folder=path.absolute().parent,
        env={**kept, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "TMPDIR": folder},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    running.append(child)
    try:
        late = False
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _sandbox.kill(child)
        return _judge(path, opponent, list(_lines(log)), late, seconds, correct=correct)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    for line in text.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            return  # It was killed during the test.


def _judge(
    path: Path, opponent: Opponent, said: list[dict[str, Any]], late: bool, seconds: float, *, correct: bool = False
) -> Met:
    correct |= opponent.lesson is None
    ended = [entry for entry in said if "ended" in entry]
    ran = [entry for entry in ended if entry["result"] != "skipped"]
    failed = [entry for entry in ended if entry["result"] == "failed"]
    own = [entry for entry in ended if entry["result"] == "own error"]
    broken = [entry["broken"] for entry in said if "broken" in entry]
    begun = [entry["begun"] for entry in said if "begun" in entry]
    status = [entry["status"] for entry in said if "status" in entry]
    collected = sum(entry.get("collected", 0) for entry in said)
    # pytest.exit leaves a test before its end, with any status.
    unfinished = [name for name in begun if name not in {entry["ended"] for entry in ended}]
    complete = status in ([0], [1], [5]) and len(begun) == collected and not unfinished
    inside = unfinished[-1] if unfinished else ""
    if broken:
        raise UnreadableError(f"{path}: {broken[0]}")
    if not begun and status not in ([0], [5]):
        why = "importing it stopped pytest" if status else "importing it ended the process"
        why = f"it did not return from its import within {seconds:g} s" if late else why
        raise TestsFailedError(f"cannot run the tests of {path}: {why}")

    def met(result: str, detail: str) -> Met:
        return Met(opponent, result, detail, len(ran), tuple(entry["ended"] for entry in failed))

    if failed and not correct:
        return met("caught", f"by {failed[0]['ended']}: {failed[0]['words']}")
    if failed:
        return met("rejected", "; ".join(f"{entry['ended']}: {entry['words']}" for entry in failed))
    if late:
        where = f"in {inside}" if inside else "after the last test"
        return met("hung", f"{where}, for {seconds:g} s or less; give the test a time limit of its own")
    if not complete:
        what = "stopped pytest" if status else "ended the process"
        return met("error", f"{inside or 'a test'} {what}; the rest was not run")
    if own:
        return met("error", f"of the test's own: {own[0]['ended']}: {own[0]['words']}")
    if not ran:
        return met("not tried", f"no test for {opponent.kind}")
    tests = f"{len(ran)} test{'s' * (len(ran) > 1)}"
    return met("accepted", tests) if correct else met("missed", f"{tests} ran, and none failed")
