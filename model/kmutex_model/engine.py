"""A small model of a queue on a server: one key, sessions that can be cut off, a server that can crash.

`python -m kmutex_model.engine` explores it and its broken twins. It stands by itself: the other modules are about one
process, which can't lose a lock. What is explored, up to a `Bound`: every order of requests, releases, sweeps,
notifications (lost, or sent by strangers), cuts of a session, and crashes of the server.

KM-EXCL     of the clients whose session lives at the server, one at most believes that it holds
TOKENS      a token is higher than every one that was granted before, over crashes too
KM-LIVE     once faults stop, nobody whose session lives waits forever: the steps without faults come to an end, and
            where none is left nobody waits
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

RESERVED = 2
"""Tickets in one reservation."""


class Bound(NamedTuple):
    """How much may happen."""

    clients: int = 2
    requests: int = 3
    """Of all clients together."""
    cuts: int = 1
    crashes: int = 1
    forged: int = 1
    slow: int = 1
    """Reservations whose client stands still between writing them down and using them."""


class Row(NamedTuple):
    """A request at the server. Its session is a client and the count of the sessions that this client has had."""

    ticket: int
    client: int
    session: int


class Client(NamedTuple):
    """phase: idle, looked (a stale one only), waiting, holding, lost. lives: at the server.

    reserved: what it has written down and not used yet, if it stands still there; 0: nothing.
    """

    phase: str = "idle"
    lives: bool = True
    session: int = 0
    hint: bool = False
    seen_free: bool = False
    reserved: int = 0


class State(NamedTuple):
    """reserved: on the disk. upto: of the life; 0: none. counter: the last ticket. highest: a ghost, of all granted."""

    clients: tuple[Client, ...]
    rows: tuple[Row, ...]
    reserved: int
    upto: int
    counter: int
    highest: int
    left: Bound


class Step(NamedTuple):
    name: str
    client: int
    fault: bool
    after: State
    wrong: str = ""


BROKEN = {
    "believes-hints": "KM-EXCL",
    "stale-look": "KM-EXCL",
    "counter-alone": "TOKENS",
    "reserves-late": "TOKENS",
    "stale-reservation": "TOKENS",
    "never-sweeps": "KM-LIVE",
    "deaf": "KM-LIVE",
}
"""What each broken twin violates.

believes-hints  takes a notification for a grant
stale-look      decides on a look that is older than its turn
counter-alone   its tokens are a counter, whose last steps a crash may lose
reserves-late   uses a reservation before it is on the disk
stale-reservation
                begins a life on what was reserved before the life that there is
never-sweeps    does not look for the dead
deaf            its listener has died, and it does not give the session up
"""


def start(bound: Bound) -> State:
    """Nobody has asked, and the server has no life yet."""
    return State((Client(),) * bound.clients, (), 0, 0, 0, 0, bound)


def steps(state: State, broken: str = "") -> Iterator[Step]:
    """All that can happen next."""
    left = state.left
    for number, client in enumerate(state.clients):
        if client.phase == "lost":
            new = Client(session=client.session + 1)
            yield Step("begins anew", number, False, _with(state, number, new))
        if client.phase != "lost" and not client.lives:
            yield Step("notices", number, False, _with(state, number, client._replace(phase="lost", hint=False)))
        if client.reserved and client.lives:
            after = _with(state, number, client._replace(reserved=0))
            newer = client.reserved - RESERVED >= state.upto or broken == "stale-reservation"
            if state.counter >= state.upto and newer:
                after = after._replace(upto=client.reserved, counter=client.reserved - RESERVED)
            yield Step("goes on", number, False, after)
            continue
        slow = left.slow and broken != "counter-alone"
        if slow and state.counter >= state.upto and client.phase == "idle" and client.lives:
            upto = state.reserved + RESERVED
            fewer = state._replace(reserved=upto, left=left._replace(slow=left.slow - 1))
            yield Step("reserves, and stands still", number, True, _with(fewer, number, client._replace(reserved=upto)))
        if client.phase == "idle" and client.lives and left.requests:
            if broken == "stale-look":
                free = not _bury(state).rows
                fewer = state._replace(left=left._replace(requests=left.requests - 1))
                yield Step("looks", number, True, _with(fewer, number, client._replace(phase="looked", seen_free=free)))
            else:
                yield from _ask(state, number, broken, spend=True)
        if client.phase == "looked" and client.lives:
            yield from _ask(state, number, broken, spend=False)
        if client.phase == "holding" and client.lives:
            kept = tuple(row for row in state.rows if (row.client, row.session) != (number, client.session))
            yield Step(
                "releases",
                number,
                False,
                _told(_bury(_with(state._replace(rows=kept), number, client._replace(phase="idle")))),
            )
        if client.phase == "waiting" and client.lives:
            if client.hint and broken != "deaf":
                heard = _with(state, number, client._replace(hint=False))
                sure = broken == "believes-hints"
                yield _granted("hears", heard, number, sure=sure)
            if broken not in ("never-sweeps", "deaf"):
                swept = _told(_bury(state)) if _bury(state) != state else state
                yield _granted("sweeps", swept, number, sure=False)
        if client.hint:
            yield Step("loses a notification", number, True, _with(state, number, client._replace(hint=False)))
        if left.forged and client.phase == "waiting" and not client.hint:
            fewer = state._replace(left=left._replace(forged=left.forged - 1))
            yield Step("gets a forged notification", number, True, _with(fewer, number, client._replace(hint=True)))
        if left.cuts and client.lives and client.phase != "lost":
            fewer = state._replace(left=left._replace(cuts=left.cuts - 1))
            yield Step("is cut off", number, True, _with(fewer, number, client._replace(lives=False, reserved=0)))
    if left.crashes:
        dead = tuple(client._replace(lives=False, hint=False, reserved=0) for client in state.clients)
        # The counter is the first thing that a crash may have lost.
        lost = state._replace(clients=dead, rows=(), upto=0, left=left._replace(crashes=left.crashes - 1))
        lost = lost._replace(counter=max(0, state.counter - 1))
        if broken == "reserves-late":
            lost = lost._replace(reserved=max(0, state.reserved - RESERVED))
        yield Step("crashes", -1, True, lost)


def _ask(state: State, number: int, broken: str, *, spend: bool) -> Iterator[Step]:
    client = state.clients[number]
    if spend:
        state = state._replace(left=state.left._replace(requests=state.left.requests - 1))
    if broken != "counter-alone" and state.counter >= state.upto:
        # Reserved on the disk, and then allowed; the counter goes to the beginning of what is new.
        upto = state.reserved + RESERVED
        state = state._replace(reserved=upto, upto=upto, counter=upto - RESERVED)
    state = _bury(state)
    ticket = state.counter + 1
    free = client.seen_free if client.phase == "looked" else not state.rows
    state = state._replace(rows=(*state.rows, Row(ticket, number, client.session)), counter=ticket)
    if free:
        yield _holds("asks", state, number, ticket)
    else:
        # Other clients that came to the head by a burial are told.
        yield Step("asks", number, True, _told(_with(state, number, client._replace(phase="waiting", hint=False))))


def _granted(name: str, state: State, number: int, *, sure: bool) -> Step:
    client = state.clients[number]
    head = state.rows[0] if state.rows else None
    if head is not None and (head.client, head.session) == (number, client.session):
        return _holds(name, state, number, head.ticket)
    if sure:
        mine = next((row for row in state.rows if (row.client, row.session) == (number, client.session)), None)
        if mine is not None:
            return _holds(name, state, number, mine.ticket)
    return Step(name, number, False, state)


def _holds(name: str, state: State, number: int, ticket: int) -> Step:
    wrong = "" if ticket > state.highest else "TOKENS"
    client = state.clients[number]._replace(phase="holding", hint=False)
    after = _with(state._replace(highest=max(state.highest, ticket)), number, client)
    if sum(one.phase == "holding" and one.lives for one in after.clients) > 1:
        wrong = "KM-EXCL"
    return Step(name, number, name == "asks", after, wrong)


def _bury(state: State) -> State:
    """Without the rows of the dead."""
    kept = tuple(row for row in state.rows if _is_living(state, row))
    return state._replace(rows=kept)


def _is_living(state: State, row: Row) -> bool:
    client = state.clients[row.client]
    return client.lives and client.phase != "lost" and client.session == row.session


def _told(state: State) -> State:
    """With a notification for the session at the head."""
    if not state.rows:
        return state
    number = state.rows[0].client
    client = state.clients[number]
    return _with(state, number, client._replace(hint=True)) if client.phase == "waiting" else state


def _with(state: State, number: int, client: Client) -> State:
    return state._replace(clients=(*state.clients[:number], client, *state.clients[number + 1 :]))


class Found(NamedTuple):
    """violated: empty where all holds. path: a shortest run to the violation."""

    states: int
    violated: str
    path: tuple[str, ...]


def explore(bound: Bound, broken: str = "") -> Found:
    """Every state within the bound, breadth first, up to the first violation."""
    first = start(bound)
    came: dict[State, tuple[State, str] | None] = {first: None}
    calm: dict[State, list[State]] = {}
    todo = deque([first])
    while todo:
        state = todo.popleft()
        calm[state] = []
        for step in steps(state, broken):
            what = f"{step.client} {step.name}" if step.client >= 0 else f"the server {step.name}"
            if step.wrong:
                return Found(len(came), step.wrong, (*_path(came, state), what))
            if not step.fault and step.after != state:
                calm[state].append(step.after)
            if step.after not in came:
                came[step.after] = (state, what)
                todo.append(step.after)
    stuck = _stuck(calm)
    if stuck is not None:
        return Found(len(came), "KM-LIVE", _path(came, stuck))
    return Found(len(came), "", ())


def _stuck(calm: dict[State, list[State]]) -> State | None:
    """The first state in which somebody waits and no step without a fault is left, or which such steps come back to."""
    for state, following in calm.items():
        if not following and any(client.phase == "waiting" and client.lives for client in state.clients):
            return state
    # Without a cycle each run of such steps ends, and where it ends nobody waits.
    open_ = {state: len(following) for state, following in calm.items()}
    before: dict[State, list[State]] = {}
    for state, following in calm.items():
        for after in following:
            before.setdefault(after, []).append(state)
    done = deque(state for state, number in open_.items() if number == 0)
    ended = 0
    while done:
        ended += 1
        for state in before.get(done.popleft(), ()):
            open_[state] -= 1
            if open_[state] == 0:
                done.append(state)
    return next((state for state, number in open_.items() if number), None) if ended < len(calm) else None


def _path(came: dict[State, tuple[State, str] | None], state: State) -> tuple[str, ...]:
    found = []
    while (edge := came[state]) is not None:
        state, what = edge
        found.append(what)
    return tuple(reversed(found))


BOUNDS = (Bound(), Bound(clients=3), Bound(requests=4, cuts=2, crashes=2))


def main() -> int:
    """0 if the model holds at each bound and every broken twin violates what it is there for, 1 if not."""
    wrong = 0
    for bound in BOUNDS:
        found = explore(bound)
        wrong += bool(found.violated)
        print(f"{'the queue on a server':<22} {found.states:>7} states  {found.violated or 'holds'}  {bound}")
        if found.violated:
            print("  " + "; ".join(found.path))
    for broken, clause in BROKEN.items():
        found = explore(Bound(), broken)
        wrong += found.violated != clause
        print(f"{broken:<22} {found.states:>7} states  violates {found.violated or 'nothing!'}")
        print("  " + "; ".join(found.path))
    print("all as expected" if not wrong else f"{wrong} not as expected")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
