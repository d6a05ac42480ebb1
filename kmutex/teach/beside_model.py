"""Compare a run of real code with the model: the model's table after each event, and the first event that differs.

The correct model follows what the run shows from outside: calls, answers and quiescent states. A call takes effect at
an unknown time before it returns (its linearization point); so all times are tried, and the first event that no state
of the model allows is the difference. If several explain the run, the one is shown in which calls take effect soonest.
After the difference, the model continues with the same calls on its own: the sound run.

Keys are independent, so each has its own model, in which the clients are those of the run. `Way` is the common part of
the model of locks here and that of single flights (`beside_flight`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from kmutex.engine.program import ASKING, RAISING
from kmutex.engine.recording import Mark
from kmutex_model.actions import CORRECT, Action
from kmutex_model.state import Config, State


class Moment(NamedTuple):
    """The model's states from a number of events on."""

    at: int
    states: tuple[Any, ...]
    """By key: of the lock's model, or of that of single flights."""


class Beside(NamedTuple):
    """The model's run along a real run."""

    moments: tuple[Moment, ...]
    """The first is at 0. Each lasts until the next."""
    parts: int
    """The number of events that show the difference; -1 if the model follows the run to its end."""
    client: int
    """The client whose answer differs; -1 if there is no such client."""


class _Call(NamedTuple):
    """A client's call that has not returned, and the model's answer."""

    kind: str
    told: str = ""
    """"": the model has not seen it yet. waits, got, refused, done, failed, any."""
    ended: bool = False
    """Whether its wait was ended from outside."""


class _Place(NamedTuple):
    """A state of the model, and the calls under way, by client; None if unknown."""

    state: State
    calls: tuple[_Call | None, ...]

    @property
    def late(self) -> int:
        """The number of calls that have not taken effect."""
        return sum(call is not None and not call.told for call in self.calls)

    @property
    def shown(self) -> State:
        """The state, in which clients with the key whose calls have not returned are "granted"."""
        clients = [
            client._replace(phase="granted") if call is not None and call.told == "got" else client
            for client, call in zip(self.state.clients, self.calls, strict=True)
        ]
        return self.state._replace(clients=tuple(clients))


class Spot(Protocol):
    """Where the model may be at one moment."""

    @property
    def late(self) -> int:
        """The number of calls that have not taken effect."""

    @property
    def shown(self) -> Any:
        """The state, for the page."""


S = TypeVar("S", bound=Spot)


class Way(Generic[S]):
    """The model of one key along a run: all possible places, and how each was reached."""

    def __init__(self, *first: S) -> None:
        self._nodes: list[tuple[S, int]] = [(spot, -1) for spot in first]
        """Each place, and the number of the place before it."""
        self._here: dict[S, tuple[int, int]] = {spot: (0, number) for number, spot in enumerate(first)}
        """The possible places now: their cost, and the number of the node."""
        self._at = [0] * len(first)
        """By node: the number of events before it."""
        self._end = 0
        """The last node before the difference."""
        self._sound: S | None = None
        """The model's place after the difference."""
        self._own: list[tuple[int, Any]] = []

    def _effects(self, place: S) -> Iterator[S]:
        """Yield the places that one call under way leads to when it takes effect."""
        raise NotImplementedError

    def _taken(self, place: S, mark: Mark) -> Iterator[S]:
        """Yield the places after an event, if the place explains it."""
        raise NotImplementedError

    def _alone(self, place: S, mark: Mark) -> S:
        """Follow the calls without the run's answers: each takes effect at once, and impossible ones are skipped."""
        raise NotImplementedError

    def see(self, mark: Mark) -> bool:
        """Follow an event; return False if it is the difference."""
        if self._sound is not None:
            self._sound = self._alone(self._sound, mark)
            self._own.append((mark.at, self._sound.shown))
            return True
        after: dict[S, tuple[int, int]] = {}
        for place, cost, number in self._closed(self._here):
            for new in self._taken(place, mark):
                if new not in after or cost < after[new][0]:
                    after[new] = (cost + new.late, number)
        if not after:
            best = min(self._closed(self._here), key=lambda each: (each[0].late, each[1]))
            self._end = best[2]
            self._sound = self._alone(best[0], mark)
            self._own.append((mark.at, self._sound.shown))
            return False
        self._here = {place: (cost, self._node(place, number, mark.at)) for place, (cost, number) in after.items()}
        return True

    def moments(self) -> list[tuple[int, Any]]:
        """Return the states that are shown, with the number of events before each."""
        if self._sound is None:
            end = min(self._closed(self._here), key=lambda each: (each[0].late, each[1]))[2]
        else:
            end = self._end
        path: list[tuple[int, Any]] = []
        number = end
        while number >= 0:
            place, before = self._nodes[number]
            path.append((self._at[number], place.shown))
            number = before
        return [*reversed(path), *self._own]

    def _node(self, place: S, before: int, at: int) -> int:
        self._nodes.append((place, before))
        self._at.append(at)
        return len(self._nodes) - 1

    def _closed(self, here: dict[S, tuple[int, int]]) -> list[tuple[S, int, int]]:
        """Return all places that the calls under way can reach, with the cost and the node of each."""
        found: dict[S, tuple[int, int]] = dict(here)
        waiting = list(here)
        while waiting:
            place = waiting.pop(0)
            cost, number = found[place]
            for new in self._effects(place):
                if new not in found:
                    found[new] = (cost, self._node(new, number, self._at[number]))
                    waiting.append(new)
        return [(place, cost, number) for place, (cost, number) in found.items()]


class _Lock(Way[_Place]):
    """The model of one key of a lock."""

    def __init__(self, clients: int) -> None:
        self._keeps = Config(clients, 1, "keep")
        self._passes = Config(clients, 1, "pass")
        super().__init__(_Place(CORRECT.initial(self._keeps), (None,) * clients))
        self._blocks: dict[int, bool] = {}
        """By client in a block of the key: whether its last grant is by the lease of that block."""

    def see(self, mark: Mark) -> bool:
        explained = super().see(mark)
        if mark.what == "called" and (mark.kind == "]" or mark.kind in RAISING):
            self._blocks.pop(mark.client, None)
        elif mark.what == "returned" and (mark.kind == "[" or (mark.kind in ASKING and mark.client in self._blocks)):
            self._blocks[mark.client] = mark.kind == "["
        return explained

    def _effects(self, place: _Place) -> Iterator[_Place]:
        for client, call in enumerate(place.calls):
            if call is None:
                continue
            phase = place.state.clients[client].phase
            if not call.told:
                yield from self._first(place, client, call)
            elif phase == "granted":
                yield self._step(place, "wake", client, "got")
            if call.ended and call.told == "waits" and phase in ("waiting", "granted"):
                name = "interrupt" if call.kind == "!" else "cancel"
                yield self._step(place, name, client, "refused", self._passes)

    def _first(self, place: _Place, client: int, call: _Call) -> Iterator[_Place]:
        """Let the call take effect."""
        state = place.state
        mine = state.clients[client].phase
        if call.kind in ASKING:
            if call.ended:
                yield _told(place, client, "refused")
            if mine != "idle":
                yield _told(place, client, "refused")  # It has the key, and would wait for itself.
            elif call.kind == "?":
                yield self._step(place, "try", client)
            else:
                yield self._step(place, "request", client)
            return
        if mine == "holding" and call.kind not in "xo":
            yield self._step(place, "release", client, "done")
            return
        entry = state.entries[0]
        holder = -1 if entry is None else entry.holder
        if call.kind == "o":
            # The engine takes the lease of the first of the others that are in a block.
            owner = min(self._blocks.keys() - {client}, default=-1)
            holder = holder if holder == owner and self._blocks[owner] else -1
        if call.kind in "xo-" and holder >= 0:
            new = place
            if state.clients[holder].phase == "granted":
                new = self._step(new, "wake", holder, "got")
            yield self._step(new, "release", holder, "done", told_to=client)
        elif call.kind in "x-*":
            yield _told(place, client, "failed")
        else:
            yield _told(place, client, "any")  # A lease that is over: no clause says whether it raises.

    def _step(
        self,
        place: _Place,
        name: str,
        client: int,
        told: str = "",
        config: Config | None = None,
        told_to: int | None = None,
    ) -> _Place:
        keyed = name in ("request", "try")
        state, outcome = CORRECT.step(config or self._keeps, place.state, Action(name, client, 0 if keyed else None))
        words = {"granted": "got", "waiting": "waits", "timeout": "refused"}
        return _told(place._replace(state=state), client if told_to is None else told_to, told or words[outcome])

    def _taken(self, place: _Place, mark: Mark) -> Iterator[_Place]:
        call = place.calls[mark.client] if mark.client >= 0 else None
        if mark.what == "called":
            yield _with(place, mark.client, _Call(mark.kind))
        elif mark.what == "cancelled":
            yield place if call is None else _with(place, mark.client, call._replace(ended=True))
        elif mark.what == "quiet":
            idle = (c is None or (c.told == "waits" and n in mark.waiting) for n, c in enumerate(place.calls))
            if all(idle) and all(client.phase != "granted" for client in place.state.clients):
                yield place
        elif call is not None and call.told in _EXPLAINS[mark.what, mark.kind in ASKING]:
            yield _with(place, mark.client, None)

    def _alone(self, place: _Place, mark: Mark) -> _Place:
        client = mark.client
        if mark.what == "called" and place.calls[client] is None:
            held = place.state.clients[client].phase == "holding"
            if (mark.kind in ASKING) != held or mark.kind in "xo":
                place = _with(place, client, _Call(mark.kind))
        elif mark.what == "cancelled" and place.calls[client] is not None:
            call = place.calls[client]
            assert call is not None
            place = _with(place, client, call._replace(ended=True))
        while True:
            calls = tuple(None if c is not None and c.told not in ("", "waits") else c for c in place.calls)
            place = place._replace(calls=calls)
            following = next(self._effects(place), None)
            if following is None:
                return place
            place = following


_EXPLAINS = {
    ("returned", True): ("got",),
    ("returned", False): ("done", "any"),
    ("refused", True): ("refused",),
    ("refused", False): ("failed", "any", "done"),
    ("raised", True): (),
    ("raised", False): ("failed", "any"),
}
"""By what came back and whether it asked for the key: what the model must have answered."""


def _told(place: _Place, client: int, told: str) -> _Place:
    call = place.calls[client]
    return place if call is None else _with(place, client, call._replace(told=told))


def _with(place: _Place, client: int, call: _Call | None) -> _Place:
    return place._replace(calls=(*place.calls[:client], call, *place.calls[client + 1 :]))


LOCK: Callable[[int], Way[Any]] = _Lock


def beside(
    marks: Sequence[Mark], keys: Iterable[str], clients: int, model_of: Callable[[int], Way[Any]] = LOCK
) -> Beside:
    """The correct model along a run. keys: the letters of its keys. clients: of the run, those of its epilogue too.
    model_of: makes that of one key, for so many clients."""
    models = {key: model_of(clients) for key in keys}
    parts, client = -1, -1
    for mark in marks:
        if mark.what == "phase":
            continue
        concerned = [models[mark.key]] if mark.key else list(models.values())
        for model in concerned:
            if not model.see(mark) and parts < 0:
                parts, client = mark.at, mark.client
    ways = [model.moments() for model in models.values()]
    times = sorted({at for way in ways for at, _ in way})
    found: list[Moment] = []
    for at in times:
        states = tuple([state for when, state in way if when <= at][-1] for way in ways)
        if not found or found[-1].states != states:
            found.append(Moment(at, states))
    return Beside(tuple(found), parts, client)
