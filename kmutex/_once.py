"""Work that several callers want and one must do: hold the key, look whether it is done, do it, release the key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar

from kmutex._protocol import K_in

T = TypeVar("T")


class Holds(Protocol[K_in]):
    """The part of a locker that `once` needs."""

    def hold(self, key: K_in, /) -> AbstractContextManager[object]: ...


class AsyncHolds(Protocol[K_in]):
    """The part of a locker that `async_once` needs."""

    def hold(self, key: K_in, /) -> AbstractAsyncContextManager[object]: ...


def once(
    locker: Holds[K_in],
    key: K_in,
    look: Callable[[], T | None],
    do: Callable[[], T],
    *,
    timeout: float | None = None,
) -> T:
    """Return the result of the work that ``key`` names; do the work only if no caller has done it before.

    Callers of one key take turns (KM-EXCL), and each looks first: the first does the work, and the others find its
    result. Results are shared, failures are not. Whatever ``do`` raises, an interrupt included, reaches its own caller
    only. The key goes to the next waiter (KM-HANDOFF), which looks, finds nothing, and does the work itself. A waiter
    whose time is over leaves nothing behind (KM-CANCEL).

    Args:
        locker: Any object whose ``hold(key)`` is a context manager; with a timeout, ``hold(key, timeout)``. With a
            `NoopLocker`, callers that come before the work is done do it too, at the same time.
        key: The name of the work.
        look: Called with the key held. Returns the result if the work is done, else None. It must see what ``do`` of
            another caller has left (a file, a row, an entry of a dict): nothing is kept here.
        do: Called with the key held, after ``look`` returned None. Its result must not be None. It must not lock the
            same key, because lockers are not re-entrant.
        timeout: Seconds to wait for the key; None waits forever. The work itself has no limit.

    Raises:
        TimeoutError: The key was not granted in time. Neither function was called.
        ValueError: The timeout is negative or NaN. Nothing has changed.
        TypeError: The key is not hashable. Nothing has changed.
        BaseException: Whatever ``look`` or ``do`` raised. The key is released.
    """
    hold: Callable[..., AbstractContextManager[Any]] = locker.hold
    with hold(key) if timeout is None else hold(key, timeout):
        found = look()
        return do() if found is None else found


async def async_once(
    locker: AsyncHolds[K_in],
    key: K_in,
    look: Callable[[], Awaitable[T | None]],
    do: Callable[[], Awaitable[T]],
    *,
    timeout: float | None = None,
) -> T:
    """`once` for the tasks of one event loop; ``look`` and ``do`` are awaited.

    A task that is cancelled in ``do`` fails alone, as with any other error: the next waiter takes over. A task that is
    cancelled while it waits for the key calls neither function, and the other waiters keep their order (KM-CANCEL).

    Args:
        locker: As for `once`; ``hold`` gives an asynchronous context manager.
        key: The name of the work.
        look: As for `once`, awaited.
        do: As for `once`, awaited.
        timeout: Seconds to wait for the key; None waits forever.

    Raises:
        WrongLoopError: The locker belongs to another event loop (KM-LOOP). Other errors are those of `once`.
    """
    hold: Callable[..., AbstractAsyncContextManager[Any]] = locker.hold
    async with hold(key) if timeout is None else hold(key, timeout):
        found = await look()
        return await do() if found is None else found
