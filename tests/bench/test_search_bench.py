"""The commands of benchmarks/search, at their smallest: what they find, whom they do not accuse, what they write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.scripts import loaded

ROOT = Path(__file__).resolve().parents[2]
search = loaded(ROOT / "benchmarks" / "search" / "run.py")
ACCOUNT, SOUND = search.CASES[0], search.SOUND[0]


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, f"benchmarks/search/{script}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.long
def test_a_case_is_found_a_sound_locker_is_not_accused_and_the_page_says_so(tmp_path: Path) -> None:
    page, samples = tmp_path / "page.md", tmp_path / "samples.json"
    page.write_text(
        "<!-- search beside others: written by benchmarks/search/run.py -->\n<!-- end of search beside others -->\n",
        encoding="utf-8",
    )
    files = ("--write", str(page), "--json", str(samples))
    for only, status in (("Account", 0), ("Sound, 3 callers", 0)):
        done = run("run.py", "--seeds", "1", "--limit", "2", "--only", only, *files)
        assert done.returncode == status, done.stderr
        (ours,) = [one for one in json.loads(samples.read_text())["samples"] if one["tool"] == "kmutex"]
        assert ours["found"] == (only == "Account"), done.stdout
        assert ours["schedules"] > 0
        assert f"| {only}" in page.read_text(encoding="utf-8")


@pytest.mark.long
def test_a_pair_is_searched_by_each_strategy() -> None:
    done = run("pairs.py", "--seeds", "1", "--only", "threads.CountOutsideGuard")
    assert done.returncode == 0, done.stderr
    assert "| the portfolio | 1 of 1 |" in done.stdout


def figures(*samples: tuple[str, int, bool, float]) -> Any:
    """Of two tools: the case, the number of the tool, whether it found something, and its seconds."""
    made = [search.Sample(case, search.TOOLS[tool].name, 1, found, 7, took) for case, tool, found, took in samples]
    return search.Figures(made, search.TOOLS[:2], 2.0)


def test_what_was_not_found_counts_as_the_whole_time_and_who_is_behind_is_named() -> None:
    found = figures((ACCOUNT.label, 0, True, 0.5), (ACCOUNT.label, 1, True, 0.25))
    assert "Not ahead of: Account: frontrun, DPOR (250 ms)." in list(search.said(found, [ACCOUNT]))
    assert found.reached(ACCOUNT)
    found = figures((ACCOUNT.label, 0, False, 0.5), (ACCOUNT.label, 1, False, 0.1))
    assert found.seconds(ACCOUNT, search.TOOLS[0]) == 2.0
    assert found.cell(ACCOUNT, search.TOOLS[0]) == "0 of 1"
    assert not found.reached(ACCOUNT)


def test_who_accuses_a_sound_locker_is_named() -> None:
    found = figures((SOUND.label, 0, True, 0.5), (SOUND.label, 1, False, 2.0))
    assert "kmutex accused Sound, which is sound." in list(search.said(found, [SOUND]))
    assert not found.reached(SOUND)
    assert figures((SOUND.label, 0, False, 2.0)).reached(SOUND)


@pytest.mark.long
def test_a_name_that_nothing_has_is_a_usage_error() -> None:
    for script in ("run.py", "pairs.py"):
        done = run(script, "--only", "nothing is called so")
        assert done.returncode == 4
        assert "nothing is called so" in done.stderr
        assert "Traceback" not in done.stderr
