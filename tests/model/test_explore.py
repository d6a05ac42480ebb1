"""The explorer: what it looks at, what it reports, and that it never says more than it saw."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from kmutex_model.actions import CORRECT, Action, Model
from kmutex_model.broken import BROKEN, Broken
from kmutex_model.explore import Counterexample, Graph, Progress, components, explore
from kmutex_model.properties import ALL, KM_LIVE, Property, make_transition
from kmutex_model.state import Config, State

SAFETY = [b for b in BROKEN if b.clause != KM_LIVE.clause]
LIVENESS = [b for b in BROKEN if b.clause == KM_LIVE.clause]


def name_of(broken: Broken) -> str:
    """What a parametrized test is called."""
    return f"{broken.model.name}-{broken.clause}"


def violation_of(broken: Broken) -> Counterexample:
    """The violation of the clause that the broken model is there for."""
    found = explore(broken.model, broken.config, properties=broken.judged_by)
    assert found.verdict == "violated"
    (violation,) = [v for v in found.violations if v.clause == broken.clause]
    return violation


def faults(model: Model, config: Config, before: State, action: Action, props: tuple[Property, ...]) -> list[str]:
    """The clauses that one step breaks."""
    after, outcome = model.step(config, before, action)
    transition = make_transition(config, before, action, outcome, after)
    return [
        p.clause for p in props if (p.on_step and p.on_step(transition)) or (p.in_state and p.in_state(config, after))
    ]


def all_runs(broken: Broken, length: int) -> Iterator[list[str]]:
    """What breaks at the end of each run up to that length, found without the explorer and without merging
    states. A run ends where something breaks, and takes no step that leads nowhere: the same run without it
    is shorter."""
    level = [broken.model.initial(broken.config)]
    for _ in range(length):
        following = []
        for before in level:
            for action in broken.model.enabled(broken.config, before):
                broke = faults(broken.model, broken.config, before, action, broken.judged_by)
                yield broke
                after = broken.model.step(broken.config, before, action).state
                if not broke and after != before:
                    following.append(after)
        level = following


@pytest.mark.parametrize("broken", SAFETY, ids=name_of)
def test_a_broken_model_is_caught_and_its_counterexample_replays(broken: Broken) -> None:
    """Every clause but KM-LIVE: nothing breaks before the last step, and that one breaks the clause."""
    *sound, last = violation_of(broken).path
    state = broken.model.initial(broken.config)
    for action in sound:
        assert faults(broken.model, broken.config, state, action, broken.judged_by) == []
        state = broken.model.step(broken.config, state, action).state
    assert broken.clause in faults(broken.model, broken.config, state, last, broken.judged_by)


@pytest.mark.parametrize("broken", SAFETY, ids=name_of)
def test_no_shorter_run_breaks_the_clause(broken: Broken) -> None:
    """Every clause but KM-LIVE."""
    length = len(violation_of(broken).path)
    assert not any(broken.clause in broke for broke in all_runs(broken, length - 1))


@pytest.mark.parametrize("broken", LIVENESS, ids=name_of)
def test_a_lasso_starves_a_waiter_and_is_fair(broken: Broken) -> None:
    """KM-LIVE: the cycle closes, one client waits all along, and no fair action is put off forever."""
    violation = violation_of(broken)
    assert violation.cycle is not None
    model, config = broken.model, broken.config
    steps = model.replay(config, violation.path + violation.cycle)
    states = [model.initial(config), *(step.state for step in steps)][len(violation.path) :]
    assert states[0] == states[-1]
    starving = [c for c in range(config.clients) if all(s.clients[c].phase == "waiting" for s in states)]
    assert starving
    assert KM_LIVE.eventually
    for name in KM_LIVE.eventually.fair:
        for client in range(config.clients):
            action = Action(name, client)
            assert action in violation.cycle or any(action not in model.enabled(config, s) for s in states)


def test_a_lasso_may_go_round_or_stand_still() -> None:
    """KM-LIVE: both kinds are among the broken models."""
    cycles = {b.model.name: violation_of(b).cycle for b in LIVENESS}
    assert cycles["never_wakes"] == ()
    assert cycles["lifo_starves"]


def test_the_fairness_assumption_is_needed() -> None:
    """KM-LIVE: without it a holder that never unlocks starves the others, in the correct model too."""
    assert KM_LIVE.eventually
    for dropped in KM_LIVE.eventually.fair:
        fair = tuple(name for name in KM_LIVE.eventually.fair if name != dropped)
        unfair = Property(
            "KM-LIVE",
            "",
            sometimes=(),
            eventually=KM_LIVE.eventually.__class__(KM_LIVE.eventually.pending, fair),
        )
        assert explore(CORRECT, Config(2, 1, "keep"), properties=(unfair,)).verdict == "violated"


def test_a_state_limit_leaves_the_result_incomplete() -> None:
    whole = explore(CORRECT, Config(3, 1, "keep"))
    for limit in (1, 2, whole.states - 1):
        found = explore(CORRECT, Config(3, 1, "keep"), max_states=limit)
        assert found.states == limit
        assert not found.complete
        assert found.verdict == "incomplete"
    exact = explore(CORRECT, Config(3, 1, "keep"), max_states=whole.states)
    assert (exact.complete, exact.verdict, exact.states) == (True, "holds", whole.states)


def test_liveness_is_not_judged_on_a_part() -> None:
    """KM-LIVE: a state that was not looked at has no steps, and must not count as one that stands still."""
    found = explore(CORRECT, Config(2, 1, "keep"), properties=(KM_LIVE,), max_states=5)
    assert found.violations == ()
    assert found.verdict == "incomplete"


def test_a_violation_leaves_the_result_incomplete() -> None:
    for broken in SAFETY:
        found = explore(broken.model, broken.config)
        assert not found.complete
        assert found.verdict == "violated"


def test_a_bad_initial_state_is_a_violation_of_no_steps() -> None:
    bad = Property("KM-BAD", "", sometimes=(), in_state=lambda config, state: "bad from the start")
    found = explore(CORRECT, Config(1, 1, "keep"), properties=(bad,))
    assert found.violations == (Counterexample("KM-BAD", (), "bad from the start"),)
    assert found.verdict == "violated"


@pytest.mark.parametrize("config", [Config(3, 1, "pass"), Config(2, 2, "keep")])
def test_the_graph_has_every_state_step_and_shortest_path(config: Config) -> None:
    """Against a search of its own, level by level over sets."""
    found = explore(CORRECT, config)
    level, met, transitions, depth = {CORRECT.initial(config)}, {CORRECT.initial(config)}, 0, 0
    while level:
        following = set()
        for state in level:
            path = found.graph.path(state)
            assert len(path) == depth
            assert (CORRECT.replay(config, path)[-1].state if path else CORRECT.initial(config)) == state
            steps = [(a, CORRECT.step(config, state, a).state) for a in CORRECT.enabled(config, state)]
            assert list(found.graph.edges[state]) == steps
            transitions += len(steps)
            following |= {after for _, after in steps}
        level = following - met
        met |= following
        depth += bool(level)
    assert set(found.graph) == met
    assert len(found.graph) == found.states == len(met)
    assert found.transitions == transitions
    assert found.depth == depth


def test_a_witness_is_met_on_the_last_step_of_its_run() -> None:
    config = Config(4, 1, "pass")
    found = explore(CORRECT, config)
    wanted = {(p.clause, s.statement): s for p in ALL for s in p.sometimes if s.due(config)}
    assert set(wanted) == set(found.witnesses)
    for name, path in found.witnesses.items():
        steps = CORRECT.replay(config, path)
        before = steps[-2].state if len(steps) > 1 else CORRECT.initial(config)
        transition = make_transition(config, before, path[-1], steps[-1].outcome, steps[-1].state)
        assert wanted[name].seen(transition)


def test_progress_is_told_level_by_level() -> None:
    told: list[Progress] = []
    found = explore(CORRECT, Config(3, 2, "keep"), on_progress=told.append)
    assert [p.depth for p in told] == list(range(1, found.depth + 1))
    assert [p.states for p in told] == sorted(p.states for p in told)
    assert told[-1].states <= found.states


def test_the_same_bound_gives_the_same_result() -> None:
    one, other = (explore(CORRECT, Config(3, 2, "pass")) for _ in range(2))
    assert list(one.graph) == list(other.graph)
    assert one.witnesses == other.witnesses


def reaches(edges: dict[int, set[int]], start: int) -> set[int]:
    """All that can be reached, the start included."""
    met, todo = {start}, [start]
    while todo:
        todo += [n for n in edges[todo.pop()] if n not in met and not met.add(n)]  # type: ignore[func-returns-value]
    return met


def test_components_are_those_of_mutual_reachability() -> None:
    """Against the definition, on random graphs."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for _ in range(200):
        size = rng.randrange(1, 9)
        edges = {n: {rng.randrange(size) for _ in range(rng.randrange(3))} for n in range(size)}
        states = [State((), (), ((n,),)) for n in range(size)]
        graph = Graph(
            states[0],
            {},
            {states[n]: tuple((Action("go"), states[m]) for m in edges[n]) for n in edges},
            dict.fromkeys(states, 0),
        )
        kept = [n for n in range(size) if rng.random() < 0.8]
        cut = {n: {m for m in edges[n] if m in kept} for n in kept}
        expected = {frozenset(m for m in reaches(cut, n) if n in reaches(cut, m)) for n in kept}
        found = components(graph, [states[n] for n in kept])
        assert sorted(sorted(s.order[0][0] for s in c) for c in found) == sorted(sorted(c) for c in expected)


@pytest.mark.long
def test_long_walks_beyond_the_bounds_break_nothing() -> None:
    """All clauses but KM-LIVE, with more clients and keys than are explored."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    for config in (Config(7, 3, "keep"), Config(7, 3, "pass")):
        state, longest = CORRECT.initial(config), 0
        for _ in range(3000):
            able = CORRECT.enabled(config, state)
            asks = [a for a in able if a.name == "request"]
            action = rng.choice(asks if asks and rng.random() < 0.5 else able)
            assert faults(CORRECT, config, state, action, ALL) == []
            state = CORRECT.step(config, state, action).state
            longest = max(longest, *(len(order) for order in state.order))
        assert longest > 2
