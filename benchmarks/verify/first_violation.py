"""How long `kmutex verify` takes on broken lockers: from its start to the first violation shown, and to its end.

    python benchmarks/verify/first_violation.py [--before CHECKOUT] [--seconds N] [--only TEXT]

Each of 20 lockers of tests/lockers is verified once, with its output piped, as in a log. With --before, another
checkout does the same beside it, one after the other, so that both meet the same machine; what counts is then their
ratio. The first violation is the first line of standard output with the name of a clause and a sentence about it.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
LOCKERS = (
    "threads_bad:EvictWithWaiters",
    "threads_bad:CountOutsideGuard --without fifo",
    "threads_bad:NonAtomicCount --without fifo",
    "threads_bad:CancelKeepsCount",
    "threads_bad:NeverEvicts",
    "threads_bad:WakeupDropped --without fifo",
    "threads_bad:GrantKeptOnCancel --without fifo",
    "threads_bad:HandedToDeadWaiter",
    "threads_bad:StrayUnlockAccepted",
    "threads_bad:WeakRegistry --without fifo",
    "threads_bad:GuardHeldWhileWaiting --without fifo",
    "threads_bad:FastPathOutsideGuard",
    "threads_bad:LeaseReleasedTwice",
    "asyncio_bad:EvictWithWaiters",
    "asyncio_bad:NonAtomicCount",
    "asyncio_bad:CancelKeepsCount",
    "asyncio_bad:CancelWakesNext",
    "asyncio_bad:StrayUnlockAdmitsTwo",
    "asyncio_bad:OneLockForAllKeys --without fifo",
    "asyncio_bad:SetsResultOnCancelled",
)
VIOLATION = re.compile(r"KM-[A-Z]+(?:, KM-[A-Z]+)*: \S")


class Took(NamedTuple):
    """Real seconds, and the exit status."""

    first: float
    end: float
    status: int


def verifying(checkout: Path, subject: str, seconds: float) -> subprocess.Popen[str]:
    """Begin to verify it by a checkout's command, with its output piped. The lockers are those of this checkout."""
    path = [str(checkout), str(checkout / "model"), str(ROOT)]
    return subprocess.Popen(
        [sys.executable, "-m", "kmutex", "verify", *subject.split(), "--seconds", f"{seconds:g}", "--quiet"],
        cwd=ROOT / "tests" / "lockers",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def measure(checkout: Path, subject: str, seconds: float) -> Took:
    """Verify it once."""
    started = time.perf_counter()
    first = None
    with verifying(checkout, subject, seconds) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if first is None and VIOLATION.match(line):
                first = time.perf_counter() - started
    end = time.perf_counter() - started
    return Took(end if first is None else first, end, process.returncode)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="measure another checkout beside this one")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="N", help="what verify is given (30)")
    parser.add_argument("--only", default="", metavar="TEXT", help="lockers with this in their name")
    args = parser.parse_args()
    checkouts = {"now": ROOT} if args.before is None else {"before": args.before.resolve(), "now": ROOT}
    took: dict[str, list[Took]] = {name: [] for name in checkouts}
    missed = 0
    failed = []
    for subject in (one for one in LOCKERS if args.only in one):
        for name, checkout in checkouts.items():
            took[name].append(measure(checkout, subject, args.seconds))
        said = "; ".join(f"{name} {times[-1].first:.1f} and {times[-1].end:.1f} s" for name, times in took.items())
        missed += took["now"][-1].status != 1
        failed += [f"{subject} ({name})" for name, times in took.items() if times[-1].status > 2]
        print(f"{subject}: {said}, exit {took['now'][-1].status}", flush=True)
    for what in ("first", "end"):
        middle = {name: statistics.median(getattr(one, what) for one in times) for name, times in took.items()}
        said = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in middle.items())
        ratio = f", {middle['before'] / middle['now']:.1f} times as fast" if "before" in middle else ""
        print(f"median to the {'first violation' if what == 'first' else 'end'}: {said}{ratio}")
    print(f"{len(took['now']) - missed} of {len(took['now'])} violated, as they must be")
    if failed:
        print(f"not measured, for they could not be put to work: {', '.join(failed)}")
    return 1 if missed or failed else 0


if __name__ == "__main__":
    sys.exit(main())
