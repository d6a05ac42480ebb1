"""A grant: what a locker knows of a key that it holds, and the lease of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

from kmutex._entry import Entry
from kmutex._errors import LeaseReusedError, UnheldKeyError
from kmutex._text import brief
from kmutex.postgres._errors import LockLostError
from kmutex.postgres._key import Name, key_of
from kmutex.postgres._session import Session


class Grant(NamedTuple):
    """One request that holds its key, or did."""

    session: Session
    name: Name
    request: int
    token: int


def ending(key: Hashable, held: Grant | None, grant: Grant | None) -> Grant:
    """Return the grant that a release ends.

    Args:
        key: The key.
        held: The locker's grant of the key, if any.
        grant: The grant of the lease that is released; None for an unlock by key.

    Raises:
        UnheldKeyError: The key is not held, or not by that lease.
        LockLostError: The grant of the lease was lost.
    """
    if grant is not None and grant != held and grant.session.lost.is_set():
        # The locker may hold the key in a new session by now.
        raise LockLostError(f"{brief(key)} was lost before it was released")
    if held is None or (grant is not None and grant != held):
        raise UnheldKeyError(f"{brief(key)} is not held through this locker" if grant is None else "it has ended")
    return held


class _Releasing(Protocol):
    def _release(self, key: Hashable, grant: Grant | None) -> None: ...


Locker = TypeVar("Locker", bound=_Releasing)


class LeaseOfGrant(Generic[Locker]):
    """The grant for one ``with`` block. The drivers add how the block is entered and left."""

    __slots__ = ("_ended", "_grant", "_key", "_locker", "_timeout", "_used")

    def __init__(self, locker: Locker, key: Hashable, timeout: float | None) -> None:
        self._locker = locker
        self._key = key
        self._timeout = timeout
        self._used = False
        self._grant: Grant | None = None
        self._ended = False

    @property
    def token(self) -> int:
        """The fencing token of the grant, which is higher than that of every earlier holder of the key.

        Give it to the resource, which refuses a writer whose token is below the highest that it has seen.

        Raises:
            UnheldKeyError: There was no grant.
        """
        return self._granted().token

    def release(self) -> None:
        """End the grant now; the block then ends without a second release. A plain call, without ``await``.

        Raises:
            UnheldKeyError: It was not granted, or it has ended, by an earlier call or by an `unlock` of the key. A
                later holder keeps the key.
            LockLostError: It was lost before, and counts as ended.
        """
        if self._ended:
            raise UnheldKeyError(f"the lease of {brief(self._key)} has ended")
        grant = self._granted()
        try:
            self._locker._release(self._key, grant)
        except LockLostError:
            self._ended = True
            raise
        self._ended = True

    def _granted(self) -> Grant:
        if self._grant is None:
            raise UnheldKeyError(f"the lease of {brief(self._key)} was not granted")
        return self._grant

    def _enter_once(self) -> None:
        if self._used:
            raise LeaseReusedError(f"this lease of {brief(self._key)} was used; call hold() again")
        self._used = True

    def _leave(self, error: BaseException | None) -> None:
        if self._ended:
            return
        try:
            self.release()
        except LockLostError:
            # The block's own error is more useful.
            if error is None:
                raise


def entries(rows: Iterable[tuple[str, int]]) -> dict[str | bytes, Entry]:
    """Return an entry for each key, from the rows of a space in order."""
    tickets: dict[str, list[int]] = {}
    for stored, ticket in rows:
        tickets.setdefault(stored, []).append(ticket)
    return {key_of(stored): Entry(queue[0], tuple(queue[1:])) for stored, queue in tickets.items()}
