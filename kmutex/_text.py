"""Words for messages: what an error says, and what a key is called, in one line that can be shown anywhere."""

from __future__ import annotations


def said(error: BaseException) -> str:
    """The error's type and the first line of its words, printable; the type alone where it has no words."""
    name = type(error).__name__
    try:
        lines = str(error).strip().splitlines()
    except BaseException:
        lines = []  # The words are the subject's code too.
    return printable(f"{name}: {lines[0]}" if lines else name)


LONGEST_NAME = 100
"""Characters of a key in a message."""


def brief(key: object) -> str:
    """``key`` as a message names it: its repr, cut where that is long; its type where it has none."""
    try:
        # Of a long text only what is shown is spelled out.
        text = repr(key[:LONGEST_NAME] if type(key) is str or type(key) is bytes else key)
        cut = len(text) > LONGEST_NAME
    except Exception:
        return f"<{type(key).__name__}>"
    return f"{text[: LONGEST_NAME - 3]}..." if cut else text


def counted(number: int, one: str, many: str = "") -> str:
    """``number`` of what is called ``one``; many: what more or fewer are called, where that is not one with an s."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def printable(text: str) -> str:
    """``text`` with an escape for what no terminal, encoding or XML document may get as it is."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
