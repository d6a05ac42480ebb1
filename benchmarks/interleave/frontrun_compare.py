"""What frontrun reaches on one small keyed lock. benchmarks/search has its speed.

    python benchmarks/interleave/frontrun_compare.py

Needs the dev extra, which brings frontrun 0.7.0. The figures of docs/adr/0003-interleaving-engine.md come from here.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock as ImportedLock
from typing import Any

# What the `frontrun` command sets. Its preload library watches sockets and files, which no subject here has.
os.environ["FRONTRUN_ACTIVE"] = "1"

try:
    frontrun: Any = importlib.import_module("frontrun")
except ImportError:
    sys.exit("frontrun is not installed; pip install frontrun==0.7.0")


KEY = "k"


class CountInsideGuard:
    """A sound keyed lock: the count moves under the guard only."""

    def __init__(self) -> None:
        self.guard = threading.Lock()
        self.table: dict[str, list[Any]] = {}

    def entry(self, key: str) -> list[Any]:
        if key not in self.table:
            self.table[key] = [threading.Lock(), 0]
        return self.table[key]

    def lock(self, key: str, timeout: float = -1) -> bool:
        with self.guard:
            entry = self.entry(key)
            entry[1] = entry[1] + 1
        taken: bool = entry[0].acquire(timeout=timeout)
        if not taken:
            with self.guard:
                self.drop(key, entry)
        return taken

    def drop(self, key: str, entry: list[Any]) -> None:
        entry[1] = entry[1] - 1
        if entry[1] == 0:
            del self.table[key]

    def unlock(self, key: str) -> None:
        with self.guard:
            entry = self.table[key]
            self.drop(key, entry)
            entry[0].release()


class TimeoutKeepsCount(CountInsideGuard):
    """Known bad: a waiter that gives up leaves its count behind."""

    def lock(self, key: str, timeout: float = -1) -> bool:
        with self.guard:
            entry = self.entry(key)
            entry[1] = entry[1] + 1
        taken: bool = entry[0].acquire(timeout=timeout)
        return taken


@dataclass
class World:
    """What one execution shares: the subject and what its workers saw."""

    km: CountInsideGuard
    inside: int = 0
    overlap: bool = False
    errors: list[str] = field(default_factory=list)
    order: tuple[int, ...] = ()
    lock: Any = None
    other: Any = None


Worker = Callable[[World], object]


def explore(
    setup: Callable[[], World], workers: Sequence[Worker], invariant: Callable[[World], bool], **options: Any
) -> Any:
    return frontrun.explore(
        setup=setup,
        workers=list(workers),
        invariant=invariant,
        detect_io=False,
        reproduce_on_failure=0,
        **options,
    )


def one_lock() -> World:
    return World(CountInsideGuard(), lock=threading.Lock(), other=threading.Lock())


def note(number: int) -> Worker:
    def worker(world: World) -> None:
        with world.lock:
            world.order = (*world.order, number)

    return worker


def print_orders() -> None:
    """Which of two threads takes a lock first: the random search shows that both orders can happen."""
    print("\norders in which two threads were seen to take one lock")
    for strategy, options in (
        ("dpor", {"preemption_bound": None, "stop_on_first": False}),
        ("random", {"max_attempts": 100, "seed": 1}),
    ):
        seen: set[tuple[int, ...]] = set()

        def record(world: World, seen: set[tuple[int, ...]] = seen) -> bool:
            seen.add(world.order)
            return True

        result = explore(one_lock, [note(0), note(1)], record, strategy=strategy, **options)
        print(f"  {strategy:7} {sorted(seen)}  executions={result.num_explored} exhausted={result.exhausted}")
    false_claim = explore(one_lock, [note(0), note(1)], lambda world: world.order == (0, 1), preemption_bound=None)
    print(f"  dpor asked whether thread 0 is always first: property_holds={false_claim.property_holds}")


def print_timeouts() -> None:
    """A timed wait that gives up while the holder is still runnable."""
    witness = TimeoutKeepsCount()
    witness.lock(KEY)
    gave_up = not witness.lock(KEY, timeout=0.001)
    witness.unlock(KEY)
    print("\na timed-out waiter keeps its count")
    print(f"  one real thread, timeout 1 ms: gave up={gave_up}, entry left={KEY in witness.table}")

    def holder(world: World) -> None:
        world.km.lock(KEY)
        world.inside = 1
        world.inside = 0
        world.km.unlock(KEY)

    def sleeping_holder(world: World) -> None:
        world.km.lock(KEY)
        time.sleep(2.0)
        world.km.unlock(KEY)

    def timed(world: World) -> None:
        if world.km.lock(KEY, timeout=1.0):
            world.km.unlock(KEY)

    for name, first in (("runnable holder", holder), ("holder asleep", sleeping_holder)):
        for strategy, options in (
            ("dpor", {"preemption_bound": None}),
            ("random", {"max_attempts": 100, "seed": 1}),
        ):
            result = explore(
                lambda: World(TimeoutKeepsCount()),
                [first, timed],
                lambda world: not world.km.table,
                clock="explored",
                strategy=strategy,
                **options,
            )
            print(
                f"  clock=explored {strategy:6} {name:15}: property_holds={result.property_holds} "
                f"executions={result.num_explored}"
            )


def print_deadlocks() -> None:
    def forward(world: World) -> None:
        with world.lock, world.other:
            pass

    def backward(world: World) -> None:
        with world.other, world.lock:
            pass

    def keep(world: World) -> None:
        world.lock.acquire()

    print("\ndeadlocks (deadlock_timeout=2)")
    for name, workers in (("two locks crossed", [forward, backward]), ("holder ended", [keep, keep])):
        for clock in ("real", "virtual"):
            started = time.perf_counter()
            result = explore(one_lock, workers, lambda _: True, clock=clock, deadlock_timeout=2.0)
            print(
                f"  {name:18} clock={clock:8} property_holds={result.property_holds} "
                f"{time.perf_counter() - started:.2f} s"
            )


def print_imported_name() -> None:
    """A subject module that did `from threading import Lock` before the search began."""
    started = time.perf_counter()
    result = explore(
        lambda: World(CountInsideGuard(), lock=ImportedLock()),
        [note(0), note(1)],
        lambda _: True,
        deadlock_timeout=2.0,
    )
    print("\n`from threading import Lock` bound before the search")
    print(f"  property_holds={result.property_holds} {time.perf_counter() - started:.2f} s")


def print_choices() -> None:
    parameters = inspect.signature(frontrun.explore).parameters
    print("\nparameters of frontrun.explore that speak of:")
    for word in ("cancel", "interrupt", "schedule", "replay", "bound", "clock"):
        print(f"  {word:9} {[name for name in parameters if word in name]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(
        f"Python {platform.python_version()}, frontrun {frontrun.__version__}, "
        f"{os.cpu_count()} cores, {platform.machine()}"
    )
    print_orders()
    print_timeouts()
    print_choices()
    # Last, since a search that times out leaves its blocked threads behind.
    print_deadlocks()
    print_imported_name()


if __name__ == "__main__":
    main()
