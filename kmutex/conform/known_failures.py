"""The file of known failures: cases that are known to fail, each with the reason. They must go on failing.

# a comment
0+a/1+a/c1/2?a/r1   leases are not counted yet, see issue 12
"""

from __future__ import annotations

from pathlib import Path

from kmutex.conform.case import CaseError, parse_times


class KnownError(ValueError):
    """The file can't be used. One line."""


def read_known(path: Path) -> dict[str, str]:
    """By id of the case, the reason. KnownError: it can't be read, or a line is not an id and a reason."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KnownError(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}") from None
    known: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, _, reason = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        try:
            parse_times(name)
        except CaseError as error:
            raise KnownError(f"{path}:{number}: {error}") from None
        if not reason.strip():
            raise KnownError(f"{path}:{number}: {name} has no reason; write it behind the id")
        if name in known:
            raise KnownError(f"{path}:{number}: {name} is there twice")
        known[name] = reason.strip()
    return known
