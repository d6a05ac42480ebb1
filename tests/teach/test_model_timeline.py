"""Counterexamples of the model as pictures: every step is there, and the bars are the state of the model."""

from __future__ import annotations

import pytest

from kmutex.picture.rows import Picture, spans
from kmutex.teach.model_timeline import picture
from kmutex_model.actions import format_schedule
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import Counterexample, explore
from kmutex_model.state import State, owners, present

NAMES = [f"{broken.model.name}-{broken.clause}" for broken in BROKEN]


def shown(broken: Broken) -> tuple[Counterexample, Picture]:
    found = explore(broken.model, broken.config, properties=broken.judged_by)
    violation = next(one for one in found.violations if one.clause == broken.clause)
    return violation, picture(broken.model, broken.config, violation)


@pytest.mark.parametrize("broken", BROKEN, ids=NAMES)
def test_the_bars_at_the_end_are_the_state_that_the_run_leads_to(broken: Broken) -> None:
    """Who owns which key and who waits, of every known-bad model; the last row names the clause."""
    violation, drawn = shown(broken)
    assert drawn.rows[-1].text == f"{violation.clause}: {violation.message}"
    actions = (*violation.path, *(violation.cycle or ()))
    state: State = broken.model.initial(broken.config)
    for action in actions:
        state = broken.model.step(broken.config, state, action).state
    seen = {(drawn.heads[span.lane], span.key, span.holds) for span in spans(drawn) if span.last == len(drawn.rows)}
    keys = range(broken.config.keys)
    owned = {(f"client {client}", str(key), True) for key in keys for client in owners(state, key)}
    waiting = {
        (f"client {client}", str(key), False)
        for key in keys
        for client in present(state, key)
        if client not in owners(state, key)
    }
    assert seen == owned | waiting, format_schedule(actions)


@pytest.mark.parametrize("broken", BROKEN, ids=NAMES)
def test_every_lane_and_step_is_needed(broken: Broken) -> None:
    """A lane for each client that does or suffers something, and no other; a row for each step."""
    violation, drawn = shown(broken)
    actors = {f"client {action.client}" for action in (*violation.path, *(violation.cycle or ()))}
    assert actors <= set(drawn.heads)
    assert {row.lane for row in drawn.rows if row.lane is not None} == set(range(len(drawn.heads)))
    steps = [row for row in drawn.rows if ": " in row.text and row.lane is not None]
    assert len(steps) == len(violation.path) + len(violation.cycle or ())
