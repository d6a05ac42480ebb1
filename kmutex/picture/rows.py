"""What a picture shows: rows, each in a lane, and from them who held and who waited for which key, from row to row."""

from __future__ import annotations

from typing import Literal, NamedTuple

Change = Literal["", "asks", "has", "refused", "calls", "lets go", "comes back", "takes away"]
"""What a row says about its lane and its key:

- asks, has, refused: a request is made; it has the key; it is over without.
- lets go: the lane no longer counts as the holder, though its call may still be under way.
- calls, comes back: another call, from its beginning to its end.
- takes away: another call came back, and the key's holder has it no more.
"""


class PictureRow(NamedTuple):
    """One line of a picture."""

    lane: int | None
    """The place of its lane among the heads; None: it stands across all of them, as a verdict does."""
    text: str
    change: Change = ""
    key: str = ""
    side: str = ""
    """What stands in the margin, such as the number of a line."""


class Picture(NamedTuple):
    """Lanes and rows."""

    heads: tuple[str, ...]
    """What stands above each lane."""
    rows: tuple[PictureRow, ...]
    side: str = ""
    """What stands above the margin; empty: there is none."""


class Span(NamedTuple):
    """A lane holds a key, or waits for it, from one row to another."""

    lane: int
    key: str
    holds: bool
    first: int
    """-1: from before the first row."""
    last: int
    """The number of rows: it goes on after the last one."""


def spans(picture: Picture) -> list[Span]:
    """Who surely held which key, and who asked for it and had no answer yet, in the order of their ends.

    A lane that lets go of a key which it was never seen to get has held it since before the first row.
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
