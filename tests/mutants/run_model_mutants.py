"""Mutants of the proof's formulas and its invariant: each loses one part, and must be killed.

    python tests/mutants/run_model_mutants.py [--no-solver]

A formula (kmutex_model.proof.clauses) that has lost a conjunct is killed where it differs from its property on a step
of tests/proof/nearby.py, as tests/proof/test_nearby.py compares them. A part of the invariant that has lost a conjunct
is killed where an obligation fails, as tests/proof/test_proof.py asks for; that takes a solver and some minutes. The
properties: tests/model/test_parts.py.

Exit code: 0 if the survivors are exactly those of EQUAL, 1 if not.
"""

from __future__ import annotations

import ast
import sys
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "model")]

from kmutex_model.proof.tie import Judge  # noqa: E402
from tests.mutants import lost_parts  # noqa: E402
from tests.mutants.lost_parts import Mutant  # noqa: E402
from tests.proof.nearby import difference, judge_of_rank  # noqa: E402

MODEL = ROOT / "model" / "kmutex_model"
NOT_CHECKS = {"somebody_counts", "counting"}
"""Functions of these files that are no part of a formula."""
RANK = {"rank_falls", "rank_never_rises", "owner_stays", "fair_step_helps", "only_the_actor_comes_or_goes"}
"""Formulas that no property has."""
_ONE_PHASE = "a client of the explorer is in one phase at one key, and it holds here"
_STRONGER = "this says more than the formula, and is proved as well"
_NO_ENTRY = "in a state of the explorer, an absent entry has no holder and no queue"
EQUAL: dict[tuple[str, str], str] = {
    ("all_alike", "every(lambda k, a, b: same(x.s.order(k, a, b), x.t.order(k, a, b)))"): (
        "the ghost follows from where the clients stand"
    ),
    ("cancel_after_grant", "~x.t.waiting(x.c, j)"): _ONE_PHASE,
    ("cancel_after_grant", "~x.t.granted(x.c, j)"): _ONE_PHASE,
    ("own_grant_only", "mine"): "where nothing has changed, every client stands where it stood",
    ("went_on", "t.present(k)"): _NO_ENTRY,
    ("cancelled_is_gone", "s.present(k)"): _NO_ENTRY,
    ("rank_never_rises", "x.t.waiting(w, j)"): _STRONGER,
    ("fair_step_helps", "~x.t.granted(x.c, j)"): _ONE_PHASE,
    ("one_place", "no(gets & holds)"): _STRONGER,
}
"""Mutants that no test can kill, each with the reason: nothing observable changes, or it says more and is proved."""


def part_of_a_formula(node: ast.AST) -> Iterator[tuple[str, str | None, ast.expr | list[ast.expr]]]:
    """The parts of a formula."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("both", "either"):
        for place, arg in enumerate(node.args):
            yield ast.unparse(arg), "args", [*node.args[:place], *node.args[place + 1 :]]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "implies":
        yield ast.unparse(node.args[0]), None, node.args[1]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitAnd, ast.BitOr)):
        yield ast.unparse(node.left), None, node.right
        yield ast.unparse(node.right), None, node.left
    elif isinstance(node, ast.BoolOp):
        for place, arg in enumerate(node.values):
            rest = [*node.values[:place], *node.values[place + 1 :]]
            yield ast.unparse(arg), None, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)


def mutants(path: Path) -> Iterator[Mutant]:
    """Every way in which a formula of this file can lose one part."""
    return lost_parts.mutants(_tree(path), part_of_a_formula, NOT_CHECKS)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(mutant: Mutant, path: Path) -> types.ModuleType:
    """The mutated file as a module."""
    module = types.ModuleType(f"mutated_{path.stem}")
    sys.modules[module.__name__] = module
    exec(compile(lost_parts.with_mutant(_tree(path), mutant), str(path), "exec"), module.__dict__)
    return module


def survives_beside_the_other(mutant: Mutant, path: Path) -> bool:
    """Whether a formula and its property still agree on every nearby step."""
    module = module_of(mutant, path)
    judge = judge_of_rank(module) if mutant.name in RANK else Judge(module.STATE, module.STEP)
    try:
        return not difference(judge)
    except (AssertionError, AttributeError, IndexError, TypeError):
        return False  # It can't be asked any more, and its tests fail.


def survives_the_solver(mutant: Mutant, path: Path) -> bool:
    """Whether everything is still proved."""
    from kmutex_model.actions import CORRECT
    from kmutex_model.proof.obligations import obligations, oldest_of_finite, show
    from kmutex_model.proof.solvers import solvers

    by = solvers(["z3"])
    parts = module_of(mutant, path).PARTS
    proved = all(show(one, by).result == "proved" for one in obligations(CORRECT, parts))
    return proved and _oldest(parts, oldest_of_finite, by)


def _oldest(parts, oldest_of_finite, by) -> bool:  # type: ignore[no-untyped-def]
    from kmutex_model.proof import obligations as home

    real = home.invariant
    home.invariant = lambda s, given=parts: real(s, given)  # type: ignore[assignment]
    try:
        return all(one.result == "proved" for one in oldest_of_finite(by[0]))
    finally:
        home.invariant = real


def compared() -> Iterator[tuple[Mutant, bool]]:
    """Mutants of formulas, and whether each survives."""
    path = MODEL / "proof" / "clauses.py"
    for mutant in mutants(path):
        yield mutant, survives_beside_the_other(mutant, path)


def solved() -> Iterator[tuple[Mutant, bool]]:
    """Mutants of the invariant, and whether each survives."""
    path = MODEL / "proof" / "invariant.py"
    for mutant in mutants(path):
        yield mutant, survives_the_solver(mutant, path)


def main() -> int:
    wrong, every = 0, 0
    for found in (compared(), *([] if "--no-solver" in sys.argv else [solved()])):
        for mutant, survived in found:
            every += 1
            if survived != ((mutant.name, mutant.lost) in EQUAL):
                wrong += 1
                said = "survived" if survived else "is listed, and was killed"
                print(f"{said}: {mutant.name} without {mutant.lost}", flush=True)
    print(f"{every} mutants, {wrong} not as they should be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
