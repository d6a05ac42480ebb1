"""The keys of a run, for the letters of its program."""

from __future__ import annotations

import functools
import hashlib
import itertools
import uuid
from collections.abc import Callable
from typing import Any


def key_of(letter: str) -> str:
    """Return the key for a letter: an equal value each time, but never the same object."""
    return "".join(["key-", letter])


def spelled(kind: str, text: str) -> Any:
    """Return a key of this type (of `kmutex.engine.calls.KEY_TYPES`): different for each text, and a new object each
    time."""
    if kind == "bytes":
        return text.encode()
    if kind == "int":
        return int.from_bytes(text.encode(), "big")
    if kind == "float":
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 4
    if kind == "uuid":
        return uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16])
    if kind == "tuple":
        return ("key", "".join(list(text)))
    return "".join(list(text))


_RUNS = itertools.count(1)
"""Numbers of runs, unique in the process, so that no run finds the traces of another."""


class Spelling:
    """Keys of one type, perhaps different ones in each run."""

    def __init__(self, kind: str = "any", *, own: bool = False) -> None:
        """Make keys of a type; with ``own``, each run has keys of its own."""
        self._kind = kind
        self._own = own

    def of_a_run(self) -> Callable[[str], Any]:
        """Return the function from letters to keys for the next run."""
        if not self._own:
            return functools.partial(_spell, self._kind, "")
        return functools.partial(_spell, self._kind, f"-{next(_RUNS)}")


def _spell(kind: str, suffix: str, letter: str) -> Any:
    return spelled(kind, f"key-{letter}{suffix}")
