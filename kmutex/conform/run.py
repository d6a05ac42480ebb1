"""The whole check of a port: vectors, then random sequences, and the shortest of those that fails.

At level 2 nothing is guessed, and a case that fails has failed. At level 1 it is played again on a fresh adapter with
a longer silence before it is believed, since a slow machine looks like a wrong order there. Random sequences come from
the model, by a seed that is reported. The first that fails is made smaller as long as it goes on failing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kmutex.conform.adapter import Adapter, AdapterError
from kmutex.conform.case import Case, CaseError, Move, parse_moves
from kmutex.conform.expected import make_case
from kmutex.conform.player import PORT_FEATURES, TOLD, CaseVerdict, Played, Waits, play
from kmutex.conform.vectors import Stand, Vector, candidates

PATIENT = 8
"""How many times as long the silence of level 1 is when a failure is played again."""
MOST_BROKEN = 3
"""Cases on which an adapter may break before there is no sense in going on."""
RANDOM_KEYS = "abc"
RANDOM_ALIVE = 5
RANDOM_MOVES = 12
RANDOM_CALLS = 12
MOST_COURSES = 12
"""Of a random sequence. Each meeting of commands that stays undecided doubles them."""


class StartError(Exception):
    """The adapter could not be put to work. One line; the exit status is 3."""


class LackError(Exception):
    """The case needs a feature that the port has not declared, so nothing is known of it. One line; status 2."""


@dataclass(frozen=True)
class Options:
    """How a port is checked.

    waits     see `play.Waits`
    starting  seconds until hello
    runs      random sequences
    seed      of the first; the others count up
    seconds   after which no new case is begun
    failures  vectors that may fail, known ones not counted, before there is no sense in going on
    known     ids of cases, vectors or random ones, that are known to fail, with the reasons
    """

    waits: Waits
    starting: float
    runs: int
    seed: int
    seconds: float
    failures: int
    known: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """What was found.

    left_out  vectors that need a feature which the port has not declared, by feature
    skipped   vectors and random sequences that were not begun within the time
    smaller   for the random sequence that failed, the shortest form that fails too
    """

    name: str = ""
    features: frozenset[str] = frozenset()
    planned: int = 0
    vectors: list[Played] = field(default_factory=list)
    random: list[Played] = field(default_factory=list)
    left_out: dict[str, int] = field(default_factory=dict)
    skipped: int = 0
    smaller: Played | None = None
    seconds: float = 0.0
    farewell: str = ""
    """Why its end was not a clean one; "" if it was."""

    @property
    def played(self) -> list[Played]:
        """Every case, in order."""
        return [*self.vectors, *self.random]

    def excused(self, played: Played, known: Mapping[str, str]) -> bool:
        """Whether a failed case is a known failure.

        It is listed, or it is no vector and breaks nothing that a listed case has not broken: a random sequence
        runs into the same mistake under many ids.
        """
        if played.case.id in known:
            return True
        if any(played is vector for vector in self.vectors):
            return False
        broken = {clause for one in self.played if one.case.id in known for clause in one.clauses}
        return broken >= set(played.clauses) > set()


class Conformance:
    """A check of the adapter that a command starts."""

    def __init__(
        self, command: Sequence[str], options: Options, on_progress: Callable[[Result], None] = lambda result: None
    ) -> None:
        self._command = command
        self._options = options
        self._on_progress = on_progress
        self._begun = time.monotonic()
        self._adapter: Adapter | None = None
        self._lost = False
        """It has worked, and does not start any more."""
        self.result = Result()

    def check(self, vectors: Sequence[Vector]) -> Result:
        """Play the vectors and random sequences. StartError: the adapter does not start or says no proper hello."""
        try:
            self._meet()
            self._play_vectors(vectors)
            if self._hopeless():
                self.result.skipped += self._options.runs
            else:
                self._play_random()
            self._part()
        finally:
            self._drop()
        return self.result

    def one(self, case: Case) -> Played:
        """Play one case and no more. StartError, LackError."""
        try:
            self._meet()
            lacking = [name for name in case.needs if name not in self.result.features]
            if lacking:
                off = ", ".join(clause for name in lacking for clause in PORT_FEATURES[name])
                raise LackError(f"{case.id} needs {', '.join(lacking)}, which the adapter has not declared ({off})")
            return self._play(case)
        finally:
            self._drop()

    # -- the adapter ---------------------------------------------------------------------------------------------

    def _meet(self) -> None:
        adapter = self._fresh()
        unknown = adapter.features - set(PORT_FEATURES) - set(TOLD)
        if unknown:
            known = ", ".join([*PORT_FEATURES, *TOLD])
            raise StartError(f"its hello has the feature {min(unknown)!r}, which there is not; there are {known}")
        self.result.name = adapter.name
        self.result.features = adapter.features

    def _fresh(self) -> Adapter:
        if self._adapter is None:
            try:
                waits = self._options.waits
                self._adapter = Adapter(self._command, patience=waits.timeout, starting=self._options.starting)
            except AdapterError as error:
                raise StartError(str(error)) from None
        return self._adapter

    def _again(self) -> Adapter:
        """The adapter, or a new one of the same kind. StartError: there is none any more."""
        adapter = self._fresh()
        if adapter.features != self.result.features:
            raise StartError("its hello declares other features than the first time")
        return adapter

    def _drop(self) -> None:
        if self._adapter is not None:
            self._adapter.end()
            self._adapter = None

    def _part(self) -> None:
        if self._adapter is not None:
            try:
                self._adapter.bye()
            except AdapterError as error:
                self.result.farewell = str(error)

    # -- cases ---------------------------------------------------------------------------------------------------

    def _play(self, case: Case) -> Played:
        """Play it, and where silence may have been taken for waiting, once more with a longer one."""
        first = self._attempt(case, self._options.waits)
        if first.verdict is not CaseVerdict.FAILED or "stat" in self.result.features:
            return first
        patient = self._options.waits._replace(settle=PATIENT * self._options.waits.settle)
        second = self._attempt(case, patient)
        if second.verdict is not CaseVerdict.PASSED:
            return second
        return first._replace(verdict=CaseVerdict.SLOW)

    def _attempt(self, case: Case, waits: Waits) -> Played:
        plainer = (p for p in self.result.played if p.symptom and set(p.case.needs) < set(case.needs))
        try:
            adapter = self._again()
        except StartError as error:
            self._lost = True
            return Played(case, CaseVerdict.BROKEN, (), "", f"started once more for this case, it failed: {error}", ())
        played = play(adapter, case, waits, frozenset(p.symptom for p in plainer))
        if played.verdict is not CaseVerdict.PASSED:
            # Its calls may hang, and what it says from now on may belong to them.
            self._drop()
        return played

    def _late(self) -> bool:
        self.result.seconds = time.monotonic() - self._begun
        self._on_progress(self.result)
        return self.result.seconds > self._options.seconds

    def _play_vectors(self, vectors: Sequence[Vector]) -> None:
        features = self.result.features
        fitting = []
        for vector in vectors:
            lacking = [name for name in vector.case.needs if name not in features]
            for name in lacking:
                self.result.left_out[name] = self.result.left_out.get(name, 0) + 1
            if not lacking:
                fitting.append(vector.case)
        # The plain ones first: what they show is then not blamed on what else is in the others.
        fitting.sort(key=lambda case: len(case.needs))
        self.result.planned = len(fitting) + self._options.runs
        for number, case in enumerate(fitting):
            if self._late():
                self.result.skipped += len(fitting) - number
                return
            self.result.vectors.append(self._play(case))
            if self._hopeless():
                self.result.skipped += len(fitting) - number - 1
                return

    def _hopeless(self) -> bool:
        """Whether so much went wrong that there is no sense in going on."""
        new = [played for played in self.result.vectors if played.case.id not in self._options.known]
        failed = sum(played.verdict is CaseVerdict.FAILED for played in new)
        broken = sum(played.verdict is CaseVerdict.BROKEN for played in new)
        return self._lost or failed >= self._options.failures or broken >= MOST_BROKEN

    def _play_random(self) -> None:
        for number in range(self._options.runs):
            if self._late():
                self.result.skipped += self._options.runs - number
                return
            case = random_case(self._options.seed + number, self.result.features)
            played = self._play(case)
            self.result.random.append(played)
            new = played.verdict is CaseVerdict.FAILED and not self.result.excused(played, self._options.known)
            if new or played.verdict is CaseVerdict.BROKEN:
                self.result.smaller = self._smaller(played)
                self.result.skipped += self._options.runs - number - 1
                return

    def _smaller(self, played: Played) -> Played:
        """The smallest case that a step by step search finds to end in the same way, and in no known one."""
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
                again = self._play(case)
                if self._lost or again.verdict is not first.verdict:
                    continue
                if again.verdict is CaseVerdict.FAILED:
                    same = set(again.clauses) & set(first.clauses) or not first.clauses
                    if not same or self.result.excused(again, self._options.known):
                        continue
                played, at = again, True
                break
        return played


# -- random sequences ----------------------------------------------------------------------------------------------


def random_case(seed: int, features: frozenset[str]) -> Case:
    """A case from the model that a port with these features can be put through. The same for the same arguments."""
    choice = random.Random(seed)
    length = choice.randint(2, RANDOM_MOVES)
    keys = RANDOM_KEYS[: choice.randint(1, len(RANDOM_KEYS))]
    moves: tuple[Move, ...] = ()
    case = make_case(moves)
    for _ in range(length):
        # Two calls may be asked for in one move.
        stand = Stand(moves, RANDOM_ALIVE, keys)
        if stand.made + 2 > RANDOM_CALLS:
            break
        following = candidates(stand)
        choice.shuffle(following)
        for move in following:
            try:
                longer = make_case((*moves, move))
            except CaseError:
                continue
            if set(longer.needs) <= features and len(longer.courses) <= MOST_COURSES:
                moves, case = (*moves, move), longer
                break
        else:
            break
    return case


def simpler(moves: Sequence[Move]) -> Iterator[tuple[Move, ...]]:
    """Cases with a little less in them, the boldest first: without a call, a move, or a meeting. Some are no cases."""
    calls = sum(command.op in ("lock", "try") for move in moves for command in move)
    for size in (len(moves) // 2, 1):
        for start in range(0, len(moves), size) if size else ():
            yield renumbered([*moves[:start], *moves[start + size :]])
    for call in range(calls):
        without = renumbered([tuple(command for command in move if command.call != call) for move in moves])
        yield without
        # What served this call may be what it needed, so the two go together or not at all.
        yield from (renumbered([*without[:number], *without[number + 1 :]]) for number in range(len(without)))
    for number, move in enumerate(moves):
        if len(move) > 1:
            for command in move:
                yield renumbered([*moves[:number], tuple(c for c in move if c != command), *moves[number + 1 :]])
            yield renumbered([*moves[:number], *((command,) for command in move), *moves[number + 1 :]])


def renumbered(moves: Sequence[Move]) -> tuple[Move, ...]:
    """The moves with their calls counted from 0, without empty moves and without commands of calls that are gone."""
    numbers: dict[int, int] = {}
    kept = []
    for move in moves:
        commands = []
        for command in move:
            if command.call is None:
                commands.append(command)
            elif command.op in ("lock", "try"):
                numbers[command.call] = len(numbers)
                commands.append(command._replace(call=numbers[command.call]))
            elif command.call in numbers:
                commands.append(command._replace(call=numbers[command.call]))
        if commands:
            kept.append(tuple(commands))
    return tuple(kept)
