"""The one face, lock(key, timeout) and unlock(key), before whatever form a keyed lock has.

A `Way` says how a subject is called: which method takes the key, and what is done with its answer. A face does it. It
keeps, for each client, what the client must have to let go again: the block it is in, its lock, its token. Who is
cancelled or interrupted on the way in has nothing of that, and so can't let go.

A face calls the subject and nothing else. It needs the standard library only, so that a recorder can have it as well.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import inspect
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from kmutex._timeouts import TIMED_OUT

Kind = Literal["threads", "asyncio"]
Closes = Literal["key", "token", "both", "handle"]
Form = Literal["lock", "acquire", "get", "block", "key", "flight"]

FOREVER = 1e6
"""Seconds that are asked for where a call that says nothing would give up: the schedulers take that for no limit."""


class NotGrantedError(Exception):
    """A call without a time limit came back without the lock, and without an error."""


@dataclass(frozen=True)
class Limit:
    """How a call is told not to wait, or how long. Names of parameters; "" where there is none."""

    timeout: str = ""
    scale: float = 1.0
    """How many of its units make a second."""
    blocking: str = ""
    by_blocking: bool = False
    """Not to wait is said by ``blocking``, though there is a timeout: 0 does not mean it there."""
    endless: bool = False
    """A plain call gives up by itself, so it is told to wait."""

    def arguments(self, seconds: float | None) -> dict[str, Any]:
        """For a call that waits so long; None: for as long as it takes."""
        if seconds is None:
            if not self.endless:
                return {}
            found: dict[str, Any] = {self.blocking: True} if self.blocking else {}
            return {**found, self.timeout: FOREVER * self.scale} if self.timeout else found
        if self.timeout and not (seconds == 0 and self.by_blocking):
            return {self.timeout: seconds if self.scale == 1.0 else int(seconds * self.scale)}
        if not self.blocking:
            raise TypeError(f"it takes no timeout, and was given one of {seconds:g} s")
        return {self.blocking: False}


@dataclass(frozen=True)
class Way:
    """How a subject is called."""

    form: Form
    by: Literal["calls", "lock", "block"]
    """Calls of the subject's; a lock that it gives, which is then asked; or a block that it gives, which is entered."""
    open: str = ""
    """The method that takes the key; "": the subject itself is called with it."""
    close: str = ""
    """The method that lets go: of the lock, of the handle that ``open`` gave, or of the subject."""
    closes: Closes = "key"
    """What the subject's method is given, where it is by calls; a handle has the method itself."""
    asks: str = ""
    """The method of the lock that waits; "" where it is held when it is given."""
    back: str = ""
    """The subject's method that takes back a lock that was given, when ``close`` has let go of it; or which lets go of
    it, where there is no ``close``. ``closes`` says what it is given."""
    trying: str = ""
    """A method of the subject that takes the key and never waits."""
    limit: Limit = Limit()
    refused: tuple[type[BaseException], ...] = TIMED_OUT
    """What is raised when the time is over."""
    none_refused: bool = False
    """None is returned when the time is over."""
    owner: str = ""
    """The parameter by which both calls are told who calls."""

    @property
    def tries(self) -> bool:
        """Whether it can be asked without waiting."""
        return bool(self.limit.timeout or self.limit.blocking or self.trying)

    def returns(self, key: Any, given: Any) -> tuple[Any, ...]:
        """What the subject's method is given that lets go, or takes back."""
        return {"key": (key,), "token": (given,)}.get(self.closes, (key, given))


def bare(subject: Any) -> Any:
    """The subject itself, where it has a face."""
    return subject.subject if isinstance(subject, Face) else subject


class Face:
    """What both kinds have. The calls are written once, as coroutines; for threads they are driven at one go."""

    _enter, _exit = "__enter__", "__exit__"

    def __init__(
        self, subject: Any, way: Way, *, before: int = 0, watch: Callable[[Any], object] | None = None
    ) -> None:
        """before: live keys that are not its own. watch: is given each answer and error of a call for a lock."""
        self.subject = subject
        self._way = way
        self._before = before
        self._watch = watch
        self._kept: dict[tuple[object, Any], list[Any]] = {}
        """By client and key: what the client lets go with, the innermost last."""

    def _client(self) -> object:
        """Who calls."""
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
        """Let go with what the lock gave."""
        way = self._way
        if way.closes == "handle":
            await settled(getattr(kept, way.close)())
        else:
            await settled(getattr(self.subject, way.close)(*way.returns(key, kept)))

    async def _give_back(self, key: Any, lock: Any) -> None:
        way = self._way
        await settled(getattr(self.subject, way.back)(*way.returns(key, lock)))

    async def _not_got(self, key: Any, lock: Any) -> None:
        """What was lent is given back by who waited for it in vain, as at the end of a try statement."""
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
        """Nobody is there any more: what outlives this subject is free again, as far as that needs no waiting."""
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
        """What the calling client lets go with; what another has where it has nothing; None if nobody has."""
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
    """A hold of a key by what its lock gave, which may be used too often, or too late."""

    def __init__(self, holder: Any, key: Any, timeout: float | None = None) -> None:
        self._holder = holder
        self._key = key
        self._timeout = timeout
        self._given: Any = None
        self._released = False


class _ThreadLease(_Lease):
    def release(self) -> None:
        """Let go with it, whether that has been done before or not."""
        self._holder.end(self._key, self._given)
        self._released = True  # If it was refused, the block has still to let go.

    def __enter__(self) -> _ThreadLease:
        self._holder.lock(self._key, self._timeout)
        self._given = self._holder.taken(self._key)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._released:
            self.release()


class _TaskLease(_Lease):
    async def release(self) -> None:
        """The same."""
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
        """Wait for the key. TimeoutError: the time is over."""
        driven(self._lock(key, timeout))

    def unlock(self, key: Any) -> None:
        """Let go of the key."""
        driven(self._unlock(key))

    def leave(self, key: Any, error: BaseException) -> None:
        """Leave the block of the key by an error of its body."""
        driven(self._leave(key, error))

    def end(self, key: Any, given: Any) -> None:
        """Let go of the key with what its lock gave."""
        driven(self._end(key, given))


class TaskFace(Face):
    """For the tasks of an event loop."""

    _enter, _exit = "__aenter__", "__aexit__"

    def _client(self) -> object:
        return current_task()

    async def lock(self, key: Any, timeout: float | None = None) -> None:
        """Wait for the key. TimeoutError: the time is over."""
        await self._lock(key, timeout)

    async def unlock(self, key: Any) -> None:
        """Let go of the key."""
        await self._unlock(key)

    async def leave(self, key: Any, error: BaseException) -> None:
        """Leave the block of the key by an error of its body."""
        await self._leave(key, error)

    async def end(self, key: Any, given: Any) -> None:
        """Let go of the key with what its lock gave."""
        await self._end(key, given)


def face_class(kind: Kind, *, counts: bool = False, leases: Literal["", "hold", "token"] = "") -> type[Face]:
    """The class of faces for this kind. counts: with len(), of what was not there before. leases: with hold(), by the
    subject's own or by what its lock gives."""
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
    """The task that runs, of asyncio's or of trio's. RuntimeError: there is none.

    The task itself, not its id: that may be another's once it is gone.
    """
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_task()
    return asyncio.current_task()


def is_block(thing: Any) -> bool:
    """Whether it is for with or async with."""
    return any(hasattr(type(thing), name) for name in ("__enter__", "__aenter__"))


async def settled(answer: Any) -> Any:
    """What a call gave, awaited where it is to be."""
    return await answer if inspect.isawaitable(answer) else answer


async def _opened(answer: Any) -> Any:
    """What a call gives that gives a lock or a block; some are awaited first, and some can be both."""
    return answer if is_block(answer) else await settled(answer)


def driven(call: Coroutine[Any, Any, None]) -> None:
    """Run a call that waits in no loop to its end."""
    try:
        call.send(None)
    except StopIteration:
        return
    call.close()
    raise TypeError("the call waits in an event loop")
