"""Interrupt a run before each of its bytecode instructions in turn, to see what each interrupt leaves behind.

Each boundary gets a new run: its instructions are counted, and before the n-th one an `Interrupt` is raised, as a
signal handler would raise it. CPython checks for signals at some instructions only (the beginning of a Python function,
the end of a call, a jump back), so a run that is safe at every boundary is safe there.

If two signals arrive together, CPython runs the second handler where it next checks for signals. So a second Interrupt
is raised at such a place only; no clean-up in Python could survive one that is raised anywhere. These places are the
beginning of a function and the end of a call into C. Not covered are a jump back and, in CPython 3.10, the entry of a
handler and the return of a Python function.
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
    """The exception that a signal handler raises."""


class Boundary(NamedTuple):
    """The place where an interrupt struck."""

    number: int
    """Traced instructions before it."""
    function: str
    """The qualified name of the function."""
    line: int
    """The line in its file."""
    instruction: str
    """The name of the next instruction."""

    def __str__(self) -> str:
        return f"{self.function}:{self.line} before {self.instruction}"


def interrupted(run: Callable[[], object], traced: Traced, number: int, twice: bool = False) -> Boundary | None:
    """Call ``run`` and raise `Interrupt` at one place. Only the calling thread is interrupted.

    Args:
        run: Called once. If it lets the Interrupt out, that is caught; other exceptions are raised.
        traced: Tells whether an interrupt may strike in this code.
        number: Raise before the traced instruction of this number, counted from 0.
        twice: Raise a second one where traced code next begins a function or returns from a call into C.

    Returns:
        Where the first one struck; None if the run ended before.
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
    """Interrupt a new run at each boundary, in order.

    Args:
        make_run: Makes a new run, as for `interrupted`, for each boundary.
        traced: As for `interrupted`.
        twice: As for `interrupted`.

    Yields:
        Each boundary, when its run is over.
    """
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
