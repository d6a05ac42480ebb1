"""What is in a root, as rows of one SQLite file: the one place that decides what is visible."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import RootInUseError

_TABLES = """
CREATE TABLE IF NOT EXISTS blobs (
    digest TEXT PRIMARY KEY,
    size INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS snapshots (
    snapshotter TEXT NOT NULL,
    key TEXT NOT NULL,
    id TEXT NOT NULL UNIQUE,
    parent TEXT,
    committed INTEGER NOT NULL,
    PRIMARY KEY (snapshotter, key)
);
"""


class Metadata:
    """The rows, and the right to work in the root at all: one process, one connection, one writer at a time."""

    def __init__(self, root: Path) -> None:
        """root: made if it is not there. RootInUseError: somebody works in it."""
        root.mkdir(parents=True, exist_ok=True)
        self._lock_file = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # The kernel ends this lock with the process, however it dies. Who gets it is alone in the root, so all
            # that is half done there is left over from the dead and may be removed.
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_file)
            raise RootInUseError(f"{root} is in use by another puller") from error
        self._guard = threading.Lock()
        self._connection = sqlite3.connect(root / "metadata.db", isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last rows, never the order: what a row speaks of was made durable before it.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_TABLES)

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction. It counts as a whole when the block ends well, and not at all otherwise."""
        with self._guard:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The rows as they are after the last transaction."""
        with self._guard:
            yield self._connection

    def close(self) -> None:
        """Give the root up."""
        with self._guard:
            self._connection.close()
            os.close(self._lock_file)
