"""kmutex explain: its arguments, and running it."""

from __future__ import annotations

import argparse
import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from kmutex import _specs
from kmutex._clauses import EVERY_CLAUSE
from kmutex._console import complain

EPILOG = """\
exit status:
  0  explained
  4  usage: there is no such clause
"""
WIDEST = 100


def add_parser(commands: Any) -> None:
    """Add the command."""
    explain = commands.add_parser(
        "explain",
        help="say what a clause means, and show a run that breaks it",
        description="What a clause of the contract says, how a locker keeps it, and a run of a model that breaks it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("clause", nargs="?", metavar="CLAUSE", help="KM-REF or ref; without it, a list of them all")
    explain.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; return 0, or 4 if there is no such clause."""
    from kmutex.teach.clauses import clause_of

    if args.clause is None:
        print("\n".join(f"{name:<13}{clause_of(name).title}" for name in EVERY_CLAUSE))
        return 0
    name = f"KM-{args.clause.upper().removeprefix('KM-')}"
    if name not in EVERY_CLAUSE:
        return complain(f"there is no clause {args.clause!r}; kmutex explain lists them")
    width = min(shutil.get_terminal_size().columns, WIDEST)
    told = clause_of(name)
    parts = [f"{name}: {told.title}", textwrap.fill(told.statement, width)]
    parts += [textwrap.fill(part, width) for part in _advice(name)]
    parts += _run_that_breaks(name, width)
    print("\n\n".join(parts))
    return 0


def _advice(name: str) -> Iterator[str]:
    """Yield the paragraphs of the contract for porters about a clause."""
    _, _, rest = _specs.read("contract.md").partition(f"\n### {name}: ")
    _, _, body = rest.partition("\n")
    for part in body.partition("\n#")[0].strip().split("\n\n"):
        yield part.replace("*", "").replace("`", "")


def _run_that_breaks(name: str, width: int) -> Iterator[str]:
    """Yield the first known-bad model of the clause and its counterexample as a timeline, if there is one."""
    from kmutex.picture.text import text
    from kmutex.teach.model_timeline import of_broken
    from kmutex_model.broken import BROKEN

    for broken in BROKEN:
        if broken.clause == name:
            found, picture = of_broken(broken)
            config = broken.config
            yield textwrap.fill(
                f"A lock that breaks it: {broken.story}. The shortest run, found among {found.states:,} states of "
                f"{config.clients} clients and {config.keys} {'key' if config.keys == 1 else 'keys'}:",
                width,
            )
            yield text(picture, width=width)
            return
