"""What has to be shown, one obligation at a time, each under its clause; and what the solvers say.

An obligation is "known implies goal". A solver is asked for a state in which all that is known holds and the goal
does not: if there is none, of any size, the obligation is proved.

INVARIANT   the invariant holds at first, and each case of each row keeps each part of it
KM-...      of a state: it holds at first, follows from the invariant, and holds after each case of each row
            of a step: it holds on each case of each row, taken where the invariant holds
KM-LIVE     the rank of a waiter never rises, a fair step lowers it, and as long as it waits one can be taken
GHOST       nobody but the actor comes to a key or goes, so that the ghost counts
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from kmutex_model.actions import Model
from kmutex_model.proof import clauses
from kmutex_model.proof.invariant import PARTS, Part, counting, invariant, somebody_counts
from kmutex_model.proof.logic import TRUE, Term, alternations, either, every, no, parts_of, same, some, variable
from kmutex_model.proof.relations import EMPTY, KMUTEX, Vocabulary, facts_of_numbers, named
from kmutex_model.proof.solvers import SECONDS, Answer, Question, Solver, Structure
from kmutex_model.proof.steps import ACTOR, KEY, Case, cases_in_race, cases_of

INVARIANT, GHOST, LIVE = "INVARIANT", "GHOST", "KM-LIVE"
Result = Literal["proved", "refuted", "unknown", "solvers differ"]

BEFORE = named()
WAITER, WAITER_KEY = variable("waiter", "Client"), variable("waiter_key", "Key")
ELDEST = variable("eldest", "Client")


class Obligation(NamedTuple):
    """One thing to show. `case` is the step it is about; None where it is about a state."""

    clause: str
    what: str
    case: Case | None
    constants: tuple[Term, ...]
    known: tuple[tuple[str, Term], ...]
    goal: Term
    vocabulary: Vocabulary = KMUTEX

    @property
    def name(self) -> str:
        """What it is about, on one line."""
        return f"{self.what}: {self.case.name}" if self.case else self.what

    def question(self, without: str = "") -> Question:
        """What a solver is asked: all that is known, but for the part of that name, and not the goal."""
        known = tuple((name, term) for name, term in self.known if name != without)
        return Question(self.constants, (*known, ("the goal fails", no(self.goal))), self.vocabulary)


def obligations(
    model: Model, parts: tuple[Part, ...] = PARTS, *, only: Iterable[Case] | None = None
) -> Iterator[Obligation]:
    """Everything that has to be shown of a model. only: the cases to look at; by default all of its table."""
    inv = (*invariant(BEFORE, parts).items(), ("somebody counts", somebody_counts(BEFORE)))
    cases = tuple(case for row in model.table for case in cases_of(row, BEFORE)) if only is None else tuple(only)
    if only is None:
        for name, goal in invariant(EMPTY, parts).items():
            yield Obligation(INVARIANT, f"{name}, at first", None, (), (), goal)
        for clause, of_state in clauses.STATE.items():
            yield Obligation(clause, "at first", None, (), (), of_state(EMPTY))
            yield Obligation(clause, "in every state", None, (), inv, of_state(BEFORE))
    for case in cases:
        yield from _of_a_case(case, inv, parts)
    yield _fair_step(model, inv)


def _of_a_case(case: Case, inv: tuple[tuple[str, Term], ...], parts: tuple[Part, ...]) -> Iterator[Obligation]:
    x = clauses.Taken(case.race, BEFORE, case.row.action, case.row.phase, ACTOR, KEY, case.outcome, case.after)
    constants = (ACTOR, KEY, *case.witnesses)
    known = (*inv, ("counting", counting(BEFORE, ACTOR, KEY)), ("the step", case.guard))
    if _reads_numbers(case.guard):
        known = (*known, ("numbers", facts_of_numbers()))

    def show(clause: str, what: str, goal: Term, *more: Term) -> Obligation:
        return Obligation(clause, what, case, (*constants, *more), known, goal)

    for name, goal in invariant(case.after, parts).items():
        yield show(INVARIANT, f"{name}, kept", goal)
    yield show(GHOST, "only the actor comes or goes", clauses.only_the_actor_comes_or_goes(x))
    for clause, of_state in clauses.STATE.items():
        yield show(clause, "after the step", of_state(case.after))
    for clause, of_step in clauses.STEP.items():
        if of_step.speaks(x):
            yield show(clause, "on the step", of_step.holds(x))
    for name, of_rank in clauses.RANK.items():
        goal = of_rank(x, WAITER, WAITER_KEY)
        if goal != TRUE:
            yield show(LIVE, name, goal, WAITER, WAITER_KEY)


def _fair_step(model: Model, inv: tuple[tuple[str, Term], ...]) -> Obligation:
    """While a client waits, some fair step of the key's owner can be taken. That a queue in which somebody waits has
    an oldest is taken for granted: it is finite."""
    fair = (row for row in model.table if row.action in clauses.FAIR)
    can = [case.guard for row in fair for case in cases_in_race(row, BEFORE, "keep")]
    # The witnesses of a case are the oldest of the queue, which is `eldest` here.
    taken = [_with_eldest(guard) for guard in can]
    known = (
        *inv,
        ("somebody waits", BEFORE.waiting(WAITER, KEY)),
        ("the owner", BEFORE.owns(ACTOR, KEY)),
        ("the oldest", BEFORE.is_oldest(KEY, ELDEST)),
    )
    return Obligation(LIVE, "a fair step can be taken", None, (ACTOR, KEY, WAITER, ELDEST), known, either(*taken))


def _with_eldest(term: Term) -> Term:
    if term.op == "var":
        return ELDEST if term.args[0].startswith(("oldest_", "youngest_", "lowest_")) else term
    args = tuple(_with_eldest(arg) if isinstance(arg, Term) else arg for arg in term.args)
    return Term(term.op, args, term.sort)


def _reads_numbers(term: Term) -> bool:
    return any(part.op == "app" and part.args[0] in ("before", "lower") for part in parts_of(term))


# ------------------------------------------------------------------------------------------------------------
# Showing it


class Shown(NamedTuple):
    """An obligation and its result; ``answers`` are by the name of the solver."""

    obligation: Obligation
    result: Result
    answers: dict[str, Answer]

    @property
    def seconds(self) -> float:
        """All solvers together."""
        return sum(answer.seconds for answer in self.answers.values())


def show(obligation: Obligation, by: Sequence[Solver], *, seconds: float = SECONDS) -> Shown:
    """Ask every solver. Only where all say "unsat" it is proved, and only where all say "sat" it is refuted."""
    question = obligation.question()
    return Shown(obligation, *_verdict({solver.name: solver.ask(question, seconds=seconds) for solver in by}))


def _verdict(answers: dict[str, Answer]) -> tuple[Result, dict[str, Answer]]:
    said = {answer.verdict for answer in answers.values()}
    if said == {"unsat"}:
        return "proved", answers
    if said == {"sat"}:
        return "refuted", answers
    return ("solvers differ" if {"sat", "unsat"} <= said else "unknown"), answers


SIZES = ((1, 1), (2, 1), (3, 1), (2, 2), (4, 1), (3, 2), (4, 2))
"""The sizes at which a small counterexample is looked for, clients and keys."""


def smallest(obligation: Obligation, by: Solver, *, without: str = "") -> Structure | None:
    """A counterexample with few clients and keys; None if there is none at `SIZES`."""
    question = obligation.question(without)
    return next((found for size in SIZES if (found := by.ask(question.within(*size)).found)), None)


def refutations(obligation: Obligation, by: Sequence[Solver]) -> Iterator[tuple[Shown, Structure]]:
    """Small counterexamples, the smallest first, each with what all solvers say of it; none at `SIZES`: nothing.

    It is one for any size: with so many clients and keys all is so that is known, and the goal fails. One in which
    nobody but the actor has been granted a key is looked for first, since a run leads there more often.
    """
    question = obligation.question()
    if by[0].ask(question, seconds=1.0).verdict == "unsat":
        return  # So it is of no size, which is quicker to say than of each.
    likely = ("likely to be reached", every(lambda c, k: same(c, ACTOR) | ~BEFORE.granted(c, k)))
    for size in SIZES:
        for more in ((likely,), ()) if ACTOR in question.constants else ((),):
            asked = question._replace(assertions=(*question.assertions, *more)).within(*size)
            first = by[0].ask(asked)
            if first.found:
                others = {solver.name: solver.ask(asked) for solver in by[1:]}
                yield Shown(obligation, *_verdict({by[0].name: first, **others})), first.found


def refute(obligation: Obligation, by: Sequence[Solver]) -> tuple[Shown, Structure] | None:
    """The first of the `refutations`; None if there is none."""
    return next(refutations(obligation, by), None)


def possible(case: Case, by: Solver) -> bool:
    """Whether the case can be taken at all where the invariant holds: else all that is shown of it is empty."""
    known = (*invariant(BEFORE).items(), ("the step", case.guard))
    return by.ask(Question((ACTOR, KEY, *case.witnesses), known)).verdict == "sat"


def outside_the_fragment(obligation: Obligation) -> str:
    """Why a solver need not come to an end with it, or an empty string: it is in the decidable fragment.

    Only "for each key there is a client" may occur, never the other way round or within one sort; then a
    counterexample, if there is one, is finite.
    """
    pairs = set()
    for _, term in obligation.question().assertions:
        pairs |= alternations(term)
        for part in parts_of(term):
            if part.op == "app" and part.sort not in ("Bool", "Int"):
                return f"{part.args[0]} gives a {part.sort}"
    wrong = pairs - {("Key", "Client")}
    return ", ".join(f"for each {a} there is a {b}" for a, b in sorted(wrong))


@dataclass(frozen=True)
class NeededPart:
    """What goes wrong without one part of the invariant.

    obligation  one that fails then; None if nothing does
    found       the state before the step that breaks it
    """

    part: Part
    obligation: Obligation | None
    found: Structure | None = field(default=None, repr=False)


def needed_parts(shown: Sequence[Shown], by: Solver, *, parts: Sequence[Part] = PARTS) -> list[NeededPart]:
    """For each part of the invariant an obligation that fails without it, in a state with few clients and keys.
    shown: all that was proved, and `oldest_of_finite`.

    Only an obligation in whose proof the part was used can fail. That it is kept without being known does not count.
    """
    return [_needed(part, shown, by) for part in parts]


def _needed(part: Part, shown: Sequence[Shown], by: Solver) -> NeededPart:
    used = [one.obligation for one in shown if part.name in one.answers[by.name].core]
    used = [one for one in used if not one.what.startswith(part.name)]
    used.sort(key=lambda one: (one.case is None, one.clause in (INVARIANT, GHOST)))
    for one in used:
        # A few sizes are enough to look at: what fails without a part fails small.
        if found := smallest(one, by, without=part.name):
            return NeededPart(part, one, found)
    return NeededPart(part, None)


def oldest_of_finite(by: Solver) -> list[Shown]:
    """That a queue in which somebody stands has an oldest, for some finite sizes.

    It is true of every finite queue, by induction, and false of an endless one. So no solver can be asked it for any
    size, and the proof takes it for granted; this is what it rests on.
    """
    known = (*invariant(BEFORE).items(), ("somebody waits", BEFORE.queued(KEY, WAITER)))
    goal = some(lambda c: BEFORE.is_oldest(KEY, c))
    claim = Obligation(LIVE, "a finite queue has an oldest", None, (KEY, WAITER), known, goal)
    found = []
    for clients in range(1, 6):
        answer = by.ask(claim.question().within(clients, 1))
        result: Result = {"unsat": "proved", "sat": "refuted"}.get(answer.verdict, "unknown")  # type: ignore[assignment]
        found.append(Shown(claim._replace(what=f"a queue among {clients} has an oldest"), result, {by.name: answer}))
    return found
