"""Mutants of the table, the rules and the drivers: every one must be killed, or stand in survivors.toml with a reason.

    python tests/mutants/run_mutants.py [MODULE ...]

With modules, as `kmutex._core`, only their mutants are run and compared, which .ci/run does for those of the table.
A copy of the tree is mutated by mutmut (its settings are in pyproject.toml), never the tree itself. A mutant is
killed where a test fails, and where the tests do not end: mutmut stops them and says "timeout". Anything else it
says of a mutant is a survivor. Survivors are known by their function and their change, not by mutmut's numbers,
which move with every edit.

On a machine that is very busy a mutant that would survive may be stopped, and look killed. The listed survivors
show that. One of them that looks killed is run alone, up to RUNS times; if it never survives, the run fails.

Exit code: 0 if the survivors are exactly the listed ones, 1 if not, 3 if mutmut could not do its work.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
LISTED = Path(__file__).with_name("survivors.toml")
COPIED = ("kmutex", "model", "tests", "pyproject.toml", "LICENSE", "README.md")
TIME_LIMIT = 1800
"""Seconds for one call of mutmut."""
KILLED = {"killed", "timeout"}
RUNS = 3


class Survivor(NamedTuple):
    """A change that no test notices: the lines of `function` that went and came, each joined by " / "."""

    function: str
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.function}\n  - {self.old}\n  + {self.new}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", metavar="MODULE")
    within = tuple(f"{module}." for module in parser.parse_args().modules)
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name)
        copy_tree(tree)
        run = mutmut(tree, "run", *(f"{module}*" for module in within))
        results = read_results(mutmut(tree, "results", "--all", "true").stdout)
        results = {mutant: result for mutant, result in results.items() if not within or mutant.startswith(within)}
        counts = Counter(results.values())
        if run.returncode != 0 or not results or not counts["killed"]:
            print(run.stdout[-4000:], run.stderr[-4000:], sep="\n")
            print(f"mutmut ended with {run.returncode}; {dict(counts)}")
            return 3
        listed = read_listed(LISTED.read_text(encoding="utf-8"))
        if within:
            listed = {survivor: reason for survivor, reason in listed.items() if survivor.function.startswith(within)}
        functions = {survivor.function for survivor in listed}
        survivors = set()
        for mutant, result in results.items():
            if result in KILLED and function_of(mutant) not in functions:
                continue
            change = read_change(mutant, mutmut(tree, "show", mutant).stdout)
            if result not in KILLED or (change in listed and survives_alone(tree, mutant)):
                survivors.add(change)
    faults = compare(survivors, listed)
    print(f"{len(results)} mutants: " + ", ".join(f"{count} {result}" for result, count in counts.most_common()))
    for fault in faults:
        print(fault)
    print(f"{len(survivors)} survivors, {len(faults)} not as listed")
    return 1 if faults else 0


def survives_alone(tree: Path, mutant: str) -> bool:
    """Whether no test fails for the mutant in one of RUNS runs of its own."""
    for attempt in range(1, RUNS + 1):
        mutmut(tree, "run", mutant)
        result = read_results(mutmut(tree, "results", "--all", "true").stdout)[mutant]
        print(f"{mutant} is listed as a survivor and looked killed; alone, run {attempt}: {result}", flush=True)
        if result not in KILLED:
            return True
    return False


def copy_tree(into: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, into / name, ignore=ignored)
        else:
            shutil.copy(source, into / name)


def mutmut(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mutmut", *arguments],
        cwd=tree,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=TIME_LIMIT,
        check=False,
    )


def read_results(text: str) -> dict[str, str]:
    """What ``mutmut results --all true`` says: the result of each mutant."""
    return dict(line.strip().rsplit(": ", 1) for line in text.splitlines() if "__mutmut_" in line)


def function_of(mutant: str) -> str:
    """The function that mutmut's name of a mutant contains."""
    return re.sub(r"__mutmut_\d+$", "", mutant).replace(".xǁ", ".").replace("ǁ", ".").replace(".x_", ".")


def read_change(mutant: str, text: str) -> Survivor:
    """What ``mutmut show`` says of one mutant."""
    lines = [line for line in text.splitlines() if not line.startswith(("---", "+++"))]
    old, new = (" / ".join(line[1:].strip() for line in lines if line.startswith(sign)) for sign in "-+")
    if not old and not new:
        raise ValueError(f"mutmut shows no change for {mutant}: {text}")
    return Survivor(function_of(mutant), old, new)


def read_listed(text: str) -> dict[Survivor, str]:
    """The survivors of survivors.toml, each with its reason."""
    return {Survivor(row["function"], row["old"], row["new"]): row["reason"] for row in tomllib.loads(text)["survivor"]}


def compare(survivors: set[Survivor], listed: dict[Survivor, str]) -> list[str]:
    """What is not as it should be: survivors that are not listed, listed ones that were killed or have no reason."""
    return [
        *(f"survived, and is not listed: {survivor}" for survivor in sorted(survivors - set(listed))),
        *(f"is listed, and did not survive: {survivor}" for survivor in sorted(set(listed) - survivors)),
        *(f"is listed without a reason: {survivor}" for survivor, reason in listed.items() if not reason.strip()),
    ]


if __name__ == "__main__":
    sys.exit(main())
