"""kmutex verify: its arguments, and running it."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmutex._console import Display, complain, console, no_folder, number_of, seconds, shown, write
from kmutex.engine.calls import KEY_TYPES, CallsError, calls_of
from kmutex.engine.features import FEATURES, LEADERS, PROMISES, UnknownFeatureError, clauses_off, unpromised
from kmutex.picture.files import HELP, drawn, unfit

if TYPE_CHECKING:
    from kmutex.verify.evidence import Row, Violation
    from kmutex.verify.project import Project, Subject
    from kmutex.verify.report import Report
    from kmutex.verify.runner import Plan

FORMATS = ("text", "github", "sarif")
SECONDS = 30.0
"""The default limit for one subject, in real seconds."""
STANDARD_OUTPUT = Path("-")
EXIT_STATUS = """\
exit status:
  0  every clause that applies and that counts holds, at the bounds that the table states
  1  a clause is violated
  2  inconclusive: out of time, unknown, not confirmed, or never put to the test
  3  the subject could not be run: no such module, not a locker, hangs, leaves the process
  4  usage: wrong arguments, a schedule that does not fit, or kmutex[check] is not installed
Of several subjects the worst counts: 1, then 3, then 2, then 0.
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    leaders = "\n".join(f"  {name:15} {meaning}" for name, meaning in LEADERS.items())
    features = "\n".join(
        f"  {name:15} {f.meaning} ({' '.join(f.clauses) or 'no clause'})" for name, f in FEATURES.items()
    )
    verify: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="check a keyed locker against the contract",
        description=(
            "Check keyed lockers against the contract, clause by clause. Without a subject: those that [tool.kmutex]\n"
            "in the pyproject.toml here names, or else the lockers of this library, by every method. A subject is a\n"
            "class or a function that makes a locker without arguments, an expression such as\n"
            "'pkg.locks:Locks(maxsize=3)', a global locker of a module, a module with functions (MODULE alone), or\n"
            "something that is itself called with a key. The command finds out how to lock, for threads and asyncio:\n"
            "lock and unlock, acquire and release, a lock for each key, a block for with or async with, an object for\n"
            "each key. The current directory is importable. A violation is shown when it is found, and the search\n"
            "then ends soon."
        ),
        epilog=f"features for --without, and the clauses they turn off:\n{features}\n\n"
        f"more for --with, of single flights:\n{leaders}\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("subjects", nargs="*", metavar="MODULE:FACTORY", help="the lockers to check")
    add_options(verify)
    much = verify.add_argument_group("amount of work")
    limit = much.add_mutually_exclusive_group()
    limit.add_argument("--seconds", type=seconds, metavar="N", help="time limit for one subject (30)")
    limit.add_argument(
        "--runs",
        type=number_of("runs", int, 1, 1_000_000),
        metavar="N",
        help="a fixed amount of work: the whole plan, with at most N runs of each program by each method",
    )
    much.add_argument("--all", action="store_true", help="continue after a violation, as long as without one")
    much.add_argument("--require-complete", action="store_true", help="planned work that was not run is inconclusive")
    much.add_argument(
        "--seed", type=number_of("seeds", int, 0, 2**31), default=0, metavar="N", help="seed of the random runs (0)"
    )
    much.add_argument(
        "--jobs", type=number_of("processes", int, 1, 64), metavar="N", help="processes that share the work (2)"
    )
    verify.add_argument("--replay", metavar="SCHEDULE", help="replay one schedule and show what happens")
    verify.add_argument("--picture", type=Path, metavar="FILE", help=f"draw the run of --replay, {HELP}")
    verify.add_argument(
        "--html",
        type=Path,
        metavar="FILE",
        help="write the reported runs as a page to step through, as kmutex show does",
    )
    verify.add_argument(
        "--format",
        choices=FORMATS,
        default="text",
        help="form of standard output: text; text with annotations for GitHub Actions; SARIF",
    )
    verify.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON; -: to standard output")
    verify.add_argument("--junit", type=Path, metavar="FILE", help="write the rows as JUnit XML")
    verify.add_argument("--quiet", action="store_true", help="no progress")
    verify.set_defaults(run=run)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for the promises of a subject and for the names of its methods."""
    parser.add_argument(
        "--without", action="append", default=[], metavar="FEATURE", help="declare that the locker lacks a feature"
    )
    parser.add_argument(
        "--call",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="a method that the command does not find: lock=NAME,unlock=NAME, block=NAME, get=NAME, do=NAME",
    )
    parser.add_argument(
        "--keys",
        default="",
        metavar="TYPE",
        help=f"all keys are of this type: {', '.join(KEY_TYPES)} (found out by default)",
    )
    parser.add_argument(
        "--strict", action="store_true", help=f"the locker promises {', '.join(PROMISES)}, so each is judged"
    )
    parser.add_argument(
        "--with", action="append", default=[], metavar="PROMISE", dest="promises", help="it promises this one of them"
    )


def said_of(args: argparse.Namespace) -> Subject:
    """Return these options as a subject without a target.

    Raises:
        UnknownFeatureError: A feature or promise is unknown.
        CallsError: --call or --keys can't be read.
    """
    from kmutex.verify.project import Subject

    without, promises = _names(args.without), _promises(args)
    clauses_off(without)
    unpromised(promises, "")
    return Subject("", without, promises, calls_of(args.call, args.keys))


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from kmutex.verify.project import ProjectError, Subject, read_project
    from kmutex.verify.target import TargetError, target_of

    try:
        said = said_of(args)
        for subject in args.subjects:
            target_of(subject)
    except (UnknownFeatureError, CallsError, TargetError) as error:
        return complain(str(error))
    if fault := unfit(args.picture) or no_folder((args.json, args.junit, args.picture, args.html)):
        return complain(fault)
    if args.json == STANDARD_OUTPUT and args.format != "text":
        return complain(f"--json - and --format {args.format} both need standard output; give --json a file")
    if args.picture is not None and args.replay is None:
        return complain("--picture draws one run: give its schedule with --replay")
    if not args.subjects and (args.replay is not None or said != Subject("")):
        return complain("--replay, --without, --with, --call and --keys need a subject, MODULE:FACTORY")
    if args.replay is not None and (len(args.subjects) > 1 or args.format != "text"):
        return complain("--replay runs one schedule on one subject, and shows it as text")
    if args.html is not None and len(args.subjects) != 1:
        return complain("--html needs exactly one subject, MODULE:FACTORY")
    if args.replay is not None:
        return _replay(args, replace(said, target=args.subjects[0]))
    try:
        project = None if args.subjects else read_project(Path.cwd())
    except ProjectError as error:
        return complain(str(error))
    if project is None:
        return _verify(args, [replace(said, target=target) for target in args.subjects], None)
    args.subjects = [subject.name for subject in project.subjects]
    return _verify(args, project.subjects, project)


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for text in texts for name in text.split(",") if name)


def _promises(args: argparse.Namespace) -> tuple[str, ...] | None:
    """Return the promises of the options; None if there are none."""
    return (*(PROMISES if args.strict else ()), *_names(args.promises)) or None


class _Output:
    """Standard output in its form, and the reports that go to files."""

    def __init__(self, args: argparse.Namespace, display: Display) -> None:
        self._args = args
        self._display = display
        self._started = time.perf_counter()
        self._spoken = args.format != "sarif" and args.json != STANDARD_OUTPUT
        """Whether standard output is text."""
        self._gone = False
        """Whether the reader has closed the pipe before the end."""

    @contextmanager
    def _printing(self) -> Iterator[None]:
        """Flush what the block prints. If nobody reads it, the check continues, for the files."""
        with self._display.aside():
            try:
                yield
                sys.stdout.flush()
            except BrokenPipeError:
                self._gone, self._spoken = True, False

    def begin(self, subject: str) -> None:
        """Begin a subject; print its name if there are several."""
        if self._spoken and len(self._args.subjects) > 1:
            with self._printing():
                console().print(f"== {subject}", markup=False, style="bold", soft_wrap=True)

    def found(self, report: Report, subject: str, violation: Violation) -> None:
        """Print a violation as soon as it is found."""
        if not self._spoken:
            return
        from kmutex.verify.formats import annotation
        from kmutex.verify.report import show_violation

        with self._printing():
            if self._args.format == "github":
                print(annotation(report, subject, violation))
            show_violation(console(), report, subject, violation)

    def end(self, report: Report, took: float) -> None:
        """Print the report of a subject."""
        if report.failed:
            self._remark("error", f"cannot verify {report.subject}", report.failed)
            complain(f"cannot verify {report.subject}: {report.failed}")
            return
        if not self._spoken:
            return
        from kmutex.verify.report import show, summary

        jobs = _jobs(self._args)
        some = f"{jobs} process{'es' if jobs > 1 else ''}"
        with self._printing():
            show(console(), report, footer=f"{took:.1f} s, {some}, seed {self._args.seed}, Python {_python()}")
        if report.status == 2:
            self._remark("warning", report.subject or "kmutex", summary(report.rows))

    def _remark(self, level: str, title: str, words: str) -> None:
        if self._args.format == "github" and self._spoken:
            from kmutex.verify.formats import remark

            with self._printing():
                print(remark(level, title, words))

    def files(self, reports: Sequence[Report]) -> str:
        """Write all files; return an error message, or "".

        Raises:
            BrokenPipeError: The reader has closed the pipe before the end.
        """
        from kmutex.verify import formats

        args = self._args
        call = formats.Call(
            shlex.join(["kmutex", *args.argv]), args.seed, _jobs(args), time.perf_counter() - self._started
        )
        fault = write(
            (
                (None if args.json == STANDARD_OUTPUT else args.json, lambda: formats.as_json(reports, call)),
                (args.junit, lambda: formats.as_junit(reports)),
            )
        )
        if args.format == "sarif":
            print(formats.as_sarif(reports, call), end="")
        if args.json == STANDARD_OUTPUT:
            print(formats.as_json(reports, call), end="")
        if self._gone:
            raise BrokenPipeError
        return fault


def _verify(args: argparse.Namespace, subjects: Sequence[Subject], project: Project | None) -> int:
    from kmutex.verify.report import worst

    with shown(quiet=args.quiet) as display:
        output = _Output(args, display)
        reports = []
        every: Sequence[Subject | None] = subjects or [None]
        for subject in every:
            output.begin(subject.name if subject is not None else "")
            started = time.perf_counter()
            if subject is not None:
                report = _one(args, subject, project, output, display)
            else:
                report = _this_library(args, output, display)
            reports.append(report)
            output.end(report, time.perf_counter() - started)
    fault = output.files(reports) or _page(args, subjects, reports)
    return complain(fault) if fault else worst(report.status for report in reports)


def _page(args: argparse.Namespace, subjects: Sequence[Subject], reports: Sequence[Report]) -> str:
    """Write the page of --html, if there is a run to show; return an error message, or ""."""
    if args.html is None or reports[0].failed:
        return ""
    from kmutex.cli.show import RUNS, write_page
    from kmutex.verify.runner import ReplayError, SubjectError

    try:
        told = [violation.schedule for violation in reports[0].told if violation.schedule]
        if told:
            write_page(args.html, subjects[0], reports[0].taken, told, RUNS)
    except (ReplayError, SubjectError) as error:
        return f"{args.html}: nothing to show: {error}"
    except OSError as error:
        return f"{args.html}: {error.strerror}"
    return ""


def _one(
    args: argparse.Namespace, subject: Subject, project: Project | None, output: _Output, display: Display
) -> Report:
    from kmutex.verify.progress import progress_of
    from kmutex.verify.report import Report
    from kmutex.verify.runner import SubjectError, verify

    told: list[Violation] = []

    def found(violation: Violation) -> None:
        told.append(violation)
        output.found(Report(subject.target, options=subject.options), subject.target, violation)

    limit, how = _seconds(args), _plan(args)
    if project is not None and args.seconds is None and args.runs is None:
        from kmutex.verify.runner import BY_MODE

        mode = BY_MODE[project.mode]
        limit, how = math.inf, how._replace(runs=mode.runs, quick=mode.quick)
    try:
        again = _saved(subject, project, found)
        if again:
            return Report(subject.target, tuple(again), tuple(told), options=subject.options)
        checked = verify(
            subject.target,
            without=subject.without,
            promises=subject.promises,
            calls=subject.calls,
            seconds=limit,
            workers=_jobs(args),
            how=how,
            on_progress=progress_of(display, subject.target, limit),
            on_violation=found,
        )
    except SubjectError as error:
        return Report(subject.target, failed=str(error))
    report = Report(
        subject.target, tuple(checked.rows), tuple(told), taken=checked.shape.taken, options=subject.options
    )
    if project is not None:
        project.save(command for violation in told if (command := report.replay(subject.target, violation)))
    return report


def _saved(subject: Subject, project: Project | None, found: Callable[[Violation], None]) -> list[Row]:
    """Return the rows of the first saved schedule that still breaks a clause.

    Raises:
        SubjectError: The subject could not be run.
    """
    if project is None:
        return []
    from kmutex.verify.project import schedules_of
    from kmutex.verify.results import rows_of_saved
    from kmutex.verify.runner import ReplayError, replay

    for schedule in schedules_of(project.saved(), subject):
        # A schedule that no longer fits the subject is skipped.
        with suppress(ReplayError):
            again = replay(
                subject.target,
                schedule,
                without=subject.without,
                promises=subject.promises,
                calls=subject.calls,
            )
            for violation in again.found:
                found(violation)
            if again.found:
                return rows_of_saved(subject.target, schedule, again.found)
    return []


def _this_library(args: argparse.Namespace, output: _Output, display: Display) -> Report:
    from kmutex.selfcheck.everything import verify_everything
    from kmutex.verify.report import Report
    from kmutex.verify.runner import SubjectError

    told: list[Violation] = []

    def found(subject: str, violation: Violation) -> None:
        told.append(violation)
        output.found(Report(""), subject, violation)

    try:
        rows = verify_everything(
            seconds=_seconds(args), display=display, jobs=args.jobs or 1, how=_plan(args), on_violation=found
        )
    except SubjectError as error:
        return Report("this library", failed=str(error))
    return Report("", tuple(rows), tuple(told))


def _plan(args: argparse.Namespace) -> Plan:
    from kmutex.verify.runner import AFTER_VIOLATION, Plan

    after = math.inf if args.all else AFTER_VIOLATION
    return Plan(seed=args.seed, runs=args.runs, after=after, complete=args.require_complete)


def _seconds(args: argparse.Namespace) -> float:
    if args.runs is not None:
        return math.inf
    return SECONDS if args.seconds is None else float(args.seconds)


def _jobs(args: argparse.Namespace) -> int:
    if args.jobs is not None:
        return int(args.jobs)
    from kmutex.verify.runner import WORKERS

    return WORKERS if args.subjects else 1


def _python() -> str:
    return sys.version.split()[0]


def _replay(args: argparse.Namespace, subject: Subject) -> int:
    from kmutex.engine.timeline import WIDTH, picture, timeline
    from kmutex.verify.runner import ReplayError, SubjectError, replay

    try:
        found, unkept, events, endless, left_at = replay(
            subject.target, args.replay, without=subject.without, promises=subject.promises, calls=subject.calls
        )
    except SubjectError as error:
        return complain(f"cannot verify {subject.target}: {error}", status=3)
    except ReplayError as error:
        return complain(f"cannot replay this on {subject.target}: {error}")
    fault = write(((args.picture, lambda: drawn(picture(events), args.picture)),))
    if args.html is not None:
        from kmutex.cli.show import RUNS, write_page

        try:
            write_page(args.html, subject, "", [args.replay], RUNS)
        except OSError as error:
            fault = fault or f"{args.html}: {error.strerror}"
    print(timeline(events))
    for violation in (*found, *unkept):
        print("\n" + textwrap.fill(violation.said(promised=violation in found), WIDTH, break_on_hyphens=False))
    if left_at is not None:
        print(f"\nchoice {left_at} differs from the recorded run; from there on, the default schedule was run")
    if fault:
        return complain(fault)
    if endless and not found:
        print("\nthe run did not end within the step limit, so there is no verdict")
        return 2
    if not found and not unkept:
        print("\nno clause is violated in this run")
    if left_at is not None and not found:
        return 2
    return 1 if found else 0
