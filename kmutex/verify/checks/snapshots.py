"""A snapshot does not change, whatever happens to the keys afterwards (KM-REF)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from kmutex.engine import ways
from kmutex.engine.faces import bare
from kmutex.engine.program import Step, parse
from kmutex.engine.search import Chooser
from kmutex.engine.trials import Trial
from kmutex.verify.checks.context import Context
from kmutex.verify.results import UnitResult

_PROGRAMS = ("0+a | 1+a | 2+a | 3+b | 0-a | 1-a | 2-a", "0+a | 1+a | 2~a | 3+a | c2 | 0-a")


class _Watch(Trial):
    """Takes a snapshot, and a copy of it, in each quiescent state."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[tuple[Mapping[Any, Any], dict[Any, Any]]] = []

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        super().quiet(waiting, overdue)
        taken = bare(self.subject).snapshot()
        if isinstance(taken, Mapping):
            self.taken.append((taken, copy.deepcopy(dict(taken))))


def snapshots(context: Context, outcome: UnitResult) -> None:
    """KM-REF: at the end of a run, each snapshot is as it was when it was taken. For subjects with snapshot()."""
    subject = context.a_subject()
    if ways.required(getattr(subject, "snapshot", None)) != []:
        outcome.bound = "no snapshot()"
        return
    seen = 0
    for text in _PROGRAMS if context.cancels else _PROGRAMS[:1]:
        watch = _Watch()
        context.explorer.run(parse(text), context.level, Chooser(), watch)
        outcome.runs += 1
        seen += len(watch.taken)
        changed = next(((taken, before) for taken, before in watch.taken if dict(taken) != before), None)
        if changed is not None:
            message = f"a snapshot changed afterwards, from {changed[1]} to {dict(changed[0])}"
            context.differs(outcome, "KM-REF", message)
            break
    outcome.bound = f"{seen} snapshots"
    outcome.complete = True
    if seen and not outcome.found and not outcome.notes:
        outcome.witnesses["KM-REF"] += seen
