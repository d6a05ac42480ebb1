"""The proof for any number of clients and keys, as rows of evidence.

The obligations are solved in one process, the controls and the tie in another. See ``kmutex_model.proof``.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from kmutex.verify.evidence import Result, Row, Violation
from kmutex_model.proof.prove import CLAUSES, ControlLine, Obligations, check_controls, check_tie, fault_of, prove
from kmutex_model.proof.solvers import NoSolverError
from kmutex_model.proof.tie import BOUNDS, Tie

METHOD = "proof"


class Proof(NamedTuple):
    """The results of obligations, controls and tie, and the time."""

    shown: Obligations
    caught: list[ControlLine]
    tied: Tie
    seconds: float


def whole(names: Sequence[str] | None = None, say: Callable[[str], None] = lambda text: None) -> Proof:
    """Run obligations, controls and tie, with these solvers or all that are installed; may raise NoSolverError."""
    started = time.perf_counter()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        beside = pool.submit(_beside, names)
        shown = prove(names=names, say=say)
        say("known-bad models and the tie")
        caught, tied = beside.result()
    return Proof(shown, caught, tied, time.perf_counter() - started)


def _beside(names: Sequence[str] | None) -> tuple[list[ControlLine], Tie]:
    return check_controls(names), check_tie()


def check() -> list[Row]:
    """Return one row for each clause of the model. Without a solver, all are inconclusive and say what to install."""
    try:
        return rows(whole())
    except NoSolverError as error:
        return [Row(clause, METHOD, "-", 0, Result.INCONCLUSIVE, 0.0, str(error), "kmutex_model") for clause in CLAUSES]


def rows(proof: Proof) -> list[Row]:
    """Return the proof clause by clause. `cases` counts the obligations."""
    return [_row(clause, proof) for clause in CLAUSES]


def _row(clause: str, proof: Proof) -> Row:
    mine = [line for line in proof.shown.lines if line.clause == clause]
    known_bad = [line for line in proof.caught if line.clause == clause]
    said, detail = fault_of(clause, proof.shown, proof.caught, proof.tied)
    caught = sum(not line.fault for line in known_bad)
    bounds = " and ".join(f"{clients} x {keys}" for clients, keys in BOUNDS)
    words = [
        "any number of clients and keys, both races",
        " and ".join(proof.shown.solvers),
        f"tied to the model at {bounds}",
        f"{caught} of {len(known_bad)} known-bad refuted",
    ]
    result = Result(said)
    return Row(
        clause=clause,
        method=METHOD,
        bound=", ".join(words),
        cases=len(mine),
        result=result,
        seconds=sum(sum(line.seconds.values()) for line in mine),
        detail=detail,
        subject="kmutex_model",
        violations=(Violation((clause,), detail),) if result is Result.VIOLATED else (),
    )
