"""Trying out what a factory makes, in runs that nobody judges."""

from __future__ import annotations

import contextlib
import functools
import inspect
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from kmutex._text import said
from kmutex._timeouts import TIMED_OUT
from kmutex.engine.eventloop import Loop, LoopRun, in_a_loop, trio_loop
from kmutex.engine.faces import Kind, Way, face_class, is_block
from kmutex.engine.keys import Spelling
from kmutex.engine.program import Program, Step, parse
from kmutex.engine.search import Chooser
from kmutex.engine.threads import Crew, ThreadRun, foreign

Opening = Callable[[Any], Callable[..., Any]]
LetGo = Callable[[Any, Any, Any], Any]
CALLER = "client"
"""Who calls, where a call must be told."""


def _of_trio(error: BaseException) -> bool:
    """Whether trio refused to work, as its loop does not run; or asyncio, as it was given one of trio's traps."""
    words = said(error)
    return words.endswith(": must be called from async context") or "<class 'trio." in words


class Trial:
    """What a run did. An `Observer`."""

    def __init__(self) -> None:
        self.subject: Any = None
        self.done: list[str] = []
        """The steps that came back, as in a program: "0+a"."""
        self.errors: dict[str, BaseException] = {}
        self.waiting: list[dict[int, Step]] = []
        """Who waited as a phase ended, by phase."""
        self.stopped = False

    def did(self, *steps: str) -> bool:
        """Whether all of these came back."""
        return set(steps) <= set(self.done)

    def waited(self, client: int, phase: int) -> bool:
        """Whether this client waited as this phase ended."""
        return phase < len(self.waiting) and client in self.waiting[phase]

    def why(self) -> str:
        """Why not all came back, in words."""
        left = next((error for error in self.errors.values() if isinstance(error, SystemExit)), None)
        if left is not None:
            return f"it tried to leave the process: {said(left)}"
        failed = ((Step(step[1], step[2:]), error) for step, error in self.errors.items())
        return next((f"{step} raised {said(error)}" for step, error in failed), "it has no end")

    def made(self, subject: Any) -> None:
        self.subject = subject

    def phase(self, number: int) -> None:
        self.waiting.append({})

    def called(self, client: int, step: Step) -> None: ...

    def returned(self, client: int, step: Step) -> None:
        self.done.append(f"{client}{step.kind}{step.key}")

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self.errors[f"{client}{step.kind}{step.key}"] = error

    def cancelled(self, client: int) -> None: ...

    def failed(self, error: BaseException) -> None: ...

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        if self.waiting:
            self.waiting[-1] = dict(waiting)


class _Made(Trial):
    """Ends the run when the subject is made."""

    def made(self, subject: Any) -> None:
        self.subject, self.stopped = subject, True


class _Blocked(Trial):
    """Ends the run when somebody waits."""

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        super().quiet(waiting, overdue)
        self.stopped = bool(waiting)


class Answers:
    """What the calls for a lock gave and raised, and whether an error was raised on purpose."""

    def __init__(self) -> None:
        self.last: Any = None
        self.first: Any = None
        self.on_purpose = False
        self._any = False

    def __call__(self, answer: Any) -> None:
        """Seen by a face."""
        self.first = self.first if self._any else answer
        self.last, self._any = answer, True
        self.on_purpose = isinstance(answer, BaseException) and _on_purpose(answer)


def _on_purpose(error: BaseException) -> bool:
    """Whether an error is the subject's word for something, and not what happened to it."""
    if isinstance(error, TIMED_OUT):
        return True
    if not isinstance(error, Exception):
        return False
    if type(error).__module__ != "builtins":
        return True
    trace = traceback.extract_tb(error.__traceback__)
    return bool(trace) and not foreign(trace[-1].filename) and (trace[-1].line or "").lstrip().startswith("raise")


class _Opener:
    """Calls the one method, keeps what it gives, and lets go again as far as that can be told."""

    def __init__(self, subject: Any, opening: Opening, let_go: LetGo, owner: str, answers: list[Any]) -> None:
        self._subject = subject
        self._opening = functools.partial(opening(subject), **({owner: CALLER} if owner else {}))
        self._let_go = let_go
        self._answers = answers

    def lock(self, key: Any) -> None:
        answer = in_a_loop(lambda: self._opening(key))
        self._answers.append(answer)
        if not inspect.isawaitable(answer):
            with contextlib.suppress(Exception):
                self._let_go(self._subject, key, answer)


class _AsyncOpener(_Opener):
    async def lock(self, key: Any) -> None:  # type: ignore[override]
        answer = self._opening(key)
        answer = await answer if inspect.isawaitable(answer) and not is_block(answer) else answer
        self._answers.append(answer)
        with contextlib.suppress(Exception):
            gone = self._let_go(self._subject, key, answer)
            if inspect.isawaitable(gone):
                await gone


class _Holder:
    """Enters the block that hold() gives, and keeps what the block is given."""

    def __init__(self, subject: Any, answers: list[Any]) -> None:
        self._subject = subject
        self._answers = answers

    def lock(self, key: Any) -> None:
        with self._subject.hold(key) as given:
            self._answers.append(given)


class _AsyncHolder(_Holder):
    async def lock(self, key: Any) -> None:  # type: ignore[override]
        async with self._subject.hold(key) as given:
            self._answers.append(given)


class _Two:
    """Two subjects behind one face: key a is the first one's, any other the second one's; both have the same key."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second
        self._keys: dict[Any, Any] = {}

    def _of(self, key: Any) -> tuple[Any, Any]:
        self._keys.setdefault(key, self._first if not self._keys else self._second)
        return self._keys[key], next(iter(self._keys))

    def lock(self, key: Any) -> Any:
        subject, same = self._of(key)
        return subject.lock(same)

    def unlock(self, key: Any) -> Any:
        subject, same = self._of(key)
        return subject.unlock(same)


class _Twice:
    """Locks twice where it is asked once, and unlocks as often."""

    def __init__(self, subject: Any) -> None:
        self._subject = subject

    def lock(self, key: Any) -> None:
        self._subject.lock(key)
        self._subject.lock(key)

    def unlock(self, key: Any) -> None:
        self._subject.unlock(key)
        self._subject.unlock(key)


class _AsyncTwice(_Twice):
    async def lock(self, key: Any) -> None:  # type: ignore[override]
        await self._subject.lock(key)
        await self._subject.lock(key)

    async def unlock(self, key: Any) -> None:  # type: ignore[override]
        await self._subject.unlock(key)
        await self._subject.unlock(key)


class Trials:
    """Runs on what ``make()`` returns. The keys of each run are its own."""

    def __init__(self, make: Callable[[], Any], patience: float, *, trio: bool = False) -> None:
        """trio: whether tasks are trio's. UnknownTrioError: they are, and this trio can't be run here."""
        self._patience = patience
        self._trio = trio
        self.of_trio = False
        """Whether it waited by trio in a run that was not trio's."""
        self._make = make
        self._crew = Crew()
        self._spelling = Spelling(own=True)
        self._loop = Loop()  # type: ignore[abstract]

    def key_type(self, kind: str) -> None:
        """Give the runs keys of this type from now on."""
        self._spelling = Spelling(kind, own=True)

    def same_keys(self) -> Callable[[str], Any]:
        """Keys that are the same in several runs."""
        return self._spelling.of_a_run()

    def made(self) -> Any:
        """A new subject. In a run, since one may start a thread as it is made; in a loop, since another may ask for
        the running one. SubjectFailedError: the factory raised. None: it does not come back."""
        return self._run(self._make, parse("0+a"), "threads", observer=_Made()).subject

    def answer(
        self, kind: Kind, opening: Opening, let_go: LetGo = lambda *_: None, owner: str = ""
    ) -> tuple[list[Any], Trial]:
        """What the call gives that ``opening`` finds in a new subject, if it comes back. let_go: ends what it began, by
        subject, key and answer. owner: the parameter by which it is told who calls."""
        answers: list[Any] = []
        opener = _Opener if kind == "threads" else _AsyncOpener
        trial = self._run(lambda: opener(self._make(), opening, let_go, owner, answers), parse("0+a"), kind)
        return answers, trial

    def held(self, kind: Kind) -> list[Any]:
        """What the block of a new subject's hold() is given, if it comes to that."""
        answers: list[Any] = []
        holder = _Holder if kind == "threads" else _AsyncHolder
        self._run(lambda: holder(self._make(), answers), parse("0+a"), kind)
        return answers

    def run(self, program: str, kind: Kind, way: Way, *, watch: Callable[[Any], object] | None = None) -> Trial:
        """The default schedule of a program on a new subject; waits that are cancelled are out of time."""
        face = face_class(kind)
        return self._run(lambda: face(self._make(), way, watch=watch), parse(program), kind)

    def two(self, program: str, kind: Kind, way: Way) -> Trial:
        """The same on two subjects that the factory makes; both keys of the program are one key of theirs."""
        face = face_class(kind)
        return self._run(lambda: _Two(face(self._make(), way), face(self._make(), way)), parse(program), kind)

    def twice(self, program: str, kind: Kind, way: Way) -> Trial:
        """The same on one subject, with two calls for each step."""
        face = face_class(kind)
        twice = _Twice if kind == "threads" else _AsyncTwice
        return self._run(lambda: twice(face(self._make(), way)), parse(program), kind)

    def blocked(self, program: Program, kind: Kind, way: Way, keys: Callable[[str], Any]) -> Step | None:
        """The step at which somebody first waits in a program on a new subject; None if nobody does."""
        face = face_class(kind)
        trial = self._run(lambda: face(self._make(), way), program, kind, observer=_Blocked(), keys=keys)
        return next(iter(trial.waiting[-1].values()), None) if trial.waiting and trial.stopped else None

    def _run(
        self,
        make: Callable[[], Any],
        program: Program,
        kind: Kind,
        *,
        observer: Trial | None = None,
        keys: Callable[[str], Any] | None = None,
    ) -> Trial:
        trial = Trial() if observer is None else observer
        keys = self._spelling.of_a_run() if keys is None else keys
        run: ThreadRun | LoopRun
        if kind == "threads":
            made = functools.partial(in_a_loop, make)
            run = ThreadRun(made, program, Chooser(), trial, crew=self._crew, keys=keys, patience=self._patience)
        else:
            loop = trio_loop() if self._trio else self._loop
            run = LoopRun(make, program, Chooser(), trial, keys=keys, timeouts=True, loop=loop)
        run.run()
        self.of_trio |= any(_of_trio(error) for error in trial.errors.values())
        return trial
