"""A re-entrant lock whose unlock does not count: the first one ends all.

`kmutex prove examples/tables/reentrant_broken.py` shows an owner that loses its key in the middle.
"""

from queued import nobody_queued
from reentrant import LOCK as SOUND
from reentrant import evict, hand_on

from kmutex_model.proof.lock import Move, is_oldest

LOCK = SOUND.replacing(
    Move("release", "released", lambda s, c, k: s.holding(c, k) & nobody_queued(s, k), evict, "holding, no heir"),
    Move("release", "released", lambda s, c, k, heir: s.holding(c, k) & is_oldest(s, k, heir), hand_on, "holding"),
)
LOCK = LOCK._replace(moves=tuple(move for move in LOCK.moves if move.name != "unlock"))
