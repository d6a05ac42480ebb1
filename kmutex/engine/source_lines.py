"""Add source lines to the events of a run, to show where in the subject's code each client is."""

from __future__ import annotations

import functools
import inspect
import linecache
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from kmutex._text import printable
from kmutex.engine.faces import current_task
from kmutex.engine.judge import ENDED_OUTSIDE
from kmutex.engine.program import Step
from kmutex.engine.run_judge import Event, RunJudge
from kmutex.engine.threads import foreign

WIDTH = 60
"""The most characters of a line that are shown."""
MARGIN = 6
"""The width of its number, in columns."""


_SUSPENDED = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR | inspect.CO_ITERABLE_COROUTINE
"""Flags of code that reports "return" when it waits, too."""
_Tracer = Callable[[FrameType, str, Any], Any]


def with_lines(judging: Callable[..., RunJudge], own: Callable[[str], bool]) -> Callable[..., RunJudge]:
    """Return what makes the same judges, which also record the lines of the subject's code.

    ``judging`` is a class of judges, or a partial of one; ``own`` tells whether a file has the subject's code.
    """
    known: dict[str, Any] = {}
    made: Any = judging
    if isinstance(judging, functools.partial):
        made, known = judging.func, judging.keywords
    kind: Any = type(f"{made.__name__}WithLines", (Lines, made), {})
    return functools.partial(kind, own=own, **known)


class Lines(RunJudge):
    """A judge that also records the lines of the subject's code, in files for which ``own`` is true.

    It uses `sys.settrace`, which stays on in the thread that executes the lines.
    """

    def __init__(self, *, own: Callable[[str], bool], **of_judge: Any) -> None:
        super().__init__(**of_judge)
        self._own = functools.cache(own)
        self._clients: dict[object, int] = {}
        self._muted = False
        self._under: dict[int, _Tracer] = {}
        """By thread: its earlier tracer, such as the scheduler's, which may switch between two instructions."""

    def called(self, client: int, step: Step) -> None:
        super().called(client, step)
        self._clients[_whoever_runs()] = client
        tracer: Any = sys.gettrace()
        if tracer != self._enter:
            if tracer is not None:
                self._under[threading.get_ident()] = tracer
            sys.settrace(self._enter)

    def returned(self, client: int, step: Step) -> None:
        self._clients.pop(_whoever_runs(), None)
        super().returned(client, step)

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self._clients.pop(_whoever_runs(), None)
        super().raised(client, step, error)

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        # The judge calls len(), which no client does.
        self._muted = True
        try:
            super().quiet(waiting, overdue)
        finally:
            self._muted = False

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        outer = self._under.get(threading.get_ident())
        under: _Tracer | None = outer(frame, event, arg) if outer is not None else None
        if not self._own(frame.f_code.co_filename):
            return under
        if under is None:
            return self._step

        def both(frame: FrameType, event: str, arg: Any) -> Any:
            self._step(frame, event, arg)
            under(frame, event, arg)
            return both

        return both

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self._stands_at(frame)
        elif event == "return" and not frame.f_code.co_flags & _SUSPENDED:
            # It is back in the caller's line, which is not reported again.
            caller = frame.f_back
            if caller is not None and self._own(caller.f_code.co_filename):
                self._stands_at(caller)
        return self._step

    def _stands_at(self, frame: FrameType) -> None:
        client = self._clients.get(_whoever_runs())
        if client is not None and not self._muted:
            file, number = frame.f_code.co_filename, frame.f_lineno
            source = printable(linecache.getline(file, number).rstrip().expandtabs())
            source = source.removeprefix(" " * min(8, len(source) - len(source.lstrip())))
            cut = source if len(source) <= WIDTH else source[: WIDTH - 3] + "..."
            self.events.append(Event(client, f"{number:>{MARGIN - 2}}  {cut}", place=f"{file}:{number}"))


def stops(events: Iterable[Event]) -> list[Event]:
    """Return the events with only the last line of each client before a switch, without indentation."""
    every = list(events)
    following: list[Event | None] = [*every[1:], None]
    return [
        event._replace(text=f"{event.text[:MARGIN]}{event.text[MARGIN:].lstrip()}") if event.place else event
        for event, after in zip(every, following, strict=True)
        if not event.place or (after is not None and (after.client != event.client or after.text == ENDED_OUTSIDE))
    ]


def last_place(events: Sequence[Event], who: int = -1) -> str:
    """Return the last place of this client, or else of the client that moved last; "" without lines."""
    if who < 0:
        who = next((event.client for event in reversed(events) if event.client >= 0), -1)
    places = [(event.client == who, event.place) for event in events if event.place]
    mine = [place for own, place in places if own]
    return (mine or [place for _, place in places] or [""])[-1]


def file_of(make: Callable[[], Any]) -> str:
    """Return the file in which a factory is defined; "" if unknown."""
    try:
        return inspect.getfile(inspect.unwrap(make))
    except (TypeError, ValueError):
        return ""


def not_foreign(file: str) -> bool:
    """Return whether a file may have a subject's code: it is not of the standard library, nor of the checker."""
    return not foreign(file)


def own_code(make: Callable[[], Any]) -> Callable[[str], bool]:
    """Return a test for the subject's files: those of its factory's package, or in the folder of its factory's file."""
    file = file_of(make)
    names = getattr(inspect.unwrap(make), "__module__", "").split(".")
    names += ["__init__"] * (Path(file).stem == "__init__")
    # For a module without a package, installed files in the same folder are unrelated.
    folder = Path(file).resolve().parents[max(0, len(names) - 2)] if file else Path("/nowhere")
    installed = len(names) < 2 and "site-packages" in folder.parts

    def own(other: str) -> bool:
        if other == file or foreign(other):
            return other == file
        path = Path(other).resolve()
        return not installed and path.is_relative_to(folder) and "site-packages" not in path.relative_to(folder).parts

    return own


def _whoever_runs() -> object:
    """Return the task of the running loop, or the thread if there is no task."""
    try:
        return current_task() or threading.get_ident()
    except RuntimeError:
        return threading.get_ident()
