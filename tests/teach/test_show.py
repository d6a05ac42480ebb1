"""kmutex show: what is recorded of a run, the model beside it, what the page embeds, and the command."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kmutex import AsyncKeyedMutex, KeyedMutex
from kmutex.engine.explorer import parse_schedule
from kmutex.engine.features import PROMISES
from kmutex.engine.flight_judge import put_on_trial
from kmutex.engine.harness import Harness
from kmutex.engine.program import FLIGHT
from kmutex.engine.recording import Mark, Recording, record
from kmutex.engine.source_lines import own_code
from kmutex.teach.beside_flight import model_of_flights
from kmutex.teach.beside_model import LOCK, beside
from kmutex.teach.lesson import lesson, lessons
from kmutex.teach.show_page import Story, by_default, data, page
from kmutex.verify import runner
from kmutex_model.flight import Flight
from kmutex_model.state import Entry
from tests.commands import run_here, run_kmutex
from tests.lockers import flights_asyncio, flights_threads
from tests.lockers.repaired import Leasing

MOST = 30
SOUND = {
    "threads": ("0+a-a 1+a-a | 2~a-a 1?a-a | 0xa @locks", KeyedMutex),
    "two keys": ("0+a+b-b-a 1+b-b @locks", KeyedMutex),
    "interrupts": ("0+a | 1!a-a 2+a-a | 0-a @locks", KeyedMutex),
    "leases": ("0[a | 1+a | 0^a | 0]a 1-a @locks", KeyedMutex),
    "an old lease": ("0[a | 1[a | 2+a | 0^a | 3oa | 1]a @locks-", Leasing),
    "another's lease": ("0[a | 1+a | 2oa | 0]a 1-a @locks", KeyedMutex),
    "errors": ("0[a | 1+a | 0%a 1-a @locks", KeyedMutex),
    "asyncio": ("0+a-a 1~a-a 2+a-a @tasks", AsyncKeyedMutex),
    "timeouts": ("0+a-a 1~a-a 2+a-a @timeouts", AsyncKeyedMutex),
}
"""Programs that sound lockers go through, and what they are called here."""


def recorded(make: Callable[[], Any], schedule: str, without: tuple[str, ...] = (), most: int = MOST) -> Recording:
    bench = Harness(make, without=without, promises=PROMISES)
    with bench.control():
        explorer = bench.explorer
        if bench.shape.form == "flight":
            explorer = put_on_trial(bench.shape, bench.fitted.make, explorer)[2]
        return record(explorer, parse_schedule(schedule), own_code(bench.make), most=most)


@functools.cache
def of_lesson(number: int) -> Recording:
    one = lesson(number)
    return recorded(one.make(), str(one.schedule), one.without)


def way(recording: Recording, number: int = 0) -> Any:
    run = recording.runs[number]
    program = parse_schedule(run.schedule).program
    model = model_of_flights(recording.leader) if program.kinds & FLIGHT else LOCK
    assert model is not None
    return beside(run.marks, program.keys, 1 + max(mark.client for mark in run.marks), model)


# ------------------------------------------------------------------------------------------------------------
# What is recorded


def test_each_branch_is_the_run_that_its_schedule_says() -> None:
    recording = of_lesson(3)
    whole = [recording.runs[0].events]
    for run in recording.runs[1:]:
        parent = whole[run.parent]
        whole.append((*parent[: run.shared], *run.events))
        choice = run.choices[run.choice]
        assert choice.at == run.shared
        assert choice.pick != recording.runs[run.parent].choices[run.choice].pick
    one = lesson(3)
    for number in (1, len(whole) // 2, len(whole) - 1):
        again = recorded(one.make(), recording.runs[number].schedule, one.without, most=1)
        assert again.runs[0].events == whole[number]
        assert again.runs[0].breaches == recording.runs[number].breaches


def test_every_alternative_of_a_short_run_is_there() -> None:
    recording = of_lesson(2)
    assert recording.left == 0
    picks = [tuple(choice.pick for choice in run.choices) for run in recording.runs]
    for run, made in zip(recording.runs, picks, strict=True):
        for at, choice in enumerate(run.choices):
            for pick in range(len(choice.moves)):
                assert any(other[: at + 1] == (*made[:at], pick) for other in picks)


def test_what_is_left_out_is_counted() -> None:
    one = lesson(3)
    few = recorded(one.make(), str(one.schedule), one.without, most=3)
    assert len(few.runs) == 3
    assert few.left > 0
    stopped = Harness(one.make(), without=one.without, promises=PROMISES)
    with stopped.control():
        none = record(stopped.explorer, one.schedule, own_code(stopped.make), most=MOST, go_on=lambda: False)
    assert len(none.runs) == 1


def test_a_recording_survives_json() -> None:
    recording = of_lesson(11)
    assert Recording.from_plain(json.loads(json.dumps(recording.as_plain()))) == recording


# ------------------------------------------------------------------------------------------------------------
# The model beside it


@pytest.mark.sampled(3)
@pytest.mark.parametrize("name", SOUND)
def test_a_sound_locker_and_the_model_do_not_part(name: str) -> None:
    """KM-EXCL, KM-FIFO, KM-CANCEL, KM-RACE, KM-TOKEN, KM-UNHELD: the model explains every run of a sound locker."""
    schedule, make = SOUND[name]
    recording = recorded(make, schedule)
    for number, run in enumerate(recording.runs):
        assert run.breaches == ()
        assert way(recording, number).parts == -1, run.schedule


@pytest.mark.sampled(3)
@pytest.mark.parametrize("number", [one.number for one in lessons()])
def test_a_run_parts_from_the_model_where_the_judge_sees_it_break_a_clause(number: int) -> None:
    """The judge and the model are two: what calls and answers break is seen by both, in the lesson's run and in those
    that part from it. A wrong count is seen by the judge alone, and what comes late by the model first."""
    recording = of_lesson(number)
    for at, run in enumerate(recording.runs):
        seen = [breach.at for breach in run.breaches if "len()" not in breach.message]
        parts = way(recording, at).parts
        assert (parts >= 0) == bool(seen), run.schedule
        assert parts < 0 or parts <= seen[0]


def test_the_table_of_the_model_is_that_of_the_run() -> None:
    """KM-FIFO, KM-HANDOFF, KM-REF: the queue as it grows and shrinks; after they part the model goes its own way."""
    shown = [(moment.at, moment.states[0].entries[0]) for moment in way(of_lesson(2)).moments]
    entries = [entry for (_, entry), after in zip(shown, [*shown[1:], (0, "")], strict=True) if entry != after[1]]
    assert entries == [None, Entry(0, (), 1), Entry(0, (1,), 2), Entry(1, (), 1), Entry(1, (2,), 2)]


def test_a_call_that_has_the_key_and_is_not_back_is_granted() -> None:
    marks = (Mark(1, "called", 0, "+", "a"), Mark(2, "returned", 0, "+", "a"))
    phases = [moment.states[0].clients[0].phase for moment in beside(marks, "a", 1).moments]
    assert phases == ["idle", "granted", "holding"]


ASK, GOT = Mark(1, "called", 0, "+", "a"), Mark(2, "returned", 0, "+", "a")
PARTING = {
    "a second holder": (ASK, GOT, Mark(3, "called", 1, "+", "a"), Mark(4, "returned", 1, "+", "a")),
    "refused early": (ASK, GOT, Mark(3, "called", 1, "~", "a"), Mark(4, "refused", 1, "~", "a")),
    "a wait for nobody": (ASK, Mark(1, "quiet", waiting=(0,))),
    "an unlock that fails": (ASK, GOT, Mark(3, "called", 0, "-", "a"), Mark(4, "raised", 0, "-", "a")),
    "an unlock of nothing": (Mark(1, "called", 0, "x", "a"), Mark(2, "returned", 0, "x", "a")),
    "out of turn": (
        *(ASK, GOT, Mark(3, "called", 1, "+", "a"), Mark(3, "quiet", waiting=(1,))),
        *(Mark(4, "called", 2, "+", "a"), Mark(4, "quiet", waiting=(1, 2)), Mark(5, "called", 0, "-", "a")),
        *(Mark(6, "returned", 0, "-", "a"), Mark(7, "returned", 2, "+", "a")),
    ),
}
"""What no run of the model shows, by what is wrong with its last mark."""


@pytest.mark.parametrize("name", PARTING)
def test_what_the_model_does_not_do_is_where_they_part(name: str) -> None:
    marks = PARTING[name]
    assert beside(marks, "a", 3).parts == marks[-1].at
    assert beside(marks[:-1], "a", 3).parts == -1


# ------------------------------------------------------------------------------------------------------------
# The model of single flights beside it

FLIGHTS = (
    *("0da 1na 2da | 0ea | 1ea", "0fa 1da 2da | 2ea | 2ea", "0da | 1ta 2da | c1 | 0ea", "0da 1db 2da | 0ea | 1eb"),
    *("0ta | 1da | c0 | 1ea 1ea", "0ta 1da 2da | c0 | 2ea | 2ea", "0na 1na | 2da | 0ea"),
)
"""Programs of flights: shared, failed, a follower cancelled, two keys, a leader cancelled, one after the other."""
SOUND_FLIGHTS = (
    *(flights_asyncio.TaskFlight, flights_asyncio.InnerTaskFlight, flights_asyncio.FutureFlight),
    *(flights_asyncio.LockedFlight, flights_asyncio.SharingFlight, flights_threads.SharingFlight),
    *(flights_threads.TakeoverFlight, flights_threads.FutureFlight, flights_threads.LockedFlight),
)
BAD_FLIGHTS = {
    "FlightBeginsAnewForThird": "0da 1da 2da | 0ea @locks",
    "FlightWithCache": "0na 1na | 2da | 0ea @locks",
    "FlightGivesNothingOnFailure": "0fa 1da 2da | 2ea | 2ea @locks",
    "FlightMindsExceptionsOnly": "0ta | 1da | c0 | 1ea 1ea @locks",
    "FlightSharesWithOne": "0fa 1da 2da | 2ea | 2ea @locks",
    "FlightFollowerFailsAll": "0da | 1ta 2da | c1 | 0ea @locks",
    "FlightWorksUnderGuard": "0da 1db 2da | 0ea | 1eb @locks",
    "FlightWakesOne": "0da 1na 2da | 0ea | 1ea @locks",
    "FlightLeaderForgetsOnCancel": "0ta | 1da | c0 | 1ea 1ea @tasks",
    "FlightLeaderLeavesItsTask": "0ta | 1da | c0 | 1ea 1ea @tasks",
    "FlightFollowerNotShielded": "0da | 1ta 2da | c1 | 0ea @tasks",
    "FlightForgetsAtNextCall": "0na 1na | 2da | 0ea @tasks",
}
"""By known-bad flight, a program that shows its mistake."""


@pytest.mark.sampled(len(SOUND_FLIGHTS))
@pytest.mark.parametrize("flight", SOUND_FLIGHTS)
def test_a_sound_flight_and_its_model_do_not_part(flight: type) -> None:
    """KM-ONE, KM-RESULT, KM-LEADER, KM-FOLLOWER, KM-APART, KM-RETURN: where errors are shared, or the next leads."""
    level = "locks" if flight.__module__ == flights_threads.__name__ else "tasks"
    for program in FLIGHTS:
        recording = recorded(flight, f"{program} @{level}", most=8)
        for number, run in enumerate(recording.runs):
            assert run.breaches == ()
            assert way(recording, number).parts == -1, run.schedule


@pytest.mark.sampled(4)
@pytest.mark.parametrize("name", BAD_FLIGHTS)
def test_a_known_bad_flight_parts_where_the_judge_sees_it_break_a_clause(name: str) -> None:
    schedule = BAD_FLIGHTS[name]
    module = flights_threads if schedule.endswith("@locks") else flights_asyncio
    recording = recorded(getattr(module, name), schedule, most=12)
    broken = 0
    for number, run in enumerate(recording.runs):
        seen = [breach.at for breach in run.breaches if "len()" not in breach.message]
        parts = way(recording, number).parts
        assert (parts >= 0) == bool(seen), run.schedule
        assert parts < 0 or parts <= seen[0]
        broken += bool(seen)
    assert broken


def test_the_model_of_a_flight_has_its_leader_and_its_followers() -> None:
    """In lesson 20 client 0 leads and client 1 follows, and leads when client 0 is cancelled; there the code parts."""
    found = way(of_lesson(20))
    flights = [moment.states[0].entries[0] for moment in found.moments]
    assert list(dict.fromkeys(flights)) == [None, Flight(0, ()), Flight(0, (1,)), Flight(1, ())]
    assert found.client == 1


CALLS, WORKS = Mark(1, "called", 0, "d", "a"), Mark(2, "work begins", 0, "", "a")
FOLLOWS = (CALLS, WORKS, Mark(3, "called", 1, "d", "a"), Mark(3, "quiet", waiting=(0, 1)))
PARTING_FLIGHTS = {
    "a second run": (*FOLLOWS, Mark(4, "work begins", 1, "", "a")),
    "a result of nobody's": (*FOLLOWS, Mark(4, "returned", 1, "d", "a")),
    "an error of nobody's": (*FOLLOWS, Mark(4, "raised", 1, "d", "a")),
    "a wait for no run": (CALLS, Mark(1, "quiet", waiting=(0,))),
    "a result of a failure": (*FOLLOWS, Mark(4, "work failed", 0, "", "a"), Mark(5, "returned", 1, "d", "a")),
    "a shared cancellation": (
        *(*FOLLOWS, Mark(4, "cancelled", 0), Mark(5, "work cancelled", 0, "", "a")),
        *(Mark(6, "refused", 0, "d", "a"), Mark(7, "refused", 1, "d", "a")),
    ),
}
"""What no run of the model of flights shows, by what is wrong with its last mark."""


@pytest.mark.parametrize("name", PARTING_FLIGHTS)
def test_what_the_model_of_flights_does_not_do_is_where_they_part(name: str) -> None:
    marks = PARTING_FLIGHTS[name]
    for leader in ("takeover", "share"):
        model = model_of_flights(leader)
        assert model is not None
        assert beside(marks, "a", 2, model).parts == marks[-1].at
        assert beside(marks[:-1], "a", 2, model).parts == -1


# ------------------------------------------------------------------------------------------------------------
# What the page embeds


def embedded(*numbers: int) -> dict[str, Any]:
    stories = [Story("kmutex show X", of_lesson(number)) for number in numbers]
    return json.loads(json.dumps(data("pkg:Locker", "", stories, ("KM-FIFO",), "foot")))  # type: ignore[no-any-return]


def test_the_lines_at_which_clients_stand_are_in_the_source() -> None:
    shown = embedded(3)
    lines = [(file, line) for _, _, _, _, file, line in shown["events"] if line]
    assert lines
    source = lesson(3).source.splitlines()
    for file, line in lines:
        of = shown["files"][file]
        assert of["lines"][line - of["first"]] == source[line - 1]
    for _, text, _, _, _, line in shown["events"]:
        if line:
            assert text.split()[:1] == [str(line)]
            assert text[6:].strip() in source[line - 1]


def test_the_sound_run_breaks_nothing_and_the_first_breaks_something() -> None:
    story = embedded(3)["stories"][0]
    assert story["runs"][0]["breaches"]
    assert story["runs"][story["sound"]]["breaches"] == []
    assert embedded(1)["stories"][0]["sound"] == -1  # Each run of it leaves the key behind.


def test_the_point_at_which_they_part_is_that_of_the_first_sign() -> None:
    run = embedded(2)["stories"][0]["runs"][0]
    assert run["parts"] == run["breaches"][0][0]  # len() says so, before a second client holds the key.


def test_a_locker_in_which_nothing_is_found_has_a_run_too() -> None:
    for kind in ("threads", "asyncio"):
        for tries in (True, False):
            assert parse_schedule(by_default(kind, flight=False, tries=tries)).tries is tries
    schedule = by_default("threads", flight=True, tries=True)
    (flight,) = runner.record("tests.lockers.flights_threads:SharingFlight", [schedule], most=5)
    story = json.loads(json.dumps(data("x:Y", "", [Story("", flight)], (), "")))["stories"][0]
    assert story["runs"][0]["model"]
    for change in ({"leader": "cancel"}, {"runs": [dataclasses.replace(flight.runs[0], schedule="0da | 0ga @locks")]}):
        other = dataclasses.replace(flight, **change)  # type: ignore[arg-type]
        story = json.loads(json.dumps(data("x:Y", "", [Story("", other)], (), "")))["stories"][0]
        assert story["runs"][0]["model"] == []  # The model does not forget, and shares no cancellation.


def test_what_stands_in_the_code_cannot_close_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page("</script><b>", "", [Story("", of_lesson(1))], (), "</script>")
    assert len(re.findall("</script", text)) == 2


# ------------------------------------------------------------------------------------------------------------
# The command


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(lesson(2).source, encoding="utf-8")
    return tmp_path


def test_the_command_shows_a_schedule(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    schedule = str(lesson(2).schedule)
    done = run_here(monkeypatch, capsys, "show", "mine:Locker", "-o", "page.html", "--replay", schedule)
    assert (done.status, done.err, done.left) == (1, "", [])
    assert "3 runs of mine:Locker" in done.out
    assert "KM-EXCL: client 2 got a while client 1 holds it" in done.out
    text = (folder / "page.html").read_text(encoding="utf-8")
    assert "self._locks.pop(key).release()" in text
    assert not re.search(r"""(?:src|href)=["']?http""", text)


REFUSED = {
    "no such module": (3, ["nowhere:Locker", "-o", "page.html", "--replay", "0+a @locks"], "no module 'nowhere'"),
    "no schedule": (4, ["mine:Locker", "-o", "page.html", "--replay", "what"], "is not a schedule"),
    "of another kind": (
        4,
        ["mine:Locker", "-o", "page.html", "--replay", "0+a @tasks"],
        "not for a subject of threads",
    ),
    "a folder": (4, ["mine:Locker", "-o", "."], "is a folder, not a file"),
    "no target": (4, ["mine:", "-o", "page.html"], "not of the form MODULE:FACTORY"),
    "no feature": (4, ["mine:Locker", "-o", "page.html", "--without", "x"], "'x' is not a feature"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_refused_in_one_line_and_writes_nothing(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    status, arguments, words = REFUSED[name]
    done = run_here(monkeypatch, capsys, "show", *arguments)
    assert done.status == status
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert not (folder / "page.html").exists()


@pytest.mark.long
def test_without_a_schedule_the_command_looks_for_one(folder: Path) -> None:
    done = run_kmutex(folder, "show", "mine:Locker", "-o", "page.html", "--runs", "5", timeout=300)
    assert (done.status, done.left) == (1, []), done.err
    assert "KM-REF" in done.out


@pytest.mark.long
def test_verify_writes_the_page_of_what_it_tells(folder: Path) -> None:
    done = run_kmutex(folder, "verify", "mine:Locker", "--html", "page.html", timeout=300)
    assert (done.status, done.left) == (1, []), done.err
    assert "self._locks.pop(key)" in (folder / "page.html").read_text(encoding="utf-8")
