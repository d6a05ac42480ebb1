"""Pictures to draw: made up at random, with any text, and one whose answers are known."""

from __future__ import annotations

from typing import get_args

from hypothesis import strategies as st

from kmutex.picture.rows import Change, Picture, PictureRow

HOSTILE = (
    "",
    " ",
    "  two  blanks  ",
    "<script>alert(1)</script>",
    "]]>&amp;<!--",
    "\"quoted\" & 'so'",
    "wrap:on",
    "nowrap: off",
    "a; b # c %% d",
    "#35;",
    "end",
    "loop ever",
    "participant X as Y",
    "L0->>L1: hello",
    "style x:y#z;",
    "classDef a:b#c;",
    "%%{init: {}}%%",
    "$$x^2$$",
    "<br/>two<br>lines",
    "**bold** _it_ `code`",
    "line\nfeed\r\ttab",
    "\x00\x1b[31mred\x7f\x85\u2028",
    "half a pair \ud800",
    "\ufffe\uffff",
    "\u202eright to left",
    "\u05e9\u05dc\u05d5\u05dd",
    "鍵を待つ" * 20,
    "e\u0301" * 9,
    "\N{LOCK}\N{ARABIC LIGATURE BISMILLAH AR-RAHMAN AR-RAHEEM}",
    "x" * 300,
    "word " * 60,
)
"""Texts that mean something to XML, HTML, Mermaid, a terminal or a font."""

_texts = st.sampled_from(HOSTILE) | st.text(st.characters(exclude_categories=()), max_size=60)


@st.composite
def pictures(draw: st.DrawFn) -> Picture:
    """Any picture at all: also runs that no lock can have, such as a key let go that nobody had."""
    heads = draw(st.lists(_texts, max_size=4))
    lanes = st.none() | st.integers(0, len(heads) - 1) if heads else st.none()
    keys = st.sampled_from(draw(st.lists(_texts, min_size=1, max_size=5)))
    side = draw(st.sampled_from(["", "line"]))
    rows = []
    for _ in range(draw(st.integers(0, 12))):
        lane = draw(lanes)
        change = draw(st.sampled_from(get_args(Change))) if lane is not None else ""
        margin = draw(_texts) if side else ""
        rows.append(PictureRow(lane, draw(_texts), change, draw(keys) if change else "", margin))
    return Picture(tuple(heads), tuple(rows), side)


def hostile() -> Picture:
    """Every hostile text as a head, as a row, across, and as a key."""
    rows = [PictureRow(n % len(HOSTILE), text, "asks", text) for n, text in enumerate(HOSTILE)]
    rows += [PictureRow(n % len(HOSTILE), text) for n, text in enumerate(HOSTILE)]
    rows += [PictureRow(None, text) for text in HOSTILE]
    return Picture(HOSTILE, tuple(rows))


RUN = Picture(
    ("client 0", "client 1", "client 2"),
    (
        PictureRow(0, "lock a ...", "asks", "a"),
        PictureRow(0, "lock a: got it", "has", "a"),
        PictureRow(1, "lock a ...", "asks", "a"),
        PictureRow(2, "try a ...", "asks", "a"),
        PictureRow(2, "try a: TimeoutError", "refused", "a"),
        PictureRow(2, "lock b ...", "asks", "b"),
        PictureRow(2, "lock b: got it", "has", "b"),
        PictureRow(0, "unlock a ...", "lets go", "a"),
        PictureRow(1, "lock a: got it", "has", "a"),
        PictureRow(0, "unlock a: done", "comes back", "a"),
        PictureRow(2, "unlock unheld a ...", "calls", "a"),
        PictureRow(2, "unlock unheld a: done", "takes away", "a"),
        PictureRow(None, "KM-UNHELD: client 2 ended the grant of client 1"),
    ),
)
