"""What an interrupt leaves held: before every bytecode of a block, and by storms of signals and exceptions.

    python benchmarks/interrupts/run.py [--subject NAME] [--signals 100000] [--rounds 3] [--json FILE] [--page FILE]

First each block is interrupted before each of its bytecodes, once per boundary (kmutex.testing.interrupts). Then
SIGALRM is sent into endless blocks, at a time drawn anew for each signal, and its handler raises; the subjects take
turns within each round. After each interrupt it is looked at what is left held; where the signal was seen is the
function that was running. At last threads, each with a lock of its own, throw asynchronous exceptions at each other;
who still waits for its lock when all should have ended is stuck. A subject that leaks is beside the sound ones: a storm
that meets nothing would show.

--subject chooses, and --signals counts where --seconds takes the time. --page FILE writes the tables into that page,
between its marks: those of the compiled lock, where kmutex is compiled, and those of chosen subjects, where some are.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import platform
import random
import signal
import statistics
import sys
import threading
import time
import timeit
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import NamedTuple

from kmutex import KeyedMutex, compiled
from kmutex._lease import NO_TICKET
from kmutex._threads import Lease
from kmutex.testing.interrupts import Interrupt, everywhere

sys.path[:0] = [str(Path(__file__).resolve().parents[1])]

import page  # noqa: E402
import terms  # noqa: E402
from twin import in_python  # noqa: E402

KEY = "k"
SENTENCE = "interrupts, in a sentence"
SECTION, COMMAND = "interrupts, compiled" if compiled else "interrupts", "benchmarks/interrupts/run.py"
AGAIN = 0.05
LONGEST = 60e-6
"""Seconds until a signal, at most: some blocks long, so that it may come anywhere in one."""
THREADS, BLOCKS, DEPTH = 12, 10, 8
DEADLINE = 20
"""Seconds that threads which only have a block to end are waited for."""


class Subject(NamedTuple):
    """A block that takes and releases something, and whether that is held."""

    block: Callable[[], None]
    held: Callable[[], bool]


class CountedLocks:
    """The recipe that is often copied: a dict of locks with counts, nothing done about interrupts."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._table: dict[str, list[object]] = {}

    def lock(self, key: str) -> None:
        with self._guard:
            entry = self._table.setdefault(key, [threading.Lock(), 0])
            entry[1] += 1  # type: ignore[operator]
        entry[0].acquire()  # type: ignore[attr-defined]

    def unlock(self, key: str) -> None:
        with self._guard:
            entry = self._table[key]
            entry[1] -= 1  # type: ignore[operator]
            if not entry[1]:
                del self._table[key]
            entry[0].release()  # type: ignore[attr-defined]

    def held(self) -> bool:
        return bool(self._table) or self._guard.locked()


def plain_with() -> Subject:
    lock = threading.Lock()

    def block() -> None:
        with lock:
            pass

    return Subject(block, lock.locked)


def plain_calls() -> Subject:
    lock = threading.Lock()

    def block() -> None:
        lock.acquire()
        try:
            pass
        finally:
            lock.release()

    return Subject(block, lock.locked)


def keyed_with(kind: type[KeyedMutex] = KeyedMutex) -> Subject:
    mutex = kind()

    def block() -> None:
        with mutex.hold(KEY):
            pass

    return Subject(block, lambda: KEY in mutex)


class FinalizedLease(Lease):
    """A lease that ends its grant when nobody has it any more. What it would cost and mend; see ADR 6."""

    __slots__ = ()

    def __del__(self) -> None:
        # It may have been interrupted in its own __init__.
        if getattr(self, "_ticket", NO_TICKET) > NO_TICKET:
            self._mutex._settle(self._key, self._ticket)


def finalized_with() -> Subject:
    mutex = KeyedMutex()

    def block() -> None:
        with FinalizedLease(mutex._mutex, KEY, None):
            pass

    return Subject(block, lambda: KEY in mutex)


def keyed_calls() -> Subject:
    mutex = KeyedMutex()

    def block() -> None:
        mutex.lock(KEY)
        try:
            pass
        finally:
            mutex.unlock(KEY)

    return Subject(block, lambda: KEY in mutex)


def counted() -> Subject:
    locks = CountedLocks()

    def block() -> None:
        locks.lock(KEY)
        try:
            pass
        finally:
            locks.unlock(KEY)

    return Subject(block, locks.held)


# In Python, its twin has what would close the boundary that is left; compiled, its twin is the lock in Python.
TWIN: dict[str, Callable[[], Subject]]
if compiled:
    _mutex_in_python: type[KeyedMutex] = in_python("KeyedMutex")
    TWIN = {"the same, not compiled": lambda: keyed_with(_mutex_in_python)}
else:
    TWIN = {"the same, and a finalizer": finalized_with}
HOLD = "with km.hold(k)"
SUBJECTS: dict[str, Callable[[], Subject]] = {
    "with threading.Lock()": plain_with,
    HOLD: keyed_with,
    **TWIN,
    "threading.Lock, acquire and release": plain_calls,
    "km.lock(k) and km.unlock(k)": keyed_calls,
    "dict of [Lock, count]": counted,
}


# -- every boundary ------------------------------------------------------------------------------------------------


class Swept(NamedTuple):
    """Boundaries of a block, those that left it held, and of these the ones in its own functions."""

    boundaries: int
    held: int
    own: tuple[str, ...]


def sweep(make: Callable[[], Subject]) -> Swept:
    """Interrupt the block of a fresh subject at each boundary."""
    made: list[Subject] = []

    def make_run() -> Callable[[], None]:
        made.append(make())
        return made[-1].block

    held = [boundary for boundary in everywhere(make_run, _traced) if made[-1].held()]
    own = tuple(str(boundary) for boundary in held if not boundary.function.endswith("block"))
    return Swept(len(made) - 1, len(held), own)


def _traced(code: CodeType) -> bool:
    return "/kmutex/_" in code.co_filename or (
        code.co_filename == __file__ and code.co_name in ("block", "lock", "unlock")
    )


# -- real signals --------------------------------------------------------------------------------------------------


class Struck(NamedTuple):
    """Signals that were seen, those that left something held, and the functions in which these were seen.

    lost  signals whose exception Python could not raise, since they came in a finalizer
    """

    signals: int
    held: int
    places: Counter[str]
    lost: int


def storm(make: Callable[[], Subject], seconds: float, most: float, choice: random.Random) -> Struck:
    """Send signals into blocks, for that long and so many. Only in the main thread, which is the one that gets them."""

    lost, armed = 0, False

    def handler(number: int, frame: object) -> None:
        nonlocal armed
        if armed:
            armed = False
            raise Interrupt

    def on_lost(_: object) -> None:
        nonlocal lost, armed
        lost += 1
        armed = True

    signals, held = 0, 0
    places: Counter[str] = Counter()
    before = signal.signal(signal.SIGALRM, handler)
    hook, sys.unraisablehook = sys.unraisablehook, on_lost
    try:
        end = time.monotonic() + seconds
        while signals < most and time.monotonic() < end:
            subject = make()
            block = subject.block
            armed = True
            try:
                # Once more, in case the first is lost.
                signal.setitimer(signal.ITIMER_REAL, choice.uniform(1e-6, LONGEST), AGAIN)
                while True:
                    block()
            except Interrupt as interrupt:
                signal.setitimer(signal.ITIMER_REAL, 0)
                place = _place(interrupt)
            # Now the exception is gone, and what only its traceback had kept alive.
            signals += 1
            if subject.held():
                held += 1
                places[place] += 1
    finally:
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook
    return Struck(signals, held, places, lost)


def _place(interrupt: Interrupt) -> str:
    """The function that ran when the signal was seen: the one before the handler."""
    trace, names = interrupt.__traceback__, []
    while trace is not None:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return names[-2]


# -- asynchronous exceptions ---------------------------------------------------------------------------------------


class Pelted(NamedTuple):
    """Exceptions that were thrown at threads, and threads that still waited when all should have ended."""

    exceptions: int
    stuck: int


def pelt(make: Callable[[], Subject], seconds: float, choice: random.Random) -> Pelted:
    """Let threads, each with a lock of its own, throw exceptions at each other for that long."""
    over = threading.Event()
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc
    aims: list[int] = []
    thrown = [0] * THREADS

    def work(number: int, block: Callable[[], None], depth: int = DEPTH) -> None:
        # The next may come while one is caught: then the call around this one catches it, and calls again.
        try:
            while not aims:
                time.sleep(0)
            while depth and not over.is_set():
                work(number, block, depth - 1)
            while not over.is_set():
                for _ in range(BLOCKS):
                    block()
                thrown[number] += throw(ctypes.c_ulong(choice.choice(aims)), ctypes.py_object(Interrupt))
        except Interrupt:
            pass

    def silent(_: object) -> None:
        pass

    hooks = threading.excepthook, sys.unraisablehook
    threading.excepthook = sys.unraisablehook = silent
    interval = sys.getswitchinterval()
    sys.setswitchinterval(LONGEST)
    try:
        every = [threading.Thread(target=work, args=[at, make().block], daemon=True) for at in range(THREADS)]
        for thread in every:
            thread.start()
        # An exception in the starting of a thread would leave us waiting for it.
        aims += [thread.ident or 0 for thread in every]
        over.wait(seconds)
        over.set()
        latest = time.monotonic() + DEADLINE
        for thread in every:
            thread.join(max(0.0, latest - time.monotonic()))
    finally:
        sys.setswitchinterval(interval)
        threading.excepthook, sys.unraisablehook = hooks
    return Pelted(sum(thrown), sum(thread.is_alive() for thread in every))


def cost(rounds: int) -> list[float]:
    """The time of the twin's block by that of ours, round by round."""
    (twin,) = TWIN.values()
    without, with_it = keyed_with().block, twin().block
    ratios = []
    for _ in range(rounds):
        one, two = (min(timeit.repeat(block, number=20_000, repeat=5)) for block in (without, with_it))
        ratios.append(two / one)
    return ratios


# -- the report ----------------------------------------------------------------------------------------------------


def tables(
    swept: dict[str, Swept],
    struck: dict[str, list[Struck]],
    pelted: dict[str, Pelted],
    ratios: list[float],
    options: argparse.Namespace,
) -> list[str]:
    """All of it, as Markdown."""
    each = f"{options.signals:,} signals" if options.signals else f"{options.seconds} s"
    build = ", compiled" if compiled else ""
    lines = [
        f"CPython {platform.python_version()}{build}, {time.strftime('%Y-%m-%d')}. An interrupt before each bytecode:",
        "",
        "| block | boundaries | left held | of these in its own functions |",
        "|-------|-----------:|----------:|-------------------------------|",
    ]
    for name, row in swept.items():
        own = ", ".join(f"`{place}`" for place in row.own[:3]) + (
            f" and {len(row.own) - 3} more" if row.own[3:] else ""
        )
        lines.append(f"| `{name}` | {row.boundaries} | {row.held} | {own or 'none'} |")
    lines += [
        "",
        f"SIGALRM, {options.rounds} rounds of {each}; medians of the rounds, the least and the most in brackets:",
        "",
        "| block | signals | left held, of 100,000 | seen in | lost |",
        "|-------|--------:|----------------------:|---------|-----:|",
    ]
    for name, rows in struck.items():
        rates = [100_000 * row.held / row.signals for row in rows]
        places: Counter[str] = sum((row.places for row in rows), Counter())
        where = ", ".join(f"`{place}`" for place, _ in places.most_common(3)) or "-"
        rate = f"{statistics.median(rates):,.0f} ({min(rates):,.0f}..{max(rates):,.0f})"
        counts = sum(row.signals for row in rows), sum(row.lost for row in rows)
        lines.append(f"| `{name}` | {counts[0]:,} | {rate} | {where} | {counts[1]:,} |")
    lines += [
        "",
        f"Asynchronous exceptions, {THREADS} threads, each with a lock of its own, {options.seconds} s:",
        "",
        "| block | exceptions | threads that wait forever |",
        "|-------|-----------:|---------------------------:|",
    ]
    lines += [f"| `{name}` | {row.exceptions:,} | {row.stuck} |" for name, row in pelted.items()]
    if not ratios:
        return lines
    span = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})"
    what = "that is not compiled" if compiled else "with a finalizer"
    return [*lines, "", f"A block {what} takes {span} times as long as one as it is."]


def sentence(rows: list[Struck]) -> str:
    """What a reader of the README is told of the lock in Python."""
    signals, held = sum(row.signals for row in rows), sum(row.held for row in rows)
    return (
        f"What can happen without the compiled build: of {signals:,} SIGALRM whose handler raised, sent into endless\n"
        f"empty `{HOLD}` blocks, {held:,} left the key held (CPython {platform.python_version()})."
    )


def main() -> int:
    """Measure, print, and write where asked. 0; 4 for wrong arguments."""
    parser = terms.Parser(prog="run.py", description="What an interrupt leaves held.")
    parser.add_argument(
        "--seconds", type=terms.at_least(1), default=5, help="of signals for each subject and round (5)"
    )
    parser.add_argument("--signals", type=terms.at_least(1), help="for each subject and round, however long that takes")
    parser.add_argument("--subject", nargs="+", choices=SUBJECTS, metavar="NAME", default=list(SUBJECTS), help="(all)")
    parser.add_argument("--rounds", type=terms.at_least(1), default=3, help="(3)")
    parser.add_argument("--seed", type=terms.at_least(0), default=None, help="of the times of the signals (drawn)")
    parser.add_argument("--json", type=Path, help="write the counts here")
    parser.add_argument("--page", type=Path, nargs="+", default=[], help="write the tables into these pages")
    options: argparse.Namespace = parser.parse_args()
    chosen = {name: make for name, make in SUBJECTS.items() if name in options.subject}
    section = SECTION if len(chosen) == len(SUBJECTS) else f"{SECTION}, chosen"
    places = [section] if compiled or HOLD not in chosen else [section, SENTENCE]
    for path in options.page:
        try:
            page.written(path.read_text(encoding="utf-8"), COMMAND, dict.fromkeys(places, ()))
        except (OSError, ValueError) as error:
            parser.error(f"{path}: {error}")
    seed = random.randrange(10**6) if options.seed is None else options.seed
    choice = random.Random(seed)
    seconds, most = (math.inf, options.signals) if options.signals else (options.seconds, math.inf)
    swept = {name: sweep(make) for name, make in chosen.items()}
    struck: dict[str, list[Struck]] = {name: [] for name in chosen}
    with terms.progress() as shown:
        task = shown.add_task("signals", total=(options.rounds + 1) * len(chosen))
        # Its own thread would be another one to be interrupted in; it is told between the storms.
        shown.live.auto_refresh = False
        for _ in range(options.rounds):
            for name in choice.sample(list(chosen), len(chosen)):
                shown.update(task, description=name, refresh=True)
                struck[name].append(storm(chosen[name], seconds, most, choice))
                shown.advance(task)
        pelted = {}
        for name, make in chosen.items():
            shown.update(task, description=f"{name}, threads", refresh=True)
            pelted[name] = pelt(make, options.seconds, choice)
            shown.advance(task)
    ratios = cost(max(5, options.rounds)) if {HOLD, *TWIN} <= chosen.keys() else []
    lines = [*tables(swept, struck, pelted, ratios, options), "", f"Seed {seed}."]
    print("\n".join(lines))
    if options.json:
        body = {name: [row._asdict() for row in rows] for name, rows in struck.items()}
        swept_body = {name: row._asdict() for name, row in swept.items()}
        pelted_body = {name: row._asdict() for name, row in pelted.items()}
        document = {"seed": seed, "compiled": compiled, "swept": swept_body, "struck": body, "pelted": pelted_body}
        options.json.write_text(json.dumps(document, indent=1) + "\n")
    texts = {section: lines, SENTENCE: [sentence(struck.get(HOLD, []))]}
    for path in options.page:
        page.write(path, COMMAND, {name: texts[name] for name in places})
    return 0


if __name__ == "__main__":
    sys.exit(main())
