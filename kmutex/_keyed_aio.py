"""`AsyncKeyedMutex`, the public class: to `kmutex._aio` what `kmutex._keyed` is to `kmutex._threads`."""

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
    """A mutex for each key, made on demand and removed when idle. For the tasks of one event loop; not re-entrant.

    The contract is that of `KeyedMutex`, with two differences:

    - It belongs to the event loop that used it last, and raises at once in any other, even if no call would wait. Once
      that loop has ended, an idle mutex can be used in the next (KM-LOOP).
    - If a cancellation meets a grant, the cancellation wins: the call raises CancelledError, and the key goes to the
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
