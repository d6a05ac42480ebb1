"""Lockers that lock nothing, for code that accepts any keyed locker and sometimes needs no lock."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext

from kmutex._protocol import Releasable


class _NoLease:
    __slots__ = ()

    def release(self) -> None:
        """Do nothing."""


class NoopLocker:
    """A `KeyedLocker` that grants every request at once. It promises no clause of the contract."""

    __slots__ = ()

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Return at once."""

    def unlock(self, key: Hashable) -> None:
        """Return at once, whatever the key."""

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractContextManager[Releasable]:
        """Return a context manager that holds nothing."""
        return nullcontext(_NoLease())

    def hold_all(self, keys: Iterable[Hashable], timeout: float | None = None) -> AbstractContextManager[Releasable]:
        """Return a context manager that holds nothing."""
        return nullcontext(_NoLease())


class AsyncNoopLocker:
    """An `AsyncKeyedLocker` that grants every request at once; see `NoopLocker`."""

    __slots__ = ()

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Return at once."""

    def unlock(self, key: Hashable) -> None:
        """Return at once, whatever the key."""

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractAsyncContextManager[Releasable]:
        """Return a context manager that holds nothing."""
        return nullcontext(_NoLease())

    def hold_all(
        self, keys: Iterable[Hashable], timeout: float | None = None
    ) -> AbstractAsyncContextManager[Releasable]:
        """Return a context manager that holds nothing."""
        return nullcontext(_NoLease())
