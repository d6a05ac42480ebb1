"""What the tests share: how many run side by side, and what the slow kinds need."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import hypothesis
import pytest

from kmutex.engine.threads import one_core
from tests import browser
from tests.part import part_of

# An example of a busy machine's takes as long as that likes.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

LONGEST = (
    "tests/teach/test_grade.py",
    "tests/verify/test_shapes.py",
    "tests/testing",
    "tests/conform/test_conform.py",
    "tests/verify",
    "tests/lockers",
    "tests/proof",
    "tests/pull/test_faults.py",
    "tests/bench",
    "tests/house/test_imports.py",
    "tests/trace",
)
"""What takes longest, and so is begun first: a file runs on one worker, and the others would wait for it."""
MISSING = {
    "browser": None
    if browser.CHROMIUM and browser.DRIVER
    else "no Chromium here: apt-get install --no-install-recommends chromium chromium-driver",
    "valgrind": None if shutil.which("valgrind") else "valgrind is not installed",
    "registry": None if shutil.which("docker-registry") else "no registry here: apt-get install docker-registry",
}
"""What this machine lacks for the tests with a mark."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark, missing in MISSING.items():
        if missing and item.get_closest_marker(mark):
            pytest.skip(missing)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--part", type=part_of, metavar="K/N", help="of the tests that are long, the K-th of every N only")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    cases: Counter[str] = Counter()
    for item in items:
        if sampled := item.get_closest_marker("sampled"):
            test = item.nodeid.partition("[")[0]
            if cases[test] % sampled.args[0]:
                item.add_marker("long")
            cases[test] += 1
    if part := config.getoption("--part"):
        others = [item for item in items if item.get_closest_marker("long")]
        del others[part]
        left_out = set(others)
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=others)

    def place(item: pytest.Item) -> int:
        return next((n for n, prefix in enumerate(LONGEST) if item.nodeid.startswith(prefix)), len(LONGEST))

    items.sort(key=place)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each core, for many tests wait for processes; none for a few files that somebody names."""
    if not any(Path(argument).is_dir() for argument in config.args):
        return 0
    return 2 * (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def pytest_configure(config: pytest.Config) -> None:
    """A worker stays on its core: threads that take turns wake each other for less there than across cores."""
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        here = ExitStack()
        here.enter_context(one_core(int(worker.removeprefix("gw"))))
        config.add_cleanup(here.close)
