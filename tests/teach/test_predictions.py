"""Predict before you look: every answer is held against a run, in the terminal and in the data for pages."""

from __future__ import annotations

import json

import pytest

from kmutex.cli import lesson as lesson_command
from kmutex.teach.lesson import Lesson, as_data, lesson, lessons, play, shown_in
from tests.commands import told

each = pytest.mark.parametrize("one", lessons(), ids=lambda one: one.name)


@each
def test_each_answer_is_answered_by_its_run(one: Lesson) -> None:
    """The line that it is held against comes up in the run that is named, on the real code."""
    assert one.ask.endswith(("?", "...", ".")), one.ask
    assert len({choice.text for choice in one.choices}) == len(one.choices) >= 4
    assert sum(choice.right for choice in one.choices) == 1
    for choice in one.choices:
        assert choice.reply
        events = play(choice)
        assert shown_in(choice, events), (choice, events)


def test_a_line_that_does_not_come_up_is_seen() -> None:
    """The check above can fail: the answers of lesson 1 do not stand in the run of lesson 2, nor those of client 1."""
    (wrong, *_), events = lesson(1).choices, play(lesson(2).choices[0])
    assert shown_in(wrong, play(wrong))
    assert not shown_in(wrong, events)
    got = next(choice for choice in lesson(2).choices if choice.client == 2)
    assert not shown_in(got, tuple(event._replace(client=1) for event in events))


def test_the_right_answer_is_not_always_at_the_same_place() -> None:
    places = [choice.letter for one in lessons() for choice in one.choices if choice.right]
    assert max(places.count(letter) for letter in set(places)) <= len(places) * 2 // 3
    assert len(set(places)) == 4


@pytest.mark.parametrize("number", [3, 18, 19, 20])
def test_the_command_answers_with_the_run(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Right is exit status 0 and wrong is 1; each answer gets its run and its reply."""
    one = lesson(number)
    for choice in one.choices:
        status, out, err = told(capsys, "lesson", "predict", str(number), "--answer", choice.letter.upper())
        assert (status, err) == (0 if choice.right else 1, "")
        assert out.startswith("Right." if choice.right else "No.")
        assert " ".join(choice.shows.split()) in " ".join(out.split())
        assert " ".join(choice.reply.split()) in " ".join(out.split())


def test_the_question_alone_tells_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    for one in lessons():
        status, out, _ = told(capsys, "lesson", "predict", str(one.number))
        assert status == 0
        said = " ".join(out.split())
        assert all(choice.text in said for choice in one.choices)
        assert not [choice for choice in one.choices if choice.reply in said]
        assert "(right)" not in said


def test_an_answer_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = told(capsys, "lesson", "predict", "3", "--answer", "e")
    assert (status, out) == (4, "")
    assert err == "kmutex: 'e' is not an answer to lesson 3; they are a, b, c, d\n"


def test_at_a_terminal_it_asks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is told before the letter, and nothing at all where the input ends instead."""
    seen: list[str] = []

    def asked(prompt: str) -> str | None:
        seen.append(capsys.readouterr().out)
        return " C " if len(seen) == 1 else None

    monkeypatch.setattr(lesson_command, "_at_a_terminal", lambda: True)
    monkeypatch.setattr(lesson_command, "_asked", asked)
    status, out, _ = told(capsys, "lesson", "predict", "3")
    assert (status, out.splitlines()[0]) == (0, "Right.")
    assert "client 0" not in seen[0]
    assert told(capsys, "lesson", "predict", "3")[:2] == (0, "")


def test_the_data_for_a_page_has_the_runs() -> None:
    """As JSON: the answers, the events of their runs, and the number of the one that each is held against."""
    for one in (lesson(2), lesson(18)):
        data = json.loads(json.dumps(as_data(one)))
        assert (data["number"], data["question"], bool(data["show"])) == (one.number, one.ask, not one.by)
        assert data["code"].splitlines() == one.source.splitlines()[data["first"] - 1 :]
        for choice, plain in zip(one.choices, data["choices"], strict=True):
            run = data["runs"][plain["run"]]
            assert run["schedule"] == choice.run
            client, text = run["events"][plain["shows"]]
            assert client == choice.client
            assert text.startswith(choice.shows)
            assert plain["right"] == choice.right
            lines = [what for _, what in run["events"] if isinstance(what, int)]
            assert lines == [int(event.place.rpartition(":")[2]) for event in play(choice) if event.place]
