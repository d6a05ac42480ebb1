"""The extra ``kmutex[check]``, which the checkers need and the lock does not."""

from __future__ import annotations

import sys
from importlib.util import find_spec

PARTS = ("hypothesis", "rich", *(("tomli",) if sys.version_info < (3, 11) else ()))
"""Its packages."""


def needed_by(what: str) -> str:
    """Return one line about packages that are missing for ``what``; "" if there are none."""
    missing = [part for part in PARTS if find_spec(part) is None]
    return f"{what} needs {' and '.join(missing)}: pip install 'kmutex[check]'" if missing else ""
