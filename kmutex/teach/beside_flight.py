"""Compare a run of a single flight with the model: its leader, its followers, and the first event that differs.

It does for single flights what `beside_model` does for locks. Besides calls and answers, a run shows when each run of
the work begins and ends. It does not show when the result is told to all, nor when a cancelled leader gives up.

In the model, a run ends when its leader's call is cancelled; in real code it may continue. It then continues here with
a stand-in for its leader, which the page does not show.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kmutex.engine.program import DOING
from kmutex.engine.recording import WORK, Mark
from kmutex.teach.beside_model import Way
from kmutex_model.actions import Action
from kmutex_model.flight import FLIGHT, IDLE, NOBODY, Caller, Flight, FlightConfig, FlightState, Leader


class _Call(NamedTuple):
    """A client's call that has not returned."""

    kind: str
    asked: bool = False
    """Whether the model has seen it."""
    ended: bool = False
    """Whether it was cancelled."""


class _Place(NamedTuple):
    """A state of the model, the calls under way, and the observed state of the present run."""

    leader: Leader
    """The effect of a failing leader."""
    state: FlightState
    """The state of the clients, and of a stand-in for each."""
    calls: tuple[_Call | None, ...]
    run: str = ""
    """"" before it begins; then "going"; then how it ended, until its callers are told."""

    @property
    def late(self) -> int:
        """Calls that have not taken effect."""
        return sum(call is not None and not call.asked for call in self.calls)

    @property
    def shown(self) -> FlightState:
        """The state without the stand-ins."""
        clients = len(self.calls)
        entries = tuple(
            flight and flight._replace(leader=flight.leader if flight.leader < clients else NOBODY)
            for flight in self.state.entries
        )
        return FlightState(entries, self.state.clients[:clients])

    def phase(self, client: int) -> str:
        """Return the phase of the client."""
        return self.state.clients[client].phase

    @property
    def leads(self) -> int:
        """The leader; `NOBODY` without a run."""
        flight = self.state.entries[0]
        return NOBODY if flight is None else flight.leader

    def leads_for(self, client: int) -> bool:
        """Return whether the present run is of this client's work."""
        return self.leads in (client, len(self.calls) + client)

    def step(self, name: str, client: int) -> _Place:
        """Take a step of the model. The run is over if its leader finishes, fails or is cancelled."""
        config = FlightConfig(len(self.state.clients), 1, self.leader)
        led = self.leads == client
        state = FLIGHT.step(config, self.state, Action(name, client, 0 if name == "request" else None)).state
        return self._replace(state=state, run="" if led else self.run)

    def having(self, client: int, call: _Call | None) -> _Place:
        """Return the place with another call of this client, or without one."""
        return self._replace(calls=(*self.calls[:client], call, *self.calls[client + 1 :]))


class FlightWay(Way[_Place]):
    """The model of one key's flights; ``leaders`` are the possible effects of a failing leader."""

    def __init__(self, clients: int, *, leaders: tuple[Leader, ...]) -> None:
        config = FlightConfig(2 * clients, 1, leaders[0])
        first = FLIGHT.initial(config)
        super().__init__(*(_Place(leader, first, (None,) * clients) for leader in leaders))

    def _effects(self, place: _Place) -> Iterator[_Place]:
        for client, call in enumerate(place.calls):
            if call is None:
                continue
            phase = place.phase(client)
            if not call.asked:
                asked = place.having(client, call._replace(asked=True))
                if call.ended:
                    yield asked
                yield asked.step("request", client)
            elif call.ended and phase != "idle" and not (phase == "leading" and place.run == "going"):
                yield place.step("cancel", client)
        clients = len(place.calls)
        if place.run == "ended":
            yield place.step("finish", place.leads)
        elif place.run == "cancelled" and place.leads >= clients:
            yield place.step("cancel", place.leads)
        if place.run == "failed" or (place.run == "cancelled" and place.leader == "share"):
            # What struck the work may be passed on as its error, if it is no cancellation.
            yield place.step("fail", place.leads)
        for standing in range(clients, 2 * clients):
            if place.phase(standing) in ("told", "failed"):
                yield place.step("wake", standing)

    def _taken(self, place: _Place, mark: Mark) -> Iterator[_Place]:
        client = mark.client
        call = place.calls[client] if client >= 0 else None
        if mark.what == "quiet":
            # A call that waits without joining may do its own work later, unless it would get this run's error.
            joins = place.leader == "share"
            calls = [(client, each) for client, each in enumerate(place.calls) if each is not None]
            settled = all(place.phase(c) in ("leading", "following") or not (each.asked or joins) for c, each in calls)
            if settled and (place.run == "going" or (not calls and place.leads == NOBODY)):
                yield place
        elif mark.what == "work begins":
            if place.run == "" and place.leads == client:
                yield place._replace(run="going")
        elif mark.what in WORK:
            ended = WORK[mark.what]
            if place.run == "going" and place.leads_for(client) and (ended != "cancelled" or _may_end(place, client)):
                yield place._replace(run=ended)
        elif mark.what == "cancelled":
            yield place if call is None else place.having(client, call._replace(ended=True))
        elif mark.kind not in DOING:
            yield place  # The program ends a run of the work. Its end is a later event.
        elif mark.what == "called":
            yield place.having(client, _Call(mark.kind))
        elif call is not None and call.asked:
            yield from self._back(place, mark, call)

    def _back(self, place: _Place, mark: Mark, call: _Call) -> Iterator[_Place]:
        """Let the call return."""
        client, phase = mark.client, place.phase(mark.client)
        if phase == {"returned": "told", "raised": "failed"}.get(mark.what):
            yield place.step("wake", client).having(client, None)
        elif mark.what == "refused" and call.ended:
            if phase == "idle":
                yield place.having(client, None)
            elif phase == "leading" and place.run in ("going", "ended", "failed"):
                yield _left_alone(place, client).having(client, None)

    def _alone(self, place: _Place, mark: Mark) -> _Place:
        client = mark.client
        call = place.calls[client] if client >= 0 else None
        if mark.what == "called" and mark.kind in DOING:
            place = place if call is not None else place.having(client, _Call(mark.kind))
        elif mark.what == "cancelled" and call is not None:
            place = place.having(client, call._replace(ended=True))
        elif mark.what == "called" and mark.kind == "e" and place.leads != NOBODY:
            place = place._replace(run=_own_end(place))
        elif mark.what in WORK and WORK[mark.what] != "cancelled" and place.leads_for(client):
            place = place._replace(run=WORK[mark.what])
        while True:
            for number, one in enumerate(place.calls):
                if one is not None and place.phase(number) in ("told", "failed"):
                    place = place.step("wake", number)
                if one is not None and one.asked and place.phase(number) == "idle":
                    place = place.having(number, None)
            leader = place.calls[place.leads] if NOBODY < place.leads < len(place.calls) else None
            if leader is not None and leader.ended and place.run == "going":
                place = place._replace(run="")
            if leader is not None and leader.kind == "n":
                place = place._replace(run="ended")
            following = next(self._effects(place), None)
            if following is None:
                return place
            place = following


def _own_end(place: _Place) -> str:
    """Return how the present run ends, by its leader's call."""
    call = place.calls[place.leads] if place.leads < len(place.calls) else None
    return "failed" if call is not None and call.kind == "f" else "ended"


def _may_end(place: _Place, client: int) -> bool:
    """Return whether a run may end by the cancellation of its leader, whose call may have returned."""
    call = place.calls[client]
    return place.leads != client or (call is not None and call.ended)


def _left_alone(place: _Place, client: int) -> _Place:
    """Let the run continue without its leader, whose stand-in leads."""
    standing = len(place.calls) + client
    flight = place.state.entries[0]
    assert flight is not None
    clients = list(place.state.clients)
    clients[client], clients[standing] = IDLE, Caller("leading", 0)
    return place._replace(state=FlightState((Flight(standing, flight.followers),), tuple(clients)))


def model_of_flights(leader: str) -> Callable[[int], FlightWay] | None:
    """Return what makes the model of one key, for the leader of a `Recording`; None if there is no such model."""
    leaders: dict[str, tuple[Leader, ...]] = {"takeover": ("takeover",), "share": ("share",), "": ("takeover", "share")}
    return functools.partial(FlightWay, leaders=leaders[leader]) if leader in leaders else None
