"""The held-out lockers are what manifest.toml says, as far as real threads and a real loop can show it."""

import asyncio
import importlib
import linecache
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HERE = Path(__file__).parent
LOCKERS: list[dict[str, Any]] = tomllib.loads((HERE / "manifest.toml").read_text())["locker"]
CLAUSES = "EXCL INDEP REF IDLE FIFO HANDOFF CANCEL RACE UNHELD ATOMIC TOKEN EXPIRED INTERRUPT LIVE LOOP"
LEFT_TO_ASYNCIO = {"LockAndCount", "SemaphoreAndCount"}


def make(locker: dict[str, Any]) -> Any:
    module, name = locker["factory"].split(":")
    return getattr(importlib.import_module(module), name)()


def chosen(kind: str, expect: str, ordered: bool = False) -> pytest.MarkDecorator:
    rows = [row for row in LOCKERS if (row["kind"], row["expect"]) == (kind, expect)]
    rows = [row for row in rows if not (ordered and "fifo" in row["without"])]
    return pytest.mark.parametrize("locker", rows, ids=[row["factory"].rsplit(".")[-1] for row in rows])


def size(subject: Any) -> int:
    return len(subject) if hasattr(type(subject), "__len__") else 0


def refuses_unlock(subject: Any, key: object) -> bool:
    """Whether unlock raises; which exception it raises is the locker's own affair."""
    try:
        subject.unlock(key)
    except Exception:
        return True
    return False


def stands_in_wait(frame: FrameType | None) -> bool:
    """Whether a thread's innermost frame is at the blocking call of its gate."""
    if frame is None:
        return False
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
    if frame.f_code.co_filename == threading.__file__:
        return frame.f_code.co_name == "wait" and "waiter.acquire(" in line and "gotit" in frame.f_locals
    return "lock.acquire(timeout" in line or "gate.acquire(timeout" in line or "time.sleep" in line


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0)


def until_blocked(thread: threading.Thread) -> None:
    until(lambda: not thread.is_alive() or stands_in_wait(sys._current_frames().get(thread.ident or 0)))
    assert thread.is_alive(), "the thread ended where it should wait"


def test_manifest_names_every_locker_once() -> None:
    """Every public factory of the four modules is in the manifest, with clauses that exist."""
    listed = [row["factory"] for row in LOCKERS]
    assert len(listed) == len(set(listed))
    found = set()
    for module in ("threads_bad", "aio_bad", "threads_sound", "aio_sound"):
        home = f"tests.blind.{module}"
        for name, value in vars(importlib.import_module(home)).items():
            own = getattr(getattr(value, "func", value), "__module__", None) == home
            if own and callable(value) and not name.startswith("_") and name != "Configured":
                found.add(f"{home}:{name}")
    assert found == set(listed)
    known = {f"KM-{clause}" for clause in CLAUSES.split()}
    for row in LOCKERS:
        assert set(row["clauses"]) <= known
        assert bool(row["clauses"]) == (row["expect"] == "violation")


@chosen("threads", "violation")
def test_bad_thread_locker_does_plain_lock_and_unlock(locker: dict[str, Any]) -> None:
    """The mistake is not in the plainest use, so that it has to be looked for."""
    subject = make(locker)
    subject.lock("key")
    subject.unlock("key")
    subject.lock("key", 5)
    subject.unlock("key")
    assert size(subject) == 0


@chosen("asyncio", "violation")
def test_bad_asyncio_locker_does_plain_lock_and_unlock(locker: dict[str, Any]) -> None:
    """The mistake is not in the plainest use, so that it has to be looked for."""

    async def use() -> None:
        subject = make(locker)
        for _ in range(2):
            await subject.lock("key")
            subject.unlock("key")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert size(subject) == 0

    asyncio.run(use())


@chosen("threads", "holds")
def test_sound_thread_locker_in_sequence(locker: dict[str, Any]) -> None:
    """KM-UNHELD, KM-EXPIRED, KM-IDLE, KM-INDEP, KM-ATOMIC in one thread."""
    subject = make(locker)
    for key in ("", 0, None, (1, "a"), -1, -2, "1", 1):
        assert refuses_unlock(subject, key)
        for timeout in (-1, float("nan")):
            with pytest.raises(ValueError, match="timeout"):
                subject.lock(key, timeout)
        assert size(subject) == 0
        subject.lock(key, 0)
        subject.lock("another", 0)
        for timeout in (0, 0.001):
            with pytest.raises(TimeoutError):
                subject.lock(key, timeout)
        subject.unlock("another")
        if hasattr(type(subject), "__len__"):
            assert len(subject) == 1
        subject.unlock(key)
        assert refuses_unlock(subject, key)
        assert size(subject) == 0


@chosen("threads", "holds")
def test_sound_thread_locker_under_contention(locker: dict[str, Any]) -> None:
    """KM-EXCL, KM-RACE, KM-LIVE, KM-IDLE with short time-outs that race the grants."""
    subject, seed = make(locker), random.randrange(10**6)
    print("seed", seed)
    inside: Counter[str] = Counter()
    broken: list[str] = []
    outcomes: Counter[str] = Counter()
    start = threading.Barrier(4)

    def work(number: int) -> None:
        dice = random.Random(seed + number)
        start.wait()
        for turn in range(60):
            key = dice.choice("ab")
            timeout = None if turn == 0 else dice.choice((None, 0, 0.0002, 0.001))
            try:
                subject.lock(key, timeout)
            except TimeoutError:
                outcomes["expired"] += 1
                continue
            outcomes["held"] += 1
            inside[key] += 1
            time.sleep(0.0002 if turn % 3 else 0)
            if inside[key] != 1:
                broken.append(key)
            inside[key] -= 1
            subject.unlock(key)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert not broken
    assert outcomes["held"]
    assert outcomes["expired"]
    assert size(subject) == 0
    subject.lock("a", 0)
    subject.lock("b", 0)


@chosen("threads", "holds", ordered=True)
def test_sound_thread_locker_grants_in_order(locker: dict[str, Any]) -> None:
    """KM-FIFO, KM-CANCEL, KM-HANDOFF: three waiters in line, and one more in the middle that times out."""
    subject, order, let_go = make(locker), list[str](), threading.Event()

    def wait(name: str) -> None:
        subject.lock("key")
        order.append(name)
        let_go.wait()
        subject.unlock("key")

    subject.lock("key")
    threads = []
    for name in ("first", "dropped", "second", "third"):
        if name == "dropped":
            with pytest.raises(TimeoutError):
                subject.lock("key", 0.01)
            continue
        thread = threading.Thread(target=wait, args=(name,), daemon=True)
        thread.start()
        until_blocked(thread)
        threads.append(thread)
    subject.unlock("key")
    with pytest.raises(TimeoutError):
        subject.lock("key", 0)
    until(lambda: order == ["first"])
    let_go.set()
    for thread in threads:
        thread.join(60)
    assert order == ["first", "second", "third"]
    assert size(subject) == 0


@chosen("threads", "holds")
@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal to a thread")
def test_sound_thread_locker_interrupted_in_its_wait(locker: dict[str, Any]) -> None:
    """KM-INTERRUPT: KeyboardInterrupt out of the blocked wait leaves nothing behind."""
    subject, main = make(locker), threading.main_thread()
    holding, let_go, armed = threading.Event(), threading.Event(), threading.Event()

    raised: list[bool] = []

    def hold() -> None:
        subject.lock("key")
        holding.set()
        let_go.wait()
        subject.unlock("key")

    def lock_armed() -> None:
        armed.set()
        subject.lock("key")

    def interrupt() -> None:
        armed.wait()
        # A signal just before the system call is noticed only after it, so it is sent until it has been.
        while not raised:
            if stands_in_wait(sys._current_frames().get(main.ident or 0)):
                signal.pthread_kill(main.ident or 0, signal.SIGINT)
            time.sleep(0)

    def raise_once(_number: int, _frame: FrameType | None) -> None:
        if not raised:
            raised.append(True)
            raise KeyboardInterrupt

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    until(holding.is_set)
    breaker = threading.Thread(target=interrupt, daemon=True)
    before = signal.signal(signal.SIGINT, raise_once)
    try:
        breaker.start()
        with pytest.raises(KeyboardInterrupt):
            lock_armed()
        breaker.join(60)
    finally:
        signal.signal(signal.SIGINT, before)
    let_go.set()
    holder.join(60)
    assert size(subject) == 0
    subject.lock("key", 0)
    subject.unlock("key")


@chosen("asyncio", "holds")
def test_sound_asyncio_locker_in_sequence(locker: dict[str, Any]) -> None:
    """KM-UNHELD, KM-IDLE, KM-INDEP, KM-ATOMIC in one task, and KM-LOOP from a second loop."""
    subject = make(locker)

    async def use() -> None:
        for key in ("", 0, None, (1, "a"), -1, -2, "1", 1):
            assert refuses_unlock(subject, key)
            assert size(subject) == 0
            await subject.lock(key)
            await subject.lock("another")
            subject.unlock("another")
            if hasattr(type(subject), "__len__"):
                assert len(subject) == 1
            subject.unlock(key)
            assert refuses_unlock(subject, key)
            assert size(subject) == 0

    async def use_elsewhere() -> None:
        with pytest.raises(RuntimeError):
            await subject.lock("key")
        assert size(subject) == 0

    asyncio.run(use())
    if locker["factory"].split(":")[1] not in LEFT_TO_ASYNCIO:
        asyncio.run(use_elsewhere())


async def settle() -> None:
    for _ in range(12):
        await asyncio.sleep(0)


@chosen("asyncio", "holds", ordered=True)
def test_sound_asyncio_locker_grants_in_order(locker: dict[str, Any]) -> None:
    """KM-FIFO, KM-CANCEL: five in line, the first and the third cancelled."""

    async def use() -> None:
        subject, order = make(locker), list[int]()

        async def wait(number: int) -> None:
            await subject.lock("key")
            order.append(number)
            await asyncio.sleep(0)
            subject.unlock("key")

        await subject.lock("key")
        tasks = []
        for number in range(5):
            tasks.append(asyncio.create_task(wait(number)))
            await settle()
        tasks[0].cancel()
        tasks[2].cancel()
        await settle()
        subject.unlock("key")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [1, 3, 4]
        assert [type(result) for result in results].count(asyncio.CancelledError) == 2
        await settle()
        assert size(subject) == 0

    asyncio.run(use())


@chosen("asyncio", "holds")
@pytest.mark.parametrize("cancel_first", [True, False])
def test_sound_asyncio_locker_cancelled_against_grant(locker: dict[str, Any], cancel_first: bool) -> None:
    """KM-RACE: cancellation and release in one turn of the loop, either of them first."""

    async def use(count: int, cancelled: int) -> None:
        subject, got = make(locker), list[int]()

        async def wait(number: int) -> None:
            await subject.lock("key")
            got.append(number)
            subject.unlock("key")

        await subject.lock("key")
        tasks = [asyncio.create_task(wait(number)) for number in range(count)]
        await settle()
        if not cancel_first:
            subject.unlock("key")
        for task in tasks[:cancelled]:
            task.cancel()
        if cancel_first:
            subject.unlock("key")
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results].count(asyncio.CancelledError) == cancelled
        assert got == list(range(cancelled, count))
        await settle()
        assert size(subject) == 0
        await subject.lock("key")
        subject.unlock("key")

    for count, cancelled in ((1, 1), (2, 1), (3, 2), (3, 3)):
        asyncio.run(use(count, cancelled))


@chosen("asyncio", "holds")
def test_sound_asyncio_locker_under_contention(locker: dict[str, Any]) -> None:
    """KM-EXCL, KM-LIVE, KM-IDLE with tasks cancelled at random turns."""
    seed = random.randrange(10**6)
    print("seed", seed)
    dice, inside, outcomes = random.Random(seed), Counter[str](), Counter[str]()

    async def use() -> None:
        subject = make(locker)

        async def work(key: str) -> None:
            await subject.lock(key)
            inside[key] += 1
            try:
                for _ in range(dice.randrange(3)):
                    await asyncio.sleep(0)
                assert inside[key] == 1
                outcomes["held"] += 1
            finally:
                inside[key] -= 1
                subject.unlock(key)

        for _ in range(40):
            tasks = [asyncio.create_task(work(dice.choice("ab"))) for _ in range(6)]
            for task in dice.sample(tasks, 3):
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                outcomes["cancelled"] += isinstance(result, asyncio.CancelledError)
                assert result is None or isinstance(result, asyncio.CancelledError), result
            await settle()
            assert size(subject) == 0

    asyncio.run(use())
    assert outcomes["held"]
    assert outcomes["cancelled"]
