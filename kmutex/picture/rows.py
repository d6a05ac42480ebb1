"""The content of a picture: rows, each in a lane; and the spans in which a lane held a key or waited for it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Change = Literal["", "asks", "has", "refused", "calls", "lets go", "comes back", "takes away"]
"""The effect of a row on its lane and its key:

- asks, has, refused: a request begins; it has got the key; it has ended without the key.
- lets go: the lane no longer counts as the holder, though its call may still be under way.
- calls, comes back: another call begins; it ends.
- takes away: another call has ended, and the key's holder no longer has it.
"""


class PictureRow(NamedTuple):
    """One line of a picture."""

    lane: int | None
    """The index of its lane; None for a row across all lanes, such as a verdict."""
    text: str
    change: Change = ""
    key: str = ""
    side: str = ""
    """The text in the margin, such as the number of a line."""


class Picture(NamedTuple):
    """Lanes and rows."""

    heads: tuple[str, ...]
    """The heading of each lane."""
    rows: tuple[PictureRow, ...]
    side: str = ""
    """The heading of the margin; empty if there is no margin."""


class Span(NamedTuple):
    """The rows in which a lane holds a key, or waits for it."""

    lane: int
    key: str
    holds: bool
    first: int
    """The first row; -1 if it began before."""
    last: int
    """The last row; the number of rows if it goes on after them."""


def spans(picture: Picture) -> list[Span]:
    """Return the spans in which a lane certainly held a key, or waited for it, in the order of their ends.

    If a lane releases a key that it was never seen to get, it has held it since before the first row.
    """
    found: list[Span] = []
    waits: dict[tuple[int, str], int] = {}
    holds: dict[tuple[int, str], int] = {}
    for number, row in enumerate(picture.rows):
        if row.lane is None or not row.change:
            continue
        place = (row.lane, row.key)
        if row.change == "asks":
            waits[place] = number
        elif row.change in ("has", "refused"):
            if place in waits:
                found.append(Span(*place, False, waits.pop(place), number))
            if row.change == "has":
                holds.setdefault(place, number)
        elif row.change == "lets go":
            found.append(Span(*place, True, holds.pop(place, -1), number))
        elif row.change == "takes away":
            for other in [held for held in holds if held[1] == row.key]:
                found.append(Span(*other, True, holds.pop(other), number))
    end = len(picture.rows)
    found += [Span(*place, False, first, end) for place, first in waits.items()]
    found += [Span(*place, True, first, end) for place, first in holds.items()]
    return found
