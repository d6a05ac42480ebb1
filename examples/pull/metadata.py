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
    """The rows, and the right to work in the root at all: one process, or those that agree to share it."""

    def __init__(self, root: Path, *, shared: bool = False) -> None:
        """root: made if it is not there. shared: other processes may work in it that say the same.

        RootInUseError: somebody works in it, and does not share.
        """
        root.mkdir(parents=True, exist_ok=True)
        self.shared = shared
        self._lock_file = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Held until `settle`, by one after the other of those who share: who is alone cleans up before others come.
        self._start_file = os.open(root / "start", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if shared else None
        try:
            # The kernel ends this lock with the process, however it dies. Who gets it is alone in the root, so all
            # that is half done there is left over from the dead and may be removed.
            if self._start_file is not None:
                fcntl.flock(self._start_file, fcntl.LOCK_EX)
            self.alone = self._try(fcntl.LOCK_EX)
            if not self.alone and not (shared and self._try(fcntl.LOCK_SH)):
                raise RootInUseError(f"{root} is in use by another puller")
            self._open(root)
        except BaseException:
            self._close_files()
            raise

    def _open(self, root: Path) -> None:
        self._guard = threading.Lock()
        # Between processes a writer waits for another's transaction, which is short.
        path = root / "metadata.db"
        self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
        self._connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may cost the last rows, never the order: what a row speaks of was made durable before it.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.executescript(_TABLES)

    def settle(self) -> None:
        """The root is clean: let others in who share it."""
        if self._start_file is not None:
            if not self._try(fcntl.LOCK_SH):
                raise RootInUseError("another puller, which does not share, took the root")
            os.close(self._start_file)
            self._start_file = None
            self.alone = False

    def _try(self, kind: int) -> bool:
        try:
            fcntl.flock(self._lock_file, kind | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _close_files(self) -> None:
        os.close(self._lock_file)
        if self._start_file is not None:
            os.close(self._start_file)
            self._start_file = None

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
            self._close_files()
