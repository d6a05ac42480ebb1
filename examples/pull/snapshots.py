"""The snapshotter: a file system per chain of layers. Prepare a copy of the parent, change it, commit it.

A copy costs links and no bytes: files are hard links to the parent's, folders are new. So a file is never written in
place. Who applies a layer puts a new file where the old one was, and who uses a committed snapshot only reads it.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import uuid
from pathlib import Path
from typing import NamedTuple

from errors import AlreadyExistsError, PullError
from metadata import Metadata


class Snapshot(NamedTuple):
    """A committed snapshot."""

    chain_id: str
    parent: str | None
    path: Path


class Snapshotter:
    """Snapshots below ``root``. One is there when its row says committed."""

    name = "links"

    def __init__(self, root: Path, metadata: Metadata) -> None:
        """Removes what a process that died has left, if nobody else is in the root: what was not committed."""
        self._root = root
        self._metadata = metadata
        root.mkdir(parents=True, exist_ok=True)
        if metadata.alone:
            self._clean()

    def _clean(self) -> None:
        with self._metadata.write() as rows:
            rows.execute("DELETE FROM snapshots WHERE snapshotter = ? AND NOT committed", (self.name,))
        kept = {snapshot.path.name for snapshot in self.committed()}
        for path in self._root.iterdir():
            if path.name not in kept:
                shutil.rmtree(path)

    def committed(self) -> list[Snapshot]:
        """All that are committed."""
        with self._metadata.read() as rows:
            found = rows.execute(
                "SELECT key, parent, id FROM snapshots WHERE snapshotter = ? AND committed ORDER BY key", (self.name,)
            ).fetchall()
        return [Snapshot(key, parent, self._root / name) for key, parent, name in found]

    def stat(self, chain_id: str) -> Snapshot | None:
        """The committed snapshot of a chain, if there is one."""
        with self._metadata.read() as rows:
            row = rows.execute(
                "SELECT key, parent, id FROM snapshots WHERE snapshotter = ? AND key = ? AND committed",
                (self.name, chain_id),
            ).fetchone()
        return None if row is None else Snapshot(row[0], row[1], self._root / row[2])

    def prepare(self, key: str, parent: str | None) -> Path:
        """A folder with the files of ``parent``, to be changed, then committed or removed under ``key``.

        parent: a chain ID, None for an empty folder. PullError: it is not committed. AlreadyExistsError: the key is
        in use.
        """
        below = None if parent is None else self.stat(parent)
        if parent is not None and below is None:
            raise PullError(f"the parent {parent} is not committed")
        path = self._root / uuid.uuid4().hex
        try:
            with self._metadata.write() as rows:
                rows.execute("INSERT INTO snapshots VALUES (?, ?, ?, ?, FALSE)", (self.name, key, path.name, parent))
        except sqlite3.IntegrityError:
            raise AlreadyExistsError(f"{key} is in use") from None
        try:
            if below is None:
                path.mkdir()
            else:
                _link_tree(below.path, path)
        except BaseException:
            self.remove(key)
            raise
        return path

    def commit(self, chain_id: str, key: str) -> Snapshot:
        """Make what was prepared under ``key`` the snapshot of a chain, for good.

        AlreadyExistsError: the chain has one. PullError: nothing is prepared under the key.
        """
        try:
            with self._metadata.write() as rows:
                changed = rows.execute(
                    "UPDATE snapshots SET key = ?, committed = TRUE"
                    " WHERE snapshotter = ? AND key = ? AND NOT committed",
                    (chain_id, self.name, key),
                ).rowcount
        except sqlite3.IntegrityError:
            raise AlreadyExistsError(f"{chain_id} is committed") from None
        snapshot = self.stat(chain_id)
        if not changed or snapshot is None:
            raise PullError(f"nothing is prepared under {key}")
        return snapshot

    def remove(self, key: str) -> None:
        """Drop what is prepared under ``key``; nothing happens if that is nothing, or was committed."""
        with self._metadata.write() as rows:
            where = "snapshotter = ? AND key = ? AND NOT committed"
            row = rows.execute(f"SELECT id FROM snapshots WHERE {where}", (self.name, key)).fetchone()
            rows.execute(f"DELETE FROM snapshots WHERE {where}", (self.name, key))
        if row is not None:
            shutil.rmtree(self._root / row[0], ignore_errors=True)


def _link_tree(source: Path, target: Path) -> None:
    target.mkdir()
    with os.scandir(source) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _link_tree(source / entry.name, target / entry.name)
            else:
                os.link(entry.path, target / entry.name, follow_symlinks=False)
    shutil.copystat(source, target)
