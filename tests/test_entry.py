"""The rules of one key, by example. CrossHair shows their contracts for all values: tests/contracts."""

from __future__ import annotations

import pytest

from kmutex import Entry
from kmutex._entry import after_cancel, after_release, after_request


def test_refs_are_the_holder_and_the_waiters() -> None:
    """KM-REF"""
    assert [Entry(1, waiters).refs for waiters in ((), (2,), (2, 3))] == [1, 2, 3]


def test_an_entry_never_changes() -> None:
    """KM-REF"""
    with pytest.raises(AttributeError):
        Entry(1, ()).holder = 2  # type: ignore[misc]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, Entry(9, ())),
        (Entry(1, ()), Entry(1, (9,))),
        (Entry(1, (3, 2)), Entry(1, (3, 2, 9))),
    ],
)
def test_request(before: Entry | None, after: Entry) -> None:
    """KM-EXCL, KM-FIFO: a free key is the asker's; otherwise it waits behind everybody."""
    assert after_request(before, 9) == after


@pytest.mark.parametrize(
    ("oldest", "younger", "after"),
    [
        (None, (), None),
        (2, (), Entry(2, ())),
        (2, (4, 3), Entry(2, (4, 3))),
    ],
)
def test_release(oldest: int | None, younger: tuple[int, ...], after: Entry | None) -> None:
    """KM-HANDOFF, KM-IDLE: the oldest waiter holds, and without one nothing is left."""
    assert after_release(1, oldest, younger) == after


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [((), (), ()), ((2,), (), (2,)), ((), (3,), (3,)), ((5, 2), (4, 3), (5, 2, 4, 3))],
)
def test_cancel(before: tuple[int, ...], after: tuple[int, ...], left: tuple[int, ...]) -> None:
    """KM-CANCEL: the holder and the order of the others stay."""
    assert after_cancel(1, before, 9, after) == Entry(1, left)
