"""A page that teaches as one HTML file: its shell, its style, its scripts and what they show. It loads nothing."""

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
    """The distinct values that were met, each under a number."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}

    def number(self, value: T) -> int:
        return self._numbers.setdefault(value, len(self._numbers))

    def rows(self, encode: Callable[[T], object]) -> list[object]:
        return [encode(value) for value in self._numbers]


def as_json(data: object) -> str:
    """JSON that may stand in a script element: nothing in it can close the element or open another."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def one_file(shell: str, scripts: Sequence[str], data: Json) -> str:
    """The page, as text. shell, scripts: files of the folder `page`. data: what the scripts find as `data`."""
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
