"""From samples to figures: how each subject stands in each row, beside the floor and beside this library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from lockers import OURS, Subject
from span import Span
from workloads import Row

WITHIN = 3.0
"""The goal for an uncontended lock, as a multiple of the floor."""
FLAT = 3.0
"""The most that a cancel among the most waiters may cost beside one among the fewest, to be called flat. Where waiters
are walked over, a hundred times as many cost a hundred times as much."""


@dataclass(frozen=True)
class Sample:
    """One figure, for one operation: seconds, bytes or instructions. floor: the floor's in the same pass, if timed.

    times: how often the work was done for it.
    """

    kind: str
    row: str
    subject: str
    round: int
    turn: int
    figure: float
    floor: float | None
    times: int = 0


@dataclass(frozen=True)
class Standing:
    """What the samples say of one subject in one row.

    times: how often the work was done for a figure, at least. to_floor, to_ours: the figure divided by the floor's and
    by this library's in the same pass; None where there is none, or it is 0.
    """

    kind: str
    row: str
    subject: str
    samples: int
    times: int
    figure: Span
    to_floor: Span | None
    to_ours: Span | None


def standings(samples: Sequence[Sample]) -> Iterator[Standing]:
    """In the order in which row and subject first appear."""
    ours = {
        (one.kind, one.row, one.round, one.turn): one.figure for one in samples if one.subject == OURS and one.figure
    }
    for cell in dict.fromkeys((one.kind, one.row, one.subject) for one in samples):
        kept = [one for one in samples if (one.kind, one.row, one.subject) == cell]
        own = [(one.figure, ours.get((one.kind, one.row, one.round, one.turn))) for one in kept]
        yield Standing(
            *cell,
            samples=len(kept),
            times=min(one.times for one in kept),
            figure=Span.of(one.figure for one in kept),
            to_floor=_span(one.figure / one.floor for one in kept if one.floor),
            to_ours=_span(figure / mine for figure, mine in own if mine),
        )


@dataclass(frozen=True)
class Goal:
    """One thing that was to be reached, and the figure that says whether it was."""

    kind: str
    row: str
    what: str
    met: bool
    figure: str


def goals(rows: Sequence[Row], subjects: Sequence[Subject], found: Sequence[Standing]) -> list[Goal]:
    """Ahead of every peer in each row, within `WITHIN` floors where nobody waits, flat in the number of waiters."""
    peers = {(one.kind, one.name) for one in subjects if one.peer}
    at = {(one.kind, one.row, one.subject): one for one in found}
    result = []
    for row in rows:
        mine = at.get((row.kind, row.name, OURS))
        if mine is None:
            continue
        others = [
            one for one in found if (one.kind, one.row) == (row.kind, row.name) and (one.kind, one.subject) in peers
        ]
        if others:
            best = min(others, key=lambda one: one.figure.median)
            beside = best.to_ours.median if best.to_ours else None
            result.append(
                Goal(
                    row.kind,
                    row.title,
                    "ahead of every peer" if not row.counted else "no more than any peer",
                    # Nothing at all is as good as can be.
                    mine.figure.median == 0 or (beside is not None and beside >= 1),
                    f"{best.subject}: {'nothing' if beside is None else f'{beside:.2f} x kmutex'}",
                )
            )
        if row.within and mine.to_floor:
            multiple = mine.to_floor.median
            result.append(
                Goal(row.kind, row.title, f"within {WITHIN:g} x the floor", multiple <= WITHIN, f"{multiple:.2f} x")
            )
    for kind, reference in WAITING_BESIDE.items():
        ours, base = growth(found, kind, OURS), growth(found, kind, reference)
        if ours is None:
            continue
        allowed = base.factor if base else 1.0
        figure = f"{ours.factor:.2f} x" + (f"; {reference} {allowed:.2f} x" if base else "")
        what = f"cancel, {ours.most:,} waiters beside {ours.fewest:,}"
        result.append(Goal(kind, what, "flat", ours.factor <= FLAT * max(1.0, allowed), figure))
    return result


WAITING_BESIDE = {"threads": "defaultdict(Lock)", "asyncio": ""}
"""Beside what a cancel is flat: for threads beside a lock whose waiters queue in the kernel, as so many threads cost
more whatever they wait for; for tasks beside nothing."""


class Growth(NamedTuple):
    """How many times as much a cancel costs among the most waiters as among the fewest."""

    fewest: int
    most: int
    factor: float


def growth(found: Sequence[Standing], kind: str, subject: str) -> Growth | None:
    queues = sorted(
        (int(one.row.partition("-")[2]), one.figure.median)
        for one in found
        if (one.kind, one.subject) == (kind, subject) and one.row.startswith("cancel-")
    )
    if len(queues) < 2:
        return None
    return Growth(queues[0][0], queues[-1][0], queues[-1][1] / queues[0][1])


def _span(figures: Iterable[float]) -> Span | None:
    kept = list(figures)
    return Span.of(kept) if kept else None
