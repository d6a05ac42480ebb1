"""KM-INDEP and KM-EXCL with many keys at once, with odd keys, and with several spellings of one key."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from kmutex.engine import eventloop, threads
from kmutex.engine.explorer import Explorer, Level
from kmutex.engine.faces import settled
from kmutex.engine.keys import Spelling, spelled
from kmutex.engine.program import parse
from kmutex.engine.timeline import timeline
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

MANY = 150
"""Keys that each of two clients holds at once: by the birthday bound, two of them share a stripe in any table of up to
some thousand stripes."""


class _ManyThreads:
    """Locks many keys when it is asked for one."""

    def __init__(self, subject: Any, kind: str) -> None:
        """Wrap a subject. ``kind`` is the type of the keys."""
        self._subject = subject
        self._kind = kind

    def _keys(self, key: str) -> Iterator[Any]:
        return (spelled(self._kind, f"{key}-{number}") for number in range(MANY))

    def lock(self, key: str, **timeout: Any) -> None:
        for one in self._keys(key):
            self._subject.lock(one, **timeout)
            threads.progress()

    def unlock(self, key: str) -> None:
        for one in self._keys(key):
            self._subject.unlock(one)


class _ManyTasks(_ManyThreads):
    async def lock(self, key: str, **timeout: Any) -> None:  # type: ignore[override]
        for one in self._keys(key):
            await self._subject.lock(one, **timeout)
            eventloop.progress()

    async def unlock(self, key: str) -> None:  # type: ignore[override]
        for one in self._keys(key):
            await settled(self._subject.unlock(one))


class _Alike:
    """A key with the same repr and hash as every other, equal only to itself."""

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
"""Pairs of different keys that a careless locker confuses, or takes for a missing key: falsy ones, equal hashes, equal
texts, long similar ones, almost the same spelling."""
_EQUAL_KEYS: tuple[tuple[Any, ...], ...] = ((1, True, 1.0), (0, -0.0, False), (("key", 1), ("key", True)))
"""Spellings of one key: equal values are the same key, as in a dict."""
_EQUAL_PROGRAM = "0+a | 1+a | 0-a | 1-a"
_KEY_PROGRAMS = ("0+a | 1+a | 2+b | 0-a | 1-a", "0+a | 1+b | 0-a 1-b")


def keys(context: Context, outcome: UnitResult) -> None:
    """KM-INDEP and KM-EXCL with many keys at once and with odd ones."""
    shape, level = context.shape, context.level
    if shape.form == "flight":
        _flights(context, outcome)
        return
    many = _ManyThreads if shape.kind == "threads" else _ManyTasks
    bounds = []
    if not shape.striped:
        keys = Spelling(own=shape.shared)
        explorer = context.explorer.on(lambda: many(context.make(), shape.keys), keys=keys)
        _run(context, explorer, "0+a | 1+b", outcome, f"with {MANY} keys for each client: ")
        bounds.append(f"{2 * MANY} keys at once")
        context.beat(1)
    pairs = [] if shape.striped else [pair for pair in _ODD_KEYS if _of_type(shape.keys, pair)]
    for pair in pairs:
        values = dict(zip("ab", pair, strict=True))
        explorer = context.explorer.on(context.make, keys=_spelled(values))
        if _refuses(explorer, level, "0+a | 1+b"):
            outcome.notes.append(("KM-INDEP", f"refuses the key {pair[0]!r} or {pair[1]!r}"))
            continue
        for text in _KEY_PROGRAMS:
            _run(context, explorer, text, outcome, f"with a = {_short(pair[0])}, b = {_short(pair[1])}: ")
    equal = [spellings for spellings in _EQUAL_KEYS if _of_type(shape.keys, spellings)]
    for spellings in equal:
        explorer = context.explorer.on(context.make, keys=_in_turn(spellings))
        if not _refuses(explorer, level, "0+a"):
            prefix = f"with a = {' = '.join(map(repr, spellings))}: "
            _run(context, explorer, _EQUAL_PROGRAM, outcome, prefix, "KM-EXCL")
    bounds += [f"{len(pairs)} pairs of odd keys"] if pairs else []
    bounds += [f"{len(equal)} of equal ones"] if equal else []
    outcome.complete = True
    outcome.witnesses = Counter({"KM-EXCL": outcome.runs})
    if not shape.striped:
        outcome.witnesses["KM-INDEP"] = outcome.runs
    outcome.bound = "; ".join(bounds) or "no keys: they share locks, and have one type"


def _flights(context: Context, outcome: UnitResult) -> None:
    """KM-APART and KM-ONE with odd keys."""
    pairs = [pair for pair in _ODD_KEYS if _of_type(context.shape.keys, pair)]
    for pair in pairs:
        explorer = context.explorer.on(context.make, keys=_spelled(dict(zip("ab", pair, strict=True))))
        if _refuses(explorer, context.level, "0na | 1nb"):
            outcome.notes.append(("KM-APART", f"refuses the key {pair[0]!r} or {pair[1]!r}"))
            continue
        prefix = f"with a = {_short(pair[0])}, b = {_short(pair[1])}: "
        _run(context, explorer, "0da | 1db | 2da | 3eb", outcome, prefix, "KM-APART")
    equal = [spellings for spellings in _EQUAL_KEYS if _of_type(context.shape.keys, spellings)]
    for spellings in equal:
        explorer = context.explorer.on(context.make, keys=_in_turn(spellings))
        if not _refuses(explorer, context.level, "0na | 1nb"):
            _run(context, explorer, "0da | 1da", outcome, f"with a = {' = '.join(map(repr, spellings))}: ", "KM-ONE")
    outcome.complete = True
    outcome.witnesses = Counter({"KM-APART": outcome.runs, "KM-ONE": outcome.runs})
    outcome.bound = f"{len(pairs)} pairs of odd keys, {len(equal)} of equal ones"


_REFUSALS = ("raised TypeError", "raised ValueError", "raised AttributeError")


def _refuses(explorer: Explorer, level: Level, text: str) -> bool:
    """Return whether the locker refuses such keys."""
    alone = explorer.every(parse(text), level, 0)
    return any(words in found.finding.message for found in alone.found.values() for words in _REFUSALS)


def _run(
    context: Context, explorer: Explorer, text: str, outcome: UnitResult, prefix: str, clause: str = "KM-INDEP"
) -> None:
    result = explorer.every(parse(text), context.level, 0)
    outcome.runs += result.runs
    outcome.endless += result.endless
    for finding, _ in result.found.values():
        if finding.symptom in context.known:
            continue
        clauses = tuple(dict.fromkeys([clause, *finding.clauses]))
        message = prefix + finding.message
        outcome.found.append(Violation(clauses, message, picture=timeline(finding.events), symptom=finding.symptom))


def _spelled(values: dict[str, Any]) -> Callable[[str], Any]:
    return lambda letter: _fresh(values[letter])


def _of_type(kind: str, keys: Iterable[Any]) -> bool:
    """Return whether a locker whose keys have this type takes these keys."""
    return kind == "any" or all(type(key).__name__ == kind for key in keys)


def _in_turn(spellings: tuple[Any, ...]) -> Callable[[str], Any]:
    turns = itertools.cycle(spellings)
    return lambda letter: next(turns)


def _fresh(key: Any) -> Any:
    """Return an equal key that is another object, if possible."""
    if isinstance(key, str):
        return "".join(list(key))
    return tuple(part for part in key) if isinstance(key, tuple) else key


def _short(key: Any) -> str:
    text = repr(key)
    return text if len(text) < 30 else f"{text[:10]}...{text[-5:]}"
