"""The page of the bugs that were found in the wild, from the rows of tests/lockers/wild.toml.

python docs/site/wild.py --write docs/wild.md
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.lockers.catalogue import Row, entries, sentence  # noqa: E402

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


def project(row: Row) -> tuple[str, str]:
    """The project and the number in it, of a row's source."""
    name, _, number = row.source.partition("#")
    return (name, number) if number else ("python/cpython", name)


def line(row: Row) -> str:
    """The line of a bug: its docstring begins with the clause."""
    mistake = sentence(row).removeprefix(f"{row.clauses[0]}: ")
    cells = (*project(row), row.language, mistake[0].upper() + mistake[1:], row.clauses[0], row.shape, f"`{row.name}`")
    return f"| {' | '.join(cells)} |\n"


def page() -> str:
    """The whole page."""
    bugs = entries(origin="wild", expect=("violation", "noted"))
    languages = sorted({row.language for row in bugs})
    head = HEAD.format(
        bugs=len(bugs),
        projects=len({project(row)[0] for row in bugs}),
        languages=f"{', '.join(languages[:-1])} and {languages[-1]}",
    )
    return head + "".join(sorted(map(line, bugs))) + TAIL


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
