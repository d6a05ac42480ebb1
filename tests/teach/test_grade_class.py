"""kmutex grade FOLDER: who handed in what, what each is worth, whose it is, and that nothing of it gets out."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kmutex import cli
from kmutex.engine.shapes import Shape
from kmutex.teach import container as containers
from kmutex.teach.alike import Pair, alike
from kmutex.teach.class_report import Marked, gradescope, marked, page, written
from kmutex.teach.container import Container, find
from kmutex.teach.grade import QUICK, WHOLE
from kmutex.teach.grade_class import Asked, Record, _answers, grade_class, keep, load, slug
from kmutex.teach.handed_in import HandedIn, HandedInError, by_student, from_notebook, stage, the_locker
from kmutex.teach.lesson import lesson, lessons
from kmutex.teach.notebook import notebook as of_lesson
from kmutex.teach.own_work import borrowed
from kmutex.teach.points import Scheme, SchemeError, of_rows, of_tests, scheme, score, usual
from kmutex.teach.submission import SubmissionError, UnreadableError
from kmutex.verify.runner import Plan, left_out
from tests.commands import ENDING, run, run_kmutex
from tests.teach.handed_in import LESSON, notebook, renamed, repaired, thirty

ASKED = Asked(LESSON, tests=False, without=lesson(LESSON).without, quick=True, seconds=60, megabytes=1024)


@pytest.fixture(scope="module", params=["bubblewrap", pytest.param("Docker", marks=pytest.mark.long)])
def container(request: pytest.FixtureRequest) -> Container:
    """Each that works here. Looked for when a test wants one, since that starts Python in it."""
    return _working(request.param)


@functools.cache
def _reason(name: str) -> str:
    program = {"bubblewrap": "bwrap", "Docker": "docker"}[name]
    return containers._tried(Container(name), []) if shutil.which(program) else f"{program} is not installed"


def _working(name: str) -> Container:
    if _reason(name):
        pytest.skip(f"{name}: {_reason(name)}")
    return Container(name)


def test_the_empty_tmp_comes_before_a_python_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "_shared", lambda: ["/tmp/venv"])
    words = containers._bubblewrap(tmp_path, 512, "")
    assert words.index("--tmpfs") < words.index("/tmp/venv")


# ------------------------------------------------------------------------------------------------------------
# Who handed in what


def _written(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("", encoding="utf-8")
    return folder


FORMS = {
    "plain": (["anna.py", "ben ß.ipynb", "grades.csv"], {"anna": ["anna.py"], "ben ß": ["ben ß.ipynb"]}),
    "folders": (["anna/mine.py", "anna/more.py", "ben/x.PY"], {"anna": ["mine.py", "more.py"], "ben": ["x.PY"]}),
    "Moodle, in folders": (
        ["Anna van A_12_assignsubmission_file/my locker.py", "Ben B_7_assignsubmission_file_/a.docx"],
        {"Anna van A_12": ["my locker.py"], "Ben B_7": []},
    ),
    "Moodle, flat": (
        ["Anna A_12_assignsubmission_file_mine.py", "Ben_7_assignsubmission_onlinetext_.html"],
        {"Anna A_12": ["mine.py"], "Ben_7": []},
    ),
    "Canvas": (
        [
            "adamsanna_101_9001_mine.py",
            "adamsanna_101_9002_helper-1.py",
            "bakerben_LATE_102_9003_l.py",
            "anon_x7K2q_9004_l.py",
            "coxcara_104_text.html",
        ],
        {
            "adamsanna_101": ["helper-1.py", "mine.py"],
            "bakerben_102": ["l.py"],
            "anon_x7K2q": ["l.py"],
            "coxcara_104": [],
        },
    ),
    "nbgrader": (["anna/ps1/problem.ipynb", "anna/ps1/timestamp.txt"], {"anna": ["ps1/problem.ipynb"]}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zipped", [False, True])
def test_each_students_files_are_found(form: str, zipped: bool, tmp_path: Path) -> None:
    names, wanted = FORMS[form]
    source = _written(tmp_path / "in", *names, "__MACOSX/anna.py", ".hidden/b.py")
    if zipped:
        source = Path(shutil.make_archive(str(tmp_path / "export"), "zip", source))
    found, ignored = by_student(source)
    assert {mine.student: sorted(mine.files) for mine in found} == wanted
    assert ignored == [name for name in names if name == "grades.csv"]
    assert [mine.student for mine in found if mine.late] == ["bakerben_102"] * (form == "Canvas")
    assert [mine.assignment for mine in found] == ["ps1"] if form == "nbgrader" else True


def test_of_several_assignments_one_is_named(tmp_path: Path) -> None:
    source = _written(tmp_path, "anna/ps1/a.py", "anna/ps2/b.py")
    with pytest.raises(HandedInError, match="ps1, ps2; say which: --assignment"):
        by_student(source)
    assert list(by_student(source, "ps2")[0][0].files) == ["ps2/b.py"]


def test_no_link_is_followed_and_nothing_large_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("class Locker: ...", encoding="utf-8")
    source = _written(tmp_path / "in", "anna/mine.py")
    (source / "anna" / "more.py").symlink_to(tmp_path / "secret")
    (source / "anna" / "big.py").write_bytes(bytes(1_000_001))
    (mine,) = by_student(source)[0]
    assert list(mine.files) == ["mine.py"]
    assert sorted(fault.partition(":")[0] for fault in mine.faults) == ["big.py", "more.py"]


def test_what_is_no_class_is_told(tmp_path: Path) -> None:
    for source, words in ((tmp_path, "nothing is handed in"), (tmp_path / "no.zip", "No such file")):
        with pytest.raises(HandedInError, match=words):
            by_student(source)
    (tmp_path / "bad.zip").write_bytes(b"PK")
    with pytest.raises(HandedInError, match="neither a folder nor a zip file"):
        by_student(tmp_path / "bad.zip")


def test_a_zip_file_can_name_no_place_outside(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../../anna/../mine.py", "class Locker: ...")
    (mine,) = by_student(tmp_path / "x.zip")[0]
    (tmp_path / "work").mkdir()
    assert [path.parent for path in stage(mine, tmp_path / "work")] == [tmp_path / "work"]


def test_a_damaged_file_in_a_zip_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    source = tmp_path / "x.zip"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("anna/mine.py", "x = 1\n" * 500)
        archive.writestr("bert/mine.py", "x = 2\n" * 500)
    whole = source.read_bytes()
    start = whole.index(b"anna/mine.py") + len("anna/mine.py")
    source.write_bytes(whole[:start] + b"\xff" * 8 + whole[start + 8 :])
    anna, bert = by_student(source)[0]
    assert (anna.files, "can't be read from the zip file" in anna.faults[0]) == ({}, True)
    assert (list(bert.files), bert.faults) == (["mine.py"], [])


def test_long_names_become_shorter_ones(tmp_path: Path) -> None:
    mine = HandedIn("s" * 300, {"m" * 253 + ".py": b"x = 1\n"})
    (path,) = stage(mine, tmp_path)
    assert len(path.name) < 120 > len(slug(mine.student))
    assert slug(mine.student) != slug("s" * 301)


@pytest.mark.parametrize(
    "said",
    ['{"refused": 7}', '{"grade": {"exit": 0, "rows": []}}', '{"grade": {"exit": 0, "verdict": "x", "rows": [1]}}'],
)
def test_what_is_no_answer_spoils_nothing(said: str) -> None:
    good = '{"refused": "no locker"}'
    assert list(_answers(f"{good}\n{said}\n")) == [{"refused": "no locker"}]


ONE = b"class {}:\n    def lock(self, key): ...\n    def unlock(self, key): ...\n"


@pytest.mark.parametrize(
    ("files", "factory"),
    [
        ({"my locker (2).py": ONE.replace(b"{}", b"Mine")}, "my_locker__2_:Mine"),
        ({"5.py": ONE.replace(b"{}", b"Mine")}, "_5:Mine"),
        ({"queue.py": ONE.replace(b"{}", b"Mine")}, "queue_:Mine"),
        ({"kmutex.py": ONE.replace(b"{}", b"Mine")}, "kmutex_:Mine"),
        ({"notes.py": b"x = 1\n", "l.py": ONE.replace(b"{}", b"Mine")}, "l:Mine"),
        ({"base.py": ONE.replace(b"{}", b"Base"), "l.py": b"import base\n" + ONE.replace(b"{}", b"Mine")}, "l:Mine"),
    ],
)
def test_a_file_with_any_name_is_staged(files: dict[str, bytes], factory: str, tmp_path: Path) -> None:
    assert the_locker(stage(HandedIn("anna", files), tmp_path)).target == factory


def test_two_files_that_may_be_meant_are_refused(tmp_path: Path) -> None:
    files = {"a.py": ONE.replace(b"{}", b"A"), "b.py": ONE.replace(b"{}", b"B")}
    with pytest.raises(SubmissionError, match=r"several files have a locker: a\.py, b\.py"):
        the_locker(stage(HandedIn("anna", files), tmp_path))


def test_the_code_of_a_notebook_is_taken_without_its_commands() -> None:
    cells = (
        "%matplotlib inline\n!pip list\nx = 1",
        "from __future__ import annotations\ndef f(a: nowhere): ...",
        "%%bash\nls\n",
        "%%time\ny = x % 2",
        'z = """\n%kept\n"""',
    )
    code = from_notebook(notebook(*cells).encode()).decode()
    names: dict[str, object] = {}
    exec(code, names)
    assert (names["x"], names["y"], names["z"]) == (1, 1, "\n%kept\n")
    assert code.splitlines()[:2] == ["from __future__ import annotations", "# cell 1"]


def test_the_notebook_of_a_lesson_hands_in_the_locker_that_it_writes() -> None:
    """Its other cells run commands, which is nothing to import."""
    one = lesson(LESSON)
    code = from_notebook(of_lesson(one).encode()).decode()
    names: dict[str, object] = {"__name__": "handed_in"}
    exec(code, names)
    assert "Locker" in names
    assert "subprocess" not in code
    assert [line for line in code.splitlines() if line][-1] == one.source.splitlines()[-1]


@pytest.mark.parametrize("text", ["", "[]", '{"cells": [1]}', '{"metadata": {"kernelspec": {"language": "R"}}}'])
def test_what_is_no_notebook_is_told(text: str) -> None:
    with pytest.raises(UnreadableError):
        from_notebook(text.encode())


# ------------------------------------------------------------------------------------------------------------
# Whose it is


@pytest.mark.parametrize(
    "text",
    [
        "from kmutex import KeyedMutex as Locker",
        "from kmutex import *",
        "import kmutex\nLocker = kmutex.KeyedMutex",
        "import kmutex.testing\nLocker = kmutex.KeyedMutex",
        "import kmutex as k\nclass Locker(k.KeyedMutex): pass",
        "from kmutex import KeyedMutex\nclass Locker:\n    def __init__(self): self._km = KeyedMutex()",
        "import importlib\nLocker = importlib.import_module('kmutex').KeyedMutex",
        "import sys\nLocker = sys.modules['kmutex'].KeyedMutex",
        "from kmutex.teach.lessons.l07_barging import Locker",
        "from somewhere import Lock as Locker",
        "import somewhere\nclass Locker(somewhere.Lock): pass",
        "import somewhere\ndef make_locker():\n    return somewhere.Lock()",
        "from beside import Locker",
    ],
)
def test_a_borrowed_locker_is_told(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    (tmp_path / "beside.py").write_text("from kmutex import KeyedMutex as Locker", encoding="utf-8")
    factory = "make_locker" if "make_locker" in text else "Locker"
    assert "the locker has to be your own" in borrowed(tmp_path / "mine.py", factory)


@pytest.mark.parametrize(
    "text",
    [
        "from kmutex import UnheldKeyError\nclass Locker: pass",
        "import kmutex\nclass Locker:\n    def unlock(self, key): raise kmutex.UnheldKeyError(key)",
        "from kmutex.testing import suite\nclass Locker: pass",
        "import somewhere\nclass Locker: pass",
        "from threading import RLock\nclass Locker(RLock): pass",
        "from beside import Locker",
    ],
)
def test_a_locker_of_ones_own_is_not(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    (tmp_path / "beside.py").write_text("import mine\nclass Locker: pass", encoding="utf-8")
    assert borrowed(tmp_path / "mine.py", "Locker") == ""


def test_the_lockers_of_the_lessons_and_their_repairs_are_nobodys(tmp_path: Path) -> None:
    for code in [one.source for one in lessons()] + [repaired("Counting")]:
        (tmp_path / "mine.py").write_text(code, encoding="utf-8")
        assert borrowed(tmp_path / "mine.py", "Locker") == ""


def test_the_command_says_so_and_does_not_pass_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from kmutex import KeyedMutex as Locker\n", encoding="utf-8")
    done = run_kmutex(tmp_path, "grade", "mine.py", "--lesson", "5", timeout=100)
    assert (done.status, done.out) == (3, "")
    assert "takes KeyedMutex from this library: the locker has to be your own" in done.err


def test_a_copy_with_other_names_is_alike_and_another_answer_is_not() -> None:
    code = {str(one.number): one.source for one in lessons()}
    pairs, short = alike({**code, "copy": renamed(lesson(3).source)}, lesson(5).source)
    assert [(pair.one, pair.other) for pair in pairs if pair.share == 1.0] == [("3", "copy")]
    # Some lessons are one locker with another mistake; those of different lockers are not told.
    assert ("3", "4") not in {(pair.one, pair.other) for pair in pairs}
    # It is what everybody was given.
    assert short == ["5"]


# ------------------------------------------------------------------------------------------------------------
# Points


def _rows(**results: str) -> list[dict[str, str]]:
    return [{"clause": clause.replace("_", "-"), "result": result} for clause, result in results.items()]


def test_a_clause_that_is_not_decided_is_not_earned() -> None:
    rows = _rows(KM_EXCL="holds", KM_REF="violated", KM_IDLE="inconclusive", KM_FIFO="off", KM_TOKEN="not applicable")
    parts = of_rows(Scheme(), [*rows, *_rows(KM_EXCL="inconclusive")])
    assert {part.name: (part.earned, part.possible) for part in parts} == {
        "it can be run": (1, 1),
        "KM-EXCL": (0, 1),
        "KM-REF": (0, 1),
        "KM-IDLE": (0, 1),
    }
    assert score(Scheme(), parts) == 2.5
    assert score(Scheme(), of_rows(Scheme(), rows)) == 5


def test_a_clause_with_a_weight_counts_for_who_has_nothing_of_it() -> None:
    by = Scheme(total=100, works=0, others=0, clauses={"KM-EXCL": 3, "KM-TOKEN": 1})
    assert score(by, of_rows(by, _rows(KM_EXCL="holds", KM_REF="violated"))) == 75
    assert usual("KM-EXCL").clauses["KM-EXCL"] > usual("KM-EXCL").others


def test_the_scheme_of_the_docs_is_the_usual_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "grade.md").read_text(encoding="utf-8")
    (tmp_path / "points.toml").write_text(text.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    assert scheme(tmp_path / "points.toml") == usual("KM-EXCL")


def test_tests_that_reject_a_correct_locker_have_no_points() -> None:
    broken = [{"locker": f"lesson {n}", "breaks": "KM-EXCL", "result": r} for n, r in enumerate(["caught", "missed"])]
    good, bad = ({"locker": "ours", "breaks": None, "result": result} for result in ("accepted", "rejected"))
    assert (score(Scheme(), of_tests([good, *broken])), score(Scheme(), of_tests([bad, *broken]))) == (5, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("total = ", "not TOML"),
        ("sum = 3", "'sum' is unknown"),
        ("[clauses]\nKM-NONE = 1", "'KM-NONE' is unknown"),
        ("total = -1", "is not a number of points"),
        ("works = true", "is not a number of points"),
        ("clauses = 3", "clauses"),
        ("works = 0\nothers = 0", "nothing is worth a point"),
    ],
)
def test_what_is_no_scheme_is_told(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "points.toml").write_text(text, encoding="utf-8")
    with pytest.raises(SchemeError, match=words):
        scheme(tmp_path / "points.toml")
    (tmp_path / "points.toml").write_text("total = 20\n[clauses]\nKM-EXCL = 4", encoding="utf-8")
    assert scheme(tmp_path / "points.toml") == Scheme(20, clauses={"KM-EXCL": 4})


# ------------------------------------------------------------------------------------------------------------
# Which container


def _programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Only these programs can be found."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_where_nothing_is_installed_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _programs(tmp_path, monkeypatch)
    assert find([]) == (None, ["bubblewrap: bwrap is not installed", "Docker: docker is not installed"])


def test_what_is_installed_and_does_not_work_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a user may make no namespaces, and where Docker's daemon does not run."""
    _programs(
        tmp_path,
        monkeypatch,
        bwrap="echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
        docker="echo 'Cannot connect to the Docker daemon' >&2; exit 1",
    )
    found, reasons = find([])
    assert found is None
    assert "No permissions to create new namespace" in reasons[0]
    assert "Cannot connect" in reasons[1]


@pytest.mark.long
def test_what_runs_a_program_and_hides_nothing_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bwrap that only does what comes after its options: Python runs, and sees the others."""
    hidden = tmp_path / "class"
    hidden.mkdir()
    wrap = 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"'
    _programs(tmp_path, monkeypatch, bwrap=wrap)
    monkeypatch.setattr(containers, "INSIDE", str(tmp_path))
    found, reasons = find([hidden])
    assert (found, reasons[0]) == (None, f"bubblewrap: {hidden} is seen in it")
    # The same where there is nothing to be hidden: so it was Python that ran.
    assert find([])[0] == Container("bubblewrap")


@pytest.mark.long
def test_a_container_that_works_is_found_and_one_that_shows_the_others_is_not(
    container: Container, tmp_path: Path
) -> None:
    assert containers._tried(container, [tmp_path, Path.home() / ".ssh"]) == ""
    assert containers._tried(container, [Path("/usr")]) == "/usr is seen in it"


def test_without_a_container_nothing_is_run(tmp_path: Path) -> None:
    """Status 3, and one line that says what to do; with --trust it goes on."""
    _written(tmp_path, "in/anna/mine.py")
    (tmp_path / "in/anna/mine.py").write_text("open('/tmp/never', 'w')\nclass Locker(:\n", encoding="utf-8")
    (tmp_path / "bin").mkdir()
    command = ["/usr/bin/env", f"PATH={tmp_path / 'bin'}", sys.executable, "-m", "kmutex", "grade", "in"]
    done = run(tmp_path, *command, timeout=100)
    assert (done.status, done.out, done.left) == (3, "", [])
    (line,) = done.err.splitlines()
    assert "no container works here, so nothing was run: bubblewrap: bwrap is not installed" in line
    assert "--trust" in line
    done = run(tmp_path, *command, "--trust", timeout=100)
    assert "1 submissions in " in done.out
    assert "1 not graded" in done.out


# ------------------------------------------------------------------------------------------------------------
# Run, and kept

GETS_OUT = """\
import ctypes, os, pathlib, socket, time
seen = [len(list(pathlib.Path({folder!r}).rglob("*.py")))]
try:
    pathlib.Path({folder!r}, "anna", "mine.py").write_text("")
    seen.append("wrote")
except OSError:
    seen.append("did not write")
seen.append(os.environ.get("KMUTEX_SECRET"))
try:
    socket.create_connection(("127.0.0.1", {port})).close()
    seen.append("connected")
except OSError:
    seen.append("not connected")
away, left = os.pipe()
if ctypes.PyDLL(None).fork() == 0:
    ctypes.PyDLL(None).setsid()
    os.write(left, b".")
    time.sleep(1000)
os.read(away, 1)
raise ValueError(f"seen: {{seen}}")
class Locker:
    def lock(self, key): ...
    def unlock(self, key): ...
"""
"""What docs/grade.md says that clumsy code's limits do not keep: it reads, writes, calls, and outlives its time."""


def _named(word: str) -> list[int]:
    """Processes with this word among their arguments that do not end."""
    for _ in range(ENDING):
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                arguments = (process / "cmdline").read_bytes()
                if word.encode() in arguments and b"worker" in arguments:
                    found.append(int(process.name))
        if not found:
            break
        time.sleep(0.005)
    return found


def test_nothing_gets_out_of_a_container(container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _gets_out(container, tmp_path, monkeypatch)


@pytest.mark.long
def test_all_of_it_gets_out_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is what --trust means, and how we know that the test can tell."""
    _gets_out(Container("none"), tmp_path, monkeypatch)


def _gets_out(container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KMUTEX_SECRET", "secret")
    neighbour = _written(tmp_path, "class/anna/mine.py", "class/ben/mine.py") / "class/anna/mine.py"
    neighbour.write_text("hers", encoding="utf-8")
    word = f"gets_out_{uuid.uuid4().hex}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = GETS_OUT.format(folder=str(tmp_path / "class"), port=server.getsockname()[1])
        class_ = [HandedIn("ben", {f"{word}.py": code.encode()})]
        (record,) = grade_class(class_, ASKED, container, tmp_path, jobs=1)
    left = _named(word)
    for process in left:
        os.kill(process, signal.SIGKILL)
    out = container.name == "none"
    assert record.reason.partition("seen: ")[2] == (
        "[2, 'wrote', 'secret', 'connected']" if out else "[0, 'did not write', None, 'not connected']"
    )
    assert neighbour.read_text(encoding="utf-8") == ("" if out else "hers")
    assert bool(left) == out


class _Answering:
    """In place of a container: a process that runs this."""

    name = "none"

    def __init__(self, script: str) -> None:
        self.script, self.started = script, 0

    def start(
        self, module: str, config: dict[str, Any], folder: Path, megabytes: int, **pipes: Any
    ) -> tuple[subprocess.Popen[str], Callable[[], None]]:
        self.started += 1
        process = subprocess.Popen([sys.executable, "-c", self.script], text=True, **pipes)
        return process, process.kill


def _graded(class_: list[HandedIn], container: _Answering, kept: Path, **how: Any) -> list[Record]:
    return grade_class(class_, how.pop("asked", ASKED), container, kept, **{"jobs": 1, **how})  # type: ignore[arg-type]


CLASS = [HandedIn(name, {"mine.py": ONE.replace(b"{}", b"Locker")}) for name in ("anna", "ben", "cara")]
HOLDS = json.dumps({"grade": {"exit": 0, "verdict": "holds", "rows": []}})


def test_what_was_graded_is_not_graded_again(tmp_path: Path) -> None:
    """Until the files, the question or the container change."""
    container = _Answering(f"print({HOLDS!r})")
    first = _graded(CLASS[:2], container, tmp_path)
    # As if it had been ended there: the third is new, and the others stand.
    old: dict[str, bool] = {}
    every = _graded(CLASS, container, tmp_path, on_record=lambda record, kept: old.update({record.student: kept}))
    assert (old, container.started) == ({"anna": True, "ben": True, "cara": False}, 3)
    assert every[:2] == first
    changed = [HandedIn("anna", {"mine.py": b"\n" + ONE.replace(b"{}", b"Locker")}), *CLASS[1:]]
    _graded(changed, container, tmp_path)
    assert container.started == 4
    _graded(changed, container, tmp_path, asked=replace(ASKED, quick=False))
    assert container.started == 7
    _graded(changed, container, tmp_path, asked=replace(ASKED, quick=False), again=True)
    assert container.started == 10


def test_what_gives_no_answer_is_told_and_tried_again(tmp_path: Path) -> None:
    """Also where what is written is no answer: noise, a status that there is none of, half a record."""
    for script in ("", "print('no'); print('[1]'); print('{\"grade\": {\"exit\": 9}}')"):
        container = _Answering(script)
        for _ in range(2):
            (record,) = _graded(CLASS[:1], container, tmp_path)
            assert (record.exit, record.verdict) == (3, "not graded")
            assert "no answer" in record.reason
        assert container.started == 2
    keep(tmp_path / "anna.json", record)
    (tmp_path / "anna.json").write_text("{}", encoding="utf-8")
    assert load(tmp_path / "anna.json") is None


def test_submissions_are_graded_side_by_side(tmp_path: Path) -> None:
    """Each waits until both are there."""
    script = f"""
import os, pathlib, time
pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch()
while len(list(pathlib.Path({str(tmp_path)!r}).iterdir())) < 2: time.sleep(0.01)
print({HOLDS!r})
"""
    records = _graded(CLASS[:2], _Answering(script), tmp_path / "kept", jobs=2)
    assert [record.verdict for record in records] == ["holds", "holds"]


def test_two_students_have_two_files() -> None:
    names = ["anna", "an na", "an_na", "../anna", "anna/", "Ännä 7"]
    slugs = {slug(name) for name in names}
    assert len(slugs) == len(names)
    assert all("/" not in name and not name.startswith(".") for name in slugs)


# ------------------------------------------------------------------------------------------------------------
# What is written

HOSTILE = "</pre><script>alert(1)</script>"


def _marked(student: str = "anna", **changed: Any) -> Marked:
    finding = {
        "clauses": ["KM-EXCL", "KM-REF"],
        "title": "Mutual exclusion",
        "statement": "At most one.",
        "message": HOSTILE,
        "picture": "0 | lock a",
        "replay": "kmutex verify mine:Locker --replay ...",
        "lesson": 5,
    }
    grade = {
        "exit": 1,
        "verdict": "violated",
        "violated": ["KM-EXCL"],
        "notes": [],
        "left_out": ["not run: chance"],
        "findings": [finding],
        "rows": _rows(KM_EXCL="violated", KM_IDLE="holds", KM_REF="inconclusive"),
    }
    plain: dict[str, Any] = {
        "student": student,
        "late": True,
        "assignment": "",
        "files": ["mine.py"],
        "file": "mine.py",
        "source": f"x = '{HOSTILE}'",
        "exit": 1,
        "verdict": "violated",
        "reason": "",
        "grade": grade,
        "seconds": 1.5,
        "container": "none",
        "key": "",
    }
    return marked(Record(**{**plain, **changed}), usual("KM-EXCL"))


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


def test_a_page_has_the_run_and_nothing_of_the_students_but_text() -> None:
    text = page(_marked(student=HOSTILE))
    found = _Tags(text)
    assert not found.tags & {"script", "img", "link", "iframe"}
    assert not any(name in ("src", "href", "onload") for name, _ in found.attributes)
    assert "default-src 'none'" in text
    for part in (
        "KM-EXCL: Mutual exclusion",
        "0 | lock a",
        "--replay",
        "lesson show 5",
        "not run: chance",
        "   1  x = ",
    ):
        assert part in text
    assert "please look at it: KM-REF" in text


def test_the_table_can_be_read_and_starts_no_formula() -> None:
    class_ = [_marked("=cmd()"), _marked("ben", grade=None, verdict="not graded", reason="-no\nfile", exit=3)]
    files = written(class_, ASKED, [Pair("=cmd()", "ben", 0.9)], [], ["x.txt"])
    first, second = csv.DictReader(io.StringIO(files["grades.csv"]))
    assert (first["student"], first["alike"], first["violated"], first["late"]) == ("'=cmd()", "ben", "KM-EXCL", "late")
    assert (first["score"], first["total"], first["open"]) == (str(class_[0].score), "10.0", "KM-REF")
    assert (second["score"], second["verdict"], second["reason"]) == ("0.0", "not graded", "'-no\nfile")
    body = json.loads(files["grades.json"])
    assert (body["format"], len(body["submissions"]), body["ignored"]) == ("kmutex-grade-class/1", 2, ["x.txt"])
    assert all(first["page"] in files and name.count("..") == 0 for name in files)


def test_the_form_of_gradescope() -> None:
    """Its specification's names, and scores that add up."""
    body = json.loads(gradescope(_marked()))
    assert set(body) <= {"score", "execution_time", "output", "output_format", "visibility", "tests", "extra_data"}
    names = {"score", "max_score", "status", "name", "number", "output", "output_format", "visibility"}
    assert all(set(test) <= names and test["status"] in ("passed", "failed") for test in body["tests"])
    assert abs(sum(test["score"] for test in body["tests"]) - body["score"]) < 0.05
    assert abs(sum(test["max_score"] for test in body["tests"]) - 10) < 0.05
    assert any(HOSTILE in test["output"] and "0 | lock a" in test["output"] for test in body["tests"])
    body = json.loads(gradescope(_marked(grade=None, reason="no Python")))
    assert (body["score"], body["tests"], body["output"]) == (0, [], "no Python")


def test_the_form_of_nbgrader() -> None:
    files = written([_marked(assignment="ps1", files=["ps1/problem.ipynb"])], ASKED, [], [], [])
    (row,) = csv.DictReader(io.StringIO(files["nbgrader.csv"]))
    assert (row["assignment"], row["student_id"], row["max_score"]) == ("ps1", "anna", "10.0")
    assert row["score"] == row["raw_score"] == str(_marked().score)
    assert "feedback/anna/ps1/problem.html" in files
    assert "nbgrader.csv" not in written([_marked()], ASKED, [], [], [])


def test_a_quick_search_says_what_it_leaves_out() -> None:
    shape = Shape("threads", timeout=True, counts=True, leases=False)
    assert left_out(shape, frozenset(), Plan()) == []
    said = left_out(shape, frozenset(), QUICK)
    assert said[0] == "not run: interleavings at locks, deeper; chance"
    assert "interleavings at locks; interleavings at bytecodes: at most 8 runs of each program, not 2,000" in said
    whole = left_out(shape, frozenset(), WHOLE)
    assert not any("not run" in line for line in whole)
    assert "chance: one pass, not as many as there is time for" in whole


# ------------------------------------------------------------------------------------------------------------
# The whole of it


@pytest.mark.parametrize(
    "arguments",
    [
        ["in", "--json", "x.json"],
        ["in", "--out", "in/grades"],
        ["in", "--out", "nowhere/at/all"],
        ["in", "--points", "in/ben/x.toml"],
        ["in", "--jobs", "0"],
        ["in", "--tests", "--without", "fifo"],
        ["empty"],
        ["no.zip"],
    ],
)
def test_wrong_usage(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _written(tmp_path, "in/anna/mine.py", "empty/x.txt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(["grade", *arguments])
    assert ended.value.code == 4


def test_one_file_in_the_form_of_gradescope(tmp_path: Path) -> None:
    """What Gradescope shows where nothing could be graded, too."""
    (tmp_path / "mine.py").write_text("from kmutex import KeyedMutex as Locker\n", encoding="utf-8")
    done = run_kmutex(tmp_path, "grade", "mine.py", "--lesson", "5", "--gradescope", "results.json", timeout=100)
    body = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (done.status, body["score"]) == (3, 0)
    assert "the locker has to be your own" in body["output"]


OF_A_CLASS = (
    *("Lesson 3", "Repaired Counting", "Copies One", "Copies Two", "Note Book", "Borrows It"),
    *("Sleeps Well", "Reads Others", "Outlives It", "Wrong Syntax"),
)


@pytest.mark.long
def test_a_class_is_graded_by_one_command(tmp_path: Path) -> None:
    """Each as it should be, by the first run; and by the second at once. All thirty take many minutes."""
    _working("bubblewrap")
    wanted = thirty(tmp_path / "in", OF_A_CLASS)
    command = ["grade", "in", "--lesson", str(LESSON), "--quick", "--out", "out"]
    done = run_kmutex(tmp_path, *command, timeout=3000)
    assert (done.status, done.err, done.left) == (3, "", [])
    with (tmp_path / "out/grades.csv").open(encoding="utf-8") as file:
        rows = {row["student"]: row for row in csv.DictReader(file)}
    assert rows.keys() == wanted.keys()
    wrong = {
        student: (verdict, rows[student]["verdict"], rows[student]["reason"])
        for student, (verdict, said) in wanted.items()
        if (verdict and rows[student]["verdict"] != verdict)
        or said not in f"{rows[student]['reason']} {rows[student]['notes']}"
    }
    assert wrong == {}
    assert {row["score"] for row in rows.values() if row["verdict"] == "holds"} == {"10.0"}
    assert {row["score"] for row in rows.values() if row["verdict"] == "not graded"} == {"0.0"}
    alike_to = next(row["alike"] for student, row in rows.items() if student.startswith("Copies One"))
    assert "Copies Two" in alike_to
    assert all((tmp_path / "out" / row["page"]).is_file() for row in rows.values())
    assert "left out: not run: interleavings at locks, deeper; chance" in done.out
    again = run_kmutex(tmp_path, *command, timeout=300)
    assert f"{len(OF_A_CLASS)} of them kept from before" in again.out


@pytest.mark.long
def test_the_tests_of_a_class_are_graded(tmp_path: Path) -> None:
    _working("bubblewrap")
    tests = {
        "anna": "def test_it(locker):\n    km = locker()\n    km.lock(1)\n    km.unlock(1)\n    assert len(km) == 0\n",
        "ben": "def test_it(locker):\n    assert False\n",
    }
    for student, code in tests.items():
        _written(tmp_path, f"in/{student}/test_mine.py")
        (tmp_path / f"in/{student}/test_mine.py").write_text(code, encoding="utf-8")
    run_kmutex(tmp_path, "grade", "in", "--tests", "--lesson", "1", timeout=1000)
    with (tmp_path / "grades/grades.csv").open(encoding="utf-8") as file:
        found = {row["student"]: (row["verdict"], row["score"]) for row in csv.DictReader(file)}
    assert found == {"anna": ("pass", "10.0"), "ben": ("not yet", "0.0")}
