"""A counterexample of the model as a timeline: a row for each step, and for each change of other clients."""

from __future__ import annotations

from collections.abc import Iterator

from kmutex.picture.rows import Change, Picture, PictureRow
from kmutex.teach.explore_page import ACTION_WORDS, OUTCOME_WORDS
from kmutex_model.actions import Action, Model, action_key
from kmutex_model.broken import Broken
from kmutex_model.explore import Counterexample, Exploration, explore
from kmutex_model.state import Client, Config, State

_OWNS = ("granted", "holding")


def picture(model: Model, config: Config, violation: Counterexample) -> Picture:
    """Return the run that breaks a clause, with the message as its last row. Only clients with steps have a lane."""
    rows: list[PictureRow] = []
    state = model.initial(config)
    for action in violation.path:
        state = _step(model, config, state, action, rows)
    if violation.cycle:
        rows.append(PictureRow(None, "from here on, forever:"))
        for action in violation.cycle:
            state = _step(model, config, state, action, rows)
    rows.append(PictureRow(None, f"{violation.clause}: {violation.message}"))
    clients = sorted({row.lane for row in rows if row.lane is not None})
    return Picture(
        tuple(f"client {client}" for client in clients),
        tuple(row if row.lane is None else row._replace(lane=clients.index(row.lane)) for row in rows),
    )


def of_broken(broken: Broken) -> tuple[Exploration, Picture]:
    """Explore a known-bad model; return the result, and the timeline of the shortest run that breaks its clause."""
    found = explore(broken.model, broken.config, properties=broken.judged_by)
    violation = next(one for one in found.violations if one.clause == broken.clause)
    return found, picture(broken.model, broken.config, violation)


def _step(model: Model, config: Config, state: State, action: Action, rows: list[PictureRow]) -> State:
    after, outcome = model.step(config, state, action)
    assert action.client is not None
    key = f"key {action_key(state, action)}"
    words = f"{ACTION_WORDS[action.name].format(key=key)}: {OUTCOME_WORDS[outcome]}"
    for client in [action.client, *(other for other in range(config.clients) if other != action.client)]:
        before, now = state.clients[client], after.clients[client]
        changes = list(_changes(before, now))
        if client == action.client:
            change = changes.pop(0) if changes else ""
            rows.append(PictureRow(client, words, change, str(action_key(state, action))))
        place = now if now.key is not None else before
        for change in changes:
            rows.append(PictureRow(client, _AS_TOLD[change].format(key=f"key {place.key}"), change, str(place.key)))
    return after


def _changes(before: Client, now: Client) -> Iterator[Change]:
    owned, owns = before.phase in _OWNS, now.phase in _OWNS
    if owned and not owns:
        yield "lets go"
    if owns and not owned:
        yield "has"
    if now.phase == "waiting" and before.phase != "waiting":
        yield "asks"
    if before.phase == "waiting" and now.phase == "idle":
        yield "refused"


_AS_TOLD: dict[Change, str] = {
    "has": "is granted {key}",
    "lets go": "has {key} no longer",
    "asks": "waits for {key}",
    "refused": "waits for {key} no longer",
}
"""The change of a client by another client's step."""
