"""Pulls that go well: documents, the three ways to share work, and the command."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from documents import reference
from errors import MalformedError, RegistryError, UnsupportedError
from kmutex import KeyedMutex, NoopLocker
from puller import Progress, Puller, Way
from registry import InProcessRegistry, Stall
from tests.driver import DEADLINE, until, waiters
from tests.pull.made import (
    DOCKER_LAYER,
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX,
    LAYER,
    MANIFEST,
    Made,
    chain_ids,
    file,
    folder,
    image,
    index,
    noise,
    tar,
)
from tests.pull.soundness import check_sound

ROOT = Path(__file__).resolve().parents[2]
TARS = [
    tar(folder("bin"), file("bin/sh", b"sh", 0o755), file("base", noise(1))),
    tar(file("bin/.wh.sh"), file("bin/tool", b"tool", 0o755)),
    tar(file("base", b"another")),
]
CHAIN = chain_ids(TARS)
BASE: dict[str, object] = {"bin": None, "base": (noise(1), False)}
TREES: dict[str, dict[str, object]] = {
    CHAIN[0]: BASE | {"bin/sh": (b"sh", True)},
    CHAIN[1]: BASE | {"bin/tool": (b"tool", True)},
    CHAIN[2]: BASE | {"bin/tool": (b"tool", True), "base": (b"another", False)},
}
IMAGE = image(TARS)
WAYS = pytest.mark.parametrize("way", list(Way))


@pytest.fixture
def registry() -> Iterator[InProcessRegistry]:
    with InProcessRegistry() as serving:
        yield serving


@WAYS
def test_an_image_is_pulled(registry: InProcessRegistry, tmp_path: Path, way: Way) -> None:
    """Once: the way makes no difference. Again: nothing is fetched, but in the way that never looks."""
    ref = registry.push(IMAGE)
    locker = KeyedMutex()
    with Puller(tmp_path, registry.url, locker=locker, way=way) as puller:
        pulled = puller.pull(ref)
        assert pulled == (IMAGE.manifest_digest, CHAIN)
        assert puller.rootfs(pulled) == puller.snapshots.stat(CHAIN[-1]).path  # type: ignore[union-attr]
        once = puller.counts
        assert once.fetches == Counter([IMAGE.manifest_digest, *IMAGE.blobs])
        assert once.unpacks == Counter(CHAIN)
        assert not once.failed_commits
        assert puller.pull(f"demo@{IMAGE.manifest_digest}") == pulled
        if way is Way.NONE:
            assert puller.counts.unpacks == Counter(CHAIN * 2)
            assert puller.counts.failed_commits == Counter(CHAIN)
        else:
            assert puller.counts == once
    check_sound(tmp_path, TREES)
    assert len(locker) == 0


@pytest.mark.parametrize(
    ("manifest_type", "layer_type", "index_type"),
    [(MANIFEST, LAYER, INDEX), (DOCKER_MANIFEST, DOCKER_LAYER, DOCKER_LIST), (DOCKER_MANIFEST, LAYER, "")],
)
def test_types_of_oci_and_docker(
    registry: InProcessRegistry, tmp_path: Path, manifest_type: str, layer_type: str, index_type: str
) -> None:
    """With an index, the manifest for the platform is taken."""
    wanted = image(TARS, manifest_type=manifest_type, layer_type=layer_type)
    ref = registry.push(wanted, tag="amd64")
    if index_type:
        other = image([tar(file("other", b"other"))], manifest_type=manifest_type)
        registry.push(other, tag="arm64")
        ref = registry.push(index({"linux/arm64": other, "linux/amd64": wanted}, index_type))
    with Puller(tmp_path, registry.url, locker=KeyedMutex()) as puller:
        assert puller.pull(ref) == (wanted.manifest_digest, CHAIN)
    check_sound(tmp_path, TREES)


def test_a_platform_that_is_not_there(registry: InProcessRegistry, tmp_path: Path) -> None:
    registry.push(IMAGE, tag="amd64")
    ref = registry.push(index({"linux/amd64": IMAGE}))
    with (
        Puller(tmp_path, registry.url, locker=KeyedMutex(), platform="linux/riscv64") as puller,
        pytest.raises(UnsupportedError, match="riscv64"),
    ):
        puller.pull(ref)


def test_references() -> None:
    digest = IMAGE.manifest_digest
    assert reference("a/b-c/d:v1.0") == ("a/b-c/d", "v1.0")
    assert reference("a") == ("a", "latest")
    assert reference(f"a@{digest}") == ("a", digest)
    for bad in ("", "A", "a:b:c", "../a", "a/../b:t", "a b", "a:t?x=y", "/a", "a//b"):
        with pytest.raises(MalformedError):
            reference(bad)
    with pytest.raises(UnsupportedError):
        reference("a@sha256:../..")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b'{"layers": []}',
        b'{"layers": [1], "config": {}}',
        b'{"layers": [{"mediaType": "x", "digest": "sha256:x", "size": 1}], "config": {}}',
        b'{"layers": [{"mediaType": "x", "digest": "sha256:%s", "size": -1}], "config": {}}' % (b"0" * 64),
        b"[" * 100_000,
    ],
)
def test_a_manifest_that_is_none(registry: InProcessRegistry, tmp_path: Path, manifest: bytes) -> None:
    ref = registry.push(Made(manifest, {}))
    locker = KeyedMutex()
    with Puller(tmp_path, registry.url, locker=locker) as puller, pytest.raises((MalformedError, UnsupportedError)):
        puller.pull(ref)
    check_sound(tmp_path, {})
    assert len(locker) == 0


def test_what_the_registry_does_not_have(registry: InProcessRegistry, tmp_path: Path) -> None:
    """One request, and no second try."""
    with Puller(tmp_path, registry.url, locker=KeyedMutex()) as puller, pytest.raises(RegistryError, match="404"):
        puller.pull("demo:nothing")


# Many at once.

MANY = 6


def test_under_suppression_each_thing_is_done_once(registry: InProcessRegistry, tmp_path: Path) -> None:
    """KM-EXCL: the others wait for the key of a blob that one of them fetches, and find it afterwards."""
    ref = registry.push(IMAGE)
    locker = KeyedMutex()
    stall = Stall(500_000)
    registry.inject(IMAGE.layers[0], stall)
    with Puller(tmp_path, registry.url, locker=locker) as puller:
        with ThreadPoolExecutor(MANY) as pool:
            pulls = [pool.submit(puller.pull, ref) for _ in range(MANY)]
            assert stall.reached.wait(DEADLINE)
            until(lambda: len(waiters(locker, f"blob://{IMAGE.layers[0]}")) == MANY - 1)
            stall.go.set()
            assert {pull.result() for pull in pulls} == {(IMAGE.manifest_digest, CHAIN)}
        counts = puller.counts
    assert set(counts.fetches.values()) == {1}
    assert registry.requests_per_blob("demo") == Counter(list(IMAGE.blobs))
    assert counts.unpacks == Counter(CHAIN)
    assert not counts.failed_commits
    assert not counts.unavailable
    check_sound(tmp_path, TREES)
    assert len(locker) == 0


class Together:
    """Holds each unpack at its first step until MANY of them are at theirs."""

    def __init__(self) -> None:
        self._barrier = threading.Barrier(MANY, timeout=DEADLINE)
        self._seen = threading.local()

    def __call__(self, progress: Progress) -> None:
        if progress.work == "unpack":
            seen = self._seen.__dict__.setdefault("layers", set())
            if progress.digest not in seen:
                seen.add(progress.digest)
                self._barrier.wait()


@pytest.mark.parametrize(
    ("way", "locker"),
    [(Way.FAIL_FAST, KeyedMutex()), (Way.NONE, KeyedMutex()), (Way.SUPPRESS, NoopLocker())],
    ids=["fail-fast", "none", "suppress, with the no-op"],
)
def test_without_it_all_unpack_and_all_commits_but_one_fail(
    registry: InProcessRegistry, tmp_path: Path, way: Way, locker: KeyedMutex | NoopLocker
) -> None:
    """The failed commits are successes: a snapshot is there. With the no-op, suppression is the fail-fast way."""
    ref = registry.push(IMAGE)
    stall = Stall(500_000)
    registry.inject(IMAGE.layers[0], stall)
    with Puller(tmp_path, registry.url, locker=locker, way=way, watch=Together()) as puller:
        with ThreadPoolExecutor(MANY) as pool:
            pulls = [pool.submit(puller.pull, ref) for _ in range(MANY)]
            assert stall.reached.wait(DEADLINE)
            if way is Way.NONE:
                until(lambda: puller.counts.fetches[IMAGE.layers[0]] == MANY)
            else:
                until(lambda: puller.counts.unavailable[IMAGE.layers[0]] >= MANY - 1)
            stall.go.set()
            assert {pull.result() for pull in pulls} == {(IMAGE.manifest_digest, CHAIN)}
        counts = puller.counts
    assert set(counts.fetches.values()) == {MANY if way is Way.NONE else 1}
    assert counts.unpacks == Counter(CHAIN * MANY)
    assert counts.failed_commits == Counter(CHAIN * (MANY - 1))
    assert bool(counts.unavailable) == (way is not Way.NONE)
    check_sound(tmp_path, TREES)


# The command.


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "examples/pull", *arguments],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "COLUMNS": "200", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_the_command_pulls_and_says_what_it_did(registry: InProcessRegistry, tmp_path: Path) -> None:
    ref = registry.push(IMAGE)
    done = command(ref, "--times", "3", "--registry", registry.url, "--root", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for digest in (*IMAGE.blobs, *CHAIN):
        assert digest[7:19] in done.stdout
    assert registry.requests_per_blob("demo") == Counter(list(IMAGE.blobs))
    check_sound(tmp_path, TREES)


def test_the_command_fails_where_a_pull_does(registry: InProcessRegistry, tmp_path: Path) -> None:
    ref = registry.push(IMAGE)
    done = command(ref, "demo:nothing", "--registry", registry.url, "--root", str(tmp_path))
    assert done.returncode == 1
    assert "demo:nothing: RegistryError" in done.stdout
    assert command("--registry", registry.url, ref).returncode == 2
    check_sound(tmp_path, TREES)
