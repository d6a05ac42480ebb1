"""A factory under test: the shape of its lockers, what is judged, and runs."""

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
    """Runs a factory's lockers. Nothing is made before the first use."""

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
        """Prepare a factory.

        Args:
            make: Makes a new locker, without arguments.
            kind: "threads" or "asyncio"; None finds out.
            without: Features that it lacks.
            promises: Names of `features.PROMISES`. None: all for this library's own lockers, else no promise.
            calls: Names of its methods, if they are not found automatically.
            fitted: The result of `shapes.fit` for ``make``, if known.

        Raises:
            UnknownFeatureError: ``without`` or ``promises`` has an unknown name.
        """
        self.make = make
        self._calls = calls
        self._fitted = fitted
        self.declared = frozenset(without)
        self.promises = None if promises is None else frozenset(promises)
        home = getattr(getattr(make, "__func__", make), "__module__", None) or ""
        loose = unpromised(self.promises, home)
        self.without = self.declared | loose
        """Features that are not judged: those that it lacks, and those that it does not promise."""
        self._lenient = bool(loose)
        self.off = clauses_off(self.without)
        self._kind = kind
        self._in_control = False

    @cached_property
    def fitted(self) -> Fitted:
        """The shape of its lockers, and a factory of adapted ones; raises NotALockerError."""
        if self._fitted is not None:
            return self._fitted
        return fit(self.make, without=self.without, calls=self._calls, lenient=self._lenient)

    @cached_property
    def shape(self) -> Shape:
        """The shape of its lockers; raises NotALockerError."""
        shape = self.fitted.shape
        return shape if self._kind is None else replace(shape, kind=self._kind)

    @cached_property
    def _crew(self) -> Crew:
        return Crew()

    @contextmanager
    def control(self) -> Iterator[None]:
        """Within the block, the scheduler replaces the subject's locks and clock. It may be nested."""
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
        """The explorer, for use within `control`."""
        crew = self._crew if self.shape.kind == "threads" else None
        return Explorer.of(self.fitted, crew=crew, off=self.off | clauses_off(self.shape.loose))

    @property
    def levels(self) -> tuple[Level, ...]:
        """How a wait of this kind of locker can end."""
        if self.shape.kind == "threads":
            return ("locks",)
        return ("tasks", "timeouts") if self.shape.timeout else ("tasks",)

    def run(self, program: Program, level: Level, observer: Observer) -> Ending:
        """Run a program and its epilogue in the default schedule: no preemption, no random choice."""
        with self.control():
            return self.explorer.run(program, level, Chooser(), observer)
