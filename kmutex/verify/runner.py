"""Putting a subject through its plan: workers, the clock, and what to say when a subject misbehaves.

The subject runs in worker processes only. Whatever it does there (hang, exit, print), this process goes on.
"""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple

from kmutex import _sandbox
from kmutex._sandbox import Confinement
from kmutex.engine.calls import LOOKING, Calls
from kmutex.engine.features import LEADERS, clauses_off, unpromised
from kmutex.engine.judge import Event
from kmutex.engine.shapes import Shape
from kmutex.engine.watchdog import Watchdog
from kmutex.verify.evidence import Result, Row, Violation
from kmutex.verify.plan import Unit, plan
from kmutex.verify.results import UnitResult, rows

WORKERS = 2
SHARE_OF_CHANCE = 0.5
"""Random runs end when this share of the time is over; what is planned may take all of it."""
LEAST_PATIENCE = 2.0
"""Seconds that a subject may stay silent, at the least, as Watchdog counts them."""
STARTING = 60.0
"""Real seconds that a process may take until it comes to the subject: much more than one does on a busy machine."""


SMALLER = 0.2
"""Share of the time, at the most, in which counterexamples are made smaller."""


LONGEST_REPLAY = 30.0
"""Real seconds for one run, its subject's import among them."""


class SubjectError(Exception):
    """The subject could not be put to work. One line; the exit status is 3."""


class ReplayError(Exception):
    """The schedule can't be replayed on this subject. One line; the exit status is 4."""


@dataclass
class Progress:
    """What can be shown while it runs."""

    method: str = ""
    done: int = 0
    planned: int = 0
    runs: int = 0
    violated: tuple[str, ...] = ()
    seconds: float = 0.0


class Declared(NamedTuple):
    """What is said of a subject: what it is not held to, by names of features, and how it is called."""

    without: tuple[str, ...] = ()
    unpromised: tuple[str, ...] = ()
    leaders: tuple[str, ...] = ()
    """What a single flight does: of `features.LEADERS`."""
    lenient: bool = True
    """Whether it may turn out to be re-entrant or striped, or to take keys of one type only."""
    calls: Calls = LOOKING


def _declared(
    target: str, without: tuple[str, ...], promises: Iterable[str] | None, calls: Calls = LOOKING
) -> Declared:
    loose = unpromised(promises, target.partition(":")[0])
    leaders = tuple(name for name in promises or () if name in LEADERS)
    return Declared(without, tuple(sorted(loose - frozenset(without))), leaders, bool(loose), calls)


class Checked(NamedTuple):
    """What `verify` returns: what the factory makes, and the evidence about it."""

    shape: Shape
    rows: list[Row]


@dataclass
class _Driven:
    outcomes: list[UnitResult] = field(default_factory=list)
    left: list[Unit] = field(default_factory=list)
    symptoms: list[tuple[frozenset[str], str]] = field(default_factory=list)
    """What programs with these ingredients have shown."""


def verify(
    target: str,
    *,
    without: tuple[str, ...] = (),
    promises: Iterable[str] | None = None,
    calls: Calls = LOOKING,
    seconds: float = 30.0,
    workers: int = WORKERS,
    first: Sequence[Unit] = (),
    confined: Confinement | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Checked:
    """The evidence about the locker that ``target`` (MODULE:FACTORY) makes, in at most ``seconds`` real seconds.

    without: declared features that are off. promises: what it is held to beside what makes a keyed mutex
    (`features.PROMISES`); None: all of them for this library's own lockers, else none. calls: names, where looking does
    not find them. workers: processes that share the work. first: units that come before the plan. confined: what each
    worker may use; None: all that this process may.
    SubjectError: it could not be put to work. UnknownFeatureError: ``without`` or ``promises`` names none.
    ReplayError: a unit of ``first`` is for the other kind of subject.
    """
    declared = _declared(target, without, promises, calls)
    off = clauses_off(without)
    crew = _Workers(target, declared, seconds, workers, confined)
    try:
        shape, whole = crew.begin()
        for unit in first:
            if (unit.level in ("locks", "bytecode")) != (shape.kind == "threads"):
                raise ReplayError(f"{unit.program} @{unit.level} is not for a subject of {shape.kind}")
        passes = chain([list(first)] if first else [], _passes(shape, off, whole))
        report = _drive(crew, passes, seconds, on_progress)
    finally:
        crew.end()
    table = rows(
        target,
        shape,
        off,
        report.outcomes,
        report.left,
        unpromised=clauses_off(declared.unpromised) - off,
        why="the time was over",
    )
    left = min(seconds - crew.elapsed(), SMALLER * seconds)
    table = shortened(table, target, declared, report.symptoms, left, confined)
    if not whole:
        detail = "this Python does not report every instruction to a tracer; switches at bytecodes are not covered"
        clause = "KM-ONE" if shape.form == "flight" else "KM-EXCL"
        table.append(Row(clause, "interleavings at bytecodes", "-", 0, Result.INCONCLUSIVE, 0.0, detail, target))
    return Checked(shape, table)


class Replayed(NamedTuple):
    """What `replay` returns."""

    found: list[Violation]
    """What the run breaks."""
    unpromised: list[Violation]
    """What it breaks and the subject does not promise."""
    events: list[Event]
    """Who did what; where it breaks something, as far as the last of it."""
    endless: bool
    """Whether it had no end."""


def replay(
    target: str,
    schedule: str,
    *,
    without: tuple[str, ...] = (),
    promises: Iterable[str] | None = None,
    calls: Calls = LOOKING,
    lines: bool = False,
    confined: Confinement | None = None,
    seconds: float = LONGEST_REPLAY,
) -> Replayed:
    """Run one schedule again.

    promises: as for `verify`. lines: whether the picture has the lines of the subject's code at which a client was left
    standing. seconds: the longest that it may take.
    SubjectError, ReplayError: there was no run.
    """
    clauses_off(without)
    crew = _Workers(target, _declared(target, without, promises, calls), seconds, workers=1, confined=confined)
    try:
        crew.begin()
        worker = crew.workers[0]
        worker.tell({"replay": schedule, "lines": lines})
        answer = crew.answer(seconds)
    finally:
        crew.end()
    if answer is None:
        raise SubjectError(f"{target} did not come to an end within {seconds:g} s")
    if answer["kind"] == "unreplayable":
        raise ReplayError(answer["message"])
    if answer["kind"] != "replayed":
        raise SubjectError(crew.explain(answer))
    if answer["exited"]:
        raise SubjectError(f"{target} tried to leave the process: {answer['exited']}")
    return Replayed(
        [Violation.from_plain(found) for found in answer["found"]],
        [Violation.from_plain(found) for found in answer["unpromised"]],
        [Event(*event) for event in answer["events"]],
        answer["endless"],
    )


def _drive(
    crew: _Workers,
    passes: Iterator[list[Unit]],
    seconds: float,
    on_progress: Callable[[Progress], None],
) -> _Driven:
    report = _Driven()
    progress = Progress()
    symptoms = report.symptoms
    broken: set[str] = set()
    caught = False
    waiting: list[Unit] = []
    over = False
    while True:
        now = crew.elapsed()
        late = now > seconds * SHARE_OF_CHANCE
        if not waiting and not over:
            # A pass begins when the one before has ended, so that its symptoms are known.
            if any(worker.unit is not None for worker in crew.workers):
                pass
            else:
                waiting = next(passes, [])
                # Chance adds nothing to what was caught already.
                while caught and waiting and waiting[0].deeper:
                    waiting = next(passes, [])
                if not waiting or (waiting[0].task == "some" and waiting[0].seed and (late or caught)):
                    over, waiting = True, []
                progress.planned += len(waiting)
        for worker in crew.workers:
            if worker.unit is None and waiting:
                unit = waiting.pop(0)
                if unit.program in broken and (unit.task, unit.level) != ("every", "locks"):
                    progress.planned -= 1
                    continue
                known = sorted({name for parts, name in symptoms if parts < unit.ingredients or not unit.program})
                worker.begin(unit, known)
                progress.method = unit.method
        if over and all(worker.unit is None for worker in crew.workers):
            return report
        answer = crew.answer(0.2)
        progress.seconds = crew.elapsed()
        if answer is not None and answer["kind"] == "outcome":
            worker = answer["worker"]
            outcome = UnitResult.from_plain(answer["outcome"])
            worker.unit = None
            if answer["exited"]:
                raise SubjectError(f"{crew.target} tried to leave the process: {answer['exited']}")
            report.outcomes.append(outcome)
            progress.done += 1
            progress.runs += outcome.runs
            for found in outcome.found:
                caught = True
                if outcome.unit.program:
                    # What a check without a program shows has unknown ingredients: nothing is plainer for it.
                    symptoms.append((outcome.unit.ingredients, found.symptom))
                    broken.add(outcome.unit.program)
                progress.violated = tuple(dict.fromkeys([*progress.violated, *found.clauses]))
        elif answer is not None and answer["kind"] != "beat":
            if report.outcomes and any(outcome.found for outcome in report.outcomes):
                # It was caught already; that it also gets out of hand changes nothing.
                report.left += waiting
                return report
            raise SubjectError(crew.explain(answer))
        on_progress(progress)
        if crew.elapsed() > seconds:
            report.left += waiting + [worker.unit for worker in crew.workers if worker.unit is not None]
            for rest in passes:
                if rest[0].task == "some":
                    break
                report.left += rest
            return report


def shortened(
    table: list[Row],
    target: str,
    declared: Declared,
    symptoms: list[tuple[frozenset[str], str]],
    seconds: float,
    confined: Confinement | None = None,
) -> list[Row]:
    """The same rows, their first counterexamples without what these do not need, as far as the seconds reach.

    One that takes the subject out of hand, or that is not seen again, stays as it is.
    """
    first = [row.violations[0] for row in table if row.violations and row.violations[0].schedule]
    end = time.monotonic() + seconds
    made: dict[Violation, Violation] = {}
    crew = _Workers(target, declared, max(seconds, 1.0), workers=1, confined=confined)
    try:
        if first and seconds > 0:
            crew.begin()
        for violation in dict.fromkeys(first):
            left = end - time.monotonic()
            if left <= 0:
                break
            order = {"schedule": violation.schedule, "clauses": violation.clauses, "seconds": left / 2}
            order["symptoms"] = [(sorted(parts), symptom) for parts, symptom in symptoms]
            crew.workers[0].tell({"smaller": order})
            answer = crew.answer(left + LEAST_PATIENCE)
            if answer is None or answer["kind"] != "smaller":
                break
            if answer["found"]:
                made[violation] = Violation.from_plain(answer["found"])
    except SubjectError:
        pass  # It was judged before; that it now does not come up again changes nothing.
    finally:
        crew.end()
    return [_with_short(row, made) for row in table]


def _with_short(row: Row, made: dict[Violation, Violation]) -> Row:
    """The row with the short form of its first violation; without it, where that is no longer about its clause."""
    if not row.violations or row.violations[0] not in made:
        return row
    left = [one for one in (made[row.violations[0]], *row.violations[1:]) if row.clause in one.clauses]
    if left:
        return replace(row, detail=left[0].message, violations=tuple(left))
    if row.cases:
        return replace(row, result=Result.HOLDS, detail="", violations=())
    return replace(row, result=Result.INCONCLUSIVE, detail="no run put it to the test", violations=())


def _passes(shape: Shape, off: frozenset[str], bytecode: bool) -> Iterator[list[Unit]]:
    for units in plan(shape, off):
        kept = [unit for unit in units if bytecode or unit.level != "bytecode"]
        if kept:
            yield kept


class _Worker:
    def __init__(
        self,
        target: str,
        declared: Declared,
        patience: float,
        answers: queue.Queue[Any],
        confined: Confinement | None,
    ) -> None:
        config: dict[str, Any] = {"target": target, **declared._asdict(), "patience": patience}
        config["calls"] = declared.calls.as_plain()
        if confined is not None:
            config["confine"] = {"megabytes": confined.megabytes, "seconds": confined.seconds}
        self.unit: Unit | None = None
        self.there = self.ready = False
        """Whether it can take the subject, and whether the subject has come through its first lock()."""
        self._taken = False
        self._started = time.monotonic()
        self._process = _sandbox.start(
            "kmutex.verify.worker",
            config,
            folder=None if confined is None else confined.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.watchdog = Watchdog(self._process.pid)
        self._answers = answers
        threading.Thread(target=self._listen, daemon=True).start()

    def late(self, seconds: float) -> bool:
        """Whether it does not come up, or the subject has taken more than ``seconds`` to come through."""
        if not self.there:
            return time.monotonic() - self._started > STARTING
        return self._taken and not self.ready and self.watchdog.silent() > seconds

    def take(self) -> None:
        """Let it import the subject, once it is there."""
        if self.there and not self._taken:
            self._taken = True
            self.watchdog.sign()
            self.tell({"take": True})

    def begin(self, unit: Unit, known: list[str]) -> None:
        self.unit = unit
        self.watchdog.sign()
        self.tell({"unit": asdict(unit), "known": known})

    def tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        # Where it is gone already, its end is on the way to us.
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()

    def kill(self) -> None:
        _sandbox.kill(self._process)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            # The subject may have written there too.
            if not (isinstance(answer, dict) and "kind" in answer):
                continue
            answer["worker"] = self
            self.watchdog.sign()
            self._answers.put(answer)
        self._answers.put({"kind": "gone", "worker": self, "status": self._process.wait()})


class _Workers:
    def __init__(
        self,
        target: str,
        declared: Declared,
        seconds: float,
        workers: int = WORKERS,
        confined: Confinement | None = None,
    ) -> None:
        self.target = target
        self._declared = declared
        self._begun = time.monotonic()
        self._seconds = seconds
        self._patience = max(LEAST_PATIENCE, min(5.0, seconds / 4))
        self._answers: queue.Queue[Any] = queue.Queue()
        self._number = workers
        self._confined = confined
        self.workers: list[_Worker] = []

    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    def begin(self) -> tuple[Shape, bool]:
        """Start the workers; the subject's shape, and whether bytecode switches are seen."""
        for _ in range(self._number):
            self.workers.append(_Worker(self.target, self._declared, self._patience, self._answers, self._confined))
        shape, bytecode = None, True
        first = max(self._seconds / 2, self._patience + 1)
        while not all(worker.ready for worker in self.workers):
            answer = self.answer(0.2)
            if answer is None:
                if any(worker.late(first) for worker in self.workers):
                    raise SubjectError(
                        f"{self.target} did not come back from its import, its factory or its first lock()"
                    )
            elif answer["kind"] == "there":
                answer["worker"].there = True
            elif answer["kind"] == "ready":
                shape, bytecode = Shape(**answer["shape"]), bytecode and answer["bytecode"]
                answer["worker"].ready = True
            else:
                raise SubjectError(self.explain(answer))
            # What is refused is refused once: the others take the subject when one has come through with it.
            for worker in self.workers if shape else self.workers[:1]:
                worker.take()
        assert shape is not None
        return shape, bytecode

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """The next answer, waiting for it at most so long. A busy worker's long silence is an answer too."""
        try:
            found: dict[str, Any] = self._answers.get(timeout=seconds)
            return found
        except queue.Empty:
            for worker in self.workers:
                if worker.unit is not None and worker.watchdog.silent() > 2 * self._patience + 1:
                    return {"kind": "silent", "worker": worker}
            return None

    def explain(self, answer: dict[str, Any]) -> str:
        """One line for an answer that ends it all."""
        kind = answer["kind"]
        if kind == "failed":
            return str(answer["message"])
        if kind == "uncontrolled":
            return f"{self.target} is out of the scheduler's control: {answer['message']}"
        if kind == "gone":
            return f"{self.target} ended the process it ran in (status {answer['status']})"
        if kind == "silent":
            return f"{self.target} hangs: no sign of life for {2 * self._patience + 1:.0f} s"
        if kind == "broken":
            return f"the worker failed, which is an error of kmutex, not of {self.target}: {answer['message']}"
        return f"unexpected answer {kind}"

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
