"""A barging lock whose waiter does not look again when it wakes: a newcomer may have the key by then.

`kmutex prove examples/tables/barging_broken.py` shows two owners.
"""

from barging import PARTS as PARTS
from barging import TABLE as SOUND

from kmutex_model.actions import Row
from kmutex_model.turn import Outcome, Turn


def take(turn: Turn) -> Outcome:
    if not turn.has_entry():
        turn.new_entry()
    turn.dequeue(turn.client)
    turn.give(turn.client)
    turn.move(turn.client, "holding")
    return "returned"


TABLE = tuple(Row("wake", "waiting", "any", take) if row[:3] == ("wake", "waiting", "free") else row for row in SOUND)
