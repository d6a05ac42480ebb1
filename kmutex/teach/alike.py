"""Find submissions that are alike: their code is compared in pieces, without names, comments and layout.

Alike does not mean copied: two short answers to one exercise are often alike. The code that the exercise gave everybody
is left out, and a submission that is then too short is not compared.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

PIECE = 14
"""Nodes of the syntax tree in one piece: about two statements."""
LEAST = 20
"""A submission with fewer pieces is too short to compare."""
ALIKE = 0.8
"""The least share of common pieces, of the shorter submission, for which a pair is listed."""


class Pair(NamedTuple):
    """Two submissions that are alike."""

    one: str
    other: str
    share: float
    """The share of the shorter one's pieces that the other has too."""


def alike(code: Mapping[str, str], given: str = "") -> tuple[list[Pair], list[str]]:
    """Return the pairs that are alike, the most alike first, and the students whose code is too short.

    Args:
        code: By student, Python that can be parsed.
        given: Code that everybody was given, which is left out.
    """
    common = _pieces(given)
    own = {student: _pieces(text) - common for student, text in code.items()}
    long = {student: pieces for student, pieces in own.items() if len(pieces) >= LEAST}
    pairs = [
        Pair(one, other, len(long[one] & long[other]) / min(len(long[one]), len(long[other])))
        for one, other in combinations(sorted(long), 2)
    ]
    found = sorted((pair for pair in pairs if pair.share >= ALIKE), key=lambda pair: (-pair.share, pair))
    return found, sorted(own.keys() - long.keys())


def groups(pairs: Sequence[Pair]) -> list[tuple[list[str], float]]:
    """Return groups of connected pairs, each with the least share of its pairs."""
    found: list[tuple[set[str], float]] = []
    for pair in pairs:
        mine = {pair.one, pair.other}
        joined = [group for group in found if group[0] & mine]
        found = [group for group in found if group not in joined]
        found.append((mine.union(*(names for names, _ in joined)), min([pair.share, *(least for _, least in joined)])))
    return [(sorted(names), least) for names, least in found]


def _pieces(text: str) -> set[tuple[str, ...]]:
    nodes = list(_nodes(ast.parse(text)))
    return {tuple(nodes[at : at + PIECE]) for at in range(len(nodes) - PIECE + 1)}


def _nodes(tree: ast.AST) -> Iterator[str]:
    """Yield the kinds of the nodes in order; of names, only attributes of other objects, which have fixed names."""
    for name, value in ast.iter_fields(tree):
        if name in _NO_CODE:
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or isinstance(child, _LEFT_OUT) or _is_text(child):
                continue
            yield _kind(child)
            yield from _nodes(child)


_NO_CODE = ("annotation", "ctx", "returns", "type_comment", "type_params")
_LEFT_OUT = (ast.Import, ast.ImportFrom)


def _kind(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute) and not _own(node):
        return f".{node.attr}"
    return "Assign" if isinstance(node, ast.AnnAssign) else type(node).__name__


def _own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "self"


def _is_text(node: ast.AST) -> bool:
    """Return whether it is a string as a statement, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
