"""Run a program in every schedule up to a bound, or replay one schedule from its text."""

from __future__ import annotations

import copy
import functools
import re
from collections import Counter
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from kmutex.engine.estimate import LEAST_PROBES, PROBES, Ahead, Probe
from kmutex.engine.eventloop import Loop, LoopRun, trio_loop
from kmutex.engine.faces import Face
from kmutex.engine.judge import Judge
from kmutex.engine.keys import Spelling, key_of
from kmutex.engine.limits import TIMEOUT
from kmutex.engine.observer import Ending, Observer
from kmutex.engine.program import Program, ProgramError, parse
from kmutex.engine.run_judge import Finding, RunJudge
from kmutex.engine.scenarios import with_epilogue
from kmutex.engine.search import Chooser, ReducedSearch, Search, picks_of
from kmutex.engine.shapes import Fitted
from kmutex.engine.strategies import PCT, PORTFOLIO, drawn
from kmutex.engine.threads import Bytecode, Crew, ThreadRun, acts_unseen, foreign

Level = Literal["locks", "bytecode", "tasks", "timeouts"]
"""Where the scheduler may switch. Threads: at lock operations only, or at bytecodes too. asyncio: how a wait ends, by
cancelling its task or by its timeout."""

MOST_AFTER = 400
"""The most runs of a program after the first that breaks a clause."""

_SCHEDULE = re.compile(r"(?P<program>.+?) @(?P<level>locks|bytecode|tasks|timeouts)(?P<tries>-)?(?P<picks>( \d+:\d+)*)")


class Schedule(NamedTuple):
    """One run: what the clients do, and the choices that differ from the default schedule. ``str()`` gives its text."""

    program: Program
    """What the clients do."""
    level: Level
    """Where the scheduler may switch, that is, "locks", "bytecode", "tasks" or "timeouts"."""
    picks: tuple[tuple[int, int], ...]
    """The number of each choice that is not the default, and the alternative that was taken."""
    tries: bool = True
    """Whether the epilogue may call lock with timeout 0."""

    def __str__(self) -> str:
        level = self.level if self.tries else f"{self.level}-"
        return f"{self.program} @{level}" + "".join(f" {at}:{pick}" for at, pick in self.picks)


def parse_schedule(text: str) -> Schedule:
    """Return the schedule that ``text`` describes.

    Args:
        text: As `Schedule` prints it: ``PROGRAM @LEVEL CHOICE:ALTERNATIVE ...``.

    Raises:
        ProgramError: It is not the text of a schedule.
    """
    found = _SCHEDULE.fullmatch(text.strip())
    if found is None:
        raise ProgramError(f"{text!r} is not a schedule: write PROGRAM @LEVEL CHOICE:ALTERNATIVE ...")
    picks = tuple((int(at), int(pick)) for at, _, pick in (word.partition(":") for word in found["picks"].split()))
    level: Level = found["level"]  # type: ignore[assignment]
    return Schedule(parse(found["program"]), level, picks, found["tries"] is None)


class Found(NamedTuple):
    """A broken clause and the run that shows it."""

    finding: Finding
    schedule: Schedule


@dataclass
class Exploration:
    """The result of running a program in many schedules."""

    program: Program
    level: Level
    bound: int
    runs: int = 0
    reduced: bool = False
    """Whether ways that differ from another within the bound only in the order of steps that commute were left out."""
    complete: bool = False
    """Whether every schedule within the bound was run, or skipped as `reduced` allows."""
    estimate: float | None = None
    """The estimated number of schedules within the bound, if not all were run."""
    by_pct: int = 0
    """The number of runs whose schedule was drawn by `PCT`."""
    endless: int = 0
    longest: int = 0
    found: dict[str, Found] = field(default_factory=dict)
    """By symptom: the shortest run that shows it."""
    unpromised: dict[str, Found] = field(default_factory=dict)
    """The same for clauses that the locker does not promise, by clause."""
    exited: str | None = None
    uncountable: bool = False
    """Whether len() could not be called in a quiescent state."""
    witnesses: Counter[str] = field(default_factory=Counter)
    last: RunJudge | None = None
    """The judge of the last run."""
    left_at: int | None = None
    """The first choice at which a replay differs from the recorded run; None if it is the same."""

    told: Callable[[Found, bool], None] = lambda found, promised: None
    """Called with the first run of each symptom, as soon as it has ended, and whether the clause is promised."""

    @property
    def breaches(self) -> list[Found]:
        """All broken clauses, promised or not."""
        return [*self.found.values(), *self.unpromised.values()]

    def add(self, finding: Finding, schedule: Schedule) -> None:
        """Keep a finding if it is the first of its symptom, or shorter."""
        if _keep(self.found, finding.symptom, Found(finding, schedule)):
            self.told(self.found[finding.symptom], True)

    def add_unpromised(self, finding: Finding, schedule: Schedule) -> None:
        """Keep a finding about a clause that is not promised."""
        if _keep(self.unpromised, finding.clauses[0], Found(finding, schedule)):
            self.told(self.unpromised[finding.clauses[0]], False)


def _keep(shortest: dict[str, Found], name: str, found: Found) -> bool:
    """Keep it if it is the first of its name, or shorter; return whether it is the first."""
    before = shortest.get(name)
    if before is None or _size(*found) < _size(*before):
        shortest[name] = found
    return before is None


def _size(finding: Finding, schedule: Schedule) -> tuple[int, int]:
    return len(schedule.picks), len(finding.events)


class Explorer:
    """Runs programs on what ``make()`` returns."""

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        crew: Crew | None,
        off: Set[str] = frozenset(),
        unpromised: Set[str] = frozenset(),
        tries: bool = True,
        strays: bool = True,
        keys: Callable[[str], Any] | Spelling = key_of,
        loop: Loop | None = None,
        trio: bool = False,
        patience: float = 5.0,
        judging: Callable[..., RunJudge] = Judge,
    ) -> None:
        """Make an explorer.

        Args:
            make: Makes a new subject.
            crew: The threads, for a subject that was made within `kmutex.engine.threads.replaced`; None for asyncio.
            off: Clauses that are not judged.
            unpromised: Clauses that may be broken without a violation.
            tries: Whether the locker can be asked without waiting.
            strays: Whether an unheld key can be unlocked.
            keys: Gives the key for a letter of a program.
            loop: The event loop of all runs; None for a new one in each run.
            trio: Whether the tasks are trio's; each run then has a loop of trio's.
            patience: Seconds without a scheduling point until a run counts as out of control.
            judging: Makes the judge of a run, with the arguments of `Judge`.
        """
        self._make = make
        self._crew = crew
        self._off = off
        self._unpromised = unpromised
        self._tries = tries
        self._strays = strays
        self._keys = keys
        self._loop = loop
        self._trio = trio
        self._afterwards = True
        self._timeout = TIMEOUT
        self._patience = patience
        self._judging = judging
        self._bytecode = Bytecode(lambda filename: not foreign(filename))
        self._watch = Bytecode(lambda filename: not foreign(filename), watching=True)

    @classmethod
    def of(
        cls,
        fitted: Fitted,
        *,
        crew: Crew | None,
        off: Set[str] = frozenset(),
        unpromised: Set[str] = frozenset(),
        patience: float = 5.0,
    ) -> Explorer:
        """Make an explorer for an adapted factory; the other arguments are those of the class."""
        shape = fitted.shape
        keys = Spelling(shape.keys, own=shape.shared)
        loop = Loop() if shape.shared and not shape.trio else None  # type: ignore[abstract]
        return cls(
            fitted.make,
            crew=crew,
            off=off,
            unpromised=unpromised,
            tries=shape.tries,
            strays=shape.strays,
            keys=keys,
            loop=loop,
            trio=shape.trio,
            patience=patience,
        )

    def on(
        self,
        make: Callable[[], Any],
        *,
        keys: Callable[[str], Any] | Spelling | None = None,
        judging: Callable[..., RunJudge] | None = None,
        loop: Loop | None = None,
        afterwards: bool = True,
        timeout: float = TIMEOUT,
        tries: bool = True,
    ) -> Explorer:
        """Return the same explorer with another factory, other keys, another judge, or one loop for all runs.

        Args:
            make: Another factory.
            keys: Gives the key for a letter of a program.
            judging: Makes the judge of a run.
            loop: The event loop of all runs.
            tries: Whether that factory's locker can be asked without waiting, if this one's can.
            afterwards: Whether the epilogue checks that each key is as good as new once it is released.
            timeout: Virtual seconds of a cancellable wait.
        """
        other = copy.copy(self)
        other._make = make
        other.__dict__.pop("_told_by_code", None)
        other._judging = judging or self._judging
        other._loop = loop or self._loop
        other._afterwards = afterwards
        other._timeout = timeout
        other._tries = self._tries and tries
        other._keys = self._keys if keys is None else keys
        return other

    @functools.cached_property
    def _told_by_code(self) -> bool:
        """Whether the subject acts by its own code only, and not when an object is freed."""
        return not acts_unseen(self._make)

    @property
    def judging(self) -> Callable[..., RunJudge]:
        """Return what makes the judge of a run."""
        return self._judging

    def keys_of_a_run(self) -> Callable[[str], Any]:
        """Return the function from letters to keys for the next run."""
        return self._keys.of_a_run() if isinstance(self._keys, Spelling) else self._keys

    def every(
        self,
        program: Program,
        level: Level,
        bound: int,
        *,
        known: Set[str] = frozenset(),
        go_on: Callable[[int], bool] = lambda runs: True,
        told: Callable[[Found, bool], None] = lambda found, promised: None,
        reduced: bool = False,
        estimate: bool = False,
    ) -> Exploration:
        """Run every schedule with at most ``bound`` preemptions.

        Once a run has broken a clause, MOST_AFTER more are made: they may break other clauses, or be shorter.

        Args:
            program: The program.
            level: Where the scheduler may switch.
            bound: The most preemptions.
            go_on: Called with the number of runs; False ends the search.
            known: Symptoms of simpler programs.
            told: Called with the first run of each symptom at once.
            reduced: Skip schedules that differ only in the order of steps that commute, if switches come at locks.
            estimate: If not all are run, estimate their number by further runs, a tenth of those before.
        """
        result = Exploration(program, level, bound, told=told)
        result.reduced = reduced and self._crew is not None and self._told_by_code
        search = ReducedSearch(bound, program.alike) if result.reduced else Search(bound)
        since = 0
        default: Chooser | None = None
        for chooser in search:
            self._once(result, chooser, known)
            default = default or chooser
            since += bool(result.found)
            if result.exited or since > MOST_AFTER or not go_on(result.runs):
                break
        result.complete = search.complete
        if estimate and default is not None and not (search.complete or result.found or result.exited):
            self._count(result, Ahead(default.path, bound), min(PROBES, result.runs // 10), known, go_on)
        return result

    def _count(
        self, result: Exploration, ahead: Ahead, number: int, known: Set[str], alive: Callable[[int], bool]
    ) -> None:
        probes = [Probe(seed, result.bound, ahead) for seed in range(number)]
        for probe in probes:
            self._once(result, probe, known)
            alive(result.runs)
            if result.found or result.exited:
                return
        if number >= LEAST_PROBES:
            result.estimate = sum(probe.weight for probe in probes) / number

    def some(
        self,
        program: Program,
        level: Level,
        seeds: range,
        *,
        names: Sequence[str] = PORTFOLIO,
        known: Set[str] = frozenset(),
        go_on: Callable[[int], bool] = lambda runs: True,
        told: Callable[[Found, bool], None] = lambda found, promised: None,
    ) -> Exploration:
        """Run the default schedule, and one for each seed, drawn by the strategies of these names in turn."""
        result = Exploration(program, level, 0, told=told)
        for chooser in drawn(seeds, names):
            self._once(result, chooser, known)
            result.by_pct += isinstance(chooser, PCT)
            if result.found or result.exited or not go_on(result.runs):
                break
        return result

    def again(
        self,
        schedule: Schedule,
        *,
        known: Set[str] = frozenset(),
        judging: Callable[..., RunJudge] | None = None,
        choosing: Callable[[Sequence[int]], Chooser] = Chooser,
    ) -> Exploration:
        """Replay a schedule as far as it fits.

        Args:
            schedule: The schedule.
            known: Symptoms of simpler programs.
            judging: Makes its judge, instead of the explorer's.
            choosing: Makes the chooser that follows the picks.
        """
        result = Exploration(schedule.program, schedule.level, 0)
        self._tries = schedule.tries
        chooser = choosing(picks_of(dict(schedule.picks)))
        self._once(result, chooser, known, judging)
        last = max((at for at, _ in schedule.picks), default=-1)
        if chooser.left_at is None and len(chooser.path) <= last and not result.breaches:
            chooser.left_at = len(chooser.path)
        result.left_at = chooser.left_at
        return result

    def _once(
        self, result: Exploration, chooser: Chooser, known: Set[str], judging: Callable[..., RunJudge] | None = None
    ) -> None:
        judge = (judging or self._judging)(
            off=self._off, unpromised=self._unpromised, known=known, tail_from=len(result.program.phases)
        )
        ending = self.run(result.program, result.level, chooser, judge)
        judge.ended(ending)
        result.runs += 1
        result.endless += ending is Ending.ENDLESS
        result.longest = max(result.longest, len(chooser.path))
        result.witnesses.update(judge.witnesses)
        result.exited = judge.exited
        result.uncountable |= judge.uncountable
        result.last = judge
        if judge.findings or judge.unpromised:
            picks = tuple(sorted(chooser.recorded().items()))
            schedule = Schedule(result.program, result.level, picks, self._tries)
            for finding in judge.findings:
                result.add(finding, schedule)
            for finding in judge.unpromised:
                result.add_unpromised(finding, schedule)

    def meets_bytecodes(self, program: Program) -> bool:
        """Return whether this program runs any bytecode of the subject at which a thread can be preempted."""
        self.every(program, "bytecode", 0)
        return self._bytecode.met

    def run(self, program: Program, level: Level, chooser: Chooser, observer: Observer) -> Ending:
        """Run a program and its epilogue once."""
        whole, tail = with_epilogue(program, tries=self._tries, strays=self._strays, afterwards=self._afterwards)
        keys = self.keys_of_a_run()
        made: list[Any] = []

        def make() -> Any:
            made.append(self._make())
            return made[0]

        run: ThreadRun | LoopRun
        if self._crew is not None:
            run = ThreadRun(
                make,
                whole,
                chooser,
                observer,
                crew=self._crew,
                keys=keys,
                bytecode=self._watch if chooser.watches else self._bytecode if level == "bytecode" else None,
                switches=level == "bytecode",
                quiet_tail=tail,
                patience=self._patience,
                timeout=self._timeout,
            )
        else:
            run = LoopRun(
                make,
                whole,
                chooser,
                observer,
                keys=keys,
                timeouts=level == "timeouts",
                quiet_tail=tail,
                loop=trio_loop() if self._trio else self._loop,
                timeout=self._timeout,
            )
        ending = run.run()
        # If all runs share a table, the next run would find the keys that a broken run left held.
        if self._loop is not None and made and isinstance(made[0], Face):
            made[0].let_go()
        return ending
