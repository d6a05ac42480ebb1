"""Without the extra ``kmutex[check]``: who needs it says so in a line, and who doesn't goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name in ("hypothesis", "rich") else find(name, *rest)
"""
LINE = "needs hypothesis and rich: pip install 'kmutex[check]'"
MARKED = "import pytest, threading\n@pytest.mark.kmutex\ndef test_locker():\n    return object()\n"
TABLE = '[tool.kmutex]\nsubjects = ["mine:Locker"]\n'


def run(folder: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python program in which those packages are not found."""
    command = [sys.executable, "-c", WITHOUT + program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def run_pytest(folder: Path) -> subprocess.CompletedProcess[str]:
    """pytest with the plugin of kmutex, as it is installed."""
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:frontrun", "--rootdir=."]
    return run(folder, "import pytest; sys.exit(pytest.main(sys.argv[1:]))", *options, ".")


def test_the_command_says_what_to_install(tmp_path: Path) -> None:
    """In one line, with exit status 4, whatever it is asked for."""
    for arguments in (["verify", "mine:Locker"], ["--version"], []):
        done = run(tmp_path, "from kmutex.cli import main; main(sys.argv[1:])", *arguments)
        assert (done.returncode, done.stdout, done.stderr) == (4, "", f"kmutex: the command kmutex {LINE}\n")


def test_kmutex_testing_says_what_to_install(tmp_path: Path) -> None:
    """By its error, whatever is imported of it."""
    for statement in ("import kmutex.testing", "from kmutex.testing import KeyedLockerSuite"):
        done = run(tmp_path, statement)
        assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: kmutex.testing {LINE}"


def test_the_lock_and_the_recorder_go_on(tmp_path: Path) -> None:
    """Neither needs the extra."""
    program = "import io; from kmutex import KeyedMutex; from kmutex.trace import Recorder\n"
    program += "km = Recorder(KeyedMutex(), io.StringIO())\nwith km.hold('a'): print(km)"
    assert "Recorder" in run(tmp_path, program).stdout


@pytest.mark.long
def test_the_plugin_does_nothing_in_a_project_that_does_not_use_it(tmp_path: Path) -> None:
    """Its tests pass as ever."""
    (tmp_path / "test_own.py").write_text("def test_own(): pass\n", encoding="utf-8")
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kmutex" not in done.stdout + done.stderr


@pytest.mark.long
def test_a_project_that_uses_it_is_told(tmp_path: Path) -> None:
    """A test that is marked fails by the line; with a table in pyproject.toml, pytest does not begin."""
    (tmp_path / "test_marked.py").write_text(MARKED, encoding="utf-8")
    marked = run_pytest(tmp_path)
    assert marked.returncode == 1
    assert f"kmutex.testing {LINE}" in marked.stdout
    assert "Traceback" not in marked.stdout
    (tmp_path / "pyproject.toml").write_text(TABLE, encoding="utf-8")
    told = run_pytest(tmp_path)
    assert (told.returncode, told.stderr.strip()) == (4, f"ERROR: kmutex.testing {LINE}")
