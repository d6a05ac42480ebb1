"""All small programs, in an order that the model decides: first those that take it where no program before has been.

A program of this kind has three clients and two keys at the most, no client is at two keys at a time, and at least two
things happen at once in its last phase; what would come after that, the epilogue does. Of programs that differ only by
the names of clients and keys there is one. Left out is an unlock of a key that others ask for at the same time. The
order is for whoever has not the time for all: a program comes before another if it takes the model through more steps
that none before it has taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations

from kmutex.engine.program import ASKING, Phase, Program, Step
from kmutex_model.actions import CORRECT, Action
from kmutex_model.state import Config, Race, State, initial
from kmutex_model.symmetry import standard

SIZE = 3
"""Steps of the longest. Of four steps there are eighteen times as many."""
CLIENTS = 3
KEYS = "ab"

_Done = tuple[tuple[int, tuple[Step, ...]], ...]
_Edge = tuple[State, Action]
"""A step of the model, in the standard numbers of its state."""


def generated(kinds: frozenset[str], keys: int, race: Race, before: Iterable[Program] = ()) -> list[Program]:
    """The programs of up to SIZE steps, in their order. kinds: of steps that the subject knows. keys: how many there
    may be. before: programs that are run anyway; they are left out here, and what they show counts as seen."""
    seen: set[_Edge] = set()
    known = set()
    for program in before:
        known.add(_canonical(program))
        seen |= _edges(program, race)
    left = {program: _edges(program, race) for program in _all(kinds, KEYS[:keys]) if program not in known}
    ordered = []
    while left:
        # Of those that show as much that is new, the shortest: `_all` makes them in that order.
        best = max(left, key=lambda program: len(left[program] - seen))
        seen |= left.pop(best)
        ordered.append(best)
        if all(edges <= seen for edges in left.values()):
            return ordered + list(left)
    return ordered


def _all(kinds: frozenset[str], keys: str) -> Iterator[Program]:
    longest: dict[Program, None] = {}
    for size in range(SIZE):
        longer: dict[Program, None] = {}
        for program in longest if size else (Program(()),):
            longer.update((_canonical(one), None) for one in _longer(program, kinds, keys))
        for one in longer:
            if len(one.phases[-1].steps) + len(one.phases[-1].cancel) > 1 and _is_judged(one):
                yield one
        longest = longer


def _is_judged(program: Program) -> bool:
    """Whether the judge can tell whose grant an unlock by somebody else has ended, if any. By key, it may be that of a
    waiter who is on the way, or of a later holder: nothing that is seen from outside says so."""
    asked = [
        [step.key for _, steps in phase.steps for step in steps if step.kind in ASKING] for phase in program.phases
    ]
    for at, phase in enumerate(program.phases):
        for key in (step.key for _, steps in phase.steps for step in steps if step.kind == "x"):
            before, now, after = (
                sum(keys.count(key) for keys in part) for part in (asked[:at], [asked[at]], asked[at:])
            )
            if now or before > 1 or (before and after):
                return False
    return True


def _longer(program: Program, kinds: frozenset[str], keys: str) -> Iterator[Program]:
    """The program and one step more, in a new phase or at the end of the last."""
    at: dict[int, Step] = {}
    for phase in program.phases:
        for client in phase.cancel:
            at.pop(client, None)
        for client, steps in phase.steps:
            for kind, key in steps:
                if kind in ASKING:
                    at[client] = Step(kind, key)
                elif kind == "-":
                    at.pop(client, None)
    last = program.phases[-1] if program.phases else Phase(())
    busy = {client for client, _ in last.steps}
    for client in range(CLIENTS):
        asked = at.get(client)
        could = [Step("-", asked.key)] if asked else [Step(kind, key) for kind in "+~?x" for key in keys]
        for step in could:
            if step.kind not in kinds:
                continue
            yield Program((*program.phases, Phase(((client, (step,)),))))
            if program.phases and client not in last.cancel:
                done = dict(last.steps)
                done[client] = (*done.get(client, ()), step)
                yield Program((*program.phases[:-1], last._replace(steps=tuple(done.items()))))
        if asked and asked.kind == "~":
            yield Program((*program.phases, Phase((), (client,))))
            if client not in busy and client not in last.cancel:
                yield Program((*program.phases[:-1], last._replace(cancel=(*last.cancel, client))))


def _canonical(program: Program) -> Program:
    """The one that stands for all that differ by names, and by the order in which the text has what happens at once."""
    clients = sorted({client for phase in program.phases for client in (*dict(phase.steps), *phase.cancel)})
    return min(
        _renamed(program, dict(zip(clients, who, strict=True)), dict(zip(program.keys, letters, strict=True)))
        for who in permutations(range(len(clients)))
        for letters in permutations(sorted(KEYS)[: len(program.keys)])
    )


def _renamed(program: Program, clients: dict[int, int], keys: dict[str, str]) -> Program:
    return Program(
        tuple(
            Phase(
                tuple(
                    sorted((clients[c], tuple(Step(kind, keys[key]) for kind, key in done)) for c, done in phase.steps)
                ),
                tuple(sorted(clients[client] for client in phase.cancel)),
            )
            for phase in program.phases
        )
    )


def _edges(program: Program, race: Race) -> set[_Edge]:
    """The steps that the model can take in a program, whatever the order of what happens at once. None of a program
    with more clients or keys."""
    if program.clients > CLIENTS or not set(program.keys) <= set(KEYS):
        return set()
    config = Config(CLIENTS, len(KEYS), race)
    edges: set[_Edge] = set()
    begin = (initial(config), 0, program.phases[0].steps, program.phases[0].cancel)
    known, left = {begin}, [begin]
    while left:
        state, at, steps, cancel = left.pop()
        moves: list[tuple[Action | None, _Done, tuple[int, ...]]] = [
            (Action("wake", client), steps, cancel)
            for client, (phase, _) in enumerate(state.clients)
            if phase == "granted"
        ]
        moves += [(Action("cancel", who), steps, tuple(other for other in cancel if other != who)) for who in cancel]
        for client, (first, *rest) in steps:
            if state.clients[client].phase in ("idle", "holding"):
                after = {**dict(steps), client: tuple(rest)}
                moves.append((_action(state, client, first), _sorted(after), cancel))
        if not moves and at + 1 < len(program.phases):
            # All is quiet. Who waits still has the rest of what it was to do before.
            at += 1
            later = dict(steps)
            later.update((client, (*later.get(client, ()), *more)) for client, more in program.phases[at].steps)
            moves.append((None, _sorted(later), program.phases[at].cancel))
        for action, then_steps, then_cancel in moves:
            then = state
            if action is not None and action in CORRECT.enabled(config, state):
                then = CORRECT.step(config, state, action).state
                standing, renaming = standard(state)
                edges.add((standing, renaming.action(action)))
            node = (then, at, then_steps, then_cancel)
            if node not in known:
                known.add(node)
                left.append(node)
    return edges


def _sorted(steps: dict[int, tuple[Step, ...]]) -> _Done:
    return tuple(sorted((client, rest) for client, rest in steps.items() if rest))


def _action(state: State, client: int, step: Step) -> Action | None:
    key = KEYS.index(step.key)
    if step.kind in "+~":
        return Action("request", client, key)
    if step.kind == "?":
        return Action("try", client, key)
    entry = state.entries[key]
    if step.kind == "x":
        # By key, whoever unlocks: it is the holder's release.
        return Action("stray_unlock", client, key) if entry is None else Action("release", entry.holder)
    return Action("release", client) if state.clients[client] == ("holding", key) else None
