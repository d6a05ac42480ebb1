"""kmutex prove as a command: what it prints, writes and refuses."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from kmutex.cli import main as command
from kmutex.selfcheck import proof
from kmutex.verify.evidence import Result, exit_status
from kmutex_model.proof import prove, solvers
from kmutex_model.proof.invariant import PARTS
from kmutex_model.properties import ALL


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        command(["prove", *arguments])
    code = ended.value.code
    return code if isinstance(code, int) else 0


@pytest.fixture(scope="module")
def whole() -> proof.Proof:
    return proof.whole(["z3"])


@pytest.mark.long
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


@pytest.mark.long
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

    real = importlib.import_module

    def gone(name: str) -> ModuleType:
        if name.partition(".")[0] in ("z3", "cvc5"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(solvers.importlib, "import_module", gone)
    assert run() == 3
    assert capsys.readouterr().err == "kmutex: z3 is not installed: pip install 'kmutex[proof]' brings z3\n"
    monkeypatch.setattr(proof, "whole", lambda names=None: solvers.solvers(["z3"]))
    rows = proof.check()
    assert {row.result for row in rows} == {Result.INCONCLUSIVE}
    assert "kmutex[proof]" in rows[0].detail


@pytest.mark.long
def test_the_page_names_what_each_part_stops(whole: proof.Proof) -> None:
    """docs/proof.md, against the invariant and the controls of this run."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "proof.md").read_text(encoding="utf-8")
    table = page[page.index("<!-- parts -->") : page.index("<!-- end of parts -->")].splitlines()[3:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [(name, says) for name, says, *_ in cells] == [(part.name, part.statement) for part in PARTS]
    for name, _, _, stops in cells:
        broken = sorted({control.model for control in whole.caught if name in control.breaks})
        assert stops == (", ".join(f"`{model}`" for model in broken) or "none")


@pytest.mark.long
@pytest.mark.parametrize(
    ("file", "status", "violated"),
    [("barging.py", 1, ["KM-FIFO", "KM-HANDOFF", "KM-LIVE"]), ("keep_or_pass.py", 0, [])],
)
def test_a_table_of_ones_own(file: str, status: int, violated: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What is violated has a run of the explorer; all else is proved for any size."""
    tables = Path(__file__).resolve().parents[2] / "examples" / "tables"
    assert run("--solver", "z3", str(tables / file)) == status
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if not line.startswith(" ")]
    assert [line[0] for line in lines if line[3] == "violated"] == violated
    assert sum(line[3] == "proved" for line in lines) == len(lines) - len(violated)
    assert out.count("keep: request") == len(violated)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("TABLE = 1", "TABLE must be a tuple"),
        ("TABLE = ()", "TABLE must be a tuple"),
        ("x = 1 /", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("from kmutex_model.actions import TABLE\nPARTS = 1", "PARTS must be"),
        ("from kmutex_model.actions import Row, refuse\nTABLE = (Row('fly', 'idle', 'free', refuse),)", "'fly' is no"),
        ("from kmutex_model.actions import Row\nTABLE = (Row('try', 'idle', 'free', lambda t: t.x),)", "can't be read"),
    ],
)
def test_a_file_without_a_table(text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text, encoding="utf-8")
    assert run("--solver", "z3", str(file)) == 3
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_table_whose_invariant_is_too_weak_is_not_proved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is wrong with the contract's table; without parts little can be proved of it, and nothing is claimed."""
    file = tmp_path / "mine.py"
    file.write_text("from kmutex_model.actions import TABLE\nPARTS = ()\n", encoding="utf-8")
    assert run("--solver", "z3", str(file)) == 2
    out = capsys.readouterr().out
    assert "violated" not in out
    assert "KM-EXCL         18 obligations  not proved" in out
