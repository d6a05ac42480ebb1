"""A log from a stream of bytes through the checker, one line in memory at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import BinaryIO

from kmutex.trace.check import MOST_LIVE, Checker, LogReport
from kmutex.trace.events import LONGEST, TraceFormatError, read_event, read_header

EVERY = 20_000
"""Lines between two calls of `on_progress`."""


def check(
    stream: BinaryIO,
    *,
    on_progress: Callable[[int, Checker], None] | None = None,
    most_live: int = MOST_LIVE,
) -> LogReport:
    """Judge the log that ``stream`` gives.

    on_progress: told now and then, with the number of lines. most_live: see `Checker`.
    TraceFormatError: it is no log, or has a line that is none. OSError: it can't be read.
    """
    try:
        first = _line(stream, 1)
    except EOFError:
        first = b""
    if not first:
        raise TraceFormatError(1, 'the file is empty; a trace starts with {"trace": 1, "recorded": "outside"}')
    header = read_header(first)
    checker = Checker(header, most_live=most_live)
    number = 1
    while not checker.stopped:
        number += 1
        try:
            raw = _line(stream, number)
        except EOFError:
            checker.truncated(number)
            break
        if not raw:
            break
        try:
            event = read_event(number, raw, header.recorded)
        except TraceFormatError:
            if raw.endswith(b"\n") or len(raw) > LONGEST:
                raise
            # The last line, and without its end: whoever wrote it was stopped.
            checker.truncated(number)
            break
        checker.feed(event)
        if on_progress is not None and number % EVERY == 0:
            on_progress(number, checker)
    return checker.report()


def _line(stream: BinaryIO, number: int) -> bytes:
    try:
        return stream.readline(LONGEST + 1)
    except zlib.error as error:
        raise TraceFormatError(number, f"the compressed file is damaged: {error}") from None
