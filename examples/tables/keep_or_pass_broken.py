"""Keep or pass, where a cancelled call that has been granted the key raises and passes it to nobody.

`kmutex prove examples/tables/keep_or_pass_broken.py` shows a key that nobody owns and nobody gets.
"""

from keep_or_pass import TABLE as SOUND

from kmutex_model.actions import Row
from kmutex_model.turn import Outcome, Turn


def keep_or_drop(turn: Turn) -> Outcome:
    if turn.race == "keep":
        turn.move(turn.client, "holding")
        return "kept"
    turn.count(-1)
    turn.move(turn.client, "idle")
    return "cancelled"


TABLE = tuple(
    Row("cancel", "granted", "any", keep_or_drop) if row[:2] == ("cancel", "granted") else row for row in SOUND
)
