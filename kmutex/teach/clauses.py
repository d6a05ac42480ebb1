"""The text of the clauses of the contract, from specs/clauses.toml."""

from __future__ import annotations

import functools
import sys
from typing import NamedTuple

from kmutex import _specs

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Clause(NamedTuple):
    """One clause."""

    id: str
    title: str
    statement: str


@functools.cache
def clauses() -> dict[str, Clause]:
    """Return the clauses by id."""
    every = tomllib.loads(_specs.read("clauses.toml"))["clause"]
    return {row["id"]: Clause(row["id"], row["title"], row["statement"]) for row in every}


def clause_of(name: str) -> Clause:
    """The clause with this id."""
    return clauses()[name]
