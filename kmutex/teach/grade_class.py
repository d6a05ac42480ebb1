"""Grading what a class handed in: each submission in a container, several side by side, and each answer kept.

What is kept is taken again by the next run, if the files, the question and this package are still the same.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kmutex._console import version, write_whole
from kmutex._text import printable
from kmutex.teach.container import Container
from kmutex.teach.handed_in import LONGEST_NAME, HandedIn, stage, the_locker, the_tests
from kmutex.teach.lesson import lessons
from kmutex.teach.submission import SubmissionError, UnreadableError, read

MODULE = "kmutex.teach.grade_inside"
RUNS_SHOWN = 4
"""How often a submission's whole time may pass before it is ended: it is judged, and three runs are shown again."""
STARTING = 60.0
"""Real seconds for a container and for Python to come up."""
FORMAT = "kmutex-grade-class/1"


@dataclass(frozen=True)
class Asked:
    """What each submission is asked."""

    lesson: int | None
    tests: bool
    without: tuple[str, ...]
    quick: bool
    seconds: float
    """Real seconds for judging a locker, or for the tests against one locker."""
    megabytes: int

    @property
    def limit(self) -> float:
        """Real seconds for all of a submission."""
        # Two at a time, and each that is caught is looked at twice.
        lockers = (len(lessons()) + 2) if self.tests else RUNS_SHOWN
        return STARTING + self.seconds * lockers


@dataclass
class Record:
    """The result of one submission."""

    student: str
    late: bool
    assignment: str
    files: list[str]
    file: str
    """The one that was graded, as the student calls it."""
    source: str
    """Its code."""
    exit: int
    """As of `kmutex grade` for this one."""
    verdict: str
    """holds, violated, inconclusive; pass, not yet; or not graded."""
    reason: str
    """Why it was not graded."""
    grade: dict[str, Any] | None
    """The answer, in the form of `kmutex grade --json`."""
    seconds: float
    container: str
    key: str
    """What the answer depends on."""

    @property
    def name(self) -> str:
        """For a file of this record."""
        return slug(self.student)


def slug(student: str) -> str:
    """A name for a file; two students have two."""
    plain = re.sub(r"[^\w-]+", "_", student)[:LONGEST_NAME]
    return plain if plain == student else f"{plain}-{hashlib.sha256(student.encode()).hexdigest()[:6]}"


def grade_class(
    class_: list[HandedIn],
    asked: Asked,
    container: Container,
    kept: Path,
    *,
    jobs: int,
    again: bool = False,
    on_record: Callable[[Record, bool], None] = lambda record, old: None,
) -> list[Record]:
    """Grade each, ``jobs`` side by side; the records, by student.

    kept: the folder of the records. again: also those that it has already. on_record: is told of each, and whether
    it was there already.
    """
    kept.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    left: list[tuple[HandedIn, str]] = []
    for mine in class_:
        key = _key(mine, asked, container)
        old = None if again else load(kept / f"{slug(mine.student)}.json")
        if old is not None and old.key == key:
            records.append(replace(old, late=mine.late, assignment=mine.assignment))
            on_record(records[-1], True)
        else:
            left.append((mine, key))
    pool = ThreadPoolExecutor(jobs)
    work = _AtWork()
    try:
        for future in as_completed([pool.submit(_one, mine, asked, container, key, work) for mine, key in left]):
            record, decided = future.result()
            records.append(record)
            # What was cut short from outside says nothing of the submission; the next run tries it again.
            if decided:
                keep(kept / f"{record.name}.json", record)
            on_record(record, False)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        work.stop()
    return sorted(records, key=lambda record: record.student)


class _AtWork:
    """What ends each process that is at work just now."""

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []
        self._stopping = False

    @contextmanager
    def until(self, end: Callable[[], None]) -> Iterator[None]:
        """A process is at work within this, and is ended by ``end`` at its end, or when all are to stop."""
        self._ends.append(end)
        try:
            # After it is among the others: `stop` has either seen it or been seen.
            if self._stopping:
                end()
            yield
        finally:
            end()
            self._ends.remove(end)

    def stop(self) -> None:
        """End them all, and whatever comes to work from now on."""
        self._stopping = True
        for end in list(self._ends):
            end()


def load(path: Path) -> Record | None:
    """Return the stored record; None if there is no readable one."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def keep(path: Path, record: Record) -> None:
    """Write it as a whole or not at all."""
    write_whole(path, json.dumps(asdict(record)))


def _key(mine: HandedIn, asked: Asked, container: Container) -> str:
    said = [sorted((name, hashlib.sha256(code).hexdigest()) for name, code in mine.files.items())]
    whole = [said, mine.faults, asdict(asked), container.name, version()]
    return hashlib.sha256(json.dumps(whole).encode()).hexdigest()


def _one(
    mine: HandedIn,
    asked: Asked,
    container: Container,
    key: str,
    work: _AtWork,
) -> tuple[Record, bool]:
    begun = time.monotonic()
    source = name = ""
    decided = True
    grade: dict[str, Any] | None = None
    with tempfile.TemporaryDirectory(prefix="kmutex-class-", ignore_cleanup_errors=True) as folder:
        try:
            staged = stage(mine, Path(folder))
            factory = ""
            if asked.tests:
                path = the_tests(staged)
                read(path)
            else:
                meant = the_locker(staged)
                path, factory = meant.path, meant.factory
            name = staged[path]
            source = path.read_text(encoding="utf-8", errors="replace")
            answer = _answer(Path(folder), path.name, factory, asked, container, work)
        except (SubmissionError, UnreadableError) as error:
            answer = {"refused": str(error)}
        except OSError as error:
            decided, answer = False, {"refused": f"it could not be started: {error.strerror}"}
        decided = decided and "cut" not in answer
        grade = answer.get("grade")
        # Its folder is gone when somebody reads this.
        reason = printable(answer.get("refused", "").replace(f"{folder}/", ""))
    record = Record(
        mine.student,
        mine.late,
        mine.assignment,
        sorted(mine.files),
        name,
        source,
        3 if grade is None else grade["exit"],
        "not graded" if grade is None else grade["verdict"],
        "; ".join([*([reason] if reason else []), *(mine.faults if grade is not None else [])]),
        grade,
        round(time.monotonic() - begun, 1),
        container.name,
        key,
    )
    return record, decided


def of_one(file: str, grade: dict[str, Any] | None, reason: str, seconds: float) -> Record:
    """The record of a learner's own grading, of which nothing is kept."""
    status, verdict = (3, "not graded") if grade is None else (grade["exit"], grade["verdict"])
    path = Path(file)
    return Record(path.stem, False, "", [path.name], path.name, "", status, verdict, reason, grade, seconds, "none", "")


def _answer(
    folder: Path,
    file: str,
    factory: str,
    asked: Asked,
    container: Container,
    work: _AtWork,
) -> dict[str, Any]:
    """What the process in the container says; with "cut" where it was ended, or ended by itself, before it said it."""
    config = {
        "file": file,
        "factory": factory,
        "lesson": asked.lesson,
        "without": asked.without,
        "quick": asked.quick,
        "seconds": asked.seconds,
        "megabytes": asked.megabytes,
        "limit": asked.limit,
    }
    process, end = container.start(
        MODULE,
        config,
        folder,
        asked.megabytes,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        with work.until(end):
            out, _ = process.communicate(timeout=asked.limit)
    except subprocess.TimeoutExpired:
        return {"refused": f"no answer within {asked.limit:g} s", "cut": True}
    ended = {"refused": f"its process ended with status {process.returncode} and no answer", "cut": True}
    return next(_answers(out), ended)


def _answers(out: str) -> Iterator[dict[str, Any]]:
    """The submission may have written there too: the last line that is an answer counts."""
    for line in reversed(out.splitlines()):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and (isinstance(answer.get("refused"), str) or _is_grade(answer.get("grade"))):
            yield answer


def _is_grade(grade: object) -> bool:
    """Whether it has what the tables and pages take from it: a submission must not spoil those of the others."""
    if not isinstance(grade, dict) or grade.get("exit") not in (0, 1, 2) or not isinstance(grade.get("verdict"), str):
        return False
    lists = [grade[name] for name in ("rows", "findings", "lockers") if name in grade]
    return ("rows" in grade or "lockers" in grade) and all(
        isinstance(one, list) and all(isinstance(row, dict) for row in one) for one in lists
    )
