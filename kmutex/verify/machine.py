"""Random histories of a keyed locker, compared with the model: a Hypothesis state machine.

    TestMyLocker = locker_machine(MyLocker).TestCase

Each rule adds one action of one client to a program; its precondition comes from the model's state. After each step the
program so far is run from the beginning on a new locker under the deterministic scheduler, followed by an epilogue that
checks that each key is as good as new. The judge watches every event, and each quiescent state is compared with the
model: who holds which key, who waits, which calls returned and how, and len().

In a history, one thing happens at a time and no client is preempted. `kmutex.testing.suite` and ``kmutex verify`` cover
overlapping calls, with short programs.
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
from kmutex.engine.observer import Ending, Observer, UncontrolledError
from kmutex.engine.program import ASKING, Step
from kmutex.engine.run_judge import Finding
from kmutex.engine.shapes import Fitted, Kind, NotALockerError
from kmutex.verify.history import GOT, LET_GO, REFUSED, History, Moment, Rest, difference
from kmutex.verify.verdict import ContractError, InconclusiveError, describe, target, uncontrolled

CLIENTS = 4
KEYS = "abc"
STEPS = 20
"""The most steps of one history: its actions, and one that decides how waits end."""
MOST_SHORTER = 150
"""The most histories that are run in search of a shorter one."""

_T = TypeVar("_T")
_NOT_CHECKED = [
    # Runs hand control from one real thread to another. How long that takes depends on the machine, not on the test.
    HealthCheck.too_slow,
]


@dataclass
class HistoryTally:
    """The totals of the histories of one machine."""

    histories: int = 0
    phases: int = 0
    """Quiescent states that were compared with the model."""
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
    """The result of `check_histories`."""

    examples: int
    """How many histories were run, including the search for a shorter one."""
    phases: int
    """How many quiescent states were compared with the model."""
    finding: Finding | None
    """The broken clause, if any."""
    schedule: Schedule | None
    """The run that broke it."""
    judge: Judge | None
    """The judge of that run."""
    witnesses: Counter[str]
    """How often each clause was put to the test."""
    seed: int
    """The seed that was given."""
    complete: bool
    """Whether all examples were run, or a finding was made, before the deadline."""
    flaky: bool = False
    """Whether the same history gave different results. The finding is then one of them."""


class Watch(Observer):
    """It passes a run on to the judge, and compares each quiescent state with the model."""

    def __init__(self, judge: Judge, moments: Sequence[Moment], *, off: Set[str], counts: bool) -> None:
        """Watch one run.

        Args:
            judge: Gets every event.
            moments: The model's state after each phase; later phases are not compared.
            off: Clauses that are not judged.
            counts: Whether len() is compared.
        """
        self.judge = judge
        self.finding: Finding | None = None
        self.compared = 0
        self.diverged = False
        """True once the rest of the run has no meaning: the locker served another waiter than the history assumes, an
        interrupt found nothing to strike, or a clause is broken that is not judged."""
        self.last: Rest | None = None
        """The quiescent state after the last phase that is not of the epilogue."""
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
        # A difference from the model alone does not end the run: the judge may find a better name for it.
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
        # A thread that sleeps between two polls can't be interrupted; it is right to go on waiting.
        return moment.action.name == "interrupt" and moment.action.client not in self._cancelled

    def _compare_len(self, moment: Moment) -> None:
        if not self._counts or self.judge.uncountable:
            return
        said = len(self._subject)
        if said != moment.rest.live and not (said > moment.rest.live and "KM-IDLE" in self._off):
            self._find("KM-REF", f"len() is {said}, but {moment.rest.live} in the model, after {moment.action.name}")

    def _find(self, clause: str, message: str) -> None:
        self.finding = Finding((clause,), clause, message, tuple(self.judge.events))


def _another_served(moment: Moment, seen: Rest) -> bool:
    """Return whether only the choice of the waiter that has the key differs."""
    if not moment.anybody:
        return False
    served = moment.anybody & seen.holds.keys()
    return len(served) == 1 and served != moment.anybody & moment.rest.holds.keys()


class NoVerdict(BaseException):
    """Ends a search; its cause is the error, if there was one.

    Not an Exception: Hypothesis would try to shrink it, and each try may take seconds.
    """


def locker_machine(
    factory: Callable[[], Any],
    *,
    kind: Kind | None = None,
    without: Iterable[str] = frozenset(),
    promises: Iterable[str] | None = None,
    call: str = "",
) -> type[LockerMachine]:
    """Make a Hypothesis state machine for a locker; its ``TestCase`` is for a test suite.

    When it runs, it raises `ContractError` (an AssertionError) or `NotALockerError`.

    Args:
        factory: Makes a new locker, without arguments.
        kind: "threads" or "asyncio"; None finds out.
        without: Features that it lacks, of `FEATURES`.
        promises: What it promises, of `PROMISES`, as with ``verify --with``; all of them as with ``verify --strict``.
        call: Names of its methods if they are not found automatically, as with ``verify --call``.

    Returns:
        A class derived from ``hypothesis.stateful.RuleBasedStateMachine``.

    Raises:
        UnknownFeatureError: A feature or promise is unknown.
        CallsError: ``call`` can't be read.
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
    """Run random histories until one breaks a clause, and shrink that one. The same seed gives the same histories.

    Args:
        make: Makes a new locker, without arguments.
        kind: As for `locker_machine`.
        without: As for `locker_machine`.
        promises: As for `locker_machine`.
        examples: The number of histories.
        seed: The seed of the random choices.
        on_example: Called before each history with the number of those that were run.
        deadline: Real seconds after which no new history begins.
        profile: If a Hypothesis profile was loaded, let it set the number of histories and where failures are stored.
        fitted: The result of `fit` for ``make``, if known.

    Raises:
        NotALockerError: It is not a keyed locker.
        SubjectFailedError: The locker failed, so there is no verdict.
        UncontrolledError: The scheduler lost control of the locker, so there is no verdict.
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
        pass  # The search has kept it.
    except NoVerdict as end:
        if end.__cause__ is not None and search.best is None:
            raise end.__cause__ from None
    except hypothesis.errors.Flaky:
        # Once the search has ended, every example ends at once, even one that is run again.
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
    """Return the settings for a number of histories; None leaves the number and the database to the loaded profile."""
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
    """Return whether a profile was loaded that is not Hypothesis's own."""
    return settings._current_profile not in (None, "default", "ci")


@contextmanager
def _nothing_stored() -> Iterator[None]:
    """Keep Hypothesis from storing files in the current folder."""
    before = getattr(configuration, "__hypothesis_home_directory", None)
    configuration.set_hypothesis_home_dir(os.devnull)
    try:
        yield
    finally:
        configuration.set_hypothesis_home_dir(before)


class _Search:
    """Keeps the shortest history that broke a clause, and decides when the search ends."""

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
        """Whether no further history is run."""
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
            error = end.__cause__ or end
            if isinstance(error, UncontrolledError):
                error = NotALockerError(f"cannot verify {target(machine.bench.make)}: {uncontrolled(error)}")
            raise error from None

    case.runTest = run_test
    return machine


def _one_of(what: str) -> st.SearchStrategy[Any]:
    """Choose one of the values that a method of the machine returns now."""
    return st.runner().flatmap(lambda machine: st.sampled_from(getattr(machine, what)()))


def _possible(*what: str) -> Callable[[Any], Any]:
    """Require that each of these methods of the machine returns at least one value."""
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

    # -- the choices ---------------------------------------------------------------------------------------------

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

    def endings(self) -> Sequence[str]:
        return "-%" if self.bench.shape.bodies else "-"

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
            # Calls that asked at the same time time out with it: there is one clock.
            self.history.cancel(*timed)
        else:
            self.history.cancel(client)

    @_possible("holders")
    @rule(client=_one_of("holders"), by=_one_of("endings"))
    def unlock(self, client: int, by: str) -> None:
        self._release(client, by)

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
        # After every step, so that the failing step is the last and Hypothesis can drop others.
        if len(self.history.phases) > self._judged:
            self._judged = len(self.history.phases)
            self._last = self._run(self.history)

    def teardown(self) -> None:
        # Each run repeats all steps of the run before, so the last one counts everything.
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
        """Run the program so far to see which waiter gets the key that a client releases now."""
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
        """Return what ``do()`` returns. An error of it is no verdict on a history, and ends the search at once."""
        try:
            return do()
        except Exception as error:
            raise NoVerdict(str(error)) from error
