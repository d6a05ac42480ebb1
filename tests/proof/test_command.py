"""kmutex prove as a command: what it prints, writes and refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kmutex.cli import main as command
from kmutex.selfcheck import proof
from kmutex.verify.evidence import Result, exit_status
from kmutex_model.proof import prove, solvers
from kmutex_model.properties import ALL


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        command(["prove", *arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture(scope="module")
def whole() -> proof.Proof:
    return proof.whole(["z3"])


def test_all_clauses_are_proved(
    whole: proof.Proof, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One row for each clause of the model, status 0, and the same in JSON."""
    monkeypatch.setattr(proof, "whole", lambda names, say: whole)
    file = tmp_path / "proof.json"
    assert run("--solver", "z3", "--all", "--json", str(file)) == 0
    out = capsys.readouterr().out
    assert "36 of 36 refuted" in out
    assert "0 differences" in out
    rows = proof.rows(whole)
    assert [row.clause for row in rows] == [prop.clause for prop in ALL if prop.clause in prove.CLAUSES]
    assert {row.result for row in rows} == {Result.HOLDS}
    assert sum(row.cases for row in rows) > 100
    written = json.loads(file.read_text(encoding="utf-8"))
    assert (written["format"], written["exit"], written["verdict"]) == ("kmutex-prove/1", 0, "holds")
    assert len(written["obligations"]) == len(whole.shown.lines)
    assert len(written["controls"]) == 36
    assert written["tie"]["differences"] == []


def test_what_is_refuted_or_unknown_shows_in_the_status(whole: proof.Proof) -> None:
    for result, status, verdict in (("refuted", 1, "violated"), ("unknown", 2, "inconclusive")):
        lines = tuple(line._replace(result=result) if line.clause == "KM-FIFO" else line for line in whole.shown.lines)
        rows = proof.rows(whole._replace(shown=whole.shown._replace(lines=lines)))
        assert exit_status(rows) == status
        assert [row.clause for row in rows if row.result.value == verdict] == ["KM-FIFO"]


def test_a_broken_model_is_shown_with_its_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """KM-FIFO: the state, the step, and the run drawn by what draws all counterexamples."""
    file = tmp_path / "lifo.svg"
    assert run("--solver", "z3", "--known-bad", "lifo", "--picture", str(file)) == 1
    out = capsys.readouterr().out
    assert "KM-FIFO: on the step: release while holding (somebody waits)" in out
    assert ">> KM-FIFO: client" in out
    assert file.read_text(encoding="utf-8").startswith("<svg")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--known-bad", "nobody"], "there is no broken model 'nobody'; they are no_lock"),
        (["--known-bad", "lifo", "--all"], "leave out --all and --json"),
        (["--picture", "x.svg"], "name it with --known-bad"),
        (["--picture", "x.gif", "--known-bad", "lifo"], "a picture's name ends in"),
        (["--json", "none/x.json"], "there is no such folder"),
        (["--solver", "yices"], "invalid choice"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments) == 4
    assert said in capsys.readouterr().err


def test_without_a_solver_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 3; and in kmutex verify all rows are inconclusive, none is a pass."""

    def gone(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(solvers.importlib, "import_module", gone)
    assert run() == 3
    assert capsys.readouterr().err == "kmutex: z3 is not installed: pip install 'kmutex[proof]' brings z3\n"
    monkeypatch.setattr(proof, "whole", lambda names=None: solvers.solvers(["z3"]))
    rows = proof.check()
    assert {row.result for row in rows} == {Result.INCONCLUSIVE}
    assert "kmutex[proof]" in rows[0].detail
