"""A check of its own (`kmutex.verify.checks`) made of a subject, for the tests of what it finds."""

from __future__ import annotations

from kmutex.engine.harness import Harness
from kmutex.verify.checks import CHECKS
from kmutex.verify.checks.context import Context
from kmutex.verify.plan import Unit
from kmutex.verify.results import UnitResult


def checked(where: Harness, check: str, part: int = 0) -> UnitResult:
    """What it says of the subject of the harness, within whose `control` this is called."""
    outcome = UnitResult(Unit(0, check, check, part=part))
    CHECKS[check](Context(where.fitted.make, where.shape, where.explorer, lambda runs: runs, frozenset()), outcome)
    return outcome
