"""Figures put into a page between two marks, so that no number there is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path


def written(page: str, command: str, sections: Mapping[str, Sequence[str]]) -> str:
    """The page with those of the command's sections replaced that it has a place for. ValueError: it has none."""
    replaced = 0
    for section, lines in sections.items():
        begin, end = f"<!-- {section}: written by {command} -->", f"<!-- end of {section} -->"
        head, found, rest = page.partition(begin)
        _, ended, tail = rest.partition(end)
        if found and ended:
            page = "\n".join([head + begin, "", *lines, "", end]) + tail
            replaced += 1
    if not replaced:
        raise ValueError(f"the page has no place for {', '.join(sections)}")
    return page


def write(path: Path, command: str, sections: Mapping[str, Sequence[str]]) -> None:
    """The same, for a file. ValueError, OSError."""
    path.write_text(written(path.read_text(encoding="utf-8"), command, sections), encoding="utf-8")
