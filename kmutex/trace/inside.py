"""A key as logged from inside: each line is a step of the locker, so the order of lines is the order of steps.

A correct locker grants a free key in the step that asks for it, and hands over a released key in the step that
releases it. Both are two lines of the log, with no line of the same key between them. So if a line leaves the key free
with a waiter, only one next line is right: the grant to the oldest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kmutex._text import counted
from kmutex.trace.events import Call, LogEvent, TraceFormatError, Why
from kmutex.trace.tally import BrokenAt, GapError, Left, Several, Tally


class _Due(NamedTuple):
    """The call that the next line must grant, and the clause about it."""

    call: Call
    clause: str
    because: str


class InsideKey:
    """A `KeyJudge`."""

    __slots__ = ("_asked", "_due", "_holder", "_tally", "_waiting", "held", "live")

    def __init__(self, tally: Tally) -> None:
        self.live = 0
        self.held = False
        self._tally = tally
        self._waiting: dict[Call, LogEvent] = {}
        self._holder: Call | None = None
        self._asked: LogEvent | None = None
        """The request of the holder, if the log has it."""
        self._due: _Due | None = None

    def feed(self, event: LogEvent) -> BrokenAt | None:
        kind, due = event.kind, self._due
        found = None
        if kind == "grant":
            found = self._grant(event)
        elif due is not None and not (due.clause == "KM-INDEP" and kind == "fail" and event.call == due.call):
            # But a call that found the key free may withdraw its request: it failed before it held the key.
            return _found(due.clause, event, f"{due.because}, and the next line is not its grant to call {due.call}")
        elif kind == "request":
            found = self._request(event)
        elif kind == "release":
            found = self._release(event)
        elif kind == "fail":
            found = self._fail(event)
        elif kind == "kept":
            found = self._kept(event)
        else:
            found = self._unheld(event)
        self.held = self._holder is not None
        self.live = live = len(self._waiting) + self.held
        if found is not None or event.refs is None or self._tally.partial:
            return found
        return self._entry(event, live)

    def left(self) -> Iterator[Left]:
        if self._holder is not None:
            yield self._left(self._holder, "KM-IDLE", "holds")
        for call in self._waiting:
            yield self._left(call, "KM-LIVE", "waits for")

    # -- the steps -----------------------------------------------------------------------------------------------

    def _request(self, event: LogEvent) -> BrokenAt | None:
        call = event.call
        if call in self._waiting or call == self._holder:
            raise TraceFormatError(event.line, f"call {call} asks again while it is live; each request has a new name")
        tally = self._tally
        tally.asked(event.key, call)
        before = next(reversed(self._waiting.values())) if self._waiting else self._asked
        if self._holder is None and not self._waiting and not tally.partial:
            self._due = _Due(call, "KM-INDEP", "the key was free when it was asked for")
        self._waiting[call] = event
        if event.several is None:
            return None
        group = tally.several.setdefault(call, Several(event.line, event.several))
        group.requests += 1
        if group.requests > group.keys or group.keys != event.several:
            raise TraceFormatError(event.line, f'call {call} asks for other keys than its first "all" says')
        if before is not None and before.line > group.line:
            return _found(
                "KM-ALL",
                event,
                f"call {call} asks for {group.keys} keys at once, from line {group.line} on, and stands behind call "
                f"{before.call}, which asked for this one later, in line {before.line}",
            )
        return None

    def _grant(self, event: LogEvent) -> BrokenAt | None:
        call, due, tally = event.call, self._due, self._tally
        asked = self._waiting.get(call)
        if asked is None:
            if call == self._holder:
                raise GapError(f"call {call} is granted the key that it holds")
            if why := tally.has_failed(event.key, call):
                return _found(_gave_up(why), event, f"call {call} had failed, and is granted the key")
            if not tally.partial:
                raise GapError(f"call {call} is granted the key and has not asked for it")
        if self._holder is not None:
            return _found("KM-EXCL", event, f"call {call} is granted the key while call {self._holder} holds it")
        if asked is not None:
            oldest = next(iter(self._waiting))
            if call != oldest:
                return _found(
                    "KM-FIFO", event, f"call {call} is granted the key before call {oldest}, which asked earlier"
                )
            del self._waiting[call]
            if asked.several is not None and (group := tally.several.get(call)):
                group.granted += 1
                if group.granted == group.keys > 1:
                    tally.judged["KM-ALL"] += 1
        self._due, self._holder, self._asked = None, call, asked
        if due is None:
            return None
        judged = tally.judged
        if due.clause != "KM-INDEP":
            judged["KM-EXCL"] += 1
            judged["KM-LIVE"] += 1
            judged[due.clause] += 1
            if self._waiting:
                judged["KM-FIFO"] += 1
        elif tally.held:
            judged["KM-INDEP"] += 1
        return None

    def _fail(self, event: LogEvent) -> BrokenAt | None:
        call, tally, why = event.call, self._tally, event.why
        asked = self._waiting.get(call)
        group = self._over(call, failed=True)
        if asked is not None:
            tried = why == "refused" or (why == "timeout" and asked.timeout == 0)
            free = self._due is not None
            if free and why in ("timeout", "refused"):
                return _found("KM-EXPIRED" if tried else "KM-INDEP", event, "the key was free, and it was refused")
            behind = group is not None and why == "refused" and next(reversed(self._waiting)) != call
            self._due = None
            del self._waiting[call]
            if not free:
                tally.judged["KM-EXPIRED" if tried else "KM-CANCEL"] += 1
                if why == "interrupted":
                    tally.judged["KM-INTERRUPT"] += 1
        elif call == self._holder:
            clause = "KM-ALL" if group is not None else "KM-INTERRUPT" if why == "interrupted" else "KM-RACE"
            behind = group is not None and why == "refused" and bool(self._waiting)
            self._let_go(clause, f"call {call} was granted the key and raises, so that the key goes on")
            if not self._waiting and group is None:
                tally.judged[clause] += 1
        elif not tally.partial:
            raise GapError(f"call {call} fails and has not asked for the key, or has ended before")
        else:
            behind = False
        tally.failed(event.key, call, why)
        if behind:
            return _found(
                "KM-ALL", event, f"call {call} was refused, and others asked between its request and this step"
            )
        return None

    def _entry(self, event: LogEvent, live: int) -> BrokenAt | None:
        """Check the state after the step: the key's references, and its holder if recorded."""
        due, kind, tally = self._due, event.kind, self._tally
        holder = self._holder if due is None else due.call
        if event.holder is not None and (why := tally.has_failed(event.key, event.holder)):
            clause, message = _gave_up(why), f"call {event.holder} had failed, and holds the key"
        elif event.refs != live:
            clause, references = "KM-REF", counted(event.refs or 0, "reference")
            message = f"the key has {references}, and {live} hold it or wait"
            if kind == "release" and not event.refs:
                clause = "KM-HANDOFF"
        elif event.holder is not None and event.holder != holder:
            clause, message = "KM-EXCL", f"call {event.holder} holds the key, and it should be {_name(holder)}"
            if kind == "release":
                clause = "KM-FIFO" if event.holder in self._waiting else "KM-HANDOFF"
        else:
            tally.judged["KM-REF"] += 1
            if kind in ("fail", "unheld"):
                tally.judged["KM-ATOMIC"] += 1
            return None
        if kind in ("fail", "unheld") and clause not in ("KM-CANCEL", "KM-INTERRUPT"):
            clause, message = "KM-ATOMIC", f"after a call that raised {message}"
        return _found(clause, event, message)

    def _kept(self, event: LogEvent) -> BrokenAt | None:
        if event.call == self._holder:
            self._tally.judged["KM-RACE"] += 1
            return None
        if self._tally.partial:
            return None
        return _found(
            "KM-RACE", event, f"the time of call {event.call} is over, and it keeps a grant that it was not given"
        )

    def _release(self, event: LogEvent) -> BrokenAt | None:
        call, holder = event.call, self._holder
        if call == holder:
            group = self._over(call, failed=False) if self._asked is not None and self._asked.several else None
            if group is not None and event.lease and group.granted < group.keys:
                return _found(
                    "KM-ALL",
                    event,
                    f"call {call} ends its grant, and of {group.keys} keys that it asked for it was granted "
                    f"{group.granted}",
                )
            self._let_go("KM-HANDOFF", f"call {call} released the key")
            return None
        if why := self._tally.has_failed(event.key, call):
            return _found(_gave_up(why), event, f"call {call} had failed, and ends a grant")
        if holder is not None:
            return _found("KM-TOKEN", event, f"call {call} ends a grant, and call {holder} holds the key")
        if self._tally.partial:
            return None
        return _found("KM-UNHELD", event, f"call {call} ends a grant, and nobody holds the key")

    def _unheld(self, event: LogEvent) -> BrokenAt | None:
        if event.call == self._holder:
            return _found("KM-REF", event, f"call {event.call} holds the key, and its unlock is refused")
        if event.lease:
            self._tally.judged["KM-TOKEN"] += 1
        elif self._holder is None:
            self._tally.judged["KM-UNHELD"] += 1
        return None

    def _let_go(self, clause: str, because: str) -> None:
        self._holder = self._asked = None
        if self._waiting:
            self._due = _Due(next(iter(self._waiting)), clause, because)

    def _over(self, call: Call, *, failed: bool) -> Several | None:
        """Note that the call neither holds this key nor waits for it; return its record if it asked for several."""
        group = self._tally.several.get(call) if self._tally.several else None
        if group is not None:
            group.ended += 1
            group.failed = group.failed or failed
            if group.ended == group.requests:
                del self._tally.several[call]
        return group

    def _left(self, call: Call, clause: str, what: str) -> Left:
        group = self._tally.several.get(call)
        if group is None or not group.failed:
            return Left(call, clause, what)
        return Left(call, "KM-ALL", f"has given up another key, and {what}")


def _gave_up(why: Why) -> str:
    return "KM-INTERRUPT" if why == "interrupted" else "KM-CANCEL"


def _name(holder: Call | None) -> str:
    return "nobody" if holder is None else f"call {holder}"


def _found(clause: str, event: LogEvent, message: str) -> BrokenAt:
    return BrokenAt(clause, event.line, event.call, message)
