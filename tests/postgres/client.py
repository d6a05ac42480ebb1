"""A process with a locker, which does what its standard input says, line by line. See `shared.Client`.

lock KEY [SECONDS]      waits; answers ``got TOKEN`` or the error's name
unlock KEY              answers ``done`` or the error's name
lost KEY                waits until the lease of the key is lost; answers ``lost``
fork KEY                has a child that sleeps, whatever becomes of its parent; answers with its process id
write KEY FILE check    writes to the fenced resource with the lease's token: ``accepted`` or ``refused``
write KEY FILE trust    the same, to a resource that looks at no token
add KEY FILE MANY TIMES so many threads each write so often, holding the key, whatever they lose; ``added``
"""

from __future__ import annotations

import argparse
import os
import signal
import sqlite3
import sys
import threading
from contextlib import closing

import psycopg

from kmutex import UnheldKeyError
from kmutex.postgres import LockLostError, PostgresKeyedMutex, PostgresLease

WRITES = "CREATE TABLE IF NOT EXISTS writes (at INTEGER PRIMARY KEY, token INTEGER, who TEXT, checked INTEGER)"


def write(file: str, token: int, who: str, *, check: bool) -> bool:
    """One write to a resource that knows tokens: accepted unless a higher one has been seen."""
    with closing(sqlite3.connect(file, timeout=30, isolation_level=None)) as rows:
        rows.execute("PRAGMA synchronous = OFF")
        rows.execute("BEGIN IMMEDIATE")
        highest = rows.execute("SELECT max(token) FROM writes").fetchone()[0] or 0
        if check and token < highest:
            rows.execute("ROLLBACK")
            return False
        rows.execute("INSERT INTO writes (token, who, checked) VALUES (?, ?, ?)", (token, who, check))
        rows.execute("COMMIT")
        return True


def prepare(file: str) -> None:
    """An empty resource."""
    with closing(sqlite3.connect(file)) as rows:
        rows.execute("PRAGMA journal_mode = WAL")
        rows.execute(WRITES)


def tokens(file: str) -> list[int]:
    """Those of the accepted writes, in order."""
    with closing(sqlite3.connect(file)) as rows:
        return [token for (token,) in rows.execute("SELECT token FROM writes ORDER BY at")]


def writers(file: str) -> dict[int, set[str]]:
    """Who wrote with each token."""
    found: dict[int, set[str]] = {}
    with closing(sqlite3.connect(file)) as rows:
        for token, who in rows.execute("SELECT token, who FROM writes"):
            found.setdefault(token, set()).add(who)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("conninfo")
    parser.add_argument("space", nargs="?", default="")
    parser.add_argument("patience", nargs="?", type=float, default=10.0)
    told = parser.parse_args()
    mutex = PostgresKeyedMutex(told.conninfo, space=told.space, sweep_every=0.1, patience=told.patience)
    leases: dict[str, PostgresLease] = {}

    def say(*words: object) -> None:
        print(*words, flush=True)

    def take(key: str, timeout: float | None) -> str:
        lease = mutex.hold(key, timeout)
        try:
            lease.__enter__()
        except (TimeoutError, LockLostError, UnheldKeyError) as error:
            return type(error).__name__
        leases[key] = lease
        return f"got {lease.token}"

    def add(key: str, file: str, times: int) -> None:
        done = 0
        while done < times:
            try:
                with mutex.hold(key) as lease:
                    done += write(file, lease.token, str(os.getpid()), check=True)
            except (LockLostError, psycopg.OperationalError):
                pass  # Again, in a new session.

    for line in sys.stdin:
        word, key, *rest = line.split()
        if word == "lock":
            say(take(key, float(rest[0]) if rest else None))
        elif word == "unlock":
            try:
                leases.pop(key).release()
                say("done")
            except (LockLostError, UnheldKeyError) as error:
                say(type(error).__name__)
        elif word == "lost":
            leases[key].lost.wait()
            say("lost")
        elif word == "fork":
            child = os.fork()
            if child == 0:
                while True:
                    signal.pause()
            say(child)
        elif word == "write":
            token = leases[key].token
            say("accepted" if write(rest[0], token, "late", check=rest[1] == "check") else "refused")
        elif word == "add":
            threads = [threading.Thread(target=add, args=(key, rest[0], int(rest[2]))) for _ in range(int(rest[1]))]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            say("added")


if __name__ == "__main__":
    main()
