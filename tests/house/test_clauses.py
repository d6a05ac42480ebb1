"""specs/clauses.toml, held against what it names: properties, tests, broken twins, features, and the ids in use."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kmutex.engine.features import FEATURES
from kmutex.engine.program import parse
from kmutex.testing import CLAUSES
from kmutex_model import properties
from kmutex_model.broken import BROKEN
from tests.lockers.catalogue import rows

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]


def load(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


LISTED: list[dict[str, Any]] = load("specs/clauses.toml")["clause"]
IDS = [clause["id"] for clause in LISTED]

every = pytest.mark.parametrize("clause", LISTED, ids=IDS)


def docstrings_of_tests(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield ast.get_docstring(node) or ""


def names_in(text: str) -> set[str]:
    """The ids that a text uses; KM_HANDOFF_STEP of the TLA+ files is KM-HANDOFF."""
    return {f"KM-{name}" for name in re.findall(r"\bKM[-_]([A-Z]+)", text)}


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
    assert set(clause) == {"id", "title", "statement", "feature", "drivers", "property", "tests", "broken"}
    assert clause["title"]
    assert clause["statement"].endswith(".")
    assert clause["drivers"] in (["threads", "asyncio"], ["asyncio"])


@every
def test_a_clause_has_a_property_of_the_model(clause: dict[str, Any]) -> None:
    """It exists, and is that clause's; where there is none, the file says why."""
    name = clause["property"]
    if name.startswith("none: "):
        assert not any(prop.clause == clause["id"] for prop in properties.ALL)
        assert len(name) > len("none: ")
    else:
        prop = getattr(properties, name)
        assert prop.clause == clause["id"]
        assert prop in properties.ALL


@every
def test_a_clause_has_tests_that_name_it(clause: dict[str, Any]) -> None:
    """In each file listed, the docstring of at least one test has the id."""
    assert clause["tests"]
    for file in clause["tests"]:
        assert any(clause["id"] in text for text in docstrings_of_tests(ROOT / file)), file


@every
def test_a_clause_has_broken_twins(clause: dict[str, Any]) -> None:
    """Each exists and is there for this clause; all known-bad models of the clause are listed."""
    kinds = [name.partition(":")[0] for name in clause["broken"]]
    assert "locker" in kinds
    in_model = {broken.model.name for broken in BROKEN if broken.clause == clause["id"]}
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
    assert tuple(IDS) == CLAUSES
    assert len(set(IDS)) == len(IDS)


def test_no_other_id_is_in_use() -> None:
    """An id in code, specs, docs or the docstring of a test is one of the file; and each is in use in the library."""
    used: dict[str, set[str]] = {}
    for path in texts():
        for name in names_in(path.read_text(encoding="utf-8")):
            used.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    for path in (ROOT / "tests").rglob("test_*.py"):
        for text in docstrings_of_tests(path):
            for name in names_in(text):
                used.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
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
    """An id that is none is found, in the form of the docs and in that of the specs (KM-EXCL is one)."""
    assert names_in("KM-EXCL and KM_EXCL_STEP") == {"KM-EXCL"}
    assert names_in(f"KM{'-'}NONSUCH, KM{'_'}NONSUCH_STEP") - set(IDS) == {"KM" + "-NONSUCH"}
