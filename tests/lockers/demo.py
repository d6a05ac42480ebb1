"""Scripts that show by hand what a locker does wrong, on real threads and a real event loop, without kmutex.

Each script takes a factory and returns None, or the first thing it saw that the contract forbids, as a pair
of clause and sentence. A script for threads may also be told a line of source at which its first waiter halts
until the script lets it go on; a subject without such a line runs on, so that every script fits every locker.

    python -m tests.lockers.demo      # runs them on the lockers of the catalogue and prints what was seen
"""

from __future__ import annotations

import asyncio
import contextlib
import linecache
import random
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from types import FrameType
from typing import Any

from tests.lockers.catalogue import Row, entries, load

Finding = tuple[str, str] | None
Factory = Callable[[], Any]

SHORT = 0.001
KEYS = ("k", "", 0, None, (1, "a"), -1, -2, "1", 1)
# Seconds between two looks at a state. Deadlines count looks, not seconds, so that a machine that stood still
# for a while does not end them.
POLL = 0.0005
LOOKS = 40_000
# Looks after which a waiter counts as never woken; only a locker that does not wake it uses them up.
PATIENCE = 1_500


def comes(state: Callable[[], object], looks: int) -> bool:
    """Whether a state is seen in that many looks."""
    for _ in range(looks):
        if state():
            return True
        time.sleep(POLL)
    return bool(state())


def until(state: Callable[[], object], what: str = "what the script waits for") -> None:
    """Wait for a state; to miss it is an error of the script, never a finding."""
    if not comes(state, LOOKS):
        raise RuntimeError(f"never came: {what}")


def source(frame: FrameType) -> str:
    return linecache.getline(frame.f_code.co_filename, frame.f_lineno)


def file_of(call: Callable[..., object]) -> str:
    """The file with the code of a function or method."""
    return str(getattr(call, "__func__", call).__code__.co_filename)


def size(locker: Any) -> int:
    """Its length; 0 where it has none."""
    return len(locker) if hasattr(type(locker), "__len__") else 0


def kept(locker: Any) -> Finding:
    """Whether it has an entry, where no key is in use."""
    return ("KM-IDLE", "an entry stayed") if size(locker) else None


class Parked:
    """True once a thread has stood in a wait of the subject for several looks.

    All that a waiter can block on ends in one of these lines, the second one in threading.Condition.wait; the last is
    a locker's that polls.
    """

    lines = (".acquire(timeout=", "waiter.acquire(", "time.sleep(0.001)")
    looks = 3

    def __init__(self, ident: int | None, file: str) -> None:
        self._ident, self._file = ident, file
        self._place: tuple[int, int] | None = None
        self._seen = 0

    def __call__(self) -> bool:
        frame = sys._current_frames().get(self._ident or 0)
        if frame is None or not any(line in source(frame) for line in self.lines):
            self._place = None
            return False
        place = (id(frame), frame.f_lasti)
        self._seen = self._seen + 1 if place == self._place else 1
        self._place = place
        caller: FrameType | None = frame
        while caller is not None and caller.f_code.co_filename != self._file:
            caller = caller.f_back
        return caller is not None and self._seen >= self.looks


class Caller:
    """A thread that makes one call; with `stop`, it halts before the first line that contains that text."""

    def __init__(self, call: Callable[..., object], *args: object, stop: str = "") -> None:
        self._call, self._args, self._stop = call, args, stop
        self._file = file_of(call)
        self._at_line = threading.Event()
        self._go = threading.Event()
        self._went_on = False
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        if self._stop:
            sys.settrace(self._trace)
        try:
            self._call(*self._args)
        except Exception as error:
            self.error = error
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename not in (self._file, threading.__file__):
            return None
        if event == "line" and not self._at_line.is_set() and self._stop in source(frame):
            sys.settrace(None)
            self._at_line.set()
            self._go.wait()
            self._went_on = True
        return self._trace

    @property
    def _standing(self) -> bool:
        return self._at_line.is_set() and not self._go.is_set()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def halted(self) -> Caller:
        """The same, once it stands at its line or has ended."""
        until(lambda: self._standing or self.ended, "a halt or an end")
        return self

    def settled(self) -> Caller:
        """The same, once it stands at its line, has ended, or is blocked."""
        parked = Parked(self._thread.ident, self._file)

        def waits() -> bool:
            # Who was told to go on may still stand where it was halted.
            return (self._went_on or not self._at_line.is_set()) and parked()

        until(lambda: self._standing or self.ended or waits(), "a halt, an end or a wait")
        return self

    def resume(self) -> None:
        self._go.set()

    def starves(self) -> bool:
        """Whether its call has not come to an end within the patience."""
        return not comes(lambda: self.ended, PATIENCE)

    def holds(self) -> bool:
        """Let it go on, wait for the end of its call, and say whether it returned."""
        self._go.set()
        until(lambda: self.ended, "the end of the call")
        return self.error is None


def takes(locker: Any, key: Hashable, timeout: float = 0) -> bool:
    """Whether a lock with this timeout returns holding."""
    try:
        locker.lock(key, timeout)
    except TimeoutError:
        return False
    return True


def refuses(call: Callable[..., object], *args: object) -> bool:
    """Whether the call raises."""
    try:
        call(*args)
    except Exception:
        return True
    return False


# Threads


def alone(make: Factory, stop: str = "") -> Finding:
    """One caller: stray unlock, lock, failed tries, timeout, unlock, and the map is empty after each; odd keys too."""
    locker = make()
    for key in KEYS:
        if not refuses(locker.unlock, key):
            return "KM-UNHELD", "unlock of a key that nobody held was accepted"
        if size(locker):
            return "KM-ATOMIC", "a failed unlock left an entry"
        locker.lock(key)
        if takes(locker, key):
            return "KM-EXCL", "a second caller took the held key"
        for other in KEYS:
            if other != key:
                if not takes(locker, other):
                    return "KM-INDEP", f"{other!r} could not be taken with {key!r} held"
                locker.unlock(other)
        locker.unlock(key)
        if size(locker):
            return "KM-IDLE", "the key is idle, its entry is still there"
        if not refuses(locker.unlock, key):
            return "KM-UNHELD", "a second unlock was accepted"
        if not takes(locker, key):
            return "KM-EXPIRED", "a try did not take a free key"
        locker.unlock(key)
        if not refuses(locker.lock, key, -1.0) or not refuses(locker.lock, key, float("nan")) or size(locker):
            return "KM-EXPIRED", "a negative or NaN timeout was accepted"
    return None


def failed_try(make: Factory, stop: str = "") -> Finding:
    """A try on a held key leaves no trace."""
    locker = make()
    locker.lock("k")
    if takes(locker, "k"):
        return "KM-EXCL", "a second caller took the held key"
    locker.unlock("k")
    if size(locker):
        return "KM-EXPIRED", "the failed try left an entry"
    return None


def timed_out(make: Factory, stop: str = "") -> Finding:
    """A timeout on a held key leaves no trace."""
    locker = make()
    locker.lock("k")
    if takes(locker, "k", SHORT):
        return "KM-CANCEL", "a caller whose timeout had passed entered a held key"
    if takes(locker, "k"):
        return "KM-EXCL", "after a timeout a second caller took the held key"
    locker.unlock("k")
    if not takes(locker, "k"):
        return "KM-CANCEL", "the key went to a caller that had timed out"
    locker.unlock("k")
    if size(locker):
        return "KM-CANCEL", "the caller that timed out left its reference"
    return None


def newcomer(make: Factory, stop: str = "") -> Finding:
    """A waiter, perhaps halted on its way, is handed the key; no newcomer may enter beside it."""
    locker = make()
    locker.lock("k")
    waiter = Caller(locker.lock, "k", stop=stop).settled()
    locker.unlock("k")
    if not waiter.holds():
        return "KM-LIVE", f"the waiter was not granted: {waiter.error!r}"
    if takes(locker, "k"):
        return "KM-EXCL", "a newcomer entered beside the waiter that was handed the key"
    locker.unlock("k")
    return kept(locker)


def woken_and_newcomer(make: Factory, stop: str = "") -> Finding:
    """A newcomer comes while the woken waiter stands still."""
    locker = make()
    locker.lock("k")
    waiter = Caller(locker.lock, "k", stop=stop).settled()
    locker.unlock("k")
    waiter.halted()
    entered = takes(locker, "k")
    waiter.holds()
    if entered:
        return "KM-EXCL", "a newcomer and the woken waiter both hold the key"
    locker.unlock("k")
    return kept(locker)


def two_counted(make: Factory, stop: str = "") -> Finding:
    """Two waiters count themselves, the first halted on its way; then all unlock in turn."""
    locker = make()
    locker.lock("k")
    first = Caller(locker.lock, "k", stop=stop).settled()
    second = Caller(locker.lock, "k").settled()
    first.resume()
    first.settled()
    locker.unlock("k")
    until(lambda: first.ended or second.ended, "one of the two")
    locker.unlock("k")
    first.holds()
    second.holds()
    if takes(locker, "k"):
        return "KM-EXCL", "a newcomer entered beside the last waiter"
    locker.unlock("k")
    return kept(locker)


def granted_late(make: Factory, stop: str = "") -> Finding:
    """The grant comes between the timeout of the only waiter and its clean-up."""
    locker = make()
    locker.lock("k")
    waiter = Caller(locker.lock, "k", SHORT, stop=stop).halted()
    locker.unlock("k")
    if waiter.holds():
        locker.unlock("k")
    if not takes(locker, "k"):
        return "KM-RACE", "the waiter raised TimeoutError, and its grant stays with it"
    locker.unlock("k")
    return kept(locker)


def woken_late(make: Factory, stop: str = "") -> Finding:
    """The wake-up comes between the timeout of the first waiter and its clean-up; a second one waits."""
    locker = make()
    locker.lock("k")
    first = Caller(locker.lock, "k", SHORT, stop=stop).halted()
    second = Caller(locker.lock, "k").settled()
    locker.unlock("k")
    if first.holds():
        locker.unlock("k")
    if second.starves():
        return "KM-RACE", "the first waiter raised with the wake-up in its hand, the second never got the key"
    locker.unlock("k")
    return kept(locker)


def first_gives_up(make: Factory, stop: str = "") -> Finding:
    """The first of two waiters times out while the key is held."""
    locker = make()
    locker.lock("k")
    first = Caller(locker.lock, "k", SHORT, stop=stop).halted()
    second = Caller(locker.lock, "k").settled()
    if first.holds():
        return "KM-CANCEL", "a caller whose timeout had passed entered a held key"
    locker.unlock("k")
    second.holds()
    if refuses(locker.unlock, "k"):
        return "KM-EXCL", "the second waiter was let in while the key was held, and could not unlock it"
    return kept(locker)


def in_order(make: Factory, stop: str = "") -> Finding:
    """Two waiters, and one between them that gave up, are granted in the order of their requests; no newcomer is."""
    locker = make()
    locker.lock("k")
    first = Caller(locker.lock, "k").settled()
    if takes(locker, "k", SHORT):
        return "KM-CANCEL", "a caller whose timeout had passed entered a held key"
    second = Caller(locker.lock, "k").settled()
    locker.unlock("k")
    late = takes(locker, "k")
    until(lambda: first.ended or second.ended, "one of the two")
    overtaken = second.ended
    locker.unlock("k")
    first.holds()
    second.holds()
    locker.unlock("k")
    if late:
        return "KM-HANDOFF", "a newcomer was granted before the waiters"
    return ("KM-FIFO", "the second waiter was granted before the first") if overtaken else None


def barging(make: Factory, stop: str = "") -> Finding:
    """A newcomer in the thread of the unlock, which has the guard and so keeps the notified waiter out."""
    locker = make()
    locker.lock("k")
    waiter = Caller(locker.lock, "k").settled()
    with locker._freed:
        locker.unlock("k")
        entered = takes(locker, "k")
    if entered:
        locker.unlock("k")
    waiter.holds()
    locker.unlock("k")
    return ("KM-HANDOFF", "a newcomer entered before the waiter that unlock notified") if entered else None


class Interrupt(BaseException):
    """What a signal handler raises out of a blocked call."""


def interrupted(make: Factory, stop: str = "") -> Finding:
    """A signal breaks the wait of the main thread."""
    locker = make()
    locker.lock("k")
    left = threading.Event()
    raised: list[bool] = []

    def raise_once(signum: int, frame: FrameType | None) -> None:
        if not raised:
            raised.append(True)
            raise Interrupt

    def poke(main: int) -> None:
        until(Parked(main, file_of(locker.lock)), "the wait of the main thread")
        while not left.is_set():
            signal.pthread_kill(main, signal.SIGUSR1)
            left.wait(0.05)

    before = signal.signal(signal.SIGUSR1, raise_once)
    helper = threading.Thread(target=poke, args=(threading.get_ident(),), daemon=True)
    helper.start()
    try:
        locker.lock("k")
    except Interrupt:
        pass
    finally:
        left.set()
        # Without a limit: a signal that comes after the handler is gone would end the process.
        helper.join()
        signal.signal(signal.SIGUSR1, before)
    locker.unlock("k")
    if size(locker):
        return "KM-INTERRUPT", "the interrupted caller left its reference"
    if not takes(locker, "k"):
        return "KM-INTERRUPT", "the key went to the interrupted caller"
    locker.unlock("k")
    return None


def other_key_woken(make: Factory, stop: str = "") -> Finding:
    """Two keys, a waiter each; the key of the second waiter is unlocked."""
    locker = make()
    locker.lock("a")
    locker.lock("b")
    other = Caller(locker.lock, "b").settled()
    waiter = Caller(locker.lock, "a").settled()
    locker.unlock("a")
    if waiter.starves():
        return "KM-LIVE", "the key was free, its waiter was not woken"
    locker.unlock("a")
    locker.unlock("b")
    other.holds()
    locker.unlock("b")
    return kept(locker)


def many_keys(make: Factory, stop: str = "") -> Finding:
    """Nine keys can be held at once."""
    locker = make()
    for key in range(9):
        if not takes(locker, key):
            return "KM-INDEP", f"key {key} could not be taken with {size(locker)} other keys held"
    for key in range(9):
        locker.unlock(key)
    return kept(locker)


def equal_keys(make: Factory, stop: str = "") -> Finding:
    """Keys that are equal are one key."""
    locker = make()
    locker.lock(1)
    if takes(locker, True):
        return "KM-EXCL", "1 and True were held at once"
    locker.unlock(1.0)
    return kept(locker)


def other_key_free(make: Factory, stop: str = "") -> Finding:
    """While one key is waited for, another can be taken."""
    locker = make()
    locker.lock("a")
    waiter = Caller(locker.lock, "a", stop=stop).settled()
    if not takes(locker, "b"):
        waiter.resume()
        return "KM-INDEP", "a free key could not be taken while somebody waited for another"
    locker.unlock("b")
    locker.unlock("a")
    waiter.holds()
    locker.unlock("a")
    return kept(locker)


def released_twice(make: Factory, stop: str = "") -> Finding:
    """A lease is released twice with a later holder between."""
    locker = make()
    with locker.hold("k") as lease:
        lease.release()
    locker.lock("k")
    if not refuses(lease.release) or takes(locker, "k"):
        return "KM-TOKEN", "the second release of a lease ended the grant of a later holder"
    locker.unlock("k")
    return kept(locker)


def released_stale(make: Factory, stop: str = "") -> Finding:
    """A lease is released after unlock(key) had ended its grant."""
    locker = make()
    holding = locker.hold("k")
    lease = holding.__enter__()
    locker.unlock("k")
    locker.lock("k")
    accepted = not refuses(lease.release) or takes(locker, "k")
    with contextlib.suppress(RuntimeError):
        holding.__exit__(None, None, None)
    if accepted:
        return "KM-TOKEN", "an old lease ended the grant of a later holder"
    locker.unlock("k")
    return kept(locker)


THREADS: dict[str, Callable[..., Finding]] = {
    script.__name__: script
    for script in (
        alone,
        failed_try,
        timed_out,
        newcomer,
        woken_and_newcomer,
        two_counted,
        granted_late,
        woken_late,
        first_gives_up,
        in_order,
        interrupted,
        other_key_woken,
        many_keys,
        equal_keys,
        other_key_free,
        released_twice,
        released_stale,
    )
}


def contend(make: Factory, seed: int, callers: int = 4, rounds: int = 60) -> Finding:
    """Threads over two keys with all kinds of timeouts; at the end the map is empty."""
    locker = make()
    inside = {"a": 0, "b": 0}
    overlaps: list[str] = []
    refused: list[str] = []
    granted = [0] * callers

    def work(number: int) -> None:
        pick = random.Random(f"{seed}/{number}")
        for _ in range(rounds):
            key = pick.choice("ab")
            try:
                locker.lock(key, pick.choice((None, None, 0, SHORT / 10, SHORT)))
            except TimeoutError:
                continue
            inside[key] += 1
            if inside[key] != 1:
                overlaps.append(key)
            time.sleep(0)
            inside[key] -= 1
            granted[number] += 1
            if refuses(locker.unlock, key):
                refused.append(key)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(callers)]
    for thread in threads:
        thread.start()
    if not comes(lambda: not any(thread.is_alive() for thread in threads), LOOKS):
        return "KM-LIVE", f"a caller never ended, seed {seed}"
    if overlaps:
        return "KM-EXCL", f"two held {overlaps[0]}, seed {seed}"
    if refused:
        return "KM-UNHELD", f"a holder of {refused[0]} could not unlock it, seed {seed}"
    if not all(granted):
        return "KM-LIVE", f"a caller was never granted, seed {seed}"
    if size(locker):
        return "KM-IDLE", f"{size(locker)} entries stayed, seed {seed}"
    return None if takes(locker, "a") and takes(locker, "b") else ("KM-LIVE", f"a key can't be taken, seed {seed}")


# Asyncio

Script = Callable[[Any], Awaitable[Finding]]


async def settle() -> None:
    """Return once no task can run on."""
    loop: Any = asyncio.get_running_loop()
    await asyncio.sleep(0)
    while loop._ready:
        await asyncio.sleep(0)


def ask(locker: Any, key: Hashable = "k") -> asyncio.Task[None]:
    async def call() -> None:
        # What lock() returns need not be a coroutine.
        await locker.lock(key)

    return asyncio.get_running_loop().create_task(call())


async def settled(*tasks: asyncio.Task[None]) -> Any:
    """These, or this one, once no task can run on."""
    await settle()
    return tasks if len(tasks) > 1 else tasks[0]


def holding(*tasks: asyncio.Task[None]) -> int:
    """How many of the calls have returned."""
    return sum(task.done() and not task.cancelled() and task.exception() is None for task in tasks)


async def aio_alone(locker: Any) -> Finding:
    """One caller: stray unlock, lock, unlock, and the map is empty after each; with odd keys too."""
    for key in KEYS:
        if not refuses(locker.unlock, key):
            return "KM-UNHELD", "unlock of a key that nobody held was accepted"
        if size(locker):
            return "KM-ATOMIC", "a failed unlock left an entry"
        await locker.lock(key)
        other = ask(locker, key)
        await settle()
        if holding(other):
            return "KM-EXCL", "a second caller took the held key"
        locker.unlock(key)
        await settle()
        locker.unlock(key)
        await settle()
        if size(locker):
            return "KM-IDLE", "the key is idle, its entry is still there"
        if not refuses(locker.unlock, key):
            return "KM-UNHELD", "a second unlock was accepted"
    return None


async def aio_newcomer(locker: Any) -> Finding:
    """A newcomer runs between unlock and the run of the waiter that it wakes."""
    await locker.lock("k")
    waiter = await settled(ask(locker))
    late = ask(locker)
    locker.unlock("k")
    await settle()
    if holding(waiter, late) != 1:
        return "KM-EXCL", f"{holding(waiter, late)} hold the key"
    locker.unlock("k")
    await settle()
    locker.unlock("k")
    return kept(locker)


async def aio_cancelled(locker: Any) -> Finding:
    """A waiter is cancelled while the key is held."""
    await locker.lock("k")
    waiter = await settled(ask(locker))
    waiter.cancel()
    await settle()
    if holding(waiter):
        return "KM-CANCEL", "the cancelled caller entered a held key"
    late = await settled(ask(locker))
    if holding(late):
        return "KM-EXCL", "after a cancellation a second caller took the held key"
    locker.unlock("k")
    await settle()
    if not holding(late):
        return "KM-CANCEL", "the key went to the cancelled caller"
    locker.unlock("k")
    return ("KM-CANCEL", "the cancelled caller left its reference") if size(locker) else None


async def aio_first_cancelled(locker: Any) -> Finding:
    """The first of two waiters is cancelled while the key is held."""
    await locker.lock("k")
    first, second = await settled(ask(locker), ask(locker))
    first.cancel()
    await settle()
    if holding(first, second):
        return "KM-EXCL", "the second waiter was let in while the key was held"
    locker.unlock("k")
    await settle()
    if not holding(second):
        return "KM-LIVE", "the second waiter was never granted"
    locker.unlock("k")
    return kept(locker)


async def aio_first_of_three_cancelled(locker: Any) -> Finding:
    """The first of three waiters is cancelled while the key is held; the others keep their order."""
    await locker.lock("k")
    first, second, third = await settled(ask(locker), ask(locker), ask(locker))
    first.cancel()
    await settle()
    for task in (second, third):
        locker.unlock("k")
        await settle()
        if not holding(task):
            return "KM-FIFO", "a waiter was granted before an older one"
    locker.unlock("k")
    return kept(locker)


async def aio_cancelled_granted(locker: Any) -> Finding:
    """The first of two waiters is cancelled after its grant, before it runs."""
    await locker.lock("k")
    first, second = await settled(ask(locker), ask(locker))
    locker.unlock("k")
    first.cancel()
    await settle()
    if holding(first):
        return "KM-RACE", "a cancelled task returned holding"
    if not holding(second):
        return "KM-RACE", "the grant of the cancelled caller did not go on to the next"
    locker.unlock("k")
    return kept(locker)


async def aio_cancelled_meets_grant(locker: Any) -> Finding:
    """Of some waiters the first are cancelled in one turn of the loop with the unlock, before or after it."""
    for count, cancelled, before in (
        (1, 1, True),
        (1, 1, False),
        (3, 2, True),
        (3, 2, False),
        (3, 3, True),
        (3, 3, False),
    ):
        await locker.lock("k")
        tasks = [ask(locker) for _ in range(count)]
        await settle()
        if not before:
            locker.unlock("k")
        for task in tasks[:cancelled]:
            task.cancel()
        if before:
            locker.unlock("k")
        await settle()
        if holding(*tasks[:cancelled]):
            return "KM-RACE", "a cancelled task returned holding"
        for task in tasks[cancelled:]:
            if not holding(task):
                return "KM-RACE", "the grant of the cancelled callers did not go on"
            locker.unlock("k")
            await settle()
        if size(locker):
            return "KM-IDLE", "an entry stayed"
    return None


async def aio_in_order(locker: Any) -> Finding:
    """Two waiters are granted in the order of their requests, and before a newcomer."""
    await locker.lock("k")
    first, second = await settled(ask(locker), ask(locker))
    late = ask(locker)
    locker.unlock("k")
    for task in (first, second, late):
        await settle()
        if not holding(task):
            return "KM-FIFO", "a waiter was granted before an older one"
        locker.unlock("k")
    return kept(locker)


async def aio_burst(locker: Any) -> Finding:
    """Three ask at once, and a fourth after the first unlock."""
    tasks = await settled([ask(locker) for _ in range(3)])
    locker.unlock("k")
    tasks.append(ask(locker))
    await settle()
    if holding(*tasks) != 2:
        return "KM-EXCL", f"one has unlocked, and {holding(*tasks)} of 4 calls have returned"
    for _ in range(3):
        locker.unlock("k")
        await settle()
    return kept(locker)


async def aio_other_key_woken(locker: Any) -> Finding:
    """Two keys, a waiter each; the key of the second waiter is unlocked."""
    await locker.lock("a")
    await locker.lock("b")
    other, waiter = await settled(ask(locker, "b"), ask(locker, "a"))
    locker.unlock("a")
    await settle()
    if not holding(waiter):
        other.cancel()
        waiter.cancel()
        return "KM-LIVE", "the key was free, its waiter was not woken"
    locker.unlock("a")
    locker.unlock("b")
    await settle()
    locker.unlock("b")
    return kept(locker)


async def aio_many_keys(locker: Any) -> Finding:
    """Nine keys can be held at once."""
    tasks = await settled([ask(locker, key) for key in range(9)])
    if holding(*tasks) != 9:
        return "KM-INDEP", f"only {holding(*tasks)} of 9 keys could be held at once"
    for key in range(9):
        locker.unlock(key)
    return kept(locker)


async def aio_equal_keys(locker: Any) -> Finding:
    """Keys that are equal are one key."""
    await locker.lock(1)
    second = await settled(ask(locker, True))
    if holding(second):
        return "KM-EXCL", "1 and True were held at once"
    locker.unlock(1.0)
    await settle()
    locker.unlock(True)
    return kept(locker)


async def aio_other_key_free(locker: Any) -> Finding:
    """While one key is waited for, another can be taken."""
    await locker.lock("a")
    waiter = await settled(ask(locker, "a"))
    other = await settled(ask(locker, "b"))
    if not holding(other):
        return "KM-INDEP", "a free key could not be taken while somebody waited for another"
    locker.unlock("b")
    locker.unlock("a")
    await settle()
    locker.unlock("a")
    return ("KM-IDLE", "an entry stayed") if size(locker) or not holding(waiter) else None


async def aio_released_twice(locker: Any) -> Finding:
    """A lease is released twice with a later holder between."""
    async with locker.hold("k") as lease:
        lease.release()
    await locker.lock("k")
    if not refuses(lease.release):
        return "KM-TOKEN", "the second release of a lease ended the grant of a later holder"
    locker.unlock("k")
    return kept(locker)


async def aio_released_stale(locker: Any) -> Finding:
    """A lease is released after unlock(key) had ended its grant."""
    hold = locker.hold("k")
    lease = await hold.__aenter__()
    locker.unlock("k")
    await locker.lock("k")
    accepted = not refuses(lease.release)
    with contextlib.suppress(RuntimeError):
        await hold.__aexit__(None, None, None)
    if accepted:
        return "KM-TOKEN", "an old lease ended the grant of a later holder"
    locker.unlock("k")
    return kept(locker)


def within_loop(script: Script, make: Factory) -> Finding:
    """Run a script on a locker in a loop of its own."""

    async def main() -> Finding:
        return await script(make())

    return asyncio.run(main())


def two_loops(make: Factory) -> Finding:
    """A locker that holds a key in one loop raises at once in another, also where nothing would wait."""
    locker = make()

    async def use(key: str) -> None:
        await locker.lock(key)

    asyncio.run(use("held"))
    before = size(locker)
    try:
        asyncio.run(use("free"))
    except RuntimeError:
        return ("KM-ATOMIC", "the call that was refused has left an entry") if size(locker) != before else None
    return "KM-LOOP", "a second event loop used the locker unopposed"


ASYNCIO: dict[str, Script] = {
    script.__name__: script
    for script in (
        aio_alone,
        aio_newcomer,
        aio_cancelled,
        aio_first_cancelled,
        aio_first_of_three_cancelled,
        aio_cancelled_granted,
        aio_cancelled_meets_grant,
        aio_in_order,
        aio_burst,
        aio_other_key_woken,
        aio_many_keys,
        aio_equal_keys,
        aio_other_key_free,
        aio_released_twice,
        aio_released_stale,
    )
}


async def aio_contend(locker: Any, seed: int, callers: int = 12, rounds: int = 40) -> Finding:
    """Tasks over two keys, some of them cancelled at any await; at the end the map is empty."""
    pick = random.Random(seed)
    inside = {"a": 0, "b": 0}
    seen = {"overlap": 0, "granted": 0, "cancelled": 0}

    async def visit(key: str) -> None:
        await locker.lock(key)
        try:
            inside[key] += 1
            seen["granted"] += 1
            seen["overlap"] += inside[key] != 1
            await asyncio.sleep(0)
        finally:
            inside[key] -= 1
            locker.unlock(key)

    async def work() -> None:
        for _ in range(rounds):
            task = asyncio.get_running_loop().create_task(visit(pick.choice("ab")))
            for _ in range(pick.randrange(8)):
                await asyncio.sleep(0)
            if pick.random() < 0.4:
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                seen["cancelled"] += 1

    workers = await settled([asyncio.get_running_loop().create_task(work()) for _ in range(callers)])
    if not all(worker.done() for worker in workers):
        return "KM-LIVE", f"a caller never ended, seed {seed}"
    if seen["overlap"]:
        return "KM-EXCL", f"two held a key, seed {seed}"
    if not seen["granted"] or not seen["cancelled"]:
        return "KM-LIVE", f"nothing was granted, or nothing cancelled: {seen}, seed {seed}"
    return ("KM-IDLE", f"{size(locker)} entries stayed, seed {seed}") if size(locker) else None


# The catalogue


def shown(row: Row) -> Finding:
    """What the script of a bad locker sees in it."""
    make = load(row)
    if row.demo == two_loops.__name__:
        return two_loops(make)
    if row.kind == "asyncio":
        return within_loop(ASYNCIO[row.demo], make)
    if row.demo == barging.__name__:
        return barging(make)
    return THREADS[row.demo](make, row.stop)


def objections(row: Row, halts: set[tuple[str, str]], seed: int) -> list[str]:
    """What all scripts, those with halts also without, and a contention see in a sound locker."""
    make = load(row)
    seen: list[tuple[str, Finding]] = []
    skipped = {"released_twice", "released_stale"} if not hasattr(make, "hold") else set()
    if "fifo" in row.without:
        skipped |= {"in_order"}
    if row.kind == "asyncio":
        for name, script in ASYNCIO.items():
            if name.removeprefix("aio_") not in skipped:
                seen.append((name, within_loop(script, make)))
        if "loop" not in row.without and row.name not in LOOP_LEFT_TO_ASYNCIO:
            seen.append(("two_loops", two_loops(make)))

        async def contention(locker: Any) -> Finding:
            return await aio_contend(locker, seed)

        seen.append(("aio_contend", within_loop(contention, make)))
    else:
        for name, script_ in THREADS.items():
            if name not in skipped:
                for stop in sorted({stop for demo, stop in halts if demo == name} | {""}):
                    seen.append((f"{name} {stop}", script_(make, stop)))
        seen.append(("contend", contend(make, seed)))
    return [f"{name}: {finding[0]} {finding[1]}" for name, finding in seen if finding]


LOOP_LEFT_TO_ASYNCIO = {"asyncio.SemaphoreAndCount"}
"""What they are made of looks at the loop where it waits, and not before."""


def halts() -> set[tuple[str, str]]:
    """Every pair of script and line in the catalogue."""
    return {(row.demo, row.stop) for row in entries() if row.stop}


def main() -> int:
    """Print what was seen in each locker; the status is 1 where something is not as the catalogue says."""
    seed = random.SystemRandom().randrange(10**6)
    print(f"Python {sys.version.split()[0]}, seed {seed}")
    wrong = 0
    for row in entries(kind=("threads", "asyncio"), origin="written", shape="lock", expect="holds"):
        found = objections(row, halts(), seed)
        wrong += bool(found)
        print(f"{row.name}: {'; '.join(found) if found else 'nothing to object'}")
    for row in entries():
        if row.demo and row.demo != "explored only":
            finding = shown(row)
            good = finding is not None and finding[0] in row.clauses
            wrong += not good
            print(f"{row.name}: {'' if good else 'NOT AS SAID: '}{finding}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
