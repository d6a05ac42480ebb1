"""Check any keyed locker, for threads or asyncio, against the contract in your own test suite. Needs ``kmutex[check]``.

As ``kmutex verify`` does, it finds out by itself how the locker is called: lock and unlock, acquire and release, a lock
for each key (``L[key]``), a block (``with L.hold(key)``), or an object for each key. You declare what your locker lacks
(`FEATURES`). Order, interrupts and a second event loop count only if you promise them (`PROMISES`). `fit` adapts any of
these lockers to one interface, ``lock(key, timeout)`` and ``unlock(key)``.

Example::

    from kmutex.testing import KeyedLockerSuite, locker_machine

    class TestMyLocker(KeyedLockerSuite):          # short programs, in every interleaving up to a bound
        make = staticmethod(MyLocker)
        promises = ("fifo",)                       # strict = True for all promises

    TestMyHistories = locker_machine(MyLocker, promises={"fifo"}).TestCase    # long random histories, against a model

A failing test names the clause, shows the run as a timeline, and gives a command that replays this one schedule:
``kmutex verify MODULE:FACTORY --replay '0+a | 1~a | c1 @locks'``.

The locker runs on a deterministic scheduler, so nothing waits in real time. If a module makes a lock when it is
imported, and keeps it anywhere but in a global name, the scheduler does not control that lock; import such a module
within `controlled`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmutex._extra import needed_by
from kmutex.engine.threads import no_subject_below

if TYPE_CHECKING:
    from kmutex._clauses import CLAUSES
    from kmutex.engine.explorer import Schedule, parse_schedule
    from kmutex.engine.features import FEATURES, PROMISES, Feature, UnknownFeatureError, clauses_off
    from kmutex.engine.run_judge import Finding
    from kmutex.engine.shapes import NotALockerError, Shape, fit, look
    from kmutex.engine.threads import controlled
    from kmutex.testing.suite import KeyedLockerSuite
    from kmutex.verify.machine import Histories, check_histories, locker_machine
    from kmutex.verify.verdict import ContractError, InconclusiveError

__all__ = [
    "CLAUSES",
    "FEATURES",
    "PROMISES",
    "ContractError",
    "Feature",
    "Finding",
    "Histories",
    "InconclusiveError",
    "KeyedLockerSuite",
    "NotALockerError",
    "Schedule",
    "Shape",
    "UnknownFeatureError",
    "check_histories",
    "clauses_off",
    "controlled",
    "fit",
    "locker_machine",
    "look",
    "parse_schedule",
]

_HOMES = {
    "CLAUSES": "kmutex._clauses",
    "ContractError": "kmutex.verify.verdict",
    "FEATURES": "kmutex.engine.features",
    "Feature": "kmutex.engine.features",
    "Finding": "kmutex.engine.run_judge",
    "Histories": "kmutex.verify.machine",
    "InconclusiveError": "kmutex.verify.verdict",
    "KeyedLockerSuite": "kmutex.testing.suite",
    "NotALockerError": "kmutex.engine.shapes",
    "PROMISES": "kmutex.engine.features",
    "Schedule": "kmutex.engine.explorer",
    "Shape": "kmutex.engine.shapes",
    "UnknownFeatureError": "kmutex.engine.features",
    "check_histories": "kmutex.verify.machine",
    "clauses_off": "kmutex.engine.features",
    "controlled": "kmutex.engine.threads",
    "fit": "kmutex.engine.shapes",
    "locker_machine": "kmutex.verify.machine",
    "look": "kmutex.engine.shapes",
    "parse_schedule": "kmutex.engine.explorer",
}
"""Loaded on first use, so that a command that needs only the features does not import Hypothesis."""

if _lacking := needed_by("kmutex.testing"):
    raise ModuleNotFoundError(_lacking)

no_subject_below(Path(__file__).parent)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted(globals() | _HOMES)
