"""What each property is there to catch: for every clause at least one model that breaks it.

Each is the correct table with some rows replaced, by the mistake its story tells. The explorer must name the
clause, and its counterexample is the shortest story of how the mistake does harm.
"""

from __future__ import annotations

from dataclasses import dataclass

from kmutex_model.actions import (
    CORRECT,
    TABLE,
    Model,
    Row,
    Step,
    entry_at,
    hand_on,
    join,
    key_view,
    leave_queue,
)
from kmutex_model.properties import ALL, KM_LIVE, Property
from kmutex_model.state import IDLE, NOBODY, Client, Config, Entry, State, with_client, with_entry


@dataclass(frozen=True)
class Broken:
    """A model, the clause it must be found to violate, at which bound, and judged by which properties."""

    model: Model
    clause: str
    story: str
    config: Config
    judged_by: tuple[Property, ...] = ALL


def _holding(state: State, client: int, key: int) -> State:
    return with_client(state, client, Client("holding", key))


def _granted(state: State, client: int, key: int) -> State:
    return with_client(state, client, Client("granted", key))


# ------------------------------------------------------------------------------------------------------------
# Asking


def _enter_anyway(config: Config, state: State, client: int, key: int) -> Step:
    holder, queue, refs = entry_at(state, key)
    return Step(_holding(with_entry(state, key, Entry(holder, queue, refs + 1)), client, key), "granted")


def _join_uncounted(config: Config, state: State, client: int, key: int) -> Step:
    after = join(config, state, client, key).state
    return Step(with_entry(after, key, entry_at(after, key)._replace(refs=entry_at(state, key).refs)), "waiting")


def _steal_before_wake(config: Config, state: State, client: int, key: int) -> Step:
    holder, queue, refs = entry_at(state, key)
    if holder == NOBODY or state.clients[holder].phase != "granted":
        return join(config, state, client, key)
    state = with_entry(state, key, Entry(client, (holder, *queue), refs + 1))
    return Step(_holding(with_client(state, holder, Client("waiting", key)), client, key), "granted")


def _one_lock_for_all(config: Config, state: State, client: int, key: int) -> Step:
    if any(state.entries):
        state = with_entry(state, key, Entry(NOBODY, (client,), 1))
        return Step(with_client(state, client, Client("waiting", key)), "waiting")
    return Step(_holding(with_entry(state, key, Entry(client, (), 1)), client, key), "granted")


def _time_out_counted(config: Config, state: State, client: int, key: int) -> Step:
    entry = entry_at(state, key)
    return Step(with_entry(state, key, entry._replace(refs=entry.refs + 1)), "timeout")


def _time_out_at_once(config: Config, state: State, client: int, key: int) -> Step:
    return Step(state, "timeout")


# ------------------------------------------------------------------------------------------------------------
# Releasing


def _evict_with_waiters(config: Config, state: State, client: int, key: int) -> Step:
    return Step(with_entry(hand_on(state, client, key), key, None), "released")


def _never_evict(config: Config, state: State, client: int, key: int) -> Step:
    after = hand_on(state, client, key)
    return Step(after if after.entries[key] else with_entry(after, key, Entry(NOBODY, (), 0)), "released")


def _release_counted_twice(config: Config, state: State, client: int, key: int) -> Step:
    after = hand_on(state, client, key)
    entry = after.entries[key]
    return Step(with_entry(after, key, entry and entry._replace(refs=entry.refs - 1)), "released")


def _hand_to(state: State, client: int, key: int, place: int) -> Step:
    _, queue, refs = entry_at(state, key)
    if not queue:
        return Step(hand_on(state, client, key), "released")
    lucky = queue[place]
    rest = tuple(c for c in queue if c != lucky)
    state = with_entry(with_client(state, client, IDLE), key, Entry(lucky, rest, refs - 1))
    return Step(_granted(state, lucky, key), "released")


def _hand_to_youngest(config: Config, state: State, client: int, key: int) -> Step:
    return _hand_to(state, client, key, -1)


def _hand_to_smallest(config: Config, state: State, client: int, key: int) -> Step:
    queue = entry_at(state, key).queue
    return _hand_to(state, client, key, queue.index(min(queue)) if queue else 0)


def _free_and_forget(config: Config, state: State, client: int, key: int) -> Step:
    _, queue, refs = entry_at(state, key)
    entry = Entry(NOBODY, queue, refs - 1) if queue else None
    return Step(with_entry(with_client(state, client, IDLE), key, entry), "released")


def _wake_at_another_key(config: Config, state: State, client: int, key: int) -> Step:
    for other in range(config.keys):
        entry = state.entries[other]
        if other != key and entry and entry.queue:
            return Step(_granted(hand_on(state, client, key), entry.queue[0], other), "released")
    return Step(hand_on(state, client, key), "released")


def _clear_the_table(config: Config, state: State, client: int, key: int) -> Step:
    after = hand_on(state, client, key)
    return Step(after if after.entries[key] else after._replace(entries=(None,) * config.keys), "released")


# ------------------------------------------------------------------------------------------------------------
# Giving up


def _give_up_counted(config: Config, state: State, client: int, key: int) -> Step:
    after = leave_queue(state, client, key)
    return Step(with_entry(after, key, entry_at(after, key)._replace(refs=entry_at(state, key).refs)), "cancelled")


def _give_up_queued(config: Config, state: State, client: int, key: int) -> Step:
    entry = entry_at(state, key)
    if entry.queue[0] != client:
        return Step(leave_queue(state, client, key), "cancelled")
    state = with_entry(state, key, entry._replace(refs=entry.refs - 1))
    return Step(with_client(state, client, IDLE), "cancelled")


def _give_up_and_delete(config: Config, state: State, client: int, key: int) -> Step:
    return Step(with_entry(with_client(state, client, IDLE), key, None), "cancelled")


def _give_up_and_wake(config: Config, state: State, client: int, key: int) -> Step:
    after = leave_queue(state, client, key)
    queue = entry_at(after, key).queue
    return Step(_granted(after, queue[0], key) if queue else after, "cancelled")


def _give_up_by_swap(config: Config, state: State, client: int, key: int) -> Step:
    entry = entry_at(state, key)
    queue = list(entry.queue)
    queue[queue.index(client)] = queue[-1]
    state = with_entry(state, key, Entry(entry.holder, tuple(queue[:-1]), entry.refs - 1))
    return Step(with_client(state, client, IDLE), "cancelled")


def _give_up_and_enter(config: Config, state: State, client: int, key: int) -> Step:
    return Step(_holding(leave_queue(state, client, key), client, key), "cancelled")


def _raise_and_keep(config: Config, state: State, client: int, key: int) -> Step:
    return Step(_holding(state, client, key), "cancelled")


def _raise_and_drop(config: Config, state: State, client: int, key: int) -> Step:
    return Step(with_client(state, client, IDLE), "cancelled")


def _raise_and_evict(config: Config, state: State, client: int, key: int) -> Step:
    return Step(with_entry(with_client(state, client, IDLE), key, None), "cancelled")


def _pass_on_and_keep(config: Config, state: State, client: int, key: int) -> Step:
    return Step(_holding(hand_on(state, client, key), client, key), "cancelled")


def _keep_uncounted(config: Config, state: State, client: int, key: int) -> Step:
    entry = entry_at(state, key)
    return Step(_holding(with_entry(state, key, entry._replace(refs=entry.refs - 1)), client, key), "kept")


def _swallow(config: Config, state: State, client: int, key: int) -> Step:
    return Step(_holding(state, client, key), "kept")


def _break_off_counted(config: Config, state: State, client: int, key: int) -> Step:
    return Step(with_client(state, client, IDLE), "interrupted")


# ------------------------------------------------------------------------------------------------------------
# Releasing what is not one's own


def _unlock_anything(config: Config, state: State, client: int, key: int) -> Step:
    return Step(state, "released")


def _refuse_uncounted(config: Config, state: State, client: int, key: int) -> Step:
    entry = state.entries[key]
    return Step(with_entry(state, key, entry and entry._replace(refs=entry.refs - 1)), "unheld")


def _release_the_later_holder(config: Config, state: State, client: int, key: int) -> Step:
    if key_view(state, key) == "free":
        return Step(state, "unheld")
    return Step(hand_on(state, entry_at(state, key).holder, key), "released")


# ------------------------------------------------------------------------------------------------------------
# A model that differs and is not broken, except in what it does not promise


def _take_if_free(config: Config, state: State, client: int, key: int) -> Step:
    _, queue, refs = entry_at(state, key)
    state = with_entry(state, key, Entry(client, tuple(c for c in queue if c != client), refs))
    return Step(_holding(state, client, key), "returned")


def _enter_past_the_queue(config: Config, state: State, client: int, key: int) -> Step:
    _, queue, refs = state.entries[key] or Entry(NOBODY, (), 0)
    return Step(_holding(with_entry(state, key, Entry(client, queue, refs + 1)), client, key), "granted")


def _leave_or_evict(state: State, client: int, key: int) -> State:
    after = leave_queue(state, client, key)
    return after if entry_at(after, key).refs else with_entry(after, key, None)


_BARGING_ROWS = CORRECT.replacing(
    "barging",
    Row("request", "idle", "free", _enter_past_the_queue),
    Row("try", "idle", "free", _enter_past_the_queue),
    Row("cancel", "waiting", "any", lambda _, s, c, k: Step(_leave_or_evict(s, c, k), "cancelled")),
    Row("interrupt", "waiting", "any", lambda _, s, c, k: Step(_leave_or_evict(s, c, k), "interrupted")),
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
        "the entry stays for ever once it was used",
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
