"""What a keyed locker offers, so that code can take any: the mutex, the no-op, or the reader's own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Hashable

    # Not at run time: typing has no default for a type variable before Python 3.13. Without one, each `KeyedMutex()`
    # would have to be annotated.
    from typing_extensions import TypeVar

    K = TypeVar("K", bound=Hashable, default=Hashable)
    K_in = TypeVar("K_in", bound=Hashable, default=Hashable, contravariant=True)
else:
    from typing import TypeVar

    K = TypeVar("K")
    K_in = TypeVar("K_in", contravariant=True)


class Releasable(Protocol):
    """A lease: the right to end one grant, once (KM-TOKEN)."""

    def release(self) -> None:
        """End the grant before its block ends. UnheldKeyError: it has ended already."""


@runtime_checkable
class KeyedLocker(Protocol[K_in]):
    """A keyed locker for threads. ``kmutex.KeyedMutex`` says what each call promises."""

    def lock(self, key: K_in, timeout: float | None = None) -> None: ...

    def unlock(self, key: K_in) -> None: ...

    def hold(self, key: K_in, timeout: float | None = None) -> AbstractContextManager[Releasable]: ...


@runtime_checkable
class AsyncKeyedLocker(Protocol[K_in]):
    """A keyed locker for asyncio. ``kmutex.AsyncKeyedMutex`` says what each call promises."""

    async def lock(self, key: K_in, timeout: float | None = None) -> None: ...

    def unlock(self, key: K_in) -> None: ...

    def hold(self, key: K_in, timeout: float | None = None) -> AbstractAsyncContextManager[Releasable]: ...


def check_timeout(timeout: float | None) -> None:
    """ValueError unless ``timeout`` is None or a number of seconds from 0 up; NaN is refused (KM-EXPIRED)."""
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")
