"""From samples to figures: a row for each way and number of pulls at once, and whether the goal is met."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from span import Span

# The goal, for pulls at once under suppression.
GOAL_AT_ONCE = 20
GOAL_RATIO = 1.1
GOAL_WAY = "suppress"
BASELINE_WAY = "none"


@dataclass(frozen=True)
class Sample:
    """One measurement: so many pulls of one image at once, into an empty store.

    seconds: from the common start until the last pull returned. requests: GETs for each blob of the image, from the
    registry's log. unpacks: for each chain id. failed_commits: unpacks that came too late. retries: of fetches
    that found the blob being written.
    """

    way: str
    at_once: int
    round: int
    seconds: float
    requests: Mapping[str, int]
    unpacks: Mapping[str, int]
    failed_commits: int
    retries: int


@dataclass(frozen=True)
class Row:
    """What the rounds say of one way with so many pulls at once.

    ratio: seconds divided by those of one pull in the same way and the same round. requests and unpacks span all
    blobs and all chain ids of all rounds.
    """

    way: str
    at_once: int
    rounds: int
    seconds: Span
    ratio: Span
    requests: Span
    unpacks: Span
    failed_commits: Span
    retries: Span


@dataclass(frozen=True)
class Goal:
    """Whether suppression does what it is for.

    once: under suppression each blob was asked for exactly once and each chain id unpacked exactly once, in every
    sample. contended: without suppression some blob was asked for more than once, so the counts could have been
    higher. ratio: of GOAL_AT_ONCE pulls to one, None if that was not measured.
    """

    once: bool
    contended: bool
    ratio: float | None

    @property
    def fast(self) -> bool | None:
        return None if self.ratio is None else self.ratio <= GOAL_RATIO


def rows(samples: Sequence[Sample]) -> Iterator[Row]:
    """In the order in which way and number first appear. ValueError: a round lacks its one pull."""
    one_pull = {(sample.way, sample.round): sample.seconds for sample in samples if sample.at_once == 1}
    for way, at_once in dict.fromkeys((sample.way, sample.at_once) for sample in samples):
        cell = [sample for sample in samples if (sample.way, sample.at_once) == (way, at_once)]
        if missing := {sample.round for sample in cell if (way, sample.round) not in one_pull}:
            raise ValueError(f"no single pull of {way!r} in rounds {sorted(missing)}")
        yield Row(
            way=way,
            at_once=at_once,
            rounds=len(cell),
            seconds=Span.of(sample.seconds for sample in cell),
            ratio=Span.of(sample.seconds / one_pull[way, sample.round] for sample in cell),
            requests=Span.of(count for sample in cell for count in sample.requests.values()),
            unpacks=Span.of(count for sample in cell for count in sample.unpacks.values()),
            failed_commits=Span.of(sample.failed_commits for sample in cell),
            retries=Span.of(sample.retries for sample in cell),
        )


def goal(samples: Sequence[Sample]) -> Goal:
    """What the samples say of the goal. Nothing measured under suppression is not ``once``."""
    suppressed = [sample for sample in samples if sample.way == GOAL_WAY]
    counts = [count for sample in suppressed for count in (*sample.requests.values(), *sample.unpacks.values())]
    ratios = [row.ratio.median for row in rows(samples) if row.way == GOAL_WAY and row.at_once == GOAL_AT_ONCE]
    return Goal(
        once=bool(counts) and set(counts) == {1},
        contended=any(
            count > 1 for sample in samples if sample.way == BASELINE_WAY for count in sample.requests.values()
        ),
        ratio=ratios[0] if ratios else None,
    )
