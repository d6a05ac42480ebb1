"""A keyed mutex you can check.

`KeyedMutex` is for threads, `AsyncKeyedMutex` for asyncio. Both give each key a mutex of its own, which is made on
demand and removed when it is idle. `once` and `async_once` use such a mutex for its usual purpose: work that many
callers want is done by one of them. specs/clauses.toml lists what the mutexes promise, clause by clause.
"""

TYPE_CHECKING = False  # A type checker goes by the name, and to import typing takes longer than all else here.
if TYPE_CHECKING:
    from typing import Any

    from kmutex._aio import AsyncLease
    from kmutex._core import compiled
    from kmutex._entry import Entry
    from kmutex._errors import KMutexError, LeaseReusedError, UnheldKeyError, WrongLoopError
    from kmutex._keyed import KeyedMutex
    from kmutex._keyed_aio import AsyncKeyedMutex
    from kmutex._noop import AsyncNoopLocker, NoopLocker
    from kmutex._once import async_once, once
    from kmutex._owners import Owner
    from kmutex._protocol import AsyncKeyedLocker, KeyedLocker, Releasable
    from kmutex._threads import Lease

__all__ = [
    "AsyncKeyedLocker",
    "AsyncKeyedMutex",
    "AsyncLease",
    "AsyncNoopLocker",
    "Entry",
    "KMutexError",
    "KeyedLocker",
    "KeyedMutex",
    "Lease",
    "LeaseReusedError",
    "NoopLocker",
    "Owner",
    "Releasable",
    "UnheldKeyError",
    "WrongLoopError",
    "async_once",
    "compiled",
    "once",
]

_HOMES = {
    "AsyncKeyedLocker": "_protocol",
    "AsyncKeyedMutex": "_keyed_aio",
    "AsyncLease": "_aio",
    "AsyncNoopLocker": "_noop",
    "Entry": "_entry",
    "KMutexError": "_errors",
    "KeyedLocker": "_protocol",
    "KeyedMutex": "_keyed",
    "Lease": "_threads",
    "LeaseReusedError": "_errors",
    "NoopLocker": "_noop",
    "Owner": "_owners",
    "Releasable": "_protocol",
    "UnheldKeyError": "_errors",
    "WrongLoopError": "_errors",
    "async_once": "_once",
    "compiled": "_core",
    "once": "_once",
}
"""Loaded on first use, so that a program with threads only does not import asyncio."""


def __getattr__(name: str) -> "Any":
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = globals()[name] = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted(globals() | _HOMES)
