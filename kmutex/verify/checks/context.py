"""What a check of its own works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from kmutex.engine.explorer import Explorer, Found, Level
from kmutex.engine.program import parse
from kmutex.engine.search import Chooser
from kmutex.engine.shapes import Shape
from kmutex.engine.timeline import timeline
from kmutex.engine.trials import Trial
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

MOST_WRITTEN = 10
"""Clients that a program can have which is written down."""


@dataclass
class Context:
    """A subject, and what runs it."""

    make: Callable[[], Any]
    shape: Shape
    explorer: Explorer
    beat: Callable[[int], int]
    known: frozenset[str]
    """Symptoms of plainer programs."""
    unpromised: frozenset[str] = frozenset()
    """Clauses that the subject does not promise."""
    off: frozenset[str] = frozenset()
    """Clauses that are not judged."""

    @property
    def level(self) -> Level:
        """Where switches come in a program of this subject."""
        return "locks" if self.shape.kind == "threads" else "tasks"

    @property
    def cancels(self) -> bool:
        """Whether a wait for a key can be given up."""
        return self.shape.timeout or self.shape.kind == "asyncio"

    @cached_property
    def whole(self) -> bool:
        """Whether the subject has the whole interface of this library, so that it is held to all that this says. In the
        interfaces of others, the same argument or the same call may mean something else."""
        return all(hasattr(self.a_subject(), name) for name in ("hold", "snapshot", "__contains__", "__len__"))

    def a_subject(self) -> Any:
        """A new one, made and used in a run."""
        trial = Trial()
        self.explorer.run(parse("0+a-a"), self.level, Chooser(), trial)
        return getattr(trial.subject, "subject", trial.subject)

    def violation(self, found: Found, message: str = "") -> Violation:
        """What a run of a program shows. message: in other words; empty: its own, and how to replay it."""
        finding, schedule = found
        return Violation(
            finding.clauses,
            message or finding.message,
            "" if message or schedule.program.clients > MOST_WRITTEN else str(schedule),
            timeline(finding.events),
            finding.symptom,
            finding.events,
        )

    def differs(self, outcome: UnitResult, clause: str, message: str) -> None:
        """The subject does not do what this library's interface says: a violation, or for others a remark."""
        if self.whole:
            outcome.found.append(Violation((clause,), message, symptom=clause))
        else:
            outcome.notes.append((clause, message))
