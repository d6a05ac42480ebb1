"""The keys of a run: what a letter of a program stands for."""

from __future__ import annotations

import functools
import hashlib
import itertools
import uuid
from collections.abc import Callable
from typing import Any


def key_of(letter: str) -> str:
    """The key for a letter: equal each time, and never the same object."""
    return "".join(["key-", letter])


def spelled(kind: str, text: str) -> Any:
    """A key of this type (one of `kmutex.engine.calls.KEY_TYPES`) for a text: another for each, a new object each
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
"""Of this process: what one run leaves behind, no other meets, whoever runs it."""


class Spelling:
    """Keys of one type, and perhaps other ones in each run."""

    def __init__(self, kind: str = "any", *, own: bool = False) -> None:
        """own: whether each run has keys of its own."""
        self._kind = kind
        self._own = own

    def of_a_run(self) -> Callable[[str], Any]:
        """What the letters stand for in the next run."""
        if not self._own:
            return functools.partial(_spell, self._kind, "")
        return functools.partial(_spell, self._kind, f"-{next(_RUNS)}")


def _spell(kind: str, suffix: str, letter: str) -> Any:
    return spelled(kind, f"key-{letter}{suffix}")
