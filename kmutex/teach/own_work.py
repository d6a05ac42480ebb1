"""Find out whether the locker in a file is the learner's own: an imported locker passes every lesson, but is no answer.

The syntax decides. Code that hides its imports on purpose is not found.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import kmutex
from kmutex.teach.submission import UnreadableError, read

PACKAGES = ("kmutex", "kmutex_model", "pytest_kmutex")
"""Packages whose lockers are correct."""
FREE_MODULES = ("kmutex.testing", "kmutex.trace")
"""Modules of these packages without a locker, which a file may use to test its own."""


def borrowed(path: Path, factory: str) -> str:
    """Return one line about the import if the locker of ``factory`` is not the learner's own, else "".

    Names of errors and protocols may be imported. Files in the same folder are the learner's own.
    """
    return _borrowed(path, factory, set())


def _borrowed(path: Path, factory: str, seen: set[Path]) -> str:
    seen.add(path)
    tree = read(path)
    for line, name in _of_ours(tree):
        return f"line {line} of {path.name} takes {name} from this library: the locker has to be your own"
    for name, line, module in _strangers(tree, path.parent):
        if _makes(tree, factory, name):
            return f"line {line} of {path.name}: {factory} comes from {module}: the locker has to be your own"
    for file, names in _siblings(tree, path.parent):
        if file not in seen:
            # If another file can't be read, its import will report that.
            try:
                said = _borrowed(file, names.get(factory, ""), seen)
            except UnreadableError:
                continue
            if said:
                return said
    return ""


def _of_ours(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of imports from this library that may be a locker."""
    modules: dict[str, str] = {}
    free: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and _ours(node.module or ""):
            yield from ((node.lineno, alias.name) for alias in node.names if not _free(alias.name))
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in PACKAGES and (_ours(alias.name) or not alias.asname):
                    modules[alias.asname or alias.name.partition(".")[0]] = alias.name
        elif isinstance(node, ast.Call | ast.Subscript):
            # importlib.import_module("kmutex"), sys.modules["kmutex"]
            parts = node.args if isinstance(node, ast.Call) else [node.slice]
            for part in parts:
                if isinstance(part, ast.Constant) and isinstance(part.value, str) and _ours(part.value):
                    yield node.lineno, part.value
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and _is_free(node):
            free.add(id(node.value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in modules and id(node) not in free:
            yield node.lineno, modules[node.id]


def _ours(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES and not module.startswith(FREE_MODULES)


def _is_free(node: ast.Attribute) -> bool:
    return _free(node.attr) or f"kmutex.{node.attr}" in FREE_MODULES


def _free(name: str) -> bool:
    """Return whether the name of this library is an error or a protocol."""
    found = getattr(kmutex, name, None) if name != "*" else None
    return isinstance(found, type) and (issubclass(found, BaseException) or getattr(found, "_is_protocol", False))


def _strangers(tree: ast.Module, folder: Path) -> Iterator[tuple[str, int, str]]:
    """Yield global names that come from neither the standard library nor the same folder."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level and _strange(node.module, folder):
            yield from ((alias.asname or alias.name, node.lineno, node.module) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _strange(alias.name, folder):
                    yield alias.asname or alias.name.partition(".")[0], node.lineno, alias.name


def _strange(module: str, folder: Path) -> bool:
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and not (folder / f"{top}.py").exists() and top not in PACKAGES


def _siblings(tree: ast.Module, folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yield imported files of the same folder, and their names in this file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            path = folder / f"{node.module}.py"
            if path.is_file():
                yield path, {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            yield from ((folder / f"{a.name}.py", {}) for a in node.names if (folder / f"{a.name}.py").is_file())


def _makes(tree: ast.Module, factory: str, name: str) -> bool:
    """Return whether the factory is that name, a class derived from it, or a function that returns it."""

    def uses(part: ast.AST | None) -> bool:
        return part is not None and any(isinstance(node, ast.Name) and node.id == name for node in ast.walk(part))

    if factory == name:
        return True
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == factory for t in node.targets):
            return uses(node.value)
        if isinstance(node, ast.ClassDef) and node.name == factory:
            return any(uses(base) for base in node.bases)
        if isinstance(node, ast.FunctionDef) and node.name == factory:
            return any(uses(part.value) for part in ast.walk(node) if isinstance(part, ast.Return))
    return False
