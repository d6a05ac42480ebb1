"""The spread of some figures, as every benchmark here reports it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Span:
    """The least, the middle and the most of some figures."""

    least: float
    median: float
    most: float

    @classmethod
    def of(cls, figures: Iterable[float]) -> Span:
        """ValueError: there are none."""
        kept = sorted(figures)
        if not kept:
            raise ValueError("no figures")
        return cls(kept[0], statistics.median(kept), kept[-1])
