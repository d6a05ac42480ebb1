"""The benchmark: what it counts, what it calls met, how it draws, how it ends. No test here asserts on a time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import figures
import image
import picture
import registry
import slow_link
from span import Span

ROOT = Path(__file__).resolve().parents[2]
RUN = ROOT / "benchmarks" / "pull" / "run.py"
SMALL = ["--bytes", str(image.TINY_BYTES), "--rounds", "1"]
WAYS = ("suppress", "fail-fast", "none")


def sample(way: str, at_once: int, round: int, seconds: float, count: int = 1) -> figures.Sample:  # noqa: A002
    return figures.Sample(way, at_once, round, seconds, {"a": count, "b": count}, {"x": count}, count - 1, 0)


GOOD = [
    sample("suppress", 1, 1, 2.0),
    sample("suppress", 20, 1, 2.1),
    sample("suppress", 1, 2, 4.0),
    sample("suppress", 20, 2, 4.3),
    sample("none", 1, 1, 2.0),
    sample("none", 20, 1, 30.0, count=20),
]


def test_ratios_are_taken_within_a_round_and_way() -> None:
    row = {(row.way, row.at_once): row for row in figures.rows(GOOD)}
    twenty = row["suppress", 20]
    assert twenty.rounds == 2
    assert (twenty.ratio.least, twenty.ratio.most) == (2.1 / 2.0, 4.3 / 4.0)
    assert twenty.ratio.median == pytest.approx((2.1 / 2.0 + 4.3 / 4.0) / 2)
    assert row["none", 20].ratio == Span(15.0, 15.0, 15.0)
    assert row["none", 20].requests == Span(20, 20, 20)
    assert row["none", 20].failed_commits == Span(19, 19, 19)
    assert row["suppress", 1].ratio == Span(1.0, 1.0, 1.0)


def test_a_round_without_its_one_pull_is_an_error_not_a_figure() -> None:
    with pytest.raises(ValueError, match=r"no single pull of 'suppress' in rounds \[1\]"):
        list(figures.rows([one for one in GOOD if one is not GOOD[0]]))
    with pytest.raises(ValueError, match="no figures"):
        Span.of([])


def test_the_span_of_counts_is_over_all_blobs_and_rounds() -> None:
    odd = replace(GOOD[3], requests={"a": 0, "b": 7}, unpacks={"x": 3})
    row = {(row.way, row.at_once): row for row in figures.rows([*GOOD[:3], odd])}["suppress", 20]
    assert row.requests == Span(0, 1, 7)
    assert row.unpacks == Span(1, 2, 3)


def test_the_goal_is_met_by_what_meets_it() -> None:
    found = figures.goal(GOOD)
    assert (found.once, found.contended, found.fast) == (True, True, True)


@pytest.mark.parametrize(
    "bad",
    [
        replace(GOOD[1], requests={"a": 1, "b": 2}),
        replace(GOOD[1], requests={"a": 1, "b": 0}),
        replace(GOOD[1], unpacks={"x": 2}),
        replace(GOOD[1], unpacks={"x": 0}),
    ],
    ids=["asked twice", "never asked", "unpacked twice", "never unpacked"],
)
def test_one_wrong_count_in_one_sample_misses_the_goal(bad: figures.Sample) -> None:
    assert not figures.goal([bad if one is GOOD[1] else one for one in GOOD]).once


def test_the_goal_is_not_met_by_nothing_and_not_tested_without_contention() -> None:
    assert not figures.goal([]).once
    assert not figures.goal(GOOD[4:]).once
    assert not figures.goal(GOOD[:5]).contended
    assert figures.goal(GOOD[:1]).fast is None


def test_a_slow_twenty_misses_the_ratio() -> None:
    slow = [replace(one, seconds=one.seconds * 2) if one.at_once == 20 else one for one in GOOD]
    assert figures.goal(slow).fast is False


BARS = [
    picture.Bar("few", "one <way>", 1.0, "1.00"),
    picture.Bar("few", "other", 4.0, "4.00"),
    picture.Bar("many", "one <way>", 2.0, "2.00"),
    picture.Bar("many", "other", 8.0, "8.00 & more"),
]


def test_bars_of_text_are_in_proportion() -> None:
    lines = list(picture.text_bars(BARS, width=32))
    assert [line for line in lines if not line.startswith(" ")] == ["few", "many"]
    assert [line.count("█") for line in lines if line.startswith(" ")] == [4, 16, 8, 32]
    assert [line.split()[-1] for line in lines[1:3]] == ["1.00", "4.00"]


@pytest.mark.parametrize("bars", [[], [picture.Bar("none", "zero", 0.0, "0")]])
def test_nothing_to_draw_is_drawn(bars: Sequence[picture.Bar]) -> None:
    assert "█" not in "".join(picture.text_bars(bars))


@pytest.fixture
def served() -> Iterator[registry.InProcessRegistry]:
    with registry.InProcessRegistry() as stand_in:
        stand_in.push(TINY)
        yield stand_in


TINY = image.build(image.TINY_BYTES)
BLOB = TINY.layers[0].digest


def test_bytes_come_whole_through_the_slow_link_from_many_at_once_and_its_process_ends(
    served: registry.InProcessRegistry,
) -> None:
    got: list[bytes] = []
    with slow_link.SlowLink(served.url, bytes_per_second=5_000_000, latency=0.001) as link:
        assert link._process is not None
        pid = link._process.pid

        def fetch() -> None:
            with urllib.request.urlopen(f"{link.url}/v2/demo/blobs/{BLOB}", timeout=30) as response:
                got.append(response.read())

        threads = [threading.Thread(target=fetch) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert got == [TINY.blobs[BLOB]] * 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_breaks_at_one_end_of_the_link_breaks_at_the_other(served: registry.InProcessRegistry) -> None:
    stall = registry.Stall(after=1)
    served.inject(BLOB, stall)
    with slow_link.SlowLink(served.url) as link:
        response = urllib.request.urlopen(f"{link.url}/v2/demo/blobs/{BLOB}", timeout=30)
        assert stall.reached.wait(30)
        served.stop()
        with closing(response), pytest.raises(Exception, match=r"IncompleteRead|reset"):
            response.read()
        with pytest.raises(OSError, match=r"reset|closed|refused"):
            urllib.request.urlopen(f"{link.url}/v2/", timeout=30)


def paced(monkeypatch: pytest.MonkeyPatch, chunks: Sequence[int], rate: float, latency: float) -> tuple[float, int]:
    """Seconds that a pump of these chunks sleeps, by a clock that only sleeping moves, and the bytes that came."""

    async def pump() -> tuple[float, int]:
        loop = asyncio.get_running_loop()
        clock = 100.0
        monkeypatch.setattr(loop, "time", lambda: clock)

        async def sleep(seconds: float) -> None:
            nonlocal clock
            clock += seconds

        monkeypatch.setattr(asyncio, "sleep", sleep)
        sender, source = socket.socketpair()
        target, receiver = socket.socketpair()
        came = 0
        with sender, source, target, receiver:
            for end in (sender, source, target, receiver):
                end.setblocking(False)
            pumping = asyncio.ensure_future(slow_link._pump(source, target, rate, latency))
            for chunk in chunks:
                await loop.sock_sendall(sender, bytes(chunk))
                arrived = 0
                while arrived < chunk:
                    arrived += len(await loop.sock_recv(receiver, chunk))
                came += arrived
            sender.close()
            await pumping
            assert await loop.sock_recv(receiver, 1) == b""
        return clock - 100.0, came

    return asyncio.run(pump())


def test_the_rate_holds_over_many_small_chunks_and_without_one_nothing_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = [1_000] * 50
    slept, came = paced(monkeypatch, chunks, 1_000_000, 0)
    assert came == sum(chunks)
    # What is left over for a sleep that never came is less than the shortest.
    assert came / 1_000_000 - slow_link._SHORTEST_SLEEP <= slept <= came / 1_000_000 + 1e-9
    assert paced(monkeypatch, chunks, 0, 0) == (0.0, came)
    assert paced(monkeypatch, [1, 1, 1], 0, 0.25)[0] == 0.75


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """Where the benchmark keeps its stores: in memory if there is such a folder, for every blob is synced to it."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


def benchmark(
    *arguments: str, program: Sequence[str] = (str(RUN),), **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *program, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_whole_benchmark_on_the_stand_in(tmp_path: Path, temporary: Path) -> None:
    files = ["--json", str(tmp_path / "figures.json")]
    done = benchmark("--in-process", *SMALL, "--at-once", "4", *files, TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert "in-process stand-in, not a real registry" in done.stdout
    assert "one GET per blob and one unpack per chain id: met" in done.stdout
    assert "…" not in done.stdout
    assert len([line for line in done.stdout.splitlines() if line.startswith("│")]) == 2 * len(WAYS)  # None is wrapped.
    document = json.loads((tmp_path / "figures.json").read_text())
    assert [(row["way"], row["at_once"]) for row in document["rows"]] == [(way, n) for n in (1, 4) for way in WAYS]
    counted = {(one["way"], one["at_once"]): one for one in document["samples"]}
    for (way, at_once), one in counted.items():
        expected = at_once if way == "none" else 1
        assert set(one["requests"]) == set(TINY.blobs)
        assert set(one["requests"].values()) == {expected}, (way, at_once)
        assert set(one["unpacks"]) == set(TINY.chain_ids)
        if way != "fail-fast":
            assert set(one["unpacks"].values()) == {expected}, (way, at_once)
            assert one["failed_commits"] == (expected - 1) * len(TINY.layers)
    assert list(temporary.iterdir()) == []


@pytest.mark.registry
def test_the_whole_benchmark_on_the_real_registry(temporary: Path) -> None:
    done = benchmark(*SMALL, "--at-once", "3", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert "Registry: Debian's docker-registry" in done.stdout
    assert list(temporary.iterdir()) == []


def test_suppression_that_does_not_suppress_exits_1(temporary: Path) -> None:
    broken = (
        "import run, sys\n"
        "puller = run.Puller\n"
        "run.Puller = lambda root, url, locker, way: puller(root, url, locker=locker, way=run.Way.NONE)\n"
        "sys.exit(run.main())\n"
    )
    path = os.pathsep.join([str(ROOT), str(RUN.parent), str(RUN.parents[1])])
    done = benchmark(
        "--in-process", *SMALL, "--at-once", "3", program=("-c", broken), PYTHONPATH=path, TMPDIR=str(temporary)
    )
    assert done.returncode == 1, done.stderr
    assert "one GET per blob and one unpack per chain id: NOT MET" in done.stdout


def test_a_single_pull_puts_nothing_to_the_test_and_exits_2(temporary: Path) -> None:
    done = benchmark("--in-process", *SMALL, "--at-once", "1", TMPDIR=str(temporary))
    assert done.returncode == 2, done.stderr
    assert "not put to the test" in done.stdout


def test_a_pull_that_fails_exits_3_and_says_why(temporary: Path) -> None:
    broken = (
        "import run, registry, sys\n"
        "enter = registry.InProcessRegistry.__enter__\n"
        "def failing(self):\n"
        "    self.inject(run.build(run.parse(None).bytes).layers[0].digest, registry.Status(404))\n"
        "    return enter(self)\n"
        "registry.InProcessRegistry.__enter__ = failing\n"
        "sys.exit(run.main())\n"
    )
    path = os.pathsep.join([str(ROOT), str(RUN.parent), str(RUN.parents[1])])
    done = benchmark("--in-process", *SMALL, program=("-c", broken), PYTHONPATH=path, TMPDIR=str(temporary))
    assert done.returncode == 3, done.stdout
    assert "pulls of bench/" in done.stderr
    assert "404" in done.stderr


def test_without_the_registry_it_says_how_to_install_it_and_exits_3(tmp_path: Path) -> None:
    done = benchmark(*SMALL, PATH=str(tmp_path))
    assert done.returncode == 3
    assert "apt-get install docker-registry" in done.stderr
    assert "--in-process" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("wrong", [["--rounds", "0"], ["--at-once", "none"], ["--what"]])
def test_wrong_arguments_exit_4(wrong: list[str]) -> None:
    done = benchmark(*wrong)
    assert done.returncode == 4
    assert "usage:" in done.stderr


@pytest.mark.registry
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_middle_leaves_no_process_and_no_file(temporary: Path, sent: signal.Signals) -> None:
    # So slow that the first pull takes longer than the test may.
    process = subprocess.Popen(
        [sys.executable, str(RUN), "--rate", "1000", *SMALL],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    # Registry and link run, and a fetch has begun.
    while not list(temporary.glob("kmutex-pull-*/content/ingest/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(children) == 2
    process.send_signal(sent)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + sent, errors
    assert b"Traceback" not in errors
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
    assert list(temporary.iterdir()) == []
