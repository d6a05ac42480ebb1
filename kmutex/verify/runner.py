"""Run the plan for a subject: the workers, the clock, and the errors for a subject that misbehaves.

The subject runs in worker processes only. Whatever it does there (hang, exit, print), this process continues.
"""

from __future__ import annotations

import contextlib
import json
import math
import queue
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, NamedTuple, Protocol

from kmutex import _sandbox
from kmutex._sandbox import Confinement
from kmutex.engine.calls import LOOKING, Calls
from kmutex.engine.features import LEADERS, clauses_off, unpromised
from kmutex.engine.recording import Recording
from kmutex.engine.run_judge import Event
from kmutex.engine.shapes import Shape
from kmutex.engine.watchdog import Watchdog
from kmutex.verify.causes import same_cause
from kmutex.verify.evidence import Result, Row, Violation, shared
from kmutex.verify.plan import SEEDS, Bytecodes, Unit, plan
from kmutex.verify.results import UnitResult, rows

WORKERS = 2
SHARE_OF_CHANCE = 0.5
"""The share of the time after which random schedules end; planned work may take all of it."""
LEAST_PATIENCE = 2.0
"""The least number of seconds that a subject may be silent, as Watchdog counts them."""
STARTING = 60.0
"""Real seconds that a process may take before it imports the subject: far more than needed on a busy machine."""


SHORTENING = 0.4
"""The most real seconds for shrinking a counterexample before it is shown."""
AFTER_VIOLATION = 1.4
"""Real seconds that a search continues after a violation, if it need not find all."""
LONGEST_START = 30.0
"""Real seconds that a subject may take until its first lock() returns, if no time is given."""
LONGEST_REPLAY = 30.0
"""Real seconds for one run, including the import of the subject."""
LONGEST_RECORDING = 20.0
"""Real seconds after which no further variation of a recorded run is begun."""


class SubjectError(Exception):
    """The subject could not be run. The message is one line; the exit status is 3."""


class ReplayError(Exception):
    """The schedule can't be replayed on this subject. The message is one line; the exit status is 4."""


@dataclass
class Progress:
    """The progress of a check."""

    method: str = ""
    done: int = 0
    planned: int = 0
    runs: int = 0
    violated: tuple[str, ...] = ()
    seconds: float = 0.0


class Declared(NamedTuple):
    """What is declared of a subject: the features that are not required of it, and how it is called."""

    without: tuple[str, ...] = ()
    unpromised: tuple[str, ...] = ()
    leaders: tuple[str, ...] = ()
    """What a single flight does, of `features.LEADERS`."""
    lenient: bool = True
    """Whether it may be found to be re-entrant or striped, or to take keys of one type only."""
    calls: Calls = LOOKING


def declared_of(
    target: str, without: tuple[str, ...], promises: Iterable[str] | None, calls: Calls = LOOKING
) -> Declared:
    """Return what is declared of a target, for its workers."""
    loose = unpromised(promises, target.partition(":")[0])
    leaders = tuple(name for name in promises or () if name in LEADERS)
    return Declared(without, tuple(sorted(loose - frozenset(without))), leaders, bool(loose), calls)


class Checked(NamedTuple):
    """The result of `verify`: the subject's shape, and the evidence."""

    shape: Shape
    rows: list[Row]


class Plan(NamedTuple):
    """The amount of work, apart from the limit in real seconds."""

    seed: int = 0
    """The seed for random schedules and histories."""
    runs: int | None = None
    """The most runs of each program by each method. The plan is then run to its end, however long that takes, with one
    pass of random schedules. None: as many as the plan says."""
    quick: bool = False
    """Whether to skip the deeper passes and random schedules, for a check after every save of a file."""
    after: float = math.inf
    """Real seconds that the search continues once a clause is violated."""
    complete: bool = False
    """Whether planned work that was not run makes a clause inconclusive, even if only the bounds depend on it."""


BY_MODE = {
    "quick": Plan(runs=8, quick=True, after=AFTER_VIOLATION),
    "full": Plan(runs=200, after=AFTER_VIOLATION),
}
"""Fixed amounts of work, so that the result does not depend on the machine: for every save, and for every change."""


@dataclass
class Driven:
    """The work that a crew has done."""

    outcomes: list[UnitResult] = field(default_factory=list)
    left: list[Unit] = field(default_factory=list)
    symptoms: list[tuple[frozenset[str], str]] = field(default_factory=list)
    """Pairs of the ingredients of a program, and a symptom that it has shown."""
    told: list[Violation] = field(default_factory=list)
    """The violations that were shown, one for each cause."""
    names: set[tuple[str, ...]] = field(default_factory=set)
    """The clauses of all violations that were shown."""
    why: str = "the time was over"
    """Why work is left."""


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
    how: Plan = Plan(),  # noqa: B008
    on_progress: Callable[[Progress], None] = lambda progress: None,
    on_violation: Callable[[Violation], None] = lambda violation: None,
) -> Checked:
    """Check the locker that ``target`` makes.

    Args:
        target: MODULE:FACTORY.
        without: Features that it lacks, of `features.FEATURES`.
        promises: What it promises, of `features.PROMISES`. None: all for this library's own lockers, else no promise.
        calls: Names of its methods, if they are not found automatically.
        seconds: The most real seconds. No limit if ``how`` gives the number of runs.
        workers: The number of processes that share the work.
        first: Units that are done before the plan.
        confined: What each worker may use; None: as much as this process.
        how: The amount of work.
        on_progress: Called with the progress.
        on_violation: Called with the first violation of each cause, as soon as it is found.

    Raises:
        SubjectError: The subject could not be run.
        UnknownFeatureError: ``without`` or ``promises`` has an unknown name.
        ReplayError: A unit of ``first`` is for the other kind of subject.
    """
    declared = declared_of(target, without, promises, calls)
    off = clauses_off(without)
    crew = _Workers(target, declared, seconds, workers, confined)
    try:
        shape, bytecodes = crew.begin()
        for unit in first:
            if (unit.level in ("locks", "bytecode")) != (shape.kind == "threads"):
                raise ReplayError(f"{unit.program} @{unit.level} is not for a subject of {shape.kind}")
        passes = chain([list(first)] if first else [], passes_of(shape, off, bytecodes, how))
        report = drive(crew, passes, seconds, how.after, on_progress, on_violation)
    finally:
        crew.end()
    left = [replace(unit, required=True) for unit in report.left] if how.complete else report.left
    table = table_of(target, shape, declared, report, left, bytecodes, workers)
    return Checked(shape, table)


def table_of(
    target: str,
    shape: Shape,
    declared: Declared,
    report: Driven,
    left: Sequence[Unit],
    bytecodes: Bytecodes,
    workers: int = 1,
) -> list[Row]:
    """Return the rows of evidence from a crew's work. ``left`` is planned work that was not run."""
    off = clauses_off(declared.without)
    loose = clauses_off([*declared.unpromised, *shape.loose]) - off
    table = shared(rows(target, shape, off, report.outcomes, left, unpromised=loose, why=report.why), workers)
    if bytecodes == "none":
        # No part of the plan is missing: under the GIL, no other thread runs between two steps of such code.
        detail = "not run, since the subject ran no bytecode of its own, as when it is compiled"
        table.append(Row("-", "interleavings at bytecodes", "-", 0, Result.NOTED, 0.0, detail, target))
    elif bytecodes == "unseen":
        detail = "this Python does not report every instruction of a function; switches at bytecodes are not covered"
        clause = "KM-ONE" if shape.form == "flight" else "KM-EXCL"
        table.append(Row(clause, "interleavings at bytecodes", "-", 0, Result.INCONCLUSIVE, 0.0, detail, target))
    return table


class Replayed(NamedTuple):
    """The result of `replay`."""

    found: list[Violation]
    """The violations in the run."""
    unpromised: list[Violation]
    """Broken clauses that the subject does not promise."""
    events: list[Event]
    """The events; on a violation, up to the last one that shows it."""
    endless: bool
    """Whether it did not end."""
    left_at: int | None = None
    """The first choice that differs from the recorded run; None if all are equal."""


def replay(
    target: str,
    schedule: str,
    *,
    without: tuple[str, ...] = (),
    promises: Iterable[str] | None = None,
    calls: Calls = LOOKING,
    confined: Confinement | None = None,
    seconds: float = LONGEST_REPLAY,
) -> Replayed:
    """Replay one schedule.

    On a violation, events are cut after the last one that shows it, and have the source line at which each client was.

    Args:
        target: As for `verify`, and so for ``without``, ``promises``, ``calls`` and ``confined``.
        schedule: The schedule, as text.
        seconds: The longest time that it may take.

    Raises:
        SubjectError: The subject could not be run.
        ReplayError: The schedule does not fit the subject.
    """
    declared = declared_of(target, without, promises, calls)
    [answer] = _answers(target, declared, [{"replay": schedule}], "replayed", seconds, confined)
    if answer["exited"]:
        raise SubjectError(f"{target} tried to leave the process: {answer['exited']}")
    return Replayed(
        [Violation.from_plain(found) for found in answer["found"]],
        [Violation.from_plain(found) for found in answer["unpromised"]],
        [Event(*event) for event in answer["events"]],
        answer["endless"],
        answer["left_at"],
    )


def record(
    target: str,
    schedules: Sequence[str],
    *,
    most: int,
    without: tuple[str, ...] = (),
    promises: Iterable[str] | None = None,
    calls: Calls = LOOKING,
    seconds: float = LONGEST_RECORDING,
) -> list[Recording]:
    """Record a full run of each schedule, and runs that differ from it in one choice.

    Args:
        target: As for `verify`, and so for ``without``, ``promises`` and ``calls``.
        schedules: The schedules, as text.
        most: The most additional runs for each schedule.
        seconds: Real seconds after which no further run of a schedule begins.

    Raises:
        SubjectError: The subject could not be run.
        ReplayError: A schedule does not fit the subject.
    """
    declared = declared_of(target, without, promises, calls)
    orders = [{"record": schedule, "most": most, "seconds": seconds} for schedule in schedules]
    answers = _answers(target, declared, orders, "recorded", LONGEST_REPLAY)
    return [Recording.from_plain(answer["recording"]) for answer in answers]


def _answers(
    target: str,
    declared: Declared,
    orders: Sequence[dict[str, Any]],
    kind: str,
    seconds: float,
    confined: Confinement | None = None,
) -> list[dict[str, Any]]:
    """Return one worker's answer to each order.

    Args:
        target: The target.
        declared: What is declared of it.
        orders: The orders.
        kind: The kind of the expected answers.
        seconds: The longest time that it may be silent.
        confined: What the worker may use.

    Raises:
        SubjectError: The subject could not be run.
        ReplayError: A schedule does not fit the subject.
    """
    clauses_off(declared.without)
    answers: list[dict[str, Any]] = []
    crew = _Workers(target, declared, seconds, workers=1, confined=confined)
    try:
        crew.begin()
        for order in orders:
            crew.workers[0].tell(order)
            answer = crew.answer(seconds)
            while answer is not None and answer["kind"] == "beat":
                answer = crew.answer(seconds)
            if answer is None:
                raise SubjectError(f"{target} did not end within {seconds:g} s")
            if answer["kind"] == "unreplayable":
                raise ReplayError(answer["message"])
            if answer["kind"] != kind:
                raise SubjectError(crew.explain(answer))
            answers.append(answer)
    finally:
        crew.end()
    return answers


def drive(
    crew: Crew,
    passes: Iterator[list[Unit]],
    seconds: float,
    after: float,
    on_progress: Callable[[Progress], None],
    on_violation: Callable[[Violation], None],
) -> Driven:
    """Let a crew do the passes, one after the other, and return its work.

    Raises:
        SubjectError: The subject failed before any result.
    """
    report = Driven()
    progress = Progress()
    symptoms = report.symptoms
    broken: set[str] = set()
    caught = False
    waiting: list[Unit] = []
    over = False
    random = False
    end = seconds

    def tell(violation: Violation) -> None:
        nonlocal caught, end
        if not caught and crew.elapsed() + after < end:
            end = crew.elapsed() + after
            report.why = "it ended after a violation; --all goes on"
        caught = True
        report.names.add(violation.clauses)
        progress.violated = tuple(dict.fromkeys([*progress.violated, *violation.clauses]))
        if not any(same_cause(violation, other) for other in report.told):
            report.told.append(violation)
            on_violation(violation)

    while True:
        now = crew.elapsed()
        late = now > seconds * SHARE_OF_CHANCE
        # A pass begins after the end of the one before, whose symptoms are then known.
        if not waiting and not over and all(worker.unit is None for worker in crew.workers):
            # After a random pass all passes are random, and some take long to make.
            if not (random and (late or caught)):
                waiting = next(passes, [])
            while caught and waiting and waiting[0].deeper:
                waiting = next(passes, [])
            random = random or (bool(waiting) and waiting[0].chance)
            # After a violation, random schedules add little.
            if not waiting or (random and (late or caught)):
                over, waiting = True, []
            progress.planned += len(waiting)
        for worker in crew.workers:
            if worker.ready and worker.unit is None and waiting:
                unit = waiting.pop(0)
                if unit.program in broken and (unit.task, unit.level) != ("every", "locks"):
                    progress.planned -= 1
                    continue
                known = sorted({name for parts, name in symptoms if parts < unit.ingredients or not unit.program})
                worker.begin(unit, known, symptoms, report.names)
                progress.method = unit.method
        if over and all(worker.unit is None for worker in crew.workers):
            return report
        answer = crew.answer(max(0.0, min(0.2, end - crew.elapsed())))
        progress.seconds = crew.elapsed()
        if answer is not None and crew.joins(answer):
            continue
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
                if outcome.unit.program:
                    # The ingredients of a check without a program are unknown, so no program is simpler.
                    symptoms.append((outcome.unit.ingredients, found.symptom))
                    broken.add(outcome.unit.program)
                tell(found)
        elif answer is not None and answer["kind"] == "found":
            violation = Violation.from_plain(answer["violation"])
            answer["worker"].found.append(violation)
            tell(violation)
        elif answer is not None and answer["kind"] == "beat":
            answer["worker"].runs = max(answer["worker"].runs, answer["runs"])
        elif answer is not None:
            if caught:
                # A violation is known, so it does not matter that the subject also failed.
                report.left += waiting
                return _with_halves(report, crew)
            raise SubjectError(crew.explain(answer))
        on_progress(progress)
        if crew.elapsed() >= end:
            report.left += waiting
            for rest in () if random else passes:
                if rest[0].chance:
                    break
                report.left += rest
            return _with_halves(report, crew)


def _with_halves(report: Driven, crew: Crew) -> Driven:
    """Add the units that are under way: their answers so far are an outcome, and the rest is left."""
    for worker in crew.workers:
        if worker.unit is not None and worker.found:
            report.outcomes.append(UnitResult(worker.unit, runs=worker.runs, found=worker.found))
        elif worker.unit is not None:
            report.left.append(worker.unit)
    return report


def passes_of(shape: Shape, off: frozenset[str], bytecodes: Bytecodes, how: Plan) -> Iterator[list[Unit]]:
    """Return the passes for a subject. Without bytecodes, random schedules switch at locks."""
    for units in plan(shape, off, how.seed):
        if how.quick and units[0].chance:
            return
        if how.quick and units[0].deeper:
            continue
        kept = units[:1] if how.quick and units[0].task == "histories" else units
        if bytecodes != "followed":
            kept = [replace(unit, level="locks") if unit.task == "some" else unit for unit in kept]
            kept = [unit for unit in kept if unit.level != "bytecode"]
        if how.runs is not None:
            kept = [replace(unit, most=min(how.runs, unit.most or how.runs)) for unit in kept]
        if kept:
            yield kept
        if how.runs is not None and units[0].chance:
            return


def left_out(shape: Shape, off: frozenset[str], how: Plan) -> list[str]:
    """Return what a plan omits of the whole plan, for a subject with bytecodes: one line for each method or limit."""
    whole, done = (_most(passes_of(shape, off, "followed", each)) for each in (Plan(), how))
    lines = [f"not run: {'; '.join(name for name in whole if name not in done)}"] if whole.keys() - done.keys() else []
    fewer: dict[str, list[str]] = {}
    for name, most in done.items():
        if most != whole[name]:
            fewer.setdefault(f"at most {most:,} runs of each program, not {whole[name]:,}", []).append(name)
    lines += [f"{'; '.join(names)}: {words}" for words, names in fewer.items()]
    return [*lines, "chance: one pass, not as many as there is time for"] if how.runs and "chance" in done else lines


def _most(passes: Iterator[list[Unit]]) -> dict[str, int]:
    """Return the methods of a plan, up to the first random pass, and their most runs of a program."""
    methods: dict[str, int] = {}
    for units in passes:
        unit = units[0]
        # Random passes have their own end, and a check has no program.
        most = min(SEEDS, unit.most or SEEDS) if unit.task in ("some", "histories") else unit.most * bool(unit.program)
        methods.setdefault(unit.method, most)
        if units[0].chance:
            break
    return methods


class Member(Protocol):
    """A worker of a crew."""

    ready: bool
    unit: Unit | None
    runs: int
    found: list[Violation]

    def begin(
        self,
        unit: Unit,
        known: list[str],
        symptoms: Sequence[tuple[frozenset[str], str]],
        told: Iterable[tuple[str, ...]],
    ) -> None:
        """Begin a unit."""


class Crew(Protocol):
    """The workers that do the units."""

    target: str

    @property
    def workers(self) -> Sequence[Member]:
        """Return the workers."""

    def elapsed(self) -> float:
        """Real seconds since it was called."""

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """Return the next answer; wait at most so many seconds."""

    def joins(self, answer: dict[str, Any]) -> bool:
        """Handle an answer that is only about a worker's start; return whether it was one."""

    def explain(self, answer: dict[str, Any]) -> str:
        """One line for an answer that ends it all."""


class _Worker:
    def __init__(
        self,
        target: str,
        declared: Declared,
        patience: float,
        answers: queue.Queue[Any],
        confined: Confinement | None,
        number: int,
    ) -> None:
        config: dict[str, Any] = {"target": target, **declared._asdict(), "patience": patience, "number": number}
        config["calls"] = declared.calls.as_plain()
        config["shortening"] = SHORTENING
        if confined is not None:
            config["confine"] = {"megabytes": confined.megabytes, "seconds": confined.seconds}
        self.unit: Unit | None = None
        self.runs = 0
        """The runs of this unit so far."""
        self.found: list[Violation] = []
        """The violations of this unit so far."""
        self.there = self.ready = False
        """Whether it can load the subject, and whether the subject's first lock() has returned."""
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
        """Return whether it did not start, or the subject's first lock() took more than ``seconds``."""
        if not self.there:
            return time.monotonic() - self._started > STARTING
        return self._taken and not self.ready and self.watchdog.silent() > seconds

    def take(self) -> None:
        """Let it import the subject, once it has started."""
        if self.there and not self._taken:
            self._taken = True
            self.watchdog.sign()
            self.tell({"take": True})

    def begin(
        self,
        unit: Unit,
        known: list[str],
        symptoms: Sequence[tuple[frozenset[str], str]],
        told: Iterable[tuple[str, ...]],
    ) -> None:
        self.unit, self.runs, self.found = unit, 0, []
        self.watchdog.sign()
        order = {"unit": asdict(unit), "known": known, "told": list(told)}
        self.tell({**order, "symptoms": [(sorted(parts), symptom) for parts, symptom in symptoms]})

    def tell(self, order: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        # If it has ended, the news of its end will follow.
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
            # The subject may have written to the same stream.
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

    def begin(self) -> tuple[Shape, Bytecodes]:
        """Start the workers, and return the subject's shape and bytecodes once the first worker is ready.

        The others join while that one works.
        """
        # Parallel commands begin at different cores; in containers they have the same process numbers.
        first = secrets.randbelow(1 << 16)
        for number in range(first, first + self._number):
            mine = self._declared, self._patience, self._answers, self._confined, number
            self.workers.append(_Worker(self.target, *mine))
        while True:
            answer = self.answer(0.2)
            if answer is not None and not self.joins(answer):
                raise SubjectError(self.explain(answer))
            if answer is not None and answer["kind"] == "ready":
                return Shape(**answer["shape"]), answer["bytecodes"]

    def joins(self, answer: dict[str, Any]) -> bool:
        """Handle an answer about a worker's start, and let workers load the subject; return whether it was one."""
        if answer["kind"] not in ("there", "ready"):
            return False
        answer["worker"].there = True
        answer["worker"].ready |= answer["kind"] == "ready"
        # One refusal is enough: the other workers load the subject only after the first has succeeded.
        for worker in self.workers if any(worker.ready for worker in self.workers) else self.workers[:1]:
            worker.take()
        return True

    def answer(self, seconds: float) -> dict[str, Any] | None:
        """Return the next answer; wait at most so many seconds. A busy worker's long silence is an answer too."""
        try:
            found: dict[str, Any] = self._answers.get(timeout=seconds)
            return found
        except queue.Empty:
            coming = max(min(self._seconds / 2, LONGEST_START), self._patience + 1)
            for worker in self.workers:
                if worker.late(coming):
                    return {"kind": "late", "worker": worker}
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
        if kind == "late":
            return f"{self.target} did not return from its import, its factory or its first lock()"
        if kind == "silent":
            return f"{self.target} hangs: no sign of life for {2 * self._patience + 1:.0f} s"
        if kind == "broken":
            return f"the worker failed, which is an error of kmutex, not of {self.target}: {answer['message']}"
        return f"unexpected answer {kind}"

    def end(self) -> None:
        for worker in self.workers:
            worker.kill()
