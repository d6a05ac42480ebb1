"""Single flights in the shapes that people write, all sound, for tests/engine/test_flight.py."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Hashable
from typing import Any

from tests.lockers.flights_asyncio import TaskFlight
from tests.lockers.flights_threads import SharingFlight


class _Popping(SharingFlight):
    def _end(self, key: Hashable, call: Any) -> None:
        with self._guard:
            self._calls.pop(key, None)
        call.over.set()


class WithArguments:
    """As in Go: do(key, fn, *args), and forget(key)."""

    def __init__(self) -> None:
        self._flight = _Popping()

    def do(self, key: Hashable, fn: Callable[..., Any], *args: Any) -> Any:
        return self._flight.do(key, lambda: fn(*args))

    def forget(self, key: Hashable) -> None:
        with self._flight._guard:
            self._flight._calls.pop(key, None)


class FunctionFirst:
    def __init__(self) -> None:
        self._flight = SharingFlight()

    def run(self, func: Callable[[], Any], key: Hashable) -> Any:
        return self._flight.do(key, func)


class Called:
    def __init__(self) -> None:
        self._flight = SharingFlight()

    def __call__(self, key: Hashable, fn: Callable[[], Any]) -> Any:
        return self._flight.do(key, fn)


class OddName:
    def __init__(self) -> None:
        self._flight = SharingFlight()

    def compute_unless_computed(self, identity: Hashable, thing: Callable[[], Any]) -> Any:
        return self._flight.do(identity, thing)


class GivesTask:
    """A plain call that gives something to await."""

    def __init__(self) -> None:
        self._flight = TaskFlight()

    def execute(self, key: str, factory: Callable[[], Awaitable[Any]]) -> asyncio.Future[Any]:
        return asyncio.ensure_future(self._flight.do(key, factory))


_shared = TaskFlight()


async def fetch_once(key: Hashable, loader: Callable[[], Awaitable[Any]]) -> Any:
    """A function with a table at the top of the module."""
    return await _shared.do(key, loader)


def coalesce(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A decorator for threads."""
    flight = SharingFlight()

    @functools.wraps(fn)
    def wrapper(key: Any) -> Any:
        return flight.do(key, lambda: fn(key))

    return wrapper


def dedupe(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """A decorator for asyncio."""
    flight = TaskFlight()

    @functools.wraps(fn)
    async def wrapper(*args: Any) -> Any:
        return await flight.do(args, lambda: fn(*args))

    return wrapper


def deduplicating() -> Callable[..., Any]:
    """A factory of decorators."""
    return dedupe


class Coalesced:
    """A decorator that is a class."""

    def __init__(self, func: Callable[[Any], Any]) -> None:
        self._func = func
        self._flight = SharingFlight()

    def __call__(self, key: Any) -> Any:
        return self._flight.do(key, lambda: self._func(key))
