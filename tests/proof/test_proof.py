"""The proof holds of the correct model, and fails of whatever is wrong: a model, a clause, a part, a solver."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from kmutex_model.actions import CORRECT, Row
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.proof import clauses, prove
from kmutex_model.proof.controls import control, differing, replay
from kmutex_model.proof.invariant import PARTS
from kmutex_model.proof.logic import applied, both, every, no, number, same, some, variable
from kmutex_model.proof.obligations import (
    BEFORE,
    INVARIANT,
    Obligation,
    needed_parts,
    obligations,
    oldest_of_finite,
    outside_the_fragment,
    refute,
    show,
)
from kmutex_model.proof.solvers import Answer, NoSolverError, Question, solvers
from kmutex_model.proof.steps import ACTOR, KEY, cases_of
from kmutex_model.properties import ALL
from kmutex_model.turn import Outcome, Turn

BY = solvers()
Z3 = BY[:1]
SOME = {"no_lock", "wakes_another_key", "smallest_first", "release_counted_twice", "cancel_swaps_places", "never_wakes"}


@pytest.fixture(scope="module")
def correct() -> prove.Obligations:
    return prove.prove()


@pytest.mark.long
def test_the_correct_model_is_proved_by_every_solver(correct: prove.Obligations) -> None:
    """Every clause that the model has, each by obligations of its own, and each part of the invariant is needed."""
    assert [line for line in correct.lines if not line.proved] == []
    assert correct.faults == ()
    assert {line.clause for line in correct.lines} - {"INVARIANT", "GHOST"} == {prop.clause for prop in ALL}
    assert [part.name for part in correct.parts] == [part.name for part in PARTS]
    assert all(part.needed_for and part.counterexample for part in correct.parts)
    both_asked = bool(importlib.util.find_spec("cvc5"))
    assert all(set(line.seconds) == ({"z3", "cvc5"} if both_asked else {"z3"}) for line in correct.lines)


@pytest.mark.long
def test_every_row_has_obligations_in_both_races(correct: prove.Obligations) -> None:
    steps = {line.step for line in correct.lines if line.step}
    assert {step.split(" ")[0] for step in steps} == {row.action for row in CORRECT.table}
    assert {race for race in ("keep", "pass") if any(f", {race}" in step for step in steps)} == {"keep", "pass"}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"{broken.model.name}-{broken.clause}")
def test_every_broken_model_fails_an_obligation_of_its_clause(broken: Broken) -> None:
    """And the explorer's model takes the same wrong step from the same state. Solvers agree on the rarer ones."""
    found = control(broken, BY if broken.model.name in SOME else Z3)
    assert found.fault == ""
    assert found.refuted is not None
    assert found.refuted.clause == broken.clause
    assert found.said
    assert found.config is not None
    assert found.config.clients <= 4
    assert found.config.keys <= 2
    # A run of the broken model leads there, so that there is something to draw.
    assert found.run is not None
    steps = broken.model.replay(found.config, found.run.path)
    assert found.action is None or found.run.path[-1] == found.action
    assert found.state in [broken.model.initial(found.config), *(step.state for step in steps)]


def test_a_correct_model_under_the_name_of_a_broken_one_goes_through() -> None:
    """KM-FIFO: a control that nothing fails for is a fault, and so is a counterexample that is none."""

    def let_go_again(turn: Turn) -> Outcome:
        turn.move(turn.client, "idle")
        if turn.nobody_waits():
            turn.evict()
        else:
            heir = turn.oldest()
            turn.give(heir)
            turn.dequeue(heir)
            turn.move(heir, "granted")
            turn.count(-1)
        return "released"

    model = CORRECT.replacing("harmless", Row("release", "holding", "any", let_go_again))
    lifo = next(one for one in BROKEN if one.model.name == "lifo")
    harmless = Broken(model, "KM-FIFO", "nothing", lifo.config)
    assert control(harmless, Z3).fault == "no obligation of KM-FIFO fails"
    convicted = control(lifo, Z3)
    assert convicted.refuted is not None
    found = refute(convicted.refuted, Z3)
    assert found is not None
    assert "nothing wrong" in replay(harmless, convicted.refuted, found[1]).fault


def test_a_part_that_nobody_needs_is_found_out() -> None:
    """A part that says what is so anyway has nothing that fails without it; one that is false is not kept."""
    shown = [show(one, Z3) for one in obligations(CORRECT) if one.clause == "KM-EXCL"]
    idle = PARTS[0]._replace(name="needless")
    (found,) = needed_parts([*shown, *oldest_of_finite(Z3[0])], Z3[0], parts=[idle])
    assert found.obligation is None
    wrong = PARTS[0]._replace(name="nobody waits", holds=lambda s: every(lambda k, c: ~s.waiting(c, k)))
    kept = [one for one in obligations(CORRECT, (*PARTS, wrong)) if one.what == "nobody waits, kept"]
    assert "refuted" in {show(one, Z3).result for one in kept if one.case and one.case.outcome == "waiting"}


def test_without_an_invariant_little_is_proved() -> None:
    """Only a correct step from an allowed state is correct: the invariant is not for show."""
    bare = [one for one in obligations(CORRECT, ()) if one.clause in ("KM-EXCL", "KM-FIFO")]
    assert any(refute(one, Z3) for one in bare)


class Stub:
    """A solver that says always the same."""

    version = "0"

    def __init__(self, name: str, verdict: Any) -> None:
        self.name, self._verdict = name, verdict

    def ask(self, question: Question, *, seconds: float = 1) -> Answer:
        return Answer(self._verdict, 0.0)


@pytest.mark.parametrize(
    ("said", "result"),
    [
        (("unsat", "unsat"), "proved"),
        (("sat", "sat"), "refuted"),
        (("unsat", "unknown"), "unknown"),
        (("unknown", "unknown"), "unknown"),
        (("sat", "unknown"), "unknown"),
        (("unsat", "sat"), "solvers differ"),
    ],
)
def test_only_what_all_solvers_say_counts(said: tuple[str, str], result: str) -> None:
    first = next(iter(obligations(CORRECT)))
    assert show(first, [Stub("one", said[0]), Stub("two", said[1])]).result == result


def test_a_question_that_takes_too_long_is_unknown() -> None:
    """A solver that is given no time has not proved anything."""
    hard = [one for one in obligations(CORRECT) if one.clause == INVARIANT and one.case][3]
    answers = {Z3[0].ask(hard.question(), seconds=0.001).verdict for _ in range(5)}
    assert answers <= {"unknown", "unsat"}
    assert Z3[0].ask(_endless(), seconds=0.5).verdict == "unknown"


def _endless() -> Question:
    """A line of clients without an end: infinite states only, outside the fragment."""

    def r(a: Any, b: Any) -> Any:
        return applied("before", "Bool", a, b)

    return Question(
        (),
        (
            ("strict", every(lambda a: ~r(a, a))),
            ("transitive", every(lambda a, b, c: ~r(a, b) | ~r(b, c) | r(a, c))),
            ("endless", every(lambda a: some(lambda b: r(a, b)))),
        ),
    )


def test_what_is_outside_the_decidable_fragment_is_said() -> None:
    goal = no(both(*(term for _, term in _endless().assertions)))
    assert outside_the_fragment(Obligation("KM-X", "x", None, (), (), goal)) == "for each Client there is a Client"
    assert {outside_the_fragment(one) for one in obligations(CORRECT)} == {""}


def test_every_broken_model_says_something_else_in_relations() -> None:
    for broken in BROKEN:
        rows = {row[:3] for row in CORRECT.table} != {row[:3] for row in broken.model.table}
        assert differing(broken) or rows, broken.model.name
    # A row that is not replaced is not looked at.
    assert all(case.row.action == "release" for case in differing(next(b for b in BROKEN if b.model.name == "lifo")))


def test_a_missing_solver_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("kmutex_model.proof.solvers.importlib.import_module", gone)
    with pytest.raises(NoSolverError, match=r"pip install 'kmutex\[proof\]'"):
        solvers(["z3"])
    with pytest.raises(NoSolverError, match="pip install cvc5"):
        solvers(["cvc5"])


def test_a_clause_needs_all_of_it() -> None:
    """KM-REF: refuted, unknown, no control, a control that goes through, a difference, a fault: never "holds"."""
    tied = prove.Tie(violations=prove.Tie().violations)
    tied.violations["KM-REF"] = 1
    proved = prove.Line("KM-REF", "x", "", "proved", {})
    inv = prove.Line("INVARIANT", "y", "", "proved", {})
    good = prove.ControlLine("m", "KM-REF", "", "", "", "", "", "", "", (), 0.0, "")
    shown = prove.Obligations((proved, inv), (), (), ())

    def said(o: prove.Obligations = shown, c: Any = (good,), t: Any = tied) -> str:
        return prove.fault_of("KM-REF", o, c, t)[0]

    assert said() == "holds"
    assert said(shown._replace(lines=(proved._replace(result="refuted"), inv))) == "violated"
    assert said(shown._replace(lines=(proved._replace(result="unknown"), inv))) == "inconclusive"
    assert said(shown._replace(lines=(proved, inv._replace(result="solvers differ")))) == "inconclusive"
    assert said(shown._replace(lines=(inv,))) == "inconclusive"
    assert said(shown._replace(faults=("f",))) == "inconclusive"
    assert said(c=()) == "inconclusive"
    assert said(c=(good._replace(fault="f"),)) == "inconclusive"
    assert said(t=prove.Tie(differences=["d"], violations=tied.violations)) == "inconclusive"
    assert said(t=prove.Tie()) == "inconclusive"


def test_a_case_that_can_never_be_taken_is_seen() -> None:
    from kmutex_model.proof.obligations import possible

    def ask(turn: Turn) -> Outcome:
        return "waiting" if turn.has_entry() else "granted"

    row = Row("request", "idle", "held", ask)
    assert [possible(case, Z3[0]) for case in cases_of(row, BEFORE)] == [True, False]


def test_terms_are_simplified_and_equal_when_built_twice() -> None:
    s = BEFORE
    assert s.is_free(KEY) == s.is_free(KEY)
    assert str(same(ACTOR, ACTOR)) == "true"
    assert str(same(number(1), number(1))) == "true"
    assert no(no(s.present(KEY))) == s.present(KEY)
    x = variable("x", "Client")
    inner = every(lambda c: s.holder(KEY, c) | every(lambda c: same(c, x)))
    assert str(inner) == "(forall ((c0 Client)) (or (holder key c0) (forall ((c1 Client)) (= c1 x))))"
    assert clauses.one_owner(s) == clauses.one_owner(s)
