"""Who holds a key, since when and from where: a lock table that takes notes, for a mutex made with ``diagnose=True``.

A mutex that was made without has a `LockTable`, and takes not one step for this (tests/test_owners.py counts them).
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
"""Frames that are kept of where a key was asked for."""
SHOWN = 3
"""Frames that a message shows."""


class Owner(NamedTuple):
    """The holder of a key at one moment."""

    name: str
    """Its thread or task, when it asked."""
    waited: float
    """Seconds from the request to the grant."""
    held: float
    """Seconds since the grant."""
    stack: tuple[str, ...]
    """Where it asked, the innermost call first: "FILE:LINE in FUNCTION"."""

    def __str__(self) -> str:
        """One line."""
        where = " < ".join(self.stack[:SHOWN])
        return f"{self.name} has held it for {self.held:.3f} s, after a wait of {self.waited:.3f} s; asked at {where}"


class _Note:
    """What is known of one request."""

    __slots__ = ("asked", "granted", "name", "stack")

    def __init__(self, name: str, stack: tuple[str, ...], asked: float) -> None:
        self.name = name
        self.stack = stack
        self.asked = asked
        self.granted: float | None = None


class WatchedTable(LockTable):
    """A lock table with a note for each ticket in it. What it grants, and to whom, is the other's to say."""

    __slots__ = ("_notes", "_who")

    def __init__(self, who: Callable[[], str]) -> None:
        """who: the name of the caller, as `Owner.name` has it."""
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
        """The holder of ``key``; None where there is none, or an interrupt came before its note."""
        entry = self.entry(key)
        note = None if entry is None else self._notes.get(key, {}).get(entry.holder)
        if note is None or note.granted is None:
            return None
        return Owner(note.name, note.granted - note.asked, time.monotonic() - note.granted, note.stack)

    def about(self, key: Hashable) -> str:
        owner = self.owner(key)
        return "" if owner is None else str(owner)

    def _tidy(self, key: Hashable) -> None:
        """Keep the notes of those that are in the table, and no others; note when its holder got the key."""
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
    """The holder of ``key`` in a table that takes notes. KMutexError: this one takes none."""
    table = getattr(table, "inner", table)  # One that is recorded is within another.
    if not isinstance(table, WatchedTable):
        raise KMutexError("who holds a key is known where the mutex was made with diagnose=True")
    return table.owner(key)


def _stack() -> tuple[str, ...]:
    frame = sys._getframe()  # Where this is compiled, it has no frame of its own.
    found: list[str] = []
    while frame is not None and len(found) < DEPTH:
        # The frames of the mutex itself are the innermost.
        if found or str(frame.f_globals.get("__name__")).partition(".")[0] != "kmutex":
            found.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}")
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)
