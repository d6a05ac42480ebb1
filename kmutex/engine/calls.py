"""Names of a subject's methods that are not found automatically: ``--call`` and ``--keys``, as a value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

ROLES = {
    "lock": "takes the key, and then the lock is held",
    "unlock": "takes the key, or what lock returned",
    "block": "takes the key, and gives something for with or async with",
    "get": "takes the key, and gives a lock",
    "do": "takes the key and a function: a single flight",
}
"""The roles of a named method, and what a method of that role does."""

KEY_TYPES = ("any", "str", "int", "bytes", "tuple", "float", "uuid")
"""The types that all keys of a subject can be declared to have; "any" for any hashable value."""


class CallsError(ValueError):
    """The text does not name a method, or names methods that do not go together. The message is one line."""


@dataclass(frozen=True)
class Calls:
    """The names that the user gives; "" is found automatically."""

    lock: str = ""
    unlock: str = ""
    block: str = ""
    get: str = ""
    do: str = ""
    keys: str = ""
    """One of KEY_TYPES; "" is found automatically."""

    @property
    def named(self) -> bool:
        """Whether any name is given."""
        return any(getattr(self, role) for role in ROLES)

    @property
    def options(self) -> tuple[str, ...]:
        """The same as options of the command."""
        names = ",".join(f"{role}={getattr(self, role)}" for role in ROLES if getattr(self, role))
        return (*(("--call", names) if names else ()), *(("--keys", self.keys) if self.keys else ()))

    def as_plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


LOOKING = Calls()
"""No name is given: all are found automatically."""


def calls_of(texts: Iterable[str], keys: str = "") -> Calls:
    """Parse ``--call ROLE=NAME,... --keys TYPE``.

    Raises:
        CallsError: It can't be read.
    """
    calls = Calls()
    for word in (word for text in texts for word in text.split(",") if word):
        role, equals, name = word.partition("=")
        if role not in ROLES or not equals:
            raise CallsError(f"{word!r} names no call: write ROLE=NAME, with a role of {', '.join(ROLES)}")
        if not name.isidentifier():
            raise CallsError(f"{name!r} is not the name of a method")
        calls = replace(calls, **{role: name})
    if bool(calls.lock) != bool(calls.unlock):
        raise CallsError("lock and unlock go together: --call lock=NAME,unlock=NAME")
    forms = [role for role in ROLES if role != "unlock" and getattr(calls, role)]
    if len(forms) > 1:
        raise CallsError(f"{' and '.join(forms)} are different forms of a lock; name one")
    if keys and keys not in KEY_TYPES:
        raise CallsError(f"{keys!r} is not a type of keys; the types are {', '.join(KEY_TYPES)}")
    return replace(calls, keys=keys)
