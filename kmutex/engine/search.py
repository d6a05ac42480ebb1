"""Which schedule a run takes, and how all schedules up to a bound are tried.

A run asks for a choice wherever it has several alternatives. Alternative 0 is the default: the running thread
continues. Every other has a cost: 1 for a preemption of a thread that could continue, 0 if another thread must be
chosen anyway. A bound limits the sum.

A `Chooser` makes the choices of one run. This one follows recorded choices; `Search` yields one for each schedule
within a bound, and `kmutex.engine.strategies` has random ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple


class Move(NamedTuple):
    """An alternative of a choice, for a chooser that needs more than its cost."""

    who: int
    """The number of the client, or of the subject's thread, that would run; -1 for the event loop."""
    how: str
    """"run", "phase", or how its wait would end."""
    on: Hashable = None
    """The object of its next operation: a lock, an attribute's name, or EVENT; None if unknown."""


EVENT = "call or return"
"""The object of calls and returns."""
ASKED, GRANTED, LETTING_GO, LET_GO, OTHER = "asked", "granted", "letting go", "let go", "other"
"""Events seen from outside: the call and return of a lock and of an unlock, and others, such as an error."""
_IN_ORDER = ({GRANTED, LETTING_GO}, {ASKED, LET_GO})
"""For a judge, two of these commute, except the grant of a key before or after its holder has begun to let it
go (KM-EXCL), and a request before or after that has come back (a try, KM-EXPIRED)."""


class Event(NamedTuple):
    """A call or a return."""

    what: str
    key: str = ""

    def apart(self, other: Event) -> bool:
        """Return whether the order of the two events does not matter."""
        if OTHER in (self.what, other.what):
            return False
        return self.key != other.key or {self.what, other.what} not in _IN_ORDER


class Footprint(NamedTuple):
    """The locks and attribute names that a thread has read and written between two choices."""

    reads: frozenset[Hashable] = frozenset()
    writes: frozenset[Hashable] = frozenset()
    events: frozenset[Event] = frozenset()
    anything: bool = False
    """Whether it may have read and written anything."""

    def apart(self, other: Footprint) -> bool:
        """Return whether the two commute."""
        if self.anything or other.anything:
            return False
        if not all(mine.apart(theirs) for mine in self.events for theirs in other.events):
            return False
        return self.writes.isdisjoint(other.writes | other.reads) and self.reads.isdisjoint(other.writes)


ANYTHING = Footprint(anything=True)


class UnreplayableError(Exception):
    """A schedule is for a subject of another kind."""


class Chooser:
    """Follows recorded picks as long as they fit, then takes alternative 0; records the choices."""

    sees = False
    """Whether it needs the moves."""
    watches = False
    """Whether it needs the footprints between two choices, from where the run `is_new` on."""
    is_new = True
    """Whether it has left what runs before it have shown."""

    def __init__(self, picks: Sequence[int] = ()) -> None:
        self._picks = picks
        self.path: list[tuple[int, Sequence[int]]] = []
        """For each choice so far: the alternative taken and the costs of all."""
        self.left_at: int | None = None
        """The first choice without the recorded alternative: from there on the run differs."""

    def choose(self, costs: Sequence[int], moves: Sequence[Move] = ()) -> int:
        """The index of the alternative to take; costs[0] is 0. moves: the alternatives, for a chooser that sees.

        Negative: the run need not go on, since another shows the same.
        """
        at = len(self.path)
        pick = self._pick(at, costs, moves)
        if pick >= len(costs):
            if self.left_at is None:
                self.left_at = at
            pick = 0
        if pick >= 0:
            self.path.append((pick, costs))
        return pick

    def passed(self, trail: Sequence[tuple[int, Footprint]]) -> None:
        """Take the steps since the last choice: thread and footprint. For a chooser that watches."""

    def _pick(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        return self._picks[at] if at < len(self._picks) else 0

    def recorded(self) -> dict[int, int]:
        """The picks that are not 0, by the number of their choice."""
        return {at: pick for at, (pick, _) in enumerate(self.path) if pick}


class Search:
    """Every path within a bound of preemptions, depth first, each run once.

    Use ``for chooser in search: run(chooser)``; afterwards, `complete` tells whether all were run.
    """

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.complete = False

    def __iter__(self) -> Iterator[Chooser]:
        picks: list[int] | None = []
        while picks is not None:
            chooser = Chooser(picks)
            yield chooser
            picks = self._next(chooser.path)
        self.complete = True

    def _next(self, path: Sequence[tuple[int, Sequence[int]]]) -> list[int] | None:
        spent = [0]
        for pick, costs in path:
            spent.append(spent[-1] + costs[pick])
        for at in range(len(path) - 1, -1, -1):
            pick, costs = path[at]
            for other in range(pick + 1, len(costs)):
                if spent[at] + costs[other] <= self.bound:
                    return [taken for taken, _ in path[:at]] + [other]
        return None


class _Trace:
    """What was done so far, whatever the order in which steps that commute were done: each has a level, which is one
    above the highest of those before it with which it does not commute (Foata's normal form)."""

    def __init__(self) -> None:
        self._levels: dict[int, tuple[int, ...]] = {}
        """Of the steps, by who made them."""
        # The highest level of a step that has read this, written this, shown this, done anything; and of all.
        self._read: dict[Hashable, int] = {}
        self._written: dict[Hashable, int] = {}
        self._shown: dict[Event, int] = {}
        self._anything = 0
        self._top = 0

    def and_then(self, trail: Sequence[tuple[int, Footprint]]) -> _Trace:
        """Return the trace with these steps added."""
        longer = _Trace()
        longer._levels, longer._read, longer._written = dict(self._levels), dict(self._read), dict(self._written)
        longer._shown, longer._anything, longer._top = dict(self._shown), self._anything, self._top
        for who, footprint in trail:
            longer._add(who, footprint)
        return longer

    def _add(self, who: int, footprint: Footprint) -> None:
        before = self._levels.get(who, ())
        level = 1 + max(self._below(footprint), before[-1] if before else 0)
        self._levels[who] = (*before, level)
        self._top = max(self._top, level)
        if footprint.anything:
            self._anything = level
        for what, levels in ((footprint.reads, self._read), (footprint.writes, self._written)):
            levels.update((on, max(level, levels.get(on, 0))) for on in what)
        self._shown.update((event, max(level, self._shown.get(event, 0))) for event in footprint.events)

    def _below(self, footprint: Footprint) -> int:
        """The highest level of a step that this one does not commute with."""
        if footprint.anything:
            return self._top
        read, written = self._read, self._written
        below = [self._anything]
        below += [written.get(on, 0) for on in footprint.reads]
        below += [max(written.get(on, 0), read.get(on, 0)) for on in footprint.writes]
        for event in footprint.events:
            below += [level for other, level in self._shown.items() if not event.apart(other)]
        return max(below)

    @property
    def begun(self) -> Set[int]:
        """Return the threads with at least one step."""
        return self._levels.keys()

    @property
    def name(self) -> Hashable:
        """A value that is equal for traces that differ only in the order of steps that commute."""
        return tuple(sorted(self._levels.items()))


@dataclass
class _Node:
    """A choice on the present path of the search."""

    costs: Sequence[int]
    moves: Sequence[Move]
    spent: int
    """Preemptions before it."""
    before: _Trace
    asleep: dict[int, Footprint]
    """By who would move: what need not be tried here, since it was tried before and commutes with all since."""
    pick: int = 0
    tried: set[int] = field(default_factory=set)
    slept: dict[int, Footprint] = field(default_factory=dict)
    """Of the alternatives that were tried: what may sleep while others are tried."""

    def sleepers(self, pick: int, trail: Sequence[tuple[int, Footprint]]) -> dict[int, Footprint]:
        """Return the sleep set after this alternative: each thread with its next footprint."""
        tried = {self.moves[other].who: seen for other, seen in self.slept.items() if other != pick}
        return {
            who: footprint
            for who, footprint in {**self.asleep, **tried}.items()
            if all(who != other and footprint.apart(seen) for other, seen in trail)
        }

    @property
    def running(self) -> int | None:
        """The running thread, if the choice is whether it continues."""
        costs = (cost for cost, move in zip(self.costs, self.moves, strict=True) if move.how == "run")
        return self.moves[0].who if any(costs) else None


class _Awake(Chooser):
    """Goes the way that the search has prepared, then a new one, and does nothing that is asleep."""

    sees = watches = True

    def __init__(self, nodes: list[_Node], search: ReducedSearch) -> None:
        super().__init__()
        self._nodes = nodes
        self._search = search
        self._prepared = len(nodes)
        self._asleep: dict[int, Footprint] = {}
        self._trace = _Trace()

    @property
    def is_new(self) -> bool:  # type: ignore[override]
        return len(self.path) >= self._prepared

    def _pick(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        if at < self._prepared:
            return self._nodes[at].pick
        spent = self._nodes[-1].spent + self._nodes[-1].costs[self._nodes[-1].pick] if self._nodes else 0
        node = _Node(costs, moves, spent, self._trace, self._asleep)
        if self._search.is_known(node) or not self._search.take_next(node):
            self._search.cut_short += 1
            return -1
        self._nodes.append(node)
        return node.pick

    def passed(self, trail: Sequence[tuple[int, Footprint]]) -> None:
        at = len(self.path) - 1
        if at + 1 < self._prepared:
            return
        if at < 0:
            self._trace = _Trace().and_then(trail)
            return
        node = self._nodes[at]
        move = node.moves[node.pick]
        if move.how == "run" and trail and trail[0][0] == move.who and node.pick not in node.slept:
            # To try it again behind what commutes with it is to try it now, and costs no more preemptions: it runs
            # on anyway, or what comes after it is a switch that costs nothing.
            ends = len(trail) > 1 and trail[1][0] != move.who
            if ends or (node.pick == 0 and node.running is not None):
                node.slept[node.pick] = trail[0][1]
        self._trace = node.before.and_then(trail)
        self._asleep = node.sleepers(node.pick, trail)


class ReducedSearch(Search):
    """The same, and of schedules that differ only in the order of steps that commute, one is run to its end.

    By sleep sets: a step sleeps where it was tried first and commutes with all that is done instead, until something is
    done that it does not commute with. Only steps sleep whose run before all these costs no more preemptions, so
    that what is left out is seen within the same bound. And a run is cut short where the steps so far, in another
    order, were seen before, with as many preemptions left. A step that ends a wait commutes with none. And of clients
    who do the same, the one with the lowest number begins: another order is the same run under other names.
    """

    def __init__(self, bound: int, alike: Mapping[int, int] = MappingProxyType({})) -> None:
        """Search within a bound; ``alike`` has, by client, another one that does the same and begins before it."""
        super().__init__(bound)
        self._alike = alike
        self.cut_short = 0
        """The number of runs that were cut short, since others are equivalent."""
        self._known: dict[Hashable, list[_Node]] = {}
        """Choices by the trace before them."""

    def __iter__(self) -> Iterator[Chooser]:
        nodes: list[_Node] = []
        while True:
            yield _Awake(nodes, self)
            while nodes and not self.take_next(nodes[-1]):
                nodes.pop()
            if not nodes:
                self.complete = True
                return

    def is_known(self, node: _Node) -> bool:
        """Whether all that can follow was tried, or is to be tried, behind the same steps in another order."""
        had = self._known.setdefault(node.before.name, [])
        for one in had:
            if one.spent <= node.spent and one.running == node.running and one.asleep.keys() <= node.asleep.keys():
                return True
        had.append(node)
        return False

    def take_next(self, node: _Node) -> bool:
        """Take the next alternative that must be tried; return whether there is one."""
        begun = node.before.begun
        for pick, (cost, move) in enumerate(zip(node.costs, node.moves, strict=True)):
            if pick in node.tried or node.spent + cost > self.bound:
                continue
            twin = self._alike.get(move.who, move.who)
            if move.how == "run" and (move.who in node.asleep or not (move.who in begun or twin in begun | {move.who})):
                continue
            node.tried.add(pick)
            node.pick = pick
            return True
        return False


def picks_of(recorded: dict[int, int]) -> list[int]:
    """Return the full list of picks for a chooser, from those that are not 0."""
    picks = [0] * (max(recorded, default=-1) + 1)
    for at, pick in recorded.items():
        picks[at] = pick
    return picks
