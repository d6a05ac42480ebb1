"""kmutex lesson: list, show, predict, run, start, notebook, slides.

It asks before it explains: `run` shows what happens, and --answer says why.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.text import Text

from kmutex._console import complain, console, no_folder, write
from kmutex.picture.files import HELP, drawn, unfit

if TYPE_CHECKING:
    from rich.console import Console

    from kmutex.teach.lesson import Lesson

EXIT_STATUS = """\
exit status:
  0  done; predict: the answer is right
  1  predict: the answer is wrong
  2  the run of the lesson was not found, so nothing is shown
  4  usage: no such lesson or answer, or a file that exists already or cannot be written
"""
COLUMNS = 100
"""The most columns of prose."""
LONGEST = 40
"""Of the commands that have their column."""


def add_parser(commands: Any) -> None:
    """Add the command to ``commands``, which `add_subparsers` returned."""
    lesson: argparse.ArgumentParser = commands.add_parser(
        "lesson",
        help="lockers with one mistake each, in order: see the run that shows it, and repair it",
        description=(
            "Lessons in order, from how a run is written to single flights. Each is a small keyed locker with a\n"
            "mistake, a question, and the run that shows the mistake, which the command finds anew each time.\n"
            "docs/lessons.md says how to use them, docs/course.md is for teachers."
        ),
        epilog=EXIT_STATUS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = lesson.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="all lessons, in order").set_defaults(act=_list)
    show = actions.add_parser("show", help="the situation, the code and the question; with --answer, the explanation")
    show.add_argument("number", type=_number, metavar="N", help="or P1, P2: lessons about the proof")
    show.add_argument("--answer", action="store_true", help="explain what happens and why, and what to repair")
    show.add_argument("--hints", action="store_true", help="the exercise and its hints")
    show.set_defaults(act=_show)
    predict = actions.add_parser("predict", help="a question with answers to choose from, each checked by a run")
    predict.add_argument("number", type=int, metavar="N")
    predict.add_argument("--answer", metavar="LETTER", help="a, b, c or d; asked for at a terminal")
    predict.set_defaults(act=_predict)
    play = actions.add_parser("run", help="look for the run that shows the mistake, and draw it")
    play.add_argument("number", type=int, metavar="N")
    play.add_argument("--lines", action="store_true", help="every line of the locker that is executed")
    play.add_argument("--step", action="store_true", help="wait for Enter before each line of the picture")
    play.add_argument("--picture", type=Path, metavar="FILE", help=f"draw it, {HELP}")
    play.set_defaults(act=_run)
    start = actions.add_parser("start", help="write the locker to a new file, to be repaired")
    start.add_argument("number", type=int, metavar="N")
    start.add_argument("file", type=Path, metavar="FILE")
    start.set_defaults(act=_start)
    for name, what in (("notebook", "write a lesson as a notebook"), ("slides", "write lessons as slides, one file")):
        into = actions.add_parser(name, help=what)
        into.add_argument(
            "number", type=_span if name == "slides" else int, metavar="N" if name == "notebook" else "N-M"
        )
        into.add_argument("file", type=Path, metavar="FILE")
        into.set_defaults(act=_notebook if name == "notebook" else _slides)
    lesson.set_defaults(run=run)


def _number(text: str) -> int | str:
    found = re.fullmatch(r"\d+|[Pp]\d+", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a lesson: give a number, or P1")
    return int(text) if text.isdecimal() else text.upper()


def _span(text: str) -> range:
    """Return the numbers of a range of lessons."""
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    numbers = range(0) if found is None else range(int(found[1]), int(found[2] or found[1]) + 1)
    if not numbers:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a lesson nor a range: give N, or N-M in their order")
    return numbers


def run(args: argparse.Namespace) -> int:
    """Run the command; return the exit status."""
    from kmutex.teach.lesson import NoSuchLessonError

    act: Callable[[argparse.Namespace], int] = args.act
    try:
        return act(args)
    except NoSuchLessonError as error:
        return complain(str(error))


def _list(args: argparse.Namespace) -> int:
    from kmutex.teach.lesson import lessons
    from kmutex.teach.missing_part import PUZZLES

    every = lessons()
    wide = max(len(one.title) for one in every)
    for one in every:
        print(f"{one.number:>2}  {one.title:{wide}}  {one.clause:12}  {one.kind}")
    print("\nOf the proof (docs/proof.md), each shown and graded by kmutex prove --lesson N:")
    for puzzle in PUZZLES:
        print(f"P{puzzle.number}  {puzzle.title}")
    print("\nBegin with: kmutex lesson show 0")
    return 0


def _show(args: argparse.Namespace) -> int:
    from kmutex.teach.lesson import lesson

    if isinstance(args.number, str):
        return _show_puzzle(int(args.number[1:]))
    one = lesson(args.number)
    out = console()
    _title(out, one)
    if args.answer or args.hints:
        if args.answer:
            _prose(out, one, "Answer")
            if one.seen:
                out.print(Text(f"The same in the wild: {one.seen} (docs/wild.md)\n", "dim"))
        _prose(out, one, "Exercise")
        if args.hints:
            _prose(out, one, "Hints")
        out.print(Text(f"kmutex lesson start {one.number} FILE", "bold"), "writes the locker for you to repair.")
        return 0
    _prose(out, one, "Situation")
    _code(out, one.source)
    _prose(out, one, "Question")
    out.print("Answer before you look. Then:")
    _ways_on(
        out,
        (f"kmutex lesson predict {one.number}", "has answers to choose from, with a run for each"),
        (f"kmutex lesson run {one.number}", "shows what happens"),
        (f"kmutex lesson show {one.number} --answer", "says why, and what to repair"),
        (f"kmutex lesson show {one.number} --hints", "has the exercise and hints, and not why"),
    )
    return 0


def _show_puzzle(number: int) -> int:
    from kmutex.teach.missing_part import PUZZLES, puzzle

    one = puzzle(number)
    if one is None:
        return complain(f"there is no lesson P{number}; they are P1 to P{len(PUZZLES)}")
    print(f"P{one.number}: {one.title}\n\n{one.situation}\n\n{one.question}\n")
    print(f"kmutex prove --lesson {one.number}    shows the state; with --answer FORMULA the solver grades it")
    return 0


def _predict(args: argparse.Namespace) -> int:
    from kmutex.engine.timeline import timeline
    from kmutex.teach.lesson import lesson, play

    one = lesson(args.number)
    letters = {choice.letter: choice for choice in one.choices}
    out = console()
    width = min(COLUMNS, out.width)
    given = args.answer
    if given is None:
        _title(out, one)
        out.print(Text(textwrap.fill(one.ask, width)))
        out.print()
        for choice in one.choices:
            out.print(Text(textwrap.fill(f"{choice.letter}  {choice.text}", width, subsequent_indent="   ")))
        out.print()
        if not _at_a_terminal():
            _ways_on(out, (f"kmutex lesson predict {one.number} --answer LETTER", "has the run that answers it"))
            return 0
        given = _asked(f"Your answer ({', '.join(letters)}): ")
        if given is None:
            return 0
    choice = letters.get(given.strip().lower())  # type: ignore[assignment]
    if choice is None:
        return complain(f"{given!r} is not an answer to lesson {one.number}; they are {', '.join(letters)}")
    out.print(Text("Right." if choice.right else "No.", "bold green" if choice.right else "bold red"))
    out.print(Text(textwrap.fill(f"{choice.letter}  {choice.text}", width, subsequent_indent="   "), "dim"))
    out.print()
    out.print(Text(timeline(play(choice))), soft_wrap=True)
    out.print()
    out.print(Text(textwrap.fill(choice.reply, width)))
    return 0 if choice.right else 1


def _run(args: argparse.Namespace) -> int:
    from kmutex.engine.timeline import picture as drawing
    from kmutex.engine.timeline import timeline
    from kmutex.teach.lesson import NotFoundError, find, lesson

    if fault := unfit(args.picture) or no_folder((args.picture,)):
        return complain(fault)
    one = lesson(args.number)
    out = console()
    _title(out, one)
    _prose(out, one, "Question")
    asked = _at_a_terminal()
    if asked and not _enter("Your answer first; then Enter. "):
        return 0
    try:
        found = find(one)
    except NotFoundError as error:
        return complain(str(error), status=2)
    if args.picture is not None:
        shown = drawing(found.events if args.lines else found.short)
        if fault := write(((args.picture, lambda: drawn(shown, args.picture)),)):
            return complain(fault)
    out.print(Text(f"Tried {found.runs} schedule{'s' * (found.runs > 1)}. This one breaks {one.clause}:"))
    out.print()
    again = "" if one.by else f" --replay {shlex.quote(str(found.schedule))}"
    page = f"kmutex show {one.target}{one.options} -o page.html{again}"
    stepped = [(page, "steps through it in a browser, beside the model")] if again else []
    picture = timeline(found.events if args.lines else found.short, most=1000).splitlines()
    for line in picture:
        verdict = line.startswith(">>")
        out.print(Text(line, style="bold red" if verdict else ""), soft_wrap=True, end="")
        # At a terminal, the user's Enter ends the line.
        if not (args.step and asked):
            out.print()
        elif not _enter(""):
            return 0
    out.print()
    out.print(Text("A number is a line of the code, at which that client is while others run.", "dim"))
    out.print()
    _ways_on(
        out,
        (f"kmutex lesson show {one.number} --answer", "says why, and what to repair"),
        (f"kmutex lesson run {one.number} --lines", "every line that was executed"),
        (f"kmutex verify {one.target}{one.options}{again}", "replays it" if again else "has it among others"),
        *stepped,
    )
    return 0


def _start(args: argparse.Namespace) -> int:
    from kmutex.teach.lesson import lesson
    from kmutex.teach.submission import SubmissionError, module_of

    one = lesson(args.number)
    path = str(args.file)
    # A path may begin with a hyphen.
    grade = f"kmutex grade {shlex.quote(f'./{path}' if path.startswith('-') else path)} --lesson {one.number}"
    try:
        module_of(args.file)
    except SubmissionError as error:
        return complain(str(error))
    if fault := _written(args.file, one.source):
        return complain(fault)
    out = console()
    _prose(out, one, "Exercise")
    out.print("The locker is in", Text(f"{args.file}.", "bold"), "When you have repaired it:", soft_wrap=True)
    out.print(Text(f"  {grade}", "bold"), soft_wrap=True)
    return 0


def _notebook(args: argparse.Namespace) -> int:
    from kmutex.teach.lesson import lesson
    from kmutex.teach.notebook import notebook

    fault = _written(args.file, notebook(lesson(args.number)))
    return complain(fault) if fault else 0


def _slides(args: argparse.Namespace) -> int:
    from kmutex.teach.lesson import lesson
    from kmutex.teach.slides import slides

    fault = _written(args.file, slides([lesson(number) for number in args.number]))
    return complain(fault) if fault else 0


def _written(path: Path, text: str) -> str:
    """Write a new file; return an error message, or ""."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return f"{path}: exists already, and was not changed"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return ""


def _at_a_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _enter(prompt: str) -> bool:
    """Wait for Enter; return False at the end of the input."""
    return _asked(prompt) is not None


def _asked(prompt: str) -> str | None:
    """Return a line of the input; None at its end."""
    try:
        return input(prompt)
    except EOFError:
        print()
        return None


def _title(out: Console, one: Lesson) -> None:
    out.print(Text(f"Lesson {one.number}: {one.title}", "bold"))
    out.print()


def _prose(out: Console, one: Lesson, part: str) -> None:
    out.print(Text(part, "bold cyan"))
    width = min(COLUMNS, out.width)
    for block in re.split(r"\n\n|\n(?=- )", one.parts[part]):
        item = block.startswith("- ")
        out.print(Text(textwrap.fill(" ".join(block.split()), width, subsequent_indent="  " if item else "")))
        if not item:
            out.print()
    if item:
        out.print()


def _code(out: Console, source: str) -> None:
    out.print(Text("The code", "bold cyan"))
    for number, line in enumerate(source.splitlines(), 1):
        out.print(Text(f"{number:>4}  ", "dim") + Text(line), soft_wrap=True)
    out.print()


def _ways_on(out: Console, *ways: tuple[str, str]) -> None:
    """What can be called next; a command that is too long for the column stands below what it does."""
    wide = max(len(command) for command, _ in ways if len(command) <= LONGEST)
    for command, what in ways:
        out.print(
            Text(f"  {what}:" if len(command) > wide else "", "dim"), soft_wrap=True, end="\n" * (len(command) > wide)
        )
        out.print(
            Text(f"  {command:{wide}}", "bold") + Text(f"   {what}" * (len(command) <= wide), "dim"), soft_wrap=True
        )
