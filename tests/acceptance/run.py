"""Judge every locker of the zoo and of the blind set with the command, as a user would, and compare.

    python tests/acceptance/run.py [--seconds N] [--only TEXT] [--kind sound|bad]

For each: the exit status must be 1 with one of the right clauses named, or 0, with a remark where one is due. Prints
a line for each as it comes, and a summary; exits with 1 where anything differs. Takes
about an hour for all on two cores; CI runs a part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent


def entries() -> list[tuple[Path, dict[str, Any]]]:
    """Each locker of both manifests, and the folder from which its module is imported."""
    zoo = tomllib.loads((TESTS / "zoo" / "manifest.toml").read_text(encoding="utf-8"))
    blind = tomllib.loads((TESTS / "blind" / "manifest.toml").read_text(encoding="utf-8"))
    return [(TESTS / "zoo", entry) for entry in zoo.values()] + [(ROOT, entry) for entry in blind["locker"]]


def judge(folder: Path, entry: dict[str, Any], seconds: float) -> tuple[str, str]:
    """What is wrong with the verdict ("" for nothing), and the verdict."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "rows.json"
        command = [
            sys.executable,
            "-m",
            "kmutex",
            "verify",
            entry["factory"],
            "--strict",
            "--quiet",
            "--json",
            str(out),
        ]
        command += ["--seconds", str(seconds)]
        for feature in entry["without"]:
            command += ["--without", feature]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        said = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    violated = said.get("violated", [])
    noted = {row["clause"] for row in said.get("rows", []) if row["result"] == "noted"}
    verdict = f"exit {done.returncode} {' '.join(violated)}{done.stderr.strip()}"
    if entry["expect"] == "holds":
        return ("" if done.returncode == 0 else "must hold"), verdict
    if entry["expect"] == "noted":
        right = done.returncode == 0 and noted >= set(entry["clauses"])
        return ("" if right else f"must note {entry['clauses']}"), verdict
    if done.returncode != 1:
        return "must be rejected", verdict
    return ("" if set(violated) & set(entry["clauses"]) else f"must name one of {entry['clauses']}"), verdict


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", default="")
    parser.add_argument("--kind", choices=("sound", "bad"))
    args = parser.parse_args()
    expect = {"sound": "holds", "bad": "violation", None: ""}[args.kind]
    wrong = 0
    chosen = [(f, e) for f, e in entries() if args.only in e["factory"] and expect in e["expect"]]
    for number, (folder, entry) in enumerate(chosen, 1):
        started = time.perf_counter()
        fault, verdict = judge(folder, entry, args.seconds)
        wrong += bool(fault)
        took = f"{time.perf_counter() - started:.0f} s"
        mark = "ok   " if not fault else "WRONG"
        features = "".join(f" --without {feature}" for feature in entry["without"])
        print(f"{number}/{len(chosen)} {mark} {entry['factory']}{features}: {verdict} ({took}) {fault}", flush=True)
    print(f"{len(chosen) - wrong} passed, {wrong} failed")
    return 1 if wrong or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
