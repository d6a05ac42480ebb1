"""The lessons: each finds the run it is about, a repaired locker passes the same search, and no solution is told."""

from __future__ import annotations

import gc
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import kmutex
import kmutex_model
from kmutex._clauses import EVERY_CLAUSE
from kmutex.cli import lesson as lesson_command
from kmutex.engine.explorer import parse_schedule
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.scenarios import programs
from kmutex.engine.timeline import timeline
from kmutex.teach.lesson import (
    MOST_PREEMPTIONS,
    PARTS,
    Lesson,
    NoSuchLessonError,
    NotFoundError,
    about,
    find,
    lesson,
    lessons,
)
from kmutex.teach.missing_part import PUZZLES
from kmutex.verify.checks import event_loops
from tests.commands import told
from tests.lockers import misrepaired
from tests.lockers.catalogue import entries
from tests.lockers.repaired import REPAIRED

PATH = os.pathsep.join(str(Path(str(package.__file__)).parents[1]) for package in (kmutex, kmutex_model))
REPAIRS = Path(__file__).parents[1] / "lockers" / "repaired.py"
NEAREST = {
    "KM-FIFO": 16,
    "KM-EXPIRED": 14,
    "KM-INTERRUPT": 15,
    "KM-LOOP": 18,
    "KM-ALL": 19,
    "KM-LEADER": 20,
    "KM-IDLE": 1,
    "KM-EXCL": 2,
    "KM-REF": 4,
    "KM-INDEP": 6,
    "KM-HANDOFF": 7,
    "KM-ATOMIC": 8,
    "KM-TOKEN": 9,
    "KM-CANCEL": 10,
    "KM-RACE": 13,
}


class Wrong(NamedTuple):
    """A wrong repair of a lesson."""

    factory: Callable[[], Any]
    clauses: tuple[str, ...]
    """Any of them is a right name for what it breaks."""
    schedule: str = ""
    """A program and a level by which it is shown; "" where the check of the lesson shows it."""


WRONG: dict[int, tuple[Wrong, ...]] = {
    0: (
        Wrong(misrepaired.OneForAll, ("KM-INDEP",), "0+a | 1+b @locks-"),
        Wrong(misrepaired.LooksFirst, ("KM-EXCL",), "0+a 1+a @locks-"),
    ),
    13: (
        Wrong(misrepaired.RaisesAndKeeps, ("KM-RACE",), "0+a | 1~a | 0-a @locks"),
        Wrong(misrepaired.LooksOutside, ("KM-RACE",), "0+a | 1~a | 0-a @locks"),
    ),
    14: (
        Wrong(misrepaired.RefusesBeforeItLooks, ("KM-EXPIRED",), "0?a-a @locks"),
        Wrong(misrepaired.RefusedStaysQueued, ("KM-EXPIRED",), "0+a | 1?a | 0-a @locks"),
    ),
    15: (
        Wrong(misrepaired.ExceptionsOnly, ("KM-INTERRUPT",), "0+a | 1!a | c1 | 0-a @locks"),
        Wrong(misrepaired.LeavesTheQueueOnly, ("KM-INTERRUPT",), "0+a | 1!a | 0-a @locks"),
    ),
    16: (
        Wrong(misrepaired.FromBothEnds, ("KM-FIFO",), "0+a | 1+a | 2+a | 3+a | 0-a | 1-a @locks-"),
        Wrong(misrepaired.WakesAll, ("KM-HANDOFF", "KM-FIFO"), "0+a | 1+a | 0-a+a @locks-"),
    ),
    17: (
        Wrong(misrepaired.ReleasesFirst, ("KM-EXCL",), "0+a | 1+a | 0-a | 2+a @locks-"),
        Wrong(misrepaired.KeepsAll, ("KM-IDLE",), "0+a-a @locks-"),
    ),
    18: (Wrong(misrepaired.AsyncRefusesWaits, ("KM-LOOP",)), Wrong(misrepaired.AsyncRefusesLate, ("KM-ATOMIC",))),
    19: (
        Wrong(misrepaired.TakesTwice, ("KM-ALL",), "0+a | 1+a | 2+a | 0-a @locks-"),
        Wrong(misrepaired.UnderOneGuard, ("KM-ALL", "KM-INDEP"), "0+a | 1+a | 2+a | 0-a @locks-"),
    ),
    20: (
        Wrong(misrepaired.CallerForgets, ("KM-LEADER", "KM-FOLLOWER", "KM-ONE"), "0ta | c0 | 1da @tasks"),
        Wrong(misrepaired.LeaderUnshielded, ("KM-LEADER",), "0ta | 1da | c0 @tasks"),
    ),
}
"""By lesson. Those of the others are each the next one's mistake."""

each = pytest.mark.parametrize("one", lessons(), ids=lambda one: one.name)


@each
def test_a_lesson_finds_the_run_it_names(one: Lesson) -> None:
    """By search, with the clause that the lesson is about as the best name: KM-EXCL, KM-RACE and so on."""
    found = find(one)
    assert found.clauses[0] == one.clause
    assert str(found.schedule) == str(one.schedule)
    assert found.runs
    assert found.events[-1].client == -1
    assert found.events[-1].text.startswith(one.clause)


@each
@pytest.mark.long
def test_a_repaired_locker_passes_the_search_of_the_lesson(one: Lesson) -> None:
    """The same program, up to the same bound, in every way; and the programs of the contract with one preemption."""
    bench = Harness(REPAIRED[one.number], without=one.without)
    assert bench.shape.kind == one.kind
    if bench.shape.form == "flight":
        pytest.skip("no programs of lock and unlock: the test below has the search of the lesson")
    with bench.control():
        for bound in range(MOST_PREEMPTIONS + 1):
            result = bench.explorer.every(one.schedule.program, one.schedule.level, bound)
            assert result.complete
            assert not result.endless
            assert result.witnesses["KM-EXCL"]
            assert result.found == {}
        cancel = bench.shape.timeout or one.kind == "asyncio"
        shape = bench.shape
        if any(REPAIRED[number] is REPAIRED[one.number] for number in range(one.number)):
            return  # It has been through these already.
        for program in programs(cancel=cancel, tries=shape.timeout, interrupt=False, leases=shape.leases):
            if program.clients < 5:
                assert bench.explorer.every(program, one.schedule.level, 1, go_on=lambda runs: runs < 300).found == {}


@dataclass(frozen=True)
class Handed(Lesson):
    """A lesson with somebody's repair in the place of its locker."""

    locker: Callable[[], Any] | None = None

    def make(self) -> Callable[[], Any]:
        assert self.locker is not None
        return self.locker


def handed(one: Lesson, locker: Callable[[], Any], **other: Any) -> Handed:
    return Handed(**{**vars(one), **other}, locker=locker)


@pytest.mark.parametrize(
    "one", [pytest.param(one, id=one.name, marks=[pytest.mark.long] * (one.number == 15)) for one in map(lesson, WRONG)]
)
def test_the_search_of_a_lesson_accepts_its_repair(one: Lesson) -> None:
    """What shows the mistake shows nothing of the sound answer, in every way up to the bound."""
    with pytest.raises(NotFoundError, match=r"none of \d+ runs"):
        find(handed(one, REPAIRED[one.number]))


@pytest.mark.parametrize(
    ("one", "wrong"),
    [pytest.param(lesson(n), wrong, id=f"{n}-{wrong.factory.__name__}") for n in WRONG for wrong in WRONG[n]],
)
def test_a_wrong_repair_is_rejected(one: Lesson, wrong: Wrong) -> None:
    """By a clause that is a right name for it. What the lesson lacks, the repair may lack too."""
    assert f"{one.kind}.{wrong.factory.__name__}" in {row.name for row in entries(origin="lesson", expect="violation")}
    schedule = parse_schedule(wrong.schedule) if wrong.schedule else one.schedule
    clauses = []
    for clause in wrong.clauses:
        with suppress(NotFoundError):
            clauses += find(handed(one, wrong.factory, clause=clause, schedule=schedule)).clauses
    assert set(clauses) & set(wrong.clauses)


def test_each_new_lesson_has_two_wrong_repairs_or_more() -> None:
    """And each published bug that a lesson names is in the corpus."""
    assert {number: len(wrong) for number, wrong in WRONG.items() if len(wrong) < 2} == {}
    sources = {row.source for row in entries(origin="wild", expect=("violation", "noted"))}
    assert {one.seen for one in lessons() if one.seen} <= sources
    assert sum(bool(one.seen) for one in lessons()) > 10


def test_a_search_that_finds_nothing_says_so() -> None:
    """A lesson about a clause that its locker keeps (KM-FIFO is not judged there) shows no run."""
    with pytest.raises(NotFoundError, match=r"none of \d+ runs"):
        find(replace(lesson(1), clause="KM-EXCL"))


def test_the_lessons_are_numbered_in_order() -> None:
    """From the notation (KM-EXCL) and the dict of locks (KM-IDLE) to the single flight (KM-LEADER)."""
    assert [one.number for one in lessons()] == list(range(len(lessons())))
    assert [one.clause for one in lessons()[:2]] == ["KM-EXCL", "KM-IDLE"]
    assert lessons()[-1].clause == "KM-LEADER"
    assert {one.clause for one in lessons()} <= set(EVERY_CLAUSE)
    assert {one.kind for one in lessons()} == {"threads", "asyncio"}
    with pytest.raises(NoSuchLessonError):
        lesson(len(lessons()))


def test_the_lesson_about_a_clause() -> None:
    """The first about KM-EXCL and each other one; none about a clause without a lesson."""
    found = {clause: about(clause, "threads") for clause in EVERY_CLAUSE}
    assert {clause: one.number for clause, one in found.items() if one is not None} == NEAREST


@each
def test_a_lesson_asks_before_it_tells(one: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    """`show` has the situation, the code and the question; answer, clause and hints wait to be asked for."""
    assert tuple(one.parts) == PARTS
    assert "?" in one.parts["Question"]
    status, out, _ = told(capsys, "lesson", "show", str(one.number))
    assert status == 0
    said = " ".join(out.split())
    assert " ".join(one.parts["Question"].split()) in said
    assert all(line.strip() in out for line in one.source.splitlines())
    for part in ("Answer", "Exercise", "Hints"):
        assert " ".join(one.parts[part].split())[:60] not in said
    assert "KM-" not in said or one.number == 0
    status, out, _ = told(capsys, "lesson", "show", str(one.number), "--answer")
    said = " ".join(out.split())
    assert " ".join(one.parts["Answer"].split()) in said
    assert " ".join(one.parts["Exercise"].split()) in said
    hints = " ".join(one.parts["Hints"].split())
    assert hints not in said
    assert hints in " ".join(told(capsys, "lesson", "show", str(one.number), "--hints")[1].split())


@each
def test_no_solution_is_told(one: Lesson, capsys: pytest.CaptureFixture[str]) -> None:
    """No line of a repaired locker that the broken one does not have stands in the text or in what is printed."""
    repairs = {line.strip() for line in REPAIRS.read_text(encoding="utf-8").splitlines()}
    words = "".join(one.parts.values()) + "".join(choice.text + choice.reply for choice in one.choices)
    words += told(capsys, "lesson", "run", str(one.number))[1]
    assert [line for line in repairs if line not in one.source and len(line) > 15 and line in words] == []


def test_the_lines_are_those_of_the_client_that_stands_there() -> None:
    """In lesson 3, client 1 stands behind the find, with nothing counted, while client 0 unlocks (KM-EXCL)."""
    one = lesson(3)
    found = find(one)
    at = next(number for number, event in enumerate(found.short) if event.text.startswith("  "))
    stop, following = found.short[at], found.short[at + 1]
    number, _, source = stop.text.strip().partition("  ")
    assert stop.client == 1
    assert one.source.splitlines()[int(number) - 1].strip() == source == "with self._guard:"
    assert following[:2] == (0, "unlock a ...")
    every = [event.text for event in found.events if event.client == 1]
    assert any("entry = self._find(key)" in text for text in every)
    # Its end of the run: counted on an entry that is gone.
    assert any("entry.users += 1" in text for text in every[every.index(stop.text) :])


def test_no_line_has_an_escape_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in the learner's source is shown and not done to the terminal."""
    one = lesson(3)
    text = one.source.replace("self._count(entry)", "self._count(entry)  # \x1b[31m\tred")
    (tmp_path / "with_escapes.py").write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(Lesson, "make", lambda one: importlib.import_module("with_escapes").Locker)
    said = [event.text for event in find(one).events]
    assert any("\\x1b[31m" in line for line in said)
    assert all(line.isprintable() for line in said)


def test_the_lines_of_a_cancelled_task_are_seen() -> None:
    """After the cancellation of lesson 12 (KM-RACE): another client has returned in between, on the same thread."""
    text = timeline(find(lesson(12)).events, most=1000)
    after = text[text.index("its wait is ended") :]
    assert "except asyncio.CancelledError:" in after
    assert "queue.remove(turn)" not in after


def test_searching_leaves_no_tracer_behind() -> None:
    before = sys.gettrace()
    for number in (3, 12):
        find(lesson(number))
        assert sys.gettrace() is before


def test_the_list(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = told(capsys, "lesson", "list")
    assert status == 0
    first = [line.split()[0] for line in out.splitlines() if line and not line.startswith(("Of", "Begin"))]
    assert first == [*(str(one.number) for one in lessons()), *(f"P{one.number}" for one in PUZZLES)]


@pytest.mark.parametrize("number", [9, 12])
def test_every_line_of_three_clients_fits_a_terminal(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = told(capsys, "lesson", "run", str(number), "--lines")
    picture = out[out.index("client 0  ") : out.index("A number is a line")]
    assert status == 0
    assert "client 2" in picture
    assert max(map(len, picture.splitlines())) <= 80


def test_run_draws_the_run_and_its_replay_works_when_pasted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For threads and for asyncio: the command that is printed shows the same violation (KM-EXCL, KM-RACE)."""
    for number in (3, 11):
        status, out, _ = told(capsys, "lesson", "run", str(number))
        assert status == 0
        (command,) = (line.strip() for line in out.splitlines() if line.strip().startswith("kmutex verify"))
        words = shlex.split(command)
        done = subprocess.run(
            [sys.executable, "-m", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": PATH},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
        last = next(line for line in reversed(out.splitlines()) if line.startswith(">>"))
        assert last in done.stdout.splitlines()


def test_run_waits_for_an_answer_at_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing of the run is shown before Enter, and nothing at all where the input ends instead."""
    asked: list[str] = []

    def enter(prompt: str) -> bool:
        asked.append(capsys.readouterr().out)
        return len(asked) < 3

    monkeypatch.setattr(lesson_command, "_at_a_terminal", lambda: True)
    monkeypatch.setattr(lesson_command, "_enter", enter)
    assert told(capsys, "lesson", "run", "2", "--step")[0] == 0
    # Once for the answer, then for each line of the picture, until the input was at its end.
    assert len(asked) == 3
    assert "Question" in asked[0]
    assert "client 0" not in asked[0]
    assert "client 0" in asked[1]
    assert ">> KM-EXCL" not in "".join(asked)


def test_start_writes_the_locker_and_never_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    status, out, _ = told(capsys, "lesson", "start", "2", str(file))
    assert status == 0
    assert f"kmutex grade {file} --lesson 2" in out
    assert file.read_text(encoding="utf-8") == lesson(2).source
    file.write_text("mine\n", encoding="utf-8")
    status, out, err = told(capsys, "lesson", "start", "2", str(file))
    assert (status, out) == (4, "")
    assert "was not changed" in err
    assert file.read_text(encoding="utf-8") == "mine\n"
    assert told(capsys, "lesson", "start", "2", str(tmp_path / "nowhere" / "mine.py"))[0] == 4


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("list >&-", 0, ""),
        ("show 1 >&-", 0, ""),
        ("run 1 <&- >/dev/null", 0, ""),
        ("list <&- >&- 2>&-", 0, ""),
        ("show 99 2>&-", 4, ""),
        ("list >/dev/full", 4, "kmutex: cannot write the output: No space left on device\n"),
        ("run 1 >/dev/full", 4, "kmutex: cannot write the output: No space left on device\n"),
    ],
)
def test_closed_and_full_streams_are_no_error_of_kmutex(words: str, status: int, said: str) -> None:
    done = subprocess.run(
        f"{shlex.quote(sys.executable)} -m kmutex lesson {words}",
        shell=True,
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("name", ["my file.py", "Locker", "threading.py", "-x.py"])
def test_start_writes_no_file_that_grade_refuses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = told(capsys, "lesson", "start", "2", "--", name)
    assert (status, out, list(tmp_path.iterdir())) == (4, "", [])
    assert name in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["show", "99"],
        ["run", "-7"],
        ["start", "-1", "x.py"],
        ["show", "one"],
        ["show", "P9"],
        ["predict", "99"],
        ["dance"],
    ],
)
def test_a_lesson_that_there_is_not(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = told(capsys, "lesson", *arguments)
    assert (status, out) == (4, "")
    assert re.search(r"^kmutex", err, re.MULTILINE)


def test_the_programs_of_the_lessons_are_read_as_they_are_written() -> None:
    """The schedule in a lesson's text says itself again."""
    for one in lessons():
        assert str(parse(str(one.schedule.program))) == str(one.schedule.program)


def test_a_collection_within_the_run_of_two_loops_is_silent(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """KM-LOOP: the tasks that wait in it are not dropped before they end."""
    next_loop = event_loops._next_loop
    monkeypatch.setattr(event_loops, "_next_loop", lambda *args: (gc.collect(), next_loop(*args))[1])
    assert find(lesson(18)).clauses == ("KM-LOOP",)
    gc.collect()
    assert caplog.text == ""
