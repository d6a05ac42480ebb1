"""What is built and installed. Nothing is fetched: the backend and the dependencies are those of this environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from kmutex import _extra

pytestmark = pytest.mark.package

ROOT = Path(__file__).resolve().parents[2]
IGNORED = shutil.ignore_patterns(
    "__pycache__", ".git", ".venv", ".nox", ".*_cache", ".hypothesis", "dist", "build", "mutants", "target"
)


def run(*command: str | Path, cwd: Path) -> str:
    """The standard output of ``command``, in an environment that doesn't lead back to this checkout."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def copy_of_the_tree(into: Path) -> Path:
    shutil.copytree(ROOT, into, ignore=IGNORED, symlinks=True)
    return into


def make_venv(at: Path, *, with_dependencies: bool) -> Path:
    """A new environment; its python. Its dependencies are borrowed from this one, without what is installed here."""
    venv.create(at, with_pip=False, symlinks=True)
    python = at / "bin" / "python"
    if with_dependencies:
        site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=at).strip())
        (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return python


def install(python: Path, wheel: Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-index", "--no-deps"]
    run(*command, wheel, cwd=wheel.parent)


def content(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from the tree itself."""
    folder = tmp_path_factory.mktemp("built")
    tree = copy_of_the_tree(folder / "tree")
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "-o", folder / "dist", cwd=tree)
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def bare_python(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel and no dependency."""
    python = make_venv(tmp_path_factory.mktemp("bare") / "venv", with_dependencies=False)
    install(python, built[1])
    return python


def test_the_wheel_holds_the_packages_and_the_specs(built: tuple[Path, Path]) -> None:
    names = set(content(built[1]))
    for package in (ROOT / "kmutex", ROOT / "model" / "kmutex_model"):
        for path in package.rglob("*.py"):
            assert str(path.relative_to(package.parent)) in names
    for path in (ROOT / "kmutex" / "teach" / "page").iterdir():
        assert str(path.relative_to(ROOT)) in names
    lessons = [str(path.relative_to(ROOT)) for path in (ROOT / "kmutex" / "teach" / "lessons").glob("*.md")]
    assert lessons
    assert set(lessons) <= names
    assert not any("repaired" in name for name in names)
    for path in (ROOT / "specs").iterdir():
        if path.is_file() and not path.name.startswith("."):
            assert f"kmutex/_specs_data/{path.name}" in names
    assert {"kmutex/py.typed", "kmutex_model/py.typed"} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    tops = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"kmutex", "kmutex_model", "pytest_kmutex.py"}


def test_the_sdist_builds_the_same_wheel(built: tuple[Path, Path], tmp_path: Path) -> None:
    sdist, wheel = built
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path)
    (tree,) = (path for path in tmp_path.iterdir() if path.is_dir())
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "-o", tmp_path, cwd=tree)
    (again,) = tmp_path.glob("*.whl")
    assert content(again) == content(wheel)
    assert again.read_bytes() == wheel.read_bytes()


def test_the_sdist_carries_the_tests(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert str(Path(__file__).relative_to(ROOT)) in names


def test_the_wheel_alone_imports_kmutex_and_locks(bare_python: Path, tmp_path: Path) -> None:
    """The lock has no dependency: none is installed here."""
    program = "import kmutex; m = kmutex.KeyedMutex(); m.lock('k'); print(kmutex.__file__, len(m))"
    file, held = run(bare_python, "-I", "-c", program, cwd=tmp_path).split()
    assert Path(file).is_relative_to(bare_python.parents[1])
    assert held == "1"


def test_the_wheel_brings_nothing_else(built: tuple[Path, Path]) -> None:
    """What is required is required by an extra; the extra check is what the command needs."""
    (metadata,) = (text for name, text in content(built[1]).items() if name.endswith(".dist-info/METADATA"))
    required = [line for line in metadata.decode().splitlines() if line.startswith("Requires-Dist: ")]
    assert required
    assert all("extra == " in line for line in required)
    of_check = {re.split("[>=;]", line.split()[1])[0] for line in required if "extra == 'check'" in line}
    assert of_check >= set(_extra.PARTS)


def test_without_the_extra_the_command_says_so_in_a_line(bare_python: Path, tmp_path: Path) -> None:
    """Exit status 4, whatever it is asked; and so does kmutex.testing."""
    for arguments in (["verify", "mine:Locker"], ["--help"], ["lesson", "list"]):
        command = [bare_python.with_name("kmutex"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        line = "kmutex: the command kmutex needs hypothesis and rich: pip install 'kmutex[check]'\n"
        assert (done.returncode, done.stdout, done.stderr.replace(" and tomli", "")) == (4, "", line)
    program = "try:\n    import kmutex.testing\nexcept ModuleNotFoundError as error:\n    print(error)"
    assert run(bare_python, "-I", "-c", program, cwd=tmp_path).startswith("kmutex.testing needs hypothesis and rich")


def test_the_wheel_alone_has_no_dependency_to_fall_back_on(bare_python: Path, tmp_path: Path) -> None:
    """The known-bad twin of the test above: what it would miss is really missing."""
    program = "import importlib.util as u; print(*[n for n in ('rich', 'hypothesis', 'pytest') if u.find_spec(n)])"
    assert run(bare_python, "-I", "-c", program, cwd=tmp_path).split() == []


def test_the_wheel_reads_its_own_specs(bare_python: Path, tmp_path: Path) -> None:
    program = "from kmutex import _specs; print(_specs.read('README.md'), end='')"
    assert run(bare_python, "-I", "-c", program, cwd=tmp_path) == (ROOT / "specs" / "README.md").read_text("utf-8")


def test_the_wheel_writes_the_pages_of_explore_and_show(installed: Path, tmp_path: Path) -> None:
    """From its own files: the scripts and the style are in them."""
    assert "state" in run(installed, "explore", "-o", "explore.html", cwd=tmp_path)
    arguments = ("kmutex:KeyedMutex", "-o", "show.html", "--replay", "0+a-a 1+a-a @locks")
    assert "runs of kmutex:KeyedMutex" in run(installed, "show", *arguments, cwd=tmp_path)
    text = "".join((tmp_path / name).read_text(encoding="utf-8") for name in ("explore.html", "show.html"))
    for path in (ROOT / "kmutex" / "teach" / "page").iterdir():
        if path.suffix in (".js", ".css"):
            assert path.read_text(encoding="utf-8") in text


def test_the_wheel_has_the_lessons_and_grades(installed: Path, tmp_path: Path) -> None:
    """From its own files: a lesson finds its run, and its locker is found broken (KM-EXCL)."""
    assert "KM-EXCL: client 2 got a while client 1 holds it" in run(installed, "lesson", "run", "2", cwd=tmp_path)
    run(installed, "lesson", "start", "2", "mine.py", cwd=tmp_path)
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    command = [str(installed), "grade", "mine.py", "--lesson", "2", "--seconds", "3"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1].startswith("violated (KM-EXCL")


def test_a_spec_that_is_not_there_is_told(bare_python: Path, tmp_path: Path) -> None:
    program = "\n".join(
        [
            "from kmutex import _specs",
            "try:",
            "    _specs.read('no-such-file')",
            "except FileNotFoundError as error:",
            "    print(error)",
        ]
    )
    assert "no no-such-file among its specs" in run(bare_python, "-I", "-c", program, cwd=tmp_path)


def test_an_editable_install_sees_an_edit(tmp_path: Path) -> None:
    """Of the lock, of the model and of the specs: no copy of them is installed that could go stale."""
    tree = copy_of_the_tree(tmp_path / "tree")
    program = "import sys; from hatchling.build import build_editable; print(build_editable(sys.argv[1]))"
    wheel = tmp_path / run(sys.executable, "-c", program, tmp_path, cwd=tree).split()[-1]
    python = make_venv(tmp_path / "venv", with_dependencies=False)
    install(python, wheel)

    def seen() -> list[str]:
        lines = ["import kmutex, kmutex_model", "from kmutex import _specs"]
        lines += [
            "print([getattr(m, 'EDITED', 0) for m in (kmutex, kmutex_model)], _specs.read('README.md').count('EDITED'))"
        ]
        return run(python, "-I", "-c", "\n".join(lines), cwd=tmp_path).split()

    assert seen() == ["[0,", "0]", "0"]
    for name in ("kmutex/__init__.py", "model/kmutex_model/__init__.py", "specs/README.md"):
        with (tree / name).open("a", encoding="utf-8") as source:
            source.write("\nEDITED = 1\n")
    assert seen() == ["[1,", "1]", "1"]


@pytest.mark.parametrize("arguments", [["--help"], ["verify", "--help"]])
def test_the_wheel_with_its_dependencies_has_the_command(installed: Path, tmp_path: Path, arguments: list[str]) -> None:
    assert "usage: kmutex" in run(installed, *arguments, cwd=tmp_path)


SOUND = """\
import threading


class Locker:
    def __init__(self):
        self._guard = threading.Lock()
        self._lines = {}

    def lock(self, key):
        gate = threading.Lock()
        gate.acquire()
        with self._guard:
            line = self._lines.setdefault(key, [])
            line.append(gate)
            if line[0] is gate:
                return
        gate.acquire()

    def unlock(self, key):
        with self._guard:
            if key not in self._lines:
                raise RuntimeError("nobody holds it")
            line = self._lines[key]
            del line[0]
            if line:
                line[0].release()
            else:
                del self._lines[key]


class Forgets(Locker):
    def unlock(self, key):
        with self._guard:
            del self._lines[key]
"""
SECONDS = ("6", "18", "54")
"""Real seconds for verify, one after the other, until they are enough for this machine."""


def verified(command: Path, folder: Path, *arguments: str) -> tuple[int, str]:
    """The exit status and the last line of ``kmutex verify``, with more time as long as the time was too short."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    for seconds in SECONDS:
        done = subprocess.run(
            [str(command), "verify", *arguments, "--seconds", seconds],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if done.returncode != 2:
            break
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    # The verdict is the end, and broken between words where it is long.
    first = max(at for at, line in enumerate(lines) if line.startswith(("holds", "violated", "inconclusive")))
    return done.returncode, " ".join(lines[first:])


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a clean environment with the wheel and its dependencies."""
    python = make_venv(tmp_path_factory.mktemp("installed") / "venv", with_dependencies=True)
    install(python, built[1])
    return python.with_name("kmutex")


def test_the_installed_command_verifies_a_locker_in_the_current_directory(installed: Path, tmp_path: Path) -> None:
    """A sound one holds; its known-bad twin does not (KM-LIVE, KM-EXCL)."""
    (tmp_path / "mine.py").write_text(SOUND, encoding="utf-8")
    features = ("--without", "timeout", "--without", "interrupt")
    assert verified(installed, tmp_path, "mine:Locker", *features)[0] == 0
    status, verdict = verified(installed, tmp_path, "mine:Forgets", *features)
    assert status == 1
    assert "KM-LIVE" in verdict or "KM-EXCL" in verdict


@pytest.mark.parametrize("factory", ["kmutex:KeyedMutex", "kmutex:AsyncKeyedMutex"])
def test_the_installed_command_verifies_its_own_lockers(installed: Path, tmp_path: Path, factory: str) -> None:
    status, verdict = verified(installed, tmp_path, factory)
    assert (status, verdict.partition(":")[0]) == (0, "holds")


def test_the_command_of_an_editable_install_sees_an_edit(tmp_path: Path) -> None:
    """Of the lock: an unlock that does nothing is found at once; before the edit, the same run broke nothing."""
    tree = copy_of_the_tree(tmp_path / "tree")
    program = "import sys; from hatchling.build import build_editable; print(build_editable(sys.argv[1]))"
    wheel = tmp_path / run(sys.executable, "-c", program, tmp_path, cwd=tree).split()[-1]
    python = make_venv(tmp_path / "venv", with_dependencies=True)
    install(python, wheel)
    replay = ("verify", "kmutex:KeyedMutex", "--replay", "0+a | 1+a | 0-a @locks")
    command = python.with_name("kmutex")
    assert "no clause is violated" in run(command, *replay, cwd=tmp_path)
    with (tree / "kmutex" / "_keyed.py").open("a", encoding="utf-8") as source:
        source.write("\nKeyedMutex.unlock = lambda self, key: None\n")
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        [str(command), *replay], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
