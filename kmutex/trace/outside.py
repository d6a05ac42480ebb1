"""A key as logged by the callers, around their calls.

The steps of the locker are hidden. A request is queued at some time after its line, and is granted, or gives up, at
some time before the line with its result; an unlock takes effect between its two lines. The conclusions:

- From the line of a grant to the line of its release, the key was certainly held. Two such intervals that overlap break
  KM-EXCL.
- A call can hold the key only between its first line and its last. If no other call is under way, nobody can hold the
  key: then a refusal is wrong, and so is an unlock that succeeds.
- A call that was seen in the queue ("waiting") was queued before that line, and calls that asked after the line come
  later. If both are granted, the grants must have that order (KM-FIFO). Grants are in the order of their lines, since
  the second comes after the release of the first, and that after the line of the first.

An unlock by a call that holds nothing ("stray") may end another call's grant, because `unlock(key)` is by key. While it
is under way, findings are held back; if it succeeds, the key is not judged until it is idle.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kmutex.trace.events import Call, LogEvent, TraceFormatError
from kmutex.trace.tally import BrokenAt, GapError, Left, Tally


@dataclass
class _Pending:
    """A call of lock under way."""

    line: int
    timeout: float | None
    alone: bool
    """Whether no other call was under way when it asked."""
    held: bool
    """Whether the key was certainly held when it asked."""
    requests: int
    grants: int
    seen: int = 0
    """The line by which it was seen in the queue; 0 before."""


@dataclass
class _Stray:
    """An unlock by a call that does not hold the key."""

    lease: bool
    alone: bool
    requests: int


class OutsideKey:
    """A `KeyJudge`."""

    def __init__(self, tally: Tally) -> None:
        self.live = 0
        self.held = False
        self._tally = tally
        self._pending: dict[Call, _Pending] = {}
        self._holding: dict[Call, None] = {}
        self._releasing: dict[Call, None] = {}
        self._strays: dict[Call, _Stray] = {}
        self._requests = 0
        self._grants = 0
        self._newest = (0, "", 0)
        """Of the granted calls, the one that asked last: the line of its request, its name, and its grant."""
        self._kept_back: BrokenAt | None = None
        self._clouded = False

    def feed(self, event: LogEvent) -> BrokenAt | None:
        found = self._judge(event)
        self.held = bool(self._holding)
        self.live = len(self._pending) + len(self._holding) + len(self._releasing) + len(self._strays)
        return found

    def _judge(self, event: LogEvent) -> BrokenAt | None:
        kind = event.kind
        found = None
        if kind == "request":
            self._request(event)
        elif kind == "waiting":
            found = self._waiting(event)
        elif kind == "grant":
            found = self._grant(event)
        elif kind == "fail":
            found = self._fail(event)
        elif kind == "release":
            self._release(event)
        elif event.call in self._releasing:
            del self._releasing[event.call]
            if kind == "unheld":
                found = _found("KM-REF", event, f"call {event.call} held the key, and its unlock raised")
        elif event.call in self._strays:
            return self._stray_over(event, self._strays.pop(event.call))
        elif not self._tally.partial:
            raise GapError(f"an unlock of call {event.call} is over that has not begun")
        if found is None or self._clouded or self._kept_back is not None:
            return None
        # Whatever a stray unlock does, it makes no call hold the key.
        if found.clause not in ("KM-INDEP", "KM-EXPIRED") and self._by_key_under_way():
            self._kept_back = found
            self._tally.kept_back += 1
            return None
        return found

    def left(self) -> Iterator[Left]:
        for call in self._holding:
            yield Left(call, "KM-IDLE", "holds")
        for call in self._pending:
            yield Left(call, "KM-LIVE", "waits for")
        for call in (*self._releasing, *self._strays):
            yield Left(call, "KM-LIVE", "has not come back from its unlock of")

    # -- the lines -----------------------------------------------------------------------------------------------

    def _request(self, event: LogEvent) -> None:
        call = event.call
        if call in self._pending or call in self._holding or call in self._releasing or call in self._strays:
            raise TraceFormatError(event.line, f"call {call} asks again while it is live; each request has a new name")
        self._requests += 1
        self._pending[call] = _Pending(
            event.line, event.timeout, self._quiet(), bool(self._holding), self._requests, self._grants
        )

    def _waiting(self, event: LogEvent) -> BrokenAt | None:
        asked = self._pending.get(event.call)
        if asked is None:
            raise GapError(f"call {event.call} is seen in the queue, and has not asked or has ended")
        if asked.seen:
            return None
        asked.seen = event.line
        return self._blocked(event, asked, "KM-INDEP", "waits for the key, and nobody else was there to hold it")

    def _grant(self, event: LogEvent) -> BrokenAt | None:
        call = event.call
        asked = self._pending.pop(call, None)
        if asked is None and (call in self._holding or call in self._releasing or not self._tally.partial):
            raise GapError(f"call {call} is granted the key and has not asked for it, or has it")
        found = None
        if self._holding:
            holder = next(iter(self._holding))
            found = _found("KM-EXCL", event, f"call {call} got the key while call {holder} held it")
        elif asked is not None:
            found = self._in_order(event, asked)
        self._holding[call] = None
        self._grants += 1
        if asked is not None:
            if asked.line > self._newest[0]:
                self._newest = (asked.line, str(call), event.line)
            if found is None and not self._alone(asked):
                self._tally.judged["KM-EXCL"] += 1
                self._tally.judged["KM-LIVE"] += 1
        return found

    def _in_order(self, event: LogEvent, asked: _Pending) -> BrokenAt | None:
        line, other, granted = self._newest
        if asked.seen and line > asked.seen:
            return _found(
                "KM-FIFO",
                event,
                f"call {event.call} was in the queue by line {asked.seen}; call {other} asked later, in line {line}, "
                f"and was granted the key before it, in line {granted}",
            )
        if self._pending:
            oldest = next(iter(self._pending.values()))
            counts = self._tally.judged if asked.seen and oldest.line > asked.seen else self._tally.undecided
            counts["KM-FIFO"] += 1
        return None

    def _fail(self, event: LogEvent) -> BrokenAt | None:
        asked = self._pending.pop(event.call, None)
        if asked is None:
            if not self._tally.partial or event.call in self._holding or event.call in self._releasing:
                raise GapError(f"call {event.call} fails and has not asked for the key, or has ended before")
            return None
        if event.why not in ("timeout", "refused"):
            return None
        clause = "KM-EXPIRED" if asked.timeout == 0 or event.why == "refused" else "KM-INDEP"
        return self._blocked(event, asked, clause, "was refused the key, and nobody else was there to hold it")

    def _blocked(self, event: LogEvent, asked: _Pending, clause: str, words: str) -> BrokenAt | None:
        """Judge a call that did not get the key at once: another call must have held it."""
        if self._alone(asked):
            return _found(clause, event, f"call {event.call} {words}")
        surely = asked.held or self._grants > asked.grants
        (self._tally.judged if surely else self._tally.undecided)[clause] += 1
        return None

    def _release(self, event: LogEvent) -> None:
        call = event.call
        if call in self._holding:
            del self._holding[call]
            self._releasing[call] = None
        elif call in self._pending or call in self._releasing or call in self._strays:
            raise GapError(f"call {call} unlocks and has not got the key, or is unlocking it")
        else:
            self._strays[call] = _Stray(event.lease, self._quiet(), self._requests)

    def _stray_over(self, event: LogEvent, stray: _Stray) -> BrokenAt | None:
        if event.kind == "unheld":
            if not self._clouded:
                self._tally.judged["KM-TOKEN" if stray.lease else "KM-UNHELD"] += 1
            if self._by_key_under_way():
                return None
            return self._no_more_kept_back()
        if self._clouded:
            return None
        if stray.lease and not self._tally.partial:
            return _found("KM-TOKEN", event, f"the lease of call {event.call} had ended, and its release did not raise")
        if stray.alone and stray.requests == self._requests and not self._tally.partial:
            return _found(
                "KM-UNHELD", event, f"call {event.call} unlocked the key without an error, and nobody held it"
            )
        self._no_more_kept_back()
        self._clouded = True
        self._tally.clouds += 1
        return None

    def _no_more_kept_back(self) -> BrokenAt | None:
        found, self._kept_back = self._kept_back, None
        self._tally.kept_back -= found is not None
        return found

    # -- the state of the key ------------------------------------------------------------------------------------

    def _quiet(self) -> bool:
        """Return whether nobody can hold the key."""
        return not (self._pending or self._holding or self._releasing or self._tally.partial)

    def _alone(self, asked: _Pending) -> bool:
        return asked.alone and asked.requests == self._requests

    def _by_key_under_way(self) -> bool:
        return any(not stray.lease for stray in self._strays.values())


def _found(clause: str, event: LogEvent, message: str) -> BrokenAt:
    return BrokenAt(clause, event.line, event.call, message)
