"""The contract's own table, with the direct hand-off written out: keep or pass, as the race says.

`kmutex prove examples/tables/keep_or_pass.py` proves every clause. Change a line and see what is left.
"""

from kmutex_model.actions import (
    Row,
    break_off,
    come_back,
    enter,
    give_up,
    join,
    refuse,
    time_out,
)
from kmutex_model.turn import Outcome, Turn, Who


def hand_on(turn: Turn, owner: Who) -> None:
    turn.move(owner, "idle")
    if turn.nobody_waits():
        turn.evict()
    else:
        heir = turn.oldest()
        turn.dequeue(heir)
        turn.give(heir)
        turn.count(-1)
        turn.move(heir, "granted")


def let_go(turn: Turn) -> Outcome:
    hand_on(turn, turn.client)
    return "released"


def keep_or_pass(turn: Turn) -> Outcome:
    if turn.race == "keep":
        turn.move(turn.client, "holding")
        return "kept"
    hand_on(turn, turn.client)
    return "cancelled"


def pass_on(turn: Turn) -> Outcome:
    hand_on(turn, turn.client)
    return "interrupted"


TABLE = (
    Row("request", "idle", "free", enter),
    Row("request", "idle", "held", join),
    Row("try", "idle", "free", enter),
    Row("try", "idle", "held", time_out),
    Row("wake", "granted", "any", come_back),
    Row("cancel", "waiting", "any", give_up),
    Row("cancel", "granted", "any", keep_or_pass),
    Row("interrupt", "waiting", "any", break_off),
    Row("interrupt", "granted", "any", pass_on),
    Row("release", "holding", "any", let_go),
    Row("stray_unlock", "idle", "free", refuse),
    Row("stale_release", "idle", "any", refuse),
)
