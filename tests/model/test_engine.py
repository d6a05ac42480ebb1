"""The model of a queue on a server holds at its bounds, and each broken twin violates what it is there for."""

from __future__ import annotations

import pytest

from kmutex_model.engine import BOUNDS, BROKEN, Bound, explore, main, start, steps


@pytest.mark.parametrize("bound", [BOUNDS[0], pytest.param(BOUNDS[1], marks=pytest.mark.long)])
def test_the_model_holds(bound: Bound) -> None:
    """KM-EXCL, KM-LIVE: every state within the bound."""
    found = explore(bound)
    assert not found.violated, found.path
    assert found.states > 1000


@pytest.mark.parametrize("broken", list(BROKEN))
def test_a_broken_twin_is_caught(broken: str) -> None:
    """KM-EXCL, KM-LIVE: by a run that can be followed step by step."""
    found = explore(Bound(), broken)
    assert found.violated == BROKEN[broken]
    state = start(Bound())
    wrong = ""
    for what in found.path:
        (step,) = {
            step
            for step in steps(state, broken)
            if what == (f"{step.client} {step.name}" if step.client >= 0 else f"the server {step.name}")
        }
        state, wrong = step.after, step.wrong
    assert wrong == (found.violated if found.violated != "KM-LIVE" else "")


def test_every_kind_of_step_is_taken() -> None:
    """Nothing of the model is out of reach at the smallest bound."""
    names = set()
    seen = {start(Bound())}
    todo = list(seen)
    while todo:
        for step in steps(todo.pop()):
            names.add(step.name)
            if step.after not in seen:
                seen.add(step.after)
                todo.append(step.after)
    assert names == {
        "asks",
        "reserves, and stands still",
        "goes on",
        "releases",
        "hears",
        "sweeps",
        "loses a notification",
        "gets a forged notification",
        "is cut off",
        "notices",
        "begins anew",
        "crashes",
    }


@pytest.mark.long
def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It ends with 0, and with 1 where a twin is not what it should be."""
    monkeypatch.setattr("kmutex_model.engine.BOUNDS", BOUNDS[:1])
    assert main() == 0
    assert "all as expected" in capsys.readouterr().out
    monkeypatch.setitem(BROKEN, "deaf", "TOKENS")
    assert main() == 1
