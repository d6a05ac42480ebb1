"""A lesson as a notebook, made from the lesson's two files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from kmutex.teach.lesson import Lesson

SECONDS = 10
"""The time limit for `kmutex grade` in the last cell."""

_HELPER = """\
import subprocess
import sys


def kmutex(*words):
    \"\"\"Run the command, and show what it says.\"\"\"
    done = subprocess.run([sys.executable, "-m", "kmutex", *words], capture_output=True, text=True)
    print(done.stdout + done.stderr)\
"""


def file_of(one: Lesson) -> str:
    """Return the name of the file that the cell with the locker writes."""
    return f"my_lesson_{one.number:02}.py"


def notebook(one: Lesson) -> str:
    """Return the lesson as a notebook of format 4.5. It needs IPython's kernel, with kmutex installed."""
    cells = [_cell(number, kind, text) for number, (kind, text) in enumerate(_cells(one))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    body = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def choices(one: Lesson) -> str:
    """Return the question with its answers, in Markdown."""
    return "\n".join([one.ask, "", *(f"- **{choice.letter}** {choice.text}" for choice in one.choices)])


def folded(head: str, text: str) -> str:
    """Return Markdown that is hidden until its head is clicked."""
    return f"<details><summary>{head}</summary>\n\n{text}\n\n</details>"


def _cells(one: Lesson) -> Iterator[tuple[str, str]]:
    number, picture = str(one.number), f"lesson_{one.number:02}.svg"
    parts = one.parts
    yield "markdown", f"# Lesson {number}: {one.title}\n\n{parts['Situation']}"
    yield "code", _HELPER
    yield "markdown", "The locker. Running the cell writes it to a file. You will repair it here."
    yield "code", f"%%writefile {file_of(one)}\n{one.source.rstrip()}"
    yield "markdown", f"## Question\n\n{parts['Question']}"
    yield "markdown", f"## Predict\n\n{choices(one)}\n\nPut your letter between the quotes. The run answers."
    yield "code", f'answer = ""\nkmutex("lesson", "predict", "{number}", *(["--answer", answer] if answer else []))'
    yield "markdown", "The run that shows the mistake, looked for just now:"
    run = f'kmutex("lesson", "run", "{number}", "--picture", "{picture}")'
    yield "code", f'from IPython.display import SVG\n\n{run}\nSVG("{picture}")'
    yield "markdown", folded("What happened, and why", parts["Answer"])
    yield "markdown", f"## Exercise\n\n{parts['Exercise']}\n\n{folded('Hints', parts['Hints'])}"
    yield "markdown", "Repair the locker in its cell, run that, and then this one:"
    yield "code", f'kmutex("grade", "{file_of(one)}", "--lesson", "{number}", "--seconds", "{SECONDS}", "--quiet")'


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": text}
    return cell if kind == "markdown" else {**cell, "execution_count": None, "outputs": []}
