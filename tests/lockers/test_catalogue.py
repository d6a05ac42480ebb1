"""The catalogue: its form, and that it has every locker there is, once."""

from __future__ import annotations

import ast
import importlib
import sys
import threading
from pathlib import Path

import pytest

from tests.lockers import catalogue, demo
from tests.lockers.catalogue import HERE, BadRowError, Row, entries, load, rows, sentence

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SPECS = HERE.parents[1] / "specs"
CLAUSES = {clause["id"] for clause in tomllib.loads((SPECS / "clauses.toml").read_text(encoding="utf-8"))["clause"]}
MODULES = sorted({path.stem for path in HERE.glob("*.py") if not path.stem.startswith("test_")} - {"catalogue", "demo"})
"""Where lockers stand; the other two have none."""


def written(module: str) -> set[str]:
    """The public names of a module that make lockers; helpers have private ones."""
    home = f"tests.lockers.{module}"
    own = {
        name
        for name, value in vars(importlib.import_module(home)).items()
        if callable(value) and getattr(getattr(value, "func", value), "__module__", None) == home and name[0] != "_"
    }
    return own - {"say", "main"} if module == "adapters" else own


@pytest.mark.parametrize("module", MODULES)
def test_every_locker_has_a_row_and_every_row_a_locker(module: str) -> None:
    """Nothing that is written is left unjudged, and nothing is listed that is gone."""
    assert {row.attribute for row in entries() if row.module == f"tests.lockers.{module}"} == written(module)


def test_a_factory_is_listed_once_unless_it_is_judged_in_two_ways() -> None:
    judged = [(row.factory, row.without) for row in entries()]
    assert len(set(judged)) == len(judged)


@pytest.mark.parametrize("row", entries(), ids=lambda row: row.name)
def test_a_row_says_what_it_is_about(row: Row) -> None:
    """There is the file, a sentence, clauses that exist, a twin that is sound, and a script that shows it."""
    assert row.path.is_file()
    assert (row.note if "/" in row.module else sentence(row)).endswith(".") or row.kind == "port"
    assert set(row.clauses) <= CLAUSES
    if row.twin:
        assert (rows()[row.twin].expect == "holds") != (row.expect == "holds")
    if row.demo:
        assert row.demo in {*demo.THREADS, *demo.ASYNCIO, "two_loops", "barging", "explored only"}
    if row.stop:
        waits = Path(str(threading.__file__)).read_text(encoding="utf-8")
        assert row.stop in row.path.read_text(encoding="utf-8") or row.stop in waits


def test_what_was_written_from_a_story_has_a_script_unless_it_is_held_out() -> None:
    for row in entries(kind=("threads", "asyncio"), origin="written", shape="lock", held_out=False):
        assert bool(row.demo) == (row.expect != "holds"), row.name


@pytest.mark.parametrize(
    "module",
    [f"{name}_{kind}" for name in ("flights", "wild") for kind in ("threads", "asyncio")]
    + [f"{kind}_{name}" for kind in ("threads", "asyncio") for name in ("bad", "sound")],
)
def test_lockers_import_the_standard_library_only(module: str) -> None:
    """They are written as strangers would write them, without kmutex."""
    tree = ast.parse((HERE / f"{module}.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


def test_entries_are_chosen_by_what_they_are() -> None:
    held_out = entries(held_out=True)
    assert held_out
    assert {row.held_out for row in held_out} == {True}
    both = entries(kind=("threads", "asyncio"), expect="holds", origin="written")
    assert {(row.kind, row.expect) for row in both} == {("threads", "holds"), ("asyncio", "holds")}
    assert [row for row in rows().values() if row in both] == both
    assert load("threads.NeverEvicts")().unlock


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('expect = "holds"', "lacks factory"),
        ('factory = "a:b"\nexpect = "holds"\ncolour = "red"', "there is no field colour"),
        ('factory = "a:b"\nexpect = "sound"', "its expect is 'sound', not one of"),
        ('factory = "a:b"\nexpect = "holds"\nshape = "round"', "its shape is 'round'"),
        ('factory = "a:b"\nexpect = "holds"\nheld_out = "yes"', "held_out is not a bool"),
        ('factory = "a:b"\nexpect = "holds"\nclauses = "KM-EXCL"', "clauses is not a tuple"),
        ('factory = "a:b"\nexpect = "violation"', "has clauses"),
        ('factory = "a:b"\nexpect = "holds"\nclauses = ["KM-EXCL"]', "has clauses"),
        ('factory = "a:b"\nexpect = "violation"\nclauses = ["KM-EXCL"]\norigin = "wild"', "has a source"),
    ],
)
def test_a_row_of_another_form_is_refused(
    body: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.toml").write_text(f'["threads.X"]\n{body}\n', encoding="utf-8")
    monkeypatch.setattr(catalogue, "HERE", tmp_path)
    with pytest.raises(BadRowError, match=words):
        list(catalogue._written())


def test_what_a_row_leaves_out_follows_from_where_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The factory from the row's name, the verdict from its clauses, a default from the table and the file."""
    (tmp_path / "x.toml").write_text(
        'held_out = true\n[threads.odd]\norigin = "test"\nX = {}\nY = { factory = "Z", clauses = ["KM-EXCL"] }\n'
        'W = { factory = "a/b.py:c", expect = "failed", origin = "written", held_out = false }\n'
        '"shapes.V" = {}\n',
        encoding="utf-8",
    )
    monkeypatch.setattr(catalogue, "HERE", tmp_path)
    assert list(catalogue._written()) == [
        Row("threads.X", "tests.lockers.odd:X", "holds", origin="test", held_out=True),
        Row("threads.Y", "tests.lockers.odd:Z", "violation", clauses=("KM-EXCL",), origin="test", held_out=True),
        Row("threads.W", "a/b.py:c", "failed"),
        Row("threads.shapes.V", "tests.lockers.odd:V", "holds", origin="test", held_out=True),
    ]


def test_two_rows_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_ports", lambda: [Row("threads.NeverEvicts", "a:b", "holds")])
    rows.cache_clear()
    try:
        with pytest.raises(BadRowError, match="two of it"):
            rows()
    finally:
        rows.cache_clear()
