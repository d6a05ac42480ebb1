"""The process in which a subject runs. It imports the subject, does units of work, and says what came of them.

Lines of JSON: units come on standard input, answers go to what was standard output. The subject's own output goes
nowhere. Whatever the subject does to this process, the runner is another one.
"""

from __future__ import annotations

import _thread
import contextlib
import functools
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from kmutex._sandbox import argument, confine, end_with
from kmutex._text import said
from kmutex.engine.calls import Calls
from kmutex.engine.explorer import Exploration, Explorer, Found, Schedule, parse_schedule
from kmutex.engine.features import PROMISES, clauses_off
from kmutex.engine.flight_judge import FlightJudge, put_on_trial
from kmutex.engine.judge import Event
from kmutex.engine.observer import SubjectFailedError, UncontrolledError
from kmutex.engine.program import FLIGHT, ProgramError, parse
from kmutex.engine.search import UnreplayableError
from kmutex.engine.shapes import Fitted, NotALockerError, Shape, fit
from kmutex.engine.shrink import shrink
from kmutex.engine.source_lines import Lines, stops
from kmutex.engine.threads import Crew, bytecode_events_seen, replaced
from kmutex.engine.timeline import timeline
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.plan import SEEDS, Unit
from kmutex.verify.results import UnitResult
from kmutex.verify.target import MissingError, load, target_of

BEAT = 0.2
"""Real seconds between two signs of life."""
HISTORIES = 60
"""Examples that a unit of random histories makes."""

_clock = time.perf_counter
_real_start_new_thread = _thread.start_new_thread


class _RefusedError(Exception):
    """The subject can't be put to work; said in one line."""


class _Worker:
    def __init__(self, say: Callable[..., None]) -> None:
        self._say = say
        self._last_beat = _clock()

    def serve(
        self,
        target: str,
        without: list[str],
        unpromised: list[str],
        leaders: list[str],
        lenient: bool,
        calls: dict[str, str],
        patience: float,
    ) -> None:
        self._say("there")
        if not sys.stdin.readline():
            return
        try:
            original = load(target_of(target))
        except MissingError as error:
            raise _RefusedError(str(error)) from None
        fitted = self._fit(original, frozenset(without), Calls(**calls), lenient, patience)
        make, shape = fitted.make, fitted.shape
        crew = Crew() if shape.kind == "threads" else None
        off, loose = clauses_off(without), clauses_off(unpromised)
        explorer = Explorer.of(fitted, crew=crew, off=off, unpromised=loose, patience=patience)
        if shape.form == "flight":
            shape, make, explorer = put_on_trial(shape, make, explorer, leaders)
        _try_out(explorer, shape)
        self._say("ready", shape=asdict(shape), bytecode=bytecode_events_seen())
        for line in sys.stdin:
            order = json.loads(line)
            if "replay" in order:
                self._replay(explorer, shape, order["replay"], original if order["lines"] else None)
            elif "smaller" in order:
                self._smaller(explorer, shape, **order["smaller"])
            else:
                unit, known = Unit(**order["unit"]), frozenset(order["known"])
                self._do(explorer, make, shape, frozenset(without), frozenset(unpromised), unit, known)

    def _fit(
        self, make: Callable[[], Any], without: frozenset[str], calls: Calls, lenient: bool, patience: float
    ) -> Fitted:
        try:
            fitted = fit(make, without=without, calls=calls, lenient=lenient, patience=patience)
        except NotALockerError as error:
            raise _RefusedError(str(error)) from None
        except UncontrolledError:
            raise
        except BaseException as error:
            raise _RefusedError(f"looking at what the factory makes raised {said(error)}") from None
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
        if unit.task == "every":
            result = explorer.every(
                parse(unit.program),
                unit.level,
                unit.bound,
                known=known,
                go_on=lambda runs: self._beat(runs) < unit.most,
            )
            _take(outcome, result)
        elif unit.task == "some":
            result = explorer.some(
                parse(unit.program),
                unit.level,
                unit.bound,
                range(unit.seed, unit.seed + SEEDS),
                known=known,
                go_on=lambda runs: self._beat(runs) >= 0,
            )
            _take(outcome, result)
        elif unit.task == "histories":
            # A history goes on from what the model says, so that what is not promised is no part of it.
            self._histories(explorer, make, shape, without | unpromised, unit, outcome)
        else:
            CHECKS[unit.task](Context(make, shape, explorer, self._beat, known, clauses_off(unpromised)), outcome)
        outcome.seconds = _clock() - started
        self._say(
            "outcome", outcome=outcome.as_plain(), exited=result.exited if unit.task in ("every", "some") else None
        )

    def _histories(
        self,
        explorer: Explorer,
        make: Callable[[], Any],
        shape: Shape,
        without: frozenset[str],
        unit: Unit,
        outcome: UnitResult,
    ) -> None:
        from kmutex.testing.machine import check_histories
        from kmutex.testing.verdict import InconclusiveError

        try:
            histories = check_histories(
                make,
                kind=shape.kind,
                fitted=Fitted(shape, make),
                without=without,
                promises=PROMISES,
                examples=HISTORIES,
                seed=unit.seed,
                on_example=lambda runs: self._beat(runs),
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
            outcome.found.append(_violation(Found(histories.finding, histories.schedule)))

    def _replay(self, explorer: Explorer, shape: Shape, text: str, lines_of: Callable[[], Any] | None) -> None:
        try:
            schedule = parse_schedule(text)
            check_fits(schedule, shape)
            if lines_of is None or shape.form == "flight":
                result = explorer.again(schedule)
            else:
                result = explorer.again(schedule, judging=functools.partial(Lines, make=lines_of))
        except (ProgramError, UnreplayableError) as error:
            self._say("unreplayable", message=str(error))
            return
        found = [asdict(_violation(found)) for found in result.found.values()]
        unpromised = [asdict(_violation(found)) for found in result.unpromised.values()]
        # What comes after the last thing that was found is not needed to see it.
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
        )

    def _smaller(
        self,
        explorer: Explorer,
        shape: Shape,
        schedule: str,
        clauses: list[str],
        symptoms: list[tuple[list[str], str]],
        seconds: float,
    ) -> None:
        """Say what is left of a counterexample without what it does not need; nothing, if it can't be shown again."""
        end = _clock() + seconds
        plainer = [(frozenset(parts), symptom) for parts, symptom in symptoms]
        whole = parse_schedule(schedule)
        check_fits(whole, shape)
        ingredients = whole.program.ingredients
        found = None
        with contextlib.suppress(UnreplayableError):
            # The names of what it breaks depend on what was known by then.
            for known in (frozenset(s for parts, s in plainer if parts < ingredients), frozenset[str]()):
                for one in explorer.again(whole, known=known).breaches:
                    if found is None and list(one.finding.clauses) == clauses:
                        found = shrink(explorer, one, symptoms=plainer, go_on=lambda: _clock() < end)
        self._say("smaller", found=None if found is None else asdict(_violation(found)))

    def _beat(self, runs: int) -> int:
        now = _clock()
        if now - self._last_beat > BEAT:
            self._last_beat = now
            self._say("beat", runs=runs)
        return runs


def check_fits(schedule: Schedule, shape: Shape) -> None:
    """UnreplayableError: the schedule asks for what a subject of this shape does not have."""
    if (schedule.level in ("locks", "bytecode")) != (shape.kind == "threads"):
        raise UnreplayableError(f"a schedule @{schedule.level} is not for a subject of {shape.kind}")
    if bool(schedule.program.kinds & FLIGHT) != (shape.form == "flight"):
        raise UnreplayableError("it is for a subject of another shape: single flights do, others lock and unlock")
    if shape.form == "flight":
        return
    timed = schedule.level == "timeouts" or (shape.kind == "threads" and "~" in schedule.program.kinds)
    if timed and not shape.timeout:
        raise UnreplayableError("it wants a timeout, which the subject does not take")
    if (schedule.tries or "?" in schedule.program.kinds) and not shape.tries:
        raise UnreplayableError("it wants a timeout of 0, or another way not to wait, which the subject does not take")
    if "x" in schedule.program.kinds and not shape.strays:
        raise UnreplayableError("it wants the unlock of an unheld key, and the subject has blocks only")
    if schedule.program.kinds & frozenset("%&") and not (shape.bodies or shape.leases):
        raise UnreplayableError("it wants a block whose body raises, and the subject has none")
    if schedule.program.kinds & frozenset("[]^") and not shape.leases:
        raise UnreplayableError("it wants leases, and the subject has no hold()")


def _try_out(explorer: Explorer, shape: Shape) -> None:
    """A subject whose very first lock() does not come through is no locker to be judged."""
    call, text = ("do()", "0na") if shape.form == "flight" else ("lock()", "0+a")
    result = explorer.every(parse(text), "locks" if shape.kind == "threads" else "tasks", 0)
    if result.exited is not None:
        raise _RefusedError(f"it tried to leave the process: {result.exited}")
    came = result.last.answered if isinstance(result.last, FlightJudge) else result.witnesses["KM-EXCL"]
    if not came:
        reasons = [found.finding.message for found in result.found.values()] or ["it has no end"]
        raise _RefusedError(f"{call} of a free key does not come through: {reasons[0]}")


def _take(outcome: UnitResult, result: Exploration) -> None:
    outcome.runs = result.runs
    outcome.complete = result.complete
    outcome.endless = result.endless
    outcome.longest = result.longest
    if result.uncountable:
        outcome.notes.append(
            ("KM-REF", "len() needs the help of another thread, so it can't be asked when all is quiet")
        )
    outcome.witnesses = result.witnesses
    outcome.found += [_violation(found) for found in result.found.values()]
    outcome.unpromised += [_violation(found) for found in result.unpromised.values()]


def _violation(found: Found) -> Violation:
    finding, schedule = found
    return Violation(finding.clauses, finding.message, str(schedule), timeline(finding.events), finding.symptom)


def _place(error: BaseException) -> str:
    """Where it was raised, for a message."""
    trace = traceback.extract_tb(error.__traceback__)
    return f"{os.path.basename(trace[-1].filename)}:{trace[-1].lineno}" if trace else "an unknown place"


def main() -> None:
    """Serve until standard input ends. `argument`: those of `_Worker.serve`, parent, and perhaps confine."""
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
    _real_start_new_thread(end_with, (config.pop("parent"),))
    limits = config.pop("confine", None)
    if limits is not None:
        confine(**limits)
    # A script's own folder is what `python -m` would put first; the subject is looked for where the user stands.
    sys.path.insert(0, os.getcwd())
    with replaced():
        try:
            _Worker(say).serve(**config)
        except (_RefusedError, SubjectFailedError) as error:
            say("failed", message=str(error))
        except UncontrolledError as error:
            say("uncontrolled", message=str(error))
        except MemoryError:
            say("failed", message=f"{config['target']} ran out of memory")
        except BaseException as error:
            say("broken", message=f"{said(error)}, at {_place(error)}")
    # The threads of the crew, and what the subject started, wait for ever.
    os._exit(0)
