"""Switches between the bytecodes of the subject's own code, and which code that is.

Between two operations on locks, plain attribute code is uninterrupted unless a run is given a `Bytecode`: then a
thread may also lose the baton before each instruction of the subject's own code that reads or writes what others
can see.
"""

from __future__ import annotations

import dis
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kmutex.engine.threads.run import ThreadRun


class Bytecode:
    """The places in the subject's own code where a thread may lose the baton between lock operations."""

    def __init__(self, own: Callable[[str], bool]) -> None:
        """own: whether a file's code is the subject's."""
        self._own = own
        self._places: dict[CodeType, frozenset[int] | None] = {}

    def tracer(self, run: ThreadRun) -> Callable[[FrameType, str, Any], Any]:
        """A function for sys.settrace."""

        def enter(frame: FrameType, event: str, arg: Any) -> Any:
            if run.plain or run.aside or run.abandoning:
                return None
            places = self._of(frame.f_code)
            if not places:
                return None

            def step(frame: FrameType, event: str, arg: Any) -> Any:
                if event == "opcode":
                    if frame.f_lasti in places and not run.aside:
                        run.point()
                elif event == "line":
                    frame.f_trace_opcodes = True
                return step

            # From 3.12 on the flag takes effect only when it is set again on a line.
            frame.f_trace_opcodes = True
            return step

        return enter

    def _of(self, code: CodeType) -> frozenset[int] | None:
        try:
            return self._places[code]
        except KeyError:
            places = frozenset(_shared(code)) if self._own(code.co_filename) else None
            self._places[code] = places
            return places


def bytecode_events_seen() -> bool:
    """Whether this interpreter reports every instruction of a function that is traced: 3.12 needs a first time.

    Without this, a search at bytecode level would be complete over switches that never happened.
    """
    seen: list[int] = []

    def probe(value: int) -> int:
        doubled = value + value
        return doubled + 1

    def step(frame: FrameType, event: str, arg: Any) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            seen.append(frame.f_lasti)
        return step

    before = sys.gettrace()
    for _ in range(3):
        seen.clear()
        sys.settrace(lambda frame, event, arg: step(frame, event, arg) if frame.f_code is probe.__code__ else None)
        try:
            probe(1)
        finally:
            sys.settrace(before)
    adds = [i.offset for i in dis.get_instructions(probe) if i.opname.startswith("BINARY")]
    return set(adds) <= set(seen)


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


def _shared(code: CodeType) -> Iterator[int]:
    """The offsets of the instructions that read or write what another thread may see."""
    for instruction in dis.get_instructions(code):
        name = instruction.opname
        if name.startswith(_SEEN_BY_OTHERS) and not name.startswith("CALL_INTRINSIC"):
            yield instruction.offset


_LIBRARY = tuple(
    str(Path(path).resolve()) for name, path in sysconfig.get_paths().items() if name in ("stdlib", "platstdlib")
)


_CHECKERS = {str(Path(__file__).resolve().parents[1])}
"""Folders whose code checks subjects and is none."""


def no_subject_below(folder: Path) -> None:
    """A package that calls subjects says so of itself: no switch comes in its own code."""
    _CHECKERS.add(str(folder.resolve()))


def foreign(filename: str) -> bool:
    """Whether a file is the standard library's or the checker's, not a subject's."""
    if filename.startswith("<"):
        return True
    path = str(Path(filename).resolve())
    if "site-packages" not in path and path.startswith(_LIBRARY):
        return True
    return path.startswith(tuple(_CHECKERS))


def where() -> str:
    """The subject's line that is running now, for a message."""
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
