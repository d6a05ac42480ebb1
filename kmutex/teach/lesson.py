"""The lessons: a locker with a mistake each, the text about it, and the run that shows it, found anew each time."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from kmutex.engine.explorer import Schedule, parse_schedule
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.judge import Judge
from kmutex.engine.run_judge import Event
from kmutex.engine.shapes import Kind
from kmutex.engine.source_lines import own_code, stops, with_lines

PACKAGE = "kmutex.teach.lessons"
PARTS = ("Situation", "Question", "Answer", "Exercise", "Hints")
"""The sections of a lesson's text, in their order."""
MOST_PREEMPTIONS = 2
"""The deepest bound up to which a lesson's mistake is looked for."""

_NAME = re.compile(r"l(\d\d)_\w+")


class NoSuchLessonError(LookupError):
    """There is no lesson with that number. One line."""


class NotFoundError(Exception):
    """The search did not find the run that a lesson is about."""


@dataclass(frozen=True)
class Lesson:
    """One lesson, as its two files say it."""

    number: int
    name: str
    title: str
    clause: str
    """The clause that its locker breaks."""
    schedule: Schedule
    """The run in which it does. What `find` finds must be this one: a test holds them against each other."""
    symptom: str
    """The clause by whose symptom the run is shown, where it shows more than one; "" if it doesn't matter."""
    without: tuple[str, ...]
    """Features that its locker is declared to lack, and a repaired one may lack too."""
    parts: dict[str, str]
    """The text of each section."""
    source: str
    """The code of its locker."""

    @property
    def target(self) -> str:
        """Its locker as MODULE:FACTORY."""
        return f"{PACKAGE}.{self.name}:Locker"

    @property
    def options(self) -> str:
        """What it lacks, as arguments of a command."""
        return "".join(f" --without {feature}" for feature in self.without)

    @property
    def kind(self) -> Kind:
        """Whom its locker is for."""
        return "threads" if self.schedule.level in ("locks", "bytecode") else "asyncio"

    def make(self) -> Callable[[], Any]:
        """The class of its locker, which is imported now."""
        factory: Callable[[], Any] = importlib.import_module(f"{PACKAGE}.{self.name}").Locker
        return factory


@dataclass(frozen=True)
class Counterexample:
    """What a search has found."""

    clauses: tuple[str, ...]
    message: str
    schedule: Schedule
    runs: int
    """How many ways were tried."""
    events: tuple[Event, ...]
    """What happened in it, with each line of the locker's code that was come to."""

    @property
    def short(self) -> list[Event]:
        """The events, with those lines only at which a client was left standing."""
        return stops(self.events)


@functools.cache
def lessons() -> tuple[Lesson, ...]:
    """All of them, in order."""
    names = [entry.name.removesuffix(".md") for entry in files(PACKAGE).iterdir() if entry.name.endswith(".md")]
    return tuple(_read(name) for name in sorted(names))


def lesson(number: int) -> Lesson:
    """The lesson with this number. NoSuchLessonError: there is none."""
    for one in lessons():
        if one.number == number:
            return one
    raise NoSuchLessonError(f"there is no lesson {number}; they are 1 to {len(lessons())}: kmutex lesson list")


def about(clause: str, kind: Kind) -> Lesson | None:
    """The first lesson about this clause; one for that kind of locker, if there is one."""
    found = [one for one in lessons() if one.clause == clause]
    return next((one for one in found if one.kind == kind), found[0] if found else None)


def find(one: Lesson) -> Counterexample:
    """Look for a run of the lesson's program that breaks its clause, in every way, with ever more preemptions.

    NotFoundError: there is none.
    """
    bench = Harness(one.make(), without=one.without, promises=PROMISES)
    program, level = one.schedule.program, one.schedule.level
    runs = 0
    with bench.control():
        for bound in range(MOST_PREEMPTIONS + 1):
            result = bench.explorer.every(program, level, bound)
            runs += result.runs
            fitting = [found for found in result.found.values() if found.finding.clauses[0] == one.clause]
            if fitting:
                finding, schedule = min(fitting, key=lambda found: found.finding.symptom != one.symptom)
                before = sys.gettrace()
                try:
                    lines = bench.explorer.again(schedule, judging=with_lines(Judge, own_code(bench.make)))
                finally:
                    sys.settrace(before)
                seen = next(found.finding for found in lines.found.values() if found.finding.symptom == finding.symptom)
                return Counterexample(finding.clauses, finding.message, schedule, runs, seen.events)
    raise NotFoundError(f"none of {runs} runs of {program} breaks {one.clause}")


def _read(name: str) -> Lesson:
    head, *sections = (files(PACKAGE) / f"{name}.md").read_text(encoding="utf-8").split("\n## ")
    title, *lines = head.strip().splitlines()
    said = dict(line.split(": ", 1) for line in lines if line)
    parts = {heading: body.strip() for heading, _, body in (section.partition("\n") for section in sections)}
    number = _NAME.fullmatch(name)
    assert number is not None, name
    return Lesson(
        int(number[1]),
        name,
        title.removeprefix("# "),
        said["clause"],
        parse_schedule(said["schedule"]),
        said.get("symptom", ""),
        tuple(said["without"].split()),
        parts,
        (files(PACKAGE) / f"{name}.py").read_text(encoding="utf-8"),
    )
