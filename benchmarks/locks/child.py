"""One round, in a process of its own: reads what to do from standard input, and writes a line of JSON for each event.

Run by run.py. Within the round each row is measured in several passes, each pass once over all subjects in an order
drawn from the seed, so that what the machine does meanwhile meets all of them.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "benchmarks"), str(ROOT)]

import kmutex  # noqa: E402
from lockers import ASYNCIO, FLOOR, REFERENCES, THREADS, Subject, installed  # noqa: E402
from workloads import Row, lock_unlock, prove, rows  # noqa: E402

FIRST_TIMES = 64
MOST_TIMES = 1_000_000
PROBE = 1_000
"""How often the work is done to see how long it takes, where it may take too long."""
TICK = 1e-6
"""What a sample takes at least, where the clock has not moved."""

Say = Callable[[dict[str, Any]], None]


def fitted(run: Callable[[Subject, int], float], subject: Subject, seconds: float) -> int:
    """How many times to do the work for a sample to take about so long. It is the warm-up, too."""
    times = FIRST_TIMES
    while True:
        took = max(run(subject, times) * times, TICK)
        if took >= seconds / 4 or times >= MOST_TIMES:
            return max(FIRST_TIMES, min(MOST_TIMES, int(times * seconds / took)))
        times *= 4


def bounded(row: Row, subject: Subject) -> int:
    """How often the work is done where that is given; less where it would take too long. 0: it is not given."""
    if not row.most_seconds or row.steady <= PROBE:
        return row.steady
    start = time.perf_counter()
    row.run(subject, PROBE)
    return min(row.steady, max(PROBE, int(PROBE * row.most_seconds / (time.perf_counter() - start))))


def sample(row: Row, subject: Subject, times: int) -> float:
    gc.collect()
    gc.disable()
    try:
        return row.run(subject, times)
    finally:
        gc.enable()


def measure(row: Row, subjects: list[Subject], passes: int, seconds: float, draw: random.Random, say: Say) -> None:
    """Samples of one row. A subject that does not lock, does not come to an end, or raises, is told and left out."""
    floor = next(one for one in REFERENCES if one.name == FLOOR and one.kind == row.kind)
    taking = [subject for subject in subjects if row.applies(subject)]
    times: dict[str, int] = {}
    for subject in list(taking):
        try:
            times[subject.name] = bounded(row, subject) or fitted(row.run, subject, seconds * row.long)
        except Exception as error:
            say({"failed": subject.name, "kind": row.kind, "row": row.name, "why": f"{type(error).__name__}: {error}"})
            taking.remove(subject)
    floor_times = 0 if row.counted else fitted(lock_unlock, floor, seconds)
    for number in range(1 if row.counted or row.slow else passes):
        order = draw.sample(taking, len(taking))
        figures: dict[str, float] = {}
        for subject in order:
            try:
                figures[subject.name] = sample(row, subject, times[subject.name])
            except Exception as error:
                say(
                    {
                        "failed": subject.name,
                        "kind": row.kind,
                        "row": row.name,
                        "why": f"{type(error).__name__}: {error}",
                    }
                )
                taking.remove(subject)
        floor_figure = figures.get(FLOOR) or (lock_unlock(floor, floor_times) if floor_times else None)
        for name, figure in figures.items():
            say(
                {
                    "row": row.name,
                    "kind": row.kind,
                    "subject": name,
                    "pass": number,
                    "figure": figure,
                    "times": times[name],
                    "floor": floor_figure,
                }
            )


def instructions(plan: dict[str, Any]) -> None:
    """Do the work of one row with one subject, for somebody who counts the instructions of the whole process."""
    every = [*REFERENCES, *THREADS, *ASYNCIO]
    (subject,) = (one for one in every if [one.kind, one.name] == plan["instructions"])
    (row,) = (one for one in rows() if [one.kind, one.name] == plan["row"])
    row.run(subject, plan["times"])


def run(plan: dict[str, Any], say: Say) -> None:
    draw = random.Random(plan["seed"])
    random.seed(plan["seed"])
    subjects, missing = installed([*REFERENCES, *THREADS, *ASYNCIO])
    wanted = set(plan["subjects"])
    subjects = [subject for subject in subjects if not wanted or subject.name in wanted or subject.name == FLOOR]
    say(
        {
            "python": sys.version.split()[0],
            "gil": getattr(sys, "_is_gil_enabled", lambda: True)(),
            "compiled": kmutex.compiled,
            "versions": {f"{one.name} ({one.kind})": one.version() for one in subjects},
            "missing": missing,
        }
    )
    found = [row for row in rows(tuple(plan["queues"]), plan["distinct"]) if [row.kind, row.name] in plan["rows"]]
    for subject in list(subjects):
        if subject in REFERENCES or not any(row.applies(subject) for row in found):
            continue
        try:
            prove(subject)
        except Exception as error:
            say(
                {
                    "failed": subject.name,
                    "kind": subject.kind,
                    "row": "prove",
                    "why": f"{type(error).__name__}: {error}",
                }
            )
            subjects.remove(subject)
    for row in found:
        if row.counted and not plan["counted"]:
            continue
        say({"begins": row.title, "kind": row.kind})
        measure(row, subjects, plan["passes"], plan["seconds"], draw, say)


if __name__ == "__main__":
    given = json.load(sys.stdin)
    if "instructions" in given:
        instructions(given)
    else:
        run(given, lambda event: print(json.dumps(event), flush=True))
