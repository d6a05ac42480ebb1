"""The lockers of this library, by every method: model, proof, contracts and refinement beside the runs."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from kmutex._console import Display
from kmutex.selfcheck import contracts, model, proof, refinement
from kmutex.verify.evidence import Row
from kmutex.verify.progress import progress_of
from kmutex.verify.runner import verify

SUBJECTS = ("kmutex:KeyedMutex", "kmutex:AsyncKeyedMutex")
"""`NoopLocker` is left out: it promises no clause."""
_ON_PAPER: tuple[tuple[str, Callable[[], list[Row]]], ...] = (
    ("model", model.check),
    ("proof", proof.check),
    ("refinement", refinement.check),
    ("contracts", contracts.check),
)


def verify_everything(*, seconds: float, display: Display) -> tuple[list[str], list[Row]]:
    """The subjects and all rows. What needs no running locker goes on in a process of its own meanwhile."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        papers = [(name, pool.submit(check)) for name, check in _ON_PAPER]
        rows: list[Row] = []
        for subject in SUBJECTS:
            rows += verify(subject, seconds=seconds, workers=1, on_progress=progress_of(display, subject, seconds)).rows
        for name, paper in papers:
            display.say(f"{name} ...")
            rows += paper.result()
    return list(SUBJECTS), rows
