"""kmutex show: its arguments, and running it. It writes a page to step through runs of a locker's own code."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmutex._console import complain, number_of, seconds, shown, version, write_whole
from kmutex.cli.explore import unfit
from kmutex.cli.verify import add_options, said_of
from kmutex.engine.calls import CallsError
from kmutex.engine.features import UnknownFeatureError, clauses_off

if TYPE_CHECKING:
    from kmutex.verify.evidence import Violation
    from kmutex.verify.project import Subject

RUNS = 120
"""The number of variations of each run that is shown."""
SECONDS = 30.0
"""Real seconds for the search, if no schedule is given."""
MOST_STORIES = 6
"""The most violations that are shown."""
EXIT_STATUS = """\
exit status:
  0  the page is written, and its run breaks no clause
  1  the page is written, and a run on it breaks a clause
  3  the subject could not be run: no such module, not a locker, hangs, leaves the process
  4  usage: wrong arguments, a schedule that does not fit, a page that cannot be written
"""


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, which `add_subparsers` returned."""
    show: argparse.ArgumentParser = commands.add_parser(
        "show",
        help="write a page on which you step through a run of a locker's own code",
        description=(
            "Write one HTML file that plays a run of real code, to be opened in any browser, without a network: the\n"
            "source with the line at which each client stands, who holds and who waits, the same calls in the model,\n"
            "a light for each clause, and at each choice what else could have happened. The run is the one that\n"
            "--replay gives; without it, the command looks for runs that break a clause, as `kmutex verify` does.\n"
            "docs/show.md says how to read it."
        ),
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_argument("subject", metavar="MODULE:FACTORY", help="the locker; as for kmutex verify")
    show.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    show.add_argument("--replay", metavar="SCHEDULE", help="the run to show, as kmutex verify prints it")
    show.add_argument(
        "--runs",
        type=number_of("runs", int, 1, 2000),
        default=RUNS,
        metavar="N",
        help=f"runs to record for each run on the page: itself and its variations ({RUNS})",
    )
    show.add_argument("--seconds", type=seconds, default=SECONDS, metavar="N", help="time limit of the search (30)")
    add_options(show)
    show.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from dataclasses import replace

    from kmutex.verify.runner import ReplayError, SubjectError, verify
    from kmutex.verify.target import TargetError, target_of

    try:
        target_of(args.subject)
        subject = replace(said_of(args), target=args.subject)
    except (UnknownFeatureError, CallsError, TargetError) as error:
        return complain(str(error))
    if fault := unfit(args.output):
        return complain(f"{args.output}: {fault}")
    told: list[Violation] = []
    schedules = [args.replay] if args.replay is not None else []
    taken = ""
    try:
        if not schedules:
            with shown(quiet=False) as display:
                display.say(f"looking for a run of {args.subject} that breaks a clause")
                checked = verify(
                    subject.target,
                    without=subject.without,
                    promises=subject.promises,
                    calls=subject.calls,
                    seconds=args.seconds,
                    on_violation=told.append,
                )
            taken = checked.shape.taken
            schedules = [violation.schedule for violation in told if violation.schedule]
            if not schedules:
                from kmutex.teach.show_page import by_default

                shape = checked.shape
                schedules = [by_default(shape.kind, flight=shape.form == "flight", tries=shape.tries)]
        return write_page(args.output, subject, taken, schedules, args.runs)
    except SubjectError as error:
        return complain(f"cannot show {args.subject}: {error}", status=3)
    except ReplayError as error:
        return complain(f"cannot replay this on {args.subject}: {error}")
    except OSError as error:
        return complain(f"{args.output}: {error.strerror}")


def write_page(path: Path, subject: Subject, taken: str, schedules: Sequence[str], runs: int) -> int:
    """Record the runs of the schedules, write the page, and print its size.

    Args:
        path: The file.
        subject: The locker and what is declared of it.
        taken: Which methods are called for what, if known.
        schedules: The schedules, as text.
        runs: As for the option --runs.

    Returns:
        The exit status.

    Raises:
        SubjectError: The subject could not be run.
        ReplayError: A schedule does not fit the subject.
        OSError: The page can't be written; the old file is unchanged.
    """
    from kmutex.teach.show_page import Story, page
    from kmutex.verify.runner import record

    recordings = record(
        subject.target,
        schedules[:MOST_STORIES],
        most=runs,
        without=subject.without,
        promises=subject.promises,
        calls=subject.calls,
    )
    stories = [Story(f"kmutex show {shlex.quote(subject.target)}{subject.options}", one) for one in recordings]
    text = page(
        subject.target,
        taken,
        stories,
        clauses_off(subject.without),
        f"kmutex {version()}, Python {sys.version.split()[0]}",
    )
    size = write_whole(path, text)
    many = sum(len(one.runs) for one in recordings)
    broken = [breach for one in recordings for breach in one.runs[0].breaches if breach.promised]
    print(f"{path}: {many} run{'s' * (many != 1)} of {subject.target}, {size:,} bytes")
    for one in recordings:
        for breach in one.runs[0].breaches:
            print(f"{', '.join(breach.clauses)}{'' if breach.promised else ', not promised'}: {breach.message}")
    return 1 if broken else 0
