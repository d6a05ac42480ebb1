"""A picture as plain text: a column for each lane."""

from __future__ import annotations

from collections.abc import Sequence

from kmutex.picture.lanes import Picture, Row


def text(picture: Picture, *, most: int | None = None) -> str:
    """Lines without trailing blanks. most: of the rows, so many of the last ones."""
    lanes = range(len(picture.heads))
    widths = [
        max([len(head), *(len(row.text) for row in picture.rows if row.lane == lane)])
        for lane, head in enumerate(picture.heads)
    ]
    side = max([len(picture.side), *(len(row.side) for row in picture.rows)])

    def line(left: str, cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
        return "  ".join([left.rjust(side), *padded] if side else padded).rstrip()

    def drawn(row: Row) -> str:
        if row.lane is None:
            return f">> {row.side} {row.text}" if row.side else f">> {row.text}"
        return line(row.side, [row.text if lane == row.lane else "|" for lane in lanes])

    shown = picture.rows if most is None else picture.rows[max(0, len(picture.rows) - most) :]
    left_out = len(picture.rows) - len(shown)
    note = [f"({left_out} earlier lines left out)"] if left_out else []
    head = [line(picture.side, picture.heads), line("-" * side, ["-" * width for width in widths])]
    return "\n".join([*head, *note, *map(drawn, shown)])
