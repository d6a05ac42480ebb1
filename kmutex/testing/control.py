"""A subject that was imported long ago, under control for the length of a run.

`kmutex.schedule.threads.replaced` changes the attributes of `threading`, `time` and `queue`. A module that did
``from threading import Lock`` before that has a real lock in a name of its own. Here those names are changed as well,
in the modules that belong to the subject's package, and changed back afterwards.

Out of reach is a real lock kept elsewhere than in a module's name: ``field(default_factory=Lock)``, or a default
argument. Such a module must be imported within `controlled`.
"""

from __future__ import annotations

import _thread
import functools
import inspect
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from kmutex.schedule.threads import foreign, replaced

_SOURCES: tuple[ModuleType, ...] = (threading, _thread, time, queue)


@contextmanager
def controlled(make: Callable[[], Any] | None = None) -> Iterator[None]:
    """Locks and the clock are the scheduler's within this block, also for the modules that ``make`` comes from.

    make: the factory whose modules are searched for names bound to the real ones; None changes no module.
    For one thread: other threads of the process must not make locks in the meantime.
    """
    before = [(source, name, value) for source in _SOURCES for name, value in vars(source).items()]
    with ExitStack() as undo:
        undo.enter_context(replaced())
        changed = [(old, getattr(source, name)) for source, name, old in before if getattr(source, name) is not old]
        for module in _modules_of(make) if make is not None else ():
            for name, value in list(vars(module).items()):
                for old, new in changed:
                    if value is old:
                        setattr(module, name, new)
                        undo.callback(setattr, module, name, value)
                        break
        yield


def _modules_of(make: Callable[[], Any]) -> list[ModuleType]:
    """The modules loaded from the packages in which the factory and its classes are defined."""
    function: Any = make
    while hasattr(function, "func"):
        function = function.func
    function = inspect.unwrap(function)
    homes = {getattr(function, "__module__", None)}
    if isinstance(function, type):
        homes |= {base.__module__ for base in function.__mro__}
    elif hasattr(function, "__code__"):
        # A function that makes a locker: the classes and modules it names.
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            bases = value.__mro__ if isinstance(value, type) else ()
            homes |= {base.__module__ for base in bases}
            homes.add(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None))
    tops = {home.partition(".")[0] for home in homes if isinstance(home, str)}
    return [module for name, module in list(sys.modules.items()) if _belongs(module, name, tops)]


def _belongs(module: Any, name: str, tops: set[str]) -> bool:
    file = getattr(module, "__file__", None)
    return name.partition(".")[0] in tops and isinstance(file, str) and not _foreign(file)


_foreign = functools.lru_cache(maxsize=None)(foreign)
