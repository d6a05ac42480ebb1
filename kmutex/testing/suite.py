"""A test class that checks a keyed locker against the contract. It does not import pytest."""

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
    """One test of a locker against the whole contract. Derive a class named Test... from it.

    It runs what ``kmutex verify`` runs, up to a fixed amount of work. A mistake shows in many programs but fails this
    one test, with the source line of each client and a command that replays the run. Under pytest, the schedules that
    failed last are run first.

    Example::

        class TestMyLocker(KeyedLockerSuite):
            make = staticmethod(MyLocker)
            without = ("fifo",)
    """

    make: ClassVar[Callable[[], Any]]
    """Makes a new locker at each call. Wrap a function or a class in ``staticmethod``."""
    without: ClassVar[Collection[str]] = ()
    """Features that the locker lacks, of `FEATURES`."""
    promises: ClassVar[Collection[str] | None] = None
    """What it promises in addition to a keyed mutex, of `PROMISES`, as with ``verify --with``."""
    strict: ClassVar[bool] = False
    """Whether it promises all of `PROMISES`, as with ``verify --strict``."""
    calls: ClassVar[Calls] = LOOKING
    """Names of its methods, if they are not found automatically."""
    mode: ClassVar[str] = "quick"
    """"quick" takes some seconds, "full" a minute or more."""

    def test_contract(self, request: Any) -> None:
        """Fail if a clause of the contract is broken, or could not be judged, within the bounds of the mode."""
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
    """Judge a subject, and return the report if each clause that applies holds.

    Args:
        subject: The locker and what is declared of it.
        make: As for `judge`.
        mode: "quick" or "full".
        schedules: As for `judge`.

    Raises:
        ContractError: A clause is violated. ``report`` has all findings.
        InconclusiveError: A clause could not be judged. ``report`` has all findings.
        NotALockerError: The subject is not a keyed locker.
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
