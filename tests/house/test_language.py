"""Plain English: phrases that readers stopped at occur neither in pages, docstrings and comments, nor in messages."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLAIN = {
    r"(?<!there )(?<!it )\b(is|are|was|were) none\b": "is not ..., or there is no ...",
    r"\bin (the|its|their) midst\b": "in the middle of, during, within",
    r"\bfor ever\b": "forever",
    r"\bquiet moments?\b|\bmoments? of rest\b": "quiescent state",
    r"\bput through\b": "run, checked",
    r"\bwhat(ever)? (has )?(comes?|came|becomes?|became) of\b": "the result of",
    r"\bplain way\b": "default schedule",
    r"\bby looking\b": "automatically, by inspection",
    r"\bas anybody (may|can)\b": "like everybody",
    r"\bin vain\b": "without success",
    r"\bthe one face\b": "one interface",
}
"""Phrases, and what to write instead. The glossary: schedule, default schedule, interleaving, timeline, shrink,
quiescent, counterexample, allowed outcome, preemption bound, held-out, known-bad."""
PAGES = (
    "*.md",
    "docs/*.md",
    "docs/adr/*.md",
    "docs/api/*.rst",
    "specs/*.md",
    "ports/*.md",
    "ports/*/*.md",
    "kmutex/**/*.md",
)
CODE = ("pytest_kmutex.py", "kmutex/**/*.py", "model/**/*.py", "docs/site/*.py")


def dialect(text: str) -> list[str]:
    """The phrases that have a plain form, with that form; across lines, marks of comments and strings."""
    words = re.sub(r"[\s\"#]+", " ", text)
    return [f"{found[0]!r}: {better}" for phrase, better in PLAIN.items() for found in re.finditer(phrase, words)]


@pytest.mark.parametrize("pattern", [*PAGES, *CODE])
def test_the_words_are_plain_english(pattern: str) -> None:
    found = [path for path in ROOT.glob(pattern) if "node_modules" not in path.parts]
    assert found
    wrong = [(str(path.relative_to(ROOT)), *dialect(path.read_text(encoding="utf-8"))) for path in found]
    assert [one for one in wrong if one[1:]] == []


def test_dialect_is_seen() -> None:
    """The known-bad twins, and good ones: there may be none of a thing."""
    source = '"""A feature that is\nnone."""\n# In one, in the\n# midst.\nraise ValueError(f"{x!r} is none")\n'
    assert [fault.partition(":")[0] for fault in dialect(source)] == ["'is none'", "'is none'", "'in the midst'"]
    assert dialect("At a quiet moment, what came of it is shown.") != []
    assert dialect("if x is None: return  # If there are none, or it is none of mine.") == []
