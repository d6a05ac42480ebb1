"""The content store and the snapshotter, by themselves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import store
from errors import AlreadyExistsError, PullError, RootInUseError, UnavailableError, UnsupportedError, VerificationError
from metadata import Metadata
from snapshots import Snapshotter
from store import ContentStore, Writer
from tests.driver import DEADLINE
from tests.pull.made import digest_of, tree
from tests.pull.soundness import check_sound

DATA = b"some bytes"
DIGEST = digest_of(DATA)


class Root:
    """A content store and a snapshotter, as the puller puts them together."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata = Metadata(path)
        self.content = ContentStore(path / "content", self.metadata)
        self.snapshots = Snapshotter(path / "snapshots", self.metadata)

    def put(self, data: bytes = DATA, digest: str = DIGEST, size: int | None = None) -> None:
        with self.content.writer(digest) as writer:
            writer.write(data)
            writer.commit(digest, len(data) if size is None else size)


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path / "root")


def test_a_blob_is_seen_when_it_is_committed_and_not_before(root: Root) -> None:
    with root.content.writer("ref") as writer:
        writer.write(DATA[:4])
        writer.write(DATA[4:])
        assert root.content.info(DIGEST) is None
        assert root.content.blobs() == []
        assert not root.content.path(DIGEST).exists()
        assert writer.commit(DIGEST, len(DATA)) == (DIGEST, len(DATA))
    assert root.content.info(DIGEST) == (DIGEST, len(DATA))
    assert root.content.read(DIGEST) == DATA
    check_sound(root.path)


def test_what_was_not_committed_is_gone(root: Root) -> None:
    def interrupted() -> None:
        with root.content.writer("ref") as writer:
            writer.write(DATA)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    check_sound(root.path)
    assert root.content.blobs() == []
    root.content.writer("ref").close()


@pytest.mark.parametrize(
    ("data", "size"),
    [(b"other byte", len(DATA)), (DATA[:-1], len(DATA)), (DATA + b"!", len(DATA)), (DATA, len(DATA) + 1), (b"", 0)],
)
def test_another_digest_or_size_is_refused(root: Root, data: bytes, size: int) -> None:
    with pytest.raises(VerificationError):
        root.put(data, DIGEST, size)
    check_sound(root.path)
    assert root.content.blobs() == []


def test_a_store_that_verifies_nothing_is_caught(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin: the look at the root must find it."""
    monkeypatch.setattr(Writer, "_verify", lambda self, digest, size: None)
    root.put(b"other byte", DIGEST)
    with pytest.raises(AssertionError):
        check_sound(root.path)


def test_a_store_that_never_looks_at_the_size_is_caught(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin for sizes: a true digest beside a false size is accepted by it."""
    verify = Writer._verify
    monkeypatch.setattr(Writer, "_verify", lambda self, digest, size: verify(self, digest, None))
    root.put(DATA, DIGEST, len(DATA) + 1)
    assert root.content.info(DIGEST) is not None


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:abc", "sha256:" + "A" * 64, "", DIGEST + "\n"])
def test_a_digest_is_never_a_path(root: Root, digest: str) -> None:
    with pytest.raises(UnsupportedError):
        root.content.path(digest)
    with pytest.raises(UnsupportedError), root.content.writer("ref") as writer:
        writer.commit(digest, 0)
    check_sound(root.path)


def test_one_ref_has_one_writer(root: Root) -> None:
    with root.content.writer("ref"):
        with pytest.raises(UnavailableError):
            root.content.writer("ref")
        root.content.writer("another").close()
    root.content.writer("ref").close()
    root.put()
    with pytest.raises(AlreadyExistsError):
        root.content.writer("ref", DIGEST)
    root.content.writer("ref").close()


def test_of_many_commits_of_one_digest_one_counts(root: Root) -> None:
    """All write first and commit together; the store is sound, and one alone is told that it was the one."""
    together = threading.Barrier(6, timeout=DEADLINE)

    def put(number: int) -> bool:
        with root.content.writer(f"ref {number}") as writer:
            writer.write(DATA)
            together.wait()
            try:
                writer.commit(DIGEST, len(DATA))
            except AlreadyExistsError:
                return False
            return True

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(put, range(6))) == [False] * 5 + [True]
    check_sound(root.path)


def test_a_root_has_one_owner(root: Root) -> None:
    with pytest.raises(RootInUseError):
        Metadata(root.path)
    root.put()
    root.metadata.close()
    again = Root(root.path)
    assert again.content.info(DIGEST) is not None


def leave_things(root: Root) -> None:
    """What a process leaves that dies at the worst moments."""
    root.put()
    (root.path / "content/ingest/half").write_bytes(DATA[:3])
    (root.path / "content/blobs/sha256" / ("0" * 64)).write_bytes(b"moved, and no row yet")
    (root.snapshots.prepare("extract-1", None) / "half").write_bytes(DATA)
    (root.path / "snapshots/no-row").mkdir()
    root.metadata.close()


def test_the_next_start_removes_what_the_dead_left(root: Root) -> None:
    leave_things(root)
    with pytest.raises(AssertionError):
        check_sound(root.path)
    again = Root(root.path)
    check_sound(root.path)
    assert [blob.digest for blob in again.content.blobs()] == [DIGEST]
    assert again.snapshots.committed() == []


def test_a_failed_row_leaves_no_blob(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the row is written: the file is there, and nobody sees it."""

    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_sync_folder", full)
        with pytest.raises(OSError, match="No space"):
            root.put()
    assert root.content.info(DIGEST) is None
    root.put()
    check_sound(root.path)


# Snapshots.


def test_a_snapshot_is_seen_when_it_is_committed(root: Root) -> None:
    path = root.snapshots.prepare("work", None)
    (path / "f").write_bytes(b"f")
    assert root.snapshots.stat("chain") is None
    assert root.snapshots.stat("work") is None
    snapshot = root.snapshots.commit("chain", "work")
    assert root.snapshots.stat("chain") == snapshot
    assert tree(snapshot.path) == {"f": (b"f", False)}
    root.snapshots.remove("work")
    root.snapshots.remove("chain")
    assert root.snapshots.committed() == [snapshot]
    check_sound(root.path)


def test_a_chain_is_committed_once(root: Root) -> None:
    (root.snapshots.prepare("first", None) / "f").write_bytes(b"first")
    (root.snapshots.prepare("second", None) / "f").write_bytes(b"second")
    root.snapshots.commit("chain", "first")
    with pytest.raises(AlreadyExistsError):
        root.snapshots.commit("chain", "second")
    root.snapshots.remove("second")
    snapshot = root.snapshots.stat("chain")
    assert snapshot is not None
    assert tree(snapshot.path) == {"f": (b"first", False)}
    check_sound(root.path)


def test_a_child_starts_with_the_files_of_its_parent(root: Root) -> None:
    path = root.snapshots.prepare("work", None)
    (path / "d").mkdir()
    (path / "d/f").write_bytes(b"f")
    (path / "link").symlink_to("d/f")
    (path / "d").chmod(0o700)
    parent = root.snapshots.commit("chain", "work")
    child = root.snapshots.prepare("child", "chain")
    assert tree(child) == tree(parent.path) == {"d": None, "d/f": (b"f", False), "link": "d/f"}
    assert (child / "d").stat().st_mode == (parent.path / "d").stat().st_mode
    (child / "d/f").unlink()
    (child / "d/g").write_bytes(b"g")
    assert "d/g" not in tree(parent.path)
    assert "d/f" in tree(parent.path)


def test_keys_and_parents_that_do_not_fit(root: Root) -> None:
    root.snapshots.prepare("work", None)
    with pytest.raises(AlreadyExistsError):
        root.snapshots.prepare("work", None)
    with pytest.raises(PullError, match="parent"):
        root.snapshots.prepare("child", "work")
    with pytest.raises(PullError, match="nothing is prepared"):
        root.snapshots.commit("chain", "nothing")
    root.snapshots.remove("work")
    root.snapshots.remove("work")
    check_sound(root.path)
