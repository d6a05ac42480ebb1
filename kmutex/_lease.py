"""What a lease is, for threads and for asyncio: one grant of one key, and the end of that grant only (KM-TOKEN)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from kmutex._entry import Ticket
from kmutex._errors import LeaseReusedError

NO_TICKET: Ticket = 0
"""Sentinel: never issued as a ticket, so releasing it always raises."""
NOT_ENTERED: Ticket = -1
"""Sentinel of a lease whose block was not entered."""


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
        return LeaseReusedError(f"this lease of {self._key!r} was used; call hold() again")
