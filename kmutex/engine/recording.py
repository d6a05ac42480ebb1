"""A full record of a run, and of its variations: what else could have happened.

At each choice of a recorded run, every other alternative is run too, followed by the default schedule; and then the
same for those runs, up to a number of runs. The common part of a run and its variation is stored once.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kmutex._timeouts import TIMED_OUT
from kmutex.engine.explorer import Explorer, Schedule
from kmutex.engine.flight import WorkRun
from kmutex.engine.flight_judge import FlightJudge
from kmutex.engine.observer import SubjectFailedError
from kmutex.engine.program import Step
from kmutex.engine.run_judge import Event, RunJudge
from kmutex.engine.search import Chooser, Move, UnreplayableError
from kmutex.engine.source_lines import with_lines

MOST_EVENTS = 3000
"""The most events of a run that are kept; an endless run has any number."""
_REFUSALS = (*TIMED_OUT, asyncio.CancelledError, KeyboardInterrupt)


WORK = {f"work {how}": how for how in ("ended", "failed", "cancelled")}
"""Marks of a run of the work that is over, with how it ended."""


class Mark(NamedTuple):
    """An event for an observer, in a form that a model can follow."""

    at: int
    """The number of events up to it, inclusive."""
    what: str
    """called, returned, refused (a wait that is over), raised (another error), cancelled, quiet, phase; of a single
    flight also "work begins" and those of `WORK`."""
    client: int = -1
    kind: str = ""
    """The kind of the step, as in a program."""
    key: str = ""
    waiting: tuple[int, ...] = ()
    """In a quiescent state: the clients whose calls have not returned."""
    counted: int | None = None
    """The result of len() then; None if it was not called."""


class Choice(NamedTuple):
    """A point at which a run could have continued differently."""

    at: int
    """The number of events before it."""
    pick: int
    moves: tuple[tuple[int, str, int], ...]
    """Each alternative: the client, the kind of move, and the preemptions that it costs."""


class Breach(NamedTuple):
    """A broken clause."""

    at: int
    """The number of events that show it."""
    clauses: tuple[str, ...]
    message: str
    promised: bool


@dataclass
class Run:
    """One recorded run."""

    parent: int
    """The number of the run that it varies; -1 for the first run."""
    choice: int
    """The number of the choice at which they differ."""
    shared: int
    """The number of events in common."""
    schedule: str
    """The schedule, as text."""
    events: tuple[Event, ...]
    """Its events after the common part; for the first run, all events."""
    choices: tuple[Choice, ...]
    """All of them."""
    marks: tuple[Mark, ...]
    """All of them."""
    tested: dict[str, int]
    """By clause that was put to the test and held: the number of events until then."""
    breaches: tuple[Breach, ...]
    ended: bool
    """Whether it ended, by itself or because the judge needed no more events."""


@dataclass
class Recording:
    """The runs: first the requested one; the others come after the runs that they vary."""

    runs: list[Run] = field(default_factory=list)
    left: int = 0
    """The number of alternatives in these runs that were not run."""
    leader: str = ""
    """For a single flight, what the failure of a leader means: `Policy`; "cancel": its cancellation may be shared."""

    def as_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"runs": [vars(run) for run in self.runs], "left": self.left, "leader": self.leader}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Recording:
        """Restore a recording from `as_plain`, after JSON."""
        return cls([_run(one) for one in plain["runs"]], plain["left"], plain["leader"])


def _run(plain: Mapping[str, Any]) -> Run:
    choices = [
        Choice(at, pick, tuple((who, how, cost) for who, how, cost in moves)) for at, pick, moves in plain["choices"]
    ]
    return Run(
        **{
            **plain,
            "events": tuple(Event(*event) for event in plain["events"]),
            "choices": tuple(choices),
            "marks": tuple(Mark(*mark)._replace(waiting=tuple(mark[5])) for mark in plain["marks"]),
            "breaches": tuple(Breach(at, tuple(names), words, kept) for at, names, words, kept in plain["breaches"]),
        }
    )


def record(
    explorer: Explorer,
    schedule: Schedule,
    own: Callable[[str], bool],
    *,
    most: int,
    go_on: Callable[[], bool] = lambda: True,
) -> Recording:
    """Record the run of a schedule, with source lines, and its variations.

    Args:
        explorer: Runs the subject.
        schedule: The schedule.
        own: Tells whether a file has the subject's code.
        most: The most runs.
        go_on: Tells whether there is still time.

    Raises:
        UnreplayableError: The run does not reach every recorded choice.
        SubjectFailedError: The subject tried to leave the process.
    """
    held_to = getattr(explorer.judging, "keywords", {})
    found = Recording(leader="cancel" if held_to.get("cancels") else held_to.get("policy", ""))
    whole: list[tuple[Event, ...]] = []
    waiting: deque[tuple[int, int, tuple[int, ...]]] = deque()

    def keep(parent: int, choice: int, picks: Sequence[int]) -> None:
        run, events = _recorded(explorer, schedule, own, picks)
        if parent >= 0:
            run.parent, run.choice = parent, choice
            run.shared = found.runs[parent].choices[choice].at
            if events[: run.shared] != whole[parent][: run.shared]:
                found.left += 1  # The subject is not deterministic, so this is not a variation of that run.
                return
            run.events = events[run.shared :]
        number = len(found.runs)
        found.runs.append(run)
        whole.append(events)
        taken = [one.pick for one in run.choices]
        for at in range(choice + 1, len(run.choices)):
            if run.choices[at].at <= len(events):
                others = (pick for pick in range(len(run.choices[at].moves)) if pick != taken[at])
                waiting.extend((number, at, (*taken[:at], pick)) for pick in others)

    keep(-1, -1, _picks(schedule))
    while waiting and len(found.runs) < most and go_on():
        keep(*waiting.popleft())
    found.left += len(waiting)
    return found


def _picks(schedule: Schedule) -> list[int]:
    picks = dict(schedule.picks)
    return [picks.get(at, 0) for at in range(max(picks, default=-1) + 1)]


def _recorded(
    explorer: Explorer, schedule: Schedule, own: Callable[[str], bool], picks: Sequence[int]
) -> tuple[Run, tuple[Event, ...]]:
    """Return one run, and its events up to the last violation."""
    chosen = tuple((at, pick) for at, pick in enumerate(picks) if pick)
    choosers: list[_Noting] = []

    def choosing(picks: Sequence[int]) -> Chooser:
        choosers.append(_Noting(picks))
        return choosers[-1]

    judges: list[Any] = []
    marking = with_lines(_marking(explorer.judging), own)

    def judging(**of_run: Any) -> RunJudge:
        judge = marking(**of_run)
        judges.append(judge)
        choosers[-1].events = judge.events
        return judge

    before = sys.gettrace()
    try:
        result = explorer.again(schedule._replace(picks=chosen), judging=judging, choosing=choosing)
    finally:
        sys.settrace(before)
    if result.exited:
        raise SubjectFailedError(f"it tried to leave the process: {result.exited}")
    if result.left_at is not None:
        raise UnreplayableError(f"choice {result.left_at} differs from the recorded run")
    judge, chooser = judges[-1], choosers[-1]
    breaches = [Breach(len(one.events), one.clauses, one.message, True) for one in judge.findings]
    # A verdict about a clause that is not promised is not an event of the run.
    breaches += [Breach(len(one.events) - 1, one.clauses, one.message, False) for one in judge.unpromised]
    last = max((one.at for one in breaches), default=len(judge.events)) if judge.findings else len(judge.events)
    events = tuple(judge.events[: min(last, MOST_EVENTS)])
    choices = (
        Choice(
            at, pick, tuple((_client(schedule, move), move.how, cost) for move, cost in zip(moves, costs, strict=True))
        )
        for (at, moves), (pick, costs) in zip(chooser.noted, chooser.path, strict=True)
    )
    run = Run(
        parent=-1,
        choice=-1,
        shared=0,
        schedule=str(schedule._replace(picks=tuple(sorted(chooser.recorded().items())))),
        events=events,
        choices=tuple(choice for choice in choices if choice.at <= len(events)),
        marks=tuple(mark for mark in judge.marks if mark.at <= len(events)),
        tested={clause: at for clause, at in judge.tested.items() if at <= len(events)},
        breaches=tuple(sorted(breaches)),
        ended=not result.endless,
    )
    return run, events


def _client(schedule: Schedule, move: Move) -> int:
    """Return the client of a move; -1 for the event loop, or a thread of the subject."""
    return move.who if move.who < schedule.program.clients else -1


class _Noting(Chooser):
    """Notes the position and the alternatives of each choice."""

    sees = True

    def __init__(self, picks: Sequence[int]) -> None:
        super().__init__(picks)
        self.noted: list[tuple[int, Sequence[Move]]] = []
        self.events: Sequence[Event] = ()

    def choose(self, costs: Sequence[int], moves: Sequence[Move] = ()) -> int:
        pick = super().choose(costs, moves)
        self.noted.append((len(self.events), moves))
        return pick


def _marking(judging: Callable[..., RunJudge]) -> Callable[..., RunJudge]:
    made: Any = judging
    known: dict[str, Any] = {}
    if isinstance(judging, functools.partial):
        made, known = judging.func, judging.keywords
    marks = _FlightMarks if issubclass(made, FlightJudge) else _Marks
    return functools.partial(type(f"{made.__name__}WithMarks", (marks, made), {}), **known)


class _Marks(RunJudge):
    """A judge that also records its events, and when a clause was first put to the test."""

    def __init__(self, **of_judge: Any) -> None:
        super().__init__(**of_judge)
        self.marks: list[Mark] = []
        self.tested: dict[str, int] = {}

    def phase(self, number: int) -> None:
        super().phase(number)
        self._mark("phase")

    def called(self, client: int, step: Step) -> None:
        super().called(client, step)
        self._mark("called", client, step)

    def returned(self, client: int, step: Step) -> None:
        super().returned(client, step)
        self._mark("returned", client, step)

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        what = "refused" if self._refuses(client, error) else "raised"
        super().raised(client, step, error)
        self._mark(what, client, step)

    def cancelled(self, client: int) -> None:
        super().cancelled(client)
        self._mark("cancelled", client)

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self.counted = None
        super().quiet(waiting, overdue)
        self.marks.append(Mark(len(self.events), "quiet", waiting=tuple(sorted(waiting)), counted=self.counted))

    def _refuses(self, client: int, error: BaseException) -> bool:
        return isinstance(error, _REFUSALS)

    def _witness(self, clause: str) -> None:
        super()._witness(clause)
        self.tested.setdefault(clause, len(self.events))

    def _mark(self, what: str, client: int = -1, step: Step | None = None, key: str = "") -> None:
        kind, key = ("", key) if step is None else step
        self.marks.append(Mark(len(self.events), what, client, kind, key))


class _FlightMarks(_Marks, FlightJudge):
    """The same of a single flight, with when each run of the work begins and ends."""

    def began(self, run: WorkRun) -> None:
        super().began(run)
        self._mark("work begins", run.client, None, run.key)

    def over(self, run: WorkRun) -> None:
        super().over(run)
        self._mark(f"work {run.how}", run.client, None, run.key)

    def _refuses(self, client: int, error: BaseException) -> bool:
        # An interrupt that struck another caller's work is an error of that work.
        struck = client in self._calls and self._calls[client].cancelled
        return super()._refuses(client, error) and (struck or isinstance(error, asyncio.CancelledError))
