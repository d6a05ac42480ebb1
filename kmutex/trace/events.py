"""The lines of a trace, as specs/trace.md describes them. Reading a line gives an event or an error message."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, Literal, NamedTuple, cast, get_args

Recorded = Literal["outside", "inside"]
Starts = Literal["idle", "running"]
Kind = Literal["request", "waiting", "grant", "fail", "kept", "release", "released", "unheld", "end"]
Why = Literal["", "timeout", "refused", "cancelled", "interrupted", "error"]
Call = str | int

VERSION = 1
_LARGEST = sys.float_info.max
LONGEST = 65_536
"""The most bytes of a line, its end included."""
KINDS: dict[Recorded, frozenset[str]] = {
    "outside": frozenset(get_args(Kind)) - {"kept"},
    "inside": frozenset(get_args(Kind)) - {"waiting", "released"},
}
_REASONS = get_args(Why)[1:]
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
"""The byte order marks of another encoding. That of UTF-8 is allowed at the beginning, and is dropped."""


class TraceFormatError(ValueError):
    """The line is not a line of a trace. The message has the number of the line, and what to do."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class Header(NamedTuple):
    """The first line. ``starts`` tells whether the locker was idle when the log began."""

    recorded: Recorded
    starts: Starts


class LogEvent(NamedTuple):
    """One line after the first. `key` and `call` are empty for "end" only."""

    line: int
    kind: Kind
    key: str = ""
    call: Call = ""
    why: Why = ""
    timeout: float | None = None
    """Of a request: its timeout in seconds, if recorded."""
    lease: bool = False
    """Of a release: whether it was by a lease, which ends its own grant only."""
    refs: int | None = None
    """Inside: the references of the key after the step."""
    keys: int | None = None
    """Of the last line: how many entries the locker still had."""
    at: float | None = None
    number: int | None = None
    holder: Call | None = None
    """Inside: the holder of the key after the step; None if there is no holder, or it was not recorded."""
    several: int | None = None
    """Of a request: how many keys its call asks for together."""
    loop: int | str | None = None
    """The event loop of the step."""


def read_header(raw: bytes) -> Header:
    """Parse the first line of a trace.

    Raises:
        TraceFormatError: It is not a header.
    """
    if raw.startswith(_UTF_16):
        raise TraceFormatError(1, "not UTF-8 text but UTF-16, by its byte order mark; write it as UTF-8")
    value = read_object(
        1, raw.removeprefix(b"\xef\xbb\xbf"), 'a trace starts with {"trace": 1, "recorded": "outside"} or "inside"'
    )
    version = value.get("trace")
    if type(version) is not int:
        raise TraceFormatError(1, 'no header; a trace starts with {"trace": 1, "recorded": "outside"} or "inside"')
    if version != VERSION:
        raise TraceFormatError(1, f"trace {version}, and this kmutex reads trace {VERSION}")
    recorded, starts = value.get("recorded"), value.get("starts", "idle")
    if recorded not in get_args(Recorded):
        raise TraceFormatError(1, '"recorded" must be "outside" or "inside"')
    if starts not in get_args(Starts):
        raise TraceFormatError(1, '"starts" must be "idle" or "running"')
    return Header(cast(Recorded, recorded), cast(Starts, starts))


def read_event(line: int, value: dict[str, Any], recorded: Recorded) -> LogEvent:
    """Parse a line after the first, from the result of `read_object`.

    Raises:
        TraceFormatError: It is not an event of this kind of log.
    """
    get = value.get
    kind, at, number = get("event"), get("at"), get("n")
    if not isinstance(kind, str) or kind not in KINDS[recorded]:
        raise TraceFormatError(line, f'"event" must be one of {", ".join(sorted(KINDS[recorded]))} ({recorded})')
    # Most numbers are right, and one call less matters in a loop of millions.
    if at is not None and not (type(at) is float and -_LARGEST <= at <= _LARGEST) and not _is_number(at):
        raise TraceFormatError(line, '"at" must be a finite number of seconds')
    if number is not None and not (type(number) is int and number >= 0):
        raise TraceFormatError(line, '"n" must be a whole number from 0')
    if kind == "end":
        keys = get("keys")
        if keys is not None and not _is_count(keys):
            raise TraceFormatError(line, '"keys" must be a whole number from 0')
        return LogEvent(line, "end", keys=keys, at=at, number=number)
    key, call, refs, holder = get("key"), get("call"), get("refs"), get("holder")
    if type(key) is not str:
        raise TraceFormatError(line, '"key" must be text')
    if type(call) is not int and type(call) is not str:
        raise TraceFormatError(line, '"call" must be text or a whole number')
    if refs is not None and type(refs) is not int:
        raise TraceFormatError(line, '"refs" must be a whole number')
    if holder is not None and type(holder) is not int and type(holder) is not str:
        raise TraceFormatError(line, '"holder" must be text or a whole number, the name of a call')
    why: object = ""
    if kind == "fail":
        why = get("why")
        if why not in _REASONS:
            raise TraceFormatError(line, f'the "why" of a fail must be one of {", ".join(_REASONS)}')
    timeout, lease, several, loop = get("timeout"), get("lease", False), get("all"), get("loop")
    if timeout is not None and not (_is_number(timeout) and timeout >= 0):
        raise TraceFormatError(line, '"timeout" must be a number of seconds from 0')
    if lease is not False and lease is not True:
        raise TraceFormatError(line, '"lease" must be true or false')
    if several is not None and not (_is_count(several) and several):
        raise TraceFormatError(line, '"all" must be a whole number from 1')
    if loop is not None and type(loop) is not int and type(loop) is not str:
        raise TraceFormatError(line, '"loop" must be text or a whole number')
    # Not by calling the class: making the tuple like this costs half.
    fields = (line, kind, key, call, why, timeout, lease, refs, None, at, number, holder, several, loop)
    return tuple.__new__(LogEvent, fields)


def read_objects(raw: bytes, lines: int) -> list[dict[str, Any]] | None:
    """Parse many whole lines at once, in a fraction of the time.

    Args:
        raw: The lines.
        lines: Their number.

    Returns:
        None if they must be parsed one by one: a line is not an object, or has an object within.
    """
    # With as many braces as lines, and one at the beginning of each, no line can hold two objects, or a part of one.
    if raw.count(b"{") != lines or raw.count(b"\n{") != lines - 1 or not raw.startswith(b"{"):
        return None
    try:
        values: list[dict[str, Any]] = json.loads(b"[" + raw[:-1].replace(b"\n", b"\n,") + b"]")
    except (ValueError, RecursionError):
        return None
    return values if len(values) == lines and all(type(value) is dict for value in values) else None


def read_object(line: int, raw: bytes, otherwise: str = "every line is one JSON object") -> dict[str, Any]:
    """Parse one line.

    Raises:
        TraceFormatError: It is not a JSON object. The message says what it should be, by ``otherwise``.
    """
    if len(raw) > LONGEST:
        raise TraceFormatError(line, f"longer than {LONGEST} bytes")
    try:
        value = json.loads(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise TraceFormatError(line, f"not UTF-8 text; {otherwise}") from None
    except (ValueError, RecursionError):
        raise TraceFormatError(line, f"not JSON; {otherwise}") from None
    if type(value) is not dict:
        raise TraceFormatError(line, f"not a JSON object; {otherwise}")
    return value


def _is_number(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 1 << 1023
    return type(value) is float and math.isfinite(value)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0
