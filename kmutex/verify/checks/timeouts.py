"""The values of a timeout: it may be of any length, but neither negative nor NaN (KM-EXPIRED)."""

from __future__ import annotations

from typing import Any

from kmutex._text import said
from kmutex.engine.explorer import Level
from kmutex.engine.faces import settled
from kmutex.engine.program import parse
from kmutex.engine.search import Chooser
from kmutex.engine.trials import Trial
from kmutex.verify.checks.context import Context
from kmutex.verify.results import UnitResult

LONG = 90_000.0
"""Virtual seconds: more than a day, to which a locker may cut long timeouts."""
WRONG = (-1.0, float("nan"))
_WRONG_PROGRAMS = ("0~a", "1+a | 0~a | 1-a")


class _Asks:
    """A subject whose first call with a timeout other than 0 gets another timeout."""

    def __init__(self, subject: Any, timeout: float) -> None:
        self._subject = subject
        self._timeout: float | None = timeout

    def lock(self, key: Any, timeout: float | None = None) -> Any:
        if timeout:
            timeout, self._timeout = self._timeout, None
        return self._subject.lock(key, **({} if timeout is None else {"timeout": timeout}))

    def unlock(self, key: Any) -> Any:
        return self._subject.unlock(key)


class _TaskAsks(_Asks):
    async def lock(self, key: Any, timeout: float | None = None) -> None:
        await settled(super().lock(key, timeout))

    async def unlock(self, key: Any) -> None:
        await settled(super().unlock(key))


def timeouts(context: Context, outcome: UnitResult) -> None:
    """KM-EXPIRED: a long timeout does not end early, and an invalid one is refused and changes nothing."""
    if not context.shape.timeout:
        outcome.bound = "no timeout"
        return
    level: Level = "locks" if context.shape.kind == "threads" else "timeouts"
    explorer = context.explorer.on(context.make, timeout=LONG)
    for text in ("0+a | 1~a | 0-a", "0+a | 1+a | 2~a | c2"):
        result = explorer.every(parse(text), level, 0, go_on=lambda runs: context.beat(runs) < 1)
        outcome.runs += result.runs
        for found in result.found.values():
            if found.finding.symptom not in context.known:
                message = f"asked with a timeout of {LONG:,.0f} s: {found.finding.message}"
                outcome.found.append(context.violation(found, message))
    refused = [_refused(context, level, wrong, text) for wrong in WRONG for text in _WRONG_PROGRAMS]
    outcome.runs += len(refused)
    outcome.complete = True
    outcome.bound = f"a timeout of {LONG:,.0f} s, of -1 and of NaN"
    message = next(filter(None, refused), "")
    if message and not outcome.found:
        context.differs(outcome, "KM-EXPIRED", message)
    elif not outcome.found:
        outcome.witnesses["KM-EXPIRED"] += outcome.runs


def _refused(context: Context, level: Level, wrong: float, text: str) -> str:
    """Return what is wrong with the refusal of such a timeout, or ""."""
    kind = _Asks if context.shape.kind == "threads" else _TaskAsks
    trial = Trial()
    program = parse(text)
    explorer = context.explorer.on(lambda: kind(context.make(), wrong))
    explorer.run(program, level, Chooser(), trial)
    where = "a free key" if len(program.phases) == 1 else "a held key"
    error = trial.errors.get("0~a")
    if error is None:
        does = "takes it" if "0~a" in trial.done else "waits"
        return f"asked for {where} with a timeout of {wrong:g}, which is an error of the caller, it {does}"
    lost = [step for step in ("0+a", "1+a", "2+a") if step not in trial.done]
    others = [other for step, other in trial.errors.items() if step[1:] in ("+a", "-a", "?a")]
    if lost or others:
        left = said(others[0]) if others else f"{len(lost)} later calls do not return"
        return f"a timeout of {wrong:g} at {where} was refused, and left a trace: {left}"
    return ""
