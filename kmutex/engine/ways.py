"""In which ways a subject may be called, by the names and the signatures that it has. Nothing is called here."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
_FUNCTION = re.compile(r"fn|func|function|call|callback|callable|work|factory|loader|compute|producer|f|coro\w*|thunk")
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


def called_by(subject: Any, calls: Calls) -> Iterator[Candidate]:
    """What may lock a key, the likeliest first. Names that are given are the only ones."""
    if calls.lock:
        yield Candidate(calls.lock, calls.unlock)
    elif calls.block or calls.get:
        yield Candidate(calls.block or calls.get)
    elif not calls.do:
        yield from _by_looking(subject)


def flight(subject: Any, calls: Calls) -> FlightCall | None:
    """Its do(key, fn), or itself where it is one or a decorator; None if it has none of these."""
    if calls.do:
        return _flight_call(calls.do, getattr(subject, calls.do)) or FlightCall(calls.do)
    for name in (*FLIGHTS, *_public(subject)):
        function = getattr(subject, name, None)
        if callable(function) and (found := _flight_call(name, function)) and not found.decorates:
            return found
    itself = _flight_call("", subject) if callable(subject) else None
    return None if itself is not None and inspect.isclass(subject) and not itself.decorates else itself


def _flight_call(name: str, function: Any) -> FlightCall | None:
    needed = required(function)
    if needed is None or len(needed) not in (1, 2):
        return None
    functions = [bool(_FUNCTION.fullmatch(parameter.name.lower())) for parameter in needed]
    if functions == [True]:
        return FlightCall(name, decorates=True)
    return FlightCall(name, function_first=functions[0]) if sum(functions) == 1 and len(functions) == 2 else None


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
    pairs = [pair for pair in dict.fromkeys((*PAIRS, *counterparts)) if set(pair) <= set(names) and pair[0] != pair[1]]
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
