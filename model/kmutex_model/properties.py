"""What must be true: one property per clause of the contract.

always      checked in every reachable state (`in_state`) or on every step from one (`on_step`)
eventually  checked on infinite runs, KM-LIVE only
sometimes   a situation that must occur within the bound; if it does not, the "always" of the same property was never
            put to the test, which is a failure too

The checks read the truth from `clients` and `order` and compare the table with it.

Two clauses of the contract are not here, or only in part. KM-LOOP is about event loops, which the model does
not have. KM-INTERRUPT is here as a single step; that the code of a driver can be interrupted between any two
instructions is for the tests of that driver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from kmutex_model.actions import Action, action_key
from kmutex_model.state import IDLE, Client, Config, Entry, Race, State, owners, owns, present
from kmutex_model.turn import Outcome


class Transition(NamedTuple):
    """One step, with where it began. `key` is the key the action is about."""

    config: Config
    before: State
    action: Action
    key: int
    outcome: Outcome
    after: State


StateCheck = Callable[[Any, Any], str]
"""What is wrong in this state of a model with this configuration, or an empty string."""
StepCheck = Callable[[Any], str]
"""What is wrong with this step, or an empty string."""


@dataclass(frozen=True)
class Sometimes:
    """A situation that must be met within every bound of at least this size.

    numbered  it reads which of two clients has the larger number, so renamed states say nothing about it
    """

    statement: str
    seen: Callable[[Any], bool]
    clients: int = 1
    keys: int = 1
    races: tuple[Race, ...] = ("keep", "pass")
    numbered: bool = False

    def due(self, config: Config) -> bool:
        """Whether this bound is large enough to meet it."""
        return config.clients >= self.clients and config.keys >= self.keys and config.race in self.races


@dataclass(frozen=True)
class Eventually:
    """Whatever is pending for a client ends, if the actions named in `fair` do not stay enabled forever
    without being taken (weak fairness, for each client by itself)."""

    pending: Callable[[Any, int], bool]
    fair: tuple[str, ...]


@dataclass(frozen=True)
class Property:
    """One clause: its id, its statement, how it is checked, and what shows that it was put to the test."""

    clause: str
    statement: str
    sometimes: tuple[Sometimes, ...]
    in_state: StateCheck | None = None
    on_step: StepCheck | None = None
    eventually: Eventually | None = None


def make_transition(config: Config, before: State, action: Action, outcome: Outcome, after: State) -> Transition:
    """A step as the properties read it."""
    key = action_key(before, action)
    assert key is not None
    return Transition(config, before, action, key, outcome, after)


# ------------------------------------------------------------------------------------------------------------
# Words the clauses share


def actor_before(t: Transition) -> Client:
    """The acting client, before the step."""
    assert t.action.client is not None
    return t.before.clients[t.action.client]


def actor_after(t: Transition) -> Client:
    """The acting client, after the step."""
    assert t.action.client is not None
    return t.after.clients[t.action.client]


def act_on(t: Transition, name: str, phase: str) -> bool:
    """Whether this is that action, by a client in that phase."""
    return t.action.name == name and actor_before(t).phase == phase


def others_moved(t: Transition) -> list[int]:
    """The clients, besides the acting one, whom the step changed."""
    pairs = enumerate(zip(t.before.clients, t.after.clients, strict=True))
    return [c for c, (was, now) in pairs if was != now and c != t.action.client]


def gets_it(t: Transition) -> list[int]:
    """The clients that own a key after the step and did not before."""
    pairs = enumerate(zip(t.before.clients, t.after.clients, strict=True))
    return [c for c, (was, now) in pairs if now.key is not None and owns(now, now.key) and not owns(was, now.key)]


def left_the_queue(t: Transition) -> str:
    """What is wrong with a waiter's leaving: it is gone, and nothing else has changed."""
    was, now = t.before.entries[t.key], t.after.entries[t.key]
    if actor_after(t) != IDLE:
        return f"client {t.action.client} gave up and is {actor_after(t).phase}"
    if others_moved(t):
        return f"client {t.action.client} gave up and that changed clients {others_moved(t)}"
    if was is None:
        return f"a waiter gave up at key {t.key}, which had no entry"
    without = Entry(was.holder, tuple(c for c in was.queue if c != t.action.client), was.refs - 1)
    # The last reference is a waiter's only where a free key may be waited for; KM-HANDOFF says it may not.
    if now != (without if without.refs else None):
        return f"a waiter gave up and the entry went from {was} to {now}"
    return ""


def went_on(t: Transition) -> str:
    """What is wrong with a grant's going on: the oldest waiter has it, or the entry is evicted."""
    entry = t.after.entries[t.key]
    if actor_after(t) != IDLE:
        return f"client {t.action.client} let go and is {actor_after(t).phase}"
    if not t.before.order[t.key]:
        return "" if entry is None else f"nobody waited and the entry is still there: {entry}"
    oldest = t.before.order[t.key][0]
    if t.after.clients[oldest] != Client("granted", t.key):
        return f"client {oldest} waited longest and was not granted the key"
    if entry is None or entry.holder != oldest:
        return f"client {oldest} was granted key {t.key} and the entry is {entry}"
    return ""


# ------------------------------------------------------------------------------------------------------------
# The checks, in the order of the contract


def one_owner(config: Config, state: State) -> str:
    for key in range(config.keys):
        if len(owners(state, key)) > 1:
            return f"key {key} is owned by clients {owners(state, key)}"
    return ""


def keys_apart(t: Transition) -> str:
    for key in range(t.config.keys):
        if key != t.key and (
            t.before.entries[key] != t.after.entries[key] or present(t.before, key) != present(t.after, key)
        ):
            return f"an action on key {t.key} changed key {key}"
    for other in others_moved(t):
        if t.before.clients[other].key != t.key:
            return f"an action on key {t.key} changed client {other}, who is not there"
    if t.action.name == "request" and not present(t.before, t.key) and t.outcome != "granted":
        return f"nobody was at key {t.key} and the request was not granted at once"
    return ""


def refs_are_true(config: Config, state: State) -> str:
    for key, entry in enumerate(state.entries):
        refs, true = (0 if entry is None else entry.refs), len(present(state, key))
        if refs != true:
            return f"key {key} counts {refs} references and {true} clients are there"
    return ""


def no_idle_entry(config: Config, state: State) -> str:
    for key, entry in enumerate(state.entries):
        if entry is not None and not present(state, key):
            return f"nobody is at key {key} and its entry is still there"
    return ""


def in_order(t: Transition) -> str:
    for client in gets_it(t):
        first = [c for c in t.before.order[t.key] if c != t.action.client or c == client]
        if first and first[0] != client:
            return f"client {client} got key {t.key} before client {first[0]}, who had asked earlier"
    return ""


def never_between_owners(config: Config, state: State) -> str:
    for key, waiting in enumerate(state.order):
        if waiting and not owners(state, key):
            return f"clients {waiting} wait for key {key} and nobody owns it"
    return ""


def handed_off(t: Transition) -> str:
    if act_on(t, "release", "holding") and t.before.order[t.key]:
        return went_on(t)
    for client in gets_it(t):
        if t.before.clients[client] == IDLE and present(t.before, t.key):
            return f"client {client} has just come and got key {t.key} while others were there"
    return ""


def cancelled_is_gone(config: Config, state: State) -> str:
    for key, entry in enumerate(state.entries):
        for client in () if entry is None else (entry.holder, *entry.queue):
            if client in range(config.clients) and state.clients[client] == IDLE:
                return f"client {client} is idle and still stands in the entry of key {key}"
    return ""


def cancel_before_grant(t: Transition) -> str:
    if not act_on(t, "cancel", "waiting"):
        return ""
    return left_the_queue(t) if t.outcome == "cancelled" else f"a cancelled waiter was told {t.outcome!r}"


def cancel_after_grant(t: Transition) -> str:
    if not act_on(t, "cancel", "granted"):
        return ""
    if t.outcome != {"keep": "kept", "pass": "cancelled"}[t.config.race]:
        return f"a cancel after the grant ended as {t.outcome!r}"
    if t.config.race == "pass":
        return went_on(t)
    if actor_after(t) != Client("holding", t.key) or t.after.entries != t.before.entries or others_moved(t):
        return "the grant was kept and something else changed"
    return ""


def unheld_is_refused(t: Transition) -> str:
    if t.action.name == "stray_unlock" and t.outcome != "unheld":
        return f"key {t.key} has no holder and its unlock was told {t.outcome!r}"
    return ""


def failed_changes_nothing(t: Transition) -> str:
    if t.outcome in ("timeout", "unheld") and t.after != t.before:
        return f"the call failed ({t.outcome}) and changed the state"
    return ""


def own_grant_only(t: Transition) -> str:
    if t.action.name == "stale_release" and (t.outcome != "unheld" or t.after != t.before):
        return f"an old lease on key {t.key} released something"
    for client in owners(t.before, t.key):
        if client != t.action.client and t.after.clients[client] != t.before.clients[client]:
            return f"client {t.action.client} ended the grant of client {client}"
    return ""


def no_time_no_wait(t: Transition) -> str:
    if t.action.name != "try":
        return ""
    if not owners(t.before, t.key):
        ok = t.outcome == "granted" and actor_after(t) == Client("holding", t.key)
        return "" if ok else f"key {t.key} was free and timeout 0 did not take it"
    ok = t.outcome == "timeout" and t.after == t.before
    return "" if ok else f"key {t.key} was held and timeout 0 was told {t.outcome!r} or left a trace"


def interrupted_is_gone(t: Transition) -> str:
    if t.action.name != "interrupt":
        return ""
    if t.outcome != "interrupted":
        return f"an interrupted call was told {t.outcome!r}"
    return left_the_queue(t) if actor_before(t).phase == "waiting" else went_on(t)


# ------------------------------------------------------------------------------------------------------------
# The properties


def _middle_cancelled(t: Transition) -> bool:
    return act_on(t, "cancel", "waiting") and t.action.client in t.before.order[t.key][1:-1]


def _cancelled_then(t: Transition, waiters: bool) -> bool:
    return act_on(t, "cancel", "granted") and bool(t.before.order[t.key]) == waiters


KM_EXCL = Property(
    "KM-EXCL",
    "at most one client owns a key",
    in_state=one_owner,
    sometimes=(
        Sometimes(
            "a key is asked for while another client owns it",
            lambda t: t.action.name == "request" and bool(owners(t.before, t.key)),
            clients=2,
        ),
    ),
)

KM_INDEP = Property(
    "KM-INDEP",
    "an action on one key changes no other key, and a key nobody is at is granted at once",
    on_step=keys_apart,
    sometimes=(
        Sometimes(
            "a free key is asked for while another key is held and waited for",
            lambda t: t.action.name == "request" and t.outcome == "granted" and any(t.before.order),
            clients=3,
            keys=2,
        ),
    ),
)

KM_REF = Property(
    "KM-REF",
    "the references of a key are its owner and its waiters, and an absent key has none",
    in_state=refs_are_true,
    sometimes=(
        Sometimes(
            "every client is counted at one key",
            lambda t: any(e is not None and e.refs == t.config.clients for e in t.after.entries),
        ),
    ),
)

KM_IDLE = Property(
    "KM-IDLE",
    "a key nobody owns or waits for has no entry",
    in_state=no_idle_entry,
    sometimes=(
        Sometimes("the last entry is evicted", lambda t: any(t.before.entries) and not any(t.after.entries)),
        Sometimes(
            "an entry is evicted while another stays",
            lambda t: bool(t.before.entries[t.key]) and not t.after.entries[t.key] and any(t.after.entries),
            clients=2,
            keys=2,
        ),
    ),
)

KM_FIFO = Property(
    "KM-FIFO",
    "a key goes to the client that has asked for it first, of those not cancelled",
    on_step=in_order,
    sometimes=(
        Sometimes(
            "a key is granted while two wait, and the older has the larger number",
            lambda t: bool(gets_it(t)) and t.before.order[t.key][:1] > t.before.order[t.key][1:2] != (),
            clients=3,
            numbered=True,
        ),
    ),
)

KM_HANDOFF = Property(
    "KM-HANDOFF",
    "a release passes the key straight to the oldest waiter, and no newcomer takes it in between",
    in_state=never_between_owners,
    on_step=handed_off,
    sometimes=(
        Sometimes(
            "a release hands the key to a waiter",
            lambda t: t.action.name == "release" and bool(gets_it(t)),
            clients=2,
        ),
        Sometimes(
            "a newcomer asks after the hand-off and before the call has returned",
            lambda t: (
                t.action.name == "request"
                and any(t.before.clients[c].phase == "granted" for c in owners(t.before, t.key))
            ),
            clients=2,
        ),
    ),
)

KM_CANCEL = Property(
    "KM-CANCEL",
    "a waiter cancelled before its grant leaves the queue, drops its reference and owns nothing; others keep"
    " their places",
    in_state=cancelled_is_gone,
    on_step=cancel_before_grant,
    sometimes=(
        Sometimes(
            "the oldest of two waiters is cancelled",
            lambda t: act_on(t, "cancel", "waiting") and t.action.client in t.before.order[t.key][:-1],
            clients=3,
        ),
        Sometimes("a waiter in the middle of the queue is cancelled", _middle_cancelled, clients=4),
    ),
)

KM_RACE = Property(
    "KM-RACE",
    "a cancel that meets a grant either returns holding, or raises and the grant has gone on",
    on_step=cancel_after_grant,
    sometimes=(
        Sometimes(
            "a cancel comes after the grant and the grant is kept",
            lambda t: t.outcome == "kept",
            clients=2,
            races=("keep",),
        ),
        Sometimes(
            "a cancel comes after the grant and the next waiter gets it",
            lambda t: _cancelled_then(t, waiters=True) and bool(gets_it(t)),
            clients=2,
            races=("pass",),
        ),
        Sometimes(
            "a cancel comes after the grant and the entry is evicted",
            lambda t: _cancelled_then(t, waiters=False) and t.after.entries[t.key] is None,
            clients=2,
            races=("pass",),
        ),
    ),
)

KM_UNHELD = Property(
    "KM-UNHELD",
    "unlocking a key that has no holder fails",
    on_step=unheld_is_refused,
    sometimes=(
        Sometimes("a key that has no holder is unlocked", lambda t: t.action.name == "stray_unlock"),
        Sometimes(
            "a key that has no holder is unlocked while another key is held",
            lambda t: t.action.name == "stray_unlock" and any(t.before.entries),
            clients=2,
            keys=2,
        ),
    ),
)

KM_ATOMIC = Property(
    "KM-ATOMIC",
    "a call that fails changes nothing",
    on_step=failed_changes_nothing,
    sometimes=(
        Sometimes(
            "a call fails at a key that is held and waited for",
            lambda t: t.outcome in ("timeout", "unheld") and bool(t.before.order[t.key]),
            clients=3,
        ),
    ),
)

KM_TOKEN = Property(
    "KM-TOKEN",
    "a grant is ended by its own client only, and an old lease releases nothing",
    on_step=own_grant_only,
    sometimes=(
        Sometimes(
            "an old lease is released while somebody else holds the key",
            lambda t: (
                t.action.name == "stale_release"
                and any(t.before.clients[c].phase == "holding" for c in owners(t.before, t.key))
            ),
            clients=2,
        ),
        Sometimes(
            "an old lease is released after its entry was evicted",
            lambda t: t.action.name == "stale_release" and t.before.entries[t.key] is None,
        ),
    ),
)

KM_EXPIRED = Property(
    "KM-EXPIRED",
    "timeout 0 takes a free key, and otherwise fails and leaves no trace",
    on_step=no_time_no_wait,
    sometimes=(
        Sometimes("timeout 0 takes a free key", lambda t: t.action.name == "try" and t.outcome == "granted"),
        Sometimes(
            "timeout 0 fails while the key is on its way to a waiter",
            lambda t: (
                t.outcome == "timeout" and any(t.before.clients[c].phase == "granted" for c in owners(t.before, t.key))
            ),
            clients=2,
        ),
    ),
)

KM_INTERRUPT = Property(
    "KM-INTERRUPT",
    "an interrupted call raises and leaves no reference and no grant behind",
    on_step=interrupted_is_gone,
    sometimes=(
        Sometimes("a waiter is interrupted before its grant", lambda t: act_on(t, "interrupt", "waiting"), clients=2),
        Sometimes(
            "a client is interrupted after its grant and the next waiter gets the key",
            lambda t: act_on(t, "interrupt", "granted") and bool(gets_it(t)),
            clients=2,
        ),
    ),
)

KM_LIVE = Property(
    "KM-LIVE",
    "if every holder unlocks in the end, every waiter that is not cancelled is granted in the end",
    eventually=Eventually(
        pending=lambda state, client: state.clients[client].phase == "waiting", fair=("release", "wake")
    ),
    sometimes=(
        Sometimes(
            "a client that has waited gets the key, and there was a younger waiter",
            lambda t: bool(gets_it(t)) and len(t.before.order[t.key]) > 1,
            clients=3,
        ),
    ),
)

ALL: tuple[Property, ...] = (
    KM_EXCL,
    KM_INDEP,
    KM_REF,
    KM_IDLE,
    KM_FIFO,
    KM_HANDOFF,
    KM_CANCEL,
    KM_RACE,
    KM_UNHELD,
    KM_ATOMIC,
    KM_TOKEN,
    KM_EXPIRED,
    KM_INTERRUPT,
    KM_LIVE,
)
