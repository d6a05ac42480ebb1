"""The comparison with the model accepts the real table, rules and drivers, and names what is wrong with broken ones."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex._aio import AsyncInnerMutex
from kmutex._core import LockTable
from kmutex._entry import Entry, Ticket, after_cancel, after_release, after_request
from kmutex._threads import InnerMutex
from kmutex.engine.program import parse
from kmutex.selfcheck import driver_refinement, refinement
from kmutex.selfcheck.driver_refinement import Subject
from kmutex.selfcheck.refinement import Rules, Waker
from kmutex.verify.evidence import Result, Row, exit_status
from kmutex_model.actions import CORRECT, parse_schedule
from kmutex_model.explore import explore
from kmutex_model.proof.tie import allowed
from kmutex_model.state import Config

SMALL = ((4, 1), (2, 2))


def by_clause(rows: Iterable[Row], method: str, subject: str = "") -> dict[str, Row]:
    return {row.clause: row for row in rows if row.method == method and subject in row.subject}


def violated(rows: Iterable[Row], method: str) -> set[str]:
    return {row.clause for row in rows if row.method == method and row.result is Result.VIOLATED}


# ------------------------------------------------------------------------------------------------------------
# What is sound is accepted


@pytest.fixture(scope="module")
def real() -> list[Row]:
    return refinement.check()


def test_the_real_table_rules_and_drivers_are_accepted(real: list[Row]) -> None:
    """Every clause that is compared holds: KM-EXCL, KM-REF, KM-IDLE, KM-FIFO, KM-HANDOFF, KM-INDEP, KM-CANCEL, KM-RACE,
    KM-UNHELD, KM-ATOMIC and KM-TOKEN for the table, and KM-EXPIRED but not KM-RACE for the drivers."""
    assert [row for row in real if row.result is not Result.HOLDS] == []
    assert exit_status(real) == 0
    assert set(by_clause(real, refinement.METHOD)) == set(refinement.CLAUSES)
    for subject in driver_refinement.SUBJECTS:
        assert set(by_clause(real, driver_refinement.METHOD, subject.name)) == set(driver_refinement.CLAUSES)


def test_no_row_is_empty(real: list[Row]) -> None:
    """Each row counts the cases that put its clause to the test, never more than there were steps."""
    for row in real:
        assert row.cases > 0
        steps = re.search(r"([\d,]+) steps, complete", row.bound)
        if row.method == refinement.RULES_METHOD:
            assert "times, complete" in row.bound
        else:
            assert steps is not None
            assert row.cases <= int(steps[1].replace(",", ""))


def test_the_table_is_brought_into_every_state_of_the_model(real: list[Row]) -> None:
    """The figures in the bound are those of the model's own exploration."""
    graphs = [explore(CORRECT, Config(c, k, race)) for c, k in refinement.BOUNDS for race in refinement.RACES]
    states = sum(graph.states for graph in graphs)
    assert f" {states:,} states" in by_clause(real, refinement.METHOD)["KM-REF"].bound


@pytest.mark.long
def test_the_table_is_brought_into_every_state_that_the_proof_allows(real: list[Row]) -> None:
    """Those that no run reaches, too; of each clause something is put to the test (KM-FIFO, KM-HANDOFF)."""
    rows = by_clause(real, refinement.ALLOWED_METHOD)
    assert set(rows) == set(refinement.CLAUSES)
    states = sum(2 * len(allowed(Config(c, k, "keep"))) for c, k in refinement.ALLOWED_BOUNDS)
    assert f" {states:,} states" in rows["KM-REF"].bound
    assert "4 states that no run reaches" in rows["KM-REF"].bound


def test_the_drivers_are_brought_into_every_quiet_state(real: list[Row]) -> None:
    """Every state of the model in which no call is on its way is the beginning of a run; asyncio goes there twice,
    with cancelled tasks and with timeouts."""
    quiet = 0
    for clients, keys in driver_refinement.BOUNDS:
        graph = explore(CORRECT, Config(clients, keys, "keep")).graph
        quiet += sum(all(client.phase != "granted" for client in state.clients) for state in graph)
    assert f" {quiet:,} states" in by_clause(real, driver_refinement.METHOD, ":KeyedMutex")["KM-REF"].bound
    assert f" {2 * quiet:,} states" in by_clause(real, driver_refinement.METHOD, ":AsyncKeyedMutex")["KM-REF"].bound


def test_rules_are_listed_under_the_clauses_of_their_docstrings() -> None:
    """The rows of the rules name what the contracts under them name."""
    for rule in (after_request, after_release, after_cancel):
        assert set(re.findall(r"KM-[A-Z]+", rule.__doc__ or "")) == set(refinement.RULE_CLAUSES[rule.__name__])


def test_progress_is_told() -> None:
    """The command can say what goes on."""
    said: list[str] = []
    refinement.check(said.append, bounds=[(1, 1)], allowed_bounds=(), subjects=())
    assert said == ["LockTable, 1 client x 1 key, keep", "LockTable, 1 client x 1 key, pass"]


def test_what_a_bound_never_meets_is_inconclusive() -> None:
    """One client waits for nobody: no row for what needs two may say that it holds."""
    rows = refinement.check(bounds=[(1, 1)], allowed_bounds=(), subjects=())
    table, rules = by_clause(rows, refinement.METHOD), by_clause(rows, refinement.RULES_METHOD)
    for clause in ("KM-FIFO", "KM-HANDOFF", "KM-INDEP", "KM-CANCEL", "KM-RACE"):
        assert (table[clause].result, table[clause].cases) == (Result.INCONCLUSIVE, 0)
    assert table["KM-IDLE"].result is Result.HOLDS
    assert "after_cancel" in rules["KM-CANCEL"].detail
    assert rules["KM-CANCEL"].result is rules["KM-REF"].result is Result.INCONCLUSIVE
    assert exit_status(rows) == 2


# ------------------------------------------------------------------------------------------------------------
# Broken tables


class Table(LockTable):
    """What the broken ones share: a way to the queue of a key."""

    def queue(self, key: Hashable) -> OrderedDict[Ticket, Waker | None]:
        entry = self._entries.get(key, OrderedDict())
        return OrderedDict({entry: None}) if isinstance(entry, int) else entry


class Lifo(Table):
    """The youngest waiter is served first."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        waker = super().release(key, ticket)
        if waker is None:
            return None
        queue = self.queue(key)
        queue.move_to_end(next(reversed(queue)), last=False)
        return next(iter(queue.values()))


class TellsTheYoungest(Table):
    """The order of the queue is kept, and the wrong waiter is told."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        waker = super().release(key, ticket)
        return waker and next(reversed(self.queue(key).values()))


class JumpsTheQueue(Table):
    """A newcomer stands before the waiters."""

    def request(self, key: Hashable, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
        waker = super().request(key, ticket, make_waker)
        queue = self.queue(key)
        for other in list(queue)[1:-1]:
            queue.move_to_end(other)
        return waker


class GrantsAnyway(Table):
    """A request is granted whether the key is held or not."""

    def request(self, key: Hashable, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
        super().request(key, ticket, make_waker)
        return None


class NeverEvicts(Table):
    """The last ticket stays in the entry."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        queue = self.queue(key)
        return None if len(queue) == 1 else super().release(key, ticket)


class CountsTheEvicted(Table):
    """len() counts the keys that were evicted, too."""

    evicted = 0

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        waker = super().release(key, ticket)
        self.evicted += key not in self
        return waker

    def __len__(self) -> int:
        return super().__len__() + self.evicted


class CancelPopsTheHead(Table):
    """A waiter that leaves takes the holder's place in the queue away, not its own."""

    def cancel(self, key: Hashable, ticket: Ticket) -> bool:
        queue = self.queue(key)
        if next(iter(queue)) == ticket:
            return False
        queue.popitem(last=False)
        return True


class CancelKeepsTheRef(Table):
    """A waiter that leaves stays counted."""

    def cancel(self, key: Hashable, ticket: Ticket) -> bool:
        return next(iter(self.queue(key))) != ticket


class CancelSwapsPlaces(Table):
    """The youngest waiter moves to the place of the one that leaves."""

    def cancel(self, key: Hashable, ticket: Ticket) -> bool:
        queue = self.queue(key)
        place = list(queue).index(ticket)
        if not super().cancel(key, ticket):
            return False
        for other in list(queue)[place:-1]:
            queue.move_to_end(other)
        return True


class CancelDropsAGrant(Table):
    """A cancel that comes after the grant evicts the entry and says that the key is kept."""

    def cancel(self, key: Hashable, ticket: Ticket) -> bool:
        if super().cancel(key, ticket):
            return True
        self._entries.pop(key, None)
        return False


class WithdrawWakesNobody(Table):
    """A grant that is given back goes on, and its new holder is not told."""

    def withdraw(self, key: Hashable, ticket: Ticket) -> Waker | None:
        super().withdraw(key, ticket)
        return None


class WithdrawWakesTheNext(Table):
    """A waiter that withdraws passes on a grant that it never had; one that is cancelled does not."""

    def withdraw(self, key: Hashable, ticket: Ticket) -> Waker | None:
        waker = super().withdraw(key, ticket)
        return waker or next((other for other in self.queue(key).values() if other is not None), None)


class UnlockServesTheYoungest(Table):
    """A release by key serves the youngest, one by ticket the oldest."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        queue = self.queue(key)
        if ticket is None and len(queue) > 2:
            queue.move_to_end(next(reversed(queue)), last=False)
            queue.move_to_end(list(queue)[1], last=False)
        return super().release(key, ticket)


class ForgetsTheTicket(Table):
    """A lease releases the key, whoever holds it now."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        return super().release(key)


class StrayAccepted(Table):
    """The unlock of a key that nobody holds succeeds."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        return super().release(key, ticket) if key in self else None


class FailedReleaseDrops(Table):
    """A release that raises has taken a waiter out of the queue before."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        queue = self.queue(key)
        if ticket is not None and queue and next(iter(queue)) != ticket and len(queue) > 1:
            queue.popitem()
        return super().release(key, ticket)


class ForgetsOtherKeys(Table):
    """The last release of one key forgets all keys."""

    def release(self, key: Hashable, ticket: Ticket | None = None) -> Waker | None:
        waker = super().release(key, ticket)
        if waker is None:
            self._entries.clear()
        return waker


class OneQueue(Table):
    """A key has to wait because another one is held."""

    def request(self, key: Hashable, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
        free = key not in self
        waker = super().request(key, ticket, make_waker)
        return make_waker() if free and len(self) > 1 else waker


@pytest.mark.parametrize(("table", "clause"), [(Lifo, "KM-FIFO"), (TellsTheYoungest, "KM-HANDOFF")])
def test_a_wrong_table_is_wrong_from_what_is_allowed(table: type[Table], clause: str) -> None:
    assert clause in violated(refinement.check_allowed(lambda text: None, table, [(3, 1)]), refinement.ALLOWED_METHOD)


RUN = re.compile(r"\((\d)x(\d) (keep|pass): (\w+\([\d,]+\)(?:; \w+\([\d,]+\))*)(?: by \w+)?\)$")
"""How a message ends: the bound and the run."""


_rows: dict[str, list[Row]] = {}


def rows_of(table: type[Table]) -> list[Row]:
    if table.__name__ not in _rows:
        _rows[table.__name__] = refinement.check(table=table, bounds=SMALL, allowed_bounds=(), subjects=())
    return _rows[table.__name__]


BROKEN_TABLES: list[tuple[type[Table], str]] = [
    (Lifo, "KM-FIFO"),
    (Lifo, "KM-HANDOFF"),
    (TellsTheYoungest, "KM-HANDOFF"),
    (JumpsTheQueue, "KM-FIFO"),
    (GrantsAnyway, "KM-EXCL"),
    (NeverEvicts, "KM-IDLE"),
    (NeverEvicts, "KM-REF"),
    (CountsTheEvicted, "KM-IDLE"),
    (CancelPopsTheHead, "KM-CANCEL"),
    (CancelKeepsTheRef, "KM-CANCEL"),
    (CancelKeepsTheRef, "KM-REF"),
    (CancelSwapsPlaces, "KM-CANCEL"),
    (CancelDropsAGrant, "KM-RACE"),
    (WithdrawWakesNobody, "KM-RACE"),
    (WithdrawWakesTheNext, "KM-CANCEL"),
    (WithdrawWakesTheNext, "KM-EXCL"),
    (UnlockServesTheYoungest, "KM-FIFO"),
    (ForgetsTheTicket, "KM-TOKEN"),
    (StrayAccepted, "KM-UNHELD"),
    (FailedReleaseDrops, "KM-ATOMIC"),
    (ForgetsOtherKeys, "KM-INDEP"),
    (OneQueue, "KM-INDEP"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("table", "clause"), BROKEN_TABLES)
def test_a_broken_table_is_rejected_by_the_right_clause(table: type[Table], clause: str) -> None:
    """Each of KM-EXCL, KM-REF, KM-IDLE, KM-FIFO, KM-HANDOFF, KM-INDEP, KM-CANCEL, KM-RACE, KM-UNHELD, KM-ATOMIC and
    KM-TOKEN has a table that breaks it. What could not be walked because of that is inconclusive, not held."""
    rows = rows_of(table)
    found = by_clause(rows, refinement.METHOD)
    assert found[clause].result is Result.VIOLATED
    assert exit_status(rows) == 1
    if "complete" not in found[clause].bound:
        assert not any(row.result is Result.HOLDS for row in rows)


def test_every_clause_of_the_table_has_a_broken_one() -> None:
    """No clause is compared without a table that it must reject."""
    assert {clause for _, clause in BROKEN_TABLES} == set(refinement.CLAUSES)


@pytest.mark.parametrize("table", dict.fromkeys(table for table, _ in BROKEN_TABLES))
def test_a_violation_says_a_shortest_run_that_the_model_can_take(table: type[Table]) -> None:
    """The run in the message is one of the model's, so that it can be followed by hand."""
    for row in rows_of(table):
        for violation in row.violations:
            found = RUN.search(violation.message)
            assert found is not None, violation.message
            config = Config(int(found[1]), int(found[2]), "keep" if found[3] == "keep" else "pass")
            assert CORRECT.replay(config, parse_schedule(found[4]))


def test_a_difference_that_no_clause_speaks_of_is_not_lost() -> None:
    """The waiter is given another's waker: order and entries are right, and it will wait forever. What the step was
    to show is then not shown (KM-EXCL, KM-REF)."""

    class MixesUpWakers(Table):
        def request(self, key: Hashable, ticket: Ticket, make_waker: Callable[[], Waker]) -> Waker | None:
            waker = super().request(key, ticket, make_waker)
            return waker and Waker(ticket + 1)

    rows = refinement.check(table=MixesUpWakers, bounds=SMALL, allowed_bounds=(), subjects=())
    assert violated(rows, refinement.METHOD) >= {"KM-EXCL", "KM-REF"}
    assert exit_status(rows) == 1


def test_a_table_that_depends_on_more_than_the_run_is_not_held() -> None:
    """A table that is in another state than the run leads to is noticed before the step is judged (KM-REF)."""
    made = 0

    class Remembers(Table):
        def __init__(self) -> None:
            nonlocal made
            super().__init__()
            made += 1
            if made > 40:
                self.request("key of a table before", 1, lambda: Waker(1))

    rows = refinement.check(table=Remembers, bounds=[(2, 1)], allowed_bounds=(), subjects=())
    assert exit_status(rows) == 1
    assert any("did not lead" in row.detail for row in rows)


def test_an_equivalent_table_is_accepted() -> None:
    """A table of another build that does the same breaks nothing (KM-REF, KM-IDLE)."""

    class Rebuilt(Table):
        def cancel(self, key: Hashable, ticket: Ticket) -> bool:
            queue = self.queue(key)
            if next(iter(queue)) == ticket:
                return False
            self._entries[key] = OrderedDict((other, waker) for other, waker in queue.items() if other != ticket)
            return True

    assert exit_status(refinement.check(table=Rebuilt, bounds=SMALL, allowed_bounds=(), subjects=())) == 0


# ------------------------------------------------------------------------------------------------------------
# Broken rules: the table is right, and the functions that CrossHair reads are not what runs


def _raising(*_: Any) -> Entry:
    raise IndexError("no such waiter")


BROKEN_RULES: list[tuple[str, Any, str]] = [
    ("after_request", lambda entry, ticket: Entry(ticket, ()), "KM-FIFO"),
    (
        "after_request",
        lambda entry, ticket: Entry(entry.holder, (ticket, *entry.waiters)) if entry else Entry(ticket, ()),
        "KM-FIFO",
    ),
    ("after_release", lambda holder, oldest, younger: None, "KM-HANDOFF"),
    ("after_release", lambda holder, oldest, younger: Entry(holder, younger), "KM-IDLE"),
    ("after_release", _raising, "KM-HANDOFF"),
    ("after_cancel", lambda holder, before, ticket, after: Entry(holder, (*before, ticket, *after)), "KM-CANCEL"),
    ("after_cancel", lambda holder, before, ticket, after: Entry(holder, after + before), "KM-CANCEL"),
]


@pytest.mark.parametrize(("name", "rule", "clause"), BROKEN_RULES)
def test_a_broken_rule_is_noticed(name: str, rule: Any, clause: str) -> None:
    """KM-CANCEL, KM-HANDOFF, KM-FIFO, KM-IDLE, KM-REF and KM-EXCL: contracts on functions that differ from what runs
    are evidence of nothing. The table itself is found sound."""
    rows = refinement.check(rules=Rules()._replace(**{name: rule}), bounds=[(4, 1)], allowed_bounds=(), subjects=())
    assert clause in violated(rows, refinement.RULES_METHOD)
    assert violated(rows, refinement.RULES_METHOD) == set(refinement.RULE_CLAUSES[name])
    assert violated(rows, refinement.METHOD) == set()
    assert all(name in row.detail for row in rows if row.result is Result.VIOLATED)


# ------------------------------------------------------------------------------------------------------------
# Broken drivers


def with_driver(driver: type[InnerMutex] | type[AsyncInnerMutex]) -> Any:
    """A mutex that locks by this."""
    mutex: Any = KeyedMutex() if issubclass(driver, InnerMutex) else AsyncKeyedMutex()
    mutex._mutex = driver(False, None)
    return mutex


class LosesTheWakeUp(InnerMutex):
    """Hands the key over and opens no gate."""

    def _release(self, key: Hashable, ticket: Ticket | None) -> None:
        with self._guard:
            self._table.release(key, ticket)


class ExpiredStaysQueued(InnerMutex):
    """Gives up and stays in the queue."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._table = CancelKeepsTheRef()


class IgnoresTheLease(InnerMutex):
    """A lease releases by key, so an old one ends a later holder's grant."""

    def _release(self, key: Hashable, ticket: Ticket | None) -> None:
        super()._release(key, None)


class TimedLockForgets(InnerMutex):
    """A lock with a timeout returns and does not hold."""

    def _acquire(self, key: Hashable, ticket: Ticket, timeout: float | None) -> bool:
        granted = super()._acquire(key, ticket, timeout)
        if timeout:
            self._settle(key, ticket)
        return granted


class LeaseNeverEnds(InnerMutex):
    """Leaving the block of a lease releases nothing."""

    def _release(self, key: Hashable, ticket: Ticket | None) -> None:
        if ticket is None:
            super()._release(key, None)


class InterruptedStaysQueued(InnerMutex):
    """A waiter that is interrupted raises and stays in the queue; one that times out leaves it."""

    def _settle(self, key: Hashable, ticket: Ticket) -> None:
        pass


class TryWaitsForEver(InnerMutex):
    """Timeout 0 is taken for none."""

    def _acquire(self, key: Hashable, ticket: Ticket, timeout: float | None) -> bool:
        return super()._acquire(key, ticket, timeout or None)


class AsyncStaysQueued(AsyncInnerMutex):
    """A cancelled task stays in the queue."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._table = CancelKeepsTheRef()


class AsyncNeverTimesOut(AsyncInnerMutex):
    """A wait ends when its task is cancelled, and not when its time is over."""

    def _expire(self, key: Hashable, ticket: Ticket, future: Any, timeout: float) -> None:
        pass


class AsyncWakesNobody(AsyncInnerMutex):
    """Hands the key over and wakes nobody."""

    def _wake(self, future: Any) -> None:
        pass


class AsyncStrayAccepted(AsyncKeyedMutex):
    """Unlocking a free key succeeds."""

    def unlock(self, key: Hashable) -> None:
        if key in self:
            super().unlock(key)


BROKEN_DRIVERS: list[tuple[Callable[[], Any], str, str]] = [
    (partial(with_driver, LosesTheWakeUp), "threads", "KM-HANDOFF"),
    (partial(with_driver, ExpiredStaysQueued), "threads", "KM-CANCEL"),
    (partial(with_driver, IgnoresTheLease), "threads", "KM-TOKEN"),
    (partial(with_driver, TimedLockForgets), "threads", "KM-REF"),
    (partial(with_driver, LeaseNeverEnds), "threads", "KM-IDLE"),
    (partial(with_driver, LeaseNeverEnds), "threads", "KM-HANDOFF"),
    (partial(with_driver, InterruptedStaysQueued), "threads", "KM-CANCEL"),
    (partial(with_driver, TryWaitsForEver), "threads", "KM-EXPIRED"),
    (partial(with_driver, AsyncNeverTimesOut), "asyncio", "KM-CANCEL"),
    (partial(with_driver, AsyncStaysQueued), "asyncio", "KM-CANCEL"),
    (partial(with_driver, AsyncWakesNobody), "asyncio", "KM-HANDOFF"),
    (AsyncStrayAccepted, "asyncio", "KM-UNHELD"),
]


@pytest.mark.parametrize(("make", "kind", "clause"), BROKEN_DRIVERS)
def test_a_broken_driver_is_rejected(make: Callable[[], Any], kind: str, clause: str) -> None:
    """A driver can be wrong where the table is right: KM-HANDOFF, KM-IDLE, KM-REF, KM-CANCEL, KM-TOKEN, KM-EXPIRED and
    KM-UNHELD."""
    rows = driver_refinement.check(lambda text: None, [Subject("broken", make, kind)], bounds=[(3, 1)])
    row = by_clause(rows, driver_refinement.METHOD)[clause]
    assert row.result is Result.VIOLATED
    program, _, level = row.violations[0].schedule.partition(" @")
    assert str(parse(program)) == program
    assert level in ("locks", "tasks", "timeouts")


def test_a_driver_that_fails_to_start_is_not_held() -> None:
    """A run that comes to no end is a difference, whatever the clause."""

    def make() -> KeyedMutex:
        raise OSError("no locks left")

    rows = driver_refinement.check(lambda text: None, [Subject("failing", make, "threads")], bounds=[(2, 1)])
    assert not any(row.result is Result.HOLDS for row in rows)
    assert exit_status(rows) == 1


def test_programs_are_written_as_the_clients_go_on() -> None:
    """Who is cancelled later asks so that it can be; an old lease is from before the run (KM-TOKEN, KM-CANCEL)."""
    config = Config(2, 1, "keep")
    run = parse_schedule("request(0,0); request(1,0); cancel(1); stale_release(1,0)")
    assert str(driver_refinement.written(run, config)) == "2[a^a | 0+a | 1~a | c1 | 2^a"
    run = parse_schedule("request(0,0); request(1,0); interrupt(1); release(0)")
    assert str(driver_refinement.written(run, config, "lease")) == "0[a | 1!a | c1 | 0]a"
