"""What a lease is, for threads and for asyncio: one grant of one key, and the end of that grant only (KM-TOKEN)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, Protocol, TypeVar

from kmutex._entry import Ticket
from kmutex._errors import LeaseReusedError
from kmutex._text import brief

NO_TICKET: Ticket = 0
"""Sentinel: never issued as a ticket, so releasing it always raises."""
NOT_ENTERED: Ticket = -1
"""Sentinel of a lease whose block was not entered."""


def distinct(keys: Iterable[Hashable]) -> tuple[Hashable, ...]:
    """Each of these keys once. TypeError: one is not hashable, or it is a text or bytes, which is a key itself."""
    if isinstance(keys, (str, bytes)):
        raise TypeError(f"hold_all takes a list or set of keys, and {brief(keys)} is one key")
    return tuple(dict.fromkeys(keys))


class _Releasing(Protocol):
    def _release(self, key: Hashable, ticket: Ticket) -> None: ...


Mutex = TypeVar("Mutex", bound=_Releasing)


class LeaseOfKey(Generic[Mutex]):
    """The grant that one entry of one block gets. The drivers add how it is entered and left."""

    __slots__ = ("_key", "_mutex", "_ticket", "_timeout")

    def __init__(self, mutex: Mutex, key: Hashable, timeout: float | int | None) -> None:
        self._mutex = mutex
        self._key = key
        self._timeout = timeout
        self._ticket = NOT_ENTERED
        """Then NO_TICKET while it waits, the ticket of the grant, and NO_TICKET once that has ended."""

    def release(self) -> None:
        """End the grant now; the block then ends without a second release. A plain call.

        UnheldKeyError: it was not granted, or has ended: by this call before, or by an `unlock` of the key.
        A later holder is not touched.
        """
        self._mutex._release(self._key, self._ticket)
        self._ticket = NO_TICKET

    def _reused(self) -> LeaseReusedError:
        return LeaseReusedError(f"this lease of {brief(self._key)} was used; call hold() again")
