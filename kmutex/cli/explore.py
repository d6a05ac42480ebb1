"""kmutex explore: its arguments, and running it; and writing a file so that readers never see a part of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kmutex._console import complain, write_whole


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, which `add_subparsers` returned."""
    explore = commands.add_parser(
        "explore",
        help="write a page on which you are the scheduler of the model",
        description=(
            "Write one HTML file with the model's whole state graph, to be opened in any browser, without a\n"
            "network. You choose each next step and see the keys, their queues and the clauses; you can watch\n"
            "runs, predict steps, break the broken models, and compare one with the correct model; and\n"
            "answer the questions of the lessons, each by a run of real code.\n"
            "docs/explore.md says how to use it in class."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explore.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the file to write")
    explore.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return 0, or 4 if the file can't be written."""
    from kmutex.teach.explore_page import embedded, page

    fault = unfit(args.output)
    if fault:
        return complain(f"{args.output}: {fault}")
    found = embedded()
    try:
        size = write_whole(args.output, page(found.json))
    except OSError as error:
        return complain(f"{args.output}: {error.strerror}")
    print(f"{args.output}: {found.graphs} graphs, {found.states:,} states, {found.steps:,} steps, {size:,} bytes")
    return 0


def unfit(path: Path) -> str:
    """Return why no file can be written at this path, or ""."""
    if path.is_dir():
        return "is a folder, not a file"
    if path.exists() and not path.is_file():
        return "is not an ordinary file"
    if not path.absolute().parent.is_dir():
        return "there is no such folder"
    return ""
