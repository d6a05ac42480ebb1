"""Time to the first violation, and schedules a second, beside frontrun and interleave-test, on the same lockers.

    python benchmarks/search/run.py [--seeds 5] [--limit 10] [--only TEXT] [--json FILE] [--write PAGE]

The extra `search` brings the other tools; interleave-test needs Python 3.12 or later. What is not installed is named,
and not measured. For each seed, each case meets the tools one after the other, each in a process of its own on one
core, which has imported all that it needs before its clock starts. A search that finds nothing within the limit counts
as that long. Two sound lockers, of which none may be accused, tell the schedules a second.

Ctrl-C ends it, and what was measured is shown.

Exit code: 0 if kmutex found all and accused none, 1 if not, 3 if a process failed, 4 for wrong arguments.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT)]

from cases import CASES, SOUND, Case, zoo  # noqa: E402
from tools import TOOLS, Tool  # noqa: E402

import page  # noqa: E402
import terms  # noqa: E402

COMMAND = "benchmarks/search/run.py"
SECTION = "search beside others"
OURS = TOOLS[0].name


@dataclass(frozen=True)
class Sample:
    """One search. found: None: the tool gave up before its time; error: it failed instead."""

    case: str
    tool: str
    seed: int
    found: bool | None = None
    schedules: int = 0
    seconds: float = 0.0
    error: str = ""


def every_case() -> list[Case]:
    return [*CASES, *zoo(), *SOUND]


def child(tool: Tool, case: Case, seed: int, limit: float) -> None:
    """Search once, and say so as a line of JSON."""
    from kmutex.engine.threads import one_core

    tool.ready()
    with one_core(os.getpid()):
        try:
            found, schedules, seconds = tool.search(case.make, case.callers, seed, limit)
            sample = Sample(case.label, tool.name, seed, found, schedules, seconds)
        except Exception as error:
            sample = Sample(case.label, tool.name, seed, error=f"{type(error).__name__}: {error}"[:200])
    print(json.dumps(asdict(sample)), flush=True)
    os._exit(0)  # Threads that a tool has left behind would be waited for.


def measured(tool: Tool, case: Case, seed: int, limit: float) -> Sample:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--child", tool.name, "--only", case.label, "--limit", f"{limit:g}"]
    try:
        done = subprocess.run(
            [*command, "--first", str(seed)], capture_output=True, text=True, timeout=10 * limit + 120, check=False
        )
        return Sample(**json.loads(done.stdout.splitlines()[-1]))
    except subprocess.TimeoutExpired:
        return Sample(case.label, tool.name, seed, error="it did not end")
    except (ValueError, IndexError):
        lines = done.stderr.strip().splitlines() or [f"exit {done.returncode}"]
        return Sample(case.label, tool.name, seed, error=lines[-1][:200])


class Figures:
    """What the samples say."""

    def __init__(self, samples: Sequence[Sample], tools: Sequence[Tool], limit: float) -> None:
        self.tools = tools
        self.limit = limit
        self._of: dict[tuple[str, str], list[Sample]] = {}
        for one in samples:
            self._of.setdefault((one.case, one.tool), []).append(one)

    def of(self, case: Case, tool: Tool) -> list[Sample]:
        return self._of.get((case.label, tool.name), [])

    def seconds(self, case: Case, tool: Tool) -> float:
        """The median until the first violation; the limit, where there was none."""
        took = [one.seconds if one.found else max(one.seconds, self.limit) for one in self.of(case, tool)]
        return statistics.median(took)

    def found(self, case: Case, tool: Tool) -> int:
        return sum(one.found is True for one in self.of(case, tool))

    def cell(self, case: Case, tool: Tool) -> str:
        """Milliseconds and schedules to the first violation, and in how many searches there was one."""
        samples = self.of(case, tool)
        if not samples:
            return "-"
        number = self.found(case, tool)
        if not number:
            return "failed" if all(one.error for one in samples) else f"0 of {len(samples)}"
        schedules = statistics.median(one.schedules for one in samples if one.found)
        within = "" if number == len(samples) else f", {number} of {len(samples)}"
        return f"{1000 * self.seconds(case, tool):,.0f} ms, {schedules:,.0f}{within}"

    def rate(self, case: Case, tool: Tool) -> float:
        """Schedules a second."""
        rates = [one.schedules / one.seconds for one in self.of(case, tool) if one.seconds]
        return statistics.median(rates) if rates else 0.0

    def behind(self, case: Case) -> list[str]:
        """The tools that were as fast as kmutex, or faster."""
        ours = self.seconds(case, self.tools[0])
        return [
            f"{tool.name} ({1000 * self.seconds(case, tool):.0f} ms)"
            for tool in self.tools[1:]
            if self.found(case, tool) and self.seconds(case, tool) <= ours
        ]

    def reached(self, case: Case) -> bool:
        """Whether each search of kmutex found it, or accused none where there is nothing."""
        number = self.found(case, self.tools[0])
        return number == (0 if case in SOUND else len(self.of(case, self.tools[0])))


def table(figures: Figures, cases: Sequence[Case]) -> Iterator[str]:
    names = [tool.name for tool in figures.tools]
    yield "| case | " + " | ".join(names) + " |"
    yield "| --- | " + " | ".join("---" for _ in names) + " |"
    for case in cases:
        if case not in SOUND:
            yield f"| {case.label} | " + " | ".join(figures.cell(case, tool) for tool in figures.tools) + " |"
    for case in (one for one in cases if one in SOUND):
        rates = (f"{figures.rate(case, tool):,.0f}/s" for tool in figures.tools)
        yield f"| {case.label}: schedules a second | " + " | ".join(rates) + " |"


def said(figures: Figures, cases: Sequence[Case]) -> Iterator[str]:
    """What the table comes to, a line for each fact."""
    bad = [case for case in cases if case not in SOUND]
    for tool in figures.tools if bad else ():
        searches = sum(len(figures.of(case, tool)) for case in bad)
        found = sum(figures.found(case, tool) for case in bad)
        middle = statistics.median(figures.seconds(case, tool) for case in bad)
        yield f"{tool.name}: {found} of {searches} searches found it; median of the cases {1000 * middle:,.0f} ms."
    if behind := [f"{case.label}: {', '.join(others)}" for case in bad if (others := figures.behind(case))]:
        yield f"Not ahead of: {'; '.join(behind)}."
    for case in cases:
        for tool in figures.tools:
            if case in SOUND and figures.found(case, tool):
                yield f"{tool.name} accused {case.label}, which is sound."
    every = (one for case in cases for tool in figures.tools for one in figures.of(case, tool))
    for name, error in sorted({(one.tool, one.error) for one in every if one.error}):
        yield f"{name} failed: {error}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = terms.Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=terms.at_least(1), default=5, metavar="N", help="searches of each case (5)")
    parser.add_argument("--first", type=terms.at_least(0), default=1, metavar="N", help="the first seed (1)")
    parser.add_argument("--limit", type=float, default=10.0, metavar="S", help="seconds of one search (10)")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases with this in their name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the figures into this page, between its marks")
    parser.add_argument("--child", choices=[tool.name for tool in TOOLS], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        tool = next(one for one in TOOLS if one.name == options.child)
        child(tool, next(one for one in every_case() if one.label == options.only), options.first, options.limit)
    cases = [case for case in every_case() if options.only in case.label]
    if not cases:
        parser.error(f"no case has {options.only!r} in its name; there are {', '.join(c.label for c in every_case())}")
    tools = [tool for tool in TOOLS if tool.version]
    load = os.getloadavg()[0]
    samples: list[Sample] = []
    jobs = [
        (seed, case, tool)
        for seed in range(options.first, options.first + options.seeds)
        for case in cases
        for tool in tools
        if tool.seeded or seed == options.first
    ]
    with contextlib.suppress(KeyboardInterrupt), terms.progress() as bar:
        for seed, case, tool in bar.track(jobs):
            samples.append(measured(tool, case, seed, options.limit))
    met = {one.case for one in samples if one.tool == tools[-1].name}
    left_out = [case.label for case in cases if case.label not in met]
    cases = [case for case in cases if case.label in met]
    if not cases:
        return 128 + signal.SIGINT
    figures = Figures(samples, tools, options.limit)
    facts = terms.machine(load)
    missing = [f"Stopped before {', '.join(left_out)}."] if left_out else []
    missing += [f"Not installed, and not measured: {tool.name}." for tool in TOOLS if not tool.version]
    versions = {tool.package: tool.version for tool in tools}
    conditions = [
        f"CPython {facts['python']}, {facts['cores']} cores, {facts['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items() if name != "kmutex")
        + f"; medians over the seeds, {options.seeds} in number; a search is given {options.limit:g} s.",
        *terms.busy(load),
    ]
    shown = [*table(figures, cases), "", *(f"- {line}" for line in (*conditions, *missing, *said(figures, cases)))]
    print("\n".join(shown))
    if options.json:
        document = {"conditions": facts, "versions": versions, "samples": [asdict(one) for one in samples]}
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    if options.write:
        page.write(options.write, COMMAND, {SECTION: shown})
    if any(one.error for one in samples if one.tool == OURS):
        return 3
    return 0 if all(figures.reached(case) for case in cases) else 1


if __name__ == "__main__":
    sys.exit(main())
