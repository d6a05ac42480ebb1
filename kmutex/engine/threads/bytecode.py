"""Switches between the bytecodes of the subject's code, and which code that is.

Between two operations on locks, plain attribute code is uninterrupted unless a run is given a `Bytecode`: then a
thread may also lose the baton before each instruction of the subject's own code that reads or writes what others
can see.
"""

from __future__ import annotations

import atexit
import builtins
import dis
import sys
import sysconfig
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

from kmutex.engine.threads.locks import World

if TYPE_CHECKING:
    from kmutex.engine.threads.run import ThreadRun

_Tracer = Callable[[FrameType, str, Any], Any]


class Bytecode:
    """The places in the subject's own code where a thread reads or writes what others can see.

    There it may lose the baton between lock operations. And a run that is told of all these knows what a thread has
    done between two choices.
    """

    def __init__(self, own: Callable[[str], bool], *, watching: bool = False) -> None:
        """``own`` tells whether a file has the subject's code. With ``watching``, places without switches count too."""
        self._own = own
        self._watching = watching
        self._places: dict[CodeType, dict[int, Place]] = {}
        self.met = False
        """Whether a thread has come to a place where it may lose the baton. In compiled code there is none."""
        self._alone: set[Any] = set()
        """Tracers at work in threads that nobody else traces."""

    @contextmanager
    def within(self, run: ThreadRun) -> Iterator[None]:
        """Meanwhile, each of these places is a point of the run, in the calling thread."""
        if _monitor is not None:
            _monitor.follow(self)
            yield
            return
        outer = sys.gettrace()
        tracer = self._tracer(run, outer)
        if outer is None:
            self._alone.add(tracer)
        sys.settrace(tracer)
        try:
            yield
        finally:
            self._alone.discard(tracer)
            sys.settrace(outer)

    def catch_up(self, run: ThreadRun) -> None:
        """In the calls that the calling thread is in, too, each of these places is a point of the run from here on."""
        frame = sys._getframe(1) if _monitor is None else None
        while frame is not None:
            if self.places(frame.f_code):
                frame.f_trace = self._steps(run, frame, frame.f_trace)
            frame = frame.f_back

    def pause(self) -> Any:
        """The calling thread is not traced until what this gives is given to sys.settrace. None: somebody else traces
        it too, or nobody does."""
        tracer = sys.gettrace()
        if tracer not in self._alone:
            return None
        sys.settrace(None)
        return tracer

    def places(self, code: CodeType) -> dict[int, Place]:
        """The offsets in this code that are such places, and what there is about each."""
        try:
            return self._places[code]
        except KeyError:
            places = dict(_shared(code) if self._own(code.co_filename) else ())
            if not self._watching:
                places = {offset: place for offset, place in places.items() if place.switches}
            self._places[code] = places
            return places

    def _tracer(self, run: ThreadRun, outer: Any) -> _Tracer:
        """A function for sys.settrace. outer: who traced this thread before, and is told all the same."""
        known = self._places

        def enter(frame: FrameType, event: str, arg: Any) -> Any:
            under = None
            if outer is not None:
                under = outer(frame, event, arg)
                if sys.gettrace() is not enter:
                    # Coverage's tracer puts itself back when it is called.
                    sys.settrace(enter)
            # Most calls are this scheduler's own, and one look must do for them.
            places = known.get(frame.f_code)
            if places is not None and not places:
                return under
            if not run.followed or run.plain or run.aside or run.abandoning:
                return under
            if not self.places(frame.f_code):
                return under
            return self._steps(run, frame, under)

        return enter

    def _steps(self, run: ThreadRun, frame: FrameType, under: Any) -> _Tracer:
        """A function that is told of the instructions of a call. under: who is told all the same."""
        places = self.places(frame.f_code)
        frame.f_trace_opcodes = True

        def step(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal under
            if event != "opcode":
                under = None if under is None else under(frame, event, arg)
            elif frame.f_lasti in places:
                run.instruction(places[frame.f_lasti])
            return step

        return step


class _Monitor:
    """From Python 3.12 on: sys.monitoring tells of instructions, beside whatever traces the thread.

    The events are on in the subject's code until `leave`. After it that code is as fast as before, and the number of
    the tool is free for others.
    """

    def __init__(self) -> None:
        self._watch: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        self._tool: int | None = None
        self._following: Bytecode | None = None
        self._told_of: set[CodeType] = set()
        # What runs at the very end would be looked up in modules that are empty by then.
        atexit.register(self.leave)

    def follow(self, bytecode: Bytecode) -> None:
        if self._following is not bytecode and self._begun():
            self._following = bytecode
            self._watch.set_events(self._tool, self._watch.events.PY_START | self._watch.events.PY_RESUME)
            # Another `Bytecode` may have other places.
            self._watch.restart_events()

    def leave(self) -> None:
        self._following = None
        if self._tool is not None:
            # Before 3.14 the events outlive the number of their tool.
            self._watch.set_events(self._tool, 0)
            while self._told_of:
                self._watch.set_local_events(self._tool, self._told_of.pop(), 0)
            self._watch.free_tool_id(self._tool)
            self._tool = None

    def _begun(self) -> bool:
        watch = self._watch
        if self._tool is None:
            # From the top: the numbers at the bottom are a debugger's, coverage's, a profiler's.
            free = [number for number in range(6) if watch.get_tool(number) is None]
            if not free:
                return False
            self._tool = free[-1]
            watch.use_tool_id(self._tool, "kmutex")
            for event in (watch.events.PY_START, watch.events.PY_RESUME):
                watch.register_callback(self._tool, event, self._on_start)
            watch.register_callback(self._tool, watch.events.INSTRUCTION, self._on_instruction)
        return True

    def _on_start(self, code: CodeType, offset: int) -> Any:
        if self._following is not None and self._following.places(code):
            self._told_of.add(code)
            self._watch.set_local_events(self._tool, code, self._watch.events.INSTRUCTION)
        return self._watch.DISABLE

    def _on_instruction(self, code: CodeType, offset: int) -> Any:
        place = None if self._following is None else self._following.places(code).get(offset)
        if place is None:
            return self._watch.DISABLE
        if World.run is not None:
            World.run.instruction(place)
        return None

    def told(self, function: Callable[[int], int]) -> set[int]:
        """Return the offsets of the reported instructions in a call of the function."""
        seen: set[int] = set()
        if self._begun():
            watch, code = self._watch, function.__code__
            watch.register_callback(self._tool, watch.events.INSTRUCTION, lambda _, offset: seen.add(offset))
            watch.set_local_events(self._tool, code, watch.events.INSTRUCTION)
            function(1)
            watch.set_local_events(self._tool, code, 0)
            watch.register_callback(self._tool, watch.events.INSTRUCTION, self._on_instruction)
            if self._following is None:
                self.leave()
        return seen


_monitor = _Monitor() if sys.version_info >= (3, 12) else None


def leave() -> None:
    """End what `Bytecode.within` has begun in this process beyond its runs."""
    if _monitor is not None:
        _monitor.leave()


def bytecode_events_seen() -> bool:
    """Return whether this interpreter reports every instruction of a function. From 3.12 on, at most six tools can ask.

    Without this, a search at bytecode level would be complete over switches that never happened.
    """

    def probe(value: int) -> int:
        doubled = value + value
        return doubled + 1

    adds = {i.offset for i in dis.get_instructions(probe) if i.opname.startswith("BINARY")}
    return adds <= (_traced(probe) if _monitor is None else _monitor.told(probe))


def _traced(function: Callable[[int], int]) -> set[int]:
    """Return the offsets of the instructions that are reported to a tracer in a call of the function."""
    seen: set[int] = set()

    def step(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen.add(frame.f_lasti)
        return step

    before = sys.gettrace()
    sys.settrace(lambda frame, event, arg: step(frame, event, arg) if frame.f_code is function.__code__ else None)
    try:
        function(1)
    finally:
        sys.settrace(before)
    return seen


_SEEN_BY_OTHERS = (
    "LOAD_ATTR",
    "STORE_ATTR",
    "DELETE_ATTR",
    "BINARY_SUBSCR",
    "STORE_SUBSCR",
    "DELETE_SUBSCR",
    "CONTAINS_OP",
    "COMPARE_OP",
    "CALL",
    "FOR_ITER",
    "STORE_GLOBAL",
    "STORE_DEREF",
)


Access = tuple[Hashable, bool]
"""The object of an instruction, and whether it may write."""


class Place(NamedTuple):
    """An instruction that reads or writes what another thread may see."""

    access: Access
    """Of a call: nothing, since the callee was named before, or says it itself."""
    switches: bool
    """Whether a run that switches at bytecodes does so there."""
    called: Access | None
    """Of a call where a switch may have come since the callee was named: what any name in this code may be."""


CONTENTS = "what a container has"
"""The object of instructions that read or write the contents of any container."""
UNKNOWN = "what an instruction does not tell"
"""The object of instructions that may read and write anything."""
_READS_CONTENTS = (
    *("BINARY_SLICE", "CONTAINS_OP", "FOR_ITER", "GET_ITER", "UNPACK", "COMPARE_OP", "CALL_FUNCTION_EX"),
    *("LIST_EXTEND", "SET_UPDATE", "DICT_UPDATE", "DICT_MERGE", "FORMAT", "MATCH", "GET_LEN"),
)
_ASKS = ("UNARY_NOT", "TO_BOOL", "POP_JUMP", "JUMP_IF", "RETURN_VALUE")
"""Instructions that test whether a container is empty, or return it to a caller that may test it at once."""
_PLAIN = ("COMPARE_OP", "CONTAINS_OP", "IS_OP", "UNARY_NOT", "TO_BOOL", "LOAD_CONST", "CALL", "PRECALL")
"""Instructions whose result is not a container, or is seen by a called function."""
_WRITES_CONTENTS = ("STORE_SUBSCR", "DELETE_SUBSCR", "STORE_SLICE", "BINARY_SUBSCR", "BINARY_OP")
"""Instructions that may write a container; some dicts create a missing entry on lookup."""
_OF_CONTAINERS = frozenset(
    name
    for kind in (dict, list, set, bytearray, deque, OrderedDict, Counter, memoryview, str, tuple)
    for name in dir(kind)
    if not name.startswith("__")
) | {
    # Of an Event, a Barrier, a Future, a thread: the library's own code reads these without a lock.
    *("set", "is_set", "isSet", "n_waiting", "broken", "done", "result", "exception", "is_alive"),
    *("heappush", "heappop", "heapify", "insort", "insort_left", "insort_right", "bisect", "bisect_left"),
}
"""Methods and functions that may read and change the contents of a container."""
_BUILTINS = frozenset(name for name in dir(builtins) if not name[0].isupper() and not name.startswith("_")) | {
    *("deque", "OrderedDict", "Counter", "defaultdict", "copy", "deepcopy", "chain", "islice"),
}
"""Functions that may read the contents of a container."""
_BY_ANY_NAME = frozenset(
    ("getattr", "setattr", "delattr", "hasattr", "vars", "dir", "globals", "locals", "exec", "eval", "compile")
)
_TELLING = frozenset(
    ("__class__", "__name__", "__qualname__", "__module__", "__doc__", "__new__", "__init__", "__enter__", "__exit__")
)
"""Names between underscores that say what is read, or are of the subject's own code; the others are a container's, or
a way to attributes of any name."""
ITERATORS = "where an iterator stands"
"""The object of next(). An iterator is an object of its own, separate from its container."""


def _shared(code: CodeType) -> Iterator[tuple[int, Place]]:
    """The offsets of the instructions that read or write what another thread may see, and what there is about each."""
    instructions = list(dis.get_instructions(code))
    named = [_access(one.opname, one.argval) for one in instructions if one.opname.startswith("LOAD")]
    callees = {access for access in named if access is not None and access[0] in (CONTENTS, ITERATORS, UNKNOWN)}
    kinds = {on for on, _ in callees}
    called = (kinds.pop() if len(kinds) == 1 else UNKNOWN, any(writes for _, writes in callees))
    before = ""
    for instruction in instructions:
        name = instruction.opname
        switches = name.startswith(_SEEN_BY_OTHERS) and not name.startswith("CALL_INTRINSIC")
        access = _access(name, instruction.argval)
        if name.startswith(_ASKS) and (before.startswith(_PLAIN) or name.endswith("NONE")):
            access = None
        before = name
        if switches or access is not None:
            later = called if callees and name.startswith("CALL") else None
            yield instruction.offset, Place(access or (None, False), switches, later)


def _access(name: str, argument: Any) -> Access | None:
    if name.startswith(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR")):
        if argument in _OF_CONTAINERS:
            return (CONTENTS, True)
        return (UNKNOWN, True) if argument.startswith("__") and argument not in _TELLING else (argument, False)
    if name.startswith(("STORE_ATTR", "DELETE_ATTR", "STORE_GLOBAL", "DELETE_GLOBAL", "STORE_DEREF", "DELETE_DEREF")):
        return (argument, True)
    if name.startswith(("LOAD_GLOBAL", "LOAD_NAME")):
        if argument in _BY_ANY_NAME:
            return (UNKNOWN, True)
        if argument in _BUILTINS:
            return (ITERATORS, True) if argument == "next" else (CONTENTS, False)
    if name.startswith(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FROM_DICT")):
        return (argument, False)
    if name.startswith(_WRITES_CONTENTS):
        return (CONTENTS, True)
    return (CONTENTS, False) if name.startswith(_READS_CONTENTS + _ASKS) else None


_LIBRARY = tuple(
    str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")
)


_CHECKERS = {str(Path(__file__).resolve().parents[1])}
"""Folders with the checker's code, which is not a subject's."""


def no_subject_below(folder: Path) -> None:
    """Declare a package that calls subjects, so that no switch comes in its own code."""
    _CHECKERS.add(str(folder.resolve()))


def foreign(filename: str) -> bool:
    """Return whether a file is of the standard library or the checker, not a subject's."""
    if filename.startswith("<"):
        return True
    path = str(Path(filename).resolve())
    if "site-packages" not in path and path.startswith(_LIBRARY):
        return True
    return path.startswith(tuple(_CHECKERS))


def where() -> str:
    """Return the line of the subject that is running now, for a message."""
    for frame in sys._current_frames().values():
        seen: FrameType | None = frame
        lines = []
        while seen is not None:
            if not foreign(seen.f_code.co_filename):
                lines.append(f"{Path(seen.f_code.co_filename).name}:{seen.f_lineno} in {seen.f_code.co_name}")
            seen = seen.f_back
        if lines and frame.f_code.co_name not in ("_rest", "_hand_to"):
            return f", at {lines[0]}"
    return ""
