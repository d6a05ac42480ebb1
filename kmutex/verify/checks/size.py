"""How much a subject keeps: all that can be reached from it, and from the module that it was defined in."""

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
"""Objects after which the walk ends."""

_OURS = (Face, Stored, CoopLock, CoopRLock)
"""What of this package a subject is made of; the rest belongs to a run, and is not the subject's."""
_CONTAINERS: tuple[Any, ...] = (dict, list, tuple, set, frozenset, deque, bytearray, array)
_NOT_KEPT = (CodeType, FrameType, TracebackType)


def size_of(subject: Any) -> int | None:
    """The number of objects that the subject keeps, and of the items in them. None: there are too many to count.

    Counted are the subject's own attributes and what hangs on them, and the globals of its package, as far as its
    classes and functions lead there: a table may be kept there. Items are counted apart, for the objects in two
    places of a table may be the same, such as small numbers.
    """
    inner = bare(subject)
    made = inner.kind if isinstance(inner, Stored) else inner
    homes = [made] if isinstance(made, (type, FunctionType)) else type(made).__mro__
    tops = {home.__module__.partition(".")[0] for home in homes if not _of_the_interpreter(home)}
    globals_ = {id(vars(module)): _of_a_package(module, tops) for module in list(sys.modules.values())}
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
    # A len() of the subject's own is its word, and what it keeps is to be found out.
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
