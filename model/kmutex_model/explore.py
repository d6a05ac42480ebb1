"""The exploration of every run, breadth first, so that the first counterexample is a shortest one.

A step or state that breaks a clause is reported and not followed further: whatever a model does after its first mistake
would blame the wrong step. So each counterexample is a shortest one among the runs that break no clause before their
last step.

KM-LIVE is about infinite runs. In a finite graph such a run ends up going round in one strongly connected
component. If a client waits in all of a component, and for each fair action the component has a state where
it is disabled or an edge where it is taken, then going round all of it forever is a fair run in which that
client is never granted: a lasso, reported as a path to the component and a cycle in it. If no component is
like that there is no such run, since a smaller cycle meets no more of the fairness conditions than the
component it is part of. Doing nothing forever counts as a cycle of no actions, and is fair where no fair
action is enabled.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from kmutex_model.actions import Action, Machine, format_schedule
from kmutex_model.properties import ALL, Eventually, Property, Sometimes, Transition, make_transition
from kmutex_model.state import Config, State
from kmutex_model.symmetry import Renaming, asymmetry, standard

Verdict = Literal["holds", "violated", "incomplete", "unreached"]


class Counterexample(NamedTuple):
    """A run that breaks a clause."""

    clause: str
    """The clause."""
    path: tuple[Action, ...]
    """The actions of the run."""
    message: str
    """What is wrong at its end."""
    cycle: tuple[Action, ...] | None = None
    """None for a finite run. Otherwise the actions that are repeated forever after `path`; empty if nothing happens any
    more."""

    def __str__(self) -> str:
        text = f"{self.clause}: {self.message}\n  {format_schedule(self.path)}"
        if self.cycle is not None:
            text += f"\n  and forever: {format_schedule(self.cycle) or '(nothing)'}"
        return text


class Progress(NamedTuple):
    """The progress of an exploration."""

    states: int
    transitions: int
    depth: int


@dataclass(frozen=True)
class Graph:
    """The states that were reached, in that order, and the steps between them."""

    initial: State
    parents: dict[State, tuple[State, Action, Renaming | None]]
    """By state: the state that it was first reached from, the action, and the renaming after the step, if any."""
    edges: dict[State, tuple[tuple[Action, State], ...]]
    depths: dict[State, int]

    def __iter__(self) -> Iterator[State]:
        return iter(self.depths)

    def __len__(self) -> int:
        return len(self.depths)

    def path(self, state: State, *last: Action) -> tuple[Action, ...]:
        """Return a shortest run from the initial state to this one, followed by these actions of this state."""
        steps: list[tuple[Action, Renaming | None]] = []
        while state != self.initial:
            state, action, renaming = self.parents[state]
            steps.append((action, renaming))
        steps.reverse()
        # Each action has the numbers of the state in which it was taken. `told` maps those to the first ones.
        told: Renaming | None = None
        actions = []
        for action, renaming in (*steps, *((action, None) for action in last)):
            actions.append(told.action(action) if told else action)
            if renaming:
                told = renaming.inverse().then(told) if told else renaming.inverse()
        return tuple(actions)


@dataclass(frozen=True)
class Exploration:
    """The result of `explore`."""

    model: Machine
    """The model that was explored."""
    config: Any
    """The bound."""
    states: int
    """The number of distinct states."""
    transitions: int
    """The number of steps from the states that were looked at."""
    depth: int
    """The number of steps to the farthest state, each by a shortest path."""
    violations: tuple[Counterexample, ...]
    """The first violation of each clause."""
    witnesses: dict[tuple[str, str], tuple[Action, ...]]
    """A shortest run to each clause and situation that was met."""
    missing: tuple[tuple[str, str], ...]
    """Situations that are due at this bound and were not met."""
    complete: bool
    """Whether every reachable state was looked at. False after a state limit, or a violation."""
    seconds: float
    """How long it took."""
    graph: Graph = field(repr=False)
    """The states and steps."""

    @property
    def verdict(self) -> Verdict:
        """ "holds" only if every state was looked at, no clause is violated, and every due situation was met."""
        if self.violations:
            return "violated"
        if not self.complete:
            return "incomplete"
        return "unreached" if self.missing else "holds"


def explore(
    model: Machine,
    config: Any,
    *,
    properties: Sequence[Property] = ALL,
    max_states: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    symmetry: bool = False,
) -> Exploration:
    """Look at every reachable state and every step from it. KM-LIVE is judged on a complete graph only.

    Args:
        model: The model, or a broken one.
        config: The bound.
        properties: What must hold.
        max_states: Stop at this number of states; the result is then incomplete.
        on_progress: Called each time the search goes one step deeper.
        symmetry: Look at one of all states that differ only by the numbers of clients and keys. Counterexamples and
            witnesses are still runs of the model.

    Raises:
        ValueError: With symmetry, the model or a property depends on these numbers, as far as 4 x 2 shows, or a
            property is about infinite runs (`kmutex_model.symmetry`).
    """
    started = time.perf_counter()
    if symmetry:
        if lasting := [prop.clause for prop in properties if prop.eventually]:
            raise ValueError(f"{lasting[0]} is about infinite runs, and can't be judged by one of many states")
        small = Config(min(config.clients, 4), min(config.keys, 2), config.race)
        states = explore(model, small, properties=properties).graph.edges
        if fault := asymmetry(model, small, states, lambda t: _judged(properties, t)):
            raise ValueError(f"symmetry can't be used: {fault}")
    in_state = [(prop, prop.in_state) for prop in properties if prop.in_state]
    on_step = [(prop, prop.on_step) for prop in properties if prop.on_step]
    start = model.initial(config)
    graph = Graph(start, {}, {}, {start: 0})
    violations: dict[str, Counterexample] = {}
    witnesses: dict[tuple[str, str], tuple[Action, ...]] = {}
    wanted = {(p.clause, s.statement): s for p in properties for s in p.sometimes}
    missing: dict[tuple[str, str], Sometimes] = dict(wanted)
    transitions, depth, complete = 0, 0, True

    def blame(prop: Property, message: str, path: tuple[Action, ...]) -> None:
        if prop.clause not in violations:
            # The message has the numbers of the state that was looked at; those of the run may differ.
            said = _said(model, config, prop, path) if symmetry else message
            violations[prop.clause] = Counterexample(prop.clause, path, said)

    todo = deque([start])
    for prop, wrong in in_state:
        if message := wrong(config, start):
            blame(prop, message, ())
            complete = False
            todo.clear()

    while todo:
        before = todo.popleft()
        if graph.depths[before] > depth:
            depth = graph.depths[before]
            if on_progress:
                on_progress(Progress(len(graph), transitions, depth))
        edges = []
        for action in model.enabled(config, before):
            after, outcome = model.step(config, before, action)
            transitions += 1
            transition = make_transition(config, before, action, outcome, after)
            for name, situation in list(missing.items()):
                if situation.seen(transition):
                    del missing[name]
                    witnesses[name] = graph.path(before, action)
            found = [(prop, message) for prop, wrong_step in on_step if (message := wrong_step(transition))]
            # The checks read the step in its own numbers; what is kept of it may have others.
            after, renaming = standard(after) if symmetry else (after, None)
            if after not in graph.depths:
                found += [(prop, message) for prop, wrong in in_state if (message := wrong(config, after))]
            for prop, message in found:
                blame(prop, message, graph.path(before, action))
            if found:
                complete = False
                continue
            if after not in graph.depths:
                if max_states is not None and len(graph) >= max_states:
                    complete = False
                    continue
                graph.depths[after] = graph.depths[before] + 1
                graph.parents[after] = (before, action, renaming)
                todo.append(after)
            edges.append((action, after))
        graph.edges[before] = tuple(edges)

    if complete:
        for prop in properties:
            if prop.eventually and (lasso := find_lasso(config, graph, prop.clause, prop.eventually)):
                violations[prop.clause] = lasso

    return Exploration(
        model=model,
        config=config,
        states=len(graph),
        transitions=transitions,
        depth=depth,
        violations=tuple(violations.values()),
        witnesses=witnesses,
        missing=tuple(name for name, s in missing.items() if s.due(config) and not (symmetry and s.numbered)),
        complete=complete,
        seconds=time.perf_counter() - started,
        graph=graph,
    )


def _judged(properties: Sequence[Property], t: Transition) -> list[bool]:
    """Return whether each property objects to a step and to the state after it, in a fixed order."""
    steps = [bool(prop.on_step(t)) for prop in properties if prop.on_step]
    return steps + [bool(prop.in_state(t.config, t.after)) for prop in properties if prop.in_state]


def _said(model: Machine, config: Any, prop: Property, path: tuple[Action, ...]) -> str:
    """Return what is wrong at the end of a run, with the numbers of that run."""
    before = model.initial(config)
    if not path:
        return prop.in_state(config, before) if prop.in_state else ""
    for action in path[:-1]:
        before = model.step(config, before, action).state
    after, outcome = model.step(config, before, path[-1])
    transition = make_transition(config, before, path[-1], outcome, after)
    return (prop.on_step(transition) if prop.on_step else "") or (prop.in_state(config, after) if prop.in_state else "")


# ------------------------------------------------------------------------------------------------------------
# Liveness


def find_lasso(config: Any, graph: Graph, clause: str, goal: Eventually) -> Counterexample | None:
    """Return a fair run in which something pending never ends, with a shortest path to its cycle, or None."""
    fair = tuple(Action(name, client) for name in goal.fair for client in range(config.clients))
    # Breadth first, so the earliest is also a nearest one. Depth alone would leave the choice to the set's order.
    places = {state: place for place, state in enumerate(graph)}
    best: tuple[State, set[State], int] | None = None
    for client in range(config.clients):
        pending = [state for state in graph if goal.pending(state, client)]
        for component in components(graph, pending):
            first = min(component, key=places.__getitem__)
            nearer = best is None or graph.depths[first] < graph.depths[best[0]]
            if nearer and all(_allows(graph, component, action) for action in fair):
                best = (first, component, client)
    if best is None:
        return None
    first, component, client = best
    cycle = go_round(graph, component, first, fair)
    return Counterexample(clause, graph.path(first), f"client {client} waits forever", cycle)


def components(graph: Graph, states: Sequence[State]) -> list[set[State]]:
    """The strongly connected components of the graph cut down to these states (Tarjan, without recursion)."""
    inside = set(states)
    index: dict[State, int] = {}
    low: dict[State, int] = {}
    stack: list[State] = []
    on_stack: set[State] = set()
    found = []

    def successors(state: State) -> Iterator[State]:
        return (after for _, after in graph.edges[state] if after in inside)

    def open_state(state: State) -> tuple[State, Iterator[State]]:
        index[state] = low[state] = len(index)
        stack.append(state)
        on_stack.add(state)
        return state, successors(state)

    for root in states:
        work = [] if root in index else [open_state(root)]
        while work:
            state, rest = work[-1]
            for after in rest:
                if after not in index:
                    work.append(open_state(after))
                    break
                if after in on_stack:
                    low[state] = min(low[state], index[after])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[state])
                if low[state] == index[state]:
                    component = set(stack[stack.index(state) :])
                    del stack[stack.index(state) :]
                    on_stack -= component
                    found.append(component)
    return found


def _disabled(graph: Graph, state: State, action: Action) -> bool:
    return all(taken != action for taken, _ in graph.edges[state])


def _allows(graph: Graph, component: set[State], action: Action) -> bool:
    """Return whether a run that visits all of the component forever is fair to the action."""
    return any(
        _disabled(graph, state, action)
        or any(taken == action and after in component for taken, after in graph.edges[state])
        for state in component
    )


def go_round(graph: Graph, component: set[State], first: State, fair: Sequence[Action]) -> tuple[Action, ...]:
    """Return a cycle through `first`, within the component, that is fair to each of the actions."""
    cycle: list[Action] = []
    visited = [first]

    def walk_until(last: Callable[[Action, State], bool]) -> None:
        """Append a shortest walk whose last step (an action and the state after it) satisfies `last`."""
        walks: deque[tuple[State, tuple[tuple[Action, State], ...]]] = deque([(visited[-1], ())])
        reached = {visited[-1]}
        while walks:
            state, walk = walks.popleft()
            for action, after in graph.edges[state]:
                if after not in component:
                    continue
                if last(action, after):
                    cycle.extend(a for a, _ in (*walk, (action, after)))
                    visited.extend(s for _, s in (*walk, (action, after)))
                    return
                if after not in reached:
                    reached.add(after)
                    walks.append((after, (*walk, (action, after))))
        raise AssertionError("no such step in this component")

    def is_fair_to(wanted: Action) -> Callable[[Action, State], bool]:
        return lambda action, after: action == wanted or _disabled(graph, after, wanted)

    for wanted in fair:
        if wanted not in cycle and not any(_disabled(graph, state, wanted) for state in visited):
            walk_until(is_fair_to(wanted))
    if visited[-1] != first:
        walk_until(lambda action, after: after == first)
    return tuple(cycle)
