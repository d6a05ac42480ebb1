"""Judge every locker of the catalogue that a stranger might have written, with the command, and compare.

    python tests/acceptance/run.py [--seconds N] [--only TEXT] [--kind sound|bad] [--origin written|wild] [--bare]
                                   [--part K/N]

For each: the exit status must be 1 with one of the right clauses named, or 0, with a remark where one is due. With
--bare no flag is given: what the catalogue says that a locker goes without is not, and it is judged by what makes it
a keyed mutex. What is not convicted, or not decided, in N seconds gets PATIENCE times as many, so that a busy machine
decides nothing. --part K/N is the K-th of every N lockers. Prints a line for each as it comes, and a summary; exits
with 1 where anything differs. Takes about an hour for all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.lockers.catalogue import SHAPES, Row, entries  # noqa: E402
from tests.part import part_of  # noqa: E402

PATIENCE = 4
SAID = {"violation": "rejected by the right clause", "holds": "accepted", "noted": "accepted with the right remark"}


def judge(row: Row, seconds: float, *, bare: bool) -> tuple[str, str]:
    """What is wrong with the verdict ("" for nothing), and the verdict. bare: without any flag."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "rows.json"
        command = [sys.executable, "-m", "kmutex", "verify", row.factory, "--seconds", str(seconds), "--json", str(out)]
        if not bare:
            command += ["--strict", "--all", "--quiet"]
            for feature in row.without:
                command += ["--without", feature]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        said = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    violated = said.get("violated", [])
    noted = {line["clause"] for line in said.get("rows", []) if line["result"] == "noted" or _unpromised(line)}
    verdict = " ".join((f"exit {done.returncode}", *violated, *done.stderr.split()))
    if row.expect == "holds":
        return ("" if done.returncode == 0 else "must hold"), verdict
    if row.expect == "noted":
        right = done.returncode == 0 and noted >= set(row.clauses)
        return ("" if right else f"must note {' '.join(row.clauses)}"), verdict
    if done.returncode != 1:
        return "must be rejected", verdict
    return ("" if set(violated) & set(row.clauses) else f"must name one of {' '.join(row.clauses)}"), verdict


def _unpromised(line: dict[str, Any]) -> bool:
    """Whether a row shows a run that breaks what is not promised."""
    return bool(line["result"] == "not promised" and line["violations"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", choices=("sound", "bad"))
    parser.add_argument("--origin", choices=("written", "wild"))
    parser.add_argument("--bare", action="store_true", help="give no flag to the command")
    parser.add_argument("--part", type=part_of, default="1/1", metavar="K/N", help="the K-th of every N only")
    args = parser.parse_args()
    expect = {"sound": ("holds",), "bad": ("violation",), None: ("violation", "holds", "noted")}[args.kind]
    shapes = tuple(shape for shape in SHAPES if shape != "none")
    origin = (args.origin,) if args.origin else ("written", "wild")
    rows = entries(kind=("threads", "asyncio"), origin=origin, shape=shapes, expect=expect)
    if args.origin is None:
        rows += [row for row in entries(shape=shapes, expect=expect) if row.module == "tests.lockers.misjudged"]
    chosen = [row for row in rows if args.only in row.name][args.part]
    right: Counter[str] = Counter()
    for number, row in enumerate(chosen, 1):
        started = time.perf_counter()
        fault, verdict = judge(row, args.seconds, bare=args.bare)
        if fault and (row.expect != "holds" or verdict.startswith("exit 2")):
            fault, verdict = judge(row, PATIENCE * args.seconds, bare=args.bare)
        right[row.expect] += not fault
        took = f"{time.perf_counter() - started:.0f} s"
        mark = "ok   " if not fault else "WRONG"
        print(f"{number}/{len(chosen)} {mark} {row.name} ({row.shape}): {verdict} ({took}) {fault}", flush=True)
    for expected, of in Counter(row.expect for row in chosen).items():
        print(f"{right[expected]} of {of} {SAID[expected]}")
    wrong = len(chosen) - sum(right.values())
    print(f"{sum(right.values())} passed, {wrong} failed")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
