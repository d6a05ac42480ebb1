"""Adapters from any form of keyed lock to one interface, lock(key, timeout) and unlock(key).

A `Way` describes how a subject is called: the method that takes the key, and what to do with its answer. A `Face` does
it. For each client it keeps what the client needs for the release: its block, its lock, or its token. A client that is
cancelled or interrupted while it enters has none of these, and so can't release.

A face calls the subject and nothing else. It needs the standard library only, so that a recorder can use it too.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from kmutex._timeouts import TIMED_OUT

Kind = Literal["threads", "asyncio"]
Closes = Literal["key", "token", "both", "handle"]
Form = Literal["lock", "acquire", "get", "block", "key", "flight"]

FOREVER = 1e6
"""The timeout for calls that would give up without one. The schedulers treat it as no limit."""


class NotGrantedError(Exception):
    """A call without a time limit returned without the lock, and without an error."""


@dataclass(frozen=True)
class Limit:
    """The names of a call's parameters for not waiting and for a timeout; "" if there is none."""

    timeout: str = ""
    scale: float = 1.0
    """How many of its units are one second."""
    delta: bool = False
    """Whether it is a timedelta."""
    blocking: str = ""
    by_blocking: bool = False
    """Whether only ``blocking`` means not to wait, since a timeout of 0 does not."""
    endless: bool = False
    """Whether a call without a timeout gives up by itself, so that it needs one."""

    def arguments(self, seconds: float | None) -> dict[str, Any]:
        """Return the arguments for a call with this timeout; None for no limit."""
        if seconds is None:
            if not self.endless:
                return {}
            found: dict[str, Any] = {self.blocking: True} if self.blocking else {}
            return {**found, self.timeout: self._time(FOREVER)} if self.timeout else found
        if self.timeout and not (seconds == 0 and self.by_blocking):
            return {self.timeout: self._time(seconds)}
        if not self.blocking:
            raise TypeError(f"it takes no timeout, but was given one of {seconds:g} s")
        return {self.blocking: False}

    def _time(self, seconds: float) -> float | timedelta:
        if self.delta:
            return timedelta(seconds=seconds)
        return seconds if self.scale == 1.0 else int(seconds * self.scale)


@dataclass(frozen=True)
class Way:
    """How to call a subject."""

    form: Form
    by: Literal["calls", "lock", "block"]
    """By methods of the subject; by a lock that it returns; or by a block that it returns."""
    open: str = ""
    """The method that takes the key; "" if the subject itself is called."""
    close: str = ""
    """The method that releases: of the lock, of the handle that ``open`` returned, or of the subject."""
    closes: Closes = "key"
    """The arguments of the subject's method that releases. A handle has its own method."""
    asks: str = ""
    """The method of the lock that waits; "" if the lock is held when it is returned."""
    back: str = ""
    """The subject's method that takes back a lock after ``close`` has released it; or that releases it, if there is no
    ``close``. ``closes`` describes its arguments."""
    trying: str = ""
    """A method that takes the key and never waits."""
    limit: Limit = Limit()
    refused: tuple[type[BaseException], ...] = TIMED_OUT
    """The errors that mean that the time is over."""
    none_refused: bool = False
    """Whether None is returned when the time is over."""
    owner: str = ""
    """The parameter of both methods for the name of the caller."""

    @property
    def tries(self) -> bool:
        """Whether it can be asked without waiting."""
        return bool(self.limit.timeout or self.limit.blocking or self.trying)

    def returns(self, key: Any, given: Any) -> tuple[Any, ...]:
        """Return the arguments of the subject's method that releases, or takes back."""
        return {"key": (key,), "token": (given,)}.get(self.closes, (key, given))


def bare(subject: Any) -> Any:
    """Return the subject behind a face, or the object itself."""
    return subject.subject if isinstance(subject, Face) else subject


class Face:
    """The common part of both kinds. Calls are written once, as coroutines; for threads they are run in one go."""

    _enter, _exit = "__enter__", "__exit__"

    def __init__(
        self, subject: Any, way: Way, *, before: int = 0, watch: Callable[[Any], object] | None = None
    ) -> None:
        """Adapt a subject.

        Args:
            subject: The subject.
            way: How to call it.
            before: The number of live keys that belong to others.
            watch: Called with each answer and error of a call for a lock.
        """
        self.subject = subject
        self._way = way
        self._before = before
        self._watch = watch
        self._kept: dict[tuple[object, Any], list[Any]] = {}
        """By client and key: what the client needs for the release, the innermost last."""

    def _client(self) -> object:
        """Return the calling client."""
        return _thread.get_ident()

    async def _lock(self, key: Any, timeout: float | None) -> None:
        way = self._way
        kept: Any = None
        failed = ""
        try:
            if way.by == "block":
                kept = await _opened(self._opening()(key, **way.limit.arguments(timeout)))
                answer = await settled(getattr(type(kept), self._enter)(kept))
                if answer is False:
                    await self._left(kept, None)
            elif way.by == "lock":
                asks = way.limit.arguments(timeout)
                kept = answer = await _opened(self._opening()(key, **({} if way.asks else asks)))
                answer = await settled(getattr(kept, way.asks)(**asks)) if way.asks else answer
            elif timeout == 0 and way.trying and not way.limit.timeout:
                kept = answer = await settled(getattr(self.subject, way.trying)(key, **self._whose()))
            else:
                kept = answer = await settled(self._opening()(key, **way.limit.arguments(timeout), **self._whose()))
        except BaseException as error:
            if self._watch is not None:
                self._watch(error)
            if not isinstance(error, (GeneratorExit, SystemExit)):
                await self._not_got(key, kept)
            if timeout is None or isinstance(error, TIMED_OUT) or not isinstance(error, way.refused):
                raise
            failed = f"raised {type(error).__name__}"
        else:
            if self._watch is not None:
                self._watch(answer)
            if answer is False or (answer is None and way.none_refused):
                failed = f"returned {answer}"
                await self._not_got(key, kept)
        if failed and timeout is None:
            raise NotGrantedError(f"{way.asks or way.open or 'the call'}() {failed}, and there is no time limit")
        if failed:
            raise TimeoutError(failed)
        if way.by != "calls" or way.closes != "key":
            self._kept.setdefault((self._client(), key), []).append(kept)

    async def _unlock(self, key: Any) -> None:
        way = self._way
        if way.by == "calls" and way.closes == "key":
            await settled(getattr(self.subject, way.close)(key, **self._whose()))
            return
        kept = self.taken(key)
        if way.by == "lock":
            lock = kept if kept is not None else await _opened(self._opening()(key))
            if way.close:
                await settled(getattr(lock, way.close)())
            if way.back:
                await self._give_back(key, lock)
        elif kept is None:
            raise RuntimeError("nobody holds the key")
        elif way.by == "block":
            await self._left(kept, None)
            if way.back:
                await self._give_back(key, kept)
        else:
            await self._end(key, kept)

    async def _end(self, key: Any, kept: Any) -> None:
        """Release with what the lock returned."""
        way = self._way
        if way.closes == "handle":
            await settled(getattr(kept, way.close)())
        else:
            await settled(getattr(self.subject, way.close)(*way.returns(key, kept)))

    async def _give_back(self, key: Any, lock: Any) -> None:
        way = self._way
        await settled(getattr(self.subject, way.back)(*way.returns(key, lock)))

    async def _not_got(self, key: Any, lock: Any) -> None:
        """Take back a lent lock whose wait has failed, as at the end of a try statement."""
        way = self._way
        if way.back and lock is not None and (way.by == "block" or (way.close and way.asks)):
            await self._give_back(key, lock)

    async def _leave(self, key: Any, error: BaseException) -> None:
        kept = self.taken(key)
        if kept is None:
            raise RuntimeError("nobody is in this block")
        await self._left(kept, error)
        if self._way.back:
            await self._give_back(key, kept)

    async def _left(self, block: Any, error: BaseException | None) -> None:
        why = (None, None, None) if error is None else (type(error), error, error.__traceback__)
        try:
            await settled(getattr(type(block), self._exit)(block, *why))
        except BaseException as raised:
            if raised is not error:
                raise

    def let_go(self) -> None:
        """Release, at the end of a run, what outlives this subject, as far as that needs no waiting."""
        for kept in [one for stack in self._kept.values() for one in stack]:
            with contextlib.suppress(BaseException):
                if self._way.by == "lock" and self._way.close:
                    getattr(kept, self._way.close)()
                elif self._way.by == "block":
                    driven(self._left(kept, None))
        self._kept.clear()

    def _opening(self) -> Callable[..., Any]:
        opening: Callable[..., Any] = getattr(self.subject, self._way.open) if self._way.open else self.subject
        return opening

    def _whose(self) -> dict[str, Any]:
        return {self._way.owner: f"client {hash(self._client())}"} if self._way.owner else {}

    def taken(self, key: Any) -> Any:
        """Return what the caller needs for the release; that of another client if it has none; else None."""
        mine = (self._client(), key)
        if mine not in self._kept:
            mine = next((whose for whose in list(self._kept) if whose[1] == key), mine)
        stack = self._kept.get(mine)
        if stack is None:
            return None
        kept = stack.pop()
        if not stack:
            del self._kept[mine]
        return kept


class _Lease:
    """A hold of a key by what its lock returned, which may be released too often, or too late."""

    def __init__(self, holder: Any, key: Any, timeout: float | None = None) -> None:
        self._holder = holder
        self._key = key
        self._timeout = timeout
        self._given: Any = None
        self._released = False


class _ThreadLease(_Lease):
    def release(self) -> None:
        """Release, whether or not that was done before."""
        self._holder.end(self._key, self._given)
        self._released = True  # Set late: if the release was refused, the end of the block must still release.

    def __enter__(self) -> _ThreadLease:
        self._holder.lock(self._key, self._timeout)
        self._given = self._holder.taken(self._key)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._released:
            self.release()


class _TaskLease(_Lease):
    async def release(self) -> None:
        """Release, whether or not that was done before."""
        await self._holder.end(self._key, self._given)
        self._released = True

    async def __aenter__(self) -> _TaskLease:
        await self._holder.lock(self._key, self._timeout)
        self._given = self._holder.taken(self._key)
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._released:
            await self.release()


class ThreadFace(Face):
    """For threads."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        """Wait for the key; raise TimeoutError if the time is over."""
        driven(self._lock(key, timeout))

    def unlock(self, key: Any) -> None:
        """Release the key."""
        driven(self._unlock(key))

    def leave(self, key: Any, error: BaseException) -> None:
        """Leave the block of the key by an error of its body."""
        driven(self._leave(key, error))

    def end(self, key: Any, given: Any) -> None:
        """Release the key with what its lock returned."""
        driven(self._end(key, given))


class TaskFace(Face):
    """For the tasks of an event loop."""

    _enter, _exit = "__aenter__", "__aexit__"

    def _client(self) -> object:
        return current_task()

    async def lock(self, key: Any, timeout: float | None = None) -> None:
        """Wait for the key; raise TimeoutError if the time is over."""
        await self._lock(key, timeout)

    async def unlock(self, key: Any) -> None:
        """Release the key."""
        await self._unlock(key)

    async def leave(self, key: Any, error: BaseException) -> None:
        """Leave the block of the key by an error of its body."""
        await self._leave(key, error)

    async def end(self, key: Any, given: Any) -> None:
        """Release the key with what its lock returned."""
        await self._end(key, given)


def face_class(kind: Kind, *, counts: bool = False, leases: Literal["", "hold", "token"] = "") -> type[Face]:
    """Return the class of faces for this kind.

    Args:
        kind: "threads" or "asyncio".
        counts: Whether it has len(), without keys that were live before.
        leases: Whether it has hold(), by the subject's own hold or by what its lock returns.
    """
    base = ThreadFace if kind == "threads" else TaskFace
    body: dict[str, Any] = {}
    if counts:
        body["__len__"] = lambda self: len(self.subject) - self._before
    if leases == "hold":
        body["hold"] = lambda self, key, timeout=None: self.subject.hold(key, *(() if timeout is None else (timeout,)))
    elif leases:
        lease = _ThreadLease if kind == "threads" else _TaskLease
        body["hold"] = lambda self, key, timeout=None: lease(self, key, timeout)
    return type(base.__name__, (base,), body) if body else base


def current_task() -> object:
    """Return the running task, of asyncio or of trio; raise RuntimeError if there is none.

    The task itself, not its id: that may be another's once it is gone.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    return asyncio.current_task()


def is_block(thing: Any) -> bool:
    """Return whether it is a context manager, synchronous or asynchronous."""
    return any(hasattr(type(thing), name) for name in ("__enter__", "__aenter__"))


async def settled(answer: Any) -> Any:
    """Return an answer, awaited if necessary; of a future of threads, its result."""
    if isinstance(answer, Future):
        return answer.result()
    return await answer if inspect.isawaitable(answer) else answer


async def _opened(answer: Any) -> Any:
    """Return the lock or block of a call; some are awaited first, and some can be used either way."""
    return answer if is_block(answer) else await settled(answer)


def driven(call: Coroutine[Any, Any, None]) -> None:
    """Run a call to its end that waits in no event loop."""
    try:
        call.send(None)
    except StopIteration:
        return
    call.close()
    raise TypeError("the call waits in an event loop")
