"""The rules of one key, each got wrong on purpose: for every postcondition of ``kmutex._entry``, a body it refutes.

A twin has the parameters of the function it stands for and no docstring: the test puts the contract of the real
function over this body, so a twin can't keep an old contract alive. Tuples are joined with ``+`` as they are there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from kmutex._entry import Entry, Ticket

Body = TypeVar("Body", bound=Callable[..., object])


def twin(function: str, post: str) -> Callable[[Body], Body]:
    """Mark a wrong body for ``function``; ``post`` is there to refute it. The test reads the mark from the source."""
    return lambda body: body


@twin("after_request", "__return__.holder == (ticket if entry is None else entry.holder)")
def newcomer_takes_over(entry: Entry | None, ticket: Ticket) -> Entry:
    if entry is None:
        return Entry(ticket, ())
    return Entry(ticket, entry.waiters + (ticket,))


@twin("after_request", "entry is not None or __return__.waiters == ()")
def first_also_waits(entry: Entry | None, ticket: Ticket) -> Entry:
    if entry is None:
        return Entry(ticket, (ticket,))
    return Entry(entry.holder, entry.waiters + (ticket,))


@twin("after_request", "entry is None or __return__.waiters == entry.waiters + (ticket,)")
def newcomer_queues_in_front(entry: Entry | None, ticket: Ticket) -> Entry:
    if entry is None:
        return Entry(ticket, ())
    return Entry(entry.holder, (ticket,) + entry.waiters)


@twin("after_request", "entry is None or __return__.refs == entry.refs + 1")
def newcomer_is_not_counted(entry: Entry | None, ticket: Ticket) -> Entry:
    if entry is None:
        return Entry(ticket, ())
    return Entry(entry.holder, entry.waiters)


@twin("after_release", "(__return__ is None) == (oldest is None)")
def evicts_with_waiters(holder: Ticket, oldest: Ticket | None, younger: tuple[Ticket, ...]) -> Entry | None:
    return None


@twin("after_release", "(__return__ is None) == (oldest is None)")
def never_evicts(holder: Ticket, oldest: Ticket | None, younger: tuple[Ticket, ...]) -> Entry | None:
    if oldest is None:
        return Entry(holder, ())
    return Entry(oldest, younger)


@twin("after_release", "__return__ is None or __return__.holder == oldest")
def holder_keeps_the_key(holder: Ticket, oldest: Ticket | None, younger: tuple[Ticket, ...]) -> Entry | None:
    if oldest is None:
        return None
    return Entry(holder, younger)


@twin("after_release", "__return__ is None or __return__.waiters == younger")
def younger_lose_their_place(holder: Ticket, oldest: Ticket | None, younger: tuple[Ticket, ...]) -> Entry | None:
    if oldest is None:
        return None
    return Entry(oldest, younger[:1] + younger[:-1])


@twin("after_release", "__return__ is None or __return__.refs == Entry(holder, (oldest,) + younger).refs - 1")
def granted_keeps_its_place(holder: Ticket, oldest: Ticket | None, younger: tuple[Ticket, ...]) -> Entry | None:
    if oldest is None:
        return None
    return Entry(oldest, (oldest,) + younger)


@twin("after_cancel", "__return__.holder == holder")
def cancelled_waiter_holds(
    holder: Ticket, before: tuple[Ticket, ...], ticket: Ticket, after: tuple[Ticket, ...]
) -> Entry:
    return Entry(ticket, before + after)


@twin("after_cancel", "__return__.waiters == before + after")
def others_change_places(
    holder: Ticket, before: tuple[Ticket, ...], ticket: Ticket, after: tuple[Ticket, ...]
) -> Entry:
    return Entry(holder, after + before)


@twin("after_cancel", "__return__.refs == Entry(holder, before + (ticket,) + after).refs - 1")
def cancel_keeps_the_count(
    holder: Ticket, before: tuple[Ticket, ...], ticket: Ticket, after: tuple[Ticket, ...]
) -> Entry:
    return Entry(holder, before + (ticket,) + after)
