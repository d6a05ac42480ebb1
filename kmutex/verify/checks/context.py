"""The environment of a special check."""

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
"""The most clients of a program in its text form."""


@dataclass
class Context:
    """A subject, and the explorer that runs it."""

    make: Callable[[], Any]
    shape: Shape
    explorer: Explorer
    beat: Callable[[int], int]
    known: frozenset[str]
    """Symptoms of simpler programs."""
    unpromised: frozenset[str] = frozenset()
    """Clauses that the subject does not promise."""
    off: frozenset[str] = frozenset()
    """Clauses that are not judged."""

    @property
    def level(self) -> Level:
        """Return where the scheduler switches in a program of this subject."""
        return "locks" if self.shape.kind == "threads" else "tasks"

    @property
    def cancels(self) -> bool:
        """Return whether a wait for a key can be cancelled."""
        return self.shape.timeout or self.shape.kind == "asyncio"

    @cached_property
    def whole(self) -> bool:
        """Return whether the subject has this library's whole interface, so that all of its promises are checked. In
        other interfaces, the same argument or call may have another meaning."""
        return all(hasattr(self.a_subject(), name) for name in ("hold", "snapshot", "__contains__", "__len__"))

    def a_subject(self) -> Any:
        """Make a new subject and use it in a run."""
        trial = Trial()
        self.explorer.run(parse("0+a-a"), self.level, Chooser(), trial)
        return getattr(trial.subject, "subject", trial.subject)

    def violation(self, found: Found, message: str = "") -> Violation:
        """Return the violation of a run. With a message of the check itself, it has no replay command."""
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
        """Note a difference from this library's interface: a violation, or for other interfaces a remark."""
        if self.whole:
            outcome.found.append(Violation((clause,), message, symptom=clause))
        else:
            outcome.notes.append((clause, message))
