"""The page of the bugs that were found in the wild, from the rows of tests/lockers/wild.toml.

python docs/site/wild.py --write docs/wild.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]

HEAD = """# Found in the wild

Published bugs of keyed locks, of groups that suppress duplicate work, and of the primitives under them:
{bugs} bugs of {projects} projects, in {languages}.

Each is written anew in Python, beside a twin with the one mistake repaired, in `tests/lockers/wild_threads.py` and
`tests/lockers/wild_asyncio.py`. No code is taken from the projects. A locker shows the mistake, not the project: most
were repaired there long ago, some in review before the first release. `tests/lockers/test_wild.py` shows by hand,
without kmutex, that each bad one is bad and that its twin is not.
`python tests/acceptance/run.py --origin wild --bare` has `kmutex verify` judge each of them, without a flag.

This page is made by `python docs/site/wild.py --write docs/wild.md` from `tests/lockers/wild.toml`.

| project | number | language | the mistake | clause | shape | locker |
| --- | --- | --- | --- | --- | --- | --- |
"""

TAIL = """
The number is that of the issue or pull request that tells of the mistake; of CPython, that of its old tracker. Clauses
are those of [the contract](../specs/contract.md), the best name of the mistake.
"""


def project(row: dict[str, Any]) -> tuple[str, str]:
    """The project and the number in it, of a row's source."""
    name, _, number = str(row["source"]).partition("#")
    return (name, number) if number else ("python/cpython", name)


def clause(row: dict[str, Any]) -> str:
    """The best clause of a row."""
    return str(row["clauses"][0])


def page() -> str:
    """The whole page."""
    rows = tomllib.loads((ROOT / "tests" / "lockers" / "wild.toml").read_text(encoding="utf-8"))
    bugs = {name: row for name, row in rows.items() if row["expect"] != "holds"}
    lines = sorted(
        f"| {project(row)[0]} | {project(row)[1]} | {row['language']} | {row['note']} | {clause(row)} "
        f"| {row.get('shape', 'lock')} | `{name}` |\n"
        for name, row in bugs.items()
    )
    languages = sorted({row["language"] for row in bugs.values()})
    head = HEAD.format(
        bugs=len(bugs),
        projects=len({project(row)[0] for row in bugs.values()}),
        languages=f"{', '.join(languages[:-1])} and {languages[-1]}",
    )
    return head + "".join(lines) + TAIL


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the page of the bugs that were found in the wild.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it there")
    file = parser.parse_args().write
    if file is None:
        sys.stdout.write(page())
    else:
        file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
