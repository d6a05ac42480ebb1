"""Checks that ask for more than clients with two keys: many keys, odd keys, what is kept, and two event loops."""

from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kmutex.schedule import loop as tasks
from kmutex.schedule import threads
from kmutex.schedule.program import parse
from kmutex.schedule.words import said
from kmutex.testing.explore import Explorer, Level, key_of
from kmutex.testing.judge import Event
from kmutex.testing.lanes import lanes
from kmutex.testing.subject import Shape
from kmutex.verify.plan import Outcome

MANY = 150
"""Keys that each of two clients holds at once: by the birthday bound, some two of them meet in any table of up to
some thousand stripes."""
NAP = 1.0
"""Real seconds for which a locker may sleep on a loop of asyncio's before it counts as waiting."""
KEPT = 60
"""Keys that are used and dropped."""


@dataclass
class Bench:
    """What a check works with."""

    make: Callable[[], Any]
    shape: Shape
    explorer: Explorer
    beat: Callable[[int], int]
    known: frozenset[str]
    """Symptoms of plainer programs."""


class _ManyThreads:
    """Locks many keys where it is asked for one."""

    def __init__(self, subject: Any) -> None:
        self._subject = subject

    def lock(self, key: str, **timeout: Any) -> None:
        for number in range(MANY):
            self._subject.lock(f"{key}-{number}", **timeout)
            threads.progress()

    def unlock(self, key: str) -> None:
        for number in range(MANY):
            self._subject.unlock(f"{key}-{number}")


class _ManyTasks(_ManyThreads):
    async def lock(self, key: str, **timeout: Any) -> None:  # type: ignore[override]
        for number in range(MANY):
            await self._subject.lock(f"{key}-{number}", **timeout)
            tasks.progress()


class _Alike:
    """A key that looks like every other of its kind, and is equal only to itself."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Alike) and other._name == self._name

    def __hash__(self) -> int:
        return hash(self._name)

    def __repr__(self) -> str:
        return "<key>"


_ODD_KEYS: tuple[tuple[Any, Any], ...] = (
    ("", "0"),
    (0, ""),
    (None, 0),
    (1, "1"),
    (-1, -2),
    ((), 0),
    (("key", 1), ("key", 2)),
    ("a" * 5000 + "1", "a" * 5000 + "2"),
    ("Key", "key"),
    (" key", "key"),
    ("\u00e9", "e\u0301"),
    (_Alike("1"), _Alike("2")),
)
"""Pairs of different keys that a careless locker takes for one another, or for none: falsy ones, equal hashes, equal
texts, long and alike, spelled almost the same."""
_EQUAL_KEYS: tuple[tuple[Any, ...], ...] = ((1, True, 1.0), (0, -0.0, False), (("key", 1), ("key", True)))
"""Spellings of one key: what is equal is the same key, as it is to a dict."""
_EQUAL_PROGRAM = "0+a | 1+a | 0-a | 1-a"
_KEY_PROGRAMS = ("0+a | 1+a | 2+b | 0-a | 1-a", "0+a | 1+b | 0-a 1-b")


def keys(bench: Bench, outcome: Outcome) -> None:
    """KM-INDEP and KM-EXCL with many keys at once and with odd ones."""
    many = _ManyThreads if bench.shape.kind == "threads" else _ManyTasks
    level = _level(bench)
    explorer = bench.explorer.on(lambda: many(bench.make()))
    _run(bench, explorer, "0+a | 1+b", outcome, f"with {MANY} keys for each client: ")
    bench.beat(1)
    for pair in _ODD_KEYS:
        values = dict(zip("ab", pair, strict=True))
        explorer = bench.explorer.on(bench.make, keys=_spelled(values))
        if _refuses(explorer, level):
            outcome.notes.append(("KM-INDEP", f"refuses the key {pair[0]!r} or {pair[1]!r}"))
            continue
        for text in _KEY_PROGRAMS:
            _run(bench, explorer, text, outcome, f"with a = {_short(pair[0])}, b = {_short(pair[1])}: ")
    for spellings in _EQUAL_KEYS:
        explorer = bench.explorer.on(bench.make, keys=_in_turn(spellings))
        if not _refuses(explorer, level):
            _run(bench, explorer, _EQUAL_PROGRAM, outcome, f"with a = {' = '.join(map(repr, spellings))}: ", "KM-EXCL")
    outcome.complete = True
    outcome.witnesses = type(outcome.witnesses)({"KM-INDEP": outcome.runs, "KM-EXCL": outcome.runs})
    outcome.bound = f"{2 * MANY} keys at once; {len(_ODD_KEYS)} pairs of odd keys, {len(_EQUAL_KEYS)} of equal ones"


_REFUSALS = ("raised TypeError", "raised ValueError", "raised AttributeError")


def _refuses(explorer: Explorer, level: Level) -> bool:
    """Whether the locker does not take such keys at all."""
    alone = explorer.every(parse("0+a | 1+b"), level, 0)
    return any(words in found.finding.message for found in alone.found.values() for words in _REFUSALS)


def _run(bench: Bench, explorer: Explorer, text: str, outcome: Outcome, prefix: str, clause: str = "KM-INDEP") -> None:
    result = explorer.every(parse(text), _level(bench), 0)
    outcome.runs += result.runs
    outcome.endless += result.endless
    for finding, _ in result.found.values():
        if finding.symptom in bench.known:
            continue
        outcome.found.append(
            {
                "symptom": finding.symptom,
                "clauses": list(dict.fromkeys([clause, *finding.clauses])),
                "message": prefix + finding.message,
                "schedule": "",
                "picture": lanes(finding.events),
            }
        )


def _level(bench: Bench) -> Level:
    return "locks" if bench.shape.kind == "threads" else "tasks"


def _spelled(values: dict[str, Any]) -> Callable[[str], Any]:
    return lambda letter: _fresh(values[letter])


def _in_turn(spellings: tuple[Any, ...]) -> Callable[[str], Any]:
    turns = itertools.cycle(spellings)
    return lambda letter: next(turns)


def _fresh(key: Any) -> Any:
    """An equal key that is another object, where there can be one."""
    if isinstance(key, str):
        return "".join(list(key))
    return tuple(part for part in key) if isinstance(key, tuple) else key


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) < 30 else f"{text[:10]}...{text[-5:]}"


class _Key(str):
    """A key that tells when the last reference to it is gone."""


def memory(bench: Bench, outcome: Outcome) -> None:
    """KM-IDLE from outside: a key that was locked, tried, waited for and cancelled, and is idle, is not kept."""
    subjects: list[Any] = []
    alive: list[weakref.ref[_Key]] = []

    def make() -> Any:
        if not subjects:
            subjects.append(bench.make())
        return subjects[0]

    def key(letter: str) -> _Key:
        fresh = _Key(f"{letter}-{outcome.runs}")
        alive.append(weakref.ref(fresh))
        return fresh

    texts = ["0+a", "0+a | 1+a | 0-a"]
    texts += ["0+a | 1?a"] if bench.shape.timeout else []
    texts += ["0+a | 1~a | c1"] if bench.shape.timeout or bench.shape.kind == "asyncio" else []
    outcome.bound = f"{KEPT} keys, each used in {len(texts)} ways and dropped"
    level = _level(bench)
    explorer = bench.explorer.on(make, keys=key)
    for text in texts:
        alive.clear()
        for _ in range(KEPT):
            if explorer.every(parse(text), level, 0).found:
                return
            outcome.runs += 1
        gc.collect()
        kept = sum(reference() is not None for reference in alive)
        names = {str(reference()) for reference in alive if reference() is not None}
        if len(names) > KEPT // 2:
            outcome.found.append(
                {
                    "symptom": "KM-IDLE",
                    "clauses": ["KM-IDLE"],
                    "message": f"{len(names)} of {KEPT} keys that are idle are still kept, after: {text}",
                    "schedule": "",
                    "picture": lanes([Event(-1, f"{KEPT} keys, one after the other: {text}; {kept} objects kept")]),
                }
            )
            return
        outcome.witnesses["KM-IDLE"] += KEPT
        bench.beat(outcome.runs)
    outcome.complete = True


def loops(bench: Bench, outcome: Outcome) -> None:
    """KM-LOOP: use from a second event loop raises, where the call would wait and where it would not."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        outcome.runs = 2
        outcome.bound = "2 event loops: a free key, and a key that is held and waited for"
        outcome.complete = True
        free, left_free = _other_loop(bench, first, second, contended=False)
        busy, left_busy = _other_loop(bench, first, second, contended=True)
    finally:
        for loop in (first, second):
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()
    if not isinstance(busy, Exception):
        does = "got the key" if busy == "got" else "waits in the second loop, which nothing will wake"
        _loop_finding(outcome, f"a call from a second loop, for a key that is held, does not raise: it {does}")
    elif left := left_free or left_busy:
        _loop_finding(outcome, f"a call from a second loop is refused, {left}", "KM-ATOMIC")
    elif isinstance(free, Exception):
        outcome.witnesses["KM-LOOP"] += 2
    elif _own(busy):
        _loop_finding(outcome, "a call from a second loop raises where it would wait, but takes a free key")
    else:
        # No witness: half of the clause was not kept, so that it must not read "holds".
        outcome.notes.append(
            ("KM-LOOP", "left to asyncio's own primitives, which raise where they would wait; a free key is taken")
        )


def unstarted(bench: Bench, outcome: Outcome) -> None:
    """KM-CANCEL: a task that is cancelled before its first step has asked for nothing."""
    loop = asyncio.new_event_loop()

    async def run() -> str:
        subject = bench.make()
        asyncio.ensure_future(subject.lock(key_of("a"))).cancel()
        await _settle()
        task = asyncio.ensure_future(subject.lock(key_of("a")))
        await _settle()
        got = task.done() and task.exception() is None
        task.cancel()
        await _settle()
        return "" if got else "a task was cancelled before its first step, and its key is not free"

    try:
        message = loop.run_until_complete(run())
    finally:
        loop.close()
    outcome.runs = 1
    outcome.complete = True
    outcome.bound = "a task that never began"
    if message:
        outcome.found.append(
            {"symptom": "KM-CANCEL", "clauses": ["KM-CANCEL"], "message": message, "schedule": "", "picture": ""}
        )
    else:
        outcome.witnesses["KM-CANCEL"] += 1


def _loop_finding(outcome: Outcome, message: str, *better: str) -> None:
    """better: clauses that name it better than KM-LOOP."""
    outcome.found.append(
        {"symptom": "KM-LOOP", "clauses": [*better, "KM-LOOP"], "message": message, "schedule": "", "picture": ""}
    )


def _other_loop(
    bench: Bench, first: asyncio.AbstractEventLoop, second: asyncio.AbstractEventLoop, *, contended: bool
) -> tuple[Exception | str, str]:
    """What a call from the second loop does while the first has used the subject: its error, "got" or "waits".

    And what is left of a call that the subject itself refused, in words; "" for nothing.
    """
    key, asked = key_of("a"), key_of("a" if contended else "b")
    waiting: list[asyncio.Future[Any]] = []

    async def begin() -> Any:
        subject = bench.make()
        await subject.lock(key)
        if contended:
            waiting.extend(asyncio.ensure_future(subject.lock(key)) for _ in range(2))
            await _settle()
        else:
            subject.unlock(key)
        return subject, live(subject)

    async def call(subject: Any) -> None:
        # Where lock() is a plain function, it may raise before there is anything to await.
        await subject.lock(asked)

    async def ask(subject: Any) -> Exception | str:
        task = asyncio.ensure_future(call(subject))
        await _settle()
        if not task.done():
            task.cancel()
            return "waits"
        error = task.exception()
        return error if isinstance(error, Exception) else "got"

    def live(subject: Any) -> int:
        try:
            return len(subject) if bench.shape.counts else 0
        except Exception:
            return 0  # The runs ask it as well, and say so.

    async def left(subject: Any, before: int) -> str:
        try:
            if live(subject) != before:
                return f"and len() has gone from {before} to {live(subject)}"
            for _ in (*waiting, key) if contended else ():
                subject.unlock(key)
                await _settle()
            task = asyncio.ensure_future(subject.lock(asked))
            await _settle()
            if not task.done():
                task.cancel()
                return "and its key is not free when all have let go"
            task.result()
            subject.unlock(asked)
        except Exception as error:
            return f"and then a call from the first loop raises {said(error)}"
        return ""

    subject, before = first.run_until_complete(begin())
    answer = second.run_until_complete(ask(subject))
    if not isinstance(answer, Exception) or not _own(answer):
        return answer, ""
    return answer, first.run_until_complete(left(subject, before))


async def _settle() -> None:
    """Let everybody go on who can, those too who are asleep for a short time."""
    loop = asyncio.get_running_loop()
    end = loop.time() + NAP

    def asleep() -> bool:
        return not all(timer.cancelled() for timer in getattr(loop, "_scheduled", ()))

    awake = 0
    while awake < 20 and loop.time() < end:
        await asyncio.sleep(0)
        # Counted anew after each sleep: who was woken just now has steps of its own to go.
        awake = 0 if asleep() else awake + 1


def _own(error: Exception) -> bool:
    """Whether the error was raised by the subject's code, not by asyncio's."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is None or "asyncio" not in trace.tb_frame.f_code.co_filename.replace("\\", "/").split("/")


CHECKS: dict[str, Callable[[Bench, Outcome], None]] = {
    "keys": keys,
    "memory": memory,
    "loops": loops,
    "unstarted": unstarted,
}
