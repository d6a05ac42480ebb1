"""The number of schedules within a bound, estimated from a few, and PCT's bound: where both can be counted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from kmutex.engine.estimate import PROBES, Ahead, Probe, missed
from kmutex.engine.search import Chooser, Move, Search
from kmutex.engine.strategies import PCT, Seen, drawn


def flat(chooser: Chooser) -> None:
    """Twenty choices between going on and a preemption."""
    for _ in range(20):
        chooser.choose([0, 1])


def shorter(chooser: Chooser) -> None:
    """A preemption makes the rest shorter, and free choices come in between."""
    left = 24
    while left > 0:
        left -= 1 + 2 * chooser.choose([0, 1] if left % 5 else [0, 0])


def uneven(chooser: Chooser) -> None:
    """How many could go on depends on what was chosen."""
    able = 3
    for _ in range(16):
        pick = chooser.choose([0] + [1] * able)
        able = max(1, min(3, able + (1 if pick == 2 else -1 if pick == 1 else 0)))


@pytest.mark.parametrize("bound", [1, 2, 3])
@pytest.mark.parametrize("program", [flat, shorter, uneven])
def test_the_number_of_schedules_is_estimated_within_a_fifth(program: Callable[[Chooser], None], bound: int) -> None:
    """The mean of the probes, for three seeds each."""
    number = 0
    search = Search(bound)
    for chooser in search:
        program(chooser)
        number += 1
    default = Chooser()
    program(default)
    for seed in (1, 2, 3):
        probes = [Probe(seed * 1_000 + n, bound, Ahead(default.path, bound)) for n in range(PROBES)]
        for probe in probes:
            program(probe)
        estimate = sum(probe.weight for probe in probes) / PROBES
        assert abs(estimate - number) <= 0.2 * number, (seed, estimate, number)


def test_a_probe_stays_within_its_bound() -> None:
    for seed in range(50):
        probe = Probe(seed, 2, Ahead((), 2))
        flat(probe)
        assert sum(costs[pick] for pick, costs in probe.path) <= 2


def test_pct_finds_a_mistake_of_depth_two_at_least_as_often_as_its_bound_says() -> None:
    """Client 1 has to be preempted after its third step of ten, by client 0: the order of two steps."""
    seeds = range(3_000)

    def run(chooser: Chooser) -> bool:
        at = [0, 0]
        while min(at) < 10:
            able = [who for who in (0, 1) if at[who] < 10]
            pick = chooser.choose([0] * len(able), [Move(who, "run", None) for who in able]) if len(able) > 1 else 0
            at[able[pick]] += 1
            if at == [1, 3]:
                return True
        return False

    first, *_ = drawn(range(0))
    run(first)
    seen = Seen()
    seen.add(first)
    found = sum(run(PCT(random.Random(seed).randrange(10**9), seen, depth=2)) for seed in seeds)
    assert found / len(seeds) >= 1 - missed(1, 2, seen.choices, 2)


@pytest.mark.parametrize(
    ("runs", "clients", "choices", "depth", "chance"),
    [(0, 2, 10, 2, 1.0), (1, 1, 10, 1, 0.0), (1, 2, 10, 2, 0.95), (2, 2, 10, 2, 0.9025), (1, 2, 10, 3, 0.995)],
)
def test_the_chance_of_having_missed_is_as_computed_by_hand(
    runs: int, clients: int, choices: int, depth: int, chance: float
) -> None:
    assert missed(runs, clients, choices, depth) == pytest.approx(chance)
