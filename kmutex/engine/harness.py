"""A factory on the bench: what it makes, what is judged, and one run of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

from kmutex.engine.calls import LOOKING, Calls
from kmutex.engine.explorer import Explorer, Level
from kmutex.engine.features import clauses_off, unpromised
from kmutex.engine.observer import Ending, Observer
from kmutex.engine.program import Program
from kmutex.engine.search import Chooser
from kmutex.engine.shapes import Fitted, Kind, Shape, fit
from kmutex.engine.threads import Crew, controlled


class Harness:
    """Where a factory's lockers are put to work. Nothing is made before the first use."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        kind: Kind | None = None,
        without: Iterable[str] = (),
        promises: Iterable[str] | None = None,
        calls: Calls = LOOKING,
        fitted: Fitted | None = None,
    ) -> None:
        """make: called without arguments, it makes a new locker. kind: None finds it out. without: features that it
        lacks. promises: those of `features.PROMISES` that it makes; None: all for this library's own, else none.
        calls: names, where looking does not find them. fitted: what ``make`` was fitted to, where that is known.

        UnknownFeatureError: ``without`` or ``promises`` names none.
        """
        self.make = make
        self._calls = calls
        self._fitted = fitted
        self.declared = frozenset(without)
        self.promises = None if promises is None else frozenset(promises)
        home = getattr(getattr(make, "__func__", make), "__module__", None) or ""
        loose = unpromised(self.promises, home)
        self.without = self.declared | loose
        """What it is not judged by: what it lacks, and what it does not promise."""
        self._lenient = bool(loose)
        self.off = clauses_off(self.without)
        self._kind = kind
        self._in_control = False

    @cached_property
    def fitted(self) -> Fitted:
        """What the factory makes, and a factory of the one face. NotALockerError: no locker."""
        if self._fitted is not None:
            return self._fitted
        return fit(self.make, without=self.without, calls=self._calls, lenient=self._lenient)

    @cached_property
    def shape(self) -> Shape:
        """What the factory makes. NotALockerError: no locker."""
        shape = self.fitted.shape
        return shape if self._kind is None else replace(shape, kind=self._kind)

    @cached_property
    def _crew(self) -> Crew:
        return Crew()

    @contextmanager
    def control(self) -> Iterator[None]:
        """Within it, the subject's locks and its clock are the scheduler's. Within itself it does nothing more."""
        if self._in_control:
            yield
            return
        self._in_control = True
        try:
            with controlled(self.make):
                yield
        finally:
            self._in_control = False

    @cached_property
    def explorer(self) -> Explorer:
        """To be used within `control`."""
        crew = self._crew if self.shape.kind == "threads" else None
        return Explorer.of(self.fitted, crew=crew, off=self.off | clauses_off(self.shape.loose))

    @property
    def levels(self) -> tuple[Level, ...]:
        """The ways in which a wait of this kind of locker can end."""
        if self.shape.kind == "threads":
            return ("locks",)
        return ("tasks", "timeouts") if self.shape.timeout else ("tasks",)

    def run(self, program: Program, level: Level, observer: Observer) -> Ending:
        """The plain run of a program and its epilogue: nobody is preempted, and nothing ends by chance."""
        with self.control():
            return self.explorer.run(program, level, Chooser(), observer)
