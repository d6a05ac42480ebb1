"""Figures put into a page between two marks, so that no number there is typed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def written(page: str, section: str, command: str, lines: Sequence[str]) -> str:
    """The page with these lines in its section. ValueError: it has no such section, or not the end of it."""
    begin, end = f"<!-- {section}: written by {command} -->", f"<!-- end of {section} -->"
    head, found, rest = page.partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"the page has no lines {begin} and {end}")
    return "\n".join([head + begin, "", *lines, "", end]) + tail


def write(path: Path, section: str, command: str, lines: Sequence[str]) -> None:
    """The same, for a file. ValueError, OSError."""
    path.write_text(written(path.read_text(encoding="utf-8"), section, command, lines), encoding="utf-8")
