"""Lists of known failures, each with its reason.

# a comment
0+a/1+a/c1/2?a/r1      leases are not counted yet, see issue 12
0+a,ua...              a race with the unlock: every case that begins so
random:KM-RACE,KM-LIVE the same race, in random sequences that break these clauses and no other
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from kmutex._clauses import CLAUSES
from kmutex.conform.case import CaseError, parse_times

ANY = "..."
"""In a pattern: any text, even empty."""
_RANDOM = "random:"


class KnownError(ValueError):
    """The file can't be used. The message is one line."""


def names(pattern: str, name: str) -> bool:
    """Return whether the pattern, which may contain `ANY`, matches this id or clause."""
    return bool(re.fullmatch(".*".join(map(re.escape, pattern.split(ANY))), name))


def listing(entries: Mapping[str, str], name: str, broken: Iterable[str] = ()) -> str:
    """Return the reason in a list for a case, or "". ``broken`` has the clauses that a random sequence breaks."""
    broken = set(broken)
    for entry, reason in entries.items():
        of_random = entry.startswith(_RANDOM)
        if set(entry[len(_RANDOM) :].split(",")) >= broken > set() if of_random else names(entry, name):
            return reason
    return ""


def read_known(path: Path) -> dict[str, str]:
    """By entry, the reason. KnownError: it can't be read, or a line is not an entry and a reason."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KnownError(f"{path}: {getattr(error, 'strerror', None) or 'is not UTF-8 text'}") from None
    known: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, _, reason = line.strip().partition(" ")
        if not name or name.startswith("#"):
            continue
        if name.startswith(_RANDOM):
            unknown = set(name[len(_RANDOM) :].split(",")) - set(CLAUSES)
            if unknown:
                raise KnownError(f"{path}:{number}: {min(unknown)!r} is not a clause")
        elif ANY not in name:
            try:
                parse_times(name)
            except CaseError as error:
                raise KnownError(f"{path}:{number}: {error}") from None
        if not reason.strip():
            raise KnownError(f"{path}:{number}: {name} has no reason; write it after the id")
        if name in known:
            raise KnownError(f"{path}:{number}: {name} is listed twice")
        known[name] = reason.strip()
    return known
