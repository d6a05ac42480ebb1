"""A user's own lock: which clauses hold for any number of clients and keys, and a run for the others.

The file is Python. Either its `TABLE` has rows as in ``kmutex_model.actions``, with effects in the words of
``kmutex_model.turn``, and `PARTS` is its invariant, if that of the correct model is not its own. Or its `LOCK` is a
``kmutex_model.proof.lock.Lock``, with a state of its own. It runs in a confined process, as a locker does that
``kmutex verify`` is given.
"""

from __future__ import annotations

import _thread
import json
import os
import queue
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kmutex import _sandbox
from kmutex._text import said
from kmutex_model.actions import KEYED, UNKEYED, Model, Row, format_schedule
from kmutex_model.explore import Counterexample, explore
from kmutex_model.proof import lock as own
from kmutex_model.proof.invariant import PARTS, Part
from kmutex_model.proof.lock import Asked, Lock
from kmutex_model.proof.obligations import (
    GHOST,
    INVARIANT,
    LIVE,
    obligations,
    outside_the_fragment,
    refute,
    show,
    smallest,
)
from kmutex_model.proof.prove import CLAUSES, told
from kmutex_model.proof.solvers import Solver, solvers
from kmutex_model.properties import ALL, Property
from kmutex_model.state import Config

SIZES = ((2, 1), (3, 1), (2, 2))
"""The bounds at which a run that breaks a clause is searched for."""
MOST_STATES = 5_000
SECONDS = 600.0
"""The limit for a file, in real seconds and in processor time."""
LOADING = 60.0
"""The limit for loading it, in real seconds."""
MEGABYTES = 4096
"""The limit on address space, which includes the solvers."""
FOR_ONE = 5.0
"""The limit for one question, in seconds."""
ABSENT = "does not apply"


class TableError(Exception):
    """The file has no table that can be read. The message is one line."""


class OutOfTimeError(Exception):
    """It took too long. The message is one line."""


class Judged(NamedTuple):
    """The result for one clause of a user's lock.

    result  "proved" for any size; "violated", with a run; "not proved", with a state from which a step is wrong, to
            which perhaps no run leads; or "does not apply", with the reason that the file gives
    """

    clause: str
    obligations: int
    result: str
    said: str = ""
    run: str = ""
    seconds: float = 0.0


def load(path: Path) -> tuple[Model, tuple[Part, ...]] | Lock:
    """Return the table of a file and its invariant, or its lock; raise TableError if it has neither."""
    try:
        found = runpy.run_path(str(path), run_name="kmutex_table")
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or said(error)}") from None
    except BaseException as error:
        raise TableError(f"{path}: {said(error)}") from None
    if "LOCK" in found:
        if not isinstance(found["LOCK"], Lock):
            raise TableError(f"{path}: LOCK must be a kmutex_model.proof.lock.Lock")
        return found["LOCK"]
    table, parts = found.get("TABLE"), found.get("PARTS", PARTS)
    if not isinstance(table, tuple) or not table or not all(isinstance(row, Row) for row in table):
        raise TableError(f"{path}: TABLE must be a tuple of kmutex_model.actions.Row (or LOCK a lock)")
    if not isinstance(parts, tuple) or not all(isinstance(part, Part) for part in parts):
        raise TableError(f"{path}: PARTS must be a tuple of kmutex_model.proof.invariant.Part")
    for row in table:
        if row.action not in (*KEYED, *UNKEYED):
            raise TableError(f"{path}: {row.action!r} is not an action; they are {', '.join((*KEYED, *UNKEYED))}")
    return Model(path.stem, table), parts


# ------------------------------------------------------------------------------------------------------------
# Judging, in the process that has loaded it


def judge(
    model: Model, parts: tuple[Part, ...], names: Sequence[str] | None, say: Callable[[str], None]
) -> Iterator[Judged]:
    """Each clause of a table. NoSolverError: a solver is not installed. TableError: an effect can't be run."""
    by = solvers(names)
    try:
        every = [Asked(one) for one in obligations(model, parts)]
        runs = _runs(model)
    except Exception as error:
        raise TableError(f"an effect of {model.name} can't be read as a relation: {said(error)}") from None
    found = _Shown(every, by, say)
    for clause in (INVARIANT, GHOST, *CLAUSES):
        yield found.row(clause, runs.get(clause))


def judge_lock(lock: Lock, names: Sequence[str] | None, say: Callable[[str], None]) -> Iterator[Judged]:
    """Each clause of a lock with a state of its own. TableError: a formula or a move can't be read."""
    by = solvers(names)
    try:
        every = list(own.obligations(lock))
        say("runs")
        played = own.explored(lock, SIZES, MOST_STATES)
        given = own.given_of_finite(lock, by[0])
    except own.LockError as error:
        raise TableError(f"LOCK: {error}") from None
    except Exception as error:
        raise TableError(f"LOCK can't be read as relations: {said(error)}") from None
    found = _Shown(every, by, say, lock)
    if played.never:
        found.failing.setdefault(INVARIANT, (f"never taken at {SIZES}", ", ".join(played.never)))
    if given:
        found.failing.setdefault(LIVE, (given[0], ""))
    clauses = dict.fromkeys((INVARIANT, *([GHOST] if lock.counts else []), *CLAUSES))
    clauses.update(dict.fromkeys(claim.clause for claim in lock.claims))
    for clause in clauses:
        if clause in lock.absent and clause not in played.broken:
            yield Judged(clause, 0, ABSENT, lock.absent[clause])
        else:
            run = played.broken.get(clause)
            yield found.row(clause, (run.said, run.run) if run else None)


class _Shown:
    """The solvers' answers, by clause."""

    def __init__(
        self, every: Sequence[Asked], by: Sequence[Solver], say: Callable[[str], None], lock: Lock | None = None
    ) -> None:
        self.failing: dict[str, tuple[str, str]] = {}
        """By clause that was not proved: the obligation and the state."""
        self._counts: dict[str, int] = {}
        self._spent: dict[str, float] = {}
        for number, asked in enumerate(every):
            one, started = asked.obligation, time.perf_counter()
            say(f"obligation {number + 1} of {len(every)}: {one.clause}")
            result = show(one, by, seconds=FOR_ONE).result
            if fault := outside_the_fragment(one):
                self.failing.setdefault(one.clause, (one.name, f"not in the decidable fragment: {fault}"))
            elif result != "proved" and one.clause not in self.failing:
                self.failing[one.clause] = one.name, self._state(asked, by, lock) or f"the solvers say: {result}"
            self._counts[one.clause] = self._counts.get(one.clause, 0) + 1
            self._spent[one.clause] = self._spent.get(one.clause, 0.0) + time.perf_counter() - started

    @staticmethod
    def _state(asked: Asked, by: Sequence[Solver], lock: Lock | None) -> str:
        one = asked.obligation
        if lock is None:
            found = refute(one, by)
            return told(one, found[1]) if found else ""
        structure = smallest(one, by[0])
        if structure is None:
            return ""
        fault = own.replayed(lock, asked, structure)
        return own.told(lock, structure) + (f"; but it can't be replayed: {fault}" if fault else "")

    def row(self, clause: str, run: tuple[str, str] | None) -> Judged:
        mine, spent = self._counts.get(clause, 0), self._spent.get(clause, 0.0)
        # If a part of the invariant is not kept, a clause that uses it is not proved, even if its obligations are.
        unkept = next((self.failing[name] for name in (INVARIANT, GHOST) if name in self.failing), None)
        if run:
            return Judged(clause, mine, "violated", *run, spent)
        if failed := self.failing.get(clause) or unkept:
            return Judged(clause, mine, "not proved", "\n  ".join(failed), "", spent)
        if not mine:
            return Judged(clause, mine, "not proved", "no action of the lock is about it")
        return Judged(clause, mine, "proved", "", "", spent)


def _runs(model: Model) -> dict[str, tuple[str, str]]:
    """By clause what is wrong, and a shortest run that shows it, in any race. Each property is looked at by itself:
    a table that breaks one clause from the start is to be judged by the others all the same."""
    found: dict[str, tuple[str, str]] = {}
    for prop in ALL:
        for clients, keys in SIZES:
            for race in ("keep", "pass"):
                if prop.clause not in found:
                    config = Config(clients, keys, race)
                    for violation in _violations(model, config, prop):
                        cycle = violation.cycle
                        ends = "" if cycle is None else f"; and forever: {format_schedule(cycle) or 'nothing'}"
                        text = f"{clients}x{keys} {race}: {format_schedule(violation.path)}{ends}"
                        found[prop.clause] = violation.message, text
    return found


def _violations(model: Model, config: Config, prop: Property) -> list[Counterexample]:
    try:
        seen = explore(model, config, properties=(prop,), max_states=MOST_STATES)
    except AssertionError:
        # After a mistake that this property allows, an effect may fail. So such steps are not followed.
        seen = explore(model, config, properties=ALL, max_states=MOST_STATES)
    return [violation for violation in seen.violations if violation.clause == prop.clause]


# ------------------------------------------------------------------------------------------------------------
# The confined process, and its parent


def judged(
    path: Path, names: Sequence[str] | None, say: Callable[[str], None], *, seconds: float = SECONDS
) -> Iterator[Judged]:
    """Each clause of the lock in that file, which is loaded and judged in a confined process.

    names: of solvers, by default all that are installed. TableError: no table can be read, or the file left its
    process.
    OutOfTimeError: it took more than `seconds`.
    """
    solvers(names)  # What is missing is said before any work.
    if not path.is_file():
        raise TableError(f"{path}: there is no such file")
    config = {"file": str(path.absolute()), "solvers": names, "confine": {"megabytes": MEGABYTES, "seconds": seconds}}
    process = _sandbox.start(
        "kmutex.selfcheck.own_table",
        config,
        folder=path.absolute().parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    answers: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(process, answers), daemon=True).start()
    ends = time.monotonic() + min(LOADING, seconds)
    try:
        while True:
            try:
                answer = answers.get(timeout=max(0.0, ends - time.monotonic()))
            except queue.Empty:
                raise OutOfTimeError(f"{path}: stopped after {seconds:g} s, or {LOADING:g} s to read it") from None
            kind = answer.pop("kind")
            if kind == "loaded":
                ends = time.monotonic() + seconds
            elif kind == "at":
                say(answer["text"])
            elif kind == "row":
                yield Judged(**answer)
            elif kind == "error":
                raise TableError(answer["text"])
            elif kind == "done":
                return
            else:
                raise TableError(f"{path}: the file left its process, or had too little memory or processor time")
    finally:
        _sandbox.kill(process)


def _listen(process: subprocess.Popen[str], answers: queue.Queue[dict[str, Any]]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        answers.put(json.loads(line))
    answers.put({"kind": "gone"})


def main() -> None:
    """Judge a file. `argument`: file, solvers, parent, and confine."""
    config = _sandbox.argument()
    _thread.start_new_thread(_sandbox.end_with, (config["parent"],))
    # What the file prints is not an answer.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)

    def tell(kind: str, **more: Any) -> None:
        print(json.dumps({"kind": kind, **more}), file=out, flush=True)

    solvers(config["solvers"])
    _sandbox.confine(**config["confine"])
    path = Path(config["file"])
    sys.path.insert(0, str(path.parent))
    try:
        found = load(path)
        tell("loaded")

        def say(text: str) -> None:
            tell("at", text=text)

        rows = (
            judge_lock(found, config["solvers"], say)
            if isinstance(found, Lock)
            else judge(*found, config["solvers"], say)
        )
        for row in rows:
            tell("row", **row._asdict())
        tell("done")
    except TableError as error:
        tell("error", text=str(error))
