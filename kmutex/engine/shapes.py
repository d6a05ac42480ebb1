"""Find out what a factory makes, by inspection and trial calls: a locker for threads or asyncio, and its methods."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kmutex._text import said
from kmutex._timeouts import TIMED_OUT
from kmutex.engine import ways
from kmutex.engine.calls import LOOKING, Calls
from kmutex.engine.eventloop import in_a_loop
from kmutex.engine.faces import Closes, Limit, NotGrantedError, Way, face_class, is_block
from kmutex.engine.faces import Form as Form
from kmutex.engine.faces import Kind as Kind
from kmutex.engine.flight import FlightFace, flight_face
from kmutex.engine.observer import SubjectFailedError
from kmutex.engine.program import Phase, Program, Step
from kmutex.engine.stored import Stored, stored
from kmutex.engine.threads import controlled
from kmutex.engine.trials import CALLER, Answers, Trial, Trials
from kmutex.engine.ways import Candidate, FlightCall

_LETTERS = [str(number) for number in range(200)]
"""Keys that are held at once to see whether keys share locks."""


class NotALockerError(Exception):
    """The subject is not a keyed locker. The message says in one line what is missing, and what to do."""


@dataclass(frozen=True)
class Shape:
    """The interface of a subject."""

    kind: Kind
    """"threads" or "asyncio"."""
    timeout: bool
    """Whether lock() takes a timeout."""
    counts: bool
    """Whether len() returns the number of live keys."""
    leases: bool
    """Whether hold() gives its block something with release(), or lock returns what unlock takes."""
    form: Form = "lock"
    """"lock" has lock(key) and unlock(key); "acquire" has the same with other names, results or arguments; "get" has a
    call that returns a lock for the key; "block" has with or async with only; "key" is an object for each key; "flight"
    has do(key, fn)."""
    tries: bool = True
    """Whether a call can ask without waiting, by timeout 0, blocking=False, or a method for it."""
    strays: bool = True
    """Whether a caller that holds nothing can call unlock."""
    bodies: bool = False
    """Whether it is a block, whose body can raise."""
    keys: str = "any"
    """The type of its keys, one of ``kmutex.engine.calls.KEY_TYPES``."""
    shared: bool = False
    """Whether all objects of the factory share their keys; each run then uses new keys."""
    trio: bool = False
    """Whether it waits by trio and runs on trio's scheduler; its kind is "asyncio" also then."""
    reentrant: bool = False
    """Whether its holder gets the key again."""
    forgets: bool = False
    """Whether it is a single flight with forget(key)."""
    several: bool = False
    """Whether it has a hold_all() for several keys."""
    striped: bool = False
    """Whether keys share locks by design."""
    loose: Sequence[str] = ()
    """Features that it was found to lack, without a promise to have them."""
    taken: str = ""
    """One line for the report about which methods are called for what."""


@dataclass(frozen=True)
class Fitted:
    """A factory of lockers that are adapted to one interface."""

    shape: Shape
    """The interface of the original locker."""
    make: Callable[[], Any]
    """Makes an adapted locker, with lock(key, timeout=...) and unlock(key); with __len__ and hold(key) if the shape
    says so. For asyncio, lock is awaited, and unlock if it returns an awaitable. A block also has leave(key, error), by
    which its body raises."""


def fit(
    make: Callable[[], Any],
    *,
    without: frozenset[str] = frozenset(),
    calls: Calls = LOOKING,
    lenient: bool = True,
    patience: float = 5.0,
) -> Fitted:
    """Find out the shape of a locker, and adapt it to ``lock(key, timeout)`` and ``unlock(key)``.

    Args:
        make: A factory without arguments; or an object that is called with a key.
        without: Features that are not looked for.
        calls: Names of methods, if they are not found automatically.
        lenient: Whether it may be re-entrant or striped, or take keys of one type only. If False, it is judged as if it
            were not.
        patience: Real seconds without a scheduling point until the locker counts as out of control.

    Returns:
        The shape, and a factory of adapted lockers.

    Raises:
        NotALockerError: It is not a keyed locker, or the factory fails.
    """
    with controlled(make):
        try:
            looker = _Looker(make, without, calls, lenient, patience)
            try:
                fitted = looker.fitted()
            except NotALockerError:
                if not looker.of_trio:
                    raise
            if not looker.of_trio:
                return fitted
            from kmutex.engine.trioloop import UnknownTrioError

            try:
                return _Looker(make, without, calls, lenient, patience, trio=True).fitted()
            except UnknownTrioError as error:
                raise NotALockerError(str(error)) from None
        except SubjectFailedError as error:
            raise NotALockerError(f"{error}; it is called without arguments") from None


def look(make: Callable[[], Any], without: frozenset[str] = frozenset()) -> Shape:
    """Find out the shape of a locker.

    Args:
        make: A factory without arguments.
        without: Features that are not looked for.

    Raises:
        NotALockerError: It is not a keyed locker, or the factory fails.
    """
    return fit(make, without=without).shape


class _Looker:
    """Tries the objects of a factory."""

    def __init__(
        self,
        make: Callable[[], Any],
        without: frozenset[str],
        calls: Calls,
        lenient: bool,
        patience: float,
        *,
        trio: bool = False,
    ) -> None:
        self._original = make
        self._without = without
        self._calls = calls
        self._lenient = lenient
        # An object that takes a key returns the locks itself; it is the same in every run, unless all shared state of
        # its locks is passed to it.
        self._by_key = bool(ways.required(make))
        self._stored = stored(make) if self._by_key else None
        self._make: Callable[[], Any] = self._stored or ((lambda: make) if self._by_key else make)
        self._trio = trio
        self._trials = Trials(self._make, patience, trio=trio)
        self._subject: Any = None
        self._silent = False
        """Whether the call returns None."""

    @property
    def of_trio(self) -> bool:
        """Whether it waits by trio, and was tried without."""
        return self._trials.of_trio and not self._trio

    def fitted(self) -> Fitted:
        subject = self._subject = self._made()
        if name := ways.missing(subject, self._calls):
            raise NotALockerError(f"{_name(subject)} has no {name}(), which --call names")
        try:
            kind, way = self._found()
        except NotALockerError:
            if self._trials.of_trio:
                raise
            if self._trio and any(True for _ in ways.flights(subject, self._calls)):
                raise NotALockerError("it waits by trio, and no single flight is run there; a locker is") from None
            for call in ways.flights(subject, self._calls):
                flight = self._flight(call)
                if self.of_trio:
                    break
                if flight is not None:
                    return flight
            raise
        if kind == "asyncio" and not self._trio:
            # Where the key is free, it may wait by nothing; where it is not, it shows by what.
            self._trials.run("0+a | 1+a", kind, way)
            if self._trials.of_trio:
                raise NotALockerError("it waits by trio")
        keys = self._calls.keys or (ways.keys_of(self._opening(way.open)) if self._lenient else "any")
        self._trials.key_type(keys)
        shared = (self._by_key and self._stored is None) or self._made() is subject or self._share(kind, way)
        table = shared and self._gives_few(way)
        if shared and not table:
            self._apart(kind, way)
        way, tries = self._limited(kind, way)
        plain = way.by == "calls" and way.closes == "key"
        shape = Shape(
            kind=kind,
            form=way.form,
            timeout=bool(way.limit.timeout),
            tries=tries,
            counts="len" not in self._without and hasattr(type(subject), "__len__"),
            leases="lease" not in self._without
            and (self._leases(kind) if plain else way.by == "calls" and self._for_each_grant(kind, way)),
            strays=plain or (way.by == "lock" and not way.back),
            bodies=way.by == "block",
            several=plain and callable(getattr(subject, "hold_all", None)),
            keys=keys,
            shared=shared,
            trio=self._trio,
        )
        if shape.counts and way.by == "lock":
            # A caller that only got the lock counts as a user already: it can't release it without waiting for it.
            shape = replace(shape, strays=self._idle_when_got(kind, way))
        found = {
            "self-exclusion": self._lenient and self._reentrant(kind, way),
            "independence": self._lenient and (table or self._striped(kind, way)),
        }
        shape = replace(
            shape,
            reentrant=found["self-exclusion"] or "self-exclusion" in self._without,
            striped=found["independence"] or "independence" in self._without,
            loose=tuple(name for name in found if found[name] and name not in self._without),
        )
        return Fitted(replace(shape, taken=self._taken(shape, way)), self._factory(shape, way))

    def _made(self) -> Any:
        made = self._trials.made()
        if made is None:
            raise NotALockerError("the factory does not return; it waits for something")
        return made

    def _opening(self, name: str) -> Any:
        return getattr(self._subject, name) if name else self._subject

    # -- its methods ---------------------------------------------------------------------------------------------

    def _found(self) -> tuple[Kind, Way]:
        """Return the first candidate that locks and releases a free key; or else the first that locks it.

        Raises:
            NotALockerError: There is no such candidate.
        """
        half: tuple[Kind, Way] | None = None
        failed = ""
        by_key = [Candidate("")]
        if self._by_key and self._stored is None and not ways.takes_key(self._original):
            raise NotALockerError(self._no_locker())
        for candidate in by_key if self._by_key else ways.called_by(self._subject, self._calls):
            kind, answers, trial = self._answers(candidate)
            if not answers:
                failed = failed or _not_through(candidate, trial)
                continue
            for kind_, way in self._resolved(candidate, kind, answers[0]):
                trial = self._trials.run("0+a-a", kind_, way)
                self._silent = answers[0] is None
                if trial.did("0+a", "0-a"):
                    return kind_, way
                if trial.did("0+a"):
                    half = half or (kind_, way)
                else:
                    failed = failed or _not_through(candidate, trial)
        if half is not None:
            return half
        raise NotALockerError(failed or self._no_locker())

    def _flight(self, call: FlightCall) -> Fitted | None:
        """Adapt a single flight to do(key, work); None if it can't be called like this."""
        made: list[Any] = []

        async def awaited() -> object:
            return object()

        def work() -> Any:
            made.append(awaited())
            return made[-1]

        def called(subject: Any) -> Callable[[Any], Any]:
            return lambda key: FlightFace(subject, call).do(key, work)

        # The work returns an awaitable: a subject that does not await it passes it on.
        answers, trial = self._trials.answer("threads", called)
        awaits = bool(answers) and inspect.isawaitable(answers[0]) and answers[0] not in made
        if call.awaitable:
            answers += self._trials.answer("asyncio", called)[0][:1]
            awaits = len(answers) > 1
        for left in (*made, *answers):
            if inspect.iscoroutine(left):
                left.close()
        # What it makes of a function is no function of the key alone.
        methods = any(" required positional argument" in said(error) for error in trial.errors.values())
        unlike = call.decorates and (callable(answers[0]) if answers else methods)
        if unlike or (call.awaitable and not awaits) or ((call.by_key or call.options) and not answers):
            return None
        kind: Kind = "asyncio" if awaits or not answers else "threads"
        if kind == "asyncio" and not call.awaitable:
            # Whether it waits by trio shows only where it runs.
            self._trials.answer(kind, called)
        counts = "len" not in self._without and hasattr(type(self._subject), "__len__")
        opening = self._opening(call.name)
        by_key = call.by_key or not (call.decorates or call.function_first)
        keys = self._calls.keys or (ways.keys_of(opening) if by_key and self._lenient else "any")
        shared = (call.by_key or not call.decorates) and (self._by_key or self._made() is self._subject)
        shape = Shape(
            kind,
            timeout=False,
            counts=counts and not shared,
            leases=False,
            form="flight",
            forgets=not call.decorates and ways.takes_key(getattr(self._subject, "forget", None)),
            keys=keys,
            shared=shared,
            loose=("fresh", "evict") if self._lenient and ways.keeps_results(self._original) else (),
            taken=f"flight: {self._called_so(call)}; {kind}",
        )
        if shape.loose:
            shape = replace(shape, taken=f"{shape.taken}; a cache by its arguments or name, so that it keeps results")
        face = flight_face(kind, counts=shape.counts)
        make = self._make

        def fitted() -> Any:
            return face(make(), call)

        fitted.__wrapped__ = self._original  # type: ignore[attr-defined]
        return Fitted(shape, fitted)

    def _called_so(self, call: FlightCall) -> str:
        """Return a description of the call of a single flight."""
        if call.decorates:
            maker = getattr(self._original, "__name__", "L")
            given = ", ".join(option for option, _ in call.options) or ("key" if call.by_key else "")
            made = f"{maker}()" if self._subject is not self._original else maker
            return f"@{made}{'.' if call.name else ''}{call.name}" + (f"({given})" if given else "")
        work, name = "awaitable" if call.awaitable else "fn", call.name
        return f"{name or _name(self._subject)}({f'{work}, key' if call.function_first else f'key, {work}'})"

    def _answers(self, candidate: Candidate) -> tuple[Kind, list[Any], Trial]:
        """Return the kind of the candidate, the answers of its call, and the record of the run."""
        opening = self._opening(candidate.open)
        owner = ways.owner_of(opening)

        def called(subject: Any) -> Any:
            return getattr(subject, candidate.open) if candidate.open else subject

        def let_go(subject: Any, key: Any, answer: Any) -> Any:
            if not candidate.close or is_block(answer):
                return None
            closing = getattr(subject, candidate.close)
            closes = ways.token_wanted(opening, closing, answer)[0]
            given = {"key": (key,), "token": (answer,), "both": (key, answer)}[closes]
            return closing(*given, **({owner: CALLER} if ways.owner_of(closing) else {}))

        kind: Kind = "asyncio" if ways.is_coroutine_function(opening) else "threads"
        answers, trial = self._trials.answer(kind, called, let_go, owner)
        if kind == "threads" and answers and inspect.isawaitable(answers[0]) and not is_block(answers[0]):
            if inspect.iscoroutine(answers[0]):
                answers[0].close()
            kind = "asyncio"
            answers, trial = self._trials.answer(kind, called, let_go, owner)
        return kind, answers, trial

    def _resolved(self, candidate: Candidate, kind: Kind, answer: Any) -> list[tuple[Kind, Way]]:
        """Return the ways to use the answer of a call, the likeliest first; empty if it is not a locker's answer."""
        opening = self._opening(candidate.open)
        calls = Way("acquire", "calls", candidate.open, limit=ways.limit_of(opening), owner=ways.owner_of(opening))
        methods = ways.lock_methods(answer)
        if candidate.close:
            closing = self._opening(candidate.close)
            calls = replace(
                calls,
                form="lock" if (candidate.open, candidate.close) == ("lock", "unlock") else "acquire",
                close=candidate.close,
                trying=next((name for name in ways.TRIES if ways.takes_key(getattr(self._subject, name, None))), ""),
            )
            wanted = ways.token_wanted(opening, closing, answer)
            pairs = [(kind, replace(calls, closes=closes)) for closes in wanted]
            # The answer may be the lock itself, or a block, and may not be held yet.
            if (methods is not None or is_block(answer)) and not self._frees(*pairs[0]):
                lent = self._lent(calls, kind, answer, methods, wanted)
                if lent:
                    return lent
            if (methods is None and not is_block(answer)) or self._excludes(*pairs[0]):
                return pairs
        lets_go = methods[1] if methods is not None else "__call__" if _lets_go(answer) else "release"
        if callable(getattr(answer, lets_go, None)):
            handle = replace(calls, form="acquire", close=lets_go, closes="handle", trying="")
            sure = methods is None and not is_block(answer) and lets_go != "__call__"
            if sure or _is_taken(answer) or self._excludes(kind, handle):
                return [(kind, handle)]
        form: Form = "key" if not candidate.open and (self._stored or inspect.isclass(self._subject)) else "get"
        if methods is not None:
            kind, limit = _waiting(kind, answer, methods[0])
            return [(kind, Way(form, "lock", candidate.open, methods[1], asks=methods[0], limit=limit))]
        if is_block(answer):
            kind = kind if hasattr(type(answer), "__enter__") else "asyncio"
            return [(kind, replace(calls, form="key" if form == "key" else "block", by="block"))]
        return []

    def _lent(
        self, calls: Way, kind: Kind, lock: Any, methods: tuple[str, str] | None, wanted: tuple[Closes, ...]
    ) -> list[tuple[Kind, Way]]:
        """Return the way, if one method of the subject lends a lock or a block and the other takes it back; else empty.

        The lock may be held when it is lent, and the other method may release it. Then a caller whose wait has failed
        can't return a lock that another caller holds, so no wait has a limit.
        """
        held = replace(calls, form="get", by="lock", close="", back=calls.close, trying="")
        if methods is not None:
            asked, limit = _waiting(kind, lock, methods[0])
            held = replace(held, close=methods[1])
            waited = replace(held, asks=methods[0], limit=limit)
            tried = [(kind, held), (asked, replace(waited, close="", limit=Limit())), (asked, waited)]
        else:
            tried = [
                (kind if hasattr(type(lock), "__enter__") else "asyncio", replace(held, by="block", limit=Limit()))
            ]
        for closes in wanted:
            for of, way in tried:
                way = replace(way, closes=closes)
                if self._frees(of, way):
                    return [(of, way)]
        return []

    def _frees(self, kind: Kind, way: Way) -> bool:
        """Return whether a second client waits for a key that the first has, and gets it after the release."""
        trial = self._trials.run("0+a | 1+a | 0-a | 1-a", kind, way)
        return trial.waited(1, 1) and trial.did("0+a", "0-a", "1+a", "1-a")

    def _excludes(self, kind: Kind, way: Way) -> bool:
        """Return whether a second client waits for a key that the first has."""
        return self._trials.run("0+a | 1+a | 0-a | 1-a", kind, way).waited(1, 1)

    # -- its other features --------------------------------------------------------------------------------------

    def _limited(self, kind: Kind, way: Way) -> tuple[Way, bool]:
        """Add to the way what happens when the time is over; return also whether it can be asked without waiting.

        Raises:
            NotALockerError: It never waits.
        """
        if "timeout" in self._without:
            way = replace(way, limit=Limit(), trying="")
        answers = Answers()
        trial = self._trials.run("0+a | 1+a | 0-a | 1-a", kind, way, watch=answers)
        error = trial.errors.get("1+a")
        if error is not None and (isinstance(error, NotGrantedError) or answers.on_purpose):
            told = replace(way, limit=replace(way.limit, endless=True))
            if (way.limit.timeout or way.limit.blocking) and self._excludes(kind, told):
                way = told
            elif isinstance(error, NotGrantedError):
                raise NotALockerError(f"a held key is not waited for: {error}")
        tries = way.tries
        if tries:
            way, tries = self._tried(kind, way)
        if way.limit.timeout:
            way, _ = self._refused(kind, replace(way, trying=""), "0+a | 1~a | c1 | 0-a | 1-a")
        return way, tries

    def _tried(self, kind: Kind, way: Way) -> tuple[Way, bool]:
        program = "0+a | 1?a | 0-a | 1-a"
        tried, trial = self._refused(kind, way, program)
        error = trial.errors.get("1?a")
        if isinstance(error, TypeError) and not ways.named(self._opening(way.open), way.limit.timeout):
            # **arguments are passed on to a function without such a parameter.
            bare = replace(way, limit=Limit(blocking=way.limit.blocking))
            return self._tried(kind, bare) if bare.tries else (bare, False)
        if not trial.waited(1, 1) or way.limit.by_blocking:
            return tried, not trial.waited(1, 1)
        if way.limit.timeout and way.limit.blocking:
            return self._tried(kind, replace(way, limit=replace(way.limit, by_blocking=True)))
        # It waits. lock(key, timeout=0) of the usual interface must not; in others, the meaning of 0 is unknown.
        return way, way.form == "lock"

    def _refused(self, kind: Kind, way: Way, program: str) -> tuple[Way, Trial]:
        """Add to the way how the second client of a program is refused."""
        answers = Answers()
        trial = self._trials.run(program, kind, way, watch=answers)
        if isinstance(answers.last, Exception) and answers.on_purpose:
            if not isinstance(answers.last, way.refused):
                way = replace(way, refused=(*way.refused, type(answers.last)))
        elif answers.last is None and answers.first is not None and len(trial.done) > 1:
            way = replace(way, none_refused=True)
        return way, trial

    def _leases(self, kind: Kind) -> bool:
        """Return whether there is a hold() whose block gets something that can be released."""
        if not ways.takes_key(getattr(self._subject, "hold", None)):
            return False
        return any(callable(getattr(given, "release", None)) for given in self._trials.held(kind))

    def _for_each_grant(self, kind: Kind, way: Way) -> bool:
        """Return whether each grant has its own object for the release. If that is the lock itself, for example, the
        next holder has the same, and they can't be distinguished."""
        answers = Answers()
        self._trials.run("0+a | 1+a | 0-a | 1-a", kind, way, watch=answers)
        alike = isinstance(answers.first, (str, int)) and answers.first == answers.last
        return not alike and answers.first is not answers.last

    def _idle_when_got(self, kind: Kind, way: Way) -> bool:
        """Return whether getting a lock, without waiting for it, leaves len() unchanged."""
        subject = self._made()
        before = len(subject)
        kept, _ = self._trials.answer(kind, lambda _: getattr(subject, way.open))
        return bool(kept) and len(subject) == before

    def _reentrant(self, kind: Kind, way: Way) -> bool:
        """Return whether a holder gets the key again, and others don't until it has released as often."""
        trial = self._trials.twice("0+a | 1+a | 0-a | 1-a", kind, way)
        return trial.waited(1, 1) and trial.did("0+a", "0-a", "1+a", "1-a")

    def _share(self, kind: Kind, way: Way) -> bool:
        """Return whether two subjects share their keys."""
        return self._trials.two("0+a | 1+b | 0-a | 1-b", kind, way).waited(1, 1)

    def _apart(self, kind: Kind, way: Way) -> None:
        """Check that a run does not find the traces of an earlier run with other keys.

        Raises:
            NotALockerError: It does.
        """
        program = "0+a | 1+a | 0-a | 1-a"
        first = self._trials.run(program, kind, way)
        self._trials.run("0+a | 1+a | 2+a", kind, way)
        again = self._trials.run(program, kind, way)
        if first.did("0+a", "0-a") and again.done != first.done:
            raise NotALockerError(
                f"two lockers of the factory share more than their keys: what one leaves behind, the other finds "
                f"({again.why() if again.errors else 'it waits'}); give a factory that resets it"
            )

    def _gives_few(self, way: Way) -> bool:
        """Return whether it returns fewer locks than there are keys, but more than one."""
        if way.by != "lock":
            return False
        opening, keys = self._opening(way.open), self._trials.same_keys()
        locks = in_a_loop(lambda: [opening(keys(letter)) for letter in _LETTERS])
        for lock in filter(inspect.iscoroutine, locks):
            lock.close()
        return 1 < len({id(lock) for lock in locks}) < len(locks)

    def _striped(self, kind: Kind, way: Way) -> bool:
        """Return whether some keys share a lock, while most do not: a table with a fixed number of locks."""
        steps = [((1, (Step("+", a), Step("-", a))), (0, (Step("+", a),))) for a in _LETTERS]
        both = Program(tuple(Phase((one,)) for two in steps for one in two))
        keys = self._trials.same_keys()
        met = self._trials.blocked(both, kind, way, keys)
        if met is None:
            return False
        others = [a for a in _LETTERS if a != met.key][: max(20, _LETTERS.index(met.key))]
        pairs = [Program((Phase(((0, (Step("+", a),)),)), Phase(((1, (Step("+", met.key),)),)))) for a in others]
        collisions = sum(self._trials.blocked(pair, kind, way, keys) is not None for pair in pairs)
        return 0 < collisions < len(others)

    # -- the result ----------------------------------------------------------------------------------------------

    def _factory(self, shape: Shape, way: Way) -> Callable[[], Any]:
        usual = Way("lock", "calls", "lock", "unlock", limit=Limit("timeout" if shape.timeout else ""))
        has = shape.counts == hasattr(type(self._subject), "__len__")
        if way == usual and self._silent and has and not shape.shared:
            return self._original
        leases: Literal["", "hold", "token"] = "" if not shape.leases else "hold" if way.closes == "key" else "token"
        face = face_class(shape.kind, counts=shape.counts, leases=leases)
        make, counts = self._make, shape.counts and shape.shared

        def fitted() -> Any:
            subject = make()
            return face(subject, way, before=len(subject) if counts else 0)

        fitted.__wrapped__ = self._original  # type: ignore[attr-defined]
        return fitted

    def _taken(self, shape: Shape, way: Way) -> str:
        name = self._spelled(way)
        block = "async with" if shape.kind == "asyncio" else "with"
        then = " and ".join(filter(None, [way.asks, way.close]))
        said = {"lock": f"{name}, then {then}", "block": f"{block} {name}"}
        ending = "a call of" if way.close == "__call__" else f"{way.close} of"
        given = {"key": "key", "token": "token", "both": "key, token"}.get(way.closes, "")
        if way.back:
            said["block"] += f", then {way.back}({given.replace('token', 'block')})"
            given = given.replace("token", "lock")
            said["lock"] = f"{name}, " + (f"then {then}, " if then else "") + f"then {way.back}({given})"
        said["calls"] = f"{name}, " + (f"{way.close}({given})" if given else f"then {ending} what it gives")
        parts = [f"{shape.form}: {said[way.by]}", "trio" if shape.trio else shape.kind]
        if not shape.timeout:
            parts.append("no timeout" if not shape.tries else "no timeout, but a try")
        if way.none_refused:
            parts.append("None when the time is over")
        parts += [f"{kind.__name__} when the time is over" for kind in way.refused if kind not in TIMED_OUT]
        parts += [f"keys of type {shape.keys}"] if shape.keys != "any" else []
        parts += ["shared by all runs, each with keys of its own"] if shape.shared else []
        parts += ["re-entrant"] if shape.reentrant else []
        parts += ["keys share locks"] if shape.striped else []
        return "; ".join(parts)

    def _spelled(self, way: Way) -> str:
        more = "".join(f", {name}" for name in (way.owner, way.limit.timeout) if name and way.by != "lock")
        if way.open == "__getitem__":
            return "L[key]"
        if way.open == "__call__":
            return f"L(key{more})"
        if isinstance(self._subject, Stored):
            return f"{self._subject.kind.__name__}({', '.join(self._subject.names)}{more})"
        name = way.open or getattr(self._original, "__name__", "L")
        return f"{name}(key{more})"

    def _no_locker(self) -> str:
        """Return one line: what was looked for, what was found, and what to do."""
        parameters = ways.required(self._original) or []
        needed = [parameter.name for parameter in parameters]
        if needed:
            name = getattr(self._original, "__name__", "the factory")
            if len(needed) == 1 and (ways.is_work(parameters[0]) or needed[0] == "method"):
                return (
                    f"{name} is no decorator of functions of a key; if it decorates methods, write a class with a "
                    "method that it decorates, def work(self, key, fn): return fn(), and verify MODULE:CLASS --call "
                    "do=work"
                )
            return (
                f"{name} must be given {', '.join(needed)}, and is not a lock for a key; write MODULE:{name}(...) with "
                f"its arguments, or a factory that gives functools.partial({name}, ...), to be called with the key"
            )
        found = ways.found(self._subject)
        name = _name(self._subject)
        ask = "name it with --call lock=NAME,unlock=NAME, block=NAME, get=NAME or do=NAME"
        method, parts = ways.in_parts(self._subject)
        if inspect.ismodule(self._subject):
            ask = f"name a class or a function of it: {name}:NAME"
        elif method:
            ask += f"; or, if {method}({parts}) takes the parts of a key, {_adapter(method)}"
        return (
            f"{name} has no known form of a lock for a key: looked for lock and unlock, acquire and release, a block, "
            f"a lock for each key, a single flight; found {found or 'nothing that takes a key'}; {ask}"
        )


def _not_through(candidate: Candidate, trial: Trial) -> str:
    if candidate.guessed:
        return ""
    words = f"{candidate.open or 'the call'}() of a free key does not return: {trial.why()}"
    if any(type(error) in (AttributeError, TypeError, ValueError) for error in trial.errors.values()):
        words += f"; if its keys have a type that --keys does not name, {_adapter(candidate.open)}"
    return words


def _adapter(method: str) -> str:
    """Return what to do where the key that a method takes can't be made of a text."""
    name = method or "lock"
    return f"give a factory of an object whose {name}(key) calls the real {name} with what it makes of key"


def _waiting(kind: Kind, lock: Any, asks: str) -> tuple[Kind, Limit]:
    """Return the kind of a lock whose method ``asks`` waits, and the parameters for a limit on that."""
    asking = getattr(lock, asks)
    only_async = hasattr(type(lock), "__aenter__") and not hasattr(type(lock), "__enter__")
    return ("asyncio" if only_async or ways.is_coroutine_function(asking) else kind), ways.limit_of(asking)


def _lets_go(answer: Any) -> bool:
    """Return whether it is a function without arguments, which may release the key."""
    return (inspect.isroutine(answer) or isinstance(answer, functools.partial)) and ways.required(answer) == []


def _is_taken(lock: Any) -> bool:
    """Return whether a lock that a call returned is held already, as far as it tells."""
    locked = getattr(lock, "locked", None)
    try:
        return callable(locked) and locked() is True
    except Exception:
        return False


def _name(subject: Any) -> str:
    return subject.__name__ if inspect.isclass(subject) or inspect.ismodule(subject) else type(subject).__qualname__
