"""Finding out what a factory makes, and the table of features."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex._clauses import FLIGHT_CLAUSES
from kmutex.engine.harness import Harness
from kmutex.testing import CLAUSES, FEATURES, NotALockerError, UnknownFeatureError, clauses_off, look


class _Returns(AsyncKeyedMutex):
    """A plain lock() that returns something to await."""

    __slots__ = ()

    def lock(self, key: Any, timeout: float | None = None) -> Awaitable[None]:  # type: ignore[override]
        return super().lock(key, timeout)


def _decorated(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return inner


class _Decorated(AsyncKeyedMutex):
    __slots__ = ()
    lock = _decorated(AsyncKeyedMutex.lock)  # type: ignore[assignment]


class _Parts:
    """A locker that a test puts together."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


def _key(key: Any) -> None: ...


def _key_timeout(key: Any, timeout: float | None = None) -> None: ...


def _fails(key: Any) -> None:
    raise OSError


_TAKEN = iter([True, True])


def _refuses(key: Any) -> bool:
    """Free for as long as it is looked at who gets it."""
    return next(_TAKEN, False)


async def _coroutine(key: Any) -> None: ...


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (KeyedMutex, "threads"),
        (AsyncKeyedMutex, "asyncio"),
        (functools.partial(AsyncKeyedMutex), "asyncio"),
        (_Returns, "asyncio"),
        (_Decorated, "asyncio"),
        (lambda: _Parts(lock=functools.partial(_coroutine), unlock=_key), "asyncio"),
    ],
)
def test_the_kind_is_found_by_looking(make: Callable[[], Any], kind: str) -> None:
    """A coroutine function, wrapped or not, or a function that returns an awaitable."""
    assert Harness(make).shape.kind == kind


def test_what_it_has_is_found_by_looking() -> None:
    """A timeout, len(), hold(); and what is declared away is not looked for."""
    whole = look(KeyedMutex)
    assert (whole.timeout, whole.counts, whole.leases) == (True, True, True)
    less = look(KeyedMutex, frozenset({"timeout", "len", "lease"}))
    assert (less.timeout, less.counts, less.leases) == (False, False, False)
    bare = look(lambda: _Parts(lock=_key_timeout, unlock=_key))
    assert (bare.timeout, bare.counts, bare.leases) == (True, False, False)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (
            lambda: _Parts(unlock=_key),
            r"_Parts has no known form of a lock for a key: .*; found unlock\(key\); name it with --call lock=",
        ),
        (lambda: _Parts(lock=_key_timeout), r"found lock\(key\);"),
        (lambda: _Parts(lock=3, unlock=_key), r"found unlock\(key\);"),
        (lambda: _Parts(lock=lambda: None, unlock=_key), r"found lock\(\), unlock\(key\)"),
        (lambda: _Parts(lock=_key_timeout, unlock=lambda: None), r"found lock\(key\), unlock\(\)"),
        (lambda: _Parts(), "found nothing that takes a key"),
        (
            lambda: _Parts(lock=_fails, unlock=_key),
            r"lock\(\) of a free key does not return: lock a raised OSError",
        ),
        (lambda: _Parts(lock=_refuses, unlock=_key), r"a held key is not waited for: lock\(\) returned False"),
        (
            lambda maxsize: _Parts(),
            r"<lambda> must be given maxsize, and is not a lock for a key; write MODULE:<lambda>\(",
        ),
        (lambda: 1 // 0, "the factory raised ZeroDivisionError"),
    ],
)
def test_what_is_no_locker_is_told_in_one_line(make: Callable[[], Any], says: str) -> None:
    """What is missing, and what to do."""
    with pytest.raises(NotALockerError, match=says) as caught:
        look(make)
    assert "\n" not in str(caught.value)


def test_each_feature_turns_off_clauses_that_there_are() -> None:
    """And together just those."""
    for name, feature in FEATURES.items():
        assert clauses_off([name]) == set(feature.clauses) <= {*CLAUSES, *FLIGHT_CLAUSES}
    assert clauses_off([]) == frozenset()
    assert clauses_off(["fifo", "loop"]) == {"KM-FIFO", "KM-HANDOFF", "KM-LOOP"}
    with pytest.raises(UnknownFeatureError, match="'fast' is not a feature; the features are fifo"):
        clauses_off(["fifo", "fast"])
