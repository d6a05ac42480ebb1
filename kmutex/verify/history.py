"""A history under construction: the program so far, and the model's state after each phase.

Each phase is one action of one client, or the cancellation of one, so the model's state after it is determined: the
model takes the action's step, and the call of every client that was granted a key returns. If a locker promises no
order, the next holder is not determined, and the model follows what was observed (`History.release`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from kmutex.engine.program import ASKING, Phase, Program, Step
from kmutex_model.actions import Action, step
from kmutex_model.state import Config, Race, State, initial, with_entry

GOT, LET_GO, REFUSED = "got it", "done", "raised"
"""How a call ended: it returned with the key, it returned from a release, it raised."""

_ENDS = {"granted": GOT, "released": LET_GO}


class Rest(NamedTuple):
    """A quiescent state. By client: the key it holds, the key it waits for, how its call ended since the last one."""

    holds: Mapping[int, str]
    waits: Mapping[int, str]
    ended: Mapping[int, str]

    @property
    def live(self) -> int:
        """Return the number of keys that are held or waited for."""
        return len({*self.holds.values(), *self.waits.values()})


class Moment(NamedTuple):
    """The model's step for one phase, and the state after it."""

    action: Action
    rest: Rest
    anybody: frozenset[int] = frozenset()
    """If the next holder is not determined: the waiters that it may be."""


@dataclass
class History:
    """A program of single actions, and the model's view of it."""

    clients: int
    keys: str
    race: Race
    phases: list[Phase] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    asked: dict[int, str] = field(default_factory=dict)
    """By client: the kind of step by which it asked."""
    stale: dict[int, str] = field(default_factory=dict)
    """By client: the key of a lease that has ended, in a block that has not."""

    def __post_init__(self) -> None:
        self._config = Config(self.clients, len(self.keys), self.race)
        self._state: State = initial(self._config)

    @property
    def program(self) -> Program:
        return Program(tuple(self.phases))

    def copy(self) -> History:
        """Return a copy that can be continued independently."""
        twin = History(
            self.clients, self.keys, self.race, [*self.phases], [*self.moments], {**self.asked}, {**self.stale}
        )
        twin._state = self._state
        return twin

    # -- the present state ---------------------------------------------------------------------------------------

    def idle(self) -> list[int]:
        """Return the clients that can ask for a key."""
        return [
            client
            for client, (phase, _) in enumerate(self._state.clients)
            if phase == "idle" and client not in self.stale
        ]

    def holding(self, kinds: str) -> list[int]:
        """Return the clients that hold a key which they got by one of these kinds of step."""
        return self._in("holding", kinds)

    def waiting(self, kinds: str) -> list[int]:
        """Return the clients that wait for a key by one of these kinds of step."""
        return self._in("waiting", kinds)

    def _in(self, wanted: str, kinds: str) -> list[int]:
        return [
            client
            for client, (phase, _) in enumerate(self._state.clients)
            if phase == wanted and self.asked[client] in kinds
        ]

    def free(self) -> list[str]:
        """Return the keys that nobody holds."""
        return [letter for key, letter in enumerate(self.keys) if self._state.entries[key] is None]

    def key_of(self, client: int) -> str:
        """Return the key that a client holds or waits for."""
        key = self._state.clients[client].key
        assert key is not None
        return self.keys[key]

    def queue(self, key: str) -> tuple[int, ...]:
        """Return the clients that wait for a key, the oldest first."""
        entry = self._state.entries[self.keys.index(key)]
        return () if entry is None else entry.queue

    # -- actions -------------------------------------------------------------------------------------------------

    def ask(self, client: int, kind: str, key: str) -> None:
        """Let an idle client call lock, or enter a lease, by a kind of step from ASKING."""
        assert kind in ASKING
        name = "try" if kind == "?" else "request"
        self.asked[client] = kind
        self._happens(Action(name, client, self.keys.index(key)), _one(client, kind, key))

    def cancel(self, *clients: int) -> None:
        """Let the waits of clients time out, be cancelled or be interrupted, in one phase."""
        actions = [Action("interrupt" if self.asked[client] == "!" else "cancel", client) for client in clients]
        self._happen(actions, Phase((), clients))

    def release(self, client: int, kind: str = "-", served: int | None = None) -> None:
        """Let a holder release, by unlock or by its lease. ``served`` gets the key if the order is not determined."""
        key = self.key_of(client)
        queue = self.queue(key)
        anybody: frozenset[int] = frozenset()
        if served is not None:
            # For a locker that may serve any waiter, the model continues as if that waiter were the oldest.
            anybody = frozenset(queue)
            self._state = _served_first(self._state, self.keys.index(key), served)
        if kind == "^":
            self.stale[client] = key
        self._happens(Action("release", client), _one(client, kind, key), anybody)

    def stray_unlock(self, client: int, key: str) -> None:
        """Let an idle client unlock a key that nobody holds."""
        self._happens(Action("stray_unlock", client, self.keys.index(key)), _one(client, "x", key))

    def stale_release(self, client: int) -> None:
        """Let a client release a lease that has ended already."""
        key = self.stale[client]
        self._happens(Action("stale_release", client, self.keys.index(key)), _one(client, "^", key))

    def leave(self, client: int) -> None:
        """Let a client leave the block of a lease that has ended already; nothing should happen."""
        key = self.stale.pop(client)
        self.phases.append(_one(client, "]", key))
        action = Action("leave", client)
        self.moments.append(Moment(action, self._rest({client: LET_GO})))

    def _happens(self, action: Action, phase: Phase, anybody: frozenset[int] = frozenset()) -> None:
        self._happen([action], phase, anybody)

    def _happen(self, actions: Sequence[Action], phase: Phase, anybody: frozenset[int] = frozenset()) -> None:
        ended = {}
        for action in actions:
            assert action.client is not None
            self._state, outcome = step(self._config, self._state, action)
            if outcome != "waiting":
                ended[action.client] = _ENDS.get(outcome, REFUSED)
        for client, (stage, _) in enumerate(self._state.clients):
            if stage == "granted":
                self._state, _ = step(self._config, self._state, Action("wake", client))
                ended[client] = GOT
        self.phases.append(phase)
        self.moments.append(Moment(actions[0], self._rest(ended), anybody))

    def _rest(self, ended: Mapping[int, str]) -> Rest:
        clients = self._state.clients
        holds, waits = (
            {
                client: self.keys[key]
                for client, (stage, key) in enumerate(clients)
                if stage == wanted and key is not None
            }
            for wanted in ("holding", "waiting")
        )
        return Rest(holds, waits, ended)


def _one(client: int, kind: str, key: str) -> Phase:
    return Phase(((client, (Step(kind, key),)),))


def _served_first(state: State, key: int, client: int) -> State:
    entry = state.entries[key]
    assert entry is not None
    queue = (client, *(other for other in entry.queue if other != client))
    state = with_entry(state, key, entry._replace(queue=queue))
    return state._replace(order=(*state.order[:key], queue, *state.order[key + 1 :]))


def difference(moment: Moment, seen: Rest) -> tuple[str, str] | None:
    """Return the first difference between the model and the run, as its clause and a message; None if they agree."""
    expected = moment.rest
    about = moment.action.name
    for client in sorted({*expected.holds, *seen.holds, *expected.waits, *seen.waits}):
        must, does = _place(expected, client), _place(seen, client)
        if must != does:
            return _clause(moment, seen, client), f"client {client} {does}, but in the model it {must}, after {about}"
    for client in sorted({*expected.ended, *seen.ended}):
        told, hears = expected.ended.get(client, "is not back"), seen.ended.get(client, "is not back")
        # The release of an ended lease does no harm: it need not raise, and the judge does not expect an error.
        late = (about, told, hears) == ("stale_release", REFUSED, LET_GO)
        if told != hears and not late:
            clause = {"stray_unlock": "KM-UNHELD", "stale_release": "KM-TOKEN"}.get(about, "KM-REF")
            return clause, f"client {client}'s call {hears}, but in the model it {told}, after {about}"
    return None


def _place(rest: Rest, client: int) -> str:
    if client in rest.holds:
        return f"holds {rest.holds[client]}"
    if client in rest.waits:
        return f"waits for {rest.waits[client]}"
    return "has nothing"


def _clause(moment: Moment, seen: Rest, client: int) -> str:
    expected, action = moment.rest, moment.action
    # If several are cancelled, each of their calls should end.
    acting = {action.client, *expected.ended} if action.name in ("cancel", "interrupt") else {action.client}
    if client in acting and action.name in _OWN:
        return _OWN[action.name]
    key = seen.holds.get(client) or expected.holds.get(client)
    others = [other for other, held in seen.holds.items() if held == key and other != client]
    if client in seen.holds:
        return "KM-EXCL" if others else "KM-FIFO"
    if client in expected.holds:
        if others:
            return "KM-FIFO"
        # A free key is not granted while other keys are held: one key may wait for another.
        return "KM-INDEP" if action.client == client and len(seen.holds) > 0 else "KM-LIVE"
    return "KM-REF"


_OWN = {
    "try": "KM-EXPIRED",
    "cancel": "KM-CANCEL",
    "interrupt": "KM-INTERRUPT",
    "stray_unlock": "KM-UNHELD",
    "stale_release": "KM-TOKEN",
    "leave": "KM-TOKEN",
}
"""The clause of a difference for the client that acted, for actions that have a clause."""
