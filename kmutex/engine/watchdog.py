"""How long a process has been silent, by a clock that a busy machine does not drive on."""

from __future__ import annotations

import os
import time

_real_monotonic = time.monotonic


class Watchdog:
    """Counts the seconds since the last sign of a process, without those in which it was ready and got no core.

    A process that computes is so charged with its processor time, and one that sleeps with real time. Linux says how
    long each thread was kept from a core; where no system says it, all of real time counts.
    """

    def __init__(self, pid: int | None = None) -> None:
        """pid: of the process that is watched; None: this one."""
        self._tasks = f"/proc/{os.getpid() if pid is None else pid}/task"
        self._seen: dict[str, tuple[int, int]] = {}
        """Of each thread, also of those that have ended: nanoseconds on a core, and kept from one."""
        self.sign()

    def sign(self) -> None:
        """It is alive: count from here."""
        self._before = self._read()
        self._since = _real_monotonic()

    def silent(self) -> float:
        """The seconds since the last sign."""
        real = _real_monotonic() - self._since
        ran, kept = (now - before for now, before in zip(self._read(), self._before, strict=True))
        # Threads that are kept waiting together count more than the time that has passed.
        return min(real, max(ran, real - kept))

    def _read(self) -> tuple[float, float]:
        # Without a codec or a Path: it is read amid a run, in which an import could wait for a lock of the run's.
        try:
            for task in os.listdir(self._tasks):
                with open(f"{self._tasks}/{task}/schedstat", "rb", buffering=0) as file:
                    ran, kept, _ = file.read().split()
                self._seen[task] = (int(ran), int(kept))
        except (OSError, ValueError):
            pass  # There is no such file here, or the process or a thread of it has just ended.
        return sum(ran for ran, _ in self._seen.values()) / 1e9, sum(kept for _, kept in self._seen.values()) / 1e9
