"""Subjects for the command: a few sound lockers, and many ways to misbehave. Copied to where the command runs."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable
from typing import Any


class Sound:
    """A closed gate for each waiter, opened by whoever hands the key on. The first in line holds."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._lines: dict[Any, list[threading.Lock]] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._lines)

    def lock(self, key: Any, timeout: float | None = None) -> None:
        gate = threading.Lock()
        gate.acquire()
        try:
            with self._guard:
                line = self._lines.setdefault(key, [])
                line.append(gate)
                if line[0] is gate:
                    return
            if not gate.acquire(timeout=-1 if timeout is None else timeout):
                raise TimeoutError
        except BaseException as error:
            with self._guard:
                if line[0] is not gate:
                    line.remove(gate)
                elif isinstance(error, TimeoutError):
                    return  # The grant came first.
                else:
                    self._hand_on(key)
            raise

    def unlock(self, key: Any) -> None:
        with self._guard:
            if key not in self._lines:
                raise RuntimeError("nobody holds this key")
            self._hand_on(key)

    def _hand_on(self, key: Any) -> None:
        line = self._lines[key]
        del line[0]
        if line:
            line[0].release()
        else:
            del self._lines[key]


class Evicts(Sound):
    """Known bad: forgets the key at the first unlock, waiters or not."""

    def unlock(self, key: Any) -> None:
        with self._guard:
            line = self._lines.pop(key, None)
            if line is None:
                raise RuntimeError("nobody holds this key")
            del line[0]
            if line:
                line[0].release()


class NoTimeout(Sound):
    """Sound, but a waiter can't give up."""

    def lock(self, key: Any) -> None:  # type: ignore[override]
        super().lock(key)


class Prints(Evicts):
    """Known bad, and says much on both outputs, also what looks like an answer of the worker."""

    def unlock(self, key: Any) -> None:
        for stream in (sys.stdout, sys.stderr, sys.__stdout__):
            print('{"kind": "ready"}\n' * 50, file=stream, flush=True)
        os.write(1, b'{"kind": "outcome", "outcome": {}}\n\xff\xfe')
        super().unlock(key)


class OddWords(Sound):
    """Known bad: raises where it should not, in words that no encoding and no XML takes as they are."""

    def __init__(self) -> None:
        super().__init__()
        self._calls = 0

    def lock(self, key: Any, timeout: float | None = None) -> None:
        self._calls += 1
        if self._calls == 2:
            raise OSError("\x00\x1b[31m\ud800 caf\xe9 ]]> [bold]")
        super().lock(key, timeout)


class Spinning(Sound):
    """Asks again and again whether the key is free, without a pause: a run with a waiter has no end."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        begun = time.monotonic()
        while True:
            with self._guard:
                if key not in self._lines:
                    self._lines[key] = [threading.Lock()]
                    return
            if timeout is not None and time.monotonic() - begun >= timeout:
                raise TimeoutError

    def _hand_on(self, key: Any) -> None:
        del self._lines[key]


class Slow(Sound):
    """Sound, but each call takes so much of the processor that nothing is decided in a second."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        sum(range(200_000))
        super().lock(key, timeout)


class AsyncSound:
    """A future for each waiter, of one loop. The first in line holds."""

    def __init__(self) -> None:
        self._lines: dict[Any, list[asyncio.Future[None]]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._lines)

    async def lock(self, key: Any) -> None:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if self._loop is not loop:
            raise RuntimeError("used by a second loop")
        line = self._lines.setdefault(key, [])
        gate = loop.create_future()
        line.append(gate)
        try:
            if line[0] is not gate:
                await gate
        except BaseException:
            if line[0] is gate:
                self.unlock(key)
            else:
                line.remove(gate)
            raise

    def unlock(self, key: Any) -> None:
        if key not in self._lines:
            raise RuntimeError("nobody holds this key")
        line = self._lines[key]
        del line[0]
        if not line:
            del self._lines[key]
        elif not line[0].done():
            line[0].set_result(None)


class AsyncPlain:
    """The same by a plain call that returns something to await."""

    def __init__(self) -> None:
        self._inner = AsyncSound()

    def __len__(self) -> int:
        return len(self._inner)

    def lock(self, key: Any) -> Awaitable[None]:
        return self._inner.lock(key)

    def unlock(self, key: Any) -> None:
        self._inner.unlock(key)


class AsyncKeepsCancelled(AsyncSound):
    """Known bad: a cancelled waiter stays in line."""

    async def lock(self, key: Any) -> None:
        self._loop = self._loop or asyncio.get_running_loop()
        if self._loop is not asyncio.get_running_loop():
            raise RuntimeError("used by a second loop")
        line = self._lines.setdefault(key, [])
        gate = self._loop.create_future()
        line.append(gate)
        if line[0] is not gate:
            await gate


class NoLock:
    """Has nothing at all."""


class NoUnlock:
    """Has no unlock."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        pass


class _Unlocks(NoUnlock):
    """Does nothing: everybody holds every key."""

    def unlock(self, key: Any) -> None:
        pass


class CoroutineUnlock:
    """Its unlock is a coroutine function, and nobody waits for anybody."""

    async def lock(self, key: Any) -> None:
        pass

    async def unlock(self, key: Any) -> None:
        pass


class NoKey:
    """Takes no key."""

    def lock(self, *, timeout: float | None = None) -> None:
        pass

    def unlock(self) -> None:
        pass


class FactoryRaises(_Unlocks):
    """Cannot be made."""

    def __init__(self) -> None:
        raise ValueError("no\nway")


class FactoryHangs(_Unlocks):
    """Is never made."""

    def __init__(self) -> None:
        while True:
            pass


class FactoryExits(_Unlocks):
    """Ends the interpreter where it should be made."""

    def __init__(self) -> None:
        sys.exit(0)


class FactoryIsKilled(_Unlocks):
    """Is killed while it is made."""

    def __init__(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class FactoryNeedsArguments(_Unlocks):
    """Is not made without arguments."""

    def __init__(self, size: int) -> None:
        pass


class AttributeRaises(_Unlocks):
    """Its lock cannot be looked at."""

    @property
    def lock(self) -> Any:  # type: ignore[override]
        raise OSError("not now")


not_callable = 5
the_same = Sound()


def same() -> Sound:
    """Gives the same object each time."""
    return the_same


class SharesItsGuard:
    """One holder at a time, of all keys of all lockers."""

    _one = threading.Semaphore(1)

    def lock(self, key: Any) -> None:
        self._one.acquire()

    def unlock(self, key: Any) -> None:
        self._one.release()


class Spins(_Unlocks):
    """Computes without end in lock, with no scheduling point."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        while True:
            pass


class WaitsForEver(_Unlocks):
    """Waits for nobody in lock."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        threading.Event().wait()


class Raises(_Unlocks):
    """Raises in each lock."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        raise RuntimeError("nope")


class Leaves(_Unlocks):
    """Ends the process in lock."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        os._exit(0)


class Exits(_Unlocks):
    """Ends the interpreter in lock."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        sys.exit(0)


class ExitsLater(Sound):
    """Tries to leave when it is contended for."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        if key in self._lines:
            sys.exit(0)
        super().lock(key, timeout)


class LeavesLater(Sound):
    """Ends the process when it is contended for."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        if key in self._lines:
            os._exit(0)
        super().lock(key, timeout)


class SegmentationFault(_Unlocks):
    """Crashes in lock."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        import ctypes

        ctypes.string_at(0)


class ForeignLock:
    """Waits in a lock that is not Python's own."""

    def __init__(self) -> None:
        import multiprocessing

        self._lock = multiprocessing.Lock()

    def lock(self, key: Any, timeout: float | None = None) -> None:
        if not self._lock.acquire(timeout=timeout):
            raise TimeoutError

    def unlock(self, key: Any) -> None:
        self._lock.release()


class LeavesChildren(_Unlocks):
    """Starts a process that would outlive it, and hangs."""

    def __init__(self) -> None:
        import subprocess

        program = "import time; time.sleep(1000)"
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.DEVNULL)
        while True:
            pass


class AsyncSpins(_Unlocks):
    """Computes without end in lock, and awaits nothing."""

    async def lock(self, key: Any) -> None:  # type: ignore[override]
        while True:
            pass


class AsyncYieldsForEver(_Unlocks):
    """Gives up its turn in lock without end."""

    async def lock(self, key: Any) -> None:  # type: ignore[override]
        while True:
            await asyncio.sleep(0)


class AsyncWaitsForEver(_Unlocks):
    """Waits for nobody in lock."""

    async def lock(self, key: Any) -> None:  # type: ignore[override]
        await asyncio.Event().wait()


class LengthExits(Sound):
    """Ends the interpreter when its length is asked for."""

    def __len__(self) -> int:
        sys.exit(0)


class ErrorWithoutWords(_Unlocks):
    """Raises an error that can't even be printed."""

    def lock(self, key: Any, timeout: float | None = None) -> None:
        class SpeechlessError(Exception):
            def __str__(self) -> str:
                raise OSError("speechless")

        raise SpeechlessError
