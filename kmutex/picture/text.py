"""A picture as plain text: a column for each lane."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from kmutex.picture.rows import Picture, PictureRow


def columns(text: str) -> int:
    """How many columns of a monospaced font the text takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


CLOSE = 18
"""Columns from one lane to the next, at the most, where they stand close."""
ROOM = 44
"""Columns that the text of a lane should have then."""


def text(picture: Picture, *, most: int | None = None, width: int | None = None) -> str:
    """Lines without trailing blanks. most: of the rows, so many of the last ones. width: columns, at the most.

    Where the lanes do not fit side by side, they stand closer, and what is long covers the lanes to its right; what
    still does not fit is cut.
    """
    lanes = range(len(picture.heads))
    widths = [
        max([columns(head), *(columns(row.text) for row in picture.rows if row.lane == lane)])
        for lane, head in enumerate(picture.heads)
    ]
    side = max([columns(picture.side), *(columns(row.side) for row in picture.rows)])
    if width is not None and sum(widths) + 2 * len(widths) + side > width:
        return _close(picture, widths, side, most, width)

    def line(left: str, cells: Sequence[str]) -> str:
        padded = [cell + " " * (width - columns(cell)) for cell, width in zip(cells, widths, strict=True)]
        margin = " " * (side - columns(left)) + left
        return "  ".join([margin, *padded] if side else padded).rstrip()

    def drawn(row: PictureRow) -> str:
        if row.lane is None:
            return f">> {row.side} {row.text}" if row.side else f">> {row.text}"
        return line(row.side, [row.text if lane == row.lane else "|" for lane in lanes])

    shown, note = _last(picture.rows, most)
    head = [line(picture.side, picture.heads), line("-" * side, ["-" * wide for wide in widths])] if widths else []
    return "\n".join([*head, *note, *map(drawn, shown)])


def _last(rows: Sequence[PictureRow], most: int | None) -> tuple[Sequence[PictureRow], list[str]]:
    shown = rows if most is None else rows[max(0, len(rows) - most) :]
    left_out = len(rows) - len(shown)
    return shown, [f"({left_out} earlier lines left out)"] if left_out else []


def _close(picture: Picture, widths: Sequence[int], side: int, most: int | None, width: int) -> str:
    """The lanes so close that the text of each has room to its right, as far as their heads allow it."""
    margin = side + 2 if side else 0
    steps = [(width - margin - min(wide, ROOM)) // lane for lane, wide in enumerate(widths) if lane]
    step = max([min([CLOSE, *steps]), *(columns(head) + 2 for head in picture.heads)])

    def line(left: str, lane: int, words: str) -> str:
        start = " " * (side - columns(left)) + left + "  " if side else ""
        bars = "".join("|" + " " * (step - 1) for _ in range(lane))
        cut = _cut(words, width - margin - lane * step)
        used = lane * step + columns(cut) + 1
        after = "".join(
            " " * (step * other - max(used, step * (other - 1) + 1)) + "|"
            for other in range(lane + 1, len(widths))
            if step * other >= used
        )
        gap = " " if after else ""
        return (start + bars + cut + gap + after).rstrip()

    def drawn(row: PictureRow) -> list[str]:
        if row.lane is None:
            return textwrap.wrap(f">> {row.side} {row.text}" if row.side else f">> {row.text}", width)
        return [line(row.side, row.lane, row.text)]

    shown, note = _last(picture.rows, most)
    heads = "".join(head + " " * (step - columns(head)) for head in picture.heads).rstrip()
    rule = "".join("-" * (step - 2) + "  " for _ in picture.heads).rstrip()
    start = " " * margin
    return "\n".join(
        [start + heads, start + rule, *note, *(line for row in shown for line in drawn(row))],
    )


def _cut(words: str, width: int) -> str:
    """The words within so many columns, with dots where something is cut off."""
    if columns(words) <= width:
        return words
    kept = ""
    for char in words:
        if columns(kept + char) > width - 3:
            break
        kept += char
    return kept + "..."
