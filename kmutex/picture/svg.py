"""A picture as SVG: a file of its own, or a part of a page.

A bar is a key that is held, a dashed line one that was asked for. Nothing is loaded, no script runs, and no id is
used, so that many of them can stand in one page. Text has the colour of its surroundings; a picture that is a file of
its own chooses one for light and one for dark. Each text has the length that it takes in the layout, so that no
text reaches into another whatever the font.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple
from xml.sax.saxutils import escape

from kmutex._text import printable
from kmutex.picture.rows import Picture, Span, spans
from kmutex.picture.text import columns

SIZE = 13
"""The size of the font, in pixels."""
ADVANCE = 7.8
"""The width of one column in a monospaced font of that size, to a hundredth or two."""
LINE = 18
"""The distance of two lines of text."""
CELL = 44
"""The width of a lane's text, in columns."""
ACROSS = 72
"""The least width of text across all lanes, in columns."""
SLOT = 9
"""The width for one key, to the left of a lane's text."""
BAR = 5
GAP = 6
MARGIN = 12
COLORS = ("#3f7fd9", "#bd6a1f", "#2b935f", "#a45bc4")
"""The colours of keys, in turn, visible on white and on a dark page. The letter of the key is in the text."""
ALARM = "#d6404a"

_STYLE = f"""\
.kmutex-lanes{{font:{SIZE}px ui-monospace,Menlo,Consolas,"DejaVu Sans Mono",monospace}}\
.kmutex-lanes text{{fill:currentColor;white-space:pre}}\
.kmutex-lanes .head{{font-weight:600}}\
.kmutex-lanes .life{{stroke:currentColor;stroke-opacity:.3}}\
svg.kmutex-lanes:root{{background:#fff;color:#1b1d21}}\
@media (prefers-color-scheme:dark){{svg.kmutex-lanes:root{{background:#16181c;color:#e8e8ea}}}}"""


class Text(NamedTuple):
    """One line of text, with x and y of its upper left corner."""

    x: float
    y: float
    text: str
    kind: str
    """row, head, side, across or key."""

    @property
    def width(self) -> float:
        """Return the width in pixels."""
        return columns(self.text) * ADVANCE


class Lane(NamedTuple):
    """A column of the layout."""

    x: float
    slots: tuple[str, ...]
    """Its keys, from left to right."""
    width: float

    def slot(self, key: str) -> float:
        """Return the middle of a key's bar."""
        return self.x + SLOT * (self.slots.index(key) + 0.5)

    @property
    def text(self) -> float:
        """Return where its text begins."""
        return self.x + SLOT * max(len(self.slots), 1) + GAP


class Layout(NamedTuple):
    """The positions of all parts."""

    lanes: tuple[Lane, ...]
    texts: tuple[Text, ...]
    middles: tuple[float, ...]
    """The middle of each row, from top to bottom."""
    keys: tuple[tuple[str, float], ...]
    """The legend of the colours: each key, and the middle of its first line."""
    left: float
    top: float
    """The top of the lanes."""
    width: float
    height: float


def wrapped(text: str, most: int) -> Iterator[str]:
    """Yield the text in lines of at most so many columns, broken at blanks if possible. Joined, they are the text."""
    line, width = "", 0
    for char in text:
        wide = columns(char)
        if width + wide > most:
            blank = line.rfind(" ") + 1
            if not line[:blank].strip():
                blank = len(line)
            yield line[:blank]
            line = line[blank:]
            width = columns(line)
        line += char
        width += wide
    yield line


def lay_out(picture: Picture, marks: list[Span], cell: int = CELL) -> Layout:
    """Place every text, bar and lane. Text in a lane is wrapped after ``cell`` columns."""
    texts: list[Text] = []
    side = max([columns(text) for text in (picture.side, *(printable(row.side) for row in picture.rows))])
    left = x = MARGIN + (side * ADVANCE + 2 * GAP if side else 0)
    lanes = []
    for number, head in enumerate(picture.heads):
        keys = tuple(sorted({mark.key for mark in marks if mark.lane == number}))
        said = [head, *(row.text for row in picture.rows if row.lane == number)]
        widest = max(columns(line) for text in said for line in wrapped(printable(text), cell))
        lane = Lane(x, keys, SLOT * max(len(keys), 1) + GAP + widest * ADVANCE)
        lanes.append(lane)
        x += lane.width + 2 * GAP
    room = max(ACROSS, int((x - 2 * GAP - left) / ADVANCE))

    def place(words: str, most: int, kind: str, x: float, y: float) -> float:
        lines = list(wrapped(printable(words), most))
        texts.extend(Text(x, y + LINE * at, line, kind) for at, line in enumerate(lines) if line)
        return LINE * len(lines)

    y: float = MARGIN
    heights = [place(head, cell, "head", lane.text, y) for head, lane in zip(picture.heads, lanes, strict=True)]
    heights.append(place(picture.side, side, "side", MARGIN, y) if picture.side else 0)
    top = y = y + max(heights) + GAP / 2
    middles = []
    for row in picture.rows:
        if row.side:
            # Numbers are aligned at the right.
            words = printable(row.side)
            place(words, side, "side", MARGIN + (side - columns(words)) * ADVANCE, y)
        if row.lane is None:
            height = place(row.text, room - 2, "across", left + 2 * GAP, y)
        else:
            height = place(row.text, cell, "row", lanes[row.lane].text, y)
        middles.append(y + LINE / 2)
        y += height + GAP / 2
    meanings = []
    for key in sorted({mark.key for mark in marks}):
        meanings.append((key, y + GAP + LINE / 2))
        y += place(f"bar: holds {key}; dashed: has asked for it", room - 4, "key", MARGIN + 4 * GAP, y + GAP)
    width = max([x - 2 * GAP, *(text.x + text.width for text in texts)]) + MARGIN
    bottom = y + MARGIN + (GAP if meanings else 0)
    return Layout(tuple(lanes), tuple(texts), tuple(middles), tuple(meanings), left, top, width, bottom)


def svg(picture: Picture, *, title: str = "Who did what", cell: int = CELL) -> str:
    """Return an element with its namespace, well-formed as a file and within HTML.

    Args:
        picture: The picture.
        title: Its title.
        cell: Columns after which text in a lane is wrapped.
    """
    marks = spans(picture)
    layout = lay_out(picture, marks, cell)
    color = {key: COLORS[number % len(COLORS)] for number, (key, _) in enumerate(layout.keys)}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="kmutex-lanes" role="img" xml:space="preserve" '
        f'width="{_number(layout.width)}" height="{_number(layout.height)}" '
        f'viewBox="0 0 {_number(layout.width)} {_number(layout.height)}">',
        f"<title>{_escaped(title)}</title>",
        f"<desc>{_escaped(told(picture))}</desc>",
        f"<style>{_STYLE}</style>",
    ]
    last = max((number for number, row in enumerate(picture.rows) if row.lane is not None), default=-1)
    end = layout.middles[last] + LINE / 2 if last >= 0 else layout.top
    for lane in layout.lanes:
        life = _number(lane.x + SLOT / 2)
        parts.append(f'<path class="life" d="M{life} {_number(layout.top)}V{_number(end)}"/>')
    for mark in sorted(marks, key=lambda mark: mark.holds):
        start = layout.middles[mark.first] if mark.first >= 0 else layout.top
        stop = layout.middles[mark.last] if mark.last < len(layout.middles) else end
        name = f"{picture.heads[mark.lane]} {'holds' if mark.holds else 'has asked for'} {mark.key}"
        x = layout.lanes[mark.lane].slot(mark.key)
        parts.append(_mark(mark.holds, x, start, stop, color[mark.key], name))
    for key, middle in layout.keys:
        for slot, holds in enumerate((True, False)):
            x = MARGIN + SLOT * (slot + 0.5)
            parts.append(_mark(holds, x, middle - LINE / 3, middle + LINE / 3, color[key]))
    for number, row in enumerate(picture.rows):
        if row.lane is None:
            parts.append(
                f'<circle cx="{_number(layout.left + GAP / 2)}" cy="{_number(layout.middles[number])}" r="4" '
                f'fill="{ALARM}"/>'
            )
    for text in layout.texts:
        # The baseline is about a quarter of the line above its lower edge.
        parts.append(
            f'<text class="{text.kind}" x="{_number(text.x)}" y="{_number(text.y + LINE * 0.74)}" '
            f'textLength="{_number(text.width)}" lengthAdjust="spacingAndGlyphs">{_escaped(text.text)}</text>'
        )
    return "\n".join([*parts, "</svg>\n"])


def told(picture: Picture) -> str:
    """Return the rows as one text, for screen readers."""
    said = (row.text if row.lane is None else f"{picture.heads[row.lane]}: {row.text}" for row in picture.rows)
    return "; ".join(said)


def _mark(holds: bool, x: float, start: float, stop: float, color: str, name: str = "") -> str:
    title = f"<title>{_escaped(name)}</title>" if name else ""
    if holds:
        return (
            f'<rect class="holds" x="{_number(x - BAR / 2)}" y="{_number(start)}" width="{BAR}" '
            f'height="{_number(max(stop - start, 2))}" rx="2" fill="{color}">{title}</rect>'
        )
    path = f'd="M{_number(x)} {_number(start)}V{_number(stop)}"'
    return f'<path class="waits" {path} stroke="{color}" stroke-width="2" stroke-dasharray="3 3">{title}</path>'


def _escaped(text: str) -> str:
    return escape(printable(text))


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
