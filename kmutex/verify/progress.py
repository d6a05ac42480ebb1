"""What is shown while a check runs: one line on a terminal, and nothing where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.status import Status

from kmutex.verify.runner import Progress


class Display:
    """Shows progress; see `shown`."""

    def __init__(self, status: Status | None) -> None:
        self._status = status

    def say(self, text: str) -> None:
        """One line about what is going on."""
        if self._status is not None:
            self._status.update(text)

    def of(self, subject: str, seconds: float) -> Callable[[Progress], None]:
        """A callback for `runner.verify`."""

        def update(progress: Progress) -> None:
            found = f", violated: {' '.join(progress.violated)}" if progress.violated else ""
            self.say(
                f"{subject}: {progress.method}, {progress.done}/{progress.planned} programs, "
                f"{progress.runs:,} runs, {progress.seconds:.0f} of {seconds:.0f} s{found}"
            )

        return update


@contextmanager
def shown(*, quiet: bool) -> Iterator[Display]:
    """A display on standard error, if that is a terminal and nobody asked for quiet."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield Display(None)
        return
    with console.status("starting") as status:
        yield Display(status)
