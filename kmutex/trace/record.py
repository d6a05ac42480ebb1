"""Recorders: a keyed locker of the same face, which writes a line round each call of another one.

The log is of the kind "outside". A line is written by the caller, before or after its call, in one turn of the
recorder's own guard; the guard is never held across a call that may wait.

A line that can't be written never harms the locker: recording stops for good, the error is kept in `error`, and every
call goes on as without a recorder. A log with a missing line in its midst could accuse a correct locker; one that just
ends can't. `close` raises what was kept.
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
    """What is kept of a key while it has a call: its text, who asks, and who holds by `lock`, oldest first."""

    __slots__ = ("asking", "calls", "holding", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.calls = 0
        self.asking: dict[int, bool] = {}
        """The value: whether it was seen in the queue."""
        self.holding: dict[int, None] = {}
        """Not those of leases: who unlocks by key is not taken for one."""


class _Log:
    """The lines, and which call is which. Each method is one turn of the guard."""

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
        """Before a call of lock; the name of the call."""
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
        """After it has returned."""
        with self._turn() as open_:
            if open_:
                live = self._keys[key]
                del live.asking[call]
                if not lease:
                    live.holding[call] = None
                self._line("grant", live, call)

    def failed(self, key: Hashable, call: int, error: BaseException) -> None:
        """After it has raised."""
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
        """Before an unlock by key; the call that it is for: the oldest that holds, or a new name if none does."""
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
        """Before the release of a lease. again: it has been released before."""
        with self._turn() as open_:
            if open_:
                live = self._live(key)
                live.calls += again
                self._line("release", live, call, {"lease": True})

    def unlocked(self, key: Hashable, call: int, *, worked: bool) -> None:
        """After an unlock or the release of a lease."""
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
                    # Every waiter is a call that asks, by this log. As many of the one as of the other: all wait.
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
        """Record nothing more, because of this error, unless there was one before."""
        if self.error is None:
            self.error = error

    # -- lines ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """The guard; False where nothing is to be written. An error in the turn ends the recording and goes no further.

        An interrupt ends it too, and goes on.
        """
        # Reentrant: a signal handler or a __del__ may lock in the midst of a turn of the same thread. What it would
        # write there belongs in no log, and waiting for itself would be worse.
        with self._guard:
            if self._busy:
                self.stop(RuntimeError("the log was used in the midst of one of its lines"))
            if self.error is not None or self._closed:
                yield False
                return
            self._busy = True
            try:
                yield True
            except Exception as error:
                self.stop(error)
            except BaseException:
                self.stop(RuntimeError("interrupted in the midst of a line"))
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
    """What both recorders have."""

    def __init__(self, locker: Any, out: TextIO) -> None:
        """locker: what does the locking; every use of it must go through here, or the log is wrong.

        out: a text file, open for writing, or anything with ``write`` and ``flush``. It is flushed by `close` only.
        """
        self._locker = locker
        self._log = _Log(locker, out)

    @property
    def error(self) -> BaseException | None:
        """What has stopped the recording; None as long as nothing has."""
        return self._log.error

    def observe(self) -> int:
        """Look into the locker and write "waiting" for each call that is surely in the queue; how many are new.

        Whoever asks after a call was seen comes later. Without this the log does not tell in which order the calls were
        queued, and KM-FIFO is unknown. Needs a locker with ``snapshot()`` as `kmutex.KeyedMutex` has it, and takes one.
        TypeError: the locker has no ``snapshot``.
        """
        if not hasattr(self._locker, "snapshot"):
            raise TypeError(f"{type(self._locker).__name__} has no snapshot()")
        return self._log.observe()

    def close(self) -> None:
        """Write the end, which says that all is idle: every caller has come back, and every key is unlocked.

        A log that is not closed makes no such claim, and its last calls are unfinished. The file is flushed and stays
        open. Raises `error`, if recording was stopped by one.
        """
        self._log.close()

    def unlock(self, key: Hashable) -> Any:
        """Arguments and errors are those of the locker. Where its unlock gives something to await, so does this."""
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
    """A `KeyedLocker` for threads that does what another one does and writes a log of it.

    ::

        with open("locks.ndjson", "w") as file:
            km = Recorder(KeyedMutex(), file)
            ...
            km.close()

    A locker of another form is given that of a `KeyedLocker` first: ``kmutex.testing.fit(MyLocks).make()``.
    """

    def __init__(self, locker: KeyedLocker, out: TextIO) -> None:
        """Writes the first line; see `_Recorder.__init__` for the arguments."""
        super().__init__(locker, out)

    def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Arguments and errors are those of the locker."""
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
            # An interrupt: the caller gets it and no grant, so the grant must go.
            self._locker.unlock(key)
            raise

    def hold(self, key: Hashable, timeout: float | None = None) -> AbstractContextManager[Releasable]:
        """The locker's own lease, recorded; where it has none, lock and unlock around a block.

        Arguments and errors are those of the locker.
        """
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
    """An `AsyncKeyedLocker` that does what another one does and writes a log of it; see `Recorder`."""

    def __init__(self, locker: AsyncKeyedLocker, out: TextIO) -> None:
        """Writes the first line; see `_Recorder.__init__` for the arguments."""
        super().__init__(locker, out)

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        """Arguments and errors are those of the locker."""
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
        """The locker's own lease, recorded; where it has none, lock and unlock around a block.

        Arguments and errors are those of the locker.
        """
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
    """What both leases have, and what their blocks are given."""

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
        """End the grant now. Errors are those of the locker's lease."""
        # One at a time, so that of two releases of one lease the one that works has the first lines. A release never
        # waits for anybody.
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
                # An interrupt: nobody but this block can end the grant.
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
