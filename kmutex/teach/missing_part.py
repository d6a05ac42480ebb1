"""Find the missing part: the proof's invariant lacks one conjunct, which the learner finds and the solver grades.

The answer is a formula about a state `s`, in the terms of `kmutex_model.proof`, such as
``every(lambda k, a, b: implies(s.holder(k, a) & s.holder(k, b), same(a, b)))``. Any formula that completes the proof is
right; it may differ from the missing part.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from kmutex_model.actions import CORRECT
from kmutex_model.proof import logic
from kmutex_model.proof.invariant import PARTS, Part
from kmutex_model.proof.logic import Term
from kmutex_model.proof.obligations import BEFORE, INVARIANT, Obligation, obligations, refute, show
from kmutex_model.proof.prove import told
from kmutex_model.proof.relations import SIGNATURE, Relations
from kmutex_model.proof.solvers import Solver


class Puzzle(NamedTuple):
    """An invariant that lacks a part, and the question about it."""

    number: int
    title: str
    missing: str
    """The name of the missing part."""
    situation: str
    question: str


PUZZLES = (
    Puzzle(
        1,
        "Find the missing part: the entry that is odd",
        "an entry has a holder",
        "All parts of the invariant are there but one. A client asks for a key that the table shows as free, and takes"
        " it at once. From the state below, which the parts that are left allow, that is wrong.",
        "No run leads to that state. What is so odd about its entry? Say it as a formula about every key, and the state"
        " is kept out.",
    ),
    Puzzle(
        2,
        "Find the missing part: the table and the clients",
        "the holder owns",
        "All parts of the invariant are there but one. The table says who holds a key, and the clients stand where they"
        " stand. Nothing that is left says that the two agree.",
        "Who is right in the state below, the table or the clients? Tie them to each other, both ways: from the table"
        " to the clients, and back.",
    ),
)
ANSWER = "your part"
WORDS = ("every", "some", "no", "both", "either", "implies", "same", "number")
OF_A_STATE = (*SIGNATURE, "owns", "at", "idle")
_NODES = (
    ast.Expression,
    ast.Call,
    ast.Lambda,
    ast.arguments,
    ast.arg,
    ast.Name,
    ast.Load,
    ast.Attribute,
    ast.BinOp,
    ast.BitAnd,
    ast.BitOr,
    ast.UnaryOp,
    ast.Invert,
    ast.Constant,
)
MOST_CHARACTERS = 2000


class FormulaError(ValueError):
    """The answer is not a formula. The message is one line."""


class Grade(NamedTuple):
    """Whether the answer completes the proof; else the obligation that fails, with a state and step."""

    right: bool
    said: str
    counterexample: str = ""


def puzzle(number: int) -> Puzzle | None:
    """Return the puzzle with this number, or None."""
    return next((one for one in PUZZLES if one.number == number), None)


def parsed(text: str) -> Callable[[Relations], Term]:
    """Return the answer as a function of a state; raise FormulaError for anything but a formula."""
    if len(text) > MOST_CHARACTERS:
        raise FormulaError(f"a formula has at most {MOST_CHARACTERS} characters")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise FormulaError("not a formula: Python can't read it as one expression") from None
    bound = {arg.arg for node in ast.walk(tree) if isinstance(node, ast.Lambda) for arg in node.args.args}
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            raise FormulaError(f"a formula has no {type(node).__name__}")
        if isinstance(node, ast.Name) and node.id not in (*WORDS, "s", *bound):
            raise FormulaError(f"{node.id!r} is not a word of a formula: {', '.join(WORDS)}, and s")
        if isinstance(node, ast.Attribute) and node.attr not in OF_A_STATE:
            raise FormulaError(f"a state has no {node.attr!r}; it has {', '.join(OF_A_STATE)}")
        if isinstance(node, ast.Constant) and type(node.value) is not int:
            raise FormulaError("the only constants are numbers")
    code = compile(tree, "answer", "eval")
    words: dict[str, Any] = {name: getattr(logic, name) for name in WORDS}

    def formula(s: Relations) -> Term:
        try:
            term = eval(code, {"__builtins__": {}, **words, "s": s})
        except Exception as error:
            raise FormulaError(f"it can't be built: {error}") from None
        if not isinstance(term, Term) or term.sort != "Bool":
            raise FormulaError("it is not true or false of a state")
        if fault := _misused(term):
            raise FormulaError(fault)
        return term

    formula(BEFORE)
    return formula


def _misused(term: Term) -> str:
    """Return how a formula misuses a word, or an empty string."""
    if not all(isinstance(arg, Term) for arg in term.args if term.op in ("and", "or", "not", "=")):
        return "what is joined must be formulas"
    for part in logic.parts_of(term):
        if part.op == "app":
            sorts, _ = SIGNATURE[part.args[0]]
            if tuple(getattr(arg, "sort", None) for arg in part.args[1:]) != sorts:
                return f"{part.args[0]} is of ({', '.join(sorts)})"
        elif part.op in ("and", "or", "not") and any(arg.sort != "Bool" for arg in part.args):
            return "only what is true or false can be joined"
        elif part.op == "=" and part.args[0].sort != part.args[1].sort:
            return f"a {part.args[0].sort} is never the same as a {part.args[1].sort}"
    return ""


def rest_of(one: Puzzle) -> tuple[Part, ...]:
    """Return the other parts."""
    return tuple(part for part in PARTS if part.name != one.missing)


def shown(one: Puzzle, by: Sequence[Solver]) -> str:
    """Return the obligation that fails without the part, with a state and step."""
    for obligation in sorted(obligations(CORRECT, rest_of(one)), key=lambda one: one.case is None):
        if obligation.clause != INVARIANT and (found := _counterexample(obligation, by)):
            return f"{obligation.clause}, {obligation.name}\n  {found}"
    raise AssertionError(f"{one.missing!r} is not needed")


def grade(one: Puzzle, answer: Callable[[Relations], Term], by: Sequence[Solver]) -> Grade:
    """Run the whole proof with the answer as a part."""
    for obligation in _asked((*rest_of(one), Part(ANSWER, "", answer, ""))):
        if show(obligation, by).result == "proved":
            continue
        found = _counterexample(obligation, by)
        mine = obligation.what.startswith(ANSWER)
        if mine and obligation.case is None:
            said = "too strong: it is not even so at first, when nobody has asked for anything"
        elif mine:
            said = f"not kept: a correct step leads out of it ({obligation.case.name if obligation.case else ''})"
        else:
            said = f"too weak: {obligation.clause} still fails ({obligation.name})"
        return Grade(False, said if found else f"{said}; the solver did not decide it", found)
    return Grade(True, "right: it is so at first, every step keeps it, and the whole proof goes through")


def _asked(parts: tuple[Part, ...]) -> Iterator[Obligation]:
    """Yield the obligations, first those about the answer itself."""
    every = list(obligations(CORRECT, parts))
    yield from sorted(every, key=lambda one: not one.what.startswith(ANSWER))


def _counterexample(obligation: Obligation, by: Sequence[Solver]) -> str:
    found = refute(obligation, by)
    return told(obligation, found[1]) if found else ""
