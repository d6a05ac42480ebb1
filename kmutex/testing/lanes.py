"""Who did what, as a picture: one lane for each client, time runs down."""

from __future__ import annotations

from collections.abc import Sequence

from kmutex.testing.judge import Event


def lanes(events: Sequence[Event], *, most: int = 60) -> str:
    """The events as text, a column for each client that does anything. The last ``most`` lines."""
    clients = sorted({event.client for event in events if event.client >= 0})
    widths = {
        client: max([len(f"client {client}"), *(len(event.text) for event in events if event.client == client)])
        for client in clients
    }
    head = "  ".join(f"client {client}".ljust(widths[client]) for client in clients)
    rule = "  ".join("-" * widths[client] for client in clients)
    rows = []
    for event in events:
        if event.client < 0:
            rows.append(f">> {event.text}")
        else:
            cells = (event.text if client == event.client else "|" for client in clients)
            rows.append("  ".join(cell.ljust(widths[client]) for cell, client in zip(cells, clients, strict=True)))
    left_out = [f"({len(rows) - most} earlier lines left out)"] if len(rows) > most else []
    return "\n".join(line.rstrip() for line in [head, rule, *left_out, *rows[-most:]])
