"""Compare the drivers with the model, from one quiescent state to the next.

For each state of the model in which no call is about to return, and each action there, a program leads to the state and
takes the action, with one action in each phase. It runs on the real driver under the scheduler, and after the last
phase the outcome, the waiters that got the key and ``snapshot()`` must be the model's.

Between quiescent states only the default schedule is run. Overlapping calls, and so the race of KM-RACE and an
interrupt within a call, are covered by the interleaving search.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError
from kmutex._keyed import KeyedMutex
from kmutex._keyed_aio import AsyncKeyedMutex
from kmutex.engine.eventloop import LoopRun
from kmutex.engine.keys import key_of
from kmutex.engine.observer import Observer
from kmutex.engine.program import ASKING, Program, Step, parse
from kmutex.engine.search import Chooser
from kmutex.engine.threads import Crew, ThreadRun, replaced
from kmutex.selfcheck.comparison import STRANGER, Observed, StepTally, View, bound_text, by_path, expected_view
from kmutex.verify.evidence import Row
from kmutex_model.actions import CORRECT, Action, action_key
from kmutex_model.properties import make_transition
from kmutex_model.state import Config, State
from kmutex_model.state import Entry as ModelEntry

METHOD = "refinement, drivers"
BOUNDS: tuple[tuple[int, int], ...] = ((3, 2), (4, 1))
"""Clients and keys. Four clients are the fewest with a waiter in the middle of a queue."""

CLAUSES = (
    "KM-EXCL",
    "KM-REF",
    "KM-IDLE",
    "KM-FIFO",
    "KM-HANDOFF",
    "KM-INDEP",
    "KM-CANCEL",
    "KM-EXPIRED",
    "KM-UNHELD",
    "KM-ATOMIC",
    "KM-TOKEN",
)


class Subject(NamedTuple):
    """A driver, and how its calls end."""

    name: str
    make: Callable[[], Any]
    kind: str
    """ "threads" or "asyncio"."""


SUBJECTS = (
    Subject("kmutex:KeyedMutex", KeyedMutex, "threads"),
    Subject("kmutex:AsyncKeyedMutex", AsyncKeyedMutex, "asyncio"),
)


def check(
    say: Callable[[str], None],
    subjects: Sequence[Subject] = SUBJECTS,
    bounds: Sequence[tuple[int, int]] = BOUNDS,
) -> list[Row]:
    """Return one row for each driver and clause. ``bounds`` are clients and keys; ``say`` is called with progress."""
    return [row for subject in subjects for row in _rows(say, subject, bounds)]


def _rows(say: Callable[[str], None], subject: Subject, bounds: Sequence[tuple[int, int]]) -> list[Row]:
    tally = StepTally(METHOD, subject.name, CLAUSES)
    levels = ("locks",) if subject.kind == "threads" else ("tasks", "timeouts")
    for clients, keys in bounds:
        for level in levels:
            say(f"{subject.name}, {bound_text([(clients, keys)])}, {level}")
            if subject.kind == "threads":
                with replaced():
                    _walk(Config(clients, keys, "keep"), subject, _on_threads(subject, Crew()), level, tally)
            else:
                _walk(Config(clients, keys, "pass"), subject, _on_loop(subject, level == "timeouts"), level, tally)
    how = "timeouts and interrupts" if subject.kind == "threads" else "cancelled tasks and timeouts"
    return tally.rows(f"{bound_text(bounds)}, {how} in quiescent states")


Run = Callable[[Program, "QuietWatch"], None]


def _on_threads(subject: Subject, crew: Crew) -> Run:
    return lambda program, watch: _ended(ThreadRun(subject.make, program, Chooser(), watch, crew=crew, keys=key_of))


def _on_loop(subject: Subject, timeouts: bool) -> Run:
    return lambda program, watch: _ended(
        LoopRun(subject.make, program, Chooser(), watch, keys=key_of, timeouts=timeouts)
    )


def _ended(run: ThreadRun | LoopRun) -> None:
    run.run()


def _walk(config: Config, subject: Subject, run: Run, level: str, tally: StepTally) -> None:
    paths: dict[State, tuple[Action, ...]] = {CORRECT.initial(config): ()}
    todo = deque(paths)
    spoilt: set[State] = set()
    while todo:
        state = todo.popleft()
        if state in spoilt:
            tally.skipped += 1
        else:
            tally.states += 1
        for action in CORRECT.enabled(config, state):
            if action.name == "interrupt" and subject.kind == "asyncio":
                # For a task, an interrupt is a cancellation, which is covered already.
                continue
            after, outcome = CORRECT.step(config, state, action)
            after = settled(config, after)
            right = state not in spoilt
            for way in ways(state, action) if right else ():
                program = written((*paths[state], action), config, way)
                t = make_transition(config, state, action, outcome, after)
                watch = QuietWatch(config)
                error = _failure(run, program, watch)
                seen = watch.observed(action, program, error, expected_view(state))
                schedule = f"{program} @{level}"
                right = tally.compare(t, seen, (by_path(t, paths[state], way), schedule)) and right
            if after not in paths:
                paths[after] = (*paths[state], action)
                todo.append(after)
                if not right:
                    spoilt.add(after)


def _failure(run: Run, program: Program, watch: QuietWatch) -> str:
    try:
        run(program, watch)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def settled(config: Config, state: State) -> State:
    """Return the state once every call that has the key has returned."""
    while True:
        wakes = [action for action in CORRECT.enabled(config, state) if action.name == "wake"]
        if not wakes:
            return state
        state = CORRECT.step(config, state, wakes[0]).state


def ways(state: State, action: Action) -> Iterator[str]:
    """Yield the calls for the last action: a release by key or by lease, a request with or without a limit."""
    if action.name == "release":
        yield from ("key", "lease")
    elif action.name == "request":
        yield from ("lock", "timed lock", "lease")
    else:
        yield ""


def written(actions: Sequence[Action], config: Config, way: str = "") -> Program:
    """Return the program that takes these actions, each in its own phase.

    How a client asks depends on what happens to it later: if it is cancelled, it asks with a limit, and so on. An old
    lease belongs to an additional client, from before the first action.
    """
    keeper = config.clients
    stale = sorted({action.key for action in actions if action.name == "stale_release" and action.key is not None})
    phases = [f"{keeper}[{_letter(key)}^{_letter(key)}" for key in stale]
    state = CORRECT.initial(config)
    for at, action in enumerate(actions):
        number = action_key(state, action)
        assert number is not None
        key = _letter(number)
        last = at == len(actions) - 1
        if action.name == "request":
            asks = _asks(actions[at + 1 :], action.client, way)
            asks = {"timed lock": "~", "lease": "["}.get(way, "+") if last else asks
            phases.append(f"{action.client}{asks}{key}")
        elif action.name in ("cancel", "interrupt"):
            phases.append(f"c{action.client}")
        elif action.name == "stale_release":
            phases.append(f"{keeper}^{key}")
        elif action.name == "release":
            phases.append(f"{action.client}{']' if last and way == 'lease' else '-'}{key}")
        else:
            phases.append(f"{action.client}{ {'try': '?', 'stray_unlock': 'x'}[action.name] }{key}")
        state = settled(config, CORRECT.step(config, state, action).state)
    return parse(" | ".join(phases))


def _asks(later: Sequence[Action], client: int | None, way: str) -> str:
    for at, action in enumerate(later):
        if action.client == client:
            if action.name == "release":
                return "[" if way == "lease" and at == len(later) - 1 else "+"
            return {"cancel": "~", "interrupt": "!"}.get(action.name, "+")
    return "+"


def _letter(key: int) -> str:
    return chr(ord("a") + key)


# ------------------------------------------------------------------------------------------------------------
# Observing a run


@dataclass
class QuietMoment:
    """A quiescent state, and the events since the one before."""

    snapshot: Mapping[Any, Entry]
    live: int
    present: tuple[bool, ...]
    waiting: frozenset[int]
    asked: list[int]
    returned: dict[int, Step]
    raised: dict[int, BaseException]


@dataclass
class QuietWatch(Observer):
    """It records each quiescent state. The end of a call shows that it was cancelled; failures are judged elsewhere."""

    config: Config
    moments: list[QuietMoment] = field(default_factory=list)
    stopped: bool = False
    _subject: Any = None
    _asked: list[int] = field(default_factory=list)
    _returned: dict[int, Step] = field(default_factory=dict)
    _raised: dict[int, BaseException] = field(default_factory=dict)

    def made(self, subject: Any) -> None:
        self._subject = subject

    def phase(self, number: int) -> None:
        self._asked, self._returned, self._raised = [], {}, {}

    def called(self, client: int, step: Step) -> None:
        if step.kind in ASKING:
            self._asked.append(client)

    def returned(self, client: int, step: Step) -> None:
        self._returned[client] = step

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self._raised[client] = error

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        keys = [key_of(_letter(key)) for key in range(self.config.keys)]
        self.moments.append(
            QuietMoment(
                dict(self._subject.snapshot()),
                len(self._subject),
                tuple(key in self._subject for key in keys),
                frozenset(waiting),
                self._asked,
                self._returned,
                self._raised,
            )
        )

    def observed(self, action: Action, program: Program, error: str, unseen: View) -> Observed:
        """Return the last phase as a step. ``error`` tells how the run failed; ``unseen`` replaces a missing view."""
        if error or len(self.moments) != len(program.phases) + 1:
            return Observed(error or "the run did not reach its last phase", (), unseen, unseen, False)
        askers: dict[Ticket, int] = {}
        views = [self._view(moment, askers) for moment in self.moments]
        last = self.moments[-1]
        actor = self.config.clients if action.name == "stale_release" else action.client
        assert actor is not None
        outcome = _outcome(action, actor, last)
        for client in sorted(last.raised.keys() - {actor}):
            outcome += f", and client {client} raised {type(last.raised[client]).__name__}"
        told = tuple(sorted(client for client in last.returned if client != actor))
        return Observed(outcome, told, views[-2], views[-1], last.snapshot == self.moments[-2].snapshot)

    def _view(self, moment: QuietMoment, askers: dict[Ticket, int]) -> View:
        # At most one client asks in a phase, so a new ticket in the snapshot is that client's.
        for entry in moment.snapshot.values():
            for ticket in (entry.holder, *entry.waiters):
                if ticket not in askers:
                    askers[ticket] = moment.asked[0] if len(moment.asked) == 1 else STRANGER
        return View(
            tuple(_entry(moment.snapshot.get(key_of(_letter(key))), askers) for key in range(self.config.keys)),
            moment.live,
            moment.present,
        )


def _entry(entry: Entry | None, askers: Mapping[Ticket, int]) -> ModelEntry | None:
    if entry is None:
        return None
    return ModelEntry(askers[entry.holder], tuple(askers[ticket] for ticket in entry.waiters), entry.refs)


_RAISED: dict[str, tuple[tuple[type[BaseException], ...], str]] = {
    "try": ((TimeoutError, asyncio.TimeoutError), "timeout"),
    "cancel": ((TimeoutError, asyncio.TimeoutError, asyncio.CancelledError), "cancelled"),
    "interrupt": ((KeyboardInterrupt,), "interrupted"),
    "release": ((UnheldKeyError,), "unheld"),
    "stray_unlock": ((UnheldKeyError,), "unheld"),
    "stale_release": ((UnheldKeyError,), "unheld"),
}
_RETURNED = {"request": "granted", "try": "granted", "cancel": "kept", "interrupt": "kept"}


def _outcome(action: Action, client: int, moment: QuietMoment) -> str:
    if client in moment.raised:
        error = moment.raised[client]
        kinds, word = _RAISED.get(action.name, ((), ""))
        return word if isinstance(error, kinds) else f"{type(error).__name__}: {error}"
    if client in moment.returned:
        return _RETURNED.get(action.name, "released")
    return "waiting" if client in moment.waiting else "nothing was called"
