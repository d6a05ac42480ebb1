"""specs/clauses.toml, held against what it names: properties, tests, broken twins, features, and the ids in use."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kmutex._clauses import FLIGHT_CLAUSES
from kmutex.engine.features import FEATURES
from kmutex.engine.program import parse
from kmutex.testing import CLAUSES
from kmutex_model import flight, properties, several
from kmutex_model.broken import BROKEN
from tests.house import clauses
from tests.house.clauses import IDS, LISTED, ROOT, names_in
from tests.lockers.catalogue import rows

every = pytest.mark.parametrize("clause", LISTED, ids=IDS)


def texts() -> Iterator[Path]:
    """Code, specs and docs. Not the tests, which make up ids where they need one that is none."""
    for folder in ("kmutex", "model", "specs", "docs", "examples", "benchmarks"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".md", ".toml", ".tla", ".cfg") and path.is_file():
                yield path
    yield from ROOT.glob("*.md")


@every
def test_a_clause_says_what_it_is(clause: dict[str, Any]) -> None:
    """All fields are there, and the statement is one or more sentences."""
    assert set(clause) == {"id", "title", "statement", "feature", "drivers", "property", "broken"}
    assert clause["title"]
    assert clause["statement"].endswith(".")
    assert clause["drivers"] in (["threads", "asyncio"], ["asyncio"])


@every
def test_a_clause_has_a_property_of_the_model(clause: dict[str, Any]) -> None:
    """It exists, and is that clause's; where there is none, the file says why."""
    name = clause["property"]
    if name.startswith("none: "):
        assert not any(prop.clause == clause["id"] for prop in (*properties.ALL, *several.ALL, *flight.ALL))
        assert len(name) > len("none: ")
    else:
        model = next(home for home in (properties, several, flight) if hasattr(home, name))
        prop = getattr(model, name)
        assert prop.clause == clause["id"]
        assert prop in model.ALL


@every
def test_a_clause_has_tests_that_name_it(clause: dict[str, Any]) -> None:
    """Of the mutex, for each driver that it binds, and of what checks lockers."""
    named = [test for test in clauses.tests() if clause["id"] in test.clauses]
    files = {test.file for test in named}
    own = {"threads": "tests/test_threads.py", "asyncio": "tests/test_aio.py"}
    both = "tests/test_once.py" if clause["id"] in FLIGHT_CLAUSES else "tests/test_drivers.py"
    for driver in clause["drivers"]:
        assert files & {both, own[driver]}, driver
    assert any(test.group == clauses.CHECKERS for test in named)


def test_the_page_says_what_checks_each_clause() -> None:
    """docs/clauses.md is up to date; if not: python -m tests.house.clauses --write"""
    assert clauses.PAGE.read_text(encoding="utf-8") == clauses.page()


def test_a_test_counts_for_the_clauses_of_its_docstring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And for no other; what is no test counts for none."""
    made = tmp_path / "tests" / "postgres" / "test_made.py"
    made.parent.mkdir(parents=True)
    made.write_text(
        'def test_one():\n    """KM-EXCL, KM-IDLE: and more"""\n\n\nasync def test_two():\n    """Of none."""\n\n\n'
        'def helper():\n    """KM-FIFO"""\n'
    )
    with monkeypatch.context() as patch:
        patch.setattr(clauses, "ROOT", tmp_path)
        found = list(clauses.tests_in(made))
    assert [(test.line, test.name, test.clauses) for test in found] == [
        (1, "test_one", {"KM-EXCL", "KM-IDLE"}),
        (5, "test_two", frozenset()),
    ]
    counted = [clauses.Checked(clause, found).row().endswith("| 0 | 1 | 0 | 0 |") for clause in LISTED]
    assert {name for name, counts in zip(IDS, counted, strict=True) if counts} == {"KM-EXCL", "KM-IDLE"}


def test_the_command_lists_what_checks_a_clause() -> None:
    """Code, known-bads, and tests with the lines where they begin; a clause that is none is refused."""
    command = [sys.executable, "-m", "tests.house.clauses"]
    run = subprocess.run([*command, "KM-LOOP"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert re.search(r"^In the lock: .*_aio\.py", run.stdout, re.MULTILINE)
    assert re.search(r"^Known-bad lockers, asyncio: \w+.*; \d+ held out$", run.stdout, re.MULTILINE)
    for line in (line for line in run.stdout.splitlines() if line.startswith("tests/")):
        place, name = line.split()
        file, number = place.split(":")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert "test_another_loop_is_refused_at_once_free_or_held" in run.stdout
    wrong = subprocess.run([*command, "KM-SUCH"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert (wrong.returncode, "invalid choice" in wrong.stderr) == (2, True)


@every
def test_a_clause_has_broken_twins(clause: dict[str, Any]) -> None:
    """Each exists and is there for this clause; all known-bad models of the clause are listed."""
    kinds = [name.partition(":")[0] for name in clause["broken"]]
    assert "locker" in kinds
    in_model = {
        broken.model.name for broken in (*BROKEN, *several.BROKEN, *flight.BROKEN) if broken.clause == clause["id"]
    }
    listed = {name.partition(":")[2] for name in clause["broken"] if name.startswith("model:")}
    assert listed == in_model
    assert bool(in_model) == (not clause["property"].startswith("none: "))
    for name in clause["broken"]:
        kind, _, rest = name.partition(":")
        assert kind in ("model", "locker")
        if kind == "locker":
            assert clause["id"] in rows()[rest].clauses
            assert rows()[rest].expect == "violation"
            assert rows()[rest].kind in clause["drivers"]
            assert not rows()[rest].held_out


def test_each_driver_of_a_clause_has_a_bad_locker_or_the_reason_is_known() -> None:
    """A clause that binds both drivers has a bad locker for each, but for two that have one for threads only."""
    threads_only = set()
    for clause in LISTED:
        kinds = {name.split(":")[1].split(".")[0] for name in clause["broken"] if name.startswith("locker:")}
        if kinds != set(clause["drivers"]):
            threads_only.add(clause["id"])
            assert kinds == {"threads"}
    # A task is cancelled and never interrupted; and no asyncio locker of the catalogue takes a timeout.
    assert threads_only == {"KM-INTERRUPT", "KM-EXPIRED"}


def test_a_feature_turns_off_what_it_is_declared_to() -> None:
    """The file and the features that `--without` takes agree both ways."""
    declared = {clause: name for name, feature in FEATURES.items() for clause in feature.clauses}
    assert {c["id"]: c["feature"] for c in LISTED} == {c: declared.get(c, "none") for c in IDS}


def test_the_judge_knows_the_same_clauses_in_the_same_order() -> None:
    """Reports and file have one order."""
    assert (*CLAUSES, *FLIGHT_CLAUSES) == IDS
    assert len(set(IDS)) == len(IDS)


def test_no_other_id_is_in_use() -> None:
    """An id in code, specs, docs or the docstring of a test is one of the file; and each is in use in the library."""
    used: dict[str, set[str]] = {}
    for path in texts():
        for name in names_in(path.read_text(encoding="utf-8")):
            used.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    for test in clauses.tests():
        for name in test.clauses:
            used.setdefault(name, set()).add(test.file)
    assert {name: where for name, where in used.items() if name not in IDS} == {}
    for name in IDS:
        assert any(where.startswith("kmutex/") for where in used[name]), name


def test_the_prose_contract_has_a_paragraph_for_each() -> None:
    """In specs/contract.md, under the id and title of the file, in its order."""
    text = (ROOT / "specs/contract.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (KM-[A-Z]+): (.+)$", text, re.MULTILINE) == [(c["id"], c["title"]) for c in LISTED]


@pytest.mark.parametrize("file", ["contract.md", "divergences.md"])
def test_programs_in_the_prose_are_programs(file: str) -> None:
    """What stands on a line of its own between fences can be run."""
    text = (ROOT / "specs" / file).read_text(encoding="utf-8")
    blocks = re.findall(r"^```program\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    for line in "".join(blocks).splitlines():
        assert str(parse(line)) == line


def test_the_scan_can_tell() -> None:
    """An id that is none is found, in the form of the docs and in that of the specs."""
    assert names_in("KM-EXCL and KM_EXCL_STEP") == {"KM-EXCL"}
    assert names_in(f"KM{'-'}NONSUCH, KM{'_'}NONSUCH_STEP") - set(IDS) == {"KM" + "-NONSUCH"}
