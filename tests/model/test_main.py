"""`python -m kmutex_model`: prints what was found, and its exit code says whether that was expected."""

from __future__ import annotations

import pytest

from kmutex_model import __main__ as command
from kmutex_model.actions import CORRECT
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import explore
from kmutex_model.state import Config


@pytest.mark.long
def test_all_is_as_expected(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "all as expected"
    holding = [line.split() for line in lines if line.startswith("correct ")]
    assert len(holding) == len(command.BOUNDS) * len(command.RACES)
    for _, bound, race, states, transitions, depth, verdict, _ in holding:
        clients, keys = bound.split("x")
        assert race in ("keep", "pass")
        found = explore(CORRECT, Config(int(clients), int(keys), "keep" if race == "keep" else "pass"))
        assert (states, transitions, depth) == tuple(map(str, (found.states, found.transitions, found.depth)))
        assert verdict == "holds"
    for broken in BROKEN:
        assert any(line.startswith(f"{broken.model.name} ") and broken.clause in line for line in lines)


@pytest.mark.long
def test_runs_are_printed_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--runs"]) == 0
    out = capsys.readouterr().out
    assert "request(0,0); request(1,0); release(0)" in out
    assert "and forever: (nothing)" in out


@pytest.mark.long
def test_a_broken_model_that_is_not_caught_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    harmless = Broken(CORRECT, "KM-EXCL", "nothing is wrong", Config(2, 1, "keep"))
    monkeypatch.setattr(command, "BROKEN", (harmless,))
    assert command.main([]) == 1
    assert "not KM-EXCL!" in capsys.readouterr().out


@pytest.mark.long
def test_a_correct_model_that_is_not_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "CORRECT", BROKEN[0].model)
    assert command.main([]) == 1
    assert "request(0,0); request(1,0)" in capsys.readouterr().out


def test_bounds_too_small_for_a_situation_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "BOUNDS", ((2, 1),))
    assert command.main([]) == 1
    assert "a waiter in the middle of the queue is cancelled: NEVER MET" in capsys.readouterr().out


@pytest.mark.long
def test_one_bound(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--bound", "4x2"]) == 0
    whole = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("correct ")]
    assert command.main(["--bound", "4x2", "--symmetry"]) == 0
    said = capsys.readouterr().out
    reduced = [line.split() for line in said.splitlines() if line.startswith("correct ")]
    assert {row[6] for row in (*whole, *reduced)} == {"holds"}
    assert all(int(few[3]) < int(many[3]) / 10 for few, many in zip(reduced, whole, strict=True))
    assert "KM-LIVE is not judged" in said


@pytest.mark.parametrize("arguments", [["--bound", "0x1"], ["--bound", "4"], ["--bound", "4x2x1"], ["--symmetry"]])
def test_a_bound_that_is_none(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2
    assert "Traceback" not in capsys.readouterr().err
