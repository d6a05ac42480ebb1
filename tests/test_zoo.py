"""The zoo of lockers: what its manifest says is shown here by hand, without kmutex."""

from __future__ import annotations

import ast
import importlib
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ZOO = Path(__file__).resolve().parent / "zoo"
sys.path.insert(0, str(ZOO))

import demo  # noqa: E402

ENTRIES = demo.manifest()
BAD = [name for name, entry in ENTRIES.items() if entry["expect"] in ("violation", "noted")]
SOUND = [name for name, entry in ENTRIES.items() if entry["expect"] == "holds"]
MODULES = ("threads_bad", "aio_bad", "threads_sound", "aio_sound")
CLAUSES = {"EXCL", "INDEP", "REF", "IDLE", "FIFO", "HANDOFF", "CANCEL", "RACE", "UNHELD", "ATOMIC"}
CLAUSES |= {"TOKEN", "EXPIRED", "INTERRUPT", "LIVE", "LOOP"}


def lockers(module: str) -> Iterator[str]:
    """Names of the classes that a factory could name: those with lock, unlock and a length."""
    for name, found in vars(importlib.import_module(module)).items():
        if isinstance(found, type) and all(hasattr(found, call) for call in ("lock", "unlock", "__len__")):
            yield f"{module}:{name}"


def test_every_locker_is_in_the_manifest() -> None:
    """Nothing of the zoo is left unjudged, but for the sound forms that bad ones are derived from."""
    listed = {entry["factory"] for entry in ENTRIES.values()}
    written = {factory for module in MODULES for factory in lockers(module)}
    assert written - listed == {"threads_bad:Handing", "aio_bad:Handing"}
    assert listed <= written


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_well_formed(name: str) -> None:
    """A violation or remark names its clauses and a demonstration; a locker that holds has neither."""
    entry = ENTRIES[name]
    assert name.split(".")[0] == entry["kind"]
    assert entry["kind"] in ("threads", "asyncio")
    assert entry["note"].endswith(".")
    assert set(entry["without"]) <= {"fifo", "loop"}
    assert all(clause.removeprefix("KM-") in CLAUSES for clause in entry["clauses"])
    assert bool(entry["clauses"]) == (entry["expect"] != "holds") == ("demo" in entry)
    assert entry["expect"] in ("violation", "noted", "holds")
    if "stop" in entry:
        module = entry["factory"].partition(":")[0]
        own = (ZOO / f"{module}.py").read_text(encoding="utf-8")
        waits = Path(demo.threading.__file__).read_text(encoding="utf-8")
        assert entry["stop"] in own or entry["stop"] in waits


@pytest.mark.parametrize("module", MODULES)
def test_lockers_import_the_standard_library_only(module: str) -> None:
    """They are written as strangers would write them, without kmutex."""
    tree = ast.parse((ZOO / f"{module}.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names


@pytest.mark.parametrize("name", BAD)
def test_bad_locker_is_bad(name: str) -> None:
    """Its script sees a violation of a clause by which the manifest calls it, or what is to be noted."""
    entry = ENTRIES[name]
    if entry["demo"] == "explored only":
        assert name == "threads.LockAndCountStrict"
        pytest.skip(entry["note"])
    finding = demo.shown(entry)
    assert finding is not None
    assert finding[0] in entry["clauses"], finding


@pytest.mark.parametrize("name", SOUND)
def test_sound_locker_passes_every_script(name: str) -> None:
    """No script, no halt and no contention finds anything in it; the seed stands in the objection."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    assert demo.objections(ENTRIES[name], demo.halts_of(ENTRIES), seed) == []


@pytest.mark.parametrize("factory", ["threads_bad:Handing", "aio_bad:Handing"])
def test_the_form_that_bad_lockers_depart_from_is_sound(factory: str) -> None:
    """So a subclass with one method of its own has its one mistake in that method."""
    kind = "threads" if factory.startswith("threads") else "asyncio"
    entry: dict[str, Any] = {"factory": factory, "kind": kind, "without": []}
    assert demo.objections(entry, demo.halts_of(ENTRIES), seed=0) == []


@pytest.mark.parametrize(
    ("name", "clauses"), [("WeakRegistry", {"KM-EXCL", "KM-UNHELD"}), ("NeverEvicts", {"KM-IDLE"})]
)
def test_contention_of_threads_can_find_something(name: str, clauses: set[str]) -> None:
    """The contention that sound lockers pass is not blind."""
    finding = demo.contend(demo.load(f"threads_bad:{name}"), seed=1)
    assert finding is not None
    assert finding[0] in clauses


def test_contention_of_tasks_can_find_something() -> None:
    """The contention that sound lockers pass is not blind: references of cancelled tasks stay."""

    async def script(locker: Any) -> demo.Finding:
        return await demo.aio_contend(locker, seed=1)

    finding = demo.within_loop(script, demo.load("aio_bad:CancelKeepsCount"))
    assert finding is not None
    assert finding[0] == "KM-IDLE"
