"""KM-IDLE and KM-FORGET from outside: an idle key is not kept, whatever it was used for."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

from kmutex.engine.eventloop import Loop
from kmutex.engine.explorer import Explorer
from kmutex.engine.flight import WorkRun
from kmutex.engine.keys import spelled
from kmutex.engine.program import parse
from kmutex.engine.run_judge import Event
from kmutex.engine.timeline import timeline
from kmutex.verify.checks.context import Context
from kmutex.verify.checks.size import size_of
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

KEPT = 60
"""Keys that are used and dropped."""
MORE = 1_000
"""Further keys for a subject that has grown: a cache is full by then, or has no bound."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""The keys of one run, if there is only one run for each kind of use."""
LAST = 200
"""Keys after those, which still make a table without a bound grow."""


class _Key(str):
    """A key that counts how many of its objects are alive."""


class _Keys:
    """New keys for one run after the other, and which of their objects are still alive."""

    def __init__(self, kind: str) -> None:
        """Make keys. ``kind`` is their type, of `kmutex.engine.calls.KEY_TYPES`."""
        self._kind = kind
        self._alive: list[tuple[int, weakref.ref[_Key]]] = []
        self.number = 0

    def __call__(self, letter: str) -> Any:
        text = f"{letter}-{self.number}"
        if self._kind not in ("any", "str"):
            return spelled(self._kind, text)
        key = _Key(text)
        self._alive.append((self.number, weakref.ref(key)))
        return key

    def kept(self, first: int, last: int) -> int:
        """Return how many of the keys with these numbers are still alive as objects."""
        gc.collect()
        self._alive = [(number, reference) for number, reference in self._alive if reference() is not None]
        return len({number for number, _ in self._alive if first < number <= last})


class _CutShortError(Exception):
    """A run did not end normally, so what it leaves behind can't be judged."""


def memory(context: Context, outcome: UnitResult) -> None:
    """KM-IDLE from outside: an idle key is not kept, whatever it was used for, even by a block that raised."""
    subjects: list[Any] = []
    keys = _Keys(context.shape.keys)

    def make() -> Any:
        if not subjects:
            subjects.append(context.make())
        return subjects[0]

    texts = ["0+a", "0+a | 1+a | 0-a"]
    texts += ["0+a | 1?a"] if context.shape.tries else []
    texts += ["0+a | 1~a | c1"] if context.shape.timeout or context.shape.kind == "asyncio" else []
    texts += ["0+a%a"] if context.shape.bodies else []
    texts += ["0+a&a"] if context.shape.bodies and context.shape.kind == "asyncio" else []
    clause = "KM-IDLE"
    if context.shape.form == "flight":
        texts, clause = ["0na", "0fa | 1ea"], "KM-FORGET"
        # If interrupts are not promised, the next run would find what they leave behind.
        if context.shape.kind == "asyncio" or "KM-INTERRUPT" not in context.unpromised:
            texts += ["0da | 1ta | c1 | 2ea", "0ta | c0"]
    outcome.bound = f"{KEPT} keys, each dropped after {len(texts)} kinds of use"
    # A later use may remove what an earlier one left, so the kind of use that is judged is the last one of its key.
    # What the subject keeps for one loop would be useless in another.
    loop = Loop() if context.shape.kind == "asyncio" and not context.shape.trio else None  # type: ignore[abstract]
    explorer = context.explorer.on(make, keys=keys, loop=loop, afterwards=False)
    try:
        for text in texts:
            use = _user(context, explorer, keys, outcome, text)
            # A cache is full after the first kind of use.
            more = MORE if text == texts[0] else LAST
            message = _growth(use, keys, lambda: size_of(subjects[0]), more, clause, outcome)
            if not message and context.shape.form == "flight":
                message = _results_kept()
            if message:
                picture = timeline([Event(-1, f"{KEPT} keys, one after the other: {parse(text).words}")])
                found = Violation((clause,), f"{message}, after: {text}", picture=picture, symptom=clause)
                (outcome.unpromised if clause in context.unpromised else outcome.found).append(found)
                return
            outcome.witnesses[clause] += KEPT
    except _CutShortError as error:
        # For example, threads that the subject has started end with the run.
        reason = _in_one_run(context, outcome, texts) if clause == "KM-IDLE" else "not asked"
        if reason:
            outcome.undecided.append((clause, f"{error}; and in one run: {reason}"))
        outcome.complete = not reason
        return
    outcome.complete = True


def _results_kept() -> str:
    """Return a message if many results of single flights are kept, else ""."""
    gc.collect()
    results = sum(isinstance(thing, WorkRun) for thing in gc.get_objects())
    return f"the results of {results} of {KEPT} keys that are idle are still kept" if results > KEPT // 2 else ""


def _in_one_run(context: Context, outcome: UnitResult, texts: Sequence[str]) -> str:
    """Check the same in one run for each kind of use, with one key after the other. Return why it failed, or ""."""
    outcome.bound = f"{len(LETTERS) - 1} keys, each dropped after {len(texts)} kinds of use, in one run"
    for text in texts:
        # All clients release a key before the next is used.
        whole = f"{text} | 0-a 1-a"
        sizes = []
        for letters in (LETTERS[:1], LETTERS):
            made: list[Any] = []
            explorer = context.explorer.on(lambda made=made: made.append(context.make()) or made[-1])  # type: ignore[misc]
            phases = " | ".join(re.sub("(?<=[-+~?])a", letter, whole) for letter in letters)
            result = explorer.every(parse(phases), context.level, 0, go_on=lambda runs: context.beat(runs) < 1)
            outcome.runs += result.runs
            if result.found or result.endless or result.exited:
                return next((found.finding.message for found in result.found.values()), "it did not end")
            gc.collect()
            sizes.append(size_of(made[0]))
        if sizes[0] is None or sizes[1] is None:
            return "it keeps too many objects to count"
        if sizes[1] - sizes[0] > len(LETTERS) // 2:
            message = f"what it keeps grows by {sizes[1] - sizes[0]} for {len(LETTERS) - 1} idle keys, after: {text}"
            outcome.found.append(Violation(("KM-IDLE",), message, symptom="KM-IDLE"))
            return ""
        outcome.witnesses["KM-IDLE"] += len(LETTERS)
    return ""


def _user(
    context: Context, explorer: Explorer, keys: _Keys, outcome: UnitResult, text: str
) -> Callable[[int, bool], None]:
    """Return a function that runs the program so many times, with a new key each time or with one for all."""

    def use(times: int, fresh: bool) -> None:
        for _ in range(times):
            keys.number += fresh
            result = explorer.every(parse(text), context.level, 0)
            outcome.runs += 1
            if result.found or result.endless or result.exited:
                why = next((found.finding.message for found in result.found.values()), "it did not end")
                raise _CutShortError(f"not to be seen: {text} with a key after the other: {why}")
            context.beat(outcome.runs)

    return use


def _growth(
    use: Callable[[int, bool], None],
    keys: _Keys,
    size: Callable[[], int | None],
    more: int,
    clause: str,
    outcome: UnitResult,
) -> str:
    """Return a message if the subject keeps more and more for idle keys, else "".

    ``more`` is a number of keys that fills any cache.
    """
    use(2, True)  # After this, everything exists that is made only once.
    first, before = keys.number, size()
    use(KEPT, True)
    last, after = keys.number, size()
    kept = keys.kept(first, last)
    grown = 0 if before is None or after is None else after - before
    if before is None or after is None:
        outcome.notes.append((clause, "it keeps too many objects to count; only keys that are kept whole are seen"))
    if max(kept, grown) <= KEPT // 2:
        return ""
    # A log of calls grows with each use, not with each key.
    use(KEPT, False)
    again = size()
    by_use = 0 if again is None or after is None else max(0, again - after)
    if max(kept, grown - by_use) <= KEPT // 2:
        outcome.notes.append((clause, "keeps something of each call, whatever the key"))
        return ""
    # A cache has a bound: it drops its oldest entry, or stops growing.
    use(more, True)
    middle, before = keys.number, size()
    use(LAST, True)
    end, after = keys.number, size()
    if keys.kept(first, last) > KEPT // 2 and keys.kept(middle, end) > LAST // 2:
        return f"{kept} of {KEPT} idle keys are still kept, and the number still grows after {end - first:,} of them"
    if before is not None and after is not None and after - before - by_use * LAST // KEPT > LAST // 2:
        return f"what it keeps grows by {grown} for {KEPT} idle keys, and still grows after {end - first:,}"
    outcome.notes.append((clause, f"keeps something of idle keys, up to a bound of fewer than {end - first:,}"))
    return ""
