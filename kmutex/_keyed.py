"""`KeyedMutex` as its users have it: a mutex of `kmutex._threads`, generic in its keys and open to weak references.

Not compiled: mypyc lets a generic class free the weak references to it as if they were its own (docs/compiled.md). What
this class does not define itself runs as compiled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from kmutex._protocol import K
from kmutex._threads import UntypedMutex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kmutex._entry import Entry
    from kmutex._owners import Owner
    from kmutex._threads import Lease


class KeyedMutex(UntypedMutex, Generic[K]):
    """A mutex for each key, made on demand and gone when idle. For threads; not re-entrant.

    Any hashable value is a key; ``KeyedMutex[str]`` tells a type checker which. Waiters are served in the order in
    which they asked (KM-FIFO), `unlock` passes the key straight to the oldest (KM-HANDOFF), and no call on one key
    waits for another key (KM-INDEP): the guard of the table is held for a few dictionary steps and never while anybody
    waits.

    A thread that locks a key it holds already waits for itself: forever, or until its timeout.
    """

    __slots__ = ("__weakref__",)

    if TYPE_CHECKING:

        def lock(self, key: K, timeout: float | int | None = None) -> None: ...
        def unlock(self, key: K) -> None: ...
        def hold(self, key: K, timeout: float | int | None = None) -> Lease: ...
        def hold_all(self, keys: Iterable[K], timeout: float | int | None = None) -> Lease: ...
        def owner(self, key: K) -> Owner | None: ...
        def snapshot(self) -> Mapping[K, Entry]: ...
