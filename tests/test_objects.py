"""What lockers are as objects: true, one of a kind, weakly referred to, and shown in a line of bounded length."""

from __future__ import annotations

import contextlib
import copy
import gc
import importlib
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from itertools import permutations
from typing import Any

import pytest

import kmutex
from kmutex import (
    AsyncKeyedMutex,
    AsyncNoopLocker,
    KeyedMutex,
    LeaseReusedError,
    NoopLocker,
    UnheldKeyError,
    async_once,
    once,
)
from kmutex._text import LONGEST_NAME, brief
from kmutex.postgres import AsyncPostgresKeyedMutex, PostgresKeyedMutex
from tests.driver import Driver, both, run

MUTEXES: tuple[Callable[[], Any], ...] = (
    KeyedMutex,
    AsyncKeyedMutex,
    lambda: PostgresKeyedMutex(""),
    lambda: AsyncPostgresKeyedMutex(""),
)
mutexes = pytest.mark.parametrize("make", MUTEXES, ids=["threads", "asyncio", "postgres", "postgres, asyncio"])


@pytest.mark.parametrize("make", [*MUTEXES, NoopLocker, AsyncNoopLocker])
def test_an_idle_locker_is_true(make: Callable[[], Any]) -> None:
    """``locker or KeyedMutex()`` takes the one that is given."""
    given = make()
    assert (given or KeyedMutex()) is given


@pytest.mark.parametrize("double", [copy.copy, copy.deepcopy, pickle.dumps])
@mutexes
def test_it_is_neither_copied_nor_pickled(make: Callable[[], Any], double: Callable[[Any], object]) -> None:
    """Nor what holds it: the copy would lock nothing out that the original does."""
    mutex = make()
    for whole in (mutex, [mutex], mutex.hold("k")):
        if double is copy.copy and whole is not mutex:
            continue  # The copy has the same mutex.
        with pytest.raises(TypeError, match=r"(KeyedMutex|Lease) can't be copied or pickled"):
            double(whole)


@mutexes
def test_weak_references_to_it_work(make: Callable[[], Any]) -> None:
    """It is found as long as it is there, in a weak table too."""
    mutex = make()
    seen, table = weakref.ref(mutex), weakref.WeakValueDictionary({"k": mutex})
    assert seen() is table["k"] is mutex
    del mutex
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("make", [KeyedMutex, AsyncKeyedMutex])
def test_a_lease_keeps_what_its_user_calls_the_mutex(make: Callable[[], Any]) -> None:
    """KM-EXCL: from a weak table nobody gets a new one as long as a key of the old one may be held."""
    table: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()
    for hold in ("hold", "hold_all"):
        table["one"] = mutex = make()
        lease = getattr(mutex, hold)("k" if hold == "hold" else ["k"])
        del mutex
        gc.collect()
        assert list(table) == ["one"]
        del lease
        gc.collect()
        assert not table


def test_no_compiled_class_has_a_place_for_weak_references() -> None:
    """mypyc frees what stands there as if it were its own, and the process with it: docs/compiled.md.

    A generic class is all it takes. In Python, the classes with slots stand in for those that are compiled.
    """
    mark = "__mypyc_attrs__" if kmutex.compiled else "__slots__"
    found = [
        kind
        for name in ("_aio", "_core", "_lease", "_owners", "_steps", "_threads")
        for kind in vars(importlib.import_module(f"kmutex.{name}")).values()
        if isinstance(kind, type) and kind.__module__ == f"kmutex.{name}" and not issubclass(kind, tuple)
        if mark in vars(kind)
    ]
    assert len(found) > 10
    assert [kind for kind in found if kind.__weakrefoffset__] == []


@pytest.mark.parametrize("kind", [KeyedMutex, AsyncKeyedMutex])
def test_a_class_in_python_inherits_from_it(kind: Any) -> None:
    """Compiled or not: with attributes of its own, with methods that override, and weak references to it."""

    class Named(kind):  # type: ignore[misc]
        def __init__(self, name: str) -> None:
            super().__init__(diagnose=True)
            self.name = name

        def hold(self, key: object, timeout: float | None = None) -> Any:
            return super().hold((self.name, key), timeout)

    async def use(mutex: Named) -> None:
        with contextlib.ExitStack() as stack:
            lease = mutex.hold("k")
            if kind is KeyedMutex:
                stack.enter_context(lease)
            else:
                await lease.__aenter__()
                stack.callback(lease.release)
            assert list(mutex.snapshot()) == [("n", "k")]

    mutex = Named("n")
    seen = weakref.ref(mutex)
    run(use(mutex))
    assert repr(mutex) == f"<Named at {id(mutex):#x}, idle>"
    del mutex
    gc.collect()
    assert seen() is None


@pytest.mark.parametrize("kind", [KeyedMutex, AsyncKeyedMutex])
def test_it_is_generic_in_its_keys(kind: Any) -> None:
    """For type checkers; at run time the parameter changes nothing."""
    assert type(kind[str]()) is kind
    assert kind[int]() is not kind[int]()


TYPED = """
from contextlib import contextmanager
from collections.abc import Iterator
from kmutex import AsyncKeyedMutex, KeyedLocker, KeyedMutex, NoopLocker, once
from kmutex.postgres import PostgresKeyedMutex

plain = KeyedMutex()
plain.lock(1)
named: KeyedMutex[str] = KeyedMutex()
named.lock("k")
other = AsyncKeyedMutex[int]()

class Own:
    @contextmanager
    def hold(self, key: str) -> Iterator[None]:
        yield

def work(locker: KeyedLocker[str], any_key: KeyedLocker) -> str:
    return once(locker, "k", lambda: None, lambda: "done")

work(named, plain)
work(plain, NoopLocker())
work(PostgresKeyedMutex(""), plain)
once(Own(), "k", lambda: None, lambda: 1)
"""
WRONG = ("named.lock(1)", "named.hold(b'k')", "other.unlock('k')", "work(named, named)", "once(Own(), 1, int, int)")


def test_the_types_of_keys_are_checked(tmp_path: Any) -> None:
    """By mypy, strictly: what fits passes without an annotation too, and each line that doesn't is an error."""
    (tmp_path / "typed.py").write_text(TYPED + "\n".join(WRONG) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(tmp_path), "typed.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    first = TYPED.count("\n") + 1
    wrong = {int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line}
    assert wrong == set(range(first, first + len(WRONG))), done.stdout + done.stderr


@both
async def test_its_repr_says_what_is_held(driver: Driver) -> None:
    """And how many wait; with many keys, or long ones, in a line of bounded length."""
    mutex = driver.locker
    name = type(mutex).__name__
    assert repr(mutex) == f"<{name} at {id(mutex):#x}, idle>"
    await driver.lock("a")
    await driver.lock(("b", 1))
    waiting = [await driver.start_waiter("a") for _ in range(2)]
    # Stripes are in the order of their hashes.
    held = [", ".join(order) for order in permutations(["'a' (2 waiting)", "('b', 1)"])]
    assert repr(mutex) in [f"<{name} at {id(mutex):#x}, held: {keys}>" for keys in held]
    for waiter in waiting:
        driver.unlock("a")
        await driver.result(waiter)
    for number in range(1000):
        await driver.lock("x" * number * 1000)
    assert repr(mutex).endswith(" and 999 more>")
    assert len(repr(mutex)) < 500


@both
async def test_an_error_names_its_key_briefly(driver: Driver) -> None:
    """A megabyte of a key is not printed whole, whatever its type."""
    for key in ("k" * 2**20, b"k" * 2**20, ("k" * 2**20, 1)):
        lease = driver.hold(key)
        async with lease:
            with pytest.raises(TimeoutError) as late:
                await driver.lock(key, 0)
            with pytest.raises(LeaseReusedError) as again:
                await lease.__aenter__()
        with pytest.raises(UnheldKeyError) as unheld:
            driver.unlock(key)
        for error in (late, again, unheld):
            assert "kkk" in str(error.value)
            assert len(str(error.value)) < 200


class _NoName:
    def __repr__(self) -> str:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("k", "'k'"),
        (b"k", "b'k'"),
        ("k" * LONGEST_NAME, f"'{'k' * (LONGEST_NAME - 4)}..."),
        ("k" * (LONGEST_NAME - 2), repr("k" * (LONGEST_NAME - 2))),
        ("k" * (LONGEST_NAME - 1), f"'{'k' * (LONGEST_NAME - 4)}..."),
        (10**5000, "<int>" if sys.version_info >= (3, 10, 7) else None),
        (_NoName(), "<_NoName>"),
    ],
    ids=["text", "bytes", "long", "fits", "one too long", "number", "none"],
)
def test_the_name_of_a_key_in_a_message(key: object, name: str) -> None:
    """Its repr as far as that goes; its type, where it has none."""
    assert brief(key) == name
    assert len(brief(key)) <= LONGEST_NAME


def test_once_takes_whatever_holds_a_key_by_a_block() -> None:
    """Without a timeout of its own too, unless one is asked for."""

    class Own:
        def __init__(self) -> None:
            self._mutex = KeyedMutex()

        def hold(self, key: str) -> Any:
            return self._mutex.hold(key)

    class AsyncOwn(Own):
        def __init__(self) -> None:
            self._mutex: Any = AsyncKeyedMutex()

    async def nothing() -> None:
        return None

    async def work() -> str:
        return "done"

    assert once(Own(), "k", lambda: None, lambda: "done") == "done"
    assert run(async_once(AsyncOwn(), "k", nothing, work)) == "done"
    with pytest.raises(TypeError):
        once(Own(), "k", lambda: None, lambda: "done", timeout=1)


def test_without_its_extra_kmutex_postgres_says_what_to_install() -> None:
    """In one line, whatever else is there."""
    lines = [
        "import importlib.util, sys",
        "find = importlib.util.find_spec",
        "importlib.util.find_spec = lambda name, *rest: None if name == 'psycopg' else find(name, *rest)",
        "try:",
        "    import kmutex.postgres",
        "except ModuleNotFoundError as error:",
        "    print(error, error.name)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout == "kmutex.postgres needs psycopg: pip install 'kmutex[postgres]' psycopg\n"
