"""The search runs each way within its bound once: counted here by hand on toys."""

from __future__ import annotations

import pytest

from kmutex.engine.search import Chooser, Sampler, Search, UnreplayableError, picks_of


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
    with pytest.raises(UnreplayableError, match="choice 1 has 2 alternatives"):
        [chooser.choose([0, 1]) for chooser in [Chooser(picks_of({1: 2}))] for _ in range(2)]


@pytest.mark.parametrize("seed", range(20))
def test_a_sample_is_the_same_for_its_seed_and_has_few_preemptions(seed: int) -> None:
    def sampled() -> list[int]:
        sampler = Sampler(seed, 50, 3)
        return [sampler.choose([0, 1, 1]) for _ in range(50)]

    assert sampled() == sampled()
    assert sum(pick > 0 for pick in sampled()) <= 3


def test_samples_differ_and_some_preempt() -> None:
    samples = {tuple(Sampler(seed, 50, 3).choose([0, 1]) for _ in range(1)) for seed in range(200)}
    assert samples == {(0,), (1,)}
