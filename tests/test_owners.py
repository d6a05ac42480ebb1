"""Who holds a key, since when and from where: a mutex made with ``diagnose=True``. Others pay nothing for it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

import kmutex
from kmutex import AsyncKeyedMutex, KeyedMutex, KMutexError, Owner, compiled
from kmutex._core import LockTable
from kmutex._threads import UntypedMutex
from kmutex.testing.interrupts import _followed
from tests.driver import Driver, Tasks, both, on, turns, waiters
from tests.driver import Threads as PlainThreads


class WatchedThreads(PlainThreads):
    def __init__(self) -> None:
        super().__init__(KeyedMutex(diagnose=True))


class WatchedTasks(Tasks):
    def __init__(self) -> None:
        super().__init__(AsyncKeyedMutex(diagnose=True))


watched = on(WatchedThreads, WatchedTasks)
NAMES = {"threads": "thread", "asyncio": "task"}


@watched
async def test_the_holder_is_known_by_name_time_and_place(driver: Driver) -> None:
    """And the next one after the hand-over, with the time that it waited; nothing is known of a free key."""
    mutex = driver.locker
    assert mutex.owner("k") is None
    await driver.lock("k")
    first = mutex.owner("k")
    assert first.name.startswith(f"{NAMES[driver.kind]} '")
    assert any(f"{__file__}:" in line for line in first.stack)
    assert not any("kmutex/_" in line for line in first.stack)
    waiter = await driver.start_waiter("k")
    assert mutex.owner("k").name == first.name
    driver.unlock("k")
    await driver.result(waiter)
    second = mutex.owner("k")
    assert second.name != first.name
    assert second.waited > 0
    assert second.held >= 0
    driver.unlock("k")
    assert mutex.owner("k") is None


@watched
async def test_a_timeout_names_the_holder(driver: Driver) -> None:
    """By lock and by a block."""
    await driver.lock("k")
    name = driver.locker.owner("k").name
    said = rf"; {name} has held it for \d+\.\d+ s, after a wait of \d+\.\d+ s; asked at .*driver\.py:\d+ in "
    for call in (lambda: driver.lock("k", 0.001), lambda: driver.lock("k", 0), driver.hold("k", 0).__aenter__):
        with pytest.raises(TimeoutError, match=rf"^no grant of 'k' within \S+ s{said}"):
            await call()


@watched
async def test_a_timeout_of_several_names_the_holder_of_each_that_others_hold(driver: Driver) -> None:
    for key in "ab":
        await driver.lock(key)
    with pytest.raises(TimeoutError) as late:
        await driver.hold_all(["a", "free", "b"], 0).__aenter__()
    holders = "".join(f"; {key!r}: {driver.locker.owner(key)}" for key in "ab")
    assert holders.count(f": {NAMES[driver.kind]} '") == 2
    said = f"no grant of ('a', 'free', 'b') within 0 s{holders}"
    assert re.sub(r"\d\.\d{3} s", "", str(late.value)) == re.sub(r"\d\.\d{3} s", "", said)


@on(WatchedTasks)
async def test_a_call_outside_a_task_is_known_as_that(driver: Tasks) -> None:
    """As from a callback of the loop."""
    call = asyncio.get_running_loop().call_soon
    call(lambda: next(driver.locker.lock("k").__await__(), None))
    await turns()
    assert driver.locker.owner("k").name == "no task"


@watched
async def test_no_note_outlives_its_request(driver: Driver) -> None:
    """Released, handed over, given up: the notes go with the tickets."""
    mutex = driver.locker
    notes = mutex._mutex._table._notes
    await driver.lock("k")
    waiter = await driver.start_waiter("k")
    with pytest.raises(TimeoutError):
        await driver.lock("k", 0.001)
    assert set(notes["k"]) == {mutex.snapshot()["k"].holder, *waiters(mutex, "k")}
    driver.unlock("k")
    await driver.result(waiter)
    assert len(notes["k"]) == 1
    async with driver.hold_all(["a", "b"]):
        assert set(notes) == {"a", "b", "k"}
    driver.unlock("k")
    assert notes == {}


@both
async def test_without_it_nothing_is_known(driver: Driver) -> None:
    """And it says what to do."""
    await driver.lock("k")
    with pytest.raises(KMutexError, match=r"^owner\(\) needs a mutex that was made with diagnose=True$"):
        driver.locker.owner("k")


def instructions(call: Callable[[], object]) -> Counter[str]:
    """How many instructions of this library's functions a call runs, by module and function."""
    counted: Counter[str] = Counter()

    def on_instruction(frame: FrameType, _: int) -> None:
        counted[f"{frame.f_globals.get('__name__')}:{frame.f_code.co_name}"] += 1

    with _followed(on_instruction, lambda code: Path(code.co_filename).parent == Path(kmutex.__file__).parent):
        call()
    return counted


def block(mutex: KeyedMutex) -> Callable[[], object]:
    def run() -> None:
        mutex.lock("k")
        mutex.unlock("k")
        with mutex.hold("k"):
            pass

    return run


@pytest.mark.skipif(compiled, reason="there are no instructions to count: the same source in Python has them")
def test_it_costs_nothing_where_it_is_off() -> None:
    """Not one instruction: no function of it runs, and those that run are the table's own. Where it is on, they do."""
    off, on_ = instructions(block(KeyedMutex())), instructions(block(KeyedMutex(diagnose=True)))
    print(f"instructions of lock, unlock and a block: {off.total()} off, {on_.total()} on")
    assert off
    assert not [name for name in off if name.startswith("kmutex._owners")]
    assert [name for name in on_ if name.startswith("kmutex._owners")]
    assert {name: count for name, count in on_.items() if not name.startswith("kmutex._owners")}.keys() >= off.keys()
    assert all(on_[name] >= off[name] for name in off)
    assert type(UntypedMutex()._mutex._table) is type(AsyncKeyedMutex()._mutex._table) is LockTable
    program = (
        "import sys; from kmutex import KeyedMutex; KeyedMutex().lock('k'); print('kmutex._owners' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "False\n"
    )


def test_an_owner_reads_as_a_line() -> None:
    owner = Owner("thread 'T'", 0.5, 2.0, ("a.py:1 in f", "b.py:2 in g", "c.py:3 in h", "d.py:4 in i"))
    assert str(owner) == (
        "thread 'T' has held it for 2.000 s, after a wait of 0.500 s; asked at a.py:1 in f < b.py:2 in g < c.py:3 in h"
    )
