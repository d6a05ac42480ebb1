"""kmutex completion: a script by which a shell completes the command's words."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

from kmutex._clauses import EVERY_CLAUSE
from kmutex._console import complain
from kmutex.cli._examples import parsers

SHELLS = ("bash", "fish", "zsh")


def add_parser(commands: Any) -> None:
    """Add the command."""
    completion = commands.add_parser(
        "completion",
        help="print what makes your shell complete this command",
        description=(
            "Print a script for your shell: it then completes commands, options, files and the names of clauses.\n"
            "The script is whole, and starts no Python; print it again after an upgrade."
        ),
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell that is to read it")
    completion.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script: 0, or 4 where what makes it is not installed."""
    if find_spec("shtab") is None:
        return complain("kmutex completion needs shtab: pip install 'kmutex[check]'")
    import shtab

    from kmutex.cli import whole_parser

    parser = whole_parser()
    for name, one in parsers(parser):
        for action in one._actions:
            if action.metavar == "FILE":
                action.complete = shtab.FILE  # type: ignore[attr-defined]
            elif action.metavar == "FOLDER":
                action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
            elif action.metavar == "CLAUSE" and name:
                action.choices = EVERY_CLAUSE
    print(shtab.complete(parser, args.shell))
    return 0
