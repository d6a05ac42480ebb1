"""A picture as plain text: a column for each lane."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from kmutex.picture.rows import Picture, PictureRow


def columns(text: str) -> int:
    """How many columns of a monospaced font the text takes."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)


def text(picture: Picture, *, most: int | None = None) -> str:
    """Lines without trailing blanks. most: of the rows, so many of the last ones."""
    lanes = range(len(picture.heads))
    widths = [
        max([columns(head), *(columns(row.text) for row in picture.rows if row.lane == lane)])
        for lane, head in enumerate(picture.heads)
    ]
    side = max([columns(picture.side), *(columns(row.side) for row in picture.rows)])

    def line(left: str, cells: Sequence[str]) -> str:
        padded = [cell + " " * (width - columns(cell)) for cell, width in zip(cells, widths, strict=True)]
        margin = " " * (side - columns(left)) + left
        return "  ".join([margin, *padded] if side else padded).rstrip()

    def drawn(row: PictureRow) -> str:
        if row.lane is None:
            return f">> {row.side} {row.text}" if row.side else f">> {row.text}"
        return line(row.side, [row.text if lane == row.lane else "|" for lane in lanes])

    shown = picture.rows if most is None else picture.rows[max(0, len(picture.rows) - most) :]
    left_out = len(picture.rows) - len(shown)
    note = [f"({left_out} earlier lines left out)"] if left_out else []
    head = [line(picture.side, picture.heads), line("-" * side, ["-" * width for width in widths])]
    return "\n".join([*head, *note, *map(drawn, shown)])
