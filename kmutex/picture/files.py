"""Pictures in files, in a format that depends on the ending of the name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kmutex.picture.mermaid import mermaid
from kmutex.picture.rows import Picture
from kmutex.picture.svg import svg
from kmutex.picture.text import text


def _markdown(picture: Picture) -> str:
    return f"```mermaid\n{mermaid(picture)}```\n"


FORMATS: dict[str, Callable[[Picture], str]] = {
    ".svg": svg,
    ".mmd": mermaid,
    ".md": _markdown,
    ".txt": lambda picture: text(picture) + "\n",
}
"""By ending: SVG, Mermaid, Mermaid in a block of Markdown, plain text."""
HELP = "as .svg, .mmd (Mermaid), .md (Mermaid in Markdown) or .txt (text)"
"""The help text of an option for such a file."""


def unfit(path: Path | None) -> str:
    """An error message for a file name without a supported ending; "" for a good name, or for None."""
    if path is None or path.suffix.lower() in FORMATS:
        return ""
    return f"{path}: a picture's name ends in {', '.join(list(FORMATS)[:-1])} or {list(FORMATS)[-1]}"


def drawn(picture: Picture, path: Path) -> str:
    """Return the content for ``path``, which `unfit` must have accepted."""
    return FORMATS[path.suffix.lower()](picture)
