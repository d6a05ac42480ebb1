"""Replace `threading`'s locks, the clock and thread starts for a run, in the standard library and in the subject.

`replaced` changes the attributes of `threading`, `time` and `queue`. A module that did ``from threading import Lock``
before has the real lock in a name of its own. `controlled` changes those names too, in the modules of the subject's
package, and restores them afterwards. It also replaces locks that such a module made when it was imported, for itself
or for one of its classes.

It does not find real locks in other places: ``field(default_factory=Lock)``, a default argument, or a Condition at the
top of a module. Such a module must be imported within `controlled`.
"""

from __future__ import annotations

import _thread
import builtins
import functools
import inspect
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.machinery import EXTENSION_SUFFIXES
from types import CellType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from kmutex.engine.observer import UncontrolledError
from kmutex.engine.packages import loaded
from kmutex.engine.threads.bytecode import foreign, leave
from kmutex.engine.threads.locks import Abandoned, CoopLock, CoopRLock, World

_real_time = {name: getattr(time, name) for name in ("sleep", "monotonic", "time", "perf_counter")}
_SOURCES: tuple[ModuleType, ...] = (threading, _thread, time, queue)


@contextmanager
def replaced() -> Iterator[None]:
    """Within the block, Lock, RLock, the clock and thread starts are the scheduler's; import the subject inside."""
    changes: list[tuple[Any, str, Any]] = [
        (threading, "Lock", CoopLock),
        (threading, "RLock", CoopRLock),
        (threading, "_RLock", CoopRLock),
        (threading, "_CRLock", CoopRLock),
        (threading, "_allocate_lock", CoopLock),
        (threading, "_time", _now),
        (threading, "excepthook", _hook(threading.excepthook)),
        (_thread, "allocate_lock", CoopLock),
        (_thread, "RLock", CoopRLock),
        (queue, "SimpleQueue", queue._PySimpleQueue),  # type: ignore[attr-defined]
        (queue, "time", _now),
        (time, "sleep", _sleep),
        (time, "monotonic", _now),
        (time, "time", _now),
        (time, "perf_counter", _now),
    ]
    changes += _threads()
    before = [(module, name, getattr(module, name)) for module, name, _ in changes]
    for module, name, value in changes:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
        leave()


def progress() -> None:
    """Note that a call has returned, for a subject that makes many calls in one."""
    if World.run is not None:
        World.run.go_on()


def _now() -> float:
    if World.run is not None:
        return World.run.now()
    return float(_real_time["monotonic"]()) if World.loop_time is None else World.loop_time()


def _sleep(seconds: float) -> None:
    run = World.run
    if run is None:
        _real_time["sleep"](seconds)
    elif run.aside or run.mine():
        run.sleep(seconds)
    else:
        raise Abandoned


def _hook(real: Callable[[Any], object]) -> Callable[[Any], object]:
    """Return an excepthook that ignores threads unwound by the scheduler: the real one would run code, and lock."""
    return lambda args: None if args.exc_type is Abandoned else real(args)


if sys.version_info >= (3, 13):

    class _Handle:
        """The handle for `Thread.join`: of a thread of a run, or of a real one that was started outside of runs."""

        def __init__(self) -> None:
            self._real: Any = None
            self._ended: CoopLock | None = None
            self._ident: int | None = None

        @property
        def ident(self) -> int | None:
            return self._real.ident if self._real is not None else self._ident

        def start(self, function: Callable[[], object], daemon: bool) -> None:
            if World.run is None:
                self._real = _thread._ThreadHandle()  # type: ignore[attr-defined]
                _thread.start_joinable_thread(function, handle=self._real, daemon=daemon)  # type: ignore[attr-defined]
                return
            self._ended = _taken()

            def whole() -> None:
                self._ident = _thread.get_ident()
                function()

            World.run.adopt(whole, self._ended)

        def is_done(self) -> bool:
            if self._real is not None:
                return bool(self._real.is_done())
            return self._ended is not None and self._ended.free()

        def join(self, timeout: float | None = None) -> None:
            if self._real is not None:
                self._real.join(timeout)
                return
            if self._ended is None:
                raise RuntimeError("thread not started")
            if self._ident == _thread.get_ident():
                raise RuntimeError("Cannot join current thread")
            if self._ended.acquire(timeout=-1 if timeout is None or timeout < 0 else timeout):
                self._ended.release()

        def _set_done(self) -> None:
            if self._real is not None:
                self._real._set_done()

    def _start_joinable(function: Callable[[], object], handle: Any = None, daemon: bool = True) -> Any:
        if not isinstance(handle, _Handle):
            if World.run is not None:
                raise UncontrolledError("starts a thread that was made before the locks were the scheduler's")
            return _real_start_joinable(function, handle=handle, daemon=daemon)
        handle.start(function, daemon)
        return handle

    _real_start_joinable = threading._start_joinable_thread  # type: ignore[attr-defined]

    def _threads() -> list[tuple[Any, str, Any]]:
        """Return the replacements by which threads can be started and joined in a run."""
        return [(threading, "_ThreadHandle", _Handle), (threading, "_start_joinable_thread", _start_joinable)]

else:

    def _start(function: Callable[[], object], arguments: tuple[()]) -> None:
        run = World.run
        if run is None:
            _real_start(function, arguments)
        else:
            run.adopt(function, _taken())

    def _sentinel() -> Any:
        """Return the lock that a thread holds from its start to its end, for `join`."""
        run = World.run
        ended = None if run is None else run.ended_of_this()
        if ended is None:
            return _real_sentinel()
        ended.release()
        return ended

    _real_start = threading._start_new_thread  # type: ignore[attr-defined]
    _real_sentinel = threading._set_sentinel  # type: ignore[attr-defined]

    def _threads() -> list[tuple[Any, str, Any]]:
        """Return the replacements by which threads can be started and joined in a run."""
        return [(threading, "_start_new_thread", _start), (threading, "_set_sentinel", _sentinel)]


def _taken() -> CoopLock:
    lock = CoopLock()
    lock.take()
    return lock


@contextmanager
def controlled(make: Callable[[], Any] | None = None) -> Iterator[None]:
    """Within this block, the scheduler replaces locks and the clock, in the modules of ``make`` too.

    For one thread: meanwhile, other threads of the process must not make locks.

    Args:
        make: A factory whose modules are searched for names of the real locks and clocks; None changes no module.
    """
    before = [(source, name, value) for source in _SOURCES for name, value in vars(source).items()]
    with ExitStack() as undo:
        undo.enter_context(replaced())
        changed = [(old, getattr(source, name)) for source, name, old in before if getattr(source, name) is not old]
        for module in _modules_of(make) if make is not None else ():
            for home in (module, *_classes_of(module)):
                for name, value in list(vars(home).items()):
                    for new in [new for old, new in changed if value is old] or _ours(value):
                        _change(undo, home, name, new)
                        break
                    for kept in _kept_in(value, module):
                        for attribute, lock in list(vars(kept).items()):
                            for new in _ours(lock):
                                _change(undo, kept, attribute, new)
        yield


def acts_unseen(make: Callable[[], Any]) -> bool:
    """Return whether a subject's code uses anything that acts without an instruction: weak references, finalizers,
    functions that keep results, compiled code."""
    seen: dict[int, Any] = {}
    left: list[Any] = [inspect.unwrap(make)]
    while left:
        value = left.pop()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        home = value if isinstance(value, ModuleType) else sys.modules.get(str(getattr(value, "__module__", "")))
        file = getattr(home, "__file__", None) or ""
        if home is weakref or type(value) is _KEEPS_RESULTS or (isinstance(value, type) and "__del__" in vars(value)):
            return True
        if isinstance(value, _WRAPPERS):
            left += [getattr(value, part) for part in _WRAPPED if hasattr(value, part)]
        elif home is not builtins and not _foreign(file):
            if file.endswith(tuple(EXTENSION_SUFFIXES)):
                return True
            left += _named_by(value)
    return False


def _named_by(value: Any) -> list[Any]:
    """Return the objects that a function, a class, a module or an object refers to."""
    if isinstance(value, FunctionType):
        names = _names_in(value.__code__)
        if names & _UNSEEN:
            return [weakref]
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != CellType()]
        return [
            *cells,
            *(value.__globals__[name] for name in names if name in value.__globals__),
            *vars(value).values(),
        ]
    if isinstance(value, (type, ModuleType)):
        return [*getattr(value, "__mro__", ()), *vars(value).values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [type(value), *getattr(value, "__dict__", {}).values()]


def _names_in(code: CodeType) -> set[str]:
    inner = (_names_in(const) for const in code.co_consts if isinstance(const, CodeType))
    return set(code.co_names).union(*inner)


_WRAPPERS = (functools.partial, staticmethod, classmethod, property, MethodType)
_WRAPPED = ("func", "args", "__func__", "__self__", "fget", "fset")
_UNSEEN = {"weakref", "lru_cache"}
"""Names that a function may import for itself."""
_KEEPS_RESULTS = type(functools.lru_cache(lambda: None))


def _classes_of(module: ModuleType) -> list[type]:
    return [kept for kept in vars(module).values() if isinstance(kept, type) and kept.__module__ == module.__name__]


def _change(undo: ExitStack, home: Any, name: str, new: Any) -> None:
    undo.callback(setattr, home, name, vars(home)[name])
    setattr(home, name, new)


def _kept_in(value: Any, module: ModuleType) -> list[Any]:
    """Return a locker that is kept in a module or in one of its classes, and its parts of the same module."""
    if isinstance(value, type) or type(value).__module__ != module.__name__ or not hasattr(value, "__dict__"):
        return []
    return [value, *(kept for part in vars(value).values() for kept in _kept_in(part, module) if part is not value)]


_REAL_LOCK = type(_thread.allocate_lock())
REAL_RLOCK = type(_thread.RLock())


def _ours(value: Any) -> list[Any]:
    """Return a replacement for a real lock, or a list of them, that was made at import; [] for anything else."""
    if type(value) is _REAL_LOCK:
        return [CoopLock()]
    if type(value) is REAL_RLOCK:
        return [CoopRLock()]
    if type(value) is list and value and type(value[0]) in (_REAL_LOCK, REAL_RLOCK):
        return [[new for kept in value for new in _ours(kept)]]
    return []


def _modules_of(make: Callable[[], Any]) -> list[ModuleType]:
    """Return the loaded modules of the packages in which the factory and its classes are defined."""
    function: Any = make
    while hasattr(function, "func"):
        function = function.func
    function = inspect.unwrap(function)
    homes = {getattr(function, "__module__", None)}
    if isinstance(function, type):
        homes |= {base.__module__ for base in function.__mro__}
    elif hasattr(function, "__code__"):
        # For a function that makes a locker: the classes and modules that it names.
        for name in function.__code__.co_names:
            value = function.__globals__.get(name)
            bases = value.__mro__ if isinstance(value, type) else ()
            homes |= {base.__module__ for base in bases}
            homes.add(value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None))
    tops = {home.partition(".")[0] for home in homes if isinstance(home, str)}
    return [module for module in loaded(tops).values() if _in_a_file_of_its_own(module)]


def _in_a_file_of_its_own(module: Any) -> bool:
    file = getattr(module, "__file__", None)
    return isinstance(file, str) and not _foreign(file)


_foreign = functools.lru_cache(maxsize=None)(foreign)
