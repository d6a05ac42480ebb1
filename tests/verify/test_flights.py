"""`verify` of single flights: their clauses and no others, what is declared of them, and their schedules."""

from __future__ import annotations

import pytest

from kmutex._clauses import CLAUSES, FLIGHT_CLAUSES
from kmutex.engine.features import UnknownFeatureError, unpromised
from kmutex.selfcheck import model
from kmutex.selfcheck.everything import SUBJECTS
from kmutex.verify.evidence import Result, Row, exit_status
from kmutex.verify.runner import ReplayError, replay, verify

PLAIN = 3.0
"""Seconds in which a pass without preemptions is made; what is found is found by it."""


def checked(subject: str, *promises: str, without: tuple[str, ...] = (), seconds: float = PLAIN) -> list[Row]:
    """The rows, with more time as long as they say that there was too little."""
    while True:
        rows = verify(subject, without=without, promises=promises or None, seconds=seconds).rows
        if exit_status(rows) != 2 or seconds > 60:
            return rows
        seconds *= 3


def violated(rows: list[Row]) -> set[str]:
    return {row.clause for row in rows if row.result is Result.VIOLATED}


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
@pytest.mark.long
def test_a_flight_is_judged_by_the_clauses_of_flights(kind: str) -> None:
    """KM-ONE, KM-RESULT, KM-LEADER, KM-FOLLOWER, KM-FORGET, KM-APART, KM-RETURN: all hold, and no other is named."""
    rows = checked(f"tests.lockers.flights_{kind}:LockedFlight")
    assert exit_status(rows) == 0
    assert {row.clause for row in rows} - {"-"} == set(FLIGHT_CLAUSES)
    assert {row.clause for row in rows if row.result is Result.HOLDS} == set(FLIGHT_CLAUSES)


@pytest.mark.long
def test_a_lock_is_judged_by_the_clauses_of_locks() -> None:
    rows = verify("kmutex:KeyedMutex", seconds=PLAIN).rows
    assert {row.clause for row in rows} - {"-"} == set(CLAUSES)


def test_once_is_among_the_subjects_of_this_library() -> None:
    assert [subject for subject in SUBJECTS if "Once" in subject] == [
        "kmutex.selfcheck.flights:Once",
        "kmutex.selfcheck.flights:AsyncOnce",
    ]


@pytest.mark.parametrize("subject", ["Once", "AsyncOnce"])
@pytest.mark.long
def test_once_keeps_the_contract(subject: str) -> None:
    """KM-LEADER: by taking over, which it may be declared to do; it does not share."""
    subject = f"kmutex.selfcheck.flights:{subject}"
    assert exit_status(checked(subject, "takeover")) == 0
    assert violated(checked(subject, "share")) == {"KM-LEADER"}


@pytest.mark.long
def test_what_is_declared_counts() -> None:
    """KM-LEADER, KM-RESULT: cancelled together, and a cache; each is a violation where nothing is said of it."""
    cancels, cache = (
        "tests.lockers.flights_asyncio:FlightLeaderCancelsAll",
        "tests.lockers.flights_asyncio:FlightForgetsAtNextCall",
    )
    assert violated(checked(cancels)) == {"KM-LEADER"}
    assert violated(checked(cancels, "cancel")) == set()
    assert violated(checked(cache)) == {"KM-RESULT"}
    assert "KM-RESULT" not in violated(checked(cache, without=("fresh",)))


def test_what_excludes_itself_is_not_declared() -> None:
    with pytest.raises(UnknownFeatureError, match="takeover and share exclude each other"):
        unpromised(("share", "takeover"), "mypackage")
    with pytest.raises(UnknownFeatureError, match="may promise fifo, interrupt, loop, takeover, share, cancel"):
        unpromised(("heroics",), "mypackage")


def test_a_violation_is_replayed_from_its_schedule() -> None:
    """KM-FOLLOWER: with the same clauses, by the command that the report prints."""
    subject = "tests.lockers.flights_asyncio:FlightFollowerNotShielded"
    rows = checked(subject)
    violation = next(row for row in rows if row.result is Result.VIOLATED).violations[0]
    assert violation.clauses == ("KM-FOLLOWER",)
    assert violation.schedule.endswith(" @tasks")
    found, *_ = replay(subject, violation.schedule)
    assert [one.clauses for one in found] == [violation.clauses]


@pytest.mark.parametrize(
    ("subject", "schedule"),
    [("kmutex:KeyedMutex", "0da | 1ea @locks"), ("tests.lockers.flights_threads:SharingFlight", "0+a @locks-")],
)
def test_a_schedule_for_another_shape_does_not_fit(subject: str, schedule: str) -> None:
    with pytest.raises(ReplayError, match="a subject of another shape"):
        replay(subject, schedule)


@pytest.mark.long
def test_the_model_of_flights_has_a_row_for_each_clause() -> None:
    """KM-ONE, KM-RESULT, KM-LEADER, KM-FOLLOWER, KM-FORGET, KM-APART, KM-RETURN: and the known-bad are caught."""
    rows = model.check_flights()
    assert [row.clause for row in rows] == list(FLIGHT_CLAUSES)
    assert {row.result for row in rows} == {Result.HOLDS}
    assert all("shared and taken over" in row.bound and "known-bad caught" in row.bound for row in rows)
