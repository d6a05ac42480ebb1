"""For a test suite of your own: judge any keyed locker, threads or asyncio, against the contract.

A keyed locker has ``lock(key, timeout=None)``, which raises TimeoutError, and ``unlock(key)``, which raises where
nobody holds the key; len(), the number of live keys, and ``hold(key)`` if you like. For asyncio it is
``await lock(key)``, and a plain ``unlock(key)``. What your locker does without, you declare (`FEATURES`).

    from kmutex.testing import KeyedLockerSuite, locker_machine

    class TestMyLocker(KeyedLockerSuite):          # short programs, in every interleaving up to a bound
        make = staticmethod(MyLocker)
        without = ("fifo",)

    TestMyHistories = locker_machine(MyLocker, without={"fifo"}).TestCase    # long random histories, against a model

A failing test names the clause, shows who did what in lanes, and gives a command that runs that one schedule again:
``kmutex verify MODULE:FACTORY --replay '0+a | 1~a | c1 @locks'``.

A subject runs on a scheduler of its own, so nothing waits in real time. A lock that the subject made when it was
imported, and keeps in something else than a module's name, is not under the scheduler's control; import such a module
within `controlled`.
"""

from kmutex._clauses import CLAUSES
from kmutex.testing.control import controlled
from kmutex.testing.explore import Schedule, parse_schedule
from kmutex.testing.features import FEATURES, Feature, UnknownFeatureError, clauses_off
from kmutex.testing.judge import Finding
from kmutex.testing.machine import Histories, check_histories, locker_machine
from kmutex.testing.subject import NotALockerError, Shape, look
from kmutex.testing.suite import KeyedLockerSuite
from kmutex.testing.verdict import ContractError, InconclusiveError

__all__ = [
    "CLAUSES",
    "FEATURES",
    "ContractError",
    "Feature",
    "Finding",
    "Histories",
    "InconclusiveError",
    "KeyedLockerSuite",
    "NotALockerError",
    "Schedule",
    "Shape",
    "UnknownFeatureError",
    "check_histories",
    "clauses_off",
    "controlled",
    "locker_machine",
    "look",
    "parse_schedule",
]
