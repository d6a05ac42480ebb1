"""The options of kmutex verify. The command runs in this process, the subjects in processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmutex.engine.shapes import Shape
from kmutex.verify import runner
from kmutex.verify.evidence import Result
from kmutex.verify.plan import Unit, plan
from kmutex.verify.results import UnitResult
from tests.commands import Done, environment, left_by, run_here
from tests.verify.folder import prepared
from tests.verify.test_report import valid_sarif

THREADS = Shape(kind="threads", timeout=True, counts=True, leases=False)
Verify = Callable[..., Done]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user stands."""
    here = prepared(tmp_path / "here")
    monkeypatch.chdir(here)
    return here


@pytest.fixture
def verify(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verify:
    return lambda *arguments: run_here(monkeypatch, capsys, "verify", *arguments)


def parts(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


def steady(text: str) -> list[dict[str, Any]]:
    """The rows without what the machine decides."""
    return [{**row, "seconds": None} for row in json.loads(text)["rows"]]


@pytest.mark.long
def test_a_fixed_amount_of_work_is_the_same_work_twice_and_leaves_nothing(verify: Verify, folder: Path) -> None:
    """Every method runs, the random ones among them; another seed makes other runs."""
    before = parts(folder)
    fixed = ("subjects:AsyncSound", "--runs", "2", "--jobs", "1", "--all", "--json", "-")
    one, two, other = verify(*fixed), verify(*fixed), verify(*fixed, "--seed", "3")
    assert parts(folder) == before
    rows = steady(one.out)
    assert rows == steady(two.out)
    assert {row["method"] for row in rows} >= {
        "histories",
        "chance",
        "keys",
        "interleavings of tasks, deeper",
    }
    assert not any(row["detail"].startswith("not run") for row in rows)
    assert (json.loads(other.out)["seed"], steady(other.out) == rows) == (3, False)
    assert one.status == two.status == json.loads(one.out)["exit"]


@pytest.mark.long
def test_a_run_ends_soon_after_a_violation_unless_all_is_wanted(verify: Verify) -> None:
    """What was not reached is said, and why; with --all the plan is gone through."""
    done = verify("subjects:AsyncKeepsCancelled", "--seconds", "60", "--json", "rows.json")
    rows = json.loads(Path("rows.json").read_text(encoding="utf-8"))["rows"]
    assert (done.status, done.err) == (1, "")
    assert any(row["detail"] == "not run: it ended after a violation; --all goes on" for row in rows)
    assert "--all goes on" in done.out
    verify("subjects:AsyncKeepsCancelled", "--runs", "2", "--all", "--json", "rows.json")
    rows = json.loads(Path("rows.json").read_text(encoding="utf-8"))["rows"]
    assert {row["method"] for row in rows if row["result"] == "holds"} >= {"loops", "histories"}


def test_a_violation_is_seen_before_the_end(folder: Path) -> None:
    """In a pipe: its whole block is there while the command is still at work."""
    mark = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-m", "kmutex", "verify", "subjects:AsyncKeepsCancelled", "--all", "--seconds", "600"],
        cwd=folder,
        env=environment(mark),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("replay: "):
                break
        assert process.poll() is None
        process.terminate()
    assert lines[0].startswith("KM-")
    assert any(line.startswith("code:   subjects.py:") for line in lines)
    assert left_by(mark) == []


def test_several_subjects_have_a_report_each_and_the_worst_counts(verify: Verify) -> None:
    """One that can't be put to work does not keep the next from being judged."""
    done = verify("subjects:NoLock", "subjects:AsyncKeepsCancelled", "--junit", "rows.xml", "--json", "rows.json")
    assert done.status == 1
    assert [line for line in done.out.splitlines() if line.startswith("== ")] == [
        "== subjects:NoLock",
        "== subjects:AsyncKeepsCancelled",
    ]
    (complaint,) = done.err.splitlines()
    assert complaint.startswith("kmutex: cannot verify subjects:NoLock: ")
    body = json.loads(Path("rows.json").read_text(encoding="utf-8"))
    assert body["subjects"] == ["subjects:NoLock", "subjects:AsyncKeepsCancelled"]
    assert body["failed"].keys() == {"subjects:NoLock"}
    assert {row["subject"] for row in body["rows"]} == {"subjects:AsyncKeepsCancelled"}
    assert Path("rows.xml").read_text(encoding="utf-8").count("<testsuite ") == 2


def test_sarif_is_all_there_is_on_standard_output(verify: Verify) -> None:
    done = verify("subjects:AsyncKeepsCancelled", "--format", "sarif")
    assert (done.status, done.err) == (1, "")
    run = valid_sarif(done.out)
    first = run["results"][0]
    assert first["ruleId"] == "KM-CANCEL"
    assert first["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "subjects.py"
    assert "--format sarif" in run["invocations"][0]["commandLine"]


@pytest.mark.long
def test_github_gets_an_annotation_beside_the_text(verify: Verify) -> None:
    done = verify("subjects:AsyncKeepsCancelled", "subjects:NoLock", "--format", "github")
    lines = done.out.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("::error file=subjects.py,line="))
    assert lines[at + 1].startswith("KM-CANCEL")
    assert any(line.startswith("::error title=cannot verify subjects%3ANoLock::") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--json", "-", "--format", "sarif"), "both need standard output"),
        (("--seconds", "3", "--runs", "3"), "not allowed with"),
        (("--runs", "0"), "'0' is not a number of runs"),
        (("--jobs", "0"), "'0' is not a number of processes"),
        (("--seed", "-1"), "'-1' is not a number of seeds"),
        (("subjects:Evicts", "--replay", "0+a @locks"), "one schedule on one subject"),
        (("--format", "yaml"), "invalid choice"),
    ],
)
def test_options_that_do_not_fit_are_refused(verify: Verify, arguments: tuple[str, ...], words: str) -> None:
    done = verify("subjects:AsyncSound", *arguments)
    assert done.status == 4
    assert words in done.err.splitlines()[-1]


def test_the_version_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done = run_here(monkeypatch, capsys, "--version")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("kmutex ")
    assert done.out.rstrip().endswith(sys.version.split()[0])


@pytest.mark.parametrize(("complete", "result"), [(True, Result.INCONCLUSIVE), (False, Result.HOLDS)])
def test_what_was_planned_and_not_run_counts_where_that_is_wanted(
    complete: bool, result: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass that only makes the bounds larger; without the option it is noted."""

    class Crew:
        def __init__(self, *_: object) -> None: ...

        def begin(self) -> tuple[Shape, bool]:
            return THREADS, True

        def end(self) -> None: ...

    outcome = UnitResult(Unit(0, "first", "every", "0+a", most=1), runs=1, complete=True)
    outcome.witnesses["KM-EXCL"] = 1
    driven = runner.Driven([outcome], [Unit(1, "deeper", "every", "0+a", bound=2)])
    monkeypatch.setattr(runner, "_Workers", Crew)
    monkeypatch.setattr(runner, "drive", lambda *_: driven)
    rows = runner.verify("m:F", how=runner.Plan(complete=complete)).rows
    assert [row.result for row in rows if row.clause == "KM-EXCL"][-1] is result


def test_the_random_part_derives_from_the_seed() -> None:
    """Every random unit has another seed under another; the rest of the plan is the same."""
    one, two = (
        [unit for units, _ in zip(plan(THREADS, seed=s), range(12), strict=False) for unit in units] for s in (0, 1)
    )
    assert [unit.program for unit in one] == [unit.program for unit in two]
    for first, second in zip(one, two, strict=True):
        assert (first.seed != second.seed) == (first.task in ("some", "histories"))


def test_what_the_subject_imports_is_not_compiled_into_the_folder(folder: Path) -> None:
    """Also where Python would keep it."""
    variables = environment(uuid.uuid4().hex)
    del variables["PYTHONDONTWRITEBYTECODE"]
    done = subprocess.run(
        [sys.executable, "-m", "kmutex", "verify", "subjects:Evicts", "--replay", "0+a | 1+a | 0-a @locks"],
        cwd=folder,
        env=variables,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1
    assert not (folder / "__pycache__").exists()
