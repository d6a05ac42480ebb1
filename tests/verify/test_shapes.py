"""The forms in which people write keyed locks, each as it is: what is taken for what, and that it is judged right."""

from __future__ import annotations

import ast
import asyncio
import functools
import sys
import threading
import types
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kmutex import KeyedMutex
from kmutex.engine.calls import LOOKING, Calls, CallsError, calls_of
from kmutex.engine.explorer import Level
from kmutex.engine.harness import Harness
from kmutex.engine.program import parse
from kmutex.engine.scenarios import programs_for
from kmutex.engine.shapes import NotALockerError, fit
from kmutex.engine.ways import called_by, keys_of
from kmutex.testing import ContractError, locker_machine
from kmutex.testing.suite import check
from kmutex.verify.plan import WIDE
from kmutex.verify.project import Subject
from kmutex.verify.target import MissingError, TargetError, load, target_of
from tests.commands import run_here
from tests.lockers import catalogue, flights_asyncio, flights_threads, shapes_asyncio, shapes_threads
from tests.lockers.catalogue import Row, each
from tests.verify.checked import checked

# A run that has seen enough ends in the midst of what the subject began.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).parents[2]
ROWS = [row for row in catalogue.entries(kind=("threads", "asyncio")) if ".shapes." in row.name]
FORMS = {
    "get": {"get"},
    "block": {"block"},
    "key-object": {"key"},
    "acquire": {"acquire"},
    "bool": {"lock"},
    "token": {"lock", "acquire"},
    "lock": {"lock"},
}
"""What a shape of the catalogue is called by who looks."""
MOST = 60
"""Runs of one program here."""
FEW = ("0+a 1+a", "0+a | 1+a | 2+a | 0-a | 1-a", "0+a-a 1+a", "0+a | 0-a 1+b", "0+a | 1?a", "0+a | 1~a | 0-a 2+a")


class Judged:
    """A row in the harness, without a flag."""

    def __init__(self, row: Row) -> None:
        self.harness = Harness(catalogue.load(row))
        self.shape = self.harness.shape
        self.level: Level = self.harness.levels[0]

    def check(self, name: str) -> set[str]:
        """The clauses that a check of its own finds broken."""
        return {clause for found in checked(self.harness, name).found for clause in found.clauses}

    def run(self, program: str, bound: int, level: Level | None = None, most: int = MOST) -> set[str]:
        """The clauses that some runs of a program break."""
        explorer = self.harness.explorer
        result = explorer.every(parse(program), level or self.level, bound, go_on=lambda runs: runs < most)
        assert not result.endless
        assert result.exited is None
        return {clause for found in result.found.values() for clause in found.finding.clauses}

    def programs(self) -> list[str]:
        wanted = programs_for(self.shape, interrupt=False)
        return [str(program) for program in wanted if program.clients < WIDE]

    def ways(self) -> Iterator[set[str]]:
        """Ways to find a mistake, the cheapest first."""
        yield from (self.check(name) for name in ("memory", "keys"))
        yield from (self.run(program, bound) for bound in (0, 2) for program in self.programs())
        if self.shape.kind == "threads":
            yield from (self.run(program, 1, "bytecode", 5 * MOST) for program in FEW if program in self.programs())


def test_each_form_is_there_for_threads_and_asyncio_sound_and_broken_in_two_ways() -> None:
    """The table is whole; a bool beside a timeout, and a plain unlock, are of one kind each."""
    for kind in ("threads", "asyncio"):
        for shape in ("get", "block", "key-object", "acquire", "token"):
            mine = [row.expect for row in ROWS if (row.kind, row.shape) == (kind, shape)]
            assert mine.count("holds") >= 1, (kind, shape)
            assert mine.count("violation") >= 2, (kind, shape)


@each(ROWS, "violation")
def test_a_broken_one_is_caught_by_a_right_name(row: Row) -> None:
    """With no flag and no adapter."""
    judged = Judged(row)
    assert judged.shape.form in FORMS[row.shape]
    seen: set[str] = set()
    with judged.harness.control():
        for found in judged.ways():
            seen |= found
            if seen & set(row.clauses):
                return
    pytest.fail(f"found {sorted(seen)}, and not one of {row.clauses}")


@each(ROWS, "holds")
def test_a_sound_one_is_not(row: Row) -> None:
    """Nor refused; what its form can't show is not asked."""
    judged = Judged(row)
    assert judged.shape.form in FORMS[row.shape]
    assert judged.shape.kind == row.kind
    assert "\n" not in judged.shape.taken
    asked = judged.programs()
    with judged.harness.control():
        assert judged.check("memory") == set()
        assert judged.check("keys") == set()
        for program in asked:
            assert judged.run(program, 0) == set(), program
        for program in FEW:
            if program in asked:
                assert judged.run(program, 1) == set(), program


@pytest.mark.long
def test_the_suite_and_the_histories_take_the_same_forms() -> None:
    """A block by a name that is given; a broken one is found by a random history, too."""
    check(Subject("tests.verify.test_shapes:_Odd", calls=calls_of(["block=drinnen"])), _Odd, "quick")
    case: Any = locker_machine(shapes_threads.LockBlocksEvicting).TestCase
    with pytest.raises(ContractError):
        case("runTest").debug()


# -- what is taken for what -----------------------------------------------------------------------------------------


def _locked_by_name(name: str) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    """A maker of decorators that is called with the key."""
    lock = shapes_threads.weak_lock_for(name)

    def decorator(function: Callable[[], Any]) -> Callable[[], Any]:
        def call() -> Any:
            with lock:
                return function()

        return call

    return decorator


TAKEN: tuple[tuple[Callable[..., Any], str], ...] = (
    (KeyedMutex, "lock: lock(key, timeout), unlock(key); threads"),
    (shapes_threads.WeakLocks, "get: L[key], then acquire and release; threads"),
    (shapes_threads.CalledScopes, "block: with L(key, max_wait); threads; _LockTimeout when the time is over"),
    (shapes_threads.Tokens, "lock: lock(key, wait), unlock(token); threads; None when the time is over"),
    (shapes_threads.KeyedTokens, "lock: lock(key, wait), unlock(key, token); threads; None when the time is over"),
    (shapes_threads.Grants, "acquire: acquire(key), then release of what it gives; threads; no timeout"),
    (shapes_threads.NeverWaitsLong, "acquire: enter(key), leave(key); threads; no timeout"),
    (
        shapes_threads.KeyLock,
        "key: KeyLock(key), then acquire and release; threads; shared by all runs, each with keys of its own",
    ),
    (shapes_threads.StripedLocks, "get: lock_for(key), then acquire and release; threads; keys share locks"),
    (shapes_threads.ReentrantLocks, "acquire: acquire(key, timeout), release(key); threads; re-entrant"),
    (shapes_threads.TextKeys, "lock: lock(key, timeout), unlock(key); threads; keys of type str"),
    (shapes_asyncio.AwaitedUnlock, "lock: lock(key), unlock(key); asyncio; no timeout"),
    (shapes_asyncio.AwaitedAccessor, "get: get_lock(key), then acquire and release; asyncio; no timeout"),
    (shapes_asyncio.AcquireBool, "acquire: acquire(key), release(key); asyncio; no timeout, but a try"),
    (shapes_asyncio.CalledScopes, "block: async with L(key); asyncio; no timeout"),
    (shapes_threads.LentLocks, "get: get(key), then acquire and release, then release(key, lock); threads"),
    (shapes_threads.HeldLocks, "get: acquire_lock(key), then release, then put(key); threads; no timeout"),
    (
        shapes_threads.BorrowedLocks,
        "get: get_lock(key), then acquire, then release_lock(key, lock); threads; no timeout",
    ),
    (shapes_threads.LentBlocks, "get: with get_lock(key), then done(key); threads; no timeout"),
    (shapes_threads.StoredLock, "key: StoredLock(storage, key), then acquire and release; threads"),
    (shapes_asyncio.StoredLock, "key: async with StoredLock(storage, key); asyncio; no timeout"),
    (
        lambda: functools.partial(shapes_threads.StoredLock, shapes_threads._LockStorage()),
        "get: L(key), then acquire and release; threads",
    ),
    (flights_threads.cached, "flight: @cached(); threads; a cache by its arguments or name, so that it keeps results"),
    (flights_threads.synchronized, "flight: @synchronized(key_fn); threads"),
    (_locked_by_name, "flight: @_locked_by_name(key); threads"),
    (flights_asyncio.AwaitableFlight, "flight: run(key, awaitable); asyncio"),
)


@pytest.mark.parametrize(("make", "says"), TAKEN, ids=[make.__qualname__ for make, _ in TAKEN])
def test_what_was_taken_for_what_is_said_in_one_line(make: Callable[[], Any], says: str) -> None:
    assert fit(make).shape.taken == says


@pytest.mark.parametrize(
    ("make", "loose"),
    [
        (shapes_threads.StripedLocks, ("independence",)),
        (shapes_threads.ReentrantLocks, ("self-exclusion",)),
        (flights_threads.cached, ("fresh", "evict")),
        (KeyedMutex, ()),
    ],
)
def test_what_is_found_and_nobody_promised_stands_in_the_shape(make: Callable[[], Any], loose: tuple[str, ...]) -> None:
    """And not where it is held to all, nor where it is declared."""
    assert fit(make).shape.loose == loose
    assert fit(make, lenient=False).shape.loose == ()
    assert fit(make, without=frozenset(loose)).shape.loose == () or "fresh" in loose


def test_one_whose_storage_nobody_can_make_is_told_what_helps() -> None:
    with pytest.raises(NotALockerError, match=r"must be given storage, key, .*functools\.partial\(_Unknown, "):
        fit(_Unknown)


class _Unknown:
    def __init__(self, storage: _Opaque, key: str) -> None: ...


class _Opaque:
    def __init__(self, url: str) -> None: ...


def test_what_a_stranger_may_be_is_looked_for_only_where_nothing_is_promised() -> None:
    """Strictly judged, a locker is not re-entrant, its keys share no lock, and each can be of any type."""
    for make in (shapes_threads.StripedLocks, shapes_threads.ReentrantLocks, shapes_threads.TextKeys):
        shape = fit(make, lenient=False).shape
        assert (shape.striped, shape.reentrant, shape.keys) == (False, False, "any")
    declared = fit(KeyedMutex, without=frozenset(("independence", "self-exclusion"))).shape
    assert (declared.striped, declared.reentrant) == (True, True)


def test_what_is_not_asked_of_a_form_is_in_none_of_its_programs() -> None:
    """A block is not left by a stranger; a re-entrant one is not asked twice; of a striped one, one key at a time."""
    block = programs_for(fit(shapes_threads.LockBlocks).shape, interrupt=True)
    assert not any(program.kinds & frozenset("xu?[") for program in block)
    reentrant = {str(p) for p in programs_for(fit(shapes_threads.ReentrantLocks).shape, interrupt=True)}
    assert "0+a | 0?a" not in reentrant
    assert "0+a | 1?a" in reentrant
    assert {len(p.keys) for p in programs_for(fit(shapes_threads.StripedLocks).shape, interrupt=True)} == {1}


class _Odd:
    """Names that nobody would guess, and others that mislead."""

    def __init__(self) -> None:
        self._inner = KeyedMutex()

    def hold(self, key: Hashable) -> bool:
        return True

    def einlass(self, key: Hashable) -> None:
        self._inner.lock(key)

    def auslass(self, key: Hashable) -> None:
        self._inner.unlock(key)

    @contextmanager
    def drinnen(self, key: Hashable, minutes: float = 1) -> Iterator[None]:
        with self._inner.hold(key):
            yield


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["lock=einlass,unlock=auslass"], "acquire: einlass(key), auslass(key); threads; no timeout"),
        (["lock=einlass", "unlock=auslass"], "acquire: einlass(key), auslass(key); threads; no timeout"),
        (["block=drinnen"], "block: with drinnen(key); threads; no timeout"),
    ],
)
def test_a_name_that_is_given_is_the_one_that_is_taken(texts: list[str], says: str) -> None:
    """By ``--call``; options gives back what was given, for the command that replays a run."""
    if len(texts) == 1:
        calls = calls_of(texts)
        assert calls_of(calls.options[1::2]) == calls
    else:
        calls = replace(LOOKING, lock="einlass", unlock="auslass")
        with pytest.raises(CallsError):
            calls_of(texts[:1])
    assert fit(_Odd, calls=calls).shape.taken == says


def test_keys_of_a_type_are_keys_of_that_type() -> None:
    """Every run has other ones where the subject is shared, and each is of the type that was declared."""
    seen: list[Any] = []

    class Watched(shapes_threads.SaysFalse):
        def lock(self, key: Hashable, timeout: float | None = None) -> bool:
            seen.append(key)
            return super().lock(key, timeout)

    for name, kind in (("int", int), ("bytes", bytes), ("tuple", tuple), ("str", str), ("float", float)):
        seen.clear()
        harness = Harness(Watched, calls=Calls(keys=name))
        with harness.control():
            assert not harness.explorer.every(parse("0+a 1+b"), "locks", 1).found
        assert {type(key) for key in seen[-9:]} == {kind}


@pytest.mark.parametrize(
    ("annotation", "kind"),
    [(str, "str"), ("str | None", "str"), (int | None, "int"), ("Optional[str]", "str"), (Hashable, "any")],
)
def test_an_optional_key_is_of_the_type_that_it_has(annotation: Any, kind: str) -> None:
    """None asks for something else than a lock by that key."""

    def lock(key: Any) -> None: ...

    lock.__annotations__["key"] = annotation
    assert keys_of(lock) == kind


class _Sized(KeyedMutex):
    def __init__(self, maxsize: int) -> None:
        super().__init__()


class _Dropping(KeyedMutex):
    """A hold() that gives its block nothing."""

    @contextmanager
    def hold(self, key: Hashable, timeout: float | None = None) -> Iterator[None]:  # type: ignore[override]
        self.lock(key, timeout)
        try:
            yield
        finally:
            self.unlock(key)


def test_a_hold_that_gives_nothing_is_no_lease() -> None:
    assert fit(KeyedMutex).shape.leases
    assert not fit(_Dropping).shape.leases


class _OneGate:
    """One holder at a time, of all keys and all lockers: what one run leaves, the next meets."""

    _gate = threading.Semaphore(1)

    def acquire(self, key: Hashable) -> None:
        self._gate.acquire()

    def release(self, key: Hashable) -> None:
        self._gate.release()


class _Gives:
    """No lock at all."""

    def get(self, key: Hashable) -> int:
        return 5


class _NeverWaits:
    def __init__(self) -> None:
        self._held: set[Hashable] = set()

    def acquire(self, key: Hashable) -> bool:
        return key not in self._held and not self._held.add(key)

    def release(self, key: Hashable) -> None:
        self._held.remove(key)


class _InParts:
    """Its keys have two parts."""

    def __init__(self) -> None:
        self._mutex = KeyedMutex()

    def lock(self, tenant: str, name: str) -> None:
        self._mutex.lock((tenant, name))

    def unlock(self, tenant: str, name: str) -> None:
        self._mutex.unlock((tenant, name))


class _OfPaths:
    """Its keys are objects."""

    def __init__(self) -> None:
        self._mutex = KeyedMutex()

    def lock(self, key: Path) -> None:
        self._mutex.lock(key.parts)

    def unlock(self, key: Path) -> None:
        self._mutex.unlock(key.parts)


class _OneKey:
    """What a refusal of these two tells to write."""

    def __init__(self, make: Callable[[], Any], parts: Callable[[str], tuple[Any, ...]]) -> None:
        self._real, self._parts = make(), parts

    def lock(self, key: str) -> None:
        self._real.lock(*self._parts(key))

    def unlock(self, key: str) -> None:
        self._real.unlock(*self._parts(key))


def _one_at_a_time(method: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of methods."""
    mutex = KeyedMutex()

    def locked(self: Any, key: Hashable, *more: Any) -> Any:
        with mutex.hold(key):
            return method(self, key, *more)

    return locked


class _Service:
    @_one_at_a_time
    def work(self, key: Hashable, fn: Callable[[], Any]) -> Any:
        return fn()


def test_what_refusals_tell_to_write_is_taken() -> None:
    """An object of one key before the real one, and a class with a decorated method."""
    assert fit(lambda: _OneKey(_InParts, lambda key: ("tenant", key))).shape.form == "lock"
    assert fit(lambda: _OneKey(_OfPaths, lambda key: (Path(key),))).shape.form == "lock"
    assert fit(_Service, calls=Calls(do="work")).shape.form == "flight"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_InParts, r"if lock\(tenant, name\) takes the parts of a key, give a factory of an object whose lock\(key\) "),
        (_OfPaths, r"type that --keys does not name, give a factory of an object whose lock\(key\) calls the real "),
        (
            _one_at_a_time,
            r"if it decorates methods, write a class with a method that it decorates, def work\(self, key,",
        ),
        (
            lambda fn: _one_at_a_time(fn),
            r"if it decorates methods, write a class .*, and verify MODULE:CLASS --call do",
        ),
        (
            _Gives,
            r"_Gives has no known form of a lock for a key: looked for .*; found get\(key\); name it with --call",
        ),
        (_NeverWaits, r"a held key is not waited for: acquire\(\) returned False, and there is no time limit"),
        (_OneGate, "two lockers of the factory share more than their keys"),
        (
            lambda maxsize: KeyedMutex(),
            r"must be given maxsize, and is not a lock for a key; write MODULE:<lambda>\(",
        ),
    ],
)
def test_what_can_not_be_judged_is_said_in_one_line(make: Callable[..., Any], says: str) -> None:
    with pytest.raises(NotALockerError, match=says) as caught:
        fit(make)
    assert "\n" not in str(caught.value)


# -- MODULE:FACTORY -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["m:f", "m.n:A.b", "m:f(1, 'a', key=-2)", "m:A.b(C(), [1, (2, None)], {'k': {3}})", "m: f"],
)
def test_a_factory_is_a_name_or_a_call(text: str) -> None:
    assert isinstance(target_of(text).expression, (ast.Name, ast.Attribute, ast.Call))


@pytest.mark.parametrize("text", ["-", ":f", "m:", "m:f(", "m:f; g", "m:1", "m:f(1 + 1)", "m:f(*x)", "m:(lambda: 1)()"])
def test_nothing_else_is_a_factory(text: str) -> None:
    """Usage, told before anything is imported."""
    with pytest.raises(TargetError):
        target_of(text)


def test_what_a_target_makes() -> None:
    """A class, an instance, a call with arguments, and what must be given a key."""
    assert load(target_of("kmutex:KeyedMutex")) is KeyedMutex
    assert fit(load(target_of("tests.verify.test_shapes:_Sized(maxsize=3)"))).shape.form == "lock"
    made = load(target_of("collections:OrderedDict([('a', 1)])"))
    assert made() == {"a": 1}
    assert made() is not made()
    assert load(target_of("tests.lockers.shapes_threads:lock_for")) is shapes_threads.lock_for
    with pytest.raises(MissingError, match="has no 'Nobody'"):
        load(target_of("kmutex:Nobody()"))


def test_a_name_that_its_module_gives_when_it_is_asked_for_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """By itself, with an attribute, and called; another is missing as ever."""
    module: Any = types.ModuleType("gives_when_asked")
    given = {"Lazy": shapes_threads, "Sized": _Sized}
    monkeypatch.setitem(sys.modules, "gives_when_asked", module)
    module.__getattr__ = _giving(given)
    assert load(target_of("gives_when_asked:Sized")) is _Sized
    assert load(target_of("gives_when_asked:Lazy.lock_for")) is shapes_threads.lock_for
    assert isinstance(load(target_of("gives_when_asked:Sized(maxsize=3)"))(), _Sized)
    with pytest.raises(MissingError, match="has no 'Nobody'"):
        load(target_of("gives_when_asked:Nobody"))


def test_a_module_is_a_locker_by_its_own_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those whose names tell nothing, an imported one is not called."""
    module: Any = types.ModuleType("of_functions")
    monkeypatch.setitem(sys.modules, "of_functions", module)
    exec("from os import mkdir\n\ndef knock(key): ...", vars(module))
    assert [candidate.open for candidate in called_by(load(target_of("of_functions"))(), LOOKING)] == ["knock"]
    table = shapes_threads._Table()
    module.lock_key, module.unlock_key = table.take, table.give
    assert fit(load(target_of("of_functions"))).shape.shared


def _giving(given: dict[str, Any]) -> Callable[[str], Any]:
    def give(name: str) -> Any:
        if name not in given:
            raise AttributeError(name)
        return given[name]

    return give


# -- by the command -------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("tests.lockers.shapes_threads:lock_for", "--seconds", "8"), 1, "KM-IDLE"),
        (("tests.lockers.shapes_asyncio:LockBlocksEvicting()", "--seconds", "8"), 1, "KM-EXCL"),
        (("tests.lockers.shapes_threads:GrantsEvicting", "--call", "block=nobody"), 3, "has no nobody()"),
    ],
)
def test_the_command_takes_them_as_they_are(
    arguments: tuple[str, ...],
    status: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A function with a registry, and an expression; a wrong name is refused in one line."""
    monkeypatch.chdir(ROOT)
    done = run_here(monkeypatch, capsys, "verify", *arguments, "--quiet")
    assert done.status == status, done.err
    assert says in done.out + done.err


def test_a_loop_is_needed_by_none_of_it() -> None:
    """Fitting leaves no event loop behind, and runs within one as well."""

    async def within() -> str:
        return fit(shapes_asyncio.WeakLocks).shape.kind

    assert asyncio.run(within()) == "asyncio"
