"""The part of the pytest plugin that is loaded on first use. See `pytest_kmutex`, which every run of pytest loads.

The schedule of a failure is saved and run first the next time: in pytest's cache, or in the file that
``[tool.kmutex] schedules`` names, with one command a line. Under pytest-xdist, the process that gets all reports
writes it.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from kmutex.engine.shapes import NotALockerError
from kmutex.testing.suite import check
from kmutex.verify.project import Project, ProjectError, Subject, read_project, schedules_of, subject_of
from kmutex.verify.verdict import ContractError, InconclusiveError, target

CACHE = "kmutex/schedules"
REPLAY = "kmutex-replay"
"""The property of a failed test with the command that replays it."""
MARKED = ("without", "promises", "strict", "calls", "keys", "mode")
_NAMED = {"promises": "with"}
"""Arguments of the mark that have another name in the table."""


class Plugin:
    """The lockers that one run of pytest judges."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._project: Project | None = None
        self._controls = not hasattr(config, "workerinput")
        """Whether this process gets all reports."""
        self._failed: dict[str, list[str]] = {}
        """By test: the commands that replay its failures."""
        self._passed: set[str] = set()

    # -- subjects ------------------------------------------------------------------------------------------------

    def read_project(self) -> None:
        """Read the table.

        Raises:
            pytest.UsageError: It is wrong.
        """
        try:
            self._project = read_project(self._config.rootpath)
        except ProjectError as error:
            raise pytest.UsageError(str(error)) from None

    def file(self, parent: pytest.Collector, path: Path) -> pytest.Collector:
        """Return the table as a file of tests."""
        assert self._project is not None
        made: pytest.Collector = _Table.from_parent(parent, path=path, plugin=self, project=self._project)
        return made

    def judge_function(self, item: pytest.Function, mark: pytest.Mark) -> None:
        """Judge the locker that a marked test function returns; its fixtures are made once."""
        if mark.args or not set(mark.kwargs) <= set(MARKED):
            pytest.fail(f"pytest.mark.kmutex takes {', '.join(MARKED)}, by name", pytrace=False)
        if inspect.iscoroutinefunction(item.obj):
            pytest.fail("a function marked with kmutex returns a locker; it is not async itself", pytrace=False)
        given = {name: item.funcargs[name] for name in item._fixtureinfo.argnames}
        make = functools.partial(item.obj, **given) if given else item.obj
        entry = {_NAMED.get(name, name): value for name, value in mark.kwargs.items() if name != "mode"}
        entry = {name: list(value) if isinstance(value, (tuple, set)) else value for name, value in entry.items()}
        subject, words = None, ""
        try:
            subject = subject_of({**entry, "target": target(item.obj)}, "pytest.mark.kmutex")
        except ProjectError as error:
            words = str(error)
        if subject is None:
            pytest.fail(words, pytrace=False)
        self.check(item, subject, make, mark.kwargs.get("mode") or "quick")

    # -- judging -------------------------------------------------------------------------------------------------

    def check(self, item: pytest.Item, subject: Subject, make: Callable[[], Any] | None, mode: str) -> None:
        """Judge a subject in a test; schedules that failed before are run first."""
        words = ""
        try:
            mode = self._config.getoption("--kmutex-mode") or mode
            check(subject, make, mode, self._saved(item.nodeid, subject))
        except (ContractError, InconclusiveError) as error:
            words = str(error)
            for target, cause in error.report.causes():
                if command := error.report.replay(target, cause.shown):
                    item.user_properties.append((REPLAY, command))
        except NotALockerError as error:
            words = str(error)
        if words:
            # Outside the handler, or each error would be shown with the one before.
            pytest.fail(words, pytrace=False)

    # -- saved schedules -----------------------------------------------------------------------------------------

    def _saved(self, test: str, subject: Subject) -> list[str]:
        """Return the schedules to run first."""
        commands = self._project.saved() if self._project is not None else []
        return schedules_of([*commands, *self._cached().get(test, ())], subject)

    def _cached(self) -> Mapping[str, list[str]]:
        cache = getattr(self._config, "cache", None)
        found = cache.get(CACHE, {}) if cache is not None else {}
        return found if isinstance(found, dict) else {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the result of a test. Called in the process that gets all reports."""
        if report.when != "call" or not self._controls:
            return
        commands = [str(value) for name, value in report.user_properties if name == REPLAY]
        if commands:
            self._failed[report.nodeid] = commands
        elif report.passed:
            self._passed.add(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Save the schedules of failures, and forget those of tests that pass; a named file keeps its lines."""
        if not self._controls:
            return
        before = self._cached()
        now = {test: commands for test, commands in before.items() if test not in self._passed} | self._failed
        cache = getattr(self._config, "cache", None)
        if cache is not None and now != before:
            cache.set(CACHE, now)
        if self._project is not None:
            self._project.save(command for commands in self._failed.values() for command in commands)


class _Table(pytest.File):
    """``[tool.kmutex]``."""

    def __init__(self, *, plugin: Plugin, project: Project, **of_file: Any) -> None:
        super().__init__(**of_file)
        self._plugin = plugin
        self._project = project

    def collect(self) -> Iterable[pytest.Item]:
        for subject in self._project.subjects:
            yield _Locker.from_parent(
                self, name=subject.name, plugin=self._plugin, project=self._project, subject=subject
            )


class _Locker(pytest.Item):
    """The test of one subject of the table."""

    def __init__(self, *, plugin: Plugin, project: Project, subject: Subject, **of_item: Any) -> None:
        super().__init__(**of_item)
        self.add_marker("kmutex")
        self._plugin = plugin
        self._project = project
        self._subject = subject

    def runtest(self) -> None:
        here = str(self._project.folder)
        sys.path.insert(0, here)
        try:
            self._plugin.check(self, self._subject, None, self._project.mode)
        finally:
            sys.path.remove(here)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name
