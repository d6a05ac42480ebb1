"""A key that is held stays held, however many other keys are asked for, and however long it takes (KM-EXCL, KM-LIVE).

A table that keeps only its last hundred locks, or each for an hour, is correct in every short program.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator
from typing import Any

from kmutex.engine import eventloop, threads
from kmutex.engine.keys import Spelling, spelled
from kmutex.engine.observer import UncontrolledError
from kmutex.engine.program import parse
from kmutex.engine.timeline import timeline
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

SIZES = (100, 400, 1_600)
"""How many other keys are asked for while one is held, in turn."""
HOURS = 3
"""How long a key is held, by the subject's clock."""

_PROGRAMS = ("0+a | 1+b | 2+a | 0-a | 2-a", "0+a | 1+a | 2+b | 3+a | 0-a | 1-a")
"""The key a is held, without and with a waiter. Then b is asked for, and before that the other keys are used or time
passes; then another client asks for a."""


class _Meanwhile:
    """A subject that uses other keys, or lets time pass, before the key b is locked."""

    def __init__(self, subject: Any, kind: str, size: int, stay: bool) -> None:
        """Wrap a subject.

        Args:
            subject: The subject.
            kind: The type of the keys.
            size: The number of other keys that are locked; 0: hours pass.
            stay: Whether these stay held.
        """
        self._subject = subject
        self._kind = kind
        self._size = size
        self._stay = stay
        self._held: list[str] = []
        self._over = False
        self.refused = ""

    def lock(self, key: str, **timeout: Any) -> None:
        now = self._now(key)
        if now and not self._size:
            time.sleep(HOURS * 3600)
        elif now:
            for other in self._others(key):
                try:
                    self._subject.lock(self._spelled(other))
                except UncontrolledError:
                    raise
                except Exception as error:
                    self._full(error)
                    break
                threads.progress()
                if self._stay:
                    self._held.append(other)
                else:
                    self._subject.unlock(self._spelled(other))
            if self.refused and self._held:
                self._subject.unlock(self._spelled(self._held.pop()))
        self._subject.lock(self._spelled(key), **timeout)

    def unlock(self, key: str) -> None:
        self._subject.unlock(self._spelled(key))
        while key.startswith("key-b") and self._held:
            self._subject.unlock(self._spelled(self._held.pop()))
            threads.progress()

    def _now(self, key: str) -> bool:
        """Return whether the key is b, for the first time."""
        now = key.startswith("key-b") and not self._over
        self._over |= now
        return now

    def _others(self, key: str) -> Iterator[str]:
        return (f"{key}-{number}" for number in range(self._size))

    def _spelled(self, key: str) -> Any:
        return spelled(self._kind, key)

    def _full(self, error: Exception) -> None:
        self.refused = f"refuses more than {len(self._held) + 1} keys at once: {type(error).__name__}"


class _TasksMeanwhile(_Meanwhile):
    async def lock(self, key: str, **timeout: Any) -> None:  # type: ignore[override]
        now = self._now(key)
        if now and not self._size:
            await eventloop.sleep(HOURS * 3600)
        elif now:
            for other in self._others(key):
                try:
                    await self._subject.lock(self._spelled(other))
                except UncontrolledError:
                    raise
                except Exception as error:
                    self._full(error)
                    break
                eventloop.progress()
                if self._stay:
                    self._held.append(other)
                else:
                    await self._let_go(other)
            if self.refused and self._held:
                await self._let_go(self._held.pop())
        await self._subject.lock(self._spelled(key), **timeout)

    async def unlock(self, key: str) -> None:  # type: ignore[override]
        await self._let_go(key)
        while key.startswith("key-b") and self._held:
            await self._let_go(self._held.pop())
            eventloop.progress()

    async def _let_go(self, key: str) -> None:
        answer = self._subject.unlock(self._spelled(key))
        if inspect.isawaitable(answer):
            await answer


def holding(context: Context, outcome: UnitResult) -> None:
    """KM-EXCL and KM-LIVE of a key that is held while many others are asked for, and for hours."""
    bounds = []
    if not context.shape.striped:
        most = 0
        for size in SIZES:
            if not all(_stays(context, outcome, size, stay) for stay in (True, False)):
                break
            most = size
        bounds += [f"{most:,} other keys held or used meanwhile"] if most else []
    if not outcome.found and _stays(context, outcome, 0, False):
        bounds.append(f"{HOURS} hours")
    outcome.bound = "a key held through " + (" and ".join(bounds) or "nothing")
    outcome.complete = bool(bounds)
    if bounds:
        outcome.witnesses["KM-EXCL"] = outcome.witnesses["KM-LIVE"] = outcome.runs


def _stays(context: Context, outcome: UnitResult, size: int, stay: bool) -> bool:
    """Return whether a held key stays held meanwhile."""
    made: list[_Meanwhile] = []
    wrapped = _Meanwhile if context.shape.kind == "threads" else _TasksMeanwhile

    def make() -> _Meanwhile:
        made.append(wrapped(context.make(), context.shape.keys, size, stay))
        return made[-1]

    meanwhile = f"while {size:,} other keys are {'held' if stay else 'used'}" if size else f"after {HOURS} hours"
    explorer = context.explorer.on(make, keys=Spelling(own=context.shape.shared))
    well = True
    for text in _PROGRAMS:
        result = explorer.every(parse(text), context.level, 0, go_on=lambda runs: context.beat(runs) < 1)
        outcome.runs += result.runs
        well = well and not result.endless and not result.exited
        for finding, _ in result.found.values():
            well = False
            if finding.symptom not in context.known:
                message = f"{meanwhile}: {finding.message}"
                found = Violation(finding.clauses, message, picture=timeline(finding.events), symptom=finding.symptom)
                outcome.found.append(found)
        if outcome.found:
            break
    refused = [one.refused for one in made if one.refused]
    if refused:
        outcome.notes.append(("KM-INDEP", refused[0]))
    return well and not refused and not outcome.found
