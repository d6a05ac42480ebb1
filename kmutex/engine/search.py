"""Which way a run takes, and how every way up to a bound is tried.

A run asks for a choice wherever it could go on in more than one way. Alternative 0 is the plain way: the one who
runs goes on. Every other has a cost: 1 for taking the turn from somebody who could go on (a preemption), 0 where
somebody else must be chosen anyway. A bound limits the sum.
"""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Move(NamedTuple):
    """An alternative of a choice, for a chooser that wants to see more than its cost."""

    who: int
    """Whose turn it would be: a client, or -1 for the event loop or a thread of the subject's own."""
    how: str
    """"run", "phase", or how its wait would be ended."""
    on: Hashable = None
    """What its next operation is on; None where that is not known."""


class UnreplayableError(Exception):
    """A recorded choice does not fit the run: another program, another code, or another Python version."""


class Chooser:
    """Follows recorded picks as long as they last, then takes alternative 0; keeps what it saw."""

    sees = False
    """Whether it wants to be told the moves."""

    def __init__(self, picks: Sequence[int] = ()) -> None:
        self._picks = picks
        self.path: list[tuple[int, Sequence[int]]] = []
        """For each choice so far: the alternative taken and the costs of all."""

    def choose(self, costs: Sequence[int], moves: Sequence[Move] = ()) -> int:
        """The index of the alternative to take. costs[0] is 0. moves: the alternatives, for a chooser that sees."""
        at = len(self.path)
        pick = self._pick(at, costs)
        if pick >= len(costs):
            raise UnreplayableError(f"choice {at} has {len(costs)} alternatives here, and {pick} was recorded")
        self.path.append((pick, costs))
        return pick

    def _pick(self, at: int, costs: Sequence[int]) -> int:
        return self._picks[at] if at < len(self._picks) else 0

    def recorded(self) -> dict[int, int]:
        """The picks that are not 0, by the number of their choice."""
        return {at: pick for at, (pick, _) in enumerate(self.path) if pick}


class Sampler(Chooser):
    """Picks at random: a few preemptions at places drawn beforehand, and freely where the choice is free."""

    def __init__(self, seed: int, length: int, preemptions: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._places = {self._random.randrange(max(1, length)) for _ in range(preemptions)}

    def _pick(self, at: int, costs: Sequence[int]) -> int:
        if at in self._places:
            return self._random.randrange(len(costs))
        free = [index for index, cost in enumerate(costs) if cost == 0]
        return self._random.choice(free)


@dataclass
class Search:
    """Every path within a bound of preemptions, depth first, each run once.

    Use: ``for chooser in search: run(chooser)``; `complete` tells afterwards whether all were run.
    """

    bound: int
    complete: bool = False

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


def picks_of(recorded: dict[int, int]) -> list[int]:
    """The full list of picks for a chooser from those that are not 0."""
    picks = [0] * (max(recorded, default=-1) + 1)
    for at, pick in recorded.items():
        picks[at] = pick
    return picks
