"""A keyed mutex you can check.

`KeyedMutex` is for threads, `AsyncKeyedMutex` for asyncio; both give each key a mutex of its own, made on demand
and gone when idle. `once` and `async_once` do on top of them what a keyed mutex is for: work that many want is done by
one. What the mutexes promise is written down clause by clause in specs/clauses.toml.
"""

from kmutex._aio import AsyncKeyedMutex, AsyncLease
from kmutex._entry import Entry
from kmutex._errors import KMutexError, LeaseReusedError, UnheldKeyError, WrongLoopError
from kmutex._noop import AsyncNoopLocker, NoopLocker
from kmutex._once import async_once, once
from kmutex._protocol import AsyncKeyedLocker, KeyedLocker, Releasable
from kmutex._threads import KeyedMutex, Lease

compiled: bool = not hasattr(KeyedMutex.lock, "__code__")
"""Whether the lock runs as machine code, which no interrupt can enter: docs/compiled.md says how to build it."""

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
    "Releasable",
    "UnheldKeyError",
    "WrongLoopError",
    "async_once",
    "compiled",
    "once",
]
