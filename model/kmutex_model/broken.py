"""The mistakes that each property must find: for every clause at least one model that breaks it.

Each is the correct table with some rows replaced, by the mistake in its story. The explorer must name the clause, and
its counterexample is a shortest run in which the mistake does harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmutex_model.actions import CORRECT, TABLE, Model, Row, enter, hand_on, join, leave_queue, let_go, pass_to
from kmutex_model.properties import ALL, KM_LIVE, Property
from kmutex_model.state import Config
from kmutex_model.turn import Outcome, Turn


@dataclass(frozen=True)
class Broken:
    """A model, the clause it must be found to violate, at which bound, and judged by which properties."""

    model: Model
    clause: str
    story: str
    config: Config
    judged_by: tuple[Property, ...] = ALL


# ------------------------------------------------------------------------------------------------------------
# Asking


def _enter_anyway(turn: Turn) -> Outcome:
    turn.count(1)
    turn.move(turn.client, "holding")
    return "granted"


def _join_uncounted(turn: Turn) -> Outcome:
    turn.enqueue(turn.client)
    turn.move(turn.client, "waiting")
    return "waiting"


def _steal_before_wake(turn: Turn) -> Outcome:
    if turn.is_free() or not turn.stands(holder := turn.holder(), "granted"):
        return join(turn)
    turn.enqueue_first(holder)
    turn.move(holder, "waiting")
    turn.give(turn.client)
    turn.count(1)
    turn.move(turn.client, "holding")
    return "granted"


def _one_lock_for_all(turn: Turn) -> Outcome:
    if not turn.any_entry():
        return enter(turn)
    turn.new_entry()
    return join(turn)


def _time_out_counted(turn: Turn) -> Outcome:
    turn.count(1)
    return "timeout"


def _time_out_at_once(turn: Turn) -> Outcome:
    return "timeout"


# ------------------------------------------------------------------------------------------------------------
# Releasing


def _evict_with_waiters(turn: Turn) -> Outcome:
    hand_on(turn, turn.client)
    turn.evict()
    return "released"


def _never_evict(turn: Turn) -> Outcome:
    last = turn.nobody_waits()
    hand_on(turn, turn.client)
    if last:
        turn.new_entry()
    return "released"


def _release_counted_twice(turn: Turn) -> Outcome:
    last = turn.nobody_waits()
    hand_on(turn, turn.client)
    if not last:
        turn.count(-1)
    return "released"


def _hand_to_youngest(turn: Turn) -> Outcome:
    if turn.nobody_waits():
        return let_go(turn)
    turn.move(turn.client, "idle")
    pass_to(turn, turn.youngest())
    return "released"


def _hand_to_smallest(turn: Turn) -> Outcome:
    if turn.nobody_waits():
        return let_go(turn)
    turn.move(turn.client, "idle")
    pass_to(turn, turn.lowest())
    return "released"


def _free_and_forget(turn: Turn) -> Outcome:
    turn.move(turn.client, "idle")
    if turn.nobody_waits():
        turn.evict()
    else:
        turn.free()
        turn.count(-1)
    return "released"


def _wake_at_another_key(turn: Turn) -> Outcome:
    if not turn.another_key_is_waited_for():
        return let_go(turn)
    other = turn.lowest_other_key()
    woken = turn.oldest(other)
    hand_on(turn, turn.client)
    turn.move(woken, "granted", other)
    return "released"


def _clear_the_table(turn: Turn) -> Outcome:
    last = turn.nobody_waits()
    hand_on(turn, turn.client)
    if last:
        turn.evict_all()
    return "released"


# ------------------------------------------------------------------------------------------------------------
# Giving up


def _give_up_counted(turn: Turn) -> Outcome:
    turn.dequeue(turn.client)
    turn.move(turn.client, "idle")
    return "cancelled"


def _give_up_queued(turn: Turn) -> Outcome:
    if not turn.same(turn.oldest(), turn.client):
        turn.dequeue(turn.client)
    turn.count(-1)
    turn.move(turn.client, "idle")
    return "cancelled"


def _give_up_and_delete(turn: Turn) -> Outcome:
    turn.evict()
    turn.move(turn.client, "idle")
    return "cancelled"


def _give_up_and_wake(turn: Turn) -> Outcome:
    leave_queue(turn)
    if not turn.nobody_waits():
        turn.move(turn.oldest(), "granted")
    return "cancelled"


def _give_up_by_swap(turn: Turn) -> Outcome:
    turn.replace_by(turn.youngest(), turn.client)
    turn.count(-1)
    turn.move(turn.client, "idle")
    return "cancelled"


def _give_up_and_enter(turn: Turn) -> Outcome:
    leave_queue(turn)
    turn.move(turn.client, "holding")
    return "cancelled"


def _raise_and_keep(turn: Turn) -> Outcome:
    turn.move(turn.client, "holding")
    return "cancelled"


def _raise_and_drop(turn: Turn) -> Outcome:
    turn.move(turn.client, "idle")
    return "cancelled"


def _raise_and_evict(turn: Turn) -> Outcome:
    turn.evict()
    turn.move(turn.client, "idle")
    return "cancelled"


def _pass_on_and_keep(turn: Turn) -> Outcome:
    hand_on(turn, turn.client)
    turn.move(turn.client, "holding")
    return "cancelled"


def _keep_uncounted(turn: Turn) -> Outcome:
    turn.count(-1)
    turn.move(turn.client, "holding")
    return "kept"


def _swallow(turn: Turn) -> Outcome:
    turn.move(turn.client, "holding")
    return "kept"


def _break_off_counted(turn: Turn) -> Outcome:
    turn.move(turn.client, "idle")
    return "interrupted"


# ------------------------------------------------------------------------------------------------------------
# Releasing what is not one's own


def _unlock_anything(turn: Turn) -> Outcome:
    return "released"


def _refuse_uncounted(turn: Turn) -> Outcome:
    if turn.has_entry():
        turn.count(-1)
    return "unheld"


def _release_the_later_holder(turn: Turn) -> Outcome:
    if turn.is_free():
        return "unheld"
    hand_on(turn, turn.holder())
    return "released"


# ------------------------------------------------------------------------------------------------------------
# A model that differs and is not broken, except in what it does not promise


def _take_if_free(turn: Turn) -> Outcome:
    turn.dequeue(turn.client)
    turn.give(turn.client)
    turn.move(turn.client, "holding")
    return "returned"


def _enter_past_the_queue(turn: Turn) -> Outcome:
    if not turn.has_entry():
        turn.new_entry()
    turn.give(turn.client)
    turn.count(1)
    turn.move(turn.client, "holding")
    return "granted"


def _leave_or_evict(turn: Turn) -> None:
    leave_queue(turn)
    if not turn.is_counted():
        turn.evict()


def _give_up_or_evict(turn: Turn) -> Outcome:
    _leave_or_evict(turn)
    return "cancelled"


def _break_off_or_evict(turn: Turn) -> Outcome:
    _leave_or_evict(turn)
    return "interrupted"


_BARGING_ROWS = CORRECT.replacing(
    "barging",
    Row("request", "idle", "free", _enter_past_the_queue),
    Row("try", "idle", "free", _enter_past_the_queue),
    Row("cancel", "waiting", "any", _give_up_or_evict),
    Row("interrupt", "waiting", "any", _break_off_or_evict),
    Row("release", "holding", "any", _free_and_forget),
)
BARGING = Model("barging", (*_BARGING_ROWS.table, Row("wake", "waiting", "free", _take_if_free)))
"""A release frees the key, and whoever comes first takes it: the waiter that wakes, or a newcomer. Sound but
for KM-FIFO, KM-HANDOFF and KM-LIVE, and never meets the race of KM-RACE, for it never grants ahead."""


# ------------------------------------------------------------------------------------------------------------
# The list


def _swap(name: str, *rows: Row) -> Model:
    return CORRECT.replacing(name, *rows)


BROKEN: tuple[Broken, ...] = (
    Broken(
        _swap("no_lock", Row("request", "idle", "held", _enter_anyway)),
        "KM-EXCL",
        "a request is granted whether the key is held or not",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("cancel_wakes_next", Row("cancel", "waiting", "any", _give_up_and_wake)),
        "KM-EXCL",
        "a cancelled waiter passes on a grant that it never had",
        Config(3, 1, "pass"),
    ),
    Broken(
        _swap("one_lock_for_all", Row("request", "idle", "free", _one_lock_for_all)),
        "KM-INDEP",
        "a key has to wait because another one is held (striped keys, or a guard held while waiting)",
        Config(2, 2, "keep"),
    ),
    Broken(
        _swap("wakes_another_key", Row("release", "holding", "any", _wake_at_another_key)),
        "KM-INDEP",
        "a shared condition wakes a waiter of the wrong key",
        Config(3, 2, "keep"),
    ),
    Broken(
        _swap("clears_the_table", Row("release", "holding", "any", _clear_the_table)),
        "KM-INDEP",
        "the last release of one key forgets all keys",
        Config(2, 2, "keep"),
    ),
    Broken(
        _swap("waiter_not_counted", Row("request", "idle", "held", _join_uncounted)),
        "KM-REF",
        "two requests count at the same moment and one count is lost",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("cancel_keeps_ref", Row("cancel", "waiting", "any", _give_up_counted)),
        "KM-REF",
        "a cancelled waiter leaves the queue and stays counted",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("evicts_with_waiters", Row("release", "holding", "any", _evict_with_waiters)),
        "KM-REF",
        "a release evicts the entry that others still use",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("release_counted_twice", Row("release", "holding", "any", _release_counted_twice)),
        "KM-REF",
        "a release with a waiter drops two references",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("never_evicts", Row("release", "holding", "any", _never_evict)),
        "KM-IDLE",
        "the entry stays forever once it was used",
        Config(1, 1, "keep"),
    ),
    Broken(
        _swap("lifo", Row("release", "holding", "any", _hand_to_youngest)),
        "KM-FIFO",
        "the youngest waiter is served first",
        Config(3, 1, "keep"),
    ),
    Broken(
        _swap("smallest_first", Row("release", "holding", "any", _hand_to_smallest)),
        "KM-FIFO",
        "the queue is a set and is served in the order of its numbers",
        Config(3, 1, "keep"),
    ),
    Broken(
        BARGING,
        "KM-HANDOFF",
        "a release frees the key and does not hand it over",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("steals_before_wake", Row("request", "idle", "held", _steal_before_wake)),
        "KM-HANDOFF",
        "a newcomer takes the key from a waiter that got it and has not woken yet",
        Config(3, 1, "keep"),
    ),
    Broken(
        _swap("wake_dropped", Row("release", "holding", "any", _free_and_forget)),
        "KM-HANDOFF",
        "a release frees the key and wakes nobody",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("cancelled_head_stays", Row("cancel", "waiting", "any", _give_up_queued)),
        "KM-CANCEL",
        "the oldest waiter is cancelled and stays in the queue, to be handed the key when it is gone",
        Config(3, 1, "keep"),
    ),
    Broken(
        _swap("cancel_deletes_key", Row("cancel", "waiting", "any", _give_up_and_delete)),
        "KM-CANCEL",
        "a cancelled waiter evicts the entry that the holder still uses",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("cancel_swaps_places", Row("cancel", "waiting", "any", _give_up_by_swap)),
        "KM-CANCEL",
        "a cancelled waiter is removed by moving the last one into its place",
        Config(4, 1, "keep"),
    ),
    Broken(
        _swap("cancelled_enters", Row("cancel", "waiting", "any", _give_up_and_enter)),
        "KM-CANCEL",
        "a cancelled waiter runs on as if it had the key",
        Config(2, 1, "pass"),
    ),
    Broken(
        _swap("keeps_and_raises", Row("cancel", "granted", "any", _raise_and_keep)),
        "KM-RACE",
        "the call raises and the grant is kept",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("raises_and_drops", Row("cancel", "granted", "any", _raise_and_drop)),
        "KM-RACE",
        "the woken waiter is cancelled and nobody gets the key from it",
        Config(2, 1, "pass"),
    ),
    Broken(
        _swap("raises_and_evicts", Row("cancel", "granted", "any", _raise_and_evict)),
        "KM-RACE",
        "the woken waiter is cancelled and evicts the entry that others wait in",
        Config(2, 1, "pass"),
    ),
    Broken(
        _swap("passes_on_and_keeps", Row("cancel", "granted", "any", _pass_on_and_keep)),
        "KM-RACE",
        "the grant goes to the next waiter and is kept as well",
        Config(2, 1, "pass"),
    ),
    Broken(
        _swap("keeps_uncounted", Row("cancel", "granted", "any", _keep_uncounted)),
        "KM-RACE",
        "the grant is kept, and the reference dropped as if it were not",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("stray_unlock_accepted", Row("stray_unlock", "idle", "free", _unlock_anything)),
        "KM-UNHELD",
        "unlocking a key that has no holder succeeds",
        Config(1, 1, "keep"),
    ),
    Broken(
        _swap("failed_try_counts", Row("try", "idle", "held", _time_out_counted)),
        "KM-ATOMIC",
        "a try counts itself, fails, and stays counted",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("failed_unlock_counts", Row("stale_release", "idle", "any", _refuse_uncounted)),
        "KM-ATOMIC",
        "a release fails after it has dropped a reference",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("releases_later_holder", Row("stale_release", "idle", "any", _release_the_later_holder)),
        "KM-TOKEN",
        "a lease is released twice, and the second time ends somebody else's grant",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("try_waits", Row("try", "idle", "held", join)),
        "KM-EXPIRED",
        "timeout 0 waits",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("try_never_takes", Row("try", "idle", "free", _time_out_at_once)),
        "KM-EXPIRED",
        "timeout 0 has expired before it looks at the key",
        Config(1, 1, "keep"),
    ),
    Broken(
        _swap("interrupted_waiter_stays", Row("interrupt", "waiting", "any", _break_off_counted)),
        "KM-INTERRUPT",
        "an interrupted waiter stays counted and queued",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("interrupted_grant_stays", Row("interrupt", "granted", "any", _break_off_counted)),
        "KM-INTERRUPT",
        "a client interrupted after its grant leaves the key locked by nobody",
        Config(2, 1, "keep"),
    ),
    Broken(
        _swap("interrupt_swallowed", Row("interrupt", "granted", "any", _swallow)),
        "KM-INTERRUPT",
        "an interrupt after the grant is lost and the call returns",
        Config(2, 1, "keep"),
    ),
    Broken(
        Model("never_wakes", tuple(row for row in TABLE if row.action != "wake")),
        "KM-LIVE",
        "the key is handed over and the call never returns; no step is wrong, and the next waiter starves",
        Config(2, 1, "keep"),
        judged_by=(KM_LIVE,),
    ),
    Broken(
        _swap("lifo_starves", Row("release", "holding", "any", _hand_to_youngest)),
        "KM-LIVE",
        "two clients hand the key to each other and the first waiter starves",
        Config(3, 1, "keep"),
        judged_by=(KM_LIVE,),
    ),
    Broken(
        BARGING,
        "KM-LIVE",
        "newcomers take the key each time before the waiter wakes",
        Config(2, 1, "keep"),
        judged_by=(KM_LIVE,),
    ),
)
