"""The page of `kmutex explore` without a browser: what it embeds, and the command that writes it."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from kmutex._console import write_whole
from kmutex.teach import explore_page, one_file
from kmutex.teach.explore_page import Embedded, Subject, embedded, page, rules, subjects
from kmutex.teach.one_file import as_json
from kmutex_model.actions import CORRECT, TABLE, Action, action_key, parse_action, parse_schedule
from kmutex_model.broken import BROKEN
from kmutex_model.explore import Exploration, explore
from kmutex_model.properties import make_transition
from kmutex_model.state import Client, Config, Entry, State
from tests.commands import PATH, told

SUBJECTS = subjects()
HOSTILE = "</script><script>window.hostile = true</script><!--"


class _Scripts(HTMLParser):
    """The script elements of a page, with their attributes and their text."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.found.append((dict(attrs), ""))
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            attributes, text = self.found[-1]
            self.found[-1] = (attributes, text + data)


def scripts(text: str) -> list[tuple[dict[str, str | None], str]]:
    parser = _Scripts()
    parser.feed(text)
    return parser.found


@pytest.fixture(scope="module")
def found() -> Embedded:
    return embedded()


@pytest.fixture(scope="module")
def written(found: Embedded) -> str:
    return page(found.json)


@pytest.fixture(scope="module")
def data(written: str) -> dict[str, Any]:
    """The data as a browser finds them in the page."""
    attributes, text = scripts(written)[0]
    assert attributes == {"type": "application/json", "id": "data"}
    found: dict[str, Any] = json.loads(text)
    return found


def found_in(data: dict[str, Any], subject: Subject) -> dict[str, Any]:
    bound = f"{subject.config.clients}x{subject.config.keys}"
    (graph,) = (
        g for g in data["graphs"] if (g["model"], g["bound"], g["race"]) == (subject.name, bound, subject.config.race)
    )
    return dict(graph)


def states_of(data: dict[str, Any], graph: dict[str, Any]) -> list[State]:
    """The embedded states as the model's: a decoder of its own, for the encoder to be held against."""
    clients, keys = map(int, graph["bound"].split("x"))
    found = []
    for row in graph["states"]:
        entries = [data["entries"][n] for n in row[:keys]]
        found.append(
            State(
                tuple(e and Entry(e[0], tuple(e[1]), e[2]) for e in entries),
                tuple(Client(*data["clients"][n]) for n in row[keys : keys + clients]),
                tuple(tuple(data["orders"][n]) for n in row[keys + clients : 2 * keys + clients]),
            )
        )
    return found


def steps_of(data: dict[str, Any], graph: dict[str, Any], number: int) -> list[tuple[Action, str, list[Any], int]]:
    """Action, outcome, violations and end of each embedded step from the state of that number."""
    row = graph["steps"][number]
    found = []
    for kind, after in zip(row[::2], row[1::2], strict=True):
        action, outcome, _, breaks, _ = data["kinds"][kind]
        found.append((parse_action(data["actions"][action][0]), outcome, breaks, after))
    return found


def faults(data: dict[str, Any], graph: dict[str, Any], subject: Subject, found: Exploration) -> Iterator[str]:
    """Where an embedded graph is not the one that the explorer found."""
    states = states_of(data, graph)
    if states[: graph["reached"]] != list(found.graph):
        yield "other states"
    if graph["reached"] != found.states or graph["transitions"] != found.transitions:
        yield "other counts"
    if sum(len(row) // 2 for row in graph["steps"]) != found.transitions:
        yield "other steps"
    for number, before in enumerate(found.graph):
        followed = []
        for action, outcome, breaks, after in steps_of(data, graph, number):
            if subject.model.step(subject.config, before, action) != (states[after], outcome):
                yield f"{action} leads elsewhere"
            t = make_transition(subject.config, before, action, outcome, states[after])  # type: ignore[arg-type]
            said = {p.clause for p in subject.judged_by if p.on_step and p.on_step(t)}
            said |= {p.clause for p in subject.judged_by if p.in_state and p.in_state(t.config, t.after)}
            if {clause for clause, _ in breaks} != said:
                yield f"{action} breaks other clauses"
            if not breaks:
                followed.append((action, states[after]))
        if tuple(followed) != found.graph.edges[before]:
            yield f"other steps from {before}"


each = pytest.mark.parametrize("subject", SUBJECTS, ids=lambda s: f"{s.name}-{s.config.clients}x{s.config.keys}")


@each
def test_an_embedded_graph_is_the_one_that_the_explorer_finds(data: dict[str, Any], subject: Subject) -> None:
    found = explore(subject.model, subject.config, properties=subject.judged_by)
    assert list(faults(data, found_in(data, subject), subject, found)) == []


def test_a_graph_that_lacks_a_step_or_a_violation_is_seen(data: dict[str, Any]) -> None:
    """The known-bad twins of the test above."""
    subject = next(s for s in SUBJECTS if s.name == "lifo.KM-FIFO")
    found = explore(subject.model, subject.config, properties=subject.judged_by)
    short = copy.deepcopy(found_in(data, subject))
    del short["steps"][3][:2]
    assert "other steps" in list(faults(data, short, subject, found))
    quiet = copy.deepcopy(data)
    for kind in quiet["kinds"]:
        kind[3] = []
    assert any("breaks other clauses" in fault for fault in faults(quiet, found_in(quiet, subject), subject, found))


@each
def test_the_shortest_runs_and_the_witnesses_replay_in_the_model(data: dict[str, Any], subject: Subject) -> None:
    graph = found_in(data, subject)
    found = explore(subject.model, subject.config, properties=subject.judged_by)
    assert {c["clause"] for c in graph["counterexamples"]} >= ({subject.clause} if subject.clause else set())

    def run(numbers: list[int]) -> tuple[Action, ...]:
        return parse_schedule(";".join(data["actions"][n][0] for n in numbers))

    for counterexample, violation in zip(graph["counterexamples"], found.violations, strict=True):
        path = run(counterexample["run"])
        assert (path, counterexample["message"]) == (violation.path, violation.message)
        subject.model.replay(subject.config, path + run(counterexample["cycle"] or []))
    assert {(w["clause"], w["statement"]): run(w["run"]) for w in graph["witnesses"]} == found.witnesses
    for path in found.witnesses.values():
        subject.model.replay(subject.config, path)


@each
def test_who_is_owed_something_is_who_waits(data: dict[str, Any], subject: Subject) -> None:
    """KM-LIVE: the bits from which the page tells a lasso."""
    graph = found_in(data, subject)
    for row, state in zip(graph["states"], states_of(data, graph), strict=True):
        assert row[-1] == sum(1 << n for n, client in enumerate(state.clients) if client.phase == "waiting")


def test_the_page_has_the_bounds_it_promises_and_every_broken_model(data: dict[str, Any]) -> None:
    correct = {(g["bound"], g["race"]) for g in data["graphs"] if not g["clause"]}
    assert {("3x1", "keep"), ("3x1", "pass"), ("3x2", "keep"), ("3x2", "pass")} <= correct
    assert [g["model"] for g in data["graphs"] if g["clause"]] == [f"{b.model.name}.{b.clause}" for b in BROKEN]
    for broken in BROKEN:
        assert (f"{broken.config.clients}x{broken.config.keys}", broken.config.race) in correct
    assert len({(g["model"], g["bound"], g["race"]) for g in data["graphs"]}) == len(data["graphs"])


def test_a_broken_model_that_breaks_nothing_is_refused() -> None:
    """So is a correct one that is not: the page must not say of a graph what is not so."""
    config = Config(2, 1, "keep")
    with pytest.raises(ValueError, match="sound is to violate KM-FIFO"):
        embedded([Subject("sound", CORRECT, config, clause="KM-FIFO", story="none")])
    with pytest.raises(ValueError, match="correct is to violate nothing"):
        embedded([Subject("correct", BROKEN[0].model, config)])


def test_everything_that_can_happen_has_words_and_a_rule(data: dict[str, Any]) -> None:
    names = {name for _, name, _, _ in data["actions"]}
    outcomes = {kind[1] for kind in data["kinds"]}
    assert names == set(data["words"]["actions"])
    assert outcomes == set(data["words"]["outcomes"])
    assert {phase for phase, _ in data["clients"]} == set(data["words"]["phases"])
    assert {(row.action, row.phase) for row in TABLE} == set(explore_page.RULE_OF)
    assert list(rules()) == list(range(1, 11))
    assert set(explore_page.RULE_OF.values()) <= set(rules())
    for subject in SUBJECTS[:1]:
        state = subject.model.initial(subject.config)
        for action in subject.model.enabled(subject.config, state):
            assert action_key(state, action) is not None


# ------------------------------------------------------------------------------------------------------------
# One file that loads nothing

LOADS = re.compile(
    r"""https?://(?!www\.w3\.org/2000/svg["'])|["'(]//\w|@import|url\(|\bimport\s*\(|\bfetch\(|XMLHttpRequest|WebSocket
    |\bsrc\s*=|<link(?!\ rel="icon"\ href="data:,")""",
    re.IGNORECASE | re.VERBOSE,
)


def test_the_page_refers_to_nothing_outside_itself(written: str) -> None:
    assert LOADS.findall(written) == []
    assert "default-src 'none'" in written


@pytest.mark.parametrize(
    "text",
    [
        '<img src="x.png">',
        '<link rel="stylesheet" href="x.css">',
        "<style>@import 'x.css'</style>",
        "<p style='background: url(x.png)'>",
        '<a href="http://example.org">',
        "<script>fetch('x')</script>",
    ],
)
def test_a_page_that_refers_to_something_is_seen(written: str, text: str) -> None:
    """The known-bad twins of the test above."""
    assert LOADS.findall(written + text)


def test_what_is_embedded_cannot_close_its_script() -> None:
    subject = Subject(HOSTILE, CORRECT, Config(2, 1, "keep"))
    text = page(embedded([subject]).json)
    found = scripts(text)
    assert [attributes for attributes, _ in found] == [{"type": "application/json", "id": "data"}, {}]
    assert json.loads(found[0][1])["graphs"][0]["model"] == HOSTILE


def test_plain_json_would_close_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known-bad twin of the test above."""
    monkeypatch.setattr(one_file, "as_json", json.dumps)
    text = page(embedded([Subject(HOSTILE, CORRECT, Config(2, 1, "keep"))]).json)
    assert ({}, "window.hostile = true") in scripts(text)
    with pytest.raises(json.JSONDecodeError):
        json.loads(scripts(text)[0][1])


def test_as_json_is_json() -> None:
    value = {"text": "<a> & </script> \u2028 é", "list": [1, None]}
    assert json.loads(as_json(value)) == value
    assert not re.search("[<>&\u2028]", as_json(value))


def test_a_script_that_would_close_its_own_element_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(one_file, "_part", lambda name: "'</SCRIPT'" if name.endswith(".js") else "")
    with pytest.raises(ValueError, match="close its own element"):
        page({})


# ------------------------------------------------------------------------------------------------------------
# The command


def test_the_command_writes_the_page_and_says_how_much_it_is(tmp_path: Path, found: Embedded, written: str) -> None:
    """With another hash seed, since a run that is shared by its address must mean the same on everybody's page; and
    without a module that Windows lacks."""
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONPATH": PATH, "PYTHONHASHSEED": seed}
    hide = "import sys; sys.modules['resource'] = None; from kmutex.cli import main; main(sys.argv[1:])"
    call = [sys.executable, "-c", hide, "explore", "-o", "page.html"]
    done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == written
    counts = f"{found.graphs} graphs, {found.states:,} states, {found.steps:,} steps"
    assert done.stdout == f"page.html: {counts}, {len(written.encode()):,} bytes\n"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_command_is_refused_what_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 4, one clear line, and nothing is left behind."""
    (tmp_path / "folder").mkdir()
    for file, fault in (("folder", "is a folder"), ("no/page.html", "no such folder"), ("/dev/null", "ordinary file")):
        status, out, err = told(capsys, "explore", "-o", str(tmp_path / file))
        assert (status, out) == (4, "")
        assert err.startswith(f"kmutex: {tmp_path / file}: ")
        assert fault in err
        assert err.count("\n") == 1
    assert told(capsys, "explore")[0] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "page.html"
    file.write_text("old", encoding="utf-8")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_whole(file, "new")
    assert [(path.name, path.read_text(encoding="utf-8")) for path in tmp_path.iterdir()] == [("page.html", "old")]


def test_a_write_keeps_the_mode_and_follows_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "page.html", tmp_path / "link.html"
    file.write_text("old", encoding="utf-8")
    file.chmod(0o640)
    link.symlink_to(file)
    assert write_whole(link, "néw") == 4
    assert link.is_symlink()
    assert (file.read_text(encoding="utf-8"), file.stat().st_mode & 0o777) == ("néw", 0o640)
    mask = os.umask(0o027)
    try:
        write_whole(tmp_path / "fresh.html", "")
    finally:
        os.umask(mask)
    assert (tmp_path / "fresh.html").stat().st_mode & 0o777 == 0o640
