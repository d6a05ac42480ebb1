"""Permits, where a release puts the permit back and wakes a waiter too: who is woken is not counted.

`kmutex prove examples/tables/permits_broken.py` shows more owners than permits.
"""

from permits import LOCK as SOUND
from permits import hand_on

from kmutex_model.proof.lock import Move, Relation, View, is_oldest, more
from kmutex_model.proof.logic import Term


def hand_on_uncounted(s: View, c: Term, k: Term, heir: Term) -> dict[str, Relation]:
    return {**hand_on(s, c, k, heir), "used": more(s.used, -1, k)}


LOCK = SOUND.replacing(
    Move(
        "release",
        "released",
        lambda s, c, k, heir: s.holding(c, k) & is_oldest(s, k, heir),
        hand_on_uncounted,
        "holding",
    )
)
