"""kmutex verify: the arguments, and what is done with them."""

from __future__ import annotations

import argparse
import shlex
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmutex._console import complain, console, no_folder, seconds, shown, write
from kmutex.engine.calls import KEY_TYPES, LOOKING, Calls, CallsError, calls_of
from kmutex.engine.features import FEATURES, LEADERS, PROMISES, UnknownFeatureError, clauses_off, unpromised
from kmutex.picture.files import HELP, drawn, unfit

if TYPE_CHECKING:
    from kmutex.verify.evidence import Row

EXIT_STATUS = """\
exit status:
  0  every clause that applies and that counts holds, at the bounds that the table states
  1  a clause is violated
  2  inconclusive: out of time, unknown, not confirmed, or never put to the test
  3  the subject could not be put to work: no such module, not a locker, hangs, leaves the process
  4  usage: wrong arguments, or a schedule that does not fit
"""


def add_parser(commands: Any) -> None:
    """Add the command."""
    leaders = "\n".join(f"  {name:13} {meaning}" for name, meaning in LEADERS.items())
    features = "\n".join(f"  {name:13} {' '.join(f.clauses):17} {f.meaning}" for name, f in FEATURES.items())
    verify: argparse.ArgumentParser = commands.add_parser(
        "verify",
        help="check a keyed locker against the contract",
        description=(
            "Check a keyed locker against the contract, clause by clause. Without a subject: the lockers of this\n"
            "library, by every method. The subject is a class or a function that makes a locker without arguments, an\n"
            "expression such as 'pkg.locks:Locks(maxsize=3)', a locker at the top of a module, or what is called with\n"
            "a key itself. How it is locked is found by looking, for threads and asyncio alike: lock and unlock,\n"
            "acquire and release, a lock for each key, a block for with or async with, an object for each key.\n"
            "The current directory is importable."
        ),
        epilog=f"features for --without, and the clauses they turn off:\n{features}\n\n"
        f"more for --with, of single flights:\n{leaders}\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("subject", nargs="?", metavar="MODULE:FACTORY", help="the locker to check")
    verify.add_argument(
        "--without", action="append", default=[], metavar="FEATURE", help="declare that the locker lacks a feature"
    )
    verify.add_argument(
        "--call",
        action="append",
        default=[],
        metavar="ROLE=NAME",
        help="a method, where looking does not find it: lock=NAME,unlock=NAME, block=NAME, get=NAME, do=NAME",
    )
    verify.add_argument(
        "--keys",
        default="",
        metavar="TYPE",
        help=f"all keys are of this type: {', '.join(KEY_TYPES)} (found by looking)",
    )
    verify.add_argument(
        "--strict", action="store_true", help=f"the locker promises {', '.join(PROMISES)}: broken, they count"
    )
    verify.add_argument(
        "--with", action="append", default=[], metavar="PROMISE", dest="promises", help="it promises this one"
    )
    verify.add_argument(
        "--seconds", type=seconds, default=30.0, metavar="N", help="the longest that one subject may take (30)"
    )
    verify.add_argument("--replay", metavar="SCHEDULE", help="run one schedule again and show what happens")
    verify.add_argument("--picture", type=Path, metavar="FILE", help=f"of what --replay shows: {HELP}")
    verify.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    verify.add_argument("--junit", type=Path, metavar="FILE", help="write the rows as JUnit XML")
    verify.add_argument("--quiet", action="store_true", help="no progress")
    verify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do it; the exit status."""
    from kmutex.verify.target import TargetError, target_of

    without = _names(args.without)
    promises = _promises(args)
    module = (args.subject or "").partition(":")[0]
    try:
        clauses_off(without)
        unpromised(promises, module)
        calls = calls_of(args.call, args.keys)
        if args.subject is not None:
            target_of(args.subject)
    except (UnknownFeatureError, CallsError, TargetError) as error:
        return complain(str(error))
    if fault := unfit(args.picture) or no_folder((args.json, args.junit, args.picture)):
        return complain(fault)
    if args.picture is not None and args.replay is None:
        return complain("--picture is of one run: give its schedule with --replay")
    if args.subject is None:
        if args.replay is not None or without or args.promises or calls != LOOKING:
            return complain("--replay, --without, --with, --call and --keys need a subject, MODULE:FACTORY")
        return _verify_all(args)
    if args.replay is not None:
        return _replay(args, without, promises, calls)
    return _verify_one(args, without, promises, calls)


def _names(texts: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for text in texts for name in text.split(",") if name)


def _promises(args: argparse.Namespace) -> tuple[str, ...] | None:
    """What the locker is said to promise; None: nothing was said of it."""
    return (*(PROMISES if args.strict else ()), *_names(args.promises)) or None


def _verify_one(
    args: argparse.Namespace, without: tuple[str, ...], promises: tuple[str, ...] | None, calls: Calls
) -> int:
    from kmutex.verify.progress import progress_of
    from kmutex.verify.runner import SubjectError, verify

    started = time.perf_counter()
    try:
        with shown(quiet=args.quiet) as display:
            checked = verify(
                args.subject,
                without=without,
                promises=promises,
                calls=calls,
                seconds=args.seconds,
                on_progress=progress_of(display, args.subject, args.seconds),
            )
    except SubjectError as error:
        return complain(f"cannot verify {args.subject}: {error}", status=3)
    options = "".join(f" --without {name}" for name in without)
    options += " --strict" if args.strict else ""
    options += "".join(f" --with {name}" for name in _names(args.promises))
    options += "".join(f" {shlex.quote(word)}" for word in calls.options)
    return _report(args, checked.rows, [args.subject], time.perf_counter() - started, options)


def _verify_all(args: argparse.Namespace) -> int:
    from kmutex.selfcheck.everything import verify_everything
    from kmutex.verify.runner import SubjectError

    started = time.perf_counter()
    try:
        with shown(quiet=args.quiet) as display:
            subjects, rows = verify_everything(seconds=args.seconds, display=display)
    except SubjectError as error:
        return complain(f"cannot verify this library: {error}", status=3)
    return _report(args, rows, subjects, time.perf_counter() - started, "")


def _replay(args: argparse.Namespace, without: tuple[str, ...], promises: tuple[str, ...] | None, calls: Calls) -> int:
    from kmutex.engine.timeline import picture, timeline
    from kmutex.verify.runner import ReplayError, SubjectError, replay

    try:
        found, unkept, events, endless = replay(
            args.subject, args.replay, without=without, promises=promises, calls=calls
        )
    except SubjectError as error:
        return complain(f"cannot verify {args.subject}: {error}", status=3)
    except ReplayError as error:
        return complain(f"cannot replay this on {args.subject}: {error}")
    fault = write(((args.picture, lambda: drawn(picture(events), args.picture)),))
    print(timeline(events))
    for violation in found:
        print(f"\n{', '.join(violation.clauses)}: {violation.message}")
    for violation in unkept:
        print(f"\n{', '.join(violation.clauses)}, not promised: {violation.message}")
    if fault:
        return complain(fault)
    if endless and not found:
        print("\nthe run has no end within the step limit, so nothing is decided")
        return 2
    if not found and not unkept:
        print("\nno clause is violated in this run")
    return 1 if found else 0


def _report(
    args: argparse.Namespace,
    table: Sequence[Row],
    subjects: Sequence[str],
    seconds: float,
    options: str,
) -> int:
    from kmutex.verify import report
    from kmutex.verify.evidence import exit_status

    fault = write(
        (
            (args.json, lambda: report.as_json(table, subjects=subjects, seconds=seconds)),
            (args.junit, lambda: report.as_junit(table)),
        )
    )
    report.show(table, console(), options=options)
    return complain(fault) if fault else exit_status(table)
