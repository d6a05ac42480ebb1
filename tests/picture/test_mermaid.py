"""The Mermaid source: one statement a line, with nothing in it that Mermaid could take for its own; and Mermaid's view.

Mermaid itself is JavaScript. `nox -s mermaid` gets it from npm and tells this file by KMUTEX_MERMAID where it is.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings

from kmutex._text import printable
from kmutex.picture.mermaid import mermaid, words
from kmutex.picture.rows import Picture
from tests import browser
from tests.picture.pictures import HOSTILE, RUN, hostile, pictures

MERMAID = os.environ.get("KMUTEX_MERMAID", "")
STATEMENT = re.compile(
    r"    (participant [LK]\d+ as |Note over L\d+(,L\d+)?: |[LK]\d+-?->>[LK]\d+: |(de)?activate L\d+$)(?P<words>.*)"
)
WORDS = re.compile(r"([A-Za-z0-9 .,:()'/_=!?+-]|#\d+;)*")


def read(source: str) -> str:
    """What the numbers in it stand for."""
    return re.sub(r"#(\d+);", lambda found: chr(int(found[1])), source)


@given(pictures())
@example(hostile())
@example(RUN)
def test_each_line_is_one_statement_and_nobody_goes_who_has_not_come(shown: Picture) -> None:
    """The words of any row, head and key stay words; whoever is made inactive was active."""
    head, *lines = mermaid(shown).removesuffix("\n").split("\n")
    assert head == "sequenceDiagram"
    active: list[str] = []
    said = []
    for line in lines:
        found = STATEMENT.fullmatch(line)
        assert found is not None, line
        assert WORDS.fullmatch(found["words"]), line
        word, _, lane = line.strip().partition(" ")
        if word == "activate":
            active.append(lane)
        elif word == "deactivate":
            active.remove(lane)
        elif word != "participant":
            said.append(read(found["words"]))
    for row, told in zip(shown.rows, said, strict=True):
        assert told.rstrip().endswith(printable(row.text).strip()), (row, told)


@given(pictures())
def test_words_can_be_read_back(shown: Picture) -> None:
    """Nothing is lost, and an empty text becomes a blank, for Mermaid wants one."""
    for text in (*shown.heads, *(row.text for row in shown.rows)):
        assert read(words(text)) == (printable(text) or "\xa0")


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("lock a: got it", "lock a: got it"),
        ("wrap: a", "wrap#58; a"),
        ("a;b", "a#59;b"),
        ("#35;", "#35;35#59;"),
        ("style a:b", "#115;tyle a:b"),
        ("\N{LOCK}", "#128274;"),
        ("", "#160;"),
    ],
)
def test_what_a_text_becomes(text: str, source: str) -> None:
    assert words(text) == source


# -- Mermaid itself ----------------------------------------------------------------------------------------------------

_DRAWN = """const [source, done] = arguments;
mermaid.render('picture', source).then(
    ({svg}) => {
        document.body.innerHTML = svg;
        const texts = names => Array.from(document.querySelectorAll(names), e => e.textContent);
        done([texts('text.actor'), texts('.messageText, .noteText'), document.scripts.length]);
    },
    error => done(String(error)),
);"""


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    if not MERMAID:
        pytest.skip("Mermaid is not here: nox -s mermaid gets it from npm")
    pytest.importorskip("selenium", reason="the dev extra has selenium: pip install -e '.[dev]'")
    page = tmp_path_factory.mktemp("mermaid") / "page.html"
    script = Path(MERMAID).resolve().as_uri()
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><head><script src="{script}"></script></head><body></body>',
        encoding="utf-8",
    )
    with browser.started(tmp_path_factory.mktemp("profile")) as driver:
        driver.get(page.as_uri())
        driver.execute_script("mermaid.initialize({startOnLoad: false})")
        yield driver


def drawn(driver: Any, source: str) -> Any:
    """Names of participants, texts of messages and notes, scripts in the page; or Mermaid's complaint."""
    return driver.execute_async_script(_DRAWN, source)


def bare(texts: list[str]) -> list[str]:
    """In order and without the blanks at the ends, which Mermaid takes off."""
    return sorted(text.strip() for text in texts)


@pytest.mark.browser
def test_mermaid_shows_the_words_as_they_are(chromium: Any) -> None:
    """Every hostile text, as a message, as a note, as a name and as a key. None becomes an element or a script."""
    for shown in (RUN, hostile()):
        names, texts, scripts = drawn(chromium, mermaid(shown))
        keys = {f"key {row.key}" for row in shown.rows if row.change}
        assert bare(texts) == bare([printable(row.text) for row in shown.rows])
        assert set(bare(names)) == set(bare([printable(name) for name in (*shown.heads, *keys)]))
        assert scripts == 1


@pytest.mark.browser
def test_mermaid_refuses_what_is_not_escaped(chromium: Any) -> None:
    """The known-bad twin: without the escapes some of the texts are refused or come out as something else."""
    wrong = []
    for text in (text for text in HOSTILE if "\ud800" not in text):  # Half a pair does not get as far as Mermaid.
        source = f"sequenceDiagram\n    participant L0 as a\n    Note over L0: {text}\n"
        seen = drawn(chromium, source)
        if isinstance(seen, str) or bare(seen[1]) != bare([text]):
            wrong.append(text)
    assert {"a; b # c %% d", "#35;", "wrap:on", "line\nfeed\r\ttab", "style x:y#z;"} <= set(wrong)


@pytest.mark.browser
@settings(max_examples=40, deadline=None)
@given(shown=pictures())
def test_mermaid_takes_any_picture(chromium: Any, shown: Picture) -> None:
    seen = drawn(chromium, mermaid(shown))
    assert not isinstance(seen, str), seen
