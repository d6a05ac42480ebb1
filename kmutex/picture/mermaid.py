"""A picture as a sequence diagram for Mermaid: lanes and keys are participants, and a holder is active."""

from __future__ import annotations

import re

from kmutex._text import printable
from kmutex.picture.rows import Picture, PictureRow, spans

_TO_THE_KEY = frozenset({"asks", "calls", "lets go"})
_UNSAFE = re.compile(r"[^A-Za-z0-9 .,:()'/_=!?+-]|(?<=wrap):|^ | $|s(?=tyle)|c(?=lassDef)")
"""Text with a meaning for Mermaid: its marks, "wrap:" at the beginning, and two words that it searches for in the
whole source before it parses it."""


def mermaid(picture: Picture) -> str:
    """Return the source of the diagram."""
    keys = list(dict.fromkeys(row.key for row in picture.rows if row.change))
    lines = ["sequenceDiagram"]
    lines += [f"    participant L{number} as {words(head)}" for number, head in enumerate(picture.heads)]
    lines += [
        f"    participant K{number} as {words(f'key {key}' if key else 'key')}" for number, key in enumerate(keys)
    ]
    if not picture.heads:
        lines.append("    participant L0 as nobody")
    widest = f"L0,L{len(picture.heads) - 1}" if len(picture.heads) > 1 else "L0"
    # A lane can hold a key only once, so Mermaid's own count of activations is that of the spans.
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    for span in spans(picture):
        if span.holds:
            begins.setdefault(span.first, []).append(span.lane)
            ends.setdefault(span.last, []).append(span.lane)
    lines += _activity("activate", begins.get(-1, []))
    for number, row in enumerate(picture.rows):
        lines.append(f"    {_row(row, keys, widest)}")
        lines += _activity("deactivate", ends.get(number, []))
        lines += _activity("activate", begins.get(number, []))
    return "\n".join(lines) + "\n"


def words(text: str) -> str:
    """Return the text in a form without a meaning for Mermaid, for a place that extends to the end of the line."""
    return _UNSAFE.sub(lambda found: f"#{ord(found[0])};", printable(text)) or "#160;"


def _row(row: PictureRow, keys: list[str], widest: str) -> str:
    text = words(f"{row.side} {row.text}" if row.side else row.text)
    if row.lane is None:
        return f"Note over {widest}: {text}"
    if not row.change:
        return f"Note over L{row.lane}: {text}"
    key = f"K{keys.index(row.key)}"
    return f"L{row.lane}->>{key}: {text}" if row.change in _TO_THE_KEY else f"{key}-->>L{row.lane}: {text}"


def _activity(word: str, lanes: list[int]) -> list[str]:
    return [f"    {word} L{lane}" for lane in lanes]
