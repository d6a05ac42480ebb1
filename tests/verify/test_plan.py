"""What the outcomes of units add up to."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import pytest

from kmutex import cli
from kmutex.engine.calls import LOOKING
from kmutex.engine.program import parse
from kmutex.engine.shapes import Shape
from kmutex.engine.threads import controlled
from kmutex.verify import runner
from kmutex.verify.checks.context import Context
from kmutex.verify.checks.memory import memory
from kmutex.verify.evidence import Result, Violation
from kmutex.verify.plan import Unit, plan
from kmutex.verify.results import UnitResult, rows
from kmutex.verify.target import load, target_of
from kmutex.verify.worker import UnitWorker

SHAPE = Shape(kind="threads", timeout=True, counts=True, leases=False)


class Slow:
    """A crew of one, whose clock shows the given time from its first random unit on. Nothing comes after 10 s."""

    target, ready, runs = "it", True, 0

    def __init__(self, then: float) -> None:
        self.unit: Unit | None = None
        self.workers, self.found = [self], list[Violation]()
        self._now, self._then = 0.0, then

    def begin(self, unit: Unit, *known: object) -> None:
        self.unit, self._now = unit, self._then if unit.chance else 0.0

    def elapsed(self) -> float:
        return self._now

    def answer(self, seconds: float) -> dict[str, Any] | None:
        if self.unit is None or self._now >= 10:
            return None
        return {"kind": "outcome", "worker": self, "outcome": UnitResult(self.unit).as_plain(), "exited": None}

    def joins(self, answer: dict[str, Any]) -> bool:
        return False

    def explain(self, answer: dict[str, Any]) -> str:
        return str(answer)


@pytest.mark.parametrize("then", [6.0, 10.0])
def test_no_random_pass_is_made_that_has_no_time(then: float) -> None:
    """Whether the one before it is done or under way; and none of it counts as planned."""

    def passes() -> Iterator[list[Unit]]:
        yield [Unit(0, "plain", "every", "0+a", most=1)]
        yield [Unit(1, "chance", "some", "0+a", chance=True)]
        pytest.fail("a pass is made for nothing")

    done = runner.drive(Slow(then), passes(), 10.0, 1.0, lambda progress: None, lambda violation: None)
    assert [unit.method for unit in [*(outcome.unit for outcome in done.outcomes), *done.left]] == ["plain", "chance"]


class Keeps:
    """Known bad: remembers every key that was ever locked."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def lock(self, key: str) -> None:
        self.seen.append(key)

    def unlock(self, key: str) -> None: ...


@pytest.mark.long
def test_a_check_that_finds_something_states_its_bound() -> None:
    """KM-IDLE: the row of a violation has the bound of its check beside it."""
    from kmutex.engine.explorer import Explorer

    shape = Shape(kind="asyncio", timeout=False, counts=False, leases=False)
    off = frozenset({"KM-UNHELD", "KM-EXCL", "KM-HANDOFF", "KM-FIFO"})
    explorer = Explorer(Keeps, crew=None, off=off, tries=False)
    outcome = UnitResult(Unit(0, "memory", "memory"))
    memory(Context(Keeps, shape, explorer, lambda runs: runs, frozenset()), outcome)
    assert [found.clauses for found in outcome.found] == [("KM-IDLE",)]
    assert outcome.bound
    table = rows("it", shape, off, [outcome], [])
    assert [row.bound for row in table if row.result is Result.VIOLATED] == [outcome.bound]


def test_what_was_never_put_to_the_test_is_inconclusive() -> None:
    """Every clause without a witness is undecided, and one with a witness but runs without an end as well."""
    endless = UnitResult(Unit(0, "m", "every", "0+a", most=1), runs=1, endless=1, witnesses=Counter({"KM-EXCL": 1}))
    table = {row.clause: row.result for row in rows("it", SHAPE, frozenset(), [endless], [])}
    assert table["KM-EXCL"] is Result.INCONCLUSIVE
    assert table["KM-FIFO"] is Result.INCONCLUSIVE
    assert Result.HOLDS not in table.values()


@pytest.mark.parametrize(("check", "clause"), [("holding", "KM-EXCL"), ("memory", "KM-IDLE"), ("keys", "KM-INDEP")])
def test_a_check_that_was_not_reached_leaves_its_clause_undecided(check: str, clause: str) -> None:
    """KM-EXCL, KM-IDLE, KM-INDEP: whatever short programs have shown; unless it is not judged, or all is broken."""
    seen = Counter(dict.fromkeys(("KM-EXCL", "KM-IDLE", "KM-INDEP", "KM-LIVE"), 9))
    done = UnitResult(Unit(0, "m", "every", "0+a", most=1), runs=1, complete=True, witnesses=seen)
    left = [Unit(1, check, check)]
    undecided = [row for row in rows("it", SHAPE, frozenset(), [done], left, why="late") if row.method == check]
    assert [(row.clause, row.result, row.detail) for row in undecided] == [
        (clause, Result.INCONCLUSIVE, f"the check of {check} was not run: late")
    ]
    assert not any(row.method == check for row in rows("it", SHAPE, frozenset({clause}), [done], left))
    made = UnitResult(left[0], runs=1, complete=True, witnesses=Counter({clause: 1}))
    assert all(
        row.result is not Result.INCONCLUSIVE
        for row in rows("it", SHAPE, frozenset(), [done, made], [])
        if row.clause == clause
    )


def test_what_was_found_and_nobody_promised_has_a_row() -> None:
    """KM-INDEP where keys share locks; and a remark, no less a pass, where a holder gets its key again (KM-EXCL)."""
    shape = replace(SHAPE, striped=True, reentrant=True, loose=("independence", "self-exclusion"))
    done = UnitResult(Unit(0, "m", "every", "0+a", most=1), runs=1, complete=True, witnesses=Counter({"KM-EXCL": 9}))
    table = rows("it", shape, frozenset(), [done], [], unpromised=frozenset({"KM-INDEP"}))
    assert [row.result for row in table if row.clause == "KM-INDEP"] == [Result.NOT_PROMISED]
    assert [row.result for row in table if row.clause == "KM-EXCL"] == [Result.HOLDS, Result.NOTED]


def test_an_error_of_the_command_itself_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback reaches the user, and nothing counts as decided."""

    def broken(*args: object, **options: object) -> None:
        raise ValueError("not\nmeant")

    monkeypatch.setattr(runner, "verify", broken)
    with pytest.raises(SystemExit) as ended:
        cli.main(["verify", "a:b"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Traceback" not in said


def test_a_pass_that_was_not_reached_is_said() -> None:
    """No clause loses by it, and nobody takes it for done."""
    plain = UnitResult(
        Unit(0, "plain", "every", "0+a", most=1), runs=1, complete=True, witnesses=Counter({"KM-EXCL": 1})
    )
    table = rows(
        "it", SHAPE, frozenset(), [plain], [Unit(1, "deeper", "every", "0+a", bound=1)], why="the time was over"
    )
    assert [(row.clause, row.method, row.result) for row in table[-1:]] == [("-", "deeper", Result.NOTED)]
    assert {row.result for row in table if row.clause == "KM-EXCL"} == {Result.HOLDS}


def test_two_threads_at_locks_come_before_bytecodes() -> None:
    """The cheapest preemption is looked for first, and each program still has its turn at locks, once."""
    passes = [units for units in itertools.islice(plan(SHAPE), 6) if units[0].task == "every"]
    first, *preempted = [(units[0].level, [unit.program for unit in units]) for units in passes]
    assert [level for level, _ in preempted] == ["locks", "bytecode", "locks"]
    few, _, many = [programs for _, programs in preempted]
    assert max(parse(text).clients for text in few) < 3 <= min(parse(text).clients for text in many)
    assert Counter(few + many) == Counter(first[1])


@pytest.mark.parametrize(
    ("factory", "program", "reduced"),
    [
        ("kmutex:KeyedMutex", "0+a 1+a 2+a", True),
        ("kmutex:KeyedMutex", "0+a-a 1+a", False),
        ("kmutex:KeyedMutex", "0+a | 1~a 2+a", False),
        ("tests.lockers.threads_bad:WeakRegistry", "0+a 1+a 2+a", False),
        ("tests.lockers.flights_threads:SharingFlight", "0na 1na", False),
    ],
)
def test_only_deeper_passes_are_reduced_and_their_bound_says_so(factory: str, program: str, reduced: bool) -> None:
    """Where the subject's own code tells what each step is on; of the work of a flight nobody tells that."""
    answers: list[dict[str, Any]] = []
    worker = UnitWorker(lambda kind, **what: answers.append({"kind": kind, **what}), shortening=0.0)
    make = load(target_of(factory))
    with controlled(make):
        declared = {"without": (), "unpromised": (), "leaders": (), "lenient": True, "calls": LOOKING}
        worker.take(make, **declared, patience=5.0)
        for deeper in (False, True):
            unit = Unit(0, "m", "every", program, "locks", 2, most=300, deeper=deeper)
            worker.obey({"unit": asdict(unit), "known": [], "symptoms": [], "told": []})
    whole, less = (UnitResult.from_plain(one["outcome"]) for one in answers if one["kind"] == "outcome")
    assert (whole.reduced, less.reduced) == (False, reduced)
    assert less.runs < whole.runs if reduced else less.runs == whole.runs
    table = rows("it", SHAPE, frozenset(), [less], [])
    assert any("2 preemptions up to steps that commute" in row.bound for row in table) == reduced
    if reduced:
        cut = replace(less, complete=False, estimate=10.0 * less.runs)
        table = rows("it", SHAPE, frozenset(), [cut], [])
        assert any(row.bound.endswith("0 of 1 programs complete, at least 10% of the schedules") for row in table)
