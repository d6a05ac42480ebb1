"""The page of what verify says of other people's locks, as they are on PyPI. It runs the command for each.

python docs/site/peers.py --write docs/peers.md
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = ("8", "40")
"""Seconds to verify with, one after the other, until the outcome is decided."""

SUBJECTS = {
    "ae.lockname:NamedLocks": "ae-lockname",
    "ae.lockname:NamedLocks(reentrant_locks=False)": "ae-lockname",
    "asyncio_keyed_lock:AsyncioKeyedLock": "asyncio-keyed-lock",
    "asyncio_tokenized_lock.lock:LockManager": "asyncio-tokenized-lock",
    "coalescer:Coalescer": "coalescer",
    "coalescer.sync:Coalescer": "coalescer",
    "concurrent_coalesce:coalesce": "concurrent-coalesce",
    "dedup_me:AsyncDedup --call do=run": "dedup-me",
    "dedup_me:ThreadingDedup": "dedup-me",
    "grit:singleflight": "grit-toolkit",
    "named_locks:AsyncNamedLock": "namedlocks",
    "oneflight:AsyncSingleFlight": "oneflight",
    "oneflight:AsyncSingleFlight --with cancel": "oneflight",
    "oneflight:SingleFlight": "oneflight",
    "oslo_concurrency.lockutils:Semaphores": "oslo.concurrency",
    "oslo_concurrency.lockutils:lock": "oslo.concurrency",
    "shared_call_py:SharedCall": "shared-call-py",
    "shared_call_py:AsyncSharedCall": "shared-call-py",
    "singleflight.asynchronous:SingleFlightAsync": "singleflight",
    "singleflight.basic:SingleFlight": "singleflight",
    "singleflight_cache:SingleFlightCache --call do=get_or_set --without fresh --without evict": "singleflight-cache",
}
"""What follows `kmutex verify`, and the distribution on PyPI that has it."""

HEAD = """# What verify says of other people's locks

Keyed locks and single flights from PyPI, as they are, without an adapter. A package is installed and
`kmutex verify SUBJECT` is run on it. Options stand there only where the documentation of the package says so.
The packages are the extra `peers`.

This page is made by `python docs/site/peers.py --write docs/peers.md`, with Python {python}. `nox -s peers` runs
the commands again and holds the page to the outcome.

| subject | package | exit | violated | remarks |
| --- | --- | --- | --- | --- |
"""

TAIL = """
`not promised` are clauses that were seen broken and do not count, for a locker of somebody else never promised them
([verify.md](verify.md#what-a-locker-promises)). A run ends within two seconds of its first violation, so a package may
break more than is listed.
"""


class Outcome(NamedTuple):
    """What one command gave."""

    exit: int
    violated: tuple[str, ...]
    remarks: str


def verify(words: str) -> Outcome:
    """The outcome of ``kmutex verify`` with these words, with as much time as it needs, or with the longest."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        for seconds in ENOUGH:
            command = [sys.executable, "-m", "kmutex", "verify", *words.split(), "--quiet", "--seconds", seconds]
            done = subprocess.run([*command, "--json", out], cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode not in (0, 1, 2):
                raise RuntimeError(f"{words}: exit status {done.returncode}: {done.stderr.strip()}")
            if done.returncode != 2:
                break
        said = json.loads(out.read_text(encoding="utf-8"))
    # A promise that was not put to the test is "not promised" too, without a run.
    broken = sorted({row["clause"] for row in said["rows"] if row["result"] == "not promised" and row["violations"]})
    return Outcome(done.returncode, tuple(said["violated"]), f"{' '.join(broken)} not promised" if broken else "")


def row(words: str) -> str:
    """The line of the table for these words."""
    package = SUBJECTS[words]
    outcome = verify(words)
    violated = " ".join(outcome.violated)
    cells = (f"`{words}`", f"{package} {metadata.version(package)}", outcome.exit, violated, outcome.remarks)
    return "|" + "|".join(f" {cell} " if cell != "" else " " for cell in cells) + "|\n"


def page() -> str:
    """The whole page. Takes some minutes."""
    with ThreadPoolExecutor(2) as pool:
        lines = list(pool.map(row, SUBJECTS))
    return HEAD.format(python=".".join(map(str, sys.version_info[:2]))) + "".join(lines) + TAIL


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the page of what verify says of other people's locks.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it there")
    file = parser.parse_args().write
    if file is None:
        sys.stdout.write(page())
    else:
        file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
