"""Trial runs of a factory's objects, which are not judged."""

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
from kmutex.engine.observer import Observer
from kmutex.engine.program import Program, Step, parse
from kmutex.engine.search import Chooser
from kmutex.engine.threads import Crew, ThreadRun, foreign

Opening = Callable[[Any], Callable[..., Any]]
LetGo = Callable[[Any, Any, Any], Any]
CALLER = "client"
"""The name of the caller, for calls that need one."""


def _of_trio(error: BaseException) -> bool:
    """Return whether trio failed because its loop does not run, or asyncio because it got one of trio's traps."""
    words = said(error)
    return words.endswith(": must be called from async context") or "<class 'trio." in words


class Trial(Observer):
    """The record of a run."""

    stopped = False

    def __init__(self) -> None:
        self.subject: Any = None
        self.done: list[str] = []
        """The steps that returned, as in a program: "0+a"."""
        self.errors: dict[str, BaseException] = {}
        self.waiting: list[dict[int, Step]] = []
        """By phase: the clients that waited at its end."""

    def did(self, *steps: str) -> bool:
        """Return whether all of these steps returned."""
        return set(steps) <= set(self.done)

    def waited(self, client: int, phase: int) -> bool:
        """Return whether this client waited at the end of this phase."""
        return phase < len(self.waiting) and client in self.waiting[phase]

    def why(self) -> str:
        """Return a message why not all steps returned."""
        left = next((error for error in self.errors.values() if isinstance(error, SystemExit)), None)
        if left is not None:
            return f"it tried to leave the process: {said(left)}"
        failed = ((Step(step[1], step[2:]), error) for step, error in self.errors.items())
        return next((f"{step} raised {said(error)}" for step, error in failed), "it does not end")

    def made(self, subject: Any) -> None:
        self.subject = subject

    def phase(self, number: int) -> None:
        self.waiting.append({})

    def returned(self, client: int, step: Step) -> None:
        self.done.append(f"{client}{step.kind}{step.key}")

    def raised(self, client: int, step: Step, error: BaseException) -> None:
        self.errors[f"{client}{step.kind}{step.key}"] = error

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        if self.waiting:
            self.waiting[-1] = dict(waiting)


class _Made(Trial):
    """Ends the run once the subject is made."""

    def made(self, subject: Any) -> None:
        self.subject, self.stopped = subject, True


class _Blocked(Trial):
    """Ends the run once a client waits."""

    def quiet(self, waiting: Mapping[int, Step], overdue: frozenset[int]) -> None:
        super().quiet(waiting, overdue)
        self.stopped = bool(waiting)


class Answers:
    """The results and errors of calls for a lock, and whether an error was raised on purpose."""

    def __init__(self) -> None:
        self.last: Any = None
        self.first: Any = None
        self.on_purpose = False
        self._any = False

    def __call__(self, answer: Any) -> None:
        """Note a result; called by an adapter."""
        self.first = self.first if self._any else answer
        self.last, self._any = answer, True
        self.on_purpose = isinstance(answer, BaseException) and _on_purpose(answer)


def _on_purpose(error: BaseException) -> bool:
    """Return whether the subject raised an error to say something, and not by accident."""
    if isinstance(error, TIMED_OUT):
        return True
    if not isinstance(error, Exception):
        return False
    if type(error).__module__ != "builtins":
        return True
    trace = traceback.extract_tb(error.__traceback__)
    return bool(trace) and not foreign(trace[-1].filename) and (trace[-1].line or "").lstrip().startswith("raise")


class _Opener:
    """Calls one method, keeps its result, and releases as far as it is known how."""

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
    """Enters the block of hold(), and keeps what the block gets."""

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
    """Two subjects as one: letter a stands for a key of the first, any other letter for the same key of the second."""

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
    """Locks twice for each call, and unlocks twice."""

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
    """Runs on new subjects. Each run has its own keys."""

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
        """Use keys of this type from now on."""
        self._spelling = Spelling(kind, own=True)

    def same_keys(self) -> Callable[[str], Any]:
        """Return keys that are the same in several runs."""
        return self._spelling.of_a_run()

    def made(self) -> Any:
        """Make a new subject, within a run, since it may start a thread, and within a loop, since it may need one.

        Returns:
            The subject; None if the factory does not return.

        Raises:
            SubjectFailedError: The factory raised an error.
        """
        return self._run(self._make, parse("0+a"), "threads", observer=_Made()).subject

    def answer(
        self, kind: Kind, opening: Opening, let_go: LetGo = lambda *_: None, owner: str = ""
    ) -> tuple[list[Any], Trial]:
        """Call a method of a new subject.

        Args:
            kind: "threads" or "asyncio".
            opening: Finds the method in the subject.
            let_go: Ends what the call began, from subject, key and answer.
            owner: The parameter for the name of the caller.

        Returns:
            A list with its answer, empty if it did not return; and the record of the run.
        """
        answers: list[Any] = []
        opener = _Opener if kind == "threads" else _AsyncOpener
        trial = self._run(lambda: opener(self._make(), opening, let_go, owner, answers), parse("0+a"), kind)
        return answers, trial

    def held(self, kind: Kind) -> list[Any]:
        """Return a list with what the block of a new subject's hold() gets; empty if it does not begin."""
        answers: list[Any] = []
        holder = _Holder if kind == "threads" else _AsyncHolder
        self._run(lambda: holder(self._make(), answers), parse("0+a"), kind)
        return answers

    def run(self, program: str, kind: Kind, way: Way, *, watch: Callable[[Any], object] | None = None) -> Trial:
        """Run a program on a new subject in the default schedule; cancelled waits time out."""
        face = face_class(kind)
        return self._run(lambda: face(self._make(), way, watch=watch), parse(program), kind)

    def two(self, program: str, kind: Kind, way: Way) -> Trial:
        """Run a program on two new subjects; both letters of the program stand for one key."""
        face = face_class(kind)
        return self._run(lambda: _Two(face(self._make(), way), face(self._make(), way)), parse(program), kind)

    def twice(self, program: str, kind: Kind, way: Way) -> Trial:
        """Run a program on one subject, with two calls for each step."""
        face = face_class(kind)
        twice = _Twice if kind == "threads" else _AsyncTwice
        return self._run(lambda: twice(face(self._make(), way)), parse(program), kind)

    def blocked(self, program: Program, kind: Kind, way: Way, keys: Callable[[str], Any]) -> Step | None:
        """Return the first step of a program at which a client waits; None if there is no such step."""
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
