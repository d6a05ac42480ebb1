"""The search runs each way within its bound once: counted here by hand on toys."""

from __future__ import annotations

import itertools

import pytest

from kmutex.engine.search import Chooser, Move, Search, picks_of
from kmutex.engine.strategies import PORTFOLIO, STRATEGIES, Seen, drawn


def every(bound: int, costs: list[list[int]]) -> list[tuple[int, ...]]:
    """The paths through a run that asks for these choices, whatever was chosen."""
    search = Search(bound)
    found = []
    for chooser in search:
        found.append(tuple(chooser.choose(cost) for cost in costs))
    assert search.complete
    return found


@pytest.mark.parametrize(
    ("bound", "costs", "number"),
    [
        # Three choices between going on and a preemption: at most 0, 1, 2, 3 of them.
        (0, [[0, 1]] * 3, 1),
        (1, [[0, 1]] * 3, 1 + 3),
        (2, [[0, 1]] * 3, 1 + 3 + 3),
        (3, [[0, 1]] * 3, 2**3),
        # Free alternatives count nothing.
        (0, [[0, 0]] * 3, 2**3),
        (0, [[0, 0, 0], [0, 1]], 3),
        (1, [[0, 0, 0], [0, 1]], 3 * 2),
        # Two others to hand to.
        (1, [[0, 1, 1]] * 2, 1 + 2 * 2),
        (2, [[0, 1, 1]] * 2, 3**2),
        # Dear ones.
        (1, [[0, 2]], 1),
        (2, [[0, 2], [0, 1]], 1 + 1 + 1),
        (5, [], 1),
    ],
)
def test_the_number_of_ways_is_as_computed_by_hand(bound: int, costs: list[list[int]], number: int) -> None:
    found = every(bound, costs)
    assert len(found) == len(set(found)) == number
    assert all(sum(cost[pick] for pick, cost in zip(path, costs, strict=True)) <= bound for path in found)
    assert found[0] == (0,) * len(costs)


def test_a_search_that_is_left_is_not_complete() -> None:
    search = Search(1)
    for chooser in search:
        chooser.choose([0, 1])
        break
    assert not search.complete


def test_choices_may_depend_on_what_was_chosen() -> None:
    """Only who takes the second alternative first has a second choice: three ways."""
    search = Search(2)
    found = []
    for chooser in search:
        first = chooser.choose([0, 1])
        found.append((first, chooser.choose([0, 1]) if first else None))
    assert found == [(0, None), (1, 0), (1, 1)]


def test_what_was_recorded_is_followed_and_no_more() -> None:
    chooser = Chooser(picks_of({1: 2}))
    assert [chooser.choose([0, 1, 1]) for _ in range(3)] == [0, 2, 0]
    assert chooser.recorded() == {1: 2}


def test_what_does_not_fit_is_the_default_from_there_on() -> None:
    """And it is known where that was."""
    chooser = Chooser(picks_of({0: 1, 1: 2}))
    assert [chooser.choose([0, 1]) for _ in range(3)] == [1, 0, 0]
    assert chooser.left_at == 1


MOVES = [Move(0, "run", "x"), Move(1, "run", "x"), Move(2, "run", "y")]


def picks_by(name: str, seed: int, number: int = 50) -> list[int]:
    """What a strategy picks where the same three could always go on, after a run of the default."""
    seen = Seen()
    first, *_ = drawn(range(0))
    for _ in range(number):
        first.choose([0, 1, 1], MOVES)
    seen.add(first)
    chooser = STRATEGIES[name](seed, seen)
    return [chooser.choose([0, 1, 1], MOVES) for _ in range(number)]


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_draws_the_same_for_its_seed_and_not_for_others(name: str) -> None:
    assert picks_by(name, 7) == picks_by(name, 7)
    assert len({tuple(picks_by(name, seed)) for seed in range(20)}) > 3
    assert {pick for seed in range(20) for pick in picks_by(name, seed)} == {0, 1, 2}


@pytest.mark.parametrize("seed", range(20))
def test_random_preemptions_are_few(seed: int) -> None:
    assert sum(pick > 0 for pick in picks_by("random preemptions", seed)) <= 2


@pytest.mark.parametrize("seed", range(20))
def test_pct_keeps_to_whom_it_has_ranked_first_but_for_its_change_points(seed: int) -> None:
    picks = picks_by("PCT", seed)
    assert sum(one != other for one, other in itertools.pairwise(picks)) <= 2


def test_pos_ranks_anew_whose_operation_is_on_the_same_object() -> None:
    """Of two who race, each is first in about half of the samples; one who races with nobody keeps its rank."""
    firsts = [picks_by("POS", seed, 2) for seed in range(300)]
    assert 60 < sum(first == 2 for first, _ in firsts) < 140
    again = [second for first, second in firsts if first == 0]
    assert {0, 1, 2} == set(again)


def test_all_of_the_portfolio_are_strategies_and_each_has_its_turn() -> None:
    assert set(PORTFOLIO) == set(STRATEGIES)
    assert len(list(drawn(range(5)))) == 1 + 5
