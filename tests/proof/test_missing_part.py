"""The two lessons about the invariant: shown, and graded by the solver."""

from __future__ import annotations

import pytest

from kmutex.cli import main as command
from kmutex.teach.missing_part import PUZZLES, FormulaError, grade, parsed, puzzle, rest_of, shown
from kmutex_model.proof.invariant import PARTS
from kmutex_model.proof.solvers import solvers

BY = solvers(["z3"])
RIGHT = {
    1: "every(lambda k: implies(s.present(k), some(lambda c: s.holder(k, c))))",
    2: "every(lambda k, c: same(s.holder(k, c), s.owns(c, k)))",
}


@pytest.mark.sampled(2)
@pytest.mark.parametrize("one", PUZZLES, ids=lambda one: str(one.number))
def test_what_is_missing_is_a_part_and_shows(one) -> None:  # type: ignore[no-untyped-def]
    assert one.missing in {part.name for part in PARTS}
    assert len(rest_of(one)) == len(PARTS) - 1
    assert shown(one, BY).startswith("KM-")
    assert grade(one, parsed(RIGHT[one.number]), BY).right


@pytest.mark.parametrize(
    ("number", "answer", "said"),
    [
        (1, "every(lambda k, c: s.present(k))", "too strong"),
        (1, "every(lambda k, c: ~s.waiting(c, k))", "not kept"),
        (1, "same(number(1), number(1))", "too weak"),
        (1, RIGHT[2], "too weak"),
        (2, "every(lambda k, c: implies(s.holder(k, c), s.owns(c, k)))", "too weak"),
    ],
)
def test_a_wrong_answer_is_told_why(number: int, answer: str, said: str) -> None:
    one = puzzle(number)
    assert one is not None
    graded = grade(one, parsed(answer), BY)
    assert not graded.right
    assert graded.said.startswith(said)
    assert graded.counterexample


@pytest.mark.parametrize(
    "text",
    [
        "",
        "every(lambda k: ",
        "__import__('os')",
        "s.__class__",
        "s.get('holder')",
        "every",
        "s.present",
        "[1]",
        "every(lambda k: s.present(k).sort)",
        "number(1)",
        "every(lambda k: 'x')",
        "s.holder(1)",
        "x" * 3000,
        "(" * 500,
    ],
)
def test_what_is_no_formula_is_refused(text: str) -> None:
    with pytest.raises(FormulaError):
        parsed(text)


@pytest.mark.long
def test_as_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, status in (
        (["--lesson", "2", "--solver", "z3"], 0),
        (["--lesson", "2", "--solver", "z3", "--answer", RIGHT[2]], 0),
        (["--lesson", "2", "--solver", "z3", "--answer", "every(lambda k, c: s.holder(k, c))"], 1),
        (["--lesson", "3"], 4),
        (["--lesson", "1", "--answer", "s.x"], 4),
        (["--answer", "s.x"], 4),
    ):
        with pytest.raises(SystemExit) as ended:
            command(["prove", *arguments])
        assert ended.value.code == status, arguments
    assert "a state has no 'x'" in capsys.readouterr().err
