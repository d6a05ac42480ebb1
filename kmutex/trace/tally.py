"""The common part of the judges of a key: their results and their counters."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from kmutex.trace.events import Call, LogEvent, Why

REMEMBERED = 4096
"""The number of failed calls that are remembered, the latest ones, in the whole log."""


class BrokenAt(NamedTuple):
    """A broken clause: the line that no correct locker can have written, its call, and the message."""

    clause: str
    line: int
    call: Call
    message: str


class GapError(Exception):
    """The line does not fit the lines before it: lines are missing, or the log began while the system ran."""


class Left(NamedTuple):
    """A call under way, and the clause that it breaks if the log ends here."""

    call: Call
    clause: str
    what: str


class Several:
    """A call that asks for several keys together, from its first request until it has no more of them."""

    __slots__ = ("ended", "failed", "granted", "keys", "line", "requests")

    def __init__(self, line: int, keys: int) -> None:
        self.line = line
        """The line of its first request."""
        self.keys = keys
        """The number of keys that it says it asks for."""
        self.requests = self.granted = self.ended = 0
        """The numbers of keys so far."""
        self.failed = False
        """Whether it has failed for one of them."""


class Tally:
    """Counters for all keys."""

    def __init__(self, *, partial: bool) -> None:
        self.partial = partial
        """Whether there may be calls that the log does not show, so that nothing follows from their absence."""
        self.judged: Counter[str] = Counter()
        """By clause, how often the log put it to the test and it held."""
        self.undecided: Counter[str] = Counter()
        """By clause, how often the log did not tell."""
        self.clouds = 0
        """Keys that were not judged because another call's unlock may have ended their grant."""
        self.kept_back = 0
        """Possible violations, which depend on whether a stray unlock that is under way succeeds."""
        self.held = 0
        """The number of keys that are held now."""
        self.several: dict[Call, Several] = {}
        """Calls that ask for several keys together, and hold or want one of them."""
        self._failed: OrderedDict[tuple[str, Call], Why] = OrderedDict()

    def failed(self, key: str, call: Call, why: Why) -> None:
        """Note that a call of this key has ended without the key."""
        self._failed[(key, call)] = why
        if len(self._failed) > REMEMBERED:
            self._failed.popitem(last=False)

    def has_failed(self, key: str, call: Call) -> Why:
        """Return why the call failed, if that is remembered; "" if it did not."""
        return self._failed.get((key, call), "")

    def forget(self) -> None:
        """Forget failed calls: lines are missing, and may have reused their names."""
        self._failed.clear()
        self.several.clear()

    def asked(self, key: str, call: Call) -> None:
        """Note that the name is in use again."""
        if self._failed:
            self._failed.pop((key, call), None)


class KeyJudge(Protocol):
    """Judges the lines of one key, from idle to idle."""

    live: int
    """The number of calls under way. If it is 0, the key is idle and can be dropped."""
    held: bool
    """Whether the key is held, as far as the judge knows."""

    def feed(self, event: LogEvent) -> BrokenAt | None:
        """Judge the next line of the key.

        Raises:
            GapError: It does not fit.
            TraceFormatError: A live call asks again.
        """

    def left(self) -> Iterator[Left]:
        """Yield the calls under way, the oldest first."""


class Lost:
    """Judges nothing: for a key after its first violation or a gap, until all of its known calls are over."""

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
