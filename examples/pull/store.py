"""The content store: blobs by digest, visible only once they are whole, verified and on the disk."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import uuid
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NamedTuple

from errors import AlreadyExistsError, UnavailableError, UnsupportedError, VerificationError
from metadata import Metadata

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


class Blob(NamedTuple):
    """A blob that is in the store."""

    digest: str
    size: int


def hex_of(digest: str) -> str:
    """The digest's hex part, which is safe as a file name. UnsupportedError: it is no sha256 digest."""
    found = _DIGEST.fullmatch(digest)
    if found is None:
        raise UnsupportedError(f"not a sha256 digest: {digest!r}")
    return found[1]


def open_ingest(path: Path) -> BinaryIO:
    """The file that a blob is written to before it is one."""
    return path.open("wb")


class ContentStore:
    """Blobs below ``root``. A blob is there when its row is; its file was durable before."""

    def __init__(self, root: Path, metadata: Metadata) -> None:
        """Removes what a process that died has left, if nobody else is in the root: ingests, files without a row."""
        self._metadata = metadata
        self._blobs = root / "blobs" / "sha256"
        self._ingest = root / "ingest"
        self._guard = threading.Lock()
        self._open: set[str] = set()
        for folder in (self._blobs, self._ingest):
            folder.mkdir(parents=True, exist_ok=True)
        if metadata.alone:
            self._clean()

    def _clean(self) -> None:
        for path in self._ingest.iterdir():
            path.unlink()
        kept = {hex_of(blob.digest) for blob in self.blobs()}
        for path in self._blobs.iterdir():
            if path.name not in kept:
                path.unlink()

    def blobs(self) -> list[Blob]:
        """All that are in the store."""
        with self._metadata.read() as rows:
            return [Blob(*row) for row in rows.execute("SELECT digest, size FROM blobs ORDER BY digest")]

    def info(self, digest: str) -> Blob | None:
        """The blob if it is in the store."""
        with self._metadata.read() as rows:
            row = rows.execute("SELECT digest, size FROM blobs WHERE digest = ?", (digest,)).fetchone()
        return None if row is None else Blob(*row)

    def path(self, digest: str) -> Path:
        """Where the blob's file is. UnsupportedError: no sha256 digest."""
        return self._blobs / hex_of(digest)

    def read(self, digest: str) -> bytes:
        """The whole blob; for documents. FileNotFoundError: it is not in the store."""
        return self.path(digest).read_bytes()

    def writer(self, ref: str, expected: str | None = None) -> Writer:
        """Begin an ingest under the name ``ref``, which nobody else can then use until it is closed.

        expected: the digest that it is going to have. UnavailableError: somebody is writing ``ref``.
        AlreadyExistsError: what is expected is there.
        """
        with self._guard:
            if ref in self._open:
                raise UnavailableError(f"{ref} is being written")
            self._open.add(ref)
        try:
            # Looked at only now, with the ref taken: who had it before may have committed just before it went.
            if expected is not None and self.info(expected) is not None:
                raise AlreadyExistsError(f"{expected} is in the store")
            # In a shared root a file of one's own: a process that lost its lock without knowing still writes to its
            # own, and what it commits has the right digest or is refused.
            name = f"{ref} {uuid.uuid4().hex}" if self._metadata.shared else ref
            return Writer(self, ref, self._ingest / hashlib.sha256(name.encode()).hexdigest())
        except BaseException:
            self._close(ref)
            raise

    def _close(self, ref: str) -> None:
        with self._guard:
            self._open.discard(ref)

    def _publish(self, ingest: Path, blob: Blob) -> None:
        if self.info(blob.digest) is not None:
            raise AlreadyExistsError(f"{blob.digest} is in the store")
        # The file is durable. Its name must be as well before there is a row for it. If two come this far with one
        # digest, the second replaces a file by the same bytes, which no reader notices.
        os.replace(ingest, self.path(blob.digest))
        _sync_folder(self._blobs)
        with self._metadata.write() as rows:
            if rows.execute("INSERT OR IGNORE INTO blobs VALUES (?, ?)", blob).rowcount == 0:
                raise AlreadyExistsError(f"{blob.digest} is in the store")


class Writer:
    """One ingest, as a context manager; what was not committed is gone when it ends."""

    def __init__(self, store: ContentStore, ref: str, path: Path) -> None:
        self._store = store
        self._ref = ref
        self._path = path
        self._file = open_ingest(path)
        self._hash = hashlib.sha256()
        self.size = 0
        """Bytes written so far."""

    def write(self, chunk: bytes) -> None:
        """Add a chunk. OSError: as of any file, a full disk among them."""
        self._file.write(chunk)
        self._hash.update(chunk)
        self.size += len(chunk)

    def commit(self, digest: str, size: int | None) -> Blob:
        """Verify what was written, make it durable, and let it be seen.

        VerificationError: it has another digest, or another size where one is given. AlreadyExistsError: it is there.
        """
        self._verify(digest, size)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        blob = Blob(digest, self.size)
        self._store._publish(self._path, blob)
        return blob

    def _verify(self, digest: str, size: int | None) -> None:
        if size is not None and self.size != size:
            raise VerificationError(f"{digest} has {self.size} bytes and should have {size}")
        if self._hash.hexdigest() != hex_of(digest):
            raise VerificationError(f"what came as {digest} has the digest sha256:{self._hash.hexdigest()}")

    def close(self) -> None:
        """End the ingest, committed or not."""
        try:
            self._path.unlink(missing_ok=True)
            self._file.close()
        except OSError:
            # What it still had buffered does not fit on the disk, and need not.
            pass
        finally:
            self._store._close(self._ref)

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
