"""What the queue of the lock table is made of: a full queue drained from its front, OrderedDict against dict.

Prints the nanoseconds per release for each number of waiters. Run: python benchmarks/core/drain.py
"""

from __future__ import annotations

import platform
import statistics
import time
from collections import OrderedDict

from kmutex._core import LockTable

WAITERS = (100, 1_000, 10_000, 50_000)
ROUNDS = 5


def drain_dict(waiters: int) -> None:
    queue: dict[int, None] = dict.fromkeys(range(waiters))
    while queue:
        del queue[next(iter(queue))]


def drain_ordered(waiters: int) -> None:
    queue: OrderedDict[int, None] = OrderedDict.fromkeys(range(waiters))
    while queue:
        queue.popitem(last=False)


def drain_table(waiters: int) -> None:
    table: LockTable = LockTable()
    for ticket in range(waiters):
        table.request("key", ticket, int)
    while len(table):
        table.release("key")


def main() -> None:
    print(f"Python {platform.python_version()}, ns per ticket to fill and drain, median of {ROUNDS}")
    print(f"{'waiters':>8} {'dict':>10} {'OrderedDict':>12} {'LockTable':>10}")
    for waiters in WAITERS:
        figures = []
        for drain in (drain_dict, drain_ordered, drain_table):
            seconds = []
            for _ in range(ROUNDS):
                start = time.perf_counter()
                drain(waiters)
                seconds.append(time.perf_counter() - start)
            figures.append(statistics.median(seconds) / waiters * 1e9)
        print(f"{waiters:>8} {figures[0]:>10.0f} {figures[1]:>12.0f} {figures[2]:>10.0f}")


if __name__ == "__main__":
    main()
