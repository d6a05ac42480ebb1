"""What a factory makes: a locker for threads or for asyncio, and what it has. Found out by looking."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from kmutex.engine.calls import LOOKING, Calls
from kmutex.engine.eventloop import in_a_loop, looked_at
from kmutex.engine.observer import SubjectFailedError
from kmutex.engine.program import Step, parse
from kmutex.engine.search import Chooser
from kmutex.engine.threads import Crew, ThreadRun

Kind = Literal["threads", "asyncio"]
Form = Literal["lock", "acquire", "get", "block", "key", "flight"]


class NotALockerError(Exception):
    """The subject is not a keyed locker. One line: what is missing, and what to do."""


@dataclass(frozen=True)
class Shape:
    """What a subject offers."""

    kind: Kind
    timeout: bool
    """lock() takes a timeout."""
    counts: bool
    """len() gives the number of live keys."""
    leases: bool
    """There is a hold() whose block is given something with release()."""
    form: Form = "lock"
    """lock: lock(key), unlock(key). acquire: the same with other names, results or arguments. get: an accessor gives a
    lock for the key. block: with or async with only. key: an object for each key. flight: do(key, fn)."""
    tries: bool = True
    """It can be asked without waiting: timeout 0, blocking=False, or a call of its own."""
    strays: bool = True
    """The unlock of a key by somebody who holds nothing can be asked."""
    bodies: bool = False
    """A block: its body can raise."""
    keys: str = "any"
    """The type of its keys, one of `kmutex.engine.calls.KEY_TYPES`."""
    shared: bool = False
    """What the factory makes shares its keys with what it made before, so each run has keys of its own."""
    reentrant: bool = False
    """Its holder gets the key again."""
    striped: bool = False
    """Keys share locks by design."""
    taken: str = ""
    """One line for the report: what was taken for what."""


@dataclass(frozen=True)
class Fitted:
    """A factory with the one face that schedulers, judge, suite, machine and recorder know."""

    shape: Shape
    make: Callable[[], Any]
    """What it makes has lock(key, timeout=...) and unlock(key), awaited for asyncio (where unlock gives something to
    await), and __len__ and hold(key) where the shape says so. A block has leave(key, error) too: its body raises."""


def fit(make: Callable[[], Any], *, without: frozenset[str] = frozenset(), calls: Calls = LOOKING) -> Fitted:
    """The shape of what ``make()`` returns, and a factory of subjects with the one face.

    without: features that are not looked for. calls: names, where looking does not find them.
    NotALockerError: it is no keyed locker, or the factory fails.
    """
    return Fitted(look(make, without), make)


def look(make: Callable[[], Any], without: frozenset[str] = frozenset()) -> Shape:
    """The shape of what ``make()`` returns; features in ``without`` are not looked for.

    NotALockerError: it is no locker, or the factory fails.
    """
    first = _made(make)
    if callable(getattr(first, "do", None)) and not callable(getattr(first, "lock", None)):
        counts = "len" not in without and hasattr(type(first), "__len__")
        awaited: Kind = "asyncio" if _is_coroutine_function(first.do) else "threads"
        return Shape(awaited, timeout=False, counts=counts, leases=False, form="flight", taken="do(key, fn)")
    for name in ("lock", "unlock"):
        if not callable(getattr(first, name, None)):
            raise NotALockerError(f"{_name(first)} has no {name}(); a keyed locker has lock(key) and unlock(key)")
    if _made(make) is first:
        raise NotALockerError("the factory returned the same object twice; it must make a new locker at each call")
    if _is_coroutine_function(first.unlock):
        raise NotALockerError(f"{_name(first)}.unlock() is a coroutine function; it must be a plain call")
    for name in ("lock", "unlock"):
        if not _accepts(getattr(first, name), "key"):
            raise NotALockerError(f"{_name(first)}.{name}() does not take one key")
    kind: Kind = "asyncio" if _waits_in_a_loop(first, make) else "threads"
    timeout = "timeout" not in without and _accepts(first.lock, "key", timeout=0)
    if kind == "threads" and not timeout and "timeout" not in without:
        raise NotALockerError(
            f"{_name(first)}.lock() takes no timeout; give it lock(key, timeout=None), or declare --without timeout"
        )
    return Shape(
        kind=kind,
        timeout=timeout,
        counts="len" not in without and hasattr(type(first), "__len__"),
        leases="lease" not in without and callable(getattr(first, "hold", None)),
    )


def _made(make: Callable[[], Any]) -> Any:
    # In a run, since a locker may start a thread as it is made; in a loop, since another may ask for the running one.
    maker = _Maker()
    run = ThreadRun(lambda: in_a_loop(make), parse("0+a"), Chooser(), maker, crew=Crew(), keys=lambda letter: letter)
    try:
        run.run()
    except SubjectFailedError as error:
        raise NotALockerError(f"{error}; it is called without arguments") from None
    return maker.subject


class _Maker:
    """An `Observer` that ends the run when the subject is made."""

    stopped = True

    def __init__(self) -> None:
        self.subject: Any = None

    def made(self, subject: Any) -> None:
        self.subject = subject

    def phase(self, number: int) -> None: ...

    def called(self, client: int, step: Step) -> None: ...

    def returned(self, client: int, step: Step) -> None: ...

    def raised(self, client: int, step: Step, error: BaseException) -> None: ...

    def cancelled(self, client: int) -> None: ...

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None: ...


def _waits_in_a_loop(subject: Any, make: Callable[[], Any]) -> bool:
    if _is_coroutine_function(subject.lock):
        return True
    try:
        source = inspect.getsource(inspect.unwrap(subject.lock))
    except (OSError, TypeError):
        source = ""
    if "return" not in source and source:
        return False
    # A plain function may still return something to await. Only a call can tell.
    return looked_at(make)


def _is_coroutine_function(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return any(
        asyncio.iscoroutinefunction(candidate)
        for candidate in (function, inspect.unwrap(function), type(function).__call__)
    )


def _accepts(function: Any, *args: Any, **kwargs: Any) -> bool:
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:
        return True  # A builtin without a signature: the runs will tell.
    return True


def _name(subject: Any) -> str:
    return type(subject).__qualname__
