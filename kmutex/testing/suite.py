"""A keyed locker against the contract, as a test in your own suite.

    class TestMyLocker(KeyedLockerSuite):
        make = staticmethod(MyLocker)
        without = ("fifo",)

It is one test for a locker: a mistake shows in many programs, and one failure says it, with the lines of the locker at
which each client stands, and the command that runs it again. What is run is what ``kmutex verify`` runs, up to a fixed
amount: "quick" takes some seconds, "full" a minute or more.

Nothing here imports pytest. Under pytest, what failed last is run first.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

from rich.console import Console

from kmutex.engine.calls import LOOKING, Calls
from kmutex.engine.features import PROMISES
from kmutex.engine.shapes import NotALockerError
from kmutex.verify.in_process import judge
from kmutex.verify.project import Subject
from kmutex.verify.report import Report, show, show_causes, summary
from kmutex.verify.runner import BY_MODE
from kmutex.verify.verdict import ContractError, InconclusiveError, target


class KeyedLockerSuite:
    """Derive a class named Test... from it."""

    make: ClassVar[Callable[[], Any]]
    """Makes a new locker at each call. Wrap a function or a class in `staticmethod`."""
    without: ClassVar[Collection[str]] = ()
    """Features the locker is declared to lack: see `kmutex.engine.features`."""
    promises: ClassVar[Collection[str] | None] = None
    """What it is held to beside what makes a keyed mutex: "fifo", "interrupt", "loop", as by ``verify --with``."""
    strict: ClassVar[bool] = False
    """Whether it promises all of these, as by ``verify --strict``."""
    calls: ClassVar[Calls] = LOOKING
    """Names of its methods, where looking does not find them."""
    mode: ClassVar[str] = "quick"
    """Or "full"."""

    def test_contract(self, request: Any) -> None:
        """Each clause of the contract holds, up to the bounds of the mode."""
        if not hasattr(type(self), "make"):
            raise NotALockerError(f"{type(self).__name__} has no make; give it make = staticmethod(YourLocker)")
        make = type(self).make
        promises = None if self.promises is None else tuple(self.promises)
        if self.strict:
            promises = (*PROMISES, *(promises or ()))
        subject = Subject(target(make), tuple(self.without), promises, self.calls)
        plugin = request.config.pluginmanager.get_plugin("kmutex")
        if plugin is None:
            check(subject, make, self.mode)
        else:
            plugin.used(request.config).check(request.node, subject, make, self.mode)


def check(subject: Subject, make: Callable[[], Any] | None, mode: str, schedules: Sequence[str] = ()) -> Report:
    """What was found, where each clause that applies holds.

    make, schedules: as for `judge`. ContractError, InconclusiveError (both AssertionErrors), NotALockerError: else; the
    first two with the report as ``report``.
    """
    __tracebackhide__ = True
    report = judge(subject, make=make, how=BY_MODE[mode], schedules=schedules)
    if report.failed:
        raise NotALockerError(f"cannot verify {subject.target}: {report.failed}")
    if report.status == 0:
        return report
    error = ContractError(_words(report)) if report.status == 1 else InconclusiveError(_words(report))
    error.report = report
    raise error


def _words(report: Report) -> str:
    text = io.StringIO()
    console = Console(file=text, no_color=True, width=80)
    if report.status == 1:
        show_causes(console, report)
        console.print(summary(report.rows), soft_wrap=True)
    else:
        show(console, report)
    return text.getvalue().strip("\n")
