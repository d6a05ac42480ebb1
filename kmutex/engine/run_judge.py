"""The judge of one run, without the rules: its events, its broken clauses, and their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from typing import Any, NamedTuple

from kmutex.engine.observer import Ending, Observer
from kmutex.picture.rows import Change

BLAME = {
    "race": "KM-RACE",
    "interrupt": "KM-INTERRUPT",
    "cancel": "KM-CANCEL",
    "lease": "KM-TOKEN",
    "body": "KM-TOKEN",
    "stray": "KM-ATOMIC",
    "try": "KM-EXPIRED",
    "leader": "KM-LEADER",
    "follower": "KM-FOLLOWER",
}
"""By ingredient of a run: the clause about it. The first that fits names a symptom."""
BLAMED = {
    "KM-RACE": "~",
    "KM-INTERRUPT": "!",
    "KM-CANCEL": "~",
    "KM-TOKEN": "[]^uo%&*",
    "KM-ATOMIC": "x",
    "KM-EXPIRED": "?",
}
"""By the same clauses: the kinds of steps in such a run."""
_GOES_ON = frozenset(("KM-FIFO", "KM-HANDOFF", "KM-RESULT", "KM-FORGET"))
"""Clauses without consequences for the rest of a run if they are not promised: a waiter that is served out of turn
still holds the key, and a result that was kept is a result."""


class Event(NamedTuple):
    """One line of a timeline. Client -1 stands for no client in particular."""

    client: int
    text: str
    change: Change = ""
    """How it changes the state of its client, as `kmutex.picture.rows.Change` has it."""
    key: str = ""
    place: str = ""
    """For a source line, ``FILE:LINE``. Empty for a call, an answer or a verdict."""


class Finding(NamedTuple):
    """A broken clause in one run."""

    clauses: tuple[str, ...]
    """The clauses that the run breaks, the best name for the mistake first."""
    symptom: str
    """The clause of what was observed."""
    message: str
    """What was observed, in one line."""
    events: tuple[Event, ...]
    """The events of the run so far."""
    stuck: int = -1
    """The client that holds up the others; -1 where the mistake is where the last one moved."""


class RunJudge(Observer):
    """The events and findings of one run: an `Observer` that judges it.

    It handles clauses that are off or not promised, and symptoms that are known from simpler programs.
    """

    def __init__(
        self,
        *,
        off: Set[str] = frozenset(),
        unpromised: Set[str] = frozenset(),
        known: Set[str] = frozenset(),
        tail_from: int | None = None,
    ) -> None:
        """Judge one run.

        Args:
            off: Clauses that are not judged.
            unpromised: Clauses whose violations are kept separately.
            known: Symptoms of simpler programs.
            tail_from: The first phase of the epilogue, which checks that each key is as good as new.
        """
        self.findings: list[Finding] = []
        self.unpromised: list[Finding] = []
        """Broken clauses that the subject does not promise."""
        self.exited: str | None = None
        self.uncountable = False
        """Whether len() waits for another thread, so it can't be called in a quiescent state."""
        self.counted: int | None = None
        """The result of len() in the last quiescent state; None if it was not called."""
        self.events: list[Event] = []
        self.witnesses: Counter[str] = Counter()
        self._hopeless = False
        self._off = off
        self._not_promised = unpromised
        self._known = known
        self._tail_from = tail_from
        self._tail = False
        self.before_epilogue: int | None = None
        """The number of events before the epilogue; None before it begins."""
        self._subject: Any = None
        self._counts = False
        self._stalled: set[int] = set()
        """Clients that wait for a free key while another key is held."""
        self._ingredients: set[str] = set()

    @property
    def stopped(self) -> bool:
        """Whether the rest of the run has no meaning."""
        return self._hopeless or self.exited is not None

    def made(self, subject: Any) -> None:
        """Note the subject of the run."""
        self._subject = subject
        self._counts = hasattr(type(subject), "__len__")

    def phase(self, number: int) -> None:
        """Begin a phase of the program."""
        self._tail = self._tail_from is not None and number >= self._tail_from
        if self._tail and self.before_epilogue is None:
            self.before_epilogue = len(self.events)

    def differs(self, symptom: str, message: str) -> None:
        """Note a fault that only the caller could see, such as a wrong count."""
        self._find(symptom, message)

    def ended(self, ending: Ending) -> None:
        """The run is over."""

    def _find(
        self, symptom: str, message: str, *also: str, hopeless: bool = True, promised: bool = True, stuck: int = -1
    ) -> None:
        """Note a broken clause.

        Args:
            symptom: The clause of what was observed.
            message: One line.
            also: Other clauses that it breaks.
            hopeless: Whether the rest of the run has no meaning.
            promised: Whether nothing in the run excuses it.
            stuck: The client that holds up the others.
        """
        if self._hopeless or symptom in self._off:
            return
        clauses = [symptom, *also]
        if symptom not in self._known | self._not_promised:
            for ingredient, clause in BLAME.items():
                if ingredient in self._ingredients:
                    clauses.insert(0, clause)
                    break
        loose = set(clauses) & self._not_promised if promised else set(clauses)
        if symptom in loose or clauses[0] in loose:
            self._find_unpromised(symptom, message, tuple(dict.fromkeys(name for name in clauses if name in loose)))
            return
        self._hopeless = hopeless
        self._log(-1, f"{clauses[0]}: {message}")
        judged = dict.fromkeys(clause for clause in clauses if clause not in self._off | self._not_promised)
        self.findings.append(Finding(tuple(judged), symptom, message, tuple(self.events), stuck))

    def _find_unpromised(self, symptom: str, message: str, broken: tuple[str, ...]) -> None:
        # After traces of an interrupt, the rest of the run has no meaning.
        self._hopeless = symptom not in _GOES_ON
        if any(finding.symptom == symptom for finding in self.unpromised):
            return
        events = (*self.events, Event(-1, f"{broken[0]}, not promised: {message}"))
        self.unpromised.append(Finding(broken, symptom, message, events))

    def _ingredient(self, name: str) -> None:
        if not self._tail:
            self._ingredients.add(name)

    def _witness(self, clause: str) -> None:
        self.witnesses[clause] += 1

    def _log(self, client: int, text: str, change: Change = "", key: str = "") -> None:
        self.events.append(Event(client, text, change, key))
