"""How long a process has been silent, by a clock that stops while a busy machine gives it no core."""

from __future__ import annotations

import os
import time

_real_monotonic = time.monotonic


class Watchdog:
    """Counts the seconds since the last sign of a process, without those in which it was ready but got no core.

    So processor time counts for a process that computes, and real time for one that sleeps. Linux reports how long each
    thread waited for a core; on systems without that, all real time counts.
    """

    def __init__(self, pid: int | None = None) -> None:
        """Watch the process with this number; None for this one."""
        self._tasks = f"/proc/{os.getpid() if pid is None else pid}/task"
        self._seen: dict[str, tuple[int, int]] = {}
        """By thread, including ended ones: nanoseconds on a core, and waiting for one."""
        self.sign()

    def sign(self) -> None:
        """Note that it is alive, and count from now."""
        self._before = self._read()
        self._since = _real_monotonic()

    def silent(self) -> float:
        """Return the seconds since the last sign."""
        real = _real_monotonic() - self._since
        ran, kept = (now - before for now, before in zip(self._read(), self._before, strict=True))
        # Several waiting threads can add up to more than the time that has passed.
        return min(real, max(ran, real - kept))

    def _read(self) -> tuple[float, float]:
        # Without a codec or a Path: it is read during a run, in which an import could wait for a lock of the run.
        try:
            for task in os.listdir(self._tasks):
                with open(f"{self._tasks}/{task}/schedstat", "rb", buffering=0) as file:
                    ran, kept, _ = file.read().split()
                self._seen[task] = (int(ran), int(kept))
        except (OSError, ValueError):
            pass  # There is no such file on this system, or the process or thread has just ended.
        return sum(ran for ran, _ in self._seen.values()) / 1e9, sum(kept for _, kept in self._seen.values()) / 1e9
