"""Several keys by one request (KM-ALL): what hold_all promises, by the programs and the judge of a single key.

If any two requests share a key, at most one of them can hold all of its keys. Since a request joins all of its queues
in one step, such requests are served in the order in which they asked. So they behave like requests for one key, and a
letter of a program stands here for a family of key lists that pairwise share a key. If a locker takes the keys one
after the other, two clients wait for each other; if a client that gives up keeps a key, the next waits forever.
"""

from __future__ import annotations

import _thread
import inspect
from collections.abc import Callable, Iterator
from typing import Any

from kmutex.engine.explorer import Explorer
from kmutex.engine.faces import bare, current_task, settled
from kmutex.engine.keys import Spelling, spelled
from kmutex.engine.program import Program, parse
from kmutex.engine.shapes import Shape
from kmutex.engine.timeline import timeline
from kmutex.verify.checks.context import Context
from kmutex.verify.evidence import Violation
from kmutex.verify.results import UnitResult

FAMILIES: dict[str, tuple[str, ...]] = {
    "the same keys, in other orders and twice": ("xy", "yx", "xxy"),
    "two keys of three, each list another two": ("xy", "yz", "zx"),
    "one key alone, by lock, and with another": ("x", "xy", "zx"),
}
"""The lists of one letter, in the order in which the calls of a run get them. A list of one key is a call of lock."""
MOST = 20
"""The most runs of one program with a preemption. If there are more schedules, the bound says so."""
RACES = (
    "0+a 1+a",
    "0+a-a 1+a-a",
    "0+a-a 1+b-b",
    "0+a | 0-a 1+a",
    "0+a | 1+a 2+a",
    "0+a | 0-a 1+a 2+a",
    "0+a 1?a",
    "0+a | 0-a 1?a",
    "0+a 1~a",
    "0+a | 1~a | 0-a",
    "0+a | 1~a | 2+a | 0-a",
    "0+a | 1~a | c1 0-a",
    "0+a | 1!a | 0-a",
)
"""Programs that are run by the default schedule, and with a preemption."""
PROGRAMS = (
    *RACES,
    "0+a | 1+a | 2+a | 3+a | 0-a | 1-a",
    "0+a | 1+b | 2+a | 3+b | 0-a 1-b",
    "0+a | 1?a | 2+a | 0-a",
    "0+a | 1+a | 2?a | 0-a",
    "0+a | 1~a | c1 | 2+a | 0-a | 1+a",
    "0+a | 1~a | 2+a | c1 | 0-a",
    "0+a | 1+a | 2~a | 3+a | c2 | 0-a",
    "0+a | 1~a | 2~a | c1 c2",
    "0+a | 1!a | 2+a | c1 | 0-a",
    "0+a | 1!a | 2!a | 0-a",
)


class _Blocks:
    """Lock and unlock for a subject whose hold_all takes the lists of a family."""

    def __init__(self, made: Any, family: tuple[str, ...], kind: str) -> None:
        self.made = made
        self.subject = bare(made)
        self._lists = _round(family)
        self._kind = kind
        self._held: dict[tuple[object, str], Any] = {}

    def _next(self, key: str) -> tuple[list[Any], bool]:
        parts = next(self._lists)
        return [spelled(self._kind, f"{key}-{part}") for part in parts], len(parts) == 1

    def _taken(self, client: object, key: str) -> Any:
        if (client, key) not in self._held:
            raise RuntimeError("nobody holds the keys")
        return self._held.pop((client, key))


class _ThreadBlocks(_Blocks):
    def lock(self, key: str, **timeout: Any) -> None:
        keys, alone = self._next(key)
        block: Any = None
        if alone:
            self.made.lock(keys[0], **timeout)
        else:
            block = self.subject.hold_all(keys, **timeout)
            block.__enter__()
        self._held[_thread.get_ident(), key] = keys[0] if alone else block

    def unlock(self, key: str) -> None:
        held = self._taken(_thread.get_ident(), key)
        if hasattr(type(held), "__exit__"):
            held.__exit__(None, None, None)
        else:
            self.made.unlock(held)


class _TaskBlocks(_Blocks):
    async def lock(self, key: str, **timeout: Any) -> None:
        keys, alone = self._next(key)
        block: Any = None
        if alone:
            await self.made.lock(keys[0], **timeout)
        else:
            block = self.subject.hold_all(keys, **timeout)
            await block.__aenter__()
        self._held[current_task(), key] = keys[0] if alone else block

    async def unlock(self, key: str) -> None:
        held = self._taken(current_task(), key)
        if hasattr(type(held), "__aexit__"):
            await held.__aexit__(None, None, None)
        else:
            await settled(self.made.unlock(held))


class _Counted:
    """With len() for one letter: 1 if any of its keys is live."""

    made: Any

    def __len__(self) -> int:
        return min(1, len(self.made))


class _CountedThreadBlocks(_ThreadBlocks, _Counted):
    pass


class _CountedTaskBlocks(_TaskBlocks, _Counted):
    pass


def several(context: Context, outcome: UnitResult) -> None:
    """KM-ALL, with one of the families: in the default schedule, and with a preemption."""
    words, family = list(FAMILIES.items())[outcome.unit.part]
    waits = context.shape.timeout and _takes_timeout(context.make())
    lacks = "" if waits else "?!" if context.shape.kind == "threads" else "?"
    lacks += "~c" if context.shape.kind == "threads" and not waits else ""
    lacks += "!" if context.shape.kind == "asyncio" or "KM-INTERRUPT" in context.off else ""
    wanted = [parse(text) for text in PROGRAMS if not parse(text).kinds & frozenset(lacks)]
    cut = 0
    for program in wanted:
        for bound in (0, 1) if str(program) in RACES else (0,):
            cut += not _run(context, outcome, program, bound, family, words, waits)
            if outcome.found:
                return
    outcome.complete = True
    outcome.witnesses["KM-ALL"] = outcome.runs
    races = sum(str(program) in RACES for program in wanted)
    outcome.bound = f"{words}: {len(wanted)} programs, {races} with 1 preemption"
    outcome.bound += f" ({cut} of them cut short at {MOST} runs)" if cut else ""
    outcome.bound += f", {outcome.runs:,} runs"


def _run(
    context: Context,
    outcome: UnitResult,
    program: Program,
    bound: int,
    family: tuple[str, ...],
    words: str,
    tries: bool,
) -> bool:
    """Run a program with a family; return whether every schedule within the bound was run."""
    explorer = of_families(context.explorer, context.make, context.shape, program, family, tries=tries)
    result = explorer.every(program, context.level, bound, go_on=lambda runs: context.beat(runs) < MOST)
    outcome.runs += result.runs
    outcome.endless += result.endless
    for finding, _ in result.found.values():
        if finding.symptom not in context.known:
            clauses = ("KM-ALL", *(clause for clause in finding.clauses if clause != "KM-ALL"))
            message = f"hold_all, with {words}, in the place of one key ({program}): {finding.message}"
            outcome.found.append(Violation(clauses, message, picture=timeline(finding.events), symptom=finding.symptom))
    return result.complete or bool(outcome.found)


def of_families(
    explorer: Explorer,
    make: Callable[[], Any],
    shape: Shape,
    program: Program,
    family: tuple[str, ...],
    *,
    tries: bool = False,
) -> Explorer:
    """Return an explorer for programs in which a letter stands for the lists of a family.

    ``make`` and ``shape`` are those of a subject with hold_all; ``tries`` tells whether that can ask without waiting.
    """
    counted = shape.counts and len(program.keys) == 1
    blocks: type[_Blocks] = _CountedThreadBlocks if counted else _ThreadBlocks
    if shape.kind == "asyncio":
        blocks = _CountedTaskBlocks if counted else _TaskBlocks
    return explorer.on(lambda: blocks(make(), family, shape.keys), keys=Spelling(own=shape.shared), tries=tries)


def _takes_timeout(made: Any) -> bool:
    try:
        return "timeout" in inspect.signature(bare(made).hold_all).parameters
    except (TypeError, ValueError):
        return False


def _round(family: tuple[str, ...]) -> Iterator[str]:
    while True:
        yield from family
