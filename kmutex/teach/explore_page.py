"""The page of `kmutex explore`: the model's whole state graph in one file, to step through by hand.

The model and its explorer provide all facts about the lock, which are embedded: the states, the steps from each with
the outcome for the caller, the clauses that a step breaks, the situations that it puts to the test, and the shortest
run that breaks each bad model. The scripts walk that graph and have no rules of their own. The predictions of the
lessons are embedded too, with the runs of real code that answer them.

A step that breaks a clause is embedded with the state after it; as in the explorer, no step follows it.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from kmutex.teach.clauses import clause_of
from kmutex.teach.lesson import as_data, lessons
from kmutex.teach.one_file import Json, Table, one_file
from kmutex_model import actions
from kmutex_model.actions import CORRECT, Action, Model
from kmutex_model.broken import BROKEN
from kmutex_model.explore import Exploration, explore
from kmutex_model.properties import ALL, Property, Transition, make_transition
from kmutex_model.state import Config, Race, State

BOUNDS: tuple[tuple[int, int], ...] = ((3, 1), (3, 2))
"""Clients and keys of the correct model, each with both races. The bounds of the broken models come on top."""
RACES: tuple[Race, ...] = ("keep", "pass")

ACTION_WORDS: Mapping[str, str] = {
    "request": "asks for {key}",
    "try": "tries {key} with timeout 0",
    "wake": "comes back from its call, with {key}",
    "cancel": "is cancelled at {key}",
    "interrupt": "is interrupted at {key}",
    "release": "releases {key}",
    "stray_unlock": "unlocks {key}, which nobody holds",
    "stale_release": "releases an old lease on {key}",
}
"""The action of the client; the page adds the client and the key."""

OUTCOME_WORDS: Mapping[str, str] = {
    "granted": "it gets the key at once",
    "waiting": "it has to wait",
    "timeout": "the call raises, for there is no time to wait",
    "returned": "the call returns and it holds the key",
    "cancelled": "the call raises: cancelled",
    "kept": "the grant was first and is kept",
    "interrupted": "the call raises: interrupted",
    "released": "done",
    "unheld": "the call raises, for there is nothing of its own to release",
}
"""The outcome for the caller."""

PHASE_WORDS: Mapping[str, str] = {
    "idle": "is outside",
    "waiting": "waits for {key}",
    "granted": "owns {key}; its call has not returned yet",
    "holding": "holds {key}",
}
"""The state of the client between two steps."""

LETTERS: Mapping[str, str] = {
    "request": "a",
    "try": "t",
    "wake": "w",
    "cancel": "c",
    "interrupt": "i",
    "release": "r",
    "stray_unlock": "x",
    "stale_release": "o",
}
"""The code for an action, after the client's number."""

TERMS: Mapping[str, str] = {
    "outside": "The client neither asks for a key nor has one.",
    "granted": "The key is the client's already, and its call has not returned yet. The ring shows it.",
    "refs": "References: how often a key is counted, once for its holder and once for each waiter.",
    "timeout 0": "The client asks and does not wait: it gets a free key at once, or the call raises.",
    "interrupted": "An error strikes the client's wait from outside, such as KeyboardInterrupt; the call must raise.",
    "lease": "What hold() gives for one grant. An old lease is of a grant that is over: to release it must do no harm.",
    "keep": "When a cancel meets a grant that came first, the grant is kept and the call returns, as by threads.",
    "pass": "When a cancel meets a grant that came first, the call raises and the grant is passed on, as by asyncio.",
    "bound": "How many clients and keys there are. What holds is shown for so many, and not for more.",
}
"""Terms of the page, with their explanations."""

ABOUT: Mapping[str, tuple[str, ...]] = {
    "KM-CANCEL": ("cancel cancelled",),
    "KM-ATOMIC": ("try timeout", "stray_unlock unheld", "stale_release unheld"),
    "KM-TOKEN": ("stale_release unheld",),
    "KM-EXPIRED": ("try granted", "try timeout"),
    "KM-INTERRUPT": ("interrupt interrupted",),
    "KM-LIVE": ("wake returned",),
}
"""By clause: steps of the kind that it speaks of, with what the caller is told. The situations that it names may be
harder."""

RULE_OF: Mapping[tuple[str, str], int] = {
    ("request", "idle"): 2,
    ("try", "idle"): 3,
    ("release", "holding"): 4,
    ("wake", "granted"): 5,
    ("cancel", "waiting"): 6,
    ("cancel", "granted"): 7,
    ("interrupt", "waiting"): 8,
    ("interrupt", "granted"): 8,
    ("stray_unlock", "idle"): 9,
    ("stale_release", "idle"): 10,
}
"""By action and phase of its client, the rule of kmutex_model.actions that says what the correct model does."""


@dataclass(frozen=True)
class Subject:
    """One graph to embed: a model at a bound. `clause` and `story` are empty for the correct one."""

    name: str
    """As the address of the page has it: `correct`, or the model and the clause it breaks, `lifo.KM-FIFO`."""
    model: Model
    config: Config
    judged_by: tuple[Property, ...] = ALL
    clause: str = ""
    story: str = ""


def subjects() -> tuple[Subject, ...]:
    """Every broken model at its own bound, and the correct one at those bounds and at BOUNDS."""
    bounds = [Config(clients, keys, race) for clients, keys in BOUNDS for race in RACES]
    bounds += sorted({broken.config for broken in BROKEN} - set(bounds))
    correct = tuple(Subject("correct", CORRECT, config) for config in bounds)
    return correct + tuple(
        Subject(f"{b.model.name}.{b.clause}", b.model, b.config, b.judged_by, b.clause, b.story) for b in BROKEN
    )


# ------------------------------------------------------------------------------------------------------------
# Encoding


@dataclass(frozen=True)
class _Kind:
    """A step without the states at its two ends."""

    action: Action
    outcome: str
    rule: int
    breaks: tuple[tuple[str, str], ...]
    """Clause and message of each property that the step or the state after it breaks."""
    met: tuple[tuple[str, str], ...]
    """Clause and statement of each situation that the step puts to the test."""


class _Encoder:
    """Collects values that the graphs share, so that each is in the page once."""

    def __init__(self) -> None:
        self.actions: Table[Action] = Table()
        self.entries: Table[object] = Table()
        self.clients: Table[tuple[str, int | None]] = Table()
        self.orders: Table[tuple[int, ...]] = Table()
        self.situations: Table[tuple[str, str]] = Table()
        self.kinds: Table[_Kind] = Table()

    def graph(self, subject: Subject, found: Exploration) -> Json:
        """One explored model. `states` has the states that were reached, in the explorer's order, and after
        them those that only a violating step leads to; `steps` has, by reached state, kind and end by turns."""
        graph, config = found.graph, subject.config
        numbers: dict[State, int] = {state: number for number, state in enumerate(graph)}
        steps: list[list[int]] = []
        for before in graph:
            row: list[int] = []
            for action in subject.model.enabled(config, before) if before in graph.edges else ():
                after, outcome = subject.model.step(config, before, action)
                kind = _kind(subject.judged_by, make_transition(config, before, action, outcome, after))
                row += [self.kinds.number(kind), numbers.setdefault(after, len(numbers))]
            steps.append(row)
        return {
            "model": subject.name,
            "bound": f"{config.clients}x{config.keys}",
            "race": config.race,
            "clause": subject.clause,
            "story": subject.story,
            "judged": [prop.clause for prop in subject.judged_by],
            "complete": found.complete,
            "reached": found.states,
            "transitions": found.transitions,
            "states": [self._state(subject, state) for state in numbers],
            "steps": steps,
            "counterexamples": [
                {
                    "clause": violation.clause,
                    "message": violation.message,
                    "run": self._run(violation.path),
                    "cycle": None if violation.cycle is None else self._run(violation.cycle),
                }
                for violation in found.violations
            ],
            "witnesses": [
                {"clause": clause, "statement": statement, "run": self._run(path)}
                for (clause, statement), path in found.witnesses.items()
            ],
        }

    def tables(self) -> Json:
        """The values that the graphs name by number. To be called after the last graph."""
        kinds = self.kinds.rows(
            lambda kind: [
                self.actions.number(kind.action),
                kind.outcome,
                kind.rule,
                kind.breaks,
                [self.situations.number(name) for name in kind.met],
            ]
        )
        return {
            "actions": self.actions.rows(lambda action: [str(action), *action]),
            "entries": self.entries.rows(lambda entry: entry),
            "clients": self.clients.rows(lambda client: client),
            "orders": self.orders.rows(lambda order: order),
            "kinds": kinds,
            "situations": self.situations.rows(lambda name: name),
        }

    def _state(self, subject: Subject, state: State) -> list[int]:
        """Numbers of the entries by key, the clients, the orders by key; last, the clients that are owed
        something in the end, as bits."""
        owed = 0
        for prop in subject.judged_by:
            if prop.eventually:
                pending = prop.eventually.pending
                owed |= sum(1 << client for client in range(subject.config.clients) if pending(state, client))
        return [
            *(self.entries.number(entry) for entry in state.entries),
            *(self.clients.number(client) for client in state.clients),
            *(self.orders.number(order) for order in state.order),
            owed,
        ]

    def _run(self, path: Sequence[Action]) -> list[int]:
        return [self.actions.number(action) for action in path]


def _kind(judged_by: Sequence[Property], t: Transition) -> _Kind:
    breaks, met = [], []
    for prop in judged_by:
        message = (prop.on_step(t) if prop.on_step else "") or (
            prop.in_state(t.config, t.after) if prop.in_state else ""
        )
        if message:
            breaks.append((prop.clause, message))
        met += [(prop.clause, situation.statement) for situation in prop.sometimes if situation.seen(t)]
    assert t.action.client is not None
    rule = RULE_OF.get((t.action.name, t.before.clients[t.action.client].phase), 0)
    return _Kind(t.action, t.outcome, rule, tuple(breaks), tuple(met))


# ------------------------------------------------------------------------------------------------------------
# The data


def rules() -> dict[int, str]:
    """The numbered rules at the head of kmutex_model.actions; empty where Python strips docstrings (-OO)."""
    text = inspect.cleandoc(actions.__doc__ or "")
    found = re.finditer(r"^Rule (\d+) +(.*(?:\n +.*)*)", text, re.MULTILINE)
    return {int(match[1]): " ".join(match[2].split()) for match in found}


class Embedded(NamedTuple):
    """The data that the page embeds, and their size."""

    json: Json
    graphs: int
    states: int
    steps: int


@functools.cache
def predictions() -> list[Json]:
    """Return the questions of the lessons before their runs, with the runs that answer them, run now."""
    return [as_data(one) for one in lessons()]


def embedded(chosen: Sequence[Subject] | None = None) -> Embedded:
    """The graphs of the subjects, explored now. ValueError: a broken model breaks nothing, or another clause."""
    encoder = _Encoder()
    graphs: list[Json] = []
    states = steps = 0
    for subject in subjects() if chosen is None else chosen:
        found = explore(subject.model, subject.config, properties=subject.judged_by)
        broken = {violation.clause for violation in found.violations}
        if subject.clause not in (broken or {""}):
            raise ValueError(f"{subject.name} is to violate {subject.clause or 'nothing'} and violates {broken}")
        graphs.append(encoder.graph(subject, found))
        states, steps = states + found.states, steps + found.transitions
    lasting = [(prop.clause, prop.eventually.fair) for prop in ALL if prop.eventually]
    assert len(lasting) == 1  # The page shows one kind of lasso.
    data: Json = {
        "words": {
            "actions": dict(ACTION_WORDS),
            "outcomes": dict(OUTCOME_WORDS),
            "phases": dict(PHASE_WORDS),
            "letters": dict(LETTERS),
            "terms": dict(TERMS),
        },
        "about": dict(ABOUT),
        "rules": {str(number): text for number, text in rules().items()},
        "clauses": [{"id": p.clause, "title": clause_of(p.clause).title, "statement": p.statement} for p in ALL],
        "lasting": {"clause": lasting[0][0], "fair": lasting[0][1]},
        "graphs": graphs,
        "lessons": predictions(),
        **encoder.tables(),
    }
    return Embedded(data, len(graphs), states, steps)


SCRIPTS = ("walk.js", "picture.js", "parts.js", "draw.js", "lessons.js", "explore.js")


def page(data: Json) -> str:
    """The page that embeds this, as the text of one HTML file that loads nothing."""
    return one_file("explore.html", SCRIPTS, data)
