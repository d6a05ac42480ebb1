"""What stands under "examples:" in the help of each command: command lines and what they do."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator

EXAMPLES = {
    "": [
        ("kmutex verify mypackage.locks:MyLocker", "check a lock of yours"),
        ("kmutex explain KM-REF", "say what a clause means"),
        ("kmutex verify --help", "what a command takes, with examples"),
    ],
    "verify": [
        ("kmutex verify mypackage.locks:MyLocker", "a class, a function, or an object"),
        ("kmutex verify 'mypackage.locks:Locks(maxsize=3)'", "a call that makes one"),
        ("kmutex verify mypackage.locks:Door --call lock=knock,unlock=slam", "calls of other names"),
        ("kmutex verify mypackage.locks:MyLocker --runs 20 --with fifo", "the same work on any machine; order counts"),
        ("kmutex verify mypackage.locks:MyLocker --replay '0+a | 1+a | 0-a @locks'", "one run again"),
        ("kmutex verify --format github --junit locks.xml", "in CI, the lockers of pyproject.toml"),
    ],
    "prove": [
        ("kmutex prove", "every clause of the model"),
        ("kmutex prove mytable.py", "a lock of your own"),
        ("kmutex prove --known-bad evicts_with_waiters --picture run.svg", "a broken model, and its run"),
        ("kmutex prove --lesson 1", "find the missing part"),
    ],
    "conform": [
        ("kmutex conform -- ./adapter", "the whole kit"),
        ("kmutex conform --run KM-RACE --repeat 20 -- node adapter.js", "one clause, each case 20 times"),
        ("kmutex conform --case 0+a/1+a/ua,c1 -- ./adapter", "one case, as a report names it"),
        ("kmutex conform --known-failures known.txt --junit port.xml -- ./adapter", "in CI"),
    ],
    "check-trace": [
        ("kmutex check-trace locks.ndjson", "a log that a StepLog or a Recorder wrote"),
        ("kmutex check-trace locks.ndjson.gz --picture first.svg", "draw its first violation"),
    ],
    "show": [
        ("kmutex show mypackage.locks:MyLocker -o page.html", "look for a run that breaks a clause"),
        ("kmutex show mypackage.locks:MyLocker -o run.html --replay '0+a 1+a @locks'", "this run"),
    ],
    "explain": [
        ("kmutex explain", "every clause and its title"),
        ("kmutex explain KM-REF", "what it says, how to keep it, and a run that breaks it"),
        ("kmutex explain ref", "the same"),
    ],
    "explore": [("kmutex explore -o explore.html", "then open it in a browser")],
    "lesson": [
        ("kmutex lesson list", "all lessons"),
        ("kmutex lesson show 0", "how a run is written"),
    ],
    "lesson list": [("kmutex lesson list", "number, title, clause, threads or asyncio")],
    "lesson show": [
        ("kmutex lesson show 3", "a locker with a mistake, and a question"),
        ("kmutex lesson show 3 --answer", "and why"),
    ],
    "lesson predict": [
        ("kmutex lesson predict 3", "the question, and answers to choose from"),
        ("kmutex lesson predict 3 --answer c", "hold this one against a run"),
    ],
    "lesson run": [
        ("kmutex lesson run 3", "the run that shows the mistake"),
        ("kmutex lesson run 3 --picture run.svg", "draw it"),
    ],
    "lesson start": [("kmutex lesson start 3 mine.py", "then repair it, and: kmutex grade mine.py --lesson 3")],
    "lesson notebook": [("kmutex lesson notebook 3 lesson3.ipynb", "for Jupyter")],
    "lesson slides": [("kmutex lesson slides 0-6 first.html", "lessons 0 to 6")],
    "grade": [
        ("kmutex grade mine.py --lesson 3", "a repaired locker"),
        ("kmutex grade --tests test_mine.py", "tests: do they catch the broken lockers?"),
        ("kmutex grade handed_in --lesson 3 --out grades", "a class, each in a container"),
    ],
    "completion": [
        ("kmutex completion bash > ~/.local/share/bash-completion/completions/kmutex", "for each new bash"),
        ("kmutex completion zsh > ~/.zfunc/_kmutex", "with ~/.zfunc in fpath, before compinit"),
        ("kmutex completion fish > ~/.config/fish/completions/kmutex.fish", "for each new fish"),
    ],
}
"""By command: a line for a shell, and what it does. A test gives each line to the parser, and runs what is quick."""
WIDTH = 79
"""What is written by hand around the options is wrapped to this; argparse wraps the options themselves."""


def parsers(parser: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The parser and those of its commands, each with its name: "", "lesson", "lesson show"."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, inner in action.choices.items():
                yield from parsers(inner, f"{name} {command}".strip())


def add_examples(parser: argparse.ArgumentParser) -> None:
    """Put the examples of each command first in what follows its options."""
    for name, one in parsers(parser):
        shown = "\n".join(f"  {line}\n      {said}" for line, said in EXAMPLES[name])
        one.epilog = f"examples:\n{shown}\n" + (f"\n{_hanging(one.epilog)}" if one.epilog else "")
        one.description = one.description and textwrap.fill(one.description, WIDTH, break_on_hyphens=False)
        one.formatter_class = argparse.RawDescriptionHelpFormatter


def _hanging(table: str) -> str:
    """Wrap each line, and go on below the beginning of its last column."""
    lines = []
    for line in table.splitlines():
        columns = re.match(r" *\S+ {2,}", line)
        indent = " " * (columns.end() if columns else 0)
        lines += textwrap.wrap(line, WIDTH, subsequent_indent=indent, break_on_hyphens=False) or [""]
    return "\n".join(lines)
