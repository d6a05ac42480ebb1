"""Several keys, where a client that waits may ask for one more: two can come to wait for each other.

`kmutex prove examples/tables/hold_all_broken.py` shows the deadlock.
"""

from hold_all import LOCK as SOUND
from hold_all import waits

from kmutex_model.proof.lock import Move, Relation, View, joined, plus
from kmutex_model.proof.logic import Term


def one_more(s: View, c: Term, k: Term) -> dict[str, Relation]:
    return {**joined(s, k, c), "asked": plus(s.asked, c, k)}


LOCK = SOUND._replace(
    moves=(
        *SOUND.moves,
        Move("request_more", "waiting", lambda s, c, k: waits(s, c) & ~s.asked(c, k), one_more, keyed=True),
    )
)
