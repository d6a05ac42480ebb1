"""Candidates for the methods of a subject, by their names and signatures. Nothing is called here."""

from __future__ import annotations

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
"""Pairs of names of a method that locks a key and one that releases it."""
_LENDS = ("get", "get_lock", "acquire_lock", "lock_for", "checkout", "borrow", "take", "obtain", "open", "ref")
_TAKES_BACK = (
    *("release", "release_lock", "put", "put_lock", "put_back", "give_back", "return_lock", "free", "free_lock"),
    *("done", "drop", "drop_lock", "unref", "decref", "dispose", "finish", "leave"),
)
"""Names for methods that lend a counted lock, and names for those that take it back, in any combination."""
SINGLES = (
    *("hold", "lock", "acquire", "locked", "guard", "with_lock", "synchronized", "critical_section", "mutex"),
    *("__call__", "__getitem__", "get_lock", "lock_for", "for_key", "get", "key", "of", "session", "enter"),
)
"""Names for a method that returns a lock or a block, the likeliest first."""
TRIES = ("try_lock", "try_acquire", "tryacquire", "trylock", "acquire_nowait", "lock_nowait", "attempt")
FLIGHTS = ("do", "run", "call", "execute", "once", "fetch", "single_flight", "get_or_compute", "get_or_create")
"""Names for a method that takes a key and a function."""

_NEVER = re.compile(r"remove|delete|discard|pop|clear|close|update|setdefault|is_|has_|copy|count|wait|len|keys|stat")
"""Methods with such names have another purpose, and are not called."""
_FUNCTION = re.compile(
    r"fn|func|function|call|callback|callable|work|factory|loader|compute|producer|f|thunk|coro\w*|awaitable|aw"
    r"|job|task|action|supplier|operation|body"
)
_CALLABLE = re.compile(r"\b(Callable|Awaitable|Coroutine)\b")
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
    """Methods that may lock and release a key."""

    open: str
    """A method's name; "": the subject itself is called."""
    close: str = ""
    """The method that releases; "" if that depends on what ``open`` returns."""
    guessed: bool = False
    """Whether its name does not suggest a lock."""


@dataclass(frozen=True)
class FlightCall:
    """The call for the result of a key's work."""

    name: str
    """A method's name; "": the subject itself is called."""
    function_first: bool = False
    """The work comes before the key."""
    decorates: bool = False
    """It takes a function of the key, and returns one that suppresses duplicates."""
    options: tuple[tuple[str, Any], ...] = ()
    """The arguments of a first call, if that returns such a decorator."""
    by_key: bool = False
    """It is called with a key, and returns a decorator of functions without arguments."""
    awaitable: bool = False
    """The work is passed as an awaitable."""


def called_by(subject: Any, calls: Calls) -> Iterator[Candidate]:
    """Yield candidates, the likeliest first. If the user gives names, they are the only ones."""
    if calls.lock:
        yield Candidate(calls.lock, calls.unlock)
    elif calls.block or calls.get:
        yield Candidate(calls.block or calls.get)
    elif not calls.do:
        yield from _by_looking(subject)


def flights(subject: Any, calls: Calls) -> list[FlightCall]:
    """Return its do(key, fn), or the subject itself if it is one or a decorator, the likeliest first."""
    if calls.do:
        # A decorated method may show the parameters of its decorator: work(key, *args).
        return [*_flight_calls(calls.do, getattr(subject, calls.do)), FlightCall(calls.do)]
    named = [
        found
        for name in (*FLIGHTS, *_to_guess(subject))
        if callable(function := getattr(subject, name, None))
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
    """Return arguments for a maker of decorators: how to make a key from the arguments, and limits."""
    found: list[tuple[str, Any]] = []
    for parameter in needed:
        if _KEY_FUNCTION.fullmatch(parameter.name.lower()):
            found.append((parameter.name, _first))
        elif _AMOUNT.fullmatch(parameter.name.lower()):
            found.append((parameter.name, 60))
    return tuple(found) if len(found) == len(needed) else ()


def _first(key: Any, *_: Any, **__: Any) -> Any:
    """Return the key of a call, as a key function."""
    return key


def is_key(parameter: inspect.Parameter) -> bool:
    """Return whether it is a key, by its name."""
    return bool(_KEY.fullmatch(parameter.name.lower()))


def is_work(parameter: inspect.Parameter) -> bool:
    """Return whether it is the work of a key, by its name or annotation."""
    name = parameter.name.lower()
    by_type = _CALLABLE.search(str(parameter.annotation)) and not _KEY_FUNCTION.fullmatch(name)
    return bool(by_type or _FUNCTION.fullmatch(name))


def keeps_results(maker: Any) -> bool:
    """Return whether it declares that results are kept: by a limit on time or number, or by the name of a function.

    The name of a class is not enough: a cache behind a single flight causes stale results.
    """
    if inspect.isfunction(maker) and _CACHE.fullmatch(maker.__name__.lower()):
        return True
    return any(_LIFETIME.fullmatch(parameter.name.lower()) for parameter in parameters(maker) or ())


def missing(subject: Any, calls: Calls) -> str:
    """Return a name that the user gives and the subject does not have; "" if it has all."""
    given = (calls.lock, calls.unlock, calls.block, calls.get, calls.do)
    return next((name for name in given if name and not callable(getattr(subject, name, None))), "")


def found(subject: Any) -> str:
    """Return its methods for a message."""
    names = [
        f"{name}({', '.join(p.name for p in required(getattr(subject, name)) or ())})" for name in _public(subject)
    ]
    return ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")


def in_parts(subject: Any) -> tuple[str, str]:
    """Return a method whose key seems to have several parts, and its parameters, for a message; "" if there is none."""
    public = _public(subject)
    for name in (*(name for name in SINGLES if name in public), *_to_guess(subject)):
        needed = required(getattr(subject, name)) or []
        if len(needed) > 1 and not any(map(is_work, needed)):
            return name, ", ".join(parameter.name for parameter in needed)
    return "", ""


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
    others = [name for name in _to_guess(subject) if name not in (*singles, *paired)]
    for name in singles:
        if takes_key(_attribute(subject, name)):
            yield Candidate(name)
    for name in others:
        if required(getattr(subject, name), least=1) and takes_key(getattr(subject, name)):
            yield Candidate(name, guessed=True)


def _attribute(subject: Any, name: str) -> Any:
    # A special method belongs to the type; functions and classes can be called, but are not lockers because of that.
    # From 3.14 on a partial passes for a routine, since it binds as a method.
    routine = inspect.isroutine(subject) and not isinstance(subject, functools.partial)
    if name == "__call__" and (isinstance(subject, type) or routine or inspect.ismodule(subject)):
        return None
    return getattr(subject, name, None) if not name.startswith("__") or hasattr(type(subject), name) else None


def _public(subject: Any) -> list[str]:
    own = [name for name in dir(subject) if not name.startswith("_")]
    return [name for name in own if callable(inspect.getattr_static(subject, name, None)) or _is_method(subject, name)]


def _to_guess(subject: Any) -> list[str]:
    """Return the methods that may be called though their names tell nothing: of a module, only its package's own."""
    names = [name for name in _public(subject) if not _NEVER.search(name)]
    if not inspect.ismodule(subject):
        return names
    return [name for name in names if not _imported(getattr(subject, name), subject.__name__.partition(".")[0])]


def _imported(thing: Any, package: str) -> bool:
    defined = inspect.isfunction(thing) or inspect.isclass(thing) or inspect.isbuiltin(thing)
    return defined and str(thing.__module__).partition(".")[0] != package


def _is_method(subject: Any, name: str) -> bool:
    held = inspect.getattr_static(subject, name, None)
    return isinstance(held, (staticmethod, classmethod, functools.partialmethod))


def parameters(function: Any) -> list[inspect.Parameter] | None:
    """Return its parameters without a bound self; None if unknown."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def required(function: Any, least: int = 0) -> list[inspect.Parameter] | None:
    """Return the parameters without a default; None if unknown, or if there are fewer than ``least``.

    *args accepts any number.
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
    """Return whether it can be called with one key, or with a key and the name of the caller."""
    if not callable(function):
        return False
    try:
        inspect.signature(function).bind("key")
    except TypeError:
        return bool(owner_of(function))
    except ValueError:
        return True  # A builtin without a signature: a trial will tell.
    return True


def owner_of(function: Any) -> str:
    """Return the required parameter for the name of the caller; "" if there is none."""
    needed = required(function)
    if needed is None or len(needed) != 2:
        return ""
    name = needed[1].name
    return name if _OWNER.match(name.lower()) else ""


def named(function: Any, parameter: str) -> bool:
    """Return whether it has a parameter of this name."""
    return any(known.name == parameter for known in parameters(function) or ())


def limit_of(function: Any) -> Limit:
    """Return the parameters for not waiting, or for a timeout."""
    timeout = blocking = ""
    scale, delta = 1.0, False
    known = parameters(function)
    if known is None:
        return Limit("timeout")  # As for **arguments below: a guess, for a trial to confirm.
    for parameter in known:
        name = parameter.name.lower()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            # These may be any arguments. That there is a timeout is a guess, for a trial to confirm.
            timeout = timeout or "timeout"
        elif isinstance(parameter.default, bool) or parameter.annotation in (bool, "bool"):
            blocking = parameter.name if _BLOCKING.fullmatch(name) else blocking
        elif not timeout and _TIMEOUT.search(name) and not _NO_TIMEOUT.search(name):
            timeout = parameter.name
            scale = 1000.0 if _MILLISECONDS.search(name) else 1.0
            delta = "timedelta" in str(parameter.annotation)
    return Limit(timeout, scale, delta, blocking)


def token_wanted(opening: Any, closing: Any, answer: Any) -> tuple[Closes, ...]:
    """Return the possible arguments of the unlocking method, the likeliest first: "key", "token", "both"."""
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
    """Return the type of keys in the annotation of its first parameter; "any" if there is no known one."""
    known = parameters(function)
    if not known:
        return "any"
    annotation = known[0].annotation
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    text = text.strip("'\"").replace("typing.", "")
    # None for a key means something else, such as a key made from the work.
    text = re.sub(r"^Optional\[(.*)\]$|^(.*?) *\| *None$|^None *\| *(.*)$", r"\1\2\3", text)
    for name in ("str", "int", "bytes", "float"):
        if text == name:
            return name
    if text in ("UUID", "uuid.UUID"):
        return "uuid"
    return "tuple" if re.match(r"[Tt]uple\b", text) else "any"


def is_coroutine_function(function: Any) -> bool:
    """Return whether calling it gives an awaitable, as far as is known without a call."""
    while isinstance(function, functools.partial):
        function = function.func
    return callable(function) and any(
        inspect.iscoroutinefunction(candidate)
        for candidate in (function, inspect.unwrap(function), type(function).__call__)
    )


def lock_methods(thing: Any) -> tuple[str, str] | None:
    """Return the names of a lock's methods that wait and release; None if it is not a lock."""
    for names in (("acquire", "release"), ("lock", "unlock")):
        calls: list[Callable[..., Any] | None] = [getattr(thing, name, None) for name in names]
        if all(callable(call) and not required(call) for call in calls):
            return names
    return None
