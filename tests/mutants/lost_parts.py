"""Every way in which a check, read from its source, can lose one part.

What a part is, the caller says. Of a check in Python (`part_of_a_check`) it is a conjunct or an alternative, a guard,
the condition of a comprehension, a message (the check then says nothing there), a verdict that it takes from another
check, one of the values it compares with, one field of the tuples that it compares, the first of what it goes through,
or all but that.
"""

from __future__ import annotations
import __future__

import ast
import copy
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

FIELDS = 3
"""No tuple of the model has more."""


class Mutant(NamedTuple):
    """What has lost something, what it has lost, and what is left of it."""

    name: str
    lost: str
    node: ast.stmt


Parts = Callable[[ast.AST], Iterator[tuple[str, str | None, Any]]]
"""What a node can lose, in which of its fields (in the node itself, if None), and what is there then."""


def mutants(tree: ast.Module, parts: Parts, leaving: Collection[str] = ()) -> Iterator[Mutant]:
    """Every mutant of the functions of a module, but of those that are named, and of its properties."""
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name not in leaving:
            yield from _mutants(statement, parts)
        elif (
            isinstance(statement, ast.Assign)
            and isinstance(call := statement.value, ast.Call)
            and ast.unparse(call.func) == "Property"
        ):
            yield from _properties(statement, call)


class Less:
    """A tuple with names without one of its fields, and any other value as it is."""

    def __init__(self) -> None:
        self.used = False

    def __call__(self, value: Any, field: int) -> Any:
        if field >= len(getattr(value, "_fields", ())):
            return value
        self.used = True
        return (*value[:field], *value[field + 1 :])


def with_mutant(tree: ast.Module, mutant: Mutant) -> ast.Module:
    """The module with the mutant in place of its original."""
    return ast.Module([mutant.node if _name(node) == mutant.name else node for node in tree.body], [])


def namespace(module: Any, tree: ast.Module, mutant: Mutant, less: Less) -> dict[str, Any]:
    """What the module defines with the mutant in place of its original: its functions and values, but no new classes.

    less: is told where a mutant has lost a field; if it was never used, nothing was lost.
    """
    body = with_mutant(tree, mutant).body
    kept = [node for node in body if not isinstance(node, (ast.ClassDef, ast.Import, ast.ImportFrom))]
    found = {**vars(module), "less": less}
    exec(compile(ast.Module(kept, []), str(module.__file__), "exec", __future__.annotations.compiler_flag, True), found)
    return found


def _name(node: ast.stmt) -> str:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return getattr(node, "name", "")


def _properties(statement: ast.Assign, call: ast.Call) -> Iterator[Mutant]:
    for place, keyword in enumerate(call.keywords):
        if keyword.arg in ("in_state", "on_step", "eventually"):
            rest = [*call.keywords[:place], *call.keywords[place + 1 :]]
            fewer = ast.Assign(statement.targets, ast.Call(call.func, call.args, rest))
            yield Mutant(_name(statement), f"{keyword.arg}={ast.unparse(keyword.value)}", _placed(fewer, statement))


def _mutants(function: ast.FunctionDef, parts: Parts) -> Iterator[Mutant]:
    told = {id(one.body[0].value) for one in ast.walk(function) if isinstance(one, ast.FunctionDef)
            and isinstance(one.body[0], ast.Expr)}  # fmt: skip
    told |= {id(part) for text in ast.walk(function) if isinstance(text, ast.JoinedStr) for part in ast.walk(text)
             if part is not text}  # fmt: skip
    for number, node in enumerate(ast.walk(function)):
        if id(node) in told:
            continue
        for lost, place, replacement in parts(node):
            twin = copy.deepcopy(function)
            there = next(one for at, one in enumerate(ast.walk(twin)) if at == number)
            if place is None:
                twin = _Put(there, replacement).visit(twin)
            else:
                setattr(there, place, replacement)
            yield Mutant(function.name, lost, _placed(twin, function))


def _placed(node: ast.stmt, like: ast.stmt) -> ast.stmt:
    return ast.fix_missing_locations(ast.copy_location(node, like))


class _Put(ast.NodeTransformer):
    def __init__(self, there: ast.AST, replacement: ast.AST) -> None:
        self._there, self._replacement = there, replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self._replacement if node is self._there else super().generic_visit(node)


def part_of_a_check(node: ast.AST) -> Iterator[tuple[str, str | None, Any]]:
    """The parts of a check that returns what is wrong, or an empty string."""
    nothing = ast.Constant("")
    said = ast.unparse(node) if isinstance(node, (ast.expr, ast.stmt)) else ""
    if isinstance(node, ast.BoolOp):
        for place, arg in enumerate(node.values):
            rest = [*node.values[:place], *node.values[place + 1 :]]
            yield ast.unparse(arg), None, rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest)
    elif isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and " " in str(node.value)):
        yield said, None, nothing
    elif isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
        for field in range(FIELDS):
            sides = [ast.Call(ast.Name("less", ast.Load()), [side, ast.Constant(field)], [])
                     for side in (node.left, *node.comparators)]  # fmt: skip
            yield f"field {field} in {said}", None, ast.Compare(sides[0], node.ops, sides[1:])
    elif isinstance(node, ast.Compare) and isinstance(known := node.comparators[0], ast.Tuple):
        for place, one in enumerate(known.elts):
            rest = [*known.elts[:place], *known.elts[place + 1 :]]
            yield f"{ast.unparse(one)} in {said}", "comparators", [ast.Tuple(rest, ast.Load())]
    elif isinstance(node, ast.comprehension):
        for place, condition in enumerate(node.ifs):
            yield f"if {ast.unparse(condition)}", "ifs", [*node.ifs[:place], *node.ifs[place + 1 :]]
    elif isinstance(node, ast.For):
        every = ast.Call(ast.Name("list", ast.Load()), [node.iter], [])
        for what, part in (
            ("the first", ast.Slice(ast.Constant(1))),
            ("all but the first", ast.Slice(None, ast.Constant(1))),
        ):
            yield f"{what} of {ast.unparse(node.iter)}", "iter", ast.Subscript(every, part, ast.Load())
    elif isinstance(node, ast.IfExp):
        for place in ("body", "orelse"):
            if isinstance(taken := getattr(node, place), ast.Call):
                yield ast.unparse(taken), place, nothing
    elif isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
        yield said, "value", nothing
    elif isinstance(node, ast.If) and ast.unparse(node.body[0]) == "return ''":
        yield f"the guard {ast.unparse(node.test)}", "test", ast.Constant(False)
