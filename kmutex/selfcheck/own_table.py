"""A user's own action table: which clauses hold for any number of clients and keys, and a run for the others.

The file is Python. Its `TABLE` has rows as in ``kmutex_model.actions``, with effects in the words of
``kmutex_model.turn``. `PARTS` is its invariant, if that of the correct model is not its own.
"""

from __future__ import annotations

import runpy
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from kmutex._text import said
from kmutex_model.actions import KEYED, UNKEYED, Model, Row, format_schedule
from kmutex_model.explore import explore
from kmutex_model.proof.invariant import PARTS, Part
from kmutex_model.proof.obligations import GHOST, INVARIANT, obligations, refute, show
from kmutex_model.proof.prove import CLAUSES, told
from kmutex_model.proof.solvers import solvers
from kmutex_model.properties import ALL
from kmutex_model.state import Config

SIZES = ((2, 1), (3, 1), (2, 2))
"""Where a run that breaks a clause is looked for."""
MOST_STATES = 5_000


class TableError(Exception):
    """The file has no table that can be read. One line."""


class Judged(NamedTuple):
    """One clause of a user's table.

    result  "proved" for any size; "violated", with a run; or "not proved", with a state from which a step is wrong,
            to which perhaps no run leads
    """

    clause: str
    obligations: int
    result: str
    said: str = ""
    run: str = ""
    seconds: float = 0.0


def load(path: Path) -> tuple[Model, tuple[Part, ...]]:
    """The table of a file, and its invariant. TableError: there is none."""
    try:
        found = runpy.run_path(str(path), run_name="kmutex_table")
    except OSError as error:
        raise TableError(f"{path}: {error.strerror}") from None
    except BaseException as error:
        raise TableError(f"{path}: {said(error)}") from None
    table, parts = found.get("TABLE"), found.get("PARTS", PARTS)
    if not isinstance(table, tuple) or not table or not all(isinstance(row, Row) for row in table):
        raise TableError(f"{path}: TABLE is to be a tuple of kmutex_model.actions.Row")
    if not isinstance(parts, tuple) or not all(isinstance(part, Part) for part in parts):
        raise TableError(f"{path}: PARTS is to be a tuple of kmutex_model.proof.invariant.Part")
    for row in table:
        if row.action not in (*KEYED, *UNKEYED):
            raise TableError(f"{path}: {row.action!r} is no action; they are {', '.join((*KEYED, *UNKEYED))}")
    return Model(path.stem, table), parts


def judge(
    model: Model, parts: tuple[Part, ...], names: Sequence[str] | None, say: Callable[[str], None]
) -> list[Judged]:
    """Each clause. NoSolverError: a solver is not installed. TableError: an effect can't be run."""
    by = solvers(names)
    try:
        every = list(obligations(model, parts))
    except Exception as error:
        raise TableError(f"an effect of {model.name} can't be read as a relation: {said(error)}") from None
    failing: dict[str, tuple[str, str]] = {}
    spent: dict[str, float] = {}
    for number, one in enumerate(every):
        say(f"obligation {number + 1} of {len(every)}: {one.clause}")
        started = time.perf_counter()
        result = show(one, by, seconds=5.0).result
        if result != "proved" and one.clause not in failing:
            found = refute(one, by)
            failing[one.clause] = one.name, told(one, found[1]) if found else f"the solvers say: {result}"
        spent[one.clause] = spent.get(one.clause, 0.0) + time.perf_counter() - started
    say("runs")
    runs = _runs(model)
    # What rests on a part that is not kept is not proved, even if each of its own obligations is.
    unkept = next((failing[clause] for clause in (INVARIANT, GHOST) if clause in failing), None)
    rows = []
    for clause in (INVARIANT, GHOST, *CLAUSES):
        mine = sum(one.clause == clause for one in every)
        told_ = failing.get(clause) or unkept
        if clause in runs:
            rows.append(Judged(clause, mine, "violated", *runs[clause], spent.get(clause, 0.0)))
        elif told_ is None and mine:
            rows.append(Judged(clause, mine, "proved", "", "", spent[clause]))
        else:
            what, state = told_ or ("no row of the table speaks of it", "")
            rows.append(Judged(clause, mine, "not proved", f"{what}\n  {state}", "", spent.get(clause, 0.0)))
    return rows


def _runs(model: Model) -> dict[str, tuple[str, str]]:
    """By clause what is wrong, and a shortest run that shows it, in any race. Each property is looked at by itself:
    a table that breaks one clause from the start is to be judged by the others all the same."""
    found: dict[str, tuple[str, str]] = {}
    for prop in ALL:
        for clients, keys in SIZES:
            for race in ("keep", "pass"):
                if prop.clause in found:
                    continue
                config = Config(clients, keys, race)
                seen = explore(model, config, properties=(prop,), max_states=MOST_STATES)
                for violation in seen.violations:
                    cycle = violation.cycle
                    ends = "" if cycle is None else f"; and for ever: {format_schedule(cycle) or 'nothing'}"
                    text = f"{clients}x{keys} {race}: {format_schedule(violation.path)}{ends}"
                    found[prop.clause] = violation.message, text
    return found
