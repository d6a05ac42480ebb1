"""What the lock does without and the checkers need: the extra ``kmutex[check]``."""

from __future__ import annotations

import sys
from importlib.util import find_spec

PARTS = ("hypothesis", "rich", *(("tomli",) if sys.version_info < (3, 11) else ()))
"""The packages that it brings."""


def needed_by(what: str) -> str:
    """One line that says what is missing for ``what`` to work; "" where nothing is."""
    missing = [part for part in PARTS if find_spec(part) is None]
    return f"{what} needs {' and '.join(missing)}: pip install 'kmutex[check]'" if missing else ""
