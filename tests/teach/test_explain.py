"""kmutex explain: every clause in words, and a run that breaks it where a model does."""

from __future__ import annotations

import pytest

from kmutex._clauses import EVERY_CLAUSE
from kmutex.cli import main
from kmutex.teach.clauses import clause_of
from kmutex_model.broken import BROKEN


def ran(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as end:
        main(["explain", *argv])
    told = capsys.readouterr()
    return int(end.value.code or 0), told.out, told.err


@pytest.mark.parametrize("name", EVERY_CLAUSE)
def test_each_clause_is_explained(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the contract says, how to keep it, and the run of a broken model, within the terminal's width."""
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = ran(capsys, name.lower().removeprefix("km-"))
    first, statement, advice, *_ = out.split("\n\n")
    assert (status, first) == (0, f"{name}: {clause_of(name).title}")
    assert " ".join(statement.split()) == clause_of(name).statement
    assert advice.strip()
    assert (f">> {name}: " in out) == (name in {broken.clause for broken in BROKEN})
    assert max(map(len, out.splitlines())) <= 80


def test_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ran(capsys)
    assert [line.split()[0] for line in out.splitlines()] == list(EVERY_CLAUSE)


def test_an_unknown_one_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert ran(capsys, "KM-NOPE") == (4, "", "kmutex: there is no clause 'KM-NOPE'; kmutex explain lists them\n")
