"""kmutex grade FOLDER: who handed in what, what each is worth, whose it is, and that nothing of it gets out."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kmutex.teach import container as containers
from kmutex.teach.alike import alike
from kmutex.teach.class_report import gradescope, marked, page, written
from kmutex.teach.container import Container, find
from kmutex.teach.grade import QUICK
from kmutex.teach.grade_class import Asked, Record, grade_class, load, slug
from kmutex.teach.handed_in import HandedIn, HandedInError, by_student, from_notebook, stage, the_locker
from kmutex.teach.lesson import lesson, lessons
from kmutex.teach.own_work import borrowed
from kmutex.teach.points import Scheme, SchemeError, of_rows, of_tests, scheme, score, usual
from kmutex.teach.submission import SubmissionError, UnreadableError
from kmutex.verify.runner import left_out
from tests.commands import left_by, marked as processes_marked, run, run_kmutex
from tests.teach.handed_in import LESSON, notebook, renamed, repaired, thirty

BUBBLEWRAP = not containers._tried(Container("bubblewrap"), [])
DOCKER = bool(shutil.which("docker")) and not containers._tried(Container("Docker"), [])
WORKING = [name for name, works in (("bubblewrap", BUBBLEWRAP), ("Docker", DOCKER)) if works]
ASKED = Asked(LESSON, tests=False, without=lesson(LESSON).without, quick=True, seconds=60, megabytes=1024)
needs_container = pytest.mark.skipif(not WORKING, reason="no container works here: apt-get install bubblewrap")


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
    cells = ("%matplotlib inline\n!pip list\nx = 1", "%%bash\nls\n", "%%time\ny = x % 2", 'z = """\n%kept\n"""')
    code = from_notebook(notebook(*cells).encode()).decode()
    names: dict[str, object] = {}
    exec(code, names)
    assert (names["x"], names["y"], names["z"]) == (1, 1, "\n%kept\n")
    assert code.splitlines()[0] == "# cell 1"


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
    assert [(pair.one, pair.other, pair.share) for pair in pairs] == [("3", "copy", 1.0)]
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
        "it could be put to work": (1, 1),
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


def test_tests_that_reject_a_correct_locker_have_no_points() -> None:
    broken = [{"locker": f"lesson {n}", "breaks": "KM-EXCL", "result": r} for n, r in enumerate(["caught", "missed"])]
    good, bad = ({"locker": "ours", "breaks": None, "result": result} for result in ("accepted", "rejected"))
    assert (score(Scheme(), of_tests([good, *broken])), score(Scheme(), of_tests([bad, *broken]))) == (5, 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("total = ", "no TOML"),
        ("sum = 3", "'sum' is none of"),
        ("[clauses]\nKM-NONE = 1", "'KM-NONE' is none of"),
        ("total = -1", "no number of points"),
        ("works = true", "no number of points"),
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


@pytest.mark.parametrize("name", WORKING)
def test_a_container_that_works_is_found_and_sees_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert containers._tried(Container(name), [tmp_path, Path.home() / ".ssh"]) == ""
    # And where it would show what is to be hidden, it is refused.
    assert containers._tried(Container(name), [Path("/usr")]) == "/usr is seen in it"


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
# The whole of it


def _handed(name: str, code: str) -> HandedIn:
    return HandedIn(name, {"mine.py": code.encode()})


@needs_container
@pytest.mark.long
def test_what_is_in_a_container_sees_no_neighbour_and_does_not_outlive_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both get out without one: that is what --trust means."""
    from tests.teach.handed_in import OUTLIVES, READS

    monkeypatch.setenv("KMUTEX_TEST_MARK", "inside")
    _written(tmp_path, "class/anna/mine.py")
    sound = repaired("Counting")
    class_ = [
        _handed("reads", READS.format(folder=str(tmp_path / "class")) + sound),
        _handed("writes", f"open({str(tmp_path / 'written')!r}, 'w').write('x')\n{sound}"),
        _handed("outlives", OUTLIVES + sound),
        _handed("env", "import os\nif 'KMUTEX_TEST_MARK' in os.environ: raise ValueError('it sees my secrets')\n" + sound),
    ]
    asked = Asked(LESSON, False, lesson(LESSON).without, quick=True, seconds=60, megabytes=1024)
    before = set(_asleep())
    records = grade_class(class_, asked, Container(WORKING[0]), tmp_path, jobs=1)
    verdicts = {record.student: (record.verdict, record.reason) for record in records}
    assert verdicts["reads"] == verdicts["outlives"] == verdicts["env"] == ("holds", "")
    # It can't be written, and so can't be imported.
    assert verdicts["writes"][0] == "not graded"
    assert not (tmp_path / "written").exists()
    assert set(_asleep()) <= before
    trusted = grade_class([class_[0], class_[3]], asked, Container("none"), tmp_path / "t", jobs=1) if False else []
    assert trusted == []


def _asleep() -> list[int]:
    """Processes that came from a submission that forks by itself."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"kmutex.teach" in (process / "cmdline").read_bytes() or b"kmutex.verify" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found
