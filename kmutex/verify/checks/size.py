"""The size of a subject: all objects that can be reached from it and from its module."""

from __future__ import annotations

import gc
import sys
from array import array
from collections import deque
from types import CodeType, FrameType, FunctionType, ModuleType, TracebackType
from typing import Any

from kmutex.engine.faces import Face, bare
from kmutex.engine.stored import Stored
from kmutex.engine.threads import CoopLock, CoopRLock, foreign

MOST = 300_000
"""The most objects that are counted."""

_OURS = (Face, Stored, CoopLock, CoopRLock)
"""Classes of this package that are part of a subject; other objects of the package belong to the run."""
_CONTAINERS: tuple[Any, ...] = (dict, list, tuple, set, frozenset, deque, bytearray, array)
_NOT_KEPT = (CodeType, FrameType, TracebackType)


def size_of(subject: Any) -> int | None:
    """Return the number of objects that the subject keeps, and of the items in them; None if there are too many.

    The objects are those reachable from the subject's attributes, and from the globals of its package that its classes
    and functions use: a table may be there. Items are counted separately, because two places of a table may have the
    same object, such as a small number.
    """
    inner = bare(subject)
    made = inner.kind if isinstance(inner, Stored) else inner
    homes = [made] if isinstance(made, (type, FunctionType)) else type(made).__mro__
    tops = {home.__module__.partition(".")[0] for home in homes if not _of_the_interpreter(home)}
    globals_ = {id(vars(module)): _of_a_package(module, tops) for module in sys.modules.copy().values()}
    seen: set[int] = set()
    items = 0
    todo: list[Any] = [subject]
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if len(seen) > MOST:
            return None
        items += _items(thing)
        for other in gc.get_referents(thing):
            if id(other) not in seen and _kept(other, tops, globals_):
                todo.append(other)
    return len(seen) + items


def _items(thing: Any) -> int:
    # Not the subject's own len(), which may be wrong.
    return next((kind.__len__(thing) for kind in _CONTAINERS if isinstance(thing, kind)), 0)


def _kept(thing: Any, tops: set[str], globals_: dict[int, bool]) -> bool:
    if id(thing) in globals_:
        return globals_[id(thing)]
    if isinstance(thing, _NOT_KEPT):
        return False
    if isinstance(thing, ModuleType):
        return globals_.get(id(vars(thing)), False)
    if isinstance(thing, type):
        return not _of_the_interpreter(thing) and thing.__module__.partition(".")[0] in tops
    if isinstance(thing, FunctionType):
        return True
    return isinstance(thing, _OURS) or not _of_the_checker(type(thing))


def _of_a_package(module: Any, tops: set[str]) -> bool:
    file = getattr(module, "__file__", None)
    name = getattr(module, "__name__", "")
    return isinstance(file, str) and isinstance(name, str) and name.partition(".")[0] in tops and not foreign(file)


def _of_the_checker(kind: type | FunctionType) -> bool:
    return str(kind.__module__).startswith(("kmutex.engine.", "kmutex.verify.", "kmutex.testing."))


def _of_the_interpreter(kind: type | FunctionType) -> bool:
    return str(kind.__module__).partition(".")[0] in sys.stdlib_module_names or _of_the_checker(kind)
