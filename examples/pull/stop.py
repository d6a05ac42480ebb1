"""How a pull is told to end: from outside, by its time, or by one of its own parts that failed."""

from __future__ import annotations

import threading
import time

from errors import StoppedError


class Stop:
    """The brake of one pull. It is looked at between chunks, members and tries, and bounds each wait for a key.

    A wait for a key ends at the deadline; `set` does not wake it: the waiter keeps its place in the queue, and gives
    up when it is its turn.
    """

    def __init__(self, timeout: float | None = None) -> None:
        """timeout: seconds from now that the whole pull may take; None sets no end."""
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._set = threading.Event()
        self._guard = threading.Lock()
        self.cause: BaseException | None = None
        """The first failure that set it, if one did."""

    def set(self, cause: BaseException | None = None) -> None:
        """End the pull."""
        with self._guard:
            if not self._set.is_set():
                self.cause = cause
                self._set.set()

    def check(self) -> None:
        """StoppedError: it was set. TimeoutError: the time is over."""
        if self._set.is_set():
            raise StoppedError("the pull was stopped")
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise TimeoutError("the pull took longer than it may")

    def remaining(self) -> float | None:
        """Seconds until the deadline, from 0 up. Errors: those of `check`."""
        self.check()
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def sleep(self, seconds: float) -> None:
        """Wait so long, or until it is set or the time is over. Errors: those of `check`."""
        left = self.remaining()
        self._set.wait(seconds if left is None else min(seconds, left))
        self.check()
