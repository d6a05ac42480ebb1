"""What a lease is, for threads and for asyncio: one grant of one key, and the end of that grant only (KM-TOKEN)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NoReturn, SupportsIndex

from kmutex._entry import Ticket
from kmutex._errors import LeaseReusedError, not_copied
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


class LeaseOfKey:
    """The grant that one entry of one block gets. The drivers add how it is entered and left."""

    __slots__ = ("_key", "_mutex", "_owner", "_ticket", "_timeout")

    def __init__(self, mutex: Any, key: Hashable, timeout: float | int | None, owner: object = None) -> None:
        self._mutex = mutex
        """The driver's. No type variable: docs/compiled.md says what mypyc makes of a generic class."""
        self._owner = owner
        """What its user calls the mutex. As long as there is a lease of it, a weak reference to it must not end."""
        self._key = key
        self._timeout = timeout
        self._ticket = NOT_ENTERED
        """Then NO_TICKET while it waits, the ticket of the grant, and NO_TICKET once that has ended."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """TypeError: neither copied nor pickled."""
        raise not_copied(self)

    def _reused(self) -> LeaseReusedError:
        return LeaseReusedError(f"this lease of {brief(self._key)} was used; call hold() again")
