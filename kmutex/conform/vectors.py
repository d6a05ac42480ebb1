"""The vectors: cases chosen so that each step is taken from each kind of state, and each known-bad model is killed.

What a table of keys can look like to a kit, up to the names of calls and keys, is the number of refs of each key.
From each such state, reached by a shortest way, every kind of command is given; after those that are not a plain
lock, every kind of command once more, since a mistake in them shows in what comes next. BOUNDS says how many calls are
alive at a time, and on which keys. `wide` goes beyond them, on single ways: long queues, many keys, and what meets
in another way each time, again and again.

    python -m kmutex.conform.vectors           compare specs/vectors.json with the model; exit 1 where they differ
    python -m kmutex.conform.vectors --write   write it
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kmutex import _specs
from kmutex.conform.case import (
    ASKING,
    Case,
    CaseError,
    Command,
    Course,
    Move,
    case_as_json,
    case_from_json,
    format_moves,
    parse_moves,
    parse_times,
    spread,
)
from kmutex.conform.expected import Courses, make_case
from kmutex.conform.mistakes import MISTAKES
from kmutex_model.broken import BROKEN

FORMAT = "kmutex-vectors/2"
FILE = "vectors.json"
BOUNDS = ((3, "ab"), (4, "a"))
WAITERS = 24
"""In one queue, for ports that keep order among a few."""
KEYS = 300
"""Side by side: more than a byte tells apart, and enough that two of them share one of 1,024 locks."""
ROUNDS = 20
"""The number of rounds of cases with races."""
FIELDS = (
    *("0!a/1?a", "0!a/ua", "0!a/1!a/ua", "0!a/r0", "0+a/1!a/ua/2?a", "0+a/1!a/2+a/ua", "0+a/1+a/2!a/ua"),
    *("0+a/1!b/2+b", "0+a/1+a/2!a/c1", "0+a/1+a/2!a/3+a/ua", "0+a/1?a/2!a/ua", "0+a/1!a/r1", "0+a:50/1?a"),
    *("0+a/1+a:50/ua/2?a", "0+a/1+a:50/2+a/ua", "0+a/1+a/2+a:50/ua", "0+a/1+a:50/2+b", "0+a/1+a:60000/ua"),
    *("0+a/1+a:60000/2+a:50/ua", "0+a/1+a:60000/2+a/ua", "0+a/1+a:60000/c1", "0+a/1+a:50/r1"),
    *("0+a:60000/1+a:50/ua", "0+a:50/1+a:50/2?a", "0+a/1+a:50/2+a:50/3+a/ua"),
)
"""Cases of calls that are cancelled before they begin, and of calls with a time limit."""
MEETINGS = ("0+a/1+a:10,ua/2+a*100",)
"""Cases of `kmutex conform` that are not in the file: other players send the commands of a move at once."""


class Vector(NamedTuple):
    """A case of the file.

    revision  counts from 1; one more each time the allowed outcomes of this id have changed
    clauses   those that the models of `kills` and `may_kill` break
    outside   those of them that a black box (level 1) can show broken
    kills     known-bad models without an allowed outcome, so a port like one of them fails
    blind     those of `kills` that only the table shows: a black box (level 1) may look right
    may_kill  known-bad models that may have an allowed outcome or a wrong one, by chance
    """

    case: Case
    revision: int
    clauses: tuple[str, ...]
    outside: tuple[str, ...]
    kills: tuple[str, ...]
    blind: tuple[str, ...]
    may_kill: tuple[str, ...]


def load() -> tuple[Vector, ...]:
    """The vectors of specs/vectors.json."""
    return tuple(_from_json(body) for body in json.loads(_specs.read(FILE))["vectors"])


def meetings() -> tuple[Vector, ...]:
    """The cases in which a time limit ends as the key is handed over. They kill no model, for none has a clock."""
    cases = (make_case(*parse_times(text)) for text in MEETINGS)
    return tuple(Vector(case, 1, ("KM-RACE",), ("KM-RACE",), (), (), ()) for case in cases)


def made(before: Iterable[Vector] = ()) -> tuple[Vector, ...]:
    """The vectors, from the model. before: those that there were, for their revisions."""
    old = {vector.case.id: vector for vector in before}
    vectors = []
    plain = map(make_case, (*chosen(), *map(parse_moves, FIELDS)))
    for case, small in (*((case, case) for case in plain), *wide()):
        vector = weighed(small)._replace(case=case)
        if vector.kills or vector.may_kill:
            then = old.get(vector.case.id, vector)
            vectors.append(vector._replace(revision=then.revision + (then.case != vector.case)))
    return tuple(vectors)


def weighed(case: Case) -> Vector:
    """The case with the known-bad models that it kills."""
    case = spread(case)
    right = set(case.courses)
    right_outside = {_outside(course) for course in right}
    clauses, outside, kills, blind, may_kill = set(), set(), [], [], []
    for name, clause, its in _known_bad(case):
        if its <= right and its:
            continue
        clauses.add(clause)
        its_outside = {_outside(course) for course in its}
        if its & right:
            may_kill.append(name)
            if not its_outside <= right_outside:
                outside.add(clause)
            continue
        kills.append(name)
        if its_outside & right_outside:
            blind.append(name)
        else:
            outside.add(clause)
    names = [tuple(dict.fromkeys(names)) for names in (kills, blind, may_kill)]
    return Vector(case, 1, tuple(sorted(clauses)), tuple(sorted(outside)), *names)


def _known_bad(case: Case) -> Iterator[tuple[str, str, set[Course]]]:
    """Each by its name, with the clause that it breaks and its outcomes."""
    for broken in BROKEN:
        courses = Courses(case.moves, broken.model, (broken.config.race,))
        yield broken.model.name, broken.clause, set(courses.all(case.moves))
    if {"done", "deadline"} & set(case.needs):
        for mistake in MISTAKES:
            yield mistake.name, mistake.clause, set(mistake(case.moves).all(case.moves))


def _outside(course: Course) -> Course:
    """What a black box shows of it."""
    return tuple(seen._replace(table=()) for seen in course)


# -- which -------------------------------------------------------------------------------------------------------


def chosen() -> list[tuple[Move, ...]]:
    """The moves of every vector, shorter ones first. None is the beginning of another."""
    found: set[tuple[Move, ...]] = set()
    for clients, keys in BOUNDS:
        for way in _ways(clients, keys):
            for first in next_moves(way, clients, keys):
                whole = (*way, first)
                found.add(whole)
                if len(first) > 1 or first[0].op != "lock":
                    found.update((*whole, second) for second in next_moves(whole, clients, keys))
    beginnings = {whole[:end] for whole in found for end in range(len(whole))}
    return sorted(found - beginnings, key=lambda whole: (len(whole), format_moves(whole)))


def wide() -> Iterator[tuple[Case, Case]]:
    """The cases beyond BOUNDS, each with a small form of it, by which it is known what kills it has."""

    def queue(waiters: int, *cancelled: int) -> Case:
        locks = [(Command("lock", call, "a"),) for call in range(waiters + 1)]
        return make_case((*locks, *((Command("cancel", call, None),) for call in cancelled)))

    yield queue(WAITERS), queue(3)
    yield queue(WAITERS, 1), queue(3, 1)
    yield queue(WAITERS, WAITERS // 2), queue(3, 2)
    yield queue(WAITERS, WAITERS), queue(3, 3)
    # A table that grows, is waited at, is given up at, and is used again.
    for text in ("0+a/1+a/ua", "0+a/ua/1+a", "0+a/1+a/c1", "0+a/1?a", "0+a/1!a/ua", "0+a/1+a:50/ua"):
        yield make_case(parse_moves(text), keys=KEYS), make_case(parse_moves(text), keys=2)
    # What has a window: a stray unlock beside a lock, a cancel right behind its lock or behind the grant, tries around
    # a hand-over. And tries in turn of a held key and of a free one, for how long they take.
    for text in ("0+a,ua/1+a", "0+a/1+a,c1", "0+a/1+a/ua,c1", "0+a/1+a/2?a,3?a,ua,4?a", "0+a/1?a/2?b/ub"):
        yield make_case(parse_moves(text), rounds=ROUNDS), make_case(parse_moves(text))


def _ways(clients: int, keys: str) -> Iterator[tuple[Move, ...]]:
    """Yield a shortest sequence to each kind of state."""
    met = set()
    todo: deque[tuple[Move, ...]] = deque([()])
    while todo:
        way = todo.popleft()
        stand = Stand(way, clients, keys)
        if stand.kind not in met:
            met.add(stand.kind)
            yield way
            todo += [(*way, (stand.ask("lock", key),)) for key in stand.keys if stand.room]


class Stand:
    """The state of all calls after the moves, in one of the allowed outcomes."""

    def __init__(self, moves: Sequence[Move], clients: int, keys: str) -> None:
        """clients: calls that may be alive at a time. keys: those that may be used."""
        self.made = sum(command.op in ASKING for move in moves for command in move)
        courses = Courses([*moves, tuple(Command("unlock", None, key) for key in keys)])
        places = courses.start()
        for move in moves:
            places = frozenset().union(*courses.after(places, move).values())
        self.sure = len(places) == 1
        """Whether there is only that one."""
        # By its text, since the order of a set is another one in each process, and a seed must say the same in all.
        one = min(places, key=repr)
        self.queues = {key: courses.queue(one, key) for key in keys}
        """By key: the call that has it, then those that wait."""
        self.kind = tuple(sorted(map(len, self.queues.values()), reverse=True))
        self.room = clients - sum(self.kind)
        self.used = sorted({command.key for move in moves for command in move if command.key is not None})
        # Of keys that look alike, the first will do.
        self.keys = [key for number, key in enumerate(keys) if not self._looks_like_one_of(key, keys[:number])]
        self.tickets = {command.call: command.key for move in moves for command in move if command.op in ASKING}

    def _looks_like_one_of(self, key: str, others: str) -> bool:
        return len(self.queues[key]) in {len(self.queues[other]) for other in others}

    def ask(self, op: str, key: str, after: int = 0) -> Command:
        """The next call, or the one ``after`` that."""
        return Command(op, self.made + after, key)


def next_moves(moves: Sequence[Move], clients: int, keys: str) -> list[Move]:
    """Return every kind of move that may follow in an unambiguous place, and that can be played."""
    stand = Stand(moves, clients, keys)
    following = candidates(stand)
    if not stand.sure:
        # If there are two possible states, one more lock shows which, and one more unlock.
        following = [(Command("unlock", None, key),) for key in stand.used]
        following += [(stand.ask("lock", key),) for key in stand.used if stand.room]
    return [move for move in following if _right((*moves, move))]


def candidates(stand: Stand) -> list[Move]:
    """Every kind of move that may follow. A few make no case, as `make_case` will say."""
    found: list[Move] = []
    for key in stand.keys:
        queue = stand.queues[key]
        unlock = Command("unlock", None, key)
        found += [(unlock,), *_leases(stand, key)]
        if queue or stand.room:
            found.append((stand.ask("try", key),))
        if stand.room:
            lock = stand.ask("lock", key)
            found += [(lock,), (lock, Command("cancel", lock.call, None))]
            if not queue:
                found.append((lock, unlock))
        if stand.room > 1:
            found.append((stand.ask("lock", key), stand.ask("lock", key, 1)))
        cancels = [Command("cancel", waiter, None) for waiter in queue[1:]]
        found += [(cancel,) for cancel in cancels]
        if len(cancels) > 1:
            found.append(tuple(cancels))
        if queue:
            found += [(unlock, cancel) for cancel in cancels]
            found.append((unlock, stand.ask("try", key)))
            if stand.room:
                found.append((unlock, stand.ask("lock", key)))
                found += [(cancel, stand.ask("lock", key)) for cancel in cancels]
    held = [key for key, queue in stand.queues.items() if queue]
    if len(held) > 1:
        found.append(tuple(Command("unlock", None, key) for key in held))
    return found


def _leases(stand: Stand, key: str) -> list[Move]:
    """The lease of the holder, and the youngest of those that have ended."""
    holder = stand.queues[key][:1]
    ended = [call for call, asked in stand.tickets.items() if asked == key and call not in stand.queues[key]]
    return [(Command("lease", call, None),) for call in (*holder, *ended[-1:])]


def _right(moves: Sequence[Move]) -> bool:
    try:
        make_case(moves)
    except CaseError:
        return False
    return True


# -- as JSON -----------------------------------------------------------------------------------------------------


def as_json(vectors: Sequence[Vector]) -> str:
    """The file, one vector a line, so that a difference is shown where it is."""
    bounds = [{"calls": clients, "keys": len(keys)} for clients, keys in BOUNDS]
    head = {"format": FORMAT, "bounds": bounds, "vectors": []}
    lines = ",\n".join(json.dumps(_as_json(vector), separators=(",", ":")) for vector in vectors)
    return json.dumps(head).replace('"vectors": []', f'"vectors": [\n{lines}\n]') + "\n"


def _as_json(vector: Vector) -> dict[str, Any]:
    body = case_as_json(vector.case)
    return {"id": body.pop("id"), **{name: value for name, value in vector._asdict().items() if name != "case"}, **body}


def _from_json(body: dict[str, Any]) -> Vector:
    names = [tuple(body[name]) for name in ("clauses", "outside", "kills", "blind", "may_kill")]
    return Vector(case_from_json(body), body["revision"], *names)


# -- the file ----------------------------------------------------------------------------------------------------


def main() -> int:
    """Compare the file of a checkout with the model, or write it."""
    parser = argparse.ArgumentParser(prog="python -m kmutex.conform.vectors", description="specs/vectors.json")
    parser.add_argument("--write", action="store_true", help="write the file")
    args = parser.parse_args()
    path = Path(str(_specs.path("clauses.toml"))).with_name(FILE)
    before = {vector.case.id: vector for vector in load()} if path.exists() else {}
    now = {vector.case.id: vector for vector in made(before.values())}
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    text = as_json(tuple(now.values()))
    if args.write:
        path.write_text(text, encoding="utf-8")
    print(f"{len(now)} vectors, {len(changed)} differ from {path}: {' '.join(changed[:5])}")
    same = path.exists() and path.read_text(encoding="utf-8") == text
    if not same:
        print("run it with --write, look at the difference, and commit the file")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
