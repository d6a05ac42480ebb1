"""The ports under ``kmutex conform``: each conforms, and each of its mistakes is found, by one of the right clauses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.ports.conftest import PORTS, Port

SHORT = ("--timeout", "1", "--seconds", "300", "--failures", "1", "--random", "0")
"""For mistakes: a call that hangs costs the whole time limit, and one failure is enough."""


def conform(port: Port, report: Path, *options: str, more: tuple[str, ...] = ()) -> tuple[int, dict[str, Any]]:
    command = [sys.executable, "-m", "kmutex", "conform", "--quiet", "--json", str(report), *options, "--"]
    done = subprocess.run(
        [*command, *port.adapter, *more], cwd=port.folder, capture_output=True, text=True, timeout=1200, check=False
    )
    assert report.exists(), done.stderr
    return done.returncode, json.loads(report.read_text(encoding="utf-8"))


@pytest.mark.sampled(5)
@pytest.mark.parametrize("more", [(), ("--broken", "none")], ids=["the lock", "the base of its mistakes"])
@pytest.mark.parametrize("name", PORTS)
def test_a_port_conforms(name: str, more: tuple[str, ...], built: Callable[[str], Port], tmp_path: Path) -> None:
    """With every clause of its features put to the test. So does the locker that its mistakes are made in, without any:
    otherwise a mistake could be found for what is wrong with that locker."""
    status, said = conform(built(name), tmp_path / "report.json", "--random", "30", "--seconds", "900", more=more)
    assert status == 0, said["remarks"]
    assert said["passed"] == said["vectors"] + said["random"]
    assert {row["result"] for row in said["clauses"].values()} <= {"holds", "off"}
    assert [clause for clause, row in said["clauses"].items() if row["result"] == "off"] in ([], ["KM-TOKEN"])


@pytest.mark.long
@pytest.mark.parametrize("name", PORTS)
def test_each_mistake_of_a_port_is_found(name: str, built: Callable[[str], Port], tmp_path: Path) -> None:
    port = built(name)
    mistakes = port.mistakes()
    assert len(mistakes) >= 4
    wrong = {}
    for mistake, clauses in mistakes.items():
        status, said = conform(port, tmp_path / f"{mistake}.json", *SHORT, more=("--broken", mistake))
        if status != 1:
            wrong[mistake] = said["verdict"]
        elif not set(said["violated"]) & set(clauses):
            wrong[mistake] = f"{said['violated']}, not {clauses}"
    assert wrong == {}
