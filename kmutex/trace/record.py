"""Recorders: they wrap a keyed locker, have the same interface, and write a line before and after each call.

The log is of the kind "outside". The caller writes a line before or after its call, under the recorder's own guard. The
guard is never held across a call that may wait.

A line that can't be written never harms the locker: recording stops for good, the error is kept in `error`, and every
call works as without a recorder. A log with a missing line in the middle could accuse a correct locker; a log that just
ends can't. `close` raises the error.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Hashable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from types import MappingProxyType, TracebackType
from typing import Any, TextIO

from kmutex._protocol import AsyncKeyedLocker, KeyedLocker, Releasable
from kmutex._steps import KeyTexts
from kmutex._timeouts import TIMED_OUT


class _Live:
    """A key with at least one call: its text, the calls that ask, and those that hold by `lock`, oldest first."""

    __slots__ = ("asking", "calls", "holding", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls = 0
        self.asking: dict[int, bool] = {}
        """By call: whether it was seen in the queue."""
        self.holding: dict[int, None] = {}
        """Without leases: an unlock by key is not taken for the end of a lease."""


class _Log:
    """The lines, and the numbers of the calls. Each method takes the guard once."""

    def __init__(self, locker: Any, out: TextIO) -> None:
        self.error: BaseException | None = None
        self._locker = locker
        self._out = out
        self._guard = threading.RLock()
        self._keys: dict[Hashable, _Live] = {}
        self._texts = KeyTexts()
        self._calls = self._lines = 0
        self._busy = self._closed = False
        with self._turn() as open_:
            if open_:
                self._write({"trace": 1, "recorded": "outside"})

    def asks(self, key: Hashable, timeout: float | None) -> int:
        """Log that lock is about to be called; return the number of the call."""
        with self._turn() as open_:
            if open_:
                live = self._live(key)
                self._calls += 1
                live.calls += 1
                live.asking[self._calls] = False
                known = isinstance(timeout, (int, float)) and 0 <= timeout < float("inf")
                self._line("request", live, self._calls, {"timeout": timeout} if known else {})
                return self._calls
        return 0

    def granted(self, key: Hashable, call: int, *, lease: bool = False) -> None:
        """Log that lock has returned."""
        with self._turn() as open_:
            if open_:
                live = self._keys[key]
                del live.asking[call]
                if not lease:
                    live.holding[call] = None
                self._line("grant", live, call)

    def failed(self, key: Hashable, call: int, error: BaseException) -> None:
        """Log that lock has raised."""
        why = "error"
        if isinstance(error, TIMED_OUT):
            why = "timeout"
        elif isinstance(error, (asyncio.CancelledError, concurrent.futures.CancelledError, KeyboardInterrupt)):
            why = "cancelled"
        with self._turn() as open_:
            if open_:
                live = self._keys[key]
                del live.asking[call]
                self._line("fail", live, call, {"why": why})
                self._done(key, live)

    def unlocks(self, key: Hashable) -> int:
        """Log that a key is about to be unlocked; return the oldest call that holds it, or a new number."""
        with self._turn() as open_:
            if open_:
                live = self._live(key)
                call = next(iter(live.holding), 0)
                if call:
                    del live.holding[call]
                else:
                    self._calls += 1
                    live.calls += 1
                    call = self._calls
                self._line("release", live, call)
                return call
        return 0

    def releases(self, key: Hashable, call: int, *, again: bool) -> None:
        """Log that a lease is about to be released; ``again`` if it was released before."""
        with self._turn() as open_:
            if open_:
                live = self._live(key)
                live.calls += again
                self._line("release", live, call, {"lease": True})

    def unlocked(self, key: Hashable, call: int, *, worked: bool) -> None:
        """Log that an unlock or the release of a lease has ended."""
        with self._turn() as open_:
            if open_:
                live = self._keys[key]
                self._line("released" if worked else "unheld", live, call)
                self._done(key, live)

    def observe(self) -> int:
        """See `_Recorder.observe`."""
        new = 0
        with self._turn() as open_:
            if open_:
                entries: Mapping[Hashable, Any] = self._locker.snapshot()
                for key, live in self._keys.items():
                    entry = entries.get(key)
                    # Every waiter is a call that asks. If the two numbers are equal, all of these calls wait.
                    if entry is None or len(entry.waiters) != len(live.asking):
                        continue
                    for call in [call for call, seen in live.asking.items() if not seen]:
                        live.asking[call] = True
                        self._line("waiting", live, call)
                        new += 1
        return new

    def close(self) -> None:
        """See `_Recorder.close`."""
        with self._turn() as open_:
            if open_:
                body: dict[str, object] = {"event": "end"}
                if hasattr(type(self._locker), "__len__"):
                    body["keys"] = len(self._locker)
                self._numbered(body)
                self._out.flush()
                self._closed = True
        if self.error is not None:
            raise self.error

    def stop(self, error: BaseException) -> None:
        """Stop the recording because of this error; an earlier error is kept."""
        if self.error is None:
            self.error = error

    # -- lines ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """Take the guard; yield False if recording has stopped.

        An error within the block ends the recording and is not raised. An interrupt ends it too, and is raised.
        """
        # Re-entrant: a signal handler or a __del__ may lock in the middle of a line of the same thread. Its lines
        # would be out of order, and waiting for itself would be worse.
        with self._guard:
            if self._busy:
                self.stop(RuntimeError("the log was used while it wrote a line"))
            if self.error is not None or self._closed:
                yield False
                return
            self._busy = True
            try:
                yield True
            except Exception as error:
                self.stop(error)
            except BaseException:
                self.stop(RuntimeError("interrupted while a line was written"))
                raise
            finally:
                self._busy = False

    def _live(self, key: Hashable) -> _Live:
        live = self._keys.get(key)
        if live is None:
            live = self._keys[key] = _Live(self._texts.text(key))
        return live

    def _done(self, key: Hashable, live: _Live) -> None:
        live.calls -= 1
        if live.calls == 0:
            del self._keys[key]
            self._texts.drop(key)

    def _line(self, event: str, live: _Live, call: int, more: Mapping[str, object] = MappingProxyType({})) -> None:
        self._numbered({"event": event, "key": live.text, "call": call, "at": time.monotonic(), **more})

    def _numbered(self, body: dict[str, object]) -> None:
        self._lines += 1
        self._write({**body, "n": self._lines})

    def _write(self, body: dict[str, object]) -> None:
        self._out.write(json.dumps(body) + "\n")


class _Recorder:
    """The common part of both recorders."""

    def __init__(self, locker: Any, out: TextIO) -> None:
        """Write the first line.

        Args:
            locker: The locker that does the locking. Every use of it must go through the recorder, or the log is wrong.
            out: A text file, open for writing, or any object with ``write`` and ``flush``. Only `close` flushes it.
        """
        self._locker = locker
        self._log = _Log(locker, out)

    @property
    def error(self) -> BaseException | None:
        """The error that stopped the recording, else None."""
        return self._log.error

    def observe(self) -> int:
        """Take a snapshot of the locker, and log "waiting" for each call that is certainly in the queue.

        A call that asks after another one was seen waiting is behind it. Without such lines the log does not show the
        order of the queue, and KM-FIFO is unknown.

        Returns:
            The number of calls that were seen waiting for the first time.

        Raises:
            TypeError: The locker has no ``snapshot()`` like that of `kmutex.KeyedMutex`.
        """
        if not hasattr(self._locker, "snapshot"):
            raise TypeError(f"{type(self._locker).__name__} has no snapshot()")
        return self._log.observe()

    def close(self) -> None:
        """Write the last line, which claims that every call has returned and every key is unlocked.

        In a log without that line, the last calls count as unfinished. The file is flushed and stays open.

        Raises:
            BaseException: `error`, if one stopped the recording.
        """
        self._log.close()

    def unlock(self, key: Hashable) -> Any:
        """Call the locker's ``unlock``, with its errors; return an awaitable if the locker does."""
        hash(key)
        call = self._log.unlocks(key)
        try:
            answer = self._locker.unlock(key)
        except BaseException:
            self._log.unlocked(key, call, worked=False)
            raise
        if inspect.isawaitable(answer):
            return self._unlocking(key, call, answer)
        self._log.unlocked(key, call, worked=True)
        return None

    async def _unlocking(self, key: Hashable, call: int, answer: Awaitable[Any]) -> None:
        try:
            await answer
        except BaseException:
            self._log.unlocked(key, call, worked=False)
            raise
        self._log.unlocked(key, call, worked=True)


class Recorder(_Recorder):
    """A `kmutex.KeyedLocker` for threads that calls another one and writes a log.

    A locker with other methods is adapted first: ``kmutex.testing.fit(MyLocks).make()``.

    Example::

        with open("locks.ndjson", "w") as file:
            km = Recorder(KeyedMutex(), file)
            ...
            km.close()
    """

    def __init__(self, locker: KeyedLocker, out: TextIO) -> None:
        """Write the first line.

        Args:
            locker: The locker that does the locking. Every use of it must go through the recorder, or the log is wrong.
            out: A text file, open for writing, or any object with ``write`` and ``flush``. Only `close` flushes it.
        """
        super().__init__(locker, out)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Call the locker's ``lock``, with its arguments and errors."""
        hash(key)
        call = self._log.asks(key, timeout)
        try:
            self._locker.lock(key, *(() if timeout is None else (timeout,)))
        except BaseException as error:
            self._log.failed(key, call, error)
            raise
        try:
            self._log.granted(key, call)
        except BaseException:
            # An interrupt: the caller gets the error, so the grant must end.
            self._locker.unlock(key)
            raise

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractContextManager[Releasable]:
        """Return the locker's own lease, recorded; if it has no ``hold``, a block of ``lock`` and ``unlock``."""
        if not hasattr(self._locker, "hold"):
            return self._block(key, timeout)
        return _Lease(self._log, self._locker.hold(key, timeout), key, timeout)

    @contextmanager
    def _block(self, key: Hashable, timeout: float | None) -> Iterator[Any]:
        self.lock(key, timeout)
        try:
            yield None
        finally:
            self.unlock(key)


class AsyncRecorder(_Recorder):
    """A `kmutex.AsyncKeyedLocker` that calls another one and writes a log; see `Recorder`."""

    def __init__(self, locker: AsyncKeyedLocker, out: TextIO) -> None:
        """Write the first line. The arguments are those of `Recorder`."""
        super().__init__(locker, out)

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Call the locker's ``lock``, with its arguments and errors."""
        hash(key)
        call = self._log.asks(key, timeout)
        try:
            await self._locker.lock(key, *(() if timeout is None else (timeout,)))
        except BaseException as error:
            self._log.failed(key, call, error)
            raise
        try:
            self._log.granted(key, call)
        except BaseException:
            gone = self._locker.unlock(key)
            if gone is not None:
                await gone
            raise

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractAsyncContextManager[Releasable]:
        """Return the locker's own lease, recorded; if it has no ``hold``, a block of ``lock`` and ``unlock``."""
        if not hasattr(self._locker, "hold"):
            return self._block(key, timeout)
        return _AsyncLease(self._log, self._locker.hold(key, timeout), key, timeout)

    @asynccontextmanager
    async def _block(self, key: Hashable, timeout: float | None) -> AsyncIterator[Any]:
        await self.lock(key, timeout)
        try:
            yield None
        finally:
            gone = self.unlock(key)
            if gone is not None:
                await gone


class _Held:
    """The common part of both leases; it is what their blocks get."""

    def __init__(self, log: _Log, block: Any, key: Hashable, timeout: float | None) -> None:
        self._log = log
        self._block = block
        self._key = key
        self._timeout = timeout
        self._guard = threading.Lock()
        self._releasable: Any = None
        self._call = 0
        self._released = False

    def release(self) -> None:
        """End the grant now, with the errors of the locker's lease."""
        # One at a time, so that of two releases of one lease the one that succeeds has the first lines. A release
        # never waits.
        with self._guard:
            again, self._released = self._released, True
            self._log.releases(self._key, self._call, again=again)
            try:
                self._releasable.release()
            except BaseException:
                self._log.unlocked(self._key, self._call, worked=False)
                raise
            self._log.unlocked(self._key, self._call, worked=True)


class _Lease(_Held):
    def __enter__(self) -> _Held:
        hash(self._key)
        call = self._log.asks(self._key, self._timeout)
        try:
            self._releasable = self._block.__enter__()
        except BaseException as error:
            self._log.failed(self._key, call, error)
            raise
        self._call, self._released = call, False
        try:
            self._log.granted(self._key, call, lease=True)
        except BaseException:
            self._block.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        with self._guard:
            if self._released:
                suppress: bool | None = self._block.__exit__(kind, error, trace)
                return suppress
            self._released = True
            try:
                self._log.releases(self._key, self._call, again=False)
            except BaseException:
                # An interrupt: only this block can end the grant.
                self._block.__exit__(kind, error, trace)
                raise
            try:
                suppress = self._block.__exit__(kind, error, trace)
            except BaseException:
                self._log.unlocked(self._key, self._call, worked=False)
                raise
            self._log.unlocked(self._key, self._call, worked=True)
            return suppress


class _AsyncLease(_Held):
    async def __aenter__(self) -> _Held:
        hash(self._key)
        call = self._log.asks(self._key, self._timeout)
        try:
            self._releasable = await self._block.__aenter__()
        except BaseException as error:
            self._log.failed(self._key, call, error)
            raise
        self._call, self._released = call, False
        try:
            self._log.granted(self._key, call, lease=True)
        except BaseException:
            await self._block.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        if self._released:
            suppress: bool | None = await self._block.__aexit__(kind, error, trace)
            return suppress
        self._released = True
        try:
            self._log.releases(self._key, self._call, again=False)
        except BaseException:
            await self._block.__aexit__(kind, error, trace)
            raise
        try:
            suppress = await self._block.__aexit__(kind, error, trace)
        except BaseException:
            self._log.unlocked(self._key, self._call, worked=False)
            raise
        self._log.unlocked(self._key, self._call, worked=True)
        return suppress
