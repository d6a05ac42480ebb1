"""A key as logged from inside: each line is a step of the locker, so the order of lines is the order of steps.

A correct locker grants a free key in the step that asks for it, and hands a released key over in the step that
releases it. Both are two lines of the log, and nothing of the same key comes between them. So after a line that
leaves the key free and somebody waiting, there is one right next line: the grant to the oldest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kmutex.trace.events import Call, LogEvent, TraceFormatError
from kmutex.trace.tally import BrokenAt, GapError, Left, Tally


class _Due(NamedTuple):
    """Who must be granted by the next line, and the clause that says so."""

    call: Call
    clause: str
    because: str


class InsideKey:
    """A `KeyJudge`."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._waiting: dict[Call, LogEvent] = {}
        self._holder: Call | None = None
        self._due: _Due | None = None

    def feed(self, event: LogEvent) -> BrokenAt | None:
        due = self._due
        if due is not None and event.kind != "grant" and not self._gives_up(due, event):
            return _found(due.clause, event, f"{due.because}, and the next line is not its grant to call {due.call}")
        found = None
        if event.kind == "request":
            self._request(event)
        elif event.kind == "grant":
            found = self._grant(event)
        elif event.kind == "fail":
            found = self._fail(event)
        elif event.kind == "release":
            found = self._release(event)
        else:
            found = self._unheld(event)
        return found or self._refs(event)

    def left(self) -> Iterator[Left]:
        if self._holder is not None:
            yield Left(self._holder, "KM-IDLE", "holds")
        for call in self._waiting:
            yield Left(call, "KM-LIVE", "waits for")

    @property
    def held(self) -> bool:
        return self._holder is not None

    def __len__(self) -> int:
        return len(self._waiting) + (self._holder is not None)

    # -- the steps -----------------------------------------------------------------------------------------------

    def _request(self, event: LogEvent) -> None:
        call = event.call
        if call in self._waiting or call == self._holder:
            raise TraceFormatError(event.line, f"call {call} asks again while it is live; each request has a new name")
        self._tally.asked(event.key, call)
        if not self and not self._tally.partial:
            self._due = _Due(call, "KM-INDEP", "the key was free when it was asked for")
        self._waiting[call] = event

    def _grant(self, event: LogEvent) -> BrokenAt | None:
        call, due = event.call, self._due
        known = call in self._waiting
        if not known:
            if call == self._holder:
                raise GapError(f"call {call} is granted the key that it holds")
            if self._tally.has_failed(event.key, call):
                return _found("KM-CANCEL", event, f"call {call} had failed, and is granted the key")
            if not self._tally.partial:
                raise GapError(f"call {call} is granted the key and has not asked for it")
        if self._holder is not None:
            return _found("KM-EXCL", event, f"call {call} is granted the key while call {self._holder} holds it")
        oldest = next(iter(self._waiting), None)
        if known and call != oldest:
            return _found("KM-FIFO", event, f"call {call} is granted the key before call {oldest}, which asked earlier")
        self._due = None
        self._holder = call
        self._waiting.pop(call, None)
        judged = self._tally.judged
        if due is not None and due.clause != "KM-INDEP":
            judged["KM-EXCL"] += 1
            judged["KM-LIVE"] += 1
            judged[due.clause] += 1
            if self._waiting:
                judged["KM-FIFO"] += 1
        elif due is not None and self._tally.held:
            judged["KM-INDEP"] += 1
        return None

    def _fail(self, event: LogEvent) -> BrokenAt | None:
        call, tally = event.call, self._tally
        asked = self._waiting.get(call)
        if asked is not None:
            free = self._due is not None
            if free and event.why == "timeout":
                return _found(
                    "KM-EXPIRED" if asked.timeout == 0 else "KM-INDEP", event, "the key was free, and it was refused"
                )
            self._due = None
            del self._waiting[call]
            if not free:
                tally.judged["KM-EXPIRED" if asked.timeout == 0 and event.why == "timeout" else "KM-CANCEL"] += 1
        elif call == self._holder:
            self._let_go("KM-RACE", f"call {call} was granted the key and raises, so that the key goes on")
            if not self._waiting:
                tally.judged["KM-RACE"] += 1
        elif not tally.partial:
            raise GapError(f"call {call} fails and has not asked for the key, or has ended before")
        tally.failed(event.key, call)
        return None

    def _release(self, event: LogEvent) -> BrokenAt | None:
        call, holder = event.call, self._holder
        if call == holder:
            self._let_go("KM-HANDOFF", f"call {call} released the key")
            return None
        if self._tally.has_failed(event.key, call):
            return _found("KM-CANCEL", event, f"call {call} had failed, and ends a grant")
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
        self._holder = None
        oldest = next(iter(self._waiting), None)
        if oldest is not None:
            self._due = _Due(oldest, clause, because)

    def _gives_up(self, due: _Due, event: LogEvent) -> bool:
        """Whether the one who found the key free takes its request back: it ended in an error before it held."""
        return due.clause == "KM-INDEP" and event.kind == "fail" and event.call == due.call

    def _refs(self, event: LogEvent) -> BrokenAt | None:
        if event.refs is None or self._tally.partial:
            return None
        if event.refs != len(self):
            return _found("KM-REF", event, f"the key has {event.refs} references, and {len(self)} hold it or wait")
        self._tally.judged["KM-REF"] += 1
        return None


def _found(clause: str, event: LogEvent, message: str) -> BrokenAt:
    return BrokenAt(clause, event.line, event.call, message)
