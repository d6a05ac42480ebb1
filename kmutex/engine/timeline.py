"""What the judge saw, as a timeline: one column for each client, time runs down."""

from __future__ import annotations

from collections.abc import Sequence

from kmutex.engine.run_judge import Event
from kmutex.picture.rows import Picture, PictureRow
from kmutex.picture.text import text


def picture(events: Sequence[Event]) -> Picture:
    """The events as rows, with a lane for each client that does anything."""
    clients = sorted({event.client for event in events if event.client >= 0})
    lane = {client: place for place, client in enumerate(clients)}
    rows = tuple(PictureRow(lane.get(event.client), event.text, event.change, event.key) for event in events)
    return Picture(tuple(f"client {client}" for client in clients), rows)


WIDTH = 80
"""Columns of a terminal, and of a log."""


def timeline(events: Sequence[Event], *, most: int = 60) -> str:
    """The events as text within WIDTH, a column for each client that does anything. The last ``most`` lines."""
    return text(picture(events), most=most, width=WIDTH)
