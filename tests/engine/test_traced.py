"""What traces the threads of a process, such as coverage, sees the subject's lines in a run, and changes none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from kmutex.engine.explorer import Exploration, Level
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse

PROGRAM = "0+a-a 1+a-a"
Tracer = Callable[[FrameType, str, Any], Any]


class Plain:
    """A lock for each key, which is never dropped."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._locks: dict[object, threading.Lock] = {}

    def lock(self, key: object, timeout: float | None = None) -> None:
        with self._guard:
            lock = self._locks.setdefault(key, threading.Lock())
        if not lock.acquire(timeout=-1 if timeout is None else timeout):
            raise TimeoutError

    def unlock(self, key: object) -> None:
        self._locks[key].release()


def _lines(function: Any) -> set[int]:
    """The lines of a function's body that have code."""
    code = function.__code__
    return {line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno}


BODY = _lines(Plain.lock) | _lines(Plain.unlock)


def _explored(level: Level) -> Exploration:
    bench = Harness(Plain, without=("evict",))
    with bench.control():
        return bench.explorer.every(parse(PROGRAM), level, 1)


def _keeps(seen: set[int]) -> Tracer:
    """A tracer that stays as it is."""

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        if frame.f_code.co_filename != __file__:
            return None
        if event == "line":
            seen.add(frame.f_lineno)
        return trace

    return trace


def _replaces_itself(seen: set[int]) -> Tracer:
    """A tracer that as coverage has: it puts another in its place at each call, and takes a lock as it begins."""
    inner = _keeps(seen)

    def install(frame: FrameType, event: str, arg: Any) -> Any:
        with threading.Lock():
            threading.current_thread()
        return own(frame, event, arg)

    def own(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "call":
            sys.settrace(own)
        return inner(frame, event, arg)

    return install


@pytest.fixture(params=[_keeps, _replaces_itself])
def seen(request: pytest.FixtureRequest) -> Iterator[set[int]]:
    """The lines of this file that a tracer of all threads sees."""
    lines: set[int] = set()
    before = threading.gettrace()
    threading.settrace(request.param(lines))
    yield lines
    threading.settrace(before)  # type: ignore[arg-type]


@pytest.mark.parametrize("level", ["locks", "bytecode"])
def test_every_line_of_the_subject_is_seen(seen: set[int], level: Level) -> None:
    """All that a run comes by, and at bytecodes the runs are the same as without a tracer."""
    traced = _explored(level)
    missed = BODY - seen
    assert not missed & _lines(Plain.unlock)
    raised = max(_lines(Plain.lock))
    assert missed <= {raised}, f"lines {sorted(missed)} were not seen"
    before = threading.gettrace()
    threading.settrace(None)  # type: ignore[arg-type]
    alone = _explored(level)
    threading.settrace(before)  # type: ignore[arg-type]
    assert (traced.runs, traced.witnesses, traced.complete) == (alone.runs, alone.witnesses, True)
    assert traced.runs > (1 if level == "locks" else 10)


def test_the_thread_that_wants_the_runs_is_traced_as_before() -> None:
    """No tracer is left behind in it, and none taken away."""
    lines: set[int] = set()
    tracer = _keeps(lines)
    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        _explored("bytecode")
        assert sys.gettrace() is tracer
    finally:
        sys.settrace(before)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="there is no sys.monitoring")
def test_nothing_is_told_of_the_subject_once_its_runs_are_over() -> None:
    """Else its code would stay slow in this process, and one of the six numbers of tools would be taken."""
    watch = sys.monitoring
    bench = Harness(Plain, without=("evict",))

    def told() -> list[int]:
        tools = [number for number in range(6) if watch.get_tool(number) == "kmutex"]
        return [watch.get_local_events(number, Plain.lock.__code__) for number in tools]

    with bench.control():
        bench.explorer.every(parse(PROGRAM), "bytecode", 1)
        assert told() == [watch.events.INSTRUCTION]
    assert told() == []
    number = next(number for number in range(6) if watch.get_tool(number) is None)
    watch.use_tool_id(number, "the next one")
    assert watch.get_local_events(number, Plain.lock.__code__) == 0
    watch.free_tool_id(number)
