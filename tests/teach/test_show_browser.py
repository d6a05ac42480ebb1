"""The page of `kmutex show` in a real browser: by keyboard, at the sizes that people have, and without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kmutex.engine.features import PROMISES
from kmutex.engine.harness import Harness
from kmutex.engine.recording import record
from kmutex.engine.source_lines import own_code
from kmutex.teach.lesson import lesson
from kmutex.teach.show_page import Story, page
from tests import browser

pytest.importorskip("selenium", reason="the dev extra has selenium: pip install -e '.[dev]'")

from selenium.webdriver.common.action_chains import ActionChains

pytestmark = [pytest.mark.browser, pytest.mark.sampled(3)]

SIZES = ((1280, 720), (1366, 768), (1280, 800), (1440, 900), (390, 844))


class Page(browser.Page):
    """The page in a browser: what is pressed, what is seen."""

    def at(self) -> int:
        return int(self.js("view.at"))

    def standing(self) -> dict[str, str]:
        """By client, the number of the line beside which it is drawn."""
        found: dict[str, str] = self.js(
            "Object.fromEntries([...document.querySelectorAll('#source li.at')].flatMap(line =>"
            " [...line.querySelectorAll('.chip')].map(chip => [chip.textContent, line.dataset.line])))"
        )
        return found

    def box(self, selector: str) -> dict[str, float]:
        """Where the first such element is in the window."""
        found: dict[str, float] = self.js(
            "(({top, bottom, left, right}) => ({top, bottom, left, right}))"
            "(document.querySelector(arguments[0]).getBoundingClientRect())",
            selector,
        )
        return found


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.started(tmp_path_factory.mktemp("profile"), network=True) as driver:
        yield driver


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lesson 3, with what could have happened instead, and lesson 6, with two keys."""
    stories = []
    for number in (3, 6):
        one = lesson(number)
        bench = Harness(one.make(), without=one.without, promises=PROMISES)
        with bench.control():
            recording = record(bench.explorer, one.schedule, own_code(bench.make), most=25)
        stories.append(Story("kmutex show pkg:Locker", recording))
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page("pkg:Locker", "lock", stories, ("KM-LIVE",), "foot"), encoding="utf-8")
    return path


@pytest.fixture
def shown(chromium: Any, file: Path) -> Iterator[Page]:
    """The page; whatever a test does with it, the console stays empty."""
    found = Page(chromium, file)
    browser.emulate(chromium)
    browser.errors(chromium)
    found.open()
    yield found
    assert browser.errors(chromium) == []


def test_a_run_is_stepped_through_to_where_it_breaks(shown: Page) -> None:
    """The lines, the two tables and the lights follow each step; in the end two clients hold the key."""
    assert "Nothing has happened yet" in shown.text("said")
    assert shown.standing() == {}
    shown.press("r", "r")
    assert "Step 2. Client 0 comes to line" in shown.text("said")
    assert list(shown.standing()) == ["0"]
    shown.press("u")
    assert "Client 0 calls lock a" in shown.text("said")
    length = shown.js("current().all.length")
    both = 0
    while shown.at() < length:
        shown.press("r")
        both += len(shown.standing()) == 2
    assert both > 5
    assert shown.light("KM-EXCL") == "violated"
    assert "client 2 got a while client 1 holds it" in shown.text("said")
    sides = shown.js("[...document.querySelectorAll('.side svg')].map(s => s.getAttribute('aria-label'))")
    assert sides[0] == "Key a: held by client 1 and client 2; nobody asks."
    assert sides[1] == "Key a is in the table: held by client 1; waiting, oldest first: client 2; 2 references."
    assert shown.light("KM-LIVE") == "unjudged"


def test_the_point_at_which_the_two_part_is_shown(shown: Page) -> None:
    parts = shown.js("current().parts")
    shown.open(f"#story=0&run=0&at={parts - 1}")
    assert "part" not in shown.text("said")
    shown.press("r")
    assert "Here the code and the model part." in shown.text("said")
    shown.press("s")
    shown.js("document.getElementById('parts').click()")
    assert shown.at() == parts
    assert shown.js("document.querySelector('#run .parts').parentElement.querySelector('a').dataset.at") == str(parts)


def test_another_choice_is_another_run(shown: Page) -> None:
    """Branch, see what differs, and come back."""
    shown.press("n")
    at = shown.at()
    offered = shown.js("[...document.querySelectorAll('#steps .step:not(.own):not([aria-disabled])')].length")
    assert offered > 0
    before = shown.js("current().all.map(e => e.text).join()")
    shown.js("document.querySelector('#steps .step:not(.own):not([aria-disabled])').click()")
    assert shown.js("view.run") > 0
    assert "it parts from the one before" in shown.text("said")
    after = shown.js("current().all.map(e => e.text).join()")
    assert after != before
    assert shown.js("parting(current(), whole(story(), 0))") >= at
    shown.js("document.getElementById('first').click()")
    assert shown.js("view.run") == 0


def test_the_sound_run_is_one_click_away(shown: Page) -> None:
    shown.js("document.getElementById('sound').click()")
    assert "breaks no clause" in shown.text("verdict")
    shown.js("go({ at: current().all.length })")
    assert "breaks no clause" in shown.text("said")
    assert "violated" not in shown.js("document.getElementById('lights').innerHTML")


def test_what_was_not_run_says_what_runs_it(shown: Page) -> None:
    choice = shown.js(
        "story().runs.flatMap((_, run) => whole(story(), run).choices.map(([at], choice) => [run, at, choice]))"
        ".find(([number, at, choice]) => [0, 1].some(pick => recorded(story(),"
        " [...whole(story(), number).picks.slice(0, choice), pick]) === null))"
    )
    shown.open(f"#story=0&run={choice[0]}&at={choice[1]}")
    shown.js("document.querySelector('#steps .step[aria-disabled]').click()")
    assert "That was not run" in shown.text("said")
    assert "kmutex show pkg:Locker -o page.html --replay '0+a | 0-a 1+a | 2+a @locks-" in shown.text("said")


def test_the_slider_and_the_address_lead_to_the_same_place(shown: Page) -> None:
    shown.js("(s => { s.value = 20; s.dispatchEvent(new Event('input')); })(document.getElementById('slider'))")
    said, standing = shown.text("said"), shown.standing()
    assert shown.text("place") == f"step 20 of {shown.js('current().all.length')}"
    address = shown.js("location.hash")
    shown.open(address)
    assert (shown.text("said"), shown.standing()) == (said, standing)


@pytest.mark.parametrize("address", ["#story=9&run=999&at=-4", "#at=x", "#run=%"])
def test_an_address_that_does_not_fit_is_used_as_far_as_it_goes(shown: Page, address: str) -> None:
    shown.open(address)
    assert shown.text("said")


def test_a_second_run_has_its_own_keys(shown: Page) -> None:
    shown.js("(s => { s.value = 1; s.dispatchEvent(new Event('change')); })(document.getElementById('stories'))")
    assert shown.js("[...document.querySelectorAll('.side:first-child .title')].map(t => t.textContent)") == [
        "key a",
        "key b",
    ]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_what_to_do_is_on_the_first_screen_and_stays_in_place(shown: Page, width: int, height: int) -> None:
    """The step button, the source and on wide screens the tables are seen at once; no step moves the button."""
    browser.emulate(shown.driver, width=width, height=height)
    shown.open()
    button = shown.box("#step")
    assert 0 <= button["top"] < button["bottom"] <= height
    assert shown.box("#source")["bottom"] <= height
    if width > 960:
        assert shown.box(".side svg")["bottom"] <= height
    for at in range(0, shown.js("current().all.length"), 4):
        shown.js("go({ at: arguments[0] })", at)
        assert shown.box("#step") == button
    assert shown.js("document.documentElement.scrollWidth") <= width
    # At that place itself: WebDriver's own click would scroll to it.
    shown.open()
    pointer = ActionChains(shown.driver)
    x, y = (button["left"] + button["right"]) / 2, (button["top"] + button["bottom"]) / 2
    pointer.w3c_actions.pointer_action.move_to_location(int(x), int(y)).click()
    pointer.perform()
    assert shown.at() == 1
    assert shown.js("scrollY") == 0


def test_the_page_loads_nothing(shown: Page) -> None:
    shown.driver.get("about:blank")
    browser.requests(shown.driver)
    shown.open()
    shown.press("n", "r")
    assert [url for url in browser.requests(shown.driver) if not url.startswith(("file:", "data:", "about:"))] == []


def test_everything_that_can_be_pressed_has_a_name(shown: Page) -> None:
    shown.press("n")
    nodes = shown.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    names = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node.get("ignored") and node["role"]["value"] in ("button", "link", "slider", "combobox", "checkbox")
    ]
    assert len(names) > 10
    assert [role for role, name in names if not name.strip()] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("at", [0, 30, 999])
def test_every_text_stands_out_in_light_and_dark(shown: Page, scheme: str, at: int) -> None:
    """A contrast of 4.5 to 1 at least, as WCAG 2 asks of text (AA); in both tables when they have parted, too."""
    browser.emulate(shown.driver, scheme=scheme, motion="reduce")
    shown.open(f"#story=0&run=0&at={at}")
    shown.js("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert shown.js(browser.CONTRAST) == []


def test_a_choice_stands_out_too(shown: Page) -> None:
    shown.press("n")
    assert shown.js("document.querySelectorAll('#steps .step').length") > 1
    assert shown.js(browser.CONTRAST) == []


def test_a_phone_needs_no_sideways_scrolling(shown: Page) -> None:
    browser.emulate(shown.driver, width=360, height=740)
    for at in (0, 20, 999):
        shown.open(f"#story=0&run=0&at={at}")
        shown.js("document.querySelectorAll('details').forEach((d) => (d.open = true))")
        assert shown.js("document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
