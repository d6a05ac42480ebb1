"""One case played with an adapter: what is sent, what is seen, and which clause a port that does otherwise breaks.

A move is over when the replies, and at level 2 the table, are those of a course. So a right port is never
waited for by the clock at level 2. At level 1 a call that waits is known by the silence only.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Set
from enum import Enum
from typing import Any, NamedTuple

from kmutex._text import printable
from kmutex.conform.adapter import Adapter, AdapterError
from kmutex.conform.case import Case, Command, Move, Seen, format_moves
from kmutex.engine.judge import Judge
from kmutex.engine.observer import Ending
from kmutex.engine.program import Step
from kmutex.engine.run_judge import Event

PORT_FEATURES = {
    "fifo": ("KM-FIFO", "KM-HANDOFF"),
    "cancel": ("KM-CANCEL", "KM-RACE"),
    "try": ("KM-EXPIRED",),
    "lease": ("KM-TOKEN",),
    "unheld": ("KM-UNHELD", "KM-ATOMIC"),
    "stat": ("KM-REF", "KM-IDLE"),
}
"""What a port may lack, and the clauses that are then not judged."""
TOLD = ("keep", "pass")
"""Features that are reported and change nothing: from outside nobody can tell which of two meeting events was first."""


def clauses_unjudged(features: Set[str]) -> frozenset[str]:
    """The clauses that are not judged of a port with these features."""
    return frozenset(clause for name, clauses in PORT_FEATURES.items() if name not in features for clause in clauses)


class CaseVerdict(str, Enum):
    """How a case ended."""

    PASSED = "passed"
    FAILED = "failed"
    SLOW = "slow"
    """It failed at level 1, and not again with a longer silence. Not a pass."""
    BROKEN = "broken"
    """The adapter did not keep to the protocol, or died."""


class Played(NamedTuple):
    """A case that was played.

    clauses  those it breaks, the best name first; none where it passed or the adapter broke
    symptom  the clause that the run itself shows broken, before anything in the case is blamed for it
    message  one line; "" where it passed
    events   for the picture
    """

    case: Case
    verdict: CaseVerdict
    clauses: tuple[str, ...]
    symptom: str
    message: str
    events: tuple[Event, ...]


class Waits(NamedTuple):
    """How long to wait: seconds until what must come has come, and of the silence that means waiting at level 1."""

    timeout: float = 5.0
    settle: float = 0.02


def play(adapter: Adapter, case: Case, waits: Waits, known: Set[str] = frozenset()) -> Played:
    """Play the case. The adapter is as good as new afterwards if the case passed; else it must be ended.

    known: symptoms that plainer cases have shown, so that nothing in this one is to be blamed for them.
    """
    return _Player(adapter, case, waits, known).play()


class _MismatchError(Exception):
    """The observation matches no allowed outcome. str() describes it where the judge found nothing."""


class _Sent(NamedTuple):
    """A command that has no reply yet; who makes the call, in the words of the judge; its place in the move."""

    command: Command
    client: int
    step: Step | None
    place: int


_WORDS = {
    "lock": ("granted", "cancelled"),
    "try": ("granted", "timeout"),
    "unlock": ("released", "unheld"),
    "lease": ("released", "unheld"),
    "cancel": ("ok",),
}
_ERRORS: dict[str, BaseException] = {
    "cancelled": asyncio.CancelledError(),
    "timeout": TimeoutError(),
    "unheld": LookupError("unheld"),
}


class _Player:
    def __init__(self, adapter: Adapter, case: Case, waits: Waits, known: Set[str]) -> None:
        self._adapter = adapter
        self._case = case
        self._waits = waits
        self._stat = "stat" in adapter.features
        self._courses = list(case.courses)
        # Without `stat` nobody looks at the table. What else shows wrong references is judged all the same.
        self._judge = Judge(off=clauses_unjudged(adapter.features | {"stat"}), known=known)
        self._open: dict[int, _Sent] = {}
        self._first_id = 0
        self._ids: dict[int, int] = {}
        self._holder: dict[str, int] = {}
        self._asked = {c.call: c.key for move in case.moves for c in move if c.op in ("lock", "try")}
        self._cancelling = {c.call for move in case.moves for c in move if c.op == "cancel"}
        self._calls: dict[int, str] = {}
        self._unlocks: dict[int, str] = {}

    def play(self) -> Played:
        try:
            if self._adapter.ask("reset").get("result") != "ok":
                raise AdapterError("its reply to reset is not ok")
            # What calls of the case before may still say counts for nothing.
            self._first_id = self._adapter.last_id + 1
            for number, move in enumerate(self._case.moves):
                self._make(number, move)
        except _MismatchError as mismatch:
            return self._failed(str(mismatch))
        except AdapterError as error:
            if self._judge.findings:
                return self._failed(str(error))
            return Played(self._case, CaseVerdict.BROKEN, (), "", str(error), tuple(self._judge.events))
        return Played(self._case, CaseVerdict.PASSED, (), "", "", tuple(self._judge.events))

    def _failed(self, message: str) -> Played:
        clauses = dict.fromkeys(clause for finding in self._judge.findings for clause in finding.clauses)
        said = self._judge.findings[0].message if self._judge.findings else message
        symptom = self._judge.findings[0].symptom if self._judge.findings else ""
        return Played(self._case, CaseVerdict.FAILED, tuple(clauses), symptom, said, tuple(self._judge.events))

    # -- a move --------------------------------------------------------------------------------------------------

    def _make(self, number: int, move: Move) -> None:
        self._calls, self._unlocks = {}, {}
        for place, command in enumerate(move):
            self._send(command, place)
        heard = time.monotonic()
        watchdog = self._adapter.watchdog()
        pause = 0.0
        while True:
            table = self._table() if self._stat else ()
            replies = [reply for reply in self._adapter.replies(pause) if reply["id"] >= self._first_id]
            for reply in replies:
                self._reply(reply)
            if self._judge.findings:
                raise _MismatchError
            now = time.monotonic()
            if replies:
                heard, pause = now, 0.0
                continue
            seen = Seen(
                tuple(sorted(self._calls.items())), tuple(self._unlocks[n] for n in sorted(self._unlocks)), table
            )
            fitting = [course for course in self._courses if self._shown(course[number]) == seen]
            if fitting and self._all_answered:
                # The silence is waited for however long it is: what must come has come.
                if self._stat or not self._open or now - heard >= self._waits.settle:
                    self._courses = fitting
                    self._rest()
                    return
            elif watchdog.silent() >= self._waits.timeout:
                self._rest()
                self._name(move, seen, [self._shown(course[number]) for course in self._courses])
            pause = min(0.02, 0.0005 + 2 * pause)

    @property
    def _all_answered(self) -> bool:
        """Whether only calls of lock have no reply."""
        return all(sent.command.op in ("lock", "try") for sent in self._open.values())

    def _shown(self, seen: Seen) -> Seen:
        """What of it this port can show."""
        return seen if self._stat else seen._replace(table=())

    def _rest(self) -> None:
        """All is quiet, or should be: the judge looks at who waits."""
        self._judge.quiet({sent.client: sent.step for sent in self._open.values() if sent.step}, frozenset())
        if self._judge.findings:
            raise _MismatchError

    def _name(self, move: Move, seen: Seen, due: list[Seen]) -> None:
        """Find the clause for a difference that the judge has no word for."""
        self._judge.ended(Ending.DONE)
        message = f"after {format_moves((move,))}: {seen}; it must be: {' or '.join(map(str, dict.fromkeys(due)))}"
        if not self._judge.findings:
            alike = [one for one in due if one[:2] == seen[:2]]
            if any(one.calls == seen.calls for one in due) and not alike:
                self._judge.differs("KM-TOKEN", message)
            elif not alike:
                self._judge.differs("KM-LIVE", message)
            elif {row[0] for row in seen.table} > {row[0] for row in alike[0].table}:
                self._judge.differs("KM-IDLE", message)
            else:
                self._judge.differs("KM-REF", message)
        raise _MismatchError(message)

    def _send(self, command: Command, place: int) -> None:
        if command.op in ("lock", "try"):
            assert command.call is not None
            assert command.key is not None
            kind = "?" if command.op == "try" else "~" if command.call in self._cancelling else "+"
            step = Step(kind, command.key)
            self._judge.called(command.call, step)
            timeout = {"timeout": 0} if command.op == "try" else {}
            number = self._adapter.send("lock", key=command.key, **timeout)
            self._ids[command.call] = number
            self._open[number] = _Sent(command, command.call, step, place)
        elif command.op == "cancel":
            assert command.call is not None
            self._judge.cancelled(command.call)
            number = self._adapter.send("cancel", call=self._ids[command.call])
            self._open[number] = _Sent(command, command.call, None, place)
        else:
            self._unlock(command, place)

    def _unlock(self, command: Command, place: int) -> None:
        key = command.key or self._asked[command.call] or ""
        holder = self._holder.get(key)
        if command.call is not None and command.call != holder:
            client, step = command.call, Step("^", key)
        elif holder is None:
            client, step = len(self._asked), Step("x", key)
        else:
            client, step = holder, Step("-", key)
            del self._holder[key]
        lease = {} if command.call is None else {"lease": self._ids[command.call]}
        self._judge.called(client, step)
        number = self._adapter.send("unlock", key=key, **lease)
        self._open[number] = _Sent(command, client, step, place)

    # -- what comes back -----------------------------------------------------------------------------------------

    def _reply(self, reply: dict[str, Any]) -> None:
        sent = self._open.pop(reply["id"], None)
        if sent is None:
            raise AdapterError(f"it replied to command {reply['id']}, which has its reply or was never sent")
        result = reply.get("result")
        if result == "error":
            message = printable(str(reply.get("message", "it gave no message")))
            self._judge.raised(
                sent.client, sent.step or Step("~", self._asked[sent.command.call] or ""), OSError(message)
            )
            raise _MismatchError(f"{sent.command} ended with an error: {message}")
        if result not in _WORDS[sent.command.op]:
            raise AdapterError(f"its reply to {sent.command.op} is {result!r}, which specs/protocol.md does not have")
        if sent.step is None:
            return
        if sent.command.op in ("lock", "try"):
            self._calls[sent.client] = result
        else:
            self._unlocks[sent.place] = result
        if result in _ERRORS:
            self._judge.raised(sent.client, sent.step, _ERRORS[result])
            return
        if result == "granted":
            self._holder.setdefault(sent.step.key, sent.client)
        self._judge.returned(sent.client, sent.step)

    def _table(self) -> tuple[tuple[str, int, int], ...]:
        keys: Any = self._adapter.ask("stat").get("keys")
        try:
            rows = sorted((printable(key), row["refs"], row["waiters"]) for key, row in keys.items())
        except (AttributeError, TypeError, KeyError):
            rows = [("", None, None)]
        if any(type(refs) is not int or type(waiters) is not int for _, refs, waiters in rows):
            raise AdapterError("its reply to stat is not as specs/protocol.md has it")
        return tuple(rows)
