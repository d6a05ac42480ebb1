"""Formulas over clients and keys of any number: how they are built, read on a small state, and written for a solver.

A `Term` is a tree. The functions below build one and simplify it on the way: what is plainly true or false does not
stay in a formula. There are two readers. `python` writes a term as a Python expression, for states of a few clients
and keys; `smtlib` writes it as SMT-LIB, which z3 and cvc5 both read. So what a solver is asked and what the tie
compares is the same tree.

`every(lambda k, a, b: ...)` is "for every key k and clients a, b". The first letter of a parameter gives its sort:
j and k are keys, all others are clients.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

Sort = Literal["Client", "Key", "Int", "Bool"]


class Term:
    """A formula, a number, a client or a key.

    op    "var", "app" (of a relation or function), "bool", "int", or the connective's name in SMT-LIB
    args  its parts: terms; before them, names and sorts where the op has some
    """

    __slots__ = ("_hash", "args", "op", "sort")

    def __init__(self, op: str, args: tuple[Any, ...], sort: Sort) -> None:
        self.op = op
        self.args = args
        self.sort = sort
        self._hash = hash((op, args, sort))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Term) or self._hash != other._hash:
            return False
        return self.op == other.op and self.sort == other.sort and self.args == other.args

    def __and__(self, other: Term) -> Term:
        return both(self, other)

    def __or__(self, other: Term) -> Term:
        return either(self, other)

    def __invert__(self) -> Term:
        return no(self)

    def __add__(self, other: int | Term) -> Term:
        more = number(other) if isinstance(other, int) else other
        return self if more.op == "int" and more.args == (0,) else Term("+", (self, more), "Int")

    def at_least(self, least: int | Term) -> Term:
        """Whether this number is not smaller."""
        return Term(">=", (self, number(least) if isinstance(least, int) else least), "Bool")

    def __repr__(self) -> str:
        return smtlib(self)


TRUE, FALSE = Term("bool", (True,), "Bool"), Term("bool", (False,), "Bool")


def number(value: int) -> Term:
    """A number as a term."""
    return Term("int", (value,), "Int")


def truth(value: bool) -> Term:
    """A truth value as a term."""
    return TRUE if value else FALSE


def variable(name: str, sort: Sort) -> Term:
    """A client, key or number with a name: bound by a quantifier, or one that a formula speaks about."""
    return Term("var", (name,), sort)


def applied(name: str, sort: Sort, *args: Term) -> Term:
    """A relation or function of these."""
    return Term("app", (name, *args), sort)


def no(x: Term) -> Term:
    """Not."""
    if x.op == "bool":
        return truth(not x.args[0])
    inside: Term = x.args[0] if x.op == "not" else Term("not", (x,), "Bool")
    return inside


def both(*parts: Term) -> Term:
    """All of them."""
    return _joined("and", TRUE, FALSE, parts)


def either(*parts: Term) -> Term:
    """At least one of them."""
    return _joined("or", FALSE, TRUE, parts)


def _joined(op: str, neutral: Term, final: Term, parts: Iterable[Term]) -> Term:
    found: dict[Term, None] = {}
    for part in parts:
        found.update(dict.fromkeys(part.args if part.op == op else (part,)))
    found.pop(neutral, None)
    if final in found:
        return final
    if len(found) < 2:
        return next(iter(found), neutral)
    return Term(op, tuple(found), "Bool")


def implies(a: Term, b: Term) -> Term:
    """If the first, then the second."""
    return either(no(a), b)


def same(a: Term, b: Term) -> Term:
    """Whether two are equal: clients, keys, numbers or truth values."""
    if a == b:
        return TRUE
    for one, other in ((a, b), (b, a)):
        if one.op == "bool":
            return other if one.args[0] else no(other)
    return Term("=", (a, b), "Bool")


def choose(condition: Term, yes: Term, otherwise: Term) -> Term:
    """The one if the condition holds, else the other."""
    if condition.op == "bool":
        return yes if condition.args[0] else otherwise
    if yes == otherwise:
        return yes
    if yes.sort == "Bool":
        if TRUE in (yes, otherwise) or FALSE in (yes, otherwise):
            return either(both(condition, yes), both(no(condition), otherwise))
        return Term("ite", (condition, yes, otherwise), "Bool")
    return Term("ite", (condition, yes, otherwise), yes.sort)


_depth = 0


def sort_of(name: str) -> Sort:
    """The sort of what has this name: j and k are keys, all others are clients."""
    return "Key" if name[0] in "jk" else "Client"


def every(body: Callable[..., Term]) -> Term:
    """For all clients and keys; their sorts follow from the names of the parameters."""
    return _bound("forall", body)


def every_place(sorts: Sequence[Sort], body: Callable[..., Term]) -> Term:
    """For all clients and keys of these sorts, in this order."""
    return _bound("forall", body, _names(sorts))


def some_place(sorts: Sequence[Sort], body: Callable[..., Term]) -> Term:
    """For at least one choice of clients and keys of these sorts, in this order."""
    return _bound("exists", body, _names(sorts))


def _names(sorts: Sequence[Sort]) -> list[str]:
    return [f"{'j' if sort == 'Key' else 'c'}_{place}_" for place, sort in enumerate(sorts)]


def some(body: Callable[..., Term]) -> Term:
    """For at least one choice of clients and keys."""
    return _bound("exists", body)


def _bound(op: str, body: Callable[..., Term], names: Sequence[str] = ()) -> Term:
    # A bound name is that of the parameter and how deep it stands, so the same formula built twice is equal, and no
    # formula built inside can bind a name that it was given.
    global _depth
    names = names or list(inspect.signature(body).parameters)
    bound = [variable(f"{name}{_depth}", sort_of(name)) for name in names]
    _depth += 1
    try:
        inside = body(*bound)
    finally:
        _depth -= 1
    if inside.op == "bool":
        return inside  # There is at least one client and one key.
    return Term(op, (tuple((v.args[0], v.sort) for v in bound), inside), "Bool")


# ------------------------------------------------------------------------------------------------------------
# Readers


def smtlib(x: Term) -> str:
    """The term in SMT-LIB."""
    if x.op == "var":
        return str(x.args[0])
    if x.op == "bool":
        return "true" if x.args[0] else "false"
    if x.op == "int":
        return str(x.args[0]) if x.args[0] >= 0 else f"(- {-x.args[0]})"
    if x.op == "app":
        return f"({x.args[0]} {' '.join(map(smtlib, x.args[1:]))})"
    if x.op in ("forall", "exists"):
        bound = " ".join(f"({name} {sort})" for name, sort in x.args[0])
        return f"({x.op} ({bound}) {smtlib(x.args[1])})"
    return f"({x.op} {' '.join(map(smtlib, x.args))})"


def python(x: Term) -> str:
    """The term as a Python expression; clients and keys are numbers in the ranges `Client` and `Key`."""
    if x.op == "var":
        return str(x.args[0])
    if x.op in ("bool", "int"):
        return repr(x.args[0])
    if x.op == "app":
        return str(x.args[0]) + "".join(f"[{python(arg)}]" for arg in x.args[1:])
    if x.op in ("forall", "exists"):
        loops = " ".join(f"for {name} in {sort}" for name, sort in x.args[0])
        return f"{'all' if x.op == 'forall' else 'any'}({python(x.args[1])} {loops})"
    if x.op == "not":
        return f"(not {python(x.args[0])})"
    if x.op == "ite":
        condition, yes, otherwise = map(python, x.args)
        return f"({yes} if {condition} else {otherwise})"
    sign = {"and": "and", "or": "or", "=": "==", "+": "+", ">=": ">="}[x.op]
    return f"({f' {sign} '.join(map(python, x.args))})"


def function(names: Sequence[str], body: str) -> Callable[..., Any]:
    """A Python function of these names, from what `python` wrote."""
    made: Callable[..., Any] = eval(f"lambda {', '.join(names)}: {body}")
    return made


def table(relation: Callable[..., Term], sorts: tuple[Sort, ...]) -> str:
    """A relation as nested lists, in Python."""
    bound = [variable(f"v{place}", sort) for place, sort in enumerate(sorts)]
    text = python(relation(*bound))
    for name, sort in reversed(list(zip(bound, sorts, strict=True))):
        text = f"[{text} for {name} in {sort}]"
    return text


def parts_of(x: Term) -> Iterator[Term]:
    """The term and all below it, each once."""
    seen: set[Term] = set()
    todo = [x]
    while todo:
        term = todo.pop()
        if term not in seen:
            seen.add(term)
            yield term
            todo += [arg for arg in term.args if isinstance(arg, Term)]


def grounded(x: Term, of: Mapping[Sort, Sequence[Term]], named: Mapping[str, Term] | None = None) -> Term:
    """The term without quantifiers, where these are all there are of each sort. named: what bound names stand for."""
    named = named or {}
    if x.op == "var":
        return named.get(x.args[0], x)
    if x.op in ("forall", "exists"):
        names = [name for name, _ in x.args[0]]
        choices = itertools.product(*(of[sort] for _, sort in x.args[0]))
        parts = (grounded(x.args[1], of, {**named, **dict(zip(names, choice, strict=True))}) for choice in choices)
        return both(*parts) if x.op == "forall" else either(*parts)
    args = [grounded(arg, of, named) if isinstance(arg, Term) else arg for arg in x.args]
    simplified: dict[str, Callable[..., Term]] = {"and": both, "or": either, "not": no, "=": same, "ite": choose}
    build = simplified.get(x.op)
    return build(*args) if build else Term(x.op, tuple(args), x.sort)


# ------------------------------------------------------------------------------------------------------------
# The decidable fragment


def alternations(x: Term) -> set[tuple[Sort, Sort]]:
    """The pairs of sorts (outer, inner) where something exists for each outer one, when the formula is asserted.

    Where these pairs have no cycle, and no function gives a client or key, satisfiability is decidable (stratified
    effectively propositional logic), and every counterexample has a finite one.
    """
    found: set[tuple[Sort, Sort]] = set()

    def walk(term: Term, positive: bool, outer: tuple[Sort, ...]) -> None:
        if term.op in ("forall", "exists"):
            bound: tuple[Sort, ...] = tuple(sort for _, sort in term.args[0])
            if (term.op == "forall") == positive:
                walk(term.args[1], positive, outer + bound)
            else:
                found.update((a, b) for a in outer for b in bound)
                walk(term.args[1], positive, outer)
        elif term.op == "not":
            walk(term.args[0], not positive, outer)
        elif term.op in ("and", "or"):
            for arg in term.args:
                walk(arg, positive, outer)
        elif term.op == "ite" and term.sort == "Bool":
            condition, yes, otherwise = term.args
            walk(condition, True, outer)
            walk(condition, False, outer)
            walk(yes, positive, outer)
            walk(otherwise, positive, outer)
        else:
            # Equality may use a truth value either way.
            for arg in term.args:
                if isinstance(arg, Term):
                    walk(arg, True, outer)
                    walk(arg, False, outer)

    walk(x, True, ())
    return found
