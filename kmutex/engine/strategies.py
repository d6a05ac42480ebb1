"""Random choosers: strategies from the literature, by their names, and a portfolio of them.

Each depends on its seed only. They see which threads can move, the object of each next operation, and statistics of
earlier runs of the program (`Seen`): how many operations each thread has made, and on which objects.

- `RandomPreemptions`: a few preemptions at random points, like PCT's change points; free choices at random.
- `PCT`: a random order of the clients, the first of which runs; at d - 1 random points the running client becomes the
  last (Burckhardt et al., ASPLOS 2010).
- `POS`: each pending operation has a random rank, and the highest is done; then those on the same object get new ranks
  (Yuan et al., CAV 2018).
- `URW`: a random walk, weighted by the remaining operations of each thread, so that all interleavings are equally
  likely.
- `SURW`: the same for the operations on one object only; other operations come first (Zhao et al., ASPLOS 2025).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

from kmutex.engine.search import Chooser, Move

DEPTH = 3
"""The default depth of the mistakes that `PCT` looks for."""


class Seen:
    """Statistics of runs of a program: the choices of the longest one, and operations by thread and object."""

    def __init__(self) -> None:
        self.choices = 1
        self.done: Counter[tuple[int, Hashable]] = Counter()
        """By thread and object: the operations in the run with the most."""

    def of(self, who: int) -> int:
        """Return how many operations a thread made."""
        return sum(number for (other, _), number in self.done.items() if other == who)

    def contended(self) -> list[Hashable]:
        """Return the objects with operations of more than one thread, in the order of their first use."""
        users = Counter(on for _, on in self.done if on is not None)
        return [on for on, number in users.items() if number > 1]

    def add(self, chooser: Chooser) -> None:
        """Learn from a run."""
        self.choices = max(self.choices, len(chooser.path))
        if isinstance(chooser, Drawing) and sum(chooser.did.values()) > sum(self.done.values()):
            self.done = chooser.did


class Drawing(Chooser):
    """Makes random choices, and records statistics."""

    sees = True

    def __init__(self, seed: int, seen: Seen) -> None:
        super().__init__()
        self.did: Counter[tuple[int, Hashable]] = Counter()
        self._random = random.Random(seed)
        self._seen = seen

    def _pick(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        pick = self._drawn(at, costs, moves)
        move = moves[pick]
        self.did[move.who, move.on] += 1
        return pick

    def _drawn(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        """Return the alternative to take; the default one, unless overridden."""
        return 0


class RandomPreemptions(Drawing):
    """Chooses at random: a few preemptions at random points, and among all alternatives that cost nothing."""

    def __init__(self, seed: int, seen: Seen, preemptions: int = 2) -> None:
        super().__init__(seed, seen)
        length = max(1, seen.choices * 3 // 2)
        self._places = {self._random.randrange(length) for _ in range(preemptions)}

    def _drawn(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        if at in self._places:
            return self._random.randrange(len(costs))
        return self._random.choice([index for index, cost in enumerate(costs) if cost == 0])


class PCT(Drawing):
    """Finds a mistake that needs d ordered steps with a chance of at least 1/(n k^(d-1)), for n clients, k choices."""

    def __init__(self, seed: int, seen: Seen, depth: int = DEPTH) -> None:
        super().__init__(seed, seen)
        self._changes = {self._random.randrange(max(1, seen.choices)): place for place in range(depth - 1)}
        self._ranks: dict[tuple[int, str], float] = {}

    def _drawn(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        first = self._first(moves)
        if at in self._changes:
            # Below all initial priorities, and below earlier changes.
            self._ranks[moves[first][:2]] = -1.0 - self._changes[at]
            first = self._first(moves)
        return first

    def _first(self, moves: Sequence[Move]) -> int:
        for move in moves:
            self._ranks.setdefault(move[:2], self._random.random())
        return max(range(len(moves)), key=lambda index: self._ranks[moves[index][:2]])


class POS(Drawing):
    """Partial order sampling."""

    def __init__(self, seed: int, seen: Seen) -> None:
        super().__init__(seed, seen)
        self._ranks: dict[tuple[int, str], float] = {}

    def _drawn(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        ranks, draw = self._ranks, self._random.random
        best, highest = 0, -1.0
        for index, move in enumerate(moves):
            rank = ranks.get(move[:2])
            if rank is None:
                rank = ranks[move[:2]] = draw()
            if rank > highest:
                best, highest = index, rank
        taken = moves[best]
        del ranks[taken[:2]]
        for move in moves:
            # Operations on the same object race with it, and may now come at once or late.
            if move.on == taken.on and move.on is not None:
                ranks.pop(move[:2], None)
        return best


class URW(Drawing):
    """Uniform random walk."""

    def __init__(self, seed: int, seen: Seen) -> None:
        super().__init__(seed, seen)
        self._left = {who: seen.of(who) for who in {who for who, _ in seen.done}}

    def _drawn(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        weights = [max(1, self._left.get(move.who, 1)) if move.how == "run" else 1 for move in moves]
        pick = self._random.choices(range(len(moves)), weights)[0]
        who = moves[pick].who
        self._left[who] = self._left.get(who, 1) - 1
        return pick


class SURW(Drawing):
    """Selectively uniform random walk."""

    def __init__(self, seed: int, seen: Seen) -> None:
        super().__init__(seed, seen)
        contended = seen.contended()
        self._object = self._random.choice(contended) if contended else None
        self._left = {who: number for (who, on), number in seen.done.items() if on == self._object}
        self._next = self._intended()

    def _intended(self) -> int | None:
        """Return the thread whose operation on the object should be the next."""
        left = {who: number for who, number in self._left.items() if number > 0}
        return self._random.choices(list(left), list(left.values()))[0] if left else None

    def _drawn(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        free = [i for i, move in enumerate(moves) if move.on != self._object or move.who == self._next]
        pick = self._random.choice(free or range(len(moves)))
        move = moves[pick]
        if move.on == self._object:
            self._left[move.who] = self._left.get(move.who, 1) - 1
            self._next = self._intended()
        return pick


Strategy = Callable[[int, Seen], Drawing]
STRATEGIES: dict[str, Strategy] = {
    "POS": POS,
    "SURW": SURW,
    "random preemptions": RandomPreemptions,
    "URW": URW,
    "PCT": PCT,
}
PORTFOLIO = ("POS", "SURW", "random preemptions", "POS", "SURW", "PCT", "POS", "SURW", "URW")
"""The strategies in turn, in a cycle: none of them is best for all programs."""


def drawn(seeds: range, names: Sequence[str] = PORTFOLIO) -> Iterator[Chooser]:
    """Yield a chooser for each seed, of the strategies in turn; before them one for the default schedule.

    Each run's statistics are used for the next, so run each chooser before asking for the next one.
    """
    seen = Seen()
    first = Drawing(0, seen)
    yield first
    seen.add(first)
    for seed in seeds:
        chooser = STRATEGIES[names[seed % len(names)]](seed, seen)
        yield chooser
        seen.add(chooser)
