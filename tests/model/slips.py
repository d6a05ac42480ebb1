"""Known-bad models that are right but for one thing: one action, of a client in one phase, goes wrong in one way.

Where such a model has gone wrong it stops, so its wrong steps are all that a property can convict it by. A model of
`kmutex_model.broken` shows what harm a mistake does in the end. These show which part of a clause sees it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, get_args

from kmutex_model.actions import CORRECT
from kmutex_model.explore import explore
from kmutex_model.properties import Transition, actor_before, make_transition
from kmutex_model.state import IDLE, NOBODY, Client, Config, Entry, Phase, State, record_order, with_client, with_entry
from kmutex_model.turn import Outcome

CONFIGS = tuple(Config(clients, keys, race) for clients, keys in ((3, 1), (2, 2)) for race in ("keep", "pass"))  # type: ignore[arg-type]

Change = Callable[[Transition], State | None]
"""What becomes of the state after a right step, or None where that is no change."""
When = Callable[[Transition], bool]


class Slip(NamedTuple):
    """The clause; then: this action, from this phase, goes wrong so, in these states."""

    clause: str
    action: str
    phase: Phase
    how: str
    when: str = "always"


@cache
def right_steps() -> tuple[Transition, ...]:
    """Every step of the correct model, at small bounds."""
    found: dict[Transition, None] = {}
    for config in CONFIGS:
        for before, edges in explore(CORRECT, config).graph.edges.items():
            for action, after in edges:
                outcome = CORRECT.step(config, before, action).outcome
                found[make_transition(config, before, action, outcome, after)] = None
    return tuple(found)


@cache
def wrong_steps(slip: Slip) -> tuple[Transition, ...]:
    """Every wrong step of the model that slips so."""
    found = []
    for t in right_steps():
        if t.action.name == slip.action and actor_before(t).phase == slip.phase and WHEN[slip.when](t):
            changed: Transition | None = t
            for how in slip.how.split(" and "):
                changed = _gone_wrong(changed, how) if changed else None
            if changed not in (None, t):
                found.append(changed)
    return tuple(found)


def _gone_wrong(t: Transition, how: str) -> Transition | None:
    if how in get_args(Outcome):
        return t._replace(outcome=how)  # type: ignore[arg-type]
    if how == LOST:
        return t._replace(before=with_entry(t.before, t.key, None), after=with_entry(t.after, t.key, None))
    state = HOW[how](t)
    return None if state is None else t._replace(after=record_order(t.before, state))


LOST = "entry was lost before"
"""What is not seen in the state after a step alone."""


def _actor(phase: Phase, *, away: bool = False) -> Change:
    def change(t: Transition) -> State | None:
        assert t.action.client is not None
        key = _elsewhere(t) if away else t.key
        return None if key is None else with_client(t.after, t.action.client, _place(phase, key))

    return change


def _other(was: Phase, phase: Phase, *, away: bool = False) -> Change:
    """The last of the others that stand there in the one phase is in the other one then."""

    def change(t: Transition) -> State | None:
        key = _elsewhere(t) if away else t.key
        place = IDLE if was == "idle" else Client(was, key)
        there = [c for c, client in enumerate(t.after.clients) if client == place and c != t.action.client]
        return with_client(t.after, there[-1], _place(phase, key)) if there and key is not None else None

    return change


def _leaves(phase: Phase) -> Change:
    """The last of the others that stand there in that phase stands at the other key then."""

    def change(t: Transition) -> State | None:
        there = [c for c, one in enumerate(t.after.clients) if one == Client(phase, t.key) and c != t.action.client]
        key = _elsewhere(t)
        return with_client(t.after, there[-1], Client(phase, key)) if there and key is not None else None

    return change


def _entry(change: Callable[[Entry, Transition], Entry | None], *, away: bool = False) -> Change:
    def changed(t: Transition) -> State | None:
        key = _elsewhere(t) if away else t.key
        entry = None if key is None else t.after.entries[key]
        return None if entry is None or key is None else with_entry(t.after, key, change(entry, t))

    return changed


def _new(entry: Callable[[Transition], Entry], *, away: bool = False) -> Change:
    def changed(t: Transition) -> State | None:
        key = _elsewhere(t) if away else t.key
        return None if key is None or t.after.entries[key] else with_entry(t.after, key, entry(t))

    return changed


def _elsewhere(t: Transition) -> int | None:
    """The other key, where there are two."""
    return 1 - t.key if t.config.keys == 2 else None


def _place(phase: Phase, key: int | None) -> Client:
    return IDLE if phase == "idle" else Client(phase, key)


HOW: dict[str, Change] = {"does nothing": lambda t: t.before}
"""What can go wrong, by what the state is like then. An outcome in its place: the caller is told that."""
PHASES: tuple[Phase, ...] = get_args(Phase)
for _phase in PHASES:
    HOW[f"is {_phase}"] = _actor(_phase)
    HOW[f"is {_phase} elsewhere"] = _actor(_phase, away=True)
    HOW[f"{_phase} other is elsewhere"] = _leaves(_phase)
    for _was in PHASES:
        if _was != _phase:
            HOW[f"{_was} other is {_phase}"] = _other(_was, _phase)
            HOW[f"{_was} other is {_phase}, elsewhere"] = _other(_was, _phase, away=True)
for _away in (False, True):
    _where = ", elsewhere" if _away else ""
    HOW |= {
        f"evicted{_where}": _entry(lambda e, t: None, away=_away),
        f"freed{_where}": _entry(lambda e, t: e._replace(holder=NOBODY), away=_away),
        f"given to it{_where}": _entry(lambda e, t: e._replace(holder=t.action.client), away=_away),
        f"given to the last{_where}": _entry(lambda e, t: e._replace(holder=t.config.clients - 1), away=_away),
        f"one more{_where}": _entry(lambda e, t: e._replace(refs=e.refs + 1), away=_away),
        f"one less{_where}": _entry(lambda e, t: e._replace(refs=e.refs - 1), away=_away),
        f"queued{_where}": _entry(lambda e, t: e._replace(queue=(*e.queue, t.action.client)), away=_away),
        f"first forgotten{_where}": _entry(lambda e, t: e._replace(queue=e.queue[1:]), away=_away),
        f"turned round{_where}": _entry(lambda e, t: e._replace(queue=e.queue[::-1]), away=_away),
        f"kept empty{_where}": _new(lambda t: Entry(NOBODY, (), 0), away=_away),
        f"kept for it{_where}": _new(lambda t: Entry(t.action.client, (), 1), away=_away),  # type: ignore[arg-type]
    }

WHEN: dict[str, When] = {
    "always": lambda t: True,
    "nobody is there": lambda t: all(client.key != t.key for client in t.before.clients),
    "at the first key": lambda t: t.key == 0 and t.config.keys > 1,
    "at the last key": lambda t: t.key == 1,
    "the last is idle": lambda t: t.before.clients[-1] == IDLE and t.action.client != t.config.clients - 1,
    "somebody waits, and the last is idle": lambda t: any(t.before.order) and t.before.clients[-1] == IDLE,
    "in the order of their numbers": lambda t: list(t.before.order[t.key]) == sorted(t.before.order[t.key]),
    "it waits longest": lambda t: t.before.order[t.key][:1] == (t.action.client,),
    "keep": lambda t: t.config.race == "keep",
}

CONVICTED: tuple[Slip, ...] = (
    Slip("KM-EXCL", "cancel", "waiting", "waiting other is granted"),
    Slip("KM-EXCL", "stale_release", "idle", "is granted elsewhere", "at the first key"),
    Slip("KM-INDEP", "request", "idle", "idle other is granted"),
    Slip("KM-INDEP", "request", "idle", "holding other is idle and idle other is waiting", "the last is idle"),
    Slip("KM-INDEP", "request", "idle", "returned"),
    Slip("KM-INDEP", "stale_release", "idle", "given to it, elsewhere", "at the last key"),
    Slip("KM-INDEP", "try", "idle", "one more, elsewhere", "at the first key"),
    Slip("KM-INDEP", "wake", "granted", "queued, elsewhere"),
    Slip("KM-INDEP", "wake", "granted", "is granted elsewhere"),
    Slip("KM-REF", "cancel", "waiting", "idle other is granted"),
    Slip("KM-REF", "release", "holding", "idle other is holding, elsewhere", "at the first key"),
    Slip("KM-IDLE", "release", "holding", "kept empty, elsewhere", "at the first key"),
    Slip("KM-IDLE", "request", "idle", "is waiting elsewhere", "at the first key"),
    Slip("KM-FIFO", "interrupt", "waiting", "is granted"),
    Slip("KM-FIFO", "release", "holding", "waiting other is granted", "in the order of their numbers"),
    Slip("KM-HANDOFF", "cancel", "waiting", "holding other is idle"),
    Slip("KM-HANDOFF", "interrupt", "granted", "idle other is granted", "somebody waits, and the last is idle"),
    Slip("KM-HANDOFF", "release", "holding", "evicted"),
    Slip("KM-HANDOFF", "release", "holding", "granted other is elsewhere"),
    Slip("KM-HANDOFF", "release", "holding", "idle other is holding, elsewhere"),
    Slip("KM-HANDOFF", "stale_release", "idle", "holding other is waiting", "at the last key"),
    Slip("KM-CANCEL", "cancel", "waiting", "holding other is waiting"),
    Slip("KM-CANCEL", "cancel", "waiting", "holding other is elsewhere"),
    Slip("KM-CANCEL", "cancel", "waiting", "first forgotten"),
    Slip("KM-CANCEL", "cancel", "waiting", "is granted"),
    Slip("KM-CANCEL", "cancel", "waiting", "returned"),
    Slip("KM-CANCEL", "cancel", "waiting", LOST),
    Slip("KM-CANCEL", "interrupt", "granted", "waiting other is idle"),
    Slip("KM-CANCEL", "interrupt", "waiting", "kept for it, elsewhere", "at the first key"),
    Slip("KM-RACE", "cancel", "granted", "granted other is holding"),
    Slip("KM-RACE", "cancel", "granted", "is granted", "keep"),
    Slip("KM-RACE", "cancel", "granted", "evicted, elsewhere"),
    Slip("KM-RACE", "cancel", "granted", "waiting other is granted"),
    Slip("KM-RACE", "cancel", "granted", "timeout"),
    Slip("KM-RACE", "cancel", "granted", "is holding elsewhere", "keep"),
    Slip("KM-UNHELD", "stray_unlock", "idle", "returned"),
    Slip("KM-ATOMIC", "stray_unlock", "idle", "idle other is granted, elsewhere"),
    Slip("KM-ATOMIC", "try", "idle", "one less"),
    Slip("KM-TOKEN", "interrupt", "waiting", "granted other is holding"),
    Slip("KM-TOKEN", "interrupt", "waiting", "holding other is elsewhere"),
    Slip("KM-TOKEN", "stale_release", "idle", "given to it, elsewhere"),
    Slip("KM-TOKEN", "stale_release", "idle", "idle other is granted"),
    Slip("KM-TOKEN", "stale_release", "idle", "timeout"),
    Slip("KM-EXPIRED", "try", "idle", "given to the last"),
    Slip("KM-EXPIRED", "try", "idle", "is idle elsewhere"),
    Slip("KM-EXPIRED", "try", "idle", "is holding"),
    Slip("KM-EXPIRED", "try", "idle", "is granted", "nobody is there"),
    Slip("KM-EXPIRED", "try", "idle", "is holding elsewhere", "nobody is there"),
    Slip("KM-EXPIRED", "try", "idle", "granted"),
    Slip("KM-EXPIRED", "try", "idle", "timeout"),
    Slip("KM-INTERRUPT", "interrupt", "granted", "given to it"),
    Slip("KM-INTERRUPT", "interrupt", "granted", "is waiting"),
    Slip("KM-INTERRUPT", "interrupt", "granted", "kept empty"),
    Slip("KM-INTERRUPT", "interrupt", "waiting", "given to the last"),
    Slip("KM-INTERRUPT", "interrupt", "waiting", "one more"),
    Slip("KM-INTERRUPT", "interrupt", "waiting", "timeout"),
)
"""Models that the clause must convict: in some of the wrong steps at least."""
ACQUITTED: tuple[Slip, ...] = (
    Slip("KM-FIFO", "cancel", "waiting", "is granted", "it waits longest"),
    Slip("KM-FIFO", "cancel", "waiting", "waiting other is granted", "it waits longest"),
    Slip("KM-CANCEL", "wake", "granted", "freed", "the last is idle"),
)
"""Models that are wrong, and must not be blamed on the clause, in no step."""
