"""Known-bad handling of a call that was cancelled before it began, and of a call with a time limit.

The model has no such calls: `Courses` puts them together from its steps. So the mistakes that can be made in them are
made here, over the correct model.
"""

from __future__ import annotations

from collections.abc import Sequence

from kmutex.conform.case import Move
from kmutex.conform.expected import Courses
from kmutex_model.actions import CORRECT, Action
from kmutex_model.state import Config, State


class Mistake(Courses):
    """The outcomes of a port with one mistake."""

    name: str
    clause: str

    def __init__(self, moves: Sequence[Move]) -> None:
        super().__init__(moves, CORRECT._replace(name=self.name))


class EarlyCancelLost(Mistake):
    """Looks for a cancel only while it waits: one that came before is never seen."""

    name, clause = "early_cancel_lost", "KM-CANCEL"

    def told_before(self, config: Config, state: State, request: Action) -> list[tuple[State, str]]:
        return [self._take(config, state, request)]


class EarlyCancelStaysQueued(Mistake):
    """Queues, sees the cancel and raises, and does not leave the queue."""

    name, clause = "early_cancel_stays_queued", "KM-CANCEL"

    def told_before(self, config: Config, state: State, request: Action) -> list[tuple[State, str]]:
        asked, outcome = self._take(config, state, request)
        return [(asked, outcome if outcome != "waiting" else "cancelled")]


class EarlyCancelHolds(Mistake):
    """Takes a free key, sees the cancel and raises: nobody knows that it holds."""

    name, clause = "early_cancel_holds", "KM-CANCEL"

    def told_before(self, config: Config, state: State, request: Action) -> list[tuple[State, str]]:
        asked, outcome = self._take(config, state, request)
        if outcome != "waiting":
            return [(asked, "cancelled")]
        return super().told_before(config, state, request)


class LimitLost(Mistake):
    """Waits on when its time is over."""

    name, clause = "limit_lost", "KM-CANCEL"

    def within(self, config: Config, state: State, request: Action, *, brief: bool) -> tuple[State, str]:
        return super().within(config, state, request, brief=False)


class LimitStaysQueued(Mistake):
    """Raises when its time is over, and does not leave the queue."""

    name, clause = "limit_stays_queued", "KM-CANCEL"

    def within(self, config: Config, state: State, request: Action, *, brief: bool) -> tuple[State, str]:
        asked, outcome = super().within(config, state, request, brief=False)
        return asked, "timeout" if brief and outcome == "waiting" else outcome


class LimitIsATry(Mistake):
    """Has no patience at all where it has a limit."""

    name, clause = "limit_is_a_try", "KM-EXPIRED"

    def within(self, config: Config, state: State, request: Action, *, brief: bool) -> tuple[State, str]:
        return super().within(config, state, request, brief=True)


class LimitEndsGrant(Mistake):
    """The clock runs on after the grant, and ends that."""

    name, clause = "limit_ends_grant", "KM-EXCL"

    def within(self, config: Config, state: State, request: Action, *, brief: bool) -> tuple[State, str]:
        after, outcome = super().within(config, state, request, brief=brief)
        for number, client in enumerate(after.clients if outcome == "timeout" else ()):
            if client.phase == "holding" and self._first - number in self.brief:
                after, _ = self._take(config, after, Action("release", number))
        return after, outcome


MISTAKES = (
    EarlyCancelLost,
    EarlyCancelStaysQueued,
    EarlyCancelHolds,
    LimitLost,
    LimitStaysQueued,
    LimitIsATry,
    LimitEndsGrant,
)
