"""`AsyncKeyedMutex` as its users have it: a mutex of `kmutex._aio`, with what `kmutex._keyed` adds, for its reasons."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from kmutex._aio import AsyncUntypedMutex
from kmutex._protocol import K

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kmutex._aio import AsyncLease
    from kmutex._entry import Entry
    from kmutex._owners import Owner


class AsyncKeyedMutex(AsyncUntypedMutex, Generic[K]):
    """A mutex for each key, made on demand and gone when idle. For the tasks of one event loop; not re-entrant.

    The contract is that of `KeyedMutex`, with two differences. It belongs to the loop that used it last, and raises
    at once in any other, also where nothing would wait; once that loop has ended, an idle one goes on in the next
    (KM-LOOP). And a cancellation that meets a grant wins: the call raises CancelledError and the grant goes on to the
    next waiter (KM-RACE).
    """

    __slots__ = ("__weakref__",)

    if TYPE_CHECKING:

        async def lock(self, key: K, timeout: float | int | None = None) -> None: ...
        def unlock(self, key: K) -> None: ...
        def hold(self, key: K, timeout: float | int | None = None) -> AsyncLease: ...
        def hold_all(self, keys: Iterable[K], timeout: float | int | None = None) -> AsyncLease: ...
        def owner(self, key: K) -> Owner | None: ...
        def snapshot(self) -> Mapping[K, Entry]: ...
