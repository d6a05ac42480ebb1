"""kmutex.postgres beside PostgreSQL's own session advisory lock, on a real server on loopback.

Run: python benchmarks/postgres/handoff.py [--rounds N] [--json FILE]. Each figure is a median over rounds in which all
ways take turns, and stands beside its ratio to the bare lock. The bare lock has a connection for each client; what
it lacks (a token, a count of waiters, thousands of them) is no part of these figures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import psycopg

from kmutex.postgres import PostgresKeyedMutex
from servers import NotInstalledError, Postgres

TRIPS = 200
"""Locks of a free key in one round."""
HANDOFFS = 100
"""Changes of the holder in one round."""
CLIENTS = 8
TURNS = 25
"""Of each client, where all want one key."""
BARE = "bare"


class Client(Protocol):
    def lock(self) -> None: ...

    def unlock(self) -> None: ...


class Bare:
    """The engine's lock, in a connection of its own."""

    def __init__(self, conninfo: str, key: int) -> None:
        self.connection = psycopg.connect(conninfo, autocommit=True)
        self._key = (key,)

    def lock(self) -> None:
        self.connection.execute("SELECT pg_advisory_lock(%s)", self._key)

    def unlock(self) -> None:
        self.connection.execute("SELECT pg_advisory_unlock(%s)", self._key)


class Keyed:
    """A key of a locker."""

    def __init__(self, mutex: PostgresKeyedMutex, key: str) -> None:
        self._mutex = mutex
        self._key = key

    def lock(self) -> None:
        self._mutex.lock(self._key)

    def unlock(self) -> None:
        self._mutex.unlock(self._key)


def free_key(clients: Sequence[Client]) -> float:
    """Microseconds to lock and unlock what nobody else wants."""
    client = clients[0]
    begun = time.perf_counter()
    for _ in range(TRIPS):
        client.lock()
        client.unlock()
    return (time.perf_counter() - begun) / TRIPS * 1e6


def hand_off(clients: Sequence[Client]) -> float:
    """Microseconds from the call of unlock to the return of another's lock, who had asked before. A median."""
    seconds: list[float] = []
    unlocked_at = 0.0

    def play(client: Client) -> None:
        nonlocal unlocked_at
        for turn in range(HANDOFFS):
            client.lock()
            now = time.perf_counter()
            if turn:
                seconds.append(now - unlocked_at)
            # Long enough for the other to be in the queue again, as far as its own calls take.
            while time.perf_counter() < now + 0.002:
                pass
            unlocked_at = time.perf_counter()
            client.unlock()

    _together([lambda client=client: play(client) for client in clients[:2]])  # type: ignore[misc]
    return statistics.median(seconds) * 1e6


def crowd(clients: Sequence[Client]) -> float:
    """Microseconds for each turn, where all clients want one key all the time: the inverse of the throughput."""

    def play(client: Client) -> None:
        for _ in range(TURNS):
            client.lock()
            client.unlock()

    begun = time.perf_counter()
    _together([lambda client=client: play(client) for client in clients])  # type: ignore[misc]
    return (time.perf_counter() - begun) / (TURNS * len(clients)) * 1e6


MEASURES = {
    "a free key, lock and unlock": free_key,
    "hand-off, unlock to lock": hand_off,
    f"{CLIENTS} clients on one key, a turn": crowd,
}


@contextmanager
def ways(conninfo: str) -> Iterator[dict[str, list[Client]]]:
    """The clients of each way."""
    with ExitStack() as ending:
        bare = [Bare(conninfo, 1) for _ in range(CLIENTS)]
        for client in bare:
            ending.callback(client.connection.close)
        lockers = [ending.enter_context(PostgresKeyedMutex(conninfo)) for _ in range(CLIENTS)]
        yield {
            BARE: list(bare),
            "kmutex, a session for each": [Keyed(mutex, "apart") for mutex in lockers],
            "kmutex, one session": [Keyed(lockers[0], "together") for _ in range(CLIENTS)],
        }


def _together(calls: Sequence[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--fsync", action="store_true", help="wait for the disk, as a database should")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    samples: dict[str, dict[str, list[float]]] = {}
    try:
        with Postgres(fsync="on" if options.fsync else "off") as server:
            version = subprocess.run([server.bin / "postgres", "--version"], capture_output=True, text=True, check=True)
            with ways(server.conninfo) as clients:
                for round_ in range(options.rounds + 1):
                    for measure, function in MEASURES.items():
                        for way in clients:
                            figure = function(clients[way])
                            # The first round warms up: connections, plans, caches.
                            if round_:
                                samples.setdefault(measure, {}).setdefault(way, []).append(figure)
    except NotInstalledError as error:
        print(error, file=sys.stderr)
        return 3
    facts = {
        "server": version.stdout.strip(),
        "fsync": options.fsync,
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "rounds": options.rounds,
    }
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    found = []
    for measure, by_way in samples.items():
        print(f"{measure}, in us")
        for way, figures in by_way.items():
            # Ratios of one round each, so that a slow moment of the machine is in both.
            ratio = statistics.median(a / b for a, b in zip(figures, by_way[BARE], strict=True))
            median = statistics.median(figures)
            print(f"  {way:28} {median:8.0f}  ({min(figures):.0f} to {max(figures):.0f})  {ratio:5.1f} x bare")
            found.append({"measure": measure, "way": way, "us": median, "ratio": ratio, "rounds": figures})
    if options.json:
        options.json.write_text(json.dumps({"conditions": facts, "rows": found}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
