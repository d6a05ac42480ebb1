"""Keys as the server stores them."""

from __future__ import annotations

import zlib
from collections.abc import Hashable
from typing import NamedTuple

from kmutex.postgres._sql import TURNS

LONGEST = 1024
"""Bytes of a key; an index of PostgreSQL takes no row of much more than twice that."""


LONGEST_SPACE = 256
"""Characters of a space."""


class Name(NamedTuple):
    """A key of one space, as three arguments of a statement. All bytes: no encoding of a database has a part in it."""

    space: str
    """In hexadecimal."""
    key: str
    """In hexadecimal: a letter for its type, and its bytes."""
    turn: int
    """The row under which its rows are changed. Keys that share one cost each other a short wait and no more."""


def stored_space(space: str) -> str:
    """A space as the server has it. TypeError: it is no text. ValueError: the server could not store it."""
    if not isinstance(space, str):
        raise TypeError(f"a space must be a str, not {type(space).__name__}")
    if "\0" in space or len(space) > LONGEST_SPACE or space != space.encode("utf-8", "ignore").decode():
        raise ValueError(f"a space is a text without NUL and lone surrogates, of at most {LONGEST_SPACE} characters")
    return "\\x" + space.encode().hex()


def name_of(space: str, key: Hashable) -> Name:
    """The name of ``key``. TypeError: it is neither str nor bytes. ValueError: it is longer than LONGEST bytes.

    A text and its bytes are two keys, as they are for a dict.
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
    """The key that has this form on the server."""
    content = bytes.fromhex(stored.removeprefix("\\x"))
    return content[1:].decode("utf-8", "surrogatepass") if content[:1] == b"s" else content[1:]
