"""What must be true of a root, and of a locker, once nobody works on it. Reads the files and rows by itself."""

from __future__ import annotations

import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.pull.made import tree


def check_sound(root: Path, tars: dict[str, dict[str, object]] | None = None) -> None:
    """AssertionError: something is visible that is not what it says, or something half done is left.

    tars: the tree that each chain ID must have; None leaves the trees unread. A chain that is not listed must not
    be there.
    """
    with closing(sqlite3.connect(root / "metadata.db")) as rows:
        blobs = dict(rows.execute("SELECT digest, size FROM blobs"))
        snapshots = list(rows.execute("SELECT key, id, committed FROM snapshots"))
    files = {f"sha256:{path.name}": path.read_bytes() for path in (root / "content/blobs/sha256").iterdir()}
    assert set(files) == set(blobs)
    for digest, data in files.items():
        assert digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        assert len(data) == blobs[digest]
    assert list((root / "content/ingest").iterdir()) == []
    assert all(committed for _, _, committed in snapshots)
    assert {path.name for path in (root / "snapshots").iterdir()} == {name for _, name, _ in snapshots}
    if tars is not None:
        for chain_id, name, _ in snapshots:
            assert chain_id in tars, "a chain that no image has"
            assert tree(root / "snapshots" / name) == tars[chain_id]
