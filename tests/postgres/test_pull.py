"""examples/pull in several processes: one root, and locks in the database."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from errors import RootInUseError
from kmutex import KeyedMutex
from kmutex.postgres import PostgresKeyedMutex
from metadata import Metadata
from puller import Puller
from registry import InProcessRegistry, Stall
from tests.postgres.shared import ROOT, server
from tests.pull.made import CHAIN, IMAGE, TREES
from tests.pull.soundness import check_sound

server()
PROCESSES = 3
PATIENCE = 60.0


@pytest.fixture
def registry() -> Iterator[InProcessRegistry]:
    with InProcessRegistry() as serving:
        serving.push(IMAGE)
        yield serving


def start(registry: InProcessRegistry, root: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "examples/pull", "demo:latest", "--registry", registry.url, "--root", str(root)]
    return subprocess.Popen(
        [*command, "--times", "5", "--postgres", server().conninfo],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def locks(root: Path) -> PostgresKeyedMutex:
    return PostgresKeyedMutex(server().conninfo, space=f"pull {root.resolve()}")


def test_processes_share_the_work(registry: InProcessRegistry, tmp_path: Path) -> None:
    """KM-EXCL: many pulls in each process, and each blob crosses the wire once."""
    pulls = [start(registry, tmp_path) for _ in range(PROCESSES)]
    for pull in pulls:
        said, _ = pull.communicate(timeout=PATIENCE)
        assert pull.returncode == 0, said
        assert said.count("demo:latest: ") == 5
    assert set(registry.requests_per_blob("demo").values()) == {1}
    check_sound(tmp_path, TREES)
    with locks(tmp_path) as mutex:
        assert not mutex.snapshot()


def test_a_killed_process_is_followed(registry: InProcessRegistry, tmp_path: Path) -> None:
    """KM-LIVE: kill -9 of the one that fetches; another takes over, and the next start alone removes the rest."""
    stall = Stall(after=10)
    registry.inject(IMAGE.layers[0], stall)
    first = start(registry, tmp_path)
    assert stall.reached.wait(PATIENCE)
    second = start(registry, tmp_path)
    with locks(tmp_path) as mutex:
        key = f"blob://{IMAGE.layers[0]}"
        end = time.monotonic() + PATIENCE
        while len(mutex.snapshot()[key].waiters) < 9:
            assert second.poll() is None
            assert time.monotonic() < end, "the waiters never came"
        first.send_signal(signal.SIGKILL)
        first.communicate(timeout=PATIENCE)
        said, _ = second.communicate(timeout=PATIENCE)
        assert second.returncode == 0, said
        assert not mutex.snapshot()
    assert registry.requests_per_blob("demo")[IMAGE.layers[0]] == 2
    # Alone in the root: it cleans up.
    Puller(tmp_path, registry.url, locker=KeyedMutex(), shared=True).close()
    check_sound(tmp_path, TREES)


def test_lockers_that_are_not_one_do_the_work_twice(registry: InProcessRegistry, tmp_path: Path) -> None:
    """The careless twin: a shared root with a locker of one process in each. Still nothing is broken by it."""
    stall = Stall(after=10)
    registry.inject(IMAGE.layers[0], stall)
    with (
        Puller(tmp_path, registry.url, locker=KeyedMutex(), shared=True) as one,
        Puller(tmp_path, registry.url, locker=KeyedMutex(), shared=True) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        first = pool.submit(one.pull, "demo:latest")
        assert stall.reached.wait(PATIENCE)
        assert other.pull("demo:latest").chain_ids == CHAIN
        stall.go.set()
        assert first.result(PATIENCE).chain_ids == CHAIN
    assert registry.requests_per_blob("demo")[IMAGE.layers[0]] == 2
    check_sound(tmp_path, TREES)


def test_who_does_not_share_is_alone(tmp_path: Path) -> None:
    """One that shares and one that does not never work in one root, whoever came first."""
    shared = Metadata(tmp_path, shared=True)
    shared.settle()
    with pytest.raises(RootInUseError):
        Metadata(tmp_path)
    second = Metadata(tmp_path, shared=True)
    assert not second.alone
    second.settle()
    second.close()
    shared.close()
    lone = Metadata(tmp_path)
    assert lone.alone
    with pytest.raises(RootInUseError):
        Metadata(tmp_path, shared=True)
    lone.close()
