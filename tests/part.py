"""`--part K/N` of what takes long, for runs that share the work."""

from __future__ import annotations


def part_of(text: str) -> slice:
    """The K-th of every N of a list, of "K/N"; ValueError for anything else."""
    number, of = (int(part) for part in text.split("/"))
    if not 1 <= number <= of:
        raise ValueError(text)
    return slice(number - 1, None, of)
