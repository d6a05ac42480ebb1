"""The reference has every public name, and public docstrings are in Google style, which editors and Sphinx read."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kmutex

ROOT = Path(__file__).resolve().parents[2]
MODULES = {
    "kmutex": "kmutex",
    "kmutex.anyio": "kmutex",
    "kmutex.postgres": "postgres",
    "kmutex.testing": "testing",
    "kmutex.testing.interrupts": "testing",
    "kmutex.trace": "trace",
}
"""By public module: its page in docs/api."""
SECTIONS = ("Args", "Raises", "Returns", "Yields")
_ITEM = re.compile(r"    (?P<name>[\w.]+): [A-Z\"`]\S*.*")
_AS_ELSEWHERE = re.compile(r"(?i)arguments (and errors )?(are|of) those of `")
_HOME_MADE = re.compile(r"^\w*Error: |[.;] \w*Error: |^[a-z_]+: [a-z]", re.MULTILINE)
"""Our own form before Sphinx's napoleon: "timeout: seconds. ValueError: it is negative."."""


def public(module: ModuleType) -> dict[str, Any]:
    """The names that a module offers."""
    own = [n for n, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
    names = getattr(module, "__all__", None) or [name for name in own if not name.startswith("_")]
    return {name: getattr(module, name) for name in names}


def documented(page: str) -> set[str]:
    """The full names that a page of the reference describes."""
    found, module = set(), ""
    for line in page.splitlines():
        directive = re.match(r"\.\. (automodule|auto(?:class|function|exception)|py:data):: ([\w.]+)", line)
        if directive and directive[1] == "automodule":
            module = directive[2]
        elif directive:
            found.add(directive[2] if directive[2].startswith("kmutex.") else f"{module}.{directive[2]}")
    return found


def inheriting(page: str) -> set[str]:
    """The names of classes that a page describes with what they inherit."""
    return set(re.findall(r"autoclass:: (?:[\w.]+\.)?(\w+)(?:\(\))?\n   :inherited-members:", page))


def has_inherited(value: type) -> bool:
    """Whether a class has documented methods from another class of this library."""
    bases = [base for base in value.__mro__[1:] if base.__module__.startswith("kmutex")]
    names = {name for base in bases for name, member in vars(base).items() if getattr(member, "__doc__", None)}
    return any(not name.startswith("_") or name == "__init__" for name in names - set(vars(value)))


def callables() -> Iterator[tuple[str, Any]]:
    """The public functions and methods that are this library's own."""
    for name in MODULES:
        for label, value in public(importlib.import_module(name)).items():
            if inspect.isfunction(value):
                yield f"{name}.{label}", value
            for method, function in inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else ():
                ours = str(function.__module__).startswith(("kmutex", "pytest_kmutex"))
                if ours and (not method.startswith("_") or (method == "__init__" and function.__doc__)):
                    yield f"{name}.{label}.{method}", function


def misread_fields(source: str) -> list[str]:
    """Docstrings of fields and properties that napoleon would take for "TYPE: WORDS"."""
    wrong = []
    for owner in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)):
        docs = [
            ast.get_docstring(node) or ""
            for node in owner.body
            if isinstance(node, ast.FunctionDef) and property_(node)
        ]
        for node, after in pairwise(owner.body):
            if isinstance(node, (ast.AnnAssign, ast.Assign)) and isinstance(after, ast.Expr):
                docs.append(ast.literal_eval(after.value))
        wrong += [f"{owner.name}: {doc}" for doc in docs if ":" in re.sub("``.*?``", "", doc.partition("\n")[0])]
    return wrong


def property_(function: ast.FunctionDef) -> bool:
    """Whether it is decorated as a property."""
    return any(getattr(one, "id", "") == "property" for one in function.decorator_list)


def faults(docstring: str, parameters: tuple[str, ...]) -> list[str]:
    """What an editor could not read of a docstring."""
    text = inspect.cleandoc(docstring)
    wrong = [f"{found[0]!r} belongs in a section" for found in _HOME_MADE.finditer(text)]
    given: list[str] = []
    for section in SECTIONS:
        _, colon, rest = text.partition(f"\n{section}:\n")
        if not colon or section in ("Returns", "Yields"):
            continue
        items = [line for line in rest.split("\n\n")[0].splitlines() if not line.startswith("        ")]
        wrong += [f"{section}: {item!r}" for item in items if not _ITEM.fullmatch(item)]
        if section == "Args":
            given = [match["name"] for match in map(_ITEM.fullmatch, items) if match]
    if given and tuple(given) != parameters:
        wrong.append(f"Args has {given}, the call has {list(parameters)}")
    if not given and len(parameters) > 2 and not _AS_ELSEWHERE.search(text):
        wrong.append("no Args")
    return wrong


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_is_in_the_reference(name: str) -> None:
    page = (ROOT / "docs" / "api" / f"{MODULES[name]}.rst").read_text(encoding="utf-8")
    names = public(importlib.import_module(name))
    assert names
    assert [one for one in names if f"{name}.{one}" not in documented(page)] == []


@pytest.mark.parametrize("name", MODULES)
def test_inherited_methods_are_in_the_reference(name: str) -> None:
    page = (ROOT / "docs" / "api" / f"{MODULES[name]}.rst").read_text(encoding="utf-8")
    classes = {label: value for label, value in public(importlib.import_module(name)).items() if inspect.isclass(value)}
    assert {label for label, value in classes.items() if has_inherited(value)} - inheriting(page) == set()


def test_a_name_without_a_place_is_seen() -> None:
    """The known-bad twins."""
    page = ".. automodule:: kmutex\n.. autoclass:: Lease\n.. autoclass:: KeyedMutex\n   :inherited-members:\n"
    assert documented(page) == {"kmutex.Lease", "kmutex.KeyedMutex"}
    assert has_inherited(kmutex.KeyedMutex)
    assert inheriting(page) == {"KeyedMutex"}


def test_public_docstrings_are_read_by_editors() -> None:
    found = dict(callables())
    assert len(found) > 60
    wrong = {}
    for name, function in found.items():
        parameters = tuple(one for one in inspect.signature(function).parameters if one not in ("self", "request"))
        if fault := faults(function.__doc__ or "", parameters) if function.__doc__ else ["no docstring"]:
            wrong[name] = fault
    assert wrong == {}


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_of_fields_are_not_taken_for_types(name: str) -> None:
    classes = {value for value in public(importlib.import_module(name)).values() if inspect.isclass(value)}
    classes = {one for value in classes for one in value.__mro__ if one.__module__.startswith("kmutex")}
    assert [fault for one in classes for fault in misread_fields(inspect.getsource(one))] == []


def test_a_field_that_is_taken_for_a_type_is_seen() -> None:
    """The known-bad twins, and a good one."""
    source = 'class A:\n    x: int\n    """By key: its value."""\n    y: int\n    """As ``a:b``."""\n'
    source += '    @property\n    def z(self):\n        """The token: higher."""\n'
    assert misread_fields(source) == ["A: The token: higher.", "A: By key: its value."]


@pytest.mark.parametrize(
    ("docstring", "parameters"),
    [
        ("Lock.\n\n    timeout: seconds. ValueError: negative.\n", ("key", "timeout")),
        ("Lock. ValueError: the timeout is negative.", ()),
        ("Lock.\n\n    Args:\n        key: The key.\n", ("key", "timeout")),
        ("Lock.\n\n    Raises:\n        ValueError when negative.\n", ()),
        ("Lock.", ("key", "timeout", "more")),
    ],
)
def test_a_docstring_that_editors_cannot_read_is_seen(docstring: str, parameters: tuple[str, ...]) -> None:
    """The known-bad twins."""
    assert faults(docstring, parameters)
