"""Measure the locks of this library beside its peers: uncontended, contested, given up, and in bytes.

    python benchmarks/locks/run.py [--quick] [--json FILE] [--write FILE]

Each round is a process of its own and meets all subjects in each row, in an order drawn from the seed. Figures are
medians; ratios are taken within one pass over the subjects. A subject that lets two in at once, does not come to an
end, or raises, is named and left out. Exit: 0 measured; 1 one that is written here was left out so, while packages may
be as they are; 3 a round failed; 4 usage. No figure decides the exit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(Path(__file__).resolve().parent), str(ROOT / "benchmarks"), str(ROOT)]

from lockers import ASYNCIO, LEFT_OUT, OURS, REFERENCES, THREADS, Subject  # noqa: E402
from page import write  # noqa: E402
from picture import Bar, text_bars  # noqa: E402
from span import Span  # noqa: E402
from standing import Goal, Sample, Standing, goals, standings  # noqa: E402
from terms import Parser, at_least, busy, machine, progress  # noqa: E402
from workloads import Row, rows  # noqa: E402

COMMAND = "benchmarks/locks/run.py"
CHILD = Path(__file__).with_name("child.py")
SUBJECTS = (*REFERENCES, *THREADS, *ASYNCIO)
ROUNDS, QUICK_ROUNDS = 5, 1
PASSES, QUICK_PASSES = 5, 1
SECONDS, QUICK_SECONDS = 0.02, 0.001
QUEUES, QUICK_QUEUES = (100, 1_000, 10_000), (20, 40)
DISTINCT, QUICK_DISTINCT = 1_000_000, 1_000
COUNTED = ("lock", "block")
"""Rows whose instructions are counted."""
INSTRUCTIONS = "-instructions"
"""What their names end in."""
COUNTS = (2_000, 12_000)
"""How often the work is done under valgrind: the difference is what counts, so the start of Python does not."""
VALGRIND = ("--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null")
REMEMBERED = ("rounds", "passes", "seed", "queues", "distinct", "only", "kind")
"""Options without which a run's figures can't be shown again."""
KINDS = {"threads": "Threads", "asyncio": "asyncio"}


class FailedError(Exception):
    """A round did not come to its end."""


@dataclass
class Measured:
    """Everything that the rounds said."""

    samples: list[Sample] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    own_failed: bool = False
    python: str = ""
    gil: bool = True
    compiled: bool = False


def measure(options: argparse.Namespace, chosen: Sequence[Row], say: Callable[[str], None]) -> Measured:
    """Run the rounds, then count instructions. FailedError: a process did not end well."""
    found = Measured()
    for number in range(1, options.rounds + 1):
        plan = {
            "seed": options.seed + number,
            "subjects": options.subject,
            "queues": options.queues,
            "distinct": options.distinct,
            "rows": [[row.kind, row.name] for row in chosen],
            "passes": options.passes,
            "seconds": options.seconds,
            "counted": number == 1,
        }
        child = subprocess.Popen([sys.executable, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(plan))
            child.stdin.close()
            for line in child.stdout:
                take(found, json.loads(line), number, say)
            if child.wait():
                raise FailedError(f"round {number} ended with {child.returncode}")
        finally:
            child.kill()
            child.wait()
    if options.count:
        for row in chosen:
            if row.name in COUNTED:
                say(f"instructions, {row.kind}: {row.title}")
                found.samples += counted(row, [one for one in SUBJECTS if row.applies(one)], found)
    return found


def take(found: Measured, event: Mapping[str, Any], number: int, say: Callable[[str], None]) -> None:
    if "figure" in event:
        found.samples.append(
            Sample(
                event["kind"],
                event["row"],
                event["subject"],
                number,
                event["pass"],
                event["figure"],
                event["floor"],
                event["times"],
            )
        )
    elif "begins" in event:
        say(f"round {number}, {event['kind']}: {event['begins']}")
    elif "failed" in event:
        found.failed[f"{event['failed']} ({event['kind']}), {event['row']}"] = event["why"]
        found.own_failed |= any(
            (one.kind, one.name, one.package) == (event["kind"], event["failed"], "") for one in SUBJECTS
        )
    else:
        found.versions, found.missing = event["versions"], event["missing"]
        found.python, found.gil, found.compiled = event["python"], event["gil"], event["compiled"]


def counted(row: Row, subjects: Sequence[Subject], found: Measured) -> list[Sample]:
    """Instructions for one operation, of each subject that was measured in the row."""
    measured = {one.subject for one in found.samples if (one.kind, one.row) == (row.kind, row.name)}
    result = []
    for subject in subjects:
        if subject.name not in measured:
            continue
        # Compiling a module costs more than the work: both runs find all modules compiled, in a place of their own.
        with tempfile.TemporaryDirectory() as compiled:
            work(row, subject, 1, compiled)
            few, many = (instructions(row, subject, times, compiled) for times in COUNTS)
        times = COUNTS[1] - COUNTS[0]
        figure = (many - few) / times
        result.append(Sample(row.kind, row.name + INSTRUCTIONS, subject.name, 1, 0, figure, None, times))
    return result


def instructions(row: Row, subject: Subject, times: int, compiled: str) -> int:
    """Of a whole process that does the work so many times. FailedError: valgrind did not say."""
    said = work(row, subject, times, compiled, "valgrind", *VALGRIND)
    if told := re.search(r"I\s+refs:\s+([\d,]+)", said):
        return int(told[1].replace(",", ""))
    raise FailedError(f"valgrind counted nothing: {said[-400:]}")


def work(row: Row, subject: Subject, times: int, compiled: str, *under: str) -> str:
    """Do the work in a process of its own. compiled: the folder of its compiled modules. Returns what it said."""
    plan = {"instructions": [subject.kind, subject.name], "row": [row.kind, row.name], "times": times}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # The order of a set must be the same in all runs.
    environment |= {"PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": compiled}
    command = [*under, sys.executable, str(CHILD)]
    done = subprocess.run(command, input=json.dumps(plan), capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise FailedError(f"{command[0]} ended with {done.returncode}: {done.stderr[-400:]}")
    return done.stderr


def all_rows(options: argparse.Namespace) -> list[Row]:
    return list(rows(tuple(options.queues), options.distinct))


def with_instructions(chosen: Sequence[Row]) -> list[Row]:
    """The rows as they are shown: those that were counted under valgrind stand behind the one that they are of."""
    shown = []
    for row in chosen:
        shown.append(row)
        if row.name in COUNTED:
            shown.append(
                Row(
                    row.name + INSTRUCTIONS,
                    row.kind,
                    f"instructions: {row.title}",
                    row.run,
                    row.applies,
                    counted=True,
                )
            )
    return shown


def shown_figure(row: Row, one: Standing) -> str:
    if not row.counted:
        return f"{one.figure.median * 1e9:,.0f} ns"
    less = f" after {one.times:,}" if row.most_seconds and one.times < row.steady else ""
    return f"{one.figure.median:,.0f}{less}"


def shown_range(span: Span | None) -> str:
    return "" if span is None else f"{span.least:.2f}..{span.most:.2f}"


def shown_median(span: Span | None) -> str:
    return "" if span is None else f"{span.median:.2f}"


COLUMNS = ("subject", "median", "x floor", "least..most", "x kmutex", "least..most")


def cells(row: Row, one: Standing) -> tuple[str, ...]:
    return (
        one.subject,
        shown_figure(row, one),
        shown_median(one.to_floor),
        shown_range(one.to_floor),
        shown_median(one.to_ours),
        "" if row.counted else shown_range(one.to_ours),
    )


def page_cell(row: Row, one: Standing) -> str:
    """What the page says of a subject in a row: the ratio, and the figure where it was counted or is our own."""
    figure, ratio = shown_figure(row, one), shown_median(one.to_ours)
    if row.counted:
        return f"{figure} ({ratio})" if ratio else figure
    return figure if one.subject == OURS else f"{ratio} ({shown_range(one.to_ours)})"


def of_row(row: Row, found: Sequence[Standing]) -> list[Standing]:
    here = [one for one in found if (one.kind, one.row) == (row.kind, row.name)]
    return sorted(here, key=lambda one: one.figure.median)


def title_of(facts: Mapping[str, Any]) -> str:
    """Which Python, and which build of it and of this library."""
    version = ".".join(str(facts["python"]).split(".")[:2])
    return f"Python {version}{'' if facts['gil'] else 't'}{', compiled' if facts.get('compiled') else ''}"


def conditions(options: argparse.Namespace, facts: Mapping[str, Any]) -> list[str]:
    build = ("" if facts["gil"] else ", free-threaded") + (", kmutex compiled" if facts.get("compiled") else "")
    return [
        f"Python {facts['python']}{build}, {facts['cores']} cores ({facts['machine']}), {facts['date']}. Rounds:"
        f" {options.rounds}, each a process; passes in each: {options.passes}; seed {options.seed}.",
        *busy(float(facts["load_before"])),
    ]


def goal_line(goal: Goal) -> str:
    return f"{'met' if goal.met else 'NOT MET'}: {KINDS[goal.kind]}, {goal.row}: {goal.what} ({goal.figure})"


def page_table(title: str, columns: Sequence[str], cells_of: Mapping[str, Sequence[str]]) -> list[str]:
    """A table of the page, a line for each subject; nothing where there is none."""
    if not cells_of:
        return []
    head = [f"**{title}**", "", f"| {' | '.join(('subject', *columns))} |", f"| --- |{' ---: |' * len(columns)}"]
    return [*head, *(f"| {' | '.join((subject, *cells))} |" for subject, cells in cells_of.items()), ""]


def tables_of(kind: str, rows: Sequence[Row], found: Sequence[Standing]) -> list[str]:
    """One of all rows that are timed, and one of all that are counted; a line for each subject."""
    lines = []
    tables = ("time for one operation, x kmutex (least..most)", False), ("counted for one operation (x kmutex)", True)
    for title, counted in tables:
        told = {
            row.title: {one.subject: page_cell(row, one) for one in here}
            for row in rows
            if row.counted is counted and (here := of_row(row, found))
        }
        subjects = dict.fromkeys(subject for cells_of in told.values() for subject in cells_of)
        by_subject = {subject: [cells_of.get(subject, "") for cells_of in told.values()] for subject in subjects}
        lines += page_table(f"{KINDS[kind]}: {title}", list(told), by_subject)
    return lines


def markdown(
    options: argparse.Namespace,
    facts: Mapping[str, Any],
    shown: Sequence[Row],
    found: Sequence[Standing],
    measured: Measured,
    reached: Sequence[Goal],
) -> list[str]:
    """The section of the page that a run writes."""
    lines = [f"### {title_of(facts)}", ""]
    lines += [*conditions(options, facts), ""]
    for kind in KINDS:
        lines += tables_of(kind, [row for row in shown if row.kind == kind], found)
    met = "; ".join(goal_line(goal).removeprefix("met: ") for goal in reached if goal.met)
    lines += ["**Goals**", "", *(f"- {goal_line(goal)}" for goal in reached if not goal.met), f"- met: {met}", ""]
    versions = ", ".join(
        dict.fromkeys(f"{name.partition(' (')[0]} {version}" for name, version in measured.versions.items() if version)
    )
    lines += [f"Packages: {versions}.", ""]
    lines += [f"- not measured: {name}: {why}" for name, why in (measured.missing | measured.failed).items()]
    return lines


def subjects_table() -> list[str]:
    """The section of the page that says what is measured and what is not."""
    lines = ["| subject | for | beside it | what it is |", "| --- | --- | --- | --- |"]
    for one in SUBJECTS:
        role = "a peer" if one.peer else "this library" if one.name == OURS else "a reference"
        lines.append(f"| {one.name} | {one.kind} | {role} | {one.note or 'as it is'} |")
    return [*lines, "", "Looked at and left out:", "", *(f"- {name}: {why}." for name, why in LEFT_OUT)]


def table_of(row: Row, here: Sequence[Standing]) -> Table:
    table = Table(title=f"{KINDS[row.kind]}: {row.title}", title_justify="left")
    for number, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    for one in here:
        table.add_row(*cells(row, one))
    return table


def bars_of(shown: Sequence[Row], found: Sequence[Standing]) -> list[Bar]:
    return [
        Bar(f"{KINDS[row.kind]}: {row.title}", one.subject, one.figure.median, shown_figure(row, one))
        for row in shown
        for one in of_row(row, found)
    ]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    names = sorted({row.name for row in rows()})
    parser = Parser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short round: to see that it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write samples and figures there")
    parser.add_argument(
        "--write", type=Path, nargs="+", default=[], metavar="FILE", help="replace what pages say of this Python"
    )
    parser.add_argument("--again", type=Path, metavar="FILE", help="measure nothing; show what --json wrote there")
    parser.add_argument("--only", nargs="+", default=[], metavar="ROW", help=f"of {', '.join(names)}")
    parser.add_argument("--kind", choices=tuple(KINDS), help="of the subjects; default both")
    parser.add_argument("--subject", nargs="+", default=[], metavar="NAME", help="default all")
    parser.add_argument("--rounds", type=at_least(1), metavar="N", help=f"default {ROUNDS}, or {QUICK_ROUNDS} if quick")
    parser.add_argument("--passes", type=at_least(1), metavar="N", help=f"in each round; default {PASSES}")
    parser.add_argument("--queues", type=at_least(2), nargs="+", metavar="N", help="waiters, where some give up")
    parser.add_argument("--distinct", type=at_least(1), metavar="N", help=f"keys, one after the other: {DISTINCT:,}")
    parser.add_argument("--seed", type=int, metavar="N", help="of the orders; default drawn, and printed")
    parser.add_argument(
        "--count",
        action=argparse.BooleanOptionalAction,
        help="count instructions; default where valgrind is installed, unless quick",
    )
    options = parser.parse_args(arguments)
    quick = options.quick
    options.rounds = options.rounds or (QUICK_ROUNDS if quick else ROUNDS)
    options.passes = options.passes or (QUICK_PASSES if quick else PASSES)
    options.seconds = QUICK_SECONDS if quick else SECONDS
    options.queues = options.queues or list(QUICK_QUEUES if quick else QUEUES)
    options.distinct = options.distinct or (QUICK_DISTINCT if quick else DISTINCT)
    options.seed = random.randrange(1_000_000) if options.seed is None else options.seed
    valgrind = shutil.which("valgrind")
    if options.count and not valgrind:
        parser.error("--count needs valgrind")
    if options.count is None:
        options.count = bool(valgrind) and not quick
    known = {row.name for row in all_rows(options)}
    if unknown := [name for name in options.only if name not in known]:
        parser.error(f"no row {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    if unknown := [name for name in options.subject if name not in {one.name for one in SUBJECTS}]:
        parser.error(f"no subject {', '.join(unknown)}; there are {', '.join(sorted({one.name for one in SUBJECTS}))}")
    return options


def measured_now(options: argparse.Namespace) -> tuple[Measured, dict[str, Any]]:
    """What the rounds say, and on what they ran. FailedError, OSError: they could not."""
    load = os.getloadavg()[0]
    chosen = chosen_rows(options)
    steps = options.rounds * sum(not row.counted for row in chosen) + sum(row.counted for row in chosen)
    steps += sum(row.name in COUNTED for row in chosen) if options.count else 0
    with progress() as bar:
        task = bar.add_task("", total=steps)
        done = iter(range(steps))

        def say(words: str) -> None:
            bar.update(task, description=words, completed=next(done))
            if not bar.console.is_terminal:
                print(words, file=sys.stderr, flush=True)

        found = measure(options, chosen, say)
    return found, {
        **machine(load),
        "python": found.python,
        "implementation": platform.python_implementation(),
        "gil": found.gil,
        "compiled": found.compiled,
        "date": time.strftime("%Y-%m-%d"),
    }


def measured_before(options: argparse.Namespace) -> tuple[Measured, dict[str, Any]]:
    """The same from what ``--json`` wrote, and its options. OSError, ValueError, KeyError: it is no such file."""
    document = json.loads(options.again.read_text(encoding="utf-8"))
    vars(options).update(document["options"])
    facts = document["conditions"]
    return Measured(
        samples=[Sample(**one) for one in document["samples"]],
        versions=document["versions"],
        missing=document["missing"],
        failed=document["failed"],
        own_failed=document["own_failed"],
        python=facts["python"],
        gil=facts["gil"],
        compiled=facts.get("compiled", False),
    ), facts


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    return [
        row
        for row in all_rows(options)
        if (not options.only or row.name in options.only) and (not options.kind or row.kind == options.kind)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        measured, facts = measured_before(options) if options.again else measured_now(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except (FailedError, OSError, ValueError, KeyError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 3
    found = list(standings(measured.samples))
    shown = with_instructions(chosen_rows(options))
    reached = goals(shown, SUBJECTS, found)
    for row in shown:
        if here := of_row(row, found):
            console.print(table_of(row, here))
    timed = [row for row in shown if not row.counted]
    for line in text_bars(bars_of(timed, found), per_group=True):
        console.print(line, markup=False, soft_wrap=True)
    notes = [
        *(f"not measured: {name}: {why}" for name, why in measured.missing.items()),
        *(f"left out: {name}: {why}" for name, why in LEFT_OUT),
        *(f"FAILED: {name}: {why}" for name, why in measured.failed.items()),
    ]
    for line in ("", *conditions(options, facts), *notes, *map(goal_line, reached)):
        console.print(line, markup=False, soft_wrap=True)
    if options.json:
        document = {
            "conditions": facts,
            "options": {name: getattr(options, name) for name in REMEMBERED},
            "rows": [{"kind": row.kind, "name": row.name, "title": row.title, "counted": row.counted} for row in shown],
            "figures": [asdict(one) for one in found],
            "goals": [asdict(one) for one in reached],
            "subjects": [
                {"name": one.name, "kind": one.kind, "peer": one.peer, "package": one.package, "note": one.note}
                for one in SUBJECTS
            ],
            "versions": measured.versions,
            "missing": measured.missing,
            "failed": measured.failed,
            "own_failed": measured.own_failed,
            "left_out": dict(LEFT_OUT),
            "samples": [asdict(one) for one in measured.samples],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    section = title_of(facts).replace("P", "p", 1)
    sections = {
        "subjects": subjects_table(),
        section: markdown(options, facts, shown, found, measured, reached),
    }
    for path in options.write:
        write(path, COMMAND, sections)
    return 1 if measured.own_failed else 0


if __name__ == "__main__":
    sys.exit(main())
