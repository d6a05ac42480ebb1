"""Unlocks that meet: two of one grant, of which one wins (KM-UNHELD, KM-ATOMIC); one and its own guard (KM-LIVE)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from kmutex.engine.explorer import Explorer
from kmutex.engine.program import parse
from kmutex.engine.threads import Crew, replaced

BOTH = parse("0+a | 0-a 1xa")


@pytest.fixture(autouse=True)
def control() -> Iterator[None]:
    """The scheduler's locks are in force for what the tests make."""
    with replaced():
        yield


class Sound:
    """The holder's unlock and a stranger's are the same, and take one step."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.held: set[object] = set()

    def lock(self, key: object, timeout: float | None = None) -> None:
        with self.changed:
            if not self.changed.wait_for(lambda: key not in self.held, timeout):
                raise TimeoutError(key)
            self.held.add(key)

    def unlock(self, key: object) -> None:
        with self.changed:
            self.held.remove(key)
            self.changed.notify_all()


class InTwoTurns(Sound):
    """Looks under one turn of the guard, and lets go under the next."""

    def unlock(self, key: object) -> None:
        with self.changed:
            if key not in self.held:
                raise KeyError(key)
        with self.changed:
            self.held.discard(key)
            self.changed.notify_all()


class RefusesBoth(Sound):
    """Takes a second unlock that is under way for a reason to refuse the first as well."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: dict[object, int] = {}

    def unlock(self, key: object) -> None:
        with self.changed:
            self.asked[key] = self.asked.get(key, 0) + 1
        with self.changed:
            self.asked[key] -= 1
            if self.asked[key]:
                self.asked[key] += 1
                raise KeyError(key)
        super().unlock(key)


def explored(make: Callable[[], Any]) -> set[str]:
    crew = Crew()
    result = Explorer(make, crew=crew).every(BOTH, "locks", 2)
    return {clause for found in result.found.values() for clause in found.finding.clauses}


def test_either_may_win() -> None:
    assert explored(Sound) == set()


def test_both_may_not_win() -> None:
    assert "KM-UNHELD" in explored(InTwoTurns)


def test_both_may_not_lose() -> None:
    assert "KM-REF" in explored(RefusesBoth)


class Stuck(Sound):
    """Known bad: unlock takes its guard twice."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = threading.Condition(threading.Lock())

    def unlock(self, key: object) -> None:
        with self.changed:
            super().unlock(key)


class Forgets(Sound):
    """Known bad: unlock wakes nobody."""

    def unlock(self, key: object) -> None:
        with self.changed:
            self.held.remove(key)


@pytest.mark.parametrize(
    ("make", "told", "stuck"),
    [
        (Stuck, "client 1 waits for a, and client 0's unlock of a is stuck", 0),
        (Forgets, "client 1 waits for a, nobody holds it, and nobody can move", -1),
    ],
)
def test_who_waits_for_an_unlock_that_waits_for_itself_is_told_so(
    make: Callable[[], Any], told: str, stuck: int
) -> None:
    """KM-LIVE: the key is not free as it is after an unlock that came back; and the unlock is shown as the place."""
    result = Explorer(make, crew=Crew()).every(parse("0+a | 1+a | 0-a"), "locks", 0)
    finding = result.found["KM-LIVE"].finding
    assert (finding.message, finding.stuck) == (told, stuck)
