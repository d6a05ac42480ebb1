"""The puller: an image by its reference, fetched and unpacked, by many callers at once."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import tenacity

from documents import INDEXES, MANIFESTS, Descriptor, chain_ids, choose, diff_ids, manifest, reference
from errors import AlreadyExistsError, PullError, StoppedError, UnavailableError, UnsupportedError
from kmutex import KeyedLocker, NoopLocker, once
from layers import apply_layer
from metadata import Metadata
from registry_client import RegistryClient
from snapshots import Snapshot, Snapshotter
from stop import Stop
from store import Blob, ContentStore


class Way(Enum):
    """What callers who want the same do about each other."""

    SUPPRESS = "suppress"
    """One works, and the others wait for its key: `kmutex.once`."""
    FAIL_FAST = "fail-fast"
    """Fetch: who finds the ref being written fails at once, and its client tries again after a random pause that
    doubles. Unpack: all do it, and all commits but one fail."""
    NONE = "none"
    """Everybody does everything by itself and never looks; all results but one are thrown away."""


class Pulled(NamedTuple):
    """An image that is fetched and unpacked."""

    manifest_digest: str
    """Of the manifest for the platform, not of an index."""
    chain_ids: tuple[str, ...]
    """From the lowest layer up; the last is the whole image."""


@dataclass
class Counts:
    """What was really done."""

    fetches: Counter[str] = field(default_factory=Counter)
    """GET requests by digest, those that failed among them."""
    unpacks: Counter[str] = field(default_factory=Counter)
    """Layers that were begun to be applied, by chain ID."""
    failed_commits: Counter[str] = field(default_factory=Counter)
    """Snapshots that were unpacked for nothing, by chain ID: another had been committed."""
    unavailable: Counter[str] = field(default_factory=Counter)
    """Times that somebody found a ref being written, by digest."""


class Progress(NamedTuple):
    """How far a piece of work is."""

    work: str
    """``fetch`` or ``unpack``."""
    digest: str
    """Of the blob."""
    done: int
    """Bytes, of the blob as it was fetched."""
    total: int | None
    """Bytes; None where nobody knows yet."""


class Puller:
    """One root, one registry, any number of threads that pull. To be closed, or used as a context manager.

    No thread holds two keys at once: a fetch is over before the unpack of its layer begins, and a parent is committed
    before its child's key is asked for. So no two pulls can wait for each other.
    """

    def __init__(
        self,
        root: Path,
        registry: str,
        *,
        locker: KeyedLocker,
        way: Way = Way.SUPPRESS,
        shared: bool = False,
        platform: str = "linux/amd64",
        client: RegistryClient | None = None,
        fetchers: int = 3,
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> None:
        """root: a folder, made if missing. registry: ``http://host:port``. locker: asked only by `Way.SUPPRESS`.

        shared: other processes may work in the root that say so too; their lockers must be one, as those of
        `kmutex.postgres` are, or they do each other's work again.
        client: for `registry`, if its defaults do not fit. fetchers: blobs that one pull fetches at the same time.
        watch: told of progress, from the threads that make it. RootInUseError: another puller works in the root.
        """
        self._locker = locker if way is Way.SUPPRESS else NoopLocker()
        self._way = way
        self._platform = platform
        self._fetchers = fetchers
        self._watch = watch
        self._client = RegistryClient(registry) if client is None else client
        self._metadata = Metadata(root, shared=shared)
        try:
            self.content = ContentStore(root / "content", self._metadata)
            self.snapshots = Snapshotter(root / "snapshots", self._metadata)
            self._metadata.settle()
        except BaseException:
            self._metadata.close()
            raise
        self._guard = threading.Lock()
        self._counts = Counts()

    @property
    def counts(self) -> Counts:
        """What was done up to now; it does not change afterwards."""
        with self._guard:
            counts = self._counts
            return Counts(
                *(Counter(c) for c in (counts.fetches, counts.unpacks, counts.failed_commits, counts.unavailable))
            )

    def pull(self, ref: str, *, stop: Stop | None = None) -> Pulled:
        """Fetch and unpack ``repository:tag`` or ``repository@digest``.

        stop: the brake of this pull and of no other; without one it ends by itself only. When the call is back, no
        thread of this pull works or waits any more.
        StoppedError, TimeoutError: by ``stop``. PullError: its kinds say what failed. OSError: the disk.
        """
        stop = Stop() if stop is None else stop
        try:
            return self._pull(ref, stop)
        except StoppedError:
            # Where one part failed and stopped the others, its failure is the pull's.
            if stop.cause is not None:
                raise stop.cause from None
            raise

    def rootfs(self, pulled: Pulled) -> Path:
        """The files of an image. To be read only: they are shared."""
        snapshot = self.snapshots.stat(pulled.chain_ids[-1])
        if snapshot is None:
            raise PullError(f"{pulled.chain_ids[-1]} is not here")
        return snapshot.path

    def close(self) -> None:
        """Give up the root. No pull may be going on."""
        self._client.close()
        self._metadata.close()

    def __enter__(self) -> Puller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _pull(self, ref: str, stop: Stop) -> Pulled:
        wanted = reference(ref)
        repository = wanted.repository
        found = self._client.persist(lambda: self._client.resolve(wanted), stop)
        if found.media_type in INDEXES:
            self._fetch(repository, found, stop)
            found = choose(self.content.read(found.digest), self._platform)
            if found.media_type not in MANIFESTS:
                raise UnsupportedError(f"the index leads to the type {found.media_type!r}")
        self._fetch(repository, found, stop)
        image = manifest(self.content.read(found.digest))
        self._fetch(repository, image.config, stop)
        diffs = diff_ids(self.content.read(image.config.digest), len(image.layers))
        chain = chain_ids(diffs)

        def fetch(layer: Descriptor) -> None:
            try:
                self._fetch(repository, layer, stop)
            except BaseException as error:
                stop.set(error)
                raise

        # Layers come in parallel, and each is unpacked as soon as it and all below it are there.
        with ThreadPoolExecutor(self._fetchers, thread_name_prefix="fetch") as pool:
            try:
                fetched = [pool.submit(fetch, layer) for layer in image.layers]
                for at, layer in enumerate(image.layers):
                    fetched[at].result()
                    self._unpack(layer, diffs[at], chain[at], chain[at - 1] if at else None, stop)
            except BaseException as error:
                stop.set(error)
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return Pulled(found.digest, chain)

    def _fetch(self, repository: str, wanted: Descriptor, stop: Stop) -> Blob:
        """Have the blob in the store."""
        digest = wanted.digest
        alone = self._way is Way.NONE
        # Under suppression nobody ever finds the ref taken; otherwise this is all that keeps two from one ref.
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.016, max=2.048),
            sleep=stop.sleep,
            reraise=True,
        )

        def look() -> Blob | None:
            return None if alone else self.content.info(digest)

        def fetch() -> Blob:
            if alone:
                return self._download(repository, wanted, f"{digest} for {uuid.uuid4().hex}", None, stop)
            return retrying(self._download, repository, wanted, digest, digest, stop)

        return once(self._locker, f"blob://{digest}", look, fetch, timeout=stop.remaining())

    def _download(self, repository: str, wanted: Descriptor, ref: str, expected: str | None, stop: Stop) -> Blob:
        def attempt() -> Blob:
            stop.check()
            with self.content.writer(ref, expected) as writer:
                with self._guard:
                    self._counts.fetches[wanted.digest] += 1
                with self._client.stream(repository, wanted) as chunks:
                    for chunk in chunks:
                        stop.check()
                        writer.write(chunk)
                        self._watch(Progress("fetch", wanted.digest, writer.size, wanted.size))
                return writer.commit(wanted.digest, wanted.size)

        try:
            return self._client.persist(attempt, stop)
        except UnavailableError:
            with self._guard:
                self._counts.unavailable[wanted.digest] += 1
            raise
        except AlreadyExistsError:
            blob = self.content.info(wanted.digest)
            assert blob is not None, "nothing is ever removed from a store in use"
            return blob

    def _unpack(self, layer: Descriptor, diff_id: str, chain_id: str, parent: str | None, stop: Stop) -> Snapshot:
        """Have the layer's snapshot committed; its parent is."""

        def look() -> Snapshot | None:
            return None if self._way is Way.NONE else self.snapshots.stat(chain_id)

        def apply() -> Snapshot:
            return self._apply(layer, diff_id, chain_id, parent, stop)

        key = f"sn://{self.snapshots.name}/{chain_id}"
        return once(self._locker, key, look, apply, timeout=stop.remaining())

    def _apply(self, layer: Descriptor, diff_id: str, chain_id: str, parent: str | None, stop: Stop) -> Snapshot:
        def step(read: int) -> None:
            stop.check()
            self._watch(Progress("unpack", layer.digest, read, layer.size))

        key = f"extract-{uuid.uuid4().hex} {chain_id}"
        with self._guard:
            self._counts.unpacks[chain_id] += 1
        try:
            root = self.snapshots.prepare(key, parent)
            apply_layer(self.content.path(layer.digest), layer.media_type, diff_id, root, step)
            stop.check()
            return self.snapshots.commit(chain_id, key)
        except AlreadyExistsError:
            with self._guard:
                self._counts.failed_commits[chain_id] += 1
            snapshot = self.snapshots.stat(chain_id)
            assert snapshot is not None, "nothing is ever removed from a snapshotter in use"
            return snapshot
        finally:
            # What was committed is no longer under this key.
            self.snapshots.remove(key)
