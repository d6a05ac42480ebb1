"""The reference has every public name, and public docstrings are in Google style, which editors and Sphinx read."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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


def test_a_name_without_a_place_is_seen() -> None:
    """The known-bad twin."""
    assert documented(".. automodule:: kmutex\n.. autoclass:: Lease\n") == {"kmutex.Lease"}


def test_public_docstrings_are_read_by_editors() -> None:
    found = dict(callables())
    assert len(found) > 60
    wrong = {}
    for name, function in found.items():
        parameters = tuple(one for one in inspect.signature(function).parameters if one not in ("self", "request"))
        if fault := faults(function.__doc__ or "", parameters) if function.__doc__ else ["no docstring"]:
            wrong[name] = fault
    assert wrong == {}


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
