"""What a subject's error says, in one line that can be shown anywhere."""

from __future__ import annotations


def said(error: BaseException) -> str:
    """The error's type and the first line of its words, printable; the type alone where it has no words."""
    name = type(error).__name__
    try:
        lines = str(error).strip().splitlines()
    except BaseException:
        lines = []  # The words are the subject's code too.
    return printable(f"{name}: {lines[0]}" if lines else name)


def printable(text: str) -> str:
    """``text`` with an escape for what no terminal, encoding or XML document may get as it is."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
