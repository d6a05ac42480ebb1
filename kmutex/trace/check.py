"""The checker of a log: a judge for each live key, which is dropped when the key is idle, and the verdict.

Memory is in proportion to the calls under way and their keys; each key keeps at most its last `TAIL` lines, for the
timeline.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import NamedTuple

from kmutex._clauses import CLAUSES
from kmutex._text import counted
from kmutex.trace.events import Call, Header, LogEvent, Recorded, TraceFormatError
from kmutex.trace.inside import InsideKey
from kmutex.trace.outside import OutsideKey
from kmutex.trace.tally import BrokenAt, GapError, KeyJudge, Lost, Tally

TAIL = 16
"""The number of lines of a live key that are kept for the timeline."""
MOST_LIVE = 1_000_000
"""The most calls under way at once; with more, the checker stops with the verdict "unknown"."""

INVISIBLE: dict[Recorded, dict[str, str]] = {
    "outside": {
        "KM-REF": "references are not seen from outside, only an unlock that is refused to its holder",
        "KM-HANDOFF": "from outside, a handover looks like a release; a newcomer that overtakes shows as KM-FIFO",
        "KM-CANCEL": "the queue is not seen from outside; what a cancelled call breaks shows under another clause",
        "KM-RACE": "from outside, it is unknown whether a failed call had been granted",
        "KM-INTERRUPT": "from outside, an interrupt is a failed call like any other",
        "KM-ATOMIC": "what a failed call has changed shows later, under another clause",
        "KM-LOOP": "a log from outside has no event loops",
        "KM-ALL": "a log from outside does not show which keys were asked for together",
    },
    "inside": {},
}
"""Clauses that a log of the kind can't decide, and why."""


class ClauseOutcome(str, Enum):
    """The outcome of a clause. Only HOLDS is a pass."""

    HOLDS = "holds"
    VIOLATED = "violated"
    UNKNOWN = "unknown"
    NOT_EXERCISED = "not exercised"


class LogVerdict(str, Enum):
    """The verdict on the whole log."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"


class BrokenClause(NamedTuple):
    """A broken clause: the line, the key, the message, and the last lines of the key up to there."""

    clause: str
    line: int
    key: str
    call: Call
    message: str
    events: tuple[LogEvent, ...]


class ClauseResult(NamedTuple):
    """One clause, how often it was tested and held (``judged``), and how often the log did not tell (``undecided``)."""

    clause: str
    outcome: ClauseOutcome
    judged: int
    undecided: int
    detail: str


class LogReport(NamedTuple):
    """The whole report. ``findings`` has the first violation of each clause; ``periods`` counts how often a key went
    from idle to idle."""

    verdict: LogVerdict
    clauses: tuple[ClauseResult, ...]
    findings: tuple[BrokenClause, ...]
    unknown: tuple[str, ...]
    """Why the verdict is unknown, or would be if nothing were violated."""
    notes: tuple[str, ...]
    events: int
    periods: int
    most_live_calls: int
    most_live_keys: int


class _Key:
    __slots__ = ("gaps", "judge", "tail")

    def __init__(self, judge: KeyJudge, gaps: int) -> None:
        self.judge = judge
        self.gaps = gaps
        """The number of gaps in the log when the judge began. After another gap, it knows nothing."""
        self.tail: deque[LogEvent] = deque(maxlen=TAIL)


class Checker:
    """Checks the lines of one log, one after the other."""

    def __init__(self, header: Header, *, most_live: int = MOST_LIVE) -> None:
        """Begin a log. With more than ``most_live`` calls under way at once, the checker stops."""
        self._recorded = header.recorded
        self._judge = OutsideKey if header.recorded == "outside" else InsideKey
        self._tally = Tally(partial=header.starts == "running")
        self._keys: dict[str, _Key] = {}
        self._found: dict[str, BrokenClause] = {}
        self._unknown: dict[str, None] = {}
        if header.starts == "running":
            self._unknown["the log begins while the system runs, by its header"] = None
        self._most_live = most_live
        self._live = self._peak_live = self._peak_keys = 0
        self._events = self._periods = self._backwards = self._violations = 0
        self._gaps = 0
        self._first_gap = ""
        self._number: int | None = None
        self._numbered = True
        """Whether the numbers show that no line is missing so far."""
        self._at = float("-inf")
        self._loop: int | str | None = None
        self._ended = False
        self.stopped = False
        """Whether the checker has stopped, because too many calls are live."""

    @property
    def live_keys(self) -> int:
        """The number of keys in memory."""
        return len(self._keys)

    @property
    def live_calls(self) -> int:
        """The number of calls under way, of all keys."""
        return self._live

    @property
    def violated(self) -> tuple[str, ...]:
        """The clauses that are broken so far."""
        return tuple(self._found)

    def feed(self, event: LogEvent) -> BrokenClause | None:
        """Check the next line; return the violation that it shows, if any.

        Raises:
            TraceFormatError: The rest of the log can't be read.
        """
        if self._ended:
            raise TraceFormatError(event.line, "nothing may come after the end")
        if self.stopped:
            return None
        self._events += 1
        number, at = event.number, event.at
        if number is None:
            self._numbered = False
        else:
            if number - 1 != self._number:
                self._out_of_sequence(event)
            self._number = number
        if at is not None:
            if at < self._at:
                self._backwards += 1
            self._at = at
        if event.kind == "end":
            return self._end(event)
        name = event.key
        key = self._keys.get(name)
        if key is None:
            key = self._keys[name] = _Key(self._judge(self._tally), self._gaps)
            if len(self._keys) > self._peak_keys:
                self._peak_keys = len(self._keys)
        elif key.gaps != self._gaps:
            self._lose(key)
        judge = key.judge
        key.tail.append(event)
        before, held = judge.live, judge.held
        finding = None
        if event.loop != self._loop and event.loop is not None:
            finding = self._moved(event, key)
        try:
            found = judge.feed(event)
        except GapError as error:
            judge = self._unfit(event, key, error)
            held = False
            judge.feed(event)
        else:
            if found is not None:
                finding = self._finding(found, name, key)
                judge = self._lose(key)
        if judge.held is not held:
            self._tally.held += 1 if judge.held else -1
        live = judge.live
        self._live += live - before
        if live == 0:
            del self._keys[name]
            self._periods += 1
        elif self._live > self._peak_live:
            self._peak_live = self._live
            if self._live > self._most_live:
                self.stopped = True
                self._unknown[f"from line {event.line} on: more than {self._most_live:,} calls are live at once"] = None
        return finding

    def truncated(self, line: int) -> None:
        """Note that the log ends within this line."""
        self._unknown[f"line {line} is cut off"] = None

    def report(self) -> LogReport:
        """Return the report after the last line."""
        if not self._events:
            self._unknown["the log has no event"] = None
        if self._gaps:
            more = f"; {self._gaps - 1:,} more such places" if self._gaps > 1 else ""
            self._unknown[f"lines are missing, or the log begins while the system runs: {self._first_gap}{more}"] = None
        if self._tally.clouds:
            self._unknown[
                f"an unlock by a call that held nothing may have ended another call's grant; keys that were not "
                f"judged from there until idle: {self._tally.clouds:,}"
            ] = None
        if self._tally.kept_back:
            self._unknown[
                "an unlock by a call that holds nothing has not returned; if it fails, a clause is violated"
            ] = None
        findings = tuple(sorted(self._found.values(), key=lambda finding: finding.line))
        verdict = LogVerdict.FAIL if findings else LogVerdict.UNKNOWN if self._unknown else LogVerdict.PASS
        notes = []
        if self._backwards:
            notes.append(f'"at" goes backwards in {counted(self._backwards, "line")}')
        if not self._ended and self._live:
            unfinished = counted(self._live, "call is", "calls are")
            notes.append(f"the log has no end, and {unfinished} unfinished")
        if self._violations > len(findings):
            notes.append(f"{self._violations:,} violations in all; the first of each clause is shown")
        return LogReport(
            verdict,
            tuple(self._clause(clause) for clause in CLAUSES),
            findings,
            tuple(self._unknown),
            tuple(notes),
            self._events,
            self._periods,
            self._peak_live,
            self._peak_keys,
        )

    # -- lines that belong together ------------------------------------------------------------------------------

    def _out_of_sequence(self, event: LogEvent) -> None:
        number, before = event.number, self._number
        if before is not None:
            self._gap(f"line {event.line} has n {number}, and the one before {before}")
        elif number not in (0, 1):
            self._numbered = False  # The log may have begun before.

    def _unfit(self, event: LogEvent, key: _Key, error: GapError) -> KeyJudge:
        """Handle a line that does not fit the lines before it."""
        if self._numbered and not self._tally.partial:
            self._unknown[
                f"line {event.line}, key {event.key!r}, is wrong: {error}; no line is missing, by their numbers"
            ] = None
        else:
            self._gap(f"line {event.line}, key {event.key!r}: {error}")
        return self._lose(key)

    def _moved(self, event: LogEvent, key: _Key) -> BrokenClause | None:
        """Handle a step in another event loop than the last."""
        before, self._loop = self._loop, event.loop
        if before is None or self._tally.partial or "KM-LOOP" in self._found:
            return None
        if not any(one.judge.live and not isinstance(one.judge, Lost) for one in self._keys.values()):
            self._tally.judged["KM-LOOP"] += 1
            return None
        message = f"a step of loop {event.loop}, while keys are held that were asked for in loop {before}"
        return self._finding(BrokenAt("KM-LOOP", event.line, event.call, message), event.key, key)

    def _gap(self, words: str) -> None:
        """Handle missing lines: nothing is known of live keys any more, nor of the absence of calls."""
        self._gaps += 1
        self._first_gap = self._first_gap or words
        self._tally.partial = True
        self._numbered = False
        self._tally.forget()
        # Keys are marked lost lazily, at their next line: many gaps must not cost a scan of all keys each.
        self._tally.held = 0

    def _lose(self, key: _Key) -> KeyJudge:
        if not isinstance(key.judge, Lost):
            key.judge = Lost(key.judge.left(), outside=self._recorded == "outside")
        key.gaps = self._gaps
        return key.judge

    def _end(self, event: LogEvent) -> BrokenClause | None:
        self._ended = True
        first = None
        for name, key in self._keys.items():
            for left in key.judge.left() if key.gaps == self._gaps else ():
                message = f"call {left.call} {left.what} the key at the end, when all should be idle"
                finding = self._finding(BrokenAt(left.clause, event.line, left.call, message), name, key)
                first = first or finding
        if event.keys is not None:
            if event.keys and not self._keys:
                message = f"all is idle, and the locker still has {counted(event.keys, 'entry', 'entries')}"
                finding = BrokenClause("KM-IDLE", event.line, "", "", message, ())
                self._violations += 1
                first = first or self._found.setdefault("KM-IDLE", finding)
            elif not event.keys:
                self._tally.judged["KM-IDLE"] += 1
        return first

    def _finding(self, found: BrokenAt, name: str, key: _Key) -> BrokenClause:
        self._violations += 1
        events = tuple(event for event in key.tail if event.line <= found.line)
        finding = BrokenClause(found.clause, found.line, name, found.call, found.message, events)
        before = self._found.get(found.clause)
        if before is None or finding.line < before.line:
            self._found[found.clause] = finding
        return finding

    # -- the report ----------------------------------------------------------------------------------------------

    def _clause(self, clause: str) -> ClauseResult:
        judged, undecided = self._tally.judged[clause], self._tally.undecided[clause]
        outcome, detail = ClauseOutcome.HOLDS, ""
        if clause in self._found:
            finding = self._found[clause]
            outcome, detail = ClauseOutcome.VIOLATED, f"line {finding.line}: {finding.message}"
        elif clause in INVISIBLE[self._recorded]:
            outcome, detail = ClauseOutcome.UNKNOWN, INVISIBLE[self._recorded][clause]
        elif self._unknown:
            outcome, detail = ClauseOutcome.UNKNOWN, "not all of the log could be judged"
        elif clause == "KM-LIVE" and not self._ended and self._live:
            outcome, detail = ClauseOutcome.UNKNOWN, "the log has no end, and calls are unfinished"
        elif undecided:
            outcome, detail = (
                ClauseOutcome.UNKNOWN,
                f"the log does not tell in {undecided:,} of {counted(judged + undecided, 'case')}",
            )
        elif not judged:
            outcome, detail = ClauseOutcome.NOT_EXERCISED, _WITNESS[clause]
            if clause == "KM-INDEP" and self._recorded == "outside":
                detail = "no call was refused by a timeout or seen waiting"
        return ClauseResult(clause, outcome, judged, undecided, detail)


_WITNESS = {
    "KM-EXCL": "no call was granted a key that others wanted too",
    "KM-REF": "no line has refs",
    "KM-IDLE": 'no end with "keys": 0',
    "KM-FIFO": "no two calls waited for a key together",
    "KM-HANDOFF": "no release of a key that was waited for",
    "KM-INDEP": "no key was asked for while another was held",
    "KM-CANCEL": "no waiter gave up",
    "KM-RACE": "no call failed that had been granted, or kept a grant when its time was over",
    "KM-INTERRUPT": "no call was interrupted",
    "KM-ATOMIC": "no call that failed has refs",
    "KM-LOOP": "no event loop followed another one",
    "KM-ALL": "no call asked for several keys at once",
    "KM-EXPIRED": "no try (timeout 0) was refused",
    "KM-UNHELD": "no unlock was refused",
    "KM-TOKEN": "no release of an old lease was refused",
    "KM-LIVE": "no call had to wait",
}
"""By clause: why it was not put to the test."""
