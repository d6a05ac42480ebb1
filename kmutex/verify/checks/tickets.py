"""A grant stays distinct from all later ones: the number of a request is not used twice (KM-TOKEN, KM-EXCL).

A number of few bits, a hash, or a reused place in a table distinguishes requests in every short program.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from kmutex._timeouts import TIMED_OUT
from kmutex.engine import eventloop, threads
from kmutex.engine.faces import driven, settled
from kmutex.engine.observer import UncontrolledError
from kmutex.engine.program import parse
from kmutex.engine.search import Chooser
from kmutex.engine.shapes import Shape
from kmutex.engine.trials import Trial
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

REQUESTS = 1_100
"""The number of requests after a grant."""


class _Later:
    """A subject that makes many requests at its first call, and then checks an old grant."""

    def __init__(self, subject: Any, shape: Shape) -> None:
        self.subject = subject
        self.violation: Violation | None = None
        self.asked = 0
        self._shape = shape
        self._progress = threads.progress if shape.kind == "threads" else eventloop.progress

    def lock(self, key: Any, timeout: float | None = None) -> None:
        driven(self.ask(key))

    def unlock(self, key: Any) -> None:
        self.subject.unlock(key)

    async def ask(self, key: Any) -> None:
        """Do all of it at the first call."""
        if not self.asked:
            if self._shape.leases:
                await self._release_again(key)
            if self._shape.tries and not self._shape.reentrant and self.violation is None:
                await self._try_again(key)
        await settled(self.subject.lock(key))

    async def _release_again(self, key: Any) -> None:
        block = self.subject.hold(key)
        by_threads = self._shape.kind == "threads"
        lease = await settled(block.__enter__() if by_threads else block.__aenter__())
        # If possible, not by the lease itself: it may note that it was released.
        await settled(self.subject.unlock(key) if self._shape.strays else lease.release())
        for _ in range(REQUESTS):
            self._progress()
            self.asked += 1
            await settled(self.subject.lock(key))
            with _refused():
                await settled(lease.release())
            try:
                await settled(self.subject.unlock(key))
            except UncontrolledError:
                raise
            except Exception:
                self._find("KM-TOKEN", "a lease that had ended ended a later grant of its key")
                break
        with _refused():
            await settled((block.__exit__ if by_threads else block.__aexit__)(None, None, None))

    async def _try_again(self, key: Any) -> None:
        await settled(self.subject.lock(key))
        for _ in range(REQUESTS):
            self._progress()
            self.asked += 1
            try:
                await settled(self.subject.lock(key, timeout=0))
            except TIMED_OUT:
                continue
            self._find("KM-EXCL", "a key that is held was granted to a try")
            return
        await settled(self.subject.unlock(key))

    def _find(self, clause: str, message: str) -> None:
        self.violation = Violation((clause,), f"{message}, {self.asked:,} requests later", symptom=clause)


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Ignore whether it raises: what it has ended shows in later calls."""
    try:
        yield
    except UncontrolledError:
        raise
    except Exception:
        pass


class _TasksLater(_Later):
    async def lock(self, key: Any, timeout: float | None = None) -> None:  # type: ignore[override]
        await self.ask(key)

    async def unlock(self, key: Any) -> None:  # type: ignore[override]
        await settled(self.subject.unlock(key))


def tickets(context: Context, outcome: UnitResult) -> None:
    """KM-TOKEN and KM-EXCL of one grant while many requests come after it."""
    made: list[_Later] = []
    kind = _Later if context.shape.kind == "threads" else _TasksLater

    def make() -> _Later:
        made.append(kind(context.make(), context.shape))
        return made[-1]

    explorer = context.explorer.on(make, afterwards=False)
    trial = Trial()
    explorer.run(parse("0+a"), context.level, Chooser(), trial)
    outcome.runs = 1
    later = made[0]
    outcome.bound = f"{later.asked:,} requests after a grant"
    if later.violation is not None:
        outcome.found.append(later.violation)
    elif trial.did("0+a"):
        outcome.complete = True
        outcome.witnesses["KM-TOKEN"] += later.asked if context.shape.leases else 0
        outcome.witnesses["KM-EXCL"] += later.asked
