"""`KeyedMutex`, the public class: a mutex of `kmutex._threads` that is generic in its keys and allows weak references.

Not compiled: mypyc lets a generic class free the weak references to it as if they were its own (docs/compiled.md). The
inherited methods are compiled.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Generic

from kmutex._core import compiled
from kmutex._protocol import K

# No class in Python can inherit from the inner parts of a compiled lock, as the stripes do.
if TYPE_CHECKING or compiled or getattr(sys, "_is_gil_enabled", lambda: True)():
    from kmutex._threads import UntypedMutex
else:
    from kmutex._stripes import StripedMutex as UntypedMutex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kmutex._entry import Entry
    from kmutex._owners import Owner
    from kmutex._threads import Lease


class KeyedMutex(UntypedMutex, Generic[K]):
    """A mutex for each key, made on demand and removed when idle. For threads; not re-entrant.

    Any hashable value can be a key. ``KeyedMutex[str]`` tells a type checker the type. Waiters are served in the order
    in which they asked (KM-FIFO). `unlock` passes the key straight to the oldest waiter (KM-HANDOFF). No call on one
    key waits for another key (KM-INDEP): the guard of the table is held for a few dictionary operations, and never
    while a caller waits.

    A thread that locks a key which it holds already waits for itself: forever, or until its timeout.
    """

    __slots__ = ("__weakref__",)

    if TYPE_CHECKING:

        def lock(self, key: K, timeout: float | int | None = None) -> None: ...
        def unlock(self, key: K) -> None: ...
        def hold(self, key: K, timeout: float | int | None = None) -> Lease: ...
        def hold_all(self, keys: Iterable[K], timeout: float | int | None = None) -> Lease: ...
        def owner(self, key: K) -> Owner | None: ...
        def snapshot(self) -> Mapping[K, Entry]: ...
