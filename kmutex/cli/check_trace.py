"""The command: kmutex check-trace."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from kmutex._console import complain, console, no_folder, shown, write
from kmutex._text import counted, printable
from kmutex.picture.files import HELP, drawn, unfit
from kmutex.picture.rows import Change, Picture, PictureRow
from kmutex.picture.text import text

if TYPE_CHECKING:
    from kmutex.trace.check import BrokenClause, Checker, LogReport
    from kmutex.trace.events import LogEvent
    from kmutex.trace.reader import Stream

EXIT_STATUS = """\
exit status:
  0  pass: no line is impossible for a correct locker; the table says what was put to the test
  1  fail: a clause is violated
  2  unknown: the log is cut off, has a gap, begins while the system runs, or too much is live at once
  3  the file is not a trace, or can't be read
  4  usage: wrong arguments
"""
_STATUS = {"pass": 0, "fail": 1, "unknown": 2}


def add_parser(commands: Any) -> None:
    """Add check-trace to the subcommands of an argparse parser."""
    parser = commands.add_parser(
        "check-trace",
        help="check a recorded log of a running system",
        description=(
            "Check a log of a running keyed locker, key by key: one JSON object a line, as specs/trace.md says and\n"
            "the recorders of kmutex.trace write. What is kept in memory is in proportion to the calls under way."
        ),
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", metavar="FILE", help="the log; .gz is unpacked, - is standard input")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=f"draw the first violation, {HELP}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from kmutex.trace.events import TraceFormatError
    from kmutex.trace.reader import check

    if fault := unfit(args.picture) or no_folder((args.json, args.picture)):
        return complain(fault)
    for path in (args.json, args.picture):
        if path is not None and _same(path, Path(args.file)):
            return complain(f"{path}: this is the log itself")
    started = time.perf_counter()
    name = printable(args.file)
    try:
        with ExitStack() as stack:
            stream, share = stack.enter_context(_opened(args.file))
            update = stack.enter_context(_progress(name, share, quiet=args.quiet))
            report = check(stream, on_progress=update)
    except TraceFormatError as error:
        return complain(f"cannot read {name} as a trace: {printable(str(error))}", status=3)
    except OSError as error:
        return complain(f"cannot read {name}: {error.strerror or error}", status=3)
    took = time.perf_counter() - started
    shown = args.picture if any(finding.events for finding in report.findings) else None
    fault = write(
        (
            (args.json, lambda: as_json(report, file=args.file, seconds=took)),
            (shown, lambda: drawn(first_picture(report), args.picture)),
        )
    )
    _show(report)
    if args.picture is not None and shown is None:
        print(f"kmutex: {args.picture}: not written, there is no violation to draw", file=sys.stderr)
    return complain(fault) if fault else _STATUS[report.verdict.value]


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and one.samefile(other)


@contextmanager
def _opened(file: str) -> Iterator[tuple[Stream, Callable[[], float | None]]]:
    """Open the log; yield it as bytes, and a function for the part that was read: from 0 to 1, or None if unknown."""
    if file == "-":
        yield cast("Stream", sys.stdin.buffer), lambda: None
        return
    with open(file, "rb") as raw:
        status = os.fstat(raw.fileno())
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0

        def share() -> float | None:
            return min(raw.tell() / size, 1.0) if size else None

        if file.endswith(".gz"):
            with gzip.GzipFile(fileobj=raw) as unpacked:
                yield unpacked, share
        else:
            yield raw, share


@contextmanager
def _progress(
    name: str, share: Callable[[], float | None], *, quiet: bool
) -> Iterator[Callable[[int, Checker], None] | None]:
    """Yield a function that shows progress on standard error, if that is a terminal and --quiet is not given."""
    started = time.perf_counter()
    with shown(quiet=quiet) as display:

        def update(lines: int, checker: Checker) -> None:
            done = share()
            part = "" if done is None else f"{done:.0%}, "
            rate = lines / max(time.perf_counter() - started, 1e-9)
            found = f", violated: {' '.join(checker.violated)}" if checker.violated else ""
            live = counted(checker.live_calls, "call")
            counts = f"{counted(lines, 'event')}, {rate:,.0f} a second, {live} live"
            display.say(f"{name}: {part}{counts}{found}")

        yield update


def as_json(report: LogReport, *, file: str, seconds: float) -> str:
    """Return the report as JSON, as specs/trace.md describes."""
    body = {
        "format": "kmutex-check-trace/1",
        "file": file,
        "exit": _STATUS[report.verdict.value],
        "verdict": report.verdict.value,
        "events": report.events,
        "periods": report.periods,
        "most_live_calls": report.most_live_calls,
        "most_live_keys": report.most_live_keys,
        "seconds": round(seconds, 3),
        "unknown": list(report.unknown),
        "notes": list(report.notes),
        "clauses": [{**row._asdict(), "outcome": row.outcome.value} for row in report.clauses],
        "findings": [
            {
                "clause": finding.clause,
                "line": finding.line,
                "key": finding.key,
                "call": finding.call,
                "message": finding.message,
                "picture": text(picture(finding)),
            }
            for finding in report.findings
        ],
    }
    return json.dumps(body, indent=2) + "\n"


_CHANGES: dict[str, Change] = {
    "request": "asks",
    "grant": "has",
    "fail": "refused",
    "release": "lets go",
    "released": "comes back",
    "unheld": "comes back",
}


def picture(finding: BrokenClause) -> Picture:
    """Return a timeline of the key's last lines: a column for each call, with line numbers in the margin."""
    calls = list(dict.fromkeys(event.call for event in finding.events if event.kind != "end"))
    rows = [
        PictureRow(None, _text(event), side=str(event.line))
        if event.kind == "end"
        else PictureRow(
            calls.index(event.call), _text(event), _change(event, finding), printable(event.key), str(event.line)
        )
        for event in finding.events
    ]
    return Picture(tuple(printable(f"call {call}") for call in calls), tuple(rows), "line")


def _change(event: LogEvent, finding: BrokenClause) -> Change:
    # An unlock by a call that was never seen to ask or to hold does not end its own grant.
    before = (one for one in finding.events if one.call == event.call and one.line < event.line)
    if event.kind == "release" and not any(one.kind == "grant" for one in before):
        return "calls"
    return _CHANGES.get(event.kind, "")


def first_picture(report: LogReport) -> Picture:
    """Return the timeline of the first violation that has lines, with its message as the last row."""
    finding = min((one for one in report.findings if one.events), key=lambda one: one.line)
    shown = picture(finding)
    return shown._replace(rows=(*shown.rows, PictureRow(None, _said(finding))))


def _text(event: LogEvent) -> str:
    words: str = event.kind
    if event.timeout is not None:
        words += f" (timeout {event.timeout:g})"
    if event.why:
        words += f": {event.why}"
    if event.lease:
        words += " (lease)"
    if event.refs is not None:
        words += f", refs {event.refs}"
    return words


def _said(finding: BrokenClause) -> str:
    where = f"line {finding.line}, key {json.dumps(finding.key)}: " if finding.events else f"line {finding.line}: "
    return printable(f"{finding.clause}: {where}{finding.message}")


def _show(report: LogReport) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    styles = {"holds": "green", "violated": "bold red", "unknown": "yellow", "not exercised": "dim"}
    screen = console()
    table = Table(pad_edge=False, box=SIMPLE_HEAD)
    table.add_column("clause", no_wrap=True)
    table.add_column("result", no_wrap=True)
    table.add_column("cases", justify="right", no_wrap=True)
    table.add_column("", overflow="fold")
    for row in report.clauses:
        style = styles[row.outcome.value]
        cases = f"{row.judged:,}" if row.judged else "-"
        table.add_row(row.clause, Text(row.outcome.value, style=style), cases, Text(printable(row.detail), style=style))
    screen.print(table)
    for finding in report.findings:
        screen.print()
        screen.print(Text(_said(finding), style="bold red"), soft_wrap=True)
        if finding.events:
            screen.print(Text(text(picture(finding))), soft_wrap=True)
    screen.print()
    for remark in (*report.unknown, *report.notes):
        screen.print(Text(printable(remark)), style="yellow", soft_wrap=True)
    counts = (
        f"{counted(report.events, 'event')}; keys went idle {counted(report.periods, 'time')}; at most "
        f"{counted(report.most_live_calls, 'call')} and {counted(report.most_live_keys, 'key')} live at once"
    )
    violated = f" ({', '.join(sorted(finding.clause for finding in report.findings))})" if report.findings else ""
    color = {"pass": "green", "fail": "bold red", "unknown": "yellow"}[report.verdict.value]
    screen.print(Text(f"{report.verdict.value}{violated}: {counts}"), style=color, soft_wrap=True)
