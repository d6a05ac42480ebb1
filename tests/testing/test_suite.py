"""`KeyedLockerSuite`, and lockers as tests by the plugin: pytest run by pytest, on files of a user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# What a run within this process imports anew is a second copy of what this one has at work.
from kmutex.testing.plugin import CACHE

pytest_plugins = ["pytester"]

LOCKS = '''
import asyncio
import threading


class Drops:
    """Takes the lock out of the table although others wait for it."""

    def __init__(self):
        self._guard = threading.Lock()
        self._locks = {}

    def lock(self, key, timeout=None):
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError(key)

    def unlock(self, key):
        with self._guard:
            lock = self._locks.pop(key)
        lock.release()


class Keeps:
    """Keeps every lock for good."""

    def __init__(self):
        self._locks = {}

    async def lock(self, key):
        await self._locks.setdefault(key, asyncio.Lock()).acquire()

    def unlock(self, key):
        self._locks[key].release()


REGISTRY = {}
guard = threading.Lock()


def lock_for(key):
    with guard:
        return REGISTRY.setdefault(key, threading.Lock())
'''
TABLE = '[tool.kmutex]\nsubjects = ["locks:Drops", {target = "locks:Keeps", without = ["evict"]}]\n'


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty folder with the lockers of a user."""
    monkeypatch.syspath_prepend(str(pytester.path))
    _write(pytester, "locks.py", LOCKS)
    return pytester


def _write(pytester: pytest.Pytester, name: str, text: str) -> None:
    (pytester.path / name).write_text(text, encoding="utf-8")


def _run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "no:randomly", "-p", "no:asyncio", "-p", "no:xdist", *options)


@pytest.mark.long
def test_one_mistake_is_one_failure(project: pytest.Pytester) -> None:
    """KM-EXCL: with the lines of the locker, the command that runs it again, and no other failure for it."""
    _write(project, "pyproject.toml", TABLE)
    done = _run(project)
    done.assert_outcomes(passed=1, failed=1)
    done.stdout.fnmatch_lines(
        [
            "KM-EXCL: client 1 got a while client 0 holds it",
            "client 0 *client 1*",
            "*if not lock.acquire(*",
            "code: *locks.py:*",
            "replay: kmutex verify locks:Drops --replay '0+a * @locks*'",
            "violated (*KM-EXCL*",
            "FAILED pyproject.toml::locks:Drops - *",
        ]
    )
    assert len(done.outlines) < 60
    assert not any("Traceback" in line or "hidden" in line for line in done.outlines)
    assert {path.name for path in project.path.iterdir()} <= {
        "locks.py",
        "pyproject.toml",
        ".pytest_cache",
        "__pycache__",
    }


@pytest.mark.long
def test_what_failed_is_run_first_until_it_passes(project: pytest.Pytester) -> None:
    """Saved in pytest's cache, and forgotten when it holds."""
    _write(project, "pyproject.toml", TABLE)
    _run(project)
    first = _run(project, "-k", "Drops")
    first.assert_outcomes(failed=1, deselected=1)
    first.stdout.fnmatch_lines(["violated (*: of ? clauses, ? violated"])
    kept = project.path / ".pytest_cache" / "v" / CACHE
    assert "locks:Drops" in kept.read_text()
    _write(project, "locks.py", LOCKS.replace("class Drops:", "class Dropped:") + "\n\nDrops = Keeps\n")
    _write(project, "pyproject.toml", TABLE.replace('"locks:Drops"', '{target = "locks:Drops", without = ["evict"]}'))
    kept.write_text(kept.read_text().replace("locks:Drops", "locks:Drops --without evict"))
    _run(project, "-k", "Drops").assert_outcomes(passed=1, deselected=1)
    assert kept.read_text() == "{}"


@pytest.mark.long
def test_a_file_of_schedules_is_added_to_and_run_first(project: pytest.Pytester) -> None:
    """One command a line; what is no command of a subject is left alone."""
    _write(project, "pyproject.toml", TABLE + 'schedules = "schedules.txt"\n')
    _write(project, "schedules.txt", "# found before\nkmutex verify other:Locks --replay '0+a @locks'\n")
    _run(project, "-p", "no:cacheprovider").assert_outcomes(passed=1, failed=1)
    lines = (project.path / "schedules.txt").read_text().splitlines()
    assert lines[0] == "# found before"
    assert lines[2].startswith("kmutex verify locks:Drops --replay ")
    again = _run(project, "-p", "no:cacheprovider", "-k", "Drops")
    again.stdout.fnmatch_lines([f"replay: {lines[2]}", "violated (*: of ? clauses, ? violated"])
    assert (project.path / "schedules.txt").read_text().splitlines() == lines


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "passed", "failed"),
    [
        pytest.param((), 2, 1),
        (("tests",), 1, 0),
        (("pyproject.toml::locks:Drops",), 0, 1),
        (("-m", "not kmutex"), 1, 0),
    ],
)
def test_the_table_is_run_where_no_test_is_named(
    project: pytest.Pytester, options: tuple[str, ...], passed: int, failed: int
) -> None:
    """Also where the project keeps its tests in a folder of their own."""
    _write(project, "pyproject.toml", TABLE + '[tool.pytest.ini_options]\ntestpaths = ["tests"]\n')
    project.mkdir("tests")
    _write(project, "tests/test_own.py", "def test_own():\n    pass\n")
    outcomes = _run(project, *options).parseoutcomes()
    assert (outcomes.get("passed", 0), outcomes.get("failed", 0)) == (passed, failed)


MARKED = """
import locks
import pytest

@pytest.fixture
def size():
    return 3

@pytest.mark.kmutex
def test_drops(size):
    assert size == 3
    return locks.Drops()

@pytest.mark.kmutex(without=["evict"])
def test_keeps():
    return locks.Keeps()

@pytest.mark.kmutex(colour="red")
def test_wrong():
    return locks.Keeps()

@pytest.mark.kmutex(without=["speed"])
def test_no_feature():
    return locks.Keeps()

@pytest.mark.kmutex
def test_nothing():
    pass

@pytest.mark.kmutex
async def test_async():
    return locks.Keeps()
"""


@pytest.mark.long
def test_a_marked_function_returns_a_locker(project: pytest.Pytester, pytester: pytest.Pytester) -> None:
    """With fixtures, and what is wrong is said in a line."""
    _write(project, "test_marked.py", MARKED)
    done = _run(project)
    done.assert_outcomes(passed=1, failed=5)
    done.stdout.fnmatch_lines(
        [
            "*test_drops*",
            "*if not lock.acquire(*",
            "*test_wrong*",
            "pytest.mark.kmutex takes without, *, by name",
            "*test_no_feature*",
            "pytest.mark.kmutex: 'speed' is not a feature; *",
            "*test_nothing*",
            "cannot verify test_marked:test_nothing: *",
            "*test_async*",
            "*it is not async itself",
        ]
    )


SUITE = """
import threading
import locks
from kmutex.testing import KeyedLockerSuite

class TestDrops(KeyedLockerSuite):
    make = staticmethod(locks.Drops)

class TestKeeps(KeyedLockerSuite):
    make = staticmethod(locks.Keeps)
    without = ("evict",)

class TestNothing(KeyedLockerSuite):
    pass

class TestDict(KeyedLockerSuite):
    make = dict

class Early(dict):
    def __init__(self, new=threading.Lock):
        self._new = new

    def __missing__(self, key):
        return self.setdefault(key, self._new())

class TestEarly(KeyedLockerSuite):
    make = Early
"""


@pytest.mark.parametrize("plugin", [True, False])
@pytest.mark.long
def test_a_suite_is_one_test(project: pytest.Pytester, plugin: bool) -> None:
    """KM-EXCL: with the plugin and without it."""
    _write(project, "test_suite.py", SUITE)
    done = _run(project, *(() if plugin else ("-p", "no:kmutex")))
    done.assert_outcomes(passed=1, failed=4)
    done.stdout.fnmatch_lines(
        [
            "*KM-EXCL: client 1 got a while client 0 holds it",
            "*replay: kmutex verify locks:Drops --replay *",
            "*give it make = staticmethod(*",
            "*name the locker in [[]tool.kmutex[]], which imports it anew",
        ]
    )


@pytest.mark.long
def test_a_lock_at_the_top_of_a_module_is_the_schedulers(project: pytest.Pytester) -> None:
    """The module is imported anew for it; what the tests themselves have of it is not touched."""
    _write(project, "pyproject.toml", '[tool.kmutex]\nsubjects = ["locks:lock_for"]\n')
    test = "import locks\n\ndef test_own():\n    assert locks.REGISTRY == {}\n    assert locks.guard.acquire(False)\n"
    _write(project, "test_own.py", test)
    done = _run(project, "pyproject.toml", "test_own.py")
    assert done.parseoutcomes()["passed"] >= 1
    assert not any("control" in line or "cannot verify" in line for line in done.outlines), done.outlines


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("", "name at least one"),
        ("subjects = []", "name at least one"),
        ("subjects = ['locks:']", "'locks:' is not of the form MODULE:FACTORY"),
        ("subjects = [3]", "it must be a table of target"),
        ("subjects = [{target = 'locks:Drops', color = 1}]", "'color' is unknown"),
        ("subjects = [{target = 'locks:Drops', without = ['speed']}]", "'speed' is not a feature"),
        ("subjects = [{target = 'locks:Drops', with = 'len'}]", "'len' is not a promise"),
        ("subjects = [{target = 'locks:Drops', strict = 1}]", "it must be true or false"),
        ("subjects = [{target = 'locks:Drops', calls = 'a=b'}]", "'a=b' names no call"),
        ("subjects = [{target = 'locks:Drops', keys = 'big'}]", "'big' is not a type of keys"),
        ("subjects = ['locks:Drops', 'locks:Drops']", "is listed twice"),
        ("subjects = ['locks:Drops']\nmode = 'fast'", "not 'fast'"),
        ("subjects = ['locks:Drops']\nsubject = 'x'", "'subject' is unknown"),
        ("subjects = ['locks:Drops']\nschedules = 3", "schedules must be a string"),
    ],
)
def test_a_wrong_table_is_an_error_of_usage(project: pytest.Pytester, table: str, said: str) -> None:
    """In one line, with exit status 4, by pytest and by the command alike."""
    _write(project, "pyproject.toml", f"[tool.kmutex]\n{table}\n")
    done = _run(project)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in done.errlines if line.startswith("ERROR: ")]
    assert said in line
    assert "[tool.kmutex]" in line


def test_a_run_without_lockers_loads_nothing_of_kmutex(project: pytest.Pytester) -> None:
    """The plugin is loaded by every run of pytest in its environment."""
    # pytest loads pdb, which from 3.14 on loads asyncio.
    unwanted = ("kmutex", "rich") if sys.version_info >= (3, 14) else ("kmutex", "rich", "asyncio")
    _write(
        project,
        "test_own.py",
        "import sys\n\ndef test_own():\n    assert 'pytest_kmutex' in sys.modules\n"
        f"    assert not [name for name in sys.modules if name.split('.')[0] in {unwanted}]\n",
    )
    _write(project, "pyproject.toml", "[project]\nname = 'kmutex-user'\nversion = '1'\n")
    done = _pytest(project.path, "-p", "no:asyncio", "-p", "no:anyio", "-p", "no:xdist", "-p", "no:randomly")
    assert done.returncode == 0, done.stdout


BESIDE = """
import asyncio
import anyio
import pytest

@pytest.mark.asyncio
async def test_asyncio():
    await asyncio.sleep(0)

@pytest.mark.anyio
async def test_anyio():
    await anyio.lowlevel.checkpoint()
"""


@pytest.mark.long
def test_other_plugins_go_on_beside_it(project: pytest.Pytester) -> None:
    """xdist, asyncio, anyio, randomly and timeout in one run; all reports reach whoever saves what failed."""
    for plugin in ("xdist", "pytest_asyncio", "pytest_randomly", "pytest_timeout", "anyio"):
        __import__(plugin)
    _write(project, "pyproject.toml", TABLE)
    _write(project, "test_beside.py", BESIDE)
    options = ("-n", "2", "-p", "randomly", "-p", "asyncio", "--timeout", "500", "-p", "no:cov", "-v")
    done = _pytest(project.path, *options)
    assert "1 failed, 3 passed" in done.stdout or "1 failed, 4 passed" in done.stdout, done.stdout
    assert "locks:Drops" in (project.path / ".pytest_cache" / "v" / CACHE).read_text()


def _pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    here = [path for path in sys.path if path]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *here])},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_kmutex_testing_does_not_import_pytest() -> None:
    """pytest is optional. Plugins that other packages add to Hypothesis may import what they like."""
    code = "import sys, kmutex.testing.suite; sys.exit('pytest' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "HYPOTHESIS_NO_PLUGINS": "1"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
