"""The command: kmutex verify, and the other subcommands."""

from __future__ import annotations

import argparse
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from kmutex.schedule.words import said

EXIT_STATUS = """\
exit status:
  0  every clause that applies holds, at the bounds that the table states
  1  a clause is violated
  2  inconclusive: out of time, unknown, not confirmed, or never put to the test
  3  the subject could not be put to work: no such module, not a locker, hangs, leaves the process
  4  usage: wrong arguments, or a schedule that does not fit
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status."""
    # What a subject says may be in no encoding that standard output has.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    before = signal.signal(signal.SIGTERM, _terminated)
    try:
        status = _main(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        _complain("interrupted")
        status = 130
    except BrokenPipeError:
        # Nobody reads any more; the interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except Exception as error:
        # Ours, not the subject's: nothing was decided, and the place is what a report of it needs.
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        status = _complain(f"an error of kmutex itself, please report it: {said(error)}, at {where}", status=2)
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(status)


def _terminated(number: int, frame: object) -> None:
    """End as after an exception, so that the workers end too."""
    raise SystemExit(128 + number)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(4, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    from kmutex.testing.features import FEATURES
    from kmutex.trace import command as check_trace

    parser = _Parser(
        prog="kmutex",
        description="A keyed mutex you can check.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    features = "\n".join(f"  {name:13} {' '.join(f.clauses):17} {f.meaning}" for name, f in FEATURES.items())
    verify = commands.add_parser(
        "verify",
        help="check a keyed locker against the contract",
        description=(
            "Check a keyed locker against the contract, clause by clause. Without a subject: the lockers of this\n"
            "library, by every method. The factory is called without arguments and makes a locker with\n"
            "lock(key, timeout=None), unlock(key) and, if it has it, len(); or with `await lock(key)` for asyncio.\n"
            "The current directory is importable."
        ),
        epilog=f"features for --without, and the clauses they turn off:\n{features}\n\n{EXIT_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verify.add_argument("subject", nargs="?", metavar="MODULE:FACTORY", help="the locker to check")
    verify.add_argument(
        "--without", action="append", default=[], metavar="FEATURE", help="declare that the locker lacks a feature"
    )
    verify.add_argument(
        "--seconds", type=_seconds, default=30.0, metavar="N", help="the longest that one subject may take (30)"
    )
    verify.add_argument("--replay", metavar="SCHEDULE", help="run one schedule again and show what happens")
    verify.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON")
    verify.add_argument("--junit", type=Path, metavar="FILE", help="write the rows as JUnit XML")
    verify.add_argument("--quiet", action="store_true", help="no progress")
    check_trace.add_parser(commands)
    return parser


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 1 to 86400")
    return value


def _main(argv: list[str]) -> int:
    from kmutex.testing.features import UnknownFeatureError, clauses_off

    args = _parser().parse_args(argv)
    if args.command == "check-trace":
        return _check_trace(args)
    without = tuple(name for text in args.without for name in text.split(",") if name)
    try:
        clauses_off(without)
    except UnknownFeatureError as error:
        return _complain(str(error))
    for path in (args.json, args.junit):
        if path is not None and not path.absolute().parent.is_dir():
            return _complain(f"{path}: there is no such folder")
    if args.subject is None:
        if args.replay is not None or without:
            return _complain("--replay and --without need a subject, MODULE:FACTORY")
        return _verify_all(args)
    module, colon, factory = args.subject.partition(":")
    if not (module and colon and factory):
        return _complain(f"{args.subject!r} is not of the form MODULE:FACTORY")
    if args.replay is not None:
        return _replay(args.subject, args.replay, without)
    return _verify_one(args, without)


def _check_trace(args: argparse.Namespace) -> int:
    from kmutex.trace.command import run

    return run(args)


def _verify_one(args: argparse.Namespace, without: tuple[str, ...]) -> int:
    from kmutex.verify.progress import shown
    from kmutex.verify.runner import SubjectError, verify

    started = time.perf_counter()
    try:
        with shown(quiet=args.quiet) as progress:
            rows = verify(
                args.subject, without=without, seconds=args.seconds, on_progress=progress.of(args.subject, args.seconds)
            )
    except SubjectError as error:
        return _complain(f"cannot verify {args.subject}: {error}", status=3)
    options = "".join(f" --without {name}" for name in without)
    return _report(args, rows, [args.subject], time.perf_counter() - started, options)


def _verify_all(args: argparse.Namespace) -> int:
    from kmutex.verify.everything import verify_everything
    from kmutex.verify.progress import shown
    from kmutex.verify.runner import SubjectError

    started = time.perf_counter()
    try:
        with shown(quiet=args.quiet) as progress:
            subjects, rows = verify_everything(seconds=args.seconds, progress=progress)
    except SubjectError as error:
        return _complain(f"cannot verify this library: {error}", status=3)
    return _report(args, rows, subjects, time.perf_counter() - started, "")


def _replay(subject: str, schedule: str, without: tuple[str, ...]) -> int:
    from kmutex.verify.runner import ReplayError, SubjectError, replay

    try:
        found, picture, endless = replay(subject, schedule, without=without)
    except SubjectError as error:
        return _complain(f"cannot verify {subject}: {error}", status=3)
    except ReplayError as error:
        return _complain(f"cannot replay this on {subject}: {error}")
    print(picture)
    for entry in found:
        print(f"\n{', '.join(entry['clauses'])}: {entry['message']}")
    if endless and not found:
        print("\nthe run has no end within the step limit, so nothing is decided")
        return 2
    if not found:
        print("\nno clause is violated in this run")
    return 1 if found else 0


def _report(
    args: argparse.Namespace, rows: Sequence[object], subjects: Sequence[str], seconds: float, options: str
) -> int:
    from rich.console import Console

    from kmutex.verify import report
    from kmutex.verify.evidence import Row, exit_status

    class _Console(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # Rich would exit with 1, which says here that a clause is violated.

    table = [row for row in rows if isinstance(row, Row)]
    outputs: list[tuple[Path | None, Callable[[], str]]] = [
        (args.json, lambda: report.as_json(table, subjects=subjects, seconds=seconds)),
        (args.junit, lambda: report.as_junit(table)),
    ]
    faults = []
    for path, text in outputs:
        if path is not None:
            try:
                path.write_text(text(), encoding="utf-8")
            except OSError as error:
                faults.append(f"{path}: {error.strerror}")
    report.show(table, _Console(width=None if sys.stdout.isatty() else 160), options=options)
    return _complain("; ".join(faults)) if faults else exit_status(table)


def _complain(message: str, *, status: int = 4) -> int:
    print(f"kmutex: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
