"""How much more two threads get done than one, each on a key of its own: a ratio, for a free-threaded Python.

    python benchmarks/locks/scaling.py [--rounds 9]

"one mutex": both use the same, by lock and unlock, or by a block. "one stripe": the same without the stripes that a
free-threaded Python gets. "a mutex each": what stripes that shared nothing would give. "no lock": both do the same
steps on a dict of their own, which shows what the machine and the interpreter have to give just now. Each round
measures all of them, with one thread and then with two; what is shown is the median ratio, with the least and the most.
"""

from __future__ import annotations

import argparse
import secrets
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from kmutex import KeyedMutex, compiled
from kmutex._threads import UntypedMutex

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import terms  # noqa: E402

SECONDS = 0.5
"""Of each measurement."""
BATCH = 100
"""Calls between two looks at the clock's word."""


def on(mutex: UntypedMutex) -> Callable[[], None]:
    key = secrets.token_hex(8)

    def work() -> None:
        mutex.lock(key)
        mutex.unlock(key)

    return work


def blocks_on(mutex: UntypedMutex) -> Callable[[], None]:
    key = secrets.token_hex(8)

    def work() -> None:
        with mutex.hold(key):
            pass

    return work


def alone() -> Callable[[], None]:
    mine: dict[object, object] = {}

    def work() -> None:
        for key in range(10):
            mine[key] = key
            del mine[key]

    return work


def shared(
    work: Callable[[UntypedMutex], Callable[[], None]], kind: type[UntypedMutex] = KeyedMutex
) -> Callable[[], Callable[[], None]]:
    mutex = kind()
    return lambda: work(mutex)


WAYS: dict[str, Callable[[], Callable[[], Callable[[], None]]]] = {
    "one mutex": lambda: shared(on),
    "one mutex, blocks": lambda: shared(blocks_on),
    "one stripe": lambda: shared(on, UntypedMutex),
    "one stripe, blocks": lambda: shared(blocks_on, UntypedMutex),
    "a mutex each": lambda: lambda: on(KeyedMutex()),
    "no lock": lambda: alone,
}


def rate(make: Callable[[], Callable[[], None]], threads: int) -> float:
    """Calls in a second, of all threads."""
    counts = [0] * threads
    ready, over = threading.Barrier(threads + 1), threading.Event()

    def run(number: int) -> None:
        work = make()
        ready.wait()
        while not over.is_set():
            for _ in range(BATCH):
                work()
            counts[number] += BATCH

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    ready.wait()
    begun = time.perf_counter()
    time.sleep(SECONDS)
    over.set()
    for thread in running:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def main() -> int:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--rounds", type=terms.at_least(1), default=9, help="(9)")
    options = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(options.rounds):
        for name, way in WAYS.items():
            one, two = (rate(way(), threads) for threads in (1, 2))
            found[name].append(two / one)
    gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, {'with the GIL' if gil else 'free-threaded'}{', compiled' * compiled}")
    for name, ratios in found.items():
        print(f"{name:<20}{statistics.median(ratios):5.2f} x one thread, {min(ratios):.2f}..{max(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
