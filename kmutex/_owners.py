"""Who holds a key, since when and from where: a lock table with notes, for a mutex made with ``diagnose=True``.

Any other mutex has a plain `LockTable` and does no extra step (tests/test_owners.py counts them).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Hashable
from typing import NamedTuple

from kmutex._core import LockTable, Waker
from kmutex._entry import Ticket
from kmutex._errors import KMutexError

DEPTH = 16
"""Stack frames kept for each request."""
SHOWN = 3
"""Stack frames in a message."""


class Owner(NamedTuple):
    """The holder of a key at one moment."""

    name: str
    """The name of its thread or task at the request."""
    waited: float
    """Seconds from the request to the grant."""
    held: float
    """Seconds since the grant."""
    stack: tuple[str, ...]
    """The stack of the request as ``FILE:LINE in FUNCTION``, innermost call first."""

    def __str__(self) -> str:
        """Return all of it in one line."""
        where = " < ".join(self.stack[:SHOWN])
        return f"{self.name} has held it for {self.held:.3f} s, after a wait of {self.waited:.3f} s; asked at {where}"


class _Note:
    """The note about one request."""

    __slots__ = ("asked", "granted", "name", "stack")

    def __init__(self, name: str, stack: tuple[str, ...], asked: float) -> None:
        self.name = name
        self.stack = stack
        self.asked = asked
        self.granted: float | None = None


class WatchedTable(LockTable):
    """A lock table with a note for each ticket in it. Its base class decides about grants."""

    __slots__ = ("_notes", "_who")

    def __init__(self, who: Callable[[], str]) -> None:
        """Make an empty table.

        Args:
            who: Returns the name of the caller, for `Owner.name`.
        """
        super().__init__()
        self._who = who
        self._notes: dict[Hashable, dict[Ticket, _Note]] = {}

    def request(self, key: Hashable, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
        waker = super().request(key, ticket, make_waker)
        self._notes.setdefault(key, {})[ticket] = _Note(self._who(), _stack(), time.monotonic())
        self._tidy(key)
        return waker

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        waker = super().release(key, ticket)
        self._tidy(key)
        return waker

    def cancel(self, key: Hashable, ticket: Ticket, why: str = "timeout") -> bool:
        cancelled = super().cancel(key, ticket, why)
        self._tidy(key)
        return cancelled

    def withdraw(self, key: Hashable, ticket: Ticket, why: str = "cancelled") -> Waker | None:
        waker = super().withdraw(key, ticket, why)
        self._tidy(key)
        return waker

    def owner(self, key: Hashable) -> Owner | None:
        """Return the holder of ``key``; None if nobody holds it, or an interrupt came before the note was written."""
        entry = self.entry(key)
        note = None if entry is None else self._notes.get(key, {}).get(entry.holder)
        if note is None or note.granted is None:
            return None
        return Owner(note.name, note.granted - note.asked, time.monotonic() - note.granted, note.stack)

    def about(self, key: Hashable) -> str:
        owner = self.owner(key)
        return "" if owner is None else str(owner)

    def _tidy(self, key: Hashable) -> None:
        """Drop the notes of tickets that left the table; note the time of a new grant."""
        entry = self.entry(key)
        if entry is None:
            self._notes.pop(key, None)
            return
        notes = self._notes.get(key, {})
        self._notes[key] = {ticket: notes[ticket] for ticket in (entry.holder, *entry.waiters) if ticket in notes}
        holder = notes.get(entry.holder)
        if holder is not None and holder.granted is None:
            holder.granted = time.monotonic()


def owner_in(table: LockTable, key: Hashable) -> Owner | None:
    """Return the holder of ``key`` in a table with notes.

    Raises:
        KMutexError: The table has no notes.
    """
    table = getattr(table, "inner", table)  # The table of a recorded mutex wraps the one with notes.
    if not isinstance(table, WatchedTable):
        raise KMutexError("owner() needs a mutex that was made with diagnose=True")
    return table.owner(key)


def _stack() -> tuple[str, ...]:
    frame = sys._getframe()  # A compiled function has no frame of its own.
    found: list[str] = []
    while frame is not None and len(found) < DEPTH:
        # The frames of the mutex itself are the innermost.
        if found or str(frame.f_globals.get("__name__")).partition(".")[0] != "kmutex":
            found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)
