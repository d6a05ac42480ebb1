"""The SVG: well-formed, complete, nothing over anything else, readable in light and in dark."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings

from kmutex._text import printable
from kmutex.picture.rows import Picture, spans
from kmutex.picture.svg import ALARM, COLORS, svg, wrapped
from kmutex.picture.text import columns
from tests import browser
from tests.picture.pictures import RUN, hostile, pictures

NAMESPACE = "{http://www.w3.org/2000/svg}"
BACKGROUNDS = ("#ffffff", "#16181c", "#131416")
"""Of a picture alone in light and in dark, and of the dark pages of the documentation."""


class Box(NamedTuple):
    """Where something is: from its upper left to its lower right corner."""

    left: float
    top: float
    right: float
    bottom: float
    what: str

    def over(self, other: Box) -> bool:
        """Whether they have more than an edge in common."""
        slack = 0.02
        return (
            self.left < other.right - slack
            and other.left < self.right - slack
            and self.top < other.bottom - slack
            and other.top < self.bottom - slack
        )


def elements(drawn: str, name: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(drawn).iter(NAMESPACE + name))


def boxes(drawn: str) -> list[Box]:
    """Of the texts, by the length that the file itself gives to each and the height of its font."""
    found = []
    for element in elements(drawn, "text"):
        x, baseline = float(element.attrib["x"]), float(element.attrib["y"])
        width = float(element.attrib["textLength"])
        found.append(Box(x, baseline - 11, x + width, baseline + 4, element.text or ""))
    return found


def overlaps(found: list[Box]) -> list[tuple[str, str]]:
    return [(one.what, other.what) for one, other in itertools.combinations(found, 2) if one.over(other)]


@settings(max_examples=60, deadline=None)
@given(pictures())
@example(hostile())
@example(RUN)
def test_any_picture_is_well_formed_and_complete_and_nothing_overlaps(shown: Picture) -> None:
    """Every text is there to be seen, in lines, and to be read aloud; every bar and line of who holds and waits too."""
    drawn = svg(shown, title=shown.rows[0].text if shown.rows else "")
    root = ElementTree.fromstring(drawn)
    assert root.attrib["role"] == "img"
    assert [child.tag for child in list(root)[:2]] == [NAMESPACE + "title", NAMESPACE + "desc"]
    lines = "".join(element.text or "" for element in elements(drawn, "text"))
    aloud = elements(drawn, "desc")[0].text or ""
    for words in (*shown.heads, *(row.text for row in shown.rows)):
        assert printable(words) in lines
    for row in shown.rows:
        assert printable(row.text) in aloud
    assert overlaps(boxes(drawn)) == []
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert all(0 <= box.left <= box.right <= width and box.top >= 0 and box.bottom <= height for box in boxes(drawn))
    named = [e for name in ("rect", "path") for e in elements(drawn, name) if e.find(NAMESPACE + "title") is not None]
    assert len(named) == len(spans(shown))
    assert not re.search(r"(?:href|src|url\()", re.sub(r">[^<]*<", "><", drawn))


def test_texts_that_do_overlap_are_seen_by_the_test() -> None:
    """The known-bad twin: one text moved to where another is."""
    drawn = svg(RUN)
    first, second = elements(drawn, "text")[:2]
    moved = drawn.replace(f'x="{second.attrib["x"]}"', f'x="{first.attrib["x"]}"', 1)
    assert overlaps(boxes(moved))


def test_bars_stand_left_of_their_lane_and_under_no_text() -> None:
    drawn = svg(RUN)
    bars = []
    for bar in elements(drawn, "rect"):
        x, y, width, height = (float(bar.attrib[name]) for name in ("x", "y", "width", "height"))
        bars.append(Box(x, y, x + width, y + height, "bar"))
    assert len(bars) == 5  # Three grants, and what the two colours mean.
    assert not [text for text in boxes(drawn) for bar in bars if text.over(bar)]


@given(pictures())
def test_lines_keep_to_their_width(shown: Picture) -> None:
    """Broken at blanks, or within a word that is wider than a line; a wide character may take one column more."""
    for row in shown.rows:
        lines = list(wrapped(row.text, 20))
        assert "".join(lines) == row.text
        assert all(columns(line) <= 21 for line in lines)


def luminance(color: str) -> float:
    """Relative luminance, as WCAG 2 has it."""
    parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("color", [*COLORS, ALARM])
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_marks_can_be_told_from_light_and_dark(color: str, background: str) -> None:
    """3 to 1, which WCAG 2 asks of what is not text. Text has 4.5 to 1 and more by its own colours."""
    assert contrast(color, background) >= 3
    assert contrast("#ffffff", "#ffff00") < 3, "the measure tells nothing apart"


# -- in a browser ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    pytest.importorskip("selenium", reason="the dev extra has selenium: pip install -e '.[dev]'")
    with browser.started(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


_BOXES = """return Array.from(document.querySelectorAll('text'), e => {
    const box = e.getBBox();
    return [box.x, box.y + 1, box.x + box.width, box.y + box.height - 1, e.textContent];
})"""


@pytest.mark.browser
@pytest.mark.parametrize("shown", [RUN, hostile()], ids=["a run", "hostile texts"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_lays_out_what_was_computed(chromium: Any, tmp_path: Path, shown: Picture, scheme: str) -> None:
    """Real fonts, with characters that no monospaced font has: still no text over another, and nothing is loaded."""
    file = tmp_path / "picture.svg"
    file.write_text(svg(shown), encoding="utf-8")
    browser.emulate(chromium, scheme=scheme)
    browser.errors(chromium)
    chromium.get(file.as_uri())
    found = [Box(*box) for box in chromium.execute_script(_BOXES)]
    assert len(found) == len(elements(svg(shown), "text"))
    assert overlaps(found) == []
    style = "getComputedStyle(document.documentElement)"
    colors = chromium.execute_script(f"return [{style}.color, {style}.backgroundColor]")
    text, background = ("#" + "".join(f"{int(part):02x}" for part in re.findall(r"\d+", c)[:3]) for c in colors)
    assert contrast(text, background) >= 4.5
    assert (luminance(text) < luminance(background)) == (scheme == "light")
    assert browser.errors(chromium) == []


@pytest.mark.browser
def test_a_page_with_two_of_them_has_both_in_its_own_colour(chromium: Any, tmp_path: Path) -> None:
    """As in the report of conform: within HTML the text is the page's, and one picture does not disturb the other."""
    file = tmp_path / "page.html"
    body = f'<body style="color: rgb(1, 2, 3)">{svg(RUN)}{svg(hostile())}</body>'
    file.write_text(f"<!doctype html><meta charset=utf-8>{body}", encoding="utf-8")
    browser.errors(chromium)
    chromium.get(file.as_uri())
    fills = chromium.execute_script(
        "return Array.from(document.querySelectorAll('svg text'), e => getComputedStyle(e).fill)"
    )
    assert set(fills) == {"rgb(1, 2, 3)"}
    shown = chromium.execute_script("return Array.from(document.querySelectorAll('svg text'), e => e.textContent)")
    assert shown == [e.text for picture in (RUN, hostile()) for e in elements(svg(picture), "text")]
    assert browser.errors(chromium) == []
