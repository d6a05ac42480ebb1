"""A picture as plain text: a column for each lane."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from kmutex.picture.rows import Picture, PictureRow


def columns(text: str) -> int:
    """Return the width of the text in columns of a monospaced font."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


CLOSE = 18
"""The most columns from one lane to the next in a close layout."""
ROOM = 44
"""The columns that a lane's text should then have."""


def text(picture: Picture, *, most: int | None = None, width: int | None = None) -> str:
    """Return the picture as lines without trailing blanks.

    If the lanes do not fit, they are placed closer, and long text covers the lanes to its right; text that still does
    not fit is cut.

    Args:
        picture: The picture.
        most: Show only this number of rows, the last ones.
        width: The most columns.
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
            return "\n".join(_across(row, width))
        return line(row.side, [row.text if lane == row.lane else "|" for lane in lanes])

    shown, note = _last(picture.rows, most)
    head = [line(picture.side, picture.heads), line("-" * side, ["-" * wide for wide in widths])] if widths else []
    return "\n".join([*head, *note, *map(drawn, shown)])


def _last(rows: Sequence[PictureRow], most: int | None) -> tuple[Sequence[PictureRow], list[str]]:
    shown = rows if most is None else rows[max(0, len(rows) - most) :]
    left_out = len(rows) - len(shown)
    return shown, [f"({left_out} earlier lines left out)"] if left_out else []


def _close(picture: Picture, widths: Sequence[int], side: int, most: int | None, width: int) -> str:
    """Return the lanes in a close layout, in which each text has room to its right, as far as the headings allow."""
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
            return _across(row, width)
        return [line(row.side, row.lane, row.text)]

    shown, note = _last(picture.rows, most)
    heads = "".join(head + " " * (step - columns(head)) for head in picture.heads).rstrip()
    rule = "".join("-" * (step - 2) + "  " for _ in picture.heads).rstrip()
    start = " " * margin
    return "\n".join(
        [start + heads, start + rule, *note, *(line for row in shown for line in drawn(row))],
    )


def _across(row: PictureRow, width: int | None) -> list[str]:
    """Return the lines of a text that belongs to no lane."""
    words = f">> {row.side} {row.text}" if row.side else f">> {row.text}"
    return [words] if width is None else textwrap.wrap(words, width)


def _cut(words: str, width: int) -> str:
    """Return the words within so many columns, with dots if they are cut."""
    if columns(words) <= width:
        return words
    kept = ""
    for char in words:
        if columns(kept + char) > width - 3:
            break
        kept += char
    return kept + "..."
