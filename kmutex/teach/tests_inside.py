"""The process in which a learner's tests run against one locker. It needs pytest.

It has the fixtures, and writes the result of each test as lines of JSON to the file that the config names.
"""

from __future__ import annotations

import _thread
import functools
import importlib
import inspect
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmutex._sandbox import argument, confine, end_with
from kmutex._text import printable, said
from kmutex.engine.explorer import Schedule
from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.program import ProgramError, parse
from kmutex.engine.search import UnreplayableError
from kmutex.verify.verdict import ContractError, InconclusiveError, describe
from kmutex.verify.worker import check_fits

MOST_RUNS = 2_000
"""The most schedules of one program. A program with more was not run in all of them, which is not a pass."""
OWN_ERRORS = (
    "AttributeError",
    "NameError",
    "TypeError",
    "ImportError",
    "SyntaxError",
    "ProgramError",
    "IndentationError",
)
"""Errors that are the test's fault if its own code raised them: it uses something that the locker does not have."""
NO_EVIDENCE = (InconclusiveError, ProgramError, MemoryError, RecursionError, SystemExit, OSError)
"""Errors that are no evidence about the locker: a limit, a refusal, a missing file, an exit."""

FIXTURES = {"locker", "async_locker", "every_way"}


class _Plugin:
    def __init__(self, config: dict[str, Any]) -> None:
        module, _, name = config["target"].partition(":")
        self._make: Callable[[], Any] = getattr(importlib.import_module(module), name)
        if config["in_place"]:
            self._make = _in_place_of(self._make, config["in_place"])
            setattr(sys.modules[module], name, self._make)
        self._only, self._left_out = config["only"], config["left_out"]
        self._kind = config["kind"]
        self._bench = Harness(self._make, without=config["without"], promises=PROMISES)
        self._sound = config["sound"]
        self._file = config["file"]
        self._log = Path(config["log"]).open("w", encoding="utf-8")  # noqa: SIM115

    @pytest.fixture
    def locker(self) -> Callable[[], Any]:
        """A fixture that makes new lockers for threads."""
        if self._kind != "threads":
            pytest.skip("the locker is for asyncio")
        return self._make

    @pytest.fixture
    def async_locker(self) -> Callable[[], Any]:
        """A fixture that makes new lockers for asyncio."""
        if self._kind != "asyncio":
            pytest.skip("the locker is for threads")
        return self._make

    @pytest.fixture
    def every_way(self) -> Callable[..., None]:
        """A fixture that runs a program on the locker in every schedule, and fails if a clause is broken."""

        def check(program: str, preemptions: int = 1) -> None:
            bench = self._bench
            level = bench.levels[0]
            try:
                check_fits(Schedule(parse(program), level, (), bench.shape.tries and "?" in program), bench.shape)
            except UnreplayableError as error:
                pytest.skip(f"not for this locker: {error}")
            with bench.control():
                result = bench.explorer.every(parse(program), level, preemptions, go_on=lambda runs: runs < MOST_RUNS)
            for finding, schedule in result.found.values():
                raise ContractError(describe(finding, schedule, bench), finding, schedule)
            if not result.complete or result.endless:
                raise InconclusiveError(f"{program} was not run in every schedule: {result.runs} runs")

        return check

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Drop tests without a locker."""
        items[:] = [
            item
            for item in items
            if FIXTURES & set(getattr(item, "fixturenames", ()))
            and _name(item.nodeid) not in self._left_out
            and self._only in ("", _name(item.nodeid))
        ]
        for item in items:
            function = getattr(item, "function", None)
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                self.say(broken=f"{item.name} is an async def, which is not run; write def and asyncio.run(...)")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.say(collected=len(session.items))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            lines = [line[1:].strip() for line in report.longreprtext.splitlines() if line.startswith("E ")]
            self.say(broken=printable(lines[-1] if lines else "it could not be imported"))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.say(begun=_name(nodeid))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        if report.when == "call" or report.outcome != "passed":
            words, result = "", report.outcome
            if report.outcome == "failed" and call.excinfo is not None:
                words = said(call.excinfo.value)
                # A failure before or after the test itself is no evidence about the locker.
                result = self._result(call.excinfo) if report.when == "call" else "own error"
            elif report.outcome == "failed":
                # It failed by a rule of pytest, such as a strict xfail.
                words, result = printable(report.longreprtext.partition("\n")[0]), "own error"
            self.say(ended=_name(item.nodeid), result=result, words=words)
            if result == "failed" and not self._sound:
                # One test that catches it is enough; the next may hang.
                item.session.shouldstop = "caught"
        return report

    def _result(self, error: pytest.ExceptionInfo[BaseException]) -> str:
        # A TimeoutError is an OSError, but lockers raise it, and so do time limits of tests.
        if isinstance(error.value, NO_EVIDENCE) and not isinstance(error.value, TimeoutError):
            return "own error"
        own = str(error.traceback[-1].path) == self._file
        return "own error" if own and any(kind.__name__ in OWN_ERRORS for kind in error.type.__mro__) else "failed"

    def say(self, **what: Any) -> None:
        self._log.write(json.dumps(what) + "\n")
        self._log.flush()


def _in_place_of(broken: Any, target: str) -> type:
    """Return a class of correct lockers that looks like a broken one without a call: names, source and interface."""
    module, _, name = target.partition(":")
    correct: type = getattr(importlib.import_module(module), name)

    def made(self: Any) -> None:
        # Its own attributes remain, unused.
        broken.__init__(self)
        self._correct = correct()

    def passed_on(name: str) -> Callable[..., Any]:
        function = getattr(correct, name)

        async def later(self: Any, *args: Any, **options: Any) -> Any:
            return await getattr(self._correct, name)(*args, **options)

        def at_once(self: Any, *args: Any, **options: Any) -> Any:
            return getattr(self._correct, name)(*args, **options)

        return functools.wraps(getattr(broken, name))(later if inspect.iscoroutinefunction(function) else at_once)

    names = [name for name in dir(broken) if name == "__len__" or not name.startswith("_")]
    methods = {name: passed_on(name) for name in names if callable(getattr(correct, name, None))}
    kept = {name: getattr(broken, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(broken.__name__, (broken,), {**methods, **kept, "__init__": made})


def _name(nodeid: str) -> str:
    return nodeid.partition("::")[2]


def main() -> None:
    """Run the tests. `argument` has file, target, kind, without, sound, log, empty, parent and confine; in_place, the
    factory of the correct locker that looks like it, or ""; only, a test or ""; and left_out, tests."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nowhere, number)
    config = argument()
    _thread.start_new_thread(end_with, (config["parent"],))
    plugin = _Plugin(config)
    # Before the learner's file is read: its import is limited too.
    confine(**config["confine"], deletes=True)
    status = 4
    try:
        sys.path.insert(0, str(Path(config["file"]).parent))
        status = pytest.main(
            [
                config["file"],
                *("-q", "--noconftest", "--import-mode=importlib", "-p", "no:cacheprovider"),
                *("-c", config["empty"], "--rootdir", str(Path(config["file"]).parent)),
            ],
            plugins=[plugin],
        )
    except BaseException as error:
        plugin.say(broken=said(error))
    plugin.say(status=int(status))
    # Threads that the tests have left wait forever.
    os._exit(0)
