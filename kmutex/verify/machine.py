"""A keyed locker against the model, by random histories: a Hypothesis state machine.

    TestMyLocker = locker_machine(MyLocker).TestCase

Each rule adds one action of one client to a program; preconditions come from the model's state. After each step the
program so far is run from the beginning on a fresh locker under the deterministic scheduler, and then an epilogue: is
each of its keys as good as new? The judge watches every event, and each moment of rest is compared with the model:
who holds what, who waits, which calls came back and how, len().

In a history one thing happens at a time, and nobody is preempted: what happens at once is put to the test by
`kmutex.testing.suite` and by ``kmutex verify``, on short programs.
"""

from __future__ import annotations

import functools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, configuration, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from kmutex.engine.calls import calls_of
from kmutex.engine.explorer import Level, Schedule
from kmutex.engine.harness import Harness
from kmutex.engine.judge import Judge
from kmutex.engine.observer import Ending
from kmutex.engine.program import ASKING, Step
from kmutex.engine.run_judge import Finding
from kmutex.engine.shapes import Fitted, Kind
from kmutex.verify.history import GOT, LET_GO, REFUSED, History, Moment, Rest, difference
from kmutex.verify.verdict import ContractError, InconclusiveError, describe

CLIENTS = 4
KEYS = "abc"
STEPS = 20
"""The most steps of one history: its actions, and one that says how waits end."""
MOST_SHORTER = 150
"""Histories that are run in search of a shorter one."""

_T = TypeVar("_T")
_NOT_CHECKED = [
    # Runs pass a baton between real threads. How fast that is depends on the machine and is no fault of the test.
    HealthCheck.too_slow,
]


@dataclass
class HistoryTally:
    """What the histories of one machine added up to."""

    histories: int = 0
    phases: int = 0
    """Moments of rest that were compared with the model."""
    open: int = 0
    """Histories that could not be followed to their end."""
    witnesses: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    longest_queue: int = 0

    def add(self, history: History, watch: Watch) -> None:
        """Count a history and its last run."""
        self.phases += watch.compared
        self.open += watch.diverged
        self.witnesses.update(watch.judge.witnesses)
        self.actions.update(moment.action.name for moment in history.moments[: watch.compared])


class Histories(NamedTuple):
    """What random histories gave."""

    examples: int
    """Histories that were run, the search for a shorter one included."""
    phases: int
    """Moments of rest that were compared with the model."""
    finding: Finding | None
    schedule: Schedule | None
    judge: Judge | None
    """The judge of the run that broke a clause."""
    witnesses: Counter[str]
    seed: int
    complete: bool
    """Whether all examples were run, or a finding was made, before the deadline."""
    flaky: bool = False
    """Whether the same history gave different results. The finding is then one of them."""


class Watch:
    """Shows a run to the judge, and compares each moment of rest with the model. An `Observer`."""

    def __init__(self, judge: Judge, moments: Sequence[Moment], *, off: Set[str], counts: bool) -> None:
        """moments: what the model says of each phase; of later phases nothing is said. counts: compare len()."""
        self.judge = judge
        self.finding: Finding | None = None
        self.compared = 0
        self.diverged = False
        """What follows has no meaning: the locker served another waiter than the history was built upon, an interrupt
        found nothing to strike, or a clause is broken that is not judged."""
        self.last: Rest | None = None
        """The rest after the last phase that was seen and is not the epilogue's."""
        self._moments = moments
        self._off = off
        self._counts = counts
        self._phase = -1
        self._subject: Any = None
        self._holds: dict[int, str] = {}
        self._ended: dict[int, str] = {}
        self._cancelled: set[int] = set()

    @property
    def stopped(self) -> bool:
        # A difference from the model alone ends nothing: the judge may have a better name for it.
        return self.judge.stopped or self.diverged

    def made(self, subject: Any) -> None:
        self._subject = subject
        self.judge.made(subject)

    def phase(self, number: int) -> None:
        self._phase = number
        self._ended.clear()
        self._cancelled.clear()
        self.judge.phase(number)

    def called(self, client: int, step: Step) -> None:
        self.judge.called(client, step)

    def returned(self, client: int, step: Step) -> None:
        if step.kind in ASKING:
            self._holds[client] = step.key
            self._ended[client] = GOT
        else:
            if step.kind != "x":
                self._holds.pop(client, None)
            self._ended[client] = LET_GO
        self.judge.returned(client, step)

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self._ended[client] = REFUSED
        self.judge.raised(client, step, error)

    def cancelled(self, client: int) -> None:
        self._cancelled.add(client)
        self.judge.cancelled(client)

    def failed(self, error: BaseException) -> None:
        self.judge.failed(error)

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        self.judge.quiet(waiting, overdue)
        if not 0 <= self._phase < len(self._moments) or self.judge.findings or self.finding is not None:
            return
        seen = Rest(dict(self._holds), {client: step.key for client, step in waiting.items()}, dict(self._ended))
        self.last = seen
        moment = self._moments[self._phase]
        differs = difference(moment, seen)
        if differs is None:
            self._compare_len(moment)
            self.compared += self.finding is None
        elif _another_served(moment, seen) or self._not_interrupted(moment) or differs[0] in self._off:
            self.diverged = True
        else:
            self._find(*differs)

    def _not_interrupted(self, moment: Moment) -> bool:
        # Nothing strikes a thread that sleeps between two looks; its wait goes on, and rightly so.
        return moment.action.name == "interrupt" and moment.action.client not in self._cancelled

    def _compare_len(self, moment: Moment) -> None:
        if not self._counts or self.judge.uncountable:
            return
        said = len(self._subject)
        if said != moment.rest.live and not (said > moment.rest.live and "KM-IDLE" in self._off):
            self._find("KM-REF", f"len() is {said}, and in the model {moment.rest.live}, after {moment.action.name}")

    def _find(self, clause: str, message: str) -> None:
        self.finding = Finding((clause,), clause, message, tuple(self.judge.events))


def _another_served(moment: Moment, seen: Rest) -> bool:
    """Whether all is as it must be, but for which of the waiters has the key."""
    if not moment.anybody:
        return False
    served = moment.anybody & seen.holds.keys()
    return len(served) == 1 and served != moment.anybody & moment.rest.holds.keys()


class NoVerdict(BaseException):
    """Ends a search; its cause is the error, if it is one.

    Not an Exception: Hypothesis would look for a shorter way to it, and each try may take seconds.
    """


def locker_machine(
    factory: Callable[[], Any],
    *,
    kind: Kind | None = None,
    without: Iterable[str] = frozenset(),
    promises: Iterable[str] | None = None,
    call: str = "",
) -> type[LockerMachine]:
    """A state machine for the locker that ``factory()`` makes; its ``TestCase`` is for a test suite.

    kind: "threads" or "asyncio"; None finds out by looking. without: features it is declared to lack, see
    `kmutex.engine.features`. promises: what it is held to beside what makes a keyed mutex, as `verify --with`;
    `PROMISES` for all of it, as `verify --strict`. call: names of its calls, where looking does not find them, as
    `verify --call`. UnknownFeatureError, CallsError: one of them is none.
    When it runs: NotALockerError, ContractError (an AssertionError), UncontrolledError.
    """
    return _machine(Harness(factory, kind=kind, without=without, promises=promises, calls=calls_of([call])))


def check_histories(
    make: Callable[[], Any],
    *,
    kind: Kind | None,
    without: Iterable[str],
    promises: Iterable[str] | None = None,
    examples: int,
    seed: int,
    on_example: Callable[[int], object] | None = None,
    deadline: float | None = None,
    profile: bool = False,
    fitted: Fitted | None = None,
) -> Histories:
    """Random histories, the same for the same seed, until one breaks a clause; then the shortest like it.

    without, promises: as for `locker_machine`. examples: how many histories. on_example: told after each how many were
    run. deadline: real seconds after which no further one is begun. profile: where somebody has loaded a profile of
    Hypothesis, that says how many there are, and where failing ones are kept. fitted: what ``make`` was fitted to,
    where that is known. UncontrolledError, SubjectFailedError, NotALockerError: there was no verdict.
    """
    bench = Harness(make, kind=kind, without=without, promises=promises, fitted=fitted)
    machine = hypothesis.seed(seed)(_machine(bench))
    search = _Search(machine.tally, on_example, None if deadline is None else time.perf_counter() + deadline)
    machine.search = search
    flaky = False
    theirs = profile and _profile_loaded()
    try:
        with bench.control(), nullcontext() if theirs else _nothing_stored():
            run_state_machine_as_test(machine, settings=_settings(None if theirs else examples))
    except ContractError:
        pass  # The search has it.
    except NoVerdict as end:
        if end.__cause__ is not None and search.best is None:
            raise end.__cause__ from None
    except hypothesis.errors.Flaky:
        # After its end every example ends at once, also one that is to be run again.
        flaky = not search.ended
        if search.best is None and flaky:
            raise
    finding, schedule, judge = search.best if search.best is not None else (None, None, None)
    tally = machine.tally
    return Histories(
        tally.histories,
        tally.phases,
        finding,
        schedule,
        judge,
        tally.witnesses,
        seed,
        not search.late or search.best is not None,
        flaky,
    )


def _settings(examples: int | None) -> settings:
    """Of random histories. examples: how many; None: the loaded profile says it, and where failing ones are kept."""
    ours: dict[str, Any] = {}
    if examples is not None:
        ours = {"max_examples": examples, "database": None, "phases": (Phase.generate, Phase.shrink)}
    return settings(
        **ours,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=[*settings().suppress_health_check, *_NOT_CHECKED],
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
    )


def _profile_loaded() -> bool:
    """Whether somebody has loaded a profile of their own making."""
    return settings._current_profile not in (None, "default", "ci")


@contextmanager
def _nothing_stored() -> Iterator[None]:
    """Hypothesis would keep what it computes in the folder in which the user stands."""
    before = getattr(configuration, "__hypothesis_home_directory", None)
    configuration.set_hypothesis_home_dir(os.devnull)
    try:
        yield
    finally:
        configuration.set_hypothesis_home_dir(before)


class _Search:
    """Keeps the shortest history that broke a clause, and ends the search when there is a reason."""

    def __init__(self, tally: HistoryTally, on_example: Callable[[int], object] | None, until: float | None) -> None:
        self.best: tuple[Finding, Schedule, Judge] | None = None
        self.late = False
        """Whether the deadline ended it."""
        self._since = 0
        self._tally = tally
        self._on_example = on_example
        self._until = until

    @property
    def ended(self) -> bool:
        """Whether further histories are refused."""
        return self.late or self._since > MOST_SHORTER

    def found(self, finding: Finding, schedule: Schedule, judge: Judge) -> None:
        if self.best is None or len(schedule.program.phases) <= len(self.best[1].program.phases):
            self.best = (finding, schedule, judge)

    def begins(self) -> None:
        if self._on_example is not None:
            self._on_example(self._tally.histories)
        if self._until is not None and time.perf_counter() > self._until:
            self.late = True
            raise NoVerdict("the time is over")
        self._since += self.best is not None
        if self._since > MOST_SHORTER:
            raise NoVerdict("short enough")


def _machine(bench: Harness) -> type[LockerMachine]:
    body = {"bench": bench, "tally": HistoryTally(), "search": None, "__module__": __name__}
    machine: type[LockerMachine] = type("LockerMachine", (LockerMachine,), body)
    case: Any = machine.TestCase
    case.settings = settings(
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=[*settings().suppress_health_check, *_NOT_CHECKED],
    )
    run = case.runTest

    @functools.wraps(run)
    def run_test(self: Any) -> None:
        __tracebackhide__ = True
        try:
            run(self)
        except NoVerdict as end:
            raise (end.__cause__ or end) from None

    case.runTest = run_test
    return machine


def _one_of(what: str) -> st.SearchStrategy[Any]:
    """One of those that a method of the machine lists now."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine, what)()))


def _possible(*what: str) -> Callable[[Any], Any]:
    """The precondition that each of these methods of the machine lists something."""
    return precondition(lambda machine: all(len(getattr(machine, name)()) > 0 for name in what))


class LockerMachine(RuleBasedStateMachine):
    """The machine that `locker_machine` fills in for a factory."""

    bench: ClassVar[Harness]
    tally: ClassVar[HistoryTally]
    search: ClassVar[_Search | None]

    def __init__(self) -> None:
        super().__init__()
        cls = type(self)
        if cls.search is not None:
            cls.search.begins()
        cls.tally.histories += 1
        self._judged = 0
        self._last: Watch | None = None
        shape = self._unbroken(lambda: self.bench.shape)
        off = self.bench.without
        self._tries = shape.tries
        self._cancels = shape.timeout or shape.kind == "asyncio"
        self._interrupts = shape.kind == "threads" and "interrupt" not in off
        self._leases = shape.leases
        self._strays = shape.strays and "unheld" not in off
        self._ordered = "fifo" not in off
        self._counts = shape.counts
        self._level: Level = self.bench.levels[0]
        self.history = History(
            CLIENTS,
            KEYS[0] if shape.striped else KEYS,
            "keep" if shape.kind == "threads" else "pass",
        )

    # -- what there is to choose from ----------------------------------------------------------------------------

    def levels(self) -> Sequence[Level]:
        return self.bench.levels

    def keys(self) -> Sequence[str]:
        return self.history.keys

    def free(self) -> Sequence[str]:
        return self.history.free() if self._strays else ()

    def idle(self) -> Sequence[int]:
        return self.history.idle()

    def tries(self) -> Sequence[int]:
        return self.history.idle() if self._tries else ()

    def may_be_cancelled(self) -> Sequence[int]:
        return self.history.idle() if self._cancels else ()

    def may_be_interrupted(self) -> Sequence[int]:
        return self.history.idle() if self._interrupts else ()

    def may_lease(self) -> Sequence[int]:
        return self.history.idle() if self._leases else ()

    def cancellable(self) -> Sequence[int]:
        return self.history.waiting("~!")

    def holders(self) -> Sequence[int]:
        return self.history.holding("+~!?")

    def leaseholders(self) -> Sequence[int]:
        return self.history.holding("[")

    def stale(self) -> Sequence[int]:
        return sorted(self.history.stale)

    # -- rules ---------------------------------------------------------------------------------------------------

    @initialize(level=_one_of("levels"))
    def waits_end_by(self, level: Level) -> None:
        self._level = level

    @_possible("idle")
    @rule(client=_one_of("idle"), key=_one_of("keys"))
    def lock(self, client: int, key: str) -> None:
        self.history.ask(client, "+", key)

    @_possible("may_be_cancelled")
    @rule(client=_one_of("may_be_cancelled"), key=_one_of("keys"))
    def lock_cancellable(self, client: int, key: str) -> None:
        self.history.ask(client, "~", key)

    @_possible("may_be_interrupted")
    @rule(client=_one_of("may_be_interrupted"), key=_one_of("keys"))
    def lock_interruptible(self, client: int, key: str) -> None:
        self.history.ask(client, "!", key)

    @_possible("tries")
    @rule(client=_one_of("tries"), key=_one_of("keys"))
    def try_lock(self, client: int, key: str) -> None:
        self.history.ask(client, "?", key)

    @_possible("may_lease")
    @rule(client=_one_of("may_lease"), key=_one_of("keys"))
    def hold(self, client: int, key: str) -> None:
        self.history.ask(client, "[", key)

    @_possible("cancellable")
    @rule(client=_one_of("cancellable"))
    def cancel(self, client: int) -> None:
        timed = self.history.waiting("~")
        if client in timed and self._level != "tasks":
            # Who asked at the same time is out of time with it: the clock moves for all.
            self.history.cancel(*timed)
        else:
            self.history.cancel(client)

    @_possible("holders")
    @rule(client=_one_of("holders"))
    def unlock(self, client: int) -> None:
        self._release(client, "-")

    @_possible("leaseholders")
    @rule(client=_one_of("leaseholders"), early=st.booleans())
    def end_lease(self, client: int, early: bool) -> None:
        self._release(client, "^" if early else "]")

    @_possible("stale")
    @rule(client=_one_of("stale"))
    def release_stale_lease(self, client: int) -> None:
        self.history.stale_release(client)

    @_possible("stale")
    @rule(client=_one_of("stale"))
    def leave_stale_lease(self, client: int) -> None:
        self.history.leave(client)

    @_possible("idle", "free")
    @rule(client=_one_of("idle"), key=_one_of("free"))
    def unlock_unheld(self, client: int, key: str) -> None:
        self.history.stray_unlock(client, key)

    @invariant()
    def keeps_the_contract(self) -> None:
        # After every step, so that the failing step is the last and Hypothesis can leave out others.
        if len(self.history.phases) > self._judged:
            self._judged = len(self.history.phases)
            self._last = self._run(self.history)

    def teardown(self) -> None:
        # Each run begins with all of the runs before it, so the last one has everything to count.
        if self._last is not None:
            self.tally.add(self.history, self._last)

    # -- runs ----------------------------------------------------------------------------------------------------

    def _release(self, client: int, kind: str) -> None:
        history = self.history
        queue = history.queue(history.key_of(client))
        self.tally.longest_queue = max(self.tally.longest_queue, len(queue))
        served = self._served(client, kind, queue) if len(queue) > 1 and not self._ordered else None
        history.release(client, kind, served)

    def _served(self, client: int, kind: str, queue: tuple[int, ...]) -> int:
        """Which waiter gets the key that a client releases now: the program so far is run to see it."""
        ahead = self.history.copy()
        ahead.release(client, kind, queue[0])
        watch = self._run(ahead)
        seen = watch.last.holds if watch.last is not None else {}
        return next((waiter for waiter in queue if waiter in seen), queue[0])

    def _run(self, history: History) -> Watch:
        __tracebackhide__ = True
        bench = self.bench
        judge = Judge(off=bench.off, tail_from=len(history.phases))
        watch = Watch(judge, history.moments, off=bench.off, counts=self._counts)
        self._unbroken(lambda: self._to_its_end(history, watch))
        finding = watch.finding if not judge.findings else judge.findings[0]
        if finding is not None and not watch.diverged:
            schedule = Schedule(history.program, self._level, (), bench.shape.tries)
            if self.search is not None:
                self.search.found(finding, schedule, judge)
            raise ContractError(describe(finding, schedule, bench), finding, schedule)
        return watch

    def _to_its_end(self, history: History, watch: Watch) -> None:
        ending = self.bench.run(history.program, self._level, watch)
        watch.judge.ended(ending)
        if watch.judge.exited is not None:
            raise InconclusiveError(f"the locker tried to leave the process: {watch.judge.exited}")
        if ending is Ending.ENDLESS and not watch.judge.findings:
            raise InconclusiveError(f"this program has no end within the step limit: {history.program}")

    def _unbroken(self, do: Callable[[], _T]) -> _T:
        """What ``do()`` returns. What keeps it from its end is no verdict on a history, and ends the search at once."""
        try:
            return do()
        except Exception as error:
            raise NoVerdict(str(error)) from error
