"""The keyed mutex for several processes, with its queue in a PostgreSQL database. Needs ``kmutex[postgres]``.

`PostgresKeyedMutex` is for threads, `AsyncPostgresKeyedMutex` for asyncio. Processes that name the same database and
the same space exclude each other. docs/postgres.md says what holds and what does not. Above all, such a lock can be
lost while it is held: the lease's `lost` event is set then, and its fencing `token` lets the resource refuse a late
writer.
"""

from importlib.util import find_spec

if find_spec("psycopg") is None:
    raise ModuleNotFoundError("kmutex.postgres needs psycopg: pip install 'kmutex[postgres]'", name="psycopg")

from kmutex.postgres._aio import AsyncPostgresKeyedMutex, AsyncPostgresLease
from kmutex.postgres._errors import LockLostError, UnusableServerError
from kmutex.postgres._key import LONGEST
from kmutex.postgres._threads import PostgresKeyedMutex, PostgresLease

__all__ = [
    "LONGEST",
    "AsyncPostgresKeyedMutex",
    "AsyncPostgresLease",
    "LockLostError",
    "PostgresKeyedMutex",
    "PostgresLease",
    "UnusableServerError",
]
