"""An interrupt at every boundary between two bytecodes, one after the other, to count what each leaves behind.

A run is given anew for each boundary: the instructions of its calls are followed, and before the n-th one an Interrupt
is raised, as a signal handler would raise it. That is more than CPython does, which looks for signals at some bytecodes
only (the beginning of a Python function, the end of a call, a jump back); a boundary that is safe here is safe there.

Of two signals at one moment, CPython runs the handler of the second where it looks for signals next. So a second
Interrupt is raised at such a place only: raised anywhere, no clean-up in Python would be safe from it. Of these places
it knows the beginning of a function and the end of a call into C. It does not strike at a jump back, nor, as CPython
3.10 may, where a handler is entered or a Python function has returned.
"""

from __future__ import annotations

import contextlib
import dis
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

Traced = Callable[[CodeType], bool]
"""Whether an interrupt may strike in this code."""


class Interrupt(BaseException):
    """What the handler of a signal raises."""


class Boundary(NamedTuple):
    """Where an interrupt struck: before this instruction of this function."""

    number: int
    function: str
    line: int
    instruction: str

    def __str__(self) -> str:
        return f"{self.function}:{self.line} before {self.instruction}"


def interrupted(run: Callable[[], object], traced: Traced, number: int, twice: bool = False) -> Boundary | None:
    """Call ``run``, and raise Interrupt before the ``number``-th instruction of traced code, counted from 0.

    twice: once more, where traced code next begins a function or comes back from a call into C.
    Where it struck first; None: the run was over before. An Interrupt out of ``run`` is taken; other exceptions come
    out. Only the calling thread is interrupted.
    """
    count = 0
    struck: Boundary | None = None

    def on_instruction(frame: FrameType, offset: int) -> None:
        nonlocal count, struck
        if struck is None and count == number:
            struck = _boundary(number, frame, offset)
            if twice:
                sys.setprofile(on_call)
            raise Interrupt
        count += 1

    def on_call(frame: FrameType, event: str, arg: Any) -> None:
        if event in ("call", "c_return") and traced(frame.f_code):
            sys.setprofile(None)
            raise Interrupt

    before = sys.getprofile()
    try:
        with contextlib.suppress(Interrupt), _followed(on_instruction, traced):
            run()
    finally:
        sys.setprofile(before)
    return struck


def everywhere(make_run: Callable[[], Callable[[], object]], traced: Traced, twice: bool = False) -> Iterator[Boundary]:
    """Interrupt a run of its own at each boundary, in order; each is yielded when its run is over."""
    number = 0
    while (struck := interrupted(make_run(), traced, number, twice)) is not None:
        yield struck
        number += 1


def _boundary(number: int, frame: FrameType, offset: int) -> Boundary:
    code = frame.f_code
    names = (found.opname for found in dis.get_instructions(code) if found.offset == offset)
    function: str = getattr(code, "co_qualname", code.co_name)  # Python 3.10 has the short one only.
    return Boundary(number, function, frame.f_lineno, next(names, f"offset {offset}"))


_OnInstruction = Callable[[FrameType, int], None]

if sys.version_info >= (3, 12):

    @contextlib.contextmanager
    def _followed(on_instruction: _OnInstruction, traced: Traced) -> Iterator[None]:
        # sys.settrace misses the first instructions of a function there.
        watch = sys.monitoring
        here = threading.get_ident()

        def on_event(code: CodeType, offset: int) -> Any:
            if not traced(code):
                return watch.DISABLE
            if threading.get_ident() == here:
                on_instruction(sys._getframe(1), offset)
            return None

        tool = next(number for number in range(6) if watch.get_tool(number) is None)
        watch.use_tool_id(tool, "kmutex.testing.interrupts")
        watch.register_callback(tool, watch.events.INSTRUCTION, on_event)
        watch.restart_events()
        watch.set_events(tool, watch.events.INSTRUCTION)
        try:
            yield
        finally:
            watch.set_events(tool, 0)
            watch.register_callback(tool, watch.events.INSTRUCTION, None)
            watch.free_tool_id(tool)

else:

    @contextlib.contextmanager
    def _followed(on_instruction: _OnInstruction, traced: Traced) -> Iterator[None]:
        def on_event(frame: FrameType, event: str, arg: Any) -> Any:
            if event == "opcode":
                on_instruction(frame, frame.f_lasti)
            return on_event

        def on_call(frame: FrameType, event: str, arg: Any) -> Any:
            if not traced(frame.f_code):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
            return on_event

        before = sys.gettrace()
        sys.settrace(on_call)
        try:
            yield
        finally:
            sys.settrace(before)
