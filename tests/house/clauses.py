"""What checks each clause of the contract: docs/clauses.md, made from what the files say of themselves.

    python -m tests.house.clauses                 # print the page
    python -m tests.house.clauses --write         # write it
    python -m tests.house.clauses KM-RACE         # one clause: code, properties, known-bads, tests with their lines

A test names its clauses in its docstring. specs/clauses.toml has the clauses, each with its property of the model and
what must be found to break it.

Exit code: 0; 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import ast
import functools
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kmutex_model import flight, several
from kmutex_model.broken import BROKEN
from tests.lockers.catalogue import rows

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "clauses.md"


def load(path: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))


LISTED: list[dict[str, Any]] = load("specs/clauses.toml")["clause"]
IDS: tuple[str, ...] = tuple(clause["id"] for clause in LISTED)
GROUPS = {"": "the mutexes", "postgres": "kmutex.postgres", "pull": "the puller"}
"""Whose tests stand in a folder of tests/. In all other folders they are the checkers'."""
CHECKERS = "the checkers"


def names_in(text: str) -> set[str]:
    """The ids that a text uses; KM_HANDOFF_STEP of the TLA+ files is KM-HANDOFF."""
    return {f"KM-{name}" for name in re.findall(r"\bKM[-_]([A-Z]+)", text)}


class Test(NamedTuple):
    """A test, and the clauses that its docstring names."""

    file: str
    line: int
    name: str
    clauses: frozenset[str]

    @property
    def group(self) -> str:
        folder = self.file.removeprefix("tests/").rpartition("/")[0].partition("/")[0]
        return GROUPS.get(folder, CHECKERS)


def tests_in(path: Path) -> Iterator[Test]:
    """Those of one file. A test that runs with many arguments is one test."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            names = frozenset(names_in(ast.get_docstring(node) or ""))
            yield Test(path.relative_to(ROOT).as_posix(), node.lineno, node.name, names)


@functools.cache
def tests() -> tuple[Test, ...]:
    """Every test under tests/."""
    return tuple(test for path in sorted((ROOT / "tests").rglob("test_*.py")) for test in tests_in(path))


class Locker(NamedTuple):
    """A known-bad locker that is convicted by a clause."""

    name: str
    kind: str
    held_out: bool


def known_bad(clause: dict[str, Any]) -> list[Locker]:
    """Those for which the clause is the best name, and those that are listed with it."""
    return [
        Locker(row.name.partition(".")[2], row.kind, row.held_out)
        for row in rows().values()
        if row.kind != "model"
        if f"locker:{row.name}" in clause["broken"] or (row.expect == "violation" and row.clauses[0] == clause["id"])
    ]


class Checked:
    """What there is for one clause."""

    def __init__(self, clause: dict[str, Any], found: Sequence[Test]) -> None:
        self.id: str = clause["id"]
        self.clause = clause
        self.property = "" if clause["property"].startswith("none: ") else clause["property"]
        config = (ROOT / "specs/KMutex.cfg").read_text(encoding="utf-8")
        self.in_tla = [name for name in re.findall(r"\bKM_[A-Z_]+", config) if self.id in names_in(name)]
        self.models = [
            broken.model.name for broken in (*BROKEN, *several.BROKEN, *flight.BROKEN) if broken.clause == self.id
        ]
        replaced = load("specs/tlc.toml")["broken"]
        self.actions = sorted({broken["by"] for broken in replaced if self.id in names_in(broken["violates"])})
        self.lockers = known_bad(clause)
        self.tests = [test for test in found if self.id in test.clauses]

    @property
    def heading(self) -> str:
        """Also that of specs/contract.md."""
        return f"{self.id}: {self.clause['title']}"

    @property
    def anchor(self) -> str:
        return "#" + re.sub(r"[^a-z0-9 -]", "", self.heading.lower()).replace(" ", "-")

    def row(self) -> str:
        """Its line of the table."""
        groups = Counter(test.group for test in self.tests)
        held_out = sum(locker.held_out for locker in self.lockers)
        cells = [
            f"[{self.id}](../specs/contract.md{self.anchor})",
            "yes" if self.property else "no",
            "yes" if self.in_tla else "no",
            str(len(self.models)),
            f"{len(self.lockers) - held_out} + {held_out}",
            *(str(groups[group]) for group in [*GROUPS.values(), CHECKERS]),
        ]
        return f"| {' | '.join(cells)} |"

    def section(self) -> Iterator[str]:
        """What there is, a line for each kind of check, and then the tests with their lines."""
        yield from (self.heading, "", self.clause["statement"], "")
        lock = (path for path in sorted((ROOT / "kmutex").glob("_*.py")) if path.name != "_clauses.py")
        sources = [path.name for path in lock if self.id in names_in(path.read_text(encoding="utf-8"))]
        if sources:
            yield f"In the lock: {', '.join(sources)}"
        whom = " and ".join(self.clause["drivers"])
        feature = self.clause["feature"]
        yield f"Judged: {whom}" + ("" if feature == "none" else f", unless --without {feature}")
        if self.property:
            yield f"Model: {self.property}" + (f"; TLA+: {', '.join(self.in_tla)}" if self.in_tla else "")
        else:
            yield f"No property: {self.clause['property'].removeprefix('none: ')}"
        if self.models:
            in_tla = f"; in TLA+: {', '.join(self.actions)}" if self.actions else ""
            yield f"Known-bad models: {', '.join(self.models)}{in_tla}"
        for kind in dict.fromkeys(locker.kind for locker in self.lockers):
            of_kind = [locker for locker in self.lockers if locker.kind == kind]
            shown = [locker.name for locker in of_kind if not locker.held_out]
            hidden = f"{len(of_kind) - len(shown)} held out" if len(of_kind) > len(shown) else ""
            yield f"Known-bad lockers, {kind}: " + "; ".join(part for part in (", ".join(shown), hidden) if part)
        for test in self.tests:
            yield f"{test.file}:{test.line} {test.name}"


HEAD = """\
# What checks each clause

<!-- skip: next "tests/house/test_clauses.py runs them" -->
```sh
python -m tests.house.clauses --write    # makes this page; a test fails where it is not up to date
python -m tests.house.clauses KM-RACE    # one clause: code, properties, known-bads by name, tests with their lines
```

A test names in its docstring the clauses that it covers. It counts once for each of them, however many arguments it
runs with. The properties are in [properties.py](../model/kmutex_model/properties.py) and
[KMutex.tla](../specs/KMutex.tla), the known-bad models in [broken.py](../model/kmutex_model/broken.py) and
[KMutexBroken.tla](../specs/KMutexBroken.tla), those of several keys in [several.py](../model/kmutex_model/several.py),
those of duplicate suppression in [flight.py](../model/kmutex_model/flight.py), the known-bad lockers in
[catalogue.toml](../tests/lockers/catalogue.toml) and the manifests beside it. A locker stands with the clause that is
the best name for its mistake, and with those that [clauses.toml](../specs/clauses.toml) lists it for. "5 + 2": two
more are held out, which means that nobody looks at them while a checker is built.

The last four columns count tests: of the mutexes, of what is built upon them, and of all that checks lockers.
"""


def page() -> str:
    """The text of docs/clauses.md."""
    found = tests()
    columns = ["clause", "model", "TLA+", "known-bad models", "known-bad lockers", *GROUPS.values(), CHECKERS]
    table = [f"| {' | '.join(columns)} |", "|---|---|---|" + "--:|" * (len(columns) - 3)]
    table += [Checked(clause, found).row() for clause in LISTED]
    return "\n".join([HEAD, *table, ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.house.clauses", description="What checks each clause.")
    parser.add_argument("clause", nargs="?", choices=IDS, metavar="CLAUSE", help="print what checks this clause")
    parser.add_argument("--write", action="store_true", help="write docs/clauses.md")
    args = parser.parse_args()
    if args.clause:
        print(*Checked(LISTED[IDS.index(args.clause)], tests()).section(), sep="\n")
    elif args.write:
        PAGE.write_text(page(), encoding="utf-8")
    else:
        print(page(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
