"""What a check of its own works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kmutex.engine.explorer import Explorer, Level
from kmutex.engine.shapes import Shape


@dataclass
class Context:
    """A subject, and what runs it."""

    make: Callable[[], Any]
    shape: Shape
    explorer: Explorer
    beat: Callable[[int], int]
    known: frozenset[str]
    """Symptoms of plainer programs."""
    unpromised: frozenset[str] = frozenset()
    """Clauses that the subject does not promise."""
    off: frozenset[str] = frozenset()
    """Clauses that are not judged."""

    @property
    def level(self) -> Level:
        """Where switches come in a program of this subject."""
        return "locks" if self.shape.kind == "threads" else "tasks"
