"""The events of a run as a timeline: one column for each client, time runs down."""

from __future__ import annotations

from collections.abc import Sequence

from kmutex.engine.run_judge import Event
from kmutex.picture.rows import Picture, PictureRow
from kmutex.picture.text import text


def picture(events: Sequence[Event]) -> Picture:
    """Return the events as rows, with a column for each client that has any."""
    clients = sorted({event.client for event in events if event.client >= 0})
    lane = {client: place for place, client in enumerate(clients)}
    rows = tuple(PictureRow(lane.get(event.client), event.text, event.change, event.key) for event in events)
    return Picture(tuple(f"client {client}" for client in clients), rows)


WIDTH = 80
"""The width of a terminal or a log, in columns."""


def timeline(events: Sequence[Event], *, most: int = 60) -> str:
    """Return the last ``most`` events as text within WIDTH, with a column for each client that has any."""
    return text(picture(events), most=most, width=WIDTH)
