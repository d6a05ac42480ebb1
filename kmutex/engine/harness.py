"""A factory on the bench: what it makes, what is judged, and one run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

from kmutex._noop import NoopLocker
from kmutex.engine.eventloop import LoopRun
from kmutex.engine.explorer import Explorer, Level, key_of
from kmutex.engine.features import clauses_off, unpromised
from kmutex.engine.judge import Judge
from kmutex.engine.observer import Ending, Observer
from kmutex.engine.program import Program, parse
from kmutex.engine.scenarios import with_epilogue
from kmutex.engine.search import Chooser
from kmutex.engine.shapes import Kind, NotALockerError, Shape, look
from kmutex.engine.threads import Crew, ThreadRun, controlled


class Harness:
    """Where a factory's lockers are put to work. Nothing is made before the first use."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        kind: Kind | None = None,
        without: Iterable[str] = (),
        promises: Iterable[str] | None = None,
    ) -> None:
        """make: called without arguments, it makes a new locker. kind: None finds it out. without: features that it
        lacks. promises: those of `features.PROMISES` that it makes; None: all for this library's own, else none.

        UnknownFeatureError: ``without`` or ``promises`` names none.
        """
        self.make = make
        self.declared = frozenset(without)
        self.promises = None if promises is None else frozenset(promises)
        home = getattr(getattr(make, "__func__", make), "__module__", None) or ""
        self.without = self.declared | unpromised(self.promises, home)
        """What it is not judged by: what it lacks, and what it does not promise."""
        self.off = clauses_off(self.without)
        self._kind = kind

    @cached_property
    def shape(self) -> Shape:
        """What the factory makes. NotALockerError: no locker."""
        with self.control():
            shape = self._look()
        return shape if self._kind is None else replace(shape, kind=self._kind)

    def _look(self) -> Shape:
        """Looks within a run, so that a factory may start threads and wait for them."""
        seen: list[Shape | NotALockerError] = []

        def make() -> NoopLocker:
            try:
                seen.append(look(self.make, self.without))
            except NotALockerError as error:
                seen.append(error)
            return NoopLocker()

        self._run(make, parse("0+a"), "locks", Judge(), 0)
        shape = seen[0] if seen else NotALockerError("the factory does not come back; it waits for something")
        if isinstance(shape, NotALockerError):
            raise shape
        return shape

    @cached_property
    def _crew(self) -> Crew:
        return Crew()

    def control(self) -> AbstractContextManager[None]:
        """Within it, the subject's locks and its clock are the scheduler's."""
        return controlled(self.make)

    @cached_property
    def explorer(self) -> Explorer:
        """To be used within `control`."""
        crew = self._crew if self.shape.kind == "threads" else None
        return Explorer(self.make, crew=crew, off=self.off, tries=self.shape.timeout)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The ways in which a wait of this kind of locker can end."""
        if self.shape.kind == "threads":
            return ("locks",)
        return ("tasks", "timeouts") if self.shape.timeout else ("tasks",)

    def run(self, program: Program, level: Level, observer: Observer) -> Ending:
        """The plain run of a program and its epilogue: nobody is preempted, and nothing ends by chance."""
        whole, tail = with_epilogue(program, tries=self.shape.timeout)
        with self.control():
            return self._run(self.make, whole, level, observer, tail)

    def _run(self, make: Callable[[], Any], program: Program, level: Level, observer: Observer, tail: int) -> Ending:
        run: ThreadRun | LoopRun
        if level == "locks":
            run = ThreadRun(make, program, Chooser(), observer, crew=self._crew, keys=key_of, quiet_tail=tail)
        else:
            timeouts = level == "timeouts"
            run = LoopRun(make, program, Chooser(), observer, keys=key_of, timeouts=timeouts, quiet_tail=tail)
        return run.run()
