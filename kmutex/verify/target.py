"""MODULE:FACTORY, as text and as a factory; or MODULE, whose functions lock and unlock.

The factory is a name (a class, a function, an instance), or an expression of names, attributes, calls and literals that
makes the subject: ``pkg.locks:Locks(maxsize=3)``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from kmutex._text import said
from kmutex.engine import ways


class TargetError(ValueError):
    """The text does not name a factory. The message is one line."""


class MissingError(Exception):
    """There is no such module or factory. The message is one line."""


class Target(NamedTuple):
    """The module and expression that make a subject."""

    module: str
    factory: str
    expression: ast.expr | None
    """None: the module itself is the subject."""


def target_of(text: str) -> Target:
    """Parse a target.

    Raises:
        TargetError: It is neither of the form MODULE:FACTORY nor the name of a module.
    """
    module, colon, factory = text.partition(":")
    if not colon and all(part.isidentifier() for part in module.split(".")):
        return Target(module, "", None)
    if not (module and colon and factory):
        raise TargetError(f"{text!r} is not of the form MODULE:FACTORY")
    try:
        expression = ast.parse(factory.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise TargetError(f"{factory!r} is not a Python expression") from None
    if not isinstance(expression, (ast.Name, ast.Attribute, ast.Call)) or not _plain(expression):
        raise TargetError(f"{factory!r}: a factory is a name, an attribute, or a call with such or literal arguments")
    return Target(module, factory.strip(), expression)


def _plain(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return all(map(_plain, [node.func, *node.args, *(keyword.value for keyword in node.keywords)]))
    if isinstance(node, ast.Attribute):
        return _plain(node.value)
    if isinstance(node, (ast.List, ast.Tuple, ast.Set)):
        return all(map(_plain, node.elts))
    if isinstance(node, ast.Dict):
        return all(key is not None and _plain(key) for key in node.keys) and all(map(_plain, node.values))
    if isinstance(node, ast.UnaryOp):
        return isinstance(node.operand, ast.Constant)
    return isinstance(node, (ast.Name, ast.Constant))


def load(target: Target) -> Callable[[], Any]:
    """Import the factory. A function or class that takes a key is returned as it is.

    Raises:
        MissingError: The import failed, or there is no such name.
    """
    try:
        module = importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        if error.name is not None and (target.module + ".").startswith(error.name + "."):
            raise MissingError(
                f"there is no module {error.name!r} here; the current directory is searched too"
            ) from None
        raise MissingError(f"importing {target.module} raised {said(error)}") from None
    except BaseException as error:
        raise MissingError(f"importing {target.module} raised {said(error)}") from None
    expression = target.expression
    if expression is None:
        return _making(lambda: module, module)
    named = _found(target, module, expression.func if isinstance(expression, ast.Call) else expression)
    if isinstance(expression, ast.Call):
        code = compile(ast.Expression(expression), f"<{target.module}>", "eval")
        names = _names(module, expression)
        return _making(lambda: eval(code, names), named)
    return named if _makes(named) else _making(lambda: named, type(named))


def _found(target: Target, module: Any, expression: ast.expr) -> Any:
    """Return the value of a name, an attribute or a call."""
    # `ast.unparse` imports a module, which may be one that lies beside the subject.
    name, text = target.module, ast.get_source_segment(target.factory, expression)
    try:
        names = {**_names(module, expression), "__builtins__": {}}
        return eval(compile(ast.Expression(expression), f"<{name}>", "eval"), names)
    except (NameError, AttributeError):
        raise MissingError(f"{name} has no {text!r}{_home(name)}") from None
    except BaseException as error:
        raise MissingError(f"getting {text} from {name} raised {said(error)}") from None


def _names(module: Any, expression: ast.expr) -> dict[str, Any]:
    """Return the names of the module, with those of the expression that its ``__getattr__`` provides."""
    wanted = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)} - set(vars(module))
    return {**vars(module), **{name: getattr(module, name) for name in sorted(wanted) if hasattr(module, name)}}


def _makes(named: Any) -> bool:
    """Return whether it is a factory. An instance that is called with a key, or not at all, is a locker."""
    if isinstance(named, type) or inspect.isroutine(named):
        return True
    return callable(named) and not ways.required(named)


def _making(make: Callable[[], Any], home: Any) -> Callable[[], Any]:
    """Return a factory that knows where its object is defined."""
    make.__wrapped__ = home  # type: ignore[attr-defined]
    make.__signature__ = inspect.Signature()  # type: ignore[attr-defined]
    return make


def _home(module_name: str) -> str:
    """Return which file was imported, if that may surprise."""
    if module_name.partition(".")[0] in sys.stdlib_module_names:
        return ": this is the standard library's module"
    return ""
