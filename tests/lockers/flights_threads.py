"""Single flights for threads, `do(key, work)`: sound ones, and some with one known mistake each, as its docstring says.

A subclass of a sound one shows its mistake and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Condition, Event, Lock
from typing import Any

Work = Callable[[], Any]


class _Call:
    def __init__(self) -> None:
        self.over = Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self.joined = 0

    def outcome(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.result


class SharingFlight:
    """Sound: who finds a call in the table waits for it and shares its result or its error."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._calls: dict[Hashable, _Call] = {}

    def __len__(self) -> int:
        with self._guard:
            return len(self._calls)

    def do(self, key: Hashable, work: Work) -> Any:
        call, first = self._join(key)
        return self._lead(key, call, work) if first else self._follow(call)

    def _join(self, key: Hashable) -> tuple[_Call, bool]:
        with self._guard:
            call = self._calls.get(key)
            if call is not None:
                call.joined += 1
                return call, False
            call = self._calls[key] = _Call()
            return call, True

    def _follow(self, call: _Call) -> Any:
        call.over.wait()
        return call.outcome()

    def _lead(self, key: Hashable, call: _Call, work: Work) -> Any:
        try:
            call.result = work()
        except BaseException as error:
            call.error = error
            raise
        finally:
            self._end(key, call)
        return call.result

    def _end(self, key: Hashable, call: _Call) -> None:
        with self._guard:
            del self._calls[key]
        call.over.set()


class TakeoverFlight:
    """Sound: who waited for work that failed looks again, and does it if nobody else has begun."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._calls: dict[Hashable, _Call] = {}

    def do(self, key: Hashable, work: Work) -> Any:
        with self._changed:
            while (call := self._calls.get(key)) is not None:
                while self._calls.get(key) is call:
                    self._changed.wait()
                if call.result is not None:
                    return call.result
            call = self._calls[key] = _Call()
        try:
            call.result = work()
            return call.result
        finally:
            self._over(key)

    def _over(self, key: Hashable) -> None:
        with self._changed:
            del self._calls[key]
            self._changed.notify_all()


class FutureFlight:
    """Sound: a future for each key, taken from the table before it is resolved."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._futures: dict[Hashable, Future[Any]] = {}

    def do(self, key: Hashable, work: Work) -> tuple[Any, bool]:
        """The result, and whether another caller's work gave it."""
        with self._guard:
            future = self._futures.get(key)
            mine = future is None
            if future is None:
                future = self._futures[key] = Future()
        if not mine:
            return future.result(), True
        try:
            result = work()
        except BaseException as error:
            self._forget(key)
            future.set_exception(error)
            raise
        self._forget(key)
        future.set_result(result)
        return result, False

    def _forget(self, key: Hashable) -> None:
        with self._guard:
            self._futures.pop(key)


class LockedFlight:
    """Sound: a lock for each key while anybody wants it; who gets it looks whether one before has done the work."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._entries: dict[Hashable, tuple[Lock, list[Any], list[int]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def do(self, key: Hashable, work: Work) -> Any:
        with self._guard:
            lock, results, callers = self._entries.setdefault(key, (Lock(), [], [0]))
            callers[0] += 1
            seen = len(results)
        try:
            with lock:
                if len(results) == seen:
                    results.append(work())
                return results[-1]
        finally:
            with self._guard:
                callers[0] -= 1
                if not callers[0]:
                    del self._entries[key]


# KM-ONE


class FlightLooksOutsideGuard(SharingFlight):
    """It looks for a call without the guard, and adds its own without a second look: two may run the work."""

    def _join(self, key: Hashable) -> tuple[_Call, bool]:
        call = self._calls.get(key)
        if call is not None:
            return call, False
        call = self._calls[key] = _Call()
        return call, True

    def _end(self, key: Hashable, call: _Call) -> None:
        self._calls.pop(key, None)
        call.over.set()


class FlightBeginsAnewForThird(SharingFlight):
    """A third caller is taken for the sign of a stuck leader, and runs the work beside it."""

    def _join(self, key: Hashable) -> tuple[_Call, bool]:
        call, first = super()._join(key)
        return (_Call(), True) if call.joined > 1 else (call, first)

    def _end(self, key: Hashable, call: _Call) -> None:
        with self._guard:
            if self._calls.get(key) is call:
                del self._calls[key]
        call.over.set()


# KM-RESULT


class FlightTellsBeforeItForgets(SharingFlight):
    """Those who wait are told while the call is still in the table: one that comes back at once gets the old result."""

    def _end(self, key: Hashable, call: _Call) -> None:
        call.over.set()
        with self._guard:
            del self._calls[key]


class FlightWithCache(SharingFlight):
    """A cache was made of it: the last result is given to whoever asks next, though nothing goes on."""

    def __init__(self) -> None:
        super().__init__()
        self._last: tuple[Hashable, Any] | None = None

    def do(self, key: Hashable, work: Work) -> Any:
        last, self._last = self._last, None
        if last is not None and last[0] == key:
            return last[1]
        result = super().do(key, work)
        self._last = (key, result)
        return result


class FlightGivesNothingOnFailure(SharingFlight):
    """A caller that waited for work that failed is given None, as if that were the result."""

    def _follow(self, call: _Call) -> Any:
        call.over.wait()
        return call.result


# KM-LEADER


class FlightForgetsOnlyOnSuccess(SharingFlight):
    """When the work raises, the call stays in the table and nobody is told: all who come wait forever."""

    def _lead(self, key: Hashable, call: _Call, work: Work) -> Any:
        call.result = work()
        self._end(key, call)
        return call.result


class FlightMindsExceptionsOnly(SharingFlight):
    """It cleans up after an Exception: an interrupt of the leader leaves the call in the table."""

    def _lead(self, key: Hashable, call: _Call, work: Work) -> Any:
        try:
            call.result = work()
        except Exception as error:
            call.error = error
        self._end(key, call)
        return call.outcome()


class FlightSharesWithOne(SharingFlight):
    """The error is taken by the first who waits; the others begin anew."""

    def do(self, key: Hashable, work: Work) -> Any:
        while True:
            call, first = self._join(key)
            if first:
                return self._lead(key, call, work)
            call.over.wait()
            with self._guard:
                failed, call.joined = call.error is not None and call.joined >= 0, -1
            if failed or call.error is None:
                return call.outcome()


# KM-FOLLOWER


class FlightFollowerTidiesUp(SharingFlight):
    """A caller that is interrupted in its wait takes the call from the table, though the work goes on."""

    def do(self, key: Hashable, work: Work) -> Any:
        call, first = self._join(key)
        if first:
            return self._lead(key, call, work)
        try:
            return self._follow(call)
        except KeyboardInterrupt:
            with self._guard:
                self._calls.pop(key, None)
            raise

    def _end(self, key: Hashable, call: _Call) -> None:
        with self._guard:
            if self._calls.get(key) is call:
                del self._calls[key]
        call.over.set()


class FlightFollowerFailsAll(SharingFlight):
    """A caller that is interrupted in its wait leaves its interrupt as the outcome for all."""

    def _follow(self, call: _Call) -> Any:
        try:
            call.over.wait()
        except KeyboardInterrupt as error:
            call.error = error
            call.over.set()
            raise
        return call.outcome()


# KM-FORGET


class FlightKeepsLocks(LockedFlight):
    """The lock of each key stays in a table of its own."""

    def __init__(self) -> None:
        super().__init__()
        self._locks: dict[Hashable, Lock] = {}

    def do(self, key: Hashable, work: Work) -> Any:
        with self._guard:
            self._locks.setdefault(key, Lock())
        return super().do(key, work)


class FlightKeepsResultsByText(SharingFlight):
    """Results are noted for a report under a text made from the key, and never dropped."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[str, Any] = {}

    def _lead(self, key: Hashable, call: _Call, work: Work) -> Any:
        result = super()._lead(key, call, work)
        self._seen[f"{key!r}"] = result
        return result


class FlightKeepsFailures(SharingFlight):
    """The counter of a key's failures stays forever, and len() counts it."""

    def __init__(self) -> None:
        super().__init__()
        self._failures: dict[Hashable, int] = {}

    def __len__(self) -> int:
        return len(self._calls) + len(self._failures)

    def _end(self, key: Hashable, call: _Call) -> None:
        if call.error is not None:
            self._failures[key] = self._failures.get(key, 0) + 1
        super()._end(key, call)


# KM-APART


class FlightWorksUnderGuard(SharingFlight):
    """The work is run with the guard held: calls for other keys wait for it."""

    def do(self, key: Hashable, work: Work) -> Any:
        with self._guard:
            return work()

    def __len__(self) -> int:
        return 0


class FlightByText(SharingFlight):
    """Keys are told apart by their text: 1 and "1" are one."""

    def do(self, key: Hashable, work: Work) -> Any:
        return super().do(str(key), work)


# KM-RETURN


class FlightWakesOne(TakeoverFlight):
    """Of those who wait, one is woken."""

    def _over(self, key: Hashable) -> None:
        with self._changed:
            del self._calls[key]
            self._changed.notify()


class FlightMissesTheEnd(TakeoverFlight):
    """It looks at the table, lets go of it, and then waits: an end that comes between is missed."""

    def do(self, key: Hashable, work: Work) -> Any:
        with self._changed:
            call = self._calls.get(key)
            if call is None:
                self._calls[key] = _Call()
        if call is None:
            return self._lead(key, work)
        with self._changed:
            self._changed.wait()
        return call.result if call.result is not None else self.do(key, work)

    def _lead(self, key: Hashable, work: Work) -> Any:
        call = self._calls[key]
        try:
            call.result = work()
            return call.result
        finally:
            self._over(key)


def cached(ttl: float = 30.0) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """Sound: a decorator with an argument, which does the work once for all who call while it is done, and keeps the
    result for a time, as its name says."""

    def decorator(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        flight, kept = SharingFlight(), dict[Any, tuple[float, Any]]()

        def call(key: Any) -> Any:
            def work() -> Any:
                if key not in kept or time.monotonic() - kept[key][0] > ttl:
                    kept[key] = (time.monotonic(), fn(key))
                return kept[key][1]

            return flight.do(key, work)

        return call

    return decorator


def cached_stampede(ttl: float) -> Callable[[Callable[[Any], Any]], Callable[[Any], Any]]:
    """The mistake: the cache is looked into before the key is held, and not again after."""

    def decorator(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
        kept: dict[Any, tuple[float, Any]] = {}

        def call(key: Any) -> Any:
            if key not in kept or time.monotonic() - kept[key][0] > ttl:
                kept[key] = (time.monotonic(), fn(key))
            return kept[key][1]

        return call

    return decorator


def synchronized(key_fn: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Sound: a decorator that is told how to make the key; who calls for the same key waits, and then does it too."""

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        flight = LockedFlight()

        def call(*args: Any, **kwargs: Any) -> Any:
            return flight.do(key_fn(*args, **kwargs), lambda: function(*args, **kwargs))

        return call

    return decorator


def synchronized_for_each_call(key_fn: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The mistake: each call makes the lock that it takes."""

    def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
        locks: dict[Any, Lock] = {}

        def call(*args: Any, **kwargs: Any) -> Any:
            key = key_fn(*args, **kwargs)
            locks[key] = Lock()
            try:
                with locks[key]:
                    return function(*args, **kwargs)
            finally:
                locks.pop(key, None)

        return call

    return decorator
