"""Texts for messages: an error or a key in one line that can be shown anywhere."""

from __future__ import annotations


def said(error: BaseException) -> str:
    """Return the error's type and the first line of its message, printable; the type alone without a message."""
    name = type(error).__name__
    try:
        lines = str(error).strip().splitlines()
    except BaseException:
        lines = []  # The error's __str__ is the subject's code too.
    return printable(f"{name}: {lines[0]}" if lines else name)


LONGEST_NAME = 100
"""The most characters of a key in a message."""


def brief(key: object) -> str:
    """Return a short name of ``key`` for a message: its repr, cut if it is long; its type if the repr fails."""
    try:
        # Only the part of a long text that is shown is formatted.
        text = repr(key[:LONGEST_NAME] if type(key) is str or type(key) is bytes else key)
        cut = len(text) > LONGEST_NAME
    except Exception:
        return f"<{type(key).__name__}>"
    return f"{text[: LONGEST_NAME - 3]}..." if cut else text


def counted(number: int, one: str, many: str = "") -> str:
    """``number`` of what is called ``one``; many: what more or fewer are called, where that is not one with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def printable(text: str) -> str:
    """Return ``text`` with escapes for characters that terminals, encodings or XML documents can't take."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
