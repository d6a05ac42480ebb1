"""Who may import whom: the contracts in pyproject.toml, kept by the tree and broken by trees made for it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def copy_of_the_tree(into: Path) -> Path:
    for name in ("kmutex", "model"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", into)
    return into


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tree), str(tree / "model")])}
    command = [sys.executable, "-c", program, "--no-cache", "--config", "pyproject.toml"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_tree_keeps_the_contracts(tmp_path: Path) -> None:
    run = lint_imports(copy_of_the_tree(tmp_path))
    assert run.returncode == 0, run.stdout + run.stderr
    assert " 0 broken." in run.stdout
    assert "Contracts: 0 kept" not in run.stdout


@pytest.mark.sampled(4)
@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("kmutex/_core.py", "import rich", "The lock imports nothing that checks it"),
        ("kmutex/_threads.py", "import hypothesis", "The lock imports nothing that checks it"),
        ("kmutex/_aio.py", "import kmutex_model", "The lock imports nothing that checks it"),
        ("kmutex/_entry.py", "import crosshair", "The lock imports nothing that checks it"),
        ("kmutex/_core.py", "import psycopg", "The lock imports nothing that checks it"),
        ("kmutex/engine/judge.py", "import kmutex.postgres", "Each layer of kmutex"),
        ("kmutex/_core.py", "from kmutex import _threads", "Each layer of kmutex"),
        ("kmutex/_entry.py", "from kmutex._core import LockTable", "Each layer of kmutex"),
        ("kmutex/_threads.py", "from kmutex._aio import AsyncLease", "Each layer of kmutex"),
        ("kmutex/_threads.py", "from kmutex.verify import evidence", "Each layer of kmutex"),
        ("kmutex/unplaced.py", "import os", "Each layer of kmutex"),
        ("kmutex/trace/reader.py", "from kmutex.verify import report", "Each layer of kmutex"),
        ("kmutex/verify/report.py", "from kmutex.trace import check", "Each layer of kmutex"),
        ("kmutex/verify/report.py", "from kmutex.teach import lesson", "Each layer of kmutex"),
        ("kmutex/trace/check.py", "from kmutex.testing import judge", "A log is judged by its own rules"),
        ("kmutex/trace/inside.py", "import kmutex_model", "A log is judged by its own rules"),
        ("model/kmutex_model/__init__.py", "from kmutex._core import LockTable", "The model shares no code"),
        ("model/kmutex_model/__init__.py", "import hypothesis", "The model shares no code"),
        ("model/kmutex_model/actions.py", "import z3", "The model does not know its proof"),
        ("model/kmutex_model/turn.py", "import kmutex_model.proof.logic", "The model does not know its proof"),
    ],
)
def test_a_tree_that_breaks_a_contract_is_rejected(tmp_path: Path, file: str, line: str, broken: str) -> None:
    tree = copy_of_the_tree(tmp_path)
    with (tree / file).open("a", encoding="utf-8") as source:
        source.write(f"\n{line}\n")
    run = lint_imports(tree)
    assert run.returncode == 1, run.stdout + run.stderr
    assert any(line.startswith(broken) and line.endswith("BROKEN") for line in run.stdout.splitlines()), run.stdout


def imported(path: Path) -> Iterator[str]:
    """Every module that the source at ``path`` imports, wherever the statement stands; "." for its own package."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.level else node.module or ""


def foreign(path: Path, own: str) -> set[str]:
    """What ``path`` imports from neither the standard library nor the package ``own``."""
    tops = {name.partition(".")[0] for name in imported(path)}
    return tops - set(sys.stdlib_module_names) - {own, ""}


def only_standard_library() -> list[Path]:
    model = sorted((ROOT / "model" / "kmutex_model").rglob("*.py"))
    engine = sorted((ROOT / "kmutex" / "engine").rglob("*.py"))
    # Loaded for a subject that waits by trio, and so has it.
    return model + [path for path in engine if path.name != "trioloop.py"]


@pytest.mark.parametrize("path", only_standard_library(), ids=lambda path: str(path.relative_to(ROOT)))
def test_the_model_and_the_engine_import_the_standard_library_only(path: Path) -> None:
    assert foreign(path, "kmutex_model" if "kmutex_model" in path.parts else "kmutex") == set()


def test_a_foreign_import_is_seen_wherever_it_stands(tmp_path: Path) -> None:
    """The known-bad twin of the test above."""
    path = tmp_path / "m.py"
    path.write_text("import os, rich\ndef f():\n    from hypothesis.stateful import rule\n", encoding="utf-8")
    assert foreign(path, "kmutex_model") == {"rich", "hypothesis"}


def test_the_model_runs_where_nothing_is_installed() -> None:
    package = ROOT / "model" / "kmutex_model"
    names = [path.stem for path in package.glob("*.py") if not path.stem.startswith("__")]
    program = f"import sys; sys.path.insert(0, {str(package.parent)!r})\n"
    program += "\n".join(f"import kmutex_model.{name}" for name in names)
    program += "\nassert 'kmutex' not in sys.modules"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, timeout=60)


def test_the_package_itself_imports_the_core_the_drivers_and_once_only() -> None:
    names = set(imported(ROOT / "kmutex" / "__init__.py"))
    own = (
        "_aio",
        "_core",
        "_entry",
        "_errors",
        "_keyed",
        "_keyed_aio",
        "_noop",
        "_once",
        "_owners",
        "_protocol",
        "_threads",
    )
    assert names <= {"importlib", "typing", *(f"kmutex.{name}" for name in own)}
    assert "kmutex._threads" in names


TIMED = """
import sys, time
sys.path.insert(0, sys.argv[1])
begun = time.perf_counter()
{}
print(time.perf_counter() - begun)
"""


def seconds_of(statement: str) -> float:
    """How long it takes in an interpreter without site-packages."""
    command = [sys.executable, "-I", "-S", "-c", TIMED.format(statement), str(ROOT)]
    return float(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


LOADED = """
import sys
before = set(sys.modules)
sys.path.insert(0, sys.argv[1])
{}
print(*sorted(set(sys.modules) - before))
"""


def modules_of(statement: str, tree: Path = ROOT) -> set[str]:
    """What it loads in an interpreter without site-packages."""
    command = [sys.executable, "-I", "-S", "-c", LOADED.format(statement), str(tree)]
    return set(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split())


def loaded_by(tree: Path, statement: str = "from kmutex import KeyedMutex") -> set[str]:
    """The packages of it that are not the standard library's."""
    return {name.partition(".")[0] for name in modules_of(statement, tree)} - set(sys.stdlib_module_names)


def test_import_kmutex_loads_the_standard_library_only() -> None:
    """Also once all that it has was asked for."""
    assert loaded_by(ROOT) == {"kmutex"}
    assert loaded_by(ROOT, "from kmutex import *") == {"kmutex"}


def test_only_what_is_asked_for_is_loaded() -> None:
    """Nothing by ``import kmutex``, and no asyncio by what is for threads. The other way round, the known-bad twin."""
    assert modules_of("import kmutex") == {"kmutex"}
    for names in ("KeyedMutex", "KeyedMutex, Lease, once, NoopLocker, KeyedLocker, UnheldKeyError"):
        loaded = modules_of(f"from kmutex import {names}")
        assert "kmutex._threads" in loaded
        assert not {name for name in loaded if name.partition(".")[0] in ("asyncio", "concurrent", "kmutex._aio")}
    assert "asyncio" in modules_of("from kmutex import AsyncKeyedMutex")


def test_every_name_of_the_checks_is_there() -> None:
    """The face of kmutex.testing loads its names when they are asked for, so nothing else tells of one that moved."""
    from kmutex import testing

    assert set(testing._HOMES) <= set(testing.__all__)
    assert [name for name in testing.__all__ if not hasattr(testing, name)] == []


def test_every_name_is_there_and_no_other() -> None:
    """By attribute, by ``from kmutex import *`` and in dir()."""
    import kmutex

    assert set(kmutex._HOMES) == set(kmutex.__all__) <= set(dir(kmutex))
    for name, home in kmutex._HOMES.items():
        assert getattr(kmutex, name) is getattr(import_module(f"kmutex.{home}"), name)
    with pytest.raises(AttributeError, match=r"^module 'kmutex' has no attribute 'KeyedMutexes'$"):
        kmutex.KeyedMutexes  # noqa: B018


GOAL = 1.5
ROUNDS = 7


def test_import_kmutex_takes_no_longer_than_a_lock_and_a_dict() -> None:
    """Side by side in turns, in interpreters of their own; the least of each. The goal is 1.5 x."""
    lock = min(seconds_of("import threading, collections") for _ in range(ROUNDS))
    ours = min(seconds_of("import kmutex") for _ in range(ROUNDS))
    used = min(seconds_of("from kmutex import KeyedMutex") for _ in range(ROUNDS))
    typed = min(seconds_of("import threading, collections, typing") for _ in range(ROUNDS))
    print(f"import kmutex {ours / lock:.2f} x, KeyedMutex {used / lock:.2f} x, of which typing {typed / lock:.2f} x")
    assert ours < GOAL * lock


def test_a_module_that_is_loaded_on_the_side_is_seen(tmp_path: Path) -> None:
    """The known-bad twin of the test above: a dependency that happens to be importable."""
    tree = copy_of_the_tree(tmp_path)
    (tree / "dependency.py").write_text("", encoding="utf-8")
    with (tree / "kmutex" / "_core.py").open("a", encoding="utf-8") as source:
        source.write("\nimport dependency\n")
    assert loaded_by(tree) == {"kmutex", "dependency"}
