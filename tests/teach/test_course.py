"""Course material: notebooks that run, slides with the pictures of the lessons, and a guide whose plan adds up."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kmutex.engine.timeline import picture
from kmutex.picture.svg import svg
from kmutex.teach.lesson import Lesson, find, lesson, lessons
from kmutex.teach.missing_part import PUZZLES
from kmutex.teach.notebook import SECONDS, file_of, notebook
from kmutex.teach.slides import slides
from tests import browser
from tests.commands import told

GUIDE = Path(__file__).parents[2] / "docs" / "course.md"
MEETINGS = GUIDE.read_text(encoding="utf-8").split("\n## ")[1:4]

each = pytest.mark.parametrize("one", lessons(), ids=lambda one: one.name)


def cells(one: Lesson) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(notebook(one))["cells"]
    return found


@each
def test_a_notebook_has_the_lesson_and_tells_nothing_before_it_is_run(one: Lesson) -> None:
    """Its texts, its locker and its answers, as they are in the lesson; and no output. nbformat finds it valid."""
    nbformat = pytest.importorskip("nbformat", reason="the dev extra has it: pip install -e '.[dev]'")
    nbformat.validate(nbformat.reads(notebook(one), as_version=4))
    sources = [cell["source"] for cell in cells(one)]
    assert f"%%writefile {file_of(one)}\n{one.source.rstrip()}" in sources
    text = "\n".join(sources)
    for part in one.parts.values():
        assert part in text
    assert all(f"**{choice.letter}** {choice.text}" in text for choice in one.choices)
    assert not any(choice.reply in text for choice in one.choices)
    assert all(not cell.get("outputs") for cell in cells(one))


def said(cell: Any) -> str:
    """What a cell printed, without the colours that a kernel asks for."""
    return re.sub(r"\x1b\[[\d;]*m", "", "".join(output.get("text", "") for output in cell["outputs"]))


@pytest.mark.long
@pytest.mark.parametrize("number", [3, 12, 20])
def test_a_notebook_runs(number: int, tmp_path: Path) -> None:
    """From top to bottom, with a wrong answer put in: the run, its picture, and what is said of the locker as it is."""
    nbclient = pytest.importorskip("nbclient", reason="the dev extra has it: pip install -e '.[dev]'")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    one = lesson(number)
    wrong = next(choice for choice in one.choices if not choice.right)
    text = notebook(one).replace('answer = \\"\\"', f'answer = \\"{wrong.letter}\\"')
    # A learner may wait for longer than this, and so may a busy machine.
    text = text.replace(f'\\"--seconds\\", \\"{SECONDS}\\"', '\\"--seconds\\", \\"60\\"')
    book = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    assert (tmp_path / file_of(one)).read_text(encoding="utf-8") == one.source
    predicted, run, graded = code[-3:]
    assert said(predicted).startswith("No.")
    assert wrong.reply in " ".join(said(predicted).split())
    assert f">> {one.clause}" in said(run)
    assert "<svg" in str(run["outputs"][-1]["data"]["image/svg+xml"])
    assert one.clause in said(graded)
    assert "lesson" in said(graded)


class Slides(HTMLParser):
    """How many slides there are, and what the page loads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.slides = 0
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.slides += tag == "section"
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]


def test_slides_have_the_pictures_of_the_runs_and_load_nothing() -> None:
    """KM-EXCL, KM-ALL: the drawing is that of the run which is found, as other pictures are made."""
    chosen = [lesson(2), lesson(19)]
    page = slides(chosen)
    found = Slides(page)
    assert (found.slides, found.loads) == (6 * len(chosen), [])
    for one in chosen:
        run = find(one)
        assert svg(picture(run.short), title=f"{one.title}: {run.message}", cell=36) in page
        assert "class Locker" in page
    assert "`" not in re.sub(r"<(svg|script|pre).*?</\1>", "", page, flags=re.DOTALL)


def test_the_files_are_new_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for action, numbers in (("notebook", "3"), ("slides", "2-3")):
        file = tmp_path / action
        assert told(capsys, "lesson", action, numbers, str(file)) == (0, "", "")
        before = file.read_text(encoding="utf-8")
        status, out, err = told(capsys, "lesson", action, numbers, str(file))
        assert (status, out) == (4, "")
        assert "was not changed" in err
        assert file.read_text(encoding="utf-8") == before
    for numbers in ("3-2", "x", "20-21"):
        status, out, err = told(capsys, "lesson", "slides", numbers, str(tmp_path / "none"))
        assert (status, out) == (4, "")
        assert "lesson" in err
    assert not (tmp_path / "none").exists()


def test_run_draws_into_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.svg"
    assert told(capsys, "lesson", "run", "2", "--picture", str(file))[0] == 0
    assert "client 2 holds a" in file.read_text(encoding="utf-8")
    status, out, err = told(capsys, "lesson", "run", "2", "--picture", str(tmp_path / "run.gif"))
    assert (status, out) == (4, "")
    assert ".svg" in err


@pytest.mark.browser
def test_the_arrow_keys_move_and_every_picture_is_on_its_slide(tmp_path: Path) -> None:
    """At 1280 x 720: ArrowRight shows the next slide; no drawing is higher or wider than the screen."""
    file = tmp_path / "slides.html"
    file.write_text(slides([lesson(2), lesson(9)]), encoding="utf-8")
    with browser.started(tmp_path / "profile") as driver:
        browser.emulate(driver, width=1280, height=720)
        driver.get(file.as_uri())
        for number in range(1, 4):
            driver.execute_script("dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', cancelable: true}))")
            browser.until(driver, f"return Math.abs(all[{number}].getBoundingClientRect().top) < 2")
        sizes = driver.execute_script(
            "return [...document.querySelectorAll('svg')].map(one => one.getBoundingClientRect())"
            ".map(box => [box.width, box.height])"
        )
        assert len(sizes) == 2
        assert all(0 < width <= 1280 and 0 < height <= 720 for width, height in sizes)


def numbers(cell: str) -> list[str]:
    return [word for word in cell.replace(" ", "").split(",") if word]


def rows(meeting: str, head: str) -> list[list[str]]:
    """The rows of the table whose first column is called so."""
    (table,) = (block.splitlines() for block in meeting.split("\n\n") if block.startswith(f"| {head} |"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]


def test_the_plan_of_the_guide_adds_up() -> None:
    """90 minutes each time; every lesson, and those about the proof, once in the plan and once among the answers."""
    planned: list[str] = []
    answered: list[str] = []
    for meeting in MEETINGS:
        plan, answers = rows(meeting, "minutes"), rows(meeting, "lesson")
        assert sum(int(row[0]) for row in plan) == 90, meeting[:40]
        taught = [number for row in plan for number in numbers(row[1])]
        answered_for = [number for row in answers for number in numbers(row[0])]
        assert sorted(taught) == sorted(answered_for), meeting[:40]
        planned += taught
        answered += answered_for
    every = [str(one.number) for one in lessons()] + [f"P{one.number}" for one in PUZZLES]
    assert sorted(planned) == sorted(answered) == sorted(every)
