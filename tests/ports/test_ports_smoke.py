"""The ports: built, their own tests run, and their adapters spoken with, the correct ones and the broken ones."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lockers.catalogue import entries
from tests.ports.conftest import FOLDER, PORTS, Port
from tests.ports.conversation import SCENARIOS, Conversation, Scenario

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PATIENCE = 60.0
"""Seconds after which a state that never comes fails the test."""
SHORT = 2.0
"""The same for a broken locker, of which it is expected."""

CLAUSES = {
    clause["id"]
    for clause in tomllib.loads((FOLDER.parent / "specs" / "clauses.toml").read_text(encoding="utf-8"))["clause"]
}
OF_ALL = {"fifo", "cancel", "try", "unheld", "stat"}


def talk_to(port: Port, *arguments: str, patience: float = PATIENCE) -> Conversation:
    return Conversation([*port.adapter, *arguments], port.folder, patience)


def greet(talk: Conversation) -> dict[str, Any]:
    hello = talk.reply(talk.say("hello", protocol=1))
    assert talk.ask("reset") == "ok"
    return hello


def clauses_of(scenario: Scenario) -> set[str]:
    return set(re.findall(r"KM-[A-Z]+", scenario.__doc__ or ""))


def fails(port: Port, mistake: str, scenario: Scenario) -> bool:
    with talk_to(port, "--broken", mistake, patience=SHORT) as talk:
        features = frozenset(greet(talk)["features"])
        try:
            scenario(talk, features)
        except AssertionError:
            return True
    return False


def test_its_own_tests(port: Port) -> None:
    """The port's tests, with the stricter tool where it is there."""
    done = subprocess.run(port.test, cwd=port.folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_hello_says_what_the_port_has(port: Port) -> None:
    """Level 2, the features that all have, and one decision on KM-RACE."""
    with talk_to(port) as talk:
        hello = greet(talk)
        assert (hello["protocol"], hello["name"]) == (1, f"kmutex-{port.name}")
        features = set(hello["features"])
        assert features >= OF_ALL
        assert len(features & {"keep", "pass"}) == 1
        assert len(features & {"take", "refuse"}) == 1
        assert features <= OF_ALL | {"keep", "pass", "lease", "done", "take", "refuse", "deadline", "token"}


def test_a_port_has_what_not_all_have(built: Callable[[str], Port]) -> None:
    """KM-TOKEN, KM-EXPIRED: each is put to the test by somebody; and somebody does without, so that both are seen."""
    declared = []
    for name in PORTS:
        with talk_to(built(name)) as talk:
            declared.append(greet(talk)["features"])
    for feature in ("lease", "deadline", "token", "take", "refuse"):
        assert {feature in features for features in declared} == {True, False}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_adapter_keeps_the_contract(port: Port, scenario: Scenario) -> None:
    """Each conversation goes as it must; their docstrings name the clauses."""
    with talk_to(port) as talk:
        scenario(talk, frozenset(greet(talk)["features"]))
        talk.say("bye")
        assert talk.ended() == (0, "")


def test_every_mistake_is_seen_where_it_should_be(port: Port) -> None:
    """A broken adapter fails a conversation about one of the clauses that it is listed for."""
    mistakes = port.mistakes()
    assert len(mistakes) >= 4
    unseen = []
    for mistake, clauses in mistakes.items():
        assert set(clauses) <= CLAUSES
        about = [scenario for scenario in SCENARIOS if clauses_of(scenario) & set(clauses)]
        if not any(fails(port, mistake, scenario) for scenario in about):
            unseen.append(mistake)
    assert unseen == []


def test_the_catalogue_has_the_mistakes_of_the_port(port: Port) -> None:
    """It reads them in the source; the adapter knows what is there."""
    listed = {
        row.attribute: list(row.clauses) for row in entries(kind="port") if row.name.startswith(f"port.{port.name}.")
    }
    assert listed == port.mistakes()


def test_a_broken_adapter_is_called_so(port: Port) -> None:
    """Its name has the mistake, and a mistake that is none is refused."""
    name = next(iter(port.mistakes()))
    with talk_to(port, "--broken", name) as talk:
        assert greet(talk)["name"] == f"kmutex-{port.name} (broken: {name})"
    with talk_to(port, "--broken", "none-such") as talk:
        code, said = talk.ended()
        assert code == 2
        assert said.startswith("adapter: ")


def test_bye_ends_it_while_a_call_waits(port: Port) -> None:
    """Exit status 0, and the waiting call has had no reply."""
    with talk_to(port) as talk:
        greet(talk)
        assert talk.ask("lock", key="a") == "granted"
        call = talk.waiter("a", 1)
        assert talk.ask("bye") == "ok"
        assert talk.ended() == (0, "")
        assert talk.silent(call)


def test_the_end_of_its_input_ends_it(port: Port) -> None:
    """While a call waits as well."""
    with talk_to(port) as talk:
        greet(talk)
        assert talk.ask("lock", key="a") == "granted"
        talk.waiter("a", 1)
        talk.close()
        assert talk.ended() == (0, "")


def test_reset_forgets_what_hangs(port: Port) -> None:
    """A call that waits keeps the old locker; the new one knows nothing of it, and its id cancels nothing."""
    with talk_to(port) as talk:
        greet(talk)
        assert talk.ask("lock", key="a") == "granted"
        call = talk.waiter("a", 1)
        assert talk.ask("reset") == "ok"
        assert talk.keys() == {}
        assert talk.ask("lock", key="a") == "granted"
        assert talk.ask("cancel", call=call) == "ok"
        assert talk.keys() == {"a": {"refs": 1, "waiters": 0}}
        assert talk.silent(call)


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("dance", {}),
        ("lock", {}),
        ("lock", {"key": "a", "timeout": 1.5}),
        ("lock", {"key": 1}),
        ("unlock", {}),
        ("cancel", {}),
        ("hello", {"protocol": 2}),
    ],
    ids=str,
)
def test_a_command_that_cannot_be_obeyed_is_answered(port: Port, op: str, fields: dict[str, Any]) -> None:
    """With an error, by its id; the locker is as it was."""
    with talk_to(port) as talk:
        greet(talk)
        reply = talk.reply(talk.say(op, **fields))
        assert reply["result"] == "error"
        assert reply["message"]
        assert talk.keys() == {}


def test_a_command_before_reset_is_an_error(port: Port) -> None:
    """There is no locker yet."""
    with talk_to(port) as talk:
        assert talk.ask("lock", key="a") == "error"


@pytest.mark.parametrize(
    "line",
    ["nonsense", "", "[]", '{"op": "stat"}', '{"op": "stat", "id": 9', '{"op": "stat", "id": "9"}', " " * 70_000],
    ids=["word", "empty", "list", "no id", "half", "text for id", "long"],
)
def test_a_line_that_is_no_command_ends_the_adapter(port: Port, line: str) -> None:
    """Its id is not known, so nobody can be answered: standard error has a line, and the exit status is 2."""
    with talk_to(port) as talk:
        greet(talk)
        try:
            talk.write(line + "\n")
        except BrokenPipeError:
            assert len(line) > 65_536
        code, said = talk.ended()
        assert code == 2
        assert re.fullmatch(r"adapter: .+\n", said)


def test_a_long_line_that_is_allowed(port: Port) -> None:
    """A key that fills a line of 65,536 bytes, its end included."""
    with talk_to(port) as talk:
        greet(talk)
        key = "k" * 60_000
        line = f'{{"op": "lock", "id": 7777, "key": "{key}", "timeout": 0}}'
        talk.write(line + " " * (65_535 - len(line)) + "\n")
        assert set(talk.keys()) <= {key}
        assert talk.ask("unlock", key=key) in ("released", "unheld")


def test_every_mistake_stands_in_the_readme(port: Port) -> None:
    """By its name, in the port's README."""
    text = (port.folder / "README.md").read_text(encoding="utf-8")
    assert [name for name in port.mistakes() if f"`{name}`" not in text] == []


@pytest.mark.parametrize("name", PORTS)
def test_a_port_is_described(name: str) -> None:
    """It has a README with its commands, and a row in the table of ports; the clauses it names are clauses."""
    row = PORTS[name]
    readme = (FOLDER / name / "README.md").read_text(encoding="utf-8")
    for command in (row["build"], row["adapter"], row["test"]):
        assert " ".join(command) in readme
    assert row["package"] in readme
    assert f"[{name}]({name}/README.md)" in (FOLDER / "README.md").read_text(encoding="utf-8")
    for path in sources(FOLDER / name):
        assert set(re.findall(r"\bKM-[A-Z]+", path.read_text(encoding="utf-8"))) - {"KM-XXX", "KM-YYY"} <= CLAUSES, path


def sources(folder: Path) -> list[Path]:
    return [
        path
        for path in folder.rglob("*")
        if path.suffix in (".md", ".cpp", ".go", ".hpp", ".java", ".js", ".rs")
        and "target" not in path.relative_to(folder).parts
    ]


def test_no_folder_is_left_out() -> None:
    """Each folder of ports/ is a port of ports.toml."""
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(PORTS)
