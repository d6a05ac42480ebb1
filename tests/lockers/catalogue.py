"""The catalogue of lockers: whoever needs a known-bad or a sound one asks here. catalogue.toml says what a row is.

    python -m tests.lockers.catalogue [PREFIX]    # the rows whose id begins so, and how many there are of each sort

What ships says of itself what it breaks, so its rows are read there: the broken models, the lessons, the ports.
"""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = "tests.lockers"
KINDS = ("threads", "asyncio", "model", "adapter", "port")
SHAPES = ("lock", "get", "block", "single-flight", "key-object", "acquire", "bool", "token", "none")
EXPECTED = ("violation", "holds", "noted", "inconclusive", "failed")
ORIGINS = ("written", "lesson", "test", "wild")
SAMPLE = 24
"""Plain pytest judges one of so many lockers, `nox -s long` and .ci/run the rest too."""


class BadRowError(ValueError):
    """A manifest has a row that is not of the form at the top of catalogue.toml."""


@dataclass(frozen=True)
class Row:
    """A locker and what a checker has to say of it; the fields are those of catalogue.toml."""

    name: str
    factory: str
    expect: str
    clauses: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    shape: str = "lock"
    origin: str = "written"
    held_out: bool = False
    source: str = ""
    language: str = ""
    twin: str = ""
    note: str = ""
    demo: str = ""
    stop: str = ""

    def __post_init__(self) -> None:
        for field in fields(self):
            kind = {"bool": bool, "str": str}.get(str(field.type), tuple)
            if not isinstance(getattr(self, field.name), kind):
                raise BadRowError(f"{self.name}: {field.name} is not a {kind.__name__}")
        allowed = {"kind": KINDS, "shape": SHAPES, "expect": EXPECTED, "origin": ORIGINS}
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                raise BadRowError(f"{self.name}: its {name} is {getattr(self, name)!r}, not one of {', '.join(words)}")
        if bool(self.clauses) != (self.expect in ("violation", "noted")):
            raise BadRowError(f"{self.name}: a violation or a remark has clauses, and nothing else has")
        if (self.origin, self.expect) == ("wild", "violation") and not self.source:
            raise BadRowError(f"{self.name}: a bug found in the wild has a source")

    @property
    def kind(self) -> str:
        return self.name.partition(".")[0]

    @property
    def module(self) -> str:
        """The module of the factory, or the path of a file that can't be imported."""
        return self.factory.partition(":")[0]

    @property
    def attribute(self) -> str:
        """The name of the factory in its module."""
        return self.factory.partition(":")[2]

    @property
    def path(self) -> Path:
        """The file with its code."""
        return ROOT / (self.module if "/" in self.module else self.module.replace(".", "/") + ".py")


@functools.cache
def rows() -> dict[str, Row]:
    """All of them, by id. BadRowError: a manifest has one that is not of the form."""
    found: dict[str, Row] = {}
    for row in (*_written(), *_models(), *_lessons(), *_ports()):
        if found.setdefault(row.name, row) is not row:
            raise BadRowError(f"{row.name}: there are two of it")
    return found


def entries(**wanted: str | bool | tuple[str, ...]) -> list[Row]:
    """The rows whose fields are as wanted, in order; a tuple lists what a field may be. `kind` counts as a field."""
    return [
        row
        for row in rows().values()
        if all(
            getattr(row, name) in (value if isinstance(value, tuple) else (value,)) for name, value in wanted.items()
        )
    ]


def each(rows: list[Row], expect: str) -> pytest.MarkDecorator:
    """A test for each of these of which that is expected. All but every SAMPLE-th are marked as long."""
    chosen = [row for row in rows if row.expect == expect]
    sampled = pytest.mark.sampled(SAMPLE)
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.name, marks=sampled) for row in chosen])


def load(row: Row | str) -> Callable[[], Any]:
    """The factory of a row, given itself or by its id. ImportError: its code is not Python's to import."""
    row = rows()[row] if isinstance(row, str) else row
    if "/" in row.module:
        raise ImportError(f"{row.name} is in {row.module}")
    found: Callable[[], Any] = getattr(importlib.import_module(row.module), row.attribute)
    return found


def sentence(row: Row) -> str:
    """The note of a row of Python, from the docstring of its factory where the row has none."""
    factory = load(row)
    return row.note or (getattr(factory, "func", factory).__doc__ or "").strip()


def _written() -> Iterator[Row]:
    for manifest in sorted(HERE.glob("*.toml")):
        shared, tables = _split(tomllib.loads(manifest.read_text(encoding="utf-8")))
        for head, body in tables.items():
            if "." in head:
                yield _row(head, {**shared, **body})
                continue
            of_kind, modules = _split(body)
            for module, group in modules.items():
                of_module, named = _split(group)
                for name, own in named.items():
                    path, _, attribute = own.get("factory", name.rpartition(".")[2]).rpartition(":")
                    factory = f"{path or f'{HOME}.{module}'}:{attribute}"
                    row = _row(f"{head}.{name}", {**shared, **of_kind, **of_module, **own, "factory": factory})
                    yield from _twins(row) if row.origin == "wild" else (row,)


def _twins(bad: Row) -> Iterator[Row]:
    """A bug of the wild, and the same locker without it."""
    name, factory = f"{bad.name}Repaired", f"{bad.factory}Repaired"
    yield replace(bad, twin=name)
    yield replace(bad, name=name, factory=factory, expect="holds", clauses=(), twin=bad.name, note="")


def _split(table: dict[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The defaults that a table gives to what is in it, and the tables in it."""
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    return {key: value for key, value in table.items() if key not in inner}, inner


def _row(name: str, body: dict[str, Any]) -> Row:
    if odd := set(body) - {field.name for field in fields(Row)[1:]}:
        raise BadRowError(f"{name}: there is no field {', '.join(sorted(odd))}")
    if "factory" not in body:
        raise BadRowError(f"{name}: it lacks factory")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in body.items()}
    return Row(name, **{"expect": "violation" if values.get("clauses") else "holds", **values})


def _models() -> Iterator[Row]:
    from kmutex_model import flight
    from kmutex_model.broken import BROKEN

    yield Row("model.correct", "model/kmutex_model/actions.py:CORRECT", "holds", note="The table of the contract.")
    yield Row("model.flight", "model/kmutex_model/flight.py:FLIGHT", "holds", note="That of duplicate suppression.")
    for bad in flight.BROKEN:
        note = f"{bad.story[0].upper()}{bad.story[1:]}."
        place = f"model/kmutex_model/flight.py:{bad.model.name}"
        yield Row(f"model.{bad.model.name}", place, "violation", clauses=(bad.clause,), note=note)
    for name in dict.fromkeys(broken.model.name for broken in BROKEN):
        same = [broken for broken in BROKEN if broken.model.name == name]
        yield Row(
            f"model.{name}",
            f"model/kmutex_model/broken.py:{name}",
            "violation",
            clauses=tuple(broken.clause for broken in same),
            note=f"{same[0].story[0].upper()}{same[0].story[1:]}.",
        )


def _lessons() -> Iterator[Row]:
    from kmutex.teach.lesson import lessons
    from tests.lockers.repaired import REPAIRED

    twins = {row.attribute: row.name for row in _written() if row.module == f"{HOME}.repaired"}
    for lesson in lessons():
        yield Row(
            f"{lesson.kind}.{lesson.name}",
            lesson.target,
            "violation",
            clauses=(lesson.clause,),
            without=lesson.without,
            shape="lock" if lesson.kind == "threads" or lesson.plain or lesson.by else "single-flight",
            origin="lesson",
            twin=twins[REPAIRED[lesson.number].__name__],
            note=f"{lesson.title}.",
        )


def _ports() -> Iterator[Row]:
    """What `adapter --list-broken` of each port prints, from the source of it; tests/ports holds them side by side."""
    sources = {
        "cpp": "broken.hpp",
        "go": "cmd/adapter/broken.go",
        "java": "Broken.java",
        "js": "broken.js",
        "rust": "src/bin/adapter/broken.rs",
    }
    for port, source in sources.items():
        path = f"ports/{port}/{source}"
        for name, clauses in re.findall(r'"([a-z-]+)"[^"\n]*"(KM-[A-Z,-]+)"', (ROOT / path).read_text("utf-8")):
            yield Row(f"port.{port}.{name}", f"{path}:{name}", "violation", clauses=tuple(clauses.split(",")))


def main() -> None:
    prefix = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [row for row in rows().values() if row.name.startswith(prefix)]
    for row in chosen:
        print(row.name, row.expect, *row.clauses)
    sorts = Counter((row.kind, row.origin, "held out" if row.held_out else "", row.expect) for row in chosen)
    for sort, count in sorted(sorts.items()):
        print(f"{count:4}", *filter(None, sort))
    print(f"{len(chosen):4} in all")


if __name__ == "__main__":
    main()
