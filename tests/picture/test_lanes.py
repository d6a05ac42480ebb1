"""The form that all pictures are made from, what the judge puts into it, and plain text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given

from kmutex import AsyncKeyedMutex, KeyedMutex, NoopLocker
from kmutex.engine.explorer import Schedule
from kmutex.engine.harness import Harness
from kmutex.engine.scenarios import programs
from kmutex.engine.timeline import picture
from kmutex.picture.rows import Picture, PictureRow, Span, spans
from kmutex.picture.text import text
from tests.picture.pictures import RUN, pictures


def test_who_held_and_who_asked_from_row_to_row() -> None:
    """A try that is refused, a grant that another's unlock ends, and a key that is held at the end."""
    assert spans(RUN) == [
        Span(0, "a", False, 0, 1),
        Span(2, "a", False, 3, 4),
        Span(2, "b", False, 5, 6),
        Span(0, "a", True, 1, 7),
        Span(1, "a", False, 2, 8),
        Span(1, "a", True, 8, 11),
        Span(2, "b", True, 6, len(RUN.rows)),
    ]


def test_what_began_before_the_first_row_comes_from_above() -> None:
    """Of a picture that has the last lines of a log only."""
    cut = Picture(("call 1", "call 2"), (PictureRow(0, "release", "lets go", "k"), PictureRow(1, "grant", "has", "k")))
    assert spans(cut) == [Span(0, "k", True, -1, 0), Span(1, "k", True, 1, 2)]


def test_wide_characters_take_two_columns() -> None:
    """The lane beside them stands straight."""
    shown = Picture(("\u5ba2", "two"), (PictureRow(0, "\u9375\u9375", side="\u4e00"), PictureRow(1, "b")), side="n")
    assert text(shown).splitlines() == [
        " n  \u5ba2    two",
        "--  ----  ---",
        "\u4e00  \u9375\u9375  |",
        "    |     b",
    ]


@given(pictures())
def test_spans_lie_within_the_picture(shown: Picture) -> None:
    """Whatever the rows say, also what no lock can do."""
    for span in spans(shown):
        assert -1 <= span.first < span.last <= len(shown.rows)
        assert 0 <= span.lane < len(shown.heads)


@given(pictures())
def test_text_has_every_row(shown: Picture) -> None:
    """And the last ones where it is cut."""
    drawn = text(shown)
    assert all(row.text.strip() in drawn for row in shown.rows)
    assert all(row.text.strip() in text(shown, most=3) for row in shown.rows[-3:])


def seen(make: Callable[[], Any], level: Any) -> list[tuple[str, Picture]]:
    """The plain run of each program."""
    bench = Harness(make)
    found = []
    with bench.control():
        threads = bench.shape.kind == "threads"
        for program in programs(interrupt=threads, leases=bench.shape.leases):
            if threads or "?" not in program.kinds or bench.shape.timeout:
                last = bench.explorer.again(Schedule(program, level, ())).last
                assert last is not None
                found.append((str(program), picture(last.events)))
    return found


def doubles(shown: Picture) -> list[tuple[Span, Span]]:
    """Two at a time who hold one key."""
    held = [span for span in spans(shown) if span.holds]
    return [
        (one, other)
        for at, one in enumerate(held)
        for other in held[:at]
        if one.key == other.key and one.first < other.last and other.first < one.last
    ]


@pytest.mark.parametrize(("make", "level"), [(KeyedMutex, "locks"), (AsyncKeyedMutex, "tasks")])
def test_of_a_sound_locker_no_two_bars_of_a_key_overlap(make: Callable[[], Any], level: str) -> None:
    """KM-EXCL, as drawn; and there are bars, and lines of those who wait."""
    found = seen(make, level)
    assert [(name, doubles(shown)) for name, shown in found if doubles(shown)] == []
    assert all(any(span.holds for span in spans(shown)) for name, shown in found if "-" in name and "0x" not in name)
    assert sum(not span.holds and span.last - span.first > 1 for _, shown in found for span in spans(shown)) > 20
    # At the end of a run nobody holds or waits: every bar and line that begins ends in an event.
    assert {span.last < len(shown.rows) for _, shown in found for span in spans(shown)} == {True}


def test_of_a_locker_that_excludes_nobody_they_do() -> None:
    """KM-EXCL: the known-bad twin."""
    assert any(doubles(shown) for _, shown in seen(NoopLocker, "locks"))
