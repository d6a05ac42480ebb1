"""KM-IDLE and KM-FORGET from outside: what was used in every way, and is idle, is not kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from kmutex.engine.eventloop import Loop
from kmutex.engine.flight import WorkRun
from kmutex.engine.judge import Event
from kmutex.engine.program import parse
from kmutex.engine.timeline import timeline
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

KEPT = 60
"""Keys that are used and dropped."""


class _Key(str):
    """A key that tells when the last reference to it is gone."""


def memory(context: Context, outcome: UnitResult) -> None:
    """KM-IDLE from outside: a key that was locked, tried, waited for and cancelled, and is idle, is not kept."""
    subjects: list[Any] = []
    alive: list[weakref.ref[_Key]] = []

    def make() -> Any:
        if not subjects:
            subjects.append(context.make())
        return subjects[0]

    def key(letter: str) -> _Key:
        fresh = _Key(f"{letter}-{outcome.runs}")
        alive.append(weakref.ref(fresh))
        return fresh

    texts = ["0+a", "0+a | 1+a | 0-a"]
    texts += ["0+a | 1?a"] if context.shape.timeout else []
    texts += ["0+a | 1~a | c1"] if context.shape.timeout or context.shape.kind == "asyncio" else []
    clause = "KM-IDLE"
    if context.shape.form == "flight":
        texts, clause = ["0na", "0fa | 1ea", "0da | 1ta | c1 | 2ea", "0ta | c0"], "KM-FORGET"
    outcome.bound = f"{KEPT} keys, each used in {len(texts)} ways and dropped"
    level = context.level
    # A subject belongs to the loop in which it was first used.
    explorer = context.explorer.on(make, keys=key, loop=Loop() if level == "tasks" else None)  # type: ignore[abstract]
    for text in texts:
        alive.clear()
        for _ in range(KEPT):
            if explorer.every(parse(text), level, 0).found:
                return
            outcome.runs += 1
        gc.collect()
        kept = sum(reference() is not None for reference in alive)
        names = {str(reference()) for reference in alive if reference() is not None}
        if len(names) > KEPT // 2:
            message = f"{len(names)} of {KEPT} keys that are idle are still kept, after: {text}"
            picture = timeline([Event(-1, f"{KEPT} keys, one after the other: {text}; {kept} objects kept")])
            outcome.found.append(Violation((clause,), message, picture=picture, symptom=clause))
            return
        results = sum(isinstance(thing, WorkRun) for thing in gc.get_objects())
        if results > KEPT // 2:
            message = f"the results of {results} of {KEPT} keys that are idle are still kept, after: {text}"
            outcome.found.append(Violation((clause,), message, symptom=clause))
            return
        outcome.witnesses[clause] += KEPT
        context.beat(outcome.runs)
    outcome.complete = True
