"""The checker against an oracle that tries every way in which a small log could have come from a correct locker."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kmutex.trace.check import Checker, LogReport
from kmutex.trace.events import Header, Kind, LogEvent, Recorded, TraceFormatError, Why

# -- the lock, as plainly as can be: a queue whose head holds ----------------------------------------------------------

Queue = tuple[int, ...]


Lines = tuple[tuple[str, int], ...]


def inside_blocks(queue: Queue, event: LogEvent) -> Iterator[tuple[Lines, Queue]]:
    """What a correct locker can do that begins with this line: the lines of the step, and the queue after it."""
    kind, call = event.kind, int(event.call)
    if kind == "request" and call not in queue:
        if queue:
            yield (("request", call),), (*queue, call)
        else:
            yield (("request", call), ("grant", call)), (call,)
            # It ended in an error, or was cancelled, before it held anything.
            yield (("request", call), ("cancelled", call)), ()
    elif kind == "fail" and call in queue:
        rest = tuple(other for other in queue if other != call)
        if queue[0] == call and rest:
            yield (("fail", call), ("grant", rest[0])), rest
        else:
            yield (("fail", call),), rest
    elif kind == "release" and queue[:1] == (call,):
        rest = queue[1:]
        yield (("release", call), *((("grant", rest[0]),) if rest else ())), rest
    elif kind == "unheld" and queue[:1] != (call,):
        # A locker may know its owner, and refuse others while it is held.
        yield (("unheld", call),), queue


def fits(event: LogEvent, wanted: tuple[str, int]) -> bool:
    if wanted[0] == "cancelled":
        return event.kind == "fail" and event.why != "timeout" and event.call == wanted[1]
    return (event.kind, event.call) == wanted


def inside_possible(events: tuple[LogEvent, ...], queue: Queue = ()) -> bool:
    """Whether the log is a row of steps of a correct locker; the last may be cut short."""
    if not events:
        return True
    if events[0].kind == "end":
        return not queue
    for lines, after in inside_blocks(queue, events[0]):
        part = events[: len(lines)]
        if all(fits(event, line) for event, line in zip(part, lines, strict=False)) and (
            len(part) < len(lines) or inside_possible(events[len(lines) :], after)
        ):
            return True
    return False


def anew(events: tuple[LogEvent, ...]) -> tuple[LogEvent, ...]:
    """The same log with another name for each request, also where a name is used again later."""
    names: dict[object, int] = {}
    renamed = []
    for event in events:
        if event.kind == "request" or event.call not in names:
            names[event.call] = len(renamed) + 1
        renamed.append(event._replace(call=names[event.call]))
    return tuple(renamed)


class Outside:
    """The same where the steps are hidden: a search through all places where they can have been."""

    def __init__(self, events: tuple[LogEvent, ...]) -> None:
        self.events = anew(events)
        self.fate: dict[int, str] = {}
        for event in self.events:
            if event.kind == "grant":
                self.fate[int(event.call)] = "grant"
            elif event.kind == "fail":
                self.fate[int(event.call)] = "timeout" if event.why == "timeout" else "cancelled"

    def possible(self) -> bool:
        start: tuple[int, Queue, frozenset[tuple[int, str]]] = (0, (), frozenset())
        seen, todo = {start}, [start]
        while todo:
            place, queue, status = todo.pop()
            if place == len(self.events):
                return True
            moves = list(self.hidden(queue, dict(status)))
            after = [(place, q, frozenset(s.items())) for q, s in moves]
            line = self.line(self.events[place], queue, dict(status))
            if line is not None:
                after.append((place + 1, queue, frozenset(line.items())))
            for state in after:
                if state not in seen:
                    seen.add(state)
                    todo.append(state)
        return False

    def hidden(self, queue: Queue, status: dict[int, str]) -> Iterator[tuple[Queue, dict[int, str]]]:
        """Each step that the locker can take now.

        asked, queued, waited: of a call of lock that has not returned; waited has been in the queue and holds by a
        hand-over. entered: took a free key. out: gave up, and will raise. Then by the lines: holds, unlocking,
        stray. worked, refused: what the unlock will say.
        """
        for call, now in status.items():
            fate = self.fate.get(call, "any")
            gives_up = fate in ("timeout", "cancelled", "any")
            if now == "asked":
                if queue:
                    yield (*queue, call), {**status, call: "queued"}
                elif fate != "timeout":
                    yield (call,), {**status, call: "entered"}
                if fate in ("cancelled", "any"):
                    yield queue, {**status, call: "out"}
            elif now == "queued" and gives_up:
                # Also where it has been handed the key: the key then goes on.
                yield tuple(other for other in queue if other != call), {**status, call: "out"}
            elif now == "entered" and fate in ("cancelled", "any") and call in queue:
                yield tuple(other for other in queue if other != call), {**status, call: "out"}
            elif now in ("unlocking", "stray", "unlocking lease", "stray lease"):
                own, lease = queue[:1] == (call,), now.endswith("lease")
                if own or (queue and not lease):
                    yield queue[1:], {**status, call: "worked"}
                if not own and (not queue or now != "unlocking"):
                    yield queue, {**status, call: "refused"}

    def line(self, event: LogEvent, queue: Queue, status: dict[int, str]) -> dict[int, str] | None:
        """The statuses after the line, None where it can't stand here."""
        if event.kind == "end":
            return None if status else status
        call = int(event.call)
        now = status.get(call)
        if event.kind == "request":
            return {**status, call: "asked"}
        if event.kind == "waiting":
            # A call that was robbed of its grant by a stray unlock has been in the queue too.
            return status if now == "queued" else None
        if event.kind == "grant":
            # "queued" and no more in the queue: it was handed the key, and robbed of it by a stray unlock.
            if now == "entered" or (now == "queued" and call not in queue[1:]):
                return {**status, call: "holds"}
            return None
        if event.kind == "release":
            return {**status, call: ("unlocking" if now == "holds" else "stray") + (" lease" if event.lease else "")}
        if {"fail": "out", "released": "worked", "unheld": "refused"}[event.kind] != now:
            return None
        return {other: what for other, what in status.items() if other != call}


# -- logs --------------------------------------------------------------------------------------------------------------

Line = tuple[Kind, Why, bool]


def report_of(recorded: Recorded, events: tuple[LogEvent, ...]) -> LogReport | None:
    """None where a call asks twice, which is no trace."""
    checker = Checker(Header(recorded, "idle"))
    for event in events:
        try:
            checker.feed(event)
        except TraceFormatError:
            return None
    return checker.report()


def lives(recorded: Recorded) -> st.SearchStrategy[list[Line]]:
    """All lines of one call, in order; it may break off."""
    whys: st.SearchStrategy[Why] = st.sampled_from(("timeout", "cancelled", "error"))
    failing = whys.map(lambda why: [("request", "", False), ("fail", why, False)])
    if recorded == "inside":
        let_go: list[Line] = [("release", "", False), ("release", "", False), ("fail", "cancelled", False)]
        granted = st.sampled_from([[line] for line in let_go] + [[]]).map(
            lambda rest: [("request", "", False), ("grant", "", False), *rest]
        )
        stray = st.sampled_from([[("unheld", "", False)], [("unheld", "", True)]])
        return st.one_of(granted, granted, failing, stray)
    seen = st.sampled_from([[], [("waiting", "", False)]])
    ends: st.SearchStrategy[Kind] = st.sampled_from(("released", "released", "released", "unheld"))
    held = st.tuples(seen, ends).map(
        lambda parts: [
            ("request", "", False),
            *parts[0],
            ("grant", "", False),
            ("release", "", False),
            (parts[1], "", False),
        ]
    )
    failed = st.tuples(seen, whys).map(lambda parts: [("request", "", False), *parts[0], ("fail", parts[1], False)])
    stray = st.tuples(ends, st.booleans()).map(lambda parts: [("release", "", parts[1]), (parts[0], "", False)])
    return st.one_of(held, held, held, failed, stray)


@st.composite
def shuffled(draw: Any, recorded: Recorded) -> list[LogEvent]:
    """The lines of a few calls of one key, shuffled together."""
    left = {call: list(draw(lives(recorded))) for call in range(1, draw(st.integers(1, 4)) + 1)}
    events: list[LogEvent] = []
    while any(left.values()):
        call = draw(st.sampled_from([call for call, lines in left.items() if lines]))
        kind, why, lease = left[call].pop(0)
        events.append(LogEvent(0, kind, "k", call, why, lease=lease))
    return events[: draw(st.integers(max(1, len(events) - 3), len(events)))]


class Walk:
    """A correct locker that is used at random, and what its callers write."""

    def __init__(self, calls: int) -> None:
        self.calls = range(1, calls + 1)
        self.queue: list[int] = []
        self.status: dict[int, str] = dict.fromkeys(self.calls, "new")
        self.events: list[LogEvent] = []

    def write(self, kind: Kind, call: int, why: Why = "") -> None:
        self.events.append(LogEvent(0, kind, "k", call, why))

    def outside(self, call: int, choice: int) -> None:
        """One thing that happens to the call, seen or not; choice: 0 to 9."""
        now = self.status[call]
        if now == "new":
            self.write("request", call)
            self.status[call] = "asked"
        elif now == "asked":
            self.status[call] = "queued" if self.queue else "entered"
            self.queue.append(call)
            if choice < 6 and self.queue[0] != call:
                self.write("waiting", call)
        elif now == "queued" and call in self.queue[1:] and choice < 4:
            self.write("waiting", call)
        elif now == "queued" and choice > 7:
            self.queue.remove(call)
            self.status[call] = "out"
        elif now in ("queued", "entered") and self.queue[0] == call:
            self.write("grant", call)
            self.status[call] = "holds"
        elif now == "out":
            self.write("fail", call, "timeout" if choice < 5 else "cancelled")
            self.status[call] = "over"
        elif now == "holds":
            self.write("release", call)
            self.status[call] = "unlocking"
        elif now == "unlocking":
            self.queue.remove(call)
            self.status[call] = "worked"
        elif now == "worked":
            self.write("released", call)
            self.status[call] = "over"

    def inside(self, call: int, choice: int) -> None:
        """One step of the locker."""
        holder = self.queue[0] if self.queue else 0
        if self.status[call] == "new":
            self.status[call] = "asked"
            self.queue.append(call)
            self.write("request", call)
        elif call == holder:
            self.queue.remove(call)
            self.write(*(("release", call) if choice < 7 else ("fail", call, "cancelled")))  # type: ignore[arg-type]
        elif call in self.queue and choice > 7:
            self.queue.remove(call)
            self.write("fail", call, "timeout")
        elif call not in self.queue and choice == 0:
            self.write("unheld", call)
        if self.queue and self.queue[0] != holder:
            self.write("grant", self.queue[0])


def walked(recorded: Recorded, pick: Callable[[int], int]) -> list[LogEvent]:
    """A correct log; or one in which two neighbours changed places, or two calls their names from some line on.

    pick: a number from 0 to below the given one.
    """
    walk = Walk(2 + pick(3))
    step = walk.outside if recorded == "outside" else walk.inside
    for _ in range(8 + pick(23 if recorded == "inside" else 60)):
        step(1 + pick(len(walk.calls)), pick(10))
    events = walk.events or [LogEvent(0, "request", "k", 1)]
    for _ in range((0, 1, 1, 2)[pick(4)]):
        at = pick(len(events))
        grants = [number for number, event in enumerate(events) if event.kind == "grant"]
        kind = pick(4)
        if kind == 0:
            events[at : at + 2] = events[at : at + 2][::-1]
            continue
        one, two = 1 + pick(len(walk.calls)), 1 + pick(len(walk.calls))
        if kind > 1 and len(grants) > 1:
            number = pick(len(grants) - 1)
            at = grants[number]
            one, two = (int(events[place].call) for place in grants[number : number + 2])
        names = {one: two, two: one}
        events[at:] = [event._replace(call=names.get(int(event.call), event.call)) for event in events[at:]]
    return events


def whole(events: list[LogEvent], *, ended: bool) -> tuple[LogEvent, ...]:
    """With an end or without, and the lines numbered."""
    lines = [*events, LogEvent(0, "end")] if ended else events
    return tuple(event._replace(line=number) for number, event in enumerate(lines, 2))


@st.composite
def logs(draw: Any, recorded: Recorded) -> tuple[LogEvent, ...]:
    """Of either sort."""
    if draw(st.booleans()):
        events = draw(shuffled(recorded))
    else:
        events = walked(recorded, lambda below: int(draw(st.integers(0, below - 1))))
    return whole(events, ended=draw(st.booleans()))


WALKS = 4000
SEEN: Counter[str] = Counter()
CHECKED = settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


def judge_inside(events: tuple[LogEvent, ...]) -> None:
    report = report_of("inside", events)
    if report is None:
        return
    SEEN.update([f"inside {report.verdict.value}", *(f"inside {found.clause}" for found in report.findings)])
    if report.verdict.value != "unknown":
        assert (report.verdict.value == "pass") == inside_possible(events), (report.findings, events)


def judge_outside(events: tuple[LogEvent, ...]) -> None:
    report = report_of("outside", events)
    if report is None:
        return
    undecided = sum(row.undecided for row in report.clauses)
    SEEN.update(f"outside {found.clause}" for found in report.findings)
    SEEN[f"outside {report.verdict.value}, {'undecided' if undecided else 'decided'}"] += 1
    if report.verdict.value == "fail":
        assert not Outside(events).possible(), (report.findings, events)
    elif report.verdict.value == "pass" and not undecided:
        assert Outside(events).possible(), events


@CHECKED
@given(logs("inside"))
def test_a_log_from_inside_passes_if_and_only_if_it_is_possible(events: tuple[LogEvent, ...]) -> None:
    """KM-EXCL, KM-FIFO, KM-HANDOFF, KM-CANCEL, KM-RACE, KM-UNHELD: exactly."""
    judge_inside(events)


@pytest.mark.long
@CHECKED
@given(logs("outside"))
def test_a_log_from_outside_is_judged_soundly(events: tuple[LogEvent, ...]) -> None:
    """KM-EXCL, KM-FIFO, KM-INDEP, KM-UNHELD, KM-TOKEN: fails only what is impossible, passes only what is possible.

    Where the log does not tell, the clause says so, and nothing is claimed.
    """
    judge_outside(events)


@pytest.mark.parametrize("recorded", ["inside", "outside"])
def test_many_logs_that_are_nearly_correct(recorded: Recorded) -> None:
    """KM-EXCL, KM-FIFO, KM-HANDOFF: the same for more and longer logs, and each sort of log was among them."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    SEEN.clear()
    always = ("KM-EXCL", "KM-FIFO", "KM-IDLE", "KM-LIVE", "KM-INDEP")
    inside = ("pass", "fail", "KM-HANDOFF", "KM-RACE", "KM-CANCEL", "KM-TOKEN")
    outside = ("pass, decided", "fail, decided")
    wanted = [f"{recorded} {kind}" for kind in (*always, *(inside if recorded == "inside" else outside))]
    for number in range(10 * WALKS):
        if number >= WALKS and all(SEEN[kind] for kind in wanted):
            break
        events = whole(walked(recorded, rng.randrange), ended=rng.random() < 0.3)
        (judge_inside if recorded == "inside" else judge_outside)(events)
    print(dict(SEEN))
    assert all(SEEN[kind] for kind in wanted), SEEN
