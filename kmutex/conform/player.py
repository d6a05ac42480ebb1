"""Play one case with an adapter: send commands, observe, and find the clause that a wrong port breaks.

A move is over when the replies, and at level 2 the table, are those of an allowed outcome. So a right port is never
waited for by the clock at level 2. At level 1 a call that waits is known by the silence only.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Sequence, Set
from enum import Enum
from random import Random
from statistics import median
from typing import Any, NamedTuple

from kmutex._text import printable
from kmutex.conform.adapter import Adapter, AdapterError
from kmutex.conform.case import ASKING, LONG, SHORT, Case, Command, Course, Move, Seen, format_moves, spread
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
    "done": (),
    "deadline": (),
    "token": (),
}
"""Features that a port may lack, and the clauses that are then not judged."""
PARTS = {
    "done": "calls that are cancelled before they begin",
    "deadline": "time limits other than 0",
    "token": "tokens that rise",
}
"""What is not judged without the features that no clause depends on as a whole."""
RACES = ("keep", "pass")
"""Features that leave nothing out. A port that declares one of them has to do so where a cancel follows an unlock."""
EARLY = ("take", "refuse")
"""The same of a free key and a call that is cancelled before it begins."""
TOLD = (*RACES, *EARLY)
EARLIEST = 0.9
"""Of a time limit: no clock is so wrong that a call may time out before this part of it."""
MEETINGS = 10
"""So many cancels must have come right behind a grant before it counts that the call never gave up."""
LEAST = 1 / 16
"""Of the silence that means waiting, this part is the least that will do."""
PATIENTLY = 8
"""One case in so many."""
TRIES = 5
"""So many tries must have been refused, and as many granted, before it counts how long they took."""
AROUND = 0.0003
"""Seconds around the moment at which a limit is thought to end, in which an unlock that is to meet it is sent."""
AWAKE = 0.0005
"""Seconds before that moment in which the processor is kept."""
FIRST_STEP, LAST_STEP = 0.002, 0.00005
"""Seconds by which that moment is moved after each round, at first and at last."""
SLOWER = 25
"""So many times as long as the usual granted try takes no right port's fastest refused one."""


def lacking(name: str) -> str:
    """What is not judged of a port without this feature."""
    return ", ".join(PORT_FEATURES[name]) or PARTS[name]


def clauses_unjudged(features: Set[str]) -> frozenset[str]:
    """The clauses that are not judged of a port with these features."""
    off = {clause for name, clauses in PORT_FEATURES.items() if name not in features for clause in clauses}
    # Tokens are a part of it that stands without leases.
    return frozenset(off - {"KM-TOKEN"} if "token" in features else off)


class CaseVerdict(str, Enum):
    """The verdict of a case."""

    PASSED = "passed"
    FAILED = "failed"
    SLOW = "slow"
    """It failed at level 1, but not when repeated with a longer silence. Not a pass."""
    BROKEN = "broken"
    """The adapter broke the protocol, or died."""


class Played(NamedTuple):
    """A case that was played.

    clauses  those it breaks, the best name first; none where it passed or the adapter broke
    symptom  the clause that the run itself shows broken, before anything in the case is blamed for it
    message  one line; "" where it passed
    events   for the picture
    seconds  that it took, with all of its repetitions
    """

    case: Case
    verdict: CaseVerdict
    clauses: tuple[str, ...]
    symptom: str
    message: str
    events: tuple[Event, ...]
    seconds: float = 0.0


class Waits(NamedTuple):
    """How long to wait, in seconds.

    timeout  until what must come has come
    settle   of the silence that means waiting at level 1
    haste    0, or so many times as long as the port usually takes to answer will do as well; see `_Player._settle`
    """

    timeout: float = 5.0
    settle: float = 0.02
    haste: int = 0


def play(
    adapter: Adapter, case: Case, waits: Waits, known: Set[str] = frozenset(), off: Set[str] = frozenset()
) -> Played:
    """Play the case. The adapter is as good as new afterwards if the case passed; else it must be ended.

    known: symptoms that plainer cases have shown, so that nothing in this one is to be blamed for them.
    off: clauses that are not judged. Of KM-REF and KM-IDLE the rest of the table is.
    """
    first = _rounds(adapter, case, waits, known, off)
    if first.symptom != "KM-EXPIRED" or first.case.rounds == 1:
        return first
    # A single slow reply may be an accident.
    return _rounds(adapter, case, waits, known, off)


def _rounds(adapter: Adapter, case: Case, waits: Waits, known: Set[str], off: Set[str]) -> Played:
    whole = spread(case)
    met: list[str] = []
    took: dict[str, list[float]] = {"granted": [], "timeout": []}
    aim = _Aim()
    for _ in range(case.rounds):
        player = _Player(adapter, whole, waits, known, off, aim)
        played = player.play()._replace(case=case)
        met += player.met
        for how, times in player.took.items():
            took[how] += times
        if played.verdict is CaseVerdict.PASSED:
            clause, message = _undeclared(adapter.features, met) or _slow(took) or ("", "")
            if clause:
                played = played._replace(verdict=CaseVerdict.FAILED, clauses=(clause,), symptom=clause, message=message)
        if played.verdict is not CaseVerdict.PASSED:
            break
    if case.keys > 1:
        # Of hundreds of calls, only those in the message.
        named = {event.client for event in played.events if f"client {event.client} " in played.message + " "}
        events = tuple(event for event in played.events if event.client in {*named, -1})
        played = played._replace(events=events if named else played.events[-12:])
    return played


class _Aim:
    """When to send an unlock that is to meet the end of a limit: near where this port has changed its answer.

    Nobody outside knows when the port's clock is over, but an unlock that came before is seen from one that came after.
    """

    def __init__(self) -> None:
        self._middle, self._step, self._last = 0.0, FIRST_STEP, ""
        self._random = Random(0)

    def late(self) -> float:
        """Return how many seconds after the limit the unlock is sent; less than 0: before it."""
        return self._middle + self._random.uniform(-AROUND, AROUND)

    def saw(self, outcome: str) -> None:
        """Take in how the call ended."""
        if outcome != self._last and self._last:
            self._step = max(LAST_STEP, self._step / 2)
        self._last = outcome
        self._middle += self._step if outcome == "granted" else -self._step


def _wait_until(moment: float) -> None:
    """Return at this moment. The last part is not slept: a sleep may be late by more than what is aimed at."""
    time.sleep(max(0.0, moment - AWAKE - time.monotonic()))
    while time.monotonic() < moment:
        pass


def _undeclared(features: Set[str], met: list[str]) -> tuple[str, str] | None:
    """What is wrong with the ends of calls whose cancel came behind the unlock that granted them the key."""
    if len(features & set(RACES)) != 1:
        return None
    if "keep" in features and "cancelled" in met:
        return "KM-RACE", "it declares keep, and a call that had its grant before the cancel gave it up"
    if "pass" in features and len(met) >= MEETINGS and "cancelled" not in met:
        return "KM-RACE", f"it declares pass, and in {len(met)} of {len(met)} meetings the call kept its grant"
    return None


def _slow(took: dict[str, list[float]]) -> tuple[str, str] | None:
    refused, granted = took["timeout"], took["granted"]
    if min(len(refused), len(granted)) >= TRIES and min(refused) > SLOWER * median(granted):
        times = min(refused) / median(granted)
        message = f"each of {len(refused)} tries of a held key took at least {times:.0f} times as long as of a free one"
        return "KM-EXPIRED", message
    return None


def declared(courses: Sequence[Course], moves: Sequence[Move], features: Set[str]) -> list[Course]:
    """Return the allowed outcomes for a port with these features: an early cancel of a free key ends as declared."""
    left = list(courses)
    for number, move in enumerate(moves if len(features & set(EARLY)) == 1 else ()):
        if move[0].op != "done":
            continue
        taken = [course for course in courses if "granted" in dict(course[number].calls).values()]
        if "refuse" in features:
            left = [course for course in left if course not in taken]
        else:
            free = [course[:number] for course in taken]
            left = [course for course in left if course in taken or course[:number] not in free]
    return left


class _MismatchError(Exception):
    """The observation matches no allowed outcome. str() describes it where the judge found nothing."""


class _PortError(Exception):
    """A call ended in a form that the protocol does not have."""


_PortError.__name__ = "error"
_UNEXPECTED = {
    "unlock": "KM-UNHELD",
    "free": "KM-UNHELD",
    "lease": "KM-TOKEN",
    "cancel": "KM-CANCEL",
    "done": "KM-CANCEL",
    "limit": "KM-EXPIRED",
}
"""The clause for a command that ended in an error, if the judge finds no violation."""


class _Sent(NamedTuple):
    """A command that has no reply yet; the client for the judge; its position in the move."""

    command: Command
    client: int
    step: Step | None
    place: int
    at: float = 0.0
    """When it was sent."""


_WORDS = {
    "lock": ("granted", "cancelled"),
    "try": ("granted", "timeout"),
    "done": ("granted", "cancelled"),
    "limit": ("granted", "timeout", "cancelled"),
    "unlock": ("released", "unheld"),
    "free": ("released", "unheld"),
    "lease": ("released", "unheld"),
    "cancel": ("ok",),
}
_ERRORS: dict[str, BaseException] = {
    "cancelled": asyncio.CancelledError(),
    "timeout": TimeoutError(),
    "unheld": LookupError("unheld"),
}


class _Player:
    def __init__(self, adapter: Adapter, case: Case, waits: Waits, known: Set[str], off: Set[str], aim: _Aim) -> None:
        self._adapter = adapter
        self._aim = aim
        self._meets: int | None = None
        """The call whose limit is to end as the unlock of this move comes."""
        self._case = case
        self._waits = waits
        self._stat = "stat" in adapter.features
        self._courses = declared(case.courses, case.moves, adapter.features)
        # Without `stat` the table is unknown. Other effects of wrong references are still judged.
        self._judge = Judge(off=clauses_unjudged(adapter.features | {"stat"}) | off, known=known)
        self._off = off
        self._open: dict[int, _Sent] = {}
        self._first_id = 0
        self._ids: dict[int, int] = {}
        self._holder: dict[str, int] = {}
        self._asked = {c.call: c.key for move in case.moves for c in move if c.op in ASKING}
        self._cancelling = {c.call for move in case.moves for c in move if c.op in ("cancel", "done", "limit")}
        self._highest: dict[str, int] = {}
        """By key: the highest token of the moves before."""
        self._tokens: dict[str, list[int]] = {}
        """By key: the tokens of this move."""
        self._calls: dict[int, str] = {}
        self._unlocks: dict[int, str] = {}
        self._said: list[tuple[Command, str]] = []
        self._beside: dict[str, str] = {}
        """Keys that an unlock was sent for while a call of the same move asked for them, free before; how it ended."""
        self.met: list[str] = []
        """The ends of calls whose cancel came right after the unlock that granted them the key."""
        self.took: dict[str, list[float]] = {"granted": [], "timeout": []}
        """Seconds of each try that was alone in its move."""

    def play(self) -> Played:
        try:
            if self._adapter.ask("reset").get("result") != "ok":
                raise AdapterError("its reply to reset is not ok")
            # Late replies to calls of the last case are ignored.
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
        self._calls, self._unlocks, self._said = {}, {}, []
        self._highest |= {key: max(tokens) for key, tokens in self._tokens.items()}
        self._tokens = {}
        waiting = [(sent.command.call, sent.command.key) for sent in self._open.values()]
        settle = self._settle(number)
        self._meets = move[0].call if move[0].op == "limit" and len(move) > 1 else None
        for place, command in enumerate(move):
            if place and self._meets is not None:
                self._adapter.flush()
                limit = self._open[self._ids[self._meets]]
                _wait_until(limit.at + (limit.command.ms or 0) / 1000 + self._aim.late())
            self._send(command, place, move)
        watchdog = self._adapter.watchdog()
        pause = 0.0
        while True:
            # First, read once more what it sent.
            silence = 0.0 if self._stat else watchdog.silent()
            table = self._table() if self._stat else ()
            replies = [reply for reply in self._adapter.replies(pause) if reply["id"] >= self._first_id]
            for reply in replies:
                self._reply(reply)
            if self._judge.findings:
                raise _MismatchError
            if replies:
                if move[0].op != "limit":
                    self._adapter.answers_within(watchdog.silent())
                watchdog.sign()
                pause = 0.0
                continue
            unlocks = tuple(self._unlocks[number] for number in sorted(self._unlocks))
            seen = self._shown(Seen(tuple(sorted(self._calls.items())), unlocks, table))
            fitting = [course for course in self._courses if self._shown(course[number]) == seen]
            if fitting and self._all_answered:
                # The silence is waited for however long it is: what must come has come.
                if self._stat or not self._open or silence >= settle:
                    self._courses = fitting
                    self._rest()
                    self._meeting(move, waiting)
                    if self._meets is not None:
                        self._aim.saw(self._calls[self._meets])
                    return
            elif watchdog.silent() >= self._waits.timeout:
                self._rest()
                self._name(move, seen, [self._shown(course[number]) for course in self._courses])
            left = settle - silence if fitting and not self._stat else 0.02
            pause = min(0.02, 0.0005 + 2 * pause, max(0.0005, left))

    def _settle(self, number: int) -> float:
        """The silence that means waiting after this move.

        In haste it is a part of the usual one. What comes too late shows in a later move as well, except behind the
        last wait of a case; so one case in `PATIENTLY` has the usual silence there.
        """
        usual = self._waits.settle
        later = any(row[2] for course in self._courses for seen in course[number + 1 :] for row in seen.table)
        if not self._waits.haste or (not later and zlib.crc32(self._case.id.encode()) % PATIENTLY == 0):
            return usual
        return min(usual, max(LEAST * usual, self._waits.haste * self._adapter.usual_answer))

    @property
    def _all_answered(self) -> bool:
        """Return whether only calls of lock have no reply."""
        return all(sent.command.op in ASKING for sent in self._open.values())

    def _shown(self, seen: Seen) -> Seen:
        """Return the part of an observation that this port can show, and that is judged."""
        table = seen.table if self._stat else ()
        if "KM-IDLE" in self._off:
            table = tuple(row for row in table if row[1] > 0 or row[2] > 0)
        if "KM-REF" in self._off:
            # Only the references would show whether a key without waiters is held.
            rows = (row for row in table if row[2] or "KM-IDLE" not in self._off)
            table = tuple((key, waiters + 1, waiters) for key, _, waiters in rows)
        return seen._replace(table=table)

    def _rest(self) -> None:
        """Let the judge check who waits, in a state that should be quiescent."""
        for key in list(self._beside):
            self._decide(key)
        for sent in self._open.values():
            if (sent.command.ms or LONG) <= SHORT:
                self._judge.cancelled(sent.client, alone=True)
        self._judge.quiet({sent.client: sent.step for sent in self._open.values() if sent.step}, frozenset())
        if self._judge.findings:
            raise _MismatchError

    def _meeting(self, move: Move, waiting: list[tuple[int | None, str | None]]) -> None:
        """Note what this port did where a cancel came behind the grant, by the order in which it says it worked."""
        if [command.op for command in move] == ["unlock", "cancel"] and waiting == [(move[1].call, move[0].key)]:
            ends = {command.op: (place, how) for place, (command, how) in enumerate(self._said)}
            late = [how for command, how in self._said if command.op in ASKING and command.call == move[1].call]
            called = [place for place, (command, _) in enumerate(self._said) if command.call == move[1].call]
            # A grant that is said before the cancel may have been back when that came.
            meets = late == ["cancelled"] or called[-1:] > [ends["cancel"][0]]
            if meets and ends["unlock"][0] < ends["cancel"][0]:
                self.met += late

    def _name(self, move: Move, seen: Seen, due: list[Seen]) -> None:
        """Find the clause for a difference that the judge does not name."""
        self._judge.ended(Ending.DONE)
        message = f"after {format_moves((move,))}: {seen}; it must be: {' or '.join(map(str, dict.fromkeys(due)))}"
        if not self._judge.findings:
            alike = [one for one in due if one[:2] == seen[:2]]
            refused = [one for one in due if one[::2] == seen[::2] and "unheld" in one.unlocks]
            if alike and refused:
                # It says that it has ended a grant, but by the table there was no grant to end.
                self._judge.differs("KM-UNHELD", message)
            elif not alike and move[0].op == "done":
                self._judge.differs("KM-CANCEL", message)
            elif any(one.calls == seen.calls for one in due) and not alike:
                self._judge.differs("KM-TOKEN", message)
            elif not alike:
                self._judge.differs("KM-LIVE", message)
            elif "KM-IDLE" not in self._off and {r[0] for r in seen.table} > {r[0] for r in alike[0].table}:
                self._judge.differs("KM-IDLE", message)
            else:
                # Where references are not judged, what differs is who waits.
                self._judge.differs("KM-CANCEL" if "KM-REF" in self._off else "KM-REF", message)
        raise _MismatchError(message)

    def _send(self, command: Command, place: int, move: Move) -> None:
        if command.op in ASKING:
            assert command.call is not None
            assert command.key is not None
            kind = "?" if command.op == "try" else "~" if command.call in self._cancelling else "+"
            step = Step(kind, command.key)
            self._judge.called(command.call, step)
            if command.op == "done":
                self._judge.cancelled(command.call, alone=True)
            at = time.monotonic() if len(move) == 1 or command.op == "limit" else 0.0
            fields: dict[str, Any] = {"try": {"timeout": 0}, "limit": {"timeout": command.ms}, "done": {"done": True}}
            number = self._adapter.send("lock", key=command.key, **fields.get(command.op, {}))
            self._ids[command.call] = number
            self._open[number] = _Sent(command, command.call, step, place, at)
        elif command.op == "cancel":
            assert command.call is not None
            self._judge.cancelled(command.call)
            number = self._adapter.send("cancel", call=self._ids[command.call])
            self._open[number] = _Sent(command, command.call, None, place)
        elif command.op == "unlock" or command.op == "lease" or command.key in self._holder:
            self._unlock(command, place)

    def _unlock(self, command: Command, place: int) -> None:
        key = (self._asked[command.call] if command.key is None else command.key) or ""
        holder = self._holder.get(key)
        if (
            command.call is None
            and holder is None
            and any(sent.step and sent.step.key == key for sent in self._open.values())
        ):
            # It may find the key taken or free. The judge is told once that is known.
            number = self._adapter.send("unlock", key=key)
            self._open[number] = _Sent(command, len(self._asked), Step("x", key), place)
            self._beside[key] = ""
            return
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

    # -- replies -------------------------------------------------------------------------------------------------

    def _reply(self, reply: dict[str, Any]) -> None:
        sent = self._open.pop(reply["id"], None)
        if sent is None:
            raise AdapterError(f"it replied to command {reply['id']}, which has its reply or was never sent")
        result = reply.get("result")
        if result == "error":
            message = printable(str(reply.get("message", "it gave no message")))
            self._judge.raised(
                sent.client, sent.step or Step("~", self._asked[sent.command.call] or ""), _PortError(message)
            )
            words = f"{sent.command} ended with an error: {message}"
            if not self._judge.findings:
                self._judge.differs(_UNEXPECTED.get(sent.command.op, "KM-LIVE"), words)
            raise _MismatchError(words)
        if result not in _WORDS[sent.command.op]:
            raise AdapterError(f"its reply to {sent.command.op} is {result!r}, which specs/protocol.md does not have")
        self._said.append((sent.command, result))
        if sent.step is None:
            return
        if sent.command.op in ASKING:
            self._calls[sent.client] = result
            if sent.command.op == "limit" and result == "timeout":
                if time.monotonic() - sent.at >= EARLIEST * (sent.command.ms or 0) / 1000:
                    self._judge.cancelled(sent.client, alone=sent.client != self._meets)
            elif result == "granted":
                self._token(sent, reply)
            if sent.command.op == "try" and sent.at:
                self.took[result].append(time.monotonic() - sent.at)
        else:
            self._unlocks[sent.place] = result
            if sent.step.key in self._beside:
                self._beside[sent.step.key] = result
                return
        if result in _ERRORS:
            self._judge.raised(sent.client, sent.step, _ERRORS[result])
            return
        if result == "granted":
            if self._beside.get(sent.step.key) != "unheld" and sent.step.key in self._holder:
                # The grant before this one can only have been ended by the unlock beside them.
                self._decide(sent.step.key, released=True)
            self._holder.setdefault(sent.step.key, sent.client)
        self._judge.returned(sent.client, sent.step)

    def _token(self, sent: _Sent, reply: dict[str, Any]) -> None:
        """Compare the token of a grant with those of the key's grants before, if the port has them."""
        if "token" not in self._adapter.features:
            return
        token, key = reply.get("token"), sent.command.key or ""
        if type(token) is not int:
            raise AdapterError(f"its reply to a granted lock has no whole number as its token: {token!r}")
        highest, beside = self._highest.get(key), self._tokens.setdefault(key, [])
        # The order of the grants of one move is unknown.
        if token in beside or (highest is not None and token <= highest):
            before = max(beside, default=highest)
            self._judge.differs("KM-TOKEN", f"call {sent.client} got {key} with the token {token}, after {before}")
        beside.append(token)

    def _decide(self, key: str, *, released: bool = False) -> None:
        """Tell the judge the effect of an unlock that was sent together with a lock of a free key, if it had one."""
        if key not in self._beside:
            return
        result = self._beside.pop(key)
        if (released or result == "released") and key in self._holder:
            holder = self._holder.pop(key)
            self._judge.called(holder, Step("-", key))
            self._judge.returned(holder, Step("-", key))
        elif result:
            step = Step("x", key)
            self._judge.called(len(self._asked), step)
            if result == "released":
                self._judge.returned(len(self._asked), step)
            else:
                self._judge.raised(len(self._asked), step, _ERRORS["unheld"])

    def _table(self) -> tuple[tuple[str, int, int], ...]:
        keys: Any = self._adapter.ask("stat").get("keys")
        try:
            rows = sorted((printable(key), row["refs"], row["waiters"]) for key, row in keys.items())
        except (AttributeError, TypeError, KeyError):
            rows = [("", None, None)]
        if any(type(refs) is not int or type(waiters) is not int for _, refs, waiters in rows):
            raise AdapterError("its reply to stat is not as specs/protocol.md has it")
        return tuple(rows)
