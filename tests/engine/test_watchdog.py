"""The clock of the watchdog: work and sleep count, waiting for a core does not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kmutex.engine.watchdog import Watchdog

AT_MOST = 120.0
"""Real seconds until a state that must come has come."""
SPINNING = "import os; os.sched_setaffinity(0, {%d})\nwhile True: pass"


@pytest.fixture
def crowd() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that compute and compute, all of them on one core."""
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this system does not say how long a thread was kept from a core")
    core = min(os.sched_getaffinity(0))
    processes = [subprocess.Popen([sys.executable, "-c", SPINNING % core]) for _ in range(4)]
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_waiting_for_a_core_does_not_count(crowd: list[subprocess.Popen[bytes]]) -> None:
    """Of four that share a core, each is soon seen to be silent for less than half of the real time."""
    dogs = [Watchdog(process.pid) for process in crowd]
    begun = time.monotonic()
    while True:
        silent = [dog.silent() for dog in dogs]
        real = time.monotonic() - begun
        if all(0 < each < real / 2 for each in silent):
            break
        assert real < AT_MOST, silent
        time.sleep(0.01)


def test_sleep_counts_in_full() -> None:
    """What hangs without computing is as silent as the clock says, but for the moments until it was woken."""
    dog = Watchdog()
    begun = time.monotonic()
    while dog.silent() < 0.3:
        assert time.monotonic() - begun < AT_MOST
        time.sleep(0.01)
    assert dog.silent() <= time.monotonic() - begun
    dog.sign()
    after = time.monotonic()
    assert dog.silent() <= time.monotonic() - after


def test_work_counts() -> None:
    dog = Watchdog()
    begun = time.monotonic()
    while dog.silent() < 0.3:
        assert time.monotonic() - begun < AT_MOST


def test_where_no_system_says_it_real_time_counts() -> None:
    """As for a process that is gone."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait(AT_MOST)
    dog = Watchdog(gone.pid)
    begun = time.monotonic()
    time.sleep(0.01)
    before = time.monotonic() - begun
    assert dog.silent() >= before
