"""The rules of one key, as functions from one small immutable value to the next.

A key is absent, or it has an entry: one holder and the waiters in the order in which they asked.
Three things can happen to it.

request   absent -> the caller holds.         held -> the caller waits, behind everybody who asked before.
release   nobody waits -> the key is absent.  somebody waits -> the oldest waiter holds, at once.
cancel    a waiter leaves; the holder and the order of the others stay.

The contracts under the functions are PEP 316; CrossHair must report each as confirmed over all paths
(tests/contracts). ``kmutex._core.LockTable`` is what runs: it keeps the same entry in a form in which each
step takes constant time, and the refinement check (kmutex/selfcheck/refinement.py) compares it with these
functions in every reachable state of the model and for every action there.
"""

from typing import NamedTuple

Ticket = int
"""The number of one request. A locker never uses it twice."""


class Entry(NamedTuple):
    """The state of a key that is held, at one moment. It never changes."""

    holder: Ticket
    """The request that holds the key."""
    waiters: tuple[Ticket, ...]
    """The requests that wait for it, oldest first."""

    @property
    def refs(self) -> int:
        """The number of requests that keep the entry alive, that is, one holder and its waiters (KM-REF)."""
        return 1 + len(self.waiters)


def after_request(entry: Entry | None, ticket: Ticket) -> Entry:
    """Return the entry once ``ticket`` has asked for the key (KM-EXCL, KM-FIFO, KM-REF).

    pre: entry is None or ticket != entry.holder
    post: __return__.holder == (ticket if entry is None else entry.holder)
    post: entry is not None or __return__.waiters == ()
    post: entry is None or __return__.waiters == entry.waiters + (ticket,)
    post: entry is None or __return__.refs == entry.refs + 1
    """
    if entry is None:
        return Entry(ticket, ())
    return Entry(entry.holder, entry.waiters + (ticket,))  # noqa: RUF005 - CrossHair does not confirm a starred tuple


def after_release(holder: Ticket, oldest: Ticket | None, younger: tuple[Ticket, ...]) -> Entry | None:
    """Return the entry once ``holder`` has released; None if the key is idle (KM-HANDOFF, KM-FIFO, KM-IDLE, KM-REF).

    The waiters are given as the oldest, or None if nobody waits, and those behind it.

    pre: oldest is not None or younger == ()
    post: (__return__ is None) == (oldest is None)
    post: __return__ is None or __return__.holder == oldest
    post: __return__ is None or __return__.waiters == younger
    post: __return__ is None or __return__.refs == Entry(holder, (oldest,) + younger).refs - 1
    """
    if oldest is None:
        return None
    return Entry(oldest, younger)


def after_cancel(holder: Ticket, before: tuple[Ticket, ...], ticket: Ticket, after: tuple[Ticket, ...]) -> Entry:
    """Return ``Entry(holder, (*before, ticket, *after))`` once the waiter ``ticket`` has left (KM-CANCEL, KM-REF).

    pre: ticket != holder
    post: __return__.holder == holder
    post: __return__.waiters == before + after
    post: __return__.refs == Entry(holder, before + (ticket,) + after).refs - 1
    """
    return Entry(holder, before + after)
