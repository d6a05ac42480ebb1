"""No property can lose a part: for each there is a known-bad model that it alone convicts, or one that it must not.

`tests.model.slips` has these models, and each must be convicted by its clause. So a part that is taken out of a
property is missed there; and a part that is new needs a model of its own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import pytest

from kmutex_model import properties
from kmutex_model.actions import CORRECT
from kmutex_model.broken import BROKEN
from kmutex_model.explore import explore
from kmutex_model.properties import ALL, KM_LIVE, Property, Transition
from tests.model.slips import ACQUITTED, CONVICTED, Slip, right_steps, wrong_steps
from tests.mutants.lost_parts import Less, Mutant, mutants, namespace, part_of_a_check

TREE = ast.parse(Path(properties.__file__).read_text(encoding="utf-8"))
NOT_CHECKS = {"make_transition", "_middle_cancelled", "_cancelled_then"}
PARTS = tuple(mutants(TREE, part_of_a_check, NOT_CHECKS))
CALLS = {
    function.name: {one.id for one in ast.walk(function) if isinstance(one, ast.Name)}
    for function in TREE.body
    if isinstance(function, ast.FunctionDef)
}
IDLE_IS_NOWHERE = "who is idle is at no key, and nobody else is"
EQUAL: dict[tuple[str, str], str] = {
    ("gets_it", "now.key is not None"): "who is at no key is in no phase in which a key is owned",
    ("left_the_queue", "field 0 in actor_after(t) != IDLE"): IDLE_IS_NOWHERE,
    ("left_the_queue", "field 1 in actor_after(t) != IDLE"): IDLE_IS_NOWHERE,
    ("went_on", "field 0 in actor_after(t) != IDLE"): IDLE_IS_NOWHERE,
    ("went_on", "field 1 in actor_after(t) != IDLE"): IDLE_IS_NOWHERE,
    ("handed_off", "field 0 in t.before.clients[client] == IDLE"): IDLE_IS_NOWHERE,
    ("handed_off", "field 1 in t.before.clients[client] == IDLE"): IDLE_IS_NOWHERE,
    ("cancelled_is_gone", "field 0 in state.clients[client] == IDLE"): IDLE_IS_NOWHERE,
    ("cancelled_is_gone", "field 1 in state.clients[client] == IDLE"): IDLE_IS_NOWHERE,
    ("failed_changes_nothing", "field 2 in t.after != t.before"): "the ghost follows from where the clients stand",
    ("own_grant_only", "field 2 in t.after != t.before"): "the ghost follows from where the clients stand",
    ("own_grant_only", "all but the first of owners(t.before, t.key)"): "no step begins where two own a key",
    ("no_time_no_wait", "field 2 in t.after == t.before"): "the ghost follows from where the clients stand",
}
"""Parts without which nothing that can be seen changes, each with the reason."""


def says(prop: Property, t: Transition) -> str:
    """What the clause finds wrong with a step."""
    return (prop.on_step(t) if prop.on_step else "") or (prop.in_state(t.config, t.after) if prop.in_state else "")


def convicts(prop: Property, steps: Iterable[Transition]) -> bool:
    return any(says(prop, t) for t in steps)


@cache
def telling(slip: Slip) -> tuple[Transition, ...]:
    """The steps of a model that convict it."""
    by_clause = {prop.clause: prop for prop in ALL}
    return tuple(t for t in wrong_steps(slip) if says(by_clause[slip.clause], t))


@pytest.mark.parametrize("slip", CONVICTED, ids=lambda slip: " ".join(slip))
def test_a_model_that_makes_one_slip_is_convicted(slip: Slip) -> None:
    """Every clause but KM-LIVE."""
    assert telling(slip)


@pytest.mark.parametrize("slip", ACQUITTED, ids=lambda slip: " ".join(slip))
def test_a_clause_is_not_blamed_for_what_others_are_there_for(slip: Slip) -> None:
    """KM-FIFO and KM-CANCEL: the step is wrong, but not by them."""
    assert wrong_steps(slip)
    assert not telling(slip)


@pytest.mark.parametrize("name", sorted({part.name for part in PARTS}))
def test_without_a_part_some_model_is_judged_otherwise(name: str) -> None:
    """Every clause: of each part of each property. It is told by the model that makes one slip, or the correct one."""
    unseen = {lost for part in PARTS if part.name == name for lost in [part.lost] if not seen_by(part)}
    assert unseen == {lost for function, lost in EQUAL if function == name}


def test_a_part_that_says_nothing_new_is_unseen() -> None:
    """The judge of mutants is not blind."""
    source = "def unheld_is_refused(t):\n    return 'wrong' if t.action.name == 'stray_unlock' and {} else ''\n"
    for check, seen in (
        ("t.outcome != 'unheld'", False),
        ("t.outcome != 'unheld' and t.outcome != 'no such outcome'", False),
        ("t.outcome == 'granted'", True),
        ("True", True),
    ):
        mutant = Mutant("unheld_is_refused", "", ast.parse(source.format(check)).body[0])
        assert bool(seen_by(mutant)) == seen, check


def seen_by(mutant: Mutant) -> str:
    """Which model is judged otherwise by the mutant; an empty string: none."""
    less = Less()
    every: dict[str, Property] = {prop.clause: prop for prop in namespace(properties, TREE, mutant, less)["ALL"]}
    changed = {clause: prop for clause, prop in every.items() if _rests_on(prop, mutant.name)}
    assert changed, mutant[:2]
    try:
        found = _seen_by(changed)
    except (AttributeError, IndexError, TypeError) as error:
        found = repr(error)
    return found or ("nothing is lost" if mutant.lost.startswith("field ") and not less.used else "")


def _seen_by(changed: Mapping[str, Property]) -> str:
    if KM_LIVE.clause in changed:
        return _seen_in_the_end(changed[KM_LIVE.clause])
    for slip in CONVICTED:
        prop = changed.get(slip.clause)
        if prop and not convicts(prop, telling(slip)) and not convicts(prop, wrong_steps(slip)):
            return f"unconvicted: {' '.join(slip)}"
    for slip in ACQUITTED:
        if slip.clause in changed and convicts(changed[slip.clause], wrong_steps(slip)):
            return f"convicted: {' '.join(slip)}"
    return next((f"convicted: {CORRECT.name}" for prop in changed.values() if convicts(prop, right_steps())), "")


def _seen_in_the_end(live: Property) -> str:
    for bad in (one for one in BROKEN if one.clause == KM_LIVE.clause):
        if not explore(bad.model, bad.config, properties=(live,)).violations:
            return f"unconvicted: {bad.model.name}"
    return ""


def _rests_on(prop: Property, name: str) -> bool:
    """Whether the property is, or one of its checks calls, what has this name."""
    todo = [check.__name__ for check in (prop.in_state, prop.on_step) if check]
    seen = {prop.clause.replace("-", "_")}
    while todo:
        one = todo.pop()
        if one not in seen:
            seen.add(one)
            todo += CALLS.get(one, ())
    return name in seen
