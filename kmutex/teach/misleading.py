"""Code that misleads a verdict: a sleep, a busy loop, an unlock that waits for itself, one lock for all keys."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kmutex.engine.program import STEPS
from kmutex.engine.run_judge import Event

if TYPE_CHECKING:
    from kmutex.engine.shapes import Kind

ALONE = "0+a-a"
"""Nobody else is there to be waited for."""
TWO_KEYS = "0+a | 1+b | 0-a | 1-b"
"""One client holds a key and nobody waits: a client that then waits for another key waits for something that all keys
share."""
_SLEEPS = {"time", "asyncio"}
_UNLOCK = STEPS["-"]


def by_default(program: str, kind: Kind) -> str:
    """The schedule of a program in which nobody is preempted."""
    return f"{program} @{'locks' if kind == 'threads' else 'tasks'}-"


def sleeps(tree: ast.Module) -> list[tuple[int, str]]:
    """Line and name of each call of time.sleep and asyncio.sleep in a function; not of those that sleep for 0 s."""
    modules = {"time": "time", "asyncio": "asyncio"}
    bare: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.asname: alias.name for alias in node.names if alias.asname and alias.name in _SLEEPS}
        elif isinstance(node, ast.ImportFrom) and node.module in _SLEEPS:
            bare |= {alias.asname or alias.name: node.module for alias in node.names if alias.name == "sleep"}
    found = set()
    for call in (inner for outer in _functions(tree) for inner in ast.walk(outer) if isinstance(inner, ast.Call)):
        module = None
        if isinstance(call.func, ast.Name):
            module = bare.get(call.func.id)
        elif (
            isinstance(call.func, ast.Attribute) and call.func.attr == "sleep" and isinstance(call.func.value, ast.Name)
        ):
            module = modules.get(call.func.value.id)
        at_once = bool(call.args) and isinstance(call.args[0], ast.Constant) and call.args[0].value == 0
        if module is not None and not at_once:
            found.add((call.lineno, f"{module}.sleep"))
    return sorted(found)


def spins(tree: ast.Module) -> list[int]:
    """Lines of the loops in functions that call nothing and await nothing: nobody else can move while one goes on."""
    works = (ast.Call, ast.Await, ast.With, ast.AsyncWith, ast.Yield, ast.YieldFrom)
    return sorted(
        {
            loop.lineno
            for outer in _functions(tree)
            for loop in ast.walk(outer)
            if isinstance(loop, ast.While)
            and not any(isinstance(part, works) for part in ast.walk(loop))
            and not any(isinstance(part, ast.Break | ast.Return | ast.Raise) for part in loop.body)
        }
    )


def stuck_in_unlock(events: Sequence[Event]) -> int | None:
    """The client whose call to unlock has not come back at the end of the run, though nobody else was in a call when it
    began: it waits for what it did itself."""
    inside: dict[int, str] = {}
    alone: set[int] = set()
    for event in events:
        if event.client < 0 or event.place:
            continue
        inside.pop(event.client, None)
        alone.discard(event.client)
        if event.text.endswith("..."):
            if not inside:
                alone.add(event.client)
            inside[event.client] = event.text
    return next((client for client in sorted(alone) if inside[client].startswith(_UNLOCK)), None)


def _functions(tree: ast.Module) -> Iterator[ast.AST]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
