"""The mutex for threads in stripes, for a Python without the GIL: a table and a guard for each part of the keys.

With the GIL one thread runs at a time, so one table behind one guard is enough, and costs less. Without it, threads on
different keys would contend for that guard (docs/adr/0005-what-a-lock-costs.md).

Equal keys have equal hashes, so they are in the same stripe. A call on one key is a call of its stripe and touches no
other, and each stripe is a whole mutex of `kmutex._threads`. So each clause about one key holds as it does there.

`hold_all`, `snapshot`, `len` and `repr` are about several stripes. They take the guards of these in the order of the
stripes, so no two calls wait for each other's guards. Once they are taken no other call changes any of these stripes:
whatever is done then is one step for each of them. Two calls of `hold_all` that share keys share the guards of these,
so one has its places in all queues of shared keys before the other has any. A log, and the notes of ``diagnose=True``,
are written under a guard too; with one of those there is one stripe.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from itertools import chain
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kmutex._core import LockTable, Waker
from kmutex._entry import Entry, Ticket
from kmutex._lease import NO_TICKET
from kmutex._threads import InnerMutex, Lease, UntypedMutex, _Several

if TYPE_CHECKING:
    from kmutex._protocol import Guard
    from kmutex._steps import StepLog

_NAMES = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÐ"
"""Each stripe is an attribute, and a letter names it. Threads that load one object all write its reference count, but
not that of a string constant or of a letter: without the GIL, Python makes those immortal. A tuple of the stripes is
not, nor is a tuple of names. No subclass is likely to have attributes of these names."""
STRIPES = len(_NAMES)
"""Prime, so that keys whose hashes are all multiples of a power of two, as those of objects often are, use
every stripe."""
FOR_A_STRIPE = 1 << 48
"""Tickets of one stripe, before it would issue those of the next. A ticket of `hold_all` is in several tables, so no
two stripes may issue the same."""


class _Stripe(UntypedMutex):
    """One stripe. Once there was a weak reference to it, threads load it from the whole mutex without locking that."""

    __slots__ = ("__weakref__",)


class StripedMutex(UntypedMutex):
    """`UntypedMutex`, whose threads on different keys seldom meet."""

    __slots__ = tuple(_NAMES)

    def __init__(self, *, diagnose: bool = False, record: StepLog | None = None) -> None:
        """Make a mutex, as `UntypedMutex` does."""
        if diagnose or record is not None:
            one = UntypedMutex(diagnose=diagnose, record=record)
            stripes: list[UntypedMutex] = [one] * STRIPES
            self._mutex = one._mutex
        else:
            stripes = [_Stripe() for _ in _NAMES]
            for stripe in stripes:
                weakref.ref(stripe)
            self._mutex = _AllStripes([stripe._mutex for stripe in stripes])
        for number, name in enumerate(_NAMES):
            setattr(self, name, stripes[number])

    def lock(self, key: Any, timeout: float | int | None = None) -> None:
        getattr(self, _NAMES[hash(key) % STRIPES]).lock(key, timeout)

    def unlock(self, key: Any) -> None:
        getattr(self, _NAMES[hash(key) % STRIPES]).unlock(key)

    def hold(self, key: Any, timeout: float | int | None = None) -> Lease:
        # A key that is not hashable is refused here, and not when the block is entered.
        return Lease(getattr(self, _NAMES[hash(key) % STRIPES])._mutex, key, timeout, self)

    def _several(self, keys: tuple[Any, ...]) -> InnerMutex:
        several = _Several(self._mutex)
        guards = self._mutex._guard
        if isinstance(guards, _Guards):
            several._guard = guards.of(keys)
        return several

    def __len__(self) -> int:
        # Under all guards: a sum of sizes that are read one by one may be 0 while a key is always held.
        return self._mutex._seen(self._mutex._table.__len__)


class _AllStripes(InnerMutex):
    """The stripes as one mutex, with the table and the guard of all."""

    __slots__ = ()

    def __init__(self, stripes: list[InnerMutex]) -> None:
        for number, stripe in enumerate(stripes):
            stripe._tickets = itertools.count(NO_TICKET + 1 + number * FOR_A_STRIPE)
        self._tickets = itertools.count(NO_TICKET + 1 + len(stripes) * FOR_A_STRIPE)
        self._table = _Tables([stripe._table for stripe in stripes])
        self._guard = _Guards([stripe._guard for stripe in stripes])


class _Guards:
    """The guards of some stripes, in the order of the stripes."""

    __slots__ = ("_guards",)

    def __init__(self, guards: list[Guard]) -> None:
        self._guards = guards

    def of(self, keys: tuple[Any, ...]) -> _Guards:
        """Return those of the stripes of these keys, if these are the guards of all stripes."""
        count = len(self._guards)
        return _Guards([self._guards[number] for number in sorted({hash(key) % count for key in keys})])

    def acquire(self) -> None:
        for guard in self._guards:
            guard.acquire()

    def release(self) -> None:
        # Those that this thread owns: after an interrupt in `acquire`, or in here, that is not each of them.
        for guard in self._guards:
            try:  # noqa: SIM105 (see `InnerMutex._give_back`)
                guard.release()
            except RuntimeError:
                pass

    def __enter__(self) -> None:
        try:
            self.acquire()
        except BaseException:
            self.release()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


class _Tables(LockTable):
    """The tables of all stripes as one."""

    __slots__ = ("_tables",)

    def __init__(self, tables: list[LockTable]) -> None:
        super().__init__()
        self._tables = tables

    def _of(self, key: Any) -> LockTable:
        return self._tables[hash(key) % len(self._tables)]

    def request(self, key: Any, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
        return self._of(key).request(key, ticket, make_waker)

    def release(self, key: Any, ticket: Ticket | None = None) -> Waker | None:
        return self._of(key).release(key, ticket)

    def cancel(self, key: Any, ticket: Ticket, why: str = "timeout") -> bool:
        return self._of(key).cancel(key, ticket, why)

    def withdraw(self, key: Any, ticket: Ticket, why: str = "cancelled") -> Waker | None:
        return self._of(key).withdraw(key, ticket, why)

    def holds(self, key: Any, ticket: Ticket) -> bool:
        return self._of(key).holds(key, ticket)

    def waker(self, key: Any) -> Waker | None:
        return self._of(key).waker(key)

    def entry(self, key: Any) -> Entry | None:
        return self._of(key).entry(key)

    def _live(self) -> Iterable[tuple[Any, Any]]:
        return chain.from_iterable(table._live() for table in self._tables)

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def __contains__(self, key: object) -> bool:
        return key in self._of(key)
