"""The files of specs/, from an installation or a checkout."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Traversable


def path(name: str) -> Traversable:
    """Return the file ``name`` of specs/, for example "clauses.toml"; raise FileNotFoundError if there is none."""
    installed = files("kmutex") / "_specs_data"
    checkout = Path(__file__).resolve().parents[1] / "specs"
    found = (installed if installed.is_dir() else checkout) / name
    if not found.is_file():
        raise FileNotFoundError(f"kmutex has no {name} among its specs: {found}")
    return found


def read(name: str) -> str:
    """Return the text of the file ``name`` of specs/; raise FileNotFoundError if there is none."""
    return path(name).read_text(encoding="utf-8")
