"""The page of `kmutex explore` in a real browser, by keyboard alone.

Needs Chromium and its driver (Debian: `apt-get install chromium chromium-driver`); nothing is fetched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kmutex.teach.explore_page import Subject, embedded, page, subjects
from kmutex.teach.lesson import lesson, lessons, play
from kmutex_model import broken
from kmutex_model.actions import CORRECT, format_schedule
from kmutex_model.explore import explore
from kmutex_model.state import Config
from tests import browser

pytest.importorskip("selenium", reason="the dev extra has selenium: pip install -e '.[dev]'")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = [pytest.mark.browser, pytest.mark.sampled(3)]

SECONDS = 20
"""The longest that a state is waited for; a limit for a page that hangs, not a measure."""
START = "#mode=schedule&model=correct&bound=3x1&race=keep"
QUEUE = f"{START}&run=request(0,0);request(1,0);request(2,0)"
LIFO = "#mode=compare&model=lifo.KM-FIFO&bound=3x1&race=keep"
BROKEN = [subject for subject in subjects() if subject.clause]
ADDRESSES = (
    QUEUE,
    "#mode=schedule&model=correct&bound=3x2&race=pass&run=request(0,0);request(1,0);release(0);request(2,1)",
    "#mode=watch&model=correct&bound=3x1&race=keep&run=request(0,0);request(1,0);release(0);cancel(1)&at=3",
    "#mode=predict&model=correct&bound=3x2&race=keep&run=request(0,0)",
    "#mode=break&model=no_lock.KM-EXCL&bound=2x1&race=keep&run=request(0,0);request(1,0)",
    "#mode=break&model=cancel_swaps_places.KM-CANCEL&bound=4x1&race=keep&run=request(0,0);request(1,0);request(2,0)",
    f"{LIFO}&run=request(0,0);request(1,0);request(2,0);release(0)",
)
LESSON = "#mode=lessons&lesson=3&answer=a"


class Page(browser.Page):
    """A page in a browser: what is pressed, what is seen."""

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        return WebDriverWait(self.driver, SECONDS, poll_frequency=0.02).until(lambda _: condition(), what)

    def said(self, *words: str) -> str:
        """Wait until the live region says all this."""
        self.wait(lambda: all(word in self.text("said") for word in words), f"{words} not in {self.text('said')!r}")
        return self.text("said")

    def run(self, *actions: str) -> None:
        """Wait until this is the run so far."""
        self.wait(lambda: self.js("taken().join(';')") == ";".join(actions), f"the run is not {actions}")

    def focused(self) -> str:
        return str(self.js("document.activeElement.textContent"))

    def tab_to(self, expression: str) -> None:
        """Press Tab until the focused element `e` is as the expression says."""
        for _ in range(200):
            self.press(Keys.TAB)
            if self.js(f"(e => {expression})(document.activeElement)"):
                return
        raise AssertionError(f"Tab does not reach an element with {expression}")

    def emulate(
        self, *, width: int = 1280, height: int = 900, scheme: str = "light", motion: str = "no-preference"
    ) -> None:
        browser.emulate(self.driver, width=width, height=height, scheme=scheme, motion=motion)

    def errors(self) -> list[str]:
        """What the console has, and forget it."""
        return browser.errors(self.driver)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser.started(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(page(embedded().json), encoding="utf-8")
    return path


@pytest.fixture
def shown(chromium: Any, file: Path) -> Iterator[Page]:
    """The page; whatever a test does with it, the console stays empty."""
    found = Page(chromium, file)
    found.emulate()
    found.errors()
    yield found
    assert found.errors() == []


# ------------------------------------------------------------------------------------------------------------
# Schedule, and the address


def test_a_run_is_scheduled_by_keyboard(shown: Page) -> None:
    shown.open()
    shown.said("Nobody has asked")
    shown.press("0", "a")
    shown.said("Step 1. Client 0 asks for key 0: it gets the key at once.")
    shown.press("g")
    assert "Client 0 releases key 0" in shown.focused()
    shown.press(Keys.ARROW_DOWN)
    assert "Client 1 asks for key 0" in shown.focused()
    shown.press(Keys.ENTER)
    shown.run("request(0,0)", "request(1,0)")
    shown.press(Keys.HOME)
    assert "Client 0 releases key 0" in shown.focused()
    shown.press(Keys.SPACE)
    shown.said("Client 0 releases key 0: done. Client 1 now owns key 0; its call has not returned yet.")
    assert shown.js("document.querySelector('#scene svg').getAttribute('aria-label')") == (
        "Key 0 is in the table: granted to client 1, whose call has not returned yet; nobody waits; 1 reference."
    )
    assert shown.light("KM-HANDOFF") == "tested"
    assert shown.light("KM-FIFO") == "untested"


def test_undo_redo_and_start_over(shown: Page) -> None:
    shown.open(QUEUE)
    before = shown.text("scene")
    shown.press("u")
    shown.run("request(0,0)", "request(1,0)")
    assert shown.text("scene") != before
    shown.press("r")
    shown.run("request(0,0)", "request(1,0)", "request(2,0)")
    assert shown.text("scene") == before
    shown.press("u", "u", "u", "u")
    shown.said("Nobody has asked")
    assert shown.js("document.getElementById('undo').getAttribute('aria-disabled')") == "true"
    shown.press("r", "s")
    shown.run()
    assert shown.js("document.getElementById('redo').getAttribute('aria-disabled')") == "true"


def test_undo_keeps_the_focus(shown: Page) -> None:
    shown.open(QUEUE)
    shown.tab_to("e.id === 'undo'")
    shown.press(Keys.ENTER, Keys.ENTER, Keys.ENTER, Keys.ENTER)
    shown.run()
    assert shown.js("document.activeElement.id") == "undo"


def test_back_and_forward_walk_the_run(shown: Page) -> None:
    shown.open()
    shown.press("0", "a")
    shown.run("request(0,0)")
    shown.press("0", "r")
    shown.run("request(0,0)", "release(0)")
    shown.driver.back()
    shown.run("request(0,0)")
    shown.said("Step 1. Client 0 asks")
    shown.driver.forward()
    shown.said("Step 2. Client 0 releases")


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_shows_the_same_when_it_is_opened_again(shown: Page, address: str) -> None:
    shown.open(address)
    assert shown.js("location.hash") == address
    again = shown.js("address(view)")
    assert shown.js("JSON.stringify(read(arguments[0]).view) === JSON.stringify(view)", again)
    assert not any(subject.name.partition(".")[0] in again for subject in BROKEN if subject.name in address)
    seen = [shown.text(name) for name in ("scene", "said", "run", "lights", "bound", "steps")]
    shown.driver.refresh()
    assert [shown.text(name) for name in ("scene", "said", "run", "lights", "bound", "steps")] == seen


def test_every_run_the_page_offers_survives_its_address(shown: Page) -> None:
    shown.open()
    lost = shown.js(
        """data.graphs.flatMap((graph) => shows(graph).filter(({ run }) => {
            const wanted = { mode: "schedule", graph, run, at: run.length };
            const { view: found, problem } = read(address(wanted));
            return problem || found.graph !== graph || found.run.join() !== run.join() || found.at !== run.length;
        }).map(({ title }) => graph.id + title))"""
    )
    assert lost == []


@pytest.mark.parametrize(
    ("address", "problem", "run"),
    [
        ("#mode=dance", "There is no mode “dance”.", ()),
        ("#mode=lessons&lesson=99", "There is no lesson “99”.", ()),
        ("#mode=schedule&model=nobody", "model or bound that this page does not have", ()),
        (
            f"{START}&run=request(0,0);wake(2);release(0)",
            "a step that is not possible here: wake(2).",
            ("request(0,0)",),
        ),
        ("#mode=predict&model=lifo.KM-FIFO", "Predict is not for the model “lifo.KM-FIFO”.", ()),
        ("#mode=%E0%A4%A", "The address of this page is damaged.", ()),
    ],
)
def test_an_address_that_does_not_fit_is_said_and_used_as_far_as_it_goes(
    shown: Page, address: str, problem: str, run: tuple[str, ...]
) -> None:
    shown.open(address)
    shown.said(problem)
    shown.run(*run)


def test_an_address_can_be_pasted_into_the_open_page(shown: Page) -> None:
    shown.open(START)
    shown.js("location.hash = arguments[0]", QUEUE)
    shown.said("Step 3. Client 2 asks for key 0")


def test_the_shortcuts_can_be_turned_off(shown: Page) -> None:
    shown.open()
    shown.press("?")
    shown.wait(lambda: shown.js("document.getElementById('help').open"), "the help is not open")
    shown.tab_to("e.id === 'letters'")
    shown.press(Keys.SPACE, "0", "a", "g")
    assert shown.js("document.activeElement.id") == "letters"
    shown.press(Keys.SPACE, "0", "a")
    shown.run("request(0,0)")


def test_another_model_is_chosen_by_keyboard(shown: Page) -> None:
    shown.open(QUEUE)
    shown.press("m", "3 clients, 2 keys; a grant is p", Keys.ENTER)
    shown.wait(lambda: shown.js("view.graph.id") == "correct 3x2 pass", "the model is not chosen")
    assert shown.js("location.hash") == "#mode=schedule&model=correct&bound=3x2&race=pass"
    found = explore(CORRECT, Config(3, 2, "pass"))
    assert f"3 clients, 2 keys, {found.states:,} states, {found.transitions:,} steps" in shown.text("bound")
    assert shown.js("document.querySelectorAll('#scene svg').length") == 2


# ------------------------------------------------------------------------------------------------------------
# Watch


def to_mode(shown: Page, name: str) -> None:
    shown.tab_to(f"e.closest('nav') && e.textContent === '{name}'")
    shown.press(Keys.ENTER)
    shown.wait(lambda: shown.js("MODES[view.mode].name") == name, f"the mode is not {name}")


def test_watch_plays_a_run_to_its_end(shown: Page) -> None:
    shown.open(START)
    to_mode(shown, "Watch")
    assert "KM-RACE: a cancel comes after the grant and the grant is kept" in shown.text("panel")
    shown.tab_to("e.id === 'pace'")
    shown.press("fast")
    shown.wait(lambda: shown.js("here.pace") == "fast", "the pace is not fast")
    shown.tab_to("e.id === 'play'")
    shown.press("p")
    shown.said("Step 4. Client 1 is cancelled at key 0: the grant was first and is kept.", "Seen: a cancel comes after")
    shown.wait(lambda: shown.text("play").startswith("Play"), "it does not stop at its end")
    shown.run("request(0,0)", "request(1,0)", "release(0)", "cancel(1)")
    assert "Rule 7." in shown.text("because")
    assert shown.js("document.activeElement.id") == "play"


def test_watch_pauses_and_steps(shown: Page) -> None:
    shown.open("#mode=watch&model=correct&bound=3x1&race=keep&run=request(0,0);request(1,0)&at=0")
    shown.js("PACES.forEach((pace) => (pace[1] = 3600_000))")  # No beat comes between the keys.
    shown.press("p")
    assert shown.text("play").startswith("Pause")
    assert shown.js("here.timer !== null")
    shown.press("p")
    assert shown.text("play").startswith("Play")
    assert shown.js("here.timer === null")
    shown.press("s", "r")
    shown.said("Step 1. Client 0 asks for key 0")
    shown.press("u")
    shown.said("Nobody has asked")
    assert shown.js("document.getElementById('next').hidden")


def test_every_run_to_watch_goes_to_its_end(shown: Page) -> None:
    shown.open()
    stuck = shown.js(
        """data.graphs.flatMap((graph) => shows(graph).filter(({ run }) => walk(graph, run).steps.length !== run.length)
           .map(({ title }) => graph.id + title))"""
    )
    assert stuck == []
    assert shown.js("data.graphs.every((graph) => shows(graph).length > 0)")


# ------------------------------------------------------------------------------------------------------------
# Predict


def predict(shown: Page, code: str, outcome: str, holder: str) -> None:
    shown.press(*code)
    shown.wait(lambda: shown.js("document.activeElement.id") == "guess-outcome", "nothing is asked")
    shown.press(outcome, Keys.TAB, holder, Keys.TAB, Keys.ENTER)


def test_a_prediction_is_told_right_or_wrong(shown: Page) -> None:
    shown.open(START)
    to_mode(shown, "Predict")
    predict(shown, "0a", "it gets", "client 0")
    shown.said("✓ Right. 1 of 1 right.", "Step 1. Client 0 asks for key 0")
    predict(shown, "1a", "it gets", "client 1")
    shown.said(
        "✗ Not so: you said “it gets the key at once”, and it has to wait", "belongs to client 0", "1 of 2 right"
    )
    predict(shown, "1c", "the call raises: c", "client 1")
    shown.said("✗ Not so: you said that key 0 would belong to client 1", "1 of 3 right")
    assert shown.text("score") == "1 of 3 right"
    shown.run("request(0,0)", "request(1,0)", "cancel(1)")


def test_no_step_is_taken_before_both_questions_are_answered(shown: Page) -> None:
    shown.open("#mode=predict&model=correct&bound=3x1&race=keep")
    shown.press("0", "a")
    shown.wait(lambda: shown.js("document.activeElement.id") == "guess-outcome", "nothing is asked")
    shown.press("it gets", Keys.TAB, Keys.TAB, Keys.ENTER)
    assert shown.js("document.activeElement.id") == "guess-holder"
    shown.run()
    shown.tab_to("e.id === 'leave'")
    shown.press(Keys.ENTER)
    shown.wait(lambda: "asks for key 0" in shown.focused(), "the focus is not back at the step")
    shown.run()


def test_what_is_true_is_always_among_the_answers(shown: Page) -> None:
    shown.open()
    missing = shown.js(
        """data.graphs.filter(MODES.predict.fits).flatMap((graph) => [...Array(graph.reached).keys()].flatMap((n) =>
             graph.steps(n).filter((s) => {
               const offered = data.outcomesOf(s.action.name);
               return offered.length > 1 && !offered.includes(s.outcome);
             })))"""
    )
    assert missing == []


# ------------------------------------------------------------------------------------------------------------
# Break

by_name = pytest.mark.parametrize("subject", BROKEN, ids=lambda subject: subject.name)


@by_name
def test_the_hints_lead_to_a_red_light_by_a_shortest_run(shown: Page, subject: Subject) -> None:
    """For each broken model, the clause that it is kept for."""
    bound = f"{subject.config.clients}x{subject.config.keys}"
    shown.open(f"#mode=break&model={subject.name}&bound={bound}&race={subject.config.race}")
    assert shown.light(subject.clause) in ("untested", "unjudged")
    found = explore(subject.model, subject.config, properties=subject.judged_by)
    violation = next(v for v in found.violations if v.clause == subject.clause)
    run = (*violation.path, *(violation.cycle or ()))
    for number, action in enumerate(run, start=1):
        assert shown.js("document.getElementById('found')") is None
        shown.press("h")
        shown.said(f"Hint, step {number} of {len(run)}: client {action.client} ")
        assert "hint" in shown.focused()
        shown.press(Keys.ENTER)
        shown.run(*map(str, run[:number]))
    shown.said(f"✗ {subject.clause} is violated: ")
    assert shown.light(subject.clause) == "violated"
    assert f"Found in {len(run)} step" in shown.text("found")
    item = f"light-{subject.clause}"
    assert "Violated at step" in shown.text(item)
    assert "✗" in shown.text(item)
    shade = shown.js(
        "getComputedStyle(document.querySelector(`#${arguments[0]} .bulb`)).backgroundColor.match(/\\d+/g).map(Number)",
        item,
    )
    assert shade[0] > 2 * max(shade[1], shade[2])
    assert shown.js("isBroken(walk(view.graph, taken().slice(0, -1)))") is False


def test_a_hint_from_elsewhere_says_how_far_to_go_back(shown: Page) -> None:
    shown.open("#mode=break&model=lifo.KM-FIFO&bound=3x1&race=keep&run=request(0,0);stale_release(1,0);release(0)")
    shown.press("h")
    shown.said("parted from yours", "then ask again")
    shown.press("s", "h")
    shown.said("Hint, step 1 of 4")


def test_nothing_follows_a_violation(shown: Page) -> None:
    shown.open(ADDRESSES[4])
    assert shown.js("document.querySelectorAll('#steps button').length") == 0
    assert "its last step broke a clause" in shown.text("steps")
    shown.press("0", "r")
    shown.run("request(0,0)", "request(1,0)")


def test_no_run_of_a_correct_model_gives_a_red_light(shown: Page) -> None:
    """Of each state by one run, and from it of each step; and the same look finds the broken models red."""
    shown.open()
    red = """((correct) => data.graphs.filter((g) => g.correct === correct).flatMap((graph) => {
        const runs = new Map([[0, []]]);
        const found = [];
        for (const [number, run] of runs) for (const step of graph.steps(number)) {
          const next = [...run, step.action.text];
          const lit = [...lights(walk(graph, next), data)].filter(([, { light }]) => light === "violated");
          found.push(...lit.map(([clause]) => `${graph.id} ${clause}`));
          if (!step.breaks.length && !runs.has(step.after)) runs.set(step.after, next);
        }
        return found;
      }))"""
    assert shown.js(f"{red}(true)") == []
    lit = set(shown.js(f"{red}(false)"))
    endless = {"lifo_starves.KM-LIVE", "barging.KM-LIVE"}  # Their harm is a round, which a shortest path has not.
    assert {line.split()[0] for line in lit} >= {subject.name for subject in BROKEN} - endless


# ------------------------------------------------------------------------------------------------------------
# Compare


def test_compare_shows_where_two_models_part(shown: Page) -> None:
    shown.open(LIFO)
    assert "both begin with an empty table" in shown.text("differences")
    shown.tab_to("e.id === 'shortest'")
    shown.press(Keys.ENTER)
    shown.said("Loaded 4 steps")
    shown.press("r", "r", "r")
    shown.said("Step 3. In both: ")
    assert shown.text("differences") == "Nowhere at this point."
    assert shown.js("document.querySelectorAll('.differs').length") == 0
    shown.press("r")
    name = shown.js("short(view.graph)")
    shown.said("Correct: ", f"{name}: ", "✗ KM-FIFO is violated")
    subject = next(subject for subject in BROKEN if subject.name == "lifo.KM-FIFO")
    found = explore(subject.model, subject.config).violations[0]
    words = []
    for model in (CORRECT, subject.model):
        entry = model.replay(subject.config, found.path)[-1].state.entries[0]
        assert entry is not None
        words.append(f"holder {entry.holder}, queue {' '.join(map(str, entry.queue))}, refs {entry.refs}")
    assert f"Key 0: {words[0]} in the correct model; {words[1]} in the other." in shown.text("differences")
    assert shown.js(
        "[...document.querySelectorAll('.keybox.differs figcaption')].every((c) => c.textContent.includes('≠'))"
    )
    assert shown.js("document.querySelectorAll('.keybox.differs').length") == 2
    assert shown.light("KM-FIFO") == "violated"
    assert f"{name} has stopped" in shown.text("steps")


def test_compare_shows_a_step_that_is_possible_in_one_only(shown: Page) -> None:
    """A call of never_wakes never comes back."""
    shown.open("#mode=compare&model=never_wakes.KM-LIVE&bound=2x1&race=keep&run=request(0,0);request(1,0);release(0)")
    shown.tab_to("e.textContent.includes('comes back')")
    name = shown.js("short(view.graph)")
    assert f"not possible in {name}" in shown.focused()
    shown.press(Keys.ENTER)
    shown.said("Client 1 comes back", f"{name}: It stands where it is: step 4, wake(1), is not possible here.")
    assert "not possible" in shown.text("run")
    shown.press("u")
    shown.said("Step 3. In both: ")


def test_compare_tells_another_outcome(shown: Page) -> None:
    shown.open(
        "#mode=compare&model=keeps_and_raises.KM-RACE&bound=2x1&race=keep&run=request(0,0);request(1,0);release(0);cancel(1)"
    )
    assert "kept in the correct model, cancelled in the other" in shown.text("differences")


# ------------------------------------------------------------------------------------------------------------
# Lessons


def test_a_lesson_is_predicted_before_its_run_is_seen(fresh: Page) -> None:
    """By keyboard: nothing is told before the answer, each answer has its run, and the first one is what counts."""
    fresh.open()
    to_mode(fresh, "Lessons")
    assert fresh.js("location.hash") == "#mode=lessons&lesson=0"
    fresh.press("n", "n", "n")
    assert fresh.js("document.title").startswith("Lesson 3 ")
    one = lesson(3)
    assert one.ask.replace("`", "") == fresh.text("question")
    assert fresh.js("document.getElementById('told').getClientRects().length") == 0
    assert not any(choice.reply in fresh.js("document.querySelector('main').innerText") for choice in one.choices)
    for choice in one.choices:
        fresh.press(choice.letter)
        assert fresh.text("answered").startswith("✓ Right. " if choice.right else "✗ No. ")
        assert choice.reply.replace("`", "") in fresh.text("answered")
        run = fresh.js("[...document.querySelectorAll('#timeline li')].map((line) => line.textContent)")
        held = fresh.js("document.querySelector('#timeline .held').textContent")
        assert choice.shows in held
        assert held.endswith("this answers you")
        assert len(run) == len(play(choice))
        assert f"--replay '{choice.run}'" in fresh.text("again")
    assert "Lessons answered: 1 of 21, 0 right at the first try." in fresh.text("told")
    lines = {event.place.rpartition(":")[2] for event in play(one.choices[-1]) if event.place}
    assert fresh.js("[...document.querySelectorAll('#source .at .number')].map((e) => e.textContent)") == sorted(lines)
    fresh.press("n")
    assert fresh.js("location.hash") == "#mode=lessons&lesson=4"
    fresh.press(next(choice.letter for choice in lesson(4).choices if choice.right))
    assert "2 of 21, 1 right at the first try" in fresh.text("told")
    fresh.driver.back()
    fresh.wait(lambda: fresh.js("view.answer") is None, "Back does not take the answer back")
    marks = "[...document.querySelectorAll('#lesson option')].map((o) => o.textContent[0]).slice(2, 6)"
    assert fresh.js(marks) == ["L", "·", "✓", "L"]
    fresh.js("document.getElementById('forget').click()")
    assert fresh.js(marks) == ["L", "L", "L", "L"]


def test_each_answer_to_each_lesson_has_its_line_marked(shown: Page) -> None:
    shown.open("#mode=lessons")
    for one in lessons():
        for number, choice in enumerate(one.choices):
            shown.js("go({ lesson: arguments[0], answer: arguments[1] })", one.number, number)
            held = shown.js("document.querySelector('#timeline .held').innerText")
            assert " ".join(choice.shows.split()) in " ".join(held.split())


def test_a_screen_reader_is_told_of_an_answer(shown: Page) -> None:
    shown.open(LESSON)
    nodes = tree(shown)
    assert nameless(nodes) == []
    assert ("combobox", "Lesson") in nodes
    assert ("status", "") in nodes
    assert shown.js("document.querySelectorAll('.step[aria-pressed=true]').length") == 1


# ------------------------------------------------------------------------------------------------------------
# For everybody


def overflow(shown: Page) -> int:
    """By how many pixels the page is wider than the screen."""
    return int(shown.js("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


@pytest.mark.parametrize("address", [*ADDRESSES, LESSON])
def test_a_phone_needs_no_sideways_scrolling(shown: Page, address: str) -> None:
    shown.emulate(width=360, height=740)
    shown.open(address)
    shown.js("document.querySelectorAll('details').forEach((d) => (d.open = true))")
    assert shown.js("innerWidth") == 360
    assert overflow(shown) == 0


def test_the_question_of_predict_fits_a_phone(shown: Page) -> None:
    shown.emulate(width=360, height=740)
    shown.open(ADDRESSES[3])
    shown.press("1", "a0")
    shown.wait(lambda: shown.js("document.activeElement.id") == "guess-outcome", "nothing is asked")
    assert overflow(shown) == 0


def test_a_wide_element_is_seen_on_a_phone(shown: Page) -> None:
    """The known-bad twin of the two tests above."""
    shown.emulate(width=360, height=740)
    shown.open(QUEUE)
    shown.js("document.querySelector('#scene svg').setAttribute('style', 'width: 420px')")
    assert overflow(shown) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", [*ADDRESSES, LESSON])
def test_every_text_stands_out_in_light_and_dark(shown: Page, scheme: str, address: str) -> None:
    """A contrast of 4.5 to 1 at least, as WCAG 2 asks of text (AA)."""
    shown.emulate(scheme=scheme, motion="reduce")
    shown.open(address)
    assert shown.js(browser.CONTRAST) == []
    ground = [int(n) for n in shown.js("getComputedStyle(document.body).backgroundColor.match(/\\d+/g)")]
    assert (min(ground) > 200) if scheme == "light" else (max(ground) < 60)


def test_a_faint_text_is_seen(shown: Page) -> None:
    """The known-bad twin of the test above, of a text in HTML and of one in a picture."""
    shown.open(QUEUE)
    shown.js("document.getElementById('bound').style.color = '#aaa'")
    shown.js("document.querySelector('.caption.refs').style.fill = '#ccc'")
    assert [line.partition(" ")[0] for line in shown.js(browser.CONTRAST)] == ["text.caption", "P.fine"]


CONTROLS = (
    "button",
    "link",
    "combobox",
    "checkbox",
    "DisclosureTriangle",
    "option",
    "image",
    "heading",
    "form",
    "group",
)


def tree(shown: Page) -> list[tuple[str, str]]:
    """Role and name of what assistive technology is told of."""
    shown.driver.execute_cdp_cmd("Accessibility.enable", {})
    nodes = shown.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node.get("ignored")]


def nameless(nodes: list[tuple[str, str]]) -> list[str]:
    """Roles of the controls, pictures and headings without a name. A group needs none where it has no label."""
    return [role for role, name in nodes if role in CONTROLS[:-1] and not name.strip()]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_screen_reader_is_told_of_everything(shown: Page, address: str) -> None:
    shown.open(address)
    nodes = tree(shown)
    assert nameless(nodes) == []
    roles = [role for role, _ in nodes]
    for role in ("banner", "navigation", "main", "contentinfo", "status", "heading", "button", "combobox", "link"):
        assert role in roles
    assert roles.count("status") == 1
    assert any(role == "image" and name.startswith("Key 0 ") for role, name in nodes)
    assert shown.js("document.getElementById('said').getAttribute('aria-live')") == "polite"
    levels = shown.js(
        "[...document.querySelectorAll('h1, h2, h3')].filter((h) => h.getClientRects().length)"
        ".map((h) => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_the_question_of_predict_has_names(shown: Page) -> None:
    shown.open(ADDRESSES[3])
    shown.press("1", "a0")
    shown.wait(lambda: shown.js("document.activeElement.id") == "guess-outcome", "nothing is asked")
    nodes = tree(shown)
    assert nameless(nodes) == []
    assert ("form", "Your prediction") in nodes
    assert ("combobox", "What is it told?") in nodes


def test_a_button_without_a_name_is_seen(shown: Page) -> None:
    """The known-bad twin of the two tests above."""
    shown.open(QUEUE)
    shown.js("document.getElementById('undo').replaceChildren()")
    assert nameless(tree(shown)) == ["button"]


def test_what_has_the_focus_is_marked(shown: Page) -> None:
    """Each thing that Tab reaches, once round the page."""
    shown.open(QUEUE)
    outline = "((s) => [s.outlineStyle, parseFloat(s.outlineWidth)])(getComputedStyle(document.activeElement))"
    reached = set()
    for _ in range(120):
        shown.press(Keys.TAB)
        if shown.js("document.activeElement === document.body"):
            break
        reached.add(shown.js("document.activeElement.dataset.focus || document.activeElement.id"))
        style, width = shown.js(outline)
        assert style != "none"
        assert width >= 2
    assert {"skip", "mode watch", "graph", "undo", "restart", "step release(0)", "at 1", "light KM-FIFO"} <= reached


def test_nothing_moves_where_motion_is_not_wanted(shown: Page) -> None:
    moving = "getComputedStyle(document.querySelector('.changed .box')).animationName"
    shown.open(QUEUE)
    assert shown.js(moving) != "none"
    shown.emulate(motion="reduce")
    shown.open(QUEUE)
    assert shown.js(moving) == "none"


def test_the_page_loads_nothing(shown: Page) -> None:
    shown.open(QUEUE)
    assert shown.js("performance.getEntriesByType('resource').map((entry) => entry.name)") == []


def test_a_page_with_an_error_is_seen(chromium: Any, tmp_path: Path) -> None:
    """The known-bad twin of the look at the console that follows each test here."""
    path = tmp_path / "bad.html"
    path.write_text("<!DOCTYPE html><script>nothing.at.all</script>", encoding="utf-8")
    bad = Page(chromium, path)
    bad.errors()
    bad.open()
    assert any("nothing is not defined" in error for error in bad.errors())


def test_a_name_in_the_data_is_never_markup(chromium: Any, tmp_path: Path) -> None:
    name = "</script><img src=x onerror='window.hostile=1'><script>window.hostile=1</script>"
    path = tmp_path / "hostile.html"
    config = Config(2, 1, "keep")
    bad = Subject(name, broken.BROKEN[0].model, config, clause=broken.BROKEN[0].clause, story=name)
    path.write_text(page(embedded([Subject(name, CORRECT, config), bad]).json), encoding="utf-8")
    hostile = Page(chromium, path)
    hostile.errors()
    hostile.open()
    hostile.press("0", "a")
    hostile.said("Step 1. Client 0 asks")
    assert hostile.js("window.hostile === undefined && document.images.length === 0 && document.scripts.length === 2")
    assert name in hostile.text("which")
    assert hostile.errors() == []


def test_what_the_page_says_of_a_run_is_what_the_model_does(shown: Page) -> None:
    """The page's walk and the model's, of each shortest run of a broken model."""
    shown.open()
    for subject in BROKEN:
        found = explore(subject.model, subject.config, properties=subject.judged_by)
        for violation in found.violations:
            outcomes = [step.outcome for step in subject.model.replay(subject.config, violation.path)]
            seen = shown.js(
                "walk(data.graphs.find((g) => g.model === arguments[0]), arguments[1].split(';'))"
                ".steps.map((s) => s.outcome)",
                subject.name,
                format_schedule(violation.path).replace(" ", ""),
            )
            assert seen == outcomes


# ------------------------------------------------------------------------------------------------------------
# The first screen

SCREENS = ((1280, 720), (1366, 768), (1280, 800), (1440, 900), (360, 740))
INSIDE = """(selector => [...document.querySelectorAll(selector)].map(e => {
  const r = e.getBoundingClientRect(), x = r.left + r.width / 2, y = r.top + r.height / 2;
  return r.top >= 0 && r.bottom <= innerHeight && e.contains(document.elementFromPoint(x, y));
}))(arguments[0])"""
"""Of each such element, whether the whole of it is seen without scrolling."""
PLACES = """[...document.querySelectorAll("#next, #steps .group")].map(e => {
  const r = e.getBoundingClientRect();
  return [r.left, e.id ? r.top : innerWidth > 959 ? r.top : 0];
})"""
"""Where the block of the steps begins, and each client's column in it; on a phone they are one below the other."""


@pytest.mark.parametrize(("width", "height"), SCREENS)
def test_the_first_choice_is_on_the_first_screen_beside_the_picture(shown: Page, width: int, height: int) -> None:
    shown.emulate(width=width, height=height)
    shown.open(START)
    shown.said("Nobody has asked")
    assert shown.js(INSIDE, "#steps .step")[0]
    assert all(shown.js(INSIDE, "#scene svg"))
    before = shown.js(PLACES)
    # At that place itself: WebDriver's own click would scroll to it.
    box = shown.js("document.querySelector('#steps .step').getBoundingClientRect().toJSON()")
    pointer = ActionChains(shown.driver)
    pointer.w3c_actions.pointer_action.move_to_location(
        int(box["x"] + box["width"] / 2), int(box["y"] + box["height"] / 2)
    ).click()
    pointer.perform()
    shown.run("request(0,0)")
    for _ in range(4):
        assert shown.js("scrollY") == 0
        assert shown.js(PLACES) == before
        assert shown.js(INSIDE, "#steps .step")[0]
        assert all(shown.js(INSIDE, "#scene svg"))
        shown.js("document.querySelector('#steps .step').click()")
    for one in lessons():
        shown.open(f"#mode=lessons&lesson={one.number}")
        assert shown.js(INSIDE, "#steps .step")[0], one.name


def test_a_choice_below_the_first_screen_is_seen(shown: Page) -> None:
    shown.emulate(width=1280, height=720)
    shown.open(START)
    shown.said("Nobody has asked")
    shown.js("document.querySelector('nav').style.marginBottom = '700px'")
    assert not shown.js(INSIDE, "#steps .step")[0]


def test_a_light_that_is_out_says_what_it_waits_for(shown: Page) -> None:
    """A try was refused, and the clauses about that have a harder case: the page must not seem to have missed it."""
    shown.open(f"{START}&run=request(0,0);try(1,0)")
    shown.said("the call raises, for there is no time to wait")
    for clause, case in (("KM-EXPIRED", "on its way to a waiter"), ("KM-ATOMIC", "held and waited for")):
        assert shown.light(clause) == "seen"
        words = shown.text(f"light-{clause}")
        assert "Seen at step 2, and kept" in words
        assert "Not put to the test. That takes:" in words
        assert case in words


# ------------------------------------------------------------------------------------------------------------
# A first run, what is kept, and the ways through a run


@pytest.fixture
def fresh(shown: Page) -> Page:
    """As somebody sees it who comes for the first time."""
    shown.open(START)
    shown.js("localStorage.clear()")
    shown.open()
    return shown


def test_a_first_run_of_five_steps_leads_from_a_free_key_back_to_one(fresh: Page) -> None:
    """Each says what to press, and then what was to be seen; after it the page is the reader's."""
    for number in range(1, 6):
        assert fresh.text("next-title").startswith(f"First run, {number} of 5: let client ")
        hinted = fresh.js("[...document.querySelectorAll('#steps .hinted')].length")
        assert hinted == 1
        fresh.js("document.querySelector('#steps .hinted').click()")
    fresh.run("request(0,0)", "request(1,0)", "release(0)", "wake(1)", "release(1)")
    fresh.said("nothing is kept for an idle key")
    assert fresh.text("next-title") == "Who goes next?"
    fresh.open()
    assert fresh.text("next-title") == "Who goes next?"
    fresh.js("document.getElementById('tour').click()")
    assert fresh.text("next-title").startswith("First run, 1 of 5")


def test_who_does_something_else_has_left_the_first_run(fresh: Page) -> None:
    fresh.press("2", "x")
    fresh.run("stray_unlock(2,0)")
    assert fresh.text("next-title") == "Who goes next?"
    fresh.open(f"{START}&run=request(0,0)")
    assert fresh.text("next-title") == "Who goes next?"


def test_a_code_means_the_same_step_wherever_it_can_be_taken(shown: Page) -> None:
    """In each state of the model no two steps have the same code, and no code means two actions."""
    for address in (START, START.replace("3x1", "3x2")):
        shown.open(address)
        clashes = shown.js(
            """(() => {
              const meant = new Map(), clashes = [];
              for (let n = 0; n < view.graph.reached; n++) for (const { action } of view.graph.steps(n)) {
                const code = codeOf(action);
                if (meant.has(code) && meant.get(code) !== action.text) clashes.push(code);
                meant.set(code, action.text);
              }
              return clashes;
            })()"""
        )
        assert clashes == []
    shown.press("1", "a", "1")
    shown.run("request(1,1)")
    shown.press("7")
    shown.press("r")
    shown.run("request(1,1)")


def test_no_name_gives_a_mistake_away_and_the_easy_ones_come_first(shown: Page) -> None:
    shown.open("#mode=break")
    options = shown.js("[...document.querySelectorAll('#graph option')].map((o) => o.textContent)")
    assert len(options) == len(BROKEN)
    steps = [int(option.rpartition(", ")[2].split()[0]) for option in options]
    assert steps == sorted(steps)
    words = shown.js("document.title + location.hash + document.querySelector('main').innerText")
    for subject in BROKEN:
        assert subject.name.partition(".")[0] not in " ".join(options) + words
        assert subject.story not in words


def test_what_was_found_is_kept_and_can_be_forgotten(fresh: Page) -> None:
    fresh.open(ADDRESSES[4])
    assert "You have broken 1 of" in fresh.text("progress")
    fresh.open("#mode=break")
    assert (
        fresh.js("[...document.querySelectorAll('#graph option')].filter((o) => o.textContent[0] === '✓').length") == 1
    )
    fresh.js("document.getElementById('forget').click()")
    assert (
        fresh.js("[...document.querySelectorAll('#graph option')].filter((o) => o.textContent[0] === '✓').length") == 0
    )


def test_a_browser_that_keeps_nothing_is_no_fault(shown: Page) -> None:
    shown.open("#mode=break")
    shown.js("Object.defineProperty(window, 'localStorage', { get() { throw new Error('closed'); } })")
    shown.js("keep({ found: ['x'] })")
    shown.js("draw()")
    assert "You have broken 0 of" in shown.text("progress")


def test_the_slider_goes_through_the_run(shown: Page) -> None:
    shown.open(QUEUE)
    shown.js("(s => { s.value = 1; s.dispatchEvent(new Event('input')); })(document.getElementById('slider'))")
    shown.said("Step 1. Client 0 asks")
    assert shown.js("location.hash") == f"{QUEUE}&at=1"
    assert shown.text("place") == "step 1 of 3"


def test_the_address_is_handed_on(shown: Page) -> None:
    """Where the clipboard is closed, it stands there to be copied."""
    shown.open(QUEUE)
    shown.js(
        "void Object.defineProperty(navigator, 'clipboard', { value: { writeText: (t) => { window.copied = t; } } })"
    )
    shown.js("document.getElementById('link').click()")
    shown.wait(lambda: "copied" in shown.text("copied"), "nothing is said")
    assert shown.js("window.copied === location.href")
    shown.open(QUEUE)
    shown.js("void Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    shown.js("document.getElementById('link').click()")
    shown.wait(lambda: shown.js("document.getElementById('href')?.value === location.href"), "the address is not there")


def test_the_state_graph_has_all_states_and_leads_to_each(shown: Page) -> None:
    shown.open(QUEUE)
    shown.js("document.getElementById('map').open = true")
    shown.wait(lambda: shown.js("document.querySelectorAll('.graph .state').length") > 0, "no graph is drawn")
    assert shown.js("document.querySelectorAll('.graph .state').length") == len(
        explore(CORRECT, Config(3, 1, "keep")).graph
    )
    assert shown.js("document.querySelectorAll('.graph .state.here').length") == 1
    assert shown.js("document.querySelectorAll('.graph .edge.taken').length") == 3
    shown.js("document.querySelectorAll('.graph .state')[7].dispatchEvent(new Event('click'))")
    reached = shown.js("lastState(walk(view.graph, view.run)).number")
    assert (
        shown.js("[...document.querySelectorAll('.graph .state')].findIndex((s) => s.classList.contains('here'))") == 7
    )
    assert shown.js("walk(view.graph, view.run).refused === null")
    assert reached > 0


def test_the_words_on_the_screen_are_explained_there(shown: Page) -> None:
    shown.open(START)
    terms = shown.js("[...document.querySelectorAll('#terms dt')].map((t) => t.textContent)")
    assert {"outside", "lease", "timeout 0", "keep", "bound"} <= set(terms)
    assert "granted" not in terms
    shown.open(f"{START}&run=request(0,0);request(1,0);release(0)")
    assert "granted" in shown.js("[...document.querySelectorAll('#terms dt')].map((t) => t.textContent)")


def test_on_paper_there_is_nothing_to_press(shown: Page) -> None:
    shown.open(QUEUE)
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        pressed = "[...document.querySelectorAll('.tools button, nav a')].filter((e) => e.checkVisibility()).length"
        assert shown.js(pressed) == 0
        assert shown.js("document.querySelector('#scene svg').checkVisibility()")
        assert shown.js("document.querySelector('#run li').checkVisibility()")
    finally:
        shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
