"""The allowed outcomes of a case, computed from the model: every order in which the commands of a move can meet.

A call is a client of the model. The kit sees less than the model: how calls and unlocks end, and the table in quiescent
states. A client that owns its key but whose call has not returned ("granted") can still move, so a state is quiescent
if there is no such client. A cancel that meets such a grant may end either way, whatever the port has declared
(KM-RACE): from outside it is unknown which of the two came first. A call that was cancelled before it began, or whose
time limit passes, is a request and its cancel in one step; a request of the first kind may also be refused a free key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import permutations
from typing import NamedTuple

from kmutex.conform.case import ASKING, SHORT, Case, CaseError, Command, Course, Move, Seen, format_moves, format_times
from kmutex_model.actions import CORRECT, Action, Model, NotEnabledError
from kmutex_model.state import Config, Race, State, owners

_ENDS = {"granted": "granted", "returned": "granted", "kept": "granted", "cancelled": "cancelled", "timeout": "timeout"}
"""Outcomes of the model that end a call, by their names in the protocol."""


_LOST = Seen((), ("lost",), ())


class Place(NamedTuple):
    """A run of the model between two moves: its state, and the calls that have ended."""

    state: State
    done: frozenset[int]
    """Calls that have ended, by a return or an error. The others wait, or were not made yet."""
    got: frozenset[int] = frozenset()
    """Those of them that returned with the key."""


_Ahead = tuple[State, int, tuple[tuple[int, str], ...], tuple[tuple[int, str], ...]]
"""Within a move: the state, the commands that were given, and how calls and unlocks have ended."""


MOST_PLACES = 100
"""The most places of a case between two moves. Cases with more are refused."""
MOST_COURSES = 500
"""The most allowed outcomes of a case. Cases with more are refused."""


class StuckError(Exception):
    """The model has no step for a command, such as an unlock of a key whose new owner's call has not returned."""


class Courses:
    """The allowed outcomes of cases, by a model."""

    def __init__(self, moves: Sequence[Move], model: Model = CORRECT, races: Sequence[Race] = ("keep", "pass")) -> None:
        """Prepare for these moves. ``races`` tells what may win when a cancel meets a grant."""
        commands = [command for move in moves for command in move]
        # Clients are numbered in reverse: a model that serves by number must not look as if it served by age.
        self._first = sum(command.op in ASKING for command in commands)
        self.keys = tuple(sorted({command.key for command in commands if command.key is not None}))
        self._configs = tuple(Config(self._first + 1, max(1, len(self.keys)), race) for race in races)
        self._asked = {c.call: self.keys.index(c.key) for c in commands if c.key is not None and c.call is not None}
        self._model = model
        self.brief = {c.call for c in commands if c.op == "limit" and (c.ms or 0) <= SHORT}
        """Calls whose time limit is over within their move."""

    def queue(self, place: Place, key: str) -> tuple[int, ...]:
        """Return the call that holds the key and those that wait for it; () if it is free."""
        entry = place.state.entries[self.keys.index(key)]
        return () if entry is None else tuple(self._first - client for client in (entry.holder, *entry.queue))

    def start(self) -> frozenset[Place]:
        """Return the only place before the first move."""
        return frozenset({Place(self._model.initial(self._configs[0]), frozenset())})

    def after(self, places: Iterable[Place], move: Move) -> dict[Seen, frozenset[Place]]:
        """Return the possible observations of a move in one of these places, with the places after each."""
        found: dict[Seen, set[Place]] = {}
        for place in places:
            for seen, after in self._outcomes(place, move):
                found.setdefault(seen, set()).add(after)
        return {seen: frozenset(after) for seen, after in found.items()}

    def all(self, moves: Sequence[Move]) -> tuple[Course, ...]:
        """Return every allowed outcome of the moves, in a fixed order.

        Raises:
            StuckError: The correct model has no step somewhere, so the right outcome is unknown. (A broken model is
                simply wrong there.)
        """
        courses: list[tuple[Course, frozenset[Place]]] = [((), self.start())]
        for move in moves:
            courses = [
                ((*course, seen), after)
                for course, places in courses
                for seen, after in sorted(self.after(places, move).items())
            ]
            if len(courses) > MOST_COURSES and self._model is CORRECT:
                text = format_moves(tuple(moves))
                raise CaseError(f"{text!r} has more than {MOST_COURSES} possible outcomes, which is too many")
        return tuple(course for course, _ in courses)

    def _outcomes(self, place: Place, move: Move) -> set[tuple[Seen, Place]]:
        found = set()
        # The race matters only if a cancel can meet a grant.
        meets = len(move) > 1 and any(command.op == "cancel" for command in move)
        for config in self._configs if meets else self._configs[:1]:
            for order in set(permutations(range(len(move)))):
                found |= self._in_order(config, place, move, order)
        return found

    def _in_order(self, config: Config, place: Place, move: Move, order: Sequence[int]) -> set[tuple[Seen, Place]]:
        """Run the commands in this order; calls that got a key may return at any time in between."""
        todo: list[_Ahead] = [(place.state, 0, (), ())]
        met: set[_Ahead] = set(todo)
        found = set()
        while todo:
            state, sent, calls, unlocks = todo.pop()
            following: list[_Ahead] = []
            try:
                waking = [
                    (after, sent, _ended(calls, self._first - client, outcome), unlocks)
                    for client, after, outcome in self._wakes(config, state)
                ]
                following += waking
                if sent < len(order):
                    command = move[order[sent]]
                    if command.op == "lock" and Command("cancel", command.call, None) in (
                        move[n] for n in order[:sent]
                    ):
                        # The call was cancelled before it had begun.
                        steps = [(state, "cancelled")]
                    else:
                        got = place.got | {c for c, how in calls if how == "granted"}
                        steps = self._steps(config, state, command, place.done | {c for c, _ in calls}, got)
                    for after, outcome in steps:
                        if command.op == "free" and not outcome:
                            following.append((after, sent + 1, calls, unlocks))
                        elif command.call is None or command.op == "lease":
                            ended = tuple(sorted((*unlocks, (order[sent], outcome))))
                            following.append((after, sent + 1, calls, ended))
                        else:
                            following.append((after, sent + 1, _ended(calls, command.call, outcome), unlocks))
            except (StuckError, AssertionError):
                # A broken model may reach a state that its own steps can't handle.
                if self._model is CORRECT:
                    raise
                found.add((_LOST, place))
                continue
            if sent == len(order) and not waking:
                table = tuple(
                    (key, entry.refs, len(entry.queue))
                    for key, entry in zip(self.keys, state.entries, strict=False)
                    if entry is not None
                )
                seen = Seen(tuple(sorted(calls)), tuple(outcome for _, outcome in unlocks), table)
                got = place.got | {call for call, how in calls if how == "granted"}
                found.add((seen, Place(state, place.done | {call for call, _ in calls}, got)))
            for item in following:
                if item not in met:
                    met.add(item)
                    todo.append(item)
        return found

    def _wakes(self, config: Config, state: State) -> Iterator[tuple[int, State, str]]:
        """Yield each client that may return from its call now, with the state and outcome."""
        for number, client in enumerate(state.clients):
            if client.key is not None:
                try:
                    after, outcome = self._model.step(config, state, Action("wake", number))
                except NotEnabledError:
                    continue
                yield number, after, outcome

    def _steps(
        self, config: Config, state: State, command: Command, done: frozenset[int], got: frozenset[int]
    ) -> list[tuple[State, str]]:
        """The states that a command may lead to, each with the model's word for its outcome."""
        if command.op not in ("done", "limit"):
            return [self._step(config, state, command, done, got)]
        assert command.call is not None
        assert command.key is not None
        client = self._first - command.call
        request = Action("request", client, self.keys.index(command.key))
        if command.op == "done":
            return self.told_before(config, state, request)
        return [self.within(config, state, request, brief=command.call in self.brief)]

    def told_before(self, config: Config, state: State, request: Action) -> list[tuple[State, str]]:
        """A call that is cancelled before it begins. It takes a free key or does not, and never waits."""
        asked, outcome = self._take(config, state, request)
        if outcome != "waiting":
            return [(asked, outcome), (state, "cancelled")]
        return [self._take(config, asked, Action("cancel", request.client))]

    def within(self, config: Config, state: State, request: Action, *, brief: bool) -> tuple[State, str]:
        """A call with a time limit. brief: one that is over before the next move."""
        asked, outcome = self._take(config, state, request)
        if outcome != "waiting" or not brief:
            return asked, outcome
        gone, _ = self._take(config, asked, Action("cancel", request.client))
        return gone, "timeout"

    def _step(
        self, config: Config, state: State, command: Command, done: frozenset[int], got: frozenset[int]
    ) -> tuple[State, str]:
        """Return the state after a command, and the model's outcome; "" if it had no effect."""
        # One client more than calls, for unlocks by a client that holds nothing.
        client = 0 if command.call is None else self._first - command.call
        key = None if command.key is None else self.keys.index(command.key)
        phase = state.clients[client].phase
        if command.op in ("lock", "try"):
            action = Action("request" if command.op == "lock" else "try", client, key)
        elif command.op == "cancel":
            if command.call in done or phase not in ("waiting", "granted"):
                return state, ""
            action = Action("cancel", client)
        elif command.call is not None:
            action = Action("release", client)
            if phase != "holding":
                action = Action("stale_release", client, self._asked[command.call])
        else:
            assert key is not None
            holding = [client for client in owners(state, key) if state.clients[client].phase == "holding"]
            if command.op == "free" and not {self._first - client for client in holding} & got:
                return state, ""
            action = Action("release", holding[0]) if holding else Action("stray_unlock", client, key)
        return self._take(config, state, action)

    def _take(self, config: Config, state: State, action: Action) -> tuple[State, str]:
        try:
            return self._model.step(config, state, action)
        except NotEnabledError:
            raise StuckError(str(action)) from None


def _ended(calls: tuple[tuple[int, str], ...], call: int, outcome: str) -> tuple[tuple[int, str], ...]:
    return (*calls, (call, _ENDS[outcome])) if outcome in _ENDS else calls


# -- cases ---------------------------------------------------------------------------------------------------------


def make_case(moves: Sequence[Move], keys: int = 1, rounds: int = 1) -> Case:
    """Return the case of these moves, drained, with its allowed outcomes. A case on many keys has only one.

    Raises:
        CaseError: The right outcome is unknown, or there are too many.
    """
    courses = Courses(moves)
    places = courses.start()
    whole = []
    try:
        for move in moves:
            whole.append(move)
            places = frozenset().union(*courses.after(places, move).values())
            if len(places) > MOST_PLACES:
                there = f"{len(places)} possible states after {format_moves((move,))!r}"
                raise CaseError(f"{format_moves(tuple(moves))!r} has {there}; at most {MOST_PLACES} are computed")
        while live := {number for place in places for number, entry in enumerate(place.state.entries) if entry}:
            for number in sorted(live):
                # If a right port may have released the key already, the observation decides whether to unlock it.
                sure = all(place.state.entries[number] for place in places)
                whole.append((Command("unlock" if sure else "free", None, courses.keys[number]),))
                places = frozenset().union(*courses.after(places, whole[-1]).values())
        name = format_times(tuple(moves), keys, rounds)
        found = courses.all(whole)
        if keys > 1 and len(found) > 1:
            raise CaseError(f"{name!r} has {len(found)} allowed outcomes; a case on many keys must have one")
        return Case(name, tuple(whole), found, _needs(whole, found), keys, rounds)
    except StuckError as stuck:
        text = format_moves(tuple(moves))
        raise CaseError(f"{text!r} unlocks a key whose new holder may not know of it yet ({stuck})") from None


_NEEDS = {"cancel": "cancel", "try": "try", "lease": "lease", "done": "done", "limit": "deadline"}


def _needs(moves: Sequence[Move], courses: Sequence[Course]) -> tuple[str, ...]:
    """Return the features without which a right port could have another outcome."""
    commands = [command for move in moves for command in move]
    seen = [seen for course in courses for seen in course]
    needs = {_NEEDS[command.op] for command in commands if command.op in _NEEDS}
    if any(waiters > 1 for one in seen for _, _, waiters in one.table):
        needs.add("fifo")
    live: set[str] = set()
    for number, move in enumerate(moves):
        if _newcomer_meets_release(move, live):
            needs.add("fifo")
        live = {key for course in courses for key, _, _ in course[number].table}
    if any("unheld" in one.unlocks for one in seen):
        needs.add("unheld")
    return tuple(sorted(needs))


def _newcomer_meets_release(move: Move, live: set[str]) -> bool:
    """Return whether a lock meets a release of a key in ``live``, which may be held. At other keys nobody waits."""
    asking = [command for command in move if command.op in ASKING]
    asked = {command.key for command in asking if command.key in live or len(asking) > 1}
    made = {command.call for command in asking}
    ends = any(command.op in ("lease", "cancel") and command.call not in made for command in move)
    return bool(asked) and (ends or any(command.op == "unlock" and command.key in asked for command in move))
