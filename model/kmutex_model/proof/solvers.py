"""The solvers: z3 (the package z3-solver), and cvc5 where it is installed. Both get the same text, in SMT-LIB.

A question is a list of named assertions. "unsat" means that no state of any size satisfies them all: what they deny
is proved. "sat" comes with such a state. Anything else, out of time or not known, is an answer too, and is no proof.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from kmutex_model.proof.logic import (
    Sort,
    Term,
    applied,
    choose,
    either,
    grounded,
    no,
    number,
    same,
    smtlib,
    variable,
)
from kmutex_model.proof.relations import KMUTEX, Vocabulary

Verdict = Literal["unsat", "sat", "unknown"]
SECONDS = 20.0
"""How long a solver may take for one question."""
INSTALL = "pip install 'kmutex[proof]' brings z3"


class NoSolverError(Exception):
    """The solver is not installed. One line that says what to do."""


class Structure(NamedTuple):
    """A state that a solver has found: relations as nested lists, and which client or key each constant is."""

    clients: int
    keys: int
    relations: dict[str, Any]
    constants: dict[str, int]


class Answer(NamedTuple):
    """What a solver said. core: the names of the assertions that were enough for "unsat"."""

    verdict: Verdict
    seconds: float
    core: frozenset[str] = frozenset()
    found: Structure | None = None


class Question(NamedTuple):
    """Assertions by name, over these clients and keys."""

    constants: tuple[Term, ...]
    assertions: tuple[tuple[str, Term], ...]
    vocabulary: Vocabulary = KMUTEX

    def text(self) -> str:
        """In SMT-LIB, without the command that asks."""
        lines = ["(declare-sort Client 0)", "(declare-sort Key 0)"]
        for name, (sorts, sort) in self.vocabulary.relations.items():
            lines.append(f"(declare-fun {name} ({' '.join(sorts)}) {sort})")
        lines += [f"(declare-const {constant} {constant.sort})" for constant in self.constants]
        lines += [f"(assert {smtlib(term)})" for _, term in self.assertions]
        return "\n".join(lines) + "\n"

    def within(self, clients: int, keys: int) -> Question:
        """The same question, of states with just so many clients and keys, in which what counts clients is their count.

        It has no quantifiers, so that every solver comes to an end.
        """
        who = [variable(f"client!{n}", "Client") for n in range(clients)]
        where = [variable(f"key!{n}", "Key") for n in range(keys)]
        of: dict[Sort, list[Term]] = {"Client": who, "Key": where}
        told = [(name, grounded(term, of)) for name, term in self.assertions]
        counted = itertools.product(self.vocabulary.counts.items(), where)
        told += [("counted", same(applied(name, "Int", key), _count(who, key, at))) for (name, at), key in counted]
        # Clients and keys have the numbers that they have in the explorer.
        told += [
            ("numbers", applied(name, "Bool", a, b) if m < n else no(applied(name, "Bool", a, b)))
            for name, sort in self.vocabulary.orders.items()
            for (m, a), (n, b) in itertools.product(enumerate(of[sort]), repeat=2)
        ]
        told += [("apart", no(same(a, b))) for names in (who, where) for a, b in itertools.combinations(names, 2)]
        told += [("one of them", either(*(same(c, one) for one in of[c.sort]))) for c in self.constants]
        return Question((*self.constants, *who, *where), tuple(told), self.vocabulary)


def _count(clients: Sequence[Term], key: Term, at: Callable[[Term, Term], Term]) -> Term:
    """How many of these clients are so at the key."""
    return Term("+", (number(0), *(choose(at(client, key), number(1), number(0)) for client in clients)), "Int")


class Solver(Protocol):
    """What is asked of a solver."""

    name: str
    version: str

    def ask(self, question: Question, *, seconds: float = SECONDS) -> Answer:
        """Its answer."""


def solvers(names: Iterable[str] | None = None) -> list[Solver]:
    """Those with these names; without names z3, and cvc5 too if it is installed. NoSolverError: one is missing."""
    wanted = ["z3", *(["cvc5"] if importlib.util.find_spec("cvc5") else [])] if names is None else list(names)
    known: dict[str, Callable[[], Solver]] = {"z3": Z3, "cvc5": CVC5}
    return [known[name]() for name in wanted]


class Z3:
    """z3. It also says which assertions it used, and shows the state that satisfies them all."""

    name = "z3"

    def __init__(self) -> None:
        try:
            self._z3 = importlib.import_module("z3")
        except ImportError:
            raise NoSolverError(f"z3 is not installed: {INSTALL}") from None
        self.version: str = self._z3.get_version_string()

    def ask(self, question: Question, *, seconds: float = SECONDS) -> Answer:
        started = time.perf_counter()
        z3 = self._z3
        solver = z3.Solver()
        solver.set("timeout", int(seconds * 1000))
        names: dict[str, str] = {}
        parsed = z3.parse_smt2_string(question.text())
        for number_, ((name, _), assertion) in enumerate(zip(question.assertions, parsed, strict=True)):
            names[f"assertion!{number_}"] = name
            solver.assert_and_track(assertion, f"assertion!{number_}")
        said = str(solver.check())
        spent = time.perf_counter() - started
        if said == "unsat":
            return Answer("unsat", spent, frozenset(names[str(used)] for used in solver.unsat_core()))
        if said == "sat":
            return Answer("sat", spent, found=self._read(solver.model(), question))
        return Answer("unknown", spent)

    def _read(self, model: Any, question: Question) -> Structure | None:
        """The state, of a question that was asked `within` a size; else None."""
        z3 = self._z3
        sorts = {"Bool": z3.BoolSort(), "Int": z3.IntSort()}
        sorts |= {name: z3.DeclareSort(name) for name in ("Client", "Key")}
        all_: dict[str, list[Any]] = {
            sort: [z3.Const(str(c), sorts[sort]) for c in question.constants if str(c).startswith(f"{sort.lower()}!")]
            for sort in ("Client", "Key")
        }
        if not all_["Client"]:
            return None

        def value(term: Any) -> Any:
            return model.eval(term, model_completion=True)

        def table(function: Any, of: Sequence[Sort], to: Sort, args: tuple[Any, ...]) -> Any:
            if not of:
                got = value(function(*args))
                return z3.is_true(got) if to == "Bool" else got.as_long()
            return [table(function, of[1:], to, (*args, one)) for one in all_[of[0]]]

        relations = {}
        for name, (of, to) in question.vocabulary.relations.items():
            relations[name] = table(z3.Function(name, *(sorts[sort] for sort in of), sorts[to]), of, to, ())
        constants = {}
        for constant in question.constants:
            got = value(z3.Const(str(constant), sorts[constant.sort]))
            (place,) = [place for place, one in enumerate(all_[constant.sort]) if value(one).eq(got)]
            constants[str(constant)] = place
        return Structure(len(all_["Client"]), len(all_["Key"]), relations, constants)


class CVC5:
    """cvc5, a second opinion from another team."""

    name = "cvc5"

    def __init__(self) -> None:
        try:
            self._cvc5 = importlib.import_module("cvc5")
        except ImportError:
            raise NoSolverError("cvc5 is not installed: pip install cvc5") from None
        self.version: str = self._cvc5.__version__

    def ask(self, question: Question, *, seconds: float = SECONDS) -> Answer:
        started = time.perf_counter()
        # Instances over ground terms are enough for "unsat", as the fragment is decidable; states of a few clients
        # and keys for "sat".
        verdict = self._said(question, seconds, "full-saturate-quant")
        if verdict == "unknown":
            verdict = self._said(question, seconds, "finite-model-find")
        return Answer(verdict, time.perf_counter() - started)

    def _said(self, question: Question, seconds: float, way: str) -> Verdict:
        cvc5 = self._cvc5
        solver = cvc5.Solver(cvc5.TermManager())
        solver.setOption("tlimit-per", str(int(seconds * 1000)))
        solver.setOption(way, "true")
        parser = cvc5.InputParser(solver)
        text = f"(set-logic UFLIA)\n{question.text()}(check-sat)\n"
        parser.setStringInput(cvc5.InputLanguage.SMT_LIB_2_6, text, "question")
        symbols, said = parser.getSymbolManager(), ""
        while not (command := parser.nextCommand()).isNull():
            said = str(command.invoke(solver, symbols)).strip() or said
        return "unsat" if said == "unsat" else "sat" if said == "sat" else "unknown"
