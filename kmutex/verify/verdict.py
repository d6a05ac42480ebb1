"""The errors for a broken or undecided clause, and their text: the message, the replay command and the timeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kmutex.engine.explorer import Schedule
from kmutex.engine.harness import Harness
from kmutex.engine.run_judge import Finding
from kmutex.engine.timeline import timeline


class ContractError(AssertionError):
    """A locker broke a clause of the contract."""

    report: Any = None
    """All findings, if a whole plan was run."""

    def __init__(self, words: str, finding: Finding | None = None, schedule: Schedule | None = None) -> None:
        """Make the error.

        Args:
            words: The message.
            finding: The broken clause, if one run shows it.
            schedule: That run.
        """
        super().__init__(words)
        self.finding = finding
        self.schedule = schedule


class InconclusiveError(AssertionError):
    """A run or a search ended without a verdict, which does not count as a pass."""

    report: Any = None
    """All findings, if a whole plan was run."""


def describe(finding: Finding, schedule: Schedule, bench: Harness) -> str:
    """Return several lines: clauses and message, the program, the replay command, and the timeline."""
    options = "".join(f" --without {feature}" for feature in sorted(bench.declared))
    options += "".join(f" --with {promise}" for promise in sorted(bench.promises or ()))
    return "\n".join(
        (
            f"{', '.join(finding.clauses)}: {finding.message}",
            "",
            f"program: {schedule.program}",
            f"replay:  kmutex verify {target(bench.make)}{options} --replay '{schedule}'",
            "",
            timeline(finding.events),
        )
    )


def uncontrolled(error: Exception) -> str:
    """Return one line for a factory of the tests, by which the scheduler lost control: what happened, what to do."""
    return (
        f"out of the scheduler's control: {error}; if its module makes or keeps a lock at import, name the locker in "
        "[tool.kmutex], which imports it anew"
    )


def target(make: Callable[[], Any]) -> str:
    """Return the factory as ``module:name``, or "MODULE:FACTORY" if it can't be imported by name."""
    function: Any = getattr(make, "__func__", make)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    return f"{module}:{name}" if module and "<" not in name else "MODULE:FACTORY"
