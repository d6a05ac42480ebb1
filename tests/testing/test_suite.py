"""`KeyedLockerSuite` as a user runs it: pytest in a process of its own, on a file of the user's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAD = (
    "from kmutex import AsyncKeyedMutex, KeyedMutex\nfrom kmutex.testing import KeyedLockerSuite\nimport kmutex_bad\n"
)
SUITE = """
class Test{name}(KeyedLockerSuite):
    make = staticmethod({make})
    without = {without!r}
"""


def _run(folder: Path, make: str, *options: str, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    shutil.copy(ROOT / "tests" / "lockers" / "kmutex_bad.py", folder)
    (folder / "test_it.py").write_text(HEAD + SUITE.format(name="It", make=make, without=without), encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "model"), str(folder)])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("make", "level"), [("KeyedMutex", "locks"), ("AsyncKeyedMutex", "timeouts")])
def test_sound_lockers_pass(tmp_path: Path, make: str, level: str) -> None:
    """Every program of a few kinds, of the kind that the locker is."""
    done = _run(tmp_path, make, "test_it.py", "-k", f"{level} and c1 or histories")
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout
    assert int(done.stdout.rsplit(" passed", 1)[0].split()[-1].removeprefix("\n")) > 10


@pytest.mark.parametrize(
    ("make", "test", "clause", "replay"),
    [
        ("kmutex_bad.NeverEvicts", "locks 1: 0+a-a]", "KM-IDLE", "--replay '0+a-a @locks'"),
        ("kmutex_bad.IgnoresTime", "locks 1: 0+a | 1~a | c1]", "KM-CANCEL", "--replay '0+a | 1~a | c1 @locks"),
        (
            "kmutex_bad.AsyncCancelKeepsPlace",
            "tasks 1: 0+a | 1~a | c1]",
            "KM-CANCEL",
            "--replay '0+a | 1~a | c1 @tasks",
        ),
        ("kmutex_bad.CountsLate", "locks 1: 0+a-a 1+a]", "KM-REF", "--replay '0+a-a 1+a @locks "),
    ],
)
def test_bad_lockers_fail_with_clause_lanes_and_replay(
    tmp_path: Path, make: str, test: str, clause: str, replay: str
) -> None:
    """One program is enough for each."""
    done = _run(tmp_path, make, f"test_it.py::TestIt::test_program[{test}", without=("fifo",))
    assert done.returncode == 1, done.stdout
    name = f"TestIt.test_program[{test}"
    assert name in done.stdout
    said = done.stdout.split(name, 1)[1].split("\n____", 1)[0]
    assert f"ContractError: {clause}" in said
    assert f"kmutex verify {make.replace('.', ':')} --without fifo {replay}" in said
    assert "client 0" in said
    assert ">> KM-" in said


def test_what_is_no_locker_fails_and_says_why(tmp_path: Path) -> None:
    """Not an error of collection, and not a suite without tests."""
    done = _run(tmp_path, "dict", "test_it.py")
    assert done.returncode == 1
    assert "NotALockerError: dict has no lock(); a keyed locker has lock(key) and unlock(key)" in done.stdout


def test_importing_kmutex_testing_does_not_import_pytest() -> None:
    """pytest is optional. Plugins that other packages add to Hypothesis may import what they like."""
    code = "import sys, kmutex.testing; sys.exit('pytest' in sys.modules)"
    path = os.pathsep.join([str(ROOT), str(ROOT / "model")])
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path, "HYPOTHESIS_NO_PLUGINS": "1"}, check=True
    )
