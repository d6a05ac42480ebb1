"""The process that grades one submission of a class, perhaps in a container. It writes lines of JSON."""

from __future__ import annotations

import _thread
import json
import os
import threading
from pathlib import Path
from typing import Any

from kmutex._sandbox import argument, end_with
from kmutex.teach.grade import QUICK, WHOLE, BorrowedError, LacksError, WrongKindError, body, grade
from kmutex.teach.grade_tests import TestsFailedError, grade_tests, tests_body
from kmutex.teach.lesson import lesson
from kmutex.teach.submission import Submission, SubmissionError, UnreadableError
from kmutex.verify.runner import SubjectError

REFUSED = (BorrowedError, LacksError, SubjectError, SubmissionError, TestsFailedError, UnreadableError, WrongKindError)
"""Errors that are reported in one line in place of a grade."""


def main() -> None:
    """Grade it and say how. `argument`: folder, file, factory ("" for tests), lesson, without, quick, seconds,
    megabytes, limit (real seconds for it all), parent, and alone where that is another system's process."""
    config = argument()
    if not config.get("alone"):
        _thread.start_new_thread(end_with, (config["parent"],))
    # The parent may have ended, and a Docker container would keep running.
    overdue = threading.Timer(config["limit"], os._exit, (1,))
    overdue.daemon = True
    overdue.start()
    os.chdir(config["folder"])
    try:
        answer: dict[str, Any] = {"grade": _grade(config)}
    except REFUSED as error:
        answer = {"refused": str(error)}
    print(json.dumps(answer), flush=True)


def _grade(config: dict[str, Any]) -> dict[str, Any]:
    path, seconds, megabytes = Path(config["file"]), config["seconds"], config["megabytes"]
    one = None if config["lesson"] is None else lesson(config["lesson"])
    if not config["factory"]:
        return tests_body(path, grade_tests(path, seconds=seconds, megabytes=megabytes, chosen=one))
    handed_in = Submission(path, path.stem, config["factory"])
    without = tuple(config["without"])
    result = grade(
        handed_in,
        one,
        without=without,
        seconds=seconds,
        megabytes=megabytes,
        how=QUICK if config["quick"] else WHOLE,
        workers=1,
    )
    return body(handed_in, one, without, result)
