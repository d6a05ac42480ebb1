"""The lines of a trace: specs/trace.md is their page. Reading one line gives an event or says what is wrong with it."""

from __future__ import annotations

import json
import math
from typing import Any, Literal, NamedTuple, cast, get_args

Recorded = Literal["outside", "inside"]
Starts = Literal["idle", "running"]
Kind = Literal["request", "waiting", "grant", "fail", "release", "released", "unheld", "end"]
Why = Literal["", "timeout", "cancelled", "error"]
Call = str | int

VERSION = 1
LONGEST = 65_536
"""The most bytes of a line, its end included."""
KINDS: dict[Recorded, frozenset[str]] = {
    "outside": frozenset(get_args(Kind)),
    "inside": frozenset(get_args(Kind)) - {"waiting", "released"},
}
_REASONS = ("timeout", "cancelled", "error")


class TraceFormatError(ValueError):
    """The line is not one of a trace. Its words have the number of the line and what to do."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class Header(NamedTuple):
    """The first line. starts: whether the locker was idle when the log began."""

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
    """Of a request: the seconds that it may take, where they were recorded."""
    lease: bool = False
    """Of a release: it was to end the grant of its own call only."""
    refs: int | None = None
    """Inside: the references of the key after the step."""
    keys: int | None = None
    """Of the end: how many entries the locker still had."""
    at: float | None = None
    number: int | None = None


def read_header(raw: bytes) -> Header:
    """The first line of a trace. TraceFormatError: it is none."""
    value = _object(1, raw, 'a trace starts with {"trace": 1, "recorded": "outside"} or "inside"')
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


def read_event(line: int, raw: bytes, recorded: Recorded) -> LogEvent:
    """A line after the first. TraceFormatError: it is no event of a log that was recorded so."""
    value = _object(line, raw, "every line is one JSON object")
    kind = value.get("event")
    if not isinstance(kind, str) or kind not in KINDS[recorded]:
        raise TraceFormatError(line, f'"event" must be one of {", ".join(sorted(KINDS[recorded]))} ({recorded})')
    at, number = value.get("at"), value.get("n")
    if at is not None and not _is_number(at):
        raise TraceFormatError(line, '"at" must be a finite number of seconds')
    if number is not None and not _is_count(number):
        raise TraceFormatError(line, '"n" must be a whole number from 0')
    if kind == "end":
        keys = value.get("keys")
        if keys is not None and not _is_count(keys):
            raise TraceFormatError(line, '"keys" must be a whole number from 0')
        return LogEvent(line, "end", keys=keys, at=at, number=number)
    key, call = value.get("key"), value.get("call")
    if type(key) is not str:
        raise TraceFormatError(line, '"key" must be text')
    if type(call) is not str and type(call) is not int:
        raise TraceFormatError(line, '"call" must be text or a whole number')
    timeout, lease, refs = value.get("timeout"), value.get("lease", False), value.get("refs")
    why: object = ""
    if timeout is not None and not (_is_number(timeout) and timeout >= 0):
        raise TraceFormatError(line, '"timeout" must be a number of seconds from 0')
    if type(lease) is not bool:
        raise TraceFormatError(line, '"lease" must be true or false')
    if refs is not None and type(refs) is not int:
        raise TraceFormatError(line, '"refs" must be a whole number')
    if kind == "fail":
        why = value.get("why")
        if why not in _REASONS:
            raise TraceFormatError(line, f'the "why" of a fail must be one of {", ".join(_REASONS)}')
    return LogEvent(line, cast(Kind, kind), key, call, cast(Why, why), timeout, lease, refs, None, at, number)


def _object(line: int, raw: bytes, otherwise: str) -> dict[str, Any]:
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
