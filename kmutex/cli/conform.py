"""kmutex conform: its arguments, and running it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kmutex._clauses import CLAUSES
from kmutex._console import complain, console, no_folder, number_of, seconds, shown, write
from kmutex.conform.case import Case, CaseError, parse_times
from kmutex.conform.expected import make_case
from kmutex.conform.known_failures import KnownError, read_known
from kmutex.conform.player import CaseVerdict, Waits
from kmutex.conform.run import ALWAYS, SIDE_BY_SIDE, Conformance, LackError, Options, Result, StartError
from kmutex.conform.vectors import Vector, load, meetings
from kmutex.picture.files import HELP, drawn, unfit

DESCRIPTION = """\
Check a port of the lock, in any language, through its adapter: a process that speaks the protocol of
specs/protocol.md over standard input and output. Plays the vectors of specs/vectors.json that fit the features
it declares, then random sequences from the model; a failing sequence is shrunk.
"""
EXIT_STATUS = """\
exit status:
  0  every case passed, is a known failure that still fails, or is flaky
  1  a clause is violated, or a known failure passes now
  2  inconclusive: out of time, a failure that a longer silence made go away, a known failure that was not
     played, or a --case that needs a feature that the adapter has not declared
  3  the adapter could not be started, died, hung or broke the protocol
  4  usage: wrong arguments, or a malformed case
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "conform",
        help="check a port in any language, through its adapter",
        description=DESCRIPTION,
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="kmutex conform [OPTION ...] -- ADAPTER [ARGUMENT ...]",
    )
    parser.add_argument("adapter", nargs="*", metavar="ADAPTER", help="the command that starts the adapter, after --")
    parser.add_argument("--list", action="store_true", help="print the vectors, with their clauses, and play none")
    parser.add_argument(
        "--run",
        action="append",
        default=[],
        dest="chosen",
        metavar="WHICH",
        help="only the vectors of this clause, id, or pattern with ... in it",
    )
    parser.add_argument("--skip", action="append", default=[], metavar="WHICH", help="all vectors but these")
    parser.add_argument(
        "--without", action="append", default=[], metavar="CLAUSE", help="judge all clauses but this one"
    )
    parser.add_argument("--repeat", type=_count, default=1, metavar="N", help="play each case N times (1)")
    parser.add_argument(
        "--jobs", type=_jobs, metavar="N", help=f"cases in parallel (level 1: {SIDE_BY_SIDE}, level 2: 1)"
    )
    parser.add_argument("--case", metavar="CASE", help="play one case and show it, such as 0+a/1+a/ua,c1")
    parser.add_argument("--picture", type=Path, metavar="FILE", help=f"draw the run of --case, {HELP}")
    parser.add_argument("--random", type=_count, metavar="N", help="random sequences (100; with --run 0)")
    parser.add_argument("--seed", type=_count, default=0, metavar="N", help="seed of the first random sequence (0)")
    parser.add_argument("--seconds", type=seconds, default=300.0, metavar="N", help="begin no case after N s (300)")
    parser.add_argument("--failures", type=_count, default=20, metavar="N", help="stop after N failures (20)")
    parser.add_argument(
        "--all", action="store_true", help="play all cases, whatever fails: for a complete list of known failures"
    )
    parser.add_argument("--timeout", type=seconds, default=5.0, metavar="N", help="seconds to wait for a reply (5)")
    parser.add_argument("--starting", type=seconds, default=30.0, metavar="N", help="seconds to wait for hello (30)")
    parser.add_argument(
        "--settle",
        type=_some,
        default=20,
        metavar="MS",
        help="level 1: a call counts as waiting after this silence (20)",
    )
    parser.add_argument("--known-failures", type=Path, metavar="FILE", help="cases that must fail: ID REASON a line")
    parser.add_argument("--known-flaky", type=Path, metavar="FILE", help="cases that may fail: ID REASON a line")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report as JSON")
    parser.add_argument("--junit", type=Path, metavar="FILE", help="write the report as JUnit XML")
    parser.add_argument("--tap", type=Path, metavar="FILE", help="write the report for the Test Anything Protocol")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page")
    parser.add_argument("--quiet", action="store_true", help="no progress")
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 999999999")
    return int(text)


_jobs = number_of("cases", int, 1, 64)


def _some(text: str) -> int:
    if _count(text) == 0:
        raise argparse.ArgumentTypeError("it must be more than 0: a call counts as waiting after some silence only")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    try:
        known = read_known(args.known_failures) if args.known_failures else {}
        flaky = read_known(args.known_flaky) if args.known_flaky else {}
        case = make_case(*parse_times(args.case)) if args.case is not None else None
    except (KnownError, CaseError) as error:
        return complain(str(error))
    files = (args.json, args.junit, args.tap, args.html)
    if fault := unfit(args.picture) or no_folder((*files, args.picture)) or _unfit_clauses(args.without):
        return complain(fault)
    if args.picture is not None and case is None:
        return complain("--picture draws one case: name it with --case")
    if case is not None and (any(files) or args.chosen or args.skip):
        return complain("--case shows one case; leave out --json, --junit, --tap, --html, --run and --skip")
    options = Options(
        Waits(args.timeout, args.settle / 1000),
        args.starting,
        (0 if args.chosen else 100) if args.random is None else args.random,
        args.seed,
        args.seconds,
        args.failures or 1,
        known,
        flaky,
        frozenset(args.without),
        tuple(args.chosen),
        tuple(args.skip),
        args.jobs,
        args.repeat or 1,
        args.all,
    )
    vectors = (*load(), *meetings())
    if not any(map(options.chooses, vectors)):
        return complain("--run and --skip leave no vector; kmutex conform --list shows what there is")
    try:
        if args.list:
            return _list(vectors, options)
        if not args.adapter:
            return complain("name the command that starts the adapter: kmutex conform -- ./adapter")
        if case is not None:
            return _one(Conformance(args.adapter, options), case, args.picture)
        return _check(args, options, vectors)
    except LackError as error:
        return complain(str(error), status=2)
    except StartError as error:
        return complain(f"cannot check {args.adapter[0]}: {error}", status=3)


def _unfit_clauses(without: Sequence[str]) -> str:
    """Return an error message if the clauses for --without can't be left out, else ""."""
    for clause in without:
        if clause not in CLAUSES:
            return f"--without {clause}: there is no such clause; the clauses are {', '.join(CLAUSES)}"
        if clause in ALWAYS:
            return f"--without {clause}: then no clause is left to judge"
    return ""


def _list(vectors: Sequence[Vector], options: Options) -> int:
    for vector in filter(options.chooses, vectors):
        print(vector.case.id, ",".join(vector.clauses), ",".join(vector.case.needs) or "-", sep="\t")
    return 0


def _one(conformance: Conformance, case: Case, file: Path | None) -> int:
    from kmutex.engine.timeline import picture, timeline

    played = conformance.one(case)
    fault = write(((file, lambda: drawn(picture(played.events), file)),)) if file else ""
    print(timeline(played.events))
    if played.verdict is CaseVerdict.PASSED:
        print("\nno clause is violated in this case")
        return complain(fault) if fault else 0
    print(f"\n{', '.join(played.clauses) or played.verdict.value}: {played.message}")
    if fault:
        return complain(fault)
    return {CaseVerdict.FAILED: 1, CaseVerdict.SLOW: 2, CaseVerdict.BROKEN: 3}[played.verdict]


def _check(args: argparse.Namespace, options: Options, vectors: Sequence[Vector]) -> int:
    from kmutex.conform import report as reports

    told = False
    with shown(quiet=args.quiet) as display:

        def say(result: Result) -> None:
            nonlocal told
            played = result.played
            bad = [one for one in played if one.verdict is not CaseVerdict.PASSED]
            display.say(
                f"{result.name}: {len(played)}/{result.planned} cases, {len(bad)} failed, {result.seconds:.0f} s"
            )
            if bad and not told and not result.excused(bad[-1], options):
                told = True
                with display.aside():
                    what = f"{', '.join(bad[-1].clauses) or bad[-1].verdict.value}: {bad[-1].message}"
                    print(f"after {result.seconds:.1f} s, the first: {bad[-1].case.id}: {what}", flush=True)

        result = Conformance(args.adapter, options, say).check(vectors)
    report = reports.ConformReport(result, options, args.adapter, vectors)
    fault = write(
        (
            (args.json, lambda: reports.as_json(report)),
            (args.junit, lambda: reports.as_junit(report)),
            (args.tap, lambda: reports.as_tap(report)),
            (args.html, lambda: reports.as_html(report)),
        )
    )
    reports.show(report, console())
    return complain(fault) if fault else report.exit_status
