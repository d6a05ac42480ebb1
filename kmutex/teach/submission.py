"""The file that a learner hands in: which of its names makes the locker, and as what module it can be imported.

It is read and never run here.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from pathlib import Path

NAMES = ("Locker", "make_locker")
"""The names of the factory if a file has several candidates."""


class SubmissionError(Exception):
    """The file can't be graded. The message is one line; the exit status is 4."""


class UnreadableError(Exception):
    """The file is not readable Python. The message is one line; the exit status is 3."""


@dataclass(frozen=True)
class Submission:
    """A learner's file."""

    path: Path
    module: str
    factory: str
    """The name that makes the locker."""

    @property
    def folder(self) -> Path:
        """Where it is."""
        return self.path.absolute().parent

    @property
    def target(self) -> str:
        """MODULE:FACTORY, relative to its folder."""
        return f"{self.module}:{self.factory}"


def submission(text: str) -> Submission:
    """What FILE or FILE:NAME says. SubmissionError, UnreadableError."""
    path, name = _split(text)
    module = module_of(path)
    tree = read(path)
    return Submission(path, module, name or _factory(path, tree))


def module_of(path: Path) -> str:
    """The name under which the file is imported. SubmissionError: it has none, or another module has it."""
    name = path.name.removesuffix(".py")
    if path.suffix.lower() == ".ipynb":
        raise SubmissionError(f"{path}: notebooks are graded in a folder: put it into one, or hand in a .py")
    if not (path.name.endswith(".py") and name.isidentifier()):
        raise SubmissionError(f"{path}: give it a name that can be imported: letters, digits and _, then .py")
    loaded = getattr(sys.modules.get(name), "__file__", None)
    if name in sys.stdlib_module_names or (loaded is not None and Path(loaded) != path.absolute()):
        raise SubmissionError(f"{path}: another module has the name {name!r}; give the file another one")
    return name


def read(path: Path) -> ast.Module:
    """The file's syntax. SubmissionError: no such file. UnreadableError: it is no Python."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise SubmissionError(f"{path}: no regular file")
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except OSError as error:
        raise SubmissionError(f"{path}: {error.strerror}") from None
    except SyntaxError as error:
        where = f", line {error.lineno}" if error.lineno else ""
        raise UnreadableError(f"{path}: not Python: {error.msg}{where}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise UnreadableError(f"{path}: not Python: {type(error).__name__}") from None


def _split(text: str) -> tuple[Path, str]:
    path, colon, name = text.rpartition(":")
    if colon and name.isidentifier() and not Path(text).exists():
        return Path(path), name
    return Path(text), ""


def _factory(path: Path, tree: ast.Module) -> str:
    names = set(_names(tree))
    for name in NAMES:
        if name in names:
            return name
    lockers = [
        node.name for node in tree.body if isinstance(node, ast.ClassDef) and {"lock", "unlock"} <= _methods(node)
    ]
    if len(lockers) == 1:
        return lockers[0]
    said = f"several classes have lock and unlock: {', '.join(lockers)}" if lockers else "no class has lock and unlock"
    raise SubmissionError(f"{path}: {said}; name yours {NAMES[0]}, or say which: {path}:{(lockers or ['NAME'])[0]}")


def _names(tree: ast.Module) -> list[str]:
    """Return the global names that the file's own statements bind, by its syntax."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.name)
        elif isinstance(node, ast.ImportFrom):
            found += [alias.asname or alias.name for alias in node.names]
        elif isinstance(node, ast.Assign):
            found += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return found


def _methods(node: ast.ClassDef) -> set[str]:
    return {part.name for part in node.body if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)}
