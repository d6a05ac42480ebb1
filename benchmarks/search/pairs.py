"""Time to the first violation of known-bad lockers by each strategy, and how soon `verify` finds those that none hits.

    python benchmarks/search/pairs.py [--seeds 5] [--only TEXT] [--write PAGE]
    python benchmarks/search/pairs.py --others [--seconds 30] [--only TEXT] [--write PAGE]
    python benchmarks/search/pairs.py --choose

A pair, in pairs.toml, is a known-bad thread locker of the catalogue and a program. --choose writes that file: of a list
of programs it takes the first that shows nothing by the default schedule and something in one of 40 schedules of POS,
SURW or random preemptions, with a switch at any bytecode and without what `verify` asks afterwards. The others have no
such program, and --others runs the whole of `kmutex verify` on each, for so many seconds.

The first form searches each pair by random preemptions alone, which is what `verify` began with once, by its portfolio
of today, and by POS and SURW alone, in turn for each seed. The figures are processor seconds of this process, so what
else the machine does counts little; the ratio of two counts most.

Exit code: 0 if the portfolio found all, 1 if not, 4 for wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT), str(ROOT / "model")]

import page  # noqa: E402
import terms  # noqa: E402
from kmutex.engine.explorer import Explorer  # noqa: E402
from kmutex.engine.features import PROMISES  # noqa: E402
from kmutex.engine.harness import Harness  # noqa: E402
from kmutex.engine.program import parse  # noqa: E402
from kmutex.engine.scenarios import programs_for  # noqa: E402
from kmutex.engine.strategies import PORTFOLIO  # noqa: E402
from kmutex.engine.threads import one_core  # noqa: E402
from tests.lockers.catalogue import Row, entries, load  # noqa: E402

COMMAND = "benchmarks/search/pairs.py"
LIST = HERE / "pairs.toml"
PROGRAMS = (
    *("0+a-a 1+a-a", "0+a | 0-a 1+a", "0+a-a 1+a 2+a", "0+a | 1+a | 0-a 2+a", "0+a 1?a", "0+a | 0-a 1?a", "0+a 1~a"),
    *(
        "0+a | 1~a | 0-a",
        "0+a | 1~a | 0-a 2+a",
        "0+a | 1~a | c1 0-a",
        "0+a | 1~a | c1 2+a",
        "0+a | 1~a | 2~a | c1 c2",
        "0+a | 1!a | 0-a",
    ),
    *("0+a | 1!a | 0-a 2+a", "0+a | 1!a | c1 2+a", "0+a-a 1+b-b", "0+a | 0-a 1+b", "0+a | 1xb 2+a", "0+a | 0-a 1xa"),
    "0[a | 0^a 1+a",
)
FORMER, NOW = "random preemptions", "the portfolio"
WAYS = {FORMER: (FORMER,), NOW: PORTFOLIO, "POS": ("POS",), "SURW": ("SURW",)}
VIOLATION = re.compile(r"KM-[A-Z]+(?:, KM-[A-Z]+)*: \S")
"""A line of `verify` with the name of a clause and a sentence about it."""
TRIED = 40
MOST = 1_000
"""Schedules after which a search is given up."""


class Took(NamedTuple):
    """Processor seconds and schedules until the first violation."""

    found: bool
    seconds: float
    schedules: int


def known_bad() -> dict[str, Row]:
    """The lockers that a pair can be of, by id."""
    return {row.name: row for row in entries(kind="threads", origin="written", shape="lock", expect="violation")}


def harness(row: Row) -> Harness:
    return Harness(load(row), without=row.without, promises=PROMISES)


def alone(bench: Harness) -> Explorer:
    """For a program itself, without the questions afterwards."""
    return bench.explorer.on(bench.fitted.make, afterwards=False)


def choose(row: Row) -> str | None:
    """The program of a locker's pair; None: it has none."""
    bench = harness(row)
    with bench.control():
        explorer = alone(bench)
        fit = {str(program) for program in programs_for(bench.shape, interrupt=True)}
        for program in map(parse, PROGRAMS):
            if str(program) not in fit or explorer.some(program, "bytecode", range(0)).found:
                continue
            for name in ("POS", "SURW", FORMER):
                if explorer.some(program, "bytecode", range(1, TRIED), names=(name,)).found:
                    return str(program)
    return None


def search(explorer: Explorer, program: str, names: Sequence[str], seed: int) -> Took:
    """Until the first violation, or not any more."""
    seeds = range(seed * MOST, (seed + 1) * MOST)
    started = time.process_time()
    done = explorer.some(parse(program), "bytecode", seeds, names=names)
    return Took(bool(done.found), time.process_time() - started, done.runs)


def searched(row: Row, program: str, seeds: int) -> dict[str, list[Took]]:
    """By each way, for each seed."""
    bench = harness(row)
    took: dict[str, list[Took]] = {name: [] for name in WAYS}
    with bench.control():
        explorer = alone(bench)
        explorer.some(parse(program), "bytecode", range(0))  # What a first run looks up is no part of a search.
        for seed in range(1, seeds + 1):
            for name, names in WAYS.items():
                took[name].append(search(explorer, program, names, seed))
    return took


def said(pairs: dict[str, dict[str, list[Took]]]) -> Iterator[str]:
    """A table: how many pairs were found by each seed, and the time until then, of the mean pair and of the worst."""
    yield "| by | pairs found | mean | worst | schedules, mean | schedules, worst |"
    yield "| --- | --- | --- | --- | --- | --- |"
    means, worsts = {}, {}
    for name in WAYS:
        of = [took[name] for took in pairs.values()]
        seconds = [statistics.median(one.seconds for one in took) for took in of]
        schedules = [statistics.median(one.schedules for one in took) for took in of]
        means[name], worsts[name] = statistics.mean(seconds), max(seconds)
        found = sum(all(one.found for one in took) for took in of)
        yield (
            f"| {name} | {found} of {len(of)} | {1000 * means[name]:.1f} ms | {1000 * worsts[name]:.0f} ms |"
            f" {statistics.mean(schedules):.1f} | {max(schedules):.0f} |"
        )
    yield ""
    yield (
        f"{FORMER.capitalize()} take {means[FORMER] / means[NOW]:.1f} times as long as {NOW} in the mean, and"
        f" {worsts[FORMER] / worsts[NOW]:.1f} times in the worst pair. A pair counts by its median over the seeds."
    )


def until_shown(subject: str, seconds: float) -> float | None:
    """Real seconds from the start of `kmutex verify` to its first violation; None: it shows none."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "kmutex", "verify", *subject.split(), "--seconds", f"{seconds:g}", "--quiet"]
    path = os.pathsep.join(map(str, (ROOT, ROOT / "model")))
    with subprocess.Popen(
        command,
        cwd=ROOT / "tests" / "lockers",
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if VIOLATION.match(line):
                process.terminate()
                return time.perf_counter() - started
    return None


def others(rows: Sequence[Row], seconds: float) -> list[str]:
    """How soon `verify` shows a violation of each; each is printed as soon as it is known."""
    found, none = [], []
    for row in rows:
        module = row.module.rpartition(".")[2]
        without = "".join(f" --without {one}" for one in row.without)
        took = until_shown(f"{module}:{row.attribute}{without}", seconds)
        print(row.name, "none" if took is None else f"after {took:.1f} s", flush=True)
        if took is None:
            none.append(f"`{row.attribute}`")
        else:
            found.append(f"`{row.attribute}` {took:.1f}")
    shown = [f"- {len(found)} of {len(rows)} are found by `kmutex verify --seconds {seconds:g}`."]
    shown += [f"- Seconds until the first violation: {', '.join(found)}."] if found else []
    return shown + ([f"- None: {', '.join(none)}."] if none else [])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = terms.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=terms.at_least(1), default=5, metavar="N", help="searches of each pair (5)")
    parser.add_argument("--only", default="", metavar="TEXT", help="lockers with this in their name")
    parser.add_argument("--others", action="store_true", help="verify the lockers that are in no pair")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="N", help="what verify is given (30)")
    parser.add_argument("--choose", action="store_true", help="choose the pairs anew")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the figures into this page, between its marks")
    options = parser.parse_args(arguments)
    rows = {name: row for name, row in known_bad().items() if options.only in name}
    if not rows:
        parser.error(f"no locker has {options.only!r} in its name")
    if options.choose:
        with one_core(os.getpid()):
            chosen = {name: choose(row) for name, row in rows.items()}
        before = tomllib.loads(LIST.read_text(encoding="utf-8")) if LIST.exists() else {}
        listed = {name: chosen.get(name, before.get(name)) for name in known_bad()}
        lines = [f'"{name}" = "{program}"' for name, program in listed.items() if program]
        LIST.write_text("\n".join(["# Written by pairs.py --choose.", *lines, ""]), encoding="utf-8")
        return 0
    listed = tomllib.loads(LIST.read_text(encoding="utf-8"))
    shown = []
    if options.others:
        section, status = "other lockers", 0
        shown += others([row for name, row in rows.items() if name not in listed], options.seconds)
    else:
        section = "pairs"
        pairs = {name: program for name, program in listed.items() if name in rows}
        if not pairs:
            parser.error(f"no pair has {options.only!r} in its name")
        with one_core(os.getpid()), terms.progress() as bar:
            task = bar.add_task("searching", total=len(pairs))
            took = {}
            for name, program in pairs.items():
                bar.update(task, description=name, advance=1)
                took[name] = searched(rows[name], program, options.seeds)
        shown += said(took)
        status = 0 if all(one.found for by in took.values() for one in by[NOW]) else 1
    print("\n".join(shown))
    if options.write:
        page.write(options.write, COMMAND, {section: shown})
    return status


if __name__ == "__main__":
    sys.exit(main())
