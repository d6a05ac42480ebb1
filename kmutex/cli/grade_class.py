"""kmutex grade FOLDER: a class. The checks before it, the progress lines, and the table at its end."""

from __future__ import annotations

import argparse
import ast
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from kmutex._console import complain, console, shown

if TYPE_CHECKING:
    from kmutex.teach.class_report import Marked
    from kmutex.teach.container import Container
    from kmutex.teach.grade_class import Asked, Record
    from kmutex.teach.lesson import Lesson
    from kmutex.teach.points import Scheme

STYLE = {"holds": "green", "pass": "green", "violated": "bold red", "not yet": "bold red"}


def is_class(text: str) -> bool:
    """Return whether this is a class, not the file of one learner."""
    return Path(text).is_dir() or text.lower().endswith(".zip")


def run(args: argparse.Namespace, one: Lesson | None, without: tuple[str, ...], by: Scheme) -> int:
    """Grade a class; return 0 if each submission was graded, 3 if one could not be, or no container works here."""
    from kmutex.teach.alike import alike, groups
    from kmutex.teach.class_report import marked, written
    from kmutex.teach.container import NEEDED, TRUSTED, find
    from kmutex.teach.grade_class import Asked, grade_class
    from kmutex.teach.handed_in import HandedInError, by_student

    source, out = Path(args.file), args.out
    try:
        class_, ignored = by_student(source, args.assignment or "")
    except HandedInError as error:
        return complain(str(error))
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        return complain(f"{out}: write it outside {source}, of which each submission is a part: --out FOLDER")
    try:
        out.mkdir(exist_ok=True)
    except OSError as error:
        return complain(f"{out}: {error.strerror}")
    with shown(quiet=args.quiet) as display:
        display.say("looking for a container that works")
        container, reasons = (TRUSTED, []) if args.trust else find([source, out])
        if container is None:
            return complain(f"no container works here, so nothing was run: {'; '.join(reasons)}; {NEEDED}", status=3)
        asked = Asked(args.lesson, args.tests, without, args.quick, args.seconds, args.memory)
        done: list[Record] = []
        old = 0

        def tell(record: Record, kept: bool) -> None:
            nonlocal old
            done.append(record)
            old += kept
            display.say(f"{len(done)} of {len(class_)}: {record.student}: {record.verdict}")

        begun = time.monotonic()
        records = grade_class(class_, asked, container, out / "kept", jobs=args.jobs, again=args.again, on_record=tell)
        minutes = (time.monotonic() - begun) / 60
    graded = [marked(record, by) for record in records]
    code = {record.student: record.source for record in records if _is_code(record.source)}
    pairs, short = alike(code, one.source if one is not None and not args.tests else "")
    try:
        for name, text in written(graded, asked, pairs, short, ignored).items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        return complain(f"{out}: {error.strerror}")
    _answer(graded, asked, container, out)
    screen = console()
    for names, least in groups(pairs):
        screen.print(f"alike, {least:.0%} or more: {', '.join(names)}", markup=False, soft_wrap=True)
    if short:
        screen.print(f"too short to compare: {', '.join(short)}", markup=False, soft_wrap=True)
    if ignored:
        screen.print(f"nobody's: {', '.join(ignored)}", markup=False, soft_wrap=True)
    verdicts = ", ".join(f"{number} {name}" for name, number in Counter(r.verdict for r in records).most_common())
    taken = f", {old} of them kept from before" if old else ""
    screen.print(f"{len(records)} submissions in {minutes:.1f} minutes{taken}: {verdicts}", soft_wrap=True)
    return 3 if any(record.exit == 3 for record in records) else 0


def _answer(graded: list[Marked], asked: Asked, container: Container, out: Path) -> None:
    screen = console()
    table = Table(pad_edge=False, box=SIMPLE_HEAD)
    for name in ("student", "file", "verdict", "points", "s", ""):
        table.add_column(name, overflow="fold", justify="right" if name in ("points", "s") else "left")
    for one in graded:
        record = one.record
        said = [record.reason, " ".join(one.grade.get("violated", ())), *one.grade.get("notes", ())]
        said += [f"not decided: {' '.join(one.open)}"] if one.open else []
        said += ["late"] if record.late else []
        verdict = Text(record.verdict, STYLE.get(record.verdict, "yellow"))
        more = Text("; ".join(text for text in said if text))
        table.add_row(Text(record.student), Text(record.file), verdict, f"{one.score:g}", f"{record.seconds:.0f}", more)
    screen.print(table)
    # What was left out depends on the mode, and is the same for lockers of one shape.
    for line in dict.fromkeys(line for one in graded for line in one.grade.get("left_out", ())):
        screen.print(f"left out: {line}", style="dim", markup=False, soft_wrap=True)
    where = "with the rights of this user" if container.name == "none" else f"each in a container ({container.name})"
    screen.print(f"run {where}; the report is in {out}", style="dim", markup=False, soft_wrap=True)


def _is_code(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return bool(source)
