"""``Lock(storage, key)``: a class or function that is called with a key, and with an object that all locks share.

The shared object is made for it: of the class in the parameter's annotation or name, or a dict.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

from kmutex.engine import ways
from kmutex.engine.packages import loaded

_TABLE = re.compile(r"\w*(storage|store|registry|table|locks|pool|state|data|entries|shared|mapping|map|dict)")
"""Names of parameters that may be a plain dict."""
_MAPPINGS = ("dict", "Dict", "MutableMapping", "Mapping", "defaultdict", "WeakValueDictionary")


class Stored:
    """Called with a key, it makes the lock of that key; all locks have one storage."""

    def __init__(self, kind: Callable[..., Any], key: inspect.Parameter, shared: dict[str, Any]) -> None:
        """Make a factory of locks.

        Args:
            kind: The class or function.
            key: Its parameter for the key.
            shared: Its other arguments, by name.
        """
        self.kind = kind
        self.names = [
            parameter.name for parameter in ways.parameters(kind) or () if parameter.name in (*shared, key.name)
        ]
        """The arguments for a lock, in order."""
        self._key = key.name
        self._shared = shared
        given = [parameter for parameter in ways.parameters(kind) or () if parameter.name not in shared]
        options = [each for each in given if each.name != key.name]
        key = key.replace(default=key.empty, kind=key.POSITIONAL_OR_KEYWORD)
        self.__signature__ = inspect.Signature([key, *(each.replace(kind=each.KEYWORD_ONLY) for each in options)])

    def __call__(self, key: Any, **options: Any) -> Any:
        """The lock of the key."""
        return self.kind(**{self._key: key}, **self._shared, **options)


def stored(kind: Callable[..., Any]) -> Callable[[], Stored] | None:
    """Return what makes such a factory with new storage; None if ``kind`` does not have this form, or it is unknown how
    to make its storage."""
    known = ways.parameters(kind) or []
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if any(parameter.kind not in plain for parameter in known):
        return None
    needed = [parameter for parameter in known if parameter.default is parameter.empty]
    keys = sorted((parameter for parameter in known if ways.is_key(parameter)), key=lambda each: each not in needed)
    if not keys or needed == keys[:1] or any(ways.is_work(parameter) for parameter in needed):
        return None
    makers = {each.name: _maker(each, kind) for each in needed if each is not keys[0]}
    if not all(makers.values()):
        return None
    return lambda: Stored(kind, keys[0], {name: make() for name, make in makers.items() if make is not None})


def _maker(parameter: inspect.Parameter, kind: Callable[..., Any]) -> Callable[[], Any] | None:
    """Return what makes the value of a parameter; None if unknown."""
    annotation = parameter.annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    named = re.sub(r"\[.*", "", text.strip("'\"")).rpartition(".")[2]
    if annotation is not parameter.empty:
        found = annotation if isinstance(annotation, type) else _class_of(named, kind)
        if (
            found is not None
            and not inspect.isabstract(found)
            and found.__module__ != "builtins"
            and not ways.required(found)
        ):
            return found
        return dict if named in _MAPPINGS else None
    found = _class_of(parameter.name, kind)
    if found is not None and not ways.required(found):
        return found
    return dict if _TABLE.fullmatch(parameter.name.lower()) else None


def _class_of(name: str, kind: Callable[..., Any]) -> type | None:
    """Return the class of this name, in any spelling, from the module of ``kind`` or another one of its package."""
    home = kind.__module__
    wanted = name.replace("_", "").lower()
    for module in (sys.modules.get(home), *loaded({home.partition(".")[0]}).values()):
        for other, found in list(vars(module).items() if module is not None else ()):
            if isinstance(found, type) and other.replace("_", "").lower() == wanted:
                return found
    return None
