"""docs/evidence.md is what its command makes."""

from __future__ import annotations

from kmutex._clauses import CLAUSES
from tests.house.evidence import PAGE, page, weakest


def test_the_page_is_up_to_date() -> None:
    """Run ``python -m tests.house.evidence --write`` if it is not."""
    assert PAGE.read_text(encoding="utf-8") == page()


def test_every_clause_has_a_row_and_a_weakest_link() -> None:
    """KM-LOOP has no model, and the page says so."""
    text = page()
    assert all(text.count(f"\n| {clause} |") == 1 for clause in CLAUSES)
    assert "no model" in weakest("KM-LOOP")
    assert "no model" not in weakest("KM-FIFO")
