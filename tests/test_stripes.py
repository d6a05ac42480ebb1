"""What the mutex in stripes does beside test_drivers.py and test_interrupts.py, which run on it as well."""

from __future__ import annotations

import inspect
import io
import threading
from collections.abc import Callable, Hashable

import pytest

from kmutex._core import LockTable
from kmutex._lease import NO_TICKET
from kmutex._stripes import _NAMES, FOR_A_STRIPE, STRIPES, StripedMutex, _Tables
from kmutex._threads import UntypedMutex
from kmutex.trace import StepLog
from tests.driver import free_guards


def stripes_in_use(mutex: StripedMutex) -> list[int]:
    return [number for number, table in enumerate(mutex._mutex._table._tables) if len(table)]  # type: ignore[attr-defined]


def test_equal_keys_are_one_key_and_others_are_spread() -> None:
    """KM-EXCL, KM-INDEP: hashes that are multiples of a power of two, often those of objects, use every stripe."""
    mutex = StripedMutex()
    mutex.lock(1)
    for equal in (1.0, True):
        with pytest.raises(TimeoutError):
            mutex.lock(equal, timeout=0)
    assert len(stripes_in_use(mutex)) == 1
    keys = range(64, 64 + 64 * STRIPES, 64)
    for key in keys:
        assert key not in mutex
        mutex.lock(key)
        assert key in mutex
    assert len(stripes_in_use(mutex)) == STRIPES


def test_what_is_about_all_keys_is_done_under_every_guard() -> None:
    """KM-REF, KM-ALL: so it is one moment of the table."""
    mutex = StripedMutex()
    assert free_guards(mutex) == [True] * STRIPES
    assert mutex._mutex._seen(lambda: free_guards(mutex)) == [False] * STRIPES

    class Looks(LockTable):
        def __len__(self) -> int:
            seen.append(free_guards(mutex))
            return 0

    seen: list[list[bool]] = []
    mutex._mutex._table._tables[-1] = Looks()  # type: ignore[attr-defined]
    assert len(mutex) == 0
    assert seen == [[False] * STRIPES]
    assert free_guards(mutex) == [True] * STRIPES


def test_no_two_stripes_issue_the_same_ticket() -> None:
    """KM-ALL, KM-TOKEN: a ticket of hold_all stands in several tables."""
    mutex = StripedMutex()
    for key in range(STRIPES):
        mutex.lock(key)
    several = range(STRIPES, 2 * STRIPES)
    with mutex.hold_all(several):
        holders = {key: entry.holder for key, entry in mutex.snapshot().items()}
    assert holders == {key: NO_TICKET + 1 + min(key, STRIPES) * FOR_A_STRIPE for key in range(2 * STRIPES)}


def test_the_table_of_the_key_is_told_the_reason() -> None:
    class Noting(LockTable):
        """Keeps the reasons that it is given."""

        def __init__(self) -> None:
            super().__init__()
            self.reasons: list[str] = []

        def cancel(self, key: Hashable, ticket: int, why: str = "") -> bool:
            self.reasons.append(why)
            return True

        def withdraw(self, key: Hashable, ticket: int, why: str = "") -> None:
            self.reasons.append(why)

    parts = [Noting(), Noting()]
    tables = _Tables([*parts])
    calls: tuple[Callable[..., object], ...] = (tables.cancel, tables.withdraw)
    for call in calls:
        call("k", 1)
        call("k", 1, "refused")
    assert sorted(part.reasons for part in parts) == [[], ["timeout", "refused", "cancelled", "refused"]]


def test_help_says_what_it_says_of_one_table() -> None:
    for name in ("lock", "unlock", "hold", "__len__"):
        assert inspect.getdoc(getattr(StripedMutex, name)) == inspect.getdoc(getattr(UntypedMutex, name))


def test_a_lease_keeps_the_whole_mutex() -> None:
    mutex = StripedMutex()
    assert mutex.hold("k")._owner is mutex
    assert mutex.hold_all(["k", "l"])._owner is mutex


def test_hold_all_takes_the_guards_of_its_keys_in_the_order_of_the_stripes() -> None:
    """KM-ALL, KM-INDEP: in whatever order they are named; and no other guard."""
    mutex = StripedMutex()
    keys = [5, 2, 2 + STRIPES, 9]
    several = mutex.hold_all(keys)._mutex
    assert several._guard._guards == [mutex._mutex._guard._guards[number] for number in (2, 5, 9)]


def test_a_log_has_the_steps_of_all_keys() -> None:
    """There is one stripe then, since the lines have one order."""
    log = io.StringIO()
    mutex = StripedMutex(record=StepLog(log))
    for key in "abc":
        with mutex.hold(key):
            pass
    assert len({id(getattr(mutex, name)) for name in _NAMES}) == 1
    assert [line.count('"grant"') for line in log.getvalue().splitlines()].count(1) == 3


def test_who_holds_a_key_is_known() -> None:
    mutex = StripedMutex(diagnose=True)
    mutex.lock("a")
    owner = mutex.owner("a")
    assert owner is not None
    assert owner.name == f"thread {threading.current_thread().name!r}"


def test_a_key_that_is_not_hashable_is_refused_before_the_block() -> None:
    """KM-ATOMIC"""
    mutex = StripedMutex()
    for call in (mutex.lock, mutex.unlock, mutex.hold):
        with pytest.raises(TypeError, match="unhashable"):
            call([])
    assert len(mutex) == 0
