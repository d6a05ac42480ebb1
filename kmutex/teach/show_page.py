"""The page of `kmutex show`: runs of real code in one file, to step through, with their variations.

Each run has the source, and the model that goes through the same calls (`beside_model`). All facts are computed here:
the scripts walk the recorded runs and have no rules of a lock.
"""

from __future__ import annotations

import linecache
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

from kmutex._clauses import CLAUSES, FLIGHT_CLAUSES
from kmutex._text import printable
from kmutex.engine.explorer import parse_schedule
from kmutex.engine.program import FLIGHT
from kmutex.engine.recording import Recording, Run
from kmutex.teach.beside_flight import model_of_flights
from kmutex.teach.beside_model import LOCK, Beside, beside
from kmutex.teach.clauses import clause_of
from kmutex.teach.explore_page import PHASE_WORDS
from kmutex.teach.one_file import Json, Table, one_file
from kmutex_model.state import State

SCRIPTS = ("picture.js", "parts.js", "show.js")
AROUND = 40
"""Lines of a file that are shown before the first and after the last line of a client."""


class Story(NamedTuple):
    """A run on the page."""

    command: str
    """The command for another schedule of the same locker, without that schedule."""
    recording: Recording


def page(target: str, taken: str, stories: Sequence[Story], off: Iterable[str], said_by: str) -> str:
    """Return the page.

    Args:
        target: MODULE:FACTORY.
        taken: Which methods are called for what.
        stories: The runs.
        off: Clauses that are not judged.
        said_by: Versions and the like, for the foot of the page.
    """
    return one_file("show.html", SCRIPTS, data(target, taken, stories, off, said_by))


def data(target: str, taken: str, stories: Sequence[Story], off: Iterable[str], said_by: str) -> Json:
    """Return the data that the page embeds."""
    events: Table[Hashable] = Table()
    states: Table[Hashable] = Table()
    files: Table[str] = Table()
    lines: dict[str, list[int]] = {}

    def place(text: str) -> tuple[int, int]:
        file, _, line = text.rpartition(":")
        if not file:
            return -1, 0
        lines.setdefault(file, []).append(int(line))
        return files.number(file), int(line)

    told = [_story(story, events, states, place) for story in stories]
    flights = any(parse_schedule(story.recording.runs[0].schedule).program.kinds & FLIGHT for story in stories)
    shown = FLIGHT_CLAUSES if flights else [name for name in CLAUSES if name not in _NOT_OF_ONE_RUN]
    return {
        "target": target,
        "taken": taken,
        "foot": said_by,
        "off": sorted(off),
        "words": _OF_FLIGHTS if flights else {"phases": {**PHASE_WORDS, **_OF_CODE}},
        "clauses": [
            {"id": name, "title": clause_of(name).title, "statement": clause_of(name).statement} for name in shown
        ],
        "stories": told,
        "events": events.rows(lambda event: event),
        "states": states.rows(lambda state: state),
        "files": files.rows(lambda name: _file(name, lines[name])),
    }


_NOT_OF_ONE_RUN = ("KM-LOOP", "KM-ALL")
"""Clauses that are checked by other means than a run of a program."""
_OF_CODE = {
    "asking": "is in its call for {key}",
    "leaving": "is in its call that lets go of {key}",
}
"""The state of a client, as seen from outside."""
_OF_FLIGHTS: Json = {
    "phases": {
        "idle": PHASE_WORDS["idle"],
        "asking": "is in its call for the result of {key}",
        "holding": "is in its call, and its work for {key} is run",
        "leaving": "is in its call, and the run of its work for {key} is over",
        "leading": "leads: its work for {key} is run",
        "following": "follows the run for {key}",
        "told": "has the result for {key}; its call has not returned yet",
        "failed": "has the error for {key}; its call has not returned yet",
    },
    "roles": {
        "holder": "leader",
        "holders": "at work",
        "isHeldBy": "led by",
        "free": "nobody's call leads it",
        "idle": "no run of its work goes on",
        "queue": "followers",
    },
}
"""The same for a single flight, in its code and in the model, and the names of the roles at a key."""


def _story(
    story: Story, events: Table[Hashable], states: Table[Hashable], place: Callable[[str], tuple[int, int]]
) -> Json:
    first = story.recording.runs[0]
    schedule = parse_schedule(first.schedule)
    program = schedule.program
    clients = 1 + max((mark.client for run in story.recording.runs for mark in run.marks), default=0)
    # To have a key forgotten is not in the model.
    forgets = "g" in program.kinds
    model = LOCK if not program.kinds & FLIGHT else None if forgets else model_of_flights(story.recording.leader)
    runs: list[Json] = []
    for run in story.recording.runs:
        way = None if model is None else beside(run.marks, program.keys, clients, model)
        runs.append(_run(run, way, events, states, place))
    return {
        "command": story.command,
        "program": str(program),
        "level": schedule.level,
        "keys": list(program.keys),
        "clients": clients,
        "left": story.recording.left,
        "sound": _soundest(story.recording.runs),
        "runs": runs,
    }


def _run(
    run: Run,
    way: Beside | None,
    events: Table[Hashable],
    states: Table[Hashable],
    place: Callable[[str], tuple[int, int]],
) -> Json:
    total = run.shared + len(run.events)
    # The table may be wrong without a wrong call: len() shows it.
    parts = [at for at in (way.parts if way else -1, *(breach.at for breach in run.breaches)) if at >= 0]
    return {
        "parent": run.parent,
        "choice": run.choice,
        "shared": run.shared,
        "schedule": run.schedule,
        "events": [
            events.number((event.client, printable(event.text), event.change, event.key, *place(event.place)))
            for event in run.events
        ],
        "choices": [[choice.at, choice.pick, choice.moves] for choice in run.choices if choice.at < total],
        "tested": run.tested,
        "breaches": [list(breach) for breach in run.breaches],
        "counts": [[mark.at, mark.counted] for mark in run.marks if mark.counted is not None],
        "phases": [mark.at for mark in run.marks if mark.what == "phase"],
        "model": [[moment.at, states.number(_state(moment.states))] for moment in way.moments] if way else [],
        "parts": min(parts, default=-1),
        "ended": run.ended,
    }


def _state(by_key: Sequence[State]) -> Hashable:
    """Return one state for all keys: their entries, and the state of each client at each of its keys."""
    entries = tuple(None if state.entries[0] is None else tuple(state.entries[0]) for state in by_key)
    clients = tuple(
        tuple(
            (state.clients[number].phase, key)
            for key, state in enumerate(by_key)
            if state.clients[number].key is not None
        )
        for number in range(len(by_key[0].clients))
    )
    return entries, clients


def _soundest(runs: Sequence[Run]) -> int:
    """Return the sound run that has most in common with the first; -1 if there is none, or the first is sound."""
    sound = [number for number, run in enumerate(runs) if not run.breaches and run.ended]
    if not sound or not runs[0].breaches:
        return -1

    def common(number: int) -> int:
        picks = [choice.pick for choice in runs[number].choices]
        first = [choice.pick for choice in runs[0].choices]
        same = next(
            (at for at, (a, b) in enumerate(zip(picks, first, strict=False)) if a != b), min(len(picks), len(first))
        )
        return runs[0].choices[same].at if same < len(first) else len(runs[0].events)

    return max(sound, key=common)


def _file(name: str, used: Sequence[int]) -> Json:
    source = [printable(line.rstrip("\n").expandtabs()) for line in linecache.getlines(name)]
    first = max(1, min(used) - AROUND)
    return {"name": os.path.basename(name), "first": first, "lines": source[first - 1 : max(used) + AROUND]}


def by_default(kind: str, *, flight: bool, tries: bool) -> str:
    """Return the schedule for a locker without a violation: three clients ask for one key at once."""
    level = "locks" if kind == "threads" else "tasks"
    if flight:
        return f"0da 1da 2da | 0ea @{level}"
    return f"0+a-a 1+a-a 2+a-a @{level}{'' if tries else '-'}"
