"""Submissions that are alike: their code, without names, comments and layout, in pieces that are counted.

Alike is not copied: two short answers to one exercise look alike by themselves. What the exercise gave everybody is
left out, and what is then too short to tell is not compared.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

PIECE = 14
"""Nodes of the syntax tree in one piece: about two statements."""
LEAST = 20
"""Pieces below which a submission is too short to tell."""
ALIKE = 0.8
"""The share of the smaller one's pieces that the other has too, from which on a pair is listed."""


class Pair(NamedTuple):
    """Two that are alike."""

    one: str
    other: str
    share: float
    """Of the smaller one's pieces: how many the other has too."""


def alike(code: Mapping[str, str], given: str = "") -> tuple[list[Pair], list[str]]:
    """The pairs that are alike, the most alike first, and those that are too short to tell.

    code: of each student, Python that can be read. given: code that everybody was given, which is left out.
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
    """Those that are alike, each with all it is connected to, and the least share between two of a pair."""
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
    """Kinds of the nodes in their order; of names only those of attributes of others: they can't be changed at will."""
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
    """Whether it is a text that stands alone, such as a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
