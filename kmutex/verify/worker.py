"""The process in which a subject runs. It imports the subject, does units of work, and reports the results.

It reads units as lines of JSON from standard input, and writes answers to the original standard output. The subject's
own output is discarded. Whatever the subject does to this process, the runner is another process.
"""

from __future__ import annotations

import _thread
import functools
import importlib
import inspect
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from typing import Any

from kmutex._sandbox import argument, confine, end_with
from kmutex._text import said
from kmutex.engine.calls import Calls
from kmutex.engine.explorer import Exploration, Explorer, Found, Schedule, parse_schedule
from kmutex.engine.features import PROMISES, clauses_off
from kmutex.engine.flight_judge import FlightJudge, put_on_trial
from kmutex.engine.observer import SubjectFailedError, UncontrolledError
from kmutex.engine.program import FLIGHT, ProgramError, parse
from kmutex.engine.recording import record
from kmutex.engine.run_judge import Event
from kmutex.engine.search import UnreplayableError
from kmutex.engine.shapes import Fitted, NotALockerError, Shape, fit
from kmutex.engine.shrink import shrink
from kmutex.engine.source_lines import file_of, last_place, not_foreign, own_code, stops, with_lines
from kmutex.engine.threads import Crew, bytecode_events_seen, foreign, one_core, replaced
from kmutex.engine.timeline import timeline
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.plan import SEEDS, Bytecodes, Unit
from kmutex.verify.results import UnitResult
from kmutex.verify.target import MissingError, load, target_of

BEAT = 0.2
"""Real seconds between two signs of life."""
HISTORIES = 60
"""The number of examples in a unit of random histories."""

_clock = time.perf_counter
_real_start_new_thread = _thread.start_new_thread


class RefusedError(Exception):
    """The subject can't be run. The message is one line."""


class UnitWorker:
    """Does units on one subject, and reports the results, in a separate process or in that of a test suite."""

    def __init__(self, say: Callable[..., None], *, shortening: float, profile: bool = False) -> None:
        """Prepare a worker.

        Args:
            say: Called with each answer.
            shortening: The most seconds for shrinking a counterexample before it is reported.
            profile: Whether to use a Hypothesis profile that was loaded in this process.
        """
        self._say = say
        self._shortening = shortening
        self._profile = profile
        self._last_beat = _clock()
        self._symptoms: list[tuple[frozenset[str], str]] = []
        """Pairs of the ingredients of a program, and a symptom that it has shown in any worker."""
        self._told: set[tuple[str, ...]] = set()
        """The clauses of violations that were reported at once."""
        self._made_short: dict[bool, list[Violation]] = {True: [], False: []}
        """The violations that this unit has shrunk, by whether they are promised."""
        self._original: Callable[[], Any]
        """The factory of the target."""
        self._make: Callable[[], Any]
        """Makes the adapted locker."""
        self._shape: Shape
        self._explorer: Explorer
        self._bytecodes: Bytecodes
        self._without: frozenset[str]
        self._unpromised: frozenset[str]

    def serve(self, target: str, calls: dict[str, str], **of_take: Any) -> None:
        """Load the subject, and then obey the orders on standard input."""
        self._say("there")
        if not sys.stdin.readline():
            return
        # The subject's folder should not get compiled files.
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        self.take(load(target_of(target)), calls=Calls(**calls), **of_take)
        sys.dont_write_bytecode = before
        for line in sys.stdin:
            self.obey(json.loads(line))

    def take(
        self,
        original: Callable[[], Any],
        *,
        without: Collection[str],
        unpromised: Collection[str],
        leaders: Collection[str],
        lenient: bool,
        calls: Calls,
        patience: float,
    ) -> None:
        """Load the subject for all orders; raise RefusedError, SubjectFailedError or UncontrolledError."""
        self._original = original
        self._without, self._unpromised = frozenset(without), frozenset(unpromised)
        fitted = self._fit(original, self._without, calls, lenient, patience)
        self._make, self._shape = fitted.make, fitted.shape
        self._unpromised |= frozenset(self._shape.loose)
        crew = Crew() if self._shape.kind == "threads" else None
        off, loose = clauses_off(without), clauses_off(self._unpromised)
        self._explorer = Explorer.of(fitted, crew=crew, off=off, unpromised=loose, patience=patience)
        if self._shape.form == "flight":
            on_trial = put_on_trial(self._shape, self._make, self._explorer, leaders)
            self._shape, self._make, self._explorer = on_trial
        _try_out(self._explorer, self._shape)
        self._bytecodes = _bytecodes(self._explorer, self._shape)
        self._say("ready", shape=asdict(self._shape), bytecodes=self._bytecodes)

    def obey(self, order: dict[str, Any]) -> None:
        """Replay a schedule, record it with its variations, or do a unit."""
        if "replay" in order:
            self._replay(self._explorer, self._shape, order["replay"])
        elif "record" in order:
            self._record(self._explorer, self._shape, order["record"], order["most"], order["seconds"])
        else:
            self._symptoms = [(frozenset(parts), symptom) for parts, symptom in order["symptoms"]]
            self._told.update(tuple(clauses) for clauses in order["told"])
            self._made_short = {True: [], False: []}
            unit, known = Unit(**order["unit"]), frozenset(order["known"])
            self._do(self._explorer, self._make, self._shape, self._without, self._unpromised, unit, known)

    def _fit(
        self, make: Callable[[], Any], without: frozenset[str], calls: Calls, lenient: bool, patience: float
    ) -> Fitted:
        try:
            fitted = fit(make, without=without, calls=calls, lenient=lenient, patience=patience)
        except NotALockerError as error:
            raise RefusedError(str(error)) from None
        except UncontrolledError:
            raise
        except BaseException as error:
            raise RefusedError(f"inspecting what the factory makes raised {said(error)}") from None
        return fitted

    def _do(
        self,
        explorer: Explorer,
        make: Callable[[], Any],
        shape: Shape,
        without: frozenset[str],
        unpromised: frozenset[str],
        unit: Unit,
        known: frozenset[str],
    ) -> None:
        started = _clock()
        outcome = UnitResult(unit)
        told = functools.partial(self._tell, explorer)
        off = clauses_off(without)
        if unit.task == "every":
            result = explorer.every(
                parse(unit.program),
                unit.level,
                unit.bound,
                known=known,
                go_on=lambda runs: self._beat(runs) < unit.most,
                told=told,
                reduced=self._may_reduce(unit),
                estimate=True,
            )
            _take(outcome, result)
        elif unit.task == "some":
            result = explorer.some(
                parse(unit.program),
                unit.level,
                range(unit.seed, unit.seed + min(SEEDS, unit.most or SEEDS)),
                known=known,
                go_on=lambda runs: self._beat(runs) >= 0,
                told=told,
            )
            _take(outcome, result)
        elif unit.task == "histories":
            # A history follows the model, so it has nothing that is not promised.
            self._histories(explorer, make, shape, without | unpromised, unit, outcome)
        else:
            loose = clauses_off(unpromised)
            CHECKS[unit.task](Context(make, shape, explorer, self._beat, known, loose, off | loose), outcome)
        # A check may find a clause that is declared off.
        outcome.found = self._short(True, [one for one in outcome.found if not off.issuperset(one.clauses)])
        outcome.unpromised = self._short(False, outcome.unpromised)
        outcome.seconds = _clock() - started
        self._say(
            "outcome", outcome=outcome.as_plain(), exited=result.exited if unit.task in ("every", "some") else None
        )

    def _may_reduce(self, unit: Unit) -> bool:
        """Whether the unit may leave out what differs only in the order of steps that commute.

        Not the work of a flight, of which nothing is known. With a bound of 1, with two clients, or where a wait may be
        ended, which commutes with nothing, it would cost more than it saves (docs/adr/0003-interleaving-engine.md)."""
        if not unit.deeper or self._shape.form == "flight" or self._bytecodes != "followed":
            return False
        program = parse(unit.program)
        return program.clients > 2 and program.kinds.isdisjoint("~!")

    def _histories(
        self,
        explorer: Explorer,
        make: Callable[[], Any],
        shape: Shape,
        without: frozenset[str],
        unit: Unit,
        outcome: UnitResult,
    ) -> None:
        from kmutex.verify.machine import check_histories
        from kmutex.verify.verdict import InconclusiveError

        try:
            histories = check_histories(
                make,
                kind=shape.kind,
                fitted=Fitted(shape, make),
                without=without,
                promises=PROMISES,
                examples=min(HISTORIES, unit.most or HISTORIES),
                seed=unit.seed,
                on_example=lambda runs: self._beat(runs),
                profile=self._profile,
            )
        except InconclusiveError as error:
            outcome.endless = 1
            outcome.bound = f"random histories, seed {unit.seed}"
            outcome.notes.append(("KM-LIVE", str(error).splitlines()[0]))
            return
        outcome.runs = histories.examples
        outcome.complete = histories.complete
        outcome.witnesses.update(histories.witnesses)
        outcome.bound = f"{histories.examples} random histories, {histories.phases:,} phases, seed {unit.seed}"
        if histories.finding is not None and histories.schedule is not None:
            found = Found(histories.finding, histories.schedule)
            outcome.found.append(_violation(found))
            self._tell(explorer, found)

    def _replay(self, explorer: Explorer, shape: Shape, text: str) -> None:
        try:
            schedule = parse_schedule(text)
            check_fits(schedule, shape)
            result = self._again(explorer, schedule, frozenset())
        except (ProgramError, UnreplayableError) as error:
            self._say("unreplayable", message=str(error))
            return
        found = [asdict(self._stood(found)) for found in result.found.values()]
        unpromised = [asdict(self._stood(found)) for found in result.unpromised.values()]
        # Events after the last violation are not needed.
        seen: list[Sequence[Event]] = [found.finding.events for found in result.breaches]
        last: Sequence[Event] = result.last.events if result.last is not None else ()
        longest = max(seen or [last], key=len)
        events = stops(longest)
        self._say(
            "replayed",
            found=found,
            unpromised=unpromised,
            events=events,
            exited=result.exited,
            endless=bool(result.endless),
            left_at=result.left_at,
        )

    def _record(self, explorer: Explorer, shape: Shape, text: str, most: int, seconds: float) -> None:
        end = _clock() + seconds
        go_on = lambda: self._beat(0) == 0 and _clock() < end  # noqa: E731
        try:
            schedule = parse_schedule(text)
            check_fits(schedule, shape)
            for own in (own_code(self._original), not_foreign):
                recording = record(explorer, schedule, own, most=most, go_on=go_on)
                if any(event.place for event in recording.runs[0].events):
                    break
        except (ProgramError, UnreplayableError) as error:
            self._say("unreplayable", message=str(error))
            return
        self._say("recorded", recording=recording.as_plain())

    def _short(self, promised: bool, found: list[Violation]) -> list[Violation]:
        return self._made_short[promised] + [replace(one, place=one.place or self._home) for one in found]

    def _tell(self, explorer: Explorer, found: Found, promised: bool = True) -> None:
        """Report a violation at once, shrunk and with source lines.

        A violation of a clause that is not promised is shrunk too, but not reported at once.
        """
        if found.finding.clauses in self._told:
            return
        self._told.add(found.finding.clauses)
        # If the subject fails meanwhile, the violation is reported as it is.
        violation = _violation(found)
        try:
            violation = self._shortened(explorer, found)
        finally:
            violation = replace(violation, place=violation.place or self._home)
            self._made_short[promised].append(violation)
            if promised:
                self._say("found", violation=asdict(violation))

    def _shortened(self, explorer: Explorer, found: Found) -> Violation:
        """Return the violation, shrunk and with source lines."""
        end = _clock() + self._shortening
        go_on = lambda: self._beat(0) == 0 and _clock() < end  # noqa: E731
        short = shrink(explorer, found, symptoms=self._symptoms, go_on=go_on)
        return self._with_lines(explorer, short) or _violation(short)

    def _with_lines(self, explorer: Explorer, found: Found) -> Violation | None:
        """Return the violation with source lines; None if a replay does not show it."""
        ingredients = found.schedule.program.ingredients
        # The clauses depend on the symptoms that were known then.
        for known in (frozenset(s for parts, s in self._symptoms if parts < ingredients), frozenset[str]()):
            for one in self._again(explorer, found.schedule, known).breaches:
                if (one.finding.clauses, one.finding.message) == (found.finding.clauses, found.finding.message):
                    return self._stood(one)
        return None

    def _again(self, explorer: Explorer, schedule: Schedule, known: frozenset[str]) -> Exploration:
        """Replay the run with lines of the subject's code, or of the code that it uses if it has none."""
        before = sys.gettrace()
        try:
            for own in (own_code(self._original), not_foreign):
                result = explorer.again(schedule, known=known, judging=with_lines(explorer.judging, own))
                if result.last is None or any(event.place for event in result.last.events):
                    break
            return result
        finally:
            sys.settrace(before)

    def _stood(self, found: Found) -> Violation:
        """Return the violation with only those lines at which clients stopped."""
        finding, schedule = found
        place = last_place(finding.events, finding.stuck) or self._home
        return replace(_violation(Found(finding._replace(events=tuple(stops(finding.events))), schedule)), place=place)

    @functools.cached_property
    def _home(self) -> str:
        """Return the place of the factory."""
        make = inspect.unwrap(self._original)
        code = getattr(make, "__code__", None)
        file = file_of(make)
        if not file or foreign(file):
            # An object of the standard library, in a global name.
            return ""
        try:
            return f"{file}:{code.co_firstlineno if code is not None else inspect.getsourcelines(make)[1]}"
        except (OSError, TypeError):
            return f"{file}:1"

    def _beat(self, runs: int) -> int:
        now = _clock()
        if now - self._last_beat > BEAT:
            self._last_beat = now
            self._say("beat", runs=runs)
        return runs


def check_fits(schedule: Schedule, shape: Shape) -> None:
    """Raise UnreplayableError if the schedule needs a feature that a subject of this shape does not have."""
    if (schedule.level in ("locks", "bytecode")) != (shape.kind == "threads"):
        raise UnreplayableError(f"a schedule @{schedule.level} is not for a subject of {shape.kind}")
    if bool(schedule.program.kinds & FLIGHT) != (shape.form == "flight"):
        raise UnreplayableError("it is for a subject of another shape: single flights do, others lock and unlock")
    if shape.form == "flight":
        return
    timed = schedule.level == "timeouts" or (shape.kind == "threads" and "~" in schedule.program.kinds)
    if timed and not shape.timeout:
        raise UnreplayableError("it needs a timeout, which the subject does not take")
    if (schedule.tries or "?" in schedule.program.kinds) and not shape.tries:
        raise UnreplayableError(
            "it needs a timeout of 0, or another means not to wait, which the subject does not have"
        )
    if "x" in schedule.program.kinds and not shape.strays:
        raise UnreplayableError("it needs the unlock of an unheld key, and the subject has blocks only")
    if schedule.program.kinds & frozenset("%&*") and not (shape.bodies or shape.leases):
        raise UnreplayableError("it needs a block whose body raises, and the subject has no block")
    if schedule.program.kinds & frozenset("[]^o") and not shape.leases:
        raise UnreplayableError("it needs leases, and the subject has no hold()")


def _bytecodes(explorer: Explorer, shape: Shape) -> Bytecodes:
    if not bytecode_events_seen():
        return "unseen"
    program = parse("0na" if shape.form == "flight" else "0+a-a")
    return "followed" if shape.kind == "asyncio" or explorer.meets_bytecodes(program) else "none"


def _try_out(explorer: Explorer, shape: Shape) -> None:
    """Raise RefusedError if the first lock() of the subject does not return."""
    call, text = ("do()", "0na") if shape.form == "flight" else ("lock()", "0+a")
    result = explorer.every(parse(text), "locks" if shape.kind == "threads" else "tasks", 0)
    if result.exited is not None:
        raise RefusedError(f"it tried to leave the process: {result.exited}")
    came = result.last.answered if isinstance(result.last, FlightJudge) else result.witnesses["KM-EXCL"]
    if not came:
        reasons = [found.finding.message for found in result.found.values()] or ["it does not end"]
        raise RefusedError(f"{call} of a free key does not return: {reasons[0]}")


def _take(outcome: UnitResult, result: Exploration) -> None:
    outcome.runs = result.runs
    outcome.complete, outcome.reduced = result.complete, result.reduced
    outcome.endless = result.endless
    outcome.longest = result.longest
    outcome.estimate = result.estimate
    outcome.by_pct = result.by_pct
    if result.uncountable:
        outcome.notes.append(("KM-REF", "len() waits for another thread, so it can't be called in a quiescent state"))
    outcome.witnesses = result.witnesses
    outcome.found += [_violation(found) for found in result.found.values()]
    outcome.unpromised += [_violation(found) for found in result.unpromised.values()]


def _violation(found: Found) -> Violation:
    finding, schedule = found
    events = finding.events
    return Violation(finding.clauses, finding.message, str(schedule), timeline(events), finding.symptom, events)


def _place(error: BaseException) -> str:
    """Return the place where it was raised, for a message."""
    trace = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(trace[-1].filename)}:{trace[-1].lineno}" if trace else "an unknown place"


def main() -> None:
    """Serve until standard input ends. `argument` has those of `serve`, number, parent, and perhaps confine."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    saying = threading.Lock()

    def say(kind: str, **what: Any) -> None:
        with saying:
            out.write(json.dumps({"kind": kind, **what}) + "\n")
            out.flush()

    config = argument()
    number = config.pop("number")
    # Hypothesis would store files in the user's current folder.
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.devnull)
    _real_start_new_thread(end_with, (config.pop("parent"),))
    limits = config.pop("confine", None)
    if limits is not None:
        # Hypothesis loads the plugins of whatever is installed, and some of them start a process at their import.
        importlib.import_module("kmutex.verify.machine")
        confine(**limits)
    # The subject is searched for in the user's current folder, not in a script's folder.
    sys.path.insert(0, os.getcwd())
    with one_core(number), replaced():
        try:
            UnitWorker(say, shortening=config.pop("shortening")).serve(**config)
        except (MissingError, RefusedError, SubjectFailedError) as error:
            say("failed", message=str(error))
        except UncontrolledError as error:
            say("uncontrolled", message=str(error))
        except MemoryError:
            say("failed", message=f"{config['target']} ran out of memory")
        except BaseException as error:
            say("broken", message=f"{said(error)}, at {_place(error)}")
    # The threads of the crew, and those of the subject, wait forever.
    os._exit(0)
