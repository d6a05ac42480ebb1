"""The shipped suite on a real server: every program that fits, and random histories.

Two things are other than in use. All lockers of a run share one session, made beforehand, so that no two thousand
connections are made; and nothing of the session runs by itself, for the scheduler does not know its threads: no sweep
falls due, and the asyncio locker asks the server where it stands instead of through its worker. The queue, the
statements, the tables on both sides and every hand-over are the real ones. What passes between sessions is the
matter of test_processes.py.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from kmutex.engine.explorer import Level
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.postgres import AsyncPostgresKeyedMutex, PostgresKeyedMutex
from kmutex.postgres._key import stored_space
from kmutex.postgres._session import Session
from kmutex.testing import KeyedLockerSuite
from tests.postgres.shared import server

SESSION = Session(server().conninfo, sweep_every=3600, patience=100_000)
"""Made here, since pytest asks the suite for its programs before any fixture is made, and outside of any run."""
_spaces = itertools.count()


def counted(space: str, here: int) -> int:
    """The keys that the server has in a space, which must be as many as the locker says."""
    on_server = len({key for key, _ in SESSION.show(stored_space(space))})
    assert on_server == here, f"{on_server} keys on the server, and {here} here"
    return on_server


def session() -> Session:
    """It, with the lock of its calls made anew: in a run, so that the scheduler knows who waits for it."""
    SESSION._turn = threading.Lock()
    return SESSION


class OnServer(PostgresKeyedMutex):
    """Of a space of its own, whose len() is what the server says."""

    def __init__(self) -> None:
        super().__init__(server().conninfo, space=f"suite {next(_spaces)}")
        self._session = session()

    def __len__(self) -> int:
        return counted(self._space, super().__len__())


class AsyncOnServer(AsyncPostgresKeyedMutex):
    """Of a space of its own, whose len() is what the server says, and which asks it without a thread between."""

    def __init__(self) -> None:
        super().__init__(server().conninfo, space=f"suite {next(_spaces)}")
        self._session = session()

    def __len__(self) -> int:
        return counted(self._space, super().__len__())

    def _submit(self, job: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        try:
            answer, error = job(), None
        except Exception as caught:
            answer, error = None, caught
        done(answer, error)


@pytest.mark.long
class TestThreads(KeyedLockerSuite):
    strict = True
    make = staticmethod(OnServer)


class TestAsyncio(KeyedLockerSuite):
    strict = True
    make = staticmethod(AsyncOnServer)


class Careless(OnServer):
    """Leaves behind what an interrupted wait has asked for."""

    def _withdraw(self, *_: object) -> None:
        pass


class AsyncCareless(AsyncOnServer):
    """Leaves behind what a cancelled wait has asked for."""

    def _withdraw(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("make", "text", "level", "clause"),
    [(Careless, "0+a | 1!a | c1", "locks", "KM-INTERRUPT"), (AsyncCareless, "0+a | 1~a | c1", "tasks", "KM-CANCEL")],
)
def test_the_suite_catches_a_careless_twin(make: Callable[[], Any], text: str, level: Level, clause: str) -> None:
    """KM-CANCEL, KM-INTERRUPT: the same bench, the same server, and one line less."""
    bench = Harness(make, promises=PROMISES)
    with bench.control():
        result = bench.explorer.every(parse(text), level, 1, known=frozenset(), go_on=lambda runs: runs < 1000)
    assert clause in {name for finding, _ in result.found.values() for name in finding.clauses}
