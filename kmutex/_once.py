"""Work that several callers want and one has to do: hold the key, look whether it is done, do it, release."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol, TypeVar

from kmutex._protocol import K_in

T = TypeVar("T")


class Holds(Protocol[K_in]):
    """What `once` needs of a locker: a block that holds a key."""

    def hold(self, key: K_in, /) -> AbstractContextManager[object]: ...


class AsyncHolds(Protocol[K_in]):
    """What `async_once` needs of a locker."""

    def hold(self, key: K_in, /) -> AbstractAsyncContextManager[object]: ...


def once(
    locker: Holds[K_in],
    key: K_in,
    look: Callable[[], T | None],
    do: Callable[[], T],
    *,
    timeout: float | None = None,
) -> T:
    """The result of the work named by ``key``, done by this caller only if nobody has done it before.

    Callers of one key take turns (KM-EXCL). Each looks in its turn, so of any number at once one does the work and
    the others find it. What is shared is the work, never a failure: whatever ``do`` raises, the BaseException of an
    interrupt included, reaches its own caller only, the key goes to the next waiter (KM-HANDOFF), and that one
    looks, finds nothing and does the work itself. A waiter whose time is over leaves nothing behind (KM-CANCEL).

    locker: any whose ``hold(key)``, or ``hold(key, timeout)`` where there is a timeout, is for with. `NoopLocker`
    suppresses nothing: who comes before the work is done does it too, at the same time, so ``do`` must then bear that.
    look: called with the key held; the result if the work is done, else None. It must see what ``do`` of another
    caller has left, for nothing is kept here: a file, a row, an entry of a dict.
    do: called with the key held, after ``look`` returned None; its result must not be None. It must not ask for the
    same key, for lockers are not re-entrant.
    timeout: seconds that the caller is ready to wait for the key, None forever; the work itself is not timed.

    TimeoutError: the key was not granted in time; neither function was called. ValueError, TypeError: as for
    `KeyedMutex.lock`. What ``look`` or ``do`` raises passes through, with the key released.
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

    A task that is cancelled in ``do`` fails alone, as with any other error: the next waiter takes over. One that is
    cancelled while it waits for the key calls neither function, and the others keep their order (KM-CANCEL).

    WrongLoopError: the locker belongs to another loop (KM-LOOP). Other arguments and errors are those of `once`.
    """
    hold: Callable[..., AbstractAsyncContextManager[Any]] = locker.hold
    async with hold(key) if timeout is None else hold(key, timeout):
        found = await look()
        return await do() if found is None else found
