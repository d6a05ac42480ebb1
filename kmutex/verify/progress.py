"""The progress line of a check."""

from __future__ import annotations

import math
from collections.abc import Callable

from kmutex._console import Display
from kmutex.verify.runner import Progress


def progress_of(display: Display, subject: str, seconds: float) -> Callable[[Progress], None]:
    """Return a callback for `runner.verify`."""

    limit = "" if math.isinf(seconds) else f" of {seconds:.0f}"

    def update(progress: Progress) -> None:
        found = f", violated: {' '.join(progress.violated)}" if progress.violated else ""
        display.say(
            f"{subject}: {progress.method}, {progress.done}/{progress.planned} programs, "
            f"{progress.runs:,} runs, {progress.seconds:.0f}{limit} s{found}"
        )

    return update
