"""One client's turn at one key: everything that a row of the table can see and do, as a fixed set of operations.

An effect (`kmutex_model.actions`) uses these operations only, so it has two interpretations. Here they are executed on
a state with a few clients and keys, for the explorer. In `kmutex_model.proof` they are relations between states of any
size. So there is one description of each action, and a proof about it is a proof about what was explored.
`kmutex_model.proof.tie` checks that both interpretations agree, on every state up to a bound.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from kmutex_model.state import (
    IDLE,
    NOBODY,
    Client,
    Config,
    Entry,
    Phase,
    Race,
    State,
    with_client,
    with_entry,
)

Outcome = Literal["granted", "waiting", "timeout", "returned", "cancelled", "kept", "interrupted", "released", "unheld"]
Who: TypeAlias = Any
"""A client. A number for one reader and a term for the other, so an effect must not look inside."""
Where: TypeAlias = Any
"""A key, likewise."""


class Turn(ABC):
    """What an effect is given. `client` takes the step, at `key`; `race` is that of the configuration.

    A word that speaks of an entry means the entry of the turn's key, unless it is given another.
    """

    client: Who
    key: Where
    race: Race

    # What can be asked. An answer is True or False: an effect may use it in an `if`.

    @abstractmethod
    def has_entry(self) -> bool:
        """Whether the key is in the table."""

    @abstractmethod
    def any_entry(self) -> bool:
        """Whether any key is in the table."""

    @abstractmethod
    def is_free(self) -> bool:
        """Whether the key has no entry, or one that nobody holds."""

    @abstractmethod
    def nobody_waits(self) -> bool:
        """Whether the queue is empty. There must be an entry."""

    @abstractmethod
    def is_counted(self) -> bool:
        """Whether the entry has a reference left."""

    @abstractmethod
    def same(self, one: Who, other: Who) -> bool:
        """Whether two clients are one."""

    @abstractmethod
    def stands(self, who: Who, phase: Phase) -> bool:
        """Whether the client is in this phase, at the key of the turn."""

    @abstractmethod
    def another_key_is_waited_for(self) -> bool:
        """Whether a key that is not the turn's has a queue."""

    # Who and where.

    @abstractmethod
    def holder(self) -> Who:
        """Who holds the key by the table. There must be one."""

    @abstractmethod
    def oldest(self, key: Where = None) -> Who:
        """Who is first in the queue. There must be one."""

    @abstractmethod
    def youngest(self) -> Who:
        """Who is last in the queue. There must be one."""

    @abstractmethod
    def lowest(self) -> Who:
        """Who has the smallest number of those in the queue. There must be one."""

    @abstractmethod
    def lowest_other_key(self) -> Where:
        """The key with the smallest number that is not the turn's and has a queue. There must be one."""

    # What can be done.

    @abstractmethod
    def move(self, who: Who, phase: Phase, key: Where = None) -> None:
        """The client is in this phase now, at the key; idle, it is nowhere."""

    @abstractmethod
    def new_entry(self) -> None:
        """The key has an entry now that nobody holds, nobody waits in, and nobody is counted in."""

    @abstractmethod
    def evict(self) -> None:
        """The key has no entry now."""

    @abstractmethod
    def evict_all(self) -> None:
        """No key has an entry now."""

    @abstractmethod
    def give(self, who: Who) -> None:
        """The entry's holder is this client now."""

    @abstractmethod
    def free(self) -> None:
        """The entry has no holder now."""

    @abstractmethod
    def count(self, by: int) -> None:
        """The entry has so many references more."""

    @abstractmethod
    def enqueue(self, who: Who) -> None:
        """The client is last in the queue now."""

    @abstractmethod
    def enqueue_first(self, who: Who) -> None:
        """The client is first in the queue now."""

    @abstractmethod
    def dequeue(self, who: Who) -> None:
        """The client is out of the queue now, and the others keep their places."""

    @abstractmethod
    def replace_by(self, other: Who, who: Who) -> None:
        """`other` has the place of `who` in the queue now, and `who` none."""


class ExplicitTurn(Turn):
    """A turn in a state of the explorer: clients and keys are numbers, and `state` is what the turn has made of it."""

    def __init__(self, config: Config, state: State, client: int, key: int) -> None:
        self.client: int = client
        self.key: int = key
        self.race = config.race
        self.state = state

    def has_entry(self) -> bool:
        return self.state.entries[self.key] is not None

    def any_entry(self) -> bool:
        return any(self.state.entries)

    def is_free(self) -> bool:
        entry = self.state.entries[self.key]
        return entry is None or entry.holder == NOBODY

    def nobody_waits(self) -> bool:
        return not self._entry().queue

    def is_counted(self) -> bool:
        return self._entry().refs != 0

    def same(self, one: int, other: int) -> bool:
        return one == other

    def stands(self, who: int, phase: Phase) -> bool:
        return self.state.clients[who] == (phase, self.key)

    def another_key_is_waited_for(self) -> bool:
        return bool(self._others())

    def holder(self) -> int:
        return self._entry().holder

    def oldest(self, key: int | None = None) -> int:
        return self._entry(key).queue[0]

    def youngest(self) -> int:
        return self._entry().queue[-1]

    def lowest(self) -> int:
        return min(self._entry().queue)

    def lowest_other_key(self) -> int:
        return min(self._others())

    def move(self, who: int, phase: Phase, key: int | None = None) -> None:
        place = IDLE if phase == "idle" else Client(phase, self.key if key is None else key)
        self.state = with_client(self.state, who, place)

    def new_entry(self) -> None:
        self._put(Entry(NOBODY, (), 0))

    def evict(self) -> None:
        self._put(None)

    def evict_all(self) -> None:
        self.state = self.state._replace(entries=(None,) * len(self.state.entries))

    def give(self, who: int) -> None:
        self._put(self._entry()._replace(holder=who))

    def free(self) -> None:
        self.give(NOBODY)

    def count(self, by: int) -> None:
        entry = self._entry()
        self._put(entry._replace(refs=entry.refs + by))

    def enqueue(self, who: int) -> None:
        self._queue((*self._entry().queue, who))

    def enqueue_first(self, who: int) -> None:
        self._queue((who, *self._entry().queue))

    def dequeue(self, who: int) -> None:
        self._queue([client for client in self._entry().queue if client != who])

    def replace_by(self, other: int, who: int) -> None:
        kept = [client for client in self._entry().queue if client != other or client == who]
        self._queue([other if client == who else client for client in kept if other != who or client != who])

    def _entry(self, key: int | None = None) -> Entry:
        key = self.key if key is None else key
        entry = self.state.entries[key]
        if entry is None:
            raise AssertionError(f"key {key} has no entry")
        return entry

    def _put(self, entry: Entry | None) -> None:
        self.state = with_entry(self.state, self.key, entry)

    def _queue(self, clients: Sequence[int]) -> None:
        self._put(self._entry()._replace(queue=tuple(clients)))

    def _others(self) -> list[int]:
        return [key for key, entry in enumerate(self.state.entries) if key != self.key and entry and entry.queue]
