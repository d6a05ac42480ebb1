"""The programs of specs/divergences.md, run on a stand-in with the steps of the Go original and on KeyedMutex."""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kmutex import KeyedMutex, UnheldKeyError
from kmutex.engine.observer import Observer
from kmutex.engine.program import ASKING, Step, parse
from kmutex.engine.search import Chooser, Search
from kmutex.engine.threads import Crew, ThreadRun, replaced

PAGE = Path(__file__).resolve().parents[2] / "specs" / "divergences.md"
STRAY_ON_THE_WAY = "0+a 1xa | 2+a"
STRAY = "0xa"
BY_KEY = "0+a | 1xa | 2+a | 0-a"
BY_LEASE = "0[a | 1xa | 2+a | 0]a"
FREE_TRY = "0?a"
RACE = "0+a | 1~a-a | 2+a-a | 0-a"


class PanicError(Exception):
    """What a panic is here: raised, and recovered by whoever catches it."""


class Semaphore:
    """Room for one, waiters in order. A release that nobody may make is noticed after it is made."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = 0
        self._waiters: deque[threading.Lock] = deque()

    def acquire(self, timeout: float | None) -> bool:
        with self._guard:
            if self._taken < 1 and not self._waiters:
                self._taken += 1
                return True
            gate = threading.Lock()
            gate.acquire()
            self._waiters.append(gate)
        if gate.acquire(timeout=-1 if timeout is None else timeout):
            return True
        with self._guard:
            if gate not in self._waiters:
                return True
            self._waiters.remove(gate)
            return False

    def release(self) -> None:
        with self._guard:
            self._taken -= 1
            if self._taken < 0:
                raise PanicError("released more than held")
            while self._waiters and self._taken < 1:
                self._taken += 1
                self._waiters.popleft().release()


class GoLike:
    """Counts under the guard, takes the semaphore after it; releases first and counts down next."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._entries: dict[Any, tuple[Semaphore, list[None]]] = {}

    def lock(self, key: Any, timeout: float | None = None) -> None:
        with self._guard:
            semaphore, refs = self._entries.setdefault(key, (Semaphore(), []))
            refs.append(None)
        if not semaphore.acquire(timeout):
            with self._guard:
                self._drop(key, refs)
            raise TimeoutError

    def unlock(self, key: Any) -> None:
        with self._guard:
            if key not in self._entries:
                raise PanicError("unlock of unlocked key")
            semaphore, refs = self._entries[key]
            semaphore.release()
            self._drop(key, refs)

    def _drop(self, key: Any, refs: list[None]) -> None:
        refs.pop()
        if not refs:
            del self._entries[key]

    def __len__(self) -> int:
        return len(self._entries)


class Seen(Observer):
    """It keeps who holds, by what the calls said, and what was raised."""

    def __init__(self) -> None:
        self.subject: Any = None
        self.holders: list[int] = []
        self.most = 0
        self.raised_by: dict[tuple[int, str], BaseException] = {}
        self.cut_short: set[int] = set()

    def made(self, subject: Any) -> None:
        self.subject = subject

    def called(self, client: int, step: Step) -> None:
        if step.kind in "-]" and client in self.holders:
            self.holders.remove(client)

    def returned(self, client: int, step: Step) -> None:
        if step.kind in ASKING:
            self.holders.append(client)
            self.most = max(self.most, len(self.holders))

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self.raised_by[client, step.kind] = error

    def cancelled(self, client: int) -> None:
        self.cut_short.add(client)


CREW = Crew()


def runs(make: Callable[[], Any], program: str, *, preemptions: int | None) -> Iterator[Seen]:
    """Every run of the program within so many preemptions; None: the plain run only."""
    for chooser in [Chooser()] if preemptions is None else Search(preemptions):
        seen = Seen()
        with replaced():
            ThreadRun(make, parse(program), chooser, seen, crew=CREW, keys=lambda letter: letter).run()
        yield seen


def plain(make: Callable[[], Any], program: str) -> Seen:
    return next(runs(make, program, preemptions=None))


def test_every_program_of_the_page_is_run_here() -> None:
    """The page and this file have the same programs."""
    blocks = re.findall(r"^```program\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert "".join(blocks).splitlines() == [STRAY_ON_THE_WAY, STRAY, BY_KEY, BY_LEASE, FREE_TRY, RACE]


def test_a_stray_unlock_on_the_way_in_admits_two() -> None:
    """KM-ATOMIC, KM-EXCL: in the original's steps an unlock that fails leaves room for two; here it never does, and it
    does fail in some order."""
    go = [seen for seen in runs(GoLike, STRAY_ON_THE_WAY, preemptions=1) if (1, "x") in seen.raised_by]
    here = [seen for seen in runs(KeyedMutex, STRAY_ON_THE_WAY, preemptions=1) if (1, "x") in seen.raised_by]
    assert {seen.most for seen in go} == {1, 2}
    assert {seen.most for seen in here} == {1}
    assert {str(seen.raised_by[1, "x"]) for seen in go if seen.most == 2} == {"released more than held"}


def test_a_stray_unlock_is_an_error_that_can_be_caught() -> None:
    """KM-UNHELD: a panic there, UnheldKeyError here."""
    assert isinstance(plain(GoLike, STRAY).raised_by[0, "x"], PanicError)
    assert isinstance(plain(KeyedMutex, STRAY).raised_by[0, "x"], UnheldKeyError)


def test_a_late_unlock_ends_anothers_grant_by_key_and_not_by_lease() -> None:
    """KM-TOKEN: by key both end the grant of client 2; a lease ends its own only."""
    for make in (GoLike, KeyedMutex):
        seen = plain(make, BY_KEY)
        assert seen.raised_by == {}
        assert seen.holders == [2]
        assert len(seen.subject) == 0
    seen = plain(KeyedMutex, BY_LEASE)
    assert isinstance(seen.raised_by[0, "]"], UnheldKeyError)
    assert seen.holders == [2]
    assert len(seen.subject) == 1


@pytest.mark.parametrize("make", [GoLike, KeyedMutex])
def test_a_free_key_is_taken_without_time(make: Callable[[], Any]) -> None:
    """KM-EXPIRED: the older semaphore and this library agree on a free key."""
    assert plain(make, FREE_TRY).holders == [0]


def test_a_grant_that_beat_the_timeout_is_kept() -> None:
    """KM-RACE: the older semaphore and the thread driver both keep it; every run ends with the key served and idle."""
    for make in (GoLike, KeyedMutex):
        kept = 0
        for seen in runs(make, RACE, preemptions=1):
            kept += 1 in seen.cut_short and (1, "~") not in seen.raised_by
            assert seen.most == 1
            assert seen.holders == []
            assert len(seen.subject) == 0
        assert kept > 0
