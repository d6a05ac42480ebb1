"""Bars as lines of text. Lengths are in proportion to the figures, from 0.

Where the groups are of different size, each may have a scale of its own (``per_group``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

_EIGHTHS = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True)
class Bar:
    """One bar. ``group`` is a heading over the bars that stand together; ``note`` is printed behind the bar."""

    group: str
    label: str
    value: float
    note: str


def text_bars(bars: Sequence[Bar], width: int = 50, *, per_group: bool = False) -> Iterator[str]:
    """A line for each group and each bar; the longest bar, of all or of its group, has ``width`` columns."""
    longest = _longest(bars, per_group)
    label = max((len(bar.label) for bar in bars), default=0)
    for group, members in _groups(bars):
        yield group
        most = longest[group]
        for bar in members:
            eighths = round(bar.value / most * width * 8) if most > 0 else 0
            whole, part = divmod(eighths, 8)
            drawn = "█" * whole + (_EIGHTHS[part] if part else "")
            yield f"  {bar.label:<{label}} {drawn} {bar.note}"


def _groups(bars: Iterable[Bar]) -> Iterator[tuple[str, list[Bar]]]:
    groups: dict[str, list[Bar]] = {}
    for bar in bars:
        groups.setdefault(bar.group, []).append(bar)
    yield from groups.items()


def _longest(bars: Sequence[Bar], per_group: bool) -> dict[str, float]:
    most = max((bar.value for bar in bars), default=0.0)
    return {group: max(bar.value for bar in members) if per_group else most for group, members in _groups(bars)}
