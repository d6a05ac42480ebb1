"""The rows of the benchmark: what is done with a subject, and how long it takes or how many bytes it keeps.

Each workload takes a subject and how many times to do the work, makes a new locker, and returns one figure: seconds or
bytes for one operation. Where keys are contested it also looks whether the work was exclusive, and raises
NotExclusiveError. `prove` looks at that for the others, outside of what is timed.

Seconds are of the processor, so that what else the machine does counts little. Only where threads wait for each other
the clock on the wall counts: there the wait is the work.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any

from lockers import REFERENCES, Subject

AT_ONCE = 20
LONG = 10.0
"""Where threads change at each turn, one turn in a long time is very late; so many are looked at."""
HELD_KEYS = 1_000
"""Held at the same time in the row of many keys."""
COUNTED_KEYS = 10_000
"""Held at the same time to count the bytes of one."""
WAITERS = 200
"""Waiting at the same time to count the bytes of one."""
GIVING_UP = 20
"""Waiters that give up, of each queue."""
FIRST_KEYS = 10
"""Before the bytes that are kept are counted: what the first locks load and build is not of the keys."""
KEPT_SECONDS = 60.0
"""For all the distinct keys of one subject, tracing included."""
STUCK_SECONDS = 60.0
LOOK_SECONDS = 0.05
"""How long `prove` gives a thread that should wait to show that it does not."""
LEAST_SLEEP = 1e-6
"""Seconds. 0 would do from Python 3.11 on; before, it does not give up the processor."""
STACK_BYTES = 256 * 1024

Take = Callable[[Hashable], None]


class NotExclusiveError(Exception):
    """A subject let two in at once. Its figures would be of nothing."""


class StuckError(Exception):
    """A subject did not come to an end."""


@dataclass(frozen=True)
class Row:
    """One question. run: the figure for one operation, of a subject and a number of times. applies: to which subjects.

    counted: bytes, the same each time, so once is enough; else seconds. steady: how often is given, not fitted to how
    long it takes. within: whether the goal is a multiple of the floor. slow: done once in a round. long: how many times
    as long as others a sample takes. most_seconds: a subject that would take longer does less, and the figure says so.
    """

    name: str
    kind: str
    title: str
    run: Callable[[Subject, int], float]
    applies: Callable[[Subject], bool]
    counted: bool = False
    steady: int = 0
    within: bool = False
    slow: bool = False
    long: float = 1.0
    most_seconds: float = 0.0


def _compiled(template: str, subject: Subject, **given: str) -> Any:
    """The function ``work`` of the template, and the names for it; they are its first arguments, so locals."""
    names = subject.names()
    waits = subject.kind == "asyncio"
    enter, leave = (
        ("await b.__aenter__()", "await held.pop(k).__aexit__")
        if waits
        else (
            "b.__enter__()",
            "held.pop(k).__exit__",
        )
    )
    code = {
        "lock": subject.lock or f"b = {subject.hold}; {enter}; held[k] = b",
        "unlock": subject.unlock or f"{leave}(None, None, None)",
        "hold": subject.hold,
        "timed": subject.timed or "None",
        "names": ", ".join(names),
        **given,
    }
    space: dict[str, Any] = {}
    exec(compile(template.format(**code), f"<{subject.name}>", "exec"), space)
    return space["work"], names


LOCK_UNLOCK = """
{define} work({names}, k, times, now):
    held = {{}}
    start = now()
    for _ in times:
        {lock}
        {unlock}
    return now() - start
"""
BLOCK = """
{define} work({names}, k, times, now):
    start = now()
    for _ in times:
        {block} {hold}:
            pass
    return now() - start
"""
MANY_KEYS = """
{define} work({names}, keys, times, now):
    held = {{}}
    start = now()
    for _ in times:
        for k in keys:
            {lock}
        for k in keys:
            {unlock}
    return now() - start
"""
DISTINCT = """
{define} work({names}, times):
    held = {{}}
    n = 0
    for _ in times:
        k = f"key {{n}}"
        n += 1
        {lock}
        {unlock}
"""
CALLS = """
def work({names}):
    held = {{}}
    {define} take(k):
        {lock}
    {define} drop(k):
        {unlock}
    {define} timed(k, t):
        return {timed}
    return take, drop, timed
"""


def _form(subject: Subject) -> dict[str, str]:
    waits = subject.kind == "asyncio"
    return {"define": "async def" if waits else "def", "block": "async with" if waits else "with"}


def _loop_of(template: str, subject: Subject, times: int, keys: Any) -> float:
    if subject.kind == "asyncio":

        async def on_a_loop() -> float:
            work, names = _compiled(template, subject, **_form(subject))
            return float(await work(*names.values(), keys, itertools.repeat(None, times), time.process_time))

        return asyncio.run(on_a_loop())
    work, names = _compiled(template, subject, **_form(subject))
    return float(work(*names.values(), keys, itertools.repeat(None, times), time.process_time))


def lock_unlock(subject: Subject, times: int) -> float:
    return _loop_of(LOCK_UNLOCK, subject, times, "key") / times


def block(subject: Subject, times: int) -> float:
    return _loop_of(BLOCK, subject, times, "key") / times


def many_keys(subject: Subject, times: int) -> float:
    passes = max(1, times // HELD_KEYS)
    keys = [f"key {n}" for n in range(HELD_KEYS)]
    return _loop_of(MANY_KEYS, subject, passes, keys) / (passes * HELD_KEYS)


def calls(subject: Subject) -> tuple[Any, Any, Any]:
    """Functions that take a key, drop it, and try to take it in a time; of a new locker."""
    work, names = _compiled(CALLS, subject, **_form(subject))
    take, drop, timed = work(*names.values())
    return take, drop, timed


# ------------------------------------------------------------------------------------------------------------
# Threads


class Crew:
    """Threads for one sample. What one of them raises, the sample raises."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._errors: list[BaseException] = []

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=self._run, args=(work, *arguments), daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        deadline = time.monotonic() + STUCK_SECONDS
        for thread in self._threads:
            while thread.is_alive() and not self._errors and time.monotonic() < deadline:
                thread.join(0.2)
        if self._errors:
            raise self._errors[0]
        if any(thread.is_alive() for thread in self._threads):
            raise StuckError(f"not at its end after {STUCK_SECONDS:.0f} s")

    def _run(self, work: Callable[..., None], *arguments: Any) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            self._errors.append(error)


def prove_threads(subject: Subject) -> None:
    """NotExclusiveError: a second thread gets the key while the first holds it. StuckError: nor afterwards."""
    take, drop, _ = calls(subject)
    asks, entered = threading.Event(), threading.Event()

    def second() -> None:
        asks.set()
        take("key")
        entered.set()
        drop("key")

    crew = Crew()
    take("key")
    crew.start(second)
    asks.wait()
    if entered.wait(LOOK_SECONDS):
        raise NotExclusiveError(f"{subject.name}: a second thread has the key while the first holds it")
    drop("key")
    crew.join()


def hand_off(subject: Subject, times: int) -> float:
    """Each of two threads always waits for a key that the other lets go next: seconds for one hand-off.

    One holds a key and waits for the next of three; the other holds two. So no owner changes without both acting.
    """
    take, drop, _ = calls(subject)
    keys = ("key 0", "key 1", "key 2")
    begun: list[float] = []
    start = threading.Barrier(2, action=lambda: begun.append(time.perf_counter()))
    let_go = [0, 0]
    ends = []

    def one() -> None:
        take(keys[0])
        start.wait()
        for n in range(times):
            take(keys[(n + 1) % 3])
            if let_go[1] <= n:
                raise NotExclusiveError(f"{subject.name}: took a key that the other holds")
            let_go[0] += 1
            drop(keys[n % 3])
        ends.append(time.perf_counter())
        drop(keys[times % 3])

    def other() -> None:
        take(keys[1])
        take(keys[2])
        start.wait()
        for n in range(times):
            let_go[1] += 1
            drop(keys[(n + 1) % 3])
            take(keys[n % 3])
            if let_go[0] <= n:
                raise NotExclusiveError(f"{subject.name}: took a key that the other holds")
        ends.append(time.perf_counter())
        for n in (1, 2):
            drop(keys[(times + n) % 3])

    crew = Crew()
    crew.start(one)
    crew.start(other)
    crew.join()
    return (max(ends) - begun[0]) / (2 * times)


class Inside:
    """Whether somebody is in the block, and how many have been."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.taken = False
        self.count = 0

    def enter(self) -> int:
        if self.taken:
            raise NotExclusiveError(f"{self.name}: two in the block at once")
        self.taken = True
        return self.count

    def leave(self, count: int) -> None:
        self.count = count + 1
        self.taken = False

    def whole(self, count: int) -> None:
        if self.count != count:
            raise NotExclusiveError(f"{self.name}: {count - self.count} of {count} turns were lost")


def crowd(subject: Subject, times: int, yields: bool) -> float:
    """20 threads on one key. yields: the block gives up the processor, as work that waits for something does.

    They all wait for the key when the clock starts. Threads that merely begin at once would each come to their end
    within one turn at the interpreter, and meet nobody.
    """
    take, drop, _ = calls(subject)
    inside = Inside(subject.name)
    each = max(1, times // AT_ONCE)
    ends: list[float] = []
    asks = threading.Semaphore(0)

    def work() -> None:
        asks.release()
        for _ in range(each):
            take("key")
            count = inside.enter()
            if yields:
                time.sleep(LEAST_SLEEP)
            inside.leave(count)
            drop("key")
        ends.append(time.perf_counter())

    crew = Crew()
    take("key")
    for _ in range(AT_ONCE):
        crew.start(work)
    for _ in range(AT_ONCE):
        asks.acquire()
    time.sleep(LOOK_SECONDS)  # From the word to the wait is a short way; who is late waits a little later.
    start = time.perf_counter()
    drop("key")
    crew.join()
    inside.whole(each * AT_ONCE)
    return (max(ends) - start) / (each * AT_ONCE)


def give_up(subject: Subject, queued: int) -> float:
    """Waiters at random places of a queue of real threads give up: processor time of such a call, its wait not counted.

    The time is long enough for the whole queue to stand before the first gives up.
    """
    take, drop, timed = calls(subject)
    before = threading.stack_size(STACK_BYTES)
    spent: list[float] = []
    timeout = 0.2 + queued * 0.0005
    places = set(random.sample(range(queued), min(GIVING_UP, queued)))

    def gives_up() -> None:
        start = time.thread_time_ns()
        try:
            got = timed("key", timeout)
        except TimeoutError:
            got = False
        spent.append((time.thread_time_ns() - start) / 1e9)
        if got:
            raise NotExclusiveError(f"{subject.name}: a lock with a timeout took a key that is held")

    def stays() -> None:
        take("key")
        drop("key")

    crew, leaving = Crew(), Crew()
    take("key")
    try:
        for n in range(queued):
            if n in places:
                leaving.start(gives_up)
            else:
                crew.start(stays)
        leaving.join()
        drop("key")
        crew.join()
    finally:
        threading.stack_size(before)
    return sorted(spent)[len(spent) // 2]


class Traced:
    """Counts the bytes that are allocated within its block and still there."""

    def __enter__(self) -> Traced:
        gc.collect()
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        return self

    def __exit__(self, *error: object) -> None:
        tracemalloc.stop()

    def size(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - self._before


def held_bytes(subject: Subject, times: int) -> float:
    """For each of so many keys that are held at the same time. The keys themselves are not counted."""
    keys = [f"key {n}" for n in range(times)]
    if subject.kind == "asyncio":

        async def on_a_loop() -> float:
            with Traced() as traced:
                take, drop, _ = calls(subject)
                for key in keys:
                    await take(key)
                size = traced.size()
            for key in keys:
                await drop(key)
            return size / times

        return asyncio.run(on_a_loop())
    with Traced() as traced:
        take, drop, _ = calls(subject)
        for key in keys:
            take(key)
        size = traced.size()
    for key in keys:
        drop(key)
    return size / times


def kept_bytes(subject: Subject, times: int) -> float:
    """Of the locker, after so many distinct keys were locked and unlocked, one after the other; all told."""
    if subject.kind == "asyncio":

        async def on_a_loop() -> float:
            work, names = _compiled(DISTINCT, subject, **_form(subject))
            await work(*names.values(), itertools.repeat(None, FIRST_KEYS))
            with Traced() as traced:
                await work(*names.values(), itertools.repeat(None, times))
                return traced.size()

        return asyncio.run(on_a_loop())
    work, names = _compiled(DISTINCT, subject, **_form(subject))
    work(*names.values(), itertools.repeat(None, FIRST_KEYS))
    with Traced() as traced:
        work(*names.values(), itertools.repeat(None, times))
        return traced.size()


def waiter_bytes(subject: Subject, times: int) -> float:
    """For each of so many waiters, beside as many that wait for a bare lock or future."""
    if subject.kind == "asyncio":
        return (_waiting_tasks(subject, times) - _waiting_tasks(None, times)) / times
    return (_waiting_threads(subject, times) - _waiting_threads(None, times)) / times


def _waiting_threads(subject: Subject | None, times: int) -> float:
    asks = threading.Semaphore(0)
    bare = [threading.Lock() for _ in range(times)]
    if subject is None:
        take: Take = lambda n: bare[n].acquire() and None  # type: ignore[call-overload] # noqa: E731
        drop: Take = lambda n: bare[n].release()  # type: ignore[call-overload] # noqa: E731
        for lock in bare:
            lock.acquire()
    else:
        of_key, let_go, _ = calls(subject)
        of_key("key")
        take, drop = lambda n: of_key("key"), lambda n: let_go("key")

    def wait(n: int) -> None:
        asks.release()
        take(n)
        drop(n)

    crew = Crew()

    def start() -> None:
        for n in range(times):
            crew.start(wait, n)
        for _ in range(times):
            asks.acquire()
        time.sleep(LOOK_SECONDS)  # From the word to the wait is a short way, and a late one only costs precision.

    with Traced() as traced:
        start()
        size = traced.size()
    if subject is None:
        for lock in bare:
            lock.release()
    else:
        let_go("key")
    crew.join()
    return size


def _waiting_tasks(subject: Subject | None, times: int) -> float:
    async def on_a_loop() -> float:
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[None]] = []
        tasks: list[asyncio.Task[None]] = []

        async def bare() -> None:
            futures.append(loop.create_future())
            await futures[-1]

        async def wait() -> None:
            await take("key")
            await drop("key")

        if subject is not None:
            take, drop, _ = calls(subject)
            await take("key")
        with Traced() as traced:
            for _ in range(times):
                tasks.append(asyncio.create_task(bare() if subject is None else wait()))
            for _ in range(5):
                await asyncio.sleep(0)
            size = traced.size()
        for future in futures:
            future.set_result(None)
        if subject is not None:
            await drop("key")
        await asyncio.wait_for(asyncio.gather(*tasks), STUCK_SECONDS)
        return size

    return asyncio.run(on_a_loop())


# ------------------------------------------------------------------------------------------------------------
# Asyncio


def _on_a_loop(main: Callable[[], Coroutine[Any, Any, float]]) -> float:
    async def bounded() -> float:
        try:
            return await asyncio.wait_for(main(), STUCK_SECONDS)
        except asyncio.TimeoutError:
            raise StuckError(f"not at its end after {STUCK_SECONDS:.0f} s") from None

    return asyncio.run(bounded())


def prove_asyncio(subject: Subject) -> None:
    """As `prove_threads`, for tasks."""

    async def main() -> float:
        take, drop, _ = calls(subject)
        entered = False

        async def second() -> None:
            nonlocal entered
            await take("key")
            entered = True
            await drop("key")

        await take("key")
        other = asyncio.create_task(second())
        for _ in range(10):
            await asyncio.sleep(0)
        if entered:
            raise NotExclusiveError(f"{subject.name}: a second task has the key while the first holds it")
        await drop("key")
        await other
        return 0.0

    _on_a_loop(main)


def hand_off_tasks(subject: Subject, times: int) -> float:
    """As `hand_off`, for tasks."""

    async def main() -> float:
        take, drop, _ = calls(subject)
        keys = ("key 0", "key 1", "key 2")
        let_go = [0, 0]
        ready = asyncio.Event()

        async def one() -> None:
            await take(keys[0])
            await ready.wait()
            for n in range(times):
                await take(keys[(n + 1) % 3])
                if let_go[1] <= n:
                    raise NotExclusiveError(f"{subject.name}: took a key that the other holds")
                let_go[0] += 1
                await drop(keys[n % 3])
            await drop(keys[times % 3])

        async def other() -> None:
            await take(keys[1])
            await take(keys[2])
            ready.set()
            for n in range(times):
                let_go[1] += 1
                await drop(keys[(n + 1) % 3])
                await take(keys[n % 3])
                if let_go[0] <= n:
                    raise NotExclusiveError(f"{subject.name}: took a key that the other holds")
            for n in (1, 2):
                await drop(keys[(times + n) % 3])

        start = time.process_time()
        await asyncio.gather(one(), other())
        return (time.process_time() - start) / (2 * times)

    return _on_a_loop(main)


def crowd_of_tasks(subject: Subject, times: int) -> float:
    """20 tasks on one key; the block gives up the loop once."""

    async def main() -> float:
        take, drop, _ = calls(subject)
        inside = Inside(subject.name)
        each = max(1, times // AT_ONCE)

        async def work() -> None:
            for _ in range(each):
                await take("key")
                count = inside.enter()
                await asyncio.sleep(0)
                inside.leave(count)
                await drop("key")

        start = time.process_time()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        seconds = time.process_time() - start
        inside.whole(each * AT_ONCE)
        return seconds / (each * AT_ONCE)

    return _on_a_loop(main)


def cancel_tasks(subject: Subject, queued: int) -> float:
    """Tasks at random places of a queue are cancelled: seconds for one, until it has ended."""

    async def main() -> float:
        take, drop, _ = calls(subject)

        async def wait() -> None:
            await take("key")
            await drop("key")

        await take("key")
        tasks = [asyncio.create_task(wait()) for _ in range(queued)]
        for _ in range(10):
            await asyncio.sleep(0)
        leaving = random.sample(tasks, min(GIVING_UP, queued))
        start = time.process_time()
        for task in leaving:
            task.cancel()
        while not all(task.done() for task in leaving):
            await asyncio.sleep(0)
        seconds = (time.process_time() - start) / len(leaving)
        if not all(task.cancelled() for task in leaving):
            raise NotExclusiveError(f"{subject.name}: a waiter took a key that is held")
        await drop("key")
        await asyncio.gather(*tasks, return_exceptions=True)
        return seconds

    return _on_a_loop(main)


def prove(subject: Subject) -> None:
    """That the subject locks. NotExclusiveError, StuckError."""
    (prove_asyncio if subject.kind == "asyncio" else prove_threads)(subject)


# ------------------------------------------------------------------------------------------------------------
# The rows


def _of(kind: str, has: Callable[[Subject], object]) -> Callable[[Subject], bool]:
    return lambda subject: subject.kind == kind and bool(has(subject))


def _locks(subject: Subject) -> bool:
    return subject not in REFERENCES


def rows(queues: tuple[int, ...] = (100, 1_000, 10_000), distinct: int = 1_000_000) -> tuple[Row, ...]:
    """queues: waiters in the rows in which some give up. distinct: keys in the row of what is kept."""
    found: list[Row] = []
    for kind in ("threads", "asyncio"):
        waits = kind == "asyncio"
        agents = "tasks" if waits else "threads"
        locks = _of(kind, _locks)
        keyed = _of(kind, lambda subject: _locks(subject) and subject.keyed)
        given = _of(kind, lambda subject: subject.lock)
        blocks = _of(kind, lambda subject: subject.hold)
        found += [
            Row("lock", kind, "lock and unlock, uncontended", lock_unlock, given, within=True),
            Row("block", kind, f"{'async ' if waits else ''}with, uncontended", block, blocks, within=True),
            Row(
                "keys",
                kind,
                f"{HELD_KEYS:,} keys held at once, for each lock and unlock",
                many_keys,
                _of(kind, lambda s: s.keyed and (s.lock or _locks(s))),
                within=True,
            ),
            Row(
                "hand-off",
                kind,
                f"hand-off between two {agents}",
                hand_off_tasks if waits else hand_off,
                keyed,
                long=1.0 if waits else LONG,
            ),
        ]
        if waits:
            found.append(Row("crowd", kind, f"{AT_ONCE} tasks on one key", crowd_of_tasks, locks))
            found += [
                Row(
                    f"cancel-{queued}",
                    kind,
                    f"cancel one of {queued:,} tasks",
                    cancel_tasks,
                    keyed,
                    steady=queued,
                    slow=True,
                )
                for queued in queues
            ]
        else:
            found += [
                Row(
                    "crowd",
                    kind,
                    f"{AT_ONCE} threads on one key, the block computes",
                    lambda subject, times: crowd(subject, times, False),
                    locks,
                    long=LONG,
                ),
                Row(
                    "crowd-yields",
                    kind,
                    f"{AT_ONCE} threads on one key, the block gives up the processor",
                    lambda subject, times: crowd(subject, times, True),
                    locks,
                    long=LONG,
                ),
            ]
            found += [
                Row(
                    f"cancel-{queued}",
                    kind,
                    f"one of {queued:,} threads gives up, processor time",
                    give_up,
                    _of(kind, lambda s: s.timed and s.keyed),
                    steady=queued,
                    slow=True,
                )
                for queued in queues
            ]
        found += [
            Row("held", kind, "bytes for a held key", held_bytes, keyed, counted=True, steady=COUNTED_KEYS),
            Row(
                "waiter",
                kind,
                f"bytes for a waiter, beside a bare {'future' if waits else 'lock'}",
                waiter_bytes,
                keyed,
                counted=True,
                steady=WAITERS,
            ),
            Row(
                "kept",
                kind,
                f"bytes kept after {distinct:,} distinct keys",
                kept_bytes,
                keyed,
                counted=True,
                steady=distinct,
                most_seconds=KEPT_SECONDS,
            ),
        ]
    return tuple(found)
