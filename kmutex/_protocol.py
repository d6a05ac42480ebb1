"""The interface of a keyed locker, for code that accepts any of them: the mutex, the no-op, or one of your own."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Hashable
    from types import TracebackType

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
        """End the grant before its block ends.

        Raises:
            UnheldKeyError: The grant has ended already.
        """


@runtime_checkable
class KeyedLocker(Protocol[K_in]):
    """A keyed locker for threads. `kmutex.KeyedMutex` says what each call promises."""

    def lock(self, key: K_in, timeout: float | None = None) -> None:
        """Return once the caller holds ``key``, or raise TimeoutError after ``timeout`` seconds."""

    def unlock(self, key: K_in) -> None:
        """Release ``key``."""

    def hold(self, key: K_in, timeout: float | None = None) -> AbstractContextManager[Releasable]:
        """Hold ``key`` for a ``with`` block."""


@runtime_checkable
class AsyncKeyedLocker(Protocol[K_in]):
    """A keyed locker for asyncio. `kmutex.AsyncKeyedMutex` says what each call promises."""

    async def lock(self, key: K_in, timeout: float | None = None) -> None:
        """Return once the calling task holds ``key``, or raise TimeoutError after ``timeout`` seconds."""

    def unlock(self, key: K_in) -> None:
        """Release ``key``."""

    def hold(self, key: K_in, timeout: float | None = None) -> AbstractAsyncContextManager[Releasable]:
        """Hold ``key`` for an ``async with`` block."""


def check_timeout(timeout: float | None) -> None:
    """Check a timeout (KM-EXPIRED).

    Raises:
        ValueError: It is neither None nor a number of seconds from 0 up. NaN is refused.
    """
    if timeout is not None and not timeout >= 0:
        raise ValueError(f"timeout must be None or at least 0 seconds, not {timeout!r}")


class Lines(Protocol):
    """The part of a text file, open for writing, that a log needs."""

    def write(self, text: str, /) -> object: ...

    def flush(self) -> object: ...


class Guard(Protocol):
    """The part of a `threading.RLock` that the mutex for threads needs of what guards its table."""

    def acquire(self) -> object: ...

    def release(self) -> None: ...

    def __enter__(self) -> object: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
