"""KM-IDLE from outside: a key that was locked, tried, waited for and cancelled, and is idle, is not kept."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

from kmutex.engine.eventloop import Loop
from kmutex.engine.explorer import Explorer
from kmutex.engine.judge import Event
from kmutex.engine.keys import spelled
from kmutex.engine.program import parse
from kmutex.engine.timeline import timeline
from kmutex.verify.checks.context import Context
from kmutex.verify.checks.size import size_of
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

KEPT = 60
"""Keys that are used and dropped."""
MORE = 1_200
"""Further keys, where the subject grows: as long as it grows with each of them, it has no bound."""


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

    def kept(self) -> int:
        """How many of the keys since the last time are still there as objects."""
        gc.collect()
        names = {number for number, reference in self._alive if reference() is not None}
        self._alive.clear()
        return len(names)


class _CutShortError(Exception):
    """A run came to no good end, so that nothing can be said of what it leaves behind."""


def memory(context: Context, outcome: UnitResult) -> None:
    """KM-IDLE from outside: a key that was locked, tried, waited for and cancelled, and is idle, is not kept."""
    subjects: list[Any] = []
    keys = _Keys(context.shape.keys)

    def make() -> Any:
        if not subjects:
            subjects.append(context.make())
        return subjects[0]

    texts = ["0+a", "0+a | 1+a | 0-a"]
    texts += ["0+a | 1?a"] if context.shape.tries else []
    texts += ["0+a | 1~a | c1"] if context.shape.timeout or context.shape.kind == "asyncio" else []
    outcome.bound = f"{KEPT} keys, each used in {len(texts)} ways and dropped"
    # What the subject keeps of one loop would be of no use in another.
    loop = Loop() if context.shape.kind == "asyncio" else None  # type: ignore[abstract]
    explorer = context.explorer.on(make, keys=keys, loop=loop)
    try:
        for text in texts:
            use = _user(context, explorer, keys, outcome, text)
            message = _growth(use, keys, lambda: size_of(subjects[0]), outcome)
            if message:
                picture = timeline([Event(-1, f"{KEPT} keys, one after the other: {text}")])
                found = f"{message}, after: {text}"
                outcome.found.append(Violation(("KM-IDLE",), found, picture=picture, symptom="KM-IDLE"))
                return
            outcome.witnesses["KM-IDLE"] += KEPT
    except _CutShortError as error:
        outcome.undecided.append(("KM-IDLE", str(error)))
        return
    outcome.complete = True


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


def _growth(use: Callable[[int, bool], None], keys: _Keys, size: Callable[[], int | None], outcome: UnitResult) -> str:
    """What the subject keeps of keys that are idle, in words; "" for nothing, or for no more than a bound."""
    use(2, True)  # What it makes once only is there then.
    keys.kept()
    before = size()
    use(KEPT, True)
    kept, after = keys.kept(), size()
    if before is None or after is None:
        grown = 0
        outcome.notes.append(("KM-IDLE", "there is too much to count in what it keeps; keys that stay are seen only"))
    else:
        grown = after - before
    if kept <= KEPT // 2 and grown <= KEPT // 2:
        return ""
    # A log of what was done grows by each use, and not by each key; a cache has a bound.
    use(KEPT, False)
    keys.kept()
    again = size()
    by_use = 0 if again is None or after is None else max(0, again - after)
    use(MORE, True)
    more, end = keys.kept(), size()
    more_grown = 0 if again is None or end is None else end - again - by_use * MORE // KEPT
    if more > MORE // 2:
        return f"{kept} of {KEPT} keys that are idle are still kept, and {more} of {MORE} more"
    if more_grown > MORE // 2:
        return f"what it keeps grows with each idle key: by {grown} for {KEPT} keys, by {more_grown} for {MORE} more"
    bound = max(kept, more)
    outcome.notes.append(
        ("KM-IDLE", f"keeps something of {bound} idle keys, and no more of {MORE} more" if bound else "it keeps a log")
    )
    return ""
