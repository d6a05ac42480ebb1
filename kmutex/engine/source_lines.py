"""A run with the lines of the subject's own code in it: not only who called what, but where each client stood."""

from __future__ import annotations

import asyncio
import inspect
import linecache
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any

from kmutex._text import printable
from kmutex.engine.judge import Event, Judge
from kmutex.engine.program import Step

WIDTH = 44
"""Characters of a line that are shown."""
MARGIN = 6
"""Columns that its number takes."""


_Tracer = Callable[[FrameType, str, Any], Any]


class Line(Event):
    """A line that a client is about to execute."""

    __slots__ = ()


class Lines(Judge):
    """A judge that also writes down the lines of the file in which ``make`` is defined.

    Lines are seen by `sys.settrace`, which is left on in the thread that executes them.
    """

    def __init__(self, *, make: Callable[[], Any], **of_judge: Any) -> None:
        super().__init__(**of_judge)
        self._file = _file_of(make)
        self._clients: dict[object, int] = {}
        self._muted = False
        self._under: dict[int, _Tracer] = {}
        """By thread: who traced it before, such as the scheduler, which may switch between two instructions."""

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
        # It asks for len(), which is no client's doing.
        self._muted = True
        try:
            super().quiet(waiting, overdue)
        finally:
            self._muted = False

    def _enter(self, frame: FrameType, event: str, arg: Any) -> Any:
        outer = self._under.get(threading.get_ident())
        under: _Tracer | None = outer(frame, event, arg) if outer is not None else None
        if frame.f_code.co_filename != self._file:
            return under
        if under is None:
            return self._step

        def both(frame: FrameType, event: str, arg: Any) -> Any:
            self._step(frame, event, arg)
            under(frame, event, arg)
            return both

        return both

    def _step(self, frame: FrameType, event: str, arg: Any) -> Any:
        client = self._clients.get(_whoever_runs())
        if event == "line" and client is not None and not self._muted:
            source = linecache.getline(self._file, frame.f_lineno).rstrip()
            source = printable(source.expandtabs())
            source = source.removeprefix(" " * min(8, len(source) - len(source.lstrip())))
            cut = source if len(source) <= WIDTH else source[: WIDTH - 3] + "..."
            self.events.append(Line(client, f"{frame.f_lineno:>{MARGIN - 2}}  {cut}"))
        return self._step


def stops(events: Iterable[Event]) -> list[Event]:
    """The events without the lines after which the same client went on, and the others without their indentation."""
    every = list(events)
    following: list[Event | None] = [*every[1:], None]
    return [
        Line(event.client, f"{event.text[:MARGIN]}{event.text[MARGIN:].lstrip()}") if isinstance(event, Line) else event
        for event, after in zip(every, following, strict=True)
        if not isinstance(event, Line) or (after is not None and after.client not in (event.client, -1))
    ]


def _whoever_runs() -> object:
    """The task of the running loop, or the thread where there is none."""
    try:
        return asyncio.current_task() or threading.get_ident()
    except RuntimeError:
        return threading.get_ident()


def _file_of(make: Callable[[], Any]) -> str:
    """Where the factory is defined; "" if that can't be told, and there are no lines then."""
    try:
        return inspect.getfile(make)
    except TypeError:
        return ""
