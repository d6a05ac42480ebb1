"""What the judges of a key share: how they say what they found, and what they count."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kmutex.trace.events import Call, LogEvent, Why

REMEMBERED = 4096
"""How many of the calls that failed last are known by name, in the whole log."""


class BrokenAt(NamedTuple):
    """A broken clause: the line that no correct locker can have written, whose call it is, and why."""

    clause: str
    line: int
    call: Call
    message: str


class GapError(Exception):
    """The line fits no line before it: the log has lost some, or began while the system ran."""


class Left(NamedTuple):
    """A call that is under way. clause: the one that it breaks if the log ends here."""

    call: Call
    clause: str
    what: str


class Several:
    """A call that asks for several keys at once, from its first request until it has none of them any more."""

    __slots__ = ("ended", "failed", "granted", "keys", "line", "requests")

    def __init__(self, line: int, keys: int) -> None:
        self.line = line
        """That of its first request."""
        self.keys = keys
        """How many it asks for, by its own word."""
        self.requests = self.granted = self.ended = 0
        """How many of them so far."""
        self.failed = False
        """Whether it has given up one of them."""


class Tally:
    """What is counted over all keys."""

    def __init__(self, *, partial: bool) -> None:
        self.partial = partial
        """Whether there may be calls that the log does not show. Nothing is then concluded from their absence."""
        self.judged: Counter[str] = Counter()
        """By clause, how often the log put it to the test and it held."""
        self.undecided: Counter[str] = Counter()
        """By clause, how often the log did not tell."""
        self.clouds = 0
        """Keys that an unlock by somebody else may have ended a grant of, so that they were not judged."""
        self.kept_back = 0
        """Violations that are none if an unlock that is under way, by somebody who holds nothing, works."""
        self.held = 0
        """Keys that are held just now."""
        self.several: dict[Call, Several] = {}
        """Calls that ask for several keys at once, and have or want one of them."""
        self._failed: OrderedDict[tuple[str, Call], Why] = OrderedDict()

    def failed(self, key: str, call: Call, why: Why) -> None:
        """A call of this key has ended without the key."""
        self._failed[(key, call)] = why
        if len(self._failed) > REMEMBERED:
            self._failed.popitem(last=False)

    def has_failed(self, key: str, call: Call) -> Why:
        """Why it is one of those, as far back as they are remembered; no word where it is none."""
        return self._failed.get((key, call), "")

    def forget(self) -> None:
        """Lines are missing, and the names may have been used again in them."""
        self._failed.clear()
        self.several.clear()

    def asked(self, key: str, call: Call) -> None:
        """The name is in use again."""
        if self._failed:
            self._failed.pop((key, call), None)


class KeyJudge(Protocol):
    """Judges the lines of one key, from idle to idle."""

    live: int
    """How many calls are under way. 0: the key is idle, and nothing of it need be kept."""
    held: bool
    """Whether the key is held, as far as the judge can say."""

    def feed(self, event: LogEvent) -> BrokenAt | None:
        """Take the next line of the key. GapError: it does not fit. TraceFormatError: a live call asks again."""

    def left(self) -> Iterator[Left]:
        """The calls that are under way, the oldest first."""


class Lost:
    """Judges nothing: a key after its first violation or a gap, until all calls that are known of it are over."""

    held = False

    def __init__(self, calls: Iterator[Left], *, outside: bool) -> None:
        self._calls = dict.fromkeys(left.call for left in calls)
        self._outside = outside
        self.live = len(self._calls)

    def feed(self, event: LogEvent) -> BrokenAt | None:
        if event.kind in ("request", "grant"):
            self._calls[event.call] = None
        elif event.kind not in ("waiting", "kept", "release") or (event.kind == "release" and not self._outside):
            self._calls.pop(event.call, None)
        self.live = len(self._calls)
        return None

    def left(self) -> Iterator[Left]:
        return iter(())
