"""The explorer beside TLC: states a second, memory, and how both grow, with symmetry reduction and without.

    python benchmarks/explorer/run.py [--rounds 3] [--limit 150] [--bounds 4x2,5x2,6x2,7x3] [--json FILE] [--page FILE]

Both engines check the same: every clause but KM-LIVE, on the same states, whose counts must agree or the run is
refused. Each run is a process of its own; within a round the engines take turns, in an order drawn anew from the
printed seed. The memory of a state is the peak of the process above that of the same engine at 1 x 1, divided by
the states. TLC's seconds include the start of the Java machine, given in the table's first row; it runs with one
worker, as its depth is an estimate with more. A run that takes longer than the limit is killed and said so.

--page FILE writes the tables between the two marks in that page. Needs Java and the dev extra.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests" / "tlc"), str(ROOT / "benchmarks")]

import run_tlc  # noqa: E402 - the one place that knows how TLC is run and read

import page  # noqa: E402
from kmutex_model.actions import CORRECT  # noqa: E402
from kmutex_model.explore import explore  # noqa: E402
from kmutex_model.properties import ALL  # noqa: E402
from kmutex_model.state import Config  # noqa: E402
from span import Span  # noqa: E402

ENGINES = ("explorer", "TLC", "explorer, symmetry", "TLC, symmetry")
SMALLEST = "1x1"
BOUNDS = "4x2,5x2,6x2,7x3"
PLAIN_UP_TO = 20_000
"""States beyond which nothing is run without symmetry."""
SECTION, COMMAND = "explorer", "benchmarks/explorer/run.py"


class Run(NamedTuple):
    """One run of one engine. seconds None: it was over the limit. peak: bytes."""

    engine: str
    bound: str
    states: int
    steps: int
    seconds: float | None
    peak: int


class Row(NamedTuple):
    """What the rounds say of one engine at one bound; no seconds where one was over the limit."""

    engine: str
    bound: str
    states: int
    steps: int
    seconds: Span | None
    bytes_per_state: float | None


# -- one run, in a process of its own ------------------------------------------------------------------------------


def work(engine: str, bound: str) -> None:
    """Run the engine, and print the counts of states and steps."""
    clients, keys = (int(number) for number in bound.split("x"))
    config = Config(clients, keys, "keep")
    symmetry = engine.endswith("symmetry")
    if engine.startswith("explorer"):
        safety = [prop for prop in ALL if not prop.eventually]
        found = explore(CORRECT, config, properties=safety, symmetry=symmetry)
        if found.violations or not found.complete:
            sys.exit(f"the correct model does not hold at {bound}")
        print(found.states, found.transitions)
        return
    run_tlc.TIME_LIMIT = 1e6
    module, cfg = "KMutex", run_tlc.write_safety_cfg(config)
    if symmetry:
        module, cfg = "KMutexSymmetry", run_tlc.write_symmetry_cfg(config)
    said, _ = run_tlc.run_tlc(run_tlc.find_tools(None), module, cfg)
    if said.violated:
        sys.exit(f"TLC says that {said.violated} is violated at {bound}")
    print(said.distinct, said.generated - 1)


def measure(engine: str, bound: str, limit: float) -> Run:
    """Start a process for it, and wait. The peak is of the process or the Java machine under it, the larger one."""
    command = [sys.executable, __file__, "--work", engine, bound]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, start_new_session=True)
        late = threading.Event()

        def end() -> None:
            late.set()
            os.killpg(process.pid, signal.SIGKILL)

        timer = threading.Timer(limit, end)
        timer.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        timer.join()
        if late.is_set():
            return Run(engine, bound, 0, 0, None, 0)
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            sys.exit(f"{engine} at {bound} failed: {err.read().strip().splitlines()[-1:]}")
        states, steps = (int(word) for word in out.read().split())
        return Run(engine, bound, states, steps, seconds, usage.ru_maxrss * 1024)


# -- all of them ---------------------------------------------------------------------------------------------------


def rounds(bounds: Sequence[str], count: int, limit: float, seed: int, console: Console) -> Iterator[Run]:
    """The runs, the engines taking turns at each bound. One that was over the limit is not tried at larger bounds."""
    choice = random.Random(seed)
    over: set[str] = set()
    large = False
    with console.status("starting") as status:
        for bound in (SMALLEST, *bounds):
            turns = [engine for engine in ENGINES if engine not in over and not (large and "symmetry" not in engine)]
            for number in range(count):
                choice.shuffle(turns)
                for engine in [engine for engine in turns if engine not in over]:
                    status.update(f"{bound}, round {number + 1} of {count}: {engine}")
                    run = measure(engine, bound, limit)
                    if run.seconds is None:
                        over.add(engine)
                    large = large or run.states > PLAIN_UP_TO
                    yield run


def rows(runs: Sequence[Run]) -> list[Row]:
    """By bound and engine. SystemExit: the engines do not agree on the counts."""
    found = []
    base = {
        engine: statistics.median(run.peak for run in runs if (run.engine, run.bound) == (engine, SMALLEST))
        for engine in {run.engine for run in runs}
    }
    for bound in dict.fromkeys(run.bound for run in runs):
        for symmetric in (False, True):
            counts = {
                (run.states, run.steps)
                for run in runs
                if run.bound == bound and run.engine.endswith("symmetry") == symmetric and run.seconds is not None
            }
            if len(counts) > 1:
                sys.exit(f"at {bound} the engines do not agree: {counts}")
        for engine in ENGINES:
            mine = [run for run in runs if (run.engine, run.bound) == (engine, bound)]
            if not mine:
                continue
            seconds = [run.seconds for run in mine if run.seconds is not None]
            if len(seconds) < len(mine):
                found.append(Row(engine, bound, 0, 0, None, None))
                continue
            above = statistics.median(run.peak for run in mine) - base[engine]
            per_state = above / mine[0].states if bound != SMALLEST and mine[0].states > 1_000 else None
            found.append(Row(engine, bound, mine[0].states, mine[0].steps, Span.of(seconds), per_state))
    return found


def as_markdown(found: Sequence[Row], limit: float, count: int, seed: int) -> list[str]:
    """The lines of the table, with what it was measured on."""
    lines = [
        f"CPython {platform.python_version()}, {os.cpu_count()} cores, {time.strftime('%Y-%m-%d')}, seed {seed}.",
        f"Seconds are medians of {count} rounds, the least and the most in brackets. `x TLC`: the seconds of TLC in",
        f'the same mode, by those of the explorer. "over": more than {limit:g} s; nothing larger is tried then.',
        "",
        "| bound | engine | states | steps | seconds | states/s | x TLC | bytes a state |",
        "|-------|--------|-------:|------:|--------:|---------:|------:|--------------:|",
    ]
    by_name = {(row.bound, row.engine): row for row in found}
    for row in found:
        if row.seconds is None:
            lines.append(f"| {row.bound} | {row.engine} | | | over | | | |")
            continue
        tlc = by_name.get((row.bound, row.engine.replace("explorer", "TLC")))
        if row.engine.startswith("TLC") or tlc is None:
            ratio = ""
        elif tlc.seconds is None:
            ratio = f"over {limit / row.seconds.median:.0f}"
        else:
            ratio = f"{tlc.seconds.median / row.seconds.median:.1f}"
        memory = f"{row.bytes_per_state:,.0f}" if row.bytes_per_state is not None else "-"
        seconds = f"{row.seconds.median:.2f} ({row.seconds.least:.2f}..{row.seconds.most:.2f})"
        counts = f"{row.states:,} | {row.steps:,}"
        speed = f"{row.states / row.seconds.median:,.0f}"
        lines.append(f"| {row.bound} | {row.engine} | {counts} | {seconds} | {speed} | {ratio} | {memory} |")
    return lines


def main() -> int:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description="The explorer beside TLC.")
    parser.add_argument("--rounds", type=int, default=3, help="rounds at each bound (3)")
    parser.add_argument("--limit", type=float, default=150.0, help="seconds for one run (150)")
    parser.add_argument("--bounds", default=BOUNDS, help=f"clients x keys, smaller ones first ({BOUNDS})")
    parser.add_argument("--seed", type=int, default=None, help="of the order of turns (drawn)")
    parser.add_argument("--json", type=Path, help="write every run here")
    parser.add_argument("--page", type=Path, help="write the table between the marks of this page")
    parser.add_argument("--work", nargs=2, metavar=("ENGINE", "BOUND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(*options.work)
        return 0
    try:
        run_tlc.find_tools(None)
    except run_tlc.Missing as missing:
        print(f"nothing was measured. Missing: {missing}", file=sys.stderr)
        return 3
    seed = random.randrange(10**6) if options.seed is None else options.seed
    console = Console(stderr=True)
    runs = list(rounds(options.bounds.split(","), options.rounds, options.limit, seed, console))
    lines = as_markdown(rows(runs), options.limit, options.rounds, seed)
    print("\n".join(lines))
    if options.json:
        body = {"python": platform.python_version(), "seed": seed, "limit": options.limit}
        options.json.write_text(json.dumps({**body, "runs": [run._asdict() for run in runs]}, indent=1) + "\n")
    if options.page:
        page.write(options.page, COMMAND, {SECTION: lines})
    return 0


if __name__ == "__main__":
    sys.exit(main())
