"""The lock table: who holds which key and who waits for it. No threads, no clock, no awaiting.

An entry is the tickets that asked for its key, oldest first. The first holds the key, the others wait, and their
number is the reference count. No other state must be kept consistent with it, so

- two holders, a negative count, or a count that differs from holder + waiters can't be represented;
- handing the key over *is* removing the head: the next ticket holds from that step on, and no newcomer,
  who can only append, gets between (KM-HANDOFF);
- a cancelled waiter leaves the queue in constant time, wherever it is;
- the entry is removed in the step in which its last ticket leaves (KM-IDLE).

A key that is taken and released without a waiter is the common case, and needs no queue: its entry is the ticket
itself. The first waiter makes it a queue, and it stays one until it is removed (docs/adr/0005-what-a-lock-costs.md).

Each call makes at most one change, as its last step. So an exception out of a call, an interrupt included, means that
the call has changed nothing, or everything that it should change (KM-ATOMIC).

An OrderedDict, not a dict: finding the head of a dict that was emptied from the front walks over the gaps.

The table has no lock of its own. The driver calls it with its guard held, or from its one event loop.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice
from types import MappingProxyType
from typing import Any, NoReturn, SupportsIndex

from kmutex._entry import Entry, Ticket
from kmutex._errors import UnheldKeyError, not_copied
from kmutex._mypyc import mypyc_attr
from kmutex._text import brief

SHOWN = 3
"""Keys that a repr names."""

Waker = Any
"""What a driver needs to wake a waiter: a gate or a future. The table only keeps it."""


class LockTable:
    """Keys to entries. Keys are any hashable values; tickets are the driver's, each used for one request."""

    __slots__ = ("_entries",)

    def __init__(self) -> None:
        self._entries: dict[Hashable, Ticket | OrderedDict[Ticket, Waker | None]] = {}

    def request(self, key: Hashable, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
        """Ask for ``key`` (KM-EXCL, KM-FIFO).

        Returns:
            None if the key is granted at once. Otherwise the waker by which the grant will be told.
        """
        entry = self._entries.setdefault(key, ticket)
        if entry == ticket:  # Not `is`: a compiled ticket is a C integer, and each of its Python objects is new.
            return None
        waker = make_waker()
        if isinstance(entry, int):
            queue: OrderedDict[Ticket, Waker | None] = OrderedDict()
            queue[entry] = None
            queue[ticket] = waker
            self._entries[key] = queue
        else:
            entry[ticket] = waker
        return waker

    def request_all(self, keys: Iterable[Hashable], ticket: Ticket, make_waker: Callable[[], Waker]) -> list[Waker]:
        """Ask for each of ``keys`` in one step (KM-ALL), and return a waker for each that was not free."""
        return [waker for key in keys if (waker := self.request(key, ticket, make_waker)) is not None]

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        """Release ``key`` (KM-HANDOFF).

        Args:
            key: The key.
            ticket: The ticket that must be the holder (KM-TOKEN); None for any.

        Returns:
            The waker of the new holder; None if the key is idle now.

        Raises:
            UnheldKeyError: The key has no holder, or another one. Nothing has changed (KM-UNHELD).
        """
        entry = self._entries.get(key)
        if isinstance(entry, int):
            if ticket is None or ticket == entry:
                del self._entries[key]
                return None
        elif entry is None:
            raise UnheldKeyError(f"unlock of {brief(key)}, which nobody holds")
        elif ticket is None or ticket == next(iter(entry)):
            if len(entry) == 1:
                del self._entries[key]
                return None
            entry.popitem(last=False)
            return next(iter(entry.values()))
        raise UnheldKeyError(f"this lease of {brief(key)} has ended; the key has another holder now")

    def cancel(self, key: Hashable, ticket: Ticket, why: str = "timeout") -> bool:
        """Take a waiter out of the queue (KM-CANCEL).

        Args:
            key: The key.
            ticket: The waiter's ticket.
            why: The reason, for a table that writes a log (specs/trace.md).

        Returns:
            False if the ticket does not wait, because the grant came first (KM-RACE). It then holds the key, unless
            another call has unlocked it since.
        """
        entry = self._entries.get(key)
        if entry is None or isinstance(entry, int) or ticket not in entry or ticket == next(iter(entry)):
            return False
        del entry[ticket]
        return True

    def withdraw(self, key: Hashable, ticket: Ticket, why: str = "cancelled") -> Waker | None:
        """Undo a request in any state: not made, waiting, or granted (KM-INTERRUPT).

        Args:
            key: The key.
            ticket: The ticket of the request.
            why: As for `cancel`.

        Returns:
            The waker of the next holder, if the ticket held the key and somebody waits for it; else None.
        """
        entry = self._entries.get(key)
        if entry is None or self.cancel(key, ticket):
            return None
        holder = entry if isinstance(entry, int) else next(iter(entry))
        return self.release(key, ticket) if holder == ticket else None

    def holds(self, key: Hashable, ticket: Ticket) -> bool:
        """Return whether this ticket is the holder of ``key``."""
        entry = self._entries.get(key)
        return entry is not None and ticket == (entry if isinstance(entry, int) else next(iter(entry)))

    def about(self, key: Hashable) -> str:
        """Return words about the holder of ``key`` for a message. Empty here; `kmutex._owners` has some."""
        return ""

    def waker(self, key: Hashable) -> Waker | None:
        """Return the waker of the holder of ``key``; None if there is no holder, or it never waited."""
        entry = self._entries.get(key)
        return None if entry is None or isinstance(entry, int) else next(iter(entry.values()))

    def entry(self, key: Hashable) -> Entry | None:
        """Return the entry of ``key`` as a value; None if the key is idle."""
        entry = self._entries.get(key)
        return None if entry is None else _as_value(entry)

    def snapshot(self) -> Mapping[Any, Entry]:
        """Return every live key with its entry, as values that never change."""
        return MappingProxyType({key: _as_value(entry) for key, entry in self._live()})

    def shown(self) -> str:
        """Return a line of bounded length: some of the held keys, and how many requests wait for each."""
        names = []
        for key, entry in islice(self._live(), SHOWN):
            waiting = 0 if isinstance(entry, int) else len(entry) - 1
            names.append(brief(key) + (f" ({waiting} waiting)" if waiting else ""))
        more = len(self) - len(names)
        return "held: " + ", ".join(names) + (f" and {more} more" if more else "") if names else "idle"

    def _live(self) -> Iterable[tuple[Hashable, Ticket | OrderedDict[Ticket, Waker | None]]]:
        return self._entries.items()

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries


@mypyc_attr(allow_interpreted_subclasses=True)
class MutexBase:
    """The methods that the mutexes for threads, asyncio and anyio share: what they show of their tables."""

    __slots__ = ()

    def _seen_table(self) -> LockTable:
        raise NotImplementedError

    def _shown(self) -> str:
        return self._seen_table().shown()

    def __len__(self) -> int:
        """Return the number of live keys, that is, of keys that are held. 0 when all are idle (KM-IDLE)."""
        return len(self._seen_table())

    def __contains__(self, key: object) -> bool:
        """Return whether ``key`` is held now."""
        return key in self._seen_table()

    def __bool__(self) -> bool:
        """Return True, even if no key is held."""
        return True

    def __repr__(self) -> str:
        """Return the keys that are held, in one line."""
        return f"<{type(self).__name__} at {id(self):#x}, {self._shown()}>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Raise TypeError: a mutex can be neither copied nor pickled. Weak references are possible."""
        raise not_copied(self)


def _as_value(entry: Ticket | OrderedDict[Ticket, Waker | None]) -> Entry:
    if isinstance(entry, int):
        return Entry(entry, ())
    holder, *waiters = entry
    return Entry(holder, tuple(waiters))


compiled: bool = not hasattr(LockTable.request, "__code__")
"""Whether the lock runs as machine code, which no interrupt can enter. docs/compiled.md says how to build it."""
