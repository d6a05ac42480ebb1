"""One run as somebody sees it who judges: what happened, what is found broken by it, and by which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Set
from typing import Any, NamedTuple

from kmutex.engine.observer import Ending
from kmutex.engine.program import Step
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
"""What a run contains, and the clause that speaks of it; the first that fits is named."""
BLAMED = {
    "KM-RACE": "~",
    "KM-INTERRUPT": "!",
    "KM-CANCEL": "~",
    "KM-TOKEN": "[]^uo%&*",
    "KM-ATOMIC": "x",
    "KM-EXPIRED": "?",
}
"""The same clauses, and the kinds of steps that such a run has."""
_GOES_ON = frozenset(("KM-FIFO", "KM-HANDOFF", "KM-RESULT", "KM-FORGET"))
"""What may be broken and not promised, and means nothing for what the run shows after it: whoever is served out of turn
holds the key as well as anybody, and a result that was kept is a result."""


class Event(NamedTuple):
    """One line of a timeline. client -1: of nobody in particular."""

    client: int
    text: str
    change: Change = ""
    """What it says about who holds the key, in the words of pictures."""
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


class RunJudge:
    """The book of one run, for an `Observer` that judges it: what happened, and what is broken by it.

    What is declared off, not promised, or known from plainer programs is dealt with here.
    """

    def __init__(
        self,
        *,
        off: Set[str] = frozenset(),
        unpromised: Set[str] = frozenset(),
        known: Set[str] = frozenset(),
        tail_from: int | None = None,
    ) -> None:
        """off: clauses that are not judged. unpromised: clauses whose breaches are told apart from the others. known:
        symptoms seen in plainer programs. tail_from: the phase in which the epilogue begins, which asks whether the
        key is as good as new."""
        self.findings: list[Finding] = []
        self.unpromised: list[Finding] = []
        """Breaches of what the subject does not promise."""
        self.exited: str | None = None
        self.uncountable = False
        """Whether len() never came back without the help of another thread, so it is of no use at a quiet moment."""
        self.counted: int | None = None
        """What len() said at the last quiet moment; None: it was not asked."""
        self.events: list[Event] = []
        self.witnesses: Counter[str] = Counter()
        self._hopeless = False
        self._off = off
        self._not_promised = unpromised
        self._known = known
        self._tail_from = tail_from
        self._tail = False
        self.before_epilogue: int | None = None
        """How many events there were when the epilogue began; None: it has not."""
        self._subject: Any = None
        self._counts = False
        self._stalled: set[int] = set()
        """Who waits while all that goes on is another key's."""
        self._ingredients: set[str] = set()

    @property
    def stopped(self) -> bool:
        """Whether nothing that comes now means anything."""
        return self._hopeless or self.exited is not None

    def made(self, subject: Any) -> None:
        """The run has made its subject."""
        self._subject = subject
        self._counts = hasattr(type(subject), "__len__")

    def phase(self, number: int) -> None:
        """A phase of the program begins."""
        self._tail = self._tail_from is not None and number >= self._tail_from
        if self._tail and self.before_epilogue is None:
            self.before_epilogue = len(self.events)

    def differs(self, symptom: str, message: str) -> None:
        """Something that only the caller could see, such as a count, is not as it must be."""
        self._find(symptom, message)

    def called(self, client: int, step: Step) -> None:
        """A client calls."""

    def returned(self, client: int, step: Step) -> None:
        """Its call came back."""

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        """Its call raised an error."""

    def cancelled(self, client: int) -> None:
        """Its wait is ended from outside."""

    def failed(self, error: BaseException) -> None:
        """Of single flights nothing is said about it: no clause speaks of what no caller is told."""

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        """Nobody can move."""

    def ended(self, ending: Ending) -> None:
        """The run is over."""

    def _find(self, symptom: str, message: str, *also: str, hopeless: bool = True, promised: bool = True) -> None:
        """hopeless: nothing that the run shows after this means anything. promised: whether the run has nothing that
        excuses it."""
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
        self.findings.append(Finding(tuple(judged), symptom, message, tuple(self.events)))

    def _find_unpromised(self, symptom: str, message: str, broken: tuple[str, ...]) -> None:
        # Of what an interrupt has left behind, nothing more can be said.
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
