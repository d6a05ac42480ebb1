"""The recorders in the ports' tables: what they write decides each clause that a port can break, and convicts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from kmutex.trace.check import LogReport
from kmutex.trace.reader import check
from tests.ports.conftest import PORTS, Port

RECORDED = [name for name, row in PORTS.items() if "logs" in row]
OF_ALL = {
    *("KM-EXCL", "KM-REF", "KM-IDLE", "KM-FIFO", "KM-HANDOFF", "KM-INDEP"),
    *("KM-CANCEL", "KM-EXPIRED", "KM-UNHELD", "KM-ATOMIC", "KM-LIVE"),
}
OF_ONE = {"go": {"KM-RACE"}, "js": {"KM-TOKEN"}, "java": {"KM-INTERRUPT", "KM-TOKEN"}}
"""Go passes a grant on and has no leases; in Java an interrupt does; in JavaScript no cancel meets a grant, for a
promise settles once."""


def judged(path: Path) -> LogReport:
    with path.open("rb") as file:
        return check(file)


@pytest.mark.parametrize("name", RECORDED)
def test_each_clause_is_decided_on_a_log_of_a_port(name: str, built: Callable[[str], Port], tmp_path: Path) -> None:
    """KM-EXCL, KM-REF, KM-IDLE, KM-FIFO, KM-HANDOFF, KM-INDEP, KM-CANCEL, KM-RACE, KM-INTERRUPT, KM-EXPIRED, KM-UNHELD,
    KM-ATOMIC, KM-TOKEN, KM-LIVE: they hold on the log of the lock, and nothing is unknown; a log of wrong steps is
    convicted by the clause that it is called by, at the first wrong line."""
    port = built(name)
    environment = {**os.environ, "KMUTEX_LOGS": str(tmp_path)}
    done = subprocess.run(
        PORTS[name]["logs"], cwd=port.folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    logs = {path.stem: judged(path) for path in tmp_path.iterdir()}
    sound = logs.pop("sound")
    assert (sound.verdict.value, sound.findings, sound.unknown) == ("pass", (), ())
    assert {row.clause for row in sound.clauses if row.outcome.value == "holds"} == OF_ALL | OF_ONE[name]
    assert all(row.undecided == 0 for row in sound.clauses)
    assert len(logs) >= 4
    for clause, report in logs.items():
        found = {finding.clause: finding.line for finding in report.findings}
        assert clause in found, (clause, report)
        assert found[clause] == min(found.values())


def test_some_ports_record() -> None:
    assert len(RECORDED) >= 3
