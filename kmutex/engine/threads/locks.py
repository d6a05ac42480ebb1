"""Locks under the scheduler's control, and the present run.

Of `threading` only Lock and RLock are replaced: Condition, Event, Semaphore, Barrier and queue.Queue are written in
Python and use them, so they are under control too. Any thread may take a free lock, not only the one that has waited
longest.
"""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from kmutex.engine.observer import UncontrolledError

if TYPE_CHECKING:
    from kmutex.engine.threads.run import ThreadRun


class Abandoned(SystemExit):
    """Unwinds a thread whose run is over. A SystemExit, so that a thread of the subject ends without a message."""


class World:
    """The present run, if any, for the replaced primitives."""

    run: ThreadRun | None = None
    loop_time: Callable[[], float] | None = None
    """The time in a run of tasks."""


class CoopLock:
    """A threading.Lock whose waiting is a choice of the scheduler."""

    def __init__(self) -> None:
        self._taken = False
        self._forsaken = False
        run = World.run
        self._born = 0 if run is None else run.number
        # The same name for the same lock in another run of the same schedule.
        self.name = id(self) if run is None else run.lock_name()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if not blocking and timeout != -1:
            raise ValueError("can't specify a timeout for a non-blocking call")
        if timeout != timeout or (timeout < 0 and timeout != -1):
            raise ValueError("timeout value must be a non-negative number")
        if timeout > threading.TIMEOUT_MAX:
            raise OverflowError("timeout value is too large")
        run = World.run
        if run is None or run.aside:
            return self._acquire_aside(blocking and timeout != 0)
        if not run.mine():
            raise Abandoned
        run.point(self.name, sync=True)
        run.touch(self.name)
        if self._taken:
            if not blocking or timeout == 0:
                return False
            return run.wait_for(self, None if timeout < 0 else timeout)
        self.take()
        return True

    def _acquire_aside(self, blocking: bool) -> bool:
        if self._taken and blocking:
            raise UncontrolledError("would wait for a lock that is not released")
        taken, self._taken = self._taken, True
        return not taken

    def free(self) -> bool:
        """Return whether a waiter could take it now."""
        return not self._taken

    def take(self) -> None:
        """Take it; it must be free."""
        self._taken, self._forsaken = True, False
        run = World.run
        if run is not None and self.older_than(run):
            run.taken.add(self)

    def older_than(self, run: ThreadRun) -> bool:
        """Return whether it was made before this run, and so may outlive it."""
        return self._born != run.number

    def set_free(self) -> None:
        """Free it after the end of its holder's run; the holder may still release it while it is unwound."""
        self._taken, self._forsaken = False, self._taken

    def release(self) -> None:
        run = World.run
        if run is not None and not run.aside and not run.mine():
            self._taken = False
            return
        if not self._taken and not self._forsaken and not (run is not None and run.abandoning):
            raise RuntimeError("release unlocked lock")
        self._taken = False
        if run is not None and not run.aside:
            run.touch(self.name)
            run.point(self.name, sync=True)

    def locked(self) -> bool:
        run = World.run
        if run is not None and not run.aside and run.mine():
            run.point(self.name, sync=True)
            run.touch(self.name)
        return self._taken

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        self._taken = False

    acquire_lock = acquire
    release_lock = release
    locked_lock = locked


class CoopRLock:
    """A threading.RLock that uses a CoopLock."""

    def __init__(self) -> None:
        self._lock = CoopLock()
        self._owner: object = None
        self._count = 0

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        me = _whoami()
        if self._owner == me:
            self._count += 1
            return True
        if not self._lock.acquire(blocking, timeout):
            return False
        self._owner, self._count = me, 1
        run = World.run
        if run is not None and self._lock.older_than(run):
            run.taken.add(self)
        return True

    def set_free(self) -> None:
        """Free it after the end of its holder's run."""
        self._owner, self._count = None, 0

    def release(self) -> None:
        run = World.run
        if self._owner != _whoami():
            if run is not None and (run.abandoning or not run.mine()):
                return
            raise RuntimeError("cannot release un-acquired lock")
        self._count -= 1
        if not self._count:
            self._owner = None
            self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_owned(self) -> bool:
        return self._owner == _whoami()

    def _recursion_count(self) -> int:
        return self._count if self._is_owned() else 0

    def _release_save(self) -> tuple[int, object]:
        saved = (self._count, self._owner)
        self._count, self._owner = 0, None
        self._lock.release()
        return saved

    def _acquire_restore(self, saved: tuple[int, object]) -> None:
        self._lock.acquire()
        self._count, self._owner = saved

    def _at_fork_reinit(self) -> None:
        self.__init__()  # type: ignore[misc]


def _whoami() -> object:
    run = World.run
    return "aside" if run is not None and run.aside else _thread.get_ident()
