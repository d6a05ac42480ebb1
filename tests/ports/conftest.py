"""The ports of ports/ports.toml, each built once in a session."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).resolve().parents[2] / "ports"
PORTS: dict[str, dict[str, Any]] = {
    port["name"]: port for port in tomllib.loads((FOLDER / "ports.toml").read_text(encoding="utf-8"))["port"]
}


@dataclass(frozen=True)
class Port:
    """A port whose adapter is there."""

    name: str
    folder: Path
    adapter: list[str]
    """The command that starts the adapter, from `folder`."""
    test: list[str]
    """The command of its own tests, from `folder`."""

    def mistakes(self) -> dict[str, list[str]]:
        """What `adapter --list-broken` prints: the mistakes, each with the clauses that it may be found to break."""
        lines = _run([*self.adapter, "--list-broken"], self.folder).splitlines()
        return {name: clauses.split(",") for name, clauses in (line.split(" ") for line in lines)}


@pytest.fixture(scope="session")
def built() -> Callable[[str], Port]:
    """`built(name)`: the port of that name, built. Skips the test where its tool is missing."""
    made: dict[str, Port] = {}

    def build(name: str) -> Port:
        if name not in made:
            made[name] = _build(PORTS[name])
        return made[name]

    return build


@pytest.fixture(params=PORTS)
def port(request: pytest.FixtureRequest, built: Callable[[str], Port]) -> Port:
    """Each port in turn."""
    return built(request.param)


def _build(row: dict[str, Any]) -> Port:
    if shutil.which(row["tool"]) is None:
        pytest.skip(f"no {row['tool']} here: apt-get install {row['package']}")
    folder = FOLDER / row["name"]
    if row["build"]:
        _run(row["build"], folder)
    stricter = row.get("stricter", row)
    tests = stricter if shutil.which(stricter["tool"]) is not None else row
    return Port(row["name"], folder, row["adapter"], tests["test"])


def _run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
