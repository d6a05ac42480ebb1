"""The keyed mutex for threads where gevent has put greenlets in their place; skipped where gevent is not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("gevent")

START = """
from gevent import monkey
monkey.patch_all()
import gevent
from kmutex import KeyedMutex, UnheldKeyError

km = KeyedMutex()


def queue(count):
    before = len(km.snapshot()["k"].waiters)
    while len(km.snapshot()["k"].waiters) < before + count:
        gevent.sleep(0)
"""
ORDER = """
served = []

def work(number):
    with km.hold("k"):
        served.append(number)
        gevent.sleep(0)

km.lock("k")
for number in range(5):
    gevent.spawn(work, number)
    queue(1)
km.lock("other")
km.unlock("other")
km.unlock("k")
while len(km):
    gevent.sleep(0)
print(served)
"""
TIMEOUT = """
km.lock("k")
try:
    km.lock("k", timeout=0.01)
except TimeoutError:
    print(km.snapshot()["k"].refs)
"""
KILLED = """
km.lock("k")
waiters = [gevent.spawn(km.lock, "k") for _ in range(3)]
queue(3)
waiters[1].kill()
km.unlock("k")
waiters[2].kill()
print([waiter.dead for waiter in waiters], km.snapshot()["k"].refs)
km.unlock("k")
print(len(km))
"""
KILLED_AS_IT_IS_GRANTED = """
def work():
    with km.hold("k"):
        gevent.sleep(0)

km.lock("k")
waiters = [gevent.spawn(work) for _ in range(2)]
queue(2)
km.unlock("k")
waiters[0].kill()
waiters[1].join()
print(len(km))
"""


@pytest.mark.parametrize(
    ("program", "said"),
    [
        pytest.param(ORDER, ["[0, 1, 2, 3, 4]"], id="KM-EXCL, KM-FIFO, KM-INDEP, KM-IDLE"),
        pytest.param(TIMEOUT, ["1"], id="KM-EXPIRED, KM-CANCEL"),
        pytest.param(KILLED, ["[True, True, True] 1", "0"], id="KM-CANCEL, KM-INTERRUPT"),
        pytest.param(KILLED_AS_IT_IS_GRANTED, ["0"], id="KM-RACE, KM-INTERRUPT, KM-LIVE"),
    ],
)
def test_greenlets(program: str, said: list[str]) -> None:
    """In a process of its own, since what gevent patches stays so. A greenlet killed in its wait is interrupted."""
    done = subprocess.run(
        [sys.executable, "-c", START + program], capture_output=True, text=True, timeout=300, check=False
    )
    assert (done.stdout.splitlines(), done.returncode) == (said, 0), done.stderr
