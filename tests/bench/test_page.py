"""Figures that a benchmark puts into a page."""

from __future__ import annotations

import pytest

import page


def test_a_section_is_replaced_and_the_rest_of_the_page_stays() -> None:
    text = "a\n<!-- x: written by run.py -->\nold\n<!-- end of x -->\nb\n"
    once = page.written(text, "run.py", {"x": ["new"], "y": ["nowhere"]})
    assert once == "a\n<!-- x: written by run.py -->\n\nnew\n\n<!-- end of x -->\nb\n"
    assert page.written(once, "run.py", {"x": ["new"]}) == once
    for command, section in (("run.py", "y"), ("other.py", "x")):
        with pytest.raises(ValueError, match=f"no place for {section}"):
            page.written(text, command, {section: ["nowhere"]})
