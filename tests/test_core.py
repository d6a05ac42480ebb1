"""The lock table by itself: no threads, no loop; a waker here is the name of the one who waits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import pytest

from kmutex import Entry, KMutexError, UnheldKeyError
from kmutex._core import LockTable
from kmutex._stripes import _Tables
from tests.driver import in_python


@pytest.fixture(autouse=True, params=["one table", pytest.param("tables of stripes", marks=in_python)])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test is of both."""
    if request.param != "one table":
        one = LockTable
        monkeypatch.setitem(globals(), "LockTable", lambda: _Tables([one() for _ in range(3)]))


def queue_of(*tickets: int, key: str = "k") -> LockTable:
    """A table in which ``tickets`` have asked for ``key`` in this order; the waker of ticket 2 is "w2"."""
    table: LockTable = LockTable()
    for ticket in tickets:
        table.request(key, ticket, partial("w{}".format, ticket))
    return table


def never() -> str:
    raise AssertionError("a granted request needs no waker")


def test_a_free_key_is_granted_without_a_waker() -> None:
    """KM-EXCL, KM-REF"""
    table: LockTable = LockTable()
    assert table.request("k", 7, never) is None
    assert table.entry("k") == Entry(7, ())
    assert table.entry("k").refs == 1  # type: ignore[union-attr]


def test_a_held_key_queues_in_the_order_of_requests() -> None:
    """KM-EXCL, KM-FIFO, KM-REF: tickets are names; their size says nothing about who was first."""
    table: LockTable = LockTable()
    assert table.request("k", 5, never) is None
    assert table.request("k", 9, lambda: "nine") == "nine"
    assert table.request("k", 2, lambda: "two") == "two"
    entry = table.entry("k")
    assert entry == Entry(holder=5, waiters=(9, 2))
    assert entry.refs == 3


def test_the_holder_is_known_and_how_it_is_woken() -> None:
    """KM-HANDOFF, KM-TOKEN: whoever never waited has no waker."""
    table = queue_of(1, 2)
    assert (table.holds("k", 1), table.holds("k", 2), table.waker("k")) == (True, False, None)
    table.release("k")
    assert (table.holds("k", 1), table.holds("k", 2), table.waker("k")) == (False, True, "w2")
    assert (table.holds("other", 2), table.waker("other")) == (False, None)


def test_release_hands_over_to_the_oldest_and_returns_its_waker() -> None:
    """KM-HANDOFF, KM-FIFO"""
    table = queue_of(1, 2, 3)
    assert table.release("k") == "w2"
    assert table.entry("k") == Entry(2, (3,))
    assert table.release("k") == "w3"
    assert table.entry("k") == Entry(3, ())


def test_a_newcomer_after_the_hand_off_waits_behind_everybody() -> None:
    """KM-HANDOFF: the key is never free between two holders."""
    table = queue_of(1, 2)
    table.release("k")
    assert table.request("k", 3, lambda: "w3") == "w3"
    assert table.entry("k") == Entry(2, (3,))


def test_the_last_release_drops_the_entry() -> None:
    """KM-IDLE"""
    table = queue_of(1)
    assert table.release("k") is None
    assert table.entry("k") is None
    assert "k" not in table
    assert len(table) == 0
    assert table.snapshot() == {}


def test_release_of_a_key_nobody_holds() -> None:
    """KM-UNHELD, KM-ATOMIC"""
    table = queue_of(1, key="other")
    with pytest.raises(UnheldKeyError, match=r"^unlock of 'k', which nobody holds$") as caught:
        table.release("k")
    assert isinstance(caught.value, KMutexError)
    assert isinstance(caught.value, RuntimeError)
    assert table.snapshot() == {"other": Entry(1, ())}


@pytest.mark.parametrize("ticket", [0, 2, 3, 99])
def test_release_by_a_ticket_that_does_not_hold(ticket: int) -> None:
    """KM-TOKEN, KM-ATOMIC: neither a waiter nor a stranger releases the holder."""
    table = queue_of(1, 2, 3)
    with pytest.raises(UnheldKeyError, match=r"^this lease of 'k' has ended; the key has another holder now$"):
        table.release("k", ticket)
    assert table.entry("k") == Entry(1, (2, 3))


def test_release_by_the_ticket_that_holds() -> None:
    """KM-TOKEN"""
    table = queue_of(1, 2)
    assert table.release("k", 1) == "w2"
    assert table.release("k", 2) is None
    assert len(table) == 0


@pytest.mark.parametrize(("ticket", "left"), [(2, (3, 4)), (3, (2, 4)), (4, (2, 3))])
def test_cancel_takes_a_waiter_out_wherever_it_stands(ticket: int, left: tuple[int, ...]) -> None:
    """KM-CANCEL, KM-REF: it never holds later, and the others keep their order."""
    table = queue_of(1, 2, 3, 4)
    assert table.cancel("k", ticket) is True
    assert table.entry("k") == Entry(1, left)
    assert [table.release("k"), table.release("k"), table.release("k")] == [f"w{left[0]}", f"w{left[1]}", None]


def test_cancel_of_the_holder_is_refused() -> None:
    """KM-RACE: a ticket that was granted stays, and its driver decides."""
    table = queue_of(1, 2)
    assert table.cancel("k", 1) is False
    table.release("k")
    assert table.cancel("k", 2) is False
    assert table.entry("k") == Entry(2, ())


def test_withdraw_undoes_a_request_in_any_state() -> None:
    """KM-INTERRUPT: not made, waiting, granted with a waiter behind, granted and alone."""
    table = queue_of(1, 2, 3)
    assert table.withdraw("k", 99) is None
    assert table.withdraw("elsewhere", 99) is None
    assert table.entry("k") == Entry(1, (2, 3))
    assert table.withdraw("k", 2) is None
    assert table.entry("k") == Entry(1, (3,))
    assert table.withdraw("k", 1) == "w3"
    assert table.entry("k") == Entry(3, ())
    assert table.withdraw("k", 3) is None
    assert len(table) == 0


def test_a_waker_that_cannot_be_made_leaves_the_queue_as_it_was() -> None:
    """KM-ATOMIC, KM-INTERRUPT"""
    table = queue_of(1)

    def fails() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        table.request("k", 2, fails)
    assert table.entry("k") == Entry(1, ())


def test_an_unhashable_key_changes_nothing() -> None:
    """KM-ATOMIC"""
    table = queue_of(1)
    with pytest.raises(TypeError, match="unhashable"):
        table.request([], 2, never)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="unhashable"):
        table.release([])  # type: ignore[arg-type]
    assert table.snapshot() == {"k": Entry(1, ())}


def test_keys_are_apart() -> None:
    """KM-INDEP: and equal keys are one key, as in a dict."""
    table = queue_of(1, 2, key="a")
    assert table.request("b", 3, never) is None
    assert table.request(1, 4, never) is None
    assert table.request(1.0, 5, lambda: "w5") == "w5"
    assert table.release("b") is None
    assert table.snapshot() == {"a": Entry(1, (2,)), 1: Entry(4, (5,))}
    assert len(table) == 2
    assert "a" in table
    assert "b" not in table


def test_a_snapshot_is_frozen() -> None:
    """KM-REF: it can't be changed, and does not change."""
    table = queue_of(1, 2)
    before = table.snapshot()
    with pytest.raises(TypeError):
        before["k"] = Entry(3, ())  # type: ignore[index]
    with pytest.raises(AttributeError):
        before["k"].holder = 3  # type: ignore[misc]
    table.release("k")
    table.release("k")
    assert before == {"k": Entry(1, (2,))}


class Counted(int):
    """A ticket that counts how often any ticket is hashed or compared."""

    looks = 0

    def __hash__(self) -> int:
        Counted.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Counted.looks += 1
        return super().__eq__(other)


def looks_of_a_cancel(waiters: int, cancel: Callable[[list[Counted], Counted], None]) -> int:
    tickets = [Counted(number) for number in range(waiters + 1)]
    victim = tickets[waiters // 2]
    Counted.looks = 0
    cancel(tickets, victim)
    return Counted.looks


def from_a_list(tickets: list[Counted], victim: Counted) -> None:
    """The known-bad way: a search."""
    queue = list(tickets)
    Counted.looks = 0
    queue.remove(Counted(victim))


def from_the_table(tickets: list[Counted], victim: Counted) -> None:
    table: LockTable = LockTable()
    for ticket in tickets:
        table.request("k", ticket, lambda: "w")
    Counted.looks = 0
    assert table.cancel("k", Counted(victim))


def test_cancel_looks_at_as_many_tickets_whatever_the_queue() -> None:
    """KM-CANCEL, in constant time: counted, beside a list that is searched."""
    assert looks_of_a_cancel(10_000, from_the_table) == looks_of_a_cancel(100, from_the_table)
    assert looks_of_a_cancel(10_000, from_a_list) > 50 * looks_of_a_cancel(100, from_a_list)


def drain_of_the_table(waiters: int) -> Callable[[], object]:
    table = queue_of(*range(waiters))
    return lambda: table.release("k")


def drain_of_a_dict(waiters: int) -> Callable[[], object]:
    """The known-bad queue: finding its first key walks over the gaps that the earlier ones left."""
    queue = dict.fromkeys(range(waiters))
    return lambda: queue.pop(next(iter(queue)))


def growth(drain: Callable[[int], Callable[[], object]], few: int = 100, many: int = 20_000) -> float:
    """How much more processor time a release takes from a long queue than from short ones, draining as many in all.

    Medians of three rounds; processor time, since a busy machine would show in any other.
    """
    medians = []
    for waiters in (few, many):
        rounds = []
        for _ in range(3):
            queues = [drain(waiters) for _ in range(many // waiters)]
            start = time.process_time()
            for release in queues:
                for _ in range(waiters):
                    release()
            rounds.append(time.process_time() - start)
        medians.append(statistics.median(rounds))
    return medians[1] / medians[0]


def test_a_release_costs_as_much_whatever_the_queue() -> None:
    """KM-HANDOFF, in constant time. The figures: docs/adr/0001-head-of-queue-holds.md."""
    assert growth(drain_of_the_table) < 6 < growth(drain_of_a_dict)
