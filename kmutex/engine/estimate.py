"""Estimate the number of schedules within a bound from a few of them; and the chance that a strategy missed a mistake.

Each probe goes from the root of the tree of choices to a leaf, and counts for as many leaves as the inverse of its
probability (Knuth 1975). Each alternative is drawn in proportion to the leaves behind it, if all schedules had the
choices of the default schedule. So a probe's weight varies little, and the mean of two hundred is near the number.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from kmutex.engine.search import Chooser, Move

PROBES = 200
"""The number of runs for an estimate."""
LEAST_PROBES = 40
"""With fewer runs, no estimate is made."""


class Ahead:
    """The number of schedules from each choice on, if all had the choices of one of them."""

    def __init__(self, path: Sequence[tuple[int, Sequence[int]]], bound: int) -> None:
        """Take the path of the default schedule, and the bound on preemptions."""
        self._leaves = [[1.0] * (bound + 1)]
        for _, costs in reversed(path):
            after = self._leaves[-1]
            self._leaves.append(
                [sum(after[left - cost] for cost in costs if cost <= left) for left in range(bound + 1)]
            )
        self._leaves.reverse()

    def leaves(self, at: int, left: int) -> float:
        """Return the number from this choice on, with so many preemptions left."""
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
    """Return an upper bound on the probability that all of these runs of PCT missed a mistake of this depth.

    Such a mistake shows whenever ``depth`` steps come in one order. By PCT's bound, each run finds it with a
    probability of at least 1/(n k^(d-1)), for n clients and k choices.
    """
    return float((1.0 - 1.0 / (max(1, clients) * max(1, choices) ** (depth - 1))) ** runs)
