"""Keys as the server stores them."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from typing import NamedTuple

from kmutex.postgres._sql import TURNS

LONGEST = 1024
"""The most bytes of a key; an index of PostgreSQL accepts rows of little more than twice that."""


LONGEST_SPACE = 256
"""The most characters of a space."""


class Name(NamedTuple):
    """A key of one space, as three arguments of a statement. All bytes, so the database's encoding does not matter."""

    space: str
    """In hexadecimal."""
    key: str
    """In hexadecimal: a letter for its type, and its bytes."""
    turn: int
    """The row that is locked while its rows are changed. Keys that share one cost each other a short wait only."""


def stored_space(space: str) -> str:
    """Return a space as the server stores it.

    Raises:
        TypeError: It is not a str.
        ValueError: The server could not store it.
    """
    if not isinstance(space, str):
        raise TypeError(f"a space must be a str, not {type(space).__name__}")
    if "\0" in space or len(space) > LONGEST_SPACE or space != space.encode("utf-8", "ignore").decode():
        raise ValueError(f"a space is a text without NUL and lone surrogates, of at most {LONGEST_SPACE} characters")
    return "\\x" + space.encode().hex()


def name_of(space: str, key: Hashable) -> Name:
    """Return the name of ``key``. A str and its bytes are two keys, as in a dict.

    Raises:
        TypeError: It is neither str nor bytes.
        ValueError: It is longer than LONGEST bytes.
    """
    if isinstance(key, str):
        stored = b"s" + key.encode("utf-8", "surrogatepass")
    elif isinstance(key, bytes):
        stored = b"b" + key
    else:
        raise TypeError(f"a key that processes share must be str or bytes, not {type(key).__name__}")
    if len(stored) > 1 + LONGEST:
        raise ValueError(f"a key has at most {LONGEST} bytes, and this one has {len(stored) - 1}")
    of_space = space.encode()
    return Name("\\x" + of_space.hex(), "\\x" + stored.hex(), zlib.crc32(stored, zlib.crc32(of_space)) % TURNS)


def key_of(stored: str) -> str | bytes:
    """Return the key that the server stores in this form."""
    content = bytes.fromhex(stored.removeprefix("\\x"))
    return content[1:].decode("utf-8", "surrogatepass") if content[:1] == b"s" else content[1:]
