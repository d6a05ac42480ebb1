"""Read a log from a stream of bytes into the checker, one block of lines at a time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from kmutex.trace.check import MOST_LIVE, Checker, LogReport
from kmutex.trace.events import LONGEST, TraceFormatError, read_event, read_header, read_object, read_objects

EVERY = 20_000
"""The number of lines between two calls of `on_progress`."""
BLOCK = 4096
"""The bytes that are read and parsed at once. With more, the objects outgrow the processor's caches: half as fast."""


class Stream(Protocol):
    """A binary file, open for reading."""

    def read1(self, size: int, /) -> bytes: ...


def check(
    stream: Stream,
    *,
    on_progress: Callable[[int, Checker], None] | None = None,
    most_live: int = MOST_LIVE,
) -> LogReport:
    """Judge the log in a stream.

    Args:
        stream: The log.
        on_progress: Called now and then with the number of lines, and with the checker.
        most_live: As for `Checker`.

    Raises:
        TraceFormatError: It is not a log, or has a wrong line.
        OSError: It can't be read.
    """
    blocks = _Blocks(stream)
    first = blocks.line()
    if not first:
        raise TraceFormatError(1, 'the file is empty; a trace starts with {"trace": 1, "recorded": "outside"}')
    header = read_header(first)
    checker = Checker(header, most_live=most_live)
    feed, recorded = checker.feed, header.recorded
    number = 1
    for value in blocks.objects():
        number += 1
        feed(read_event(number, value, recorded))
        if number % EVERY == 0 and on_progress is not None:
            on_progress(number, checker)
        if checker.stopped:
            break
    else:
        if blocks.cut_off:
            checker.truncated(number + 1)
    return checker.report()


class _Blocks:
    """The lines of a stream, read in blocks."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._rest = b""
        """Bytes that were read and not returned yet."""
        self._number = 0
        """The number of lines that were returned."""
        self.cut_off = False
        """Whether the last line is incomplete; it is then not returned."""

    def line(self) -> bytes:
        """Return the next line, with its end if it has one; empty at the end."""
        while b"\n" not in self._rest and len(self._rest) <= LONGEST and self._more():
            pass
        end = self._rest.find(b"\n") + 1 or len(self._rest)
        line, self._rest = self._rest[:end], self._rest[end:]
        self._number += bool(line)
        return line

    def objects(self) -> Iterator[dict[str, Any]]:
        """Yield each line from here on as an object; raise TraceFormatError if it is not one."""
        more = True
        while more:
            end = self._rest.rfind(b"\n") + 1
            if end:
                block, self._rest = self._rest[:end], self._rest[end:]
                lines = block.count(b"\n")
                # Only the first line can be longer than a block.
                values = read_objects(block, lines) if block.find(b"\n") < LONGEST else None
                if values is not None:
                    self._number += lines
                    yield from values
                else:
                    for raw in block[:-1].split(b"\n"):
                        self._number += 1
                        yield read_object(self._number, raw + b"\n")
            elif len(self._rest) > LONGEST:
                raise TraceFormatError(self._number + 1, f"longer than {LONGEST} bytes")
            more = self._more()
        if self._rest and not self.cut_off:
            # Without its end. It counts if it is whole; else its writer was stopped.
            try:
                yield read_object(self._number + 1, self._rest)
            except TraceFormatError:
                self.cut_off = True

    def _more(self) -> bool:
        try:
            block = self._stream.read1(BLOCK)
        except EOFError:  # Compressed, and breaks off.
            self.cut_off = True
            return False
        except zlib.error as error:
            raise TraceFormatError(self._number + 1, f"the compressed file is damaged: {error}") from None
        self._rest += block
        return bool(block)
