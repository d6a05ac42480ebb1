"""KM-IDLE and KM-FORGET from outside: what was used in every way, and is idle, is not kept."""

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
"""Further keys, where the subject has grown: a cache is full by then, or has no bound."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
"""The keys of one run, where there is a run for each way only."""
LAST = 200
"""Keys after those, with which what has no bound still grows."""


class _Key(str):
    """A key that tells when the last reference to it is gone."""


class _Keys:
    """Fresh keys for one run after the other, and which of their objects are still there."""

    def __init__(self, kind: str) -> None:
        """kind: of the keys, as `kmutex.engine.calls.KEY_TYPES`."""
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
        """How many of the keys with these numbers are still there as objects."""
        gc.collect()
        self._alive = [(number, reference) for number, reference in self._alive if reference() is not None]
        return len({number for number, _ in self._alive if first < number <= last})


class _CutShortError(Exception):
    """A run came to no good end, so that nothing can be said of what it leaves behind."""


def memory(context: Context, outcome: UnitResult) -> None:
    """KM-IDLE from outside: a key that was used in every way, also by a block that raised, and is idle, is not kept."""
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
        # What interrupts leave behind, where nobody promised anything of them, would be met by the next run.
        if context.shape.kind == "asyncio" or "KM-INTERRUPT" not in context.unpromised:
            texts += ["0da | 1ta | c1 | 2ea", "0ta | c0"]
    outcome.bound = f"{KEPT} keys, each used in {len(texts)} ways and dropped"
    # A later use may clear away what an earlier one left, so the way that is asked about is the last use of its key.
    # What the subject keeps of one loop would be of no use in another.
    loop = Loop() if context.shape.kind == "asyncio" and not context.shape.trio else None  # type: ignore[abstract]
    explorer = context.explorer.on(make, keys=keys, loop=loop, afterwards=False)
    try:
        for text in texts:
            use = _user(context, explorer, keys, outcome, text)
            # A cache is full once the first way has filled it.
            more = MORE if text == texts[0] else LAST
            message = _growth(use, keys, lambda: size_of(subjects[0]), more, clause, outcome)
            if not message and context.shape.form == "flight":
                message = _results_kept()
            if message:
                picture = timeline([Event(-1, f"{KEPT} keys, one after the other: {text}")])
                found = Violation((clause,), f"{message}, after: {text}", picture=picture, symptom=clause)
                (outcome.unpromised if clause in context.unpromised else outcome.found).append(found)
                return
            outcome.witnesses[clause] += KEPT
    except _CutShortError as error:
        # What a subject does in a thread of its own, say, ends with the run.
        reason = _in_one_run(context, outcome, texts) if clause == "KM-IDLE" else "not asked"
        if reason:
            outcome.undecided.append((clause, f"{error}; and in one run: {reason}"))
        outcome.complete = not reason
        return
    outcome.complete = True


def _results_kept() -> str:
    """Results of single flights that are still there, in words; "" for no more than some."""
    gc.collect()
    results = sum(isinstance(thing, WorkRun) for thing in gc.get_objects())
    return f"the results of {results} of {KEPT} keys that are idle are still kept" if results > KEPT // 2 else ""


def _in_one_run(context: Context, outcome: UnitResult, texts: Sequence[str]) -> str:
    """The same in a run for each way, in which the keys are used one after the other. Why it could not be made."""
    outcome.bound = f"{len(LETTERS) - 1} keys, each used in {len(texts)} ways and dropped, in one run"
    for text in texts:
        # All let go of a key before the next is used.
        whole = f"{text} | 0-a 1-a"
        sizes = []
        for letters in (LETTERS[:1], LETTERS):
            made: list[Any] = []
            explorer = context.explorer.on(lambda made=made: made.append(context.make()) or made[-1])  # type: ignore[misc]
            phases = " | ".join(re.sub("(?<=[-+~?])a", letter, whole) for letter in letters)
            result = explorer.every(parse(phases), context.level, 0, go_on=lambda runs: context.beat(runs) < 1)
            outcome.runs += result.runs
            if result.found or result.endless or result.exited:
                return next((found.finding.message for found in result.found.values()), "it came to no end")
            gc.collect()
            sizes.append(size_of(made[0]))
        if sizes[0] is None or sizes[1] is None:
            return "what it keeps is too much to count"
        if sizes[1] - sizes[0] > len(LETTERS) // 2:
            message = f"what it keeps grows by {sizes[1] - sizes[0]} for {len(LETTERS) - 1} idle keys, after: {text}"
            outcome.found.append(Violation(("KM-IDLE",), message, symptom="KM-IDLE"))
            return ""
        outcome.witnesses["KM-IDLE"] += len(LETTERS)
    return ""


def _user(
    context: Context, explorer: Explorer, keys: _Keys, outcome: UnitResult, text: str
) -> Callable[[int, bool], None]:
    """Runs the program so many times, with a fresh key each time or with one for all."""

    def use(times: int, fresh: bool) -> None:
        for _ in range(times):
            keys.number += fresh
            result = explorer.every(parse(text), context.level, 0)
            outcome.runs += 1
            if result.found or result.endless or result.exited:
                why = next((found.finding.message for found in result.found.values()), "it came to no end")
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
    """What the subject keeps of keys that are idle, in words; "" for nothing, or for no more than a bound.

    more: keys that fill any cache.
    """
    use(2, True)  # What it makes once only is there then.
    first, before = keys.number, size()
    use(KEPT, True)
    last, after = keys.number, size()
    kept = keys.kept(first, last)
    grown = 0 if before is None or after is None else after - before
    if before is None or after is None:
        outcome.notes.append((clause, "what it keeps is too much to count; only whole keys that stay are seen"))
    if max(kept, grown) <= KEPT // 2:
        return ""
    # A log of what was done grows by each use, and not by each key.
    use(KEPT, False)
    again = size()
    by_use = 0 if again is None or after is None else max(0, again - after)
    if max(kept, grown - by_use) <= KEPT // 2:
        outcome.notes.append((clause, "keeps something of each call, whatever the key"))
        return ""
    # A cache has a bound: it drops its oldest, or grows no more.
    use(more, True)
    middle, before = keys.number, size()
    use(LAST, True)
    end, after = keys.number, size()
    if keys.kept(first, last) > KEPT // 2 and keys.kept(middle, end) > LAST // 2:
        return f"{kept} of {KEPT} keys that are idle are still kept, and so it goes on with {end - first:,} of them"
    if before is not None and after is not None and after - before - by_use * LAST // KEPT > LAST // 2:
        return f"what it keeps grows with each idle key, by {grown} for {KEPT} of them, and so on with {end - first:,}"
    outcome.notes.append((clause, f"keeps something of idle keys, up to a bound of fewer than {end - first:,}"))
    return ""
