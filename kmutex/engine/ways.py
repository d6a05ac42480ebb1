"""In which ways a subject may be called, by the names and the signatures that it has. Nothing is called here."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from kmutex.engine.calls import Calls
from kmutex.engine.faces import Closes, Limit

PAIRS = (
    ("lock", "unlock"),
    ("acquire", "release"),
    ("lock", "release"),
    ("acquire", "unlock"),
    ("enter", "leave"),
    ("enter", "exit"),
    ("take", "release"),
    ("take", "give"),
    ("obtain", "release"),
    ("claim", "release"),
    ("reserve", "release"),
    ("checkout", "checkin"),
    ("get", "release"),
    ("get", "put"),
    ("begin", "end"),
)
"""Names for a call that takes a key and one that lets it go."""
_LENDS = ("get", "get_lock", "acquire_lock", "lock_for", "checkout", "borrow", "take", "obtain", "open", "ref")
_TAKES_BACK = (
    *("release", "release_lock", "put", "put_lock", "put_back", "give_back", "return_lock", "free", "free_lock"),
    *("done", "drop", "drop_lock", "unref", "decref", "dispose", "finish", "leave"),
)
"""The same, where what is lent is a lock that is counted: any of the first goes with any of the second."""
SINGLES = (
    *("hold", "lock", "acquire", "locked", "guard", "with_lock", "synchronized", "critical_section", "mutex"),
    *("__call__", "__getitem__", "get_lock", "lock_for", "for_key", "get", "key", "of", "session", "enter"),
)
"""Names for one call that gives a lock or a block, the likeliest first."""
TRIES = ("try_lock", "try_acquire", "tryacquire", "trylock", "acquire_nowait", "lock_nowait", "attempt")
FLIGHTS = ("do", "run", "call", "execute", "once", "fetch", "single_flight", "get_or_compute", "get_or_create")
"""Names for a call that takes a key and a function."""

_NEVER = re.compile(r"remove|delete|discard|pop|clear|close|update|setdefault|is_|has_|copy|count|wait|len|keys|stat")
"""What changes or tells something else is not called to see what it gives."""
_FUNCTION = re.compile(
    r"fn|func|function|call|callback|callable|work|factory|loader|compute|producer|f|thunk|coro\w*|awaitable|aw"
)
_AWAITABLE = re.compile(r"coro|coroutine|awaitable|aw")
_KEY_FUNCTION = re.compile(
    r"(get_?|make_?|build_?)?key_?(fn|func|function|getter|maker|builder|of|from|by)|(get|make|build)_?key|by"
)
_CACHE = re.compile(r"cached?|memo\w*|lru\w*")
_LIFETIME = re.compile(r"ttl\w*|max_?(size|age|entries)|expir\w*|lifetime")
_AMOUNT = re.compile(r"ttl\w*|max_?\w+|size|seconds|expir\w+|lifetime|duration")
_TIMEOUT = re.compile(r"timeout|time_?out|wait|seconds|secs|patience")
_NO_TIMEOUT = re.compile(r"ttl|lease|expir|hold|retry|interval|poll|idle|clean|default")
_BLOCKING = re.compile(r"block|blocking|wait")
_OWNER = re.compile(r"owner|client|holder|who|caller|requester|worker|user|session|task")
_KEY = re.compile(r"key|name|k|resource|id|ident|identifier|path|item|\w+_(key|id|name)")
_MILLISECONDS = re.compile(r"_ms$|milli")


@dataclass(frozen=True)
class Candidate:
    """Calls that may be it."""

    open: str
    """A method's name; "": the subject itself is called."""
    close: str = ""
    """"": it has to be told by what ``open`` gives."""
    guessed: bool = False
    """Whether its name says nothing of locks."""


@dataclass(frozen=True)
class FlightCall:
    """How the result of a key's work is asked for."""

    name: str
    """A method's name; "": the subject itself is called."""
    function_first: bool = False
    """The work comes before the key."""
    decorates: bool = False
    """It is given a function of the key, and gives one that suppresses duplicates of it."""
    options: tuple[tuple[str, Any], ...] = ()
    """What it is called with first, where it makes such a decorator."""
    by_key: bool = False
    """It is called with a key, and gives a decorator of functions without arguments."""
    awaitable: bool = False
    """The work is given as something to await."""


def called_by(subject: Any, calls: Calls) -> Iterator[Candidate]:
    """What may lock a key, the likeliest first. Names that are given are the only ones."""
    if calls.lock:
        yield Candidate(calls.lock, calls.unlock)
    elif calls.block or calls.get:
        yield Candidate(calls.block or calls.get)
    elif not calls.do:
        yield from _by_looking(subject)


def flights(subject: Any, calls: Calls) -> list[FlightCall]:
    """Its do(key, fn), or itself where it is one or a decorator, the likeliest first."""
    if calls.do:
        return _flight_calls(calls.do, getattr(subject, calls.do)) or [FlightCall(calls.do)]
    named = [
        found
        for name in (*FLIGHTS, *_public(subject))
        if not _NEVER.search(name) and callable(function := getattr(subject, name, None))
        for found in _flight_calls(name, function)
    ]
    itself = _flight_calls("", subject) if callable(subject) else []
    itself = [found for found in itself if found.decorates or not inspect.isclass(subject)]
    called = [found for found in named if not found.decorates]
    return [*called, *itself, *(found for found in named if found.decorates)]


def _flight_calls(name: str, function: Any) -> list[FlightCall]:
    needed = required(function)
    if not needed or len(needed) > 2:
        return []
    works = [parameter for parameter in needed if is_work(parameter)]
    if len(needed) == 2 and len(works) == 1:
        found = FlightCall(name, function_first=works[0] is needed[0])
        # A name may mean a coroutine, or the function that makes one.
        either = _AWAITABLE.fullmatch(works[0].name.lower())
        return [replace(found, awaitable=True), found] if either else [found]
    if len(needed) == len(works) == 1:
        return [FlightCall(name, decorates=True)]
    options = _options(needed)
    if options:
        return [FlightCall(name, decorates=True, options=options)]
    return [FlightCall(name, decorates=True, by_key=True)] if len(needed) == 1 and is_key(needed[0]) else []


def _options(needed: list[inspect.Parameter]) -> tuple[tuple[str, Any], ...]:
    """What a maker of decorators may be given: how a key is made of the arguments, and amounts."""
    found: list[tuple[str, Any]] = []
    for parameter in needed:
        if _KEY_FUNCTION.fullmatch(parameter.name.lower()):
            found.append((parameter.name, _first))
        elif _AMOUNT.fullmatch(parameter.name.lower()):
            found.append((parameter.name, 60))
    return tuple(found) if len(found) == len(needed) else ()


def _first(key: Any, *_: Any, **__: Any) -> Any:
    """The key that a call is about, where a function has to say so."""
    return key


def is_key(parameter: inspect.Parameter) -> bool:
    """Whether its name says that it is a key."""
    return bool(_KEY.fullmatch(parameter.name.lower()))


def is_work(parameter: inspect.Parameter) -> bool:
    """Whether its name says that it is the work of a key."""
    return bool(_FUNCTION.fullmatch(parameter.name.lower()))


def keeps_results(maker: Any) -> bool:
    """Whether it says that results are kept: it is asked for how long or how many, or is a function called so.

    The name of a class is not enough: a cache behind a single flight is where stale results come from.
    """
    if inspect.isfunction(maker) and _CACHE.fullmatch(maker.__name__.lower()):
        return True
    return any(_LIFETIME.fullmatch(parameter.name.lower()) for parameter in parameters(maker) or ())


def missing(subject: Any, calls: Calls) -> str:
    """A name that is given and that the subject does not have; "" if it has all."""
    given = (calls.lock, calls.unlock, calls.block, calls.get, calls.do)
    return next((name for name in given if name and not callable(getattr(subject, name, None))), "")


def found(subject: Any) -> str:
    """Its calls in words, for a message."""
    names = [
        f"{name}({', '.join(p.name for p in required(getattr(subject, name)) or ())})" for name in _public(subject)
    ]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def _by_looking(subject: Any) -> Iterator[Candidate]:
    names = _public(subject)
    counterparts = [
        (name.replace("unlock", "lock").replace("release", "acquire"), name)
        for name in names
        if "unlock" in name or "release" in name
    ]
    lent = [(one, other) for one in _LENDS for other in _TAKES_BACK]
    known = dict.fromkeys((*PAIRS, *counterparts, *lent))
    pairs = [pair for pair in known if set(pair) <= set(names) and pair[0] != pair[1]]
    for first, second in pairs:
        if takes_key(getattr(subject, first)) and required(getattr(subject, second), least=1):
            yield Candidate(first, second)
    paired = {name for pair in pairs for name in pair}
    singles = [name for name in SINGLES if callable(_attribute(subject, name))]
    singles.sort(key=lambda name: not (name == "__getitem__" and hasattr(type(subject), "__missing__")))
    others = [name for name in names if name not in (*singles, *paired) and not _NEVER.search(name)]
    for name in singles:
        if takes_key(_attribute(subject, name)):
            yield Candidate(name)
    for name in others:
        if required(getattr(subject, name), least=1) and takes_key(getattr(subject, name)):
            yield Candidate(name, guessed=True)


def _attribute(subject: Any, name: str) -> Any:
    # A special method is the type's; a function and a class can be called, which makes them no locker.
    if name == "__call__" and (isinstance(subject, type) or inspect.isroutine(subject) or inspect.ismodule(subject)):
        return None
    return getattr(subject, name, None) if not name.startswith("__") or hasattr(type(subject), name) else None


def _public(subject: Any) -> list[str]:
    own = [name for name in dir(subject) if not name.startswith("_")]
    return [name for name in own if callable(inspect.getattr_static(subject, name, None)) or _is_method(subject, name)]


def _is_method(subject: Any, name: str) -> bool:
    held = inspect.getattr_static(subject, name, None)
    return isinstance(held, (staticmethod, classmethod, functools.partialmethod))


def parameters(function: Any) -> list[inspect.Parameter] | None:
    """What it takes, the bound self left out; None if that can't be told."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def required(function: Any, least: int = 0) -> list[inspect.Parameter] | None:
    """The parameters that have no default; None if that can't be told, or there are fewer than ``least``.

    *args takes what it is given.
    """
    known = parameters(function)
    if known is None:
        return None
    needed = [p for p in known if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(needed) < least and not any(p.kind is p.VAR_POSITIONAL for p in known):
        optional = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        return optional[:least] if len(optional) >= least else None
    return needed


def takes_key(function: Any) -> bool:
    """Whether it can be called with one key, or with a key and the name of who calls."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind("key")
    except TypeError:
        return bool(owner_of(function))
    except ValueError:
        return True  # A builtin without a signature: a try will tell.
    return True


def owner_of(function: Any) -> str:
    """The parameter by which it must be told who calls; "" if it need not."""
    needed = required(function)
    if needed is None or len(needed) != 2:
        return ""
    name = needed[1].name
    return name if _OWNER.match(name.lower()) else ""


def named(function: Any, parameter: str) -> bool:
    """Whether it names this parameter itself."""
    return any(known.name == parameter for known in parameters(function) or ())


def limit_of(function: Any) -> Limit:
    """How it is told not to wait, or how long."""
    timeout = blocking = ""
    scale = 1.0
    known = parameters(function)
    if known is None:
        return Limit("timeout")  # As for **arguments below: a guess that a try confirms.
    for parameter in known:
        name = parameter.name.lower()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            # What is passed on may be anything. That it has a timeout is the guess that a try confirms.
            timeout = timeout or "timeout"
        elif isinstance(parameter.default, bool) or parameter.annotation in (bool, "bool"):
            blocking = parameter.name if _BLOCKING.fullmatch(name) else blocking
        elif not timeout and _TIMEOUT.search(name) and not _NO_TIMEOUT.search(name):
            timeout = parameter.name
            scale = 1000.0 if _MILLISECONDS.search(name) else 1.0
    return Limit(timeout, scale, blocking)


def token_wanted(opening: Any, closing: Any, answer: Any) -> tuple[Closes, ...]:
    """What the unlocking method may be given, the likeliest first: "key", "token", "both"."""
    known = parameters(closing)
    if known is None:
        return ("key",)
    positional = [p for p in known if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    needed = [p for p in positional if p.default is p.empty]
    if len(needed) >= 2:
        return ("key",) if owner_of(closing) else ("both",)
    if answer is None or isinstance(answer, bool) or not positional:
        return ("key",)
    first = positional[0].name.lower()
    of_opening = [p.name.lower() for p in parameters(opening) or ()][:1]
    if len(positional) > 1 and re.search(r"token|handle|ticket|lease|grant|lock", positional[1].name.lower()):
        return ("both", "key")
    if [first] == of_opening or _KEY.fullmatch(first):
        return ("key", "token")
    return ("token", "key")


def keys_of(function: Any) -> str:
    """The type of keys that its first parameter is annotated with; "any" if it does not say one that is known."""
    known = parameters(function)
    if not known:
        return "any"
    annotation = known[0].annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = text.strip("'\"").replace("typing.", "")
    # None for a key asks for something else, such as a key made from the work.
    text = re.sub(r"^Optional\[(.*)\]$|^(.*?) *\| *None$|^None *\| *(.*)$", r"\1\2\3", text)
    for name in ("str", "int", "bytes", "float"):
        if text == name:
            return name
    if text in ("UUID", "uuid.UUID"):
        return "uuid"
    return "tuple" if re.match(r"[Tt]uple\b", text) else "any"


def is_coroutine_function(function: Any) -> bool:
    """Whether calling it gives something to await, as far as that can be told without a call."""
    while isinstance(function, functools.partial):
        function = function.func
    return callable(function) and any(
        asyncio.iscoroutinefunction(candidate)
        for candidate in (function, inspect.unwrap(function), type(function).__call__)
    )


def lock_methods(thing: Any) -> tuple[str, str] | None:
    """The calls of a lock for one key: what waits, and what lets go; None if it is no lock."""
    for names in (("acquire", "release"), ("lock", "unlock")):
        calls: list[Callable[..., Any] | None] = [getattr(thing, name, None) for name in names]
        if all(callable(call) and not required(call) for call in calls):
            return names
    return None
