"""The lockers from the wild, shown by hand and without kmutex: each bad one is bad, and its twin is not.

A script drives one run, always in the same order: threads halt where the script wants them, tasks take turns of the
loop. It returns the clause that it saw broken, or None, and is run on the bad locker and on its twin.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import pytest

from tests.lockers import wild_threads
from tests.lockers.catalogue import ROOT, Row, entries, load
from tests.lockers.demo import until

ROWS = entries(origin="wild")
BAD = {row.name: row for row in ROWS if row.expect != "holds"}

Make = Callable[..., Any]
SCRIPTS: dict[str, Callable[[Make], Any]] = {}


def shows(name: str) -> Callable[[Callable[[Make], Any]], Callable[[Make], Any]]:
    """The script of the locker of that name."""

    def enter(script: Callable[[Make], Any]) -> Callable[[Make], Any]:
        SCRIPTS[name] = script
        return script

    return enter


BLOCKED: set[int] = set()


@contextlib.contextmanager
def blocking() -> Iterator[None]:
    """Known to the script: this thread may stand here."""
    BLOCKED.add(threading.get_ident())
    try:
        yield
    finally:
        BLOCKED.discard(threading.get_ident())


class WatchedLock:
    """A lock that tells who waits for it; its methods can be replaced, for `with` too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def acquire(self, blocking_: bool = True, timeout: float = -1, *, blocking: bool = True) -> bool:
        if self._lock.acquire(False):
            return True
        if not (blocking_ and blocking):
            return False
        with globals()["blocking"]():
            return self._lock.acquire(True, timeout)

    def release(self) -> None:
        self._lock.release()

    def locked(self) -> bool:
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *error: object) -> None:
        self.release()


class WatchedEvent(threading.Event):
    """An event that tells who waits for it."""

    def wait(self, timeout: float | None = None) -> bool:
        if self.is_set():
            return True
        with blocking():
            return super().wait(timeout)


class WatchedSemaphore(threading.Semaphore):
    """A semaphore that tells who waits for it."""

    def acquire(self, *args: Any, **words: Any) -> bool:
        if super().acquire(False):
            return True
        with blocking():
            return super().acquire(*args, **words)


class Call:
    """One call that a client makes."""

    def __init__(self, client: Client, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._client, self._fn, self._args = client, fn, args
        self.done = threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None

    def make(self) -> None:
        try:
            self.value = self._fn(*self._args)
        except BaseException as error:
            self.error = error
        self.done.set()

    def waits(self) -> bool:
        """Whether it stands and waits, once it has come to that or to its end."""
        until(lambda: self.done.is_set() or self._client.ident in BLOCKED)
        return not self.done.is_set()

    def end(self) -> Any:
        until(self.done.is_set)
        if self.error is not None:
            raise self.error
        return self.value


class Client:
    """A thread of its own, which makes the calls that it is given."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Call] = queue.SimpleQueue()
        thread = threading.Thread(target=self._work, daemon=True)
        thread.start()
        self.ident = thread.ident

    def _work(self) -> None:
        while True:
            self._calls.get().make()

    def start(self, fn: Callable[..., Any], *args: Any) -> Call:
        call = Call(self, fn, args)
        self._calls.put(call)
        return call

    def run(self, fn: Callable[..., Any], *args: Any) -> Any:
        return self.start(fn, *args).end()

    def gets(self, fn: Callable[..., Any], *args: Any) -> bool:
        """Whether a call comes to its end where others hold what it may have to wait for."""
        call = self.start(fn, *args)
        if call.waits():
            return False
        call.end()
        return True


class Halt:
    """Stops the first thread that comes by, after as many as are to be let through, until it may go on."""

    def __init__(self, let_through: int = 0) -> None:
        self._left = let_through
        self.reached, self._go = threading.Event(), threading.Event()

    def __call__(self) -> None:
        if self._left:
            self._left -= 1
        elif not self.reached.is_set():
            self.reached.set()
            self._go.wait()

    def settled(self, call: Call) -> None:
        """The call has come here, to a wait or to its end."""
        until(lambda: self.reached.is_set() or call.done.is_set() or call._client.ident in BLOCKED)

    def go(self) -> None:
        self._go.set()


def before(halt: Halt, fn: Callable[..., Any]) -> Callable[..., Any]:
    def halting(*args: Any, **words: Any) -> Any:
        halt()
        return fn(*args, **words)

    return halting


def after(halt: Halt, fn: Callable[..., Any]) -> Callable[..., Any]:
    def halting(*args: Any, **words: Any) -> Any:
        found = fn(*args, **words)
        halt()
        return found

    return halting


class Table(dict[Any, Any]):
    """A table in which a look-up by one of its methods halts once it has its answer."""

    def __init__(self, old: dict[Any, Any], halt: Halt, method: str) -> None:
        super().__init__(old)
        self._halt, self._method = halt, method

    def _passing(self, method: str, found: Any) -> Any:
        if method == self._method:
            self._halt()
        return found

    def get(self, key: Any, default: Any = None) -> Any:
        return self._passing("get", super().get(key, default))

    def setdefault(self, key: Any, default: Any = None) -> Any:
        return self._passing("setdefault", super().setdefault(key, default))


class WeakTable(WeakValueDictionary[Any, Any]):
    """The same for a weak table and `get`."""

    def __init__(self, halt: Halt) -> None:
        super().__init__()
        self._halting = halt

    def get(self, key: Any, default: Any = None) -> Any:
        found = super().get(key, default)
        self._halting()
        return found


class Work:
    """The work of a single-flight call: says that it runs, and ends when it may."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self._value, self._error = value, error
        self.started, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> Any:
        self.started.set()
        self.may_end.wait()
        if self._error is not None:
            raise self._error
        return self._value


@pytest.fixture(autouse=True)
def _watched(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, watched in (("Lock", WatchedLock), ("Event", WatchedEvent), ("Semaphore", WatchedSemaphore)):
        monkeypatch.setattr(wild_threads, name, watched)


@shows("threads.MobyLocker")
def newcomer_while_unlock_stands_between_its_turns(make: Make) -> str | None:
    locks, a, b, c = make(), Client(), Client(), Client()
    a.run(locks.lock, "k")
    halt = Halt()
    locks._guard.release = after(halt, locks._guard.release)
    leaving = a.start(locks.unlock, "k")
    halt.settled(leaving)
    b.run(locks.lock, "k")
    halt.go()
    leaving.end()
    return "KM-EXCL" if c.gets(locks.lock, "k") else None


@shows("threads.PouchKMutex")
def unlock_of_another_key_sweeps(make: Make) -> str | None:
    locks, a, b, c = make(), Client(), Client(), Client()
    a.run(locks.lock, "k")
    b.run(locks.lock, "other")
    b.run(locks.unlock, "other")
    return "KM-EXCL" if c.gets(locks.lock, "k") else None


@shows("threads.GuavaWeakLocks")
def try_of_a_held_key(make: Make) -> str | None:
    locks, a, b = make(), Client(), Client()
    assert a.run(locks.acquire, "k")
    gc.collect()
    return "KM-EXCL" if b.run(locks.acquire, "k", False) else None


@shows("threads.BonoboExclusive")
def two_objects_of_one_key(make: Make) -> str | None:
    a, b, halt = Client(), Client(), Halt()
    # A registry of its own, for that of the class is nobody's to replace.
    exclusive = type("Exclusive", (make,), {"_locks": WeakTable(halt), "_guard": WatchedLock()})
    first = a.start(exclusive, "k")
    halt.settled(first)
    second = b.start(exclusive, "k")
    second.waits()
    halt.go()
    a.run(first.end().__enter__)
    return "KM-EXCL" if b.gets(second.end().__enter__) else None


@shows("threads.LockProviderCount")
def two_count_themselves_at_a_time(make: Make) -> str | None:
    locks, a, b, c, halt = make(), Client(), Client(), Client(), Halt()
    locks._users = Table({}, halt, "get")
    calls = {a: a.start(locks.acquire, "k")}
    halt.settled(calls[a])
    calls[b] = b.start(locks.acquire, "k")
    calls[b].waits()
    halt.go()
    holder, waiter = (b, a) if calls[a].waits() else (a, b)
    assert calls[waiter].waits()
    holder.run(locks.release, "k")
    calls[waiter].end()
    return "KM-EXCL" if c.gets(locks.acquire, "k") else None


@shows("threads.AsyncKeyedLockPool")
def entry_goes_to_the_pool_after_it_was_found(make: Make) -> str | None:
    locks, a, b, c, d, halt = make(), Client(), Client(), Client(), Client(), Halt()
    block = locks.lock("k")
    a.run(block.__enter__)
    locks._entries = Table(locks._entries, halt, "get")
    late = b.start(locks.lock("k").__enter__)
    halt.settled(late)
    a.run(block.__exit__, None, None, None)
    halt.go()
    late.end()
    c.start(locks.lock("other").__enter__).waits()
    return "KM-EXCL" if d.gets(locks.lock("k").__enter__) else None


@shows("threads.ImageSharpDoormen")
def doorman_leaves_after_he_was_found(make: Make) -> str | None:
    locks, a, b, halt = make(), Client(), Client(), Halt()
    a.run(locks.lock, "k")
    locks._doormen = Table(locks._doormen, halt, "setdefault")
    late = b.start(locks.lock, "k")
    halt.settled(late)
    a.run(locks.unlock, "k")
    halt.go()
    return "KM-LIVE" if late.waits() else None


@shows("threads.MeziantouLeases")
def owner_gives_back_after_a_stranger_tried(make: Make) -> str | None:
    locks, a, b = make(), Client(), Client()
    lease = a.run(locks.lock, "k")
    with pytest.raises(RuntimeError):
        b.run(locks.unlock, lease)
    try:
        a.run(locks.unlock, lease)
    except RuntimeError:
        return "KM-ATOMIC"
    return None


@shows("threads.MeziantouDisposer")
def two_give_one_lease_back(make: Make) -> str | None:
    locks, a, b, c, d, halt = make(), Client(), Client(), Client(), Client(), Halt()
    lease = a.run(locks.lock, "k")
    waiter = b.start(locks.lock, "k")
    assert waiter.waits()
    locks._guard.acquire = before(halt, locks._guard.acquire)
    late = a.start(locks.unlock, lease)
    halt.settled(late)
    c.run(locks.unlock, lease)
    waiter.end()
    halt.go()
    until(late.done.is_set)
    return "KM-TOKEN" if d.gets(locks.lock, "k") else None


@shows("threads.KeyedSemaphoresTryLock")
def refused_try(make: Make) -> str | None:
    locks, a, b = make(), Client(), Client()
    assert a.run(locks.lock, "k")
    assert not b.run(locks.lock, "k", 0)
    a.run(locks.unlock, "k")
    return "KM-IDLE" if locks._entries else None


@shows("threads.VsThreadingEntry")
def grant_after_the_time_is_over(make: Make) -> str | None:
    locks, a, b, c, halt = make(), Client(), Client(), Client(), Halt(let_through=1)
    assert a.run(locks.lock, "k")
    locks._guard.acquire = before(halt, locks._guard.acquire)
    late = b.start(locks.lock, "k", 0)
    until(halt.reached.is_set)
    a.run(locks.unlock, "k")
    halt.go()
    assert late.end() is True
    return "KM-RACE" if c.gets(locks.lock, "k") else None


@shows("threads.SuiMutexTable")
def free_key_while_somebody_waits(make: Make) -> str | None:
    locks, a, b, c = make(), Client(), Client(), Client()
    blocks = [locks.acquire_lock("k"), locks.acquire_lock("k"), locks.acquire_lock("other")]
    a.run(blocks[0].__enter__)
    assert not b.gets(blocks[1].__enter__)
    return None if c.gets(blocks[2].__enter__) else "KM-INDEP"


@shows("threads.MilvusKeyLock")
def try_of_a_free_key_while_another_is_released(make: Make) -> str | None:
    locks, a, b, halt = make(), Client(), Client(), Halt()
    assert a.run(locks.acquire, "k")
    lock = locks._entries["k"].lock
    lock.release = before(halt, lock.release)
    leaving = a.start(locks.release, "k")
    halt.settled(leaving)
    tried = b.start(locks.acquire, "other", False)
    tried.waits()
    halt.go()
    leaving.end()
    return None if tried.end() else "KM-EXPIRED"


@shows("threads.OpenstorageKeyLock")
def lock_and_unlock(make: Make) -> str | None:
    locks, a = make(), Client()
    a.run(locks.lock, "k")
    a.run(locks.unlock, "k")
    return "KM-REF" if locks._entries else None


@shows("threads.EtcdMutex")
def unlock_comes_again(make: Make) -> str | None:
    locks, a, b, c = make(), Client(), Client(), Client()
    revision = a.run(locks.lock, "k")
    a.run(locks.unlock, "k", revision)
    b.run(locks.lock, "k")
    with contextlib.suppress(RuntimeError):
        a.run(locks.unlock, "k", revision)
    return "KM-TOKEN" if c.gets(locks.lock, "k") else None


@shows("threads.GoForget")
def forgotten_run_ends_during_the_next(make: Make) -> str | None:
    group, a, b, c = make(), Client(), Client(), Client()
    works = [Work(), Work(), Work()]
    first = a.start(group.do, "k", works[0])
    until(works[0].started.is_set)
    group.forget("k")
    b.start(group.do, "k", works[1])
    until(works[1].started.is_set)
    works[0].may_end.set()
    first.end()
    third = c.start(group.do, "k", works[2])
    until(lambda: works[2].started.is_set() or c.ident in BLOCKED)
    assert not third.done.is_set()
    return "KM-ONE" if works[2].started.is_set() else None


@shows("threads.ErpcOnce")
def next_caller_after_the_work_raised(make: Make) -> str | None:
    group, a, b = make(), Client(), Client()
    failing, work = Work(error=KeyError()), Work()
    failing.may_end.set()
    with pytest.raises(KeyError):
        a.run(group.do, "k", failing)
    b.start(group.do, "k", work)
    until(lambda: work.started.is_set() or b.ident in BLOCKED)
    return None if work.started.is_set() else "KM-LEADER"


@shows("threads.RueidisSingle")
def follower_of_a_run_that_fails(make: Make) -> str | None:
    group, a, b = make(), Client(), Client()
    failing = Work(error=KeyError())
    first = a.start(group.do, "k", failing)
    until(failing.started.is_set)
    second = b.start(group.do, "k", Work())
    assert second.waits()
    failing.may_end.set()
    with pytest.raises(KeyError):
        first.end()
    until(second.done.is_set)
    return None if isinstance(second.error, KeyError) else "KM-RESULT"


async def turns() -> None:
    """All that is ready has run, and what it made ready, too."""
    for _ in range(50):
        await asyncio.sleep(0)


async def standing(*calls: Any) -> list[asyncio.Task[Any]]:
    """The calls as tasks, each of which has come to a wait or to its end."""
    tasks = []
    for call in calls:
        tasks.append(asyncio.ensure_future(call))
        await turns()
    return tasks


def over(task: asyncio.Task[Any]) -> bool:
    """Whether a call came to its end without an error."""
    return task.done() and not task.cancelled() and task.exception() is None


class AsyncWork:
    """The work of a single-flight call: says that it runs, and ends when it may."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self._value, self._error = value, error
        self.running, self.may_end = False, asyncio.Event()

    async def __call__(self) -> Any:
        self.running = True
        try:
            await self.may_end.wait()
        finally:
            self.running = False
        if self._error is not None:
            raise self._error
        return self._value


@shows("asyncio.AnyioHandoff")
async def cancelled_after_the_handoff(make: Make) -> str | None:
    locks = make()
    await locks.acquire("k")
    (waiter,) = await standing(locks.acquire("k"))
    locks.release("k")
    waiter.cancel()
    _, newcomer = await standing(asyncio.sleep(0), locks.acquire("k"))
    return None if over(newcomer) else "KM-RACE"


@shows("asyncio.AnyioCheckpoint")
async def cancelled_after_the_key_was_taken(make: Make) -> str | None:
    locks = make()
    entering = asyncio.ensure_future(locks("k").__aenter__())
    await asyncio.sleep(0)
    assert not entering.done()
    entering.cancel()
    _, newcomer = await standing(asyncio.sleep(0), locks("k").__aenter__())
    return None if over(newcomer) else "KM-RACE"


@shows("asyncio.AnyioCancelledQueued")
async def newcomer_before_the_cancelled_waiter_has_left(make: Make) -> str | None:
    locks = make()
    await locks.acquire("k")
    (waiter,) = await standing(locks.acquire("k"))
    newcomer = asyncio.ensure_future(locks.acquire("k"))  # Runs before the waiter does.
    waiter.cancel()
    locks.release("k")
    await turns()
    assert waiter.cancelled()
    return None if over(newcomer) else "KM-LIVE"


@shows("asyncio.CPythonLostWakeup")
async def cancelled_after_it_was_woken(make: Make) -> str | None:
    locks = make()
    await locks.lock("k")
    first, second = await standing(locks.lock("k"), locks.lock("k"))
    locks.unlock("k")
    first.cancel()
    await turns()
    return None if over(second) else "KM-LIVE"


@shows("asyncio.CPythonDoubleAcquire")
async def cancelled_before_the_unlock(make: Make) -> str | None:
    locks = make()
    await locks.lock("k")
    first, second, third = await standing(locks.lock("k"), locks.lock("k"), locks.lock("k"))
    first.cancel()
    locks.unlock("k")
    await turns()
    assert over(second)
    return "KM-EXCL" if over(third) else None


@shows("asyncio.SynapseLinearizer")
async def cancelled_in_the_middle_of_the_queue(make: Make) -> str | None:
    locks = make()
    block = locks.queue("k")
    await block.__aenter__()
    first, second = await standing(locks.queue("k").__aenter__(), locks.queue("k").__aenter__())
    first.cancel()
    await turns()
    await block.__aexit__(None, None, None)
    await turns()
    return None if over(second) else "KM-CANCEL"


@shows("asyncio.LightRAGKeyedLock")
async def cancelled_in_the_exit(make: Make) -> str | None:
    locks = make()
    block = locks.lock("k")
    await block.__aenter__()
    leaving = asyncio.ensure_future(block.__aexit__(None, None, None))
    await asyncio.sleep(0)
    leaving.cancel()
    await turns()
    assert leaving.cancelled()
    (newcomer,) = await standing(locks.lock("k").__aenter__())
    return None if over(newcomer) else "KM-LIVE"


async def handed_to_a_waiter_and_a_newcomer(block: Callable[[str], Any]) -> str | None:
    held = block("k")
    await held.__aenter__()
    waiting, coming = block("k"), block("k")
    (waiter,) = await standing(waiting.__aenter__())
    await held.__aexit__(None, None, None)
    (newcomer,) = await standing(coming.__aenter__())
    assert over(waiter)
    return "KM-EXCL" if over(newcomer) else None


@shows("asyncio.NanobotSessions")
async def session_handed_on(make: Make) -> str | None:
    return await handed_to_a_waiter_and_a_newcomer(make().session)


@shows("asyncio.MCSManagerMutexes")
async def mutex_handed_on(make: Make) -> str | None:
    return await handed_to_a_waiter_and_a_newcomer(make().hold)


@shows("asyncio.MuxMutexMap")
async def two_waiters_and_an_unlock(make: Make) -> str | None:
    locks = make()
    await locks.lock("k")
    waiters = await standing(locks.lock("k"), locks.lock("k"))
    locks.unlock("k")
    await turns()
    return "KM-EXCL" if all(over(waiter) for waiter in waiters) else None


@shows("asyncio.CatsMutex")
async def two_in_a_row_give_up(make: Make) -> str | None:
    locks = make()
    held = await locks.lock("k")
    second, third, fourth = await standing(locks.lock("k"), locks.lock("k"), locks.lock("k"))
    second.cancel()
    await turns()
    third.cancel()
    await turns()
    if over(fourth):
        return "KM-CANCEL"
    locks.unlock(held)
    await turns()
    locks.unlock(fourth.result())
    assert not locks._last
    return None


@shows("asyncio.VertxLocalLocks")
async def locked_and_unlocked(make: Make) -> str | None:
    locks = make()
    await locks.lock("k")
    locks.unlock("k")
    return "KM-IDLE" if locks._locks else None


@shows("asyncio.PyKeyValueLocks")
def second_loop(make: Make) -> str | None:
    locks = make()

    async def use(key: str) -> asyncio.Lock:
        lock = locks[key]
        await lock.acquire()
        return lock

    held = [asyncio.run(use("held"))]
    try:
        held.append(asyncio.run(use("free")))
    except RuntimeError:
        return None
    return "KM-LOOP"


@shows("asyncio.AsyncSingleflight")
async def leader_of_two_followers_is_cancelled(make: Make) -> str | None:
    group, works = make(), [AsyncWork(), AsyncWork(), AsyncWork()]
    leader, *_ = await standing(*(group.do("k", work) for work in works))
    leader.cancel()
    await turns()
    assert works[1].running
    return "KM-ONE" if works[2].running else None


@shows("asyncio.OdysseusSharedCache")
async def caller_after_the_leader_was_cancelled(make: Make) -> str | None:
    group, work = make(), AsyncWork()
    (leader,) = await standing(group.do("k", AsyncWork()))
    leader.cancel()
    _, caller = await standing(asyncio.sleep(0), group.do("k", work))
    assert not caller.done()
    return None if work.running else "KM-LEADER"


@shows("asyncio.JanosSingleflight")
async def caller_after_another_was_cancelled(make: Make) -> str | None:
    group, works = make(), [AsyncWork(), AsyncWork(), AsyncWork()]
    _, follower = await standing(group.do("k", works[0]), group.do("k", works[1]))
    follower.cancel()
    await standing(asyncio.sleep(0), group.do("k", works[2]))
    assert works[0].running
    return "KM-ONE" if works[2].running else None


@shows("asyncio.JupyterToolCache")
async def follower_is_cancelled(make: Make) -> str | None:
    group, work = make(), AsyncWork("value")
    first, follower = await standing(group.do("k", work), group.do("k", AsyncWork()))
    follower.cancel()
    await turns()
    work.may_end.set()
    await turns()
    return None if over(first) and first.result() == "value" else "KM-LEADER"


@shows("asyncio.KettingInFlight")
async def caller_after_a_run_that_failed(make: Make) -> str | None:
    group, failing, work = make(), AsyncWork(error=KeyError()), AsyncWork("value")
    failing.may_end.set()
    work.may_end.set()
    with pytest.raises(KeyError):
        await group.do("k", failing)
    try:
        assert await group.do("k", work) == "value"
    except KeyError:
        return "KM-RESULT"
    return None


def played(script: Callable[[Make], Any], make: Make) -> str | None:
    return asyncio.run(script(make)) if inspect.iscoroutinefunction(script) else script(make)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", BAD)
def test_bad_one_is_bad_and_its_twin_is_not(name: str) -> None:
    """Its script sees the clause that the row gives it, the best one, and nothing on the twin."""
    assert played(SCRIPTS[name], load(name)) == BAD[name].clauses[0]
    assert played(SCRIPTS[name], load(BAD[name].twin)) is None


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_its_docstring_begins_with_its_clause_or_cure(row: Row) -> None:
    assert str(load(row).__doc__).startswith("Repaired: " if row.expect == "holds" else f"{row.clauses[0]}: ")


def test_the_page_is_that_of_the_rows(tmp_path: Path) -> None:
    """docs/wild.md is what its command writes."""
    page = tmp_path / "wild.md"
    subprocess.run([sys.executable, ROOT / "docs" / "site" / "wild.py", "--write", page], check=True)
    assert (ROOT / "docs" / "wild.md").read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
