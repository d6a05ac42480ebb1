"""A class for the tests: 30 submissions to lesson 5, from the lessons, their repairs, and what goes wrong in a class.

`python -m tests.teach.handed_in FOLDER` writes them, in Moodle's form.
"""

from __future__ import annotations

import io
import json
import sys
import tokenize
from collections.abc import Collection
from pathlib import Path

from kmutex.teach.lesson import lesson
from tests.teach.test_misleading import GLOBAL, SPINS, WAITS_FOR_ITSELF, _code

REPAIRS = (Path(__file__).parents[1] / "lockers" / "repaired.py").read_text(encoding="utf-8")
LESSON = 5

READS = """\
import pathlib
found = [str(path) for path in pathlib.Path({folder!r}).rglob("*.py")]
if found:
    raise ValueError(f"it sees {{len(found)}} files of others")
"""
"""Put behind a sound locker: it is one only where it can't see the others."""
OUTLIVES = """\
import ctypes, os, time
away, left = os.pipe()
if ctypes.PyDLL(None).fork() == 0:
    ctypes.PyDLL(None).setsid()
    os.write(left, b".")
    time.sleep(1000)
os.read(away, 1)
"""
"""What no hook of Python's sees: a process in a session of its own."""


def repaired(name: str) -> str:
    """The repairs, of which this one is the locker."""
    return f"{REPAIRS.partition('REPAIRED:')[0]}\n\nLocker = {name}\n"


def renamed(code: str) -> str:
    """The same with other names and comments, as a copy has them."""
    others = {"_guard": "_mutex", "_entries": "_table", "entry": "slot", "_locks": "_all", "lock": "one"}
    kept = {"lock", "acquire", "unlock", "release", "Lock"}
    tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    changed = []
    for before, token in zip([None, *tokens], tokens, strict=False):
        text = token.string
        method = before is not None and before.string in ("def", ".")
        if token.type == tokenize.NAME and text in others and not (method and text in kept):
            text = others[text]
        changed.append((token.type, text))
    return "# My own work.\n" + tokenize.untokenize(changed)


def notebook(*cells: str) -> str:
    """A notebook with these code cells, and prose between them."""
    every = [
        cell
        for code in cells
        for cell in (
            {"cell_type": "markdown", "metadata": {}, "source": ["# Thoughts\n"]},
            {"cell_type": "code", "metadata": {}, "outputs": [], "source": code.splitlines(keepends=True)},
        )
    ]
    return json.dumps({"cells": every, "metadata": {"kernelspec": {"language": "python"}}, "nbformat": 4})


def thirty(folder: Path, only: Collection[str] = ()) -> dict[str, tuple[str, str]]:
    """By student: the verdict that is to be ("" where it is not for this lesson to say), and a word that is said.

    Writes them into ``folder``: of these students only, if any are named.
    """
    sound = repaired("Counting")
    files: dict[str, tuple[str, str, str, str]] = {}
    for one in map(lesson, range(1, 10)):
        # As they stand, they are what a class hands in: one mistake mended, the next one made.
        # Barging (7) and a stray unlock (8) are not what lesson 5 asks for.
        broken = one.number not in (7, 8)
        files[f"Lesson {one.number}"] = ("mine.py", one.source, "violated" if broken else "", "")
    for name in ("Counting", "Timed", "Handing", "Leasing"):
        files[f"Repaired {name}"] = (f"my {name.lower()} (final).py", repaired(name), "holds", "")
    files |= {
        "Copies One": ("locker.py", lesson(3).source, "violated", ""),
        "Copies Two": ("l.py", renamed(lesson(3).source), "violated", ""),
        "Note Book": ("Untitled1.ipynb", notebook("%matplotlib inline\n!pip list\n", sound), "holds", ""),
        "Note Broken": ("5.ipynb", notebook(lesson(5).source, "print('done')\n"), "violated", ""),
        "Note Other": ("r.ipynb", json.dumps({"metadata": {"kernelspec": {"language": "R"}}}), "not graded", "in R"),
        "Borrows It": ("mine.py", "from kmutex import KeyedMutex as Locker\n", "not graded", "KeyedMutex from this"),
        "Borrows Base": ("mine.py", "import kmutex\nclass Locker(kmutex.KeyedMutex): pass\n", "not graded", "your own"),
        "Borrows Other": ("mine.py", "from somewhere import Lock as Locker\n", "not graded", "comes from somewhere"),
        "Global Lock": ("mine.py", GLOBAL, "violated", ""),
        "Waits Itself": ("mine.py", WAITS_FOR_ITSELF, "violated", ""),
        "Spins Round": ("mine.py", SPINS, "not graded", "a busy wait"),
        "Sleeps Well": ("mine.py", _code("sleeps"), "inconclusive", "time.sleep"),
        "Reads Others": ("mine.py", sound + READS.format(folder=str(folder)), "holds", ""),
        "Outlives It": ("mine.py", sound + OUTLIVES, "holds", ""),
        "Wrong Syntax": ("mine.py", "class Locker(:\n", "not graded", "not Python"),
        "Wrong Kind": ("mine.py", lesson(12).source, "not graded", "not for the lesson"),
        "No File": ("answer.docx", "", "not graded", "no .py and no .ipynb"),
    }
    files = {student: files[student] for student in only or files}
    for number, (student, (name, code, _, _)) in enumerate(files.items(), 101):
        at = folder / f"{student}_{number}_assignsubmission_file"
        at.mkdir(parents=True)
        (at / name).write_text(code, encoding="utf-8")
    return {
        f"{student}_{number}": (verdict, said)
        for number, (student, (_, _, verdict, said)) in enumerate(files.items(), 101)
    }


if __name__ == "__main__":
    print(len(thirty(Path(sys.argv[1]))), "submissions")
