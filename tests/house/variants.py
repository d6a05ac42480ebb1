"""The variants of examples/tables against the clauses: the two tables of docs/proof.md, made by judging each file.

    python -m tests.house.variants            # print them
    python -m tests.house.variants --write    # write them into the page

Exit code: 0; 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path

from kmutex.selfcheck.own_table import ABSENT, Judged, judge, judge_lock, load
from kmutex_model.proof.lock import Lock
from kmutex_model.proof.obligations import GHOST, INVARIANT

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "proof.md"
TABLES = ROOT / "examples" / "tables"
VARIANTS = {
    "barging": "barging",
    "keep or pass": "keep_or_pass",
    "limit n": "permits",
    "re-entrant": "reentrant",
    "readers and writer": "readers_writer",
    "several keys at once": "hold_all",
}
START, END = "<!-- variants -->\n", "<!-- end of variants -->\n"
SAID = {"proved": "proved", "violated": "counterexample", ABSENT: ABSENT}


@cache
def loaded(name: str) -> Lock | tuple[object, ...]:
    """The lock of that file, which may import its neighbours."""
    sys.path.insert(0, str(TABLES))
    try:
        return load(TABLES / f"{name}.py")
    finally:
        sys.path.remove(str(TABLES))


@cache
def rows(name: str) -> tuple[Judged, ...]:
    """What z3 says of that file, clause by clause."""
    found = loaded(name)
    if isinstance(found, Lock):
        return tuple(judge_lock(found, ["z3"], lambda text: None))
    return tuple(judge(*found, ["z3"], lambda text: None))  # type: ignore[arg-type]


def cell(row: Judged | None) -> str:
    """What the table says of a clause of a variant."""
    return ABSENT if row is None else SAID.get(row.result, row.result)


def table() -> str:
    """Clause by variant, sound and then broken."""
    of = {title: {row.clause: row for row in rows(name)} for title, name in VARIANTS.items()}
    clauses = dict.fromkeys(clause for one in of.values() for clause in one if clause not in (INVARIANT, GHOST))
    lines = [f"| clause | {' | '.join(of)} |", "|---" * (len(of) + 1) + "|"]
    lines += [f"| {clause} | {' | '.join(cell(one.get(clause)) for one in of.values())} |" for clause in clauses]
    lines += ["", "| broken twin | counterexamples of | the first |", "|---|---|---|"]
    for name in VARIANTS.values():
        broken = [row for row in rows(f"{name}_broken") if row.result == "violated"]
        first = min(broken, key=lambda row: len(row.run))
        lines.append(f"| `{name}_broken.py` | {', '.join(row.clause for row in broken)} | `{first.run}` |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--write", action="store_true")
    if not parser.parse_args().write:
        print(table(), end="")
        return 0
    page = PAGE.read_text(encoding="utf-8")
    head, rest = page.split(START)
    PAGE.write_text(head + START + table() + END + rest.split(END)[1], encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
