"""An interactive page as one HTML file: its shell, its style, its scripts and their data. It loads nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Hashable, Sequence
from importlib.resources import files
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)
Json = dict[str, object]
STYLE = "page.css"

_PLACE = re.compile(r"<!-- (style|data|scripts) -->")


class Table(Generic[T]):
    """Numbers for distinct values."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def rows(self, encode: Callable[[T], object]) -> list[object]:
        return [encode(value) for value in self._numbers]


def as_json(data: object) -> str:
    """Return JSON that is safe in a script element: it can neither close the element nor open another."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def one_file(shell: str, scripts: Sequence[str], data: Json) -> str:
    """Return the page. ``shell`` and ``scripts`` are files of the folder `page`; the scripts read `data`."""
    code = "\n".join(_part(name) for name in scripts)
    if re.search(r"</script|<!--", code, re.IGNORECASE):
        raise ValueError("a script of the page would close its own element")
    parts = {
        "style": f"<style>\n{_part(STYLE)}</style>",
        "data": f'<script type="application/json" id="data">{as_json(data)}</script>',
        "scripts": f"<script>\n{code}</script>",
    }
    return _PLACE.sub(lambda match: parts[match[1]], _part(shell))


def _part(name: str) -> str:
    return (files("kmutex.teach") / "page" / name).read_text(encoding="utf-8")
