"""kmutex grade: its arguments, and the answer to one learner. grade_class.py is for a class."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kmutex._console import complain, console, no_folder, number_of, seconds, shown, write
from kmutex.cli.grade_class import is_class
from kmutex.cli.grade_class import run as run_class
from kmutex.engine.features import FEATURES, UnknownFeatureError, clauses_off

if TYPE_CHECKING:
    from rich.console import Console

    from kmutex.teach.grade import Explained, Grade
    from kmutex.teach.grade_tests import Met
    from kmutex.teach.lesson import Lesson
    from kmutex.teach.points import Scheme
    from kmutex.teach.submission import Submission

EXIT_STATUS = """\
exit status, of a locker:
  0  no clause is violated, within the bounds that kmutex verify states
  1  a clause is violated
  2  inconclusive: out of time, or a clause was never tested
  3  the code could not be run: not Python, nothing called NAME, hangs, ends the process, out of memory
  4  usage: no such file or lesson, no class or several that may be meant
of a class: 0 each was graded, 3 one could not be graded or no container works here, 4 usage
of tests:
  0  they accept every correct locker and catch every broken one
  1  they reject a correct locker, or miss a broken one
  2  inconclusive: a test hung, or failed by an error of its own
  3  they could not be run: not Python, no test, pytest is not installed
  4  usage
"""
NARROW = 80
"""In fewer columns, the table of tests breaks words."""
LEAST_DETAIL = 8
"""The least width of its details, in columns."""
SECONDS = 20.0
SECONDS_OF_A_CLASS = 120.0
"""The limit for a locker in a class. The work is fixed, so it is for lockers that hang."""
MEGABYTES = 1024


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, which `add_subparsers` returned."""
    grade: argparse.ArgumentParser = commands.add_parser(
        "grade",
        help="judge a learner's locker, or a learner's tests",
        description=(
            "Judge the locker that a file defines: the clause that it breaks, the run that shows it, and the lesson\n"
            "about it. The locker is the class or function named Locker or make_locker, else the only class with\n"
            "lock and unlock, else what FILE:NAME says.\n"
            "With --tests the file has tests for pytest: they are run against correct lockers, which they should\n"
            "accept, and against the lockers of the lessons, which they should catch. docs/grade.md says how.\n"
            "The code runs in separate processes with limits. They are for clumsy code and are not a sandbox.\n"
            "A folder or a zip file is a class: each submission is graded in a container (bubblewrap or Docker),\n"
            "and a report is written: a table, JSON, a page for each, and the form of Gradescope."
        ),
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    grade.add_argument("file", metavar="FILE", help="FILE, FILE:NAME, or the folder or zip file of a class")
    grade.add_argument("--lesson", type=int, metavar="N", help="the lesson whose locker this repairs")
    grade.add_argument("--tests", action="store_true", help="the file has tests, to be graded themselves")
    grade.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="FEATURE",
        help=f"declare that the locker lacks a feature, in addition to those of the lesson: {', '.join(FEATURES)}",
    )
    grade.add_argument(
        "--seconds",
        type=seconds,
        metavar="N",
        help="time limit for the locker, or for the tests against one locker "
        f"({SECONDS:g}; in a class {SECONDS_OF_A_CLASS:g})",
    )
    grade.add_argument(
        "--memory",
        type=number_of("megabytes", int, 512, 1_000_000),
        default=MEGABYTES,
        metavar="MB",
        help=f"limit on the address space of each process ({MEGABYTES})",
    )
    grade.add_argument("--json", type=Path, metavar="FILE", help="write the answer as JSON")
    grade.add_argument("--quick", action="store_true", help="a fixed, small amount of work; it says what it left out")
    grade.add_argument("--points", type=Path, metavar="FILE", help="a scheme of points, in TOML (docs/grade.md)")
    grade.add_argument("--gradescope", type=Path, metavar="FILE", help="write the answer as Gradescope's results.json")
    many = grade.add_argument_group("for a class")
    many.add_argument("--out", type=Path, default=Path("grades"), metavar="FOLDER", help="for the report (grades)")
    many.add_argument(
        "--jobs",
        type=number_of("jobs", int, 1, 256),
        default=os.cpu_count() or 1,
        metavar="N",
        help="submissions in parallel (as many as there are cores)",
    )
    many.add_argument("--again", action="store_true", help="also grade submissions that have not changed")
    many.add_argument("--assignment", metavar="NAME", help="which assignment, if students have a folder for each")
    many.add_argument("--trust", action="store_true", help="run them without a container, with your own rights")
    grade.add_argument("--quiet", action="store_true", help="no progress")
    grade.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from kmutex.teach.lesson import NoSuchLessonError, lesson
    from kmutex.teach.points import SchemeError, scheme, usual

    if fault := no_folder((args.json, args.gradescope, args.out)):
        return complain(fault)
    if args.tests and args.without:
        return complain("--without is for lockers; tests meet lockers of every kind")
    many = is_class(args.file)
    if many and (args.json or args.gradescope):
        return complain("the report of a class has its JSON and Gradescope's form in it: --out FOLDER says where")
    args.seconds = args.seconds or (SECONDS_OF_A_CLASS if many else SECONDS)
    named = [name for text in args.without for name in text.split(",") if name]
    try:
        one = None if args.lesson is None else lesson(args.lesson)
        without = tuple(dict.fromkeys([*(one.without if one is not None and not args.tests else ()), *named]))
        clauses_off(without)
        by = scheme(args.points) if args.points is not None else usual(one.clause if one is not None else None)
    except (NoSuchLessonError, SchemeError, UnknownFeatureError) as error:
        return complain(str(error))
    return run_class(args, one, without, by) if many else _one(args, one, without, by)


def _one(args: argparse.Namespace, one: Lesson | None, without: tuple[str, ...], by: Scheme) -> int:
    """Answer one learner, with the score if there is a scheme."""
    from kmutex.teach.grade_inside import REFUSED

    begun, reason = time.monotonic(), ""
    answer: dict[str, Any] | None = None
    try:
        status, answer = _tests(args, one) if args.tests else _locker(args, one, without)
    except REFUSED as error:
        usage = type(error).__name__ in ("SubmissionError", "WrongKindError")
        unread = type(error).__name__ in ("UnreadableError", "TestsFailedError")
        reason = str(error) if usage or unread else f"cannot grade {args.file}: {error}"
        status = complain(reason, status=4 if usage else 3)
    if args.points is None and args.gradescope is None:
        return status
    from kmutex.teach.class_report import gradescope, marked
    from kmutex.teach.grade_class import of_one

    mark = marked(of_one(args.file, answer, reason, time.monotonic() - begun), by)
    if answer is not None:
        console().print(f"{mark.score:g} of {mark.total:g} points")
    fault = write([(args.gradescope, lambda: gradescope(mark))])
    return complain(fault) if fault else status


def _locker(args: argparse.Namespace, one: Lesson | None, without: tuple[str, ...]) -> tuple[int, dict[str, Any]]:
    from kmutex.teach.grade import QUICK, body, grade
    from kmutex.teach.submission import submission
    from kmutex.verify.progress import progress_of
    from kmutex.verify.runner import Plan

    handed_in = submission(args.file)
    with shown(quiet=args.quiet) as display:
        result = grade(
            handed_in,
            one,
            without=without,
            seconds=args.seconds,
            megabytes=args.memory,
            how=QUICK if args.quick else Plan(),
            on_progress=progress_of(display, str(handed_in.path), args.seconds),
        )
    answer = body(handed_in, one, without, result)
    fault = write([(args.json, lambda: json.dumps(answer, indent=2) + "\n")])
    _answer(console(), handed_in, one, without, result)
    return complain(fault) if fault else result.status, answer


def _answer(out: Console, handed_in: Submission, one: Lesson | None, without: tuple[str, ...], result: Grade) -> None:
    from kmutex.verify.report import summary

    out.print(Text(f"{handed_in.path}: {handed_in.factory}", "bold"), soft_wrap=True)
    if without:
        out.print(Text(f"judged without {', '.join(without)}", "dim"), soft_wrap=True)
    for note in result.notes:
        out.print(Text(note, "yellow"), soft_wrap=True)
    if one is not None:
        broken = any(one.clause in finding.clauses for finding in result.findings)
        if not broken and result.lesson_runs:
            said = f"lesson {one.number}: its program breaks no clause any more, in {result.lesson_runs:,} schedules"
            out.print(Text(said, "green"), soft_wrap=True)
    for finding in result.findings:
        out.print()
        _show(out, finding)
    more = len(result.others)
    if more:
        out.print()
        out.print(f"Also broken: {', '.join(result.others)}. They may be the same mistake.", soft_wrap=True)
    if result.status == 2:
        out.print()
        for row in result.open:
            out.print(Text(f"{row.clause}: not decided: {row.detail}", "yellow"), soft_wrap=True)
    out.print()
    out.print(summary(result.rows), style={0: "green", 1: "bold red"}.get(result.status, "yellow"), soft_wrap=True)
    for line in result.left_out:
        out.print(Text(f"left out: {line}", "dim"), soft_wrap=True)
    if one is not None and result.status == 0:
        _next(out, one)


def _show(out: Console, finding: Explained) -> None:
    out.print(Text(f"{finding.clause.id}: {finding.clause.title}", "bold red"))
    # Prose is wrapped between words at a terminal, and not at all elsewhere.
    whole = not out.is_terminal
    out.print(Text(f"The contract: {finding.clause.statement}"), soft_wrap=whole)
    out.print(Text(f"Here: {finding.message}"), soft_wrap=whole)
    if finding.picture:
        out.print()
        out.print(Text(finding.picture), soft_wrap=True)
        out.print()
    if finding.replay:
        out.print(Text("Replay it:     ", "dim") + Text(finding.replay), soft_wrap=True)
    if finding.lesson is not None:
        said = f"kmutex lesson show {finding.lesson.number}"
        out.print(Text("Read about it: ", "dim") + Text(f"{said}  ({finding.lesson.title})"), soft_wrap=True)


def _next(out: Console, one: Lesson) -> None:
    from kmutex.teach.lesson import lessons

    if one.number < lessons()[-1].number:
        out.print(f"On to the next: kmutex lesson show {one.number + 1}")
    else:
        out.print("That was the last lesson.")


def _tests(args: argparse.Namespace, one: Lesson | None) -> tuple[int, dict[str, Any]]:
    from kmutex.teach.grade_tests import grade_tests, overall, tests_body

    path = Path(args.file)
    with shown(quiet=args.quiet) as display:
        table = grade_tests(path, seconds=args.seconds, megabytes=args.memory, chosen=one, on_progress=display.say)
    answer = tests_body(path, table)
    fault = write([(args.json, lambda: json.dumps(answer, indent=2) + "\n")])
    _answer_tests(console(), path, table)
    return complain(fault) if fault else overall(table), answer


_STYLE = {"accepted": "green", "caught": "green", "rejected": "bold red", "missed": "bold red", "not tried": "dim"}


def _answer_tests(out: Console, path: Path, table: list[Met]) -> None:
    from kmutex.teach.grade_tests import TESTS, overall

    out.print(Text(str(path), "bold"), soft_wrap=True)
    rows = Table(pad_edge=False, box=SIMPLE_HEAD)
    # At a narrow terminal, words are broken rather than dropped.
    for name in ("locker", "for", "breaks", "result"):
        rows.add_column(name, no_wrap=out.width >= NARROW, overflow="fold")
    rows.add_column("", overflow="fold", min_width=LEAST_DETAIL)
    for met in table:
        breaks = met.opponent.lesson.clause if met.opponent.lesson is not None else "nothing"
        result = Text(met.result, _STYLE.get(met.result, "yellow"))
        rows.add_row(met.opponent.name, met.opponent.kind, breaks, result, Text(met.detail))
    out.print(rows)
    counts = {name: sum(met.result == name for met in table) for name in dict.fromkeys(met.result for met in table)}
    words = ", ".join(f"{number} {name}" for name, number in counts.items())
    status = overall(table)
    out.print(Text(f"{TESTS[status]}: {words}", {0: "green", 1: "bold red"}.get(status, "yellow")), soft_wrap=True)
