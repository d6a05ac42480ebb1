"""The lessons: each has a locker with a mistake, a text about it, and a run that shows it, which is searched each time.

A lesson is two files. The question before the run is a section of its text:

    ## Predict

    The question?

    - An answer.
      `SCHEDULE` client 1: lock a: got it
      The reply to this answer.
    - (right) Another one.
      ...

Each answer has a run, and the line of it that shows whether the answer is right: an event of client 1, or a broken
clause. In the lesson on two loops the run is `loops`.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from kmutex.engine.explorer import Explorer, Schedule, parse_schedule
from kmutex.engine.features import PROMISES
from kmutex.engine.flight_judge import put_on_trial
from kmutex.engine.harness import Harness
from kmutex.engine.program import FLIGHT, Program
from kmutex.engine.run_judge import Event, Finding
from kmutex.engine.shapes import Kind
from kmutex.engine.source_lines import own_code, stops, with_lines
from kmutex.verify.checks.context import Context
from kmutex.verify.checks.event_loops import loops
from kmutex.verify.checks.several import FAMILIES, of_families
from kmutex.verify.plan import Unit
from kmutex.verify.results import UnitResult

PACKAGE = "kmutex.teach.lessons"
PARTS = ("Situation", "Question", "Answer", "Exercise", "Hints")
"""The sections of a lesson's text, in their order."""
MOST_PREEMPTIONS = 2
"""The highest preemption bound in the search for a lesson's mistake."""
SEVERAL, LOOPS = "several", "loops"
"""The checks of `kmutex verify` for mistakes that lock and unlock on one loop do not show."""
FAMILY = next(iter(FAMILIES.values()))
"""The key lists for which a letter stands then."""

_NAME = re.compile(r"l(\d\d)_\w+")
_RUN = re.compile(r"^  `(?P<run>[^`]+)` (?:client (?P<client>\d): )?(?P<shows>.+)", re.MULTILINE)


class NoSuchLessonError(LookupError):
    """There is no lesson with that number. The message is one line."""


class NotFoundError(Exception):
    """The search did not find the run of a lesson."""


@dataclass(frozen=True)
class Choice:
    """One answer to the question of a lesson."""

    letter: str
    text: str
    right: bool
    run: str
    """The schedule of the run that shows whether it is right, or "loops"."""
    lesson: int
    """The number of the lesson whose locker is run."""
    client: int
    """The client of the line that shows it; -1 for a broken clause."""
    shows: str
    """The beginning of that line."""
    reply: str
    """The reply to the answer."""


@dataclass(frozen=True)
class Lesson:
    """One lesson, from its two files."""

    number: int
    name: str
    title: str
    clause: str
    """The clause that its locker breaks."""
    schedule: Schedule
    """The run that breaks it. A test checks that `find` finds this run."""
    symptom: str
    """The symptom by which the run is shown, if it has several; "" if any will do."""
    without: tuple[str, ...]
    """Features that its locker lacks, and a repaired one may lack too."""
    parts: dict[str, str]
    """The text of each section."""
    source: str
    """The code of its locker."""
    ask: str
    """The question to answer before the run is shown."""
    choices: tuple[Choice, ...]
    """The answers to choose from."""
    by: str = ""
    """`SEVERAL`: a letter of the program stands for key lists of hold_all. `LOOPS`: it is used in two loops."""
    seen: str = ""
    """The published bug with the same mistake: OWNER/REPOSITORY#NUMBER, or the name of its tracker."""

    @property
    def code(self) -> str:
        """The source from the first class on."""
        return self.source[self.source.index("\nclass ") + 1 :]

    @property
    def target(self) -> str:
        """Its locker as MODULE:FACTORY."""
        return f"{PACKAGE}.{self.name}:Locker"

    @property
    def options(self) -> str:
        """The features that it lacks, as options of a command."""
        return "".join(f" --without {feature}" for feature in self.without)

    @property
    def kind(self) -> Kind:
        """ "threads" or "asyncio"."""
        return "threads" if self.schedule.level in ("locks", "bytecode") else "asyncio"

    @property
    def plain(self) -> bool:
        """Whether lock and unlock show its mistake, so that a learner's tests of them can catch it."""
        return not self.by and not self.schedule.program.kinds & FLIGHT

    def make(self) -> Callable[[], Any]:
        """The class of its locker, imported on use."""
        factory: Callable[[], Any] = importlib.import_module(f"{PACKAGE}.{self.name}").Locker
        return factory


@dataclass(frozen=True)
class Counterexample:
    """The result of a search."""

    clauses: tuple[str, ...]
    message: str
    schedule: Schedule
    runs: int
    """The number of schedules that were tried."""
    events: tuple[Event, ...]
    """The events of the run, with each executed line of the locker's code."""

    @property
    def short(self) -> list[Event]:
        """Return the events with only the last line of each client before a switch."""
        return stops(self.events)


@functools.cache
def lessons() -> tuple[Lesson, ...]:
    """All of them, in order."""
    names = [entry.name.removesuffix(".md") for entry in files(PACKAGE).iterdir() if entry.name.endswith(".md")]
    return tuple(_read(name) for name in sorted(names))


def lesson(number: int) -> Lesson:
    """Return the lesson with this number; raise NoSuchLessonError if there is none."""
    for one in lessons():
        if one.number == number:
            return one
    raise NoSuchLessonError(f"there is no lesson {number}; they are 0 to {len(lessons()) - 1}: kmutex lesson list")


def about(clause: str, kind: Kind) -> Lesson | None:
    """The first lesson about this clause, after that on the notation; one for that kind of locker, if there is one."""
    found = [one for one in lessons()[1:] if one.clause == clause]
    return next((one for one in found if one.kind == kind), found[0] if found else None)


def find(one: Lesson) -> Counterexample:
    """Search for a run of the lesson's program that breaks its clause, in every schedule, with rising preemption bound.

    Raises:
        NotFoundError: There is no such run.
    """
    if one.by == LOOPS:
        return _in_two_loops(one)
    program, level = one.schedule.program, one.schedule.level
    runs = 0
    with _stage(one, program) as explorer:
        for bound in range(MOST_PREEMPTIONS + 1):
            result = explorer.every(program, level, bound)
            runs += result.runs
            found = {_named(one, found.finding): found.schedule for found in result.found.values()}
            fitting = [finding for finding in found if finding.clauses[0] == one.clause]
            if fitting:
                finding = min(fitting, key=lambda finding: finding.symptom != one.symptom)
                schedule = found[finding]
                lines = _played(one, explorer, schedule)
                seen = next(again for again in lines[1] if again.symptom == finding.symptom)
                return Counterexample(finding.clauses, finding.message, schedule, runs, seen.events)
    raise NotFoundError(f"none of {runs} runs of {program} breaks {one.clause}")


def play(choice: Choice) -> tuple[Event, ...]:
    """Return the events of the run that decides an answer, with source lines, up to the last broken clause or the
    epilogue."""
    one = lesson(choice.lesson)
    if choice.run == "loops":
        return _in_two_loops(one).events
    schedule = parse_schedule(choice.run)
    with _stage(one, schedule.program) as explorer:
        events, found = _played(one, explorer, schedule)
        last = max(found, key=lambda finding: len(finding.events), default=None)
        return tuple(stops(events if last is None else last.events))


def shown_in(choice: Choice, events: tuple[Event, ...]) -> bool:
    """Return whether a run has the line that decides the answer."""
    return any(event.client == choice.client and event.text.startswith(choice.shows) for event in events)


def as_data(one: Lesson) -> dict[str, Any]:
    """A lesson's prediction for a page, which can run nothing: the answers with their runs, as they are just now.

    first: the number of the line at which `code` begins. runs: each once, with its schedule and its events: client (-1:
    of nobody), and text or the number of a line. choices: run is the number of the run, shows that of the event which
    the answer is held against.
    """
    runs: dict[str, tuple[Event, ...]] = {}
    choices = []
    for choice in one.choices:
        if choice.run not in runs:
            runs[choice.run] = play(choice)
        shows = next(number for number, event in enumerate(runs[choice.run]) if shown_in(choice, (event,)))
        said = {"text": choice.text, "right": choice.right, "reply": choice.reply}
        choices.append({**said, "run": list(runs).index(choice.run), "shows": shows})
    return {
        **{name: getattr(one, name) for name in ("number", "title", "code")},
        "first": one.source.count("\n") - one.code.count("\n") + 1,
        "question": one.ask,
        # With its options and this schedule, `kmutex show` steps through it; not where the program alone is no run.
        "show": "" if one.by else f"{one.target}{one.options}",
        "runs": [
            {
                "schedule": schedule,
                "events": [
                    [event.client, int(event.place.rpartition(":")[2]) if event.place else event.text]
                    for event in events
                ],
            }
            for schedule, events in runs.items()
        ],
        "choices": choices,
    }


@contextmanager
def _stage(one: Lesson, program: Program) -> Iterator[Explorer]:
    """What runs programs with the keys of this one on the lesson's locker."""
    bench = Harness(one.make(), without=one.without, promises=PROMISES)
    with bench.control():
        if one.by == SEVERAL:
            yield of_families(bench.explorer, bench.fitted.make, bench.shape, program, FAMILY)
        elif bench.shape.form == "flight":
            yield put_on_trial(bench.shape, bench.fitted.make, bench.explorer)[2]
        else:
            yield bench.explorer


def _played(one: Lesson, explorer: Explorer, schedule: Schedule) -> tuple[tuple[Event, ...], list[Finding]]:
    """One run with its lines: what happened before the epilogue, and what is broken in the whole."""
    before = sys.gettrace()
    try:
        played = explorer.again(schedule, judging=with_lines(explorer.judging, own_code(one.make())))
    finally:
        sys.settrace(before)
    assert played.last is not None
    return tuple(_with_keys(one, played.last.events[: played.last.before_epilogue])), [
        _named(one, found.finding) for found in played.found.values()
    ]


def _named(one: Lesson, finding: Finding) -> Finding:
    """The finding by the name that it has where a letter stands for several keys."""
    if one.by != SEVERAL:
        return finding
    *events, verdict = _with_keys(one, finding.events)
    verdict = verdict._replace(text=f"{one.clause}: {finding.message}")
    return finding._replace(clauses=(one.clause, *finding.clauses), events=(*events, verdict))


def _with_keys(one: Lesson, events: Iterable[Event]) -> Iterator[Event]:
    """The events of a lesson; where a letter stands for key lists, with the list that each call has got."""
    lists = itertools.cycle(FAMILY)
    asked: dict[int, str] = {}
    for event in events:
        if one.by == SEVERAL and not event.place and event.client >= 0:
            if event.text.endswith(" ...") and event.change == "asks":
                asked[event.client] = ", ".join(next(lists))
            verb, _, rest = event.text.partition(f" {event.key}")
            verb = "leave" if verb.startswith("unlock") else "hold_all"
            event = event._replace(text=f"{verb}({asked.get(event.client, '')}){rest}")
        yield event


def _in_two_loops(one: Lesson) -> Counterexample:
    bench = Harness(one.make(), without=one.without, promises=PROMISES)
    with bench.control():
        context = Context(bench.fitted.make, bench.shape, bench.explorer, Counter[int]().__getitem__, frozenset())
        outcome = UnitResult(Unit(-1, LOOPS, LOOPS))
        loops(context, outcome)
    for found in outcome.found:
        if found.clauses[0] == one.clause:
            return Counterexample(found.clauses, found.message, one.schedule, outcome.runs, found.events)
    raise NotFoundError(f"none of {outcome.runs} runs in two loops breaks {one.clause}")


def _read(name: str) -> Lesson:
    head, *sections = (files(PACKAGE) / f"{name}.md").read_text(encoding="utf-8").split("\n## ")
    title, *lines = head.strip().splitlines()
    said = {name: value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    parts = {heading: body.strip() for heading, _, body in (section.partition("\n") for section in sections)}
    matched = _NAME.fullmatch(name)
    assert matched is not None, name
    number = int(matched[1])
    ask, *choices = parts.pop("Predict").split("\n- ")
    return Lesson(
        number,
        name,
        title.removeprefix("# "),
        said["clause"],
        parse_schedule(said["schedule"]),
        said.get("symptom", ""),
        tuple(said["without"].split()),
        parts,
        (files(PACKAGE) / f"{name}.py").read_text(encoding="utf-8"),
        _joined(ask),
        tuple(_choice(letter, number, text) for letter, text in zip("abcdefgh", choices, strict=False)),
        said.get("by", ""),
        said.get("seen", ""),
    )


def _choice(letter: str, number: int, text: str) -> Choice:
    held = _RUN.search(text)
    assert held is not None, text
    claim, reply = text[: held.start()], text[held.end() :]
    right = claim.startswith("(right) ")
    return Choice(
        letter,
        _joined(claim.removeprefix("(right) ")),
        right,
        held["run"],
        number,
        int(held["client"] or -1),
        held["shows"],
        _joined(reply),
    )


def _joined(text: str) -> str:
    return " ".join(text.split())
