"""Pulls that go wrong. One failure fails one pull, nothing unverified is seen, and no key stays locked."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pytest

import layers
import puller as puller_module
import registry_client
import store
from documents import Descriptor
from errors import (
    MalformedError,
    PullError,
    RegistryError,
    RootInUseError,
    StoppedError,
    TransientError,
    UnsafeLayerError,
    UnsupportedError,
    VerificationError,
)
from kmutex import KeyedMutex
from puller import Progress, Pulled, Puller, Way
from registry import Corrupt, Fault, InProcessRegistry, Stall, Status, Truncate
from registry_client import RegistryClient
from stop import Stop
from store import ContentStore, Writer
from tests.driver import DEADLINE, until, waiters
from tests.pull.made import (
    CHAIN,
    IMAGE,
    LAYER,
    MANIFEST,
    TARS,
    TREES,
    chain_ids,
    digest_of,
    file,
    hardlink,
    image,
    noise,
    symlink,
    tar,
)
from tests.pull.soundness import check_sound

ROOT = Path(__file__).resolve().parents[2]
WHOLE = Pulled(IMAGE.manifest_digest, CHAIN)
OTHER_TARS = [tar(file("other", noise(2)))]
OTHER = image(OTHER_TARS)
OTHER_TREES: dict[str, dict[str, object]] = {chain_ids(OTHER_TARS)[0]: {"other": (noise(2), False)}}
BLOB = IMAGE.layers[0]
KEY = f"blob://{BLOB}"
TRIES = 2


class Killed(BaseException):
    """No Exception: what ends a thread."""


@pytest.fixture
def registry() -> Iterator[InProcessRegistry]:
    with InProcessRegistry() as serving:
        serving.push(IMAGE)
        serving.push(OTHER, "other")
        yield serving


class Place:
    """A puller on a root, with tries that do not pause."""

    def __init__(self, root: Path, url: str, way: Way = Way.SUPPRESS, watch: Callable[[Progress], None] | None = None):
        self.root = root
        self.locker = KeyedMutex()
        client = RegistryClient(url, tries=TRIES, backoff=0)
        self.puller = Puller(
            root, url, locker=self.locker, way=way, client=client, watch=watch or (lambda progress: None)
        )

    def crowd(self, key: str = KEY, pulls: int = 3) -> tuple[list[BaseException], list[Pulled]]:
        """Pulls of the image at once, and one of another: the errors and results of the former.

        Under suppression, all stand in the queue for ``key`` before the first of them is let in. AssertionError: the
        other fails, the root is not sound, or a key is left.
        """
        suppress = self.puller._way is Way.SUPPRESS
        with ThreadPoolExecutor(pulls + 1) as pool:
            if suppress:
                self.locker.lock(key)
            try:
                started = [pool.submit(self.puller.pull, "demo:latest") for _ in range(pulls)]
                other = pool.submit(self.puller.pull, "other:latest")
                if suppress:
                    until(lambda: len(waiters(self.locker, key)) == pulls)
                    assert other.exception(DEADLINE) is None  # It needs no key of theirs, and does not wait for them.
            finally:
                if suppress:
                    self.locker.unlock(key)
            assert other.exception(DEADLINE) is None
        self.check()
        return outcomes(started)

    def check(self) -> None:
        """AssertionError: the root is not sound, or a key is left."""
        check_sound(self.root, TREES | OTHER_TREES)
        assert len(self.locker) == 0


def outcomes(pulls: list[Future[Pulled]]) -> tuple[list[BaseException], list[Pulled]]:
    """Errors and results, once all are back."""
    errors = [error for error in (pull.exception(DEADLINE) for pull in pulls) if error is not None]
    return errors, [pull.result() for pull in pulls if pull.exception() is None]


WAYS = pytest.mark.parametrize("way", list(Way))


@pytest.fixture
def place(registry: InProcessRegistry, tmp_path: Path) -> Iterator[Callable[..., Place]]:
    made: list[Place] = []

    def make(way: Way = Way.SUPPRESS, watch: Callable[[Progress], None] | None = None) -> Place:
        made.append(Place(tmp_path / f"root {len(made)}", registry.url, way, watch))
        return made[-1]

    yield make
    for each in made:
        each.puller.close()


# The registry fails.

FAULTS: dict[str, tuple[list[Fault], type[BaseException] | None]] = {
    "500, then well": ([Status(500)], None),
    "500 to the last": ([Status(500)] * TRIES, TransientError),
    "503 to the last": ([Status(503)] * TRIES, TransientError),
    "404": ([Status(404)], RegistryError),
    "breaks off, then well": ([Truncate(300_000)], None),
    "breaks off to the last": ([Truncate(300_000)] * TRIES, TransientError),
    "500, then breaks off": ([Status(500), Truncate(0)], TransientError),
    "shorter than it says": ([Truncate(300_000, announced=True)], VerificationError),
    "nothing at all": ([Truncate(0, announced=True)], VerificationError),
    "corrupted": ([Corrupt()], VerificationError),
}


@pytest.mark.sampled(4)
@WAYS
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_registry_fails_one_pull_at_most(
    registry: InProcessRegistry, place: Callable[..., Place], way: Way, fault: str
) -> None:
    """KM-HANDOFF: the one that met it; the next in the queue takes over and all others succeed."""
    injected, error = FAULTS[fault]
    at = place(way)
    if way is Way.NONE:
        # There, tries of several pulls mix, and so may the faults; one pull then meets them all.
        registry.inject(BLOB, *injected)
        errors, results = at.crowd(pulls=1)
        assert [type(e) for e in errors] == ([] if error is None else [error])
        errors, results = at.crowd(pulls=3)
        assert (errors, results) == ([], [WHOLE] * 3)
        return
    registry.inject(BLOB, *injected)
    errors, results = at.crowd()
    if way is Way.FAIL_FAST and error is TransientError:
        # Between two tries of one pull the ref is free, so another may take the second fault and get over it.
        assert len(errors) <= 1
    else:
        assert len(errors) == (error is not None)
    assert all(type(e) is error for e in errors)
    assert results == [WHOLE] * (3 - len(errors))
    if way is Way.SUPPRESS:
        assert at.puller.counts.fetches[BLOB] == len(injected) + 1
        assert registry.requests_per_blob("demo")[BLOB] == len(injected) + 1


@pytest.mark.parametrize("document", [IMAGE.manifest_digest, next(iter(IMAGE.blobs))], ids=["manifest", "config"])
@pytest.mark.parametrize("fault", [Status(404), Corrupt(), Truncate(5, announced=True)])
def test_documents_are_verified_as_layers_are(
    registry: InProcessRegistry, place: Callable[..., Place], document: str, fault: Fault
) -> None:
    registry.inject(document, fault)
    errors, results = place().crowd(f"blob://{document}")
    assert [isinstance(e, RegistryError | VerificationError) for e in errors] == [True]
    assert results == [WHOLE] * 2


def test_without_a_digest_check_the_same_look_finds_it(
    registry: InProcessRegistry, place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin of "corrupted": nothing is verified. The layer is then no good tar file or has another diff ID; what
    is looked for is the blob in the store."""
    monkeypatch.setattr(Writer, "_verify", lambda self, digest, size: None)
    at = place()
    registry.inject(BLOB, Corrupt())
    with pytest.raises(AssertionError):
        at.crowd()


def test_a_body_that_does_not_end_is_cut_off(registry: InProcessRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more is taken than the descriptor says; a client without the bound takes all of it."""
    wanted = Descriptor(LAYER, BLOB, 10_000)

    def taken() -> int:
        size = 0
        with RegistryClient(registry.url).stream("demo", wanted) as chunks:
            for chunk in chunks:
                size += len(chunk)
        return size

    with pytest.raises(MalformedError):
        taken()
    monkeypatch.setattr(registry_client, "_at_most", lambda most, answer: answer.stream(1 << 18))
    assert taken() == len(IMAGE.blobs[BLOB])


def test_a_registry_that_is_not_there(tmp_path: Path) -> None:
    """The port was free a moment ago."""
    with InProcessRegistry() as gone:
        url = gone.url
    at = Place(tmp_path, url)
    with pytest.raises(TransientError):
        at.puller.pull("demo:latest")
    at.puller.close()
    assert len(at.locker) == 0


# The leader is lost in the middle.


class Ambush:
    """Raises once, when a piece of work has come so far. From then on it lets all pass."""

    def __init__(self, work: str, digest: str, error: BaseException) -> None:
        self._place = (work, digest)
        self._error: BaseException | None = error
        self._guard = threading.Lock()

    def __call__(self, progress: Progress) -> None:
        with self._guard:
            if progress[:2] == self._place and progress.done > 0 and self._error is not None:
                error, self._error = self._error, None
                raise error


@WAYS
@pytest.mark.parametrize("work", ["fetch", "unpack"])
@pytest.mark.parametrize(
    "error", [Killed(), KeyboardInterrupt(), RuntimeError()], ids=lambda error: type(error).__name__
)
def test_a_leader_that_dies_fails_alone(place: Callable[..., Place], way: Way, work: str, error: BaseException) -> None:
    """KM-INTERRUPT, KM-HANDOFF: in mid-fetch or mid-unpack, by whatever it is."""
    errors, results = place(way, Ambush(work, BLOB, error)).crowd()
    assert errors == [error]
    assert results == [WHOLE] * 2


@WAYS
def test_a_stopped_leader_fails_alone(registry: InProcessRegistry, place: Callable[..., Place], way: Way) -> None:
    """KM-CANCEL: stopped in mid-fetch. What it fetched is not used; the next fetches anew."""
    at = place(way)
    stall = Stall(600_000)
    registry.inject(BLOB, stall)
    stop = Stop()
    with ThreadPoolExecutor(2) as pool:
        leader = pool.submit(at.puller.pull, "demo:latest", stop=stop)
        assert stall.reached.wait(DEADLINE)
        next_one = pool.submit(at.puller.pull, "demo:latest")
        if way is Way.SUPPRESS:
            until(lambda: len(waiters(at.locker, KEY)) == 1)
        stop.set()
        stall.go.set()
        assert isinstance(leader.exception(DEADLINE), StoppedError)
        assert next_one.result(DEADLINE) == WHOLE
    assert at.puller.counts.fetches[BLOB] == 2
    check_sound(at.root, TREES)
    assert len(at.locker) == 0


def test_a_stopped_or_late_waiter_leaves_the_others_alone(
    registry: InProcessRegistry, place: Callable[..., Place]
) -> None:
    """KM-CANCEL: one waits for the key until its deadline, one is stopped in its wait; the others go on."""
    at = place()
    stall = Stall(600_000)
    registry.inject(BLOB, stall)
    with ThreadPoolExecutor(4) as pool:
        leader = pool.submit(at.puller.pull, "demo:latest")
        assert stall.reached.wait(DEADLINE)
        stop = Stop()
        stopped = pool.submit(at.puller.pull, "demo:latest", stop=stop)
        last = pool.submit(at.puller.pull, "demo:latest")
        until(lambda: len(waiters(at.locker, KEY)) == 2)
        late = pool.submit(at.puller.pull, "demo:latest", stop=Stop(timeout=0.2))
        assert isinstance(late.exception(DEADLINE), TimeoutError)
        stop.set()
        stall.go.set()
        assert isinstance(stopped.exception(DEADLINE), StoppedError)
        assert leader.result(DEADLINE) == last.result(DEADLINE) == WHOLE
    assert at.puller.counts.fetches[BLOB] == 1
    check_sound(at.root, TREES)
    assert len(at.locker) == 0


def test_a_stopped_pull_makes_no_request(registry: InProcessRegistry, place: Callable[..., Place]) -> None:
    stop = Stop()
    stop.set()
    at = place()
    with pytest.raises(StoppedError):
        at.puller.pull("demo:latest", stop=stop)
    assert not registry.requests_per_blob("demo")
    assert at.puller.counts.fetches.total() == 0


PROCESS = """
import sys
from pathlib import Path
from kmutex import KeyedMutex
from puller import Puller
with Puller(Path(sys.argv[1]), sys.argv[2], locker=KeyedMutex()) as puller:
    puller.pull("demo:latest")
"""


def kill_in_mid_fetch(registry: InProcessRegistry, root: Path) -> None:
    """A process of its own, killed when its ingest file has bytes."""
    stall = Stall(600_000)
    registry.inject(BLOB, stall)
    path = os.pathsep.join([str(ROOT), str(ROOT / "examples/pull")])
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(root), registry.url], env=os.environ | {"PYTHONPATH": path}
    )
    try:
        assert stall.reached.wait(DEADLINE)
        ingest = root / "content/ingest" / digest_of(BLOB.encode()).removeprefix("sha256:")
        until(lambda: ingest.exists() and ingest.stat().st_size > 0)
        with pytest.raises(RootInUseError):
            Place(root, registry.url)
    finally:
        process.kill()
        assert process.wait(DEADLINE) == -signal.SIGKILL
    stall.go.set()
    assert ingest.stat().st_size < len(IMAGE.blobs[BLOB])


def test_a_killed_process_leaves_nothing_that_counts(registry: InProcessRegistry, tmp_path: Path) -> None:
    """kill -9 in mid-fetch: the root is free again, the half blob is never seen, and the next start removes it."""
    kill_in_mid_fetch(registry, tmp_path)
    at = Place(tmp_path, registry.url)
    check_sound(tmp_path, {})
    assert at.puller.content.info(BLOB) is None
    assert at.crowd() == ([], [WHOLE] * 3)
    at.puller.close()


def test_a_start_that_cleans_nothing_is_caught(
    registry: InProcessRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: the same look finds the ingest file."""
    kill_in_mid_fetch(registry, tmp_path)
    start = ContentStore.__init__

    def careless(self: ContentStore, root: Path, metadata: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
            start(self, root, metadata)

    monkeypatch.setattr(ContentStore, "__init__", careless)
    at = Place(tmp_path, registry.url)
    with pytest.raises(AssertionError):
        check_sound(tmp_path, {})
    at.puller.close()


# The disk is full.


@WAYS
def test_a_disk_that_is_full_in_a_fetch(place: Callable[..., Place], way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own ENOSPC, from /dev/full, for one ingest of the layer; the next finds room."""
    at = place(way)
    guard = threading.Lock()
    full = [True]
    begin = ContentStore.writer

    def writer(self: ContentStore, ref: str, expected: str | None = None) -> Writer:
        with guard:
            if ref.startswith(BLOB) and full:
                full.clear()
                with monkeypatch.context() as patch:
                    patch.setattr(store, "open_ingest", open_full)
                    return begin(self, ref, expected)
            return begin(self, ref, expected)

    def open_full(path: Path) -> BinaryIO:
        path.touch()
        return open("/dev/full", "wb")

    monkeypatch.setattr(ContentStore, "writer", writer)
    errors, results = at.crowd()
    assert [getattr(e, "errno", None) for e in errors] == [errno.ENOSPC]
    assert results == [WHOLE] * 2


@WAYS
def test_a_disk_that_is_full_in_an_unpack(
    place: Callable[..., Place], way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a file is written when it happens."""
    at = place(way)
    guard = threading.Lock()
    full = [True]
    copy = tarfile.copyfileobj  # type: ignore[attr-defined]

    def copyfileobj(source: Any, target: Any, length: int, *more: Any) -> None:
        with guard:
            now, full[:] = bool(full) and length == len(noise(1)) and b"base" in os.fsencode(target.name), full
            if now:
                full.clear()
        if now:
            target.write(source.read(length // 2))
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        copy(source, target, length, *more)

    monkeypatch.setattr(tarfile, "copyfileobj", copyfileobj)
    errors, results = at.crowd()
    assert [getattr(e, "errno", None) for e in errors] == [errno.ENOSPC]
    assert results == [WHOLE] * 2


# The image is malicious. It fails each of its own pulls, and nobody else's.


def bad_images(outside: Path) -> dict[str, tuple[Any, type[PullError]]]:
    up = "../" * 3 + outside.name
    return {
        "absolute path": (image([tar(file(str(outside / "new"), b"evil"))]), UnsafeLayerError),
        "path with ..": (image([tar(file(f"{up}/new", b"evil"))]), UnsafeLayerError),
        "link out": (image([tar(symlink("link", up), file("link/new", b"evil"))]), UnsafeLayerError),
        "absolute link": (image([tar(symlink("link", str(outside)))]), UnsafeLayerError),
        "hard link out": (image([tar(hardlink("link", f"{up}/secret"))]), UnsafeLayerError),
        "second layer": (image([TARS[0], tar(file(f"{up}/new", b"evil"))]), UnsafeLayerError),
        "claims another layer's diff ID": (
            image([tar(file("evil", b"evil"))], diff_ids=[digest_of(TARS[0])]),
            VerificationError,
        ),
        "no tar": (image([b"no tar" * 1000]), MalformedError),
        "fewer diff IDs": (image(TARS, diff_ids=[digest_of(TARS[0])]), MalformedError),
        "unknown layers": (image([tar(file("a", b"a"))], layer_type="application/x-evil"), UnsupportedError),
    }


BAD = sorted(bad_images(Path("/outside")))


@pytest.mark.sampled(4)
@WAYS
@pytest.mark.parametrize("name", BAD)
def test_a_malicious_image_fails_and_the_others_do_not(
    registry: InProcessRegistry, place: Callable[..., Place], tmp_path: Path, way: Way, name: str
) -> None:
    """Alone it fails. Then three pull it, and three a good one that in part claims the same chain."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    bad, error = bad_images(outside)[name]
    registry.push(bad, "evil")
    alone = place(way)
    with pytest.raises(error):
        alone.puller.pull("evil:latest")
    check_sound(alone.root, TREES)
    assert len(alone.locker) == 0
    at = place(way)
    with ThreadPoolExecutor(7) as pool:
        evil = [pool.submit(at.puller.pull, "evil:latest") for _ in range(3)]
        good = [pool.submit(at.puller.pull, "demo:latest") for _ in range(3)]
        other = pool.submit(at.puller.pull, "other:latest")
    assert other.exception() is None
    assert outcomes(good) == ([], [WHOLE] * 3)
    errors, results = outcomes(evil)
    assert all(isinstance(each, error) for each in errors)
    # Where the chain that it claims is there already, the true one, it gets that and its own is not looked at.
    assert all(pulled.chain_ids == CHAIN[:1] for pulled in results)
    at.check()
    assert {path.name for path in outside.iterdir()} == {"secret"}
    assert (outside / "secret").stat().st_nlink == 1


def test_without_a_diff_id_check_the_same_look_finds_it(
    registry: InProcessRegistry, place: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: a layer that claims another's diff ID takes its place, and whoever pulls the good image gets it."""
    monkeypatch.setattr(layers, "_verify", lambda diff_id, found: None)
    bad, _ = bad_images(tmp_path)["claims another layer's diff ID"]
    registry.push(bad, "evil")
    at = place()
    at.puller.pull("evil:latest")
    with pytest.raises(AssertionError):
        check_sound(at.root, TREES)


def test_with_plain_extraction_the_same_look_finds_it(
    registry: InProcessRegistry, place: Callable[..., Place], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The twin: tarfile without a filter writes outside of the root."""

    def naive(blob: Path, media_type: str, diff_id: str, root: Path, step: object) -> None:
        with tarfile.open(blob) as archive:
            archive.extractall(root, filter="fully_trusted")

    monkeypatch.setattr(puller_module, "apply_layer", naive)
    outside = tmp_path / "outside"
    outside.mkdir()
    bad, _ = bad_images(outside)["path with .."]
    registry.push(bad, "evil")
    place().puller.pull("evil:latest")
    assert {path.name for path in outside.iterdir()} == {"new"}


def test_a_manifest_of_another_digest_is_not_believed(registry: InProcessRegistry, place: Callable[..., Place]) -> None:
    """Pulled by digest, and the registry serves something else under it."""
    at = place()
    wanted = digest_of(b"something else")
    registry.put_manifest("demo", wanted, MANIFEST, IMAGE.manifest)
    with pytest.raises(VerificationError):
        at.puller.pull(f"demo@{wanted}")
    check_sound(at.root, {})


# The looks themselves.


def test_a_key_that_stays_locked_is_caught(place: Callable[..., Place]) -> None:
    """The twin of the map that is empty at the end: a locker that never evicts."""

    class Keeps(KeyedMutex):
        def __len__(self) -> int:
            return super().__len__() + 1

    at = place()
    at.locker = Keeps()
    at.puller._locker = at.locker
    with pytest.raises(AssertionError):
        at.crowd()


def test_a_failure_that_spreads_is_caught(place: Callable[..., Place], monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin of taking over: whoever waited gets the leader's failure, as from a single flight."""
    failures: dict[object, BaseException] = {}

    def single_flight(locker: Any, key: object, look: Any, do: Any, *, timeout: float | None = None) -> Any:
        with locker.hold(key, timeout):
            if key in failures:
                raise failures[key]
            found = look()
            if found is not None:
                return found
            try:
                return do()
            except BaseException as error:
                failures[key] = error
                raise

    monkeypatch.setattr(puller_module, "once", single_flight)
    error = Killed()
    errors, _ = place(Way.SUPPRESS, Ambush("fetch", BLOB, error)).crowd()
    assert len(errors) == 3
