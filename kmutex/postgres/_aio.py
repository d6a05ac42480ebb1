"""The keyed mutex of several processes, for asyncio: a session on the server, and a future for each waiter here.

A thread of the locker talks to the server, one call after the other in the order in which the loop gave them. So the
loop never waits for the network, and any event loop works. Only the loop uses the tables.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from types import TracebackType
from typing import Any

from kmutex._entry import Entry
from kmutex._errors import WrongLoopError
from kmutex._protocol import check_timeout
from kmutex._text import brief
from kmutex.postgres._errors import LockLostError
from kmutex.postgres._grant import Grant, LeaseOfGrant, ending, entries
from kmutex.postgres._key import Name, name_of, stored_space
from kmutex.postgres._locker import LockerOfSession
from kmutex.postgres._session import Answer, Left, Session, requests

Done = Callable[[Any, BaseException | None], None]


class _Request:
    """A request, from the call until it is granted or has failed."""

    __slots__ = ("future", "name", "number", "queued", "session")

    def __init__(self, name: Name, number: int, future: asyncio.Future[Grant]) -> None:
        self.name = name
        self.number = number
        self.future = future
        self.queued = False
        self.session: Session | None = None
        """Set and read by the thread that talks to the server."""


class AsyncPostgresKeyedMutex(LockerOfSession[_Request]):
    """A mutex for each key, shared by all processes that name the same database and space. For one event loop.

    The contract is that of `kmutex.AsyncKeyedMutex` for keys that are str or bytes, with the exceptions of
    docs/postgres.md. `unlock` does not wait for the server: the next waiter gets the key shortly after it returned.
    Close it by ``await close()``, or use it as an asynchronous context manager.
    """

    def __init__(self, conninfo: str, *, space: str = "", sweep_every: float = 1.0, patience: float = 10.0) -> None:
        """Make a locker. It connects at the first `lock`. Arguments and errors are those of `PostgresKeyedMutex`."""
        super().__init__(conninfo, space=space, sweep_every=sweep_every, patience=patience)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lost: dict[Session, asyncio.Event] = {}
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Return once the calling task holds ``key`` (KM-EXCL).

        Args:
            key: A str or bytes.
            timeout: Seconds; None waits forever, 0 takes a free key and otherwise raises as soon as the server has
                answered (KM-EXPIRED). Unless it is 0, it limits the wait for the server too.

        Raises:
            TimeoutError: The time was over before the grant (KM-CANCEL).
            CancelledError: The task was cancelled. If it was granted, the next waiter holds the key (KM-RACE).
            LockLostError: As for `PostgresKeyedMutex.lock`.
            psycopg.OperationalError: As for `PostgresKeyedMutex.lock`.
            UnusableServerError: As for `PostgresKeyedMutex.lock`.
            ValueError: The timeout is negative or NaN, or the key is too long.
            TypeError: The key is neither str nor bytes.
            WrongLoopError: The locker belongs to another event loop (KM-LOOP).
        """
        await self._acquire(key, timeout)

    def unlock(self, key: Hashable) -> None:
        """Release ``key``, which any task of this locker holds. The oldest waiter of all then gets it (KM-HANDOFF).

        Args:
            key: A key that is held through this locker.

        Raises:
            UnheldKeyError: Nobody holds it through this locker, though another process may (KM-UNHELD, KM-ATOMIC).
            LockLostError: It was held and lost, and counts as released.
            WrongLoopError: The locker belongs to another event loop (KM-LOOP).
        """
        self._release(key, None)

    def hold(self, key: Hashable, timeout: float | None = None) -> AsyncPostgresLease:
        """Hold ``key`` for an ``async with`` block.

        If the lock is lost within the block, its end raises LockLostError, unless the block itself raises.

        Args:
            key: As for `lock`.
            timeout: As for `lock`.

        Returns:
            A lease for one block. Entering it does what `lock` does, and raises the same errors.
        """
        return AsyncPostgresLease(self, key, timeout)

    async def snapshot(self) -> Mapping[str | bytes, Entry]:
        """Return every live key of the space with the tokens of its holder and waiters in all processes (KM-REF).

        Raises:
            LockLostError: As for `lock`, and so for the other errors of the server.
        """
        asked_at = time.monotonic()
        rows: list[tuple[str, int]] = await self._ask(lambda: self._live(asked_at).show(stored_space(self._space)))
        return entries(rows)

    async def close(self) -> None:
        """End the session, with all that it holds and waits for. A later `lock` makes a new one.

        In a child of a fork it does nothing: the session is the parent's.
        """
        worker = self._worker
        if worker is None or os.getpid() != self._process:
            return
        closing = self._ask(self._close)
        # A call from here on gets a new worker, so this one ends and the loop does not wait.
        self._jobs.put(None)
        self._jobs, self._worker = queue.SimpleQueue(), None
        await closing
        worker.join()

    async def __aenter__(self) -> AsyncPostgresKeyedMutex:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -- in the loop ---------------------------------------------------------------------------------------------

    async def _acquire(self, key: Hashable, timeout: float | None) -> Grant:
        check_timeout(timeout)
        loop = self._own_loop()
        asked_at = time.monotonic()
        request = _Request(name_of(self._space, key), next(requests), loop.create_future())
        self._loop = loop
        self._waiting[request.number] = request
        timer = None
        try:
            self._submit(
                lambda: self._enqueue(request, timeout != 0, asked_at),
                lambda answer, error: self._asked(request, answer, error),
            )
            if timeout is not None and timeout > 0 and not request.future.done():
                timer = loop.call_later(timeout, self._expire, request, key, timeout)
            return await request.future
        except BaseException:
            # The worker gets the withdrawal after the request, so it finds the result of that.
            self._withdraw(request)
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _asked(self, request: _Request, answer: Answer | None, error: BaseException | None) -> None:
        """Handle the server's answer to a request, unless the request is over."""
        if request.future.done():
            return
        if error is not None or answer is None:
            self._waiting.pop(request.number, None)
            request.future.set_exception(error or LockLostError("no answer"))
        elif answer.ticket is None:
            self._waiting.pop(request.number, None)
            request.future.set_exception(TimeoutError("the key is held"))
        elif not answer.holds:
            request.queued = True
        elif request.session is not None:
            self._grant(request.session, request.number, answer.ticket)

    def _expire(self, request: _Request, key: Hashable, timeout: float) -> None:
        if not request.future.done():
            self._waiting.pop(request.number, None)
            request.future.set_exception(TimeoutError(f"no grant of {brief(key)} within {timeout} s"))

    def _withdraw(self, request: _Request) -> None:
        self._waiting.pop(request.number, None)
        held = self._held.get(request.name)
        if held is not None and held.request == request.number:
            del self._held[request.name]

        def leave() -> tuple[Session, Left] | None:
            if request.session is None or request.session.lost.is_set():
                return None
            return request.session, request.session.leave(request.name, request.number)

        self._submit(leave, self._left)

    def _release(self, key: Hashable, grant: Grant | None) -> None:
        self._own_loop()
        name = name_of(self._space, key)
        held = ending(key, self._held.get(name), grant)
        del self._held[name]
        if held.session.lost.is_set():
            raise LockLostError(f"{brief(key)} was lost before it was released")
        self._submit(lambda: (held.session, held.session.leave(name, held.request)), self._left)

    def _left(self, answer: tuple[Session, Left] | None, error: BaseException | None) -> None:
        # An error means that the session is over; `_over` tells those that wait in it.
        if answer is not None:
            session, left = answer
            self._grant(session, left.request, left.ticket)

    def _grant(self, session: Session, request: int | None, ticket: int | None) -> None:
        """Grant a request. A second call for the same request changes nothing."""
        waiting = self._waiting.get(request) if request is not None else None
        if waiting is None or ticket is None:
            return
        del self._waiting[waiting.number]
        # A future that is done here was cancelled, and its task has not run yet. It holds the key until then.
        grant = self._held[waiting.name] = Grant(session, waiting.name, waiting.number, ticket)
        if not waiting.future.done():
            waiting.future.set_result(grant)

    def _over(self, session: Session) -> None:
        self._lost_event(session).set()
        for number, request in list(self._waiting.items()):
            if request.session is session and not request.future.done():
                del self._waiting[number]
                request.future.set_exception(session.over())
        self._lost.pop(session, None)

    def _lost_event(self, session: Session) -> asyncio.Event:
        event = self._lost.get(session)
        if event is None:
            event = asyncio.Event()
            if session.lost.is_set():
                event.set()
            else:
                self._lost[session] = event
        return event

    def _ask(self, job: Callable[[], Any]) -> asyncio.Future[Any]:
        self._loop = loop = self._own_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def done(answer: Any, error: BaseException | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(answer)
            else:
                future.set_exception(error)

        self._submit(job, done)
        return future

    def _submit(self, job: Callable[[], Any], done: Done) -> None:
        """Let the worker do a job, and tell the loop the result."""
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, args=[self._jobs], name="kmutex worker", daemon=True)
            self._worker.start()
        self._jobs.put((job, done))

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        # After a fork, the worker runs in the parent only, so the child would wait forever.
        self._check_process()
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongLoopError(
                "an AsyncPostgresKeyedMutex is for asyncio, and no loop of asyncio runs here"
            ) from None
        if self._loop is not None and self._loop is not loop:
            raise WrongLoopError("this AsyncPostgresKeyedMutex belongs to another event loop; make one for each loop")
        return loop

    # -- in the worker -------------------------------------------------------------------------------------------

    def _work(self, jobs: queue.SimpleQueue[tuple[Callable[[], Any], Done] | None]) -> None:
        while (item := jobs.get()) is not None:
            job, done = item
            try:
                answer, error = job(), None
            except BaseException as caught:
                answer, error = None, caught
            self._tell(done, answer, error)

    def _tell(self, call: Callable[..., None], *arguments: Any) -> None:
        """Let the loop call it; from any thread. If the loop is closed, nobody is left to tell."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(call, *arguments)

    def _enqueue(self, request: _Request, wait: bool, asked_at: float) -> Answer:
        session = request.session = self._live(asked_at)
        return session.enqueue(request.name, request.number, wait)

    def _on_lost(self, session: Session) -> None:
        self._tell(self._over, session)

    def _on_grant(self, session: Session, request: int, ticket: int) -> None:
        self._tell(self._grant, session, request, ticket)

    def _close(self) -> None:
        if self._session is not None:
            self._session.close()


class AsyncPostgresLease(LeaseOfGrant[AsyncPostgresKeyedMutex]):
    """One grant of one key: ``async with km.hold(key) as lease``. It ends its own grant only (KM-TOKEN)."""

    __slots__ = ()

    @property
    def lost(self) -> asyncio.Event:
        """An event that is set once the session is over. The lock is then no longer held, whatever the block does."""
        return self._locker._lost_event(self._granted().session)

    async def __aenter__(self) -> AsyncPostgresLease:
        self._enter_once()
        self._grant = await self._locker._acquire(self._key, self._timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error)
