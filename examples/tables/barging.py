"""A lock that frees the key on release: whoever comes first takes it, the waiter that wakes or a newcomer.

`kmutex prove examples/tables/barging.py` says what is left of the contract for any number of clients and keys.
"""

from kmutex_model.broken import BARGING
from kmutex_model.proof.invariant import PARTS as OF_THE_CONTRACT
from kmutex_model.proof.invariant import Part
from kmutex_model.proof.logic import Term, every, implies, some
from kmutex_model.proof.relations import Relations

TABLE = BARGING.table


def somebody_is_there(s: Relations) -> Term:
    """A key in the table is held or waited for; the contract's own lock is always held."""
    return every(lambda k: implies(s.present(k), some(lambda c: s.holder(k, c) | s.queued(k, c))))


PARTS = (
    *(part for part in OF_THE_CONTRACT if part.name != "an entry has a holder"),
    Part("somebody is there", "a key in the table is held or waited for", somebody_is_there, ""),
)
