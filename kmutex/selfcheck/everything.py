"""Check the lockers of this library by every method: model, proof, contracts and refinement in addition to runs."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

from kmutex._console import Display
from kmutex.selfcheck import contracts, model, proof, refinement
from kmutex.verify.evidence import Row, Violation, shared
from kmutex.verify.progress import progress_of
from kmutex.verify.runner import Plan, verify

SUBJECTS = (
    "kmutex:KeyedMutex",
    "kmutex:AsyncKeyedMutex",
    "kmutex.selfcheck.flights:Once",
    "kmutex.selfcheck.flights:AsyncOnce",
)
"""`NoopLocker` is omitted: it promises no clause."""
_ON_PAPER: tuple[tuple[str, Callable[[], list[Row]]], ...] = (
    ("model", model.check),
    ("proof", proof.check),
    ("model of flights", model.check_flights),
    ("model of several keys", model.check_several),
    ("refinement", refinement.check),
    ("contracts", contracts.check),
)


def verify_everything(
    *,
    seconds: float,
    display: Display,
    jobs: int = 1,
    how: Plan = Plan(),  # noqa: B008
    on_violation: Callable[[str, Violation], None] = lambda subject, violation: None,
) -> list[Row]:
    """Return all rows. Checks that run no locker use a separate process meanwhile.

    The arguments are those of `kmutex.verify.runner.verify`; ``jobs`` is its number of workers.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        papers = [(name, pool.submit(check)) for name, check in _ON_PAPER]
        rows: list[Row] = []
        for subject in SUBJECTS:
            rows += verify(
                subject,
                seconds=seconds,
                workers=jobs,
                how=how,
                on_progress=progress_of(display, subject, seconds),
                on_violation=functools.partial(on_violation, subject),
            ).rows
        for name, paper in papers:
            display.say(f"{name} ...")
            rows += shared(paper.result())
    return rows
