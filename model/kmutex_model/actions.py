"""What can happen: the rules, then the table of them.

Rule 1   Every action is one step, atomic, by one client and at one key.
Rule 2   An idle client may ask for a key. If the key is free it holds it at once; else it joins the end of
         the queue and waits.
Rule 3   An idle client may try a key with timeout 0. It holds a free key at once; else the call fails and
         nothing has changed.
Rule 4   A holder that releases hands the key to the oldest waiter in the same step. The key is never free in
         between, so no newcomer can take it. Without a waiter the entry is evicted in the same step.
Rule 5   The client that got the key by Rule 4 owns it from that step on ("granted"), and its call returns
         some time later ("wake").
Rule 6   A waiting client may be cancelled (timeout, task cancellation). It leaves the queue and the others
         keep their places.
Rule 7   A cancel may come when the key is granted already and the call has not returned. Then, by `race`:
         "keep": the call returns holding, as if there had been no cancel;
         "pass": the call raises, and the grant goes on as in Rule 4.
Rule 8   An interrupt may come wherever a cancel may. It must raise, so it never keeps a grant: a waiter
         leaves as in Rule 6, and a grant goes on as in Rule 4, whatever `race` is.
Rule 9   Unlocking a key that has no holder fails and changes nothing.
Rule 10  Releasing an old lease fails and changes nothing, whoever holds the key now. The lease may be older
         than the run, so any idle client may have one for any key.

Failed calls are steps too: they lead back to the state they came from, and that they do is checked.
Not modelled: `unlock(key)` of a key that somebody else holds, which releases that holder's grant and is, seen
from the table, that holder's `release`.

A row of the table is taken when the client is in that phase and the table shows the key as "free" (no entry,
or one that nobody holds) or "held". A broken model is this table with some rows replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

from kmutex_model.state import NOBODY, Config, Phase, State, initial, record_order
from kmutex_model.turn import ExplicitTurn, Outcome, Turn, Who

KeyView = Literal["free", "held", "any"]


class Step(NamedTuple):
    """The result of an action."""

    state: State
    """The next state."""
    outcome: Outcome
    """What the caller was told."""


class NotEnabledError(ValueError):
    """The action cannot happen in this state."""


# ------------------------------------------------------------------------------------------------------------
# Actions as values and as text


class Action(NamedTuple):
    """One action. Its text form is ``request(0,1)``."""

    name: str
    """The name of the action."""
    client: int | None = None
    """Its client; None if it has none."""
    key: int | None = None
    """Its key; None if it names none."""

    def __str__(self) -> str:
        return f"{self.name}({','.join(str(n) for n in (self.client, self.key) if n is not None)})"


KEYED = ("request", "try", "stray_unlock", "stale_release")
"""Actions that name their key: (client, key). The client is idle, so nothing else tells."""
UNKEYED = ("wake", "cancel", "interrupt", "release")
"""Actions of a client that is at a key already: (client)."""

_ACTION = re.compile(r"(\w+)\((\d+)(?:,\s*(\d+))?\)", re.ASCII)


def parse_action(text: str) -> Action:
    """Return the action that is written as ``request(0,1)`` or ``wake(0)``.

    Raises:
        ValueError: The text is not an action.
    """
    match = _ACTION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not an action: {text!r}")
    name, client, key = match.groups()
    if name not in (UNKEYED if key is None else KEYED):
        raise ValueError(f"no such action: {text!r}")
    return Action(name, int(client), None if key is None else int(key))


def format_schedule(actions: tuple[Action, ...]) -> str:
    """Return a run as text: ``request(0,0); request(1,0); release(0)``."""
    return "; ".join(str(action) for action in actions)


def parse_schedule(text: str) -> tuple[Action, ...]:
    """Return the run that `format_schedule` wrote.

    Raises:
        ValueError: The text is not a run.
    """
    return tuple(parse_action(part) for part in text.split(";")) if text.strip() else ()


# ------------------------------------------------------------------------------------------------------------
# Effects: what a row of the table does, in the words of `kmutex_model.turn`. It returns what the caller is told.

Effect = Callable[[Turn], Outcome]


def enter(turn: Turn) -> Outcome:
    """A free key is taken at once."""
    turn.new_entry()
    turn.give(turn.client)
    turn.count(1)
    turn.move(turn.client, "holding")
    return "granted"


def join(turn: Turn) -> Outcome:
    """A held key is waited for, behind all who asked before."""
    turn.enqueue(turn.client)
    turn.count(1)
    turn.move(turn.client, "waiting")
    return "waiting"


def time_out(turn: Turn) -> Outcome:
    """The call fails: no time was given to wait."""
    return "timeout"


def refuse(turn: Turn) -> Outcome:
    """The call fails: there is nothing of this client's to release."""
    return "unheld"


def come_back(turn: Turn) -> Outcome:
    """The call that got the key returns."""
    turn.move(turn.client, "holding")
    return "returned"


def leave_queue(turn: Turn) -> None:
    """A waiter is gone, as if it had never asked."""
    turn.dequeue(turn.client)
    turn.count(-1)
    turn.move(turn.client, "idle")


def hand_on(turn: Turn, owner: Who) -> None:
    """The owner lets go; the oldest waiter owns the key in the same step, or the entry is evicted."""
    turn.move(owner, "idle")
    if turn.nobody_waits():
        turn.evict()
    else:
        pass_to(turn, turn.oldest())


def pass_to(turn: Turn, heir: Who) -> None:
    """One that waits owns the key, and there is one reference less."""
    turn.dequeue(heir)
    turn.give(heir)
    turn.count(-1)
    turn.move(heir, "granted")


def give_up(turn: Turn) -> Outcome:
    """Rule 6."""
    leave_queue(turn)
    return "cancelled"


def settle(turn: Turn) -> Outcome:
    """Rule 7: the grant was first, the cancel second."""
    if turn.race == "keep":
        turn.move(turn.client, "holding")
        return "kept"
    hand_on(turn, turn.client)
    return "cancelled"


def break_off(turn: Turn) -> Outcome:
    """Rule 8, before the grant."""
    leave_queue(turn)
    return "interrupted"


def break_off_late(turn: Turn) -> Outcome:
    """Rule 8, after the grant."""
    hand_on(turn, turn.client)
    return "interrupted"


def let_go(turn: Turn) -> Outcome:
    """Rule 4."""
    hand_on(turn, turn.client)
    return "released"


# ------------------------------------------------------------------------------------------------------------
# The table


class Row(NamedTuple):
    """When a client in this phase meets a key that the table shows so, this action has this effect."""

    action: str
    phase: Phase
    key: KeyView
    effect: Effect


TABLE: tuple[Row, ...] = (
    #    action           client is   key is   effect             outcome
    Row("request", "idle", "free", enter),  # granted
    Row("request", "idle", "held", join),  # waiting
    Row("try", "idle", "free", enter),  # granted
    Row("try", "idle", "held", time_out),  # timeout
    Row("wake", "granted", "any", come_back),  # returned
    Row("cancel", "waiting", "any", give_up),  # cancelled
    Row("cancel", "granted", "any", settle),  # kept, or cancelled
    Row("interrupt", "waiting", "any", break_off),  # interrupted
    Row("interrupt", "granted", "any", break_off_late),  # interrupted
    Row("release", "holding", "any", let_go),  # released
    Row("stray_unlock", "idle", "free", refuse),  # unheld
    Row("stale_release", "idle", "any", refuse),  # unheld
)


def key_view(state: State, key: int) -> KeyView:
    """How the table shows the key."""
    entry = state.entries[key]
    return "free" if entry is None or entry.holder == NOBODY else "held"


class Machine(Protocol):
    """What can be explored: a `Model` of the keyed mutex, or another. Its states have clients, each with its key.

    Where states are spoken of as those of the keyed mutex, any machine's will do.
    """

    @property
    def name(self) -> str: ...

    def initial(self, config: Any) -> Any: ...

    def enabled(self, config: Any, state: Any) -> tuple[Action, ...]: ...

    def step(self, config: Any, state: Any, action: Action) -> Any: ...


class Model(NamedTuple):
    """A named table of rows: the correct one, or a broken one."""

    name: str
    """The name of the model."""
    table: tuple[Row, ...]
    """Its rows, which say what each action does, by the client's phase and the key's state."""

    def initial(self, config: Config) -> State:
        """Return the state that every run starts from."""
        return initial(config)

    def enabled(self, config: Config, state: State) -> tuple[Action, ...]:
        """Return every action that can happen in this state, in a fixed order."""
        found = []
        for number, client in enumerate(state.clients):
            for name in KEYED:
                found += [
                    Action(name, number, key)
                    for key in range(config.keys)
                    if self._row(name, client.phase, key_view(state, key))
                ]
            if client.key is not None:
                view = key_view(state, client.key)
                found += [Action(name, number) for name in UNKEYED if self._row(name, client.phase, view)]
        return tuple(found)

    def step(self, config: Config, state: State, action: Action) -> Step:
        """Take an action.

        Raises:
            NotEnabledError: It can't happen in this state.
        """
        client, key = action.client, action_key(state, action)
        if client is None or key is None or client not in range(config.clients) or key not in range(config.keys):
            raise NotEnabledError(f"{action} cannot happen in {state}")
        row = self._row(action.name, state.clients[client].phase, key_view(state, key))
        if row is None:
            raise NotEnabledError(f"{action} cannot happen in {state}")
        turn = ExplicitTurn(config, state, client, key)
        outcome = row.effect(turn)
        return Step(record_order(state, turn.state), outcome)

    def replay(self, config: Config, schedule: tuple[Action, ...]) -> tuple[Step, ...]:
        """Return the steps of a run from the initial state.

        Raises:
            NotEnabledError: An action can't happen.
        """
        state, steps = self.initial(config), []
        for action in schedule:
            steps.append(self.step(config, state, action))
            state = steps[-1].state
        return tuple(steps)

    def replacing(self, name: str, *rows: Row) -> Model:
        """Return a model with another name, in which these rows replace those for the same action, phase and view.

        Raises:
            ValueError: The model has no such row.
        """
        table = dict(zip((row[:3] for row in self.table), self.table, strict=True))
        for row in rows:
            if row[:3] not in table:
                raise ValueError(f"{self.name} has no row {row[:3]}")
            table[row[:3]] = row
        return Model(name, tuple(table.values()))

    def _row(self, name: str, phase: Phase, view: KeyView) -> Row | None:
        for row in self.table:
            if row.action == name and row.phase == phase and row.key in (view, "any"):
                return row
        return None


def action_key(state: State, action: Action) -> int | None:
    """The key the action is about: the one it names, or the one its client is at."""
    if action.name in KEYED:
        return action.key
    if action.client is None or action.key is not None or not 0 <= action.client < len(state.clients):
        return None
    return state.clients[action.client].key


CORRECT = Model("correct", TABLE)


def enabled(config: Config, state: State) -> tuple[Action, ...]:
    """Every action that can happen in this state of the correct model."""
    return CORRECT.enabled(config, state)


def step(config: Config, state: State, action: Action) -> Step:
    """One step of the correct model. NotEnabledError if the action cannot happen here."""
    return CORRECT.step(config, state, action)
