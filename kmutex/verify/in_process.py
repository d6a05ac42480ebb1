"""Judge a subject in this process, by the same units of work as in a worker: for test suites and measurements.

The subject's package is imported a second time, with the scheduler's locks from its first line on, and the original is
restored afterwards: the suite's own objects of the package are not touched. A subject that gets out of control here is
judged in workers.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from kmutex.engine.features import clauses_off
from kmutex.engine.observer import SubjectFailedError, UncontrolledError
from kmutex.engine.packages import loaded
from kmutex.engine.shapes import Shape
from kmutex.engine.threads import controlled, one_core, replaced
from kmutex.verify.evidence import Row, Violation
from kmutex.verify.plan import Unit
from kmutex.verify.project import Subject
from kmutex.verify.report import Report
from kmutex.verify.results import rows_of_saved
from kmutex.verify.runner import (
    SHORTENING,
    Declared,
    Plan,
    SubjectError,
    declared_of,
    drive,
    passes_of,
    table_of,
    verify,
)
from kmutex.verify.target import MissingError, load, target_of
from kmutex.verify.verdict import uncontrolled
from kmutex.verify.worker import RefusedError, UnitWorker

PATIENCE = 5.0
"""Real seconds without a scheduling point before a run counts as out of control."""


def judge(
    subject: Subject,
    *,
    make: Callable[[], Any] | None = None,
    how: Plan,
    schedules: Sequence[str] = (),
) -> Report:
    """Judge a subject by a plan with a fixed amount of work.

    Args:
        subject: The locker and what is declared of it.
        make: The factory itself, if it can't be imported by the name of the target.
        how: The amount of work.
        schedules: Schedules that are run first. If one of them breaks a clause, nothing else is run.
    """
    try:
        with one_core(os.getpid()), controlled(make) if make is not None else _imported_anew(subject.target):
            return _Here(subject).judge(load(target_of(subject.target)) if make is None else make, how, schedules)
    except (MissingError, RefusedError, SubjectFailedError) as error:
        return _failed(subject, str(error))
    except UncontrolledError as error:
        if make is not None:
            return _failed(subject, uncontrolled(error))
    try:
        # Workers can be killed, and every module that they import gets the scheduler's locks.
        checked = verify(
            subject.target,
            without=subject.without,
            promises=subject.promises,
            calls=subject.calls,
            seconds=math.inf,
            how=how,
        )
    except SubjectError as error:
        return _failed(subject, str(error))
    return _report(subject, checked.shape, checked.rows)


class _Here:
    """One worker in this process, as a `Crew`."""

    def __init__(self, subject: Subject) -> None:
        self.target = subject.target
        self.unit: Unit | None = None
        self.ready = True
        self.runs = 0
        self.found: list[Violation] = []
        self.workers = [self]
        self._subject = subject
        self._worker = UnitWorker(self._say, shortening=SHORTENING, profile=True)
        self._answers: deque[dict[str, Any]] = deque()
        self._begun = self._now = time.monotonic()

    def judge(self, make: Callable[[], Any], how: Plan, schedules: Sequence[str]) -> Report:
        subject, declared = self._subject, _declared(self._subject)
        self._worker.take(make, **declared._asdict(), patience=PATIENCE)
        ready = self._answers.popleft()
        shape, bytecodes = Shape(**ready["shape"]), ready["bytecodes"]
        table = self._saved(schedules)
        if not table:
            off = clauses_off(declared.without)
            passes = passes_of(shape, off, bytecodes, how)
            driven = drive(self, passes, math.inf, how.after, lambda progress: None, lambda violation: None)
            table = table_of(self.target, shape, declared, driven, driven.left, bytecodes)
        return _report(subject, shape, table)

    def _saved(self, schedules: Iterable[str]) -> list[Row]:
        """Return the rows of the first schedule that breaks a clause."""
        for schedule in schedules:
            self._worker.obey({"replay": schedule})
            answer = self._answers.pop()
            found = [Violation.from_plain(plain) for plain in answer.get("found", ())]
            if found:
                return rows_of_saved(self.target, schedule, found)
        return []

    # -- for `drive` ---------------------------------------------------------------------------------------------

    def begin(
        self,
        unit: Unit,
        known: list[str],
        symptoms: Sequence[tuple[frozenset[str], str]],
        told: Iterable[tuple[str, ...]],
    ) -> None:
        """Do a unit to its end."""
        self.unit, self.runs, self.found = unit, 0, []
        order = {"unit": vars(unit), "known": known, "symptoms": symptoms, "told": list(told)}
        try:
            self._worker.obey(order)
        except UncontrolledError as error:
            # Its earlier answers remain valid.
            self._say("uncontrolled", message=str(error))
            if not any(answer["kind"] == "found" for answer in self._answers):
                raise

    def elapsed(self) -> float:
        # The clock is stopped while answers are left: a unit that is done counts as a whole.
        if not self._answers:
            self._now = time.monotonic()
        return self._now - self._begun

    def answer(self, seconds: float) -> dict[str, Any] | None:
        return self._answers.popleft() if self._answers else None

    def joins(self, answer: dict[str, Any]) -> bool:
        return False

    def explain(self, answer: dict[str, Any]) -> str:
        return str(answer.get("message", answer["kind"]))

    def _say(self, kind: str, **what: Any) -> None:
        if kind != "beat":
            self._answers.append({"kind": kind, "worker": self, **what})


def _declared(subject: Subject) -> Declared:
    return declared_of(subject.target, subject.without, subject.promises, subject.calls)


def _failed(subject: Subject, words: str) -> Report:
    return Report(subject.target, options=subject.options, failed=words)


def _report(subject: Subject, shape: Shape, table: Sequence[Row]) -> Report:
    return Report(subject.target, tuple(table), taken=shape.taken, options=subject.options)


@contextmanager
def _imported_anew(target: str) -> Iterator[None]:
    """Within the block, the target's package is imported a second time, under the scheduler's control."""
    top = target.partition(":")[0].partition(".")[0]

    if top == "kmutex" or top in sys.stdlib_module_names:
        # kmutex itself is running.
        with controlled(load(target_of(target))):
            yield
        return
    before = loaded({top})
    for name in before:
        del sys.modules[name]
    try:
        with replaced():
            yield
    finally:
        for name in loaded({top}):
            del sys.modules[name]
        sys.modules.update(before)
