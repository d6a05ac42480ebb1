"""Lockers that wait by trio: a sound one, and such as have one mistake each."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Hashable

import trio


class Queues:
    """A queue of events for each key: who is first in it holds the key. Sound, and in order."""

    def __init__(self) -> None:
        self._queues: dict[Hashable, OrderedDict[object, trio.Event]] = {}

    def __len__(self) -> int:
        return len(self._queues)

    async def lock(self, key: Hashable, timeout: float | None = None) -> None:
        queue = self._queues.setdefault(key, OrderedDict())
        me, turn = object(), trio.Event()
        queue[me] = turn
        try:
            if len(queue) > 1:
                await self._wait(turn, timeout)
            await trio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            self._gave_up(key, me, turn)
            raise

    async def _wait(self, turn: trio.Event, timeout: float | None) -> None:
        with trio.move_on_after(math.inf if timeout is None else timeout) as scope:
            await turn.wait()
        if scope.cancelled_caught and not turn.is_set():
            raise TimeoutError

    def _gave_up(self, key: Hashable, who: object, turn: trio.Event) -> None:
        self._leave(key, who)

    def unlock(self, key: Hashable) -> None:
        if key not in self._queues:
            raise RuntimeError("nobody holds it")
        self._leave(key, next(iter(self._queues[key])))

    def _leave(self, key: Hashable, who: object) -> None:
        queue = self._queues[key]
        first = next(iter(queue)) is who
        del queue[who]
        if not queue:
            del self._queues[key]
        elif first:
            next(iter(queue.values())).set()


class InNursery(Queues):
    """The same, where a task of its own waits for each call: tasks begin and end in a run."""

    async def _wait(self, turn: trio.Event, timeout: float | None) -> None:
        with trio.move_on_after(math.inf if timeout is None else timeout):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(turn.wait)
        if not turn.is_set():
            raise TimeoutError


class ClockInNursery(Queues):
    """The same, where a task of its own ends the wait of a call."""

    async def _wait(self, turn: trio.Event, timeout: float | None) -> None:
        async with trio.open_nursery() as nursery:

            async def clock() -> None:
                await trio.sleep(math.inf if timeout is None else timeout)
                nursery.cancel_scope.cancel()

            nursery.start_soon(clock)
            await turn.wait()
            nursery.cancel_scope.cancel()
        if not turn.is_set():
            raise TimeoutError


class GrantKept(Queues):
    """Who is cancelled once the key was handed to him raises, and stays its holder (KM-RACE)."""

    def _gave_up(self, key: Hashable, who: object, turn: trio.Event) -> None:
        if not turn.is_set():
            self._leave(key, who)


class WokenTakes:
    """Who is woken takes the key without looking whether somebody came before him (KM-EXCL)."""

    def __init__(self) -> None:
        self._held: set[Hashable] = set()
        self._waiting: dict[Hashable, list[trio.Event]] = {}

    async def lock(self, key: Hashable) -> None:
        if key in self._held:
            turn = trio.Event()
            self._waiting.setdefault(key, []).append(turn)
            try:
                await turn.wait()
            except BaseException:
                if turn.is_set():
                    self._wake(key)
                else:
                    self._waiting[key].remove(turn)
                raise
        self._held.add(key)

    def unlock(self, key: Hashable) -> None:
        self._held.remove(key)
        self._wake(key)

    def _wake(self, key: Hashable) -> None:
        if self._waiting.get(key):
            self._waiting[key].pop(0).set()


class Broadcast:
    """Wakes all who wait, and trusts that trio runs them in the order in which they came (KM-FIFO)."""

    def __init__(self) -> None:
        self._held: dict[Hashable, trio.Event] = {}

    async def lock(self, key: Hashable) -> None:
        while key in self._held:
            await self._held[key].wait()
        self._held[key] = trio.Event()

    def unlock(self, key: Hashable) -> None:
        self._held.pop(key).set()
