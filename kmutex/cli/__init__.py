"""The command: kmutex COMMAND. Each command has its own module; here is what they share."""

from __future__ import annotations

import argparse
import errno
import importlib
import io
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from kmutex._console import complain, version
from kmutex._extra import needed_by
from kmutex._text import said
from kmutex.cli._examples import add_examples

EXIT_STATUS = """\
exit status:
  0  holds, conforms, passes
  1  a clause is violated
  2  inconclusive: out of time, unknown, not confirmed, or never put to the test
  3  the subject could not be run
  4  usage: wrong arguments, a schedule that does not fit, or kmutex[check] is not installed
kmutex COMMAND --help says what they mean for that command.
"""
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
"""Errors of a full output. A command reports errors of its own output files itself."""

NOT_ON_WINDOWS = ("_posixsubprocess", "resource")
"""Modules for limits on processes. Python has them on Linux and macOS."""
ELSEWHERE = (
    "this command runs code in processes that it limits, and Python has no {} here: on Windows use WSL; "
    "the locks, kmutex explore and kmutex lesson work without"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit with its status."""
    _open_standard_streams()
    # A subject's output may not fit the encoding of standard output.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    ends = [signal.SIGTERM]
    # After nohup, it should continue.
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        ends.append(signal.SIGHUP)
    before = {number: signal.signal(number, _terminated) for number in ends}
    try:
        lacking = needed_by("the command kmutex")
        status = complain(lacking) if lacking else _main(sys.argv[1:] if argv is None else list(argv))
        sys.stdout.flush()
    except KeyboardInterrupt:
        complain("interrupted")
        status = 130
    except BrokenPipeError:
        # The reader has closed the pipe.
        _drop_output()
        status = 141
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE:
            _drop_output()
            status = complain(f"cannot write the output: {error.strerror}")
        elif isinstance(error, ModuleNotFoundError) and error.name in NOT_ON_WINDOWS:
            status = complain(ELSEWHERE.format(error.name), status=3)
        else:
            # An error of kmutex, not of the subject: there is no verdict, and a bug report needs the place.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            status = complain(f"an error of kmutex itself, please report it: {said(error)}, at {where}", status=2)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    sys.exit(status)


def _open_standard_streams() -> None:
    """Replace streams that are None because they were closed; in this order, each gets its own file descriptor."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def _drop_output() -> None:
    """Discard the output, which the interpreter would flush again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminated(number: int, frame: object) -> None:
    """Exit by an exception, so that the workers end too."""
    raise SystemExit(128 + number)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(4, f"{self.prog}: {message}\n")


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(f"kmutex {version()}, Python {sys.version.split()[0]}")
        parser.exit()


COMMANDS = {
    "verify": "verify",
    "prove": "prove",
    "conform": "conform",
    "check-trace": "check_trace",
    "show": "show",
    "explain": "explain",
    "explore": "explore",
    "lesson": "lesson",
    "grade": "grade",
    "completion": "completion",
}
"""Each command, and its module."""


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    # The other commands are needed only for a list of them.
    wanted = [argv[0]] if argv and argv[0] in COMMANDS else list(COMMANDS)
    parser = _Parser(
        prog="kmutex",
        description="A keyed mutex you can check.",
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in wanted:
        importlib.import_module(f"kmutex.cli.{COMMANDS[name]}").add_parser(commands)
    add_examples(parser)
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """The parser with all commands."""
    return _parser([])


def _main(argv: list[str]) -> int:
    parser = _parser(argv)
    if not argv:
        parser.error("name a COMMAND; kmutex --help lists them")
    args = parser.parse_args(argv)
    args.argv = argv
    status: int = args.run(args)
    return status


if __name__ == "__main__":
    main()
