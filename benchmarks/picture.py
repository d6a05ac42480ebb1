"""The same bars twice: as lines of text and as an SVG. Lengths are in proportion to the figures, from 0.

Where the groups are of different size, each may have a scale of its own (``per_group``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_EIGHTHS = " ▏▎▍▌▋▊▉"
_COLORS = ("#1b7837", "#b35806", "#762a83", "#2166ac")

_WIDTH = 760
_MARGIN = 16
_LABEL = 190
_ROOM = 70  # for the figure behind the longest bar
_BAR = 16
_LINE = 22
_HEAD = 30


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


def svg(title: str, caption: Sequence[str], bars: Sequence[Bar], *, per_group: bool = False) -> str:
    """A document of its own, without scripts, fonts or anything to fetch."""
    longest = _longest(bars, per_group)
    colors = {label: _COLORS[n % len(_COLORS)] for n, label in enumerate(dict.fromkeys(bar.label for bar in bars))}
    span = _WIDTH - 2 * _MARGIN - _LABEL - _ROOM
    left = _MARGIN + _LABEL
    parts = [_text(_MARGIN, _MARGIN + 14, title, "font-size:16px;font-weight:bold")]
    y = _MARGIN + 24
    for group, members in _groups(bars):
        parts.append(_text(_MARGIN, y + 20, group, "font-weight:bold"))
        y += _HEAD
        most = longest[group]
        for bar in members:
            length = bar.value / most * span if most > 0 else 0.0
            parts.append(_text(_MARGIN + 12, y + 12, bar.label))
            parts.append(f'<rect x="{left}" y="{y}" width="{length:.1f}" height="{_BAR}" fill="{colors[bar.label]}"/>')
            parts.append(_text(left + length + 6, y + 12, bar.note))
            y += _LINE
    y += 8
    for line in caption:
        y += 16
        parts.append(_text(_MARGIN, y, line, "font-size:11px;fill:#555"))
    height = y + _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
            f' viewBox="0 0 {_WIDTH} {height}" role="img" style="font:13px sans-serif">',
            f"<title>{escape(title)}</title>",
            f'<rect width="{_WIDTH}" height="{height}" fill="#fff"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def _groups(bars: Iterable[Bar]) -> Iterator[tuple[str, list[Bar]]]:
    groups: dict[str, list[Bar]] = {}
    for bar in bars:
        groups.setdefault(bar.group, []).append(bar)
    yield from groups.items()


def _longest(bars: Sequence[Bar], per_group: bool) -> dict[str, float]:
    most = max((bar.value for bar in bars), default=0.0)
    return {group: max(bar.value for bar in members) if per_group else most for group, members in _groups(bars)}


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}"{f" style={chr(34)}{style}{chr(34)}" if style else ""}>{escape(words)}</text>'
