"""A readers-writer lock that lets readers in past the queue: with enough of them, a writer waits for ever.

`kmutex prove examples/tables/readers_writer_broken.py` shows the run.
"""

from queued import idle, join, nothing
from readers_writer import LOCK as SOUND
from readers_writer import enter_to_read

from kmutex_model.proof.lock import Move, View
from kmutex_model.proof.logic import Term, every, no


def no_writer_has_it(s: View, k: Term) -> Term:
    return every(lambda d: no(s.holder(k, d) & s.writes(d, k)))


def free(s: View, c: Term, k: Term) -> Term:
    return idle(s, c) & no_writer_has_it(s, k)


def not_free(s: View, c: Term, k: Term) -> Term:
    return idle(s, c) & ~no_writer_has_it(s, k)


LOCK = SOUND.replacing(
    Move("request_read", "granted", free, enter_to_read, "free", keyed=True),
    Move("request_read", "waiting", not_free, join, "not free", keyed=True),
    Move("try_read", "granted", free, enter_to_read, "free", keyed=True),
    Move("try_read", "timeout", not_free, nothing, "not free", keyed=True),
)
