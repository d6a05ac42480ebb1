"""What kmutex verify says of a subject that has no bytecodes of its own: it switches at locks only, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

import kmutex
from tests.commands import run_here

pytestmark = pytest.mark.long

TABLES = """
import threading
from collections import defaultdict


def compiled():
    return defaultdict(threading.Lock)


class Table(defaultdict):
    def __missing__(self, key):
        self[key] = threading.Lock()
        return self[key]


def in_python():
    return Table()
"""
SAID = "not run, since the subject ran no bytecode of its own"


def verified(target: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    (folder / "tables.py").write_text(TABLES, encoding="utf-8")
    monkeypatch.chdir(folder)
    done = run_here(monkeypatch, capsys, "verify", target, "--seconds", "4")
    assert done.status in (0, 1, 2), done.err
    return done.out


@pytest.mark.parametrize(("name", "told"), [("compiled", True), ("in_python", False)])
def test_a_subject_without_bytecodes_is_told(
    name: str, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its twin, whose table is in Python, is switched between bytecodes."""
    assert (SAID in verified(f"tables:{name}", tmp_path, monkeypatch, capsys)) == told


def test_this_library_is_told_where_it_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`kmutex.compiled`, by which docs and users go, says the same."""
    assert (SAID in verified("kmutex:KeyedMutex", tmp_path, monkeypatch, capsys)) == kmutex.compiled
