"""Checks that need more than a few clients with two keys, by name."""

from collections.abc import Callable

from kmutex.verify.checks.context import Context
from kmutex.verify.checks.event_loops import loops, unstarted
from kmutex.verify.checks.holding import holding
from kmutex.verify.checks.keys import keys
from kmutex.verify.checks.memory import memory
from kmutex.verify.checks.queues import queues
from kmutex.verify.checks.several import several
from kmutex.verify.checks.snapshots import snapshots
from kmutex.verify.checks.tickets import tickets
from kmutex.verify.checks.timeouts import timeouts
from kmutex.verify.results import UnitResult

CHECKS: dict[str, Callable[[Context, UnitResult], None]] = {
    "keys": keys,
    "holding": holding,
    "memory": memory,
    "queues": queues,
    "tickets": tickets,
    "timeouts": timeouts,
    "snapshots": snapshots,
    "loops": loops,
    "unstarted": unstarted,
    "several": several,
}
