"""Mutants of the model's properties, the proof's formulas and its invariant: each loses one part, and must be killed.

    python tests/mutants/run_model_mutants.py [--no-solver]

A property (kmutex_model.properties) or formula (kmutex_model.proof.clauses) that has lost a conjunct is killed where
the two differ on a step of tests/proof/nearby.py, as tests/proof/test_nearby.py compares them. A part of the invariant,
or of the rank, that has lost a conjunct is killed where an obligation fails or a broken model is not convicted any
more, as tests/proof/test_proof.py asks for. Those take a solver and some minutes.

Exit code: 0 if the survivors are exactly those of EQUAL, 1 if not.
"""

from __future__ import annotations

import ast
import copy
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "model")]

from kmutex_model.proof import clauses, invariant  # noqa: E402
from kmutex_model.proof.tie import Judge  # noqa: E402
from tests.proof.nearby import difference  # noqa: E402

MODEL = ROOT / "model" / "kmutex_model"
NOT_CHECKS = {"make_transition", "_middle_cancelled", "_cancelled_then", "somebody_counts", "counting"}
"""Functions of these files that are no part of a check."""
RANK = {"rank_falls", "rank_never_rises", "owner_stays", "fair_step_helps", "only_the_actor_comes_or_goes"}
"""Formulas that no property has: they are killed by a solver."""
_NO_ENTRY = "in a state of the explorer, an absent entry has no holder and no queue"
EQUAL: dict[tuple[str, str], str] = {
    ("gets_it", "now.key is not None"): "who is at no key is in no phase in which a key is owned",
    ("all_alike", "every(lambda k, a, b: same(x.s.order(k, a, b), x.t.order(k, a, b)))"): (
        "the ghost follows from where the clients stand"
    ),
    ("went_on", "t.present(k)"): _NO_ENTRY,
    ("cancelled_is_gone", "s.present(k)"): _NO_ENTRY,
}
"""Mutants that no test can kill, each with the reason why nothing observable changes."""


class Mutant(NamedTuple):
    """A function that has lost something, what it has lost, and the source of its whole file."""

    function: str
    lost: str
    source: str


def mutants(path: Path) -> Iterator[Mutant]:
    """Every way in which a check of this file can lose one part."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name not in NOT_CHECKS]
    for function in functions:
        told = [ast.get_docstring(one, clean=False) for one in ast.walk(function) if isinstance(one, ast.FunctionDef)]
        told += [part.value for text in ast.walk(function) if isinstance(text, ast.JoinedStr)
                 for part in text.values if isinstance(part, ast.Constant)]  # fmt: skip
        places = [node for node in ast.walk(function) if isinstance(node, ast.expr)]
        for number, node in enumerate(places):
            if isinstance(node, ast.Constant) and node.value in told:
                continue
            for lost, replacement in _without_a_part(node):
                changed = copy.deepcopy(tree)
                twin = next(
                    one for one in changed.body if isinstance(one, ast.FunctionDef) and one.name == function.name
                )
                there = [one for one in ast.walk(twin) if isinstance(one, ast.expr)][number]
                yield Mutant(function.name, lost, ast.unparse(_Put(there, replacement).visit(changed)))


class _Put(ast.NodeTransformer):
    def __init__(self, there: ast.expr, replacement: ast.expr) -> None:
        self._there, self._replacement = there, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self._replacement if node is self._there else super().generic_visit(node)


def _without_a_part(node: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """The expression without one of its parts."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("both", "either"):
        for place, arg in enumerate(node.args):
            rest = [*node.args[:place], *node.args[place + 1 :]]
            yield ast.unparse(arg), ast.Call(node.func, rest, node.keywords)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "implies":
        yield ast.unparse(node.args[0]), node.args[1]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield ast.unparse(node.left), node.right
        yield ast.unparse(node.right), node.left
    elif isinstance(node, ast.BoolOp):
        for place, arg in enumerate(node.values):
            rest = [*node.values[:place], *node.values[place + 1 :]]
            yield ast.unparse(arg), rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and " " in str(node.value)):
        yield ast.unparse(node), ast.Constant("")


def module_of(mutant: Mutant, path: Path) -> types.ModuleType:
    """The mutated file as a module."""
    module = types.ModuleType(f"mutated_{path.stem}")
    sys.modules[module.__name__] = module
    exec(compile(mutant.source, str(path), "exec"), module.__dict__)
    return module


def survives_beside_the_other(mutant: Mutant, path: Path) -> bool:
    """Whether a property and its formula still agree on every nearby step."""
    module = module_of(mutant, path)
    judge = Judge(properties=module.ALL) if path.stem == "properties" else Judge(module.STATE, module.STEP)
    try:
        return not difference(judge)
    except (AssertionError, AttributeError, IndexError, TypeError):
        return False  # It can't be asked any more, and its tests fail.


def survives_the_solver(mutant: Mutant, path: Path) -> bool:
    """Whether everything is still proved, and every broken model of KM-LIVE still convicted."""
    from kmutex_model.actions import CORRECT
    from kmutex_model.broken import BROKEN
    from kmutex_model.proof.controls import control
    from kmutex_model.proof.obligations import GHOST, LIVE, obligations, oldest_of_finite, show
    from kmutex_model.proof.solvers import solvers

    by = solvers(["z3"])
    module = module_of(mutant, path)
    if path.stem == "invariant":
        parts = module.PARTS
        every = obligations(CORRECT, parts)
        return all(show(one, by).result == "proved" for one in every) and _oldest(
            invariant, parts, oldest_of_finite, by
        )
    was = {name: getattr(clauses, name) for name in (*RANK, "RANK")}
    try:
        for name in was:
            setattr(clauses, name, getattr(module, name))
        every = (one for one in obligations(CORRECT) if one.clause in (LIVE, GHOST))
        if any(show(one, by).result != "proved" for one in every):
            return False
        return not any(control(broken, by).fault for broken in BROKEN if broken.clause == LIVE)
    finally:
        for name, value in was.items():
            setattr(clauses, name, value)


def _oldest(module, parts, oldest_of_finite, by) -> bool:  # type: ignore[no-untyped-def]
    from kmutex_model.proof import obligations as home

    real = home.invariant
    home.invariant = lambda s, given=parts: real(s, given)  # type: ignore[assignment]
    try:
        return all(one.result == "proved" for one in oldest_of_finite(by[0]))
    finally:
        home.invariant = real


def compared() -> Iterator[tuple[Mutant, bool]]:
    """Mutants of properties and formulas, and whether each survives."""
    for path in (MODEL / "properties.py", MODEL / "proof" / "clauses.py"):
        for mutant in mutants(path):
            if mutant.function not in RANK:
                yield mutant, survives_beside_the_other(mutant, path)


def solved() -> Iterator[tuple[Mutant, bool]]:
    """Mutants of the invariant and of the rank, and whether each survives."""
    for path in (MODEL / "proof" / "invariant.py", MODEL / "proof" / "clauses.py"):
        for mutant in mutants(path):
            if path.stem == "invariant" or mutant.function in RANK:
                yield mutant, survives_the_solver(mutant, path)


def main() -> int:
    wrong, every = 0, 0
    for found in (compared(), *([] if "--no-solver" in sys.argv else [solved()])):
        for mutant, survived in found:
            every += 1
            if survived != ((mutant.function, mutant.lost) in EQUAL):
                wrong += 1
                said = "survived" if survived else "is listed, and was killed"
                print(f"{said}: {mutant.function} without {mutant.lost}", flush=True)
    print(f"{every} mutants, {wrong} not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
