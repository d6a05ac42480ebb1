"""The whole check of a port: vectors, then random sequences, and the shortest of those that fails.

At level 2 nothing is guessed, and a case that fails has failed. At level 1, and where cases go side by side, it is
played again by itself, with a longer silence, before it is believed: a slow machine looks like a wrong order there, and
adapters that lock the same thing disturb each other. Random sequences come from the model, by a seed that is reported.
The first that fails is shrunk as long as it still fails.

A clause that has failed several times is no longer tested: it would hide other failures, and cost a time limit each
time.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby

from kmutex.conform.adapter import Adapter, AdapterError
from kmutex.conform.case import Case, CaseError, parse_moves
from kmutex.conform.expected import make_case
from kmutex.conform.known_failures import listing, names
from kmutex.conform.player import PORT_FEATURES, TOLD, CaseVerdict, Played, Waits, lacking, play
from kmutex.conform.sequences import random_case, simpler
from kmutex.conform.vectors import Vector

PATIENT = 8
"""The factor for the silence of level 1 when a failure is repeated."""
MOST_BROKEN = 3
"""After this number of cases that broke the adapter, the check ends."""
ENOUGH = 3
"""After this number of failures, a clause is no longer tested."""
ALWAYS = ("KM-EXCL", "KM-LIVE")
"""These clauses can't be left out."""
HASTE = 5
"""After a failure the time limit is so many times shorter, down to a second: the port has failed by then."""
TIMES = 2
"""At level 1: so many times the port's usual time to answer is the silence that will do, until that was too short."""
SIDE_BY_SIDE = 8
"""The number of parallel cases at level 1, where most of the time is silence."""


class StartError(Exception):
    """The adapter could not be started. The message is one line; the exit status is 3."""


class LackError(Exception):
    """The case needs a feature that the port has not declared. The message is one line; the exit status is 2."""


@dataclass(frozen=True)
class Options:
    """How a port is checked.

    waits     see `play.Waits`
    starting  seconds until hello
    runs      random sequences
    seed      of the first; the others count up
    seconds   after which no new case is begun
    failures  cases that may fail, known ones not counted, before there is no sense in going on
    known     what is known to fail, with the reasons; see `known_failures`
    flaky     what may fail or not
    without   clauses that are not to be judged
    chosen    clauses or patterns of ids: only these vectors; all where it is empty
    skip      clauses or patterns of ids: not these vectors
    jobs      cases that are played side by side, each with an adapter of its own; None: as many as pay
    repeat    how many times each case is played
    whole     play every case, also of clauses that are known to be broken, and however many fail
    """

    waits: Waits
    starting: float
    runs: int
    seed: int
    seconds: float
    failures: int
    known: Mapping[str, str] = field(default_factory=dict)
    flaky: Mapping[str, str] = field(default_factory=dict)
    without: frozenset[str] = frozenset()
    chosen: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    jobs: int | None = None
    repeat: int = 1
    whole: bool = False

    def chooses(self, vector: Vector) -> bool:
        """Return whether the vector was chosen."""
        of = (vector.case.id, *vector.clauses)
        chosen = not self.chosen or any(names(pattern, name) for pattern in self.chosen for name in of)
        return chosen and not any(names(pattern, name) for pattern in self.skip for name in of)


@dataclass
class Result:
    """What was found.

    left_out  vectors that need a feature which the port has not declared, by feature
    unplayed  every vector that was not played, with the reason
    skipped   vectors and random sequences that were not begun within the time
    broken    clauses that were shown broken so often that they were not asked for any more
    smaller   for the random sequence that failed, the shortest form that fails too
    whole     that sequence
    """

    name: str = ""
    features: frozenset[str] = frozenset()
    planned: int = 0
    vectors: list[Played] = field(default_factory=list)
    random: list[Played] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    unplayed: dict[str, str] = field(default_factory=dict)
    skipped: int = 0
    broken: list[str] = field(default_factory=list)
    smaller: Played | None = None
    whole: Played | None = None
    jobs: int = 1
    seconds: float = 0.0
    farewell: str = ""
    """Why the adapter did not end cleanly, or ""."""

    @property
    def played(self) -> list[Played]:
        """Every case, in order."""
        return [*self.vectors, *self.random]

    def listed(self, played: Played, entries: Mapping[str, str]) -> str:
        """The reason why a case that failed is excused; "" if it is not.

        It is listed by its id or a pattern; or it is no vector, and breaks nothing but clauses that are listed for
        random sequences, or that a listed case has broken: a random sequence runs into one mistake under many ids.
        """
        vector = any(played is one for one in self.vectors)
        if reason := listing(entries, played.case.id, () if vector else played.clauses):
            return reason
        broken = {clause for one in self.played if listing(entries, one.case.id) for clause in one.clauses}
        return "breaks only what a listed case breaks" if not vector and broken >= set(played.clauses) > set() else ""

    def excused(self, played: Played, options: Options) -> bool:
        """Return whether a case that failed is listed as known or flaky."""
        return bool(self.listed(played, options.known) or self.listed(played, options.flaky))


def _weight(case: Case) -> tuple[bool, int]:
    return case.keys * case.rounds > 1, len(case.needs)


class _Seat:
    """The place of one adapter at a time."""

    def __init__(self) -> None:
        self.adapter: Adapter | None = None
        self.worked = False
        """Whether an adapter has sent its hello here."""

    def drop(self) -> None:
        if self.adapter is not None:
            self.adapter.end()
            self.adapter = None


class _Gate:
    """Lets cases be played in parallel, or one of them alone."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def beside(self) -> Iterator[None]:
        with self._news:
            self._news.wait_for(lambda: not self._alone)
            self._inside += 1
        try:
            yield
        finally:
            with self._news:
                self._inside -= 1
                self._news.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._news:
            self._news.wait_for(lambda: not self._alone)
            self._alone = True
            self._news.wait_for(lambda: not self._inside)
        try:
            yield
        finally:
            with self._news:
                self._alone = False
                self._news.notify_all()


class Conformance:
    """A check of the adapter that a command starts."""

    def __init__(
        self, command: Sequence[str], options: Options, on_progress: Callable[[Result], None] = lambda result: None
    ) -> None:
        """on_progress: called before each case, by one thread at a time."""
        self._command = command
        self._options = options
        self._on_progress = on_progress
        self._begun = time.monotonic()
        self._seats = [_Seat()]
        self._gate = _Gate()
        self._guard = threading.RLock()
        """Around the result, and what is said of it."""
        self._waits = options.waits
        self._off = options.without
        self._tests: dict[str, tuple[str, ...]] = {}
        """By vector, the clauses that it tests."""
        self._times: Counter[str] = Counter()
        """By clause, how often it was shown broken."""
        self._failed = self._broke = 0
        """Vectors on which the port failed and the adapter broke, without those that are known to."""
        self._lost = False
        """It has worked, and does not start any more."""
        self._over = False
        self.result = Result()

    def check(self, vectors: Sequence[Vector]) -> Result:
        """Play the vectors and random sequences; raise StartError if the adapter does not start properly."""
        self._waits = self._waits._replace(haste=TIMES)
        try:
            self._meet()
            self.result.jobs = self._options.jobs or (1 if "stat" in self.result.features else SIDE_BY_SIDE)
            self._seats += [_Seat() for _ in range(self.result.jobs - 1)]
            self._play_vectors(vectors)
            self._play_random()
            self._part()
        finally:
            self._drop()
        return self.result

    def one(self, case: Case) -> Played:
        """Play one case; raise StartError or LackError if that is not possible."""
        try:
            self._meet()
            if lacks := [name for name in case.needs if name not in self.result.features]:
                off = ", ".join(map(lacking, lacks))
                raise LackError(f"{case.id} needs {', '.join(lacks)}, which the adapter has not declared ({off})")
            if reason := self._left_out(case):
                raise LackError(f"{case.id}: {reason}")
            return self._play(case, self._seats[0])
        finally:
            self._drop()

    # -- the adapters --------------------------------------------------------------------------------------------

    def _meet(self) -> None:
        adapter = self._fresh(self._seats[0])
        unknown = adapter.features - set(PORT_FEATURES) - set(TOLD)
        if unknown:
            known = ", ".join([*PORT_FEATURES, *TOLD])
            raise StartError(f"its hello has the feature {min(unknown)!r}, which there is not; there are {known}")
        self.result.name = adapter.name
        self.result.features = adapter.features

    def _fresh(self, seat: _Seat) -> Adapter:
        """The adapter of the seat, or a new one. StartError."""
        if seat.adapter is None:
            try:
                seat.adapter = Adapter(self._command, patience=self._options.waits.timeout)
                seat.adapter.hello(self._options.starting)
                seat.worked = True
            except AdapterError as error:
                seat.drop()
                raise StartError(str(error)) from None
        return seat.adapter

    def _again(self, seat: _Seat) -> Adapter:
        """The same, of the same kind as the first. StartError."""
        adapter = self._fresh(seat)
        if adapter.features != self.result.features:
            raise StartError("its hello declares other features than the first time")
        return adapter

    def _drop(self) -> None:
        for seat in self._seats:
            seat.drop()

    def _part(self) -> None:
        for adapter in [seat.adapter for seat in self._seats if seat.adapter is not None]:
            try:
                adapter.bye()
            except AdapterError as error:
                self.result.farewell = str(error)

    # -- one case ------------------------------------------------------------------------------------------------

    def _play(self, case: Case, seat: _Seat) -> Played:
        """Play a case; repeat it alone with a longer silence if silence or a parallel case may be the cause."""
        begun = time.monotonic()
        for _ in range(self._options.repeat):
            with self._gate.beside():
                played = self._attempt(case, self._waits, seat)
            if played.verdict is not CaseVerdict.PASSED:
                break
        # Two holders at a time are seen by what was said, and by no silence.
        unsure = "stat" not in self.result.features or self.result.jobs > 1
        if played.verdict is CaseVerdict.FAILED and unsure and played.symptom != "KM-EXCL":
            hasty, usual = self._waits.haste, self._waits._replace(haste=0)
            with self._gate.alone():
                second = self._attempt(case, usual._replace(settle=PATIENT * usual.settle), seat)
            passed = second.verdict is CaseVerdict.PASSED
            if passed and hasty and "stat" not in self.result.features:
                with self._gate.beside():
                    third = self._attempt(case, usual, seat)
                if third.verdict is CaseVerdict.PASSED:
                    # It was the haste: this port is waited for longer from now on.
                    with self._guard:
                        self._waits = self._waits._replace(haste=max(self._waits.haste, 8 * hasty))
                    return third._replace(seconds=time.monotonic() - begun)
            played = played._replace(verdict=CaseVerdict.SLOW) if passed else second
        return played._replace(seconds=time.monotonic() - begun)

    def _attempt(self, case: Case, waits: Waits, seat: _Seat) -> Played:
        with self._guard:
            plainer = [p.symptom for p in self.result.played if p.symptom and set(p.case.needs) < set(case.needs)]
            off = self._options.without if listing(self._options.known, case.id) else self._off
        try:
            adapter = self._again(seat)
        except StartError as error:
            self._lost = True
            return Played(case, CaseVerdict.BROKEN, (), "", f"started once more for this case, it failed: {error}", ())
        played = play(adapter, case, waits, frozenset(plainer), off)
        if played.verdict is not CaseVerdict.PASSED:
            # Its calls may hang, and what it says from now on may belong to them.
            seat.drop()
        return played

    def _left_out(self, case: Case) -> str:
        """Return why the case is not played although the port has the features, or ""."""
        off = self._options.without if listing(self._options.known, case.id) else self._off
        named = {command.key for move in case.moves for command in move if command.key is not None}
        tied = [clause for name in case.needs for clause in PORT_FEATURES[name]]
        if case.id in self._tests:
            tied = [clause for clause in tied if clause in self._tests[case.id]]
        if case.keys * len(named) > 1:
            tied.append("KM-INDEP")
        for clause in tied:
            if clause in off:
                asked = clause in self._options.without
                return f"it tests {clause}, which {'--without leaves out' if asked else 'is known to be broken'}"
        return ""

    # -- all of them ---------------------------------------------------------------------------------------------

    def _late(self) -> bool:
        self.result.seconds = time.monotonic() - self._begun
        self._on_progress(self.result)
        return self.result.seconds > self._options.seconds

    def _side_by_side(self, cases: Iterable[Case], record: Callable[[Played], bool]) -> None:
        """Play the cases on all seats. record: takes what was played, in the order in which it ends; whether to go on.

        Of the cases nothing is taken that is not played.
        """
        todo = iter(cases)

        def work(seat: _Seat) -> None:
            if seat is not self._seats[0] and not seat.worked:
                try:
                    self._again(seat)
                except StartError:
                    # Some adapters can run only once at a time. The first seat continues.
                    seat.drop()
                    with self._guard:
                        self._seats.remove(seat)
                        self.result.jobs -= 1
                    return
            while True:
                with self._guard:
                    case = None if self._over or self._late() else next(todo, None)
                if case is None:
                    return
                played = self._play(case, seat)
                with self._guard:
                    self._over = not record(played) or self._over

        if len(self._seats) == 1:
            work(self._seats[0])
            return
        with ThreadPoolExecutor(len(self._seats)) as pool:
            working = [pool.submit(work, seat) for seat in self._seats]
            try:
                for one in working:
                    one.result()
            except BaseException:
                # The end of an adapter wakes the thread that waits for it, even while it starts.
                self._over = True
                while wait(working, 0.05).not_done:
                    for seat in self._seats:
                        if seat.adapter is not None:
                            seat.adapter.kill()
                raise

    def _play_vectors(self, vectors: Sequence[Vector]) -> None:
        result = self.result
        fitting = []
        self._tests = {vector.case.id: vector.clauses for vector in vectors}
        for vector in vectors:
            lacks = [name for name in vector.case.needs if name not in result.features]
            for name in lacks:
                result.left_out[name] = result.left_out.get(name, 0) + 1
            if lacks:
                result.unplayed[vector.case.id] = f"needs {', '.join(lacks)}"
            elif not self._options.chooses(vector):
                result.unplayed[vector.case.id] = "left out by --run or --skip"
            else:
                fitting.append(vector.case)
        # The plain ones first: what they show is then not blamed on what else is in the others. The long ones last.
        fitting.sort(key=_weight)
        result.planned = len(fitting) + self._options.runs

        def asked(group: Iterable[Case]) -> Iterator[Case]:
            for case in group:
                if reason := self._left_out(case):
                    result.unplayed[case.id] = reason
                else:
                    yield case

        for _, group in groupby(fitting, _weight):
            self._side_by_side(asked(group), self._record)
        done = {played.case.id for played in result.vectors} | set(result.unplayed)
        late = [case.id for case in fitting if case.id not in done]
        result.unplayed |= dict.fromkeys(late, "not begun")
        result.skipped += len(late)
        order = {case.id: number for number, case in enumerate(fitting)}
        result.vectors.sort(key=lambda played: order[played.case.id])

    def _record(self, played: Played) -> bool:
        self.result.vectors.append(played)
        if self._is_news(played):
            self._failed += played.verdict is CaseVerdict.FAILED
            self._broke += played.verdict is CaseVerdict.BROKEN
            if played.verdict is CaseVerdict.FAILED:
                self._learn(played)
        enough = self._failed >= self._options.failures and not self._options.whole
        return not (self._lost or enough or self._broke >= MOST_BROKEN)

    def _learn(self, played: Played) -> None:
        """Stop testing clauses that have failed often enough."""
        usual = self._options.waits
        self._waits = self._waits._replace(timeout=min(usual.timeout, max(1.0, usual.timeout / HASTE)))
        clause = next(iter(played.clauses), "KM-LIVE")
        self._times[clause] += 1
        if self._times[clause] >= ENOUGH and clause not in (*ALWAYS, *self._off) and not self._options.whole:
            self._off |= {clause}
            self.result.broken.append(clause)

    def _play_random(self) -> None:
        result, options = self.result, self._options
        if self._over:
            result.skipped += options.runs
            return
        seeds: dict[str, int] = {}
        unasked = 0

        def sequences() -> Iterator[Case]:
            nonlocal unasked
            for seed in range(options.seed, options.seed + options.runs):
                case = random_case(seed, self._judged())
                if self._left_out(case):
                    unasked += 1
                else:
                    seeds.setdefault(case.id, seed)
                    yield case

        def record(played: Played) -> bool:
            result.random.append(played)
            return not self._is_news(played)

        self._side_by_side(sequences(), record)
        result.random.sort(key=lambda played: seeds[played.case.id])
        first = next((number for number, played in enumerate(result.random) if self._is_news(played)), None)
        if first is not None:
            del result.random[first + 1 :]
            result.whole = result.random[first]
        result.skipped += options.runs - len(result.random) - unasked
        if result.whole is not None:
            result.smaller = self._smaller(result.whole)

    def _judged(self) -> frozenset[str]:
        """The features of what is still asked for. The table is looked at in any case."""
        off = {name for name, clauses in PORT_FEATURES.items() if name != "stat" and self._off & set(clauses)}
        return self.result.features - off

    def _is_news(self, played: Played) -> bool:
        """Return whether the failure is not a known one."""
        bad = played.verdict in (CaseVerdict.FAILED, CaseVerdict.BROKEN)
        return bad and not self.result.excused(played, self._options)

    def _smaller(self, played: Played) -> Played:
        """Shrink a case step by step, as long as it has the same result and is not a known failure."""
        first = played
        at = True
        while at:
            at = False
            for moves in filter(None, simpler(parse_moves(played.case.id))):
                if self._late() or self._lost:
                    return played
                try:
                    case = make_case(moves)
                except CaseError:
                    continue
                if not set(case.needs) <= self.result.features:
                    continue
                again = self._play(case, self._seats[0])
                if self._lost or again.verdict is not first.verdict:
                    continue
                if again.verdict is CaseVerdict.FAILED:
                    same = set(again.clauses) & set(first.clauses) or not first.clauses
                    if not same or self.result.excused(again, self._options):
                        continue
                played, at = again, True
                break
        return played
