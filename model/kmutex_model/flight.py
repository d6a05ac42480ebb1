"""Duplicate suppression as a separate state machine: single flights, `do(key, work)`.

Rule 1   Every action is one step, atomic, by one client and at one key.
Rule 2   An idle client may ask for the result of a key's work. If no run of it goes on, it leads: it runs the work.
         Else it follows the run, behind all who follow already.
Rule 3   A run may finish. Its result is told to the leader and to all who follow, in the same step, and the key's
         entry goes.
Rule 4   A run may fail. The leader is told its error, and then, by `leader`:
         "share": all who follow are told it, too, and the entry goes;
         "takeover": the first who follows leads, and the others follow it. Without one the entry goes.
Rule 5   The call of a client that was told something returns some time later ("wake").
Rule 6   A client that leads may be cancelled. Its run ends with it, and the first who follows leads, whatever
         `leader` is: a cancellation is never shared.
Rule 7   A client that follows may be cancelled. It leaves the entry, and nothing else changes. So may one that was
         told something: its call is over then.

Not modelled: a run that goes on when the call that led it is cancelled. Seen from the callers it is a run whose leader
is nobody, and the clauses say the same of it; the judge of the real code has it (kmutex/engine/flight_judge.py).

The explorer is that of the keyed mutex, and so are `Action`, `Property`, `Sometimes` and `Eventually`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kmutex_model.actions import Action, NotEnabledError
from kmutex_model.properties import Eventually, Property, Sometimes

Leader = Literal["takeover", "share"]
Phase = Literal["idle", "leading", "following", "told", "failed"]


class FlightConfig(NamedTuple):
    """The bound of an exploration, and what the failure of a leader means to those who follow."""

    clients: int
    keys: int
    leader: Leader


class Caller(NamedTuple):
    """One client, between two steps.

    idle       outside; `key` is None
    leading    inside do(key), and its work is being run
    following  inside do(key), waiting for the run of another
    told       inside do(key), and has a result; the call has not returned yet
    failed     the same with an error
    """

    phase: Phase
    key: int | None


class Flight(NamedTuple):
    """One key in use: the leader, which runs the work, and the followers, oldest first."""

    leader: int
    followers: tuple[int, ...]


class FlightState(NamedTuple):
    """Everything between two steps: the table by key, and the clients, which are the truth."""

    entries: tuple[Flight | None, ...]
    clients: tuple[Caller, ...]


class FlightStep(NamedTuple):
    """Where an action led, and what the caller was told."""

    state: FlightState
    outcome: str


class FlightTransition(NamedTuple):
    """One step as the properties read it."""

    config: FlightConfig
    before: FlightState
    action: Action
    key: int
    outcome: str
    after: FlightState


IDLE = Caller("idle", None)
NOBODY = -1
"""The leader of an entry whose run is over. The correct model has no such entry; some broken ones do."""


def _at(state: FlightState, key: int, flight: Flight | None) -> FlightState:
    return state._replace(entries=(*state.entries[:key], flight, *state.entries[key + 1 :]))


def _become(state: FlightState, phase: Phase, key: int, *clients: int) -> FlightState:
    new = IDLE if phase == "idle" else Caller(phase, key)
    return state._replace(clients=tuple(new if c in clients else old for c, old in enumerate(state.clients)))


def _flight(state: FlightState, key: int) -> Flight:
    flight = state.entries[key]
    if flight is None:
        raise AssertionError(f"key {key} has no entry")
    return flight


# ------------------------------------------------------------------------------------------------------------
# Effects. (config, state, client, key) -> FlightStep

Effect = Callable[[FlightConfig, FlightState, int, int], FlightStep]


def lead(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 2, first case."""
    return FlightStep(_become(_at(state, key, Flight(client, ())), "leading", key, client), "leading")


def follow(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 2, second case."""
    leader, followers = _flight(state, key)
    state = _at(state, key, Flight(leader, (*followers, client)))
    return FlightStep(_become(state, "following", key, client), "following")


def finish(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 3."""
    followers = _flight(state, key).followers
    return FlightStep(_become(_at(state, key, None), "told", key, client, *followers), "finished")


def fail(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 4."""
    followers = _flight(state, key).followers
    if config.leader == "share":
        return FlightStep(_become(_at(state, key, None), "failed", key, client, *followers), "failed")
    return FlightStep(take_over(_become(state, "failed", key, client), key), "failed")


def take_over(state: FlightState, key: int) -> FlightState:
    """The leader is gone; the first follower leads."""
    followers = _flight(state, key).followers
    if not followers:
        return _at(state, key, None)
    first, *others = followers
    return _become(_at(state, key, Flight(first, tuple(others))), "leading", key, first)


def cancel_leader(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 6."""
    return FlightStep(take_over(_become(state, "idle", key, client), key), "cancelled")


def cancel_follower(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 7."""
    leader, followers = _flight(state, key)
    state = _at(state, key, Flight(leader, tuple(c for c in followers if c != client)))
    return FlightStep(_become(state, "idle", key, client), "cancelled")


def return_early(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 7, of one that was told something."""
    return FlightStep(_become(state, "idle", key, client), "cancelled")


def come_back(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    """Rule 5."""
    outcome = "returned" if state.clients[client].phase == "told" else "raised"
    return FlightStep(_become(state, "idle", key, client), outcome)


# ------------------------------------------------------------------------------------------------------------
# The machine

View = Literal["no run", "a run", "any"]
Place = tuple[str, Phase, View]
"""An action, the phase of its client, and what goes on at its key."""

TABLE: dict[Place, Effect] = {
    # action, the client is, at its key goes on
    ("request", "idle", "no run"): lead,
    ("request", "idle", "a run"): follow,
    ("finish", "leading", "any"): finish,
    ("fail", "leading", "any"): fail,
    ("cancel", "leading", "any"): cancel_leader,
    ("cancel", "following", "any"): cancel_follower,
    ("cancel", "told", "any"): return_early,
    ("cancel", "failed", "any"): return_early,
    ("wake", "told", "any"): come_back,
    ("wake", "failed", "any"): come_back,
}


@dataclass(frozen=True)
class FlightModel:
    """A table under a name: the correct one, or a broken one."""

    name: str
    table: dict[Place, Effect]

    def initial(self, config: FlightConfig) -> FlightState:
        """Return the state in which nobody has asked; raise ValueError if the bound has no client or no key."""
        if config.clients < 1 or config.keys < 1:
            raise ValueError(f"at least one client and one key are needed, not {config}")
        return FlightState((None,) * config.keys, (IDLE,) * config.clients)

    def enabled(self, config: FlightConfig, state: FlightState) -> tuple[Action, ...]:
        """Every action that can happen here, in a fixed order."""
        found = []
        for number, client in enumerate(state.clients):
            if client.key is None:
                found += [Action("request", number, key) for key in range(config.keys)]
            else:
                names = dict.fromkeys(name for name, phase, _ in self.table if phase == client.phase)
                found += [Action(name, number) for name in names]
        return tuple(found)

    def step(self, config: FlightConfig, state: FlightState, action: Action) -> FlightStep:
        """Take the action. NotEnabledError if it cannot happen here."""
        client = -1 if action.client is None else action.client
        if client in range(config.clients):
            phase, at = state.clients[client]
            key = action.key if phase == "idle" else at if action.key is None else None
            if key is not None and key in range(config.keys):
                view: View = "no run" if state.entries[key] is None else "a run"
                effect = self.table.get((action.name, phase, view)) or self.table.get((action.name, phase, "any"))
                if effect is not None:
                    return effect(config, state, client, key)
        raise NotEnabledError(f"{action} cannot happen in {state}")

    def replacing(self, name: str, rows: dict[Place, Effect]) -> FlightModel:
        """The same model, under another name, with these rows in place of its own. ValueError: it has no such row."""
        if odd := set(rows) - set(self.table):
            raise ValueError(f"{self.name} has no row {odd.pop()}")
        return FlightModel(name, {**self.table, **rows})


FLIGHT = FlightModel("flight", TABLE)


# ------------------------------------------------------------------------------------------------------------
# Properties


def _moved(t: FlightTransition) -> list[int]:
    """The clients, besides the acting one, whom the step changed."""
    pairs = enumerate(zip(t.before.clients, t.after.clients, strict=True))
    return [c for c, (was, now) in pairs if was != now and c != t.action.client]


def _phase(t: FlightTransition) -> Phase:
    """The acting client's, before the step."""
    assert t.action.client is not None
    return t.before.clients[t.action.client].phase


def _in(state: FlightState, key: int, *phases: Phase) -> tuple[int, ...]:
    """The clients at the key that are in one of these phases."""
    return tuple(c for c, client in enumerate(state.clients) if client.key == key and client.phase in phases)


def _one_leads(config: FlightConfig, state: FlightState) -> str:
    for key in range(config.keys):
        if len(leaders := _in(state, key, "leading")) > 1:
            return f"clients {leaders} run the work of key {key} at the same time"
    return ""


def _told_by_a_run(t: FlightTransition) -> str:
    """A client that gets a result or an error was in its call when its run ended, which is this step."""
    for c, (was, now) in enumerate(zip(t.before.clients, t.after.clients, strict=True)):
        if was == now or now.phase not in ("told", "failed"):
            continue
        ending = "finish" if now.phase == "told" else "fail"
        if t.action.name != ending or now.key != t.key:
            return f"client {c} is given what no run that ends now has given"
        if was.phase not in ("leading", "following") or was.key != t.key:
            return f"client {c} is given the outcome of a run that ended before it called"
    return ""


def _left_as_declared(t: FlightTransition) -> str:
    if _phase(t) != "leading" or t.action.name not in ("fail", "cancel"):
        return ""
    followed = _in(t.before, t.key, "following")
    if t.action.name == "fail" and t.config.leader == "share":
        left = [c for c in followed if t.after.clients[c].phase != "failed"]
        return f"clients {left} are not told the error of the work they wait for" if left else ""
    lost = [c for c in followed if t.after.clients[c].phase not in ("leading", "following")]
    if lost:
        return f"clients {lost} are done with, though not they but their leader met its end ({t.action})"
    if followed and not _in(t.after, t.key, "leading"):
        return "nobody takes over"
    return ""


def _follower_goes_alone(t: FlightTransition) -> str:
    if _phase(t) != "following" or t.action.name != "cancel":
        return ""
    if _moved(t):
        return f"clients {_moved(t)} are changed by the cancellation of one who follows"
    before, after = t.before.entries[t.key], t.after.entries[t.key]
    rest = before and Flight(before.leader, tuple(c for c in before.followers if c != t.action.client))
    return "" if after == rest else f"the entry becomes {after} where one who follows leaves {before}"


def _nothing_kept(config: FlightConfig, state: FlightState) -> str:
    for key, flight in enumerate(state.entries):
        if flight is not None and not _in(state, key, "leading", "following"):
            return f"key {key} is idle and has an entry"
    return ""


def _keys_apart(t: FlightTransition) -> str:
    crossed = [c for c in _moved(t) if t.before.clients[c].key != t.key]
    if crossed:
        return f"clients {crossed} are changed by an action at key {t.key}"
    others = [k for k, flight in enumerate(t.before.entries) if k != t.key and t.after.entries[k] != flight]
    if others:
        return f"the entries of keys {others} are changed by an action at key {t.key}"
    if t.action.name == "request" and not _in(t.before, t.key, "leading") and t.outcome == "following":
        return f"client {t.action.client} waits, and no run of key {t.key} goes on"
    return ""


@dataclass(frozen=True)
class _Situation(Sometimes):
    """One that must be met with these meanings of a failure."""

    leaders: tuple[Leader, ...] = ("takeover", "share")

    def due(self, config: FlightConfig) -> bool:  # type: ignore[override]
        return config.clients >= self.clients and config.keys >= self.keys and config.leader in self.leaders


KM_ONE = Property(
    "KM-ONE",
    "at most one run of a key's work goes on",
    in_state=_one_leads,
    sometimes=(
        _Situation("a client comes while a run goes on", lambda t: t.outcome == "following", clients=2),
        _Situation("two runs go on at two keys", lambda t: sum(map(bool, t.after.entries)) > 1, clients=2, keys=2),
    ),
)

KM_RESULT = Property(
    "KM-RESULT",
    "a client is given what a run gave that ends while it is in its call",
    on_step=_told_by_a_run,
    sometimes=(
        _Situation(
            "a run ends while a client is about to come back from the one before",
            lambda t: t.action.name == "finish" and bool(_in(t.before, t.key, "told")),
            clients=2,
        ),
    ),
)

KM_LEADER = Property(
    "KM-LEADER",
    "when a leader fails, all who follow are told or the first of them leads; when it is cancelled, that one leads",
    on_step=_left_as_declared,
    sometimes=(
        _Situation(
            "a leader fails and two follow",
            lambda t: t.action.name == "fail" and len(_in(t.before, t.key, "following")) > 1,
            clients=3,
        ),
        _Situation(
            "a leader is cancelled and two follow",
            lambda t: (
                t.action.name == "cancel" and _phase(t) == "leading" and len(_in(t.before, t.key, "following")) > 1
            ),
            clients=3,
        ),
        _Situation(
            "a leader that took over fails, too",
            lambda t: t.action.name == "fail" and bool(_in(t.before, t.key, "failed")),
            clients=2,
            leaders=("takeover",),
        ),
    ),
)

KM_FOLLOWER = Property(
    "KM-FOLLOWER",
    "the cancellation of one who follows changes nothing else",
    on_step=_follower_goes_alone,
    sometimes=(
        _Situation(
            "one who follows is cancelled, and another follows",
            lambda t: (
                t.action.name == "cancel" and _phase(t) == "following" and len(_in(t.before, t.key, "following")) > 1
            ),
            clients=3,
        ),
    ),
)

KM_FORGET = Property(
    "KM-FORGET",
    "a key of which no run goes on has no entry",
    in_state=_nothing_kept,
    sometimes=(
        _Situation("an entry goes when its run finishes", lambda t: t.outcome == "finished"),
        _Situation(
            "an entry goes when its leader is cancelled",
            lambda t: t.action.name == "cancel" and _phase(t) == "leading" and t.after.entries[t.key] is None,
        ),
    ),
)

KM_APART = Property(
    "KM-APART",
    "no action at one key changes another, or makes a client wait there",
    on_step=_keys_apart,
    sometimes=(
        _Situation(
            "a client leads at one key while a run goes on at another",
            lambda t: t.outcome == "leading" and sum(map(bool, t.before.entries)) > 0,
            clients=2,
            keys=2,
        ),
    ),
)

KM_RETURN = Property(
    "KM-RETURN",
    "if every run ends in the end, every call that is not cancelled returns in the end",
    eventually=Eventually(
        pending=lambda state, client: state.clients[client].phase not in ("idle", "leading"), fair=("finish", "wake")
    ),
    sometimes=(
        _Situation(
            "two who follow are told in one step",
            lambda t: len(_moved(t)) > 1 and t.action.name == "finish",
            clients=3,
        ),
    ),
)

ALL: tuple[Property, ...] = (KM_ONE, KM_RESULT, KM_LEADER, KM_FOLLOWER, KM_FORGET, KM_APART, KM_RETURN)


# ------------------------------------------------------------------------------------------------------------
# What each property is there to catch


@dataclass(frozen=True)
class BrokenFlight:
    """A model, the clause it must be found to violate, at which bound, and judged by which properties."""

    model: FlightModel
    clause: str
    story: str
    config: FlightConfig
    judged_by: tuple[Property, ...] = ALL


_FINISH: Place = ("finish", "leading", "any")
_FAIL: Place = ("fail", "leading", "any")
_LEAD: Place = ("request", "idle", "no run")
_JOIN: Place = ("request", "idle", "a run")
_CANCEL_LEADER: Place = ("cancel", "leading", "any")
_CANCEL_FOLLOWER: Place = ("cancel", "following", "any")

_PAIR = FlightConfig(2, 1, "share")

BROKEN: list[BrokenFlight] = []
"""In the order of their clauses."""


def _broken(
    clause: str,
    place: Place,
    story: str,
    config: FlightConfig = _PAIR,
    *,
    also: Mapping[Place, Effect] | None = None,
    judged_by: tuple[Property, ...] = ALL,
) -> Callable[[Effect], Effect]:
    """List a model under the effect's name: the sound one with this effect in its place, and with those `also`."""

    def added(effect: Effect) -> Effect:
        model = FLIGHT.replacing(effect.__name__, {place: effect, **(also or {})})
        BROKEN.append(BrokenFlight(model, clause, story, config, judged_by))
        return effect

    return added


def _finish_if_ours(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    flight = state.entries[key]
    if flight is None or flight.leader != client:
        return FlightStep(_become(state, "told", key, client), "finished")
    return finish(config, state, client, key)


@_broken(
    "KM-ONE", _JOIN, "a client that comes while a run goes on runs the work itself", also={_FINISH: _finish_if_ours}
)
def runs_beside(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    return FlightStep(_become(state, "leading", key, client), "leading")


@_broken("KM-ONE", _FAIL, "when the leader fails, all who follow take over at once", FlightConfig(3, 1, "takeover"))
def all_take_over(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    followers = _flight(state, key).followers
    state = _become(_at(state, key, None), "failed", key, client)
    if followers:
        state = _become(_at(state, key, Flight(followers[0], ())), "leading", key, *followers)
    return FlightStep(state, "failed")


def _follow_or_take_old(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    if _flight(state, key).leader == NOBODY:
        return FlightStep(_become(state, "told", key, client), "told")
    return follow(config, state, client, key)


@_broken(
    "KM-RESULT",
    _FINISH,
    "the result stays in the table and is given to whoever comes next",
    FlightConfig(1, 1, "share"),
    also={_JOIN: _follow_or_take_old},
    judged_by=(KM_ONE, KM_RESULT),
)
def keeps_the_result(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    return FlightStep(_at(finish(config, state, client, key).state, key, Flight(NOBODY, ())), "finished")


@_broken("KM-RESULT", _FAIL, "a call that waits for work that fails gets an empty result")
def failure_gives_nothing(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    followers = _flight(state, key).followers
    state = _become(_at(state, key, None), "told", key, *followers)
    return FlightStep(_become(state, "failed", key, client), "failed")


@_broken(
    "KM-LEADER",
    _FAIL,
    "the error is told to the first who follows, and the next of the others takes over",
    FlightConfig(3, 1, "share"),
)
def first_is_told(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    followers = _flight(state, key).followers
    state = _become(state, "failed", key, client, *followers[:1])
    return FlightStep(take_over(_at(state, key, Flight(client, followers[1:])), key), "failed")


@_broken("KM-LEADER", _CANCEL_LEADER, "a cancelled leader cancels all who follow")
def leader_cancels_all(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    leader, followers = _flight(state, key)
    return FlightStep(_become(_at(state, key, None), "idle", key, leader, *followers), "cancelled")


@_broken(
    "KM-LEADER",
    _CANCEL_LEADER,
    "a cancelled leader leaves the entry, and nobody runs the work",
    FlightConfig(2, 1, "takeover"),
    judged_by=(KM_LEADER, KM_RETURN),
)
def leader_leaves_no_heir(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    return FlightStep(_become(state, "idle", key, client), "cancelled")


@_broken("KM-FOLLOWER", _CANCEL_FOLLOWER, "a follower awaits the run itself, so its cancellation ends the run for all")
def follower_cancels_all(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    return leader_cancels_all(config, state, client, key)


@_broken(
    "KM-FOLLOWER", _CANCEL_FOLLOWER, "a follower cleans up as it is cancelled, and the run goes on outside the table"
)
def follower_drops_entry(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    return FlightStep(_become(_at(state, key, None), "idle", key, client), "cancelled")


@_broken("KM-FOLLOWER", _CANCEL_FOLLOWER, "a cancelled follower stays in the entry", FlightConfig(2, 1, "takeover"))
def follower_stays_listed(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    return FlightStep(_become(state, "idle", key, client), "cancelled")


@_broken("KM-FORGET", _FAIL, "an entry whose run failed stays", FlightConfig(1, 1, "share"))
def failure_stays(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    after = fail(config, state, client, key).state
    kept = after.entries[key] or Flight(NOBODY, ())
    return FlightStep(_at(after, key, kept), "failed")


@_broken("KM-APART", _LEAD, "work for one key waits for work for another", FlightConfig(2, 2, "share"))
def one_at_a_time(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    if any(state.entries):
        return FlightStep(_become(state, "following", key, client), "following")
    return lead(config, state, client, key)


@_broken(
    "KM-APART",
    _FINISH,
    "the end of a run wakes those who wait at other keys, with its own result",
    FlightConfig(3, 2, "share"),
    judged_by=(KM_APART,),
)
def tells_all_keys(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    waiting = [c for c, caller in enumerate(state.clients) if caller.phase == "following"]
    after = finish(config, state, client, key).state
    for c in waiting:
        after = _become(after, "told", state.clients[c].key or 0, c)
    return FlightStep(after, "finished")


def _leave(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    if state.entries[key] is None:
        return FlightStep(_become(state, "idle", key, client), "cancelled")
    return cancel_follower(config, state, client, key)


@_broken(
    "KM-RETURN",
    _FINISH,
    "of those who follow, one is told; no step before is wrong",
    FlightConfig(3, 1, "share"),
    also={_CANCEL_FOLLOWER: _leave},
    judged_by=(KM_RETURN,),
)
def tells_one(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    followers = _flight(state, key).followers
    return FlightStep(_become(_at(state, key, None), "told", key, client, *followers[:1]), "finished")


@_broken(
    "KM-RETURN",
    _FAIL,
    "the youngest takes over each time, so that the oldest starves among those that fail",
    FlightConfig(3, 1, "takeover"),
    judged_by=(KM_RETURN,),
)
def last_takes_over(config: FlightConfig, state: FlightState, client: int, key: int) -> FlightStep:
    leader, followers = _flight(state, key)
    return fail(config, _at(state, key, Flight(leader, followers[::-1])), client, key)
