"""kmutex grade as a learner runs it: another process, in a folder with the learner's file. Its status and its words.

The commands are started together, two at a time, since most of them wait for something.
"""

from __future__ import annotations

import io
import json
import os
import queue
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from kmutex import cli
from kmutex._sandbox import Confinement
from kmutex.cli import grade as grade_command
from kmutex.engine.watchdog import Watchdog
from kmutex.teach import grade, grade_tests
from kmutex.teach.grade import Grade
from kmutex.teach.lesson import lesson, lessons
from kmutex.teach.submission import Submission, SubmissionError, UnreadableError, submission
from kmutex.verify import runner
from kmutex.verify.evidence import Result, Row, Violation
from kmutex.verify.runner import SubjectError
from tests.commands import PATH, Done, run_kmutex

REPAIRS = Path(__file__).parents[1] / "lockers" / "repaired.py"
PLAIN = [one for one in lessons() if one.plain]
"""Those whose lockers a learner's tests are run against."""
ENOUGH = ("4", "15", "60")
"""Seconds for a locker that is right, one after the other, until they are enough for this machine."""
FEWER = ("--without", "fifo,interrupt")
QUICK = (*FEWER, "--seconds", "2")

HOSTILE = """\
import os, subprocess, sys, threading, time
{top}
class Locker:
    def __init__(self):
        self._guard = threading.Lock()
        self._locks = dict()
    def lock(self, key, timeout=None):
        {lock}
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError(key)
    def unlock(self, key):
        {unlock}
        with self._guard:
            self._locks[key].release()
    def __len__(self):
        return len(self._locks)
"""
AT_IMPORT = {
    "loops": ("while True: pass", "did not return from its import"),
    "exits": ("sys.exit()", "importing exits raised SystemExit"),
    "leaves": ("os._exit(0)", "ended the process"),
    "forks": ("while True: os.fork()", "starting a process is not allowed here"),
    "spawns": ("subprocess.run(['sleep', '1000'])", "starting a process is not allowed here"),
    "eats": ("eaten = []\nwhile True: eaten.append(bytearray(10**7))", "MemoryError"),
    "closes": ("os.closerange(0, 256)", "ended the process"),
    "removes": ("os.remove('kept.txt')", "deleting or renaming files is not allowed here"),
    "crashes": ("import ctypes; ctypes.string_at(0)", "ended the process"),
    "raises": ("raise ValueError('not\\ntoday')", "importing raises raised ValueError: not"),
    "needs": ("import no_such_module_anywhere", "importing needs raised ModuleNotFoundError"),
}
"""What a learner's module does when it is imported, and a part of the one line that is said of it."""
IN_LOCK = {
    "lock_loops": ("while True: pass", "out of the scheduler's control"),
    "lock_eats": ("self.eaten = bytearray(10**10)", "MemoryError"),
    "lock_leaves": ("os._exit(1)", "ended the process"),
    "lock_exits": ("sys.exit(2)", "tried to leave the process"),
    "lock_raises": ("raise KeyError(key)", "lock() of a free key does not return"),
}
SHOUTS = {
    "shouts": ("for _ in range(50): print('x' * 10**6)", "pass"),
    "lock_shouts": ("", "os.write(1, b'x' * 10**5)"),
}
"""Output without an end, at the import and in each call. The lockers never evict (KM-IDLE)."""

GOOD_TESTS = """\
import pytest

PROGRAMS = {programs!r}


@pytest.mark.parametrize("program", PROGRAMS)
def test_program(every_way, program):
    every_way(program)


def test_idle(locker):
    km = locker()
    km.lock("a")
    km.unlock("a")
    assert len(km) == 0
"""
WEAK_TESTS = """\
def test_idle(locker):
    km = locker()
    km.lock("a")
    km.unlock("a")
    assert len(km) == 0
"""
WRONG_TESTS = """\
def test_kept(locker):
    km = locker()
    km.lock("a")
    km.unlock("a")
    assert len(km) == 1, "an idle key is kept"
"""
BROKEN_ONLY = """\
import os, subprocess, sys, threading
from pathlib import Path
import pytest
def recurse(): recurse()
def broken(km):
    return type(km).__module__.startswith("kmutex.teach")
def test_it(locker):
    if broken(locker()):
        {act}
"""
TESTS_OUT_OF_HAND = {
    "hangs": ("threading.Event().wait()", "hung", "in test_it"),
    "ends": ("os._exit(0)", "error", "test_it ended the process"),
    "stops": ("pytest.exit('enough')", "error", "test_it stopped pytest"),
    "stops_softly": ("pytest.exit('enough', returncode=0)", "error", "test_it stopped pytest"),
    "asks": ("locker().no_such_thing()", "error", "AttributeError"),
    "wants": ("", "error", "no_such_fixture"),
    "misnames": ("every_way('0+a')", "error", "NameError"),
    "eats": ("bytearray(2**40)", "error", "MemoryError"),
    "exits": ("sys.exit(0)", "error", "SystemExit"),
    "starts": ("subprocess.run(['true'])", "error", "starting a process is not allowed here"),
    "opens": ("Path('nowhere').read_text()", "error", "FileNotFoundError"),
    "nests": ("recurse()", "error", "RecursionError"),
}
"""What a test does with a broken locker, and what the answer is: never that it was caught."""
TESTS_NOT_RUN = {
    "none.py": ("def test_nothing(): pass\n", "no test that takes"),
    "exits_early.py": ("import sys\nsys.exit(1)\ndef test_it(locker): pass\n", "importing it stopped pytest"),
    "leaves_early.py": ("import os\nos._exit(1)\n", "importing it ended the process"),
    "loops_early.py": ("while True: pass\n", "did not return from its import"),
    "raises_early.py": ("raise ValueError('no')\n", "ValueError: no"),
    "wrong.py": ("def (\n", "not Python"),
    "fixture.py": ("def test_it(no_such_fixture): pass\n", "no test that takes"),
}


command = partial(run_kmutex, timeout=300)


def in_time(folder: Path, *arguments: str) -> Done:
    """The command, with as many seconds as it needs to come to a verdict."""
    for seconds in ENOUGH:
        result = command(folder, *arguments, "--seconds", seconds)
        if result.status != 2:
            break
    return result


def one_line(text: str) -> str:
    (line,) = text.splitlines()
    assert line.startswith("kmutex: ")
    return line


Run = Callable[..., Future[Done]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the files that are handed in."""
    at = tmp_path_factory.mktemp("handed_in")
    (at / "kept.txt").write_text("kept", encoding="utf-8")
    for name, (top, _) in AT_IMPORT.items():
        (at / f"{name}.py").write_text(HOSTILE.format(top=top, lock="pass", unlock="pass"), encoding="utf-8")
    for name, (lock, _) in IN_LOCK.items():
        (at / f"{name}.py").write_text(HOSTILE.format(top="", lock=lock, unlock="pass"), encoding="utf-8")
    for name, (top, lock) in SHOUTS.items():
        (at / f"{name}.py").write_text(HOSTILE.format(top=top, lock=lock, unlock="pass"), encoding="utf-8")
    for name, (act, _, _) in TESTS_OUT_OF_HAND.items():
        text = BROKEN_ONLY.format(act=act) if act else "def test_it(locker, no_such_fixture): pass\n"
        (at / f"tests_{name}.py").write_text(text, encoding="utf-8")
    for name, (text, _) in TESTS_NOT_RUN.items():
        (at / f"tests_{name}").write_text(text, encoding="utf-8")
    programs = list(dict.fromkeys(str(one.schedule.program) for one in PLAIN))
    (at / "good.py").write_text(GOOD_TESTS.format(programs=programs), encoding="utf-8")
    (at / "weak.py").write_text(WEAK_TESTS, encoding="utf-8")
    (at / "wrong_tests.py").write_text(WRONG_TESTS, encoding="utf-8")
    for number in (3, 12):
        (at / f"lesson{number}.py").write_text(lesson(number).source, encoding="utf-8")
    shutil.copy(REPAIRS, at / "repaired.py")
    (at / "below").mkdir()
    return at


@pytest.fixture(scope="module")
def begun(folder: Path) -> Iterator[dict[str, Future[Done]]]:
    """All commands, under way."""
    with ThreadPoolExecutor(2) as pool:

        def begin(*arguments: str, at: Path = folder) -> Future[Done]:
            return pool.submit(command, at, "grade", *arguments)

        def verdict(*arguments: str, at: Path = folder) -> Future[Done]:
            return pool.submit(in_time, at, "grade", *arguments)

        under_way = {
            "lesson3": verdict("lesson3.py", "--lesson", "3", "--json", "lesson3.json"),
            "lesson12": verdict("../lesson12.py", "--lesson", "12", at=folder / "below"),
            "kind": begin("lesson12.py", "--lesson", "3", "--seconds", "6"),
            "good": begin("--tests", "good.py", "--seconds", "60", "--json", "good.json"),
            "weak": begin("--tests", "weak.py", "--seconds", "60"),
            "wrong": begin("--tests", "wrong_tests.py", "--lesson", "1", "--seconds", "60"),
        }
        for name in (*AT_IMPORT, *IN_LOCK):
            under_way[name] = begin(f"{name}.py", *QUICK)
        for name in SHOUTS:
            under_way[name] = verdict(f"{name}.py", *FEWER)
        for name in TESTS_OUT_OF_HAND:
            limit = "8" if name == "hangs" else "60"
            under_way[f"tests_{name}"] = begin("--tests", f"tests_{name}.py", "--lesson", "1", "--seconds", limit)
        for name in TESTS_NOT_RUN:
            limit = "4" if name.startswith("loops") else "60"
            under_way[f"tests_{name}"] = begin("--tests", f"tests_{name}", "--seconds", limit)
        yield under_way


@pytest.fixture(scope="module")
def done(begun: dict[str, Future[Done]]) -> Callable[[str], Done]:
    """What became of a command, by its name."""
    return lambda name: begun[name].result()


@pytest.mark.long
def test_a_broken_locker_is_answered_with_clause_run_and_replay(done: Callable[[str], Done]) -> None:
    """Lesson 3 as it stands: KM-EXCL in words, lanes with lines of the file, the lesson, and no repair."""
    result = done("lesson3")
    assert (result.status, result.err, result.left) == (1, "", [])
    lines = result.out.splitlines()
    first = next(line for line in lines if line.startswith("KM-"))
    assert first == "KM-EXCL: Mutual exclusion"
    assert "The contract: At any time at most one request holds a key." in lines
    assert any("with self._guard:" in line and "client" not in line for line in lines)
    assert any("kmutex lesson show 3" in line for line in lines)
    assert lines[-1].startswith("violated (KM-EXCL")
    broken = {line.strip() for line in lesson(3).source.splitlines()}
    repairs = {line.strip() for line in REPAIRS.read_text(encoding="utf-8").splitlines()}
    assert [line for line in repairs - broken if len(line) > 15 and line in result.out] == []


@pytest.mark.parametrize(("name", "at", "clause"), [("lesson3", ".", "KM-EXCL"), ("lesson12", "below", "KM-RACE")])
@pytest.mark.long
def test_the_replay_works_when_pasted(
    done: Callable[[str], Done], folder: Path, name: str, at: str, clause: str
) -> None:
    """From where the learner stands, also where the file is in another folder (KM-EXCL, KM-RACE)."""
    result = done(name)
    assert result.status == 1
    text = next(line for line in result.out.splitlines() if line.startswith("Replay it:"))
    pasted = text.partition(":")[2].strip()
    assert pasted.startswith("cd .. && ") == (at == "below")
    script = pasted.replace("kmutex verify", f"{shlex.quote(sys.executable)} -m kmutex verify")
    again = subprocess.run(
        script,
        shell=True,
        cwd=folder / at,
        env={**os.environ, "PYTHONPATH": PATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (again.returncode, again.stderr) == (1, "")
    message = next(line for line in result.out.splitlines() if line.startswith("Here: ")).removeprefix("Here: ")
    assert any(message in line and clause in line for line in again.stdout.splitlines())


@pytest.mark.long
def test_the_json_says_what_the_report_says(done: Callable[[str], Done]) -> None:
    result = done("lesson3")
    body = json.loads((result.folder / "lesson3.json").read_text(encoding="utf-8"))
    assert (body["format"], body["exit"], body["verdict"], body["lesson"]) == ("kmutex-grade/1", 1, "violated", 3)
    assert body["without"] == list(lesson(3).without)
    assert "KM-EXCL" in body["violated"]
    first = body["findings"][0]
    assert (first["clauses"][0], first["lesson"]) == ("KM-EXCL", 3)
    for part in ("picture", "replay", "statement", "message"):
        assert all(line in result.out for line in first[part].splitlines())
    assert {row["clause"] for row in body["rows"] if row["result"] == "violated"} == set(body["violated"])


@pytest.mark.long
@pytest.mark.parametrize(("number", "name"), [(3, "Counting"), (12, "AsyncHanding"), (20, "Flight")])
def test_a_repaired_locker_passes(folder: Path, number: int, name: str) -> None:
    """The control, for threads, asyncio and single flights: 0, and it is sent on, or told that it was the last."""
    result = in_time(folder, "grade", f"repaired.py:{name}", "--lesson", str(number))
    assert (result.status, result.err, result.left) == (0, "", [])
    lines = result.out.splitlines()
    assert any(line.startswith(f"lesson {number}: its program breaks no clause any more") for line in lines)
    assert lines[-2].startswith("holds: ")
    last = number == lessons()[-1].number
    assert lines[-1] == ("That was the last lesson." if last else f"On to the next: kmutex lesson show {number + 1}")


@pytest.mark.long
def test_a_locker_of_the_other_kind_is_not_graded_by_the_lesson(done: Callable[[str], Done]) -> None:
    result = done("kind")
    assert (result.status, result.out) == (4, "")
    assert "is not for a subject of asyncio" in one_line(result.err)


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, (_, words) in (AT_IMPORT | IN_LOCK).items()])
@pytest.mark.long
def test_code_that_cannot_be_put_to_work_gets_one_line(done: Callable[[str], Done], name: str, words: str) -> None:
    """Status 3, and nothing of it is left running."""
    result = done(name)
    assert (result.status, result.out, result.left) == (3, "", [])
    line = one_line(result.err)
    assert line.startswith(f"kmutex: cannot grade {name}.py: ")
    assert words in line


@pytest.mark.long
def test_nothing_is_deleted_or_littered(done: Callable[[str], Done], folder: Path) -> None:
    assert done("removes").status == 3
    assert (folder / "kept.txt").read_text(encoding="utf-8") == "kept"
    for name in (*AT_IMPORT, "good", "weak"):
        done(name)
    # Hypothesis keeps its own folder, as it does under pytest.
    assert {path.name for path in folder.iterdir() if path.is_dir()} - {".hypothesis"} == {"below"}


@pytest.mark.parametrize("name", SHOUTS)
@pytest.mark.long
def test_what_the_code_prints_is_not_shown(done: Callable[[str], Done], name: str) -> None:
    """It is judged as if it were silent (KM-IDLE)."""
    result = done(name)
    assert (result.status, result.err, result.left) == (1, "", [])
    assert "xxxx" not in result.out
    assert "KM-IDLE" in result.out.splitlines()[-1]


def test_the_replay_goes_into_a_folder_with_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KM-EXCL."""
    monkeypatch.chdir(tmp_path)
    schedule = "0+a | 1+a @locks"
    monkeypatch.setattr("kmutex.teach.grade._with_lines", lambda *_: "")
    for name, start in (("-d", "cd -- -d && "), ("d", "cd d && ")):
        file = tmp_path / name / "mine.py"
        handed_in = Submission(file, "mine", "Locker")
        violation = Violation(("KM-EXCL",), "both", schedule, "")
        found = grade._finding(
            handed_in, ("KM-EXCL",), violation, (), Confinement(tmp_path, 1024, 1), 1, lambda _: None
        )
        assert found.replay.startswith(start)


def test_a_run_is_played_again_for_no_longer_than_was_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its lines, the run is shown as it was (KM-EXCL)."""
    allowed = []

    def replay(*_: object, seconds: float, **__: object) -> None:
        allowed.append(seconds)
        raise SubjectError("late")

    monkeypatch.setattr(grade, "replay", replay)
    violation = Violation(("KM-EXCL",), "both", "0+a | 1+a @locks", "the plain picture")
    handed_in = Submission(tmp_path / "mine.py", "mine", "Locker")
    confined = Confinement(tmp_path, 1024, 1)
    found = grade._finding(handed_in, ("KM-EXCL",), violation, (), confined, 7, lambda _: None)
    assert (found.picture, allowed) == ("the plain picture", [7])


def test_what_was_not_decided_is_no_pass() -> None:
    """KM-FIFO out of time: 2, and the row is told."""
    held = Row("KM-EXCL", "m", "b", 1, Result.HOLDS, 0.1)
    late = Row("KM-FIFO", "m", "b", 0, Result.INCONCLUSIVE, 0.1, "the time was over")
    assert (Grade((held,), (), 0).status, Grade((held, late), (), 0).status) == (0, 2)
    assert Grade((held, late), (), 0).open == [late]


# -- the file ----------------------------------------------------------------------------------------------------

ONE = "class {name}:\n    def lock(self, key): ...\n    def unlock(self, key): ...\n"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (ONE.format(name="Mine"), "Mine"),
        (ONE.format(name="Mine") + ONE.format(name="Locker"), "Locker"),
        (ONE.format(name="Mine") + ONE.format(name="Other") + "def make_locker():\n    return Mine()\n", "make_locker"),
        (ONE.format(name="Mine") + "class Entry:\n    def lock(self): ...\n", "Mine"),
        ("from elsewhere import Thing as Locker\n", "Locker"),
        ("Locker = dict\n", "Locker"),
        ("class Mine:\n    async def lock(self, key): ...\n    def unlock(self, key): ...\n", "Mine"),
    ],
)
def test_the_locker_is_found_without_running_the_file(tmp_path: Path, text: str, name: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text + "raise SystemExit\n", encoding="utf-8")
    assert submission(str(file)).target == f"mine:{name}"
    assert submission(f"{file}:Other").factory == "Other"


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("mine.py", ONE.format(name="A") + ONE.format(name="B"), "several classes have lock and unlock: A, B"),
        ("mine.py", "class A:\n    def lock(self, key): ...\n", "no class has lock and unlock"),
        ("my-locker.py", ONE.format(name="A"), "give it a name that can be imported"),
        ("mine.txt", ONE.format(name="A"), "give it a name that can be imported"),
        ("mine.ipynb", "{}", "notebooks are graded in a folder"),
        ("queue.py", ONE.format(name="A"), "another module has the name 'queue'"),
        ("kmutex.py", ONE.format(name="A"), "another module has the name 'kmutex'"),
    ],
)
def test_a_file_that_leaves_it_open_is_refused(tmp_path: Path, file: str, text: str, words: str) -> None:
    (tmp_path / file).write_text(text, encoding="utf-8")
    with pytest.raises(SubmissionError, match=words):
        submission(str(tmp_path / file))


def test_a_file_that_is_no_python_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_bytes(b"def (\n")
    with pytest.raises(UnreadableError, match="line 1"):
        submission(str(tmp_path / "mine.py"))
    (tmp_path / "mine.py").write_bytes(b"\xff\0\n")
    with pytest.raises(UnreadableError) as told:
        submission(str(tmp_path / "mine.py"))
    assert "line None" not in str(told.value)
    assert "line 0" not in str(told.value)
    with pytest.raises(SubmissionError, match="No such file"):
        submission(str(tmp_path / "nowhere.py"))


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """Reading a pipe or a device might never end; a name that is refused is refused before that."""
    os.mkfifo(tmp_path / "mine.py")
    os.mkfifo(tmp_path / "my-locker")
    with pytest.raises(SubmissionError, match="no regular file"):
        submission(str(tmp_path / "mine.py"))
    with pytest.raises(SubmissionError, match="give it a name"):
        submission(str(tmp_path / "my-locker"))
    with pytest.raises(SubmissionError, match="no regular file"):
        grade_tests.grade_tests(tmp_path / "mine.py", seconds=1, megabytes=1024)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nowhere.py"],
        ["nowhere.py", "--tests"],
        ["{here}"],
        ["{here}", "--lesson", "99"],
        ["{here}:Locker", "--without", "everything"],
        ["{here}:Locker", "--memory", "1"],
        ["{here}:Locker", "--seconds", "0"],
        ["{here}", "--tests", "--without", "fifo"],
        ["{here}:Locker", "--json", "nowhere/at/all.json"],
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(ONE.format(name="A") + ONE.format(name="B"), encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        cli.main(["grade", *(word.format(here=tmp_path / "mine.py") for word in arguments)])
    out, err = capsys.readouterr()
    assert (ended.value.code, out) == (4, "")
    assert err.splitlines()[-1].startswith("kmutex")


# -- tests -------------------------------------------------------------------------------------------------------


def results(result: Done) -> dict[str, list[str]]:
    """The lines of the table, by the words of their verdict."""
    words = ("accepted", "rejected", "caught", "missed", "hung", "error", "not tried")
    rows = [line for line in result.out.splitlines() if line.startswith(("kmutex:", "lesson ", " kmutex:", " lesson "))]
    return {word: [line for line in rows if f" {word} " in line] for word in words}


@pytest.mark.long
def test_good_tests_accept_the_correct_lockers_and_catch_every_broken_one(done: Callable[[str], Done]) -> None:
    """The programs of the lessons, in every way: all of them, KM-IDLE to KM-RACE, and 0."""
    result = done("good")
    assert (result.status, result.err, result.left) == (0, "", [])
    found = results(result)
    assert len(found["accepted"]) == len(grade_tests.SOUND)
    assert len(found["caught"]) == len(PLAIN)
    body = json.loads((result.folder / "good.json").read_text(encoding="utf-8"))
    assert (body["format"], body["exit"], body["verdict"]) == ("kmutex-grade-tests/1", 0, "pass")
    assert [row["result"] for row in body["lockers"]] == ["accepted"] * 2 + ["caught"] * len(PLAIN)
    assert all(row["tests"] for row in body["lockers"])


@pytest.mark.long
def test_weak_tests_miss_some(done: Callable[[str], Done]) -> None:
    """What one test of KM-IDLE can't see is missed, and what it was not run on is not tried."""
    result = done("weak")
    assert (result.status, result.err) == (1, "")
    found = results(result)
    # A lock that nobody refers to is gone before its unlock, which raises in whatever test.
    assert [row.split("threads")[0].strip() for row in found["caught"]] == ["lesson 1", "lesson 17"]
    threads = sum(one.kind == "threads" for one in PLAIN)
    assert len(found["missed"]) == threads - 2
    assert len(found["not tried"]) == 1 + len(PLAIN) - threads
    # The lockers are named by lesson: their code is not shown.
    assert "self._" not in result.out


@pytest.mark.long
def test_a_test_that_rejects_a_correct_locker_is_told(done: Callable[[str], Done]) -> None:
    """It even "misses" the locker that does what the test wants (KM-IDLE)."""
    result = done("wrong")
    found = results(result)
    assert result.status == 1
    assert "an idle key is kept" in found["rejected"][0]
    assert len(found["missed"]) == 1


@pytest.mark.parametrize(
    ("name", "verdict", "words"), [(name, verdict, words) for name, (_, verdict, words) in TESTS_OUT_OF_HAND.items()]
)
@pytest.mark.long
def test_tests_that_get_out_of_hand_have_caught_nothing(
    done: Callable[[str], Done], name: str, verdict: str, words: str
) -> None:
    result = done(f"tests_{name}")
    assert (result.status, result.err, result.left) == (2, "", [])
    found = results(result)
    assert any(words in row for row in found[verdict])
    assert not found["caught"] + found["missed"] + found["rejected"]


@pytest.mark.parametrize(("name", "words"), [(name, words) for name, (_, words) in TESTS_NOT_RUN.items()])
@pytest.mark.long
def test_tests_that_cannot_be_run_get_one_line(done: Callable[[str], Done], name: str, words: str) -> None:
    result = done(f"tests_{name}")
    assert (result.status, result.out, result.left) == (3, "", [])
    assert words in one_line(result.err)


def met(path: Path) -> grade_tests.Met:
    """What the tests say of the locker of lesson 1, which keeps idle keys."""
    one = lesson(1)
    return grade_tests._meet(path, grade_tests.Opponent(one.target, one.kind, one), 60, 1024, [])


FAILS_ALWAYS = "def test_it(locker):\n    assert False\n"
BY_NAME = {
    "name": 'assert type(locker()).__name__ == "KeyedMutex"',
    "module": 'assert not type(locker()).__module__.startswith("kmutex.teach")',
    "class": "import kmutex; assert isinstance(locker(), kmutex.KeyedMutex)",
    "other class": "from kmutex.teach.lessons import l01_dict_of_locks as l; assert type(locker()) is not l.Locker",
    "source": "import inspect; assert '_locks' not in inspect.getsource(type(locker()))",
    "more than the contract": 'assert hasattr(locker(), "snapshot")',
    "attribute": 'assert not hasattr(locker(), "_locks")',
    "argument": "import inspect; assert 'timeout' in inspect.signature(locker().lock).parameters",
}
"""What a test may ask to catch the locker of every lesson without a look at what it does."""


@pytest.mark.long
@pytest.mark.parametrize("asked", BY_NAME)
def test_a_test_that_goes_by_a_name_catches_nothing(tmp_path: Path, asked: str) -> None:
    """It fails on a correct locker too, where that has the name (KM-IDLE)."""
    (tmp_path / "mine.py").write_text(f"def test_it(locker):\n    {BY_NAME[asked]}\n", encoding="utf-8")
    found = met(tmp_path / "mine.py")
    assert (found.result, found.detail) == (
        "missed",
        "test_it fails on a correct locker too, where that has the same name",
    )


@pytest.mark.long
def test_a_test_that_goes_by_a_name_does_not_spoil_another(tmp_path: Path) -> None:
    """What is caught by what the locker does is caught (KM-IDLE)."""
    text = f"def test_a(locker):\n    {BY_NAME['module']}\n{WEAK_TESTS}"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    found = met(tmp_path / "mine.py")
    assert (found.result, found.failed) == ("caught", ("test_idle",))


@pytest.mark.long
def test_tests_that_always_fail_catch_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FAILS_ALWAYS, encoding="utf-8")
    table = grade_tests.grade_tests(tmp_path / "mine.py", seconds=100, megabytes=1024, chosen=lesson(1))
    assert [one.result for one in table] == ["rejected", "not tried", "missed"]
    assert table[2].detail == "test_it rejects a correct locker"


def test_a_test_is_known_by_its_file_whatever_the_path(tmp_path: Path) -> None:
    """An error of its own is no catch, also where the path has ".." in it."""
    (tmp_path / "below").mkdir()
    (tmp_path / "mine.py").write_text("def test_it(locker): locker().no_such_thing()\n", encoding="utf-8")
    assert met(tmp_path / "below" / ".." / "mine.py").result == "error"


def test_a_test_that_is_not_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("async def test_it(locker): assert False\n", encoding="utf-8")
    with pytest.raises(UnreadableError, match=r"write def and asyncio\.run"):
        met(tmp_path / "mine.py")


@pytest.mark.long
def test_a_strict_xfail_catches_nothing(tmp_path: Path) -> None:
    text = "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_it(locker): locker()\n"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    found = met(tmp_path / "mine.py")
    assert (found.result, "XPASS(strict)" in found.detail) == ("error", True)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("act", ["multiprocessing.get_context('spawn').Process().start()", "os.fork()"])
def test_no_process_is_started(act: str, tmp_path: Path) -> None:
    """Whatever starts it."""
    text = f"import multiprocessing, os\ndef test_it(locker):\n    {act}\n"
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    found = met(tmp_path / "mine.py")
    assert (found.result, "starting a process is not allowed here" in found.detail) == ("error", True)


def test_the_table_of_tests_has_its_details_at_a_narrow_terminal(tmp_path: Path) -> None:
    one = lesson(1)
    table = [grade_tests.Met(grade_tests.Opponent(one.target, one.kind, one), "caught", "by test_it: KeyError", 1)]
    for width in (40, 60, 160):
        out = Console(width=width, file=io.StringIO())
        grade_command._answer_tests(out, tmp_path / "mine.py", table)
        assert isinstance(out.file, io.StringIO)
        shown = out.file.getvalue().partition("\n")[2]
        assert all(word in "".join(shown.split()) for word in ("lesson", "caught", "KeyErr", "test_it"))
        assert all(len(line) <= width for line in shown.splitlines())


def test_what_a_subject_writes_among_the_answers_is_no_answer() -> None:
    """JSON that is no answer, too."""
    lines = ["1\n", "[]\n", "{}\n", "\n", "no\n", '{"kind": "ready"}\n']
    worker = object.__new__(runner._Worker)
    worker._process = SimpleNamespace(stdout=iter(lines), wait=lambda: 0)  # type: ignore[assignment]
    worker._answers = queue.Queue()
    worker.watchdog = Watchdog()
    worker._listen()
    assert [worker._answers.get()["kind"] for _ in range(worker._answers.qsize())] == ["ready", "gone"]


def test_without_pytest_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(WEAK_TESTS, encoding="utf-8")
    monkeypatch.setattr(grade_tests.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as ended:
        cli.main(["grade", "--tests", str(tmp_path / "mine.py")])
    assert ended.value.code == 3
    assert "pip install pytest" in one_line(capsys.readouterr().err)
