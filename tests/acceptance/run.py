"""Judge every locker of the catalogue that a stranger might have written, with the command, and compare.

    python tests/acceptance/run.py [--seconds N] [--only TEXT] [--kind sound|bad]

For each: the exit status must be 1 with one of the right clauses named, or 0, with a remark where one is due. Prints
a line for each as it comes, and a summary; exits with 1 where anything differs. Takes about an hour for all.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.lockers.catalogue import Row, entries  # noqa: E402


def judge(row: Row, seconds: float) -> tuple[str, str]:
    """What is wrong with the verdict ("" for nothing), and the verdict."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "rows.json"
        command = [
            sys.executable,
            "-m",
            "kmutex",
            "verify",
            row.factory,
            "--strict",
            "--all",
            "--quiet",
            "--json",
            str(out),
        ]
        command += ["--seconds", str(seconds)]
        for feature in row.without:
            command += ["--without", feature]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        said = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    violated = said.get("violated", [])
    noted = {line["clause"] for line in said.get("rows", []) if line["result"] == "noted"}
    verdict = f"exit {done.returncode} {' '.join(violated)}{done.stderr.strip()}"
    if row.expect == "holds":
        return ("" if done.returncode == 0 else "must hold"), verdict
    if row.expect == "noted":
        right = done.returncode == 0 and noted >= set(row.clauses)
        return ("" if right else f"must note {' '.join(row.clauses)}"), verdict
    if done.returncode != 1:
        return "must be rejected", verdict
    return ("" if set(violated) & set(row.clauses) else f"must name one of {' '.join(row.clauses)}"), verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", choices=("sound", "bad"))
    args = parser.parse_args()
    expect = {"sound": ("holds",), "bad": ("violation",), None: ("violation", "holds", "noted")}[args.kind]
    shapes = ("lock", "single-flight", "block")
    rows = entries(kind=("threads", "asyncio"), origin=("written", "wild"), shape=shapes, expect=expect)
    rows += [row for row in entries(shape=shapes, expect=expect) if row.module == "tests.lockers.misjudged"]
    wrong = 0
    chosen = [row for row in rows if args.only in row.name]
    for number, row in enumerate(chosen, 1):
        started = time.perf_counter()
        fault, verdict = judge(row, args.seconds)
        wrong += bool(fault)
        took = f"{time.perf_counter() - started:.0f} s"
        mark = "ok   " if not fault else "WRONG"
        print(f"{number}/{len(chosen)} {mark} {row.name}: {verdict} ({took}) {fault}", flush=True)
    print(f"{len(chosen) - wrong} passed, {wrong} failed")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
