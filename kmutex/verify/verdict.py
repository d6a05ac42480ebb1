"""What is said of a broken clause: the words, the picture, and the command that shows it again."""

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
    """All that was found, where a whole plan was run."""

    def __init__(self, words: str, finding: Finding | None = None, schedule: Schedule | None = None) -> None:
        """finding, schedule: where one run shows it."""
        super().__init__(words)
        self.finding = finding
        self.schedule = schedule


class InconclusiveError(AssertionError):
    """A run or a search ended without an answer, which is no pass."""

    report: Any = None
    """All that was found, where a whole plan was run."""


def describe(finding: Finding, schedule: Schedule, bench: Harness) -> str:
    """Several lines: clauses and message, the program, the command that replays it, and the lanes."""
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


def target(make: Callable[[], Any]) -> str:
    """The factory as MODULE:FACTORY; in capitals where it has no name that can be imported."""
    function: Any = getattr(make, "__func__", make)
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", "<")
    return f"{module}:{name}" if module and "<" not in name else "MODULE:FACTORY"
