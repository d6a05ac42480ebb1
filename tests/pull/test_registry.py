"""The registries: what they serve, what they count, the faults they play, and that nothing of them is left."""

from __future__ import annotations

import http.client
import os
import stat
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import image
import registry

TINY = image.build(image.TINY_BYTES)
BASE = TINY.layers[0].digest
BOTH = [
    pytest.param(registry.DebianRegistry, marks=pytest.mark.registry, id="debian"),
    pytest.param(registry.InProcessRegistry, id="in-process"),
]


def get(url: str, path: str, accept: str = image.MANIFEST_TYPE) -> tuple[int, bytes]:
    request = urllib.request.Request(f"{url}/v2/{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.fixture
def stand_in() -> Iterator[registry.InProcessRegistry]:
    with registry.InProcessRegistry() as served:
        served.push(TINY)
        yield served


@pytest.mark.parametrize("kind", BOTH)
def test_what_was_pushed_is_served_and_the_log_counts_each_get(
    kind: type[registry.DebianRegistry | registry.InProcessRegistry],
) -> None:
    with kind() as served:
        assert served.push(TINY) == "demo:latest"
        assert served.push(TINY, "other/name", "v1", mount_from="demo") == "other/name:v1"
        for repository, reference in (("demo", "latest"), ("demo", TINY.manifest_digest), ("other/name", "v1")):
            assert get(served.url, f"{repository}/manifests/{reference}") == (200, TINY.manifest)
            assert get(served.url, f"{repository}/manifests/{reference}", accept="text/plain")[0] == 404
        for number, (digest, blob) in enumerate(TINY.blobs.items()):
            for _ in range(number):
                assert get(served.url, f"other/name/blobs/{digest}") == (200, blob)
        served.stop()
        wanted = {digest: number for number, digest in enumerate(TINY.blobs) if number}
        assert served.requests_per_blob("other/name") == wanted
        assert served.requests_per_blob("demo") == {}


@pytest.mark.parametrize("kind", BOTH)
def test_what_it_does_not_have_is_not_found_and_a_wrong_digest_is_refused(
    kind: type[registry.DebianRegistry | registry.InProcessRegistry],
) -> None:
    with kind() as served:
        assert get(served.url, f"demo/blobs/{BASE}")[0] == 404
        assert get(served.url, "demo/manifests/latest")[0] == 404
        wrong = image.Image(TINY.manifest, TINY.manifest_digest, BASE, (), (), {BASE: b"something else"})
        with pytest.raises(registry.RegistryFailedError, match="PUT"):
            served.push(wrong)


@pytest.mark.parametrize("kind", BOTH)
def test_a_head_is_no_get(kind: type[registry.DebianRegistry | registry.InProcessRegistry]) -> None:
    with kind() as served:
        served.push(TINY)
        with closing(http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)) as connection:
            connection.request("HEAD", f"/v2/demo/blobs/{BASE}")
            response = connection.getresponse()
            assert (response.status, response.getheader("Content-Length")) == (200, str(len(TINY.blobs[BASE])))
            assert response.read() == b""
        served.stop()
        assert served.requests_per_blob("demo") == {}


def test_only_whole_lines_of_gets_for_blobs_of_that_repository_count() -> None:
    line = f'127.0.0.1 - - [x] "GET /v2/demo/blobs/{BASE} HTTP/1.1" 200 12 "" "client"'
    others = [
        line.replace("GET", "HEAD"),
        line.replace("demo", "demo2"),
        line.replace("demo", "a/demo"),
        line.replace("blobs", "manifests"),
        line[: line.index(" 200")],
    ]
    assert registry.count_blob_requests([line, line.replace("200", "500")], "demo") == {BASE: 2}
    assert registry.count_blob_requests(others, "demo") == {}


def test_a_registry_that_is_not_installed_says_how_to_install_it() -> None:
    with pytest.raises(registry.RegistryMissingError, match="apt-get install docker-registry"), ExitStack() as stack:
        stack.enter_context(registry.DebianRegistry("docker-registry-that-is-not-here"))


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def program(folder: Path, lines: str) -> str:
    path = folder / "registry-program"
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_registry_that_ends_at_once_is_reported_with_its_words(tmp_path: Path, temporary: Path) -> None:
    broken = program(tmp_path, "echo its own words >&2; exit 7")
    with pytest.raises(registry.RegistryFailedError, match="its own words"), registry.DebianRegistry(broken):
        pass
    assert list(temporary.iterdir()) == []


def test_a_taken_port_is_tried_again_with_another_and_not_for_ever(tmp_path: Path, temporary: Path) -> None:
    tries = tmp_path / "tries"
    broken = program(tmp_path, f'grep addr: "$2" >> {tries}; echo "listen: bind: address already in use" >&2; exit 1')
    with pytest.raises(registry.RegistryFailedError, match="address already in use"), registry.DebianRegistry(broken):
        pass
    assert len(set(tries.read_text().splitlines())) > 1


@pytest.mark.registry
def test_the_real_registry_ignores_settings_from_outside_and_leaves_nothing(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGISTRY_HTTP_ADDR", "127.0.0.1:1")
    started: list[int] = []
    popen = subprocess.Popen

    def remembering(*args: object, **kwargs: object) -> object:
        process = popen(*args, **kwargs)  # type: ignore[call-overload]
        started.append(process.pid)
        return process

    monkeypatch.setattr("subprocess.Popen", remembering)

    def interrupted() -> None:
        with registry.DebianRegistry() as served:
            served.push(TINY)
            assert len(list(temporary.iterdir())) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert started
    assert list(temporary.iterdir()) == []
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_faults_come_once_each_in_their_order_and_then_no_more(stand_in: registry.InProcessRegistry) -> None:
    blob = TINY.blobs[BASE]
    stand_in.inject(
        BASE,
        registry.Status(500),
        registry.Status(503),
        registry.Corrupt(),
        registry.Truncate(keep=10, announced=True),
        registry.Truncate(keep=10),
    )
    path = f"demo/blobs/{BASE}"
    assert [get(stand_in.url, path)[0] for _ in range(2)] == [500, 503]
    status, corrupted = get(stand_in.url, path)
    assert (status, len(corrupted), corrupted[:-1]) == (200, len(blob), blob[:-1])
    assert corrupted != blob
    assert get(stand_in.url, path) == (200, blob[:10])
    with pytest.raises(http.client.IncompleteRead) as cut:
        get(stand_in.url, path)
    assert cut.value.partial == blob[:10]
    assert get(stand_in.url, path) == (200, blob)
    assert stand_in.requests_per_blob("demo") == {BASE: 6}


def test_a_fault_of_one_target_leaves_the_others_alone(stand_in: registry.InProcessRegistry) -> None:
    stand_in.inject("latest", registry.Status(500))
    assert get(stand_in.url, f"demo/blobs/{BASE}")[0] == 200
    assert get(stand_in.url, "demo/manifests/latest")[0] == 500
    assert get(stand_in.url, "demo/manifests/latest") == (200, TINY.manifest)


def test_a_stalled_blob_goes_on_when_it_is_let_go(stand_in: registry.InProcessRegistry) -> None:
    stall = registry.Stall(after=5)
    stand_in.inject(BASE, stall)
    with urllib.request.urlopen(f"{stand_in.url}/v2/demo/blobs/{BASE}", timeout=30) as response:
        assert response.read(5) == TINY.blobs[BASE][:5]
        assert stall.reached.wait(30)
        assert get(stand_in.url, f"demo/blobs/{BASE}") == (200, TINY.blobs[BASE])
        stand_in.wait_for_requests("demo", BASE, 2)
        stall.go.set()
        assert response.read() == TINY.blobs[BASE][5:]


def test_waiting_for_a_request_that_does_not_come_ends(stand_in: registry.InProcessRegistry) -> None:
    with pytest.raises(TimeoutError, match="fewer than 1"):
        stand_in.wait_for_requests("demo", BASE, 1, seconds=0)


def test_stopping_ends_stalled_and_idle_connections_and_all_threads() -> None:
    before = set(threading.enumerate())
    with registry.InProcessRegistry() as served:
        served.push(TINY)
        stall = registry.Stall()
        served.inject(BASE, stall)
        idle = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
        idle.request("GET", "/v2/")
        assert idle.getresponse().read() == b"{}"
        stalled = urllib.request.urlopen(f"{served.url}/v2/demo/blobs/{BASE}", timeout=30)
        assert stall.reached.wait(30)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    with closing(stalled), pytest.raises((http.client.IncompleteRead, ConnectionError)):
        stalled.read()
    idle.close()


def test_an_error_inside_the_stand_in_is_not_lost() -> None:
    def provoke() -> None:
        with (
            registry.InProcessRegistry() as served,
            closing(http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)) as connection,
        ):
            connection.request("PUT", "/v2/demo/blobs/uploads/one", b"")  # It lacks the digest.
            with pytest.raises((http.client.HTTPException, ConnectionError)):
                connection.getresponse()

    with pytest.raises(registry.RegistryFailedError, match="in-process registry failed"):
        provoke()
