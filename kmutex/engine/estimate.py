"""How many schedules there are within a bound, from a few of them; and what a strategy may have missed.

Counting by probes: each goes from the root of the tree of choices to a leaf, and stands for as many leaves as the
inverse of the chance by which it came there (Knuth 1975). Alternatives are drawn by how many leaves would be behind
each if all schedules had the choices that the default one has. So a probe's weight varies little, and the mean of two
hundred is near the number.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from kmutex.engine.search import Chooser, Move

PROBES = 200
"""Runs that an estimate is made from."""
LEAST_PROBES = 40
"""With fewer, none is made."""


class Ahead:
    """How many schedules there would be from each choice on, if all had the choices of one of them."""

    def __init__(self, path: Sequence[tuple[int, Sequence[int]]], bound: int) -> None:
        """path: of the default schedule. bound: preemptions."""
        self._leaves = [[1.0] * (bound + 1)]
        for _, costs in reversed(path):
            after = self._leaves[-1]
            self._leaves.append(
                [sum(after[left - cost] for cost in costs if cost <= left) for left in range(bound + 1)]
            )
        self._leaves.reverse()

    def leaves(self, at: int, left: int) -> float:
        """From this choice on, with so many preemptions left."""
        return self._leaves[at][left] if at < len(self._leaves) else 1.0


class Probe(Chooser):
    """Draws one schedule within a bound; `weight` is then an estimate of how many there are."""

    def __init__(self, seed: int, bound: int, ahead: Ahead) -> None:
        super().__init__()
        self.weight = 1.0
        self._random = random.Random(seed)
        self._left = bound
        self._ahead = ahead

    def _pick(self, at: int, costs: Sequence[int], moves: Sequence[Move]) -> int:
        ways = [self._ahead.leaves(at + 1, self._left - cost) if cost <= self._left else 0.0 for cost in costs]
        pick = self._random.choices(range(len(costs)), ways)[0]
        self.weight *= sum(ways) / ways[pick]
        self._left -= costs[pick]
        return pick


def missed(runs: int, clients: int, choices: int, depth: int) -> float:
    """The chance, at the most, that so many runs of PCT have all missed a mistake of this depth.

    It is one that shows wherever ``depth`` steps come in one order. By PCT's bound each run finds it with a chance of
    at least 1/(n k^(d-1)), for n clients and k choices.
    """
    return float((1.0 - 1.0 / (max(1, clients) * max(1, choices) ** (depth - 1))) ** runs)
