"""What PostgreSQL and etcd offer a keyed lock out of the box, measured on real servers on loopback.

Run: python benchmarks/postgres/compare.py [--json FILE]. docs/adr/0007-postgres.md has what was made of it.
PostgreSQL is asked by session advisory locks, one connection for each request; etcd by its lock service through the
JSON gateway, one HTTP request for each. What etcd gives over gRPC is the same service.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import http.client
import importlib.metadata
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg

from servers import Etcd, NotInstalledError, Postgres, eventually

WAITERS = 100
TTL = 2
"""Seconds of an etcd lease."""
TRIPS = 300

HOLD_POSTGRES = """
import psycopg, sys, time
c = psycopg.connect(sys.argv[1], autocommit=True)
c.execute("SELECT pg_advisory_lock(1)")
print("held", flush=True)
time.sleep(600)
"""


# -- PostgreSQL: advisory locks ------------------------------------------------------------------------------------


class PgWaiter:
    """One request in a connection of its own."""

    def __init__(self, server: Postgres, granted: list[int], index: int, options: str = "") -> None:
        self.connection = psycopg.connect(server.conninfo, autocommit=True, options=options)
        self.thread = threading.Thread(target=self._wait, args=(granted, index), daemon=True)
        self.thread.start()

    def _wait(self, granted: list[int], index: int) -> None:
        with contextlib.suppress(psycopg.Error):
            self.connection.execute("SELECT pg_advisory_lock(1)")
            granted.append(index)
            self.connection.execute("SELECT pg_advisory_unlock(1)")


def pg_waiting(watch: psycopg.Connection[Any]) -> int:
    row = watch.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone()
    return int(row[0]) if row else 0


def measure_postgres() -> dict[str, object]:
    figures: dict[str, object] = {}
    with Postgres(max_connections=WAITERS + 20) as server, psycopg.connect(server.conninfo, autocommit=True) as watch:
        assert server.process is not None
        holder = psycopg.connect(server.conninfo, autocommit=True)
        holder.execute("SELECT pg_advisory_lock(1)")
        before = proportional_bytes(family(server.process.pid))
        connections = len(family(server.process.pid))
        granted: list[int] = []
        waiters = []
        for index in range(WAITERS):
            waiters.append(PgWaiter(server, granted, index))
            eventually(lambda index=index: pg_waiting(watch) == index + 1)  # type: ignore[misc]
        figures["KiB of the server per waiter"] = round(
            (proportional_bytes(family(server.process.pid)) - before) / WAITERS / 1024
        )
        figures["connections per waiter"] = round((len(family(server.process.pid)) - connections) / WAITERS, 2)
        holder.execute("SELECT pg_advisory_unlock(1)")
        eventually(lambda: len(granted) == WAITERS)
        figures["grants out of order"] = f"{out_of_order(granted)} of {WAITERS}"
        for waiter in waiters:
            waiter.thread.join()
            waiter.connection.close()

        process = subprocess.Popen(
            [sys.executable, "-c", HOLD_POSTGRES, server.conninfo], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        granted = []
        one = PgWaiter(server, granted, 0)
        eventually(lambda: pg_waiting(watch) == 1)
        process.kill()
        figures["ms from kill -9 of the holder to the next grant"] = ms(eventually(lambda: granted))
        process.wait()
        one.thread.join()

        holder.execute("SELECT pg_advisory_lock(1)")
        one = PgWaiter(server, granted, 0)
        eventually(lambda: pg_waiting(watch) == 1)
        one.connection.cancel()
        figures["ms from cancel to a waiter gone"] = ms(eventually(lambda: pg_waiting(watch) == 0))
        for interval in ("0", "100ms"):
            options = f"-c client_connection_check_interval={interval}"
            lone = subprocess.Popen([sys.executable, "-c", HOLD_POSTGRES, f"{server.conninfo} options='{options}'"])
            eventually(lambda: pg_waiting(watch) == 1)
            lone.kill()
            lone.wait()
            try:
                gone = ms(eventually(lambda: pg_waiting(watch) == 0, 5))
            except TimeoutError:
                gone = "still there after 5 s"
                watch.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted")
                eventually(lambda: pg_waiting(watch) == 0)
            figures[f"ms from kill -9 of a waiter to it gone, check interval {interval}"] = gone
        holder.execute("SELECT pg_advisory_unlock(1)")

        def trip() -> None:
            holder.execute("SELECT pg_advisory_lock(1)")
            holder.execute("SELECT pg_advisory_unlock(1)")

        figures["us for lock and unlock, nobody else there"] = round(median_of(trip) * 1e6)
        figures["fencing token"] = "none; a sequence has to give it"
        figures["shows holders and waiters"] = "pg_locks: pid and granted, and pg_blocking_pids()"
        holder.close()
    figures["server"] = subprocess.run(
        [server.bin / "postgres", "--version"], capture_output=True, text=True, check=True
    ).stdout.strip()
    figures["client"] = f"psycopg {importlib.metadata.version('psycopg')}: threads and asyncio"
    return figures


# -- etcd: its lock service ----------------------------------------------------------------------------------------


class EtcdClient:
    """One HTTP connection to the gateway."""

    def __init__(self, port: int) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, path: str, **body: object) -> dict[str, Any]:
        self.connection.request("POST", f"/v3/{path}", json.dumps(body))
        answer: dict[str, Any] = json.loads(self.connection.getresponse().read())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer


NAME = base64.b64encode(b"k").decode()
PREFIX = {"key": base64.b64encode(b"k/").decode(), "range_end": base64.b64encode(b"k0").decode()}
HOLD_ETCD = f"""
import http.client, json, sys, time
c = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
def call(path, **body):
    c.request("POST", "/v3/" + path, json.dumps(body))
    return json.loads(c.getresponse().read())
lease = call("lease/grant", TTL={TTL})["ID"]
call("lock/lock", name="{NAME}", lease=lease)
print("held", flush=True)
while True:
    time.sleep({TTL} / 4)
    call("lease/keepalive", ID=lease)
"""


class EtcdWaiter:
    """One request in a connection of its own."""

    def __init__(self, port: int, lease: str, granted: list[int], index: int) -> None:
        self.client = EtcdClient(port)
        self.revision = 0
        self.thread = threading.Thread(target=self._wait, args=(port, lease, granted, index), daemon=True)
        self.thread.start()

    def _wait(self, port: int, lease: str, granted: list[int], index: int) -> None:
        try:
            key = self.client.call("lock/lock", name=NAME, lease=lease)["key"]
        except (OSError, http.client.HTTPException, AttributeError, ValueError):
            return
        row = self.client.call("kv/range", key=key)["kvs"][0]
        self.revision = int(row["create_revision"])
        granted.append(index)
        self.client.call("lock/unlock", key=key)


def measure_etcd() -> dict[str, object]:
    figures: dict[str, object] = {}
    with Etcd() as server:
        assert server.process is not None
        watch = EtcdClient(server.port)
        leases = [watch.call("lease/grant", TTL=600)["ID"] for _ in range(WAITERS + 1)]

        def queued() -> int:
            return int(watch.call("kv/range", count_only=True, **PREFIX).get("count", 0))

        held = watch.call("lock/lock", name=NAME, lease=leases[-1])["key"]
        before = proportional_bytes([server.process.pid])
        connections = sockets(server.process.pid)
        granted: list[int] = []
        waiters = []
        for index in range(WAITERS):
            waiters.append(EtcdWaiter(server.port, leases[index], granted, index))
            eventually(lambda index=index: queued() == index + 2)  # type: ignore[misc]
        figures["KiB of the server per waiter"] = round(
            (proportional_bytes([server.process.pid]) - before) / WAITERS / 1024
        )
        figures["connections per waiter"] = round((sockets(server.process.pid) - connections) / WAITERS, 2)
        watch.call("lock/unlock", key=held)
        eventually(lambda: len(granted) == WAITERS)
        figures["grants out of order"] = f"{out_of_order(granted)} of {WAITERS}"
        for waiter in waiters:
            waiter.thread.join()
        revisions = [waiters[index].revision for index in granted]
        rising = all(a < b for a, b in itertools.pairwise(revisions))
        figures["fencing token"] = f"the key's create_revision; {'rose' if rising else 'DID NOT RISE'} at every grant"

        process = subprocess.Popen(
            [sys.executable, "-c", HOLD_ETCD, str(server.port)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        granted = []
        one = EtcdWaiter(server.port, leases[0], granted, 0)
        eventually(lambda: queued() == 2)
        process.kill()
        figures["ms from kill -9 of the holder to the next grant"] = f"{ms(eventually(lambda: granted))} (TTL {TTL} s)"
        process.wait()
        one.thread.join()

        held = watch.call("lock/lock", name=NAME, lease=leases[-1])["key"]
        one = EtcdWaiter(server.port, leases[0], granted, 0)
        eventually(lambda: queued() == 2)
        assert one.client.connection.sock is not None
        one.client.connection.sock.shutdown(2)
        try:
            figures["ms from cancel to a waiter gone"] = ms(eventually(lambda: queued() == 1, 5))
        except TimeoutError:
            figures["ms from cancel to a waiter gone"] = "still there after 5 s"
        lone = subprocess.Popen([sys.executable, "-c", HOLD_ETCD, str(server.port)])
        eventually(lambda: queued() == 2)
        lone.kill()
        lone.wait()
        try:
            figures["ms from kill -9 of a waiter to it gone"] = ms(eventually(lambda: queued() == 1, 5))
        except TimeoutError:
            figures["ms from kill -9 of a waiter to it gone"] = "still there after 5 s"
        watch.call("lock/unlock", key=held)

        def trip() -> None:
            watch.call("lock/unlock", key=watch.call("lock/lock", name=NAME, lease=leases[0])["key"])

        figures["us for lock and unlock, nobody else there"] = round(median_of(trip) * 1e6)
        figures["shows holders and waiters"] = "the keys under the lock's name, by create_revision; the lowest holds"
    version = subprocess.run([server.binary, "--version"], capture_output=True, text=True, check=True).stdout
    figures["server"] = version.splitlines()[0]
    figures["client"] = "http.client and the JSON gateway"
    return figures


# -- how -----------------------------------------------------------------------------------------------------------


def out_of_order(granted: list[int]) -> int:
    """Grants before which somebody who asked later was granted."""
    return sum(index < max(granted[:at], default=-1) for at, index in enumerate(granted))


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"


def median_of(trip: Callable[[], None]) -> float:
    seconds = []
    for _ in range(TRIPS):
        begun = time.perf_counter()
        trip()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *map(int, children)]


def proportional_bytes(pids: list[int]) -> int:
    """Memory of these processes, what they share being shared out among them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def sockets(pid: int) -> int:
    folder = f"/proc/{pid}/fd"
    return sum(os.readlink(f"{folder}/{name}").startswith("socket:") for name in os.listdir(folder))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    try:
        found = {"PostgreSQL": measure_postgres(), "etcd": measure_etcd()}
    except NotInstalledError as error:
        print(error, file=sys.stderr)
        return 3
    for name, figures in found.items():
        print(f"{name}, {WAITERS} waiters on one key")
        for what, value in figures.items():
            print(f"  {what}: {value}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
