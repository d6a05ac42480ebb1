"""What rests on the GIL, or on what a free-threaded build has in its place: docs/limits.md. Run on both."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from kmutex import KeyedMutex
from tests.driver import DEADLINE, start

THREADS = 12
WITH_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
ROUNDS = 200 if WITH_GIL else 5_000
"""Of each thread: as many as show something where threads really run at once."""


class Tally:
    """A number whose ``+= 1`` loses counts if two do it at once: a step between the reading and the writing."""

    def __init__(self) -> None:
        self.value = 0

    def add(self) -> None:
        value = self.value
        for _ in range(3):
            pass
        self.value = value + 1


@pytest.mark.parametrize("how", ["lock", "hold", "timed"])
def test_a_storm_excludes_on_each_key_while_others_look(how: str) -> None:
    """KM-EXCL, KM-REF, KM-IDLE, KM-INDEP: `len`, `in` and `snapshot` of other threads raise nothing meanwhile."""
    mutex = KeyedMutex()
    tallies = {key: Tally() for key in range(4)}
    over = threading.Event()

    def work(number: int) -> None:
        for turn in range(ROUNDS):
            key = (number + turn) % len(tallies)
            if how == "hold":
                with mutex.hold(key):
                    tallies[key].add()
            else:
                mutex.lock(key, None if how == "lock" else DEADLINE)
                tallies[key].add()
                mutex.unlock(key)

    def look() -> int:
        looks = 0
        while not over.is_set():
            assert 0 <= len(mutex) <= len(tallies)
            for key, entry in mutex.snapshot().items():
                assert entry.refs == 1 + len(entry.waiters) <= THREADS
                assert key in tallies
            assert "nobody's" not in mutex
            looks += 1
        return looks

    looker = start(look)
    workers = [start(work, number) for number in range(THREADS)]
    for worker in workers:
        worker.result(DEADLINE)
    over.set()
    assert looker.result(DEADLINE) > 0
    assert sum(tally.value for tally in tallies.values()) == THREADS * ROUNDS
    assert len(mutex) == 0


def test_without_the_lock_the_tally_loses_counts_where_threads_run_at_once() -> None:
    """The known-bad of the test above, on a free-threaded build."""
    if WITH_GIL:
        pytest.skip("with the GIL, threads change too seldom for it to be sure")
    end = time.monotonic() + DEADLINE
    while True:
        tally = Tally()
        for worker in [start(lambda: [tally.add() for _ in range(ROUNDS)]) for _ in range(THREADS)]:  # noqa: B023
            worker.result(DEADLINE)
        if tally.value < THREADS * ROUNDS:
            return
        assert time.monotonic() < end, "no two threads ran at once"


def test_a_storm_of_hold_all_ends_and_excludes() -> None:
    """KM-ALL, KM-EXCL, KM-LIVE: each names three of eight keys, in an order of its own, beside locks of one key."""
    mutex = KeyedMutex()
    tallies = {key: Tally() for key in range(8)}

    def work(number: int) -> None:
        for turn in range(ROUNDS // 5):
            first = number + turn
            keys = [(first * step) % len(tallies) for step in ((3, 1, 2) if number % 2 else (2, 1, 3))]
            with mutex.hold_all(keys):
                for key in set(keys):
                    tallies[key].add()
            with mutex.hold(first % len(tallies)):
                tallies[first % len(tallies)].add()

    for worker in [start(work, number) for number in range(THREADS)]:
        worker.result(DEADLINE)
    asked = sum(
        len({(number + turn) * step % len(tallies) for step in (1, 2, 3)}) + 1
        for number in range(THREADS)
        for turn in range(ROUNDS // 5)
    )
    assert sum(tally.value for tally in tallies.values()) == asked
    assert len(mutex) == 0


def test_no_ticket_is_drawn_twice() -> None:
    """KM-TOKEN, KM-EXCL: two requests with one ticket would both be granted."""
    tickets = KeyedMutex()._mutex._tickets
    ready = threading.Barrier(THREADS)

    def draw() -> list[int]:
        ready.wait(DEADLINE)
        return [next(tickets) for _ in range(ROUNDS)]

    drawn = [ticket for worker in [start(draw) for _ in range(THREADS)] for ticket in worker.result(DEADLINE)]
    assert len(set(drawn)) == THREADS * ROUNDS
