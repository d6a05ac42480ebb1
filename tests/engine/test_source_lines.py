"""The lines of the subject's own code at which clients stand, and the timeline that has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import kmutex
from kmutex import KeyedMutex
from kmutex.engine.explorer import parse_schedule
from kmutex.engine.harness import Harness
from kmutex.engine.judge import Judge
from kmutex.engine.run_judge import Event
from kmutex.engine.source_lines import last_place, own_code, stops, with_lines
from kmutex.engine.timeline import WIDTH, timeline


class Helped(KeyedMutex):
    """Asks a helper on the line on which it then waits."""

    __slots__ = ()

    def lock(self, key: object, timeout: float | None = None) -> None:
        super().lock(
            key,
            forever(timeout),
        )


def forever(timeout: float | None) -> float | None:
    return timeout


def seen(make: Callable[[], object], schedule: str) -> tuple[Event, ...]:
    bench = Harness(make)
    with bench.control():
        judging = with_lines(Judge, lambda file: file == __file__)
        last = bench.explorer.again(parse_schedule(schedule), judging=judging).last
    assert last is not None
    return tuple(last.events)


def test_a_client_stands_in_the_caller_when_a_helper_has_returned() -> None:
    """Not in the helper's last line, which it has left."""
    stood = [event for event in stops(seen(Helped, "0+a | 1+a | 0-a @locks")) if event.place and event.client == 1]
    assert stood
    assert "return timeout" not in stood[0].text
    assert stood[0].text.split()[1].startswith(("super().lock(", "key,", "forever("))


def test_the_last_place_is_that_of_who_moved_last_or_is_stuck() -> None:
    events = (
        Event(0, "  1  a", place="x.py:1"),
        Event(1, "  2  b", place="x.py:2"),
        Event(0, "lock a: got it"),
        Event(-1, "KM-EXCL: two of them"),
    )
    assert last_place(events) == "x.py:1"
    assert last_place(events[1:]) == "x.py:2"
    assert last_place(events, 1) == "x.py:2"
    assert last_place(events[2:]) == ""


def test_the_code_of_a_subject_is_its_package_and_not_what_that_uses(tmp_path: Path) -> None:
    own = own_code(KeyedMutex)
    folder = Path(kmutex.__file__).parent
    assert own(str(folder / "_core.py"))
    assert not own(str(folder / "engine" / "judge.py"))
    assert not own(threading.__file__)
    assert not own(str(tmp_path / "other.py"))
    assert not own_code(len)(str(tmp_path / "other.py"))


def test_a_timeline_fits_and_each_row_stands_in_its_lane() -> None:
    """Six clients, and lines of code that are longer than there is room."""
    code = "if not entry.lock.acquire(timeout=-1 if timeout is None else timeout):  # and a word more"
    events = [Event(client, f"  12  {code}", place="x.py:12") for client in range(6)]
    events.append(Event(5, "lock (interruptible) a: got it"))
    head, rule, *rows = timeline(events).splitlines()
    assert all(len(line) <= WIDTH for line in (head, rule, *rows))
    for client, line in enumerate(rows[:6]):
        assert line.index("  12  if not") == head.index(f"client {client}")
        assert line[: line.index("  12  ")].split() == ["|"] * client
    assert rows[6].endswith("lock (interruptible) a: got it")


def test_a_narrow_timeline_is_as_wide_as_its_words() -> None:
    """Where all fits, nothing is moved or cut."""
    assert timeline([Event(0, "lock a ..."), Event(1, "lock a: got it")]).splitlines() == [
        "client 0    client 1",
        "----------  --------------",
        "lock a ...  |",
        "|           lock a: got it",
    ]
