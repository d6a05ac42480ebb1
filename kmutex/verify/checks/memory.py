"""KM-IDLE from outside: a key that was locked, tried, waited for and cancelled, and is idle, is not kept."""

from __future__ import annotations

import gc
import weakref
from typing import Any

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
    if context.shape.keys not in ("any", "str"):
        outcome.complete = True
        outcome.bound = "nothing: whether a key is kept is seen of keys of type str only"
        return
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
    outcome.bound = f"{KEPT} keys, each used in {len(texts)} ways and dropped"
    level = context.level
    explorer = context.explorer.on(make, keys=key)
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
            outcome.found.append(Violation(("KM-IDLE",), message, picture=picture, symptom="KM-IDLE"))
            return
        outcome.witnesses["KM-IDLE"] += KEPT
        context.beat(outcome.runs)
    outcome.complete = True
