"""A lease, for threads and for asyncio: it holds one grant of one key, and ends that grant only (KM-TOKEN)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, Final, NoReturn, SupportsIndex

from kmutex._entry import Ticket
from kmutex._errors import LeaseReusedError, not_copied
from kmutex._text import brief

NO_TICKET: Final[Ticket] = 0
"""Sentinel: never issued as a ticket, so releasing it always raises."""
NOT_ENTERED: Final[Ticket] = -1
"""Sentinel of a lease whose block was not entered."""


def distinct(keys: Iterable[Hashable]) -> tuple[Hashable, ...]:
    """Return each of these keys once.

    Raises:
        TypeError: A key is not hashable, or ``keys`` is a str or bytes, which is a single key.
    """
    if isinstance(keys, (str, bytes)):
        raise TypeError(f"hold_all takes a list or set of keys, and {brief(keys)} is one key")
    return tuple(dict.fromkeys(keys))


class LeaseOfKey:
    """The grant for one ``with`` block. The drivers add how the block is entered and left."""

    __slots__ = ("_key", "_mutex", "_owner", "_ticket", "_timeout")

    def __init__(self, mutex: Any, key: Hashable, timeout: float | int | None, owner: object = None) -> None:
        self._mutex = mutex
        """The driver's inner mutex. No type variable: docs/compiled.md says what mypyc does with a generic class."""
        self._owner = owner
        """The public mutex, kept alive by its leases."""
        self._key = key
        self._timeout = timeout
        self._ticket = NOT_ENTERED
        """Later NO_TICKET while it waits, then the ticket of the grant, and NO_TICKET once that has ended."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Raise TypeError: a lease can be neither copied nor pickled."""
        raise not_copied(self)

    def _reused(self) -> LeaseReusedError:
        return LeaseReusedError(f"this lease of {brief(self._key)} was used; call hold() again")
