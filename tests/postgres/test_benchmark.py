"""The benchmark, and what is said where the server is not installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import servers
from tests.postgres.shared import ROOT, server


def test_the_benchmark_gives_ratios_to_the_bare_lock(tmp_path: Path) -> None:
    """Each measure has each way; the bare lock is once itself."""
    server()
    file = tmp_path / "rows.json"
    command = [sys.executable, "benchmarks/postgres/handoff.py", "--rounds", "1", "--json", str(file)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert len({row["measure"] for row in rows}) == 3
    assert len(rows) == 9
    for row in rows:
        assert row["us"] > 0
        assert (row["ratio"] == 1) == (row["way"] == "bare")


def test_without_the_server_the_tests_say_how_to_install_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are skipped, with the command."""
    monkeypatch.setattr(servers, "DEBIAN", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.skip.Exception, match="apt-get install postgresql"):
        server.__wrapped__()
